//! The journal layout: recordings of a worker share segments, and each can be told from the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rtpproxy_analysis::journal as reader;
use rtpproxy_analysis::unlock::Identities;
use rtpproxy_core::frame;
use rtpproxy_core::journal::{self, Index, Member, Record};
use rtpproxy_core::recording::{Channel, Coverage, EndReason, Leg, Mark};
use rtpproxy_core::salvage::{Event, Piece, Salvage};
use sha2::{Digest, Sha256};

use super::super::files::Site;
use super::super::sidecar::hex;
use super::bench::{Bench, Recorded, rtp};
use crate::config::{RecordConfig, RecordLayout};

#[test]
fn calls_share_a_segment_that_tells_them_apart() {
    let mut bench = Bench::new(config());
    for id in 1..=3 {
        bench.start(id, format!("call-{id}").as_bytes(), Coverage::Call);
    }
    bench.mark(2, 0, Mark::Paused);
    bench.mark(2, 1, Mark::Resumed);
    for n in 0..20 {
        for id in 1..=3 {
            bench.packet(id, Leg::Caller, Channel::Rtp, u64::from(n) * 20, &rtp(Leg::Caller, n + id as u16));
            bench.packet(id, Leg::Callee, Channel::Rtcp, u64::from(n) * 20, b"rtcp");
        }
    }
    bench.end(1, 500, EndReason::Deleted);
    let recorded = bench.finish();
    let [sidecar, segment] = &recorded.names()[..] else { panic!("{:?}", recorded.names()) };
    assert!(journal::is_segment(segment.as_bytes()) && segment.ends_with("Z-w0.pcapng"), "{segment}");

    let bytes = recorded.bytes(segment);
    let read = Read::of(&bytes);
    assert_eq!(read.members.len(), 3);
    for (id, (member, packets)) in (1_u16..).zip(&read.members) {
        assert_eq!(member.call_id.as_bytes(), format!("call-{id}").as_bytes());
        assert_eq!((member.from_tag.as_bytes(), member.recording), (&b"f"[..], u64::from(id)));
        let rtp_packets: Vec<_> = (0..20).map(|n| (0, rtp(Leg::Caller, n + id))).collect();
        let mut expected: Vec<_> =
            rtp_packets.into_iter().flat_map(|rtp| [rtp, (3, b"rtcp".to_vec())]).collect();
        let mut packets = packets.clone();
        expected.sort();
        packets.sort();
        assert_eq!(packets, expected);
    }
    let json = recorded.json(sidecar);
    assert_eq!(
        (&json["format"], &json["packets"], &json["segment"]["recordings"]),
        (&"journal".into(), &120.into(), &3.into())
    );
    assert_eq!(json["files"][0]["sha256"], hex(&Sha256::digest(&bytes)));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    for expected in ["call-id: call-2", "call-2 callee rtcp", "end: deleted at ", "paused at ", "INVITE sip:"]
    {
        assert!(text.contains(expected), "{expected}");
    }
}

#[test]
fn the_index_leads_to_every_packet_and_the_directory_to_every_recording() {
    let mut bench = Bench::new(config());
    let mut seconds = 0;
    for id in 1..=40 {
        bench.start(id, format!("call-{id}").as_bytes(), Coverage::Call);
    }
    for n in 0..200_u16 {
        for id in 1..=40 {
            bench.packet(id, Leg::Caller, Channel::Rtp, u64::from(n) * 20, &rtp(Leg::Caller, n));
        }
        if n % 50 == 49 {
            bench.work();
            seconds += 2;
            bench.drain.sweep(Instant::now() + Duration::from_secs(seconds));
        }
    }
    let recorded = bench.finish();
    let bytes = recorded.bytes(&segments(recorded.folder.path())[0]);
    let indexes = indexes(&bytes);
    let directory: Vec<_> = indexes.iter().filter(|index| index.is_directory).collect();
    let [directory] = directory[..] else { panic!("{} directories", directory.len()) };
    assert_eq!(directory.entries.len(), 40);
    assert!(directory.entries.iter().all(|entry| entry.figures.packets == 200));
    assert!(indexes.len() > 3, "{}", indexes.len());
    for entry in &directory.entries {
        let member = entry.member.as_ref().unwrap();
        let stretches: Vec<_> = indexes
            .iter()
            .flat_map(|index| &index.entries)
            .filter(|entry| entry.first_interface == member.first_interface)
            .flat_map(|entry| &entry.stretches)
            .collect();
        let found =
            stretches.iter().flat_map(|(at, len)| interfaces(&bytes[*at as usize..(at + len) as usize]));
        assert_eq!(found.filter(|interface| *interface == Some(member.first_interface)).count(), 200);
    }
}

