//! The text of `-s`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use rtpproxy_core::addr::Family;

use crate::config::ControlSpec;
use crate::hostport::{self, CONTROL_PORT};
use crate::socket_file::check_path;

impl ControlSpec {
    /// Reads a transport (docs/protocol.md, control transports). Text without a known prefix is the path of a
    /// UNIX socket. Host names are looked up only if `resolve`.
    ///
    /// # Errors
    ///
    /// The message for the operator.
    pub fn parse(text: &str, resolve: bool) -> Result<Self, String> {
        let (prefix, rest) = match text.split_once(':') {
            Some((prefix, rest)) if PREFIXES.contains(&prefix) => (prefix, rest),
            Some(_) | None => ("unix", text),
        };
        let spec = match prefix {
            "udp" => address(rest, Family::V4, resolve).map(Self::Udp),
            "udp6" => address(rest, Family::V6, resolve).map(Self::Udp),
            "tcp" => address(rest, Family::V4, resolve).map(Self::Tcp),
            "tcp6" => address(rest, Family::V6, resolve).map(Self::Tcp),
            "cunix" => path(rest).map(Self::Cunix),
            "stdio" => nothing(rest).map(|()| Self::Stdio { always_drain: false }),
            "stdioc" => nothing(rest).map(|()| Self::Stdio { always_drain: true }),
            "systemd" => nothing(rest).map(|()| Self::Systemd),
            _ => path(rest).map(Self::Unix),
        };
        spec.map_err(|reason| format!("control socket {text:?}: {reason}"))
    }
}

impl fmt::Display for ControlSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Cunix(path) => write!(f, "cunix:{}", path.display()),
            Self::Tcp(SocketAddr::V4(addr)) => write!(f, "tcp:{addr}"),
            Self::Tcp(SocketAddr::V6(addr)) => write!(f, "tcp6:{addr}"),
            Self::Udp(SocketAddr::V4(addr)) => write!(f, "udp:{addr}"),
            Self::Udp(SocketAddr::V6(addr)) => write!(f, "udp6:{addr}"),
            Self::Stdio { always_drain: false } => f.write_str("stdio:"),
            Self::Stdio { always_drain: true } => f.write_str("stdioc:"),
            Self::Systemd => f.write_str("systemd:"),
            Self::Fd(fd) => write!(f, "fd:{fd}"),
        }
    }
}

fn address(text: &str, family: Family, resolve: bool) -> Result<SocketAddr, String> {
    let (host, port) = hostport::split(text)?;
    let port = port.unwrap_or(CONTROL_PORT);
    match (host, family) {
        ("*", Family::V4) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)),
        ("*", Family::V6) => Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)),
        _ => hostport::lookup(host, port, family, resolve),
    }
}

fn path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    check_path(&path).map_err(|error| error.to_string())?;
    Ok(path)
}

fn nothing(rest: &str) -> Result<(), String> {
    if rest.is_empty() { Ok(()) } else { Err("nothing may follow the colon".to_owned()) }
}

const PREFIXES: &[&str] = &["unix", "cunix", "tcp", "tcp6", "udp", "udp6", "stdio", "stdioc", "systemd"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_read() {
        let udp = |addr: &str| ControlSpec::Udp(addr.parse().unwrap());
        let tcp = |addr: &str| ControlSpec::Tcp(addr.parse().unwrap());
        let unix = |path: &str| ControlSpec::Unix(path.into());
        let table = [
            ("/run/x.sock", unix("/run/x.sock")),
            ("unix:/run/x.sock", unix("/run/x.sock")),
            ("relative", unix("relative")),
            ("foo:bar", unix("foo:bar")),
            ("fd:3", unix("fd:3")),
            ("UDP:1.2.3.4", unix("UDP:1.2.3.4")),
            ("unix:a:b", unix("a:b")),
            ("cunix:/x", ControlSpec::Cunix("/x".into())),
            ("udp:127.0.0.1", udp("127.0.0.1:22222")),
            ("udp:127.0.0.1:", udp("127.0.0.1:22222")),
            ("udp:127.0.0.1:5060", udp("127.0.0.1:5060")),
            ("udp:*", udp("0.0.0.0:22222")),
            ("udp:*:1", udp("0.0.0.0:1")),
            ("udp:0.0.0.0", udp("0.0.0.0:22222")),
            ("udp:localhost:7", udp("127.0.0.1:7")),
            ("udp6:::1:1234", udp("[::1]:1234")),
            ("udp6::::1234", udp("[::]:1234")),
            ("udp6:[::1]", udp("[::1]:22222")),
            ("udp6:*:9", udp("[::]:9")),
            ("tcp:127.0.0.1:0", tcp("127.0.0.1:0")),
            ("tcp6:::1:1", tcp("[::1]:1")),
            ("stdio:", ControlSpec::Stdio { always_drain: false }),
            ("stdioc:", ControlSpec::Stdio { always_drain: true }),
            ("systemd:", ControlSpec::Systemd),
        ];
        for (text, expected) in table {
            assert_eq!(ControlSpec::parse(text, true), Ok(expected), "{text}");
        }
    }

    #[test]
    fn bad_specs_are_named() {
        let long = format!("/{}", "x".repeat(107));
        let bad = [
            "",
            &long,
            "unix:",
            "cunix:",
            "udp:",
            "udp::22222",
            "udp:127.0.0.1:x",
            "tcp:127.0.0.1:65536",
            "tcp:::1:1",
            "udp6:127.0.0.1:1",
            "udp6:::1",
            "tcp:localhost:1",
            "stdio:x",
            "systemd:x",
        ];
        for text in bad {
            let error = ControlSpec::parse(text, false).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_spec_is_shown_as_it_is_written() {
        for text in [
            "unix:/x",
            "cunix:/x",
            "udp:1.2.3.4:5",
            "udp6:[::1]:5",
            "tcp:1.2.3.4:5",
            "tcp6:[::1]:5",
            "stdio:",
            "stdioc:",
            "systemd:",
        ] {
            assert_eq!(ControlSpec::parse(text, false).unwrap().to_string(), text);
        }
    }
}
