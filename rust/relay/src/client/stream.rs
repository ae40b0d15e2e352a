//! Commands over connections.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::Path;
use std::time::Instant;

use rtpproxy_core::command::ReplyKind;
#[cfg(unix)]
use socket2::SockAddr;
use socket2::{Domain, Socket, Type};

use super::{COMMAND_MAX, Failure, left};

/// A connection to the daemon.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
}

impl Connection {
    pub(super) fn tcp(to: SocketAddr, deadline: Instant) -> Result<Self, Failure> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.connect_timeout(&to.into(), left(deadline).ok_or(Failure::Timeout)?)?;
        socket.set_tcp_nodelay(true)?;
        Ok(Self { socket })
    }

    #[cfg(unix)]
    pub(super) fn unix(path: &Path, deadline: Instant) -> Result<Self, Failure> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Bounds the connect too: it waits while the daemon's backlog is full.
        socket.set_write_timeout(Some(left(deadline).ok_or(Failure::Timeout)?))?;
        socket.connect(&SockAddr::unix(path)?)?;
        Ok(Self { socket })
    }

    /// Sends `text` as a line and reads as many lines as `kind` says. After an error the connection is out of
    /// step with the daemon and must not be used again.
    pub(super) fn exchange(
        &mut self,
        text: &[u8],
        kind: Option<&ReplyKind>,
        deadline: Instant,
    ) -> Result<Vec<u8>, Failure> {
        self.send(text, deadline)?;
        let mut reply = Vec::new();
        loop {
            if let Some(len) = reply_len(&reply, kind) {
                return if len == reply.len() { Ok(reply) } else { Err(Failure::Garbled(reply)) };
            }
            if self.read(&mut reply, deadline)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Sends `text` as a line, for a daemon that closes behind the reply.
    ///
    /// One that keeps the connection, as behind `cunix:`, is understood too: a complete reply is enough.
    #[cfg(unix)]
    pub(super) fn exchange_last(
        mut self,
        text: &[u8],
        kind: Option<&ReplyKind>,
        deadline: Instant,
    ) -> Result<Vec<u8>, Failure> {
        self.send(text, deadline)?;
        let mut reply = Vec::new();
        while reply_len(&reply, kind).is_none() {
            match self.read(&mut reply, deadline) {
                Ok(0) if reply.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(0) => break,
                // The daemon closed with bytes of ours unread; its reply came before.
                Err(Failure::Io(error))
                    if error.kind() == ErrorKind::ConnectionReset && reply.ends_with(b"\n") =>
                {
                    break;
                }
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(reply)
    }

    fn send(&mut self, text: &[u8], deadline: Instant) -> Result<(), Failure> {
        if text.len() > COMMAND_MAX {
            return Err(Failure::TooLong);
        }
        self.socket.set_write_timeout(Some(left(deadline).ok_or(Failure::Timeout)?))?;
        Ok(self.socket.write_all(&[text, b"\n"].concat())?)
    }

    /// Appends what comes next to `reply`.
    fn read(&mut self, reply: &mut Vec<u8>, deadline: Instant) -> Result<usize, Failure> {
        if reply.len() > REPLY_MAX {
            return Err(Failure::Garbled(std::mem::take(reply)));
        }
        let mut buffer = [0; 4096];
        loop {
            self.socket.set_read_timeout(Some(left(deadline).ok_or(Failure::Timeout)?))?;
            match self.socket.read(&mut buffer) {
                Ok(len) => {
                    reply.extend_from_slice(&buffer[..len]);
                    return Ok(len);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Io(error),
        }
    }
}

impl From<ErrorKind> for Failure {
    fn from(kind: ErrorKind) -> Self {
        Self::Io(kind.into())
    }
}

/// The length of the reply that `bytes` start with, once it is complete. Errors have one line always.
fn reply_len(bytes: &[u8], kind: Option<&ReplyKind>) -> Option<usize> {
    let lines = match kind {
        Some(ReplyKind::Info { load }) if !bytes.starts_with(b"E") => 5 + usize::from(*load),
        _ => 1,
    };
    let mut feeds = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    feeds.nth(lines - 1).map(|(at, _)| at + 1)
}

/// Bytes of a reply before it is taken for something else.
const REPLY_MAX: usize = 64 * 1024;
