//! One recording in a journal, from its start to its end.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rtpproxy_core::command::{CallId, Tag};
use rtpproxy_core::journal::{self, Member};
use rtpproxy_core::pcapng;
use rtpproxy_core::recording::{Coverage, EndReason, LegFacts, Mark, RecordingStart};
use rtpproxy_core::time::{Mono, Now, Wall};
use tracing::{error, info};

use super::super::disk::REMOVED;
use super::super::formats::{Encoder, Notes};
use super::super::gaps::Gaps;
use super::super::head::{Head, Held};
use super::super::ledger::{Entry, Figures, RecordingState};
use super::super::period::Periods;
use super::super::queue::{Dropped, PacketHead};
use super::super::recording::{Shared, learn};
use super::super::sidecar::{mark_text, rfc3339};
use super::super::tally::{self, Tally};
use super::segment::Segment;
use crate::preroll::Preroll;

/// A recording that runs.
#[derive(Debug)]
pub(super) struct Call {
    /// How it started, with the facts of the legs as they are now.
    start: RecordingStart,
    /// What others see of it.
    entry: Entry,
    encoder: Encoder,
    head: Option<Head>,
    gaps: Gaps,
    /// Its row in the index of the segment, once that tells of it.
    row: Option<usize>,
    /// What waits to be written.
    pending: Tally,
    /// What is in the segment.
    tally: Tally,
    /// What is in those before.
    earlier: Figures,
    is_paused: bool,
    /// The stamp of the last packet.
    last: Wall,
}

impl Call {
    /// A recording that no segment tells of yet.
    pub(super) fn new(start: RecordingStart, shared: &Shared) -> Self {
        let periods = Periods::of(shared.config.flush);
        Self {
            entry: shared.ledger.enter(&start),
            encoder: Encoder::new(&shared.config),
            head: shared.config.sip_head.then(|| Head::new(&start.coverage, periods.head)),
            gaps: Gaps::default(),
            row: None,
            pending: Tally::default(),
            tally: Tally::default(),
            earlier: Figures::default(),
            is_paused: false,
            last: start.at.wall,
            start,
        }
    }

    /// The call.
    pub(super) fn call_id(&self) -> &CallId {
        &self.start.call_id
    }

    /// The stamp of the last packet.
    pub(super) fn last(&self) -> Wall {
        self.last
    }

    /// Records a packet. Those of a recording come in the order of time.
    pub(super) fn packet(
        &mut self,
        segment: &mut Segment,
        shared: &mut Shared,
        packet: &PacketHead,
        payload: &[u8],
        now: Instant,
    ) {
        if !segment.has_room() {
            let PacketHead { id, leg, channel, at, .. } = *packet;
            segment.count_missing();
            self.entry.totals().refused.fetch_add(1, Ordering::Relaxed);
            let cause = segment.trouble_cause().unwrap_or_default();
            self.gaps.miss(&Dropped { id, leg, channel, packets: 1, first: at, last: at }, cause);
            return;
        }
        let Self { gaps, pending, .. } = self;
        let notes =
            gaps.take_notes(packet.leg, packet.channel, |dropped, cause| pending.dropped(dropped, cause));
        match &mut self.head {
            Some(head) if head.is_waiting() => {
                if head.hold(Held { packet: *packet, payload: payload.into(), notes }, now) {
                    self.release(segment, shared, now);
                }
            }
            Some(_) | None => self.write(segment, shared, packet, payload, &notes, now),
        }
    }

    /// Tells of the packets from before its start, which follow.
    pub(super) fn preroll(&mut self, preroll: &mut Preroll) {
        let facts = tally::Preroll::of(preroll);
        let text = facts.text(preroll.asked.wall);
        info!(call_id = %self.start.call_id, "{text}");
        self.gaps.comment(text);
        self.last = facts.from.map_or(self.last, |from| self.last.min(from));
    }

    /// Takes note of packets that did not even reach the recorder.
    pub(super) fn dropped(&mut self, dropped: &Dropped) {
        if self.gaps.cause().is_none() && self.tally.gaps.is_empty() {
            error!(
                call_id = %self.start.call_id,
                "recording degraded: packets are missing, as the disk is too slow for the recorder"
            );
        }
        self.gaps.miss(dropped, "no memory left while the disk was slow");
    }

    /// The call was changed by a command.
    pub(super) fn facts(&mut self, to_tag: Option<Tag>, legs: [LegFacts; 2]) {
        learn(&mut self.start, to_tag, legs, &self.entry, &mut self.gaps);
    }

