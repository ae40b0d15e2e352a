//! Names, folders and disks: nothing outside, nothing overwritten, nothing that stops the recorder.

use std::os::unix::fs::{PermissionsExt, symlink};

use rtpproxy_core::host::FolderState;
use rtpproxy_core::recording::{Channel, Coverage, EndReason, Leg, RecordingEvent};

use super::super::Recorder;
use super::bench::{Bench, record, rtp, start};
use super::read;
use crate::config::RecordConfig;

#[test]
fn a_name_in_use_is_never_overwritten() {
    let mut bench = Bench::new(RecordConfig::default());
    std::fs::write(bench.folder.path().join("call=f-2.json"), "kept").unwrap();
    std::fs::write(bench.folder.path().join("call=f-3.pcapng.part"), "left over").unwrap();
    symlink("/nowhere", bench.folder.path().join("call=f-4.pcapng")).unwrap();
    for id in 1..=3 {
        bench.start(id, b"call", Coverage::Call);
        bench.packet(id, Leg::Caller, Channel::Rtp, id, &rtp(Leg::Caller, id as u16));
    }
    bench.end(1, 10, EndReason::Deleted);
    let recorded = bench.finish();
    let expected = [
        "call=f-2.json",
        "call=f-3.pcapng.part",
        "call=f-4.pcapng",
        "call=f-5.json",
        "call=f-5.pcapng",
        "call=f-6.json",
        "call=f-6.pcapng",
        "call=f.json",
        "call=f.pcapng",
    ];
    assert_eq!(recorded.names(), expected);
    for (name, n) in [("call=f", 1), ("call=f-5", 2), ("call=f-6", 3)] {
        let file = read::pcapng(&recorded.bytes(&format!("{name}.pcapng")));
        assert_eq!(file.real().next().unwrap().datagram.payload, rtp(Leg::Caller, n));
        assert_eq!(recorded.json(&format!("{name}.json"))["files"][0]["name"], format!("{name}.pcapng"));
    }
    assert_eq!(recorded.bytes("call=f-2.json"), b"kept");
}

#[test]
fn a_file_that_appears_meanwhile_is_not_overwritten() {
    let mut bench = Bench::new(RecordConfig::default());
    bench.start(1, b"call", Coverage::Call);
    bench.work();
    std::fs::write(bench.folder.path().join("call=f.pcapng"), "theirs").unwrap();
    let recorded = bench.finish();
    assert_eq!(recorded.names(), ["call=f-2.json", "call=f-2.pcapng", "call=f.pcapng"]);
    assert_eq!(recorded.bytes("call=f.pcapng"), b"theirs");
    assert_eq!(recorded.json("call=f-2.json")["files"][0]["name"], "call=f-2.pcapng");
}

#[test]
fn hostile_and_odd_call_ids_end_up_inside_the_folder() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let mut bench = Bench::new(RecordConfig { folder: Some(inner.clone()), ..RecordConfig::default() });
    let long = "y".repeat(300);
    let ids = [&b"../x"[..], b"a/b", b"/etc/x", long.as_bytes(), "\u{4e2d}".as_bytes(), b"\xff"];
    for (id, call_id) in ids.into_iter().enumerate() {
        bench.start(id as u64, call_id, Coverage::Call);
    }
    bench.finish();
    assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
    let mut call_ids = Vec::new();
    for entry in std::fs::read_dir(&inner).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            call_ids.push(match &json["call_id_hex"] {
                serde_json::Value::String(text) => format!("hex {text}"),
                _ => json["call_id"].as_str().unwrap().to_owned(),
            });
        }
    }
    call_ids.sort();
    assert_eq!(call_ids, ["../x", "/etc/x", "a/b", "hex ff", long.as_str(), "\u{4e2d}"]);
}

#[test]
fn with_a_spool_folder_only_complete_files_appear() {
    let spool = tempfile::tempdir().unwrap();
    let config = RecordConfig { spool: Some(spool.path().to_owned()), ..RecordConfig::default() };
    let mut bench = Bench::new(config);
    bench.start(1, b"call", Coverage::Call);
    bench.work();
    assert!(spool.path().join("call=f.pcapng.part").exists());
    assert_eq!(std::fs::read_dir(bench.folder.path()).unwrap().count(), 0);
    let recorded = bench.finish();
    assert_eq!(recorded.names(), ["call=f.json", "call=f.pcapng"]);
    assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0);
}

#[test]
fn a_spool_folder_on_another_file_system_is_copied_from() {
    let Ok(spool) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("skipped: no /dev/shm");
        return;
    };
    let config = RecordConfig { spool: Some(spool.path().to_owned()), ..RecordConfig::default() };
    let mut bench = Bench::new(config);
    bench.start(1, b"call", Coverage::Call);
    bench.packet(1, Leg::Caller, Channel::Rtp, 1, &rtp(Leg::Caller, 1));
    let recorded = bench.finish();
    assert_eq!(recorded.names(), ["call=f.json", "call=f.pcapng"]);
    assert_eq!(recorded.path("call=f.pcapng").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(read::pcapng(&recorded.bytes("call=f.pcapng")).real().count(), 1);
    assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0);
}

#[test]
fn the_watch_tells_a_usable_folder_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let state = |path: Option<std::path::PathBuf>| {
        let config = RecordConfig { folder: path, ..RecordConfig::default() };
        let (recorder, _) = Recorder::start(config, 1).unwrap();
        let state = recorder.folder().state();
        recorder.shutdown();
        state
    };
    assert_eq!(state(None), FolderState::Unusable);
    assert_eq!(state(Some(folder.path().to_owned())), FolderState::Ready);
    assert_eq!(state(Some(folder.path().join("missing"))), FolderState::Unusable);
    assert_eq!(state(Some(file)), FolderState::Unusable);
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may write everywhere, so no folder is forbidden");
        return;
    }
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
    assert_eq!(state(Some(folder.path().to_owned())), FolderState::Unusable);
}

#[test]
fn the_threads_record_everything_that_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let config = RecordConfig { folder: Some(folder.path().to_owned()), ..RecordConfig::default() };
    let (recorder, taps) = Recorder::start(config, 2).unwrap();
    let workers = taps.into_iter().enumerate().map(|(worker, mut tap)| {
        std::thread::spawn(move || {
            let call_id = format!("call-{worker}");
            tap.event(RecordingEvent::Start(Box::new(start(1, call_id.as_bytes(), Coverage::Call))));
            for n in 0..20_000_u16 {
                let leg = if n % 2 == 0 { Leg::Caller } else { Leg::Callee };
                let record = record(1, leg, Channel::Rtp, n.into());
                tap.packet(&record, &rtp(leg, n));
                tap.flush(record.at.mono, record.at.wall);
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.join().unwrap();
    }
    recorder.shutdown();
    for worker in 0..2 {
        let file =
            read::pcapng(&std::fs::read(folder.path().join(format!("call-{worker}=f.pcapng"))).unwrap());
        assert_eq!(file.real().count(), 20_000);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4);
}
