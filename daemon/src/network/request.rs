//! What can be said at create about what is asked of the network. Pure; the texts are Docker's.

use std::collections::BTreeMap;

use cleat_proto::docker::container::EndpointSettings;

use super::{Error, controller::parse_mac};

/// Checks what is asked of networks that are known by name. `mac` is `Config.MacAddress` of old clients.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotImplemented`] for what later networks will have.
pub fn check(networks: &BTreeMap<String, EndpointSettings>, mac: &str) -> Result<(), Error> {
    for (name, endpoint) in networks {
        check_endpoint(name, endpoint)?;
        check_mac(name, &endpoint.mac_address)?;
        check_mac(name, mac)?;
    }
    Ok(())
}

fn check_mac(network: &str, text: &str) -> Result<(), Error> {
    if text.is_empty() || parse_mac(text).is_ok() {
        return Ok(());
    }
    Err(Error::Invalid(format!("invalid config for network {network}: invalid MAC address {text}")))
}

/// The predefined networks take none of these.
fn check_endpoint(network: &str, endpoint: &EndpointSettings) -> Result<(), Error> {
    let mut wrong = Vec::new();
    let predefined = matches!(network, "bridge" | "host" | "none");
    if predefined && endpoint.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
        wrong.push(
            "network-scoped alias is supported only for containers in user defined networks"
                .to_owned(),
        );
    }
    let ipam = endpoint.ipam_config.clone().unwrap_or_default();
    if !ipam.ipv4_address.is_empty() || !ipam.ipv6_address.is_empty() {
        if predefined {
            wrong.push(
                "user specified IP address is supported on user defined networks only".to_owned(),
            );
        }
        if !ipam.ipv4_address.is_empty() && ipam.ipv4_address.parse::<std::net::Ipv4Addr>().is_err()
        {
            wrong.push(format!("invalid IPv4 address: {}", ipam.ipv4_address));
        }
        if !ipam.ipv6_address.is_empty() && ipam.ipv6_address.parse::<std::net::Ipv6Addr>().is_err()
        {
            wrong.push(format!("invalid IPv6 address: {}", ipam.ipv6_address));
        }
        // The bridge's subnet is configured, and no address in it is for users to choose.
        if network == "bridge" {
            for address in [&ipam.ipv4_address, &ipam.ipv6_address] {
                if !address.is_empty() {
                    wrong.push(format!(
                        "no configured subnet or ip-range contain the IP address {address}"
                    ));
                }
            }
        } else if predefined {
            wrong.push(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
                    .to_owned(),
            );
        }
    }
    let head = format!("invalid config for network {network}: invalid endpoint settings:\n");
    refuse(head, &wrong)?;
    let links = endpoint.links.as_ref().is_some_and(|links| !links.is_empty());
    let options = endpoint.driver_opts.as_ref().is_some_and(|options| !options.is_empty());
    let link_local = ipam.link_local_ips.is_some_and(|addresses| !addresses.is_empty());
    for (is_set, what) in [
        (links, "a link"),
        (options, "a driver option of an endpoint"),
        (link_local, "a link-local address of an endpoint"),
    ] {
        if is_set {
            return Err(Error::NotImplemented(format!("{what} is not implemented yet")));
        }
    }
    Ok(())
}

/// Makes one error of all that is wrong, if anything is: behind `head` the one text, or a list.
///
/// # Errors
/// [`Error::Invalid`].
pub fn refuse(head: String, wrong: &[String]) -> Result<(), Error> {
    match wrong {
        [] => Ok(()),
        [one] => Err(Error::Invalid(head + one)),
        several => {
            let list: Vec<_> = several.iter().map(|one| format!("* {one}")).collect();
            Err(Error::Invalid(head + &list.join("\n")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cleat_proto::docker::container::EndpointIpamConfig;

    fn answer(endpoint: EndpointSettings) -> Result<(), Error> {
        let networks = [("bridge".to_owned(), endpoint)].into();
        check(&networks, "")
    }

    #[test]
    fn the_default_bridge_takes_no_aliases_and_no_addresses() {
        let aliases = EndpointSettings { aliases: Some(vec!["al".into()]), ..Default::default() };
        assert_eq!(
            answer(aliases).unwrap_err().to_string(),
            "invalid config for network bridge: invalid endpoint settings:\n\
             network-scoped alias is supported only for containers in user defined networks"
        );
        let ipam = EndpointIpamConfig { ipv4_address: "x".into(), ..Default::default() };
        let address = EndpointSettings { ipam_config: Some(ipam), ..Default::default() };
        assert_eq!(
            answer(address).unwrap_err().to_string(),
            "invalid config for network bridge: invalid endpoint settings:\n\
             * user specified IP address is supported on user defined networks only\n\
             * invalid IPv4 address: x\n\
             * no configured subnet or ip-range contain the IP address x"
        );
        let aliases = EndpointSettings { aliases: Some(vec!["al".into()]), ..Default::default() };
        assert!(check(&[("of-users".to_owned(), aliases)].into(), "").is_ok());
        assert!(answer(EndpointSettings::default()).is_ok());
    }

    #[test]
    fn a_wrong_hardware_address_is_refused_wherever_it_stands() {
        let mac = EndpointSettings { mac_address: "zz".into(), ..Default::default() };
        let text = "invalid config for network bridge: invalid MAC address zz";
        assert_eq!(answer(mac).unwrap_err().to_string(), text);
        let networks = [("bridge".to_owned(), EndpointSettings::default())].into();
        let old = check(&networks, "zz");
        assert_eq!(old.unwrap_err().to_string(), text);
    }

    #[test]
    fn what_is_not_there_yet_is_refused() {
        let links = EndpointSettings { links: Some(vec!["a:b".into()]), ..Default::default() };
        assert!(matches!(answer(links), Err(Error::NotImplemented(_))));
    }
}
