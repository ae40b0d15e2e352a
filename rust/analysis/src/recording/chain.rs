//! The files of a long recording, one after the other (docs/recording-files.md).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rtpproxy_core::file_name::FileName;
use serde_json::Value;

use crate::verify::sidecar_of;

/// Files of one recording by their numbers, from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) files: BTreeMap<u32, PathBuf>,
    /// The last one says that another one follows.
    goes_on: bool,
}

impl Chain {
    /// The recording that the file is of, with all its files that can be found: beside it, and where they say that the
    /// recording went on. `None` if it is not one of several files.
    ///
    /// # Errors
    ///
    /// When a folder cannot be read.
    pub(crate) fn of(path: &Path) -> io::Result<Option<Self>> {
        let Some(link) = Link::of(path) else { return Ok(None) };
        let mut found = BTreeSet::new();
        let mut folders = vec![path.parent().unwrap_or(Path::new("")).to_owned()];
        let mut seen = BTreeSet::new();
        while let Some(folder) = folders.pop() {
            let here = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
            if !seen.insert(here.canonicalize()?) {
                continue;
            }
            for entry in std::fs::read_dir(here)? {
                let path = folder.join(entry?.file_name());
                let Some(other) = Link::of(&path).filter(|other| other.key == link.key) else { continue };
                folders.extend(other.elsewhere.into_iter().filter(|folder| folder.is_dir()));
                found.insert(path);
            }
        }
        Ok(Self::all(found).into_iter().find(|chain| chain.has(path)))
    }

    /// Puts `paths` together, as far as they are files of several.
    pub(crate) fn all(paths: impl IntoIterator<Item = PathBuf>) -> Vec<Self> {
        let links = paths.into_iter().filter_map(|path| Some((Link::of(&path)?, path)));
        let mut links: Vec<_> = links.collect();
        // Finished ones come first, and of those that do not tell which recording they are of, the later ones.
        links.sort_by_key(|(link, path)| (link.requested.is_none(), link.rank, path.clone()));
        let mut chains: Vec<Self> = Vec::new();
        // Those of one name, each with when it was asked for.
        let mut named: BTreeMap<Key, Vec<(Option<String>, usize)>> = BTreeMap::new();
        for (link, path) in links {
            let known = named.entry(link.key).or_default();
            let fitting = known.iter().rev().find(|(requested, at)| {
                let is_same = match &link.requested {
                    Some(_) => *requested == link.requested,
                    None => chains[*at].files.values().any(|file| file.parent() == path.parent()),
                };
                is_same && !chains[*at].files.contains_key(&link.number)
            });
            let at = fitting.map(|(_, at)| *at).unwrap_or_else(|| {
                chains.push(Self::default());
                known.push((link.requested, chains.len() - 1));
                chains.len() - 1
            });
            let chain = &mut chains[at];
            if chain.files.keys().next_back().is_none_or(|last| *last < link.number) {
                chain.goes_on = link.goes_on;
            }
            chain.files.insert(link.number, path);
        }
        chains
    }

    /// Whether the file is one of them.
    pub(crate) fn has(&self, path: &Path) -> bool {
        self.files.values().any(|file| file == path)
    }

    /// Which parts are not there before the one with this number, in words.
    pub(crate) fn missing_before(&self, number: u32) -> Option<String> {
        let before = self.files.range(..number).next_back().map_or(0, |(number, _)| *number);
        match number - before {
            0 | 1 => None,
            2 => Some(format!("part {} of the recording is missing", number - 1)),
            _ => Some(format!("parts {} to {} of the recording are missing", before + 1, number - 1)),
        }
    }

    /// Which parts are not there after the one with this number, in words, if that is the last one.
    pub(crate) fn missing_after(&self, number: u32) -> Option<String> {
        let is_last = self.files.keys().next_back() == Some(&number);
        (is_last && self.goes_on).then(|| {
            format!(
                "part {} of the recording is missing, unless it is still being written elsewhere",
                number + 1
            )
        })
    }

    /// All that is missing, in words.
    pub(crate) fn missing(&self) -> Vec<String> {
        let numbers = self.files.keys();
        numbers
            .flat_map(|&number| [self.missing_before(number), self.missing_after(number)])
            .flatten()
            .collect()
    }
}

/// What one file tells of those before and after it.
#[derive(Clone, Debug)]
struct Link {
    key: Key,
    number: u32,
    /// When the recording was asked for, which tells recordings of the same name apart.
    requested: Option<String>,
    goes_on: bool,
    /// Folders that the recording was in before or after.
    elsewhere: Vec<PathBuf>,
    /// Files that are complete are below others.
    rank: u8,
}

/// What the names of the files have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    stem: Vec<u8>,
    suffix: String,
}

