//! Disks that fail: nothing is lost that memory can hold, all that is lost is counted, and the rest is in files.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rtpproxy_core::recording::{Channel, Coverage, EndReason, Leg, Mark};
use tempfile::TempDir;

use super::super::files::Site;
use super::bench::{Bench, at, rtp};
use super::read;
use crate::config::RecordConfig;

#[test]
fn a_folder_that_is_missing_at_first_costs_nothing() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("inner");
    let mut bench = Bench::new(RecordConfig { folder: Some(inner.clone()), ..RecordConfig::default() });
    for (id, call_id) in [(1, b"call"), (2, b"over")] {
        bench.start(id, call_id, Coverage::Call);
        bench.packet(id, Leg::Caller, Channel::Rtp, 1, &rtp(Leg::Caller, 1));
    }
    bench.end(2, 5, EndReason::Deleted);
    bench.work();
    std::fs::create_dir(&inner).unwrap();
    sweep(&mut bench, 1);
    bench.packet(1, Leg::Caller, Channel::Rtp, 2, &rtp(Leg::Caller, 2));
    bench.finish();
    for (name, packets) in [("call=f.pcapng", 2), ("over=f.pcapng", 1)] {
        let file = read::pcapng(&std::fs::read(inner.join(name)).unwrap());
        assert_eq!(file.real().count(), packets);
        assert!(file.real().all(|packet| packet.drops.is_none()));
    }
}

#[test]
fn without_memory_and_folder_what_is_missing_is_said() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("inner");
    let config = RecordConfig { folder: Some(inner.clone()), buffer_bytes: 0, ..RecordConfig::default() };
    let mut bench = Bench::new(config);
    bench.start(1, b"call", Coverage::Call);
    for n in 0..1000 {
        bench.packet(1, Leg::Caller, Channel::Rtp, n, &rtp(Leg::Caller, n as u16));
        bench.work();
    }
    std::fs::create_dir(&inner).unwrap();
    sweep(&mut bench, 1);
    bench.packet(1, Leg::Caller, Channel::Rtp, 1000, &rtp(Leg::Caller, 1000));
    bench.finish();
    let file = read::pcapng(&std::fs::read(inner.join("call=f.pcapng")).unwrap());
    let (count, last) = (file.real().count() as u64, file.real().last().unwrap());
    assert_eq!(last.drops, Some(1001 - count));
    assert!(last.comments[0].contains("No such file"), "{:?}", last.comments);
}

#[test]
fn a_recording_whose_folder_is_removed_goes_on_in_the_next_one_and_says_what_is_lost() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let mut bench = Bench::new(RecordConfig { folder: Some(inner.clone()), ..RecordConfig::default() });
    bench.start(1, b"call", Coverage::Call);
    send(&mut bench, 0..100);
    sweep(&mut bench, 1);
    std::fs::remove_dir_all(&inner).unwrap();
    send(&mut bench, 100..120);
    sweep(&mut bench, 2);
    std::fs::create_dir(&inner).unwrap();
    sweep(&mut bench, 4);
    send(&mut bench, 120..140);
    bench.finish();
    let file = read::pcapng(&std::fs::read(inner.join("call=f.pcapng")).unwrap());
    let sidecar = json(&inner.join("call=f.json"));
    let real: Vec<_> = file.real().collect();
    assert_eq!(real.last().unwrap().datagram.payload, rtp(Leg::Callee, 139));
    assert_eq!(sidecar["packets"], real.len());
    assert_eq!(sidecar["dropped"], 280 - real.len());
    assert!(real.len() >= 80, "{}", real.len());
    let drops: Vec<_> = real.iter().filter_map(|packet| packet.drops).collect();
    assert_eq!(drops.iter().sum::<u64>() as usize, 280 - real.len());
    let gaps = sidecar["gaps"].as_array().unwrap();
    assert!(gaps.iter().all(|gap| gap["cause"] == "the file was removed"), "{gaps:?}");
}

