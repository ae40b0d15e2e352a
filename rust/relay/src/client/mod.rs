//! A blocking client of the control protocol, over every transport.
//!
//! ```no_run
//! use rtpproxy_relay::client::{Client, ClientOptions};
//!
//! let mut client = Client::connect("udp:127.0.0.1:22222", ClientOptions::default())?;
//! assert_eq!(client.command(b"V", None)?, b"20040107\n");
//! # Ok::<(), rtpproxy_relay::client::ClientError>(())
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use rtpproxy_core::command::{AnyRules, Command, Reply, ReplyKind, parse};

mod address;
mod datagram;
mod listener;
mod stream;
mod tap;

pub use listener::NotifyListener;
pub use tap::{ListeningTap, TapSockets};

use address::Address;
use datagram::Datagrams;
use stream::Connection;

/// How patient a [`Client`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// How long a command may take in all, connecting included. Defaults to 3 s.
    pub timeout: Duration,
    /// How often a datagram is sent again within that time. Defaults to 5.
    pub retries: u32,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(3), retries: 5 }
    }
}

/// A command was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be used.
    #[error("bad address {address:?}: {reason}")]
    Address {
        /// As given.
        address: String,
        /// Why.
        reason: String,
    },
    /// Nobody listens there, or the connection ended. The next command connects anew.
    #[error("no connection to {address}: {source}")]
    ConnectionLost {
        /// The daemon.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// No reply came in time. Whether the command was carried out is unknown.
    #[error("no reply from {address} within {timeout:?}")]
    Timeout {
        /// The daemon.
        address: String,
        /// The time.
        timeout: Duration,
    },
    /// What came is not a reply to the command.
    #[error("bad reply from {address}: {reply:?}")]
    BadReply {
        /// The daemon.
        address: String,
        /// What came.
        reply: String,
    },
    /// The command has more bytes than a daemon reads.
    #[error("the command is too long: a daemon reads at most {COMMAND_MAX} bytes")]
    TooLong,
}

/// A client of one daemon. Every wait is bounded by [`ClientOptions::timeout`].
#[derive(Debug)]
pub struct Client {
    address: Address,
    options: ClientOptions,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle,
    Datagrams(Datagrams),
    Lines(Connection),
}

impl Client {
    /// Our address as the daemon may reach it: the one that datagrams to its control socket leave from, and the
    /// loopback one for a UNIX socket. `None` if it is none of IPv4.
    pub fn local_address(&self) -> Option<Ipv4Addr> {
        match self.address {
            Address::Udp(to) | Address::Tcp(to) => match tap::local_address(to) {
                Ok(IpAddr::V4(ip)) => Some(ip),
                Ok(IpAddr::V6(_)) | Err(_) => None,
            },
            #[cfg(unix)]
            Address::Unix(_) | Address::Cunix(_) => Some(Ipv4Addr::LOCALHOST),
        }
    }

    /// A client of the daemon at `address`: `udp:HOST[:PORT]`, `udp6:`, `tcp:`, `tcp6:` (port 22222 unless
    /// given; an IPv6 host may stand in brackets), `cunix:PATH`, `unix:PATH` or a bare path.
    ///
    /// TCP and `cunix:` connect now and keep the connection. `unix:` connects for each command. UDP sends
    /// nothing yet.
    ///
    /// # Errors
    ///
    /// [`ClientError::Address`], [`ClientError::ConnectionLost`] or [`ClientError::Timeout`].
    pub fn connect(address: &str, options: ClientOptions) -> Result<Self, ClientError> {
        let parsed = Address::parse(address)
            .map_err(|reason| ClientError::Address { address: address.to_owned(), reason })?;
        let mut client = Self { address: parsed, options, state: State::Idle };
        client.open(client.deadline()).map_err(|failure| client.error(failure))?;
        Ok(client)
    }

