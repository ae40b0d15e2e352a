//! The receiving end of a tap of a session elsewhere: two UDP ports to which a relay copies packets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rtpproxy_core::recording::{Channel, Leg};
use rtpproxy_core::time::Wall;
use socket2::SockRef;

use crate::tap::{Inlet, Tap, TapHead, TapLimits, tap};

/// A pair of ports to which copies can be sent, for RTP and one above for RTCP.
#[derive(Debug)]
pub struct TapSockets {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    at: SocketAddr,
}

impl TapSockets {
    /// Opens them on a local address.
    ///
    /// # Errors
    ///
    /// There is no such address here, or there are no ports left.
    pub fn bind(ip: Ipv4Addr) -> io::Result<Self> {
        let mut result = Err(io::ErrorKind::AddrInUse.into());
        for _ in 0..BIND_TRIES {
            let rtp = UdpSocket::bind((ip, 0))?;
            let at = rtp.local_addr()?;
            let Some(above) = at.port().checked_add(1) else { continue };
            match UdpSocket::bind((ip, above)) {
                Ok(rtcp) => return Self { rtp, rtcp, at }.with_room(),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Where RTP is to be sent.
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// Listens from now on, with what has come already. Only copies from `sources` count, the ports from which
    /// RTP of each leg comes; RTCP comes from the port above.
    ///
    /// # Errors
    ///
    /// The system refuses another thread.
    pub fn listen(self, sources: [(SocketAddr, Leg); 2], limits: TapLimits) -> io::Result<ListeningTap> {
        let (inlet, tap) = tap(limits);
        let inlet = Arc::new(Mutex::new(inlet));
        let is_closed = Arc::new(AtomicBool::new(false));
        for (socket, channel) in [(self.rtp, Channel::Rtp), (self.rtcp, Channel::Rtcp)] {
            socket.set_read_timeout(Some(CLOSE_DELAY))?;
            let (inlet, is_closed) = (Arc::clone(&inlet), Arc::clone(&is_closed));
            thread::Builder::new().name("rtpproxy-tap".to_owned()).spawn(move || {
                let mut ear = Ear { socket, channel, sources };
                while !is_closed.load(Ordering::Acquire) && ear.hear(&inlet) {}
            })?;
        }
        Ok(ListeningTap { tap, is_closed })
    }

    /// A burst, or a reader that is late, shall find room.
    fn with_room(self) -> io::Result<Self> {
        for socket in [&self.rtp, &self.rtcp] {
            SockRef::from(socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        Ok(self)
    }
}

/// A [`Tap`] that is filled by a relay elsewhere. Dropping it closes its ports.
#[derive(Debug)]
pub struct ListeningTap {
    tap: Tap,
    is_closed: Arc<AtomicBool>,
}

impl ListeningTap {
    /// Closes the tap and, a moment later, its ports.
    pub fn close(&self) {
        self.tap.close();
        self.is_closed.store(true, Ordering::Release);
    }
}

impl std::ops::Deref for ListeningTap {
    type Target = Tap;

    fn deref(&self) -> &Tap {
        &self.tap
    }
}

impl Drop for ListeningTap {
    fn drop(&mut self) {
        self.close();
    }
}

struct Ear {
    socket: UdpSocket,
    channel: Channel,
    sources: [(SocketAddr, Leg); 2],
}

impl Ear {
    /// Waits a moment for a datagram; false if none can come any more.
    fn hear(&mut self, inlet: &Mutex<Inlet>) -> bool {
        let mut buffer = [0; DATAGRAM_MAX];
        let (len, from) = match self.socket.recv_from(&mut buffer) {
            Ok(heard) => heard,
            Err(error) => {
                use io::ErrorKind::{ConnectionReset, Interrupted, TimedOut, WouldBlock};
                return matches!(error.kind(), ConnectionReset | Interrupted | TimedOut | WouldBlock);
            }
        };
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = Wall(since_1970.as_nanos() as u64);
        let above = match self.channel {
            Channel::Rtp => 0,
            Channel::Rtcp => 1,
        };
        let is_from = |source: SocketAddr| {
            source.ip() == from.ip() && source.port().checked_add(above) == Some(from.port())
        };
        if let Some((_, leg)) = self.sources.iter().find(|(source, _)| is_from(*source)) {
            let head = TapHead { leg: *leg, channel: self.channel, at, src: None, dst: None };
            inlet.lock().unwrap_or_else(PoisonError::into_inner).push(head, &buffer[..len]);
        }
        true
    }
}

/// Our address towards `to`, as another host there sees us.
pub(super) fn local_address(to: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    // Nothing is sent by that.
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// The largest datagram that a relay passes on.
const DATAGRAM_MAX: usize = 8192;
/// How long a closed tap keeps its ports.
const CLOSE_DELAY: Duration = Duration::from_millis(100);
/// Pairs that are tried until both ports of one are free.
const BIND_TRIES: usize = 50;
/// Bytes that may wait in the system for each port. It gives what it allows.
const RECEIVE_BUFFER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tap::Taken;

    #[test]
    fn only_copies_from_the_sources_are_heard() {
        let sockets = TapSockets::bind(Ipv4Addr::LOCALHOST).unwrap();
        let (rtp, rtcp) = (sockets.at(), SocketAddr::new(sockets.at().ip(), sockets.at().port() + 1));
        let relay = TapSockets::bind(Ipv4Addr::LOCALHOST).unwrap();
        let other = TapSockets::bind(Ipv4Addr::LOCALHOST).unwrap();
        other.rtp.send_to(b"stranger", rtp).unwrap();
        relay.rtp.send_to(b"early", rtp).unwrap();
        let limits = TapLimits { packets: 10, bytes: TapLimits::BYTES_MIN };
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::MAX));
        let tap = sockets.listen([(nowhere, Leg::Caller), (relay.at(), Leg::Callee)], limits).unwrap();
        let mut heard = Vec::new();
        let mut hear = || match tap.take(1, Duration::from_secs(5)) {
            Taken::Packets(mut packets) => heard.push(packets.remove(0)),
            taken => panic!("{taken:?}"),
        };
        hear();
        relay.rtcp.send_to(b"report", rtcp).unwrap();
        hear();
        let what =
            |packet: &crate::tap::TapPacket| (packet.head.leg, packet.head.channel, packet.data.clone());
        assert_eq!(what(&heard[0]), (Leg::Callee, Channel::Rtp, b"early".to_vec()));
        assert_eq!(what(&heard[1]), (Leg::Callee, Channel::Rtcp, b"report".to_vec()));
        tap.close();
        assert_eq!(tap.take(1, Duration::ZERO), Taken::End);
    }
}
