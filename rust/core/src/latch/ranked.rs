//! The rules of `nat` and `strict` (docs/latching.md).
//!
//! Sources are ranked against the signalled address: the very address (rank 1), its host (rank 2), anyone
//! else (rank 3). Ranks 1 and 2 speak at once; rank 3 has to show four packets in sequence first.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::legacy::SEQUENCE_WINDOW;
use super::{Latch, Seen, Verdict};
use crate::config::LatchMode;
use crate::time::Mono;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rank {
    Exact,
    Host,
    Stranger,
    /// No address is signalled.
    First,
}

/// Sources on trial, keyed by address and SSRC.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Candidates([Option<Candidate>; CANDIDATES_MAX]);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    from: SocketAddr,
    ssrc: Option<u32>,
    sequence: u16,
    count: u8,
    first: Mono,
    last: Mono,
}

impl Latch {
    pub(super) fn ranked_signal(&mut self, now: Mono, addr: SocketAddr) {
        if self.signalled == Some(addr) {
            self.reopened = self.latched;
            return;
        }
        self.rtp_seen = false;
        if self.latched && self.remote != Some(addr) {
            self.previous = self.remote;
            self.updated = Some(now);
            self.latched = false;
            self.record = None;
            self.send_from = None;
            self.candidates = None;
        }
        self.remote = Some(addr);
        self.untrusted = false;
    }

    pub(super) fn ranked_packet(&mut self, now: Mono, from: SocketAddr, rtp: Option<Seen>) -> Verdict {
        if self.latched { self.locked_packet(now, from, rtp) } else { self.open_packet(now, from, rtp) }
    }

    /// A packet while no source is settled, or the settled one may be replaced.
    fn open_packet(&mut self, now: Mono, from: SocketAddr, rtp: Option<Seen>) -> Verdict {
        let rank = self.rank(from);
        if rank != Rank::Exact && self.mode == LatchMode::Strict {
            return Verdict::Refuse;
        }
        match rank {
            Rank::Exact => self.lock(now, from, rtp),
            Rank::Host if self.is_leaving(now, from) => Verdict::Accept,
            Rank::Host => match rtp {
                Some(seen) if !self.plausible(seen.payload_type) => Verdict::Accept,
                _ => self.lock(now, from, rtp),
            },
            Rank::First if rtp.is_some_and(|seen| self.plausible(seen.payload_type)) => {
                self.lock(now, from, rtp)
            }
            Rank::First | Rank::Stranger => self.try_candidate(now, from, rtp),
        }
    }

    pub(super) fn ranked_rtcp(&mut self, from: SocketAddr, host: Option<IpAddr>) -> Verdict {
        if host != Some(from.ip()) {
            return Verdict::Refuse;
        }
        let before = self.remote.replace(from);
        let was_latched = std::mem::replace(&mut self.latched, true);
        match before {
            Some(before) if before != from && was_latched => Verdict::Relatched { from: before },
            _ if was_latched => Verdict::Accept,
            _ => Verdict::Latched,
        }
    }

    /// A packet while a source is settled.
    fn locked_packet(&mut self, now: Mono, from: SocketAddr, rtp: Option<Seen>) -> Verdict {
        let Some(source) = self.remote else { return Verdict::Refuse };
        if from == source {
            self.heard = now;
            self.reopened = false;
            if let Some(seen) = rtp {
                self.rtp_seen = true;
                self.record = Some((seen.ssrc, seen.sequence));
            }
            return Verdict::Accept;
        }
        if Some(from) == self.signalled && !self.on_hold {
            return self.lock(now, from, rtp);
        }
        // Media waits for better sources than a stranger, so they are let in.
        if self.send_from.is_some_and(|from| now < from) && self.rank(from) == Rank::Host {
            return self.open_packet(now, from, rtp);
        }
        let silent = now.since(self.heard) >= SILENCE;
        let continues = match (self.record, rtp) {
            (Some((ssrc, sequence)), Some(seen)) => {
                let ahead = seen.sequence.wrapping_sub(sequence);
                seen.ssrc == ssrc && (1..=SEQUENCE_WINDOW).contains(&ahead)
            }
            _ => false,
        };
        if silent && continues && self.mode != LatchMode::Strict {
            self.lock(now, from, rtp)
        } else if silent && self.reopened {
            self.open_packet(now, from, rtp)
        } else {
            Verdict::Refuse
        }
    }

