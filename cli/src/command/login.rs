//! `login`, `logout`.

use std::io::{BufRead, Read, Write};

use super::handler;
use crate::cli::{Arity, Call, Command};
use crate::client::Query;
use crate::credentials::{self, Credentials, HUB, host_of};
use crate::error::Outcome;
use crate::flags::{Kind, flag, short};
use crate::{print, terminal};

pub static LOGIN: Command = Command {
    usage: "[OPTIONS] [SERVER]",
    about: "Log in to a registry",
    names: "",
    arity: Arity::AtMost(1),
    options_first: false,
    flags: &[&[
        short('p', "password", Kind::Text, "Password or token"),
        flag("password-stdin", Kind::Bool, "Read the password from stdin"),
        short('u', "username", Kind::Text, "User name"),
    ]],
    run: handler!(login),
};

pub static LOGOUT: Command = Command {
    usage: "[SERVER]",
    about: "Log out from a registry",
    names: "",
    arity: Arity::AtMost(1),
    options_first: false,
    flags: &[],
    run: handler!(logout),
};

/// The name under which credentials for a registry are kept.
fn key_of(call: &Call) -> String {
    let server = call.args.first().map_or("", String::as_str);
    match host_of(server) {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        host => host.to_owned(),
    }
}

async fn login(call: Call) -> Outcome {
    let key = key_of(&call);
    let given = given(&call)?;
    let known = credentials::find(&call.app, &key).filter(|_| given.is_none());
    let asked = match (given, known) {
        (Some((username, password)), _) => {
            Credentials { username, password, serveraddress: key, ..Credentials::default() }
        }
        (None, Some(known)) => {
            print::err(&format!(
                "Authenticating with existing credentials... [Username: {}]\n",
                known.username
            ));
            known
        }
        (None, None) => ask(&call, key)?,
    };
    let answer = call.client()?.post_json_for("/auth", &Query::default(), &asked).await?;
    let token = answer.at("IdentityToken").text().to_owned();
    let kept = Credentials { identitytoken: token, ..asked };
    if credentials::store(&call.app, &kept)? {
        let file = call.app.directory.join("config.json");
        print::err(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n",
            file.display()
        ));
    }
    print::line(answer.at("Status").text());
    Ok(())
}

/// What the flags say, if they say it all.
fn given(call: &Call) -> Outcome<Option<(String, String)>> {
    let flags = &call.flags;
    let username = flags.text("username").trim().to_owned();
    let password = flags.text("password");
    if flags.changed("password") {
        if flags.on("password-stdin") {
            return Err(
                "conflicting options: cannot specify both --password and --password-stdin".into()
            );
        }
        print::err("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n");
    }
    if flags.on("password-stdin") {
        if username.is_empty() {
            return Err("the --password-stdin option requires --username to be set".into());
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        let password = text.trim_end_matches('\n').trim_end_matches('\r').to_owned();
        return Ok(Some((username, password)));
    }
    let has_both = !username.is_empty() && !password.is_empty();
    Ok(has_both.then(|| (username, password.to_owned())))
}

/// Asks on the terminal for what the flags do not say.
fn ask(call: &Call, key: String) -> Outcome<Credentials> {
    if !terminal::stdin_is() {
        return Err("Error: Cannot perform an interactive login from a non TTY device".into());
    }
    let mut username = call.flags.text("username").trim().to_owned();
    if username.is_empty() {
        username = prompt("Username: ")?;
    }
    if username.is_empty() {
        return Err("username is required".into());
    }
    let mut password = call.flags.text("password").to_owned();
    if password.is_empty() {
        terminal::hide_input()?;
        let answer = prompt("Password: ");
        terminal::restore();
        print::out("\n");
        password = answer?;
    }
    if password.is_empty() {
        return Err("password is required".into());
    }
    Ok(Credentials { username, password, serveraddress: key, ..Credentials::default() })
}

fn prompt(text: &str) -> Outcome<String> {
    print::out(text);
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

async fn logout(call: Call) -> Outcome {
    let key = key_of(&call);
    print::line(&format!("Removing login credentials for {key}"));
    Ok(credentials::erase(&call.app, &key)?)
}