#[test]
fn a_call_goes_on_in_the_next_segment_which_tells_of_it_again() {
    let mut bench = Bench::new(RecordConfig { segment: Duration::from_secs(5), ..config() });
    bench.start(1, b"call", Coverage::Call);
    let mut packets = 0;
    for minute in 1..=3 {
        for n in 0..50_u16 {
            let at = minute * 10_000 + u64::from(n) * 20;
            bench.packet(1, Leg::Caller, Channel::Rtp, at, &rtp(Leg::Caller, n));
            packets += 1;
        }
        bench.work();
        bench.drain.sweep(Instant::now() + Duration::from_secs(minute * 10));
    }
    let recorded = bench.finish();
    let segments = segments(recorded.folder.path());
    // The end is told, too.
    assert_eq!(segments.len(), 4);
    let mut found = 0;
    for segment in &segments {
        let read = Read::of(&recorded.bytes(segment));
        let [(member, packets)] = &read.members[..] else { panic!("{:?}", read.members) };
        assert_eq!((member.call_id.as_bytes(), member.recording), (&b"call"[..], 1));
        found += packets.len();
    }
    assert_eq!(found, packets);
}

#[test]
fn a_copy_under_a_name_has_its_own_file() {
    let mut bench = Bench::new(config());
    bench.start(1, b"call", Coverage::Named { leg: Leg::Caller, name: b"mine".as_slice().into() });
    bench.packet(1, Leg::Caller, Channel::Rtp, 0, &rtp(Leg::Caller, 1));
    assert_eq!(bench.finish().names(), ["mine.json", "mine.pcapng"]);
}

#[test]
fn what_a_killed_relay_leaves_can_be_read_up_to_its_last_flush() {
    let mut bench = Bench::new(config());
    for id in 1..=3 {
        bench.start(id, format!("call-{id}").as_bytes(), Coverage::Call);
        for n in 0..50 {
            bench.packet(id, Leg::Caller, Channel::Rtp, u64::from(n) * 20, &rtp(Leg::Caller, n));
        }
    }
    let folder = bench.kill();
    let [part] = &segments(folder.path())[..] else { panic!() };
    assert!(part.ends_with(".pcapng.part"), "{part}");
    let read = Read::of(&std::fs::read(folder.path().join(part)).unwrap());
    assert_eq!(read.members.iter().map(|(_, packets)| packets.len()).collect::<Vec<_>>(), [50, 50, 50]);
}

#[test]
fn a_segment_that_is_removed_is_missed_by_those_that_are_recorded() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let mut bench = Bench::new(RecordConfig { folder: Some(inner.clone()), ..config() });
    bench.start(1, b"call", Coverage::Call);
    send(&mut bench, 0..100);
    bench.drain.sweep(Instant::now() + Duration::from_secs(1));
    std::fs::remove_dir_all(&inner).unwrap();
    send(&mut bench, 100..120);
    bench.drain.sweep(Instant::now() + Duration::from_secs(2));
    std::fs::create_dir(&inner).unwrap();
    bench.drain.sweep(Instant::now() + Duration::from_secs(4));
    send(&mut bench, 120..140);
    bench.finish();
    assert_whole(&[inner], 280);
}

#[test]
fn what_was_over_in_a_segment_that_is_removed_is_counted() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let mut bench = Bench::new(RecordConfig { folder: Some(inner.clone()), ..config() });
    let ledger = Arc::clone(&bench.ledger);
    for id in [1, 2] {
        bench.start(id, format!("call-{id}").as_bytes(), Coverage::Call);
        for n in 0..50 {
            bench.packet(id, Leg::Caller, Channel::Rtp, u64::from(n) * 20, &rtp(Leg::Caller, n));
        }
    }
    bench.end(2, 2000, EndReason::Deleted);
    bench.work();
    bench.drain.sweep(Instant::now() + Duration::from_secs(2));
    std::fs::remove_dir_all(&inner).unwrap();
    send(&mut bench, 100..120);
    bench.drain.sweep(Instant::now() + Duration::from_secs(4));
    std::fs::create_dir(&inner).unwrap();
    bench.drain.sweep(Instant::now() + Duration::from_secs(6));
    // The other call has a gap of as many.
    assert_eq!(ledger.totals().refused.load(Ordering::Relaxed), 50);
    bench.finish();
}

