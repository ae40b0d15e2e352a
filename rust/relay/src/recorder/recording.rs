//! One recording from its start to the hand-over of its closed files.

use std::ffi::OsString;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtpproxy_core::command::Tag;
use rtpproxy_core::recording::{Channel, Coverage, EndReason, Leg, LegFacts, Mark, RecordingStart};
use rtpproxy_core::time::{Now, Wall};
use tracing::{error, info};

use super::files::{Folder, Folders};
use super::finish::{Closed, Job};
use super::formats::{Encoder, Notes};
use super::head::{Head, Held};
use super::names::Names;
use super::order::Order;
use super::queue::{Dropped, PacketHead};
use super::sidecar::{Sidecar, channel_name, hex, hex_unless_utf8, mark_text, rfc3339};
use super::tally::{self, Tally};
use super::writer::{Flush, Writer};
use crate::config::{RecordConfig, RecordFormat};

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
    names: Names,
    /// `None` until the folder takes them.
    output: Option<Output>,
    /// When to try the folder again.
    retry_at: Instant,
    /// Why packets are not recorded at the moment.
    trouble: Option<String>,
    order: Order,
    head: Option<Head>,
    /// Remarks for the next packet.
    comments: Vec<String>,
    /// Packets that are missing before the next one of each stream, and why.
    missing: [Option<(Dropped, String)>; 4],
    tally: Tally,
    /// The stamp of the last packet.
    last: Wall,
    ended: Option<(Now, EndReason, Instant)>,
}

#[derive(Debug)]
struct Output {
    files: Vec<OpenFile>,
    attempt: u32,
    spool: Arc<Folder>,
    target: Arc<Folder>,
}

#[derive(Debug)]
struct OpenFile {
    writer: Writer<File>,
    encoder: Encoder,
    part: OsString,
}

impl Recording {
    /// Opens the files of a recording. If the disk does not let us, it is tried again each second.
    pub(super) fn new(start: RecordingStart, shared: &mut Shared, now: Instant) -> Self {
        let names = Names::new(&start, &shared.config);
        let has_head = shared.config.sip_head && shared.config.format == RecordFormat::Pcapng;
        let head = has_head.then(|| Head::new(&start.coverage));
        let mut recording = Self {
            last: Wall::default(),
            start,
            names,
            output: None,
            retry_at: now,
            trouble: None,
            order: Order::default(),
            head,
            comments: Vec::new(),
            missing: [const { None }; 4],
            tally: Tally::default(),
            ended: None,
        };
        recording.open(shared, now);
        recording
    }

    /// Records a packet.
    pub(super) fn packet(&mut self, shared: &mut Shared, packet: &PacketHead, payload: &[u8], now: Instant) {
        let index = self.file_of(packet);
        let has_room = self.output.as_ref().is_some_and(|output| output.files[index].writer.has_room());
        if !has_room {
            let PacketHead { id, leg, channel, at, .. } = *packet;
            self.miss(&Dropped { id, leg, channel, packets: 1, first: at, last: at }, None);
            return;
        }
        let notes = self.take_notes(packet.leg, packet.channel);
        self.order.push(Held { packet: *packet, payload: payload.into(), notes }, now);
        while let Some(held) = self.order.pop_due() {
            self.put(shared, held, now);
        }
    }

    /// Takes note of packets that did not even reach the recorder.
    pub(super) fn dropped(&mut self, dropped: &Dropped) {
        let is_first = self.missing.iter().all(Option::is_none) && self.tally.gaps.is_empty();
        if is_first {
            error!(
                call_id = %self.start.call_id,
                "recording degraded: packets are missing, as the disk is too slow for the recorder"
            );
        }
        self.miss(dropped, Some("no memory left while the disk was slow"));
    }

    /// The call was changed by a command.
    pub(super) fn facts(&mut self, to_tag: Option<Tag>, legs: [LegFacts; 2]) {
        if let Some(tag) = to_tag
            && self.start.to_tag.as_ref() != Some(&tag)
        {
            self.comment(id_text("to-tag", tag.as_bytes()));
            self.start.to_tag = Some(tag);
        }
        self.start.legs = legs;
    }

    /// Something happened that a reader should see here.
    pub(super) fn mark(&mut self, at: Now, mark: &Mark) {
        self.tally.mark(at, mark);
        self.comment(mark_text(at.wall, mark));
    }

    /// The recording is over; [`Self::complete`] must follow.
    pub(super) fn end(&mut self, shared: &mut Shared, at: Now, reason: EndReason, now: Instant) {
        if self.ended.is_some() {
            return;
        }
        self.put_all(shared, now);
        self.release(shared, now);
        for (dropped, cause) in std::mem::take(&mut self.missing).into_iter().flatten() {
            self.settle(&dropped, &cause);
        }
        self.ended = Some((at, reason, now));
        let comments = std::mem::take(&mut self.comments);
        let (start, end) = (self.start.at.wall, at.wall.max(self.last));
        for file in self.output.iter_mut().flat_map(|output| &mut output.files) {
            let OpenFile { writer, encoder, .. } = file;
            writer.append(now, 0, |out| encoder.end(&self.tally, start, end, &comments, out));
        }
        self.flush(now, |_| true);
    }

