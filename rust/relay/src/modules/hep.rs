//! `acct_rtcp_hep`: RTCP reports to a capture server.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use rtpproxy_core::command::CallId;
use rtpproxy_core::effects::CapturedRtcp;
use rtpproxy_core::hep::HepMessage;
use rtpproxy_core::rtcp_json::write_json;
use rtpproxy_core::time::Wall;
use socket2::{Domain, Socket, Type};

use crate::config::{HepConfig, HepTransport};
use crate::work::{ThreadKind, Work, WorkQueue, WorkThread, start};

/// The way to a capture server, open.
#[derive(Debug)]
pub(super) struct Hep {
    server: Server,
    capture_id: u32,
    /// What is sent at a time.
    json: String,
    message: Vec<u8>,
    bad_reports: Throttle,
    send_errors: Throttle,
    /// The log knows already that the server cannot be reached.
    failing: bool,
}

impl Hep {
    /// Connects to the server; a UDP server may be deaf all the same.
    pub(super) fn open(config: &HepConfig, resolve: bool) -> io::Result<Self> {
        Ok(Self {
            server: Server::find(config, resolve)?,
            capture_id: config.capture_id,
            json: String::new(),
            message: Vec::new(),
            bad_reports: Throttle::default(),
            send_errors: Throttle::default(),
            failing: false,
        })
    }

    /// Starts the thread that sends.
    pub(super) fn start(mut self) -> io::Result<(WorkQueue<Report>, WorkThread)> {
        start(THREAD, move |work| self.run(work))
    }

    fn run(&mut self, work: &Work<Report>) {
        let mut losses = Throttle::default();
        while let Some(report) = work.next() {
            if self.encode(&report) {
                if self.deliver(work) {
                    work.succeed(1);
                } else {
                    work.lose(1);
                    if self.failing {
                        // The relay has ended, and the server is no more likely to take the rest.
                        work.lose(work.waiting().count() as u64);
                        break;
                    }
                }
            }
            // What was lost while the server could not be reached is told when it can be again.
            if !self.failing && losses.may_speak() {
                self.tell_lost(work.take_lost(), &mut losses);
            }
        }
        self.tell_lost(work.take_lost(), &mut losses);
    }

    fn tell_lost(&self, lost: u64, losses: &mut Throttle) {
        if lost > 0 {
            losses.count();
            tracing::error!("acct_rtcp_hep: {lost} RTCP reports for {} were lost", self.server);
        }
    }

