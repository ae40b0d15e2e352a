//! Long recordings in several files.

use std::time::{Duration, Instant};

use rtpproxy_core::recording::{Channel, Coverage, EndReason, Leg, Mark};
use sha2::{Digest, Sha256};

use super::super::sidecar::{hex, rfc3339};
use super::bench::{Bench, Recorded, at, rtp};
use super::read;
use crate::config::{RecordConfig, RecordFormat};

#[test]
fn a_file_ends_when_its_first_packet_is_long_ago() {
    let mut bench = Bench::new(by_time(Duration::from_secs(1)));
    bench.start(1, b"call", Coverage::Call);
    talk(&mut bench, 0..125);
    bench.end(1, 2500, EndReason::Deleted);
    let recorded = bench.finish();
    let expected = ["001.json", "001.pcapng", "002.json", "002.pcapng", "003.json", "003.pcapng"];
    assert_eq!(recorded.names(), expected.map(|end| format!("call=f.{end}")));

    let mut payloads = Vec::new();
    for (number, packets, reason) in [(1, 100, "rotated"), (2, 100, "rotated"), (3, 50, "deleted")] {
        let bytes = recorded.bytes(&format!("call=f.{number:03}.pcapng"));
        let file = read::pcapng(&bytes);
        assert!(file.synthetic()[0].contains(&format!("CSeq: {number} INVITE")), "{:?}", file.synthetic());
        assert_eq!(file.comments[3], format!("start: {}", rfc3339(at(0).wall)));
        assert_eq!(file.totals.iter().map(|totals| totals.received).sum::<u64>(), packets);
        payloads.extend(file.real().map(|packet| packet.datagram.payload.clone()));

        let sidecar = recorded.json(&format!("call=f.{number:03}.json"));
        assert_eq!((&sidecar["packets"], &sidecar["part"]), (&packets.into(), &number.into()));
        assert_eq!((&sidecar["ended"]["reason"], &sidecar["dropped"]), (&reason.into(), &0.into()));
        assert_eq!(sidecar["files"][0]["sha256"], hex(&Sha256::digest(&bytes)));
        assert_eq!(sidecar["requested"], rfc3339(at(0).wall));
        let name = |number: u64| (1..=3).contains(&number).then(|| format!("call=f.{number:03}.pcapng"));
        assert_eq!(sidecar["previous"].as_str().map(str::to_owned), name(number - 1));
        assert_eq!(sidecar["next"].as_str().map(str::to_owned), name(number + 1));
    }
    let said: Vec<_> = (0..125).flat_map(|n| [rtp(Leg::Caller, n), rtp(Leg::Callee, n)]).collect();
    assert_eq!(payloads, said);
}

#[test]
fn no_file_is_larger_than_asked_for() {
    let config = RecordConfig { rotate_bytes: Some(64_000), ..RecordConfig::default() };
    let mut bench = Bench::new(config);
    bench.start(1, b"call", Coverage::Call);
    talk(&mut bench, 0..1000);
    let recorded = bench.finish();
    let sizes: Vec<_> = files(&recorded).iter().map(|name| recorded.bytes(name).len()).collect();
    assert!(sizes.len() > 5 && sizes.iter().all(|&size| size <= 64_000), "{sizes:?}");
    assert!(sizes[..sizes.len() - 1].iter().all(|&size| size >= 62_000), "{sizes:?}");
}

#[test]
fn a_file_ends_in_silence_too_and_a_pause_goes_on_in_the_next_one() {
    let mut bench = Bench::new(by_time(Duration::from_secs(10)));
    bench.start(1, b"call", Coverage::Call);
    talk(&mut bench, 0..50);
    bench.mark(1, 1000, Mark::Paused);
    for seconds in [2, 8, 14] {
        bench.work();
        bench.drain.sweep(Instant::now() + Duration::from_secs(seconds));
    }
    bench.mark(1, 60_000, Mark::Resumed);
    bench.packet(1, Leg::Caller, Channel::Rtp, 60_000, &rtp(Leg::Caller, 50));
    let recorded = bench.finish();
    assert_eq!(files(&recorded), ["call=f.001.pcapng", "call=f.002.pcapng"]);
    let pauses = |number| recorded.json(&format!("call=f.00{number}.json"))["pauses"][0].clone();
    assert_eq!((&pauses(1)["from"], pauses(1)["to"].is_null()), (&rfc3339(at(1000).wall).into(), true));
    assert_eq!(
        (&pauses(2)["from"], &pauses(2)["to"]),
        (&pauses(1)["from"], &rfc3339(at(60_000).wall).into())
    );
}

