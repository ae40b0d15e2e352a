//! One session: two sides, each with an RTP and an RTCP stream. Plain data, without handles of the shell
//! other than the numbers of its socket pairs.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use crate::addr::LocalAddr;
use crate::analyzer::Analyzer;
use crate::command::{CallId, NotifyTarget, Tag};
use crate::config::{EngineConfig, LatchMode};
use crate::host::OpenedPair;
use crate::latch::Latch;
use crate::player::Player;
use crate::recording::{Channel, Coverage, Leg, LegFacts, RecordingId};
use crate::resizer::Resizer;
use crate::time::{Mono, Now};

/// Packets of a pipe (both RTP streams, or both RTCP streams, of a session).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PipeCounts {
    pub(crate) relayed: u64,
    pub(crate) dropped: u64,
    pub(crate) ignored: u64,
}

/// What one party sends on one port, and where it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stream {
    pub(crate) latch: Latch,
    /// Packets accepted.
    pub(crate) packets: u64,
    pub(crate) first_packet: Option<Mono>,
    pub(crate) last_packet: Option<Mono>,
    /// Seconds.
    pub(crate) longest_gap_s: f64,
    /// The refused sources that were told of, as hashes.
    pub(crate) refusals_told: Told,
    pub(crate) moves_told: u8,
}

impl Stream {
    fn new(mode: LatchMode, channel: Channel) -> Self {
        Self {
            latch: Latch::new(mode, channel),
            packets: 0,
            first_packet: None,
            last_packet: None,
            longest_gap_s: 0.0,
            refusals_told: Told::default(),
            moves_told: 0,
        }
    }

    /// Counts an accepted packet.
    pub(crate) fn count(&mut self, now: Mono) {
        self.packets += 1;
        self.first_packet.get_or_insert(now);
        if let Some(last) = self.last_packet.replace(now) {
            self.longest_gap_s = self.longest_gap_s.max(now.since(last).as_secs_f64());
        }
    }
}

/// Sources that were told of, so that each is told once, and only so many are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Told {
    hashes: [u32; 8],
    count: u8,
}

impl Told {
    /// Whether this source is to be told of; from then on it was.
    pub(crate) fn is_new(&mut self, source: SocketAddr) -> bool {
        let count = usize::from(self.count);
        if count == self.hashes.len() {
            return false;
        }
        let mut hasher = DefaultHasher::new();
        source.hash(&mut hasher);
        let hash = hasher.finish() as u32;
        if self.hashes[..count].contains(&hash) {
            return false;
        }
        self.hashes[count] = hash;
        self.count += 1;
        true
    }
}

/// The half of a session that one party talks to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Side {
    /// What the pair is, or will be, bound to.
    pub(crate) local: LocalAddr,
    pub(crate) pair: Option<OpenedPair>,
    pub(crate) rtp: Stream,
    pub(crate) rtcp: Stream,
    pub(crate) analyzer: Box<Analyzer>,
    /// The text of the `c` list.
    pub(crate) codecs: Option<Box<str>>,
    /// Rebuilds what this party sends, while `z` is in force.
    pub(crate) resizer: Option<Box<Resizer>>,
    /// Milliseconds of a packet of prompts for this party, as `z` of the other one asked for.
    pub(crate) prompt_ptime_ms: Option<u16>,
    /// What the party hears instead of the other one.
    pub(crate) player: Option<Box<Player>>,
    pub(crate) on_hold: bool,
    pub(crate) holds: u32,
    /// The recording of what this party sends, in scope stream.
    pub(crate) recording: Option<RecordingId>,
}

impl Side {
    pub(crate) fn new(mode: LatchMode, local: LocalAddr) -> Self {
        Self {
            local,
            pair: None,
            rtp: Stream::new(mode, Channel::Rtp),
            rtcp: Stream::new(mode, Channel::Rtcp),
            analyzer: Box::new(Analyzer::new()),
            codecs: None,
            resizer: None,
            prompt_ptime_ms: None,
            player: None,
            on_hold: false,
            holds: 0,
            recording: None,
        }
    }

    pub(crate) fn stream(&mut self, channel: Channel) -> &mut Stream {
        match channel {
            Channel::Rtp => &mut self.rtp,
            Channel::Rtcp => &mut self.rtcp,
        }
    }

    /// What the recorder should know of the party.
    pub(crate) fn facts(&self) -> LegFacts {
        LegFacts {
            remote: self.rtp.latch.remote(),
            signalled: self.rtp.latch.signalled(),
            local: self.pair.map(|pair| (self.local.ip, pair.port)),
            codecs: payload_types(self.codecs.as_deref()),
        }
    }
}

/// The recording of the whole call, in scope call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallRecording {
    pub(crate) id: RecordingId,
    pub(crate) paused: bool,
}

/// Where to report a timeout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notify {
    pub(crate) target: NotifyTarget,
    pub(crate) tag: Box<[u8]>,
}

