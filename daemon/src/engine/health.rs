//! The orders for a container's health check. The shim makes the probes, whether a daemon is there or not.

use std::time::Duration;

use cleat_proto::{docker::container::Config, kind::Kind, shim_v1::HealthCheck};
use oci_spec::runtime::Spec;

use super::{Error, Result};
use crate::{container::health::command, spec};

/// What Docker does where the configuration says nothing.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_PERIOD: Duration = Duration::ZERO;
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// Puts the orders together; `None` where there is no health check. A probe is what the container's own process is,
/// `spec`'s, but for its command and the terminal.
///
/// # Errors
/// If the process cannot be rendered.
pub(super) fn orders(config: &Config, spec: &Spec) -> Result<Option<HealthCheck>> {
    let (Some(command), Some(check)) = (command(config), &config.healthcheck) else {
        return Ok(None);
    };
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::with_source(Kind::Internal, "cannot render a health probe", error)
    };
    let mut process = spec.process().clone().ok_or_else(|| failed("no process".into()))?;
    process.set_args(Some(command)).set_terminal(Some(false)).set_console_size(None);
    if config.tty {
        let env = config.env.as_deref().unwrap_or_default();
        process.set_env(Some(spec::environment(env, &config.hostname, false)));
    }
    let or = |nanos: i64, default: Duration| {
        let default = u64::try_from(default.as_nanos()).unwrap_or(u64::MAX);
        u64::try_from(nanos).ok().filter(|&nanos| nanos != 0).unwrap_or(default)
    };
    Ok(Some(HealthCheck {
        process: serde_json::to_vec(&process).map_err(|error| failed(error.into()))?,
        interval_nanos: or(check.interval, INTERVAL),
        timeout_nanos: or(check.timeout, TIMEOUT),
        start_period_nanos: or(check.start_period, START_PERIOD),
        start_interval_nanos: or(check.start_interval, START_INTERVAL),
        retries: u32::try_from(check.retries).ok().filter(|&n| n != 0).unwrap_or(RETRIES),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cleat_proto::docker::container::HealthConfig;

    fn config(test: &[&str]) -> Config {
        let test = Some(test.iter().map(|&word| word.to_owned()).collect());
        let healthcheck = Some(HealthConfig { test, timeout: 5, ..HealthConfig::default() });
        Config { healthcheck, tty: true, ..Config::default() }
    }

    #[test]
    fn a_probe_is_the_containers_process_with_another_command_and_without_a_terminal() {
        let mut spec = Spec::default();
        spec.process_mut().as_mut().unwrap().set_terminal(Some(true)).set_cwd("/srv".into());
        let orders = orders(&config(&["CMD", "true"]), &spec).unwrap().unwrap();
        let process: oci_spec::runtime::Process = serde_json::from_slice(&orders.process).unwrap();
        assert_eq!(process.args().as_ref().unwrap()[..], ["true".to_owned()]);
        assert_eq!((process.terminal(), process.cwd().to_str()), (Some(false), Some("/srv")));
        assert!(process.env().as_ref().unwrap().iter().all(|entry| !entry.starts_with("TERM=")));
        let second = 1_000_000_000;
        assert_eq!((orders.interval_nanos, orders.timeout_nanos), (30 * second, 5));
        assert_eq!((orders.start_interval_nanos, orders.retries), (5 * second, 3));
    }

    #[test]
    fn without_a_check_there_are_no_orders() {
        for none in [Config::default(), config(&["NONE"])] {
            assert!(orders(&none, &Spec::default()).unwrap().is_none());
        }
    }
}
