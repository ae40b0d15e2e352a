//! Which recordings there are: a line for each, from the sidecars, and from the heads of files that have none.
//!
//! Nothing of a recording is kept but its [`Entry`], and of files without a sidecar only the first 64 KiB are
//! read, so that a hundred thousand recordings can be listed.

mod head;
mod sidecar;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use rtpproxy_core::file_name::{Content, FileName};
use rtpproxy_core::journal::is_segment;
use rtpproxy_core::time::Wall;
use serde::{Serialize, Serializer};

use crate::journal::{self, Call, Figures, JournalError, is_segment_path};
use crate::unlock::Identities;
use crate::verify::{is_being_written, without_part};

use crate::recording::chain::without_recovered;

/// What there is to say of a recording. What is not known is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Entry {
    /// Its first file; its sidecar if it has none.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// How it is.
    pub state: State,
    /// When the first packet came, or if there was none, when it was asked for.
    #[serde(serialize_with = "rfc3339")]
    pub start: Option<Wall>,
    /// From the first packet to the last; while it is being written, to the last write.
    #[serde(rename = "duration_s", serialize_with = "seconds")]
    pub duration: Option<Duration>,
    /// The call. Bytes that are not UTF-8 are replaced, in tags as well.
    pub call_id: Option<String>,
    /// The tag of the caller.
    pub from_tag: Option<String>,
    /// The tag of the callee.
    pub to_tag: Option<String>,
    /// Where the caller sends from.
    pub caller: Option<SocketAddr>,
    /// Where the callee sends from.
    pub callee: Option<SocketAddr>,
    /// How many packets are in the files.
    pub packets: Option<u64>,
    /// How many should be and are not.
    pub missing: Option<u64>,
    /// What its files take, without the sidecar, in bytes; in a journal the payloads of its packets.
    pub size: u64,
    /// Why it ended.
    pub ended: Option<String>,
    /// Which file of a long recording it is, from 1.
    pub part: Option<u32>,
    /// What is wrong with it.
    pub error: Option<String>,
}

/// How a recording is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is complete.
    #[default]
    Finished,
    /// A relay writes it now.
    Running,
    /// Its relay ended before it did: what it holds ends there.
    Interrupted,
    /// Something is wrong with it.
    Damaged,
}

impl State {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Damaged => "damaged",
        }
    }
}

/// The recordings in `folders` and below, of which `wants` is true, sorted by their start; those whose start nobody
/// knows come last. Symbolic links are followed only to the `folders` themselves.
///
/// `identities` open encrypted journals; nothing else that is encrypted is read. `progress` is told of each recording. Folders that cannot be read are left out, and given back with the reason.
pub fn list(
    folders: &[PathBuf],
    identities: &Identities,
    wants: &dyn Fn(&Entry) -> bool,
    progress: &dyn Fn(),
) -> (Vec<Entry>, Vec<ListError>) {
    let mut listing = Listing { entries: Vec::new(), errors: Vec::new(), identities, wants, progress };
    let mut waiting = folders.to_vec();
    while let Some(path) = waiting.pop() {
        match listing.folder(&path) {
            Ok(below) => waiting.extend(below),
            Err(error) => listing.errors.push(ListError { path, error }),
        }
    }
    listing.entries.sort_by(|a, b| {
        let key = |entry: &Entry| (entry.start.is_none(), entry.start);
        key(a).cmp(&key(b)).then_with(|| a.path.cmp(&b.path))
    });
    (listing.entries, listing.errors)
}

/// A folder that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct ListError {
    path: PathBuf,
    error: io::Error,
}

struct Listing<'a> {
    entries: Vec<Entry>,
    errors: Vec<ListError>,
    identities: &'a Identities,
    wants: &'a dyn Fn(&Entry) -> bool,
    progress: &'a dyn Fn(),
}

impl Listing<'_> {
    /// Takes in the recordings of a folder; gives back the folders in it.
    fn folder(&mut self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let Names { below, sidecars, mut files, segments } = Names::of(path)?;
        self.journal(&segments);
        let numbers = Numbers::of(&files);
        // By their names.
        let mut broken: BTreeMap<OsString, _> = BTreeMap::new();
        for name in sidecars {
            match sidecar::read(path, &name) {
                Ok(Some(mut read)) => {
                    if let Some(error) = numbers.missing(&read) {
                        read.entry.error.get_or_insert(error);
                    }
                    for file in read.files {
                        files.remove(&file);
                    }
                    self.add(read.entry);
                }
                Ok(None) => {}
                Err(error) => {
                    broken.insert(name, error);
                }
            }
        }
        for path_name in &files {
            let Some(name) = FileName::parse(path_name.as_bytes()) else { continue };
            let of_content = |content| OsString::from_vec(FileName { content, ..name }.to_bytes());
            if name.content == Content::Rtcp && files.contains(&of_content(Content::Rtp)) {
                continue;
            }
            let mut entry = head::read(&path.join(path_name), &name);
            // What it follows may be in another folder, as it is not finished.
            entry.part = name.number;
            if name.content == Content::Rtp {
                let rtcp = path.join(of_content(Content::Rtcp));
                entry.size += fs::symlink_metadata(rtcp).map_or(0, |metadata| metadata.len());
            }
            if let Some(error) = broken.remove(OsStr::from_bytes(&name.sidecar().to_bytes())) {
                entry.state = State::Damaged;
                entry.error.get_or_insert(format!("its sidecar cannot be read: {error}"));
            }
            self.add(entry);
        }
        for (name, error) in broken {
            let error = Some(format!("it cannot be read: {error}"));
            self.add(Entry { path: path.join(name), state: State::Damaged, error, ..Entry::default() });
        }
        Ok(below)
    }

    /// Takes in the calls of segments, each once.
    fn journal(&mut self, segments: &[PathBuf]) {
        let (calls, errors) = journal::calls(segments, self.identities, &|_| true, &|| {});
        calls.iter().for_each(|call| self.add(of_journal(call)));
        for JournalError { path, error } in errors {
            let error = Some(error.to_string());
            self.add(Entry { path, state: State::Damaged, error, ..Entry::default() });
        }
    }

    fn add(&mut self, entry: Entry) {
        (self.progress)();
        if (self.wants)(&entry) {
            self.entries.push(entry);
        }
    }
}

