//! Making ended recordings durable: sync, name, sidecar.
//!
//! A thread of its own does it, as `fdatasync` takes milliseconds and the recorder must go on draining.
//! Jobs are done in batches that share the syncs of the folder. What fails is tried again each second. Files that are
//! to be compressed go to another thread in between (`convert`), so that the others need not wait for them.

mod convert;
mod settle;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, never, select};
use rtpproxy_core::command::CallId;
use rtpproxy_core::file_name::{Compression, Encryption};
use tracing::{debug, error, info, warn};

pub(super) use self::convert::{Conversions, Converter, Recipe};
use self::settle::{Prepared, name_files, name_sidecar};
pub(super) use self::settle::{digest_of, move_file};
use super::disk::no_answer;
use super::files::{Folder, Site};
use super::ledger::Entry;
use super::names::Names;
use super::seal::Seal;
use super::sidecar::Sidecar;

/// An ended recording.
#[derive(Debug)]
pub(super) struct Job {
    /// Its files, in the order of `names`.
    pub(super) files: Vec<Closed>,
    /// The names they are to get.
    pub(super) names: Names,
    /// Under which of the names the files were created.
    pub(super) attempt: u32,
    /// Which folders these are.
    pub(super) site: Site,
    /// Where they are.
    pub(super) spool: Arc<Folder>,
    /// Where they belong.
    pub(super) target: Arc<Folder>,
    /// What to write beside them.
    pub(super) sidecar: Sidecar,
    /// Names of the C program and no sidecar.
    pub(super) compat: bool,
    /// The call; `None` if a leftover does not say.
    pub(super) call_id: Option<CallId>,
    /// An earlier process has left it.
    pub(super) is_recovered: bool,
    /// What others see of it; `None` of a leftover.
    pub(super) entry: Option<Entry>,
    /// How many packets are in the files.
    pub(super) packets: u64,
    /// How many should be and are not.
    pub(super) missing: u64,
    /// The files are what they are to be: nothing is left to be converted.
    pub(super) is_settled: bool,
    /// The sidecar, written and without its name.
    pub(super) prepared: Option<Prepared>,
}

impl Job {
    /// The first file, for messages.
    fn path(&self) -> PathBuf {
        let Closed { is_named, part, .. } = &self.files[0];
        let folder = if *is_named { &self.target } else { &self.spool };
        folder.path_of(part)
    }

    /// The last name of a file, if the names of this attempt are free.
    fn name(&self, index: usize, attempt: u32) -> OsString {
        let mut name = self.names.file(index, attempt);
        name.push(&self.files[index].envelope);
        name
    }

    /// Tells that all is done.
    fn finished(self, sidecar: Option<PathBuf>) {
        self.log_end();
        if !Arc::ptr_eq(&self.spool, &self.target) {
            self.spool.remove_if_empty();
        }
        if let Some(entry) = &self.entry {
            entry.finished(self.path(), sidecar);
        }
    }

    /// Tells that something could not be done; gives back what is to be tried again, and how often it was.
    fn refused(self, error: &io::Error, tries: u32, is_last_try: bool) -> Option<(Self, u32)> {
        if let Some(entry) = &self.entry {
            entry.totals().count_error();
        }
        let call_id = self.call_id.as_ref().map(tracing::field::display);
        let path = self.path();
        let file = path.display();
        if is_last_try || tries >= TRIES_MAX {
            error!(call_id, %file, "recording not finished: {error}");
            if let Some(entry) = &self.entry {
                entry.failed(&format!("it could not be finished: {error}"));
            }
            return None;
        }
        if tries == 0 {
            warn!(call_id, %file, "recording not finished yet: {error}");
        }
        if let Some(entry) = &self.entry {
            entry.waits(&error.to_string());
        }
        let is_late = error.kind() == io::ErrorKind::TimedOut;
        Some((self, if is_late { tries.max(1) } else { tries + 1 }))
    }

    fn log_end(&self) {
        let call_id = self.call_id.as_ref().map(tracing::field::display);
        let Self { packets, missing, .. } = self;
        if self.sidecar.next.is_some() {
            let file = self.path();
            info!(call_id, file = %file.display(), packets, missing, "file of a recording finished");
        } else if self.sidecar.is_segment() && !self.is_recovered {
            debug!(file = %self.path().display(), packets, missing, "segment of the journal finished");
        } else if self.is_recovered {
            warn!(call_id, file = %self.path().display(), packets, missing, "recording recovered");
        } else {
            info!(call_id, file = %self.path().display(), packets, missing, "recording finished");
        }
    }
}

/// A file that nobody writes to any more.
#[derive(Debug)]
pub(super) struct Closed {
    /// The descriptor, which a disk may still hold that does not answer. It is locked until the file has its name,
    /// or others may wait and there are too many of them.
    pub(super) file: Option<Arc<File>>,
    /// Its name in the spool folder, then its name in the target folder.
    pub(super) part: OsString,
    /// How much of it counts, in bytes.
    pub(super) len: u64,
    /// It may be longer than that.
    pub(super) is_torn: bool,
    /// In hexadecimal.
    pub(super) sha256: Option<String>,
    /// It has its last name.
    pub(super) is_named: bool,
    /// What its conversion adds to its name.
    pub(super) envelope: String,
    /// What it was converted from.
    pub(super) content: Option<Content>,
    /// What it was encrypted with while it was written.
    pub(super) seal: Option<Seal>,
    /// The file that it was converted from, which goes when the sidecar is safe.
    pub(super) source: Option<Source>,
}