impl Link {
    /// `None` if it is no file with packets that is one of several.
    fn of(path: &Path) -> Option<Self> {
        let name = FileName::parse(path.file_name()?.as_bytes()).filter(FileName::has_packets)?;
        let number = name.number?;
        let stem = without_recovered(name.stem);
        let suffix = FileName { number: None, ..name.plain() }.suffix();
        let key = Key { stem: stem.to_vec(), suffix };
        let rank = u8::from(stem != name.stem) + 2 * u8::from(name.is_part);
        let text = std::fs::read(sidecar_of(path)).ok();
        let sidecar: Option<Value> = text.and_then(|text| serde_json::from_slice(&text).ok());
        let Some(sidecar) = sidecar else {
            return Some(Self { key, number, requested: None, goes_on: false, elsewhere: Vec::new(), rank });
        };
        // Somebody's tag looks like a number.
        sidecar["part"].as_u64()?;
        let text = |field: &str| sidecar[field].as_str();
        let elsewhere = ["moved_from", "moved_to"].into_iter().filter_map(text);
        let elsewhere = elsewhere.filter_map(|path| Path::new(path).parent().map(Path::to_owned)).collect();
        let requested = text("requested").map(str::to_owned);
        Some(Self { key, number, requested, goes_on: text("next").is_some(), elsewhere, rank })
    }
}

/// A stem without what a recovery has put behind it.
pub(crate) fn without_recovered(stem: &[u8]) -> &[u8] {
    let digits = stem.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let attempt = stem[..stem.len() - digits].strip_suffix(b"-").filter(|_| digits > 0);
    [Some(stem), attempt].into_iter().flatten().find_map(|stem| stem.strip_suffix(RECOVERED)).unwrap_or(stem)
}

const RECOVERED: &[u8] = b".recovered";

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(folder: &Path, names: &[&str]) {
        for name in names {
            std::fs::write(folder.join(name), b"").unwrap();
        }
    }

    fn sidecar(folder: &Path, name: &str, requested: &str, more: &str) {
        let text = format!(r#"{{"part": 1, "requested": "{requested}"{more}}}"#);
        std::fs::write(folder.join(name), text).unwrap();
    }

    fn names(chain: &Chain) -> Vec<&str> {
        chain.files.values().map(|path| path.file_name().unwrap().to_str().unwrap()).collect()
    }

    #[test]
    fn any_file_leads_to_all() {
        let folder = tempfile::tempdir().unwrap();
        touch(
            folder.path(),
            &["x.001.pcapng", "x.recovered-2.003.pcapng", "x.002.pcapng", "x.004.pcapng.part"],
        );
        touch(folder.path(), &["y.003.pcapng", "x.pcapng", "x.001.o.rtp", "x.002.pcap"]);
        for name in ["x.001.pcapng", "x.recovered-2.003.pcapng", "x.004.pcapng.part"] {
            let chain = Chain::of(&folder.path().join(name)).unwrap().unwrap();
            let expected = ["x.001.pcapng", "x.002.pcapng", "x.recovered-2.003.pcapng", "x.004.pcapng.part"];
            assert_eq!(names(&chain), expected);
            assert!(chain.missing().is_empty());
        }
        assert_eq!(Chain::of(&folder.path().join("x.pcapng")).unwrap(), None);
    }

    #[test]
    fn files_that_are_compressed_already_belong_to_those_that_are_not() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["x.001.pcapng.zst", "x.002.pcapng.gz", "x.003.pcapng.part"]);
        let chain = Chain::of(&folder.path().join("x.003.pcapng.part")).unwrap().unwrap();
        assert_eq!(names(&chain), ["x.001.pcapng.zst", "x.002.pcapng.gz", "x.003.pcapng.part"]);
    }

    #[test]
    fn what_is_missing_is_told() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["x.003.pcapng", "x.004.pcapng", "x.006.pcapng"]);
        sidecar(folder.path(), "x.006.json", "t", r#", "next": "x.007.pcapng""#);
        let chain = Chain::of(&folder.path().join("x.004.pcapng")).unwrap().unwrap();
        let expected = [
            "parts 1 to 2 of the recording are missing",
            "part 5 of the recording is missing",
            "part 7 of the recording is missing, unless it is still being written elsewhere",
        ];
        assert_eq!(chain.missing(), expected);
    }

    #[test]
    fn recordings_of_one_name_are_told_apart_and_one_is_followed_to_another_folder() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        touch(folder.path(), &["x.001.pcapng", "x.recovered.001.pcapng", "x.recovered.002.pcapng"]);
        touch(other.path(), &["x.002.pcapng"]);
        let moved = other.path().join("x.002.pcapng");
        let moved = format!(r#", "next": "x.002.pcapng", "moved_to": "{}""#, moved.display());
        sidecar(folder.path(), "x.001.json", "later", &moved);
        sidecar(other.path(), "x.002.json", "later", "");
        for number in ["001", "002"] {
            sidecar(folder.path(), &format!("x.recovered.{number}.json"), "before", "");
        }
        let chain = Chain::of(&folder.path().join("x.001.pcapng")).unwrap().unwrap();
        let files: Vec<_> = chain.files.into_values().collect();
        assert_eq!(files, [folder.path().join("x.001.pcapng"), other.path().join("x.002.pcapng")]);
        let chain = Chain::of(&folder.path().join("x.recovered.002.pcapng")).unwrap().unwrap();
        assert_eq!(names(&chain), ["x.recovered.001.pcapng", "x.recovered.002.pcapng"]);
    }

    #[test]
    fn a_tag_that_looks_like_a_number_is_none() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["x=t.002.pcapng"]);
        std::fs::write(folder.path().join("x=t.002.json"), r#"{"requested": "t"}"#).unwrap();
        assert_eq!(Chain::of(&folder.path().join("x=t.002.pcapng")).unwrap(), None);
    }
}
