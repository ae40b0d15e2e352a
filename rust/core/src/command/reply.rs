//! Replies as values and as text.

use super::ErrorCode;

/// A figure in a reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StatValue {
    /// `%d`
    Signed(i64),
    /// `%lu`
    Count(u64),
    /// `%f`: six decimals.
    Real(f64),
}

/// The answer to `U` and `L`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaReply {
    /// The RTP port; RTCP is one above.
    pub port: u16,
    /// The address, unless it is the wildcard: advertised text, or the numeric form.
    pub addr: Option<Box<str>>,
    /// The local address is IPv6.
    pub ipv6: bool,
}

/// The answer to `I`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Info {
    /// Sessions created since the start.
    pub sessions_created: u64,
    /// Sessions now.
    pub sessions_active: u64,
    /// RTP streams now.
    pub streams_active: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Packets relayed and played.
    pub packets_transmitted: u64,
    /// The load, if it was asked for (`Il`).
    pub load: Option<f64>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// `0`: done.
    Done,
    /// `20040107`
    Version,
    /// `1` or `0`
    Feature(bool),
    /// A port was given.
    Media(MediaReply),
    /// `0` of an `L` without its session; counts as an error.
    NoSession,
    /// `Q`: names and values; names are shown with `v`.
    Stats {
        /// Show the names.
        verbose: bool,
        /// The figures.
        values: Vec<(Box<str>, StatValue)>,
    },
    /// `I`
    Info(Info),
    /// `G`
    Counters {
        /// Show the names.
        verbose: bool,
        /// The figures.
        values: Vec<(Box<str>, StatValue)>,
    },
    /// `E<n>`
    Error(ErrorCode),
}

/// What kind of answer a command expects: needed to read one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// `0`
    Done,
    /// `V`
    Version,
    /// `VF`
    Feature,
    /// `U`
    Media,
    /// `L`: as `U`, and `0` is [`Reply::NoSession`].
    Lookup,
    /// `Q` with these names.
    Stats(Vec<Box<str>>),
    /// `I`: five lines, six with the load.
    Info {
        /// With the load.
        load: bool,
    },
    /// `G` with these names.
    Counters(Vec<Box<str>>),
}
