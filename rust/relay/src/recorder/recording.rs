//! One recording from its start to the hand-over of its closed files.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rtpproxy_core::command::Tag;
use rtpproxy_core::recording::{Channel, Coverage, EndReason, Leg, LegFacts, Mark, RecordingStart};
use rtpproxy_core::time::{Now, Wall};
use tracing::{error, info};

use self::place::MOVE_AFTER;
pub(super) use self::place::Place;
use self::rotation::Rotation;
use super::files::Folders;
use super::finish::{Closed, Job};
use super::formats::{Encoder, Notes};
use super::gaps::Gaps;
use super::head::{Head, Held};
use super::ledger::{Entry, Figures, Ledger};
use super::names::Names;
use super::period::Periods;
use super::queue::{Budget, Dropped, PacketHead};
use super::sidecar::{Sidecar, hex, id_text, mark_text, section_comments};
use super::tally::{self, Tally};
use super::watch::FolderWatch;
use super::writer::{Flush, Writer, Written};
use crate::config::{RecordConfig, RecordFormat};
use crate::preroll::Preroll;

mod place;
mod rotation;
mod view;

/// What all recordings share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The settings.
    pub(super) config: RecordConfig,
    /// The folders.
    pub(super) folders: Folders,
    /// The identification of the next IPv4 header.
    pub(super) ip_id: u16,
    /// How many recordings run.
    pub(super) running: usize,
    /// Memory for what cannot be written.
    pub(super) budget: Arc<Budget>,
    /// How the disks are.
    pub(super) watch: Arc<FolderWatch>,
    /// What others see of them.
    pub(super) ledger: Arc<Ledger>,
    /// Files that recordings have left for the next ones.
    pub(super) left: Vec<Job>,
}

impl Shared {
    /// How many bytes of a file wait in memory: less of each when there are many.
    fn file_buffer_size(&self) -> usize {
        (self.config.buffer_bytes / 4 / (self.running + 1)).clamp(FILE_BUFFER_MIN, FILE_BUFFER_MAX)
    }
}

/// A recording that runs, or that ended and is not safe on the disk yet.
#[derive(Debug)]
pub(super) struct Recording {
    /// How it started, with the facts of the legs as they are now.
    start: RecordingStart,
    /// What others see of it.
    entry: Entry,
    names: Names,
    files: Vec<OpenFile>,
    /// Where the files are; `None` until a folder takes them.
    place: Option<Place>,
    /// When to try the folders again.
    retry_at: Instant,
    trouble: Option<Trouble>,
    rotation: Rotation,
    /// The file before this one, in another folder.
    moved_from: Option<PathBuf>,
    /// What is in such files.
    earlier: Figures,
    head: Option<Head>,
    gaps: Gaps,
    tally: Tally,
    is_paused: bool,
    /// The stamp of the last packet.
    last: Wall,
    ended: Option<(Now, EndReason, Instant)>,
}

#[derive(Debug)]
struct OpenFile {
    writer: Writer,
    encoder: Encoder,
    /// What is in the buffer of the writer, and not in the tally of the recording.
    pending: Tally,
}

/// The disk does not take what is recorded.
#[derive(Debug)]
struct Trouble {
    cause: String,
    since: Instant,
    /// Packets for which there was no memory.
    missing: u64,
}

impl Recording {
    /// Opens the files of a recording. If the disk does not let us, it is tried again each second.
    pub(super) fn new(start: RecordingStart, shared: &mut Shared, now: Instant) -> Self {
        let entry = shared.ledger.enter(&start);
        let names = Names::new(&start, entry.number(), &shared.config);
        let has_head = shared.config.sip_head && shared.config.format == RecordFormat::Pcapng;
        let periods = Periods::of(shared.config.flush);
        let head = has_head.then(|| Head::new(&start.coverage, periods.head));
        let rotation = Rotation::new(&shared.config, start.at.wall, now);
        let files = (0..names.files()).map(|_| {
            let mut writer =
                Writer::new(shared.file_buffer_size(), periods.buffer, !shared.config.compat, &shared.budget);
            let encoder = Encoder::new(&shared.config);
            let comments = section_comments(&start);
            writer.append(now, 0, |out| encoder.begin(&comments, out));
            OpenFile { writer, encoder, pending: Tally::default() }
        });
        let mut recording = Self {
            files: files.collect(),
            last: Wall::default(),
            entry,
            start,
            names,
            place: None,
            retry_at: now,
            trouble: None,
            rotation,
            moved_from: None,
            earlier: Figures::default(),
            head,
            gaps: Gaps::default(),
            tally: Tally::default(),
            is_paused: false,
            ended: None,
        };
        recording.open(shared, now);
        recording.publish();
        recording
    }

