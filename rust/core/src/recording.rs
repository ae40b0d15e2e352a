//! What the engine tells the recorder.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::command::{CallId, Tag};
use crate::time::Now;

/// One party of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leg {
    /// The party whose address the creating `U` carried.
    Caller,
    /// The other party.
    Callee,
}

impl Leg {
    /// The other leg.
    pub fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }

    /// The word for logs, files and Python.
    pub fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Callee => "callee",
        }
    }
}

/// RTP or RTCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// The even port.
    Rtp,
    /// The odd port.
    Rtcp,
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rtp => "RTP",
            Self::Rtcp => "RTCP",
        })
    }
}

/// Names one recording of this engine for as long as it runs; never re-used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordingId(pub u64);

/// Names what is kept of one party of a session for a recording that may begin later; never re-used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeptId {
    /// The same for both parties of a session.
    pub number: u64,
    /// The party.
    pub leg: Leg,
}

/// What a recording covers, and thereby how its files are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Both legs, RTP and RTCP, in one file.
    Call,
    /// What one party sends: an RTP and an RTCP file, letter `o` for the caller and `a` for the callee.
    Stream(Leg),
    /// Both sides in one file `CALLID=FROMTAG.pcap` (`Rs` and `-a` with `-P`, scope stream).
    SingleFile,
    /// What one party sends, under exactly this name (`C` to a file).
    Named {
        /// The party.
        leg: Leg,
        /// The name the command gave.
        name: Box<[u8]>,
    },
    /// Both sides in one file under exactly this name (`Cs` with `-P`, scope stream).
    NamedSingleFile {
        /// The name the command gave.
        name: Box<[u8]>,
    },
}

/// What is known of one leg when a recording starts or changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegFacts {
    /// Where the party sends from and is sent to, if known.
    pub remote: Option<SocketAddr>,
    /// The address that came with `U` or `L`.
    pub signalled: Option<SocketAddr>,
    /// The relay's address and RTP port that the party sends to.
    pub local: Option<(IpAddr, u16)>,
    /// The payload types of the `c` modifier, in order; empty if none was given.
    pub codecs: Vec<u8>,
}

/// A recording starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingStart {
    /// The recording.
    pub id: RecordingId,
    /// The call.
    pub call_id: CallId,
    /// The tag the session was created with, with its media number.
    pub from_tag: Tag,
    /// The to-tag of the last command that had one.
    pub to_tag: Option<Tag>,
    /// What it covers.
    pub coverage: Coverage,
    /// RTCP too.
    pub rtcp: bool,
    /// When it was asked for.
    pub at: Now,
    /// The caller, then the callee.
    pub legs: [LegFacts; 2],
}

/// Something that a reader of the recording should see at this place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A stream found its source.
    Latched {
        /// Whose stream.
        leg: Leg,
        /// RTP or RTCP.
        channel: Channel,
        /// The source.
        source: SocketAddr,
    },
    /// A stream moved to another source.
    Relatched {
        /// Whose stream.
        leg: Leg,
        /// RTP or RTCP.
        channel: Channel,
        /// The source before.
        from: SocketAddr,
        /// The source now.
        to: SocketAddr,
    },
    /// Packets of another source were refused; told once for each source at most, and bounded.
    Refused {
        /// Whose stream.
        leg: Leg,
        /// RTP or RTCP.
        channel: Channel,
        /// The stranger.
        source: SocketAddr,
    },
    /// `N` stopped the recording; it can go on with `R`.
    Paused,
    /// `R` after `N`.
    Resumed,
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The session was deleted.
    Deleted,
    /// The session timed out.
    Timeout,
    /// `N` ended it (only where it cannot be resumed: scope stream).
    Stopped,
    /// The relay shut down.
    Shutdown,
}

impl EndReason {
    /// The word for the sidecar.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Timeout => "timeout",
            Self::Stopped => "stopped",
            Self::Shutdown => "shutdown",
        }
    }

    /// The reason of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Deleted, Self::Timeout, Self::Stopped, Self::Shutdown]
            .into_iter()
            .find(|reason| reason.name() == name)
    }
}

/// A message to the recorder, in the order of the packets around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordingEvent {
    /// Open it.
    Start(Box<RecordingStart>),
    /// The facts of the legs changed (a new `U` or `L`).
    Facts {
        /// The recording.
        id: RecordingId,
        /// The to-tag, once known.
        to_tag: Option<Tag>,
        /// The caller, then the callee.
        legs: Box<[LegFacts; 2]>,
    },
    /// Write a mark.
    Mark {
        /// The recording.
        id: RecordingId,
        /// When.
        at: Now,
        /// What.
        mark: Mark,
    },
    /// Close it.
    End {
        /// The recording.
        id: RecordingId,
        /// When.
        at: Now,
        /// Why.
        reason: EndReason,
    },
}

impl RecordingEvent {
    /// The recording it speaks of.
    pub fn id(&self) -> RecordingId {
        match self {
            Self::Start(start) => start.id,
            Self::Facts { id, .. } | Self::Mark { id, .. } | Self::End { id, .. } => *id,
        }
    }
}