    /// Something happened that a reader should see here.
    pub(super) fn mark(&mut self, at: Now, mark: &Mark) {
        self.pending.mark(at, mark);
        self.gaps.comment(mark_text(at.wall, mark));
        match mark {
            Mark::Paused => self.is_paused = true,
            Mark::Resumed => self.is_paused = false,
            Mark::Latched { .. } | Mark::Relatched { .. } | Mark::Refused { .. } => {}
        }
    }

    /// Whether packets have waited for the head long enough.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.head.as_ref().is_some_and(|head| head.is_overdue(now))
    }

    /// Ends the wait for the head.
    pub(super) fn release(&mut self, segment: &mut Segment, shared: &mut Shared, now: Instant) {
        let held = match &mut self.head {
            Some(head) if head.is_waiting() => head.release(),
            Some(_) | None => return,
        };
        for held in held {
            self.write(segment, shared, &held.packet, &held.payload, &held.notes, now);
        }
    }

    /// Lets a segment tell of the recording, if it does not yet; gives back its row there.
    pub(super) fn tell(&mut self, segment: &mut Segment, now: Instant) -> usize {
        if let Some(row) = self.row {
            return row;
        }
        let member = Member {
            first_interface: segment.next_interface(),
            recording: self.entry.number(),
            leg: match &self.start.coverage {
                Coverage::Stream(leg) | Coverage::Named { leg, .. } => Some(*leg),
                Coverage::Call | Coverage::SingleFile | Coverage::NamedSingleFile { .. } => None,
            },
            start: self.start.at.wall,
            call_id: self.start.call_id.clone(),
            from_tag: self.start.from_tag.clone(),
            to_tag: self.start.to_tag.clone(),
        };
        self.encoder.set_first_interface(member.first_interface);
        let row = segment.tell(member, now);
        self.row = Some(row);
        if segment.is_in_place() {
            self.entry.set_file(segment.path());
        }
        row
    }

    /// Writes the totals of the recording in a segment that ends, or in which it ends.
    pub(super) fn leave(&mut self, segment: &mut Segment, now: Instant) {
        let Some(row) = self.row else { return };
        let comments = self.gaps.take_comments();
        let tally = self.total();
        let (encoder, end) = (&self.encoder, self.last);
        let start = tally.first().unwrap_or(self.start.at.wall).min(end);
        segment.append(row, now, None, |out| encoder.end(&tally, start, end, &comments, out));
    }

    /// What was in the segment is in the one before now.
    pub(super) fn forget_segment(&mut self) {
        self.forget_segment_file();
        self.row = None;
        if let Some(head) = &mut self.head {
            head.tell_again();
        }
    }

    /// The segment goes on in another file, in which only what waits will be.
    pub(super) fn forget_segment_file(&mut self) {
        self.earlier = self.earlier.plus(Figures::of(&self.tally));
        self.tally = Tally::default();
    }

    /// What was in the segment is lost with its file; gives back how many packets that are.
    pub(super) fn lose(&mut self) -> u64 {
        let mut packets = 0;
        for (leg, channel, lost, [first, last]) in self.tally.lose() {
            let [first, last] = [first, last].map(|wall| Now { mono: Mono::default(), wall });
            self.gaps.miss(&Dropped { id: self.start.id, leg, channel, packets: lost, first, last }, REMOVED);
            packets += lost;
        }
        packets
    }

    /// What waited is in the segment, whose totals are `sum`.
    pub(super) fn absorb(&mut self, sum: &mut Tally) {
        sum.absorb(&mut self.pending.clone());
        self.tally.absorb(&mut self.pending);
    }

    /// The recording is over.
    pub(super) fn end(
        mut self,
        segment: &mut Segment,
        shared: &mut Shared,
        at: Now,
        reason: EndReason,
        now: Instant,
    ) -> Ended {
        self.release(segment, shared, now);
        let Self { gaps, pending, .. } = &mut self;
        let mut missing = 0;
        gaps.settle_all(|dropped, cause| {
            pending.dropped(dropped, cause);
            missing += dropped.packets;
        });
        self.last = self.last.max(at.wall);
        self.gaps.comment(format!("end: {} at {}", reason.name(), rfc3339(at.wall)));
        self.publish(segment);
        if segment.has_room() {
            let row = self.tell(segment, now);
            segment.count_end(row, reason, missing);
        }
        self.leave(segment, now);
        let figures = self.figures();
        let Self { start, entry, pending, tally, .. } = self;
        let (file, stored) = (segment.final_path(), Figures::of(&tally));
        Ended { call_id: start.call_id, entry, file, pending, stored, figures, since: now }
    }

    /// Lets others see how it is doing.
    pub(super) fn publish(&self, segment: &Segment) {
        let (state, cause) = match (segment.trouble_cause(), self.gaps.cause()) {
            (Some(cause), _) => (RecordingState::Degraded, Some(cause)),
            (None, _) if !segment.is_in_place() => (RecordingState::Starting, None),
            (None, _) if self.is_paused => (RecordingState::Paused, None),
            (None, Some(cause)) => (RecordingState::Degraded, Some(cause)),
            (None, None) => (RecordingState::Recording, None),
        };
        if self.row.is_some() && segment.is_in_place() {
            self.entry.set_file(segment.path());
        }
        self.entry.update(state, cause, self.figures());
    }

    fn figures(&self) -> Figures {
        let mut figures = self.earlier.plus(Figures::of(&self.tally)).plus(Figures::of(&self.pending));
        figures.dropped += self.gaps.packets();
        figures
    }

    /// What is in the segment, or waits for it.
    fn total(&self) -> Tally {
        let mut total = self.tally.clone();
        total.absorb(&mut self.pending.clone());
        total
    }

    fn write(
        &mut self,
        segment: &mut Segment,
        shared: &mut Shared,
        packet: &PacketHead,
        payload: &[u8],
        notes: &Notes,
        now: Instant,
    ) {
        let row = self.tell(segment, now);
        let Self { start, head, encoder, pending, last, .. } = self;
        let frames = head
            .as_mut()
            .and_then(|head| head.change(start, &shared.config.codec_map, packet, payload, *last));
        for frame in frames.into_iter().flatten() {
            segment.append(row, now, None, |out| {
                encoder.synthetic(frame.sender, frame.addrs, frame.at, &frame.text, out);
            });
            pending.synthetic_frames += 1;
        }
        let stream = pcapng::interface_of(packet.leg, packet.channel);
        let figures = journal::Figures::of_packet(
            stream,
            packet.at.wall,
            Some(packet.src),
            payload.len(),
            notes.dropped,
        );
        let counted = Some(figures);
        segment.append(row, now, counted, |out| {
            encoder.packet(packet, payload, notes, &mut shared.ip_id, out);
        });
        pending.packet(packet, payload);
        *last = packet.at.wall.max(*last);
    }
}

