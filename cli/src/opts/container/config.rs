//! What runs.

use cleat_proto::docker::container::{Config, HealthConfig, StrSlice};

use super::Read;
use crate::flags::Flags;
use crate::opts::{duration, pairs_to_map};

/// The container's own part of the request, image and networks aside.
pub fn config(flags: &Flags, arguments: &[String], read: &mut Read) -> Config {
    let attached = flags.list("attach");
    let attach = |stream: &str| attached.iter().any(|one| one == stream);
    let open_stdin = flags.on("interactive");
    let attach_stdin = open_stdin || attach("stdin");
    Config {
        hostname: flags.text("hostname").into(),
        domainname: flags.text("domainname").into(),
        user: flags.text("user").into(),
        attach_stdin,
        attach_stdout: attached.is_empty() || attach("stdout"),
        attach_stderr: attached.is_empty() || attach("stderr"),
        exposed_ports: Some(std::mem::take(&mut read.ports.exposed))
            .filter(|ports| !ports.is_empty()),
        tty: flags.on("tty"),
        open_stdin,
        stdin_once: open_stdin && attach_stdin,
        env: read.environment.take(),
        cmd: (!arguments.is_empty()).then(|| StrSlice(arguments.to_vec())),
        healthcheck: read.healthcheck.take(),
        volumes: Some(std::mem::take(&mut read.volumes.anonymous)),
        working_dir: flags.text("workdir").into(),
        entrypoint: flags
            .changed("entrypoint")
            .then(|| StrSlice(vec![flags.text("entrypoint").into()])),
        labels: Some(pairs_to_map(&read.labels)),
        stop_signal: flags.text("stop-signal").into(),
        stop_timeout: flags.changed("stop-timeout").then(|| flags.int("stop-timeout")),
        ..Config::default()
    }
}

/// The health check that replaces the image's.
///
/// # Errors
/// `--no-healthcheck` with another of its flags, a time that cannot be read, a negative number.
pub fn health(flags: &Flags) -> Result<Option<HealthConfig>, String> {
    let time = |name: &str| match flags.text(name) {
        "" => Ok(0),
        text => duration::parse(text),
    };
    let command = flags.text("health-cmd");
    let health = HealthConfig {
        test: (!command.is_empty()).then(|| vec!["CMD-SHELL".into(), command.into()]),
        interval: time("health-interval")?,
        timeout: time("health-timeout")?,
        start_period: time("health-start-period")?,
        start_interval: time("health-start-interval")?,
        retries: flags.int("health-retries"),
    };
    let asked = health != HealthConfig::default();
    if flags.on("no-healthcheck") {
        if asked {
            return Err("--no-healthcheck conflicts with --health-* options".into());
        }
        return Ok(Some(HealthConfig {
            test: Some(vec!["NONE".into()]),
            ..HealthConfig::default()
        }));
    }
    for (value, name) in [
        (health.interval, "interval"),
        (health.timeout, "timeout"),
        (health.retries, "retries"),
        (health.start_period, "start-period"),
        (health.start_interval, "start-interval"),
    ] {
        if value < 0 {
            return Err(format!("--health-{name} cannot be negative"));
        }
    }
    Ok(asked.then_some(health))
}
