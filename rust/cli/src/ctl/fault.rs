//! What can go wrong, in words and as an exit status.

use std::io::{self, ErrorKind};

use rtpproxy_relay::client::ClientError;

/// Why `ctl` ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The command line, or a file of commands, cannot be used.
    #[error("{0}")]
    Input(String),
    /// The reply cannot be shown.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// The relay did not answer.
    #[error("{}", explained(.0))]
    Relay(#[from] ClientError),
    /// The relay did not answer a line of a file.
    #[error("{place}: {}", explained(.source))]
    RelayAt {
        /// File and line.
        place: String,
        /// Why.
        source: ClientError,
    },
}

impl Fault {
    /// The exit status.
    pub(super) fn status(&self) -> i32 {
        match self {
            Self::Input(_) | Self::Output(_) => STATUS_REFUSED,
            Self::Relay(error) | Self::RelayAt { source: error, .. } => match error {
                ClientError::Timeout { .. } => STATUS_TIMEOUT,
                ClientError::TooLong => STATUS_REFUSED,
                ClientError::Address { .. }
                | ClientError::ConnectionLost { .. }
                | ClientError::BadReply { .. } => STATUS_NO_REPLY,
            },
        }
    }

    /// True for a reader of the replies that has had enough, which is no fault of anybody.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == ErrorKind::BrokenPipe)
    }
}

/// The error, and what may help.
pub(super) fn explained(error: &ClientError) -> String {
    match hint(error) {
        Some(hint) => format!("{error}\n  {hint}"),
        None => error.to_string(),
    }
}

fn hint(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::ConnectionLost { source, .. } => match source.kind() {
            ErrorKind::NotFound => {
                Some("Does the relay run? Name its control socket with -s, as its own -s does.")
            }
            ErrorKind::PermissionDenied => Some(
                "The socket is not open to this user: become the relay's user, or see its options -u and -w.",
            ),
            ErrorKind::ConnectionRefused => {
                Some("Nobody listens there: the relay has ended, or its -s names another socket.")
            }
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Some(
                "The relay closed the connection: it ends, has too many connections, or takes one command a \
                 connection there (then say unix: in the place of cunix:).",
            ),
            _ => None,
        },
        ClientError::Timeout { .. } => {
            Some("Whether the command was carried out is not known. --timeout waits longer.")
        }
        ClientError::BadReply { .. } => Some("Is that the control socket of a relay?"),
        ClientError::Address { .. } | ClientError::TooLong => None,
    }
}

/// A command was refused, nothing could be sent, or its reply not shown.
pub(super) const STATUS_REFUSED: i32 = 1;
/// There is no connection, or no reply.
pub(super) const STATUS_NO_REPLY: i32 = 2;
/// There was no reply in time.
pub(super) const STATUS_TIMEOUT: i32 = 3;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn faults_have_a_status_and_a_hint() {
        let lost = |kind: ErrorKind| ClientError::ConnectionLost { address: "a".into(), source: kind.into() };
        let timeout = || ClientError::Timeout { address: "a".into(), timeout: Duration::from_secs(1) };
        for (fault, status, word) in [
            (Fault::Input("x".into()), 1, "x"),
            (Fault::Output(ErrorKind::StorageFull.into()), 1, "cannot write"),
            (ClientError::TooLong.into(), 1, "too long"),
            (lost(ErrorKind::NotFound).into(), 2, "Does the relay run"),
            (lost(ErrorKind::PermissionDenied).into(), 2, "not open to this user"),
            (lost(ErrorKind::ConnectionRefused).into(), 2, "Nobody listens"),
            (lost(ErrorKind::UnexpectedEof).into(), 2, "one command a connection"),
            (lost(ErrorKind::AddrNotAvailable).into(), 2, "no connection to a"),
            (timeout().into(), 3, "--timeout"),
            (Fault::RelayAt { place: "f:3".into(), source: timeout() }, 3, "f:3: no reply"),
        ] {
            assert_eq!(fault.status(), status, "{fault}");
            assert!(fault.to_string().contains(word), "{fault}");
        }
        assert!(Fault::Output(ErrorKind::BrokenPipe.into()).is_silent());
    }
}
