//! Journals: calls in folders of segments (docs/recording.md), found by the indexes in them.
//!
//! It does not matter whether a segment is finished, is being written, or was left by a relay that was killed.

mod check;
mod cut;
mod segment;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rtpproxy_core::command::{CallId, Tag};
use rtpproxy_core::file_name::FileName;
pub use rtpproxy_core::journal::Figures;
use rtpproxy_core::journal::{Member, is_segment};
use rtpproxy_core::time::Wall;

pub(crate) use self::check::IndexCheck;
pub use self::check::WrongIndex;
use self::segment::Segment;
use crate::unlock::Identities;

/// A call in a journal: all that was recorded of it with one tag of the caller.
#[derive(Clone, Debug)]
pub struct Call {
    /// The call.
    pub call_id: CallId,
    /// The tag the session was created with.
    pub from_tag: Tag,
    /// The other tag, if it is known.
    pub to_tag: Option<Tag>,
    /// When its recording was asked for.
    pub start: Wall,
    /// What there is of it; the end is that of its last recording.
    pub figures: Figures,
    /// When the last recording of it was asked for.
    last_start: Wall,
    /// The segments that tell of it, in their order.
    pub segments: Vec<PathBuf>,
}

impl Call {
    fn new(member: &Member) -> Self {
        Self {
            call_id: member.call_id.clone(),
            from_tag: member.from_tag.clone(),
            to_tag: None,
            start: member.start,
            figures: Figures::default(),
            last_start: member.start,
            segments: Vec::new(),
        }
    }

    fn is(&self, member: &Member) -> bool {
        (&self.call_id, &self.from_tag) == (&member.call_id, &member.from_tag)
    }
}

/// A segment that cannot be read, or not all of it, or a folder.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct JournalError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

/// Whether a path is that of a segment of a journal.
pub fn is_segment_path(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    is_segment(name) && FileName::parse(name).is_some_and(|name| name.has_packets())
}

/// The segments among `paths` and in the folders below them, in the order of their time. Symbolic links to folders are
/// followed only if they are named.
///
/// # Errors
///
/// When a folder cannot be read, or something does not exist.
pub fn segments(paths: &[PathBuf]) -> Result<Vec<PathBuf>, JournalError> {
    let mut found = Vec::new();
    let mut waiting = paths.to_vec();
    while let Some(path) = waiting.pop() {
        let failed = |error| JournalError { path: path.clone(), error };
        if !fs::metadata(&path).map_err(failed)?.is_dir() {
            found.push(path);
            continue;
        }
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_dir() {
                waiting.push(entry.path());
            } else if is_segment_path(&entry.path()) {
                found.push(entry.path());
            }
        }
    }
    found.sort_by(|a, b| a.file_name().cmp(&b.file_name()).then_with(|| a.cmp(b)));
    found.dedup();
    Ok(found)
}

/// The calls in `segments`, of which `wants` is true, by their ids. Encrypted segments are opened with `identities`. Those
/// that cannot be read, or not all of them, are given back with the reason.
pub fn calls(
    segments: &[PathBuf],
    identities: &Identities,
    wants: &dyn Fn(&CallId) -> bool,
    progress: &dyn Fn(),
) -> (Vec<Call>, Vec<JournalError>) {
    let mut calls: BTreeMap<(Vec<u8>, Vec<u8>), Call> = BTreeMap::new();
    let mut errors = Vec::new();
    for path in segments {
        progress();
        let opened =
            Segment::open(path, identities).and_then(|(segment, path)| Ok((segment.members()?, path)));
        let ((members, damage), path) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                errors.push(JournalError { path: path.clone(), error });
                continue;
            }
        };
        if let Some(damage) = damage {
            errors.push(JournalError { path: path.clone(), error: io::Error::other(damage) });
        }
        for (member, figures) in members.into_iter().filter(|(member, _)| wants(&member.call_id)) {
            let key = (member.call_id.as_bytes().to_vec(), member.from_tag.as_bytes().to_vec());
            let call = calls.entry(key).or_insert_with(|| Call::new(&member));
            call.start = call.start.min(member.start);
            if member.start > call.last_start {
                (call.last_start, call.figures.end) = (member.start, None);
            }
            let end = figures.end.filter(|_| member.start == call.last_start);
            call.figures = call.figures.plus(Figures { end, ..figures });
            call.to_tag = member.to_tag.or(call.to_tag.take());
            if call.segments.last() != Some(&path) {
                call.segments.push(path.clone());
            }
        }
    }
    (calls.into_values().collect(), errors)
}
