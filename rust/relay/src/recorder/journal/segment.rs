//! One segment: a file with the recordings of a worker, from the first packet of a minute to its last.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rtpproxy_core::journal::{Figures, INTERFACES, Member};
use rtpproxy_core::pcapng;
use rtpproxy_core::recording::EndReason;
use rtpproxy_core::time::Wall;
use tracing::{debug, error, info, warn};

use super::super::files::{Created, Site};
use super::super::finish::{Closed, Job};
use super::super::names::Names;
use super::super::period::Periods;
use super::super::recording::{Place, Shared};
use super::super::sidecar::{Sidecar, hex, member_comments, rfc3339};
use super::super::tally::Tally;
use super::super::writer::{Flush, Writer, Written};
use super::index::IndexWriter;
use super::sync::Work;

/// The segment of the moment.
#[derive(Debug)]
pub(super) struct Current {
    worker: usize,
    segment: Option<Segment>,
    is_last: bool,
}

impl Current {
    /// None yet, for `worker`.
    pub(super) fn new(worker: usize) -> Self {
        Self { worker, segment: None, is_last: false }
    }

    /// The segment, if there is one.
    pub(super) fn segment(&self) -> Option<&Segment> {
        self.segment.as_ref()
    }

    /// The segment, if there is one.
    pub(super) fn segment_mut(&mut self) -> Option<&mut Segment> {
        self.segment.as_mut()
    }

    /// The segment; one that begins at `at` if there is none.
    pub(super) fn open(&mut self, shared: &Shared, now: Instant, at: Wall) -> &mut Segment {
        self.segment.get_or_insert_with(|| {
            let mut segment = Segment::new(self.worker, shared, now, at);
            segment.is_last = self.is_last;
            segment.create_file(shared, now);
            segment
        })
    }

    /// No other segment follows: as little as is left, it may use what is to stay free.
    pub(super) fn set_last(&mut self) {
        self.is_last = true;
        if let Some(segment) = &mut self.segment {
            segment.is_last = true;
        }
    }

    /// Takes it out.
    pub(super) fn take(&mut self) -> Option<Segment> {
        self.segment.take()
    }
}

/// A segment that is being written.
#[derive(Debug)]
pub(super) struct Segment {
    worker: usize,
    names: Names,
    began: Instant,
    start: Wall,
    writer: Writer,
    /// Where the file is; `None` until a folder takes it.
    place: Option<Place>,
    /// When to try the folders again.
    retry_at: Instant,
    trouble: Option<Trouble>,
    /// The file before this one, in another folder.
    moved_from: Option<PathBuf>,
    index: IndexWriter,
    index_at: Instant,
    /// How many recordings the file tells of, without those that wait.
    told: usize,
    /// What is in the file.
    tally: Tally,
    /// Nothing follows: what the disk has must do.
    is_last: bool,
}

/// The disk does not take what is recorded.
#[derive(Debug)]
struct Trouble {
    cause: String,
    since: Instant,
    /// Packets for which there was no memory.
    missing: u64,
}

/// A file that is left, with what is to be done with it.
#[derive(Debug)]
pub(super) struct Left {
    /// The number of its folder.
    pub(super) site: usize,
    /// What is to be done.
    pub(super) work: Work,
}

impl Segment {
    fn new(worker: usize, shared: &Shared, now: Instant, start: Wall) -> Self {
        let mut writer =
            Writer::new(buffer_size(shared), Periods::of(shared.config.flush).buffer, true, &shared.budget);
        writer.append(now, 0, |out| section(worker, start, out));
        Self {
            worker,
            names: Names::segment(start, worker, &shared.config),
            began: now,
            start,
            writer,
            place: None,
            retry_at: now,
            trouble: None,
            moved_from: None,
            index: IndexWriter::default(),
            index_at: now + INDEX_PERIOD,
            told: 0,
            tally: Tally::default(),
            is_last: false,
        }
    }

    /// The name of the file now, for others.
    pub(super) fn path(&self) -> PathBuf {
        match &self.place {
            Some(place) => place.spool.path_of(&place.parts[0]),
            None => self.names.file(0, 1).into(),
        }
    }

