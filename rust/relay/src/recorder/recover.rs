//! What an earlier process has left: recordings that it began and did not finish.
//!
//! A thread of its own looks through the folders, at low priority and one recording at a time, while the relay
//! works. What was getting its names goes on with that (`resume`). A `.part` that is locked is being written by a living process and is left alone. Each other one
//! is cut back to its last whole packet, closed, and handed to the finisher under a name with `.recovered` in it.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use rtpproxy_core::command::{CallId, Tag};
use rtpproxy_core::file_name::{Content, FileName};
use rtpproxy_core::journal;
use rtpproxy_core::salvage::Format;
use tracing::{debug, error, warn};

use super::claim::{CONVERSIONS, is_taken};
use super::files::{Contents, Folder, Site};
use super::finish::{self, Closed, Job};
use super::leftover::{Findings, Hints, Mended, Stopped, now_text};
use super::names::Names;
use super::resume::resume;
use super::sidecar::{HoleFacts, Ids, Recovered, Sidecar};
use crate::config::RecordConfig;

/// The search for leftovers.
#[derive(Debug)]
pub(super) struct Recovery {
    site: Site,
    target: PathBuf,
    spool: Option<PathBuf>,
    finished: Sender<Job>,
    /// Disconnected when the relay ends.
    stop: Receiver<()>,
}

impl Recovery {
    /// A search through these folders of `config` that gives to `finished`; none if files have their names from
    /// the start (`compat`).
    pub(super) fn new(
        config: &RecordConfig,
        site: Site,
        finished: Sender<Job>,
        stop: Receiver<()>,
    ) -> Option<Self> {
        let (target, spool) = match site {
            Site::Main => (config.folder.clone(), config.spool.clone()),
            Site::Fallback => (config.fallback.clone(), None),
        };
        let target = target.filter(|_| !config.compat)?;
        Some(Self { site, target, spool, finished, stop })
    }