/// A recording that has ended and is not finished.
#[derive(Debug)]
pub(in crate::recorder) struct Ended {
    call_id: CallId,
    entry: Entry,
    /// Its last segment.
    file: PathBuf,
    /// What waits to be written.
    pending: Tally,
    /// What is in the segment.
    stored: Figures,
    figures: Figures,
    since: Instant,
}

impl Ended {
    /// What waited is in the segment, whose totals are `sum`.
    pub(super) fn absorb(&mut self, sum: &mut Tally) {
        self.stored = self.stored.plus(Figures::of(&self.pending));
        sum.absorb(&mut self.pending);
    }

    /// What was in the segment is lost with its file; gives back how many packets that are.
    pub(super) fn lose(&mut self) -> u64 {
        let Figures { packets, bytes, .. } = std::mem::take(&mut self.stored);
        self.figures.packets -= packets;
        self.figures.bytes -= bytes;
        self.figures.dropped += packets;
        self.entry.count(self.figures);
        packets
    }

    /// Whether the disk had time enough.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= PATIENCE
    }

    /// It is durable.
    pub(super) fn finished(self) {
        let Figures { packets, dropped, .. } = self.figures;
        let (call_id, file) = (&self.call_id, self.file.display());
        info!(%call_id, %file, packets, missing = dropped, "recording finished");
        self.entry.finished(self.file, None);
    }

    /// It is not durable yet.
    pub(super) fn waits(&self, error: &io::Error) {
        self.entry.totals().count_error();
        self.entry.waits(&error.to_string());
    }

    /// It is given up.
    pub(super) fn failed(self, cause: &str) {
        error!(call_id = %self.call_id, "recording failed, its end could not be written: {cause}");
        self.entry.failed(&format!("its end could not be written: {cause}"));
    }
}

/// How long the disk may refuse the end of a recording until we give it up.
const PATIENCE: Duration = Duration::from_secs(60);
