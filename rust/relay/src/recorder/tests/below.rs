//! Folders that templates ask for: made, found again after a crash, removed, and never left.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, unbounded};
use rtpproxy_core::recording::{Channel, Coverage, EndReason, Leg};
use tempfile::TempDir;

use super::super::files::Site;
use super::super::finish;
use super::super::recover::Recovery;
use super::bench::{Bench, at, rtp};
use super::read;
use crate::config::RecordConfig;
use crate::record_name::RecordName;

#[test]
fn folders_are_made_for_the_owner_alone() {
    let mut bench = Bench::new(by_day());
    record(&mut bench, 1, b"a");
    record(&mut bench, 2, b"b/c");
    // The name of a command has no template.
    let name = Coverage::Named { leg: Leg::Caller, name: b"x/y".as_slice().into() };
    bench.start(3, b"a", name);
    bench.work();
    let day = bench.folder.path().join(day());
    assert!(day.join("a=f.pcapng.part").exists());
    let recorded = bench.finish();
    assert_eq!(
        files(&recorded.folder),
        in_day(
            &["a=f.json", "a=f.pcapng", "b%2Fc=f.json", "b%2Fc=f.pcapng"],
            &["x%2Fy.json", "x%2Fy.pcapng"]
        )
    );
    for folder in day.ancestors().take(3) {
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
    let sidecar: serde_json::Value =
        serde_json::from_slice(&fs::read(day.join("b%2Fc=f.json")).unwrap()).unwrap();
    assert_eq!(sidecar["files"][0]["name"], "b%2Fc=f.pcapng");
}

#[test]
fn a_template_that_tells_nothing_apart_loses_nothing() {
    let name = RecordName::parse("%Y/same").unwrap();
    let mut bench = Bench::new(RecordConfig { name: Some(name), ..RecordConfig::default() });
    for id in 1..=3 {
        record(&mut bench, id, format!("call-{id}").as_bytes());
    }
    let recorded = bench.finish();
    let year = recorded.folder.path().join(day().iter().next().unwrap());
    for name in ["same.pcapng", "same-2.pcapng", "same-3.pcapng"] {
        assert_eq!(packets(&year.join(name)), 1, "{name}");
    }
    assert_eq!(files(&recorded.folder).len(), 6);
}

#[test]
fn the_spool_folder_has_the_same_folders_while_they_are_needed() {
    let spool = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(RecordConfig { spool: Some(spool.path().to_owned()), ..by_day() });
    record(&mut bench, 1, b"a");
    record(&mut bench, 2, b"b");
    assert_eq!(files(&spool), in_day(&["a=f.pcapng.part", "b=f.pcapng.part"], &[]));
    assert_eq!(files(&bench.folder), Vec::<String>::new());
    // Nothing is in it yet, so somebody may remove it.
    fs::remove_dir_all(bench.folder.path().join(day().iter().next().unwrap())).unwrap();
    let recorded = bench.finish();
    assert_eq!(files(&recorded.folder), in_day(&["a=f.json", "a=f.pcapng", "b=f.json", "b=f.pcapng"], &[]));
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
}

#[test]
fn the_fallback_folder_has_the_same_folders() {
    let fallback = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(RecordConfig { fallback: Some(fallback.path().to_owned()), ..by_day() });
    record(&mut bench, 1, b"a");
    bench.watch.set_low(Site::Main, true);
    for seconds in [2, 4, 6, 8] {
        bench.packet(1, Leg::Caller, Channel::Rtp, seconds * 1000, &rtp(Leg::Caller, seconds as u16));
        bench.work();
        bench.drain.sweep(Instant::now() + Duration::from_secs(seconds));
    }
    let recorded = bench.finish();
    let expected = in_day(&["a=f.json", "a=f.pcapng"], &[]);
    assert_eq!((files(&recorded.folder), files(&fallback)), (expected.clone(), expected));
}

#[test]
fn a_folder_that_is_removed_meanwhile_is_made_again() {
    let mut bench = Bench::new(by_day());
    record(&mut bench, 1, b"a");
    let sweep = |bench: &mut Bench, seconds| bench.drain.sweep(Instant::now() + Duration::from_secs(seconds));
    for seconds in [2, 4] {
        sweep(&mut bench, seconds);
    }
    fs::remove_dir_all(bench.folder.path().join(day())).unwrap();
    bench.packet(1, Leg::Caller, Channel::Rtp, 3000, &rtp(Leg::Caller, 2));
    bench.work();
    for seconds in [6, 8] {
        sweep(&mut bench, seconds);
    }
    bench.end(1, 5000, EndReason::Deleted);
    let recorded = bench.finish();
    assert_eq!(files(&recorded.folder), in_day(&["a=f.json", "a=f.pcapng"], &[]));
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(recorded.path("").join(day()).join("a=f.json")).unwrap()).unwrap();
    assert_eq!((&json["packets"], &json["dropped"]), (&1.into(), &1.into()));
    assert_eq!(json["gaps"][0]["cause"], "the file was removed");
}

