//! What can be said of a network's addresses before it is made. Pure; the texts are Docker's.

use std::{fmt, net::IpAddr};

use cleat_proto::docker::network::{CreateIpam, CreateIpamConfig};

use super::{Error, request::refuse};

/// Checks subnets, ranges, gateways and auxiliary addresses. IPv6 subnets of a network without IPv6 are nobody's concern.
///
/// # Errors
/// [`Error::Invalid`] with all that is wrong.
pub fn check(ipam: Option<&CreateIpam>, ipv6: bool) -> Result<(), Error> {
    let configs = ipam.and_then(|ipam| ipam.config.as_deref()).unwrap_or_default();
    let mut wrong = Vec::new();
    for config in configs {
        match Prefix::parse(&config.subnet) {
            None => {
                wrong.push(format!("invalid subnet {}: invalid CIDR block notation", config.subnet))
            }
            Some(subnet) if subnet.address.is_ipv6() && !ipv6 => {}
            Some(subnet) => check_subnet(config, subnet, &mut wrong),
        }
    }
    refuse("invalid network config:\n".to_owned(), &wrong)
}

fn check_subnet(config: &CreateIpamConfig, subnet: Prefix, wrong: &mut Vec<String>) {
    if subnet != subnet.masked() {
        wrong.push(format!("invalid subnet {subnet}: it should be {}", subnet.masked()));
    }
    if !config.ip_range.is_empty() {
        check_range(&config.ip_range, subnet, wrong);
    }
    if let Some(why) = outside(&config.gateway, subnet) {
        wrong.push(format!("invalid gateway {}: {why}", config.gateway));
    }
    for (name, address) in config.auxiliary_addresses.iter().flatten() {
        if let Some(why) = outside(address, subnet) {
            wrong.push(format!("invalid auxiliary address {name}: {why}"));
        }
    }
}

fn check_range(text: &str, subnet: Prefix, wrong: &mut Vec<String>) {
    let Some(range) = Prefix::parse(text) else {
        return wrong.push(format!("invalid ip-range {text}: invalid CIDR block notation"));
    };
    if range.address.is_ipv4() != subnet.address.is_ipv4() {
        let family = subnet.family();
        return wrong.push(format!("invalid ip-range {text}: parent subnet is an {family} block"));
    }
    if range.length < subnet.length {
        wrong.push(format!(
            "invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"
        ));
    }
    if range != range.masked() {
        wrong.push(format!("invalid ip-range {range}: it should be {}", range.masked()));
    }
    if !subnet.contains(range.address) && !range.contains(subnet.address) {
        wrong.push(format!(
            "invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"
        ));
    }
}

/// Says why an address is none of the subnet's; an empty one was not asked for.
fn outside(text: &str, subnet: Prefix) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    match text.parse::<IpAddr>() {
        Err(_) => Some("invalid address".to_owned()),
        Ok(address) if address.is_ipv4() != subnet.address.is_ipv4() => {
            Some(format!("parent subnet is an {} block", subnet.family()))
        }
        Ok(address) if !subnet.contains(address) => {
            Some(format!("parent subnet {subnet} doesn't contain this address"))
        }
        Ok(_) => None,
    }
}

