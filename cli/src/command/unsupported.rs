//! Commands that exist in docker and not here yet: they say so.

use super::handler;
use crate::cli::{Arity, Call, Command};
use crate::error::{Error, Outcome};

const fn command(usage: &'static str, about: &'static str, arity: Arity) -> Command {
    Command {
        usage,
        about,
        names: "",
        arity,
        options_first: true,
        flags: &[],
        run: handler!(refuse),
    }
}

pub static BUILD: Command =
    command("[OPTIONS] PATH | URL | -", "Build an image (not supported yet)", Arity::Any);
pub static LOGIN: Command =
    command("[OPTIONS] [SERVER]", "Log in to a registry (not supported yet)", Arity::AtMost(1));
pub static LOGOUT: Command =
    command("[SERVER]", "Log out from a registry (not supported yet)", Arity::AtMost(1));
pub static SEARCH: Command =
    command("[OPTIONS] TERM", "Search a registry (not supported yet)", Arity::Exactly(1));

async fn refuse(call: Call) -> Outcome {
    Err(Error::Message(format!(
        "{}: {} is not supported by this client yet",
        crate::app::NAME,
        call.name
    )))
}
