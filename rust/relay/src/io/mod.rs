//! Media sockets: what a worker needs of the kernel, as a trait, and the implementation with epoll.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use std::{fmt, io};

use rtpproxy_core::effects::{MediaPort, Packet, PairId};
use rtpproxy_core::recording::Channel;
use rtpproxy_core::time::Wall;
use socket2::Socket;

mod epoll;
mod sys;

pub(crate) use epoll::{EpollIo, Waker};
pub(crate) use sys::{duplicate, is_open_elsewhere, set_realtime};

/// The kernel interface of one worker: its media sockets, and the wait for them.
pub(crate) trait MediaIo {
    /// Opens a pair of sockets on `ip`: RTP on `port`, RTCP on `port + 1`.
    fn add_pair(&mut self, ip: IpAddr, port: u16) -> Result<PairId, BindError>;

    /// Closes a pair; returns the address that its RTP socket was bound to, `None` if there is no such pair.
    fn close_pair(&mut self, id: PairId) -> Option<SocketAddr>;

    /// Lets an IPv4 pair send with the TOS byte `tos` from now on.
    fn set_tos(&mut self, id: PairId, tos: u8) -> io::Result<()>;

    /// Gives a pair away, open as it is; `None` if there is no such pair.
    fn detach(&mut self, id: PairId) -> Option<SocketPair>;

    /// Takes a pair that another worker gave away.
    fn attach(&mut self, pair: SocketPair) -> PairId;

    /// Waits until a socket is readable, the worker is woken or `timeout` (rounded up to milliseconds) is
    /// over; `None` waits for ever. `ready` is emptied, then filled with readable sockets: not necessarily
    /// all, the others come with the next call.
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<MediaPort>) -> io::Result<()>;

    /// Lets packets gather for `tick`, looking at no socket; ends at once when the worker is woken.
    fn gather(&mut self, tick: Duration) -> io::Result<()>;

    /// Receives one datagram into `packet`; `None` if there is none. An error of an earlier datagram that the
    /// network reported meanwhile counts as none.
    fn receive(&mut self, port: MediaPort, packet: &mut Packet) -> Option<Datagram>;

    /// Sends one datagram.
    fn send(&mut self, via: MediaPort, to: SocketAddr, payload: &[u8]) -> io::Result<()>;
}

/// A pair of open media sockets on its way from one worker to another.
#[derive(Debug)]
pub(crate) struct SocketPair {
    rtp: Socket,
    rtcp: Socket,
    /// What the RTP socket is bound to.
    local: SocketAddr,
}

impl SocketPair {
    fn socket(&self, channel: Channel) -> &Socket {
        match channel {
            Channel::Rtp => &self.rtp,
            Channel::Rtcp => &self.rtcp,
        }
    }

    /// The one address that the sockets receive on, unless they are bound to the wildcard.
    fn fixed_ip(&self) -> Option<IpAddr> {
        Some(self.local.ip()).filter(|ip| !ip.is_unspecified())
    }
}

/// What is known of a received datagram besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// Who sent it.
    pub(crate) from: SocketAddr,
    /// To which of our addresses.
    pub(crate) to: Option<IpAddr>,
    /// When the kernel received it.
    pub(crate) stamp: Option<Wall>,
}

/// Why a pair of ports could not be bound.
#[derive(Debug)]
pub(crate) enum BindError {
    /// One of the two ports is in use or not permitted: another pair may do.
    Busy,
    /// No other pair would do better.
    Failed(io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("the port is in use"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// Sockets that one wait reports at most; commands are looked at between two waits.
pub(crate) const EVENTS_PER_WAIT: usize = 256;
