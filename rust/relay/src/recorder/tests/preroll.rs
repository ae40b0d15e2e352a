//! What was said before the command.

use std::sync::Arc;
use std::time::Duration;

use rtpproxy_core::effects::{HandOver, KeptPacket};
use rtpproxy_core::recording::{Channel, Coverage, EndReason, KeptId, Leg, Mark, RecordingId};

use super::bench::{Bench, addrs, at, record, rtp};
use super::read;
use crate::config::{RecordConfig, RecordFormat};
use crate::preroll::{Memory, Store};

const BOTH: [Leg; 2] = [Leg::Caller, Leg::Callee];

/// A store that has kept so many packets of each party by `asked`, 20 ms apart, the last ones just before.
fn spoken(memory: &Arc<Memory>, packets: u16, span: Duration, asked: u64) -> Store {
    let mut store = Store::new(memory, 0, span);
    for n in 0..packets {
        for leg in BOTH {
            let like = record(1, leg, Channel::Rtp, asked - u64::from(packets - n) * 20);
            let (src, dst) = addrs(leg);
            let id = KeptId { number: 1, leg };
            let kept = KeptPacket { id, channel: Channel::Rtp, at: like.at, src, dst, payload: like.payload };
            store.keep(&kept, &rtp(leg, n));
        }
    }
    store
}

fn hand_over(bench: &mut Bench, store: &mut Store, id: u64, asked: u64) {
    let kept = BOTH.map(|leg| Some(KeptId { number: 1, leg }));
    let order = HandOver { to: RecordingId(id), at: at(asked), kept, stays: false };
    bench.tap.preroll(store.hand_over(&order).unwrap());
}

/// A recording asked for a minute after the time that tests count from.
const ASKED: u64 = 60_000;

#[test]
fn what_was_said_before_comes_first_with_a_remark() {
    let memory = Memory::new(64 << 20, 1);
    let mut store = spoken(&memory, 150, Duration::from_secs(10), ASKED);
    let mut bench = Bench::new(RecordConfig::default());
    bench.start_at(1, b"call", Coverage::Call, ASKED);
    hand_over(&mut bench, &mut store, 1, ASKED);
    for n in 150..200 {
        for leg in BOTH {
            bench.packet(1, leg, Channel::Rtp, ASKED + u64::from(n - 150) * 20, &rtp(leg, n));
        }
    }
    bench.end(1, ASKED + 1000, EndReason::Deleted);
    let recorded = bench.finish();

    let file = read::pcapng(&recorded.bytes("call=f.pcapng"));
    assert!(file.packets[..2].iter().all(|packet| packet.interface == "synthetic"));
    assert!(file.packets.is_sorted_by_key(|packet| packet.datagram.at));
    let real: Vec<_> = file.real().collect();
    let payloads: Vec<_> = real.iter().map(|packet| packet.datagram.payload.clone()).collect();
    assert_eq!(payloads, (0..200).flat_map(|n| BOTH.map(|leg| rtp(leg, n))).collect::<Vec<_>>());
    assert_eq!(real[0].comments, ["preroll: 3.000 s from before the command, 300 packets"]);
    assert!(real[1..].iter().all(|packet| packet.comments.is_empty()));

    let json = recorded.json("call=f.json");
    assert_eq!(json["requested"], "2023-11-14T22:14:20.123456789Z");
    assert_eq!(json["first_packet"], "2023-11-14T22:14:17.123456789Z");
    let preroll = serde_json::json!({"from": json["first_packet"], "packets": 300, "lost": 0});
    assert_eq!((&json["preroll"], &json["packets"], &json["dropped"]), (&preroll, &400.into(), &0.into()));
    assert_eq!(memory.figures().used_bytes, 0);
}

#[test]
fn what_the_memory_lost_is_told() {
    let memory = Memory::new(64 << 10, 1);
    let mut store = spoken(&memory, 1000, Duration::from_secs(60), ASKED);
    let lost = memory.figures().lost;
    assert!(lost > 1000, "{lost}");
    let mut bench = Bench::new(RecordConfig::default());
    bench.start_at(1, b"call", Coverage::Call, ASKED);
    hand_over(&mut bench, &mut store, 1, ASKED);
    let recorded = bench.finish();
    let json = recorded.json("call=f.json");
    assert_eq!((&json["packets"], &json["preroll"]["lost"]), (&(2000 - lost).into(), &lost.into()));
    let file = read::pcapng(&recorded.bytes("call=f.pcapng"));
    let comment = &file.real().next().unwrap().comments[0];
    let end = format!("; {lost} more were lost, as the memory for them was used up");
    assert!(comment.ends_with(&end), "{comment}");
}

#[test]
fn a_long_one_is_worked_off_in_shares_and_what_follows_waits() {
    let memory = Memory::new(64 << 20, 1);
    let packets = 12_000;
    let asked = u64::from(packets) * 20;
    let mut store = spoken(&memory, packets, Duration::from_secs(3600), asked);
    let mut bench = Bench::new(RecordConfig { format: RecordFormat::Pcap, ..RecordConfig::default() });
    bench.start_at(2, b"other", Coverage::Call, asked);
    bench.start_at(1, b"call", Coverage::Call, asked);
    hand_over(&mut bench, &mut store, 1, asked);
    bench.packet(1, Leg::Caller, Channel::Rtp, asked, b"live");
    bench.mark(1, asked, Mark::Paused);
    bench.packet(2, Leg::Caller, Channel::Rtp, asked, b"of the other call");
    let used = memory.figures().used_bytes;
    bench.work();
    bench.work();
    let left = memory.figures().used_bytes;
    assert!(left < used && left > 0, "{left} of {used}");
    let recorded = bench.finish();
    let file = read::pcap(&recorded.bytes("call=f.pcap"));
    assert_eq!(file.len(), 2 * usize::from(packets) + 1);
    assert!(file.is_sorted_by_key(|datagram| datagram.at));
    assert_eq!(file.last().unwrap().payload, b"live");
    assert_eq!(read::pcap(&recorded.bytes("other=f.pcap")).len(), 1);
    assert_eq!(memory.figures().used_bytes, 0);
}

#[test]
fn a_recording_that_is_unknown_frees_what_it_gets() {
    let memory = Memory::new(64 << 20, 1);
    let mut store = spoken(&memory, 10, Duration::from_secs(10), ASKED);
    let mut bench = Bench::new(RecordConfig::default());
    hand_over(&mut bench, &mut store, 7, ASKED);
    bench.start(1, b"call", Coverage::Call);
    bench.packet(1, Leg::Caller, Channel::Rtp, 0, &rtp(Leg::Caller, 0));
    let recorded = bench.finish();
    assert_eq!(recorded.json("call=f.json")["packets"], 1);
    assert_eq!(recorded.json("call=f.json").get("preroll"), None);
    assert_eq!(memory.figures().used_bytes, 0);
}
