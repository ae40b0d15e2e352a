//! Addresses: families, local addresses, and the numeric forms of the protocol.

use std::net::IpAddr;
use std::sync::Arc;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `ip`.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A local address that media ports are bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAddr {
    /// The address to bind; may be the wildcard.
    pub ip: IpAddr,
    /// What replies say instead of the address (`=ADV`, `-A`).
    pub advertised: Option<Arc<str>>,
}

impl LocalAddr {
    /// The plain address, advertised as itself.
    pub fn plain(ip: IpAddr) -> Self {
        Self { ip, advertised: None }
    }

    /// The family of the address.
    pub fn family(&self) -> Family {
        Family::of(self.ip)
    }
}
