//! `HOST[:PORT]` as flags and the control protocol write it.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use rtpproxy_core::addr::{Family, parse_numeric};

/// The port of the control protocol.
pub(crate) const CONTROL_PORT: u16 = 22222;

/// Splits at the last colon; an IPv6 host may stand in brackets. A missing or empty port is `None`.
pub(crate) fn split(text: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => {
            let port = rest.strip_prefix(':').ok_or_else(|| format!("{text}: no colon after the bracket"))?;
            (host, Some(port))
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    match port {
        None | Some("") => Ok((host, None)),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port
            .parse()
            .map(|port| (host, Some(port)))
            .map_err(|_| format!("{text}: the port is above 65535")),
        Some(_) => Err(format!("{text}: the port is not a number")),
    }
}

/// The address of `host` in `family`. Names are looked up only if `resolve`.
///
/// # Errors
///
/// A message that names the host: it is empty, of the other family, or unknown.
pub fn lookup(host: &str, port: u16, family: Family, resolve: bool) -> Result<SocketAddr, String> {
    if host.is_empty() {
        return Err("the host is empty".to_owned());
    }
    if let Some(ip) = parse_numeric(host.as_bytes(), family) {
        return Ok(SocketAddr::new(ip, port));
    }
    if host.parse::<IpAddr>().is_ok() {
        return Err(format!("{host}: not an {} address", name(family)));
    }
    if !resolve {
        return Err(format!("{host}: not a numeric {} address", name(family)));
    }
    let mut found =
        (host, port).to_socket_addrs().map_err(|error| format!("{host}: cannot be resolved: {error}"))?;
    found
        .find(|addr| Family::of(addr.ip()) == family)
        .ok_or_else(|| format!("{host}: has no {} address", name(family)))
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_colon_splits() {
        assert_eq!(split("192.0.2.1:5"), Ok(("192.0.2.1", Some(5))));
        assert_eq!(split("host"), Ok(("host", None)));
        assert_eq!(split("host:"), Ok(("host", None)));
        assert_eq!(split("::1:1234"), Ok(("::1", Some(1234))));
        assert_eq!(split("[::1]:1234"), Ok(("::1", Some(1234))));
        assert_eq!(split("[::1]"), Ok(("::1", None)));
        for bad in ["host:x", "host:65536", "host:+1", "[::1]x:1"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_family_is_held() {
        let v4 = lookup("127.0.0.1", 1, Family::V4, false);
        assert_eq!(v4, Ok("127.0.0.1:1".parse().unwrap()));
        assert_eq!(lookup("127.1", 1, Family::V4, false), v4);
        assert!(lookup("127.0.0.1", 1, Family::V6, true).is_err());
        assert!(lookup("::1", 1, Family::V4, true).is_err());
        assert!(lookup("localhost", 1, Family::V4, false).is_err());
        assert_eq!(lookup("localhost", 1, Family::V4, true), v4);
        assert!(lookup("", 1, Family::V4, true).is_err());
    }
}
