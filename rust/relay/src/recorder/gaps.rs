//! Packets that are missing in a recording, and other remarks that wait for its next packet.

use rtpproxy_core::recording::{Channel, Leg};

use super::formats::Notes;
use super::queue::Dropped;
use super::sidecar::{channel_name, rfc3339};
use super::tally;

/// What a reader shall see at the next packets.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    comments: Vec<String>,
    /// Packets that are missing before the next one of each stream, and why.
    missing: [Option<(Dropped, String)>; 4],
}

impl Gaps {
    /// Keeps a remark for the next packet, unless there are too many.
    pub(super) fn comment(&mut self, text: String) {
        if self.comments.len() < COMMENTS_MAX {
            self.comments.push(text);
        }
    }

    /// Counts packets that are missing before the next one of their stream. The first cause counts.
    pub(super) fn miss(&mut self, dropped: &Dropped, cause: &str) {
        match &mut self.missing[tally::index(dropped.leg, dropped.channel)] {
            Some((sum, _)) => {
                sum.packets += dropped.packets;
                sum.first = if dropped.first.wall < sum.first.wall { dropped.first } else { sum.first };
                sum.last = if dropped.last.wall > sum.last.wall { dropped.last } else { sum.last };
            }
            none => *none = Some((*dropped, cause.to_owned())),
        }
    }

    /// What is to be seen at the next packet of a stream; what is missing before it goes to `count`.
    pub(super) fn take_notes(
        &mut self,
        leg: Leg,
        channel: Channel,
        count: impl FnOnce(&Dropped, &str),
    ) -> Notes {
        let mut dropped = 0;
        if let Some((missing, cause)) = self.missing[tally::index(leg, channel)].take() {
            dropped = missing.packets;
            self.settle(&missing, &cause, count);
        }
        Notes { comments: self.take_comments(), dropped }
    }

    /// The remarks that no packet followed.
    pub(super) fn take_comments(&mut self) -> Vec<String> {
        std::mem::take(&mut self.comments)
    }

    /// Gives to `count` what is missing and no packet follows.
    pub(super) fn settle_all(&mut self, mut count: impl FnMut(&Dropped, &str)) {
        for (dropped, cause) in std::mem::take(&mut self.missing).into_iter().flatten() {
            self.settle(&dropped, &cause, &mut count);
        }
    }

    /// Whether there is nothing to be seen at the next packets.
    pub(super) fn is_empty(&self) -> bool {
        self.comments.is_empty() && self.missing.iter().all(Option::is_none)
    }

    /// Why packets are missing, if some are.
    pub(super) fn cause(&self) -> Option<&str> {
        self.missing.iter().flatten().next().map(|(_, cause)| cause.as_str())
    }

    /// How many packets are missing.
    pub(super) fn packets(&self) -> u64 {
        self.missing.iter().flatten().map(|(dropped, _)| dropped.packets).sum()
    }

    fn settle(&mut self, dropped: &Dropped, cause: &str, count: impl FnOnce(&Dropped, &str)) {
        count(dropped, cause);
        let Dropped { leg, channel, packets, first, last, .. } = *dropped;
        self.comment(format!(
            "gap: {packets} packets of {} {} are missing, from {} to {}: {cause}",
            leg.name(),
            channel_name(channel),
            rfc3339(first.wall),
            rfc3339(last.wall),
        ));
    }
}

/// How many remarks wait for a packet.
const COMMENTS_MAX: usize = 64;
