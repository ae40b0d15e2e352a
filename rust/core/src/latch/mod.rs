//! Who may speak for a party, and where its media is sent.
//!
//! A [`Latch`] belongs to one stream. Commands tell it the signalled address, packets ask it for a
//! [`Verdict`]. Three sets of rules exist: `legacy` (the C program's), `nat` and `strict`
//! (docs/latching.md). Asymmetric streams follow the legacy rules in every mode.

use std::net::{IpAddr, SocketAddr};

use crate::config::LatchMode;
use crate::recording::Channel;
use crate::rtp::RtpView;
use crate::time::Mono;

mod legacy;
mod ranked;

use ranked::Candidates;

/// What a latch looks at in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Sequence number.
    pub sequence: u16,
    /// Payload type.
    pub payload_type: u8,
}

impl From<&RtpView<'_>> for Seen {
    fn from(rtp: &RtpView<'_>) -> Self {
        Self { ssrc: rtp.ssrc(), sequence: rtp.sequence(), payload_type: rtp.payload_type() }
    }
}

/// What a latch decides about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The packet is the party's; nothing changed.
    Accept,
    /// The packet is the party's, and with it the stream found its source.
    Latched,
    /// The packet is the party's, and the stream moved here from another source.
    Relatched {
        /// The source before.
        from: SocketAddr,
    },
    /// The packet is not the party's.
    Refuse,
}

impl Verdict {
    /// True unless the packet is refused.
    pub fn accepts(self) -> bool {
        self != Self::Refuse
    }
}

/// The source of one stream: learned, locked and defended.
#[derive(Clone, Debug, PartialEq)]
pub struct Latch {
    mode: LatchMode,
    channel: Channel,
    asymmetric: bool,
    on_hold: bool,
    /// The address that came with `U` or `L`.
    signalled: Option<SocketAddr>,
    /// Where media to the party goes.
    remote: Option<SocketAddr>,
    /// `remote` was learned from a packet.
    untrusted: bool,
    /// The source is settled.
    latched: bool,
    /// SSRC and sequence number of the settled source.
    record: Option<(u32, u16)>,
    /// When `record` was last refreshed (legacy), or the source last heard (ranked).
    heard: Mono,
    /// The last `U` or `L` that carried an address while one was known.
    updated: Option<Mono>,
    /// The source before the last update.
    previous: Option<SocketAddr>,
    /// Payload types of the `c` list as a bit set; `None` without a list.
    allowed: Option<u128>,
    /// Media waits until here before it is sent to a source of the lowest rank.
    send_from: Option<Mono>,
    /// The same address was signalled once more: if the settled source is silent, it may be replaced.
    reopened: bool,
    /// RTP was seen from an accepted or tried source since the address was signalled.
    rtp_seen: bool,
    /// Allocated when the first stranger speaks; most streams never see one.
    candidates: Option<Box<Candidates>>,
}

impl Latch {
    /// A latch without an address.
    pub fn new(mode: LatchMode, channel: Channel) -> Self {
        Self {
            mode,
            channel,
            asymmetric: false,
            on_hold: false,
            signalled: None,
            remote: None,
            untrusted: false,
            latched: false,
            record: None,
            heard: Mono::default(),
            updated: None,
            previous: None,
            allowed: None,
            send_from: None,
            reopened: false,
            rtp_seen: false,
            candidates: None,
        }
    }

    /// Where to send media for the party now; `None` while nobody knows.
    ///
    /// For 200 ms after the first packet of a stranger that became the source this is still the signalled
    /// address, because the real party may yet speak.
    pub fn destination(&self, now: Mono) -> Option<SocketAddr> {
        match self.send_from {
            Some(from) if now < from => self.signalled,
            _ => self.remote,
        }
    }

    /// Where media to the party goes, whatever the time.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// The address that came with the last `U` or `L` that had one.
    pub fn signalled(&self) -> Option<SocketAddr> {
        self.signalled
    }

    /// The settled source, once there is one.
    pub fn source(&self) -> Option<SocketAddr> {
        if self.latched { self.remote } else { None }
    }

    /// The host that RTCP of this (RTP) stream must come from, if one is known.
    pub fn host(&self) -> Option<IpAddr> {
        self.source().or(self.signalled).map(|addr| addr.ip())
    }

    /// Says whether the party sends from where it receives.
    pub fn set_asymmetric(&mut self, asymmetric: bool) {
        self.asymmetric = asymmetric;
    }

    /// Says which payload types the party announced; an empty list means it announced none.
    pub fn set_payload_types(&mut self, payload_types: &[u8]) {
        self.allowed = (!payload_types.is_empty())
            .then(|| payload_types.iter().filter(|pt| **pt < 128).fold(0, |set, pt| set | 1u128 << *pt));
    }

    /// Puts the party on hold: no address came with the command.
    pub fn hold(&mut self) {
        self.on_hold = true;
    }

    /// Takes the address of a `U` or `L`.
    pub fn signal(&mut self, now: Mono, addr: SocketAddr) {
        self.on_hold = false;
        if self.asymmetric || self.mode == LatchMode::Legacy {
            self.legacy_signal(now, addr);
        } else {
            self.ranked_signal(now, addr);
        }
        self.signalled = Some(addr);
        if self.asymmetric {
            self.latched = true;
        }
    }

    /// Decides about a packet on the RTP port. `rtp` is `None` if it is not RTP.
    pub fn rtp_packet(&mut self, now: Mono, from: SocketAddr, rtp: Option<Seen>) -> Verdict {
        if self.asymmetric || self.mode == LatchMode::Legacy {
            self.legacy_packet(now, from, rtp)
        } else {
            self.ranked_packet(now, from, rtp)
        }
    }

    /// Decides about a packet on the RTCP port. `host` is the host of the party's RTP ([`Self::host`]).
    pub fn rtcp_packet(&mut self, now: Mono, from: SocketAddr, host: Option<IpAddr>) -> Verdict {
        if self.asymmetric || self.mode == LatchMode::Legacy {
            self.legacy_packet(now, from, None)
        } else {
            self.ranked_rtcp(from, host)
        }
    }

    /// The RTP stream of this (RTCP) stream's party was filled from a packet: RTCP is guessed one port above
    /// its source, unless the host is known already.
    pub fn guess_rtcp(&mut self, rtp: &Self) {
        let Some(source) = rtp.remote else { return };
        let known = self.remote.is_some_and(|remote| remote.ip() == source.ip());
        let Some(port) = source.port().checked_add(1).filter(|_| !known) else { return };
        self.remote = Some(SocketAddr::new(source.ip(), port));
        self.latched = self.asymmetric;
        self.send_from = rtp.send_from;
    }

    /// The stream's SSRC changed in an accepted packet.
    pub fn ssrc_changed(&mut self, now: Mono, seen: Seen) {
        if self.asymmetric || self.mode == LatchMode::Legacy {
            self.legacy_settle(now, Some(seen));
        }
    }

    fn plausible(&self, payload_type: u8) -> bool {
        match self.allowed {
            Some(set) => set & (1 << (payload_type & 0x7f)) != 0,
            None => !RTCP_LIKE.contains(&payload_type),
        }
    }
}

/// Payload types that RTCP packet types look like when the marker bit is taken off (RFC 5761, section 4).
const RTCP_LIKE: std::ops::RangeInclusive<u8> = 64..=95;