    /// Searches, once the folders are there.
    pub(super) fn run(self) {
        // Of this thread alone. Without permission it works as fast as the others.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        let Some(target) = self.open(&self.target) else { return };
        let spool = match &self.spool {
            Some(path) => match self.open(path) {
                Some(spool) => Some(spool),
                None => return,
            },
            None => None,
        };
        let mut recovered = 0;
        let roots = || spool.iter().chain([&target]);
        let walk = |root: &Arc<Folder>, visit: &mut Visit<'_>| {
            let others = roots().filter(|other| !Arc::ptr_eq(other, root));
            let others: Vec<_> = others.filter_map(|other| other.identity().ok()).collect();
            self.search_all(root, &target, &others, visit)
        };
        let resumed = walk(&target, &mut |folder, place| self.resume_all(folder, place, spool.as_ref()));
        let is_stopped = resumed.is_err()
            || roots().any(|root| {
                walk(root, &mut |folder, place| self.search(folder, place, &mut recovered)).is_err()
            });
        if is_stopped {
            return;
        }
        if recovered > 0 {
            warn!(recordings = recovered, "recordings that an earlier process did not end were recovered");
        }
    }

    /// Opens a folder, which may not be there yet; none if the relay ends before.
    fn open(&self, path: &Path) -> Option<Arc<Folder>> {
        loop {
            // What is wrong with it is told elsewhere.
            if let Ok(folder) = Folder::open(path) {
                return Some(Arc::new(folder));
            }
            self.wait(RETRY_PERIOD).ok()?;
        }
    }

    /// Visits a folder and those below it, but not `others` that are visited by themselves. What is recovered goes to
    /// the same path below `target`. The visitor gives back the folders in a folder.
    fn search_all(
        &self,
        root: &Arc<Folder>,
        target: &Arc<Folder>,
        others: &[(u64, u64)],
        visit: &mut Visit<'_>,
    ) -> Result<(), Stopped> {
        let mut waiting = vec![Vec::new()];
        while let Some(names) = waiting.pop() {
            let place = Place { root, target, names: &names };
            match place.open(others).and_then(|folder| visit(&folder, &place)) {
                Ok(below) if names.len() < DEPTH_MAX => {
                    waiting.extend(below.into_iter().rev().map(|name| [names.as_slice(), &[name]].concat()));
                }
                Ok(_) => {}
                Err(error) if is_stop(&error) => return Err(Stopped),
                // One that is empty may have been removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !names.is_empty() => {}
                Err(error) => {
                    let path = root.path().join(names.iter().collect::<PathBuf>());
                    error!("{}: leftovers cannot be looked for: {error}", path.display());
                }
            }
        }
        Ok(())
    }

    /// Goes on with the recordings that were getting their names.
    fn resume_all(
        &self,
        folder: &Arc<Folder>,
        place: &Place<'_>,
        spool: Option<&Arc<Folder>>,
    ) -> io::Result<Vec<OsString>> {
        self.wait(Duration::ZERO)?;
        let Contents { parts, folders } = folder.contents()?;
        let is_sidecar =
            |part: &OsString| FileName::parse(part.as_bytes()).is_some_and(|name| !name.has_packets());
        let sidecars: Vec<_> = parts.into_iter().filter(is_sidecar).collect();
        if sidecars.is_empty() {
            return Ok(folders);
        }
        // There need be no folder of that path.
        let spool = spool.and_then(|spool| Folder::inside(spool, place.names).ok());
        for part in sidecars {
            self.wait(Duration::ZERO)?;
            if let Err(error) = resume(folder, spool.as_ref(), &part) {
                error!(file = %folder.path_of(&part).display(), "sidecar not recovered: {error}");
            }
        }
        Ok(folders)
    }

    /// Searches one folder; gives back the folders in it.
    fn search(
        &self,
        folder: &Arc<Folder>,
        place: &Place<'_>,
        recovered: &mut u64,
    ) -> io::Result<Vec<OsString>> {
        self.wait(Duration::ZERO)?;
        let Contents { parts, folders } = folder.contents()?;
        for (recording, parts) in sorted(parts) {
            match self.recover(folder, place, &recording, &parts) {
                Ok(Some(job)) => {
                    // The finisher lives until we drop the sender.
                    let _ = self.finished.send(job);
                    *recovered += 1;
                }
                Ok(None) => {}
                Err(error) if is_stop(&error) => return Err(error),
                Err(error) => {
                    let file = folder.path_of(&parts[0].part);
                    error!(file = %file.display(), "recording not recovered: {error}");
                }
            }
            while self.finished.len() >= WAITING_MAX {
                self.wait(QUEUE_PERIOD)?;
            }
        }
        Ok(folders)
    }

    /// Puts the files of one recording right; none if they are in use.
    fn recover(
        &self,
        folder: &Arc<Folder>,
        place: &Place<'_>,
        recording: &Recording,
        parts: &[Part],
    ) -> io::Result<Option<Job>> {
        let mut files = Vec::with_capacity(parts.len());
        for part in parts {
            match folder.take_over(&part.part)? {
                Some(file) => files.push(file),
                None => {
                    debug!(file = %folder.path_of(&part.part).display(), "another process is writing it");
                    return Ok(None);
                }
            }
        }
        let target = place.target_of(folder)?;
        for part in parts.iter().filter(|part| !part.hints.is_converted()) {
            remove_unfinished_conversions(&part.part, &target)?;
        }
        let is_journal = journal::is_segment(parts[0].part.as_bytes());
        let mut findings = Findings::default();
        findings.is_journal = is_journal;
        let is_stopped = || self.stop.try_recv() == Err(TryRecvError::Disconnected);
        let mut closed = Vec::with_capacity(parts.len());
        for (part, file) in parts.iter().zip(files) {
            let Mended { len, sha256, content_len } = findings.mend(&file, part.hints, &is_stopped)?;
            let new = Closed::new((Arc::new(file), part.part.clone()), len, false, Some(sha256));
            let content = content_len.map(|len| finish::Content { compression: part.hints.compression, len });
            closed.push(Closed { content, ..new });
        }
        let suffixes = parts.iter().map(|part| part.suffix.clone()).collect();
        let names = Names::recovered(&recording.stem, suffixes, recording.sidecar_suffix.clone());
        let attempt = first_free(&names, &target)?;
        let mut job = job(findings, closed, names, attempt, [Arc::clone(folder), target]);
        job.site = self.site;
        job.sidecar.part = recording.number;
        Ok(Some(job))
    }

    fn wait(&self, time: Duration) -> io::Result<()> {
        match self.stop.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(io::Error::other(Stopped)),
        }
    }
}

/// What is done in a folder.
type Visit<'a> = dyn FnMut(&Arc<Folder>, &Place<'_>) -> io::Result<Vec<OsString>> + 'a;

/// A folder that is searched.
#[derive(Clone, Copy)]
struct Place<'a> {
    root: &'a Arc<Folder>,
    /// Where recordings belong.
    target: &'a Arc<Folder>,
    /// Its path below both.
    names: &'a [OsString],
}

impl Place<'_> {
    /// Opens it, unless it is one of `others`.
    fn open(&self, others: &[(u64, u64)]) -> io::Result<Arc<Folder>> {
        if self.names.is_empty() {
            return Ok(Arc::clone(self.root));
        }
        let folder = Folder::inside(self.root, self.names)?;
        if others.contains(&folder.identity()?) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Arc::new(folder))
    }

    /// The folder that what is in `folder` belongs to.
    fn target_of(&self, folder: &Arc<Folder>) -> io::Result<Arc<Folder>> {
        if Arc::ptr_eq(self.root, self.target) {
            Ok(Arc::clone(folder))
        } else if self.names.is_empty() {
            Ok(Arc::clone(self.target))
        } else {
            Ok(Arc::new(Folder::make(self.target, self.names)?))
        }
    }
}

