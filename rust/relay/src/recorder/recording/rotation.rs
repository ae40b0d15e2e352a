//! A long recording in several files, one after the other.

use std::time::{Duration, Instant};

use rtpproxy_core::time::{Mono, Wall};
use tracing::{debug, warn};

use super::super::files::Created;
use super::super::finish::Job;
use super::super::ledger::Figures;
use super::super::names::Names;
use super::super::queue::PacketHead;
use super::{OpenFile, Recording, Shared};
use crate::config::RecordConfig;

/// When a recording goes on in the next file, and what is to be known of this one for that.
#[derive(Debug)]
pub(super) struct Rotation {
    bytes: Option<u64>,
    time: Option<Duration>,
    /// When the first packet of this file came, and when it was written.
    first: Option<(Mono, Instant)>,
    /// What this file covers begins here.
    pub(super) began: Wall,
    /// The name of the file before.
    pub(super) previous: Option<String>,
    /// There is to be a next file, and the disk refuses it.
    is_late: bool,
    retry_at: Instant,
}

impl Rotation {
    /// That of a recording which was asked for at `began`.
    pub(super) fn new(config: &RecordConfig, began: Wall, now: Instant) -> Self {
        let (bytes, time) = (config.rotate_bytes, config.rotate_time);
        Self { bytes, time, first: None, began, previous: None, is_late: false, retry_at: now }
    }

    /// There is no packet in this file yet, or not any more.
    pub(super) fn begin_file(&mut self) {
        self.first = None;
    }

    /// Whether a packet of this time, which makes a file `size` bytes long, belongs in the next one.
    fn is_due(&self, at: Mono, size: u64) -> bool {
        let Some((first, _)) = self.first else { return false };
        let is_old = self.time.is_some_and(|time| at.since(first) >= time);
        let is_large = self.bytes.is_some_and(|bytes| size.saturating_add(reserve(bytes)) > bytes);
        is_old || is_large
    }

    /// Whether the file should have ended, although no packet has come to end it.
    fn is_overdue(&self, now: Instant) -> bool {
        let (Some(time), Some((_, since))) = (self.time, self.first) else { return false };
        now.saturating_duration_since(since) >= time + SILENCE
    }
}

impl Recording {
    /// Goes on in the next files if a packet belongs there, whose payload has `len` bytes.
    pub(super) fn rotate_before(
        &mut self,
        shared: &mut Shared,
        packet: &PacketHead,
        len: usize,
        now: Instant,
    ) {
        let size = self.files[self.file_of(packet)].writer.full_len() + len as u64;
        if self.rotation.is_due(packet.at.mono, size) {
            self.rotate(shared, now);
        }
        self.rotation.first.get_or_insert((packet.at.mono, now));
    }

    /// Goes on in the next files if it is time for that, although nobody speaks.
    pub(super) fn rotate_in_silence(&mut self, shared: &mut Shared, now: Instant) {
        if self.rotation.is_overdue(now) && self.ended.is_none() {
            self.rotate(shared, now);
        }
    }

    /// Closes the files and goes on in the next ones, unless the disk refuses: then it stays as it is for now.
    fn rotate(&mut self, shared: &mut Shared, now: Instant) {
        let Some(place) = self.place.as_ref().filter(|_| now >= self.rotation.retry_at) else { return };
        let site = place.site;
        let names = self.names.next_part(place.attempt);
        if !self.is_in_trouble() {
            self.flush(shared, now, |_| true);
        }
        if self.is_in_trouble() {
            return;
        }
        match self.create(shared, site, &names) {
            Ok(created) => {
                self.conclude();
                let job = self.leave(shared, (created, names), "rotated", now);
                shared.left.extend(job);
            }
            Err(error) => {
                self.entry.totals().count_error();
                if !self.rotation.is_late {
                    let (call_id, file) = (&self.start.call_id, names.file(0, 1));
                    let file = file.display();
                    warn!(%call_id, %file, "the next file of the recording cannot be created yet: {error}");
                }
                self.rotation.is_late = true;
                self.rotation.retry_at = now + RETRY_PERIOD;
            }
        }
    }

    /// Writes the ends of files that are not those of the recording.
    fn conclude(&mut self) {
        let tally = self.total();
        for OpenFile { writer, encoder, .. } in &mut self.files {
            writer.conclude(|out| encoder.end(&tally, self.rotation.began, self.last, &[], out));
        }
    }

    /// Leaves the files for new ones, and returns what is to be done with those.
    pub(super) fn leave(
        &mut self,
        shared: &Shared,
        (created, names): (Created, Names),
        reason: &'static str,
        now: Instant,
    ) -> Option<Job> {
        let place = self.place.take()?;
        let (site, attempt) = (place.site, place.attempt);
        let from = place.target.path_of(&self.names.file(0, attempt));
        let to = created.target.path_of(&names.file(0, created.attempt));
        let part = self.names.part().map(|_| self.entry.of_part());
        let mut job = self.job(shared, place, (self.last, reason), part);
        if site != created.site {
            job.sidecar.moved_to = Some(to.display().to_string());
        }
        self.moved_from = (site != created.site).then_some(from);
        if names.part().is_some() {
            job.sidecar.next = Some(names.file(0, created.attempt).to_string_lossy().into_owned());
            self.rotation.previous = Some(self.names.file(0, attempt).to_string_lossy().into_owned());
        }
        debug!(call_id = %self.start.call_id, file = %to.display(), "recording goes on in another file");
        self.names = names;
        self.earlier = self.earlier.plus(Figures::of(&self.tally));
        self.tally = self.tally.next_file();
        self.rotation.begin_file();
        (self.rotation.began, self.rotation.is_late) = (self.last, false);
        self.settle_in(created);
        self.flush(shared, now, |_| true);
        Some(job)
    }
}

/// Room in a file for what comes with a packet, and for the totals at the end.
fn reserve(bytes: u64) -> u64 {
    (bytes / 64).min(16 << 10)
}

/// How much later a file ends if no packet comes: longer than packets wait for each other.
const SILENCE: Duration = Duration::from_secs(1);
/// How long to wait before the disk is asked again for the next file.
const RETRY_PERIOD: Duration = Duration::from_secs(1);
