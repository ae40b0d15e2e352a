//! The synthetic SIP frames that make a capture a call for its readers.
//!
//! The first packets wait until both parties have spoken, so that the head can tell the addresses and payload
//! types of both. What changes later is told by a re-INVITE at that place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rtpproxy_core::recording::{Channel, Coverage, Leg, LegFacts, RecordingStart};
use rtpproxy_core::rtp::RtpView;
use rtpproxy_core::sip_head::{self, HeadFacts, HeadLeg};
use rtpproxy_core::time::{Mono, Wall};

use super::formats::Notes;
use super::queue::PacketHead;

/// The head of one recording.
#[derive(Debug)]
pub(super) struct Head {
    /// What the packets of the caller and the callee have shown.
    seen: [Party; 2],
    /// What the last frames told of them.
    told: Option<[HeadLeg; 2]>,
    waiting: Option<Waiting>,
    /// The number of the last offer.
    cseq: u32,
    /// How many offers are in this file.
    offers: u32,
}

/// A packet that waits.
#[derive(Debug)]
pub(super) struct Held {
    /// The packet.
    pub(super) packet: PacketHead,
    /// Its bytes.
    pub(super) payload: Box<[u8]>,
    /// What shall be seen at it.
    pub(super) notes: Notes,
}

/// A frame to write.
#[derive(Debug)]
pub(super) struct SipFrame {
    /// Who sends it.
    pub(super) sender: Leg,
    /// From where, to where.
    pub(super) addrs: [SocketAddr; 2],
    /// When.
    pub(super) at: Wall,
    /// The message.
    pub(super) text: Vec<u8>,
}

impl Head {
    /// A head for a recording of `coverage` that waits for its first packet, and then for the other party, at most so
    /// long.
    pub(super) fn new(coverage: &Coverage, wait_max: Duration) -> Self {
        let silent = match coverage {
            Coverage::Call | Coverage::SingleFile | Coverage::NamedSingleFile { .. } => [true, true],
            Coverage::Stream(leg) | Coverage::Named { leg, .. } => {
                [Leg::Caller, Leg::Callee].map(|l| l == *leg)
            }
        };
        let waiting = Waiting { held: Vec::new(), bytes: 0, silent, since: None, wait_max };
        Self { seen: Default::default(), told: None, waiting: Some(waiting), cseq: 0, offers: 0 }
    }

    /// Whether packets still wait, or would.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Lets a packet wait; true if the wait is over with it.
    pub(super) fn hold(&mut self, held: Held, now: Instant) -> bool {
        let Some(waiting) = &mut self.waiting else { return true };
        let packet = held.packet;
        if packet.channel == Channel::Rtp {
            waiting.silent[side(packet.leg)] = false;
        }
        let (since, _) = *waiting.since.get_or_insert((packet.at.mono, now));
        waiting.bytes += held.payload.len();
        waiting.held.push(held);
        waiting.silent == [false, false]
            || waiting.held.len() >= HELD_MAX
            || waiting.bytes >= HELD_BYTES_MAX
            || packet.at.mono.since(since) >= waiting.wait_max
    }

    /// Whether the wait has lasted too long.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        let Some(Waiting { since: Some((_, since)), wait_max, .. }) = &self.waiting else { return false };
        now.saturating_duration_since(*since) >= *wait_max
    }

    /// Ends the wait: the packets that waited, in order. [`Self::change`] must see each of them next.
    pub(super) fn release(&mut self) -> Vec<Held> {
        let held = self.waiting.take().map(|waiting| waiting.held).unwrap_or_default();
        for Held { packet, payload, .. } in &held {
            self.seen[side(packet.leg)].learn_first(packet, payload);
        }
        held
    }

    /// What was told was told in another file.
    pub(super) fn tell_again(&mut self) {
        self.told = None;
        self.offers = 0;
    }

    /// The frames that tell in a new file what was told before, for packets from `first` on; none if that was nothing.
    pub(super) fn repeat(
        &mut self,
        start: &RecordingStart,
        codec_map: &[(u8, String)],
        first: Wall,
    ) -> Option<[SipFrame; 2]> {
        let legs = self.told.clone()?;
        self.offers = 0;
        Some(self.offer(start, codec_map, legs, |nanos| Wall(first.0.saturating_sub(nanos))))
    }

    /// The frames to write before a packet, if it is the first or if it tells something new.
    pub(super) fn change(
        &mut self,
        start: &RecordingStart,
        codec_map: &[(u8, String)],
        packet: &PacketHead,
        payload: &[u8],
        not_before: Wall,
    ) -> Option<[SipFrame; 2]> {
        let news = self.seen[side(packet.leg)].learn(packet, payload);
        let is_first = self.told.is_none();
        if !is_first && (news == News::Nothing || self.offers > REINVITES_MAX) {
            return None;
        }
        let legs = [0, 1].map(|leg: usize| self.seen[leg].describe(&start.legs[leg]));
        if news == News::Perhaps && self.told.as_ref() == Some(&legs) {
            return None;
        }
        self.told = Some(legs.clone());
        let just_before = |nanos| Wall(packet.at.wall.0.saturating_sub(nanos)).max(not_before);
        Some(self.offer(start, codec_map, legs, just_before))
    }

    fn offer(
        &mut self,
        start: &RecordingStart,
        codec_map: &[(u8, String)],
        legs: [HeadLeg; 2],
        just_before: impl Fn(u64) -> Wall,
    ) -> [SipFrame; 2] {
        self.cseq += 1;
        self.offers += 1;
        let facts = HeadFacts {
            call_id: start.call_id.as_bytes(),
            from_tag: start.from_tag.as_bytes(),
            to_tag: start.to_tag.as_ref().map(rtpproxy_core::command::Tag::as_bytes),
            legs,
            codec_map,
            cseq: self.cseq,
        };
        let [caller, callee] = facts.signalling();
        [
            SipFrame {
                sender: Leg::Caller,
                addrs: [caller, callee],
                at: just_before(2000),
                text: sip_head::invite(&facts),
            },
            SipFrame {
                sender: Leg::Callee,
                addrs: [callee, caller],
                at: just_before(1000),
                text: sip_head::ok(&facts),
            },
        ]
    }
}

