//! What happens to a command before it reaches a session: the rules that depend on the configuration, the
//! command counters, and the answers that need no session.

use std::net::{IpAddr, Ipv4Addr};

use crate::addr::LocalAddr;
use crate::command::{Command, NotifyTarget};

/// Where a command came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The IPv4 address of the sender; `None` for UNIX, stdio and IPv6 sockets.
    pub peer: Option<Ipv4Addr>,
    /// The IPv4 address that the control socket is bound to, unless it is the wildcard.
    pub bound: Option<Ipv4Addr>,
}

/// The answer of the host's routing table, asked for by the `r` modifier.
pub trait Routes {
    /// Our source address for packets to `to`.
    fn source_for(&self, to: IpAddr) -> Option<IpAddr>;
}

/// Which local addresses a `U` or `L` asks for (docs/protocol.md, local address choice).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalChoice {
    /// `l`, `r`, or the family of the media address: for both sides of a new session, or for a side of an
    /// existing one that gets a new port.
    pub replace: Option<LocalAddr>,
    /// The addresses of the direction letters in the order written.
    pub directions: Vec<LocalAddr>,
    /// The default address (bindaddr 0).
    pub default: LocalAddr,
}

/// A command with everything resolved that depends on the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The command.
    pub command: Command,
    /// For `U` and `L`.
    pub locals: Option<LocalChoice>,
    /// The notification target of a `U` with notify arguments; `None` if it is unknown.
    pub notify: Option<NotifyTarget>,
}