#[test]
fn what_is_lost_after_the_end_is_counted_too() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let mut bench = Bench::new(RecordConfig { folder: Some(inner.clone()), ..RecordConfig::default() });
    bench.start(1, b"call", Coverage::Call);
    for n in 0..100 {
        bench.packet(1, Leg::Caller, Channel::Rtp, u64::from(n) * 20, &rtp(Leg::Caller, n));
    }
    bench.work();
    sweep(&mut bench, 1);
    std::fs::remove_dir_all(&inner).unwrap();
    bench.end(1, 2000, EndReason::Deleted);
    bench.work();
    sweep(&mut bench, 3);
    std::fs::create_dir(&inner).unwrap();
    sweep(&mut bench, 5);
    bench.finish();
    let kept = read::pcapng(&std::fs::read(inner.join("call=f.pcapng")).unwrap()).real().count();
    let sidecar = json(&inner.join("call=f.json"));
    assert_eq!((&sidecar["packets"], &sidecar["dropped"]), (&kept.into(), &(100 - kept).into()));
    assert!(kept < 100);
}

#[test]
fn too_little_free_space_pauses_a_recording_until_there_is_more() {
    let mut bench = Bench::new(RecordConfig::default());
    bench.start(1, b"call", Coverage::Call);
    bench.work();
    let part = bench.folder.path().join("call=f.pcapng.part");
    let before = part.metadata().unwrap().len();
    bench.watch.set_low(Site::Main, true);
    bench.start(2, b"later", Coverage::Call);
    for n in 0..500 {
        bench.packet(1, Leg::Caller, Channel::Rtp, u64::from(n) * 20, &rtp(Leg::Caller, n));
        bench.work();
    }
    sweep(&mut bench, 1);
    assert_eq!(part.metadata().unwrap().len(), before);
    assert!(!bench.folder.path().join("later=f.pcapng.part").exists());
    bench.watch.set_low(Site::Main, false);
    sweep(&mut bench, 2);
    assert!(part.metadata().unwrap().len() > before);
    assert!(bench.folder.path().join("later=f.pcapng.part").exists());
    let recorded = bench.finish();
    assert_eq!(read::pcapng(&recorded.bytes("call=f.pcapng")).real().count(), 500);
    assert_eq!(recorded.json("call=f.json")["dropped"], 0);
}

#[test]
fn a_recording_goes_on_in_the_fallback_folder_and_both_files_say_so() {
    let fallback = tempfile::tempdir().unwrap();
    let config = RecordConfig { fallback: Some(fallback.path().to_owned()), ..RecordConfig::default() };
    let mut bench = Bench::new(config);
    bench.start(1, b"call", Coverage::Call);
    send(&mut bench, 0..100);
    sweep(&mut bench, 1);
    bench.watch.set_low(Site::Main, true);
    send(&mut bench, 100..200);
    for second in [2, 3, 4, 5, 6] {
        sweep(&mut bench, second);
    }
    assert!(fallback.path().join("call=f.pcapng.part").exists());
    send(&mut bench, 200..300);
    let recorded = bench.finish();

    let (main, second) = (recorded.path("call=f.pcapng"), fallback.path().join("call=f.pcapng"));
    let files = [&main, &second].map(|path| read::pcapng(&std::fs::read(path).unwrap()));
    let counts = files.each_ref().map(|file| file.real().count());
    assert!(counts[0] > 0 && counts[1] > 0 && counts[0] + counts[1] == 600, "{counts:?}");
    // Each can be opened alone: the head is told again.
    assert!(files[1].synthetic()[0].starts_with("INVITE "));
    let sidecars = [recorded.json("call=f.json"), json(&fallback.path().join("call=f.json"))];
    for (sidecar, count) in sidecars.iter().zip(counts) {
        assert_eq!((&sidecar["packets"], &sidecar["dropped"]), (&count.into(), &0.into()));
    }
    assert_eq!(sidecars[0]["moved_to"], second.to_str().unwrap());
    assert_eq!(sidecars[0]["ended"]["reason"], "moved");
    assert_eq!(sidecars[1]["moved_from"], main.to_str().unwrap());
    assert_eq!(sidecars[1]["ended"]["reason"], "shutdown");
}

