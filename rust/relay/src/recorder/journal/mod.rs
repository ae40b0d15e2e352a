//! The journal layout: all recordings of a worker in one segment after the other, each of a minute.
//!
//! A [`Journal`] takes what a worker tells, as [`Recording`](super::recording::Recording) does in the other
//! layout. Its [`Call`]s encode packets into the [`Segment`] of the moment, which is written once for all of
//! them; a thread (`sync`) makes it durable once a second, and only then a recording that has ended is finished.

mod call;
mod index;
mod segment;
pub(super) mod sync;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use foldhash::{HashMap, HashMapExt};
use rtpproxy_core::command::Tag;
use rtpproxy_core::recording::{Coverage, EndReason, LegFacts, Mark, RecordingId, RecordingStart};
use rtpproxy_core::time::Now;
use tracing::info;

use self::call::{Call, Ended};
use self::segment::{Current, Segment};
use self::sync::Work;
use super::disk::REMOVED;
use super::queue::{Dropped, PacketHead};
use super::recording::Shared;
use crate::preroll::Preroll;

/// The recordings of one worker.
#[derive(Debug)]
pub(super) struct Journal {
    current: Current,
    calls: HashMap<RecordingId, Call>,
    /// Recordings whose end is not written.
    ended: Vec<Ended>,
    /// Recordings whose end is written, and not durable.
    written: Vec<Ended>,
    /// The threads that make segments durable, by the number of their folder.
    syncs: Vec<Sender<Work>>,
    sync_at: Instant,
    /// The last segment holds what was not made durable.
    is_dirty: bool,
    /// The thread is still at what it was given.
    is_syncing: Arc<()>,
}

impl Journal {
    /// The journal of `worker`; `syncs` lead to a thread for each place.
    pub(super) fn new(worker: usize, syncs: Vec<Sender<Work>>) -> Self {
        Self {
            current: Current::new(worker),
            calls: HashMap::new(),
            ended: Vec::new(),
            written: Vec::new(),
            syncs,
            sync_at: Instant::now(),
            is_dirty: false,
            is_syncing: Arc::default(),
        }
    }

    /// Whether a recording belongs into a journal: what has a name of its own has its own file.
    pub(super) fn takes(start: &RecordingStart) -> bool {
        match start.coverage {
            Coverage::Call | Coverage::Stream(_) | Coverage::SingleFile => true,
            Coverage::Named { .. } | Coverage::NamedSingleFile { .. } => false,
        }
    }