#[derive(Debug)]
struct Waiting {
    held: Vec<Held>,
    bytes: usize,
    /// Parties that are to be recorded and have not spoken.
    silent: [bool; 2],
    /// The stamp of the first packet, and when it came here.
    since: Option<(Mono, Instant)>,
    wait_max: Duration,
}

/// What the packets of one party have shown.
#[derive(Clone, Debug, Default)]
struct Party {
    rtp: Option<SocketAddr>,
    rtcp: Option<SocketAddr>,
    ssrc: Option<u32>,
    payload_types: Vec<u8>,
}

impl Party {
    /// Takes what is not known yet, and nothing that contradicts it.
    fn learn_first(&mut self, packet: &PacketHead, payload: &[u8]) {
        match packet.channel {
            Channel::Rtcp => _ = self.rtcp.get_or_insert(packet.src),
            Channel::Rtp => {
                let Ok(rtp) = RtpView::parse(payload) else { return };
                self.rtp.get_or_insert(packet.src);
                self.ssrc.get_or_insert(rtp.ssrc());
                self.learn_payload_type(rtp.payload_type());
            }
        }
    }

    /// Takes what a packet shows.
    fn learn(&mut self, packet: &PacketHead, payload: &[u8]) -> News {
        match packet.channel {
            Channel::Rtcp if self.rtcp.replace(packet.src) == Some(packet.src) => News::Nothing,
            Channel::Rtcp => News::Perhaps,
            Channel::Rtp => {
                let Ok(rtp) = RtpView::parse(payload) else { return News::Nothing };
                let moved = self.rtp.replace(packet.src) != Some(packet.src);
                let is_new_type = self.learn_payload_type(rtp.payload_type());
                match self.ssrc.replace(rtp.ssrc()) {
                    Some(known) if known != rtp.ssrc() => News::Certain,
                    Some(_) | None if moved || is_new_type => News::Perhaps,
                    Some(_) | None => News::Nothing,
                }
            }
        }
    }

    fn learn_payload_type(&mut self, payload_type: u8) -> bool {
        let is_new =
            self.payload_types.len() < PAYLOAD_TYPES_MAX && !self.payload_types.contains(&payload_type);
        if is_new {
            self.payload_types.push(payload_type);
        }
        is_new
    }

    /// The party for the SDP: its packets outrank what was signalled.
    fn describe(&self, facts: &LegFacts) -> HeadLeg {
        let unknown = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DISCARD_PORT);
        let mut payload_types = facts.codecs.clone();
        payload_types.extend(self.payload_types.iter().filter(|number| !facts.codecs.contains(number)));
        let addr = self.rtp.or(facts.remote).or(facts.signalled).unwrap_or(unknown);
        HeadLeg { addr, rtcp: self.rtcp.filter(|&rtcp| rtcp != next_port(addr)), payload_types }
    }
}

/// Whether a packet showed something that the frames have not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Nothing,
    /// Yes, unless it was signalled.
    Perhaps,
    Certain,
}

fn side(leg: Leg) -> usize {
    match leg {
        Leg::Caller => 0,
        Leg::Callee => 1,
    }
}

fn next_port(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip(), addr.port().wrapping_add(1))
}

/// How many packets wait.
const HELD_MAX: usize = 64;
/// How many bytes wait.
const HELD_BYTES_MAX: usize = 32 << 10;
/// How many changes are told in a file.
const REINVITES_MAX: u32 = 32;
/// How many payload types of a party are told.
const PAYLOAD_TYPES_MAX: usize = 16;
/// The port of an address that nobody knows ([RFC 863](https://www.rfc-editor.org/rfc/rfc863)).
const DISCARD_PORT: u16 = 9;