/// The numbers that the files of long recordings have, by what else is in their names.
struct Numbers(BTreeMap<Vec<u8>, BTreeSet<u32>>);

impl Numbers {
    fn of(files: &BTreeSet<OsString>) -> Self {
        let mut numbers: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for file in files {
            if let Some((key, number)) = numbered(file) {
                numbers.entry(key).or_default().insert(number);
            }
        }
        Self(numbers)
    }

    /// What is not there beside the files of a sidecar.
    fn missing(&self, read: &sidecar::Read) -> Option<String> {
        let (key, number) = numbered(read.files.first()?)?;
        // Without one, somebody's tag looks like a number.
        read.entry.part?;
        let has = |number| self.0.get(&key).is_some_and(|numbers| numbers.contains(&number));
        let is_first = number == 1 || read.has_moved_in;
        if !is_first && !has(number - 1) {
            return Some(format!("part {} of the recording is missing", number - 1));
        }
        let text = "of the recording is missing, unless it is still being written elsewhere";
        (read.goes_on_here && !has(number + 1)).then(|| format!("part {} {text}", number + 1))
    }
}

fn numbered(file: &OsStr) -> Option<(Vec<u8>, u32)> {
    let name = FileName::parse(file.as_bytes())?;
    let number = name.number?;
    let name = FileName { stem: without_recovered(name.stem), number: None, ..name.plain() };
    Some((name.to_bytes(), number))
}

/// What a folder holds.
#[derive(Default)]
struct Names {
    below: Vec<PathBuf>,
    sidecars: Vec<OsString>,
    /// What may be recordings.
    files: BTreeSet<OsString>,
    /// Of journals, in the order of their time.
    segments: Vec<PathBuf>,
}

impl Names {
    fn of(folder: &Path) -> io::Result<Self> {
        let mut names = Self::default();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (kind, name) = (entry.file_type()?, entry.file_name());
            if kind.is_dir() {
                names.below.push(entry.path());
            }
            if is_segment(name.as_bytes()) {
                names.segments.extend(Some(entry.path()).filter(|path| is_segment_path(path)));
                continue;
            }
            match FileName::parse(name.as_bytes()).filter(|_| kind.is_file()) {
                Some(parsed) if parsed.has_packets() => _ = names.files.insert(name),
                Some(parsed) if !parsed.is_part => names.sidecars.push(name),
                Some(_) | None => {}
            }
        }
        names.segments.sort();
        Ok(names)
    }
}

/// A call in segments of a journal. While its last one is being written it counts as running, unless that says that it
/// has ended.
fn of_journal(call: &Call) -> Entry {
    let path = call.segments.last().cloned().unwrap_or_default();
    let (is_part, is_recovered) = (without_part(&path).is_some(), is_recovered(&path));
    let state = match is_being_written(&path) {
        _ if call.figures.end.is_some() => State::Finished,
        Ok(true) => State::Running,
        _ if is_part || is_recovered => State::Interrupted,
        _ => State::Finished,
    };
    let text = |id: &[u8]| Some(String::from_utf8_lossy(id).into_owned());
    let Figures { packets, bytes, dropped, first, last, parties: [caller, callee], end } = call.figures;
    Entry {
        path,
        state,
        start: first.or(Some(call.start)),
        duration: first.zip(last).map(|(first, last)| Duration::from_nanos(last.0.saturating_sub(first.0))),
        call_id: text(call.call_id.as_bytes()),
        from_tag: text(call.from_tag.as_bytes()),
        to_tag: call.to_tag.as_ref().and_then(|tag| text(tag.as_bytes())),
        caller,
        callee,
        packets: Some(packets),
        missing: Some(dropped),
        size: bytes,
        ended: end.map(|reason| reason.name().to_owned()),
        ..Entry::default()
    }
}

fn is_recovered(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    FileName::parse(name).is_some_and(|name| name.stem.ends_with(b".recovered"))
}

fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

fn rfc3339<S: Serializer>(at: &Option<Wall>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(time_text).serialize(serializer)
}

fn seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

/// A time in UTC as the sidecars have it.
pub fn time_text(at: Wall) -> String {
    let nanos = i64::try_from(at.0).unwrap_or(i64::MAX);
    DateTime::from_timestamp_nanos(nanos).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

#[cfg(test)]
mod tests;