    /// Records a packet. Those of a recording come in the order of time.
    pub(super) fn packet(&mut self, shared: &mut Shared, packet: &PacketHead, payload: &[u8], now: Instant) {
        let index = self.file_of(packet);
        if !self.files[index].writer.has_room() {
            let PacketHead { id, leg, channel, at, .. } = *packet;
            if let Some(trouble) = &mut self.trouble {
                trouble.missing += 1;
            }
            self.entry.totals().refused.fetch_add(1, Ordering::Relaxed);
            self.miss(&Dropped { id, leg, channel, packets: 1, first: at, last: at }, None);
            return;
        }
        let notes = self.take_notes(packet);
        match &mut self.head {
            Some(head) if head.is_waiting() => {
                if head.hold(Held { packet: *packet, payload: payload.into(), notes }, now) {
                    self.release(shared, now);
                }
            }
            Some(_) | None => self.write(shared, packet, payload, &notes, now),
        }
    }

    /// Tells of the packets from before its start, which follow.
    pub(super) fn preroll(&mut self, preroll: &mut Preroll) {
        let facts = tally::Preroll::of(preroll);
        let text = facts.text(preroll.asked.wall);
        info!(call_id = %self.start.call_id, "{text}");
        self.gaps.comment(text);
        self.tally.preroll = Some(facts);
    }

    /// Takes note of packets that did not even reach the recorder.
    pub(super) fn dropped(&mut self, dropped: &Dropped) {
        let is_first = self.gaps.cause().is_none() && self.tally.gaps.is_empty();
        if is_first {
            error!(
                call_id = %self.start.call_id,
                "recording degraded: packets are missing, as the disk is too slow for the recorder"
            );
        }
        self.miss(dropped, Some("no memory left while the disk was slow"));
        self.publish();
    }

    /// The call was changed by a command.
    pub(super) fn facts(&mut self, to_tag: Option<Tag>, legs: [LegFacts; 2]) {
        learn(&mut self.start, to_tag, legs, &self.entry, &mut self.gaps);
    }

    /// Something happened that a reader should see here.
    pub(super) fn mark(&mut self, at: Now, mark: &Mark) {
        self.tally.mark(at, mark);
        self.gaps.comment(mark_text(at.wall, mark));
        match mark {
            Mark::Paused => self.is_paused = true,
            Mark::Resumed => self.is_paused = false,
            Mark::Latched { .. } | Mark::Relatched { .. } | Mark::Refused { .. } => return,
        }
        self.publish();
    }

    /// The recording is over; [`Self::complete`] must follow.
    pub(super) fn end(&mut self, shared: &mut Shared, at: Now, reason: EndReason, now: Instant) {
        if self.ended.is_some() {
            return;
        }
        self.release(shared, now);
        self.settle_all();
        self.ended = Some((at, reason, now));
        let comments = self.gaps.take_comments();
        let (start, end) = (self.rotation.began, at.wall.max(self.last));
        let tally = self.total();
        for OpenFile { writer, encoder, .. } in &mut self.files {
            writer.append(now, 0, |out| encoder.end(&tally, start, end, &comments, out));
        }
        self.flush(shared, now, |_| true);
        self.publish();
    }

    /// Does what the time asks for: opening, writing, trying again, letting others know. Returns the files that it
    /// has left for those in another folder.
    pub(super) fn tick(&mut self, shared: &mut Shared, now: Instant) -> Option<Job> {
        if self.place.is_none() && now >= self.retry_at {
            self.open(shared, now);
        }
        if self.head.as_ref().is_some_and(|head| head.is_overdue(now)) {
            self.release(shared, now);
        }
        self.flush(shared, now, |writer| writer.is_due(now));
        self.rotate_in_silence(shared, now);
        let is_lost = self.files.iter().any(|file| file.writer.is_lost());
        if is_lost && self.files.iter().all(|file| file.writer.is_removed()) {
            self.forget_files(shared);
            self.open(shared, now);
        }
        let left = if now >= self.retry_at { self.move_on(shared, now, MOVE_AFTER) } else { None };
        self.publish();
        left
    }

    /// Whether the disk refuses at the moment.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    /// Whether nothing keeps the files of an ended recording open any more. `at_once`: waiting is over.
    pub(super) fn is_complete(&self, now: Instant, at_once: bool) -> bool {
        let Some((_, _, since)) = self.ended else { return false };
        let is_over = at_once || now.saturating_duration_since(since) >= PATIENCE;
        is_over || !self.is_in_trouble()
    }

