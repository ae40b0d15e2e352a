//! Processes that are killed while recordings get their names: the next one goes on at any step.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use rtpproxy_core::file_name::Compression;
use rtpproxy_core::recording::{Coverage, Leg};

use super::bench::Bench;
use super::compress::{record, recover, talk};
use crate::config::{Recipients, RecordConfig, RecordFormat};

type Files = BTreeMap<OsString, Vec<u8>>;

#[test]
fn a_kill_between_any_two_names_changes_nothing() {
    for config in configs() {
        for coverage in [Coverage::Call, Coverage::Stream(Leg::Caller)] {
            let mut folder = record(config.clone(), &coverage).folder;
            let done = files(folder.path());
            let packets: Vec<_> = done.keys().filter(|name| !is_sidecar(name)).cloned().collect();
            let sidecar = done.keys().find(|name| is_sidecar(name)).unwrap();
            for named in 0..=packets.len() {
                rename(folder.path(), sidecar, &part(sidecar));
                for name in &packets[named..] {
                    rename(folder.path(), name, &part(name));
                }
                folder = recover(folder, config.clone()).folder;
                assert!(files(folder.path()) == done, "{named} of {packets:?}: {:?}", names(folder.path()));
            }
        }
    }
}

#[test]
fn a_kill_while_a_file_moves_to_another_disk_leaves_one_of_it() {
    let spool = tempfile::tempdir().unwrap();
    let config = RecordConfig { spool: Some(spool.path().to_owned()), ..RecordConfig::default() };
    let mut folder = record(config.clone(), &Coverage::Call).folder;
    let done = files(folder.path());
    let bytes = &done[&OsString::from("call=f.pcapng")];
    for (is_named, copied) in [(false, Some(0)), (false, Some(100)), (false, Some(bytes.len())), (true, None)]
    {
        rename(folder.path(), &"call=f.json".into(), &"call=f.json.part".into());
        fs::write(spool.path().join("call=f.pcapng.part"), bytes).unwrap();
        if !is_named {
            fs::remove_file(folder.path().join("call=f.pcapng")).unwrap();
        }
        if let Some(len) = copied {
            fs::write(folder.path().join("call=f.pcapng.part"), &bytes[..len]).unwrap();
        }
        folder = recover(folder, config.clone()).folder;
        assert!(files(folder.path()) == done, "{is_named} {copied:?}: {:?}", names(folder.path()));
        assert_eq!(names(spool.path()), Vec::<OsString>::new());
    }
}

#[test]
fn what_was_converted_goes_once_the_sidecar_tells_of_the_new_file() {
    for spooled in [false, true] {
        let spool = tempfile::tempdir().unwrap();
        let spool_path = spooled.then(|| spool.path().to_owned());
        let config =
            RecordConfig { compress: Some(Compression::Zstd), spool: spool_path, ..RecordConfig::default() };
        let recorded = record(config.clone(), &Coverage::Call);
        let done = files(recorded.folder.path());
        rename(recorded.folder.path(), &"call=f.json".into(), &"call=f.json.part".into());
        rename(recorded.folder.path(), &"call=f.pcapng.zst".into(), &"call=f.pcapng.zst.part".into());
        let source = if spooled { spool.path() } else { recorded.folder.path() };
        fs::write(source.join("call=f.pcapng.part"), "what it was made of").unwrap();
        let folder = recover(recorded.folder, config).folder;
        assert!(files(folder.path()) == done, "{:?}", names(folder.path()));
        assert_eq!(names(spool.path()), Vec::<OsString>::new());
    }
}

#[test]
fn a_sidecar_whose_files_are_others_is_no_sidecar_of_theirs() {
    let recorded = record(RecordConfig::default(), &Coverage::Call);
    let folder = recorded.folder;
    rename(folder.path(), &"call=f.json".into(), &"call=f.json.part".into());
    rename(folder.path(), &"call=f.pcapng".into(), &"call=f.pcapng.part".into());
    let mut bytes = fs::read(folder.path().join("call=f.pcapng.part")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(folder.path().join("call=f.pcapng.part"), &bytes).unwrap();
    let recorded = recover(folder, RecordConfig::default());
    assert_eq!(recorded.names(), ["call=f.recovered.json", "call=f.recovered.pcapng"]);

    let folder = record(RecordConfig::default(), &Coverage::Call).folder;
    rename(folder.path(), &"call=f.json".into(), &"call=f.json.part".into());
    fs::remove_file(folder.path().join("call=f.pcapng")).unwrap();
    assert_eq!(recover(folder, RecordConfig::default()).names(), Vec::<String>::new());
}

#[test]
fn a_name_of_what_waits_for_recovery_is_taken() {
    let config = RecordConfig { compress: Some(Compression::Zstd), ..RecordConfig::default() };
    let folder = record(config.clone(), &Coverage::Call).folder;
    let compressed = fs::read(folder.path().join("call=f.pcapng.zst")).unwrap();
    fs::remove_file(folder.path().join("call=f.json")).unwrap();
    rename(folder.path(), &"call=f.pcapng.zst".into(), &"call=f.pcapng.zst.part".into());
    // The call comes back before it is recovered, and its relay is killed, too.
    let mut bench = Bench::in_folder(folder, config.clone());
    talk(&mut bench, &Coverage::Call);
    let recorded = recover(bench.kill(), config);
    let expected = [
        "call=f-2.recovered.json",
        "call=f-2.recovered.pcapng.zst",
        "call=f.recovered.json",
        "call=f.recovered.pcapng.zst",
    ];
    assert_eq!(recorded.names(), expected);
    assert_eq!(recorded.bytes("call=f.recovered.pcapng.zst"), compressed);
}

#[test]
fn a_kill_while_a_recovered_recording_is_compressed_leaves_it_once() {
    let config = RecordConfig { compress: Some(Compression::Zstd), ..RecordConfig::default() };
    let mut bench = Bench::new(config.clone());
    talk(&mut bench, &Coverage::Call);
    let folder = bench.kill();
    // The first relay after the crash cannot finish: its new file is there, the old one, too, and no sidecar.
    let source = fs::read(folder.path().join("call=f.pcapng.part")).unwrap();
    let recorded = recover(folder, config.clone());
    let new = recorded.bytes("call=f.recovered.pcapng.zst");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("call=f.pcapng.part"), source).unwrap();
    fs::write(folder.path().join("call=f.pcapng.zst.part"), new).unwrap();
    let recorded = recover(folder, config);
    assert_eq!(recorded.names(), ["call=f.recovered.json", "call=f.recovered.pcapng.zst"]);
}

/// Ways to record of which each names its files in its own way.
fn configs() -> Vec<RecordConfig> {
    let recipient = age::x25519::Identity::generate().to_public().to_string();
    let adhoc = RecordConfig { format: RecordFormat::Adhoc, ..RecordConfig::default() };
    vec![
        RecordConfig::default(),
        RecordConfig { compress: Some(Compression::Gzip), ..adhoc.clone() },
        RecordConfig { encrypt: Recipients::parse(&[recipient]).unwrap(), ..RecordConfig::default() },
        adhoc,
    ]
}

fn files(folder: &Path) -> Files {
    let read = |name: OsString| (name.clone(), fs::read(folder.join(name)).unwrap());
    names(folder).into_iter().map(read).collect()
}

fn names(folder: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

fn is_sidecar(name: &OsString) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "json")
}

fn part(name: &OsString) -> OsString {
    let mut part = name.clone();
    part.push(".part");
    part
}

fn rename(folder: &Path, from: &OsString, to: &OsString) {
    fs::rename(folder.join(from), folder.join(to)).unwrap();
}