    /// The name that the file will have.
    pub(super) fn final_path(&self) -> PathBuf {
        match &self.place {
            Some(place) => place.target.path_of(&self.names.file(0, place.attempt)),
            None => self.names.file(0, 1).into(),
        }
    }

    /// The file, with the number of its folder.
    pub(super) fn file(&self) -> Option<(usize, Arc<File>)> {
        let place = self.place.as_ref()?;
        self.writer.storage().map(|storage| (place.site as usize, Arc::clone(&storage.file)))
    }

    /// What is in the file.
    pub(super) fn tally_mut(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// Whether a folder has taken it.
    pub(super) fn is_in_place(&self) -> bool {
        self.place.is_some()
    }

    /// Whether its time is over, and the disk takes the next one.
    pub(super) fn is_over(&self, now: Instant, period: Duration) -> bool {
        now.saturating_duration_since(self.began) >= period && !self.is_in_trouble() && self.is_in_place()
    }

    /// Whether the disk refuses at the moment.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    /// Why.
    pub(super) fn trouble_cause(&self) -> Option<&str> {
        self.trouble.as_ref().map(|trouble| trouble.cause.as_str())
    }

    /// Counts a packet for which there was no memory.
    pub(super) fn count_missing(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            trouble.missing += 1;
        }
    }

    /// Whether more can be appended.
    pub(super) fn has_room(&mut self) -> bool {
        self.writer.has_room()
    }

    /// The number of the first interface of the next recording.
    pub(super) fn next_interface(&self) -> u32 {
        self.index.len() as u32 * INTERFACES
    }

    /// Tells of a recording; gives back the number of its row in the index.
    pub(super) fn tell(&mut self, member: Member, now: Instant) -> usize {
        let at = self.writer.position();
        self.writer.append(now, 0, |out| tell(&member, out));
        let len = self.writer.position() - at;
        let row = self.index.add(member);
        self.index.note(row, at, len);
        row
    }

    /// Appends blocks of a recording, in which are a packet and what is missing before it if that is `counted`.
    pub(super) fn append(
        &mut self,
        row: usize,
        now: Instant,
        counted: Option<Figures>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let at = self.writer.position();
        self.writer.append(now, u64::from(counted.is_some()), encode);
        let len = self.writer.position() - at;
        if len > 0 {
            self.index.note(row, at, len);
        }
        if let Some(figures) = counted {
            self.index.count(row, figures);
        }
    }

    /// Counts the end of a recording, and what is missing there.
    pub(super) fn count_end(&mut self, row: usize, reason: EndReason, dropped: u64) {
        self.index.count(row, Figures { dropped, ..Figures::of_end(Some(reason)) });
    }

    /// Appends the last index, and the list of all recordings.
    pub(super) fn write_directory(&mut self, now: Instant) {
        self.write_index(now, true);
    }

