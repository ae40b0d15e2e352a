//! Delivering notifications: one thread writes them to whoever listens, so that no worker ever waits.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select, unbounded};
use rtpproxy_core::addr::Family;
use rtpproxy_core::command::NotifyTarget;
use rtpproxy_core::config::NotifySpec;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{hostport, socket_file};

/// Reads the text of `-n`: `unix:PATH`, `PATH`, `tcp:HOST:PORT` (IPv4) or `tcp:%%CC_SELF%%:PORT`.
///
/// Host names are looked up only if `resolve`.
///
/// # Errors
///
/// The message for the operator.
pub fn parse_target(text: &str, resolve: bool) -> Result<NotifySpec, String> {
    if text.is_empty() {
        return Err("timeout notification socket name too short".to_owned());
    }
    let name = text.as_bytes().into();
    let spec = if let Some(place) = text.strip_prefix("tcp:") {
        tcp_place(place, resolve).map(|(host, port)| match host {
            Some(ip) => {
                let target = NotifyTarget::Tcp { to: SocketAddrV4::new(ip, port), from: None };
                NotifySpec::Fixed { name, target }
            }
            None => NotifySpec::Caller { name, port },
        })
    } else {
        let path = text.strip_prefix("unix:").unwrap_or(text);
        socket_file::check_path(Path::new(path))
            .map(|()| NotifySpec::Fixed { name, target: NotifyTarget::Unix(path.as_bytes().into()) })
            .map_err(|error| error.to_string())
    };
    spec.map_err(|reason| format!("error adding timeout notification: {text}: {reason}"))
}

