//! Giving the files of a recording their names, and the sidecar its name last.
//!
//! The sidecar is written and synced before, as `NAME.json.part`. It says which files there will be, and by their
//! digests recovery knows them under any name: whenever the process is killed, the next one can go on.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use rtpproxy_core::file_name::{Compression, FileName};
use sha2::{Digest, Sha256};

use super::super::claim::is_taken;
use super::super::files::{Folder, file_mode, part_name};
use super::super::sidecar::{FileFacts, hex, hex_unless_utf8};
use super::{Closed, Job};

/// A sidecar that waits until the files have their names.
#[derive(Debug)]
pub(in crate::recorder) struct Prepared {
    /// It is locked: nobody takes it for a leftover.
    _lock: File,
    name: OsString,
}

impl Prepared {
    fn part(&self) -> OsString {
        part_name(&self.name)
    }
}

/// Gives each file its name. May be called again after an error.
pub(super) fn name_files(job: &mut Job) -> io::Result<()> {
    if !Arc::ptr_eq(&job.spool, &job.target) {
        // Empty since the start of the recording, the folder may have been removed.
        job.target = job.target.renewed()?;
    }
    for closed in job.files.iter_mut().filter(|closed| closed.seal.is_some()) {
        // It was closed behind what its writer has hashed.
        closed.sha256 = Some(digest_of(job.spool.read(&closed.part)?)?);
        closed.seal = None;
    }
    if job.compat {
        return name_like_c(job);
    }
    if job.prepared.is_none() {
        job.prepared = Some(prepare(job)?);
    }
    remove_sources(job)?;
    loop {
        match name_all(job) {
            // Somebody else put a file there while we recorded.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => prepare_again(job)?,
            outcome => return outcome,
        }
    }
}

/// Gives the sidecar its name, which is the last thing that appears of a recording; none with the names of the C
/// program. May be called again after an error.
pub(super) fn name_sidecar(job: &mut Job) -> io::Result<Option<PathBuf>> {
    if job.compat {
        return Ok(None);
    }
    loop {
        let prepared = match job.prepared.take() {
            Some(prepared) if job.target.has(&prepared.part())? => prepared,
            // Somebody has removed it.
            _ => prepare(job)?,
        };
        let (part, name) = (prepared.part(), prepared.name.clone());
        job.prepared = Some(prepared);
        match job.target.rename(&part, &job.target, &name, false) {
            Ok(()) => {
                job.prepared = None;
                return Ok(Some(job.target.path_of(&name)));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => prepare_again(job)?,
            Err(error) => return Err(error),
        }
    }
}

/// The SHA-256 of what `file` gives, in hexadecimal.
pub(in crate::recorder) fn digest_of(mut file: impl Read) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&digest.finalize())),
            read => digest.update(&buffer[..read]),
        }
    }
}

/// Gives `part` in `from` its `name` in `to`, which may be on another file system: there it appears complete or not at
/// all. `replace` what is there, or fail with [`io::ErrorKind::AlreadyExists`].
pub(in crate::recorder) fn move_file(
    from: &Folder,
    part: &OsStr,
    to: &Folder,
    name: &OsStr,
    replace: bool,
) -> io::Result<()> {
    match from.rename(part, to, name, replace) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        outcome => return outcome,
    }
    let temporary = part_name(name);
    let mut source = from.read(part)?;
    let mut copy = to.create(&temporary, file_mode(replace))?;
    let copied = io::copy(&mut source, &mut copy)
        .and_then(|_| copy.sync_data())
        .and_then(|()| to.rename(&temporary, to, name, replace));
    if copied.is_err() {
        // The first error tells more than one of cleaning up.
        let _ = to.remove(&temporary);
        return copied;
    }
    from.remove(part)
}

/// Writes the sidecar under the name that it has until all is done, and takes the next names if these are not free.
fn prepare(job: &mut Job) -> io::Result<Prepared> {
    loop {
        match write_sidecar(job) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => job.attempt = next_free(job)?,
            outcome => return outcome,
        }
    }
}

/// Writes it for the next free names, and removes the one before.
fn prepare_again(job: &mut Job) -> io::Result<()> {
    job.attempt = next_free(job)?;
    let before = job.prepared.take();
    job.prepared = Some(prepare(job)?);
    before.map_or(Ok(()), |before| job.target.remove(&before.part()))
}

fn write_sidecar(job: &Job) -> io::Result<Prepared> {
    let mut sidecar = job.sidecar.clone();
    sidecar.files = (0..job.files.len()).map(|index| facts(job, index)).collect();
    let mut text = serde_json::to_vec_pretty(&sidecar)?;
    text.push(b'\n');
    let name = job.names.sidecar(job.attempt);
    if job.target.has(&name)? {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let part = part_name(&name);
    let mut file = job.target.create(&part, file_mode(false))?;
    if let Err(error) = file.write_all(&text).and_then(|()| file.sync_data()) {
        // The first error tells more than one of cleaning up.
        let _ = job.target.remove(&part);
        return Err(error);
    }
    Ok(Prepared { _lock: file, name })
}

/// Removes what was converted.
fn remove_sources(job: &mut Job) -> io::Result<()> {
    for closed in &mut job.files {
        let Some(source) = &closed.source else { continue };
        source.folder.remove(&source.part)?;
        if !Arc::ptr_eq(&source.folder, &job.target) {
            source.folder.remove_if_empty();
        }
        closed.source = None;
    }
    Ok(())
}

fn name_all(job: &mut Job) -> io::Result<()> {
    for index in 0..job.files.len() {
        if job.files[index].is_named {
            continue;
        }
        let name = job.name(index, job.attempt);
        move_file(&job.spool, &job.files[index].part, &job.target, &name, false)?;
        job.files[index].is_now(name);
    }
    Ok(())
}

fn name_like_c(job: &mut Job) -> io::Result<()> {
    let is_in_place = Arc::ptr_eq(&job.spool, &job.target);
    for index in 0..job.files.len() {
        if job.files[index].is_named {
            continue;
        }
        let mut name = job.files[index].part.clone();
        if !is_in_place {
            name = job.name(index, 1);
            move_file(&job.spool, &job.files[index].part, &job.target, &name, true)?;
        }
        job.files[index].is_now(name);
    }
    Ok(())
}

/// The next names that nobody has.
fn next_free(job: &Job) -> io::Result<u32> {
    for attempt in job.attempt + 1..=*job.names.attempts().end() {
        if !is_taken(&job.names, attempt, &job.target)? {
            return Ok(attempt);
        }
    }
    Err(io::Error::other("all names for the recording are taken"))
}

impl Closed {
    /// It has got its name.
    fn is_now(&mut self, name: OsString) {
        (self.part, self.is_named, self.file) = (name, true, None);
    }
}

fn facts(job: &Job, index: usize) -> FileFacts {
    let file = &job.files[index];
    let name = if file.is_named { file.part.clone() } else { job.name(index, job.attempt) };
    FileFacts {
        name: name.to_string_lossy().into_owned(),
        name_hex: hex_unless_utf8(name.as_bytes()),
        size: file.len,
        sha256: file.sha256.clone().unwrap_or_default(),
        compression: file.content.and_then(|content| content.compression).map(Compression::name),
        content_size: file.content.map(|content| content.len),
        encryption: encryption_of(&name),
    }
}

fn encryption_of(name: &OsStr) -> Option<&'static str> {
    Some(FileName::parse(name.as_bytes())?.encryption?.name())
}