/// An address and how many of its bits name the network.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    fn parse(text: &str) -> Option<Self> {
        let (address, digits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        let has_zeroes = digits.len() > 1 && digits.starts_with('0');
        let length = digits.parse().ok().filter(|_| is_number && !has_zeroes)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (length <= longest).then_some(Self { address, length })
    }

    fn family(self) -> &'static str {
        if self.address.is_ipv4() { "IPv4" } else { "IPv6" }
    }

    fn masked(self) -> Self {
        Self { address: mask(self.address, self.length), ..self }
    }

    fn contains(self, address: IpAddr) -> bool {
        mask(address, self.length) == self.masked().address
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

fn mask(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let bits = u32::MAX.checked_shl(32_u32.saturating_sub(length.into())).unwrap_or(0);
            IpAddr::V4((u32::from(address) & bits).into())
        }
        IpAddr::V6(address) => {
            let bits = u128::MAX.checked_shl(128_u32.saturating_sub(length.into())).unwrap_or(0);
            IpAddr::V6((u128::from(address) & bits).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(subnet: &str, ip_range: &str, gateway: &str, auxiliary: &str) -> CreateIpamConfig {
        let auxiliary = (!auxiliary.is_empty()).then(|| ("a".to_owned(), auxiliary.to_owned()));
        CreateIpamConfig {
            subnet: subnet.into(),
            ip_range: ip_range.into(),
            gateway: gateway.into(),
            auxiliary_addresses: Some(auxiliary.into_iter().collect()),
        }
    }

    fn answer(configs: Vec<CreateIpamConfig>) -> String {
        match check(Some(&CreateIpam { config: Some(configs) }), false) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[track_caller]
    fn refused(config: CreateIpamConfig, text: &str) {
        assert_eq!(answer(vec![config]), format!("invalid network config:\n{text}"));
    }

    #[test]
    fn addresses_that_do_not_fit_are_refused_in_dockers_words() {
        let net = "10.98.0.0/24";
        let outside = "parent subnet 10.98.0.0/24 doesn't contain this address";
        refused(
            config("10.98.0.0", "", "", ""),
            "invalid subnet 10.98.0.0: invalid CIDR block notation",
        );
        refused(config("", "", "10.1.1.1", ""), "invalid subnet : invalid CIDR block notation");
        refused(
            config("10.98.0.1/24", "", "", ""),
            "invalid subnet 10.98.0.1/24: it should be 10.98.0.0/24",
        );
        refused(
            config(net, "", "192.168.9.1", ""),
            &format!("invalid gateway 192.168.9.1: {outside}"),
        );
        refused(config(net, "", "x", ""), "invalid gateway x: invalid address");
        refused(
            config(net, "", "fd00::1", ""),
            "invalid gateway fd00::1: parent subnet is an IPv4 block",
        );
        refused(config(net, "", "", "1.2.3.4"), &format!("invalid auxiliary address a: {outside}"));
        refused(
            config(net, "10.99.0.0/25", "", ""),
            "invalid ip-range 10.99.0.0/25: parent subnet 10.98.0.0/24 doesn't contain ip-range",
        );
        refused(
            config(net, "10.98.0.1/25", "", ""),
            "invalid ip-range 10.98.0.1/25: it should be 10.98.0.0/25",
        );
        refused(
            config(net, "10.98.0.0/20", "", ""),
            "invalid ip-range 10.98.0.0/20: CIDR block is bigger than its parent subnet 10.98.0.0/24",
        );
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let configs = vec![config("10.98.0.0/24", "a", "192.168.9.1", ""), config("z", "", "", "")];
        assert_eq!(
            answer(configs),
            "invalid network config:\n\
             * invalid ip-range a: invalid CIDR block notation\n\
             * invalid gateway 192.168.9.1: parent subnet 10.98.0.0/24 doesn't contain this address\n\
             * invalid subnet z: invalid CIDR block notation"
        );
    }

    #[test]
    fn what_fits_is_fine_and_so_is_ipv6_that_nobody_wants() {
        let fits = config("10.98.0.0/24", "10.98.0.128/25", "10.98.0.1", "10.98.0.7");
        assert_eq!(answer(vec![fits, config("fd00::7/64", "", "1.2.3.4", "")]), "");
        let wanted = CreateIpam { config: Some(vec![config("fd00::7/64", "", "", "")]) };
        let error = check(Some(&wanted), true).unwrap_err().to_string();
        assert!(error.ends_with("invalid subnet fd00::7/64: it should be fd00::/64"), "{error}");
        assert!(check(None, true).is_ok());
    }
}