#[test]
fn a_folder_that_is_moved_meanwhile_takes_its_recordings_along() {
    let mut bench = Bench::new(by_day());
    record(&mut bench, 1, b"a");
    let year = bench.folder.path().join(day().iter().next().unwrap());
    let moved = tempfile::tempdir_in(bench.folder.path()).unwrap();
    fs::rename(year, moved.path().join("kept")).unwrap();
    let _recorded = bench.finish();
    let below: PathBuf = day().iter().skip(1).collect();
    assert_eq!(packets(&moved.path().join("kept").join(below).join("a=f.pcapng")), 1);
}

#[test]
fn a_link_in_place_of_a_folder_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(by_day());
    let year = bench.folder.path().join(day().iter().next().unwrap());
    symlink(outside.path(), &year).unwrap();
    record(&mut bench, 1, b"a");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    // The recording waits for the folder as for a disk.
    fs::remove_file(&year).unwrap();
    bench.drain.sweep(Instant::now() + Duration::from_secs(2));
    let recorded = bench.finish();
    assert_eq!(files(&recorded.folder), in_day(&["a=f.json", "a=f.pcapng"], &[]));
    assert_eq!(packets(&recorded.folder.path().join(day()).join("a=f.pcapng")), 1);
}

#[test]
fn leftovers_are_found_in_folders_below() {
    let (spool, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = RecordConfig { spool: Some(spool.path().to_owned()), ..by_day() };
    let mut bench = Bench::new(config.clone());
    record(&mut bench, 1, b"spooled");
    let folder = bench.kill();
    let part = fs::read(spool.path().join(day()).join("spooled=f.pcapng.part")).unwrap();
    // Of another template, and of none.
    for name in ["calls/x/y/old.pcapng.part", "top.pcapng.part", "calls/torn.json.part"] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &part).unwrap();
    }
    fs::write(outside.path().join("theirs.pcapng.part"), &part).unwrap();
    symlink(outside.path(), folder.path().join("calls/link")).unwrap();
    let deep: PathBuf = (1..=17).map(|number| number.to_string()).collect();
    fs::create_dir_all(folder.path().join(&deep)).unwrap();
    for path in [deep.clone(), deep.parent().unwrap().to_owned()] {
        fs::write(folder.path().join(path).join("x.pcapng.part"), &part).unwrap();
    }
    search(&RecordConfig { folder: Some(folder.path().to_owned()), ..config });

    let mut expected = in_day(
        &["spooled=f.recovered.json", "spooled=f.recovered.pcapng"],
        &[
            "calls/x/y/old.recovered.json",
            "calls/x/y/old.recovered.pcapng",
            "top.recovered.json",
            "top.recovered.pcapng",
        ],
    );
    let deepest = deep.parent().unwrap().display();
    expected.extend(["json", "pcapng"].map(|suffix| format!("{deepest}/x.recovered.{suffix}")));
    expected.push(format!("{}/x.pcapng.part", deep.display()));
    expected.sort();
    assert_eq!(files(&folder), expected);
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
    assert!(outside.path().join("theirs.pcapng.part").exists());
}

#[test]
fn a_spool_folder_below_that_of_recordings_is_searched_once() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    fs::create_dir(&spool).unwrap();
    let config = RecordConfig { spool: Some(spool.clone()), ..by_day() };
    let mut bench = Bench::in_folder(folder, config.clone());
    record(&mut bench, 1, b"a");
    let folder = bench.kill();
    search(&RecordConfig { folder: Some(folder.path().to_owned()), ..config });
    assert_eq!(files(&folder), in_day(&["a=f.recovered.json", "a=f.recovered.pcapng"], &[]));
    assert!(spool.exists());
}

fn by_day() -> RecordConfig {
    let name = RecordName::parse("%Y/%m/%d/%{call-id}=%{from-tag}").unwrap();
    RecordConfig { name: Some(name), ..RecordConfig::default() }
}

/// The folder of the day on which the recordings of these tests start.
fn day() -> PathBuf {
    let start = chrono::DateTime::from_timestamp_nanos(at(0).wall.0 as i64);
    start.format("%Y/%m/%d").to_string().into()
}

/// Starts a recording with a packet, on the disk if that takes it.
fn record(bench: &mut Bench, id: u64, call_id: &[u8]) {
    bench.start(id, call_id, Coverage::Call);
    bench.packet(id, Leg::Caller, Channel::Rtp, 1, &rtp(Leg::Caller, 1));
    bench.work();
    bench.drain.sweep(Instant::now() + Duration::from_secs(1));
}

/// The paths of all files in a folder and below.
fn files(folder: &TempDir) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.path().to_owned()];
    while let Some(path) = folders.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path().strip_prefix(folder.path()).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

fn in_day(names: &[&str], others: &[&str]) -> Vec<String> {
    let day = day();
    let mut paths: Vec<_> = names.iter().map(|name| day.join(name).display().to_string()).collect();
    paths.extend(others.iter().map(|&path| path.to_owned()));
    paths.sort();
    paths
}

fn packets(path: &Path) -> usize {
    read::pcapng(&fs::read(path).unwrap()).real().count()
}

/// Lets the threads of another process work that starts with `config`.
fn search(config: &RecordConfig) {
    let (finished, jobs) = unbounded();
    let (_stop, stopped) = bounded(0);
    let recovery = Recovery::new(config, Site::Main, finished, stopped).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| recovery.run());
        scope.spawn(|| finish::run(&jobs, None));
    });
}
