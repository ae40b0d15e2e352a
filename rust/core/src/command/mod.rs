//! The control protocol: text to [`Command`], [`Reply`] to text, and back (docs/protocol.md).
//!
//! [`parse`] knows the grammar. What depends on the configuration (labels, bridge mode, routes) is asked of
//! [`Rules`] at the place where the protocol checks it, so that the first offender decides the error code.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

mod capability;
mod encode;
mod error;
mod parse;
mod reply;
mod retry;
mod token;

pub use capability::{CAPABILITIES, NOTIFY_CAPABILITY};
pub use error::ErrorCode;
pub use parse::{AnyRules, Rules, parse};
pub(crate) use parse::{signed, url_decode};
pub use reply::{
    BadReply, Info, MediaReply, QUERY_DEFAULT, QUERY_FIGURES, RECORDINGS_MAX, REPLY_MAX, Reply, ReplyKind,
    StatValue, SubResult,
};
pub use retry::ReplyCache;
pub use token::split_cookie;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Box<[u8]>);

        impl $name {
            /// The raw bytes, as they came.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl From<&[u8]> for $name {
            fn from(bytes: &[u8]) -> Self {
                Self(bytes.into())
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.as_bytes().into())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&String::from_utf8_lossy(&self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:?}", String::from_utf8_lossy(&self.0))
            }
        }
    };
}

id_type! {
    /// A call-id: raw bytes without white space.
    CallId
}

id_type! {
    /// A from-tag or to-tag: raw bytes without white space, perhaps with a `;N` media number.
    Tag
}

/// Who a command speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// The call.
    pub call_id: CallId,
    /// The first tag.
    pub from_tag: Tag,
    /// The second tag, if given.
    pub to_tag: Option<Tag>,
}

/// A local address as `l` writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalSpec {
    /// An address.
    Addr(IpAddr),
    /// The label of a configured one.
    Label(Box<str>),
}

/// One modifier of `U` or `L`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Modifier {
    /// `a`
    Asymmetric,
    /// `s`
    Symmetric,
    /// `e`
    External,
    /// `i`
    Internal,
    /// `6`
    Ipv6,
    /// `w`
    Weak,
    /// `z`N: packets of N milliseconds, 1 to 999.
    Repacketize(u16),
    /// `c`LIST: the text of the list.
    Codecs(Box<str>),
    /// `l`A
    Local(LocalSpec),
    /// `r`A: the source address of the route to A.
    RouteTo(IpAddr),
    /// `n`
    NewPort,
}

/// The modifiers of `U` or `L`, in the order written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modifiers(pub Vec<Modifier>);

impl Modifiers {
    /// True if `wanted` is among them.
    pub fn has(&self, wanted: &Modifier) -> bool {
        self.0.contains(wanted)
    }

    /// The last of `a` and `s`: asymmetric or not; `None` without either.
    pub fn asymmetric(&self) -> Option<bool> {
        self.0.iter().rev().find_map(|modifier| match modifier {
            Modifier::Asymmetric => Some(true),
            Modifier::Symmetric => Some(false),
            _ => None,
        })
    }

    /// The last `z`: milliseconds.
    pub fn packet_ms(&self) -> Option<u16> {
        self.0.iter().rev().find_map(|modifier| match modifier {
            Modifier::Repacketize(milliseconds) => Some(*milliseconds),
            _ => None,
        })
    }

    /// The codec list of `c`.
    pub fn codecs(&self) -> Option<&str> {
        self.0.iter().find_map(|modifier| match modifier {
            Modifier::Codecs(list) => Some(&**list),
            _ => None,
        })
    }
}

/// The addr and port arguments of `U` and `L`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaAddr {
    /// No address: learn it from packets.
    Unknown,
    /// The null host: the party is on hold.
    Hold,
    /// Where the party receives RTP; RTCP is one port above.
    At(SocketAddr),
}

/// The notify pair of `U`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyArgs {
    /// The target by its name.
    pub socket: Box<[u8]>,
    /// The tag, URL-decoded: any bytes.
    pub tag: Box<[u8]>,
}

/// `U` or `L`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The session.
    pub party: Party,
    /// The modifiers.
    pub modifiers: Modifiers,
    /// The media address.
    pub media: MediaAddr,
    /// Where to report a timeout (`U` only).
    pub notify: Option<NotifyArgs>,
    /// What follows `&&`.
    pub subs: Vec<SubCommand>,
}