    /// Makes the message of a report; false if none can be made of it.
    fn encode(&mut self, report: &Report) -> bool {
        self.json.clear();
        self.message.clear();
        let error = match write_json(&report.rtcp, &mut self.json) {
            Ok(()) => {
                let message = HepMessage {
                    call_id: report.call_id.as_bytes(),
                    at: report.at,
                    src: report.src,
                    dst: report.dst,
                    capture_id: self.capture_id,
                    payload: self.json.as_bytes(),
                };
                match message.encode(&mut self.message) {
                    Ok(()) => return true,
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        if let Some(more) = self.bad_reports.count() {
            tracing::error!(
                call_id = %report.call_id,
                "acct_rtcp_hep: RTCP from {} is not sent to {}: {error}{}", report.src, self.server, More(more)
            );
        }
        false
    }

    /// Sends the message. Over TCP it is tried until it works; false if it is lost.
    fn deliver(&mut self, work: &Work<Report>) -> bool {
        loop {
            let error = match self.server.send(&self.message) {
                Ok(()) => {
                    if std::mem::take(&mut self.failing) {
                        tracing::warn!("acct_rtcp_hep: {} can be reached again", self.server);
                    }
                    return true;
                }
                Err(error) => error,
            };
            if self.server.transport == HepTransport::Udp {
                if let Some(more) = self.send_errors.count() {
                    tracing::error!("acct_rtcp_hep: can't send to {}: {error}{}", self.server, More(more));
                }
                return false;
            }
            if !std::mem::replace(&mut self.failing, true) {
                tracing::error!("acct_rtcp_hep: can't send to {}: {error}; RTCP reports wait", self.server);
            }
            if work.ends_within(RETRY_AFTER) {
                return false;
            }
        }
    }
}

/// An RTCP packet on its way.
#[derive(Debug)]
pub(super) struct Report {
    call_id: CallId,
    at: Wall,
    src: SocketAddr,
    dst: SocketAddr,
    rtcp: Box<[u8]>,
}

impl Report {
    /// With a copy of the packet.
    pub(super) fn new(captured: &CapturedRtcp, rtcp: &[u8]) -> Self {
        let &CapturedRtcp { ref call_id, at, src, dst, payload: _ } = captured;
        Self { call_id: call_id.clone(), at, src, dst, rtcp: rtcp.into() }
    }
}

/// A capture server, connected or not.
#[derive(Debug)]
struct Server {
    addr: SocketAddr,
    transport: HepTransport,
    socket: Option<Socket>,
}

impl Server {
    /// Connects to the first address of the host that takes the connection.
    fn find(config: &HepConfig, resolve: bool) -> io::Result<Self> {
        let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for addr in addresses(config, resolve)? {
            let mut server = Self { addr, transport: config.transport, socket: None };
            match server.connect() {
                Ok(()) => return Ok(server),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn connect(&mut self) -> io::Result<()> {
        let kind = match self.transport {
            HepTransport::Udp => Type::DGRAM,
            HepTransport::Tcp => Type::STREAM,
        };
        let socket = Socket::new(Domain::for_address(self.addr), kind, None)?;
        socket.set_write_timeout(Some(WRITE_PATIENCE))?;
        match self.transport {
            HepTransport::Udp => socket.connect(&self.addr.into())?,
            HepTransport::Tcp => {
                socket.connect_timeout(&self.addr.into(), CONNECT_PATIENCE)?;
                socket.set_tcp_nodelay(true)?;
            }
        }
        self.socket = Some(socket);
        Ok(())
    }

    /// Sends a message whole, if need be over a new connection. After an error there is none.
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        if let Some(socket) = &self.socket {
            if self.transport == HepTransport::Udp {
                return send_datagram(socket, message);
            }
            if is_open(socket) && write_all(socket, message).is_ok() {
                return Ok(());
            }
            // A part of the message may be there: nothing can follow it on this connection.
            self.socket = None;
        }
        self.connect()?;
        let Some(socket) = &self.socket else { return Err(ErrorKind::NotConnected.into()) };
        let written = write_all(socket, message);
        if written.is_err() {
            self.socket = None;
        }
        written
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.transport, self.addr)
    }
}

/// Something that may come often, and is logged at most once a minute.
#[derive(Debug, Default)]
struct Throttle {
    spoke: Option<Instant>,
    silenced: u64,
}

impl Throttle {
    /// Counts one. If it is to be logged, the number of those that were not since the last that was.
    fn count(&mut self) -> Option<u64> {
        if !self.may_speak() {
            self.silenced += 1;
            return None;
        }
        self.spoke = Some(Instant::now());
        Some(std::mem::take(&mut self.silenced))
    }

    fn may_speak(&self) -> bool {
        self.spoke.is_none_or(|spoke| spoke.elapsed() >= LOG_INTERVAL)
    }
}

/// The number of those that were not logged, behind one that is.
struct More(u64);

impl std::fmt::Display for More {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            more => write!(f, "; {more} more since the last line"),
        }
    }
}

/// The addresses of the server. A name is looked up only if `resolve`.
pub(super) fn addresses(config: &HepConfig, resolve: bool) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = config.host.parse() {
        return Ok(vec![SocketAddr::new(ip, config.port)]);
    }
    if !resolve {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "not a numeric address, and names are not looked up",
        ));
    }
    Ok((config.host.as_str(), config.port).to_socket_addrs()?.collect())
}

fn send_datagram(socket: &Socket, message: &[u8]) -> io::Result<()> {
    let sent = match socket.send(message) {
        // That was the answer to an earlier one.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => socket.send(message),
        sent => sent,
    };
    sent.map(drop)
}