#[test]
fn a_recording_that_no_folder_takes_starts_in_the_fallback_folder() {
    let fallback = tempfile::tempdir().unwrap();
    let config = RecordConfig {
        folder: Some("/nonexistent".into()),
        fallback: Some(fallback.path().to_owned()),
        ..RecordConfig::default()
    };
    let mut bench = Bench::new(config);
    bench.start(1, b"call", Coverage::Call);
    bench.packet(1, Leg::Caller, Channel::Rtp, 1, &rtp(Leg::Caller, 1));
    bench.work();
    sweep(&mut bench, 2);
    assert!(!fallback.path().join("call=f.pcapng.part").exists());
    sweep(&mut bench, 4);
    bench.finish();
    assert_eq!(
        read::pcapng(&std::fs::read(fallback.path().join("call=f.pcapng")).unwrap()).real().count(),
        1
    );
    assert!(json(&fallback.path().join("call=f.json"))["moved_from"].is_null());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_files_hold_what_was_recorded_less_what_the_counters_say(
        steps in prop::collection::vec(step(), 1..60),
        buffer_bytes in prop_oneof![Just(0), Just(1 << 20)],
        has_fallback: bool,
        rotate_bytes in prop::option::of(50_000_u64..500_000),
        rotate_time in prop::option::of((500..5000_u64).prop_map(Duration::from_millis)),
    ) {
        let fallback = tempfile::tempdir().unwrap();
        let config = RecordConfig {
            buffer_bytes,
            fallback: has_fallback.then(|| fallback.path().to_owned()),
            rotate_bytes,
            rotate_time,
            ..RecordConfig::default()
        };
        let is_rotating = config.is_rotating();
        let mut bench = Bench::new(config);
        bench.start(1, b"call", Coverage::Call);
        let sent = carry_out(&mut bench, &steps);
        let recorded = bench.finish();
        expect_all(&sent, &[&recorded.folder, &fallback]);
        if is_rotating {
            expect_chain(&[&recorded.folder, &fallback]);
        }
    }
}

/// What happens to a recording.
#[derive(Clone, Debug)]
enum Step {
    /// Packets come, so many at once.
    Packets(u16),
    /// The recorder works.
    Work,
    /// So many seconds pass.
    Seconds(u64),
    /// A disk takes nothing, or does again.
    Low(Site, bool),
    Mark(Mark),
}

fn step() -> impl Strategy<Value = Step> {
    let site = || prop_oneof![Just(Site::Main), Just(Site::Fallback)];
    prop_oneof![
        4 => (1..400_u16).prop_map(Step::Packets),
        3 => Just(Step::Work),
        2 => (1..6_u64).prop_map(Step::Seconds),
        2 => (site(), any::<bool>()).prop_map(|(site, is_low)| Step::Low(site, is_low)),
        1 => prop_oneof![Just(Mark::Paused), Just(Mark::Resumed)].prop_map(Step::Mark),
    ]
}

/// Returns what was sent on each interface: payloads and when they came.
fn carry_out(bench: &mut Bench, steps: &[Step]) -> BTreeMap<&'static str, Vec<(Vec<u8>, Duration)>> {
    let mut sent: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let streams = [
        ("caller", Leg::Caller, Channel::Rtp),
        ("callee", Leg::Callee, Channel::Rtp),
        ("callee rtcp", Leg::Callee, Channel::Rtcp),
    ];
    let (mut number, mut seconds) = (0_u16, 0);
    for step in steps {
        match step {
            Step::Packets(count) => {
                for _ in 0..*count {
                    let (name, leg, channel) = streams[usize::from(number % 3)];
                    let (ms, payload) = (u64::from(number), rtp(leg, number));
                    bench.packet(1, leg, channel, ms, &payload);
                    sent.entry(name).or_default().push((payload, Duration::from_nanos(at(ms).wall.0)));
                    number += 1;
                }
            }
            Step::Work => bench.work(),
            Step::Seconds(more) => {
                bench.work();
                seconds += more;
                sweep(bench, seconds);
            }
            Step::Low(site, is_low) => bench.watch.set_low(*site, *is_low),
            Step::Mark(mark) => bench.mark(1, number.into(), mark.clone()),
        }
    }
    sent
}

