//! Which recordings go, and how.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rtpproxy_core::time::Wall;

use super::survey::{Finished, Stamp};
use super::{Limits, Pace, Stopped};
use crate::io::is_open_elsewhere;
use crate::recorder::files::Folder;

/// What became of a round.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// How many recordings were removed because of their age.
    pub(super) too_old: u64,
    /// How many because all together took too much space.
    pub(super) over_quota: u64,
    /// What they took.
    pub(super) bytes: u64,
    /// How many had to go and are in use.
    pub(super) in_use: u64,
    /// How many had to go and have files that are not as the sidecar says.
    pub(super) changed: u64,
    /// Why the first of others could not be removed.
    pub(super) error: Option<String>,
    /// What all that is left takes.
    pub(super) kept_bytes: u64,
    /// The thread was told to end.
    pub(super) is_stopped: bool,
}

impl Outcome {
    /// What the operator should know, if the limits could not be kept.
    pub(super) fn complaint(&self, limits: &Limits) -> Option<String> {
        let mut reasons = Vec::new();
        if self.in_use > 0 {
            reasons.push(format!("{} old recordings are in use and stay", self.in_use));
        }
        if self.changed > 0 {
            let changed = self.changed;
            reasons.push(format!("{changed} old recordings are not as their sidecars say and stay"));
        }
        if let Some(error) = &self.error {
            reasons.push(format!("old recordings cannot be removed: {error}"));
        }
        if limits.quota_bytes.is_some_and(|quota| self.kept_bytes > quota) {
            reasons.push("recordings take more than the quota, and no other can go".to_owned());
        }
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

/// Removes what has to go from `recordings`, which are sorted by their ends; `written_bytes` are what those take
/// that have not ended.
pub(super) fn sweep<'a>(
    recordings: &[Finished<'a>],
    written_bytes: u64,
    limits: Limits,
    now: Wall,
    mut remove: impl FnMut(&Finished<'a>) -> Result<Removal, Stopped>,
) -> Outcome {
    let bytes: u64 = recordings.iter().map(|recording| recording.bytes).sum();
    let mut outcome = Outcome { kept_bytes: written_bytes + bytes, ..Outcome::default() };
    for recording in recordings {
        let is_too_old = limits
            .max_age
            .is_some_and(|max| u128::from(now.0.saturating_sub(recording.facts.ended.0)) > max.as_nanos());
        if !is_too_old && limits.quota_bytes.is_none_or(|quota| outcome.kept_bytes <= quota) {
            break;
        }
        match remove(recording) {
            Err(Stopped) => {
                outcome.is_stopped = true;
                break;
            }
            Ok(Removal::Done) => {
                outcome.kept_bytes -= recording.bytes;
                outcome.bytes += recording.bytes;
                *if is_too_old { &mut outcome.too_old } else { &mut outcome.over_quota } += 1;
            }
            // Another program was faster.
            Ok(Removal::Gone) => outcome.kept_bytes -= recording.bytes,
            Ok(Removal::InUse) => outcome.in_use += 1,
            Ok(Removal::Changed) => outcome.changed += 1,
            Ok(Removal::Failed(error)) => {
                outcome.error.get_or_insert(error);
            }
        }
    }
    outcome
}

/// What became of a recording that was to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// It is removed.
    Done,
    /// The sidecar is gone, or another one.
    Gone,
    /// One of its files is open or locked.
    InUse,
    /// One of its files is not what the sidecar describes.
    Changed,
    /// The disk refuses.
    Failed(String),
}

impl Finished<'_> {
    /// Removes its files, then its sidecar: what is interrupted can be gone on with. A folder that is empty then
    /// goes too.
    pub(super) fn remove(&self, roots: &[Folder], pace: &mut Pace<'_>) -> Result<Removal, Stopped> {
        pace.step(STEPS)?;
        let root = &roots[self.root];
        Ok(self.try_remove(roots).unwrap_or_else(|error| {
            Removal::Failed(format!("{}: {error}", root.path_of(self.sidecar.as_os_str()).display()))
        }))
    }

    fn try_remove(&self, roots: &[Folder]) -> io::Result<Removal> {
        let root = &roots[self.root];
        let path = self.sidecar.parent().unwrap_or(Path::new(""));
        let folder = root.descend(path)?;
        let sidecar = self.sidecar.file_name().unwrap_or_default();
        if folder.status(sidecar)?.as_ref().and_then(Stamp::of) != Some(self.stamp) {
            return Ok(Removal::Gone);
        }
        // Held until all is done, with their locks.
        let mut held = Vec::with_capacity(self.facts.files.len());
        for (name, len) in &self.facts.files {
            match folder.status(name)? {
                // Removed by hand, or when an earlier try was interrupted.
                None => continue,
                Some(status) if Stamp::of(&status).is_none_or(|stamp| stamp.len() != *len) => {
                    return Ok(Removal::Changed);
                }
                Some(_) => {}
            }
            let file = folder.read(name)?;
            if is_in_use(&file)? {
                return Ok(Removal::InUse);
            }
            held.push(file);
        }
        for (name, _) in &self.facts.files {
            folder.remove(name)?;
        }
        folder.remove(sidecar)?;
        // The folder of a day that has no recordings any more.
        let path: Vec<_> = path.iter().map(OsStr::to_owned).collect();
        // What is not empty stays, and what cannot be removed takes no space.
        let _ = root.remove_empty(&path, roots);
        Ok(Removal::Done)
    }
}

/// Whether another process, or another part of this one, has the file open.
fn is_in_use(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(true),
        // A file system without locks has none that are held.
        Err(TryLockError::Error(_)) | Ok(()) => {}
    }
    // Where the kernel cannot tell, locks alone decide: our recorder holds them.
    Ok(is_open_elsewhere(file.as_fd()).unwrap_or(false))
}

/// What a removal counts as: it makes the file system work.
const STEPS: u32 = 20;