    /// Does what the time asks for: opening, writing, trying again.
    pub(super) fn tick(&mut self, shared: &mut Shared, now: Instant) {
        if self.output.is_none() && self.ended.is_none() && now >= self.retry_at {
            self.open(shared, now);
        }
        if self.order.is_overdue(now) {
            self.put_all(shared, now);
        }
        if self.head.as_ref().is_some_and(|head| head.is_overdue(now)) {
            self.release(shared, now);
        }
        self.flush(now, |writer| writer.is_due(now));
    }

    /// Whether the disk refuses at the moment.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    /// Whether nothing keeps the files of an ended recording open any more. `at_once`: waiting is over.
    pub(super) fn is_complete(&self, now: Instant, at_once: bool) -> bool {
        let Some((_, _, since)) = self.ended else { return false };
        let is_over = at_once || now.saturating_duration_since(since) >= PATIENCE;
        is_over || self.output.is_none() || !self.is_in_trouble()
    }

    /// Hands the files of an ended recording over; `None` if it never had any.
    pub(super) fn complete(mut self, shared: &Shared, now: Instant) -> Option<Job> {
        let (at, reason, _) = self.ended?;
        self.flush(now, Writer::is_failing);
        let Some(mut output) = self.output.take() else {
            let cause = self.trouble.unwrap_or_default();
            error!(call_id = %self.start.call_id, "recording failed, nothing could be written: {cause}");
            return None;
        };
        self.tally.unsaved = output.files.iter_mut().map(|file| file.writer.discard()).sum();
        let sidecar = Sidecar::new(&self.start, shared.config.format, &self.tally, (at, reason));
        let files = output.files.into_iter().map(|file| {
            let (handle, len, sha256) = file.writer.into_parts();
            Closed { file: Some(handle), part: file.part, len, sha256: sha256.map(|digest| hex(&digest)) }
        });
        Some(Job {
            files: files.collect(),
            names: self.names,
            attempt: output.attempt,
            spool: output.spool,
            target: output.target,
            sidecar,
            compat: shared.config.compat,
            call_id: Some(self.start.call_id),
            is_recovered: false,
            packets: self.tally.sum(|stream| stream.packets) - self.tally.unsaved,
            missing: self.tally.sum(|stream| stream.dropped) + self.tally.unsaved,
        })
    }

    fn open(&mut self, shared: &mut Shared, now: Instant) {
        match shared.folders.create(&self.names) {
            Ok(created) => {
                let comments = self.section_comments();
                let files = created.files.into_iter().map(|(file, part)| {
                    let encoder = Encoder::new(&shared.config);
                    let mut writer = Writer::new(file, shared.file_buffer_size(), !shared.config.compat);
                    writer.append(now, 0, |out| encoder.begin(&comments, out));
                    OpenFile { writer, encoder, part }
                });
                self.output = Some(Output {
                    files: files.collect(),
                    attempt: created.attempt,
                    spool: created.spool,
                    target: created.target,
                });
                self.trouble = None;
                info!(call_id = %self.start.call_id, file = %self.path(0), "recording started");
                self.flush(now, |_| true);
            }
            Err(error) => {
                if self.trouble.is_none() {
                    let file = self.path(0);
                    error!(call_id = %self.start.call_id, %file, "recording degraded, cannot create: {error}");
                }
                self.trouble = Some(error.to_string());
                self.retry_at = now + RETRY_PERIOD;
            }
        }
    }

    /// Takes a packet in the order of time.
    fn put(&mut self, shared: &mut Shared, held: Held, now: Instant) {
        match &mut self.head {
            Some(head) if head.is_waiting() => {
                if head.hold(held, now) {
                    self.release(shared, now);
                }
            }
            Some(_) | None => self.write(shared, &held.packet, &held.payload, &held.notes, now),
        }
    }