#[test]
fn the_two_files_of_a_stream_end_together() {
    let config = RecordConfig { format: RecordFormat::Adhoc, ..by_time(Duration::from_secs(1)) };
    let mut bench = Bench::new(config);
    bench.start(1, b"call", Coverage::Stream(Leg::Callee));
    for n in 0..100_u16 {
        let ms = u64::from(n) * 20;
        bench.packet(1, Leg::Callee, Channel::Rtp, ms, &rtp(Leg::Callee, n));
        if n % 25 == 0 {
            bench.packet(1, Leg::Callee, Channel::Rtcp, ms, &[0x80, 201, 0, 1, 0, 0, 0, n as u8]);
        }
    }
    let recorded = bench.finish();
    let expected =
        ["a.json", "a.rtcp", "a.rtp"].map(|end| [1, 2].map(|part| format!("call=f.00{part}.{end}")));
    let mut expected: Vec<_> = expected.into_iter().flatten().collect();
    expected.sort();
    assert_eq!(recorded.names(), expected);
    for part in ["call=f.001.a", "call=f.002.a"] {
        assert_eq!(read::adhoc(&recorded.bytes(&format!("{part}.rtp"))).len(), 50);
        assert_eq!(read::adhoc(&recorded.bytes(&format!("{part}.rtcp"))).len(), 2);
        let sidecar = recorded.json(&format!("{part}.json"));
        assert_eq!((&sidecar["packets"], sidecar["files"].as_array().unwrap().len()), (&52.into(), 2));
    }
    assert_eq!(recorded.json("call=f.001.a.json")["next"], "call=f.002.a.rtp");
}

#[test]
fn a_named_recording_is_rotated_and_a_taken_name_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("name.001.pcap"), "kept").unwrap();
    let config = RecordConfig { format: RecordFormat::Pcap, ..by_time(Duration::from_secs(1)) };
    let mut bench = Bench::in_folder(folder, config);
    let name = b"name".as_slice().into();
    bench.start(1, b"call", Coverage::Named { leg: Leg::Caller, name });
    for n in 0..100 {
        bench.packet(1, Leg::Caller, Channel::Rtp, u64::from(n) * 20, &rtp(Leg::Caller, n));
    }
    let recorded = bench.finish();
    let expected =
        ["name-2.001.json", "name-2.001.pcap", "name-2.002.json", "name-2.002.pcap", "name.001.pcap"];
    assert_eq!(recorded.names(), expected);
    assert_eq!(read::pcap(&recorded.bytes("name-2.002.pcap")).len(), 50);
}

#[test]
fn a_next_file_that_cannot_be_created_costs_nothing() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let mut bench =
        Bench::new(RecordConfig { folder: Some(inner.clone()), ..by_time(Duration::from_secs(1)) });
    bench.start(1, b"call", Coverage::Call);
    talk(&mut bench, 0..20);
    bench.work();
    // The file that is open stays where it is, and there is no folder for a new one.
    let away = outer.path().join("away");
    std::fs::rename(&inner, &away).unwrap();
    talk(&mut bench, 20..80);
    bench.work();
    bench.drain.sweep(Instant::now() + Duration::from_secs(3));
    assert_eq!(std::fs::read_dir(&away).unwrap().count(), 1);
    std::fs::rename(&away, &inner).unwrap();
    talk(&mut bench, 80..100);
    bench.drain.sweep(Instant::now() + Duration::from_secs(5));
    bench.finish();
    let count = |number| {
        let bytes = std::fs::read(inner.join(format!("call=f.00{number}.pcapng"))).unwrap();
        read::pcapng(&bytes).real().count()
    };
    assert_eq!(count(1) + count(2), 200);
}

fn by_time(time: Duration) -> RecordConfig {
    RecordConfig { rotate_time: Some(time), ..RecordConfig::default() }
}

/// Both parties say packets with these numbers, each 20 ms.
fn talk(bench: &mut Bench, numbers: std::ops::Range<u16>) {
    for n in numbers {
        for leg in [Leg::Caller, Leg::Callee] {
            bench.packet(1, leg, Channel::Rtp, u64::from(n) * 20, &rtp(leg, n));
        }
    }
}

fn files(recorded: &Recorded) -> Vec<String> {
    recorded.names().into_iter().filter(|name| name.ends_with(".pcapng")).collect()
}
