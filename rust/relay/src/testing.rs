//! What the tests of several modules need.

use std::net::{Ipv6Addr, UdpSocket};

/// False on a machine without IPv6 on loopback, as containers often are: what needs it is then left out.
pub(crate) fn has_ipv6() -> bool {
    let has = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        eprintln!("NOT TESTED: this machine has no IPv6");
    }
    has
}