#[test]
fn a_folder_that_takes_nothing_is_left_for_the_other_one() {
    let outer = tempfile::tempdir().unwrap();
    let [main, fallback] = ["main", "fallback"].map(|name| outer.path().join(name));
    std::fs::create_dir(&fallback).unwrap();
    let config = RecordConfig { folder: Some(main.clone()), fallback: Some(fallback.clone()), ..config() };
    let mut bench = Bench::new(config);
    bench.start(1, b"call", Coverage::Call);
    send(&mut bench, 0..50);
    bench.drain.sweep(Instant::now() + Duration::from_secs(2));
    bench.drain.sweep(Instant::now() + Duration::from_secs(4));
    send(&mut bench, 50..100);
    bench.finish();
    assert_whole(&[fallback], 200);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// For any calls, disks that fail and segments: what is in the segments, and what they say is missing, is all.
    #[test]
    fn the_segments_hold_what_was_recorded_less_what_they_say_is_missing(
        steps in prop::collection::vec((0_u8..12, 1_u64..4, 0_u64..3), 1..60),
        buffer_bytes in prop::sample::select(vec![0, 4 << 20]),
    ) {
        let outer = tempfile::tempdir().unwrap();
        let [main, fallback] = ["main", "fallback"].map(|name| outer.path().join(name));
        std::fs::create_dir(&fallback).unwrap();
        std::fs::create_dir(&main).unwrap();
        let config = RecordConfig {
            folder: Some(main.clone()),
            fallback: Some(fallback.clone()),
            segment: Duration::from_secs(5),
            buffer_bytes,
            ..config()
        };
        let mut bench = Bench::new(config);
        let (mut sent, mut clock, mut over) = (BTreeMap::<_, u64>::new(), 0, BTreeSet::new());
        let mut is_low = false;
        for id in 1..4 {
            bench.start(id, format!("call-{id}").as_bytes(), Coverage::Call);
        }
        for (n, (step, id, seconds)) in (0_u16..).zip(&steps) {
            match step {
                0..=2 => {
                    is_low = *step == 0;
                    bench.watch.set_low(Site::Main, is_low);
                }
                // The end of a call that no disk takes may be told nowhere.
                3 if !is_low => {
                    over.insert(*id);
                    bench.end(*id, u64::from(n) * 2000, EndReason::Deleted);
                }
                3 | 4 => {
                    bench.work();
                    clock += seconds;
                    bench.drain.sweep(Instant::now() + Duration::from_secs(clock));
                }
                _ => {
                    for part in 0..100 {
                        let at = u64::from(n) * 2000 + part * 20;
                        bench.packet(*id, Leg::Caller, Channel::Rtp, at, &rtp(Leg::Caller, n));
                        *sent.entry(*id).or_default() += u64::from(!over.contains(id));
                    }
                }
            }
        }
        bench.finish();
        cut_is_all(&[main.clone(), fallback.clone()], &sent)?;
        let mut found = BTreeMap::new();
        for folder in [main, fallback] {
            for segment in segments(&folder) {
                let read = Read::of(&std::fs::read(folder.join(segment)).unwrap());
                for (member, packets) in &read.members {
                    let id = std::str::from_utf8(member.call_id.as_bytes()).unwrap()[5..].parse::<u64>().unwrap();
                    *found.entry(id).or_insert(0) += packets.len() as u64 + read.dropped[&member.first_interface];
                }
            }
        }
        for (id, sent) in sent {
            prop_assert_eq!(found.get(&id).copied().unwrap_or(0), sent, "call {}", id);
        }
    }
}

/// What is cut out of the journal of each call, and what that says is missing, is all of it.
fn cut_is_all(folders: &[PathBuf], sent: &BTreeMap<u64, u64>) -> Result<(), TestCaseError> {
    let paths = reader::segments(folders).unwrap();
    let (calls, errors) = reader::calls(&paths, &Identities::default(), &|_| true, &|| {});
    prop_assert!(errors.is_empty(), "{:?}", errors);
    let mut found = BTreeMap::new();
    for call in calls {
        let id = std::str::from_utf8(call.call_id.as_bytes()).unwrap()[5..].parse::<u64>().unwrap();
        let mut bytes = Vec::new();
        let cut = call.cut(&mut bytes, &Identities::default()).unwrap();
        prop_assert_eq!((cut.packets, cut.bytes), (call.figures.packets, call.figures.bytes), "call {}", id);
        let packets = super::read::pcapng(&bytes).packets;
        prop_assert_eq!(
            packets.iter().filter(|packet| packet.interface != "synthetic").count() as u64,
            cut.packets
        );
        found.insert(id, cut.packets + cut.dropped);
    }
    for (id, sent) in sent {
        prop_assert_eq!(found.get(id).copied().unwrap_or(0), *sent, "call {}", id);
    }
    Ok(())
}

fn config() -> RecordConfig {
    RecordConfig { layout: RecordLayout::Journal, ..RecordConfig::default() }
}

/// Packets of both parties of call 1.
fn send(bench: &mut Bench, range: std::ops::Range<u16>) {
    for n in range {
        for leg in [Leg::Caller, Leg::Callee] {
            bench.packet(1, leg, Channel::Rtp, u64::from(n) * 20, &rtp(leg, n));
        }
    }
    bench.work();
}