    /// Ends the wait for older packets.
    fn put_all(&mut self, shared: &mut Shared, now: Instant) {
        while let Some(held) = self.order.pop() {
            self.put(shared, held, now);
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
    }

    fn write(
        &mut self,
        shared: &mut Shared,
        packet: &PacketHead,
        payload: &[u8],
        notes: &Notes,
        now: Instant,
    ) {
        let index = self.file_of(packet);
        let Some(output) = &mut self.output else { return };
        let OpenFile { writer, encoder, .. } = &mut output.files[index];
        let frames = self
            .head
            .as_mut()
            .and_then(|head| head.change(&self.start, &shared.config.codec_map, packet, payload, self.last));
        for frame in frames.into_iter().flatten() {
            writer.append(now, 0, |out| {
                encoder.synthetic(frame.sender, frame.addrs, frame.at, &frame.text, out);
            });
            self.tally.synthetic_frames += 1;
        }
        writer.append(now, 1, |out| encoder.packet(packet, payload, notes, &mut shared.ip_id, out));
        self.tally.packet(packet, payload);
        self.last = self.last.max(packet.at.wall);
        if writer.is_due(now) {
            self.flush(now, |writer| writer.is_due(now));
        }
    }

    fn flush(&mut self, now: Instant, which: impl Fn(&Writer) -> bool) {
        let mut is_failing = false;
        for index in 0..self.names.files() {
            let Some(output) = &mut self.output else { return };
            let writer = &mut output.files[index].writer;
            let outcome = if which(writer) { writer.flush(now) } else { Flush::Done };
            is_failing |= writer.is_failing();
            let call_id = &self.start.call_id;
            match outcome {
                Flush::Done | Flush::StillFailing => {}
                Flush::Recovered => info!(%call_id, file = %self.path(index), "recording goes on"),
                Flush::Failed(error) => {
                    let file = self.path(index);
                    error!(%call_id, %file, "recording degraded, cannot write: {error}");
                    self.trouble = Some(error.to_string());
                }
            }
        }
        if !is_failing {
            self.trouble = None;
        }
    }

    /// Counts packets that are missing before the next one of their stream, for the trouble there is unless
    /// `cause` says otherwise.
    fn miss(&mut self, dropped: &Dropped, cause: Option<&str>) {
        match &mut self.missing[tally::index(dropped.leg, dropped.channel)] {
            Some((sum, _)) => {
                sum.packets += dropped.packets;
                sum.last = dropped.last;
            }
            none => {
                let cause = cause.or(self.trouble.as_deref()).unwrap_or_default();
                *none = Some((*dropped, cause.to_owned()));
            }
        }
    }

    /// What is to be seen at the next packet of a stream.
    fn take_notes(&mut self, leg: Leg, channel: Channel) -> Notes {
        let mut dropped = 0;
        if let Some((missing, cause)) = self.missing[tally::index(leg, channel)].take() {
            dropped = missing.packets;
            self.settle(&missing, &cause);
        }
        Notes { comments: std::mem::take(&mut self.comments), dropped }
    }

    fn settle(&mut self, dropped: &Dropped, cause: &str) {
        self.tally.dropped(dropped, cause);
        let Dropped { leg, channel, packets, first, last, .. } = *dropped;
        self.comment(format!(
            "gap: {packets} packets of {} {} are missing, from {} to {}: {cause}",
            leg.name(),
            channel_name(channel),
            rfc3339(first.wall),
            rfc3339(last.wall),
        ));
    }

    fn comment(&mut self, text: String) {
        if self.comments.len() < COMMENTS_MAX {
            self.comments.push(text);
        }
    }

    fn section_comments(&self) -> Vec<String> {
        let RecordingStart { call_id, from_tag, to_tag, at, .. } = &self.start;
        let mut comments =
            vec![id_text("call-id", call_id.as_bytes()), id_text("from-tag", from_tag.as_bytes())];
        comments.extend(to_tag.as_ref().map(|tag| id_text("to-tag", tag.as_bytes())));
        comments.push(format!("start: {}", rfc3339(at.wall)));
        comments
    }

    fn file_of(&self, packet: &PacketHead) -> usize {
        let is_ours = match &self.start.coverage {
            Coverage::Call | Coverage::SingleFile | Coverage::NamedSingleFile { .. } => true,
            Coverage::Stream(leg) | Coverage::Named { leg, .. } => *leg == packet.leg,
        };
        self.names.file_of(is_ours, packet.channel)
    }

    /// A file, for messages.
    fn path(&self, index: usize) -> String {
        match &self.output {
            Some(output) => output.spool.path_of(&output.files[index].part).display().to_string(),
            None => self.names.file(index, 1).to_string_lossy().into_owned(),
        }
    }
}

/// An id for a comment, with its exact bytes if it is no text.
fn id_text(name: &str, id: &[u8]) -> String {
    let text = String::from_utf8_lossy(id);
    match hex_unless_utf8(id) {
        None => format!("{name}: {text}"),
        Some(hex) => format!("{name}: {text} (hex {hex})"),
    }
}

/// What is gained by a larger buffer is little, in bytes.
const FILE_BUFFER_MAX: usize = 16 << 10;
/// What is lost by a smaller one is much, in bytes.
const FILE_BUFFER_MIN: usize = 4 << 10;
/// How long the disk may refuse the end of a recording until we give it up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait before the folder is tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(1);
/// How many remarks wait for a packet.
const COMMENTS_MAX: usize = 64;
