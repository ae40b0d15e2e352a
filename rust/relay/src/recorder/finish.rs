//! Making ended recordings durable: sync, name, sidecar.
//!
//! A thread of its own does it, as `fdatasync` takes milliseconds and the recorder must go on draining.
//! Jobs are done in batches that share the syncs of the folder. What fails is tried again each second.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rtpproxy_core::command::CallId;
use tracing::{error, info, warn};

use super::disk::no_answer;
use super::files::{Folder, Site, file_mode, part_name};
use super::ledger::Entry;
use super::names::Names;
use super::sidecar::{FileFacts, Sidecar, hex_unless_utf8};

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
}

impl Job {
    /// The first file, for messages.
    fn path(&self) -> PathBuf {
        let Closed { file, part, .. } = &self.files[0];
        let folder = if file.is_some() { &self.spool } else { &self.target };
        folder.path_of(part)
    }

    fn log_end(&self) {
        let call_id = self.call_id.as_ref().map(tracing::field::display);
        let Self { packets, missing, .. } = self;
        if self.sidecar.next.is_some() {
            let file = self.path();
            info!(call_id, file = %file.display(), packets, missing, "file of a recording finished");
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
    /// The descriptor, which a disk may still hold that does not answer; `None` once the file has its name.
    pub(super) file: Option<Arc<File>>,
    /// Its name in the spool folder, then its name in the target folder.
    pub(super) part: OsString,
    /// How much of it counts, in bytes.
    pub(super) len: u64,
    /// It may be longer than that.
    pub(super) is_torn: bool,
    /// In hexadecimal.
    pub(super) sha256: Option<String>,
}

/// Does jobs until all senders are gone, and then what is left.
pub(super) fn run(jobs: &Receiver<Job>) {
    let mut failed: Vec<(Job, u32)> = Vec::new();
    let mut retry_at = Instant::now();
    loop {
        let first = if failed.is_empty() {
            jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            jobs.recv_deadline(retry_at)
        };
        let is_last_try = matches!(first, Err(RecvTimeoutError::Disconnected));
        let mut batch: Vec<_> =
            first.into_iter().chain(jobs.try_iter().take(BATCH_MAX)).map(|job| (job, 0)).collect();
        if is_last_try || Instant::now() >= retry_at {
            batch.append(&mut failed);
            retry_at = Instant::now() + RETRY_PERIOD;
        }
        failed.extend(do_batch(batch, is_last_try));
        if is_last_try {
            return;
        }
    }
}

/// Does what can be done of the jobs, which have been tried so many times before; returns what to try again.
fn do_batch(jobs: Vec<(Job, u32)>, is_last_try: bool) -> Vec<(Job, u32)> {
    let mut batch: Vec<_> = jobs.into_iter().map(|(job, tries)| (job, tries, Ok(()))).collect();
    for (job, _, outcome) in &mut batch {
        *outcome = name_files(job);
    }
    let mut synced: Vec<Arc<Folder>> = Vec::new();
    for (job, _, outcome) in &mut batch {
        if outcome.is_ok() && !synced.iter().any(|folder| Arc::ptr_eq(folder, &job.target)) {
            *outcome = job.target.sync();
            synced.push(Arc::clone(&job.target));
        }
    }
    let mut failed = Vec::new();
    for (job, tries, outcome) in batch {
        let sidecar =
            outcome.and_then(|()| if job.compat { Ok(None) } else { write_sidecar(&job).map(Some) });
        let error = match sidecar {
            Ok(sidecar) => {
                job.log_end();
                if !Arc::ptr_eq(&job.spool, &job.target) {
                    job.spool.remove_if_empty();
                }
                if let Some(entry) = &job.entry {
                    entry.finished(job.path(), sidecar);
                }
                continue;
            }
            Err(error) => error,
        };
        if let Some(entry) = &job.entry {
            entry.totals().count_error();
        }
        let call_id = job.call_id.as_ref().map(tracing::field::display);
        let path = job.path();
        let file = path.display();
        if is_last_try || tries >= TRIES_MAX {
            error!(call_id, %file, "recording not finished: {error}");
            if let Some(entry) = &job.entry {
                entry.failed(&format!("it could not be finished: {error}"));
            }
            continue;
        }
        if tries == 0 {
            warn!(call_id, %file, "recording not finished yet: {error}");
        }
        if let Some(entry) = &job.entry {
            entry.waits(&error.to_string());
        }
        let is_late = error.kind() == io::ErrorKind::TimedOut;
        failed.push((job, if is_late { tries.max(1) } else { tries + 1 }));
    }
    failed
}

/// Gives each file its name, durably. May be called again after an error.
fn name_files(job: &mut Job) -> io::Result<()> {
    if !Arc::ptr_eq(&job.spool, &job.target) {
        // Empty since the start of the recording, the folder may have been removed.
        job.target = job.target.renewed()?;
    }
    for index in 0..job.files.len() {
        let Closed { file: Some(file), len, is_torn, .. } = &mut job.files[index] else { continue };
        // A write that took too long comes before the cut that takes it back.
        let Some(file) = Arc::get_mut(file) else { return Err(no_answer()) };
        if *is_torn {
            file.set_len(*len)?;
            *is_torn = false;
        }
        file.sync_data()?;
        let is_in_place = job.compat && Arc::ptr_eq(&job.spool, &job.target);
        if !is_in_place {
            job.files[index].part = move_into_place(job, index)?;
        }
        job.files[index].file = None;
    }
    Ok(())
}

fn move_into_place(job: &Job, index: usize) -> io::Result<OsString> {
    let part = &job.files[index].part;
    let attempts = if job.compat { 1..=1 } else { job.attempt..=*job.names.attempts().end() };
    for attempt in attempts {
        let name = job.names.file(index, attempt);
        let renamed = job.spool.rename(part, &job.target, &name, job.compat);
        let moved = match renamed {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => copy(job, index, &name),
            other => other,
        };
        match moved {
            Ok(()) => return Ok(name),
            // Somebody else put a file there while we recorded.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Moves a file to another file system, where it appears complete or not at all.
fn copy(job: &Job, index: usize, name: &OsString) -> io::Result<()> {
    let part = &job.files[index].part;
    let temporary = part_name(name);
    let mut source = job.spool.read(part)?;
    let mut copy = job.target.create(&temporary, file_mode(job.compat))?;
    let copied = io::copy(&mut source, &mut copy)
        .and_then(|_| copy.sync_data())
        .and_then(|()| job.target.rename(&temporary, &job.target, name, job.compat));
    if copied.is_err() {
        // The first error tells more than one of cleaning up.
        let _ = job.target.remove(&temporary);
        return copied;
    }
    job.spool.remove(part)
}

/// Writes the sidecar; its name is the last thing that appears of a recording.
fn write_sidecar(job: &Job) -> io::Result<PathBuf> {
    let mut sidecar = job.sidecar.clone();
    sidecar.files = job.files.iter().map(facts).collect();
    let mut text = serde_json::to_vec_pretty(&sidecar)?;
    text.push(b'\n');
    for attempt in job.attempt..=*job.names.attempts().end() {
        let name = job.names.sidecar(attempt);
        let temporary = part_name(&name);
        // Left over from a crash: the name of the recording is ours, so this is too.
        job.target.remove(&temporary)?;
        let mut file = job.target.create(&temporary, file_mode(false))?;
        let written = file
            .write_all(&text)
            .and_then(|()| file.sync_data())
            .and_then(|()| job.target.rename(&temporary, &job.target, &name, false));
        match written {
            Ok(()) => return Ok(job.target.path_of(&name)),
            Err(error) => {
                let _ = job.target.remove(&temporary);
                if error.kind() != io::ErrorKind::AlreadyExists {
                    return Err(error);
                }
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn facts(file: &Closed) -> FileFacts {
    FileFacts {
        name: file.part.to_string_lossy().into_owned(),
        name_hex: hex_unless_utf8(file.part.as_bytes()),
        size: file.len,
        sha256: file.sha256.clone().unwrap_or_default(),
    }
}

/// How long to wait before what failed is tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(1);
/// How often it is tried again.
const TRIES_MAX: u32 = 60;
/// How many recordings share the sync of the folder.
const BATCH_MAX: usize = 64;