/// What the files of a recording have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Recording {
    stem: Vec<u8>,
    /// Of the part, if it was rotated.
    number: Option<u32>,
    sidecar_suffix: String,
    format: &'static str,
}

/// One of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    part: OsString,
    /// What follows the stem in the name that it is to get.
    suffix: String,
    hints: Hints,
}

/// Puts the names of packets' files with `.part` together.
fn sorted(names: Vec<OsString>) -> BTreeMap<Recording, Vec<Part>> {
    let mut recordings: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for part in names {
        let Some(name) = FileName::parse(part.as_bytes()) else { continue };
        let Some(format) = name.content.format() else { continue };
        let is_rtcp = name.content == Content::Rtcp;
        let hints = Hints {
            format,
            leg: name.leg,
            is_rtcp,
            compression: name.compression,
            encryption: name.encryption,
        };
        let (stem, sidecar_suffix) = (name.stem.to_vec(), name.sidecar().suffix());
        let recording = Recording { stem, number: name.number, sidecar_suffix, format: format.name() };
        let suffix = FileName { is_part: false, ..name }.suffix();
        recordings.entry(recording).or_default().push(Part { part, suffix, hints });
    }
    for parts in recordings.values_mut() {
        let written: Vec<_> = parts.iter().filter(|part| !part.hints.is_converted()).cloned().collect();
        // Beside the file that it is made of, a new one is not complete.
        parts.retain(|part| {
            !part.hints.is_converted()
                || written.iter().all(|other| other.hints.is_rtcp != part.hints.is_rtcp)
        });
        // RTP comes before RTCP, as in the names of a recording that ends.
        parts.sort_by_key(|part| part.hints.is_rtcp);
    }
    recordings
}

/// Removes what was being made of a file when its process ended.
fn remove_unfinished_conversions(part: &OsStr, target: &Folder) -> io::Result<()> {
    let Some(name) = FileName::parse(part.as_bytes()) else { return Ok(()) };
    for (compression, encryption) in CONVERSIONS {
        let name = FileName { compression, encryption, ..name }.to_bytes();
        let name = OsString::from_vec(name);
        if target.has(&name)? && target.take_over(&name)?.is_some() {
            target.remove(&name)?;
        }
    }
    Ok(())
}

fn first_free(names: &Names, target: &Folder) -> io::Result<u32> {
    for attempt in names.attempts() {
        if !is_taken(names, attempt, target)? {
            return Ok(attempt);
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "all names for the recording are taken"))
}

fn job(
    findings: Findings,
    files: Vec<Closed>,
    names: Names,
    attempt: u32,
    [spool, target]: [Arc<Folder>; 2],
) -> Job {
    let Findings {
        call_id,
        from_tag,
        to_tag,
        start,
        format,
        tally,
        legs,
        is_anonymous,
        is_journal,
        recordings,
        cut_bytes,
        sealed,
        holes,
        ..
    } = findings;
    let holes = holes.into_iter().map(|(file, hole)| HoleFacts { file, at: hole.at, bytes: hole.len });
    let recovered = Recovered { at: now_text(), cut_bytes, holes: holes.collect() };
    if !recovered.holes.is_empty() {
        let file = spool.path_of(&files[0].part);
        warn!(file = %file.display(), "the recording is damaged before its end: see rtpproxy repair");
    }
    let ids = Ids {
        call_id: call_id.as_ref().map(CallId::as_bytes),
        from_tag: from_tag.as_ref().map(Tag::as_bytes),
        to_tag: to_tag.as_ref().map(Tag::as_bytes),
    };
    let format = format.unwrap_or(Format::Pcapng);
    let legs = (!is_anonymous).then_some(&legs);
    let mut sidecar = Sidecar::recovered(&ids, format, &tally, legs, recovered);
    sidecar.requested = start;
    if is_journal {
        sidecar.set_segment(recordings);
    }
    if let Some(written) = sealed {
        sidecar.forget_packets(written);
    }
    Job {
        packets: tally.sum(|stream| stream.packets),
        missing: tally.sum(|stream| stream.dropped),
        files,
        names,
        attempt,
        site: Site::Main,
        spool,
        target,
        sidecar,
        compat: false,
        call_id,
        is_recovered: true,
        entry: None,
        is_settled: false,
        prepared: None,
    }
}

fn is_stop(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<Stopped>)
}

/// Above 0 is below others.
const NICENESS: i32 = 10;
/// How many recovered recordings wait for the finisher, each with open files.
const WAITING_MAX: usize = 4;
const QUEUE_PERIOD: Duration = Duration::from_millis(10);
/// How long to wait until a folder is looked for again.
const RETRY_PERIOD: Duration = Duration::from_secs(1);
/// How deep folders below are looked into.
const DEPTH_MAX: usize = 16;
