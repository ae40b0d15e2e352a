//! Finding the files of recordings by their names (docs/recording-files.md).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rtpproxy_core::file_name::{Compression, Content, FileName, PART};
use rtpproxy_core::recording::Leg;

use super::chain::Chain;
use crate::journal::is_segment_path;
use crate::verify::files_of_sidecar;

/// The files of one recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// The path that its files have in common, without what tells them apart.
    pub stem: PathBuf,
    /// The files; at most one of each leg, or one for all.
    pub(super) files: Vec<Piece>,
    /// What is missing of a long recording, in words.
    pub(super) missing: Vec<String>,
}

impl Recording {
    /// The paths of its files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|piece| piece.path.as_path())
    }
}

/// One file of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) path: PathBuf,
    /// Whose packets it holds, if the name tells.
    pub(super) leg: Option<Leg>,
    /// Which part of a long recording it is.
    pub(super) number: Option<u32>,
}

/// The recordings that `paths` name, sorted by name: files, folders with all that is below them, or what
/// the two files of an ad-hoc recording have in common. Symbolic links to folders are followed only if they are named.
///
/// A file that is named is taken for a recording whatever its name is, a sidecar for what it names, and a file of a long
/// recording for all of it; in a folder only names that recordings have count, also with `.part` behind. Files with RTCP
/// alone have no audio and are left out of folders, like the segments of journals.
///
/// # Errors
///
/// When something cannot be read or does not exist.
pub fn find(paths: &[PathBuf]) -> Result<Vec<Recording>, FindError> {
    let mut found = BTreeMap::new();
    for path in paths {
        let error = |error| FindError { path: path.clone(), error };
        if path.is_dir() {
            let (mut waiting, mut files) = (vec![path.clone()], Vec::new());
            while let Some(path) = waiting.pop() {
                let (folders, its_files) =
                    in_folder(&path).map_err(|error| FindError { path: path.clone(), error })?;
                waiting.extend(folders);
                files.extend(its_files);
            }
            add_all(&mut found, files);
        } else if let Err(absent) = path.metadata() {
            let stem = path.file_name().unwrap_or_default().as_bytes();
            let pair: Vec<_> = [Leg::Caller, Leg::Callee]
                .into_iter()
                .flat_map(|leg| names_of_rtp(stem, leg))
                .map(|name| path.with_file_name(name))
                .filter(|path| path.exists())
                .collect();
            if pair.is_empty() {
                return Err(error(absent));
            }
            pair.into_iter().for_each(|path| add(&mut found, path));
        } else {
            for path in named(path) {
                match Chain::of(&path).map_err(error)? {
                    Some(chain) => add_chain(&mut found, &chain),
                    None => add(&mut found, path),
                }
            }
        }
    }
    let recordings = found.into_iter().map(|((stem, _), Group { mut files, mut missing })| {
        files.sort_by(|a, b| (a.number, &a.path).cmp(&(b.number, &b.path)));
        files.dedup();
        missing.dedup();
        Recording { stem, files, missing }
    });
    Ok(recordings.collect())
}

/// Why there are no recordings to be found somewhere.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct FindError {
    path: PathBuf,
    error: io::Error,
}

/// By the stem and, of files that hold a whole recording, their suffix.
type Found = BTreeMap<(PathBuf, Vec<u8>), Group>;

#[derive(Default)]
struct Group {
    files: Vec<Piece>,
    missing: Vec<String>,
}

impl Group {
    /// Whether another file has the place of this one.
    fn is_taken(&self, new: &Piece) -> bool {
        let place = |piece: &Piece| (piece.leg, piece.number);
        self.files.iter().any(|piece| place(piece) == place(new) && piece.path != new.path)
    }
}

/// Takes in the files of folders.
fn add_all(found: &mut Found, files: Vec<PathBuf>) {
    let chains = Chain::all(files.iter().cloned());
    let chained: BTreeSet<_> = chains.iter().flat_map(|chain| chain.files.values()).collect();
    files.iter().filter(|file| !chained.contains(file)).for_each(|file| add(found, file.clone()));
    chains.iter().for_each(|chain| add_chain(found, chain));
}