    fn rank(&self, from: SocketAddr) -> Rank {
        match self.signalled.filter(|_| !self.on_hold) {
            None => Rank::First,
            Some(signalled) if signalled == from => Rank::Exact,
            Some(signalled) if signalled.ip() == from.ip() => Rank::Host,
            Some(_) => Rank::Stranger,
        }
    }

    /// True for the source before the last update while its last packets may still be on their way.
    fn is_leaving(&self, now: Mono, from: SocketAddr) -> bool {
        self.previous == Some(from) && self.updated.is_some_and(|updated| now.since(updated) < LEAVING)
    }

    fn try_candidate(&mut self, now: Mono, from: SocketAddr, rtp: Option<Seen>) -> Verdict {
        let fit = match rtp {
            Some(seen) => self.plausible(seen.payload_type),
            None => !self.rtp_seen,
        };
        if !fit || self.is_leaving(now, from) {
            return Verdict::Refuse;
        }
        self.rtp_seen |= rtp.is_some();
        let candidate = self.candidates.get_or_insert_default().note(now, from, rtp);
        if candidate.count < TRIAL_PACKETS || now.since(candidate.first) < TRIAL_SPAN {
            return Verdict::Refuse;
        }
        // The real party may still speak from the signalled address, so media does not go here at once.
        let send_from = self.signalled.filter(|_| !self.on_hold).map(|_| candidate.first + STRANGER_WAIT);
        let verdict = self.lock(now, from, rtp);
        self.send_from = send_from;
        verdict
    }

    fn lock(&mut self, now: Mono, from: SocketAddr, rtp: Option<Seen>) -> Verdict {
        let before = self.remote.replace(from).filter(|_| self.latched);
        self.latched = true;
        self.untrusted = Some(from) != self.signalled;
        self.record = rtp.map(|seen| (seen.ssrc, seen.sequence));
        self.rtp_seen |= rtp.is_some();
        self.heard = now;
        self.send_from = None;
        self.reopened = false;
        self.candidates = None;
        match before {
            Some(before) => Verdict::Relatched { from: before },
            None => Verdict::Latched,
        }
    }
}

impl Candidates {
    /// Counts a packet of a source on trial. A break in its sequence starts the trial anew.
    fn note(&mut self, now: Mono, from: SocketAddr, rtp: Option<Seen>) -> Candidate {
        let ssrc = rtp.map(|seen| seen.ssrc);
        let sequence = rtp.map_or(0, |seen| seen.sequence);
        let known = self.0.iter_mut().flatten().find(|known| known.from == from && known.ssrc == ssrc);
        if let Some(known) = known {
            if rtp.is_none() || sequence == known.sequence.wrapping_add(1) {
                known.count = known.count.saturating_add(1);
            } else {
                (known.count, known.first) = (1, now);
            }
            (known.sequence, known.last) = (sequence, now);
            return *known;
        }
        let fresh = Candidate { from, ssrc, sequence, count: 1, first: now, last: now };
        *self.place(from.ip()) = Some(fresh);
        fresh
    }

    /// A free place, else that of a candidate of the same host, else of any: the one that showed least and
    /// longest ago. So a host that floods us pushes out none but its own.
    fn place(&mut self, host: IpAddr) -> &mut Option<Candidate> {
        let weakest = |place: &&mut Option<Candidate>| {
            place.map(|known| (known.from.ip() != host, known.count, known.last))
        };
        self.0.iter_mut().min_by_key(weakest).expect("there is at least one place")
    }
}

/// Packets that a stranger has to show in sequence.
const TRIAL_PACKETS: u8 = 4;

/// The least time between the first and the last of them.
const TRIAL_SPAN: Duration = Duration::from_millis(60);

/// Media is not sent to a stranger before this long after its first packet.
const STRANGER_WAIT: Duration = Duration::from_millis(200);

/// A settled source that is silent for this long may be followed to a new address.
const SILENCE: Duration = Duration::from_millis(300);

/// Packets of the source before an update are not learned from for this long.
const LEAVING: Duration = Duration::from_secs(2);

const CANDIDATES_MAX: usize = 4;
