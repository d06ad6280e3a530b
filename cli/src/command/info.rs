//! `info`.

use super::{handler, version};
use crate::cli::{Arity, Call, Command};
use crate::client::Query;
use crate::error::{Error, Outcome};
use crate::flags::{Kind, short};
use crate::output::template::Template;
use crate::output::{schema, units};
use crate::print;
use crate::value::{Map, Value};

pub static INFO: Command = Command {
    usage: "[OPTIONS]",
    about: "Show what the daemon says about itself and its host",
    names: "system info, info",
    arity: Arity::None,
    options_first: false,
    flags: &[&[short('f', "format", Kind::Text, "How to print it: 'json' or a Go template")]],
    run: handler!(run),
};

async fn run(call: Call) -> Outcome {
    let client = call.client()?;
    let answer = client.get("/info", &Query::default()).await;
    let source = call.flags.text("format");
    if source.is_empty() {
        let version = client.version().await;
        let about = version::client_info(&version, &call.app.context_name());
        print_client(&about, call.app.debug);
        print::out("\nServer:\n");
        let info = answer.map_err(failed)?;
        print_server(&info, call.app.debug);
        return Ok(());
    }
    let failure = answer.as_ref().err().map(ToString::to_string);
    if let Some(text) = &failure
        && !answer.as_ref().is_err_and(crate::client::Error::is_connection)
    {
        print::err(&format!("{text}\n"));
    }
    let unreachable =
        failure.filter(|_| answer.as_ref().is_err_and(crate::client::Error::is_connection));
    let mut info = answer.unwrap_or_default();
    add_client(&mut info, &call);
    let format = if source == "json" { "{{json .}}" } else { source };
    let template = Template::parse(format).map_err(|error| Error::Status {
        message: format!("template parsing error: {error}"),
        code: 64,
    })?;
    let mut failures: Vec<String> = unreachable.into_iter().collect();
    match template.execute(&schema::typed("system.dockerInfo", &info), false) {
        Ok(text) => print::line(&text),
        Err(error) => {
            print::line("");
            failures.push(error);
        }
    }
    super::joined(failures)
}

fn failed(error: crate::client::Error) -> Error {
    if error.is_connection() {
        return error.into();
    }
    print::err(&format!("ERROR: {error}\n"));
    Error::Message("errors pretty printing info".into())
}

fn add_client(info: &mut Value, call: &Call) {
    let mut about = version::client_info("", &call.app.context_name());
    if let Value::Map(map) = &mut about {
        map.entries.insert(0, ("Debug".into(), call.app.debug.into()));
        map.entries.push(("Plugins".into(), Vec::<Value>::new().into()));
        map.entries.push(("Warnings".into(), Value::NilList));
    }
    if !matches!(info, Value::Map(_)) {
        *info = Value::Map(Map::default());
    }
    if let Value::Map(map) = info {
        map.entries.push(("ClientInfo".into(), about));
    }
}

fn print_client(about: &Value, debug: bool) {
    print::out(&format!(
        "Client:\n Version:    {}\n Context:    {}\n Debug Mode: {debug}\n",
        about.at("Version").text(),
        about.at("Context").text()
    ));
}

/// Lines of the report.
struct Report<'a> {
    info: &'a Value,
    text: String,
}

impl Report<'_> {
    fn line(&mut self, label: &str, value: impl std::fmt::Display) {
        self.text.push_str(&format!("{label}: {value}\n"));
    }

    /// A line for a text that is not empty.
    fn some(&mut self, label: &str, key: &str) {
        let text = self.info.at(key).text().to_owned();
        if !text.is_empty() {
            self.line(label, text);
        }
    }

    fn words(&mut self, label: &str, list: &Value) {
        let words: Vec<&str> = list.items().iter().map(Value::text).collect();
        self.line(label, words.join(" "));
    }
}

