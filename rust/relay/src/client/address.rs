//! Where a daemon listens, as text.

use std::fmt;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;

use rtpproxy_core::addr::Family;

use crate::hostport::{self, CONTROL_PORT};

/// A place to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    /// One command a connection.
    #[cfg(unix)]
    Unix(PathBuf),
    /// Lines.
    #[cfg(unix)]
    Cunix(PathBuf),
}

impl Address {
    /// Reads `udp: udp6: tcp: tcp6: unix: cunix:` or a bare path; the error is the reason.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("udp", rest)) => inet(rest, Family::V4).map(Self::Udp),
            Some(("udp6", rest)) => inet(rest, Family::V6).map(Self::Udp),
            Some(("tcp", rest)) => inet(rest, Family::V4).map(Self::Tcp),
            Some(("tcp6", rest)) => inet(rest, Family::V6).map(Self::Tcp),
            Some(("stdio" | "stdioc" | "systemd", "")) => Err("only a relay can listen there".to_owned()),
            #[cfg(unix)]
            Some(("cunix", rest)) => path(rest).map(Self::Cunix),
            #[cfg(unix)]
            Some(("unix", rest)) => path(rest).map(Self::Unix),
            #[cfg(unix)]
            _ => path(text).map(Self::Unix),
            #[cfg(not(unix))]
            _ => Err("UNIX sockets are not supported on this system".to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(SocketAddr::V4(addr)) => write!(f, "udp:{addr}"),
            Self::Udp(SocketAddr::V6(addr)) => write!(f, "udp6:{addr}"),
            Self::Tcp(SocketAddr::V4(addr)) => write!(f, "tcp:{addr}"),
            Self::Tcp(SocketAddr::V6(addr)) => write!(f, "tcp6:{addr}"),
            #[cfg(unix)]
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            #[cfg(unix)]
            Self::Cunix(path) => write!(f, "cunix:{}", path.display()),
        }
    }
}

fn inet(text: &str, family: Family) -> Result<SocketAddr, String> {
    let (host, port) = hostport::split(text)?;
    hostport::lookup(host, port.unwrap_or(CONTROL_PORT), family, true)
}

#[cfg(unix)]
fn path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    crate::socket_file::check_path(&path).map_err(|error| error.to_string())?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let table = [
            ("udp:127.0.0.1", "udp:127.0.0.1:22222"),
            ("udp:localhost:7", "udp:127.0.0.1:7"),
            ("udp6:::1:7", "udp6:[::1]:7"),
            ("udp6:[::1]", "udp6:[::1]:22222"),
            ("tcp:127.0.0.1:7", "tcp:127.0.0.1:7"),
            ("tcp6:[::1]:7", "tcp6:[::1]:7"),
        ];
        for (text, expected) in table {
            assert_eq!(Address::parse(text).unwrap().to_string(), expected);
        }
        for bad in ["udp:", "tcp::1", "udp:127.0.0.1:x", "udp:::1:7", "stdio:", "systemd:"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_bare_path_is_a_one_shot_socket() {
        assert_eq!(Address::parse("/x").unwrap(), Address::Unix("/x".into()));
        assert_eq!(Address::parse("unix:/x").unwrap(), Address::Unix("/x".into()));
        assert_eq!(Address::parse("cunix:/x").unwrap(), Address::Cunix("/x".into()));
        for bad in ["", "unix:", "cunix:"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
