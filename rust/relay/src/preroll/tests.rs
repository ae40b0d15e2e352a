//! The store on its own: never above its limit, in order, and what is not there is counted.

use std::collections::HashMap as Expected;

use proptest::prelude::*;
use rtpproxy_core::effects::Payload;
use rtpproxy_core::recording::{Channel, RecordingId};
use rtpproxy_core::time::{Now, Wall};

use super::*;

const SPAN: Duration = Duration::from_secs(10);
const MINUTE: u64 = 60_000;

pub(crate) fn id(number: u64, leg: Leg) -> KeptId {
    KeptId { number, leg }
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(1_000_000_000), wall: Wall(1_700_000_000_000_000_000) } + Duration::from_millis(ms)
}

pub(crate) fn packet(id: KeptId, at: Now) -> KeptPacket {
    KeptPacket {
        id,
        channel: Channel::Rtp,
        at,
        src: ([192, 0, 2, 1], 4000).into(),
        dst: ([192, 0, 2, 2], 5000).into(),
        payload: Payload::Received,
    }
}

fn caller(number: u64) -> KeptId {
    id(number, Leg::Caller)
}

fn order(ids: [Option<KeptId>; 2], ms: u64) -> HandOver {
    HandOver { to: RecordingId(1), at: at(ms), kept: ids, stays: false }
}

/// The payloads that are handed over, and how many were lost.
fn take(store: &mut Store, ids: [Option<KeptId>; 2], ms: u64) -> (Vec<Vec<u8>>, u64) {
    let Some(mut preroll) = store.hand_over(&order(ids, ms)) else { return (Vec::new(), 0) };
    let promised = preroll.packets();
    let mut payloads = Vec::new();
    while let Some(kept) = preroll.next() {
        payloads.push(kept.payload.to_vec());
    }
    assert_eq!(payloads.len() as u64, promised);
    (payloads, preroll.lost)
}

/// 20 ms of G.711 at `ms`, told apart by `n`.
fn speak(store: &mut Store, id: KeptId, ms: u64, n: u64) {
    store.keep(&packet(id, at(ms)), &speech(n));
}

fn speech(n: u64) -> Vec<u8> {
    let mut payload = vec![0xd5; 172];
    payload[..8].copy_from_slice(&n.to_le_bytes());
    payload
}

#[test]
fn the_last_seconds_come_out_as_they_went_in() {
    let memory = Memory::new(1 << 20, 1);
    let mut store = Store::new(&memory, 0, SPAN);
    for n in 0..1500 {
        speak(&mut store, caller(1), n * 20, n);
    }
    // 30 s went in; the command comes with the last one.
    let (payloads, lost) = take(&mut store, [Some(caller(1)), None], 1499 * 20);
    assert_eq!(payloads, (999..1500).map(speech).collect::<Vec<_>>());
    assert_eq!((lost, memory.figures().lost), (0, 0));
    assert_eq!(take(&mut store, [Some(caller(1)), None], MINUTE), (vec![], 0), "nothing comes twice");
    let figures = memory.figures();
    assert_eq!((figures.used_bytes, figures.sessions), (0, 0));
}

#[test]
fn both_parties_come_out_in_the_order_of_time() {
    let memory = Memory::new(1 << 20, 1);
    let mut store = Store::new(&memory, 0, SPAN);
    let both = [Leg::Caller, Leg::Callee].map(|leg| id(1, leg));
    for n in 0..100 {
        speak(&mut store, both[0], n * 20, 2 * n);
    }
    for n in 0..100 {
        speak(&mut store, both[1], n * 20 + 7, 2 * n + 1);
    }
    assert_eq!(memory.figures().sessions, 1);
    let (payloads, _) = take(&mut store, both.map(Some), 2000);
    assert_eq!(payloads, (0..200).map(speech).collect::<Vec<_>>());
    assert_eq!(memory.figures().sessions, 0);
}

#[test]
fn a_packet_keeps_its_times_addresses_and_port() {
    let memory = Memory::new(1 << 20, 1);
    let mut store = Store::new(&memory, 0, SPAN);
    let mut packets = Vec::new();
    for n in 0..20_u16 {
        let channel = if n.is_multiple_of(3) { Channel::Rtcp } else { Channel::Rtp };
        let src = if n.is_multiple_of(2) {
            ([192, 0, 2, 1], 4000 + n).into()
        } else {
            "[2001:db8::1]:9".parse().unwrap()
        };
        packets.push(KeptPacket { channel, src, ..packet(caller(1), at(n.into())) });
    }
    for packet in &packets {
        store.keep(packet, b"payload");
    }
    let mut preroll = store.hand_over(&order([Some(caller(1)), None], 100)).unwrap();
    assert_eq!(preroll.first(), Some(at(0).wall));
    for packet in &packets {
        let kept = preroll.next().unwrap();
        assert_eq!(
            (kept.leg, kept.channel, kept.at, kept.src, kept.dst, kept.payload),
            (Leg::Caller, packet.channel, packet.at, packet.src, packet.dst, &b"payload"[..])
        );
    }
    assert_eq!(preroll.next(), None);
}

