//! What is kept and what goes, on real files; time is told.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use crossbeam_channel::never;
use proptest::prelude::*;
use rtpproxy_core::time::Wall;
use tempfile::TempDir;

use super::survey::{Facts, Finished, Stamp};
use super::sweep::{Removal, sweep};
use super::{Keeper, Limits, Pace};
use crate::config::RecordConfig;

const DAY: u64 = 24 * 3600;
const NOW: u64 = 1_800_000_000;

/// A folder and its keeper, with an age of ten days or a quota if there is one.
struct Bench {
    folder: TempDir,
    keeper: Keeper,
}

impl Bench {
    fn new(quota_bytes: Option<u64>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let max_age = quota_bytes.is_none().then_some(Duration::from_secs(10 * DAY));
        let config = RecordConfig {
            folder: Some(folder.path().to_owned()),
            max_age,
            quota_bytes,
            ..RecordConfig::default()
        };
        let keeper = Keeper::new(&config).unwrap();
        Self { folder, keeper }
    }

    /// A recording of `files` that ended `days` ago, with what `change` does to its sidecar.
    fn add_changed(&self, stem: &str, files: &[&str], days: u64, change: impl Fn(String) -> String) {
        let path = self.folder.path();
        fs::create_dir_all(path.join(stem).parent().unwrap()).unwrap();
        let name = |file: &str| format!("{}{file}", Path::new(stem).file_name().unwrap().to_str().unwrap());
        let listed: Vec<_> = files
            .iter()
            .map(|file| {
                fs::write(path.join(format!("{stem}{file}")), [7; 1000]).unwrap();
                format!(r#"{{"name": "{}", "size": 1000, "sha256": "0"}}"#, name(file))
            })
            .collect();
        let ended = rfc3339(NOW - days * DAY);
        let text = format!(
            r#"{{"version": 1, "call_id": "x", "format": "pcapng", "files": [{}], "packets": 3,
                "ended": {{"at": "{ended}", "reason": "deleted"}}}}"#,
            listed.join(", ")
        );
        fs::write(path.join(format!("{stem}.json")), change(text)).unwrap();
    }

    fn add(&self, stem: &str, files: &[&str], days: u64) {
        self.add_changed(stem, files, days, |text| text);
    }

    fn write(&self, name: &str, len: usize) {
        fs::write(self.folder.path().join(name), vec![0; len]).unwrap();
    }

    fn round(&mut self) {
        let stop = never();
        self.keeper.round(Wall(NOW * 1_000_000_000), &mut Pace::new(&stop, Duration::ZERO)).unwrap();
    }

    /// What is left, with the paths in the folder.
    fn left(&self) -> BTreeSet<String> {
        let mut left = BTreeSet::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                } else {
                    left.insert(path.strip_prefix(self.folder.path()).unwrap().display().to_string());
                }
            }
        }
        left
    }
}

