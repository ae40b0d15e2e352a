//! Which finished recordings there are in the folders and below them, and how much space they take.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use chrono::DateTime;
use rtpproxy_core::file_name::FileName;
use rtpproxy_core::time::Wall;
use rustix::fs::{FileType, Stat};
use serde::Deserialize;

use super::{Pace, Stopped};
use crate::recorder::files::Folder;
use crate::recorder::sidecar::unhex;

/// What the last look at the folders has found.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Every file that may be a sidecar, by the number of its folder and its path in that.
    files: BTreeMap<(usize, PathBuf), Seen>,
    /// What recordings take that are not finished.
    written_bytes: u64,
}

impl Survey {
    /// Looks anew. Sidecars are read only if they are not the same as before.
    ///
    /// What cannot be read is left out: it is not known to be a recording.
    pub(super) fn renew(&mut self, roots: &[Folder], pace: &mut Pace<'_>) -> Result<(), Stopped> {
        let mut walk = Walk { before: std::mem::take(&mut self.files), now: Self::default() };
        for (number, root) in roots.iter().enumerate() {
            let mut folders = vec![(PathBuf::new(), 0)];
            while let Some((path, depth)) = folders.pop() {
                let Ok(folder) = root.descend(&path) else { continue };
                for below in walk.folder(&folder, (number, &path), pace)? {
                    if depth < DEPTH_MAX {
                        folders.push((below, depth + 1));
                    }
                }
            }
        }
        *self = walk.now;
        Ok(())
    }

    /// The finished recordings, in the order in which they ended.
    pub(super) fn oldest_first(&self) -> Vec<Finished<'_>> {
        let finished = self.files.iter().filter_map(|((root, sidecar), seen)| {
            let facts = seen.facts.as_ref()?;
            Some(Finished { root: *root, sidecar, stamp: seen.stamp, facts, bytes: seen.bytes })
        });
        let mut finished: Vec<_> = finished.collect();
        finished.sort_by_key(|recording| (recording.facts.ended, recording.root, recording.sidecar));
        finished
    }

    /// The bytes of files that are not finished.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }
}

/// A finished recording.
#[derive(Clone, Debug)]
pub(super) struct Finished<'a> {
    /// The number of the folder it is in.
    pub(super) root: usize,
    /// The path of its sidecar in that.
    pub(super) sidecar: &'a Path,
    /// By which the sidecar is recognised.
    pub(super) stamp: Stamp,
    pub(super) facts: &'a Facts,
    /// What its files take, the sidecar among them.
    pub(super) bytes: u64,
}

/// What a sidecar says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) ended: Wall,
    /// The names and lengths of its files, in the folder of the sidecar.
    pub(super) files: Box<[(OsString, u64)]>,
}

impl Facts {
    /// Those in a text; `None` if it is no sidecar of ours, or names what cannot be a recording.
    fn parse(text: &[u8], changed: Wall) -> Option<Self> {
        let sidecar: Sidecar = serde_json::from_slice(text).ok()?;
        let is_ours = sidecar.version == 1 && FORMATS.contains(&sidecar.format.as_str());
        if !is_ours || sidecar.files.is_empty() {
            return None;
        }
        let ended = match sidecar.ended.at {
            Some(at) => u64::try_from(DateTime::parse_from_rfc3339(&at).ok()?.timestamp_nanos_opt()?).ok()?,
            // Recovered after a crash, without a packet in it.
            None => changed.0,
        };
        let files = sidecar.files.into_iter().map(|file| {
            let name = match &file.name_hex {
                Some(hex) => OsString::from_vec(unhex(hex)?),
                None => OsString::from(file.name),
            };
            is_name_of_recording(&name).then_some((name, file.size))
        });
        Some(Self { ended: Wall(ended), files: files.collect::<Option<_>>()? })
    }
}

/// What tells whether a file is still the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    len: u64,
    changed: Wall,
}

impl Stamp {
    /// The length of the file in bytes.
    pub(super) fn len(self) -> u64 {
        self.len
    }

    /// That of a regular file; `None` of anything else.
    pub(super) fn of(status: &Stat) -> Option<Self> {
        let is_file = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
        let seconds = u64::try_from(status.st_mtime).unwrap_or(0);
        let changed = Wall(seconds.saturating_mul(1_000_000_000).saturating_add(status.st_mtime_nsec));
        is_file.then_some(Self { inode: status.st_ino, len: status.st_size as u64, changed })
    }
}

