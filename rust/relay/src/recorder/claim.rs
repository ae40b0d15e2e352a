//! Names for the files of a new recording that nobody else has.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rtpproxy_core::file_name::{Compression, Encryption, FileName};

use super::files::{Folder, file_mode};
use super::names::Names;

/// Files with the names they have while they are written.
pub(super) type Files = Vec<(File, OsString)>;

/// Creates the files of a recording under the first names that nobody has; says which.
pub(super) fn create_first_free(names: &Names, target: &Folder, spool: &Folder) -> io::Result<(Files, u32)> {
    for attempt in names.attempts() {
        if is_taken(names, attempt, target)? || has_parts(names, attempt, spool)? {
            continue;
        }
        match create_parts(names, attempt, spool) {
            Ok(files) => return Ok((files, attempt)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "all names for the recording are taken"))
}

/// The C program truncates what is there; a new file in its place looks the same, but keeps a recording
/// apart that is still being written under that name.
pub(super) fn replace_all(names: &Names, _: &Folder, spool: &Folder) -> io::Result<(Files, u32)> {
    let mut files = Vec::with_capacity(names.files());
    for index in 0..names.files() {
        let name = names.file(index, 1);
        spool.remove(&name)?;
        files.push((spool.create(&name, file_mode(true))?, name));
    }
    Ok((files, 1))
}

/// Whether a recording in `target` has a name already, in whatever state it is: one that a crash has left must be
/// recovered apart from others.
pub(super) fn is_taken(names: &Names, attempt: u32, target: &Folder) -> io::Result<bool> {
    for index in 0..names.files() {
        if target.has(&names.file(index, attempt))?
            || has_any(names.file(index, attempt), [false, true], target)?
        {
            return Ok(true);
        }
    }
    target.has(&names.sidecar(attempt))
}

/// Whether a crash has left files of that name where recordings are written.
fn has_parts(names: &Names, attempt: u32, spool: &Folder) -> io::Result<bool> {
    for index in 0..names.files() {
        if has_any(names.file(index, attempt), [true], spool)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_any(file: OsString, is_part: impl IntoIterator<Item = bool>, folder: &Folder) -> io::Result<bool> {
    let Some(name) = FileName::parse(file.as_bytes()) else { return Ok(false) };
    for is_part in is_part {
        for (compression, encryption) in ORIGINALS.into_iter().chain(CONVERSIONS) {
            let name = FileName { compression, encryption, is_part, ..name };
            if folder.has(&OsString::from_vec(name.to_bytes()))? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn create_parts(names: &Names, attempt: u32, spool: &Folder) -> io::Result<Files> {
    let mut files: Vec<(File, OsString)> = Vec::with_capacity(names.files());
    for index in 0..names.files() {
        let part = names.part_file(index, attempt);
        match spool.create(&part, file_mode(false)) {
            Ok(file) => files.push((file, part)),
            Err(error) => {
                for (_, part) in files {
                    spool.remove(&part)?;
                }
                return Err(error);
            }
        }
    }
    Ok(files)
}

/// What files are converted to.
pub(super) const CONVERSIONS: [(Option<Compression>, Option<Encryption>); 5] = [
    (Some(Compression::Zstd), None),
    (Some(Compression::Gzip), None),
    (None, Some(Encryption::Age)),
    (Some(Compression::Zstd), Some(Encryption::Age)),
    (Some(Compression::Gzip), Some(Encryption::Age)),
];
/// What files are written as.
pub(super) const ORIGINALS: [(Option<Compression>, Option<Encryption>); 2] =
    [(None, None), (None, Some(Encryption::Sealed))];