    /// Sends one command as text and returns the reply as it came, line feed included.
    ///
    /// Line feeds inside `text` are sent as spaces, which mean the same. `kind` tells how many lines the
    /// reply has; without it, the command is looked at.
    ///
    /// # Errors
    ///
    /// Every [`ClientError`] but `Address`. An error reply of the daemon is a reply.
    pub fn command(&mut self, text: &[u8], kind: Option<&ReplyKind>) -> Result<Vec<u8>, ClientError> {
        let text = one_line(text);
        let known = match kind {
            Some(kind) => Some(kind.clone()),
            None => parse(&text, &mut AnyRules).ok().map(|command| command.reply_kind()),
        };
        self.exchange(&text, known.as_ref()).map_err(|failure| self.error(failure))
    }

    /// Sends one command and returns the reply.
    ///
    /// # Errors
    ///
    /// Every [`ClientError`] but `Address`. An error reply of the daemon is a reply.
    pub fn call(&mut self, command: &Command) -> Result<Reply, ClientError> {
        let kind = command.reply_kind();
        let reply = self.command(&command.encode(), Some(&kind))?;
        Reply::parse(&reply, &kind).map_err(|_| self.error(Failure::Garbled(reply)))
    }

    fn exchange(&mut self, text: &[u8], kind: Option<&ReplyKind>) -> Result<Vec<u8>, Failure> {
        let deadline = self.deadline();
        self.open(deadline)?;
        match &mut self.state {
            State::Datagrams(datagrams) => {
                datagrams.exchange(text, self.options.timeout, self.options.retries)
            }
            State::Lines(connection) => {
                let reply = connection.exchange(text, kind, deadline);
                if matches!(reply, Err(Failure::Io(_) | Failure::Timeout | Failure::Garbled(_))) {
                    self.state = State::Idle;
                }
                reply
            }
            State::Idle => self.exchange_once(text, kind, deadline),
        }
    }

    #[cfg(unix)]
    fn exchange_once(
        &self,
        text: &[u8],
        kind: Option<&ReplyKind>,
        deadline: Instant,
    ) -> Result<Vec<u8>, Failure> {
        match &self.address {
            Address::Unix(path) => Connection::unix(path, deadline)?.exchange_last(text, kind, deadline),
            Address::Cunix(_) | Address::Tcp(_) | Address::Udp(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    #[cfg(not(unix))]
    fn exchange_once(
        &self,
        _text: &[u8],
        _kind: Option<&ReplyKind>,
        _deadline: Instant,
    ) -> Result<Vec<u8>, Failure> {
        Err(io::ErrorKind::NotConnected.into())
    }

    /// Makes the socket that outlives a command, if there is none.
    fn open(&mut self, deadline: Instant) -> Result<(), Failure> {
        if matches!(self.state, State::Idle) {
            self.state = match &self.address {
                Address::Udp(to) => State::Datagrams(Datagrams::connect(*to)?),
                Address::Tcp(to) => State::Lines(Connection::tcp(*to, deadline)?),
                #[cfg(unix)]
                Address::Cunix(path) => State::Lines(Connection::unix(path, deadline)?),
                #[cfg(unix)]
                Address::Unix(_) => State::Idle,
            };
        }
        Ok(())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.options.timeout
    }

    fn error(&self, failure: Failure) -> ClientError {
        let address = self.address.to_string();
        match failure {
            Failure::Io(source) => ClientError::ConnectionLost { address, source },
            Failure::Timeout => ClientError::Timeout { address, timeout: self.options.timeout },
            Failure::Garbled(reply) => {
                let reply = String::from_utf8_lossy(&reply[..reply.len().min(SHOWN_MAX)]).into_owned();
                ClientError::BadReply { address, reply }
            }
            Failure::TooLong => ClientError::TooLong,
        }
    }
}

/// A [`ClientError`] without the address.
#[derive(Debug)]
enum Failure {
    Io(io::Error),
    Timeout,
    Garbled(Vec<u8>),
    TooLong,
}

/// `text` without its line end and with spaces for the line feeds inside.
fn one_line(text: &[u8]) -> Vec<u8> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect()
}

/// The time until `deadline`; `None` if it has passed.
fn left(deadline: Instant) -> Option<Duration> {
    Some(deadline.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
}

/// Bytes that a daemon reads of one command, cookie included.
const COMMAND_MAX: usize = 8191;
/// Bytes of a bad reply that are shown.
const SHOWN_MAX: usize = 200;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