#[test]
fn the_longest_and_the_shortest_packets_are_kept() {
    let memory = Memory::new(1 << 20, 1);
    let mut store = Store::new(&memory, 0, SPAN);
    let payloads: Vec<_> = [8192, 0, 1, 4000, 4096, 172, 8192].map(|len| vec![len as u8; len]).into();
    for (n, payload) in (0..).zip(&payloads) {
        store.keep(&packet(caller(1), at(n)), payload);
    }
    assert_eq!(take(&mut store, [Some(caller(1)), None], 100), (payloads, 0));
    assert_eq!(memory.figures().used_bytes, 0);
}

#[test]
fn the_one_that_holds_most_loses_its_oldest() {
    let memory = Memory::new(64 * Block::SIZE, 1);
    let mut store = Store::new(&memory, 0, SPAN * 100);
    for n in 0..5000 {
        speak(&mut store, caller(1), n, n);
    }
    for n in 0..100 {
        speak(&mut store, caller(2), 5000 + n, n);
    }
    let (small, lost) = take(&mut store, [Some(caller(2)), None], 6000);
    assert_eq!((small, lost), ((0..100).map(speech).collect(), 0));
    let (large, lost) = take(&mut store, [Some(caller(1)), None], 6000);
    assert!(large.len() > 1000, "{}", large.len());
    assert_eq!(large, (5000 - large.len() as u64..5000).map(speech).collect::<Vec<_>>());
    assert_eq!(large.len() as u64 + lost, 5000);
    assert_eq!(memory.figures().lost, lost);
}

#[test]
fn equals_do_not_rob_each_other() {
    let memory = Memory::new(4 * Block::SIZE, 1);
    let mut store = Store::new(&memory, 0, SPAN);
    for n in 0..1000 {
        for number in 0..40 {
            speak(&mut store, caller(number), n, n);
        }
    }
    let held: Vec<_> = (0..40).map(|number| take(&mut store, [Some(caller(number)), None], 1000)).collect();
    assert_eq!(held.iter().filter(|(packets, _)| !packets.is_empty()).count(), 4);
    for (packets, lost) in held.iter().filter(|(packets, _)| !packets.is_empty()) {
        assert_eq!(packets.last(), Some(&speech(999)), "the last ones stay");
        assert_eq!(packets.len() as u64 + lost, 1000);
    }
}

#[test]
fn what_a_silent_party_said_is_freed_when_its_time_is_over() {
    let memory = Memory::new(1 << 20, 1);
    let mut store = Store::new(&memory, 0, SPAN);
    assert_eq!(store.deadline(), Mono(u64::MAX));
    for n in 0..100 {
        speak(&mut store, caller(1), n, n);
    }
    let mut ms = 0;
    while store.deadline() < Mono(u64::MAX) {
        assert!(ms <= 11_100, "still {} bytes", memory.figures().used_bytes);
        store.sweep(at(ms).mono);
        ms += 100;
    }
    assert!(ms > 10_000, "{ms}");
    assert_eq!((memory.figures().used_bytes, memory.figures().lost), (0, 0));
    assert!(store.hand_over(&order([Some(caller(1)), None], ms)).is_none());
}

#[test]
fn losses_older_than_the_span_are_no_news() {
    let memory = Memory::new(8 * Block::SIZE, 1);
    let mut store = Store::new(&memory, 0, SPAN);
    for n in 0..400 {
        speak(&mut store, caller(1), n, n);
    }
    assert!(memory.figures().lost > 200);
    for n in 400..480 {
        speak(&mut store, caller(1), MINUTE + n, n);
    }
    let (payloads, lost) = take(&mut store, [Some(caller(1)), None], MINUTE + 480);
    assert_eq!((payloads, lost), ((400..480).map(speech).collect(), 0));
}

#[test]
fn a_shared_hand_over_leaves_everything_where_it_is() {
    let memory = Memory::new(1 << 20, 1);
    let mut store = Store::new(&memory, 0, SPAN);
    for n in 0..10 {
        speak(&mut store, caller(1), n, n);
    }
    let order = HandOver { stays: true, ..order([Some(caller(1)), None], 10) };
    let mut shared = store.hand_over(&order).unwrap();
    for n in 10..20 {
        speak(&mut store, caller(1), n, n);
    }
    assert_eq!(shared.packets(), 10);
    assert_eq!(shared.next().unwrap().payload, speech(0));
    let (payloads, lost) = take(&mut store, [Some(caller(1)), None], 20);
    assert_eq!((payloads, lost), ((0..20).map(speech).collect(), 0));
    assert!(memory.figures().used_bytes > 0);
    drop(shared);
    assert_eq!(memory.figures().used_bytes, 0);
}

