//! What recordings there are: sidecars with their files, and files without a sidecar.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rtpproxy_core::file_name::FileName;
use serde_json::Value;

use crate::recording::chain::Chain;

/// A recording as it lies on the disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// Its files with packets.
    pub files: Vec<PathBuf>,
    /// Its sidecar.
    pub sidecar: Sidecar,
    /// Of a long recording, what is missing before it, in words.
    pub missing: Option<String>,
    /// What should be after it.
    pub follows: Option<String>,
}

/// What there is to read beside a recording.
#[derive(Clone, Debug, PartialEq)]
pub enum Sidecar {
    /// None.
    Missing,
    /// Something that cannot be understood, and why.
    Broken(PathBuf, String),
    /// What it says.
    Read(PathBuf, Value),
}

impl Unit {
    /// What it is called in reports.
    pub fn path(&self) -> &Path {
        match (&self.files[..], &self.sidecar) {
            ([file, ..], _) => file,
            ([], Sidecar::Read(path, _) | Sidecar::Broken(path, _)) => path,
            ([], Sidecar::Missing) => Path::new(""),
        }
    }
}

/// The recordings that `paths` name: files, sidecars, or folders with all that is below them. A file of a long recording
/// stands for all of it, and each of its files is one here.
///
/// # Errors
///
/// When a path does not exist or a folder cannot be read.
pub fn survey(paths: &[PathBuf]) -> Result<Vec<Unit>, SurveyError> {
    let mut found = Found::default();
    for path in paths {
        found.add(path).map_err(|error| SurveyError { path: path.clone(), error })?;
    }
    Ok(found.units())
}

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct SurveyError {
    path: PathBuf,
    error: io::Error,
}

/// Whether a process holds the lock that a recorder has on what it writes.
///
/// # Errors
///
/// When the file cannot be opened.
pub fn is_being_written(path: &Path) -> io::Result<bool> {
    // The lock is let go at once, so that it keeps no relay from recovering the file.
    Ok(matches!(File::open(path)?.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The name of a file without the end that says it is not complete.
pub fn without_part(path: &Path) -> Option<PathBuf> {
    (path.extension() == Some(OsStr::new("part"))).then(|| path.with_extension(""))
}

/// The path of the sidecar of a file, whether it is there or not.
pub fn sidecar_of(path: &Path) -> PathBuf {
    match FileName::parse(path.file_name().unwrap_or_default().as_bytes()) {
        Some(name) => path.with_file_name(OsString::from_vec(name.sidecar().to_bytes())),
        None => without_part(path).unwrap_or_else(|| path.to_owned()).with_extension("json"),
    }
}

#[derive(Debug, Default)]
struct Found {
    sidecars: BTreeMap<PathBuf, Unit>,
    files: BTreeSet<PathBuf>,
}

impl Found {
    fn add(&mut self, path: &Path) -> io::Result<()> {
        if fs::metadata(path)?.is_dir() {
            return self.folder(path);
        }
        if path.extension() == Some(OsStr::new("json")) {
            self.sidecar(path);
            for file in files_of_sidecar(path).into_iter().flatten() {
                self.chain(&file)?;
            }
            return Ok(());
        }
        self.chain(path)?;
        self.file(path);
        Ok(())
    }

    /// Takes in the other files of a long recording.
    fn chain(&mut self, path: &Path) -> io::Result<()> {
        for path in Chain::of(path)?.into_iter().flat_map(|chain| chain.files.into_values()) {
            self.file(&path);
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) {
        let beside = sidecar_of(path);
        if beside.exists() {
            let unit = read_sidecar(&beside);
            if unit.as_ref().is_some_and(|unit| unit.files.iter().any(|file| file == path)) {
                self.sidecars.extend(unit.map(|unit| (beside, unit)));
                return;
            }
        }
        self.files.insert(path.to_owned());
    }

    fn folder(&mut self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.folder(&path)?;
            } else if kind.is_file() && path.extension() == Some(OsStr::new("json")) {
                self.sidecar(&path);
            } else if kind.is_file() && is_recording(&path) {
                self.files.insert(path);
            }
        }
        Ok(())
    }

    fn sidecar(&mut self, path: &Path) {
        self.sidecars.extend(read_sidecar(path).map(|unit| (path.to_owned(), unit)));
    }

    fn units(mut self) -> Vec<Unit> {
        for unit in self.sidecars.values() {
            for file in &unit.files {
                self.files.remove(file);
            }
        }
        let alone = self.files.into_iter().map(|file| Unit {
            files: vec![file],
            sidecar: Sidecar::Missing,
            missing: None,
            follows: None,
        });
        let mut units: Vec<_> = self.sidecars.into_values().chain(alone).collect();
        units.sort_by(|a, b| a.path().cmp(b.path()));
        let chains = Chain::all(units.iter().flat_map(|unit| &unit.files).cloned());
        let numbered = chains.iter().flat_map(|chain| chain.files.iter().map(move |file| (chain, file)));
        let mut missing: BTreeMap<PathBuf, _> = numbered
            .map(|(chain, (&number, path))| {
                (path.clone(), (chain.missing_before(number), chain.missing_after(number)))
            })
            .collect();
        for unit in &mut units {
            (unit.missing, unit.follows) = missing.remove(unit.path()).unwrap_or_default();
        }
        units
    }
}

/// The files that a sidecar names; none if it cannot be read.
pub(crate) fn files_of_sidecar(path: &Path) -> Option<Vec<PathBuf>> {
    read_sidecar(path).filter(|unit| matches!(unit.sidecar, Sidecar::Read(..))).map(|unit| unit.files)
}

/// A sidecar with the files it names; none if it is some other JSON.
fn read_sidecar(path: &Path) -> Option<Unit> {
    let broken = |reason: String| Unit {
        files: Vec::new(),
        sidecar: Sidecar::Broken(path.to_owned(), reason),
        missing: None,
        follows: None,
    };
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => return Some(broken(error.to_string())),
    };
    let value: Value = match serde_json::from_slice(&text) {
        Ok(value) => value,
        Err(error) => return Some(broken(error.to_string())),
    };
    let listed = value.get("version").and(value["files"].as_array())?;
    let Some(files) =
        listed.iter().map(|file| file_name(file).map(|name| path.with_file_name(name))).collect()
    else {
        return Some(broken("it names a file in a way that is not understood".to_owned()));
    };
    Some(Unit { files, sidecar: Sidecar::Read(path.to_owned(), value), missing: None, follows: None })
}

/// The name of a file in a sidecar, which must not lead to another folder.
fn file_name(file: &Value) -> Option<OsString> {
    let bytes = match file["name_hex"].as_str() {
        Some(hex) => unhex(hex)?,
        None => file["name"].as_str()?.as_bytes().to_vec(),
    };
    let name = OsStr::from_bytes(&bytes).to_owned();
    (Path::new(&name).file_name() == Some(&name)).then_some(name)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn is_recording(path: &Path) -> bool {
    let name = FileName::parse(path.file_name().unwrap_or_default().as_bytes());
    // A sidecar that has not got its name was not finished either.
    name.is_some_and(|name| name.has_packets() || name.is_part)
}
