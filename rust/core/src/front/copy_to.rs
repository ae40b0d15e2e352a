//! Where `C` copies to.

use std::net::IpAddr;
use std::str;

use super::Routes;
use crate::addr::{Family, parse_numeric};

/// The target of `C`, as far as it can be told without the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyTo {
    /// A recording of this name.
    File(Box<[u8]>),
    /// Datagrams to another host.
    Host {
        /// The host.
        to: IpAddr,
        /// Our address that they leave from.
        from: IpAddr,
        /// The port for RTP as written, if it is a number.
        port: Option<u64>,
    },
    /// Datagrams to a host whose address is not known yet: [`CopyTo::found`] must follow.
    Name {
        /// The host.
        host: Box<str>,
        /// The port for RTP as written, if it is a number.
        port: Option<u64>,
    },
    /// Datagrams to nowhere: there is no port, no such host, or no way to it.
    Nowhere,
}

impl CopyTo {
    /// Reads `udp:HOST:PORT`; what does not start like that is a name.
    pub fn parse(target: &[u8], routes: &dyn Routes) -> Self {
        let Some(target) = target.strip_prefix(b"udp:") else { return Self::File(target.into()) };
        let Some(colon) = target.iter().rposition(|byte| *byte == b':') else { return Self::Nowhere };
        let (host, port) = (&target[..colon], decimal(&target[colon + 1..]));
        match (parse_numeric(host, Family::V4), str::from_utf8(host)) {
            (Some(to), _) => Self::host(to, port, routes),
            (None, Ok(host)) if !host.is_empty() => Self::Name { host: host.into(), port },
            (None, _) => Self::Nowhere,
        }
    }

    /// The same target, once the address of its name is known or known to be none.
    #[must_use]
    pub fn found(self, addr: Option<IpAddr>, routes: &dyn Routes) -> Self {
        match (self, addr) {
            (Self::Name { port, .. }, Some(to)) => Self::host(to, port, routes),
            (Self::Name { .. }, None) => Self::Nowhere,
            (other, _) => other,
        }
    }

    fn host(to: IpAddr, port: Option<u64>, routes: &dyn Routes) -> Self {
        routes.source_for(to).map_or(Self::Nowhere, |from| Self::Host { to, from, port })
    }
}

/// A number of digits only, perhaps with a `+`; a huge one is some huge number.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        digit.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
    })
}
