//! Media sockets behind epoll: one wait for all, then one `recvmsg` and one `sendto` a packet.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rtpproxy_core::effects::{MediaPort, Packet, PairId};
use rtpproxy_core::recording::Channel;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use super::sys::{self, Extra};
use super::{BindError, Datagram, EVENTS_PER_WAIT, MediaIo, SocketPair};

/// The sockets of one worker in an epoll set, level-triggered, and the eventfd that wakes it.
pub(crate) struct EpollIo {
    epoll: OwnedFd,
    waker: Waker,
    pairs: Slab<SocketPair>,
    tos: u8,
}

impl EpollIo {
    /// An empty set; IPv4 sockets will send with the TOS byte `tos`.
    pub(crate) fn new(tos: u8) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let waker = Waker(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?));
        epoll::add(&epoll, &*waker.0, epoll::EventData::new_u64(WAKER), epoll::EventFlags::IN)?;
        Ok(Self { epoll, waker, pairs: Slab::new(), tos })
    }

    /// What ends a wait of this set from another thread.
    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn socket(&self, port: MediaPort) -> Option<(&Socket, &SocketPair)> {
        let pair = self.pairs.get(port.pair.0 as usize)?;
        Some((pair.socket(port.channel), pair))
    }

    fn open(&self, local: SocketAddr) -> io::Result<Socket> {
        let domain = Domain::for_address(local);
        let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
        let packet_info = if local.is_ipv4() {
            socket.set_tos_v4(self.tos.into())?;
            Extra::PacketInfoV4
        } else {
            socket.set_only_v6(true)?;
            Extra::PacketInfoV6
        };
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        sys::enable(socket.as_fd(), Extra::Timestamps)?;
        // A socket with a fixed address receives nothing that was sent to another one.
        if local.ip().is_unspecified() {
            sys::enable(socket.as_fd(), packet_info)?;
        }
        socket.bind(&local.into())?;
        Ok(socket)
    }

    fn watch(&self, socket: BorrowedFd<'_>, port: MediaPort) -> io::Result<()> {
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token(port)), epoll::EventFlags::IN)?;
        Ok(())
    }
}

impl MediaIo for EpollIo {
    fn add_pair(&mut self, ip: IpAddr, port: u16) -> Result<PairId, BindError> {
        let local = SocketAddr::new(ip, port);
        let rtp = self.open(local)?;
        let rtcp = self.open(SocketAddr::new(ip, port + 1))?;
        let id = PairId(u32::try_from(self.pairs.vacant_key()).expect("fewer pairs than descriptors"));
        self.watch(rtp.as_fd(), MediaPort { pair: id, channel: Channel::Rtp })?;
        self.watch(rtcp.as_fd(), MediaPort { pair: id, channel: Channel::Rtcp })?;
        self.pairs.insert(SocketPair { rtp, rtcp, local });
        Ok(id)
    }

    fn close_pair(&mut self, id: PairId) -> Option<SocketAddr> {
        self.detach(id).map(|pair| pair.local)
    }

    fn set_tos(&mut self, id: PairId, tos: u8) -> io::Result<()> {
        let pair = self.pairs.get(id.0 as usize).ok_or(io::ErrorKind::NotConnected)?;
        pair.rtp.set_tos_v4(tos.into())?;
        pair.rtcp.set_tos_v4(tos.into())
    }

    fn detach(&mut self, id: PairId) -> Option<SocketPair> {
        let pair = self.pairs.try_remove(id.0 as usize)?;
        // A child process that was forked but not yet executed keeps the sockets open, and with them their
        // place in the set. That the set knows them is an invariant, so there is no error to handle.
        let _ = epoll::delete(&self.epoll, &pair.rtp);
        let _ = epoll::delete(&self.epoll, &pair.rtcp);
        Some(pair)
    }

    fn attach(&mut self, pair: SocketPair) -> PairId {
        let id = PairId(u32::try_from(self.pairs.vacant_key()).expect("fewer pairs than descriptors"));
        for channel in [Channel::Rtp, Channel::Rtcp] {
            if let Err(error) = self.watch(pair.socket(channel).as_fd(), MediaPort { pair: id, channel }) {
                tracing::error!("media to {} will not be heard: {error}", pair.local);
            }
        }
        self.pairs.insert(pair);
        id
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<MediaPort>) -> io::Result<()> {
        ready.clear();
        let mut events = [const { MaybeUninit::uninit() }; EVENTS_PER_WAIT];
        let timeout = timeout.map(|timeout| timespec(Duration::from_millis(millis_up(timeout))));
        let events = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for event in events {
            match event.data.u64() {
                WAKER => self.waker.clear(),
                token => ready.push(media_port(token)),
            }
        }
        Ok(())
    }