impl Closed {
    /// A file as it was written.
    pub(super) fn new(
        (file, part): (Arc<File>, OsString),
        len: u64,
        is_torn: bool,
        sha256: Option<String>,
    ) -> Self {
        let (is_named, envelope, content, seal, source) = (false, String::new(), None, None, None);
        Self { file: Some(file), part, len, is_torn, sha256, is_named, envelope, content, seal, source }
    }

    /// One that was encrypted while it was written.
    pub(super) fn sealed_by(self, seal: Option<Seal>) -> Self {
        let envelope = if seal.is_some() { Encryption::Sealed.suffix() } else { "" };
        Self { envelope: envelope.to_owned(), seal, ..self }
    }
}

/// What a converted file was before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    /// How it is compressed now.
    pub(super) compression: Option<Compression>,
    /// How long it was, in bytes.
    pub(super) len: u64,
}

/// A file that another one was made of.
#[derive(Debug)]
pub(super) struct Source {
    /// Where it is.
    pub(super) folder: Arc<Folder>,
    /// Its name there.
    pub(super) part: OsString,
    /// Keeps it locked.
    pub(super) _lock: Arc<File>,
}

/// Does jobs until all senders are gone, and then what is left. Without `converter` files stay as they were written.
pub(super) fn run(jobs: &Receiver<Job>, converter: Option<Converter>) {
    let converted = converter.as_ref().map_or_else(never, |converter| converter.converted().clone());
    let (closed, has_converted) = (jobs.clone(), converter.is_some());
    let finisher = Finisher {
        closed: Some(closed),
        converted: Some(converted).filter(|_| has_converted),
        converter,
        failed: Vec::new(),
        retry_at: Instant::now(),
    };
    finisher.run();
}

struct Finisher {
    /// Ended recordings; `None` once there are no more of them.
    closed: Option<Receiver<Job>>,
    /// Those that come back from the converter; `None` without it, and once it has ended.
    converted: Option<Receiver<Job>>,
    converter: Option<Converter>,
    /// What is to be tried again, and how often it was tried.
    failed: Vec<(Job, u32)>,
    retry_at: Instant,
}

impl Finisher {
    fn run(mut self) {
        loop {
            let first = self.next();
            let is_last_try = self.closed.is_none() && self.converted.is_none();
            let more = [&self.closed, &self.converted].into_iter().flatten().flat_map(Receiver::try_iter);
            let mut batch: Vec<_> =
                first.into_iter().chain(more.take(BATCH_MAX)).map(|job| (job, 0)).collect();
            if is_last_try || Instant::now() >= self.retry_at {
                batch.append(&mut self.failed);
                self.retry_at = Instant::now() + RETRY_PERIOD;
            }
            self.do_batch(batch, is_last_try);
            if is_last_try {
                return;
            }
        }
    }

    /// The next recording; `None` if it is time to try something again, or if something has come to its end.
    fn next(&mut self) -> Option<Job> {
        let nothing = never();
        let closed = self.closed.as_ref().unwrap_or(&nothing);
        let converted = self.converted.as_ref().unwrap_or(&nothing);
        let timeout = match self.failed.is_empty() {
            true => never(),
            false => after(self.retry_at.saturating_duration_since(Instant::now())),
        };
        select! {
            recv(closed) -> job => {
                if job.is_err() {
                    self.closed = None;
                    // It ends when it has nothing to do, or no time.
                    self.converter = None;
                }
                job.ok()
            }
            recv(converted) -> job => {
                if job.is_err() {
                    self.converted = None;
                }
                job.ok()
            }
            recv(timeout) -> _ => None,
        }
    }

    /// Does what can be done of the jobs, which have been tried so many times before.
    fn do_batch(&mut self, jobs: Vec<(Job, u32)>, is_last_try: bool) {
        let mut batch = Vec::with_capacity(jobs.len());
        for (mut job, tries) in jobs {
            let outcome = sync_files(&mut job);
            let mut job = match (&self.converter, &outcome) {
                (Some(converter), Ok(())) if !job.is_settled => match converter.give(job) {
                    None => continue,
                    Some(job) => job,
                },
                _ => job,
            };
            let outcome = outcome.and_then(|()| name_files(&mut job));
            batch.push((job, tries, outcome));
        }
        let mut synced: Vec<Arc<Folder>> = Vec::new();
        for (job, _, outcome) in &mut batch {
            if outcome.is_ok() && !synced.iter().any(|folder| Arc::ptr_eq(folder, &job.target)) {
                *outcome = job.target.sync();
                synced.push(Arc::clone(&job.target));
            }
        }
        for (mut job, tries, outcome) in batch {
            match outcome.and_then(|()| name_sidecar(&mut job)) {
                Ok(sidecar) => job.finished(sidecar),
                Err(error) => self.failed.extend(job.refused(&error, tries, is_last_try)),
            }
        }
    }
}

/// Makes the content of each file durable. May be called again after an error.
fn sync_files(job: &mut Job) -> io::Result<()> {
    for closed in job.files.iter_mut().filter(|closed| !closed.is_named) {
        let Some(file) = &mut closed.file else { continue };
        // A write that took too long comes before the cut that takes it back.
        let Some(file) = Arc::get_mut(file) else { return Err(no_answer()) };
        if closed.is_torn {
            file.set_len(closed.len)?;
            closed.is_torn = false;
        }
        if let Some(seal) = &mut closed.seal {
            closed.is_torn = true;
            closed.len += seal.close(file)?;
            closed.is_torn = false;
        }
        file.sync_data()?;
    }
    Ok(())
}

/// How long to wait before what failed is tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(1);
/// How often it is tried again.
const TRIES_MAX: u32 = 60;
/// How many recordings share the sync of the folder.
const BATCH_MAX: usize = 64;
