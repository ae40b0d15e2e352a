//! The control transports. They frame, and nothing else: bytes go to the `Executor`, its reply goes back.
//!
//! One thread runs them all, on one small tokio runtime. Three framing classes exist: one command a
//! connection and lines (`stream`), and datagrams with a cookie (`datagram`); `stdio` is lines with a
//! rule for the end of input.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rtpproxy_core::front::Origin;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::RelayHandle;
use crate::socket_file::SocketFile;

mod bind;
mod datagram;
mod spec;
mod stdio;
mod stream;

pub use bind::{BindError, Bound, SocketOptions, bind, discard};

use bind::Endpoint;
use datagram::Replies;
use stream::Framing;

/// What answers commands.
pub(crate) trait Executor: Clone + Send + Sync + 'static {
    /// Executes one command without cookie; `done` gets the reply with its line feed, on any thread.
    fn submit(&self, text: &[u8], origin: Origin, done: Box<dyn FnOnce(Vec<u8>) + Send>);

    /// Counts a datagram that was answered from the reply cache.
    fn repeated(&self);

    /// Starts the slow shutdown.
    fn drain(&self);
}

impl Executor for RelayHandle {
    fn submit(&self, text: &[u8], origin: Origin, done: Box<dyn FnOnce(Vec<u8>) + Send>) {
        Self::submit(self, text, origin, done);
    }

    fn repeated(&self) {
        Self::repeated(self);
    }

    fn drain(&self) {
        Self::drain(self);
    }
}

/// Control sockets of a process that will serve them: dropping them removes the files of UNIX sockets.
///
/// [`Bound`] does not, since the process that opened it may leave it to a child.
#[derive(Debug)]
pub(crate) struct Claimed(Vec<Bound>);

impl Claimed {
    /// Takes responsibility for `bound`.
    pub(crate) fn new(bound: Vec<Bound>) -> Self {
        Self(bound)
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        discard(mem::take(&mut self.0));
    }
}

/// Starts to serve control sockets.
///
/// # Errors
///
/// The system refuses the thread or a descriptor.
pub(crate) fn start(mut claimed: Claimed, executor: impl Executor) -> io::Result<ControlThread> {
    let bound = mem::take(&mut claimed.0);
    let mut control = ControlThread { stop: None, thread: None, files: Vec::new(), streams: Vec::new() };
    // From here on dropping `control` removes the files.
    let slots = CONNECTIONS_MAX.saturating_sub(bound.len()).max(1);
    let server = Server {
        executor,
        slots: Arc::new(Semaphore::new(slots)),
        was_full: Arc::new(AtomicBool::new(false)),
    };
    let only_stdio = bound.iter().filter(|bound| !accepts(&bound.endpoint)).count() == 1;
    let mut endpoints = Vec::with_capacity(bound.len());
    for Bound { spec, endpoint, file } in bound {
        tracing::debug!("control socket {spec} is open");
        control.files.extend(file);
        endpoints.push(endpoint);
    }
    for endpoint in &endpoints {
        if let Endpoint::Stream(stream) = endpoint {
            control.streams.push(stream.try_clone()?);
        }
    }
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let replies = Replies::default();
    for endpoint in endpoints {
        serve(&runtime, endpoint, &server, &replies, only_stdio)?;
    }
    let (stop, stopped) = oneshot::channel::<()>();
    control.stop = Some(stop);
    control.thread = Some(thread::Builder::new().name("control".to_owned()).spawn(move || {
        let _ = runtime.block_on(stopped);
        // A read of standard input cannot be cancelled: leave it behind.
        runtime.shutdown_background();
    })?);
    Ok(control)
}

/// The thread that serves the control sockets. Dropping it stops it and removes the files of UNIX sockets.
#[derive(Debug)]
pub(crate) struct ControlThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    files: Vec<SocketFile>,
    streams: Vec<UnixStream>,
}

impl ControlThread {
    /// Stops serving, joins the thread and removes the files of UNIX sockets.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for ControlThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for stream in &self.streams {
            // The caller holds the same socket open: closing ours would not end it.
            let _ = stream.shutdown(Shutdown::Both);
        }
        for file in &self.files {
            file.remove();
        }
    }
}

/// What every task shares.
#[derive(Clone)]
struct Server<E> {
    executor: E,
    slots: Arc<Semaphore>,
    was_full: Arc<AtomicBool>,
}

impl<E: Executor> Server<E> {
    /// A slot for a connection, unless all are taken.
    fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok();
        if slot.is_none() && !self.was_full.swap(true, Ordering::Relaxed) {
            tracing::warn!("too many control connections: further ones are closed at once");
        }
        slot
    }
}

/// Executes one command; `None` if the executor went away without an answer.
async fn execute(executor: &impl Executor, text: &[u8], origin: Origin) -> Option<Vec<u8>> {
    let (sender, reply) = oneshot::channel();
    let done = move |text| {
        let _ = sender.send(text);
    };
    // A bug that one command hits must not end the socket for all others.
    let submitted = catch_unwind(AssertUnwindSafe(|| executor.submit(text, origin, Box::new(done))));
    if submitted.is_err() {
        tracing::error!("a control command panicked: {}", text.escape_ascii());
    }
    reply.await.ok()
}

fn serve<E: Executor>(
    runtime: &Runtime,
    endpoint: Endpoint,
    server: &Server<E>,
    replies: &Replies,
    only_stdio: bool,
) -> io::Result<()> {
    let _context = runtime.enter();
    let server = server.clone();
    match endpoint {
        Endpoint::OneShot(listener) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            runtime.spawn(stream::accept(listener, Framing::OneShot, None, server));
        }
        Endpoint::Lines(listener) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            runtime.spawn(stream::accept(listener, Framing::Lines, None, server));
        }
        Endpoint::Tcp(listener) => {
            let bound = bound_ipv4(listener.local_addr()?);
            let listener = tokio::net::TcpListener::from_std(listener)?;
            runtime.spawn(stream::accept(listener, Framing::Lines, bound, server));
        }
        Endpoint::Udp(socket) => {
            let bound = bound_ipv4(socket.local_addr()?);
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            runtime.spawn(datagram::serve(socket, bound, server.executor, replies.clone()));
        }
        Endpoint::Stream(stream) => {
            let stream = tokio::net::UnixStream::from_std(stream)?;
            runtime.spawn(async move {
                let (reader, writer) = stream.into_split();
                stream::serve_lines(reader, writer, Origin::default(), &server.executor).await;
            });
        }
        Endpoint::Stdio { always_drain } => {
            let (reader, writer) = (tokio::io::stdin(), tokio::io::stdout());
            runtime.spawn(stdio::serve(reader, writer, server.executor, always_drain || only_stdio));
        }
    }
    Ok(())
}

/// True for a listener: commands may still come when every connection has ended.
fn accepts(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::OneShot(_) | Endpoint::Lines(_) | Endpoint::Tcp(_) => true,
        Endpoint::Udp(_) | Endpoint::Stdio { .. } | Endpoint::Stream(_) => false,
    }
}

/// [`Origin::bound`] of a socket.
fn bound_ipv4(local: SocketAddr) -> Option<Ipv4Addr> {
    ipv4(local).filter(|ip| !ip.is_unspecified())
}

fn ipv4(addr: SocketAddr) -> Option<Ipv4Addr> {
    match addr.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// Sockets and connections in all.
const CONNECTIONS_MAX: usize = 100;

#[cfg(test)]
mod tests;
