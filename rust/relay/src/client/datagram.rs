//! Commands as datagrams with a cookie.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::{COMMAND_MAX, Failure, left};

/// A socket connected to the daemon, so that the system tells when nobody listens.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
}

impl Datagrams {
    pub(super) fn connect(to: SocketAddr) -> io::Result<Self> {
        let socket = match to {
            SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
            SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
        };
        socket.connect(to)?;
        Ok(Self { socket })
    }

    /// Sends `text` up to `1 + retries` times, evenly spread over `timeout`, until its reply comes.
    ///
    /// All copies carry one cookie: the daemon carries the command out once. Replies with another cookie,
    /// late ones to earlier commands, are thrown away.
    pub(super) fn exchange(&self, text: &[u8], timeout: Duration, retries: u32) -> Result<Vec<u8>, Failure> {
        let cookie = format!("{:016x}{:016x}", random()?, random()?);
        let datagram = [cookie.as_bytes(), b" ", text].concat();
        if datagram.len() > COMMAND_MAX {
            return Err(Failure::TooLong);
        }
        // What the system still had to say about an earlier command.
        let _ = self.socket.take_error();
        let wait = timeout / retries.saturating_add(1);
        for _ in 0..=retries {
            self.socket.send(&datagram)?;
            if let Some(reply) = self.receive(cookie.as_bytes(), Instant::now() + wait)? {
                return Ok(reply);
            }
        }
        Err(Failure::Timeout)
    }

    /// The reply with `cookie`, without it; `None` if it has not come by `deadline`.
    fn receive(&self, cookie: &[u8], deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = [0; DATAGRAM_MAX];
        while let Some(left) = left(deadline) {
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.recv(&mut buffer) {
                Ok(len) => {
                    let reply = buffer[..len].strip_prefix(cookie).and_then(|rest| rest.strip_prefix(b" "));
                    if let Some(reply) = reply {
                        return Ok(Some(reply.to_vec()));
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

fn random() -> io::Result<u64> {
    Ok(getrandom::u64()?)
}

/// The longest reply, in bytes, with room to spare.
const DATAGRAM_MAX: usize = 8192;