#[test]
fn memory_that_a_recording_still_reads_counts() {
    let memory = Memory::new(4 * Block::SIZE, 1);
    let mut store = Store::new(&memory, 0, SPAN);
    for n in 0..70 {
        speak(&mut store, caller(1), n, n);
    }
    let preroll = store.hand_over(&order([Some(caller(1)), None], 70)).unwrap();
    speak(&mut store, caller(2), 70, 0);
    assert!(memory.figures().used_bytes <= memory.figures().limit_bytes);
    assert_eq!(memory.figures().lost, 1);
    drop(preroll);
    speak(&mut store, caller(2), 90, 1);
    assert_eq!(take(&mut store, [Some(caller(2)), None], 100), (vec![speech(1)], 1));
}

#[test]
fn the_largest_of_another_worker_gives_way() {
    let memory = Memory::new(100 * Block::SIZE, 2);
    let mut stores = [0, 1].map(|worker| Store::new(&memory, worker, SPAN * 100));
    for n in 0..5000 {
        speak(&mut stores[0], caller(1), n, n);
    }
    // Both speak: the second one gets its share, and loses no more than what came before the other one heard of it.
    for n in 0..500 {
        speak(&mut stores[1], caller(2), 5000 + n, n);
        speak(&mut stores[0], caller(1), 5000 + n, 5000 + n);
    }
    let (second, lost) = take(&mut stores[1], [Some(caller(2)), None], 6000);
    assert_eq!(second.len() as u64 + lost, 500);
    assert!(lost <= 42, "{lost}");
    assert!(memory.figures().used_bytes <= memory.figures().limit_bytes);
}

#[test]
fn a_ring_moves_to_another_worker() {
    let memory = Memory::new(1 << 20, 2);
    let mut stores = [0, 1].map(|worker| Store::new(&memory, worker, SPAN));
    for n in 0..100 {
        speak(&mut stores[0], caller(1), n, n);
    }
    let ring = stores[0].detach(caller(1)).unwrap();
    stores[1].attach(caller(1), ring);
    for n in 100..200 {
        speak(&mut stores[1], caller(1), n, n);
    }
    assert_eq!(memory.figures().sessions, 1);
    let (payloads, lost) = take(&mut stores[1], [Some(caller(1)), None], 200);
    assert_eq!((payloads, lost), ((0..200).map(speech).collect(), 0));
}

#[test]
fn steady_speech_takes_no_new_memory() {
    let memory = Memory::new(1 << 20, 1);
    let mut store = Store::new(&memory, 0, SPAN);
    let mut used = Vec::new();
    for n in 0..5000 {
        speak(&mut store, caller(1), n * 20, n);
        used.push(memory.figures().used_bytes);
    }
    let blocks = |bytes: u64| bytes / Block::SIZE as u64;
    let [least, most] = [used[1000..].iter().min(), used[1000..].iter().max()].map(|it| blocks(*it.unwrap()));
    assert!(most - least <= 1, "{least} to {most} blocks");
}

proptest! {
    #[test]
    fn the_limit_holds_the_order_too_and_what_is_missing_is_counted(
        blocks in 1_usize..40,
        steps in prop::collection::vec((0_u64..6, 0_usize..3000, 0_u8..40), 1..400),
    ) {
        let memory = Memory::new(blocks * Block::SIZE, 1);
        let mut store = Store::new(&memory, 0, Duration::from_secs(3600));
        let mut given: Expected<u64, Vec<Vec<u8>>> = Expected::new();
        let (mut pushed, mut held) = (0, 0);
        let mut check = |given: Option<Vec<Vec<u8>>>, taken: (Vec<Vec<u8>>, u64)| {
            let given = given.unwrap_or_default();
            let (payloads, lost) = taken;
            let mut rest = given.iter();
            // In order, and each at most once.
            prop_assert!(payloads.iter().all(|payload| rest.any(|it| it == payload)));
            prop_assert_eq!(payloads.len() as u64 + lost, given.len() as u64);
            held += payloads.len() as u64;
            Ok(())
        };
        for (n, (number, len, action)) in (0..).zip(steps) {
            match action {
                0 => {
                    let taken = take(&mut store, [Some(caller(number)), None], n);
                    check(given.remove(&number), taken)?;
                }
                1 => store.sweep(at(n).mono),
                _ => {
                    let mut payload = vec![0; len.max(8)];
                    payload[..8].copy_from_slice(&n.to_le_bytes());
                    store.keep(&packet(caller(number), at(n)), &payload);
                    given.entry(number).or_default().push(payload);
                    pushed += 1;
                }
            }
            prop_assert!(memory.figures().used_bytes <= memory.figures().limit_bytes);
        }
        for number in 0..6 {
            let taken = take(&mut store, [Some(caller(number)), None], 1000);
            check(given.remove(&number), taken)?;
        }
        prop_assert_eq!(memory.figures().lost, pushed - held);
        prop_assert_eq!((memory.figures().used_bytes, memory.figures().sessions), (0, 0));
    }
}