    /// Whether it should be written now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.writer.is_due(now)
    }

    /// Writes what waits; false if the disk does not take it.
    pub(super) fn flush(&mut self, shared: &Shared, now: Instant) -> bool {
        let Some(site) = self.place.as_ref().map(|place| place.site) else { return false };
        if now >= self.index_at && !self.is_in_trouble() {
            self.write_index(now, false);
        }
        let before = self.writer.len();
        let outcome = match shared.watch.lack(site).filter(|_| !self.is_last) {
            Some(lack) => self.writer.refuse(now, lack),
            None => self.writer.flush(now),
        };
        let totals = shared.ledger.totals();
        totals.written_bytes.fetch_add(self.writer.len().saturating_sub(before), Ordering::Relaxed);
        match outcome {
            Flush::Done | Flush::Recovered => {
                self.told = self.index.len();
                if let Some(Trouble { since, missing, .. }) = self.trouble.take() {
                    let seconds = now.saturating_duration_since(since).as_secs();
                    info!(file = %self.path().display(), seconds, missing, "the journal goes on");
                }
                return true;
            }
            Flush::StillFailing => totals.count_error(),
            Flush::Failed(error) => {
                totals.count_error();
                if self.trouble.is_none() {
                    error!(file = %self.path().display(), "journal degraded, cannot write: {error}");
                }
                self.refused(&error, now);
            }
        }
        false
    }

    /// Tries to get a file, if it has none.
    pub(super) fn look_after(&mut self, shared: &Shared, now: Instant) {
        if self.place.is_none() && now >= self.retry_at {
            self.create_file(shared, now);
        }
    }

    /// Creates the file in a folder that takes it; otherwise it is tried again.
    pub(super) fn create_file(&mut self, shared: &Shared, now: Instant) {
        let mut outcome = self.create(shared, Site::Main);
        let is_late = self.is_last || self.is_stuck_since(now, MOVE_AFTER);
        if outcome.is_err() && is_late && shared.folders.has(Site::Fallback) {
            outcome = self.create(shared, Site::Fallback).or(outcome);
        }
        match outcome {
            Ok(created) => {
                self.settle_in(created);
                debug!(file = %self.path().display(), "segment of the journal begun");
                // So that a reader who is early finds its head.
                self.flush(shared, now);
            }
            Err(error) => {
                shared.ledger.totals().count_error();
                if self.trouble.is_none() {
                    error!(file = %self.path().display(), "journal degraded, cannot create: {error}");
                }
                self.refused(&error, now);
                self.retry_at = now + RETRY_PERIOD;
            }
        }
    }

    /// Goes on in the other folder if this one has refused for so long; gives back the file that is left behind.
    pub(super) fn move_on(&mut self, shared: &Shared, now: Instant, after: Duration) -> Option<Left> {
        let other = self.place.as_ref()?.site.other();
        if now < self.retry_at || !self.is_stuck_since(now, after) || !shared.folders.has(other) {
            return None;
        }
        self.retry_at = now + RETRY_PERIOD;
        let created = self.create(shared, other).ok()?;
        let from = self.final_path();
        let to = created.target.path_of(&self.names.file(0, created.attempt));
        warn!(from = %from.display(), to = %to.display(), "the journal goes on in the other folder");
        let place = self.place.take()?;
        let calls = self.told;
        let mut left = self.leave(place, "moved", calls)?;
        if let Some(job) = &mut left.work.job {
            job.sidecar.moved_to = Some(to.display().to_string());
        }
        self.moved_from = Some(from);
        self.settle_in(created);
        Some(left)
    }

    /// Whether somebody has removed the file.
    pub(super) fn is_removed(&self) -> bool {
        self.writer.is_lost() && self.writer.is_removed()
    }

    /// Somebody has removed the file, with so many packets of recordings that tell of that; gives back how many there
    /// were of those that are over.
    pub(super) fn forget_file(&mut self, told: u64) -> u64 {
        let packets = self.tally.sum(|stream| stream.packets);
        let over = packets.saturating_sub(told);
        error!(
            file = %self.path().display(), packets, over,
            "the journal lost its segment, which was removed, and with it recordings that were over"
        );
        let header = self.header();
        self.writer.detach(&header);
        self.tally = Tally::default();
        self.place = None;
        self.index.restart(self.writer.position());
        over
    }

    /// Gives up what is not in the file, and says how many packets that were.
    pub(super) fn discard(&mut self) -> u64 {
        self.writer.discard()
    }

    /// What is to be done with the file; none if there is none.
    pub(super) fn finish(mut self, unsaved: u64) -> Option<Left> {
        let place = self.place.take()?;
        self.tally.unsaved = unsaved;
        let calls = self.index.len();
        self.leave(place, if self.is_last { "shutdown" } else { "rotated" }, calls)
    }

    fn leave(&mut self, place: Place, reason: &'static str, calls: usize) -> Option<Left> {
        let header = self.header();
        let Written { storage, len, is_torn, sha256 } = self.writer.detach(&header)?;
        let tally = std::mem::take(&mut self.tally);
        self.index.restart(self.writer.position());
        let ended = tally.last().unwrap_or(self.start).max(self.start);
        let mut sidecar = Sidecar::segment(self.worker, calls, self.start, &tally, (ended, reason));
        sidecar.moved_from = self.moved_from.as_deref().map(|path| path.display().to_string());
        let file = storage.file;
        let [part] = <[_; 1]>::try_from(place.parts).ok()?;
        let sha256 = sha256.map(|digest| hex(&digest));
        let job = Job {
            files: vec![Closed::new((Arc::clone(&file), part), len, is_torn, sha256).sealed_by(storage.seal)],
            names: self.names.clone(),
            attempt: place.attempt,
            site: place.site,
            spool: place.spool,
            target: place.target,
            sidecar,
            compat: false,
            call_id: None,
            is_recovered: false,
            entry: None,
            is_settled: false,
            prepared: None,
            packets: tally.sum(|stream| stream.packets),
            missing: tally.sum(|stream| stream.dropped) + tally.unsaved,
        };
        // What is torn is cut by the finisher, which has a file for itself when it is left to it.
        let work = Work { file: Some(file), written: Vec::new(), job: Some(Box::new(job)), _token: None };
        Some(Left { site: place.site as usize, work })
    }

    /// What the next file has to begin with: the numbers of the interfaces must stay what they are.
    fn header(&self) -> Vec<u8> {
        let mut header = Vec::new();
        section(self.worker, self.start, &mut header);
        self.index.members().take(self.told).for_each(|member| tell(member, &mut header));
        header
    }

    fn write_index(&mut self, now: Instant, is_end: bool) {
        let at = self.writer.position();
        self.writer.append(now, 0, |out| self.index.write(at, is_end, out));
        self.index_at = now + INDEX_PERIOD;
    }

    fn create(&self, shared: &Shared, site: Site) -> io::Result<Created> {
        match shared.watch.lack(site) {
            Some(lack) if !self.is_last => Err(lack),
            Some(_) | None => {
                let created = shared.folders.create(site, &self.names)?;
                created.sealed(&shared.config, &comments(self.worker, self.start))
            }
        }
    }

    fn settle_in(&mut self, created: Created) {
        let Created { files, attempt, site, spool, target } = created;
        let mut parts = Vec::with_capacity(1);
        for (handle, part) in files {
            self.writer.attach(handle);
            parts.push(part);
        }
        self.place = Some(Place { site, parts, attempt, spool, target });
    }

    fn refused(&mut self, error: &io::Error, now: Instant) {
        let (since, missing) = self.trouble.as_ref().map_or((now, 0), |old| (old.since, old.missing));
        self.trouble = Some(Trouble { cause: error.to_string(), since, missing });
    }

    fn is_stuck_since(&self, now: Instant, after: Duration) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| now.saturating_duration_since(trouble.since) >= after)
    }
}