/// A session. `sides[1]` faces the caller, `sides[0]` the callee.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Session {
    pub(crate) call_id: CallId,
    pub(crate) from_tag: Tag,
    /// The to-tag of the last command that had one; only recordings show it.
    pub(crate) to_tag: Option<Tag>,
    pub(crate) created: Now,
    pub(crate) sides: [Side; 2],
    pub(crate) strong: bool,
    pub(crate) weak: [bool; 2],
    pub(crate) complete: bool,
    pub(crate) notify: Option<Notify>,
    /// Seconds left, one for each side; only the first is used when they share it.
    pub(crate) ttl_s: [u32; 2],
    /// The period of the timer once the session is complete.
    pub(crate) max_ttl_s: u32,
    pub(crate) setup_ttl_s: u32,
    pub(crate) independent_timers: bool,
    pub(crate) rtp: PipeCounts,
    pub(crate) rtcp: PipeCounts,
    pub(crate) recording: Option<CallRecording>,
    /// The recordings of the sides cover this.
    pub(crate) coverage: Option<Coverage>,
}

impl Session {
    pub(crate) fn new(
        config: &EngineConfig,
        now: Now,
        call_id: CallId,
        from_tag: Tag,
        locals: [LocalAddr; 2],
    ) -> Self {
        let [callee, caller] = locals;
        Self {
            call_id,
            from_tag,
            to_tag: None,
            created: now,
            sides: [Side::new(config.latch, callee), Side::new(config.latch, caller)],
            strong: false,
            weak: [false; 2],
            complete: false,
            notify: None,
            ttl_s: [config.setup_ttl_s; 2],
            max_ttl_s: config.max_ttl_s,
            setup_ttl_s: config.setup_ttl_s,
            independent_timers: config.independent_timers,
            rtp: PipeCounts::default(),
            rtcp: PipeCounts::default(),
            recording: None,
            coverage: None,
        }
    }

    pub(crate) fn pipe(&mut self, channel: Channel) -> &mut PipeCounts {
        match channel {
            Channel::Rtp => &mut self.rtp,
            Channel::Rtcp => &mut self.rtcp,
        }
    }

    /// Seconds left: the smaller one of both sides.
    pub(crate) fn ttl_s(&self) -> u32 {
        if self.independent_timers { self.ttl_s[0].min(self.ttl_s[1]) } else { self.ttl_s[0] }
    }

    /// Restarts the countdown of a side.
    pub(crate) fn touch(&mut self, side: usize) {
        let period = if self.complete { self.max_ttl_s } else { self.setup_ttl_s };
        self.ttl_s[if self.independent_timers { side } else { 0 }] = period;
    }

    pub(crate) fn touch_both(&mut self) {
        self.touch(0);
        self.touch(1);
    }

    /// A second has passed. False if the session's time was up already.
    pub(crate) fn tick(&mut self) -> bool {
        if self.ttl_s() == 0 {
            return false;
        }
        for left in &mut self.ttl_s {
            *left = left.saturating_sub(1);
        }
        true
    }

    /// The facts of the legs, caller first.
    pub(crate) fn facts(&self) -> [LegFacts; 2] {
        [self.sides[1].facts(), self.sides[0].facts()]
    }

    /// Which side the given tags mean (docs/protocol.md, tags): 0 if the first is the session's own.
    pub(crate) fn find(&self, from_tag: &Tag, to_tag: Option<&Tag>) -> Option<usize> {
        let own = self.from_tag.as_bytes();
        if own == from_tag.as_bytes() {
            return Some(0);
        }
        let to_tag = to_tag?.as_bytes();
        if own == to_tag {
            return Some(1);
        }
        let media = last_part(from_tag.as_bytes());
        (is_media_of(own, to_tag) && media.is_some() && last_part(own) == media).then_some(1)
    }

    /// Whether the given tags mean this session for `D`, `R` and `N`: the side, and if the tag was exact.
    pub(crate) fn matches(&self, from_tag: &Tag, to_tag: Option<&Tag>) -> Option<(usize, bool)> {
        let own = self.from_tag.as_bytes();
        let match_one = |tag: &Tag| {
            if own == tag.as_bytes() { Some(true) } else { is_media_of(own, tag.as_bytes()).then_some(false) }
        };
        if let Some(exact) = match_one(from_tag) {
            return Some((1, exact));
        }
        to_tag.and_then(match_one).map(|exact| (0, exact))
    }
}

/// The leg that sends to a side.
pub(crate) fn leg_of(side: usize) -> Leg {
    if side == 1 { Leg::Caller } else { Leg::Callee }
}

/// The numbers of a `c` list; what is not a payload type is left out.
pub(crate) fn payload_types(list: Option<&str>) -> Vec<u8> {
    let numbers = list.unwrap_or_default().split(',');
    numbers.filter_map(|number| number.parse().ok()).filter(|number| *number < 128).collect()
}

/// True if `own` is `tag` with a media number.
fn is_media_of(own: &[u8], tag: &[u8]) -> bool {
    own.strip_prefix(tag).is_some_and(|rest| rest.first() == Some(&b';'))
}

/// The part from the last `;` on.
fn last_part(tag: &[u8]) -> Option<&[u8]> {
    tag.iter().rposition(|byte| *byte == b';').map(|at| &tag[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call may take 4 KB of memory in all; the tables around the session need some of it too.
    #[test]
    fn a_session_is_small() {
        let bytes = size_of::<Session>() + 2 * size_of::<Analyzer>();
        assert!(bytes <= 3072, "a session takes {bytes} bytes");
    }
}