/// Takes in a long recording.
fn add_chain(found: &mut Found, chain: &Chain) {
    let Some(first) = chain.files.values().next() else { return };
    let name = first.file_name().unwrap_or_default().as_bytes();
    let Some(parsed) = FileName::parse(name) else { return };
    let pieces: Vec<_> = chain
        .files
        .iter()
        .map(|(&number, path)| Piece { path: path.clone(), leg: parsed.leg, number: Some(number) })
        .collect();
    let suffix = FileName { leg: None, number: None, ..parsed.plain() }.suffix();
    let letter = if parsed.leg.is_some() { "+" } else { "" };
    let stem = first.with_file_name(OsStr::from_bytes(parsed.stem));
    let key = |more: &[u8]| (stem.clone(), [letter.as_bytes(), b".NNN", suffix.as_bytes(), more].concat());
    let group = found.entry(key(b"")).or_default();
    let is_taken = pieces.iter().any(|piece| group.is_taken(piece));
    let group = if is_taken { found.entry(key(name)).or_default() } else { group };
    group.files.extend(pieces);
    group.missing.extend(chain.missing());
}

/// The file itself, or those that a sidecar names.
fn named(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let is_sidecar = FileName::parse(name).is_some_and(|name| !name.has_packets() && !name.is_part);
    let files = is_sidecar.then(|| files_of_sidecar(path)).flatten();
    files.map_or_else(
        || vec![path.to_owned()],
        |files| files.into_iter().filter(|path| is_recording(path)).collect(),
    )
}

fn add(found: &mut Found, path: PathBuf) {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let parsed = FileName::parse(name).filter(FileName::has_packets);
    let leg = parsed.and_then(|parsed| parsed.leg);
    let (stem, key) = match parsed {
        // The two files of a call go together, others of its name are other recordings.
        Some(parsed) => (parsed.stem, FileName { leg: None, ..parsed.plain() }.suffix().into_bytes()),
        None => (name.strip_suffix(PART.as_bytes()).unwrap_or(name), Vec::new()),
    };
    let key = if leg.is_some() { [b"+", &key[..]].concat() } else { key };
    let stem = path.with_file_name(OsStr::from_bytes(stem));
    let piece = Piece { path: path.clone(), leg, number: None };
    let group = found.entry((stem.clone(), key.clone())).or_default();
    // What a crash has left, beside a later recording of the same name.
    let is_taken = group.is_taken(&piece);
    let group = if is_taken { found.entry((stem, [&key, name].concat())).or_default() } else { group };
    group.files.push(piece);
}

/// The folders in a folder, and the recordings.
fn in_folder(folder: &Path) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            folders.push(path);
        } else if is_recording(&path) && !is_segment_path(&path) {
            files.push(path);
        }
    }
    // A finished file comes before an unfinished one of the same name.
    files.sort();
    Ok((folders, files))
}

fn is_recording(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let content = FileName::parse(name).map(|name| name.content);
    matches!(content, Some(Content::Pcapng | Content::Pcap | Content::Rtp)) && path.is_file()
}