fn expect_all(sent: &BTreeMap<&'static str, Vec<(Vec<u8>, Duration)>>, folders: &[&TempDir]) {
    let mut found: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let mut gaps: Vec<(String, String, u64)> = Vec::new();
    let mut dropped = 0;
    for path in folders.iter().flat_map(|folder| std::fs::read_dir(folder.path()).unwrap()) {
        let path = path.unwrap().path();
        let name = path.to_str().unwrap();
        assert!(name.ends_with(".pcapng") || name.ends_with(".json"), "{name}");
        let Some(stem) = name.strip_suffix(".pcapng") else { continue };
        let file = read::pcapng(&std::fs::read(&path).unwrap());
        let sidecar = json(Path::new(&format!("{stem}.json")));
        assert_eq!(sidecar["packets"], file.real().count(), "{name}");
        assert_eq!((&sidecar["unsaved"], &sidecar["omitted"]), (&0.into(), &0.into()));
        dropped += sidecar["dropped"].as_u64().unwrap();
        for gap in sidecar["gaps"].as_array().unwrap() {
            let text = |field: &str| gap[field].as_str().unwrap().to_owned();
            let suffix = if gap["channel"] == "rtcp" { " rtcp" } else { "" };
            gaps.push((format!("{}{suffix}", text("leg")), text("from"), gap["packets"].as_u64().unwrap()));
        }
        for packet in file.real() {
            found.entry(packet.interface.clone()).or_default().push(packet.datagram.payload.clone());
        }
    }
    for (name, sent) in sent {
        let mut found = found.remove(*name).unwrap_or_default();
        // Folders are read in any order, and a recording may have been in each several times.
        found.sort();
        let missing = sent.len() - found.len();
        let told: u64 = gaps.iter().filter(|(leg, ..)| leg == name).map(|(_, _, packets)| packets).sum();
        assert_eq!(missing as u64, told, "{name}");
        found.dedup();
        assert_eq!(found.len(), sent.len() - missing, "{name}: a packet is there twice");
        assert!(found.iter().all(|payload| sent.iter().any(|(sent, _)| sent == payload)), "{name}");
        dropped -= told;
    }
    assert!(found.is_empty() && dropped == 0);
}

/// The files are numbered without a gap, name each other, stand alone, and are in the order of time.
fn expect_chain(folders: &[&TempDir]) {
    let paths = folders.iter().flat_map(|folder| std::fs::read_dir(folder.path()).unwrap());
    let mut files: Vec<_> = paths
        .map(|path| path.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcapng"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    files.sort();
    let mut before = Duration::ZERO;
    for (index, (name, path)) in files.iter().enumerate() {
        assert_eq!(*name, format!("call=f.{:03}.pcapng", index + 1));
        let sidecar = json(&path.with_extension("json"));
        assert_eq!(sidecar["part"], index + 1);
        let beside = |index: Option<usize>| index.and_then(|index| files.get(index)).map(|(name, _)| &**name);
        assert_eq!(sidecar["previous"].as_str(), beside(index.checked_sub(1)), "{name}");
        assert_eq!(sidecar["next"].as_str(), beside(Some(index + 1)), "{name}");
        let reason = sidecar["ended"]["reason"].as_str().unwrap();
        let moved = sidecar["moved_to"].as_str().map(Path::new);
        match reason {
            "rotated" => assert_eq!(moved, None),
            "moved" => assert_eq!(moved, Some(&*files[index + 1].1)),
            _ => assert_eq!((reason, index + 1), ("shutdown", files.len())),
        }
        let file = read::pcapng(&std::fs::read(path).unwrap());
        if file.real().count() > 0 {
            assert_eq!(file.comments[0], "call-id: call");
            assert!(file.packets[0].interface == "synthetic" && file.synthetic()[0].starts_with("INVITE "));
        }
        for packet in &file.packets {
            assert!(packet.datagram.at >= before, "{name}: a packet is older than one before it");
            before = packet.datagram.at;
        }
    }
}

/// Both parties say packets with these numbers in recording 1.
fn send(bench: &mut Bench, numbers: std::ops::Range<u16>) {
    for number in numbers {
        for leg in [Leg::Caller, Leg::Callee] {
            bench.packet(1, leg, Channel::Rtp, u64::from(number) * 20, &rtp(leg, number));
        }
    }
    bench.work();
}

fn sweep(bench: &mut Bench, seconds: u64) {
    bench.drain.sweep(Instant::now() + Duration::from_secs(seconds));
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
