//! One session: two sides, each with an RTP and an RTCP stream. Plain data, without handles of the shell
//! other than the numbers of its socket pairs.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use crate::addr::LocalAddr;
use crate::analyzer::Analyzer;
use crate::command::{CallId, NotifyTarget, Tag};
use crate::config::{EngineConfig, LatchMode};
use crate::dtmf::KeyCatcher;
use crate::effects::TapId;
use crate::host::OpenedPair;
use crate::latch::Latch;
use crate::player::Player;
use crate::recording::{Channel, KeptId, Leg, LegFacts, RecordingId};
use crate::resizer::Resizer;
use crate::time::Now;

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
    pub(crate) first_packet: Option<Now>,
    pub(crate) last_packet: Option<Now>,
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
    pub(crate) fn count(&mut self, now: Now) {
        self.packets += 1;
        self.first_packet.get_or_insert(now);
        if let Some(last) = self.last_packet.replace(now) {
            self.longest_gap_s = self.longest_gap_s.max(now.mono.since(last.mono).as_secs_f64());
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
    /// The IP TOS byte of the sockets, where a command has set it.
    pub(crate) tos: Option<u8>,
    /// The recording of what this party sends: `C` to a file, and `R` in scope stream.
    pub(crate) file: Option<FileWitness>,
    /// The hosts that get what this party sends: `C` to a host, [`RECEIVERS_MAX`] at most.
    pub(crate) receivers: Vec<Receiver>,
    /// What this party sends is kept under this name for a recording that may begin later.
    pub(crate) kept: Option<KeptId>,
    /// Who is told of the keys that this party presses.
    pub(crate) key_watchers: Vec<KeyWatcher>,
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
            tos: None,
            file: None,
            receivers: Vec::new(),
            kept: None,
            key_watchers: Vec::new(),
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

    /// The recording of what this party sends, if it is copied to one.
    pub(crate) fn recording(&self) -> Option<RecordingId> {
        self.file.map(|file| file.id)
    }

    /// True if what this party sends is copied anywhere, beside the recording of the call.
    pub(crate) fn is_copied(&self) -> bool {
        self.file.is_some() || !self.receivers.is_empty()
    }

    /// The pairs of sockets of this side: that of the party, and those which copies leave from.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = OpenedPair> {
        self.pair.into_iter().chain(self.receivers.iter().map(|receiver| receiver.pair))
    }

    /// The same, to be changed.
    pub(crate) fn pairs_mut(&mut self) -> impl Iterator<Item = &mut OpenedPair> {
        self.pair.iter_mut().chain(self.receivers.iter_mut().map(|receiver| &mut receiver.pair))
    }
}

/// The recording of what one party sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileWitness {
    pub(crate) id: RecordingId,
    /// Both sides may be in it, with their RTCP.
    pub(crate) single: bool,
}

/// A host that gets copies as datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receiver {
    /// Where they leave from.
    pub(crate) pair: OpenedPair,
    /// Where those of RTP go.
    pub(crate) rtp: SocketAddr,
    /// Where those of RTCP go; `None` if it is not copied.
    pub(crate) rtcp: Option<SocketAddr>,
}

/// Tells a notification target of the keys that a party presses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyWatcher {
    /// The number of the module in `M`.
    pub(crate) instance: u32,
    /// The target of the session and the tag of the sub-command, when the watch began.
    pub(crate) notify: Notify,
    /// That of the telephone events.
    pub(crate) payload_type: u8,
    /// The events go no further.
    pub(crate) hides: bool,
    pub(crate) catcher: KeyCatcher,
}

/// Another session to which the packets of this one are sent as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fork {
    /// The other session in the tables of its engine.
    pub(crate) target: usize,
    /// The side of the other session whose party gets what side 0 of this one receives; the other side gets the rest.
    pub(crate) first_to: usize,
}

impl Fork {
    /// The side of the target whose party gets what `side` of the source receives.
    pub(crate) fn to_side(self, side: usize) -> usize {
        if side == 0 { self.first_to } else { 1 - self.first_to }
    }
}

/// The recording of the whole call, in scope call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallRecording {
    pub(crate) id: RecordingId,
    pub(crate) paused: bool,
}

/// Where to report, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notify {
    pub(crate) target: NotifyTarget,
    pub(crate) tag: Box<[u8]>,
}

/// A session. `sides[1]` faces the caller, `sides[0]` the callee.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Session {
    /// What accounting calls it; 0 without accounting.
    pub(crate) uid: u64,
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
    /// The periods of these once the session is complete.
    pub(crate) max_ttl_s: [u32; 2],
    /// The periods before.
    pub(crate) setup_ttl_s: [u32; 2],
    pub(crate) independent_timers: bool,
    pub(crate) rtp: PipeCounts,
    pub(crate) rtcp: PipeCounts,
    pub(crate) recording: Option<CallRecording>,
    /// Who gets what is received as it comes, [`TAPS_MAX`] at most.
    pub(crate) taps: Vec<TapId>,
    /// Sessions that get what this one receives.
    pub(crate) forks: Vec<Fork>,
    /// The sessions that were forked into this one, which may be gone: then the number may mean another one.
    pub(crate) sources: Vec<usize>,
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
            uid: 0,
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
            max_ttl_s: [config.max_ttl_s; 2],
            setup_ttl_s: [config.setup_ttl_s; 2],
            independent_timers: config.independent_timers,
            rtp: PipeCounts::default(),
            rtcp: PipeCounts::default(),
            recording: None,
            taps: Vec::new(),
            forks: Vec::new(),
            sources: Vec::new(),
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
        let timer = self.timer(side);
        let periods = if self.complete { self.max_ttl_s } else { self.setup_ttl_s };
        self.ttl_s[timer] = periods[timer];
    }

    pub(crate) fn touch_both(&mut self) {
        self.touch(0);
        self.touch(1);
    }

    /// Gives the countdown of a side another period, and starts it with that.
    pub(crate) fn set_ttl(&mut self, side: usize, seconds: u32) {
        let timer = self.timer(side);
        self.max_ttl_s[timer] = seconds;
        self.setup_ttl_s[timer] = seconds;
        self.ttl_s[timer] = seconds;
    }

    fn timer(&self, side: usize) -> usize {
        if self.independent_timers { side } else { 0 }
    }

    /// True if another session's packets go to the parties of this one.
    pub(crate) fn is_fork(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Keeps a to-tag that a command brought, for recordings.
    pub(crate) fn learn_to_tag(&mut self, from_tag: &Tag, to_tag: Option<&Tag>) {
        if let Some(to_tag) = to_tag
            && self.to_tag.is_none()
        {
            let other = if *to_tag == self.from_tag { from_tag } else { to_tag };
            self.to_tag = Some(other.clone());
        }
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

/// How many taps a session may have.
pub(crate) const TAPS_MAX: usize = 8;

/// How many hosts may get what one party sends.
pub(crate) const RECEIVERS_MAX: usize = 8;

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