/// The thread that delivers notifications.
///
/// Dropping it delivers what is queued, within half a second or so, and ends the thread.
#[derive(Debug)]
pub struct Notifier {
    handle: NotifyHandle,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Notifier {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system refuses another thread.
    pub fn start() -> io::Result<Self> {
        let (jobs, queue) = unbounded();
        let (stop, stopped) = bounded(0);
        let thread = thread::Builder::new()
            .name("notifier".to_owned())
            .spawn(move || Delivery::default().run(&queue, &stopped))?;
        let shared = Shared { subscribers: Mutex::new(Some(Vec::new())), lost: AtomicU64::new(0) };
        let handle = NotifyHandle { jobs, shared: Arc::new(shared) };
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// The way to send.
    pub fn handle(&self) -> NotifyHandle {
        self.handle.clone()
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        *self.handle.subscribers() = None;
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends notifications. Cheap to clone; may be used from any thread and never waits.
#[derive(Clone, Debug)]
pub struct NotifyHandle {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
}

impl NotifyHandle {
    /// Queues `text`, line feed included, for `target`. If the queue is full the notification is counted and
    /// lost.
    pub fn send(&self, target: NotifyTarget, text: Vec<u8>) {
        match target {
            NotifyTarget::InProcess(number) => self.publish(&Notice { number, text }),
            NotifyTarget::Unix(_) | NotifyTarget::Tcp { .. } => {
                if self.jobs.len() >= QUEUE_MAX {
                    self.count_lost(&Name(&target));
                } else {
                    // It fails only after the end, when nobody is told anything any more.
                    let _ = self.jobs.send(Job { target, text });
                }
            }
        }
    }

    /// Gets the notifications to in-process targets from now on: none if the notifier has ended.
    pub fn subscribe(&self) -> Events {
        let (sender, receiver) = unbounded();
        let lost = Arc::new(AtomicU64::new(0));
        if let Some(subscribers) = &mut *self.subscribers() {
            subscribers.push(Subscriber { sender, lost: Arc::clone(&lost) });
        }
        Events { receiver, lost }
    }

    /// Notifications lost because a queue was full.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    fn publish(&self, notice: &Notice) {
        let mut subscribers = self.subscribers();
        let Some(subscribers) = &mut *subscribers else { return };
        subscribers.retain(|subscriber| {
            if subscriber.sender.len() < QUEUE_MAX {
                return subscriber.sender.send(notice.clone()).is_ok();
            }
            subscriber.lost.fetch_add(1, Ordering::Relaxed);
            self.count_lost(&format_args!("in-process target {}", notice.number));
            true
        });
    }

    fn count_lost(&self, target: &dyn std::fmt::Display) {
        // One line, not one for each: a full queue means that many follow.
        if self.shared.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!("the notification queue for {target} is full: notifications are lost");
        }
    }

    fn subscribers(&self) -> std::sync::MutexGuard<'_, Option<Vec<Subscriber>>> {
        self.shared.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A notification to an in-process target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The number of the target.
    pub number: u32,
    /// The decoded tag and a line feed.
    pub text: Vec<u8>,
}

/// The notifications to in-process targets, in order. At most 65,536 wait; further ones are lost.
#[derive(Debug)]
pub struct Events {
    receiver: Receiver<Notice>,
    lost: Arc<AtomicU64>,
}

impl Events {
    /// The next notification; `None` if none came within `timeout`.
    ///
    /// # Errors
    ///
    /// The relay has ended and everything was read.
    pub fn next_within(&self, timeout: Duration) -> Result<Option<Notice>, EventsEnded> {
        match self.receiver.recv_timeout(timeout) {
            Ok(notice) => Ok(Some(notice)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(EventsEnded),
        }
    }

    /// Notifications lost because nobody read them in time.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Iterator for Events {
    type Item = Notice;

    /// Waits for the next notification; `None` when the relay has ended.
    fn next(&mut self) -> Option<Notice> {
        self.receiver.recv().ok()
    }
}

/// The relay has ended: no more notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the relay has ended")]
pub struct EventsEnded;

#[derive(Debug)]
struct Shared {
    /// `None` after the end.
    subscribers: Mutex<Option<Vec<Subscriber>>>,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Subscriber {
    sender: Sender<Notice>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Job {
    target: NotifyTarget,
    text: Vec<u8>,
}

/// What the thread knows.
#[derive(Default)]
struct Delivery {
    connections: HashMap<NotifyTarget, Connection>,
    /// Targets that let us wait, and until when they are left alone.
    shunned: HashMap<NotifyTarget, Instant>,
}

impl Delivery {
    fn run(mut self, queue: &Receiver<Job>, stopped: &Receiver<()>) {
        loop {
            select! {
                recv(queue) -> job => match job {
                    Ok(job) => self.deliver(&job),
                    Err(_) => return,
                },
                recv(stopped) -> _ => break,
                default(SWEEP_INTERVAL) => self.sweep(),
            }
        }
        let deadline = Instant::now() + STOP_TIME;
        while Instant::now() < deadline
            && let Ok(job) = queue.try_recv()
        {
            self.deliver(&job);
        }
    }

    fn deliver(&mut self, job: &Job) {
        let now = Instant::now();
        if self.shunned.get(&job.target).is_some_and(|until| now < *until) {
            tracing::debug!("notification to {} dropped: it did not answer", Name(&job.target));
            return;
        }
        self.shunned.remove(&job.target);
        if let Err(error) = self.write(job) {
            tracing::error!("notification to {} failed: {error}", Name(&job.target));
            if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) {
                self.shun(&job.target, now);
            }
        }
    }

    /// Writes over the open connection, or a new one if that fails. A connect that fails is final.
    fn write(&mut self, job: &Job) -> io::Result<()> {
        let mut retries = WRITE_RETRIES;
        loop {
            let mut connection = match self.connections.remove(&job.target) {
                Some(connection) if connection.is_open() => connection,
                Some(_) | None => Connection::open(&job.target)?,
            };
            match connection.write(&job.text) {
                Ok(()) => {
                    self.keep(job.target.clone(), connection);
                    return Ok(());
                }
                // Another try would make everyone behind wait again.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
                Err(error) if retries == 0 => return Err(error),
                Err(_) => retries -= 1,
            }
        }
    }

    fn keep(&mut self, target: NotifyTarget, connection: Connection) {
        if self.connections.len() >= CONNECTIONS_MAX {
            let oldest = self.connections.iter().min_by_key(|(_, connection)| connection.used);
            if let Some(oldest) = oldest.map(|(target, _)| target.clone()) {
                self.connections.remove(&oldest);
            }
        }
        self.connections.insert(target, connection);
    }

    fn shun(&mut self, target: &NotifyTarget, now: Instant) {
        self.shunned.retain(|_, until| now < *until);
        self.shunned.insert(target.clone(), now + SHUN_TIME);
    }

    /// Throws away what peers wrote and closes what they closed.
    fn sweep(&mut self) {
        self.connections.retain(|_, connection| connection.is_open());
    }
}

struct Connection {
    socket: Socket,
    used: Instant,
}

impl Connection {
    fn open(target: &NotifyTarget) -> io::Result<Self> {
        let socket = match target {
            NotifyTarget::Unix(path) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                // Bounds the connect too: it waits while the listener's backlog is full.
                socket.set_write_timeout(Some(PEER_TIME))?;
                socket.connect(&SockAddr::unix(OsStr::from_bytes(path))?)?;
                socket
            }
            NotifyTarget::Tcp { to, from } => {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                socket.set_write_timeout(Some(PEER_TIME))?;
                if let Some(from) = from {
                    socket.bind(&SocketAddr::from((*from, 0)).into())?;
                }
                socket.connect_timeout(&SocketAddr::from(*to).into(), PEER_TIME)?;
                socket.set_tcp_nodelay(true)?;
                socket
            }
            NotifyTarget::InProcess(_) => return Err(ErrorKind::Unsupported.into()),
        };
        Ok(Self { socket, used: Instant::now() })
    }

    fn write(&mut self, mut text: &[u8]) -> io::Result<()> {
        self.used = Instant::now();
        while !text.is_empty() {
            match self.socket.send_with_flags(text, libc::MSG_NOSIGNAL) {
                Ok(sent) => text = &text[sent..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Throws away what the peer wrote; false if it has closed.
    fn is_open(&self) -> bool {
        let mut scratch = [MaybeUninit::uninit(); 4096];
        for _ in 0..READS_MAX {
            match self.socket.recv_with_flags(&mut scratch, libc::MSG_DONTWAIT) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
            }
        }
        true
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Unread bytes at close would reset the connection, and the peer lose what it has not read yet.
        let _ = self.socket.shutdown(Shutdown::Write);
        self.is_open();
    }
}

/// A target as a person reads it.
struct Name<'a>(&'a NotifyTarget);

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            NotifyTarget::Unix(path) => write!(f, "unix:{}", String::from_utf8_lossy(path)),
            NotifyTarget::Tcp { to, .. } => write!(f, "tcp:{to}"),
            NotifyTarget::InProcess(number) => write!(f, "in-process target {number}"),
        }
    }
}

/// The parts of a `tcp:` target; no address stands for whoever sent the command.
fn tcp_place(text: &str, resolve: bool) -> Result<(Option<Ipv4Addr>, u16), String> {
    let (host, port) = hostport::split(text)?;
    let port = port.filter(|port| *port != 0).ok_or("the port is missing")?;
    if host == "%%CC_SELF%%" {
        return Ok((None, port));
    }
    match hostport::lookup(host, port, Family::V4, resolve)? {
        SocketAddr::V4(addr) => Ok((Some(*addr.ip()), port)),
        SocketAddr::V6(addr) => Err(format!("{addr} is not an IPv4 address")),
    }
}

/// Notifications that may wait, for the thread and for each subscriber. When a network fails, all calls time
/// out within a second, and a server that frees their resources needs to hear of each.
const QUEUE_MAX: usize = 65_536;
/// Open connections; above that the one that was idle longest is closed.
const CONNECTIONS_MAX: usize = 128;
/// New connections after a write that failed.
const WRITE_RETRIES: u32 = 3;
/// How long a peer may take to accept a connection or a line.
const PEER_TIME: Duration = Duration::from_millis(500);
/// How long a peer that took longer is left alone, for the sake of the others.
const SHUN_TIME: Duration = Duration::from_secs(5);
/// How often idle connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Buffers of a peer's bytes thrown away at a time.
const READS_MAX: usize = 64;
/// How long a stop waits for queued notifications.
const STOP_TIME: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn unix_target(path: &Path) -> NotifyTarget {
        NotifyTarget::Unix(path.as_os_str().as_bytes().into())
    }

    fn accept(listener: &UnixListener) -> BufReader<UnixStream> {
        let stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        BufReader::new(stream)
    }

    fn line(reader: &mut impl BufRead) -> Vec<u8> {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).unwrap();
        line
    }