/// How many bytes are written at once.
fn buffer_size(shared: &Shared) -> usize {
    (shared.config.buffer_bytes / 64).clamp(BUFFER_SIZE_MIN, BUFFER_SIZE_MAX)
}

fn section(worker: usize, start: Wall, out: &mut Vec<u8>) {
    let comments = comments(worker, start);
    pcapng::section(&comments.each_ref().map(String::as_str), out);
}

fn comments(worker: usize, start: Wall) -> [String; 2] {
    [format!("journal of worker {worker}"), format!("start: {}", rfc3339(start))]
}

fn tell(member: &Member, out: &mut Vec<u8>) {
    let comments = member_comments(member);
    member.tell(&comments.iter().map(String::as_str).collect::<Vec<_>>(), out);
}

/// What is gained by a larger buffer is little, in bytes.
const BUFFER_SIZE_MAX: usize = 1 << 20;
/// What is lost by a smaller one is much, in bytes.
const BUFFER_SIZE_MIN: usize = 64 << 10;
/// How often it is said where the recordings are.
const INDEX_PERIOD: Duration = Duration::from_secs(1);
/// How long a folder may refuse until the journal goes on in the other one.
pub(super) const MOVE_AFTER: Duration = Duration::from_secs(3);
/// How long to wait before the folders are tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(1);
