//! Recordings that were getting their names when their process ended: the sidecar is written, and has no name yet.
//!
//! It tells which files there are to be. Those that have not got their names are known by what is in them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rtpproxy_core::file_name::{FileName, PART};
use rustix::fs::{FileType, Stat};
use serde::Deserialize;
use tracing::{info, warn};

use super::claim::ORIGINALS;
use super::files::{Folder, part_name};
use super::finish::{digest_of, move_file};
use super::sidecar::unhex;

/// Gives the files of a recording and then its sidecar their names, unless its process lives. `part` is the sidecar, in
/// `folder`; the files are there or in `spool`.
///
/// A sidecar that is torn, or whose files are not there, is removed: what is left of them is a leftover like others.
///
/// # Errors
///
/// When the disk refuses.
pub(super) fn resume(folder: &Folder, spool: Option<&Folder>, part: &OsStr) -> io::Result<()> {
    let Some(mut sidecar) = folder.take_over(part)? else { return Ok(()) };
    let mut text = Vec::new();
    sidecar.by_ref().take(SIDECAR_MAX).read_to_end(&mut text)?;
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(&text) else {
        warn!(file = %folder.path_of(part).display(), "a sidecar that was not written to its end is removed");
        return folder.remove(part);
    };
    let files = match Described::deserialize(json) {
        Ok(Described { version: 1, files }) if !files.is_empty() => files,
        // It is somebody else's.
        _ => return Ok(()),
    };
    let name = part.as_bytes().strip_suffix(PART.as_bytes()).unwrap_or_default();
    let name = OsString::from_vec(name.to_vec());
    let found = files.iter().map(|file| file.find(folder, spool)).collect::<io::Result<Vec<_>>>()?;
    let has_named = found.iter().any(|found| found.is_named);
    let has_all = found.iter().all(|found| found.is_named || !found.parts.is_empty());
    if folder.has(&name)? || !(has_named || has_all) {
        warn!(file = %folder.path_of(part).display(), "a sidecar whose files are not there is removed");
        return folder.remove(part);
    }
    for (file, found) in files.iter().zip(found) {
        file.settle(found, folder, spool)?;
    }
    sidecar.sync_data()?;
    folder.rename(part, folder, &name, false)?;
    info!(file = %folder.path_of(&name).display(), "sidecar recovered");
    folder.sync()
}

/// What a sidecar says that matters here.
#[derive(Deserialize)]
struct Described {
    version: u32,
    files: Vec<FileDescribed>,
}

#[derive(Deserialize)]
struct FileDescribed {
    name: String,
    name_hex: Option<String>,
    size: u64,
    sha256: String,
}

/// Where a file is.
struct Found<'a> {
    /// It has its name.
    is_named: bool,
    /// The same under names that it had before: it was moved from one file system to another.
    parts: Vec<Part<'a>>,
}

/// A file without its last name, which is locked.
struct Part<'a> {
    folder: &'a Folder,
    part: OsString,
    lock: File,
}

impl FileDescribed {
    fn name(&self) -> io::Result<OsString> {
        let bytes = match &self.name_hex {
            Some(hex) => unhex(hex),
            None => Some(self.name.clone().into_bytes()),
        };
        let is_ours = |name: &[u8]| {
            !name.contains(&b'/')
                && FileName::parse(name).is_some_and(|name| name.has_packets() && !name.is_part)
        };
        let name = bytes.filter(|name| is_ours(name)).map(OsString::from_vec);
        name.ok_or_else(|| io::Error::other(format!("{} is no name of a recording", self.name)))
    }

    fn find<'a>(&self, folder: &'a Folder, spool: Option<&'a Folder>) -> io::Result<Found<'a>> {
        let is_named = match folder.status(&self.name()?)? {
            Some(status) if self.has_size_of(&status) => true,
            Some(_) => return Ok(Found { is_named: false, parts: Vec::new() }),
            None => false,
        };
        let folders = [Some(folder), spool].into_iter().flatten();
        let parts =
            folders.filter_map(|folder| self.part_in(folder).transpose()).collect::<io::Result<_>>()?;
        Ok(Found { is_named, parts })
    }

    /// The file under the name of one that is not complete.
    fn part_in<'a>(&self, folder: &'a Folder) -> io::Result<Option<Part<'a>>> {
        for part in folder.contents()?.parts {
            let is_file = FileName::parse(part.as_bytes()).is_some_and(|name| name.has_packets());
            if !is_file || !folder.status(&part)?.is_some_and(|status| self.has_size_of(&status)) {
                continue;
            }
            let Some(file) = folder.take_over(&part)? else { continue };
            if digest_of(&file)? == self.sha256 {
                return Ok(Some(Part { folder, part, lock: file }));
            }
        }
        Ok(None)
    }

    fn has_size_of(&self, status: &Stat) -> bool {
        FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
            && u64::try_from(status.st_size) == Ok(self.size)
    }

    /// Gives it its name, and removes what it was made of.
    fn settle(&self, found: Found<'_>, folder: &Folder, spool: Option<&Folder>) -> io::Result<()> {
        let mut parts = found.parts.into_iter().peekable();
        if let Some(waiting) = parts.next_if(|_| !found.is_named) {
            for folder in [Some(folder), spool].into_iter().flatten() {
                remove_source(&waiting.part, folder)?;
            }
            let name = self.name()?;
            if !std::ptr::eq(waiting.folder, folder) {
                remove_beginning(folder, &part_name(&name), &waiting)?;
            }
            waiting.lock.sync_data()?;
            move_file(waiting.folder, &waiting.part, folder, &name, false)?;
        }
        parts.try_for_each(|copy| copy.folder.remove(&copy.part))
    }
}

/// Removes the file of which `part` was made, if it was.
fn remove_source(part: &OsStr, folder: &Folder) -> io::Result<()> {
    let Some(name) = FileName::parse(part.as_bytes()) else { return Ok(()) };
    if ORIGINALS.contains(&(name.compression, name.encryption)) {
        return Ok(());
    }
    for (compression, encryption) in ORIGINALS {
        let source = OsString::from_vec(FileName { compression, encryption, ..name }.to_bytes());
        if folder.has(&source)? && folder.take_over(&source)?.is_some() {
            folder.remove(&source)?;
        }
    }
    Ok(())
}

/// Removes a copy of a file that was not written to its end.
fn remove_beginning(folder: &Folder, part: &OsStr, whole: &Part<'_>) -> io::Result<()> {
    if !folder.has(part)? {
        return Ok(());
    }
    let Some(mut copy) = folder.take_over(part)? else { return Ok(()) };
    let mut whole = whole.folder.read(&whole.part)?;
    let (mut ours, mut theirs) = (vec![0; BUFFER_LEN], vec![0; BUFFER_LEN]);
    copy.rewind()?;
    loop {
        let read = copy.read(&mut ours)?;
        if read == 0 {
            return folder.remove(part);
        }
        match whole.read_exact(&mut theirs[..read]) {
            Ok(()) if ours[..read] == theirs[..read] => {}
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Longer ones are not ours, in bytes.
const SIDECAR_MAX: u64 = 16 << 20;
const BUFFER_LEN: usize = 64 << 10;