    /// Hands the files of an ended recording over: those that it had to leave just now, and those that it has.
    pub(super) fn complete(mut self, shared: &mut Shared, now: Instant) -> [Option<Job>; 2] {
        let Some((at, reason, _)) = self.ended else { return [None, None] };
        if self.place.is_none() {
            self.open(shared, now);
        }
        self.flush(shared, now, Writer::is_failing);
        let left = self.move_on(shared, now, Duration::ZERO);
        let Some(place) = self.place.take() else {
            let cause = self.trouble.map(|trouble| trouble.cause).unwrap_or_default();
            error!(call_id = %self.start.call_id, "recording failed, nothing could be written: {cause}");
            self.entry.failed(&format!("nothing could be written: {cause}"));
            return [left, None];
        };
        // A file may have been lost since the end.
        self.settle_all();
        self.tally = self.total();
        self.tally.unsaved = self.files.iter_mut().map(|file| file.writer.discard()).sum();
        for file in &mut self.files {
            file.pending = Tally::default();
        }
        self.entry.count(self.figures());
        let entry = Some(self.entry.clone());
        [left, Some(self.job(shared, place, (at.wall, reason.name()), entry))]
    }

    /// What is to be done with the files that are at `place`.
    fn job(
        &mut self,
        shared: &Shared,
        place: Place,
        ended: (Wall, &'static str),
        entry: Option<Entry>,
    ) -> Job {
        let mut sidecar = Sidecar::new(&self.start, shared.config.format, &self.tally, ended);
        sidecar.part = self.names.part();
        sidecar.previous.clone_from(&self.rotation.previous);
        sidecar.moved_from = self.moved_from.as_deref().map(|path| path.display().to_string());
        let mut files = Vec::with_capacity(self.files.len());
        for (index, part) in place.parts.into_iter().enumerate() {
            let Some(Written { storage, len, is_torn, sha256 }) = self.detach(index, shared) else {
                continue;
            };
            let sha256 = sha256.map(|digest| hex(&digest));
            let closed = Closed::new((storage.file, part), len, is_torn, sha256);
            files.push(closed.sealed_by(storage.seal));
        }
        Job {
            files,
            names: self.names.clone(),
            attempt: place.attempt,
            site: place.site,
            spool: place.spool,
            target: place.target,
            sidecar,
            compat: shared.config.compat,
            call_id: Some(self.start.call_id.clone()),
            is_recovered: false,
            entry,
            packets: self.tally.sum(|stream| stream.packets) - self.tally.unsaved,
            missing: self.tally.sum(|stream| stream.dropped) + self.tally.unsaved,
            is_settled: false,
            prepared: None,
        }
    }

    /// Ends the wait for the head.
    fn release(&mut self, shared: &mut Shared, now: Instant) {
        let held = match &mut self.head {
            Some(head) if head.is_waiting() => head.release(),
            Some(_) | None => return,
        };
        for held in held {
            self.write(shared, &held.packet, &held.payload, &held.notes, now);
        }
        // They have waited long enough.
        self.flush(shared, now, |writer| !writer.is_failing());
    }

    fn write(
        &mut self,
        shared: &mut Shared,
        packet: &PacketHead,
        payload: &[u8],
        notes: &Notes,
        now: Instant,
    ) {
        self.rotate_before(shared, packet, payload.len(), now);
        let index = self.file_of(packet);
        let OpenFile { writer, encoder, pending } = &mut self.files[index];
        let frames = self
            .head
            .as_mut()
            .and_then(|head| head.change(&self.start, &shared.config.codec_map, packet, payload, self.last));
        for frame in frames.into_iter().flatten() {
            writer.append(now, 0, |out| {
                encoder.synthetic(frame.sender, frame.addrs, frame.at, &frame.text, out);
            });
            pending.synthetic_frames += 1;
        }
        writer.append(now, 1, |out| encoder.packet(packet, payload, notes, &mut shared.ip_id, out));
        pending.packet(packet, payload);
        self.last = self.last.max(packet.at.wall);
        if writer.is_due(now) {
            self.flush(shared, now, |writer| writer.is_due(now));
        }
    }

    fn flush(&mut self, shared: &Shared, now: Instant, which: impl Fn(&Writer) -> bool) {
        let Some(site) = self.place.as_ref().map(|place| place.site) else { return };
        let lacks = self.ended.is_none() && shared.watch.lack(site).is_some();
        for index in 0..self.files.len() {
            let OpenFile { writer, pending, .. } = &mut self.files[index];
            if !which(writer) {
                continue;
            }
            let before = writer.len();
            let outcome = match shared.watch.lack(site).filter(|_| lacks) {
                Some(lack) => writer.refuse(now, lack),
                None => writer.flush(now),
            };
            let totals = self.entry.totals();
            totals.written_bytes.fetch_add(writer.len().saturating_sub(before), Ordering::Relaxed);
            match outcome {
                Flush::Done | Flush::Recovered => self.tally.absorb(pending),
                Flush::StillFailing => totals.count_error(),
                Flush::Failed(error) => {
                    totals.count_error();
                    if self.trouble.is_none() {
                        let (call_id, file) = (&self.start.call_id, self.path(index));
                        let file = file.display();
                        error!(%call_id, %file, "recording degraded, cannot write: {error}");
                    }
                    self.refused(&error, now);
                }
            }
        }
        if !self.files.iter().any(|file| file.writer.is_failing())
            && let Some(Trouble { since, missing, .. }) = self.trouble.take()
        {
            let (call_id, file) = (&self.start.call_id, self.path(0));
            let seconds = now.saturating_duration_since(since).as_secs();
            info!(%call_id, file = %file.display(), seconds, missing, "recording goes on");
        }
    }

    /// Counts packets that are missing before the next one of their stream, for the trouble there is unless
    /// `cause` says otherwise.
    fn miss(&mut self, dropped: &Dropped, cause: Option<&str>) {
        let trouble = self.trouble.as_ref().map(|trouble| trouble.cause.as_str());
        self.gaps.miss(dropped, cause.or(trouble).unwrap_or_default());
    }

    /// Counts what is missing and no packet follows.
    fn settle_all(&mut self) {
        let mut gaps = std::mem::take(&mut self.gaps);
        gaps.settle_all(|dropped, cause| self.count_dropped(dropped, cause));
        self.gaps = gaps;
    }

    /// What is to be seen at a packet.
    fn take_notes(&mut self, packet: &PacketHead) -> Notes {
        if self.gaps.is_empty() {
            return Notes::default();
        }
        let mut gaps = std::mem::take(&mut self.gaps);
        let count = |dropped: &Dropped, cause: &str| self.count_dropped(dropped, cause);
        let notes = gaps.take_notes(packet.leg, packet.channel, count);
        self.gaps = gaps;
        notes
    }

    fn count_dropped(&mut self, dropped: &Dropped, cause: &str) {
        let index = self.file_of_stream(dropped.leg, dropped.channel);
        self.files[index].pending.dropped(dropped, cause);
    }

    fn file_of(&self, packet: &PacketHead) -> usize {
        self.file_of_stream(packet.leg, packet.channel)
    }

    fn file_of_stream(&self, of: Leg, channel: Channel) -> usize {
        let is_ours = match &self.start.coverage {
            Coverage::Call | Coverage::SingleFile | Coverage::NamedSingleFile { .. } => true,
            Coverage::Stream(leg) | Coverage::Named { leg, .. } => *leg == of,
        };
        self.names.file_of(is_ours, channel)
    }

    /// What is in these files, or waits for them.
    fn total(&self) -> Tally {
        let mut total = self.tally.clone();
        for file in &self.files {
            total.absorb(&mut file.pending.clone());
        }
        total
    }

    /// A file, for messages.
    fn path(&self, index: usize) -> PathBuf {
        match &self.place {
            Some(place) => place.spool.path_of(&place.parts[index]),
            None => self.names.path(index),
        }
    }
}

/// Takes in what a command has changed of a call.
pub(super) fn learn(
    start: &mut RecordingStart,
    to_tag: Option<Tag>,
    legs: [LegFacts; 2],
    entry: &Entry,
    gaps: &mut Gaps,
) {
    if let Some(tag) = to_tag
        && start.to_tag.as_ref() != Some(&tag)
    {
        gaps.comment(id_text("to-tag", tag.as_bytes()));
        entry.set_to_tag(&tag);
        start.to_tag = Some(tag);
    }
    start.legs = legs;
}

/// What is gained by a larger buffer is little against the memory of many, in bytes.
const FILE_BUFFER_MAX: usize = 6 << 10;
/// What is lost by a smaller one is much, in bytes.
const FILE_BUFFER_MIN: usize = 4 << 10;
/// How long the disk may refuse the end of a recording until we give it up.
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::writer::RECORD_SIZE_USUAL;

    /// The rest of the 16 KB that are promised is for names, lists and chunks on their way.
    #[test]
    fn a_recording_is_small() {
        let buffer = FILE_BUFFER_MAX + RECORD_SIZE_USUAL;
        let size = size_of::<Recording>() + size_of::<OpenFile>() + buffer;
        assert!(size <= 11 << 10, "{size}");
    }
}
