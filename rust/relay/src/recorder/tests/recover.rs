//! What a killed process leaves, and what the next one makes of it.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, unbounded};
use rtpproxy_core::recording::{Channel, Coverage, Leg};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::super::files::Site;
use super::super::finish;
use super::super::recover::Recovery;
use super::super::{Recorder, sidecar};
use super::bench::{Bench, Recorded, at, rtp};
use super::read;
use crate::config::{RecordConfig, RecordFormat};

#[test]
fn what_a_killed_process_wrote_is_recovered() {
    let folder = killed(RecordConfig::default());
    let part = folder.path().join("call=f.pcapng.part");
    let whole = fs::metadata(&part).unwrap().len();
    append(&part, b"\x06\0\0\0\xff\0\0\0torn");
    let recorded = recover(folder, RecordConfig::default());
    assert_eq!(recorded.names(), ["call=f.recovered.json", "call=f.recovered.pcapng"]);

    let bytes = recorded.bytes("call=f.recovered.pcapng");
    let file = read::pcapng(&bytes);
    let payloads: Vec<_> = file.real().map(|packet| packet.datagram.payload.clone()).collect();
    let sent: Vec<_> = (0..10).flat_map(|n| [rtp(Leg::Caller, n), rtp(Leg::Callee, n)]).collect();
    assert_eq!(payloads, sent);
    assert_eq!(file.totals.iter().map(|totals| totals.received).collect::<Vec<_>>(), [10, 10, 0, 0]);
    assert!(file.totals[0].comments[0].contains("recovered"));

    let json = recorded.json("call=f.recovered.json");
    assert_eq!(
        (&json["call_id"], &json["from_tag"], &json["to_tag"]),
        (&"call".into(), &"f".into(), &"t".into())
    );
    assert_eq!((&json["packets"], &json["dropped"]), (&20.into(), &0.into()));
    assert_eq!(json["files"][0]["size"], bytes.len());
    assert_eq!(json["files"][0]["sha256"], sidecar::hex(&Sha256::digest(&bytes)));
    assert_eq!(json["ended"]["reason"], "interrupted");
    assert_eq!(json["ended"]["at"], sidecar::rfc3339(at(181).wall));
    assert_eq!(json["recovered"]["cut_bytes"], 12);
    assert!(bytes.len() as u64 > whole, "totals were added");
    assert_eq!(json["legs"]["callee"]["rtp"]["packets"], 10);
    assert_eq!(json["legs"]["callee"]["remote"], "192.0.2.20:5000");
}

#[test]
fn every_format_is_recovered() {
    let pcap = RecordConfig { format: RecordFormat::Pcap, ..RecordConfig::default() };
    let recorded = recover(killed(pcap.clone()), pcap);
    assert_eq!(recorded.names(), ["call=f.recovered.json", "call=f.recovered.pcap"]);
    assert_eq!(read::pcap(&recorded.bytes("call=f.recovered.pcap")).len(), 20);
    let json = recorded.json("call=f.recovered.json");
    assert!(json["call_id"].is_null() && json["legs"].is_null(), "pcap does not tell: {json}");
    assert_eq!((&json["format"], &json["packets"]), (&"pcap".into(), &20.into()));

    let adhoc = RecordConfig { format: RecordFormat::Adhoc, ..RecordConfig::default() };
    let mut bench = Bench::new(adhoc.clone());
    bench.start(1, b"call", Coverage::Stream(Leg::Callee));
    bench.packet(1, Leg::Callee, Channel::Rtp, 1, &rtp(Leg::Callee, 1));
    bench.packet(1, Leg::Callee, Channel::Rtcp, 2, b"\x80\xc9\0\x01abcd");
    let recorded = recover(bench.kill(), adhoc);
    let expected = ["call=f.recovered.a.json", "call=f.recovered.a.rtcp", "call=f.recovered.a.rtp"];
    assert_eq!(recorded.names(), expected);
    let json = recorded.json("call=f.recovered.a.json");
    assert_eq!(json["files"][0]["name"], "call=f.recovered.a.rtp");
    assert_eq!(json["files"][1]["name"], "call=f.recovered.a.rtcp");
    assert_eq!(json["legs"]["callee"]["rtcp"]["packets"], 1);
    assert_eq!(read::adhoc(&recorded.bytes("call=f.recovered.a.rtp")).len(), 1);
}

#[test]
fn each_file_of_a_long_recording_is_recovered() {
    let rotating = RecordConfig { rotate_time: Some(Duration::from_millis(100)), ..RecordConfig::default() };
    let recorded = recover(killed(rotating), RecordConfig::default());
    // The finisher did not come to the first ones, and nobody spoke after that.
    let expected =
        [1, 2, 3].map(|part| ["json", "pcapng"].map(|end| format!("call=f.recovered.00{part}.{end}")));
    assert_eq!(recorded.names(), expected.concat());
    let mut payloads = Vec::new();
    for (part, packets) in [(1, 10), (2, 10), (3, 0)] {
        let file = read::pcapng(&recorded.bytes(&format!("call=f.recovered.00{part}.pcapng")));
        payloads.extend(file.real().map(|packet| packet.datagram.payload.clone()));
        let json = recorded.json(&format!("call=f.recovered.00{part}.json"));
        assert_eq!((&json["part"], &json["packets"]), (&part.into(), &packets.into()));
        assert_eq!(json["requested"], sidecar::rfc3339(at(0).wall));
    }
    let sent: Vec<_> = (0..10).flat_map(|n| [rtp(Leg::Caller, n), rtp(Leg::Callee, n)]).collect();
    assert_eq!(payloads, sent);
}

