//! What a flag's value may be: its name in `--help`, and the check when it is set.

use crate::{go, opts};

/// A flag's type. The comment is what `--help` calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Bool,
    /// string
    Text,
    /// int
    Int,
    /// uint
    Uint64,
    /// uint16
    Uint16,
    /// list
    List,
    /// strings: values separated by commas
    Strings,
    /// map
    Map,
    /// filter
    Filter,
    /// duration
    Duration,
    /// bytes
    Bytes,
    /// bytes, or -1
    SwapBytes,
    /// decimal
    Cpus,
    /// list of KEY or KEY=VALUE from the environment
    Env,
    /// list of labels
    Label,
    /// list of streams
    Stream,
    /// list of IP addresses
    Ip,
    /// list of search domains
    Domain,
    /// list of HOST:IP
    ExtraHost,
    /// list of links
    Link,
    /// map of sysctls
    Sysctl,
    /// list of cgroup device rules
    DeviceRule,
    /// list of DEVICE:WEIGHT
    WeightDevice,
    /// list of DEVICE:BYTES
    BpsDevice,
    /// list of DEVICE:COUNT
    IopsDevice,
    Ulimit,
    Mount,
    Network,
    Gpus,
}

impl Kind {
    /// The name of the type in `--help`; empty for booleans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "",
            Self::Text => "string",
            Self::Int => "int",
            Self::Uint64 => "uint",
            Self::Uint16 => "uint16",
            Self::Strings => "strings",
            Self::Map | Self::Sysctl => "map",
            Self::Filter => "filter",
            Self::Duration => "duration",
            Self::Bytes | Self::SwapBytes => "bytes",
            Self::Cpus => "decimal",
            Self::Ulimit => "ulimit",
            Self::Mount => "mount",
            Self::Network => "network",
            Self::Gpus => "gpu-request",
            Self::List
            | Self::Env
            | Self::Label
            | Self::Stream
            | Self::Ip
            | Self::Domain
            | Self::ExtraHost
            | Self::Link
            | Self::DeviceRule
            | Self::WeightDevice
            | Self::BpsDevice
            | Self::IopsDevice => "list",
        }
    }

    /// Checks a value as it is set, and answers what is kept of it.
    ///
    /// # Errors
    /// Docker's text of what is wrong with it.
    pub fn check(self, value: &str) -> Result<Vec<String>, String> {
        let kept = match self {
            Self::Strings => {
                return if value.is_empty() { Ok(Vec::new()) } else { opts::csv::fields(value) };
            }
            Self::Filter => return opts::filter::check(value),
            Self::Bool => go::parse_bool(value)
                .ok_or_else(|| go::NumberFault::Syntax.message("ParseBool", value))?
                .to_string(),
            Self::Int => {
                go::parse_int(value, 0, 64).map_err(|fault| fault.message("ParseInt", value))?;
                value.to_owned()
            }
            Self::Uint64 => {
                go::parse_uint(value, 0, 64).map_err(|fault| fault.message("ParseUint", value))?;
                value.to_owned()
            }
            Self::Uint16 => {
                go::parse_uint(value, 0, 16).map_err(|fault| fault.message("ParseUint", value))?;
                value.to_owned()
            }
            Self::Duration => {
                opts::duration::parse(value)?;
                value.to_owned()
            }
            Self::SwapBytes if value == "-1" => value.to_owned(),
            Self::Bytes | Self::SwapBytes => opts::size::ram_in_bytes(value)?.to_string(),
            Self::Cpus => opts::cpus::parse(value)?.to_string(),
            Self::Env => opts::env::validate(value)?,
            Self::Label => opts::label::validate(value)?,
            Self::Stream => opts::stream(value)?,
            Self::Ip => opts::address::validate_ip(value)?,
            Self::Domain => opts::address::validate_search_domain(value)?,
            Self::ExtraHost => opts::address::validate_extra_host(value)?,
            Self::Link => opts::link::validate(value)?,
            Self::Sysctl => opts::sysctl(value)?,
            Self::DeviceRule => opts::device::validate_rule(value)?,
            Self::WeightDevice => opts::blkio::weight(value).map(|_| value.to_owned())?,
            Self::BpsDevice => opts::blkio::bps(value).map(|_| value.to_owned())?,
            Self::IopsDevice => opts::blkio::iops(value).map(|_| value.to_owned())?,
            Self::Ulimit => opts::ulimit::parse(value).map(|_| value.to_owned())?,
            Self::Mount => opts::mount::parse(value).map(|_| value.to_owned())?,
            Self::Network => opts::network::parse(value).map(|_| value.to_owned())?,
            Self::Gpus => opts::gpus::parse(value).map(|_| value.to_owned())?,
            Self::Text | Self::List | Self::Map => value.to_owned(),
        };
        Ok(vec![kept])
    }
}
