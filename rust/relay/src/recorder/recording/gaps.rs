//! Packets that are missing in a recording.

use rtpproxy_core::recording::{Channel, Leg};

use super::super::formats::Notes;
use super::super::queue::Dropped;
use super::super::sidecar::{channel_name, rfc3339};
use super::super::tally;
use super::Recording;

impl Recording {
    /// Counts packets that are missing before the next one of their stream, for the trouble there is unless
    /// `cause` says otherwise.
    pub(super) fn miss(&mut self, dropped: &Dropped, cause: Option<&str>) {
        match &mut self.missing[tally::index(dropped.leg, dropped.channel)] {
            Some((sum, _)) => {
                sum.packets += dropped.packets;
                sum.first = if dropped.first.wall < sum.first.wall { dropped.first } else { sum.first };
                sum.last = if dropped.last.wall > sum.last.wall { dropped.last } else { sum.last };
            }
            none => {
                let trouble = self.trouble.as_ref().map(|trouble| trouble.cause.as_str());
                let cause = cause.or(trouble).unwrap_or_default();
                *none = Some((*dropped, cause.to_owned()));
            }
        }
    }

    /// What is to be seen at the next packet of a stream.
    pub(super) fn take_notes(&mut self, leg: Leg, channel: Channel) -> Notes {
        let mut dropped = 0;
        if let Some((missing, cause)) = self.missing[tally::index(leg, channel)].take() {
            dropped = missing.packets;
            self.settle(&missing, &cause);
        }
        Notes { comments: std::mem::take(&mut self.comments), dropped }
    }

    /// Counts what is missing and no packet follows.
    pub(super) fn settle_all(&mut self) {
        for (dropped, cause) in std::mem::take(&mut self.missing).into_iter().flatten() {
            self.settle(&dropped, &cause);
        }
    }

    fn settle(&mut self, dropped: &Dropped, cause: &str) {
        let index = self.file_of_stream(dropped.leg, dropped.channel);
        self.files[index].pending.dropped(dropped, cause);
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