    /// Whether nothing is recorded and nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.current.segment().is_none() && self.written.is_empty()
    }

    /// Whether the disk refuses at the moment.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.current.segment().is_some_and(Segment::is_in_trouble)
    }

    /// A recording starts.
    pub(super) fn start(&mut self, start: RecordingStart, shared: &mut Shared, now: Instant) {
        let id = start.id;
        if self.calls.contains_key(&id) {
            return;
        }
        let segment = self.current.open(shared, now, start.at.wall);
        let mut call = Call::new(start, shared);
        call.tell(segment, now);
        call.publish(segment);
        if segment.is_in_place() {
            info!(call_id = %call.call_id(), file = %segment.path().display(), "recording started");
        }
        self.calls.insert(id, call);
    }

    /// Records a packet.
    pub(super) fn packet(&mut self, shared: &mut Shared, packet: &PacketHead, payload: &[u8], now: Instant) {
        let Some(call) = self.calls.get_mut(&packet.id) else { return };
        let segment = self.current.open(shared, now, packet.at.wall);
        call.packet(segment, shared, packet, payload, now);
        if segment.is_due(now) {
            self.flush(shared, now);
        }
    }

    /// Tells of the packets from before the start of a recording, which follow.
    pub(super) fn preroll(&mut self, preroll: &mut Preroll) {
        if let Some(call) = self.calls.get_mut(&preroll.to) {
            call.preroll(preroll);
        }
    }

    /// Takes note of packets that did not even reach the recorder.
    pub(super) fn dropped(&mut self, dropped: &Dropped) {
        if let Some(call) = self.calls.get_mut(&dropped.id) {
            call.dropped(dropped);
        }
    }

    /// A call was changed by a command.
    pub(super) fn facts(&mut self, id: RecordingId, to_tag: Option<Tag>, legs: [LegFacts; 2]) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.facts(to_tag, legs);
        }
    }

    /// Something happened that a reader should see here.
    pub(super) fn mark(&mut self, id: RecordingId, at: Now, mark: &Mark) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.mark(at, mark);
            if let Some(segment) = self.current.segment() {
                call.publish(segment);
            }
        }
    }

    /// A recording is over.
    pub(super) fn end(
        &mut self,
        id: RecordingId,
        shared: &mut Shared,
        at: Now,
        reason: EndReason,
        now: Instant,
    ) {
        let Some(call) = self.calls.remove(&id) else { return };
        let segment = self.current.open(shared, now, at.wall);
        self.ended.push(call.end(segment, shared, at, reason, now));
    }

    /// Does what the time asks for.
    pub(super) fn tick(&mut self, shared: &mut Shared, now: Instant) {
        for call in self.calls.values_mut() {
            if call.is_overdue(now) {
                let segment = self.current.open(shared, now, call.last());
                call.release(segment, shared, now);
            }
        }
        let Some(segment) = self.current.segment_mut() else {
            return self.sync(now);
        };
        segment.look_after(shared, now);
        if segment.is_due(now) {
            self.flush(shared, now);
        }
        self.leave_segment(shared, now);
        let period = shared.config.segment;
        if self.current.segment().is_some_and(|segment| segment.is_over(now, period)) {
            self.roll(shared, now);
        }
        self.sync(now);
        self.give_up(now);
        if let Some(segment) = self.current.segment() {
            self.calls.values().for_each(|call| call.publish(segment));
        }
    }

    /// Ends everything; what the disk still refuses is lost.
    pub(super) fn close(mut self, shared: &mut Shared, at: Now, now: Instant) {
        self.current.set_last();
        if let Some(segment) = self.current.segment_mut() {
            if !segment.is_in_place() {
                segment.create_file(shared, now);
            }
            if segment.is_in_trouble() {
                self.flush(shared, now);
            }
        }
        let running: Vec<_> = self.calls.keys().copied().collect();
        for id in running {
            self.end(id, shared, at, EndReason::Shutdown, now);
        }
        if !self.roll(shared, now) && self.move_segment(shared, now, Duration::ZERO) {
            self.flush(shared, now);
            self.roll(shared, now);
        }
        if let Some(mut segment) = self.current.take() {
            let cause = segment.trouble_cause().unwrap_or_default().to_owned();
            let unsaved = segment.discard();
            for ended in self.ended.drain(..) {
                ended.failed(&cause);
            }
            self.hand_over(segment, unsaved);
        } else if !self.written.is_empty() {
            self.sync_at = now;
            self.sync(now);
        }
    }

    /// Writes what waits; false if the disk does not take it.
    fn flush(&mut self, shared: &Shared, now: Instant) -> bool {
        let Some(segment) = self.current.segment_mut() else { return true };
        if !segment.flush(shared, now) {
            return false;
        }
        self.is_dirty = true;
        for call in self.calls.values_mut() {
            call.absorb(segment.tally_mut());
        }
        for mut ended in self.ended.drain(..) {
            ended.absorb(segment.tally_mut());
            self.written.push(ended);
        }
        true
    }

    /// Closes a segment whose time is over; false if the disk refuses, so that it goes on.
    fn roll(&mut self, shared: &mut Shared, now: Instant) -> bool {
        let Some(segment) = self.current.segment_mut() else { return true };
        if segment.is_in_trouble() {
            return false;
        }
        for call in self.calls.values_mut() {
            call.leave(segment, now);
        }
        segment.write_directory(now);
        if !self.flush(shared, now) {
            return false;
        }
        for call in self.calls.values_mut() {
            call.forget_segment();
        }
        if let Some(segment) = self.current.take() {
            self.hand_over(segment, 0);
        }
        true
    }

    /// Leaves a segment that was removed, or a folder that takes nothing.
    fn leave_segment(&mut self, shared: &mut Shared, now: Instant) {
        let Some(segment) = self.current.segment_mut() else { return };
        if segment.is_removed() {
            let running: u64 = self.calls.values_mut().map(Call::lose).sum();
            let waiting: u64 = self.ended.iter_mut().map(Ended::lose).sum();
            for mut ended in self.written.drain(..) {
                ended.lose();
                ended.failed(REMOVED);
            }
            let finished = segment.forget_file(running + waiting);
            shared.ledger.totals().refused.fetch_add(finished, Ordering::Relaxed);
            segment.create_file(shared, now);
            return;
        }
        self.move_segment(shared, now, segment::MOVE_AFTER);
    }

    /// Goes on in the other folder, if this one has refused for so long; false if it stays.
    fn move_segment(&mut self, shared: &mut Shared, now: Instant, after: Duration) -> bool {
        let Some(segment) = self.current.segment_mut() else { return false };
        let Some(left) = segment.move_on(shared, now, after) else { return false };
        for call in self.calls.values_mut() {
            call.forget_segment_file();
        }
        let written = std::mem::take(&mut self.written);
        self.give(left.site, Work { written, ..left.work });
        true
    }

    /// Hands a segment over that is complete, or that has to do.
    fn hand_over(&mut self, segment: Segment, unsaved: u64) {
        let written = std::mem::take(&mut self.written);
        let cause = segment.trouble_cause().unwrap_or_default().to_owned();
        self.is_dirty = false;
        match segment.finish(unsaved) {
            Some(left) => self.give(left.site, Work { written, ..left.work }),
            None => written.into_iter().for_each(|ended| ended.failed(&cause)),
        }
    }

    /// Lets what was written be made durable, once a second.
    fn sync(&mut self, now: Instant) {
        if now < self.sync_at || (!self.is_dirty && self.written.is_empty()) {
            return;
        }
        // Those that the thread has still to do hold one each.
        if Arc::strong_count(&self.is_syncing) > 1 {
            return;
        }
        self.sync_at = now + SYNC_PERIOD;
        let token = Some(Arc::clone(&self.is_syncing));
        let written = std::mem::take(&mut self.written);
        self.is_dirty = false;
        match self.current.segment().and_then(Segment::file) {
            Some((site, file)) => {
                self.give(site, Work { file: Some(file), written, job: None, _token: token });
            }
            // They were in the segment before, which the thread was given then.
            None => self.give(0, Work { file: None, written, job: None, _token: token }),
        }
    }

    /// Gives up recordings that have ended long ago, as far as the disk takes nothing.
    fn give_up(&mut self, now: Instant) {
        let Some(cause) = self.current.segment().and_then(Segment::trouble_cause) else { return };
        for ended in self.ended.extract_if(.., |ended| ended.is_late(now)) {
            ended.failed(cause);
        }
    }

    fn give(&self, site: usize, work: Work) {
        // The threads live until we drop the senders.
        let _ = self.syncs[site].send(work);
    }
}

/// How often a segment is made durable.
const SYNC_PERIOD: Duration = Duration::from_secs(1);
