//! Hosts of the command line: numeric, `*`, or a name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};

use rtpproxy_core::addr::{Family, parse_numeric};

/// The first address of `host` in `family`. `*` is the wildcard; `names`: the name service may be asked.
pub(crate) fn resolve(host: &str, family: Family, names: bool) -> Result<IpAddr, String> {
    if host == "*" {
        return Ok(match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        });
    }
    if let Some(ip) = parse_numeric(host.as_bytes(), family) {
        return Ok(ip);
    }
    let kind = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    if !names {
        return Err(format!("{host}: not a numeric {kind} address"));
    }
    let found =
        (host, 0).to_socket_addrs().map_err(|error| format!("{host}: cannot be resolved: {error}"))?;
    found
        .map(|addr| addr.ip())
        .find(|ip| Family::of(*ip) == family)
        .ok_or_else(|| format!("{host}: has no {kind} address"))
}
