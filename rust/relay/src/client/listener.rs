//! Receiving notifications from a daemon.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
#[cfg(unix)]
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rtpproxy_core::addr::Family;
#[cfg(unix)]
use socket2::SockAddr;
use socket2::{Domain, Socket, Type};

use super::ClientError;
use crate::hostport;
#[cfg(unix)]
use crate::socket_file::SocketFile;

/// A notification target: what a daemon is told with `-n` and named in `U`.
///
/// Lines from all connections come in one queue of at most 16,384; while it is full, further ones are lost.
#[derive(Debug)]
pub struct NotifyListener {
    target: String,
    lines: Receiver<Vec<u8>>,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    #[cfg(unix)]
    file: Option<SocketFile>,
}

impl NotifyListener {
    /// Listens at `unix:PATH`, `PATH` (an old socket there is replaced) or `tcp:HOST:PORT` (IPv4; port 0: the
    /// system chooses).
    ///
    /// # Errors
    ///
    /// [`ClientError::Address`] says why that is not possible.
    pub fn bind(address: &str) -> Result<Self, ClientError> {
        Self::open(address).map_err(|reason| ClientError::Address {
            address: address.to_owned(),
            reason: reason.to_string(),
        })
    }

    /// The text that names this target: as given, with the port that the system chose.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The next notification, without its line feed; `None` if none came within `timeout`.
    pub fn next_within(&self, timeout: Duration) -> Option<Vec<u8>> {
        self.lines.recv_timeout(timeout).ok()
    }

    /// Notifications lost because nobody read them in time.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    fn open(address: &str) -> io::Result<Self> {
        if let Some(place) = address.strip_prefix("tcp:") {
            let (socket, bound) = tcp(place)?;
            let mut listener = Self::start(socket)?;
            listener.target = format!("tcp:{bound}");
            return Ok(listener);
        }
        #[cfg(unix)]
        {
            let path = Path::new(address.strip_prefix("unix:").unwrap_or(address));
            let (socket, file) = SocketFile::create(path, unix)?;
            let mut listener = Self::start(socket)?;
            listener.target = address.to_owned();
            listener.file = Some(file);
            Ok(listener)
        }
        #[cfg(not(unix))]
        Err(io::Error::other("UNIX sockets are not supported on this system"))
    }

    fn start(socket: Socket) -> io::Result<Self> {
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let (sender, lines) = unbounded();
        let shared = Arc::new(Shared::default());
        let for_acceptor = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("notify-accept".to_owned())
            .spawn(move || accept(&socket, &for_acceptor, &sender))?;
        Ok(Self {
            target: String::new(),
            lines,
            shared,
            acceptor: Some(acceptor),
            #[cfg(unix)]
            file: None,
        })
    }
}

impl Drop for NotifyListener {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.thread().unpark();
            let _ = acceptor.join();
        }
        for connection in self.shared.open().values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        #[cfg(unix)]
        if let Some(file) = &self.file {
            file.remove();
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    closing: AtomicBool,
    lost: AtomicU64,
    open: Mutex<HashMap<u64, Socket>>,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Socket>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts connections until the listener closes; each gets a thread that reads it.
fn accept(listener: &Socket, shared: &Arc<Shared>, lines: &Sender<Vec<u8>>) {
    let mut number = 0;
    while !shared.closing.load(Ordering::Acquire) {
        let Ok((connection, _)) = listener.accept() else {
            thread::park_timeout(ACCEPT_INTERVAL);
            continue;
        };
        number += 1;
        if let Err(error) = serve(connection, number, shared, lines) {
            tracing::warn!("a notification connection could not be served: {error}");
        }
    }
}

fn serve(connection: Socket, number: u64, shared: &Arc<Shared>, lines: &Sender<Vec<u8>>) -> io::Result<()> {
    if shared.open().len() >= CONNECTIONS_MAX {
        return Err(io::Error::other("too many are open"));
    }
    // Some systems let it inherit the listener's mode.
    connection.set_nonblocking(false)?;
    shared.open().insert(number, connection.try_clone()?);
    let (for_reader, lines) = (Arc::clone(shared), lines.clone());
    let reader = thread::Builder::new().name("notify-read".to_owned()).spawn(move || {
        // The end of the connection, or of the listener: nothing to tell anyone.
        let _ = read(connection, &lines, &for_reader);
        for_reader.open().remove(&number);
    });
    if reader.is_err() {
        shared.open().remove(&number);
    }
    reader.map(drop)
}

fn read(connection: Socket, lines: &Sender<Vec<u8>>, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    loop {
        let mut line = Vec::new();
        (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if lines.len() >= QUEUE_MAX || lines.send(line).is_err() {
            shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn tcp(place: &str) -> io::Result<(Socket, SocketAddr)> {
    let invalid = |reason: String| io::Error::new(ErrorKind::InvalidInput, reason);
    let (host, port) = hostport::split(place).map_err(invalid)?;
    let port = port.ok_or_else(|| invalid("the port is missing".to_owned()))?;
    let addr = match host {
        "*" => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
        _ => hostport::lookup(host, port, Family::V4, true).map_err(invalid)?,
    };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    let bound = socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
    Ok((socket, bound))
}

#[cfg(unix)]
fn unix(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// Lines that may wait to be read, by one that reads slowly when many calls time out at once.
pub(super) const QUEUE_MAX: usize = 16_384;
/// The longest line with its line feed, in bytes; a longer one ends its connection.
const LINE_MAX: u64 = 8192;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 32;
/// How often new connections are looked for.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(20);