fn rfc3339(seconds: u64) -> String {
    DateTime::from_timestamp_nanos(seconds as i64 * 1_000_000_000).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_old_go_with_all_their_files() {
    let mut bench = Bench::new(None);
    bench.add("old", &[".o.rtp", ".o.rtcp"], 11);
    bench.add("2026/11/old", &[".pcapng"], 12);
    bench.add("new", &[".pcapng"], 9);
    bench.round();
    assert_eq!(bench.left(), set(&["new.json", "new.pcapng"]));
    assert!(bench.keeper.complaint.is_none());
}

#[test]
fn segments_of_a_journal_go_as_a_whole_and_never_one_that_is_written() {
    let journal = |text: String| text.replace("pcapng\", \"files", "journal\", \"files");
    let name = |hour: u32| format!("journal-20261122T{hour:02}5054.123Z-w0");
    let add = |bench: &Bench, hour, days| bench.add_changed(&name(hour), &[".pcapng"], days, journal);
    let mut aged = Bench::new(None);
    add(&aged, 10, 12);
    add(&aged, 11, 9);
    aged.write(&format!("{}.pcapng.part", name(9)), 1000);
    aged.round();
    let [kept, sidecar, part] =
        [(11, "pcapng"), (11, "json"), (9, "pcapng.part")].map(|(hour, end)| format!("{}.{end}", name(hour)));
    assert_eq!(aged.left(), set(&[&kept, &sidecar, &part]));

    // What is being written counts.
    let mut full = Bench::new(Some(3500));
    add(&full, 10, 3);
    add(&full, 11, 2);
    full.write(&format!("{}.pcapng.part", name(9)), 1500);
    full.round();
    assert_eq!(full.left(), set(&[&kept, &sidecar, &part]));
}

#[test]
fn a_folder_goes_with_the_last_recording_in_it() {
    let mut bench = Bench::new(None);
    for stem in ["2026/02/27/a", "2026/02/28/a", "2026/03/01/a", "2026/03/01/b"] {
        bench.add(stem, &[".pcapng"], 11);
    }
    bench.add("2026/03/01/new", &[".pcapng"], 9);
    bench.add("2025/a", &[".pcapng"], 50);
    let path = bench.folder.path().to_owned();
    bench.write("2026/02/28/notes.txt", 1);
    fs::create_dir_all(path.join("empty/2026")).unwrap();
    fs::create_dir_all(path.join("2026/03/01/empty")).unwrap();
    bench.round();
    let new = ["2026/03/01/new.json", "2026/03/01/new.pcapng", "2026/02/28/notes.txt"];
    assert_eq!(bench.left(), set(&new));
    // Those that were empty before are somebody else's.
    for (folder, is_kept) in [
        ("2025", false),
        ("2026/02/27", false),
        ("2026/02/28", true),
        ("2026/03/01/empty", true),
        ("empty/2026", true),
    ] {
        assert_eq!(path.join(folder).exists(), is_kept, "{folder}");
    }
}

#[test]
fn the_folders_of_recordings_stay_when_they_are_empty() {
    let mut bench = Bench::new(None);
    let fallback = bench.folder.path().join("2026/fallback");
    bench.add("2026/fallback/day/a", &[".pcapng"], 50);
    bench.keeper.folders.push(fallback.clone());
    bench.add("a", &[".pcapng"], 50);
    bench.round();
    assert_eq!(bench.left(), set(&[]));
    assert!(fallback.exists() && !fallback.join("day").exists());
}

#[test]
fn what_becomes_old_goes_later() {
    let mut bench = Bench::new(None);
    bench.add("x", &[".pcapng"], 9);
    bench.round();
    assert_eq!(bench.left().len(), 2);
    let later = Wall((NOW + DAY + 1) * 1_000_000_000);
    bench.keeper.round(later, &mut Pace::new(&never(), Duration::ZERO)).unwrap();
    assert_eq!(bench.left(), set(&[]));
}

#[test]
fn the_oldest_go_until_the_quota_holds() {
    let sidecar = {
        let bench = Bench::new(Some(1));
        bench.add("a", &[".pcapng"], 1);
        fs::metadata(bench.folder.path().join("a.json")).unwrap().len()
    };
    // Two recordings, and 500 bytes that are being written.
    let mut bench = Bench::new(Some(2 * (1000 + sidecar) + 500));
    for (stem, days) in [("b", 2), ("d", 4), ("a", 1), ("c", 3)] {
        bench.add(stem, &[".pcapng"], days);
    }
    bench.write("running.pcapng.part", 500);
    bench.write("notes.part", 5000);
    bench.round();
    let kept = ["a.json", "a.pcapng", "b.json", "b.pcapng", "notes.part", "running.pcapng.part"];
    assert_eq!(bench.left(), set(&kept));
    bench.round();
    assert_eq!(bench.left(), set(&kept));
    bench.write("running.pcapng.part", 501);
    bench.round();
    assert!(!bench.left().contains("b.pcapng") && bench.left().contains("a.pcapng"));
}

#[test]
fn both_folders_count_together() {
    let other = Bench::new(Some(1));
    other.add("old", &[".pcapng"], 3);
    other.add("x", &[".pcapng"], 1);
    let sidecar = fs::metadata(other.folder.path().join("x.json")).unwrap().len();
    let mut bench = Bench::new(Some(2 * (1000 + sidecar) + 10));
    bench.keeper.folders.push(other.folder.path().to_owned());
    bench.add("x", &[".pcapng"], 2);
    bench.round();
    assert_eq!(bench.left(), set(&["x.json", "x.pcapng"]));
    assert_eq!(other.left(), bench.left());
    // One that is gone hinders nothing in the other.
    bench.keeper.folders[0] = "/nonexistent/x".into();
    bench.keeper.limits.quota_bytes = Some(1);
    bench.round();
    assert_eq!(other.left(), set(&[]));
    assert_eq!(bench.left().len(), 2);
}

#[test]
fn what_is_not_ours_stays() {
    let mut bench = Bench::new(None);
    let outside = tempfile::tempdir().unwrap();
    let theirs = outside.path().join("theirs.pcapng");
    fs::write(&theirs, [7; 1000]).unwrap();
    // No sidecars: an unfinished recording, one of the C program, any other file.
    for name in ["a.pcapng.part", "b.o.rtp", "c.json", "d.txt"] {
        bench.write(name, 10);
    }
    bench.add_changed("e", &[".pcapng"], 50, |text| text.replace(r#""version": 1"#, r#""version": 2"#));
    bench.add_changed("f", &[".pcapng"], 50, |text| text.replace(r#""packets": 3,"#, ""));
    bench.add_changed("g", &[".pcapng"], 50, |text| text.replace("g.pcapng", "../g.pcapng"));
    bench.add_changed("h", &[".pcapng"], 50, |text| text.replace("h.pcapng", "a.pcapng.part"));
    bench.add_changed("i", &[".pcapng"], 50, |text| text.replace("i.pcapng", "c.json"));
    bench.add("j", &[".pcapng"], 50);
    bench.write("j.pcapng", 999);
    bench.add("k", &[".pcapng"], 50);
    fs::remove_file(bench.folder.path().join("k.pcapng")).unwrap();
    symlink(&theirs, bench.folder.path().join("k.pcapng")).unwrap();
    let linked = Bench::new(None);
    linked.add("old", &[".pcapng"], 50);
    symlink(linked.folder.path(), bench.folder.path().join("link")).unwrap();
    symlink(linked.folder.path().join("old.json"), bench.folder.path().join("old.json")).unwrap();
    let before = bench.left();
    bench.round();
    assert_eq!(bench.left(), before);
    assert_eq!(linked.left().len(), 2);
    assert!(theirs.exists());
    let complaint = "2 old recordings are not as their sidecars say and stay";
    assert_eq!(bench.keeper.complaint.as_deref(), Some(complaint));
}

#[test]
fn what_is_open_stays_until_it_is_closed() {
    let mut bench = Bench::new(None);
    for stem in ["read", "locked", "free"] {
        bench.add(stem, &[".pcapng"], 50);
    }
    let reader = File::open(bench.folder.path().join("read.pcapng")).unwrap();
    let locked = File::open(bench.folder.path().join("locked.pcapng")).unwrap();
    locked.lock().unwrap();
    bench.round();
    assert_eq!(bench.left(), set(&["locked.json", "locked.pcapng", "read.json", "read.pcapng"]));
    assert_eq!(bench.keeper.complaint.as_deref(), Some("2 old recordings are in use and stay"));
    drop((reader, locked));
    bench.round();
    assert_eq!(bench.left(), set(&[]));
    assert_eq!(bench.keeper.complaint, None);
}

#[test]
fn what_was_removed_by_half_is_removed_whole() {
    let mut bench = Bench::new(None);
    bench.add("x", &[".o.rtp", ".o.rtcp"], 50);
    fs::remove_file(bench.folder.path().join("x.o.rtp")).unwrap();
    bench.round();
    assert_eq!(bench.left(), set(&[]));
}

#[test]
fn another_recording_of_the_name_is_not_taken_for_the_old_one() {
    let mut bench = Bench::new(None);
    bench.add("x", &[".pcapng"], 50);
    let stop = never();
    let roots = [super::Folder::open(bench.folder.path()).unwrap()];
    let mut pace = Pace::new(&stop, Duration::ZERO);
    bench.keeper.survey.renew(&roots, &mut pace).unwrap();
    fs::remove_file(bench.folder.path().join("x.json")).unwrap();
    bench.add_changed("x", &[".pcapng"], 0, |text| text + "\n");
    let found = bench.keeper.survey.oldest_first();
    assert_eq!(found[0].remove(&roots, &mut pace).unwrap(), Removal::Gone);
    assert_eq!(bench.left(), set(&["x.json", "x.pcapng"]));
}

#[test]
fn the_thread_ends_in_the_middle_of_its_work() {
    let mut bench = Bench::new(None);
    for number in 0..200 {
        bench.add(&format!("x{number}"), &[".pcapng"], 50);
    }
    let (stop, stopped) = crossbeam_channel::bounded(0);
    drop(stop);
    let now = Wall(NOW * 1_000_000_000);
    assert!(bench.keeper.round(now, &mut Pace::new(&stopped, Duration::ZERO)).is_err());
    assert_eq!(bench.left().len(), 400);
}

#[test]
fn without_limits_or_sidecars_there_is_no_keeper() {
    let folder = Some("/tmp".into());
    assert!(Keeper::new(&RecordConfig { folder: folder.clone(), ..RecordConfig::default() }).is_none());
    let quota_bytes = Some(1);
    let compat = RecordConfig { folder, quota_bytes, compat: true, ..RecordConfig::default() };
    assert!(Keeper::new(&compat).is_none());
}

proptest! {
    /// What is kept is within the limits, or nothing else could go; nothing newer went before something older; and
    /// no more went than had to.
    #[test]
    fn the_newest_are_kept_within_the_limits(
        recordings in prop::collection::vec((0..100_u64, 1..1000_u64, prop::bool::weighted(0.2)), 0..40),
        written in 0..2000_u64,
        max_age in prop::option::of(1..100_u64),
        quota in prop::option::of(1..20_000_u64),
    ) {
        let mut recordings = recordings;
        recordings.sort_by_key(|(age, ..)| std::cmp::Reverse(*age));
        let facts: Vec<_> = recordings
            .iter()
            .map(|(age, ..)| Facts { ended: Wall((NOW - age) * 1_000_000_000), files: Box::new([]) })
            .collect();
        let status = rustix::fs::stat("Cargo.toml").unwrap();
        let stamp = Stamp::of(&status).unwrap();
        let found: Vec<_> = recordings
            .iter()
            .zip(&facts)
            .map(|((_, bytes, _), facts)| Finished { root: 0, sidecar: Path::new("x"), stamp, facts, bytes: *bytes })
            .collect();
        let limits = Limits { max_age: max_age.map(Duration::from_secs), quota_bytes: quota };
        let mut kept = vec![true; found.len()];
        let outcome = sweep(&found, written, limits, Wall(NOW * 1_000_000_000), |recording| {
            let index = found.iter().position(|other| std::ptr::eq(other, recording)).unwrap();
            if recordings[index].2 {
                return Ok(Removal::InUse);
            }
            kept[index] = false;
            Ok(Removal::Done)
        });

        let bytes = |keep: &[bool]| -> u64 {
            recordings.iter().zip(keep).filter(|(_, kept)| **kept).map(|((_, bytes, _), _)| bytes).sum()
        };
        let total = written + bytes(&kept);
        prop_assert_eq!(outcome.kept_bytes, total);
        let removed: Vec<_> = (0..kept.len()).filter(|index| !kept[*index]).collect();
        prop_assert_eq!(outcome.too_old + outcome.over_quota, removed.len() as u64);
        let is_too_old = |index: usize| max_age.is_some_and(|max| recordings[index].0 > max);
        let removable = |index: usize| kept[index] && !recordings[index].2;
        let free: Vec<_> = (0..kept.len()).filter(|index| removable(*index)).collect();
        prop_assert!(free.iter().all(|index| !is_too_old(*index)));
        prop_assert!(quota.is_none_or(|quota| total <= quota) || free.is_empty());
        if let (Some(last), Some(first)) = (removed.last(), free.first()) {
            prop_assert!(last < first, "{} went before {}", last, first);
        }
        if let Some(last) = removed.last().filter(|last| !is_too_old(**last)) {
            prop_assert!(quota.is_some_and(|quota| total + recordings[*last].1 > quota));
        }
        let complains = outcome.complaint(&limits).is_some();
        prop_assert_eq!(complains, outcome.in_use > 0 || quota.is_some_and(|quota| total > quota));
    }
}