#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    /// `None` if it is no sidecar of ours.
    facts: Option<Facts>,
    bytes: u64,
}

struct Walk {
    before: BTreeMap<(usize, PathBuf), Seen>,
    now: Survey,
}

impl Walk {
    /// Looks at what is in `folder`; gives back the folders in it.
    fn folder(
        &mut self,
        folder: &Folder,
        (root, path): (usize, &Path),
        pace: &mut Pace<'_>,
    ) -> Result<Vec<PathBuf>, Stopped> {
        let mut below = Vec::new();
        let Ok(entries) = folder.entries() else { return Ok(below) };
        for entry in entries {
            pace.step(1)?;
            let Ok(entry) = entry else { break };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if folder.is_folder(name, entry.file_type()) {
                below.push(path.join(name));
            } else if is_part(name) {
                self.now.written_bytes += stamp(folder, name, pace)?.map_or(0, |stamp| stamp.len);
            } else if is_sidecar(name) {
                self.sidecar(folder, (root, path.join(name)), pace)?;
            }
        }
        Ok(below)
    }

    fn sidecar(
        &mut self,
        folder: &Folder,
        key: (usize, PathBuf),
        pace: &mut Pace<'_>,
    ) -> Result<(), Stopped> {
        let name = key.1.file_name().unwrap_or_default();
        let Some(stamp) = stamp(folder, name, pace)? else { return Ok(()) };
        let facts = match self.before.remove(&key) {
            Some(seen) if seen.stamp == stamp => seen.facts,
            _ => {
                pace.step(1)?;
                read(folder, name, stamp)
            }
        };
        let mut bytes = stamp.len;
        for (name, _) in facts.iter().flat_map(|facts| &facts.files) {
            bytes += self::stamp(folder, name, pace)?.map_or(0, |stamp| stamp.len);
        }
        self.now.files.insert(key, Seen { stamp, facts, bytes });
        Ok(())
    }
}

fn stamp(folder: &Folder, name: &OsStr, pace: &mut Pace<'_>) -> Result<Option<Stamp>, Stopped> {
    pace.step(1)?;
    Ok(folder.status(name).ok().flatten().as_ref().and_then(Stamp::of))
}

fn read(folder: &Folder, name: &OsStr, stamp: Stamp) -> Option<Facts> {
    if stamp.len > SIDECAR_MAX {
        return None;
    }
    let mut text = Vec::new();
    folder.read(name).ok()?.take(SIDECAR_MAX).read_to_end(&mut text).ok()?;
    Facts::parse(&text, stamp.changed)
}

/// Whether a sidecar may name this: a file beside it that is complete, with packets.
fn is_name_of_recording(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty()
        && !bytes.starts_with(b".")
        && !bytes.iter().any(|byte| matches!(byte, b'/' | 0))
        && FileName::parse(bytes).is_some_and(|name| name.has_packets() && !name.is_part)
}

/// Whether a name is that of a recording that is being written.
fn is_part(name: &OsStr) -> bool {
    FileName::parse(name.as_bytes()).is_some_and(|name| name.has_packets() && name.is_part)
}

fn is_sidecar(name: &OsStr) -> bool {
    FileName::parse(name.as_bytes()).is_some_and(|name| !name.has_packets() && !name.is_part)
}

/// The fields of a sidecar that matter here. All of them have to be there.
#[derive(Deserialize)]
struct Sidecar {
    version: u32,
    format: String,
    files: Vec<FileFacts>,
    ended: Ended,
    /// Null if they could not be counted.
    #[serde(rename = "packets", deserialize_with = "Option::deserialize")]
    _packets: Option<u64>,
}

#[derive(Deserialize)]
struct FileFacts {
    name: String,
    name_hex: Option<String>,
    size: u64,
    #[serde(rename = "sha256")]
    _sha256: String,
}

#[derive(Deserialize)]
struct Ended {
    at: Option<String>,
    #[serde(rename = "reason")]
    _reason: String,
}

const FORMATS: [&str; 4] = ["pcapng", "pcap", "adhoc", "journal"];
/// The longest sidecar, in bytes: 256 gaps, pauses and marks take less than a tenth of it.
const SIDECAR_MAX: u64 = 1 << 20;
/// How deep folders below are looked into.
const DEPTH_MAX: u32 = 16;