/// Whether the segments of one call hold so many packets, or say that they are missing.
fn assert_whole(folders: &[PathBuf], expected: u64) {
    let (mut packets, mut dropped) = (0, 0);
    for folder in folders {
        for segment in segments(folder) {
            let read = Read::of(&std::fs::read(folder.join(segment)).unwrap());
            packets += read.members.iter().map(|(_, packets)| packets.len() as u64).sum::<u64>();
            dropped += read.dropped.values().sum::<u64>();
        }
    }
    assert!(packets >= 80, "{packets}");
    assert_eq!(packets + dropped, expected);
}

fn segments(folder: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.contains(".pcapng")).collect();
    names.sort();
    names
}

/// The number of an interface among those of its recording, and a payload.
type Numbered = (u32, Vec<u8>);

/// What a segment holds.
#[derive(Debug, Default)]
struct Read {
    /// With their packets.
    members: Vec<(Member, Vec<Numbered>)>,
    /// What is missing, by first interfaces.
    dropped: BTreeMap<u32, u64>,
}

impl Read {
    fn of(bytes: &[u8]) -> Self {
        let mut read = Self::default();
        let mut salvage = Salvage::new(bytes, None).unwrap();
        while let Some(event) = salvage.next().unwrap() {
            let Event::Piece { bytes, what, .. } = event else { panic!("{event:?}") };
            if let Some(Record::Member(member)) = Record::parse(bytes) {
                read.dropped.insert(member.first_interface, 0);
                read.members.push((member, Vec::new()));
            }
            let Piece::Packet(packet) = what else { continue };
            let (member, packets) =
                read.members.iter_mut().find(|(member, _)| member.has(packet.interface)).unwrap();
            let number = packet.interface - member.first_interface;
            if number < 4 {
                *read.dropped.get_mut(&member.first_interface).unwrap() += packet.dropped;
                let frame::Datagram { payload, .. } = packet.datagram.unwrap();
                packets.push((number, payload.to_vec()));
            }
        }
        for (interface, dropped) in trailing(bytes) {
            let (member, _) = read.members.iter().find(|(member, _)| member.has(interface)).unwrap();
            *read.dropped.get_mut(&member.first_interface).unwrap() += dropped;
        }
        read
    }
}

/// Packets that are missing at the ends of streams: what the remarks at the totals of the interfaces say.
fn trailing(bytes: &[u8]) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    for block in blocks(bytes).filter(|block| word(block, 0) == 5) {
        let text = String::from_utf8_lossy(block);
        for (at, _) in text.match_indices("gap: ") {
            let number = text[at + 5..].split(' ').next().unwrap();
            found.push((word(block, 8), number.parse().unwrap()));
        }
    }
    found
}

fn indexes(bytes: &[u8]) -> Vec<Index> {
    let mut found = Vec::new();
    let mut at = 0;
    for block in blocks(bytes) {
        if let Some(Record::Index(index)) = Record::parse(block) {
            assert_eq!(index.at, at);
            assert_eq!(index.previous, found.last().map(|last: &Index| last.at));
            found.push(index);
        }
        at += block.len() as u64;
    }
    assert!(matches!(blocks(bytes).last().and_then(Record::parse), Some(Record::Index(_))));
    found
}

fn blocks(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = bytes.get(4..8)?;
        let (block, rest) = bytes.split_at(u32::from_ne_bytes(len.try_into().unwrap()) as usize);
        bytes = rest;
        Some(block)
    })
}

/// The interfaces of the packets among some blocks.
fn interfaces(bytes: &[u8]) -> Vec<Option<u32>> {
    blocks(bytes).map(|block| (word(block, 0) == 6).then(|| word(block, 8))).collect()
}

fn word(block: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(block[at..at + 4].try_into().unwrap())
}

#[test]
fn other_programs_read_a_segment() {
    let mut bench = Bench::new(config());
    for id in 1..=2 {
        bench.start(id, format!("call-{id}").as_bytes(), Coverage::Call);
        for n in 0..50 {
            bench.packet(id, Leg::Caller, Channel::Rtp, u64::from(n) * 20, &rtp(Leg::Caller, n));
            bench.packet(id, Leg::Callee, Channel::Rtp, u64::from(n) * 20, &rtp(Leg::Callee, n));
        }
    }
    let recorded: Recorded = bench.finish();
    let path = recorded.path(&segments(recorded.folder.path())[0]);
    let mut tshark = std::process::Command::new("tshark");
    tshark.arg("-r").arg(&path).args(["-T", "fields", "-e", "frame.interface_name", "-Y", "rtp"]);
    let Ok(output) = tshark.output() else {
        eprintln!("skipped: no tshark");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    for name in ["call-1 caller", "call-2 callee"] {
        assert_eq!(text.lines().filter(|line| *line == name).count(), 50, "{name}: {text}");
    }
}
