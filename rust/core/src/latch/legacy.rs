//! The C program's rules (docs/latching.md, legacy), and those of asymmetric streams in every mode.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Latch, Seen, Verdict};
use crate::recording::Channel;
use crate::time::Mono;

impl Latch {
    pub(super) fn legacy_signal(&mut self, now: Mono, addr: SocketAddr) {
        if self.remote.is_some() {
            self.updated = Some(now);
        }
        if self.untrusted || self.remote == Some(addr) {
            return;
        }
        if self.remote.is_some() && self.latched {
            self.previous = self.remote;
        }
        self.remote = Some(addr);
    }

    pub(super) fn legacy_packet(&mut self, now: Mono, from: SocketAddr, rtp: Option<Seen>) -> Verdict {
        let Some(remote) = self.remote else {
            self.fill(from);
            return Verdict::Latched;
        };
        if self.asymmetric {
            return if from.ip() == remote.ip() { Verdict::Accept } else { Verdict::Refuse };
        }
        if from == remote {
            if self.latched {
                self.refresh(now, rtp);
                return Verdict::Accept;
            }
            self.legacy_settle(now, rtp);
            return if self.latched { Verdict::Latched } else { Verdict::Accept };
        }
        if !self.latched {
            self.legacy_settle(now, rtp);
            self.fill(from);
            return Verdict::Relatched { from: remote };
        }
        if !self.may_move(now, rtp) {
            return Verdict::Refuse;
        }
        if let (Some(seen), Some((_, sequence))) = (rtp, &mut self.record) {
            *sequence = seen.sequence;
            self.heard = now;
        }
        self.fill(from);
        Verdict::Relatched { from: remote }
    }

    /// Settles on the source: records its SSRC and sequence number, unless an update was just made.
    pub(super) fn legacy_settle(&mut self, now: Mono, rtp: Option<Seen>) {
        if self.updated.is_some_and(|updated| now.since(updated) < UPDATE_GRACE) {
            return;
        }
        self.record = match self.channel {
            Channel::Rtp => rtp.map(|seen| (seen.ssrc, seen.sequence)),
            Channel::Rtcp => None,
        };
        self.heard = now;
        self.latched = !matches!(self.record, Some((0, _)));
    }

    fn fill(&mut self, from: SocketAddr) {
        self.remote = Some(from);
        self.untrusted = true;
        if self.previous != Some(from) {
            self.latched = true;
        }
    }

    fn refresh(&mut self, now: Mono, rtp: Option<Seen>) {
        if let (Some(seen), Some((ssrc, sequence))) = (rtp, &mut self.record)
            && seen.ssrc == *ssrc
            && now.since(self.heard) >= REFRESH
        {
            *sequence = seen.sequence;
            self.heard = now;
        }
    }

    fn may_move(&self, now: Mono, rtp: Option<Seen>) -> bool {
        let (Channel::Rtp, Some((ssrc, sequence)), Some(seen)) = (self.channel, self.record, rtp) else {
            return false;
        };
        let just_updated = self.updated.is_some_and(|updated| now.since(updated) <= UPDATE_GRACE);
        just_updated || (seen.ssrc == ssrc && seen.sequence.wrapping_sub(sequence) <= SEQUENCE_WINDOW)
    }
}

/// After an update a stream does not settle, and may move, for this long.
const UPDATE_GRACE: Duration = Duration::from_secs(10);

/// The recorded sequence number is refreshed this often.
const REFRESH: Duration = Duration::from_secs(1);

/// How far ahead a moved source's sequence number may be.
pub(super) const SEQUENCE_WINDOW: u16 = 536;
