//! Connections: lines, or one command each.

use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use rtpproxy_core::front::Origin;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{Executor, Server, execute, ipv4};

/// How a connection carries commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Whatever the first read returns is one command; the connection ends after its reply.
    OneShot,
    /// One command a line.
    Lines,
}

/// A listener of either kind.
pub(super) trait Accept: Send + Sync + 'static {
    /// What it accepts.
    type Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and the IPv4 address of its other end.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Connection, Option<Ipv4Addr>)>> + Send;
}

impl Accept for UnixListener {
    type Connection = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Option<Ipv4Addr>)> {
        Ok((Self::accept(self).await?.0, None))
    }
}

impl Accept for TcpListener {
    type Connection = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<Ipv4Addr>)> {
        let (stream, peer) = Self::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok((stream, ipv4(peer)))
    }
}

/// Accepts connections for ever; one without a free slot is closed at once.
pub(super) async fn accept<E: Executor>(
    listener: impl Accept,
    framing: Framing,
    bound: Option<Ipv4Addr>,
    server: Server<E>,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!("a control connection could not be accepted: {error}");
                // Out of descriptors, say: the listener stays readable, and only time helps.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(slot) = server.slot() else { continue };
        let executor = server.executor.clone();
        let origin = Origin { peer, bound };
        tokio::spawn(async move {
            match framing {
                Framing::OneShot => serve_one(stream, origin, &executor).await,
                Framing::Lines => {
                    let (reader, writer) = tokio::io::split(stream);
                    serve_lines(reader, writer, origin, &executor).await;
                }
            }
            drop(slot);
        });
    }
}

/// Answers line after line until the end of input, an input buffer without a line feed, or an error.
///
/// The next line is not looked at before the reply to the last one is written, so a client that does not
/// read costs one buffer and one reply.
pub(super) async fn serve_lines(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    origin: Origin,
    executor: &impl Executor,
) {
    let mut buffer = vec![0; LINE_MAX];
    let mut filled = 0;
    loop {
        let mut start = 0;
        while let Some(len) = buffer[start..filled].iter().position(|byte| *byte == b'\n') {
            let Some(reply) = execute(executor, &buffer[start..start + len], origin).await else { return };
            if send(&mut writer, &reply).await.is_err() {
                return;
            }
            start += len + 1;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
        if filled == buffer.len() {
            tracing::debug!("a control connection is closed: {LINE_MAX} bytes without a line feed");
            return;
        }
        match reader.read(&mut buffer[filled..]).await {
            Ok(0) | Err(_) => return,
            Ok(len) => filled += len,
        }
    }
}

async fn serve_one(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    origin: Origin,
    executor: &impl Executor,
) {
    let mut buffer = vec![0; COMMAND_MAX];
    let Ok(len @ 1..) = stream.read(&mut buffer).await else { return };
    if let Some(reply) = execute(executor, &buffer[..len], origin).await {
        let _ = send(&mut stream, &reply).await;
    }
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), reply: &[u8]) -> io::Result<()> {
    writer.write_all(reply).await?;
    writer.flush().await
}

/// The longest line, in bytes with its line feed.
const LINE_MAX: usize = 8192;
/// The longest command of a one-shot connection, in bytes.
const COMMAND_MAX: usize = 8191;
/// How long nothing is accepted after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