fn print_server(info: &Value, client_debug: bool) {
    let mut report = Report { info, text: String::new() };
    report.line(" Containers", info.at("Containers").int());
    report.line("  Running", info.at("ContainersRunning").int());
    report.line("  Paused", info.at("ContainersPaused").int());
    report.line("  Stopped", info.at("ContainersStopped").int());
    report.line(" Images", info.at("Images").int());
    report.some(" Server Version", "ServerVersion");
    report.some(" Storage Driver", "Driver");
    for pair in info.at("DriverStatus").items() {
        let at = |index: usize| pair.items().get(index).map(Value::text).unwrap_or_default();
        report.text.push_str(&format!("  {}: {}\n", at(0), at(1)));
    }
    report.some(" Logging Driver", "LoggingDriver");
    report.some(" Cgroup Driver", "CgroupDriver");
    report.some(" Cgroup Version", "CgroupVersion");
    let plugins = info.at("Plugins");
    report.text.push_str(" Plugins:\n");
    report.words("  Volume", plugins.at("Volume"));
    report.words("  Network", plugins.at("Network"));
    if !plugins.at("Authorization").items().is_empty() {
        report.words("  Authorization", plugins.at("Authorization"));
    }
    report.words("  Log", plugins.at("Log"));
    list(&mut report, " CDI spec directories:", info.at("CDISpecDirs"), "  ");
    report.line(" Swarm", info.at("Swarm").at("LocalNodeState").text());
    let runtimes = info.at("Runtimes").entries();
    if !runtimes.is_empty() {
        let names: Vec<&str> = runtimes.iter().map(|(name, _)| name.as_str()).collect();
        report.line(" Runtimes", names.join(" "));
        report.line(" Default Runtime", info.at("DefaultRuntime").text());
    }
    if info.at("OSType").text() == "linux" {
        report.line(" Init Binary", info.at("InitBinary").text());
        report.line(" containerd version", info.at("ContainerdCommit").at("ID").text());
        report.line(" runc version", info.at("RuncCommit").at("ID").text());
        report.line(" init version", info.at("InitCommit").at("ID").text());
        security_options(&mut report);
    }
    report.some(" Kernel Version", "KernelVersion");
    report.some(" Operating System", "OperatingSystem");
    report.some(" OSType", "OSType");
    report.some(" Architecture", "Architecture");
    report.line(" CPUs", info.at("NCPU").int());
    report.line(" Total Memory", units::bytes_size(info.at("MemTotal").int() as f64));
    report.some(" Name", "Name");
    report.some(" ID", "ID");
    report.line(" Docker Root Dir", info.at("DockerRootDir").text());
    let debug = info.at("Debug").bool();
    report.line(" Debug Mode", debug);
    if debug || client_debug {
        report.line("  File Descriptors", info.at("NFd").int());
        report.line("  Goroutines", info.at("NGoroutines").int());
        report.line("  System Time", info.at("SystemTime").text());
        report.line("  EventsListeners", info.at("NEventsListener").int());
    }
    report.some(" HTTP Proxy", "HttpProxy");
    report.some(" HTTPS Proxy", "HttpsProxy");
    report.some(" No Proxy", "NoProxy");
    list(&mut report, " Labels:", info.at("Labels"), "  ");
    report.line(" Experimental", info.at("ExperimentalBuild").bool());
    registries(&mut report);
    report.line(" Live Restore Enabled", info.at("LiveRestoreEnabled").bool());
    report.some(" Product License", "ProductLicense");
    let pools = info.at("DefaultAddressPools").items();
    if !pools.is_empty() {
        report.text.push_str(" Default Address Pools:\n");
        for pool in pools {
            let (base, size) = (pool.at("Base").text(), pool.at("Size").int());
            report.text.push_str(&format!("   Base: {base}, Size: {size}\n"));
        }
    }
    report.text.push('\n');
    print::out(&report.text);
    for warning in info.at("Warnings").items() {
        print::err(&format!("{}\n", warning.text()));
    }
}

fn list(report: &mut Report<'_>, title: &str, values: &Value, indent: &str) {
    if values.items().is_empty() {
        return;
    }
    report.text.push_str(&format!("{title}\n"));
    for value in values.items() {
        report.text.push_str(&format!("{indent}{}\n", value.text()));
    }
}

/// `name=seccomp,profile=builtin` as two lines.
fn security_options(report: &mut Report<'_>) {
    let options = report.info.at("SecurityOptions").items();
    if options.is_empty() {
        return;
    }
    report.text.push_str(" Security Options:\n");
    for option in options {
        for pair in option.text().split(',') {
            match pair.split_once('=') {
                Some(("name", name)) => report.text.push_str(&format!("  {name}\n")),
                Some(("profile", profile)) => {
                    report.text.push_str(&format!("   Profile: {profile}\n"))
                }
                _ => {}
            }
        }
    }
}

fn registries(report: &mut Report<'_>) {
    let config = report.info.at("RegistryConfig");
    let (ranges, indexes) = (config.at("InsecureRegistryCIDRs"), config.at("IndexConfigs"));
    if !ranges.items().is_empty() || !indexes.entries().is_empty() {
        report.text.push_str(" Insecure Registries:\n");
        for (_, index) in indexes.entries() {
            if !index.at("Secure").bool() {
                report.text.push_str(&format!("  {}\n", index.at("Name").text()));
            }
        }
        for range in ranges.items() {
            report.text.push_str(&format!("  {}\n", range.text()));
        }
    }
    list(report, " Registry Mirrors:", config.at("Mirrors"), "  ");
}