#[test]
fn a_recording_that_is_being_written_is_left_alone() {
    let mut bench = Bench::new(RecordConfig::default());
    bench.start(1, b"call", Coverage::Call);
    bench.packet(1, Leg::Caller, Channel::Rtp, 1, &rtp(Leg::Caller, 1));
    bench.work();
    let config = RecordConfig { folder: Some(bench.folder.path().to_owned()), ..RecordConfig::default() };
    search(&config);
    assert!(bench.folder.path().join("call=f.pcapng.part").exists());
    let recorded = bench.finish();
    assert_eq!(recorded.names(), ["call=f.json", "call=f.pcapng"]);
    assert_eq!(read::pcapng(&recorded.bytes("call=f.pcapng")).real().count(), 1);
}

#[test]
fn a_name_that_is_taken_is_left_alone() {
    let folder = killed(RecordConfig::default());
    fs::write(folder.path().join("call=f.recovered.json"), "kept").unwrap();
    let recorded = recover(folder, RecordConfig::default());
    let expected = ["call=f.recovered-2.json", "call=f.recovered-2.pcapng", "call=f.recovered.json"];
    assert_eq!(recorded.names(), expected);
    assert_eq!(recorded.bytes("call=f.recovered.json"), b"kept");
}

#[test]
fn with_compat_nothing_is_touched() {
    let folder = killed(RecordConfig::default());
    let config = RecordConfig { compat: true, format: RecordFormat::Adhoc, ..RecordConfig::default() };
    let config = RecordConfig { folder: Some(folder.path().to_owned()), ..config };
    let (finished, _jobs) = unbounded();
    assert!(Recovery::new(&config, Site::Main, finished, bounded(0).1).is_none());
}

#[test]
fn what_is_no_recording_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("empty=f.pcapng.part", b"");
    write("noise=f.pcapng.part", &[0x55; 5000]);
    write("film.part", b"not ours");
    write("torn=f.json.part", b"{\"version\": 1");
    write("whole=f.json.part", b"{\"version\": 1}");
    let recorded = recover(folder, RecordConfig::default());
    let expected = [
        "empty=f.recovered.json",
        "empty=f.recovered.pcapng",
        "film.part",
        "noise=f.recovered.json",
        "noise=f.recovered.pcapng",
        "whole=f.json.part",
    ];
    assert_eq!(recorded.names(), expected);
    assert_eq!(read::pcapng(&recorded.bytes("empty=f.recovered.pcapng")).real().count(), 0);
    assert_eq!(recorded.bytes("noise=f.recovered.pcapng"), [0x55; 5000]);
    let holes = &recorded.json("noise=f.recovered.json")["recovered"]["holes"];
    assert_eq!((&holes[0]["at"], &holes[0]["bytes"]), (&0.into(), &5000.into()));
}

#[test]
fn damage_before_the_end_is_kept_and_told() {
    let folder = killed(RecordConfig::default());
    let part = folder.path().join("call=f.pcapng.part");
    let mut bytes = fs::read(&part).unwrap();
    let len = bytes.len();
    bytes[len - 2000..len - 1500].fill(0);
    fs::write(&part, &bytes).unwrap();
    let recorded = recover(folder, RecordConfig::default());
    let json = recorded.json("call=f.recovered.json");
    assert_eq!(recorded.bytes("call=f.recovered.pcapng")[..len], bytes);
    assert_eq!(json["recovered"]["holes"][0]["file"], 0);
    let packets = json["packets"].as_u64().unwrap();
    assert!((14..20).contains(&packets), "{packets}");
}

#[test]
fn leftovers_in_the_spool_folder_end_up_with_the_others() {
    let spool = tempfile::tempdir().unwrap();
    let config = RecordConfig { spool: Some(spool.path().to_owned()), ..RecordConfig::default() };
    let folder = killed(config.clone());
    assert!(spool.path().join("call=f.pcapng.part").exists());
    let recorded = recover(folder, config);
    assert_eq!(recorded.names(), ["call=f.recovered.json", "call=f.recovered.pcapng"]);
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
}

#[test]
fn the_recorder_recovers_while_it_records() {
    let folder = killed(RecordConfig::default());
    let config = RecordConfig { folder: Some(folder.path().to_owned()), ..RecordConfig::default() };
    let (recorder, _taps) = Recorder::start(config, 1).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !folder.path().join("call=f.recovered.json").exists() {
        assert!(Instant::now() < deadline, "nothing is recovered");
        thread::sleep(Duration::from_millis(5));
    }
    recorder.shutdown();
}

/// A folder with one recording of twenty packets whose process was killed.
fn killed(config: RecordConfig) -> TempDir {
    let mut bench = Bench::new(config);
    bench.start(1, b"call", Coverage::Call);
    for n in 0..10 {
        for (leg, ms) in [(Leg::Caller, 0), (Leg::Callee, 1)] {
            bench.packet(1, leg, Channel::Rtp, u64::from(n) * 20 + ms, &rtp(leg, n));
        }
    }
    bench.kill()
}

fn recover(folder: TempDir, mut config: RecordConfig) -> Recorded {
    config.folder = Some(folder.path().to_owned());
    search(&config);
    Recorded { folder }
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

fn append(path: &std::path::Path, bytes: &[u8]) {
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}