    #[test]
    fn targets_are_read() {
        let fixed = |text: &str, target| Ok(NotifySpec::Fixed { name: text.as_bytes().into(), target });
        let unix = NotifyTarget::Unix(b"/x".as_slice().into());
        assert_eq!(parse_target("/x", false), fixed("/x", unix.clone()));
        assert_eq!(parse_target("unix:/x", false), fixed("unix:/x", unix));
        let tcp = NotifyTarget::Tcp { to: "127.0.0.1:5".parse().unwrap(), from: None };
        assert_eq!(parse_target("tcp:127.0.0.1:5", false), fixed("tcp:127.0.0.1:5", tcp.clone()));
        assert_eq!(parse_target("tcp:localhost:5", true), fixed("tcp:localhost:5", tcp));
        let caller = "tcp:%%CC_SELF%%:77";
        let name = caller.as_bytes().into();
        assert_eq!(parse_target(caller, false), Ok(NotifySpec::Caller { name, port: 77 }));
    }

    #[test]
    fn bad_targets_are_named() {
        assert_eq!(parse_target("", true), Err("timeout notification socket name too short".to_owned()));
        let long = "x".repeat(108);
        for bad in ["unix:", "tcp:127.0.0.1", "tcp:127.0.0.1:", "tcp:127.0.0.1:0", "tcp:::1:5", &long] {
            let error = parse_target(bad, false).unwrap_err();
            assert!(error.starts_with("error adding timeout notification: "), "{error}");
            assert!(error.contains(bad), "{error}");
        }
        assert!(parse_target("tcp:localhost:5", false).is_err());
    }