/// A sub-command (docs/protocol.md, sub-commands).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubCommand {
    /// `D[w]`
    Delete {
        /// `w`
        weak: bool,
    },
    /// `S[r] ttl=N` or `S[r] tos=N`
    Set {
        /// `r`: act on the opposite stream.
        reverse: bool,
        /// What to set.
        setting: Setting,
    },
    /// `L[mods] addr port`
    Lookup {
        /// The modifiers.
        modifiers: Modifiers,
        /// The media address.
        media: MediaAddr,
    },
    /// `C callid from_tag to_tag`
    Fork(Party),
    /// `Mid:inst args…`
    Module {
        /// The module, 1 to 5.
        id: u32,
        /// The instance, from 1.
        instance: u32,
        /// The arguments.
        args: Vec<Box<[u8]>>,
    },
}

/// What the sub-command `S` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Seconds of the media timeout, 1 to `i32::MAX`.
    Ttl(u32),
    /// What the IP TOS byte is set to, 1 to `i32::MAX`: the host judges whether it fits.
    Tos(u32),
}

/// A command of the protocol, as text means it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `V`
    Version,
    /// `VF num`
    Feature(Box<[u8]>),
    /// `U`
    Update(Offer),
    /// `L`
    Lookup(Offer),
    /// `D`
    Delete {
        /// The session.
        party: Party,
        /// `w`
        weak: bool,
    },
    /// `P`
    Play {
        /// The session; the first tag is the listener's.
        party: Party,
        /// How often; 0 only stops, negative is endless.
        count: i32,
        /// The file, without its payload type.
        prompt: Box<[u8]>,
        /// The codec list, or `session`.
        codecs: Box<[u8]>,
    },
    /// `S`
    StopPlay(Party),
    /// `R`
    Record {
        /// The session.
        party: Party,
        /// `s`
        single_file: bool,
    },
    /// `C`
    Copy {
        /// The session.
        party: Party,
        /// A file name or `udp:HOST:PORT`.
        target: Box<[u8]>,
        /// `s`
        single_file: bool,
        /// `p`
        report_port: bool,
    },
    /// `N`
    StopRecord {
        /// The session.
        party: Party,
        /// `a`
        both: bool,
    },
    /// `Q`
    Query {
        /// The session.
        party: Party,
        /// The modifiers as written: looked at only after the session was found.
        modifiers: Box<[u8]>,
        /// The stats asked for.
        names: Vec<Box<[u8]>>,
        /// What follows `&&`.
        subs: Vec<SubCommand>,
    },
    /// `X`
    DeleteAll,
    /// `I`
    Info {
        /// `l`
        load: bool,
    },
    /// `G`
    Counters {
        /// `v`
        verbose: bool,
        /// The counters asked for.
        names: Vec<Box<[u8]>>,
    },
    /// `?recordings`, which the C program does not know.
    Recordings {
        /// Tell those whose number is above this one.
        after: u64,
    },
    /// `?uncopy`, which the C program does not know: ends one of the copies that `C` made.
    StopCopy {
        /// The session.
        party: Party,
        /// `udp:HOST:PORT`, as in the `C`.
        target: Box<[u8]>,
    },
}

impl Command {
    /// The call the command speaks of, if it speaks of one.
    pub fn call_id(&self) -> Option<&CallId> {
        match self {
            Self::Update(offer) | Self::Lookup(offer) => Some(&offer.party.call_id),
            Self::Delete { party, .. }
            | Self::Play { party, .. }
            | Self::StopPlay(party)
            | Self::Record { party, .. }
            | Self::Copy { party, .. }
            | Self::StopCopy { party, .. }
            | Self::StopRecord { party, .. }
            | Self::Query { party, .. } => Some(&party.call_id),
            Self::Version
            | Self::Feature(_)
            | Self::DeleteAll
            | Self::Info { .. }
            | Self::Counters { .. }
            | Self::Recordings { .. } => None,
        }
    }
}

/// Where a notification goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NotifyTarget {
    /// A UNIX stream socket.
    Unix(Box<[u8]>),
    /// A TCP listener, connected to from `from` if given.
    Tcp {
        /// The listener.
        to: SocketAddrV4,
        /// Our address.
        from: Option<Ipv4Addr>,
    },
    /// A listener in this process, by its number.
    InProcess(u32),
}