fn write_all(socket: &Socket, mut message: &[u8]) -> io::Result<()> {
    while !message.is_empty() {
        match socket.send_with_flags(message, libc::MSG_NOSIGNAL) {
            Ok(sent) => message = &message[sent..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Throws away what the server wrote; false if it has closed.
fn is_open(socket: &Socket) -> bool {
    let mut scratch = [MaybeUninit::uninit(); 4096];
    for _ in 0..READS_MAX {
        match socket.recv_with_flags(&mut scratch, libc::MSG_DONTWAIT) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
    true
}

const THREAD: ThreadKind = ThreadKind {
    name: "acct-hep",
    queue_max: 4096,
    end_patience: Duration::from_secs(1),
    too_late: "acct_rtcp_hep: the capture server does not listen: RTCP reports are lost",
};
/// After a failure, over TCP.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a server may take to accept bytes before the connection is given up.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);
/// How often the same trouble is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Buffers of a server's bytes thrown away at a time.
const READS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::sync::Arc;
    use std::thread;

    use rtpproxy_core::effects::Payload;

    use super::*;

    /// A receiver report about nobody, by the SSRC 9.
    const RTCP: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 9];

    fn config(port: u16, transport: HepTransport) -> HepConfig {
        HepConfig { host: "127.0.0.1".into(), port, transport, capture_id: 101 }
    }

    fn report(call_id: &str, rtcp: &[u8]) -> Arc<Report> {
        let captured = CapturedRtcp {
            call_id: call_id.into(),
            at: Wall(1_700_000_000_000_000_000),
            src: "127.0.0.1:4001".parse().unwrap(),
            dst: "127.0.0.1:35001".parse().unwrap(),
            payload: Payload::Received,
        };
        Arc::new(Report::new(&captured, rtcp))
    }

    /// The next message of a connection.
    fn message(stream: &mut TcpStream) -> Vec<u8> {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut message = vec![0; 6];
        stream.read_exact(&mut message).unwrap();
        assert_eq!(message[..4], *b"HEP3");
        let len = usize::from(u16::from_be_bytes([message[4], message[5]]));
        message.resize(len, 0);
        stream.read_exact(&mut message[6..]).unwrap();
        message
    }

    fn names(message: &[u8], call_id: &str) -> bool {
        message.windows(call_id.len()).any(|part| part == call_id.as_bytes())
    }

    #[test]
    fn a_datagram_for_each_report() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let port = server.local_addr().unwrap().port();
        let (queue, thread) = Hep::open(&config(port, HepTransport::Udp), false).unwrap().start().unwrap();
        queue.add(report("call-1", &RTCP));
        queue.add(report("no-rtcp", b"\x80"));
        queue.add(report("call-2", &RTCP));
        let mut buffer = [0; 2000];
        for call_id in ["call-1", "call-2"] {
            let len = server.recv(&mut buffer).unwrap();
            assert!(names(&buffer[..len], call_id));
            assert!(buffer[..len].ends_with(b"{\n \"ssrc\": 9,\n \"type\": 201,\n \"report_count\": 0\n}"));
        }
        drop(thread);
        assert_eq!(queue.lost(), 0);
    }

    #[test]
    fn a_deaf_datagram_server_is_no_trouble() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = server.local_addr().unwrap();
        drop(server);
        let (queue, thread) =
            Hep::open(&config(addr.port(), HepTransport::Udp), false).unwrap().start().unwrap();
        for _ in 0..10 {
            queue.add(report("lost", &RTCP));
        }
        while !queue.is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
        let server = UdpSocket::bind(addr).unwrap();
        queue.add(report("heard", &RTCP));
        drop(thread);
        let mut buffer = [0; 2000];
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut heard = || server.recv(&mut buffer).map(|len| names(&buffer[..len], "heard")).unwrap();
        // The last of the others may have been late.
        assert!(heard() || heard());
    }

    #[test]
    fn a_connection_carries_all_and_ends_when_all_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (queue, thread) = Hep::open(&config(port, HepTransport::Tcp), false).unwrap().start().unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        for number in 0..1000 {
            queue.add(report(&format!("call-{number}"), &RTCP));
        }
        // What the server says is of no interest.
        stream.write_all(&[b'x'; 100_000]).unwrap();
        drop(thread);
        for number in 0..1000 {
            assert!(names(&message(&mut stream), &format!("call-{number}")));
        }
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }

    #[test]
    fn a_server_that_comes_back_gets_what_waited() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (queue, thread) =
            Hep::open(&config(addr.port(), HepTransport::Tcp), false).unwrap().start().unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        queue.add(report("first", &RTCP));
        assert!(names(&message(&mut stream), "first"));
        drop((stream, listener));
        queue.add(report("waiting-0.", &RTCP));
        while !queue.is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
        for number in 1..=THREAD.queue_max + 10 {
            queue.add(report(&format!("waiting-{number}."), &RTCP));
        }
        assert_eq!(queue.lost(), 10);
        let listener = loop {
            match TcpListener::bind(addr) {
                Ok(listener) => break listener,
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        };
        let (mut stream, _) = listener.accept().unwrap();
        for number in 0..=THREAD.queue_max {
            assert!(names(&message(&mut stream), &format!("waiting-{number}.")), "{number}");
        }
        drop(thread);
    }

    #[test]
    fn the_end_does_not_wait_for_a_server_that_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (queue, thread) = Hep::open(&config(port, HepTransport::Tcp), false).unwrap().start().unwrap();
        drop((listener.accept().unwrap(), listener));
        for _ in 0..100 {
            queue.add(report("lost", &RTCP));
        }
        drop(thread);
        assert!(queue.is_empty(), "the thread has given them all up");
    }

    #[test]
    fn a_server_that_cannot_be_reached_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let refused = Hep::open(&config(port, HepTransport::Tcp), false).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let named = |host: &str| HepConfig { host: host.into(), ..config(9060, HepTransport::Udp) };
        assert_eq!(Hep::open(&named("localhost"), false).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(Hep::open(&named("localhost"), true).is_ok());
        assert!(Hep::open(&named("no.such.host.invalid"), true).is_err());
    }

    #[test]
    fn the_same_trouble_is_logged_once_a_minute() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.count(), Some(0));
        assert_eq!(throttle.count(), None);
        assert_eq!(throttle.count(), None);
        throttle.spoke = Instant::now().checked_sub(LOG_INTERVAL);
        assert_eq!(throttle.count(), Some(2));
    }
}