    #[test]
    fn one_connection_serves_many_and_outlives_the_peers_talk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        let listener = UnixListener::bind(&path).unwrap();
        let notifier = Notifier::start().unwrap();
        let handle = notifier.handle();
        handle.send(unix_target(&path), b"first\0tag\n".to_vec());
        let mut peer = accept(&listener);
        assert_eq!(line(&mut peer), b"first\0tag\n");
        for number in 0..50 {
            peer.get_mut().write_all(b"OK\n").unwrap();
            handle.send(unix_target(&path), format!("r {number}\n").into_bytes());
            assert_eq!(line(&mut peer), format!("r {number}\n").into_bytes());
        }
        drop(notifier);
        assert_eq!(line(&mut peer), b"");
    }

    #[test]
    fn a_restarted_listener_gets_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        let notifier = Notifier::start().unwrap();
        for round in 0..3 {
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).unwrap();
            notifier.handle().send(unix_target(&path), format!("round {round}\n").into_bytes());
            let mut peer = accept(&listener);
            assert_eq!(line(&mut peer), format!("round {round}\n").into_bytes());
        }
    }

    #[test]
    fn tcp_comes_from_the_address_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(to) = listener.local_addr().unwrap() else { unreachable!() };
        let notifier = Notifier::start().unwrap();
        let target = NotifyTarget::Tcp { to, from: Some(Ipv4Addr::new(127, 0, 0, 9)) };
        notifier.handle().send(target, b"t\n".to_vec());
        let (mut stream, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), Ipv4Addr::new(127, 0, 0, 9));
        drop(notifier);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"t\n");
    }

    #[test]
    fn a_dead_or_deaf_target_does_not_stop_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let (deaf, good) = (dir.path().join("deaf"), dir.path().join("good"));
        let deaf_listener = UnixListener::bind(&deaf).unwrap();
        let listener = UnixListener::bind(&good).unwrap();
        let notifier = Notifier::start().unwrap();
        let handle = notifier.handle();
        handle.send(unix_target(&dir.path().join("absent")), b"x\n".to_vec());
        for _ in 0..20 {
            handle.send(unix_target(&deaf), vec![b'x'; 1 << 20]);
        }
        handle.send(unix_target(&good), b"here\n".to_vec());
        let mut peer = accept(&listener);
        assert_eq!(line(&mut peer), b"here\n");
        drop(deaf_listener);
    }

    #[test]
    fn all_calls_may_time_out_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        let listener = UnixListener::bind(&path).unwrap();
        let notifier = Notifier::start().unwrap();
        let handle = notifier.handle();
        let reader = thread::spawn(move || accept(&listener).lines().take(20_000).count());
        for _ in 0..20_000 {
            handle.send(unix_target(&path), b"tag\n".to_vec());
        }
        assert_eq!((reader.join().unwrap(), handle.lost()), (20_000, 0));
    }

    #[test]
    fn a_full_queue_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        let _listener = UnixListener::bind(&path).unwrap();
        let notifier = Notifier::start().unwrap();
        let handle = notifier.handle();
        // The first one fills the socket's buffer and keeps the thread busy.
        handle.send(unix_target(&path), vec![b'x'; 8 << 20]);
        for _ in 0..QUEUE_MAX + 10 {
            handle.send(unix_target(&path), b"x\n".to_vec());
        }
        assert!(handle.lost() > 0);
    }

    #[test]
    fn subscribers_get_in_process_notices_until_the_end() {
        let notifier = Notifier::start().unwrap();
        let handle = notifier.handle();
        let mut events = handle.subscribe();
        assert_eq!(events.next_within(Duration::ZERO), Ok(None));
        handle.send(NotifyTarget::InProcess(4), b"tag\n".to_vec());
        let notice = Notice { number: 4, text: b"tag\n".to_vec() };
        assert_eq!(events.next(), Some(notice));
        for _ in 0..QUEUE_MAX + 2 {
            handle.send(NotifyTarget::InProcess(4), b"tag\n".to_vec());
        }
        assert_eq!(handle.lost(), 2);
        drop(notifier);
        assert_eq!(events.by_ref().count(), QUEUE_MAX);
        assert_eq!(events.next_within(Duration::ZERO), Err(EventsEnded));
        assert_eq!(handle.subscribe().next_within(Duration::ZERO), Err(EventsEnded));
    }
}