    fn gather(&mut self, tick: Duration) -> io::Result<()> {
        let mut waker = [PollFd::new(&*self.waker.0, PollFlags::IN)];
        match poll(&mut waker, Some(&timespec(tick))) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn receive(&mut self, port: MediaPort, packet: &mut Packet) -> Option<Datagram> {
        let (socket, pair) = self.socket(port)?;
        loop {
            match sys::receive(socket.as_fd(), packet.receive_buffer()) {
                Ok(received) => {
                    packet.set_len(received.len);
                    let to = received.to.or_else(|| pair.fixed_ip());
                    return Some(Datagram { from: received.from, to, stamp: received.stamp });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing there, or an ICMP error that this call took off the socket.
                Err(_) => return None,
            }
        }
    }

    fn send(&mut self, via: MediaPort, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let (socket, _) = self.socket(via).ok_or(io::ErrorKind::NotConnected)?;
        loop {
            match rustix::net::sendto(socket, payload, SendFlags::empty(), &to) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Ends a worker's wait from another thread.
#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Ends the present wait, or else the next one.
    pub(crate) fn wake(&self) {
        // It fails only when the counter is full, and then the worker is being woken.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    fn clear(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }
}

impl From<io::Error> for BindError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Self::Busy,
            _ => Self::Failed(error),
        }
    }
}

/// A socket as the number that epoll hands back: the pair, and the channel in the lowest bit.
fn token(port: MediaPort) -> u64 {
    u64::from(port.pair.0) << 1 | u64::from(port.channel == Channel::Rtcp)
}

fn media_port(token: u64) -> MediaPort {
    let channel = if token & 1 == 0 { Channel::Rtp } else { Channel::Rtcp };
    MediaPort { pair: PairId((token >> 1) as u32), channel }
}

fn timespec(span: Duration) -> Timespec {
    Timespec { tv_sec: span.as_secs() as i64, tv_nsec: i64::from(span.subsec_nanos()) }
}

/// Milliseconds, rounded up: a wait that ends before the deadline would only spin.
fn millis_up(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The token of the eventfd.
const WAKER: u64 = u64::MAX;

const RECEIVE_BUFFER_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
    use std::time::{Instant, SystemTime};

    use rtpproxy_core::time::Wall;

    use super::*;
    use crate::testing::has_ipv6;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// A pair on the first free ports above `from`, as the walk of the port pool would find it.
    fn open(io: &mut EpollIo, ip: IpAddr, from: u16) -> (PairId, u16) {
        (from..)
            .step_by(2)
            .find_map(|port| match io.add_pair(ip, port) {
                Ok(id) => Some((id, port)),
                Err(BindError::Busy) => None,
                Err(BindError::Failed(error)) => panic!("{error}"),
            })
            .unwrap()
    }

    fn wait(io: &mut EpollIo) -> Vec<MediaPort> {
        let mut ready = Vec::new();
        io.wait(Some(Duration::from_secs(5)), &mut ready).unwrap();
        ready
    }

    fn now() -> Wall {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Wall(since_epoch.as_nanos() as u64)
    }

    #[test]
    fn a_datagram_comes_with_its_time_and_addresses() {
        let mut io = EpollIo::new(0xb8).unwrap();
        let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (id, port) = open(&mut io, LOOPBACK, 9000);
        let before = now();
        phone.send_to(b"rtcp", (LOOPBACK, port + 1)).unwrap();
        let rtcp = MediaPort { pair: id, channel: Channel::Rtcp };
        assert_eq!(wait(&mut io), [rtcp]);
        let mut packet = Packet::new();
        let datagram = io.receive(rtcp, &mut packet).unwrap();
        assert_eq!(packet.payload(), b"rtcp");
        assert_eq!((datagram.from, datagram.to), (phone.local_addr().unwrap(), Some(LOOPBACK)));
        let stamp = datagram.stamp.unwrap();
        assert!(before <= stamp && stamp <= now());
        assert_eq!(io.receive(rtcp, &mut packet), None);

        io.send(MediaPort { pair: id, channel: Channel::Rtp }, datagram.from, b"back").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(phone.recv_from(&mut buffer).unwrap(), (4, (LOOPBACK, port).into()));
    }

    #[test]
    fn on_the_wildcard_each_datagram_tells_where_it_was_sent() {
        let mut io = EpollIo::new(0xb8).unwrap();
        let mut packet = Packet::new();
        let v4 = IpAddr::V4(Ipv4Addr::new(127, 3, 2, 1));
        let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
        let families = [(Ipv4Addr::UNSPECIFIED.into(), v4), (Ipv6Addr::UNSPECIFIED.into(), v6)];
        for (any, to) in families.into_iter().take(if has_ipv6() { 2 } else { 1 }) {
            let (id, port) = open(&mut io, any, 9200);
            let phone = UdpSocket::bind(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
            phone.send_to(b"", (to, port)).unwrap();
            let rtp = MediaPort { pair: id, channel: Channel::Rtp };
            assert_eq!(wait(&mut io), [rtp]);
            let datagram = io.receive(rtp, &mut packet).unwrap();
            assert_eq!((datagram.from, datagram.to), (phone.local_addr().unwrap(), Some(to)));
            assert_eq!(packet.payload(), b"");
        }
    }

    #[test]
    fn a_pair_needs_both_ports() {
        let mut io = EpollIo::new(0xb8).unwrap();
        let (id, port) = open(&mut io, LOOPBACK, 9400);
        assert!(matches!(io.add_pair(LOOPBACK, port), Err(BindError::Busy)));
        // The RTCP port of the lower pair is free, its RTP port is our RTCP port, and the other way round.
        assert!(matches!(io.add_pair(LOOPBACK, port - 1), Err(BindError::Busy)));
        assert!(matches!(io.add_pair(LOOPBACK, port + 1), Err(BindError::Busy)));
        assert_eq!(io.close_pair(id), Some((LOOPBACK, port).into()));
        assert_eq!(io.close_pair(id), None);
        assert!(io.add_pair(LOOPBACK, port).is_ok());
        let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
        assert!(matches!(io.add_pair(elsewhere, port), Err(BindError::Failed(_))));
    }

    #[test]
    fn a_closed_pair_is_no_longer_heard() {
        let mut io = EpollIo::new(0xb8).unwrap();
        let (id, port) = open(&mut io, LOOPBACK, 9600);
        let rtp = MediaPort { pair: id, channel: Channel::Rtp };
        let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
        phone.send_to(b"late", (LOOPBACK, port)).unwrap();
        io.close_pair(id);
        let mut ready = Vec::new();
        io.wait(Some(Duration::ZERO), &mut ready).unwrap();
        assert_eq!(ready, []);
        assert_eq!(io.receive(rtp, &mut Packet::new()), None);
        assert!(io.send(rtp, phone.local_addr().unwrap(), b"").is_err());
    }

    #[test]
    fn a_pair_moves_with_what_waits_in_it() {
        let (mut one, mut other) = (EpollIo::new(0xb8).unwrap(), EpollIo::new(0xb8).unwrap());
        let (id, port) = open(&mut one, LOOPBACK, 9800);
        let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
        phone.send_to(b"waits", (LOOPBACK, port + 1)).unwrap();
        let pair = one.detach(id).unwrap();
        assert!(one.detach(id).is_none());
        let id = other.attach(pair);
        let rtcp = MediaPort { pair: id, channel: Channel::Rtcp };
        assert_eq!(wait(&mut other), [rtcp]);
        let mut packet = Packet::new();
        assert!(other.receive(rtcp, &mut packet).is_some());
        assert_eq!(packet.payload(), b"waits");
        let mut ready = Vec::new();
        one.wait(Some(Duration::ZERO), &mut ready).unwrap();
        assert_eq!(ready, []);
        assert_eq!(other.close_pair(id), Some((LOOPBACK, port).into()));
    }

    #[test]
    fn the_tos_byte_is_that_of_the_pair() {
        let mut io = EpollIo::new(0xb8).unwrap();
        let (id, _) = open(&mut io, LOOPBACK, 9850);
        let (other, _) = open(&mut io, LOOPBACK, 9850);
        io.set_tos(id, 8).unwrap();
        let tos = |id: PairId, channel| {
            let (socket, _) = io.socket(MediaPort { pair: id, channel }).unwrap();
            socket.tos_v4().unwrap()
        };
        let both = |id| [tos(id, Channel::Rtp), tos(id, Channel::Rtcp)];
        assert_eq!((both(id), both(other)), ([8, 8], [0xb8, 0xb8]));
        assert!(io.set_tos(PairId(77), 8).is_err());
    }

    #[test]
    fn being_woken_ends_both_waits() {
        let mut io = EpollIo::new(0xb8).unwrap();
        let waker = io.waker();
        waker.wake();
        waker.wake();
        let start = Instant::now();
        io.gather(Duration::from_secs(5)).unwrap();
        assert_eq!(wait(&mut io), []);
        assert!(start.elapsed() < Duration::from_secs(4));
        // The wait has taken notice: the next one takes its time.
        io.wait(Some(Duration::from_micros(1500)), &mut Vec::new()).unwrap();
        io.gather(Duration::from_micros(500)).unwrap();
        assert!(start.elapsed() >= Duration::from_micros(2500));
    }
}