/// The names that what a party has sent of an ad-hoc recording may have.
fn names_of_rtp(stem: &[u8], leg: Leg) -> [OsString; 3] {
    [None, Some(Compression::Zstd), Some(Compression::Gzip)].map(|compression| {
        let (number, encryption, is_part) = (None, None, false);
        let content = Content::Rtp;
        let name = FileName { stem, number, leg: Some(leg), content, compression, encryption, is_part };
        OsString::from_vec(name.to_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(folder: &Path, names: &[&str]) {
        for name in names {
            std::fs::write(folder.join(name), b"").unwrap();
        }
    }

    /// For each recording its stem and its files.
    fn names(found: &[Recording]) -> Vec<(String, Vec<String>)> {
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        found.iter().map(|recording| (name(&recording.stem), recording.files().map(name).collect())).collect()
    }

    #[test]
    fn a_folder_gives_its_recordings() {
        let folder = tempfile::tempdir().unwrap();
        touch(
            folder.path(),
            &["b.o.rtp", "b.a.rtp", "b.o.rtcp", "b.o.json", "a.pcapng", "a.json", "c.pcap.part"],
        );
        touch(folder.path(), &["d.o.pcapng.part", "notes.txt", "e.recovered.o.rtp"]);
        let found = names(&find(&[folder.path().to_owned()]).unwrap());
        let expected = [
            ("a", vec!["a.pcapng"]),
            ("b", vec!["b.a.rtp", "b.o.rtp"]),
            ("c", vec!["c.pcap.part"]),
            ("d", vec!["d.o.pcapng.part"]),
            ("e.recovered", vec!["e.recovered.o.rtp"]),
        ];
        let found: Vec<_> = found
            .iter()
            .map(|(stem, files)| (stem.as_str(), files.iter().map(String::as_str).collect::<Vec<_>>()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn folders_below_are_searched() {
        let folder = tempfile::tempdir().unwrap();
        for (day, names) in [("2026/03/01", ["a.pcapng", "b.o.rtp"]), ("2026/03/02", ["a.pcapng", "b.a.rtp"])]
        {
            let day = folder.path().join(day);
            std::fs::create_dir_all(&day).unwrap();
            touch(&day, &names);
        }
        std::os::unix::fs::symlink(folder.path(), folder.path().join("2026/link")).unwrap();
        let found = find(&[folder.path().to_owned()]).unwrap();
        let stems: Vec<_> =
            found.iter().map(|found| found.stem.strip_prefix(folder.path()).unwrap()).collect();
        assert_eq!(stems, ["2026/03/01/a", "2026/03/01/b", "2026/03/02/a", "2026/03/02/b"].map(Path::new));
        assert!(found.iter().all(|found| found.files.len() == 1));
    }

    #[test]
    fn any_file_of_a_long_recording_leads_to_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["x.001.o.rtp", "x.002.o.rtp", "x.004.o.rtp", "x.001.a.rtp", "x.001.o.rtcp"]);
        let json =
            r#"{"version": 1, "part": 2, "files": [{"name": "x.002.o.rtp"}, {"name": "x.002.o.rtcp"}]}"#;
        std::fs::write(folder.path().join("x.002.o.json"), json).unwrap();
        for name in ["x.004.o.rtp", "x.002.o.json"] {
            let found = find(&[folder.path().join(name)]).unwrap();
            let expected = vec!["x.001.o.rtp".to_owned(), "x.002.o.rtp".into(), "x.004.o.rtp".into()];
            assert_eq!(names(&found), [("x".to_owned(), expected)]);
            assert_eq!(found[0].missing, ["part 3 of the recording is missing"]);
        }
        let found = find(&[folder.path().to_owned()]).unwrap();
        let expected = ["x.001.a.rtp", "x.001.o.rtp", "x.002.o.rtp", "x.004.o.rtp"].map(str::to_owned);
        assert_eq!(names(&found), [("x".to_owned(), expected.to_vec())]);
    }

    #[test]
    fn what_a_crash_has_left_is_a_recording_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["x.pcapng.part", "x.pcapng", "y.o.rtp.part", "y.a.rtp"]);
        let found = names(&find(&[folder.path().to_owned()]).unwrap());
        let files: Vec<_> = found.iter().map(|(_, files)| files.join(" ")).collect();
        assert_eq!(files, ["x.pcapng", "x.pcapng.part", "y.a.rtp y.o.rtp.part"]);
    }

    #[test]
    fn a_pair_is_found_by_what_its_names_share() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["x=1.o.rtp", "x=1.a.rtp", "y.a.rtp"]);
        let found = find(&[folder.path().join("x=1"), folder.path().join("y")]).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].files[0].leg, Some(Leg::Callee));
        assert_eq!(found[0].files[1].leg, Some(Leg::Caller));
        assert_eq!(found[1].files.len(), 1);
    }

    #[test]
    fn a_file_is_taken_whatever_it_is_called() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["capture", "x.o.rtp"]);
        let paths = ["capture", "x.o.rtp", "x.o.rtp"].map(|name| folder.path().join(name));
        let found = names(&find(&paths).unwrap());
        assert_eq!(found.len(), 2);
        assert_eq!(found[1], ("x".to_owned(), vec!["x.o.rtp".to_owned()]));
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let error = find(&["/nonexistent/x".into()]).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/x: "), "{error}");
    }
}
