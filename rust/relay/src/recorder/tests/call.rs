//! Scope call: both parties in one pcapng file, with its head, marks, gaps and sidecar.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use rtpproxy_core::recording::{Channel, Coverage, EndReason, Leg, Mark, RecordingEvent, RecordingId};
use rtpproxy_core::time::Now;
use sha2::{Digest, Sha256};

use super::super::queue::{Arrived, Budget, Item, Note, way};
use super::super::sidecar::hex;
use super::bench::{Bench, addrs, at, record, rtp, rtp_of, ssrc};
use super::read;
use crate::config::{RecordConfig, RecordFormat};

const BOTH: [Leg; 2] = [Leg::Caller, Leg::Callee];

#[test]
fn both_legs_are_in_one_file_with_a_head_before_them() {
    let mut bench = Bench::new(RecordConfig::default());
    bench.start(1, b"call", Coverage::Call);
    for n in 0..50 {
        for leg in BOTH {
            bench.packet(1, leg, Channel::Rtp, u64::from(n) * 20, &rtp(leg, n));
        }
    }
    bench.packet(1, Leg::Callee, Channel::Rtcp, 999, b"rtcp");
    bench.end(1, 1000, EndReason::Deleted);
    let recorded = bench.finish();
    assert_eq!(recorded.names(), ["call=f.json", "call=f.pcapng"]);
    assert_eq!(recorded.path("call=f.pcapng").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(recorded.path("call=f.json").metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let file = read::pcapng(&recorded.bytes("call=f.pcapng"));
    assert!(file.comments.contains(&"call-id: call".to_owned()), "{:?}", file.comments);
    let [invite, ok] = &file.synthetic()[..] else { panic!("no head") };
    assert!(invite.starts_with("INVITE ") && invite.contains("m=audio 4000 RTP/AVP 0 101"), "{invite}");
    assert!(ok.starts_with("SIP/2.0 200 ") && ok.contains("m=audio 5000 RTP/AVP 0 101"), "{ok}");
    assert!(file.packets[..2].iter().all(|packet| packet.interface == "synthetic"));
    assert!(file.packets[1].datagram.at < file.packets[2].datagram.at);
    assert!(file.packets[0].comments[0].starts_with("synthetic"));

    let real: Vec<_> = file.real().collect();
    assert_eq!(real.len(), 101);
    for (n, packet) in real[..100].iter().enumerate() {
        let leg = BOTH[n % 2];
        let (src, dst) = addrs(leg);
        assert_eq!(packet.interface, leg.name());
        assert_eq!((packet.datagram.src, packet.datagram.dst), (src, dst));
        assert_eq!(packet.datagram.payload, rtp(leg, n as u16 / 2));
        assert_eq!(packet.datagram.at, Duration::from_nanos(at(n as u64 / 2 * 20).wall.0));
        assert_eq!(packet.drops, None);
    }
    assert_eq!(
        (real[100].interface.as_str(), &real[100].datagram.payload[..]),
        ("callee rtcp", &b"rtcp"[..])
    );
    let received: Vec<_> = file.totals.iter().map(|totals| totals.received).collect();
    assert_eq!(received, [50, 50, 0, 1]);
}

#[test]
fn packets_are_in_the_order_of_time_whatever_socket_was_read_first() {
    let mut bench = Bench::new(RecordConfig::default());
    bench.start(1, b"call", Coverage::Call);
    for turn in 0..10 {
        for leg in BOTH {
            for n in 0..8 {
                let at = u64::from(turn * 8 + n) * 20 + u64::from(leg == Leg::Callee);
                bench.packet(1, leg, Channel::Rtp, at, &rtp(leg, turn * 8 + n));
            }
        }
    }
    bench.end(1, 2000, EndReason::Deleted);
    let recorded = bench.finish();
    let file = read::pcapng(&recorded.bytes("call=f.pcapng"));
    let times: Vec<_> = file.packets.iter().map(|packet| packet.datagram.at).collect();
    assert_eq!(times.len(), 2 + 160);
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn wireshark_sees_a_call_with_two_streams() {
    let mut bench = Bench::new(RecordConfig::default());
    bench.start(1, b"call", Coverage::Call);
    for n in 0..50 {
        for leg in BOTH {
            bench.packet(1, leg, Channel::Rtp, u64::from(n) * 20, &rtp(leg, n));
        }
    }
    let recorded = bench.finish();
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(recorded.path("call=f.pcapng")).args(["-q", "-z", "rtp,streams"]);
    let Ok(output) = tshark.output() else {
        eprintln!("skipped: no tshark");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    for source in ["192.0.2.10", "192.0.2.20"] {
        let is_stream = |line: &&str| line.contains(source) && line.contains("g711U");
        assert_eq!(text.lines().filter(is_stream).count(), 1, "{text}");
    }
}

#[test]
fn the_sidecar_tells_what_is_in_the_file() {
    let mut bench = Bench::new(RecordConfig::default());
    bench.start(1, b"call-1", Coverage::Call);
    bench.mark(1, 0, Mark::Latched { leg: Leg::Caller, channel: Channel::Rtp, source: addrs(Leg::Caller).0 });
    for leg in BOTH {
        bench.packet(1, leg, Channel::Rtp, 10, &rtp(leg, 0));
    }
    bench.mark(1, 20, Mark::Paused);
    bench.mark(1, 520, Mark::Resumed);
    bench.packet(1, Leg::Caller, Channel::Rtp, 530, &rtp(Leg::Caller, 1));
    bench.mark(1, 600, Mark::Paused);
    bench.end(1, 1000, EndReason::Timeout);
    let recorded = bench.finish();

    let file = read::pcapng(&recorded.bytes("call-1=f.pcapng"));
    let comments: Vec<_> = file.real().map(|packet| packet.comments.clone()).collect();
    assert_eq!(
        comments[0],
        ["latched at 2023-11-14T22:13:20.123456789Z: caller rtp comes from 192.0.2.10:4000"]
    );
    let paused = "paused at 2023-11-14T22:13:20.143456789Z";
    assert_eq!(comments[2], [paused, "resumed at 2023-11-14T22:13:20.643456789Z"]);
    assert_eq!(file.totals[0].comments, ["paused at 2023-11-14T22:13:20.723456789Z"]);

    let json = recorded.json("call-1=f.json");
    assert_eq!((&json["call_id"], &json["call"]), (&"call-1".into(), &"call=f".into()));
    assert_eq!((&json["scope"], &json["format"]), (&"call".into(), &"pcapng".into()));
    assert_eq!((&json["packets"], &json["bytes"], &json["dropped"]), (&3.into(), &516.into(), &0.into()));
    assert_eq!(json["synthetic_frames"], 2);
    assert_eq!(json["requested"], "2023-11-14T22:13:20.123456789Z");
    assert_eq!(json["first_packet"], "2023-11-14T22:13:20.133456789Z");
    assert_eq!(json["last_packet"], "2023-11-14T22:13:20.653456789Z");
    assert_eq!(json["legs"]["callee"]["rtp"]["ssrcs"], serde_json::json!([ssrc(Leg::Callee)]));
    assert_eq!(json["legs"]["callee"]["rtp"]["sources"], serde_json::json!(["192.0.2.20:5000"]));
    assert_eq!(json["legs"]["caller"]["rtp"]["packets"], 2);
    assert_eq!(json["pauses"][0]["to"], "2023-11-14T22:13:20.643456789Z");
    assert!(json["pauses"][1]["to"].is_null());
    assert_eq!((&json["marks"][0]["event"], &json["marks"][0]["leg"]), (&"latched".into(), &"caller".into()));
    assert_eq!(json["ended"]["reason"], "timeout");
    let bytes = recorded.bytes("call-1=f.pcapng");
    assert_eq!(json["files"][0]["name"], "call-1=f.pcapng");
    assert_eq!(json["files"][0]["size"], bytes.len());
    assert_eq!(json["files"][0]["sha256"], hex(&Sha256::digest(&bytes)));
}

#[test]
fn classic_pcap_holds_both_legs_without_a_head() {
    for nanoseconds in [false, true] {
        let config = RecordConfig { format: RecordFormat::Pcap, nanoseconds, ..RecordConfig::default() };
        let mut bench = Bench::new(config);
        bench.start(1, b"call", Coverage::Call);
        for leg in BOTH {
            bench.packet(1, leg, Channel::Rtp, 10, &rtp(leg, 7));
            bench.packet(1, leg, Channel::Rtcp, 11, b"rtcp");
        }
        let recorded = bench.finish();
        assert_eq!(recorded.names(), ["call=f.json", "call=f.pcap"]);
        let packets = read::pcap(&recorded.bytes("call=f.pcap"));
        assert_eq!(packets.len(), 4);
        assert_eq!(packets[1].payload, rtp(Leg::Callee, 7));
        assert_eq!((packets[3].src.port(), packets[3].dst.port()), (5001, 35003));
        let unit = if nanoseconds { 1 } else { 1000 };
        assert_eq!(packets[0].at.as_nanos() as u64, at(10).wall.0 / unit * unit);
        assert_eq!(recorded.json("call=f.json")["ended"]["reason"], "shutdown");
    }
}

#[test]
fn a_silent_party_is_waited_for_half_a_second() {
    let mut bench = Bench::new(RecordConfig::default());
    bench.start(1, b"call", Coverage::Call);
    for n in 0..26 {
        bench.packet(1, Leg::Caller, Channel::Rtp, u64::from(n) * 20, &rtp(Leg::Caller, n));
        let Now { mono, wall } = at(u64::from(n) * 20 + 25);
        bench.tap.flush(mono, wall);
        bench.drain.drain();
        let part = std::fs::read(bench.folder.path().join("call=f.pcapng.part")).unwrap();
        // The last one ends it.
        assert_eq!(read::pcapng(&part).packets.is_empty(), n < 25);
    }
    bench.packet(1, Leg::Callee, Channel::Rtp, 600, &rtp(Leg::Callee, 0));
    let recorded = bench.finish();
    let file = read::pcapng(&recorded.bytes("call=f.pcapng"));
    // The callee speaks from where it was signalled, with a type that was: nothing new to tell.
    assert_eq!(file.synthetic().len(), 2);
    assert!(file.synthetic()[1].contains("m=audio 5000 "));
    assert_eq!(file.real().count(), 27);
}

#[test]
fn what_changes_later_is_told_by_a_reinvite_at_that_place() {
    let mut bench = Bench::new(RecordConfig::default());
    bench.start(1, b"call", Coverage::Call);
    let moved = ([198, 51, 100, 7], 6000).into();
    bench.packet(1, Leg::Callee, Channel::Rtp, 0, &rtp(Leg::Callee, 0));
    bench.packet(1, Leg::Caller, Channel::Rtp, 10, &rtp(Leg::Caller, 0));
    bench.packet(1, Leg::Caller, Channel::Rtp, 30, &rtp(Leg::Caller, 1));
    bench.packet_from(moved, 50, &rtp(Leg::Caller, 2));
    bench.packet_from(moved, 70, &rtp_of(Leg::Caller, 3, 8));
    // Another SSRC.
    bench.packet_from(moved, 90, &rtp(Leg::Callee, 4));
    bench.packet_from(moved, 110, b"not RTP");
    let recorded = bench.finish();
    let file = read::pcapng(&recorded.bytes("call=f.pcapng"));
    let order: Vec<_> = file.packets.iter().map(|packet| packet.interface.as_str()).collect();
    let s = "synthetic";
    assert_eq!(
        order,
        [s, s, "callee", "caller", "caller", s, s, "caller", s, s, "caller", s, s, "caller", "caller"]
    );
    let texts = file.synthetic();
    assert!(texts[2].contains("CSeq: 2 INVITE") && texts[2].contains("m=audio 6000 RTP/AVP 0 101"));
    assert!(texts[4].contains("CSeq: 3 INVITE") && texts[4].contains("m=audio 6000 RTP/AVP 0 101 8"));
    assert_eq!(recorded.json("call=f.json")["packets"], 7);
}

#[test]
fn reinvites_are_bounded() {
    let mut bench = Bench::new(RecordConfig::default());
    bench.start(1, b"call", Coverage::Call);
    bench.packet(1, Leg::Callee, Channel::Rtp, 0, &rtp(Leg::Callee, 0));
    for n in 0..100 {
        let from = ([198, 51, 100, 7], 6000 + 2 * n).into();
        bench.packet_from(from, 20 * u64::from(n), &rtp(Leg::Caller, n));
    }
    let recorded = bench.finish();
    let file = read::pcapng(&recorded.bytes("call=f.pcapng"));
    assert_eq!(file.synthetic().len(), 2 * 33);
    assert_eq!(file.real().count(), 101);
}

#[test]
fn without_memory_packets_are_dropped_counted_and_missed_in_the_file() {
    let config = RecordConfig { buffer_bytes: 0, ..RecordConfig::default() };
    let mut bench = Bench::new(config);
    bench.start(1, b"call", Coverage::Call);
    // Nobody empties the ring: the two chunks that a worker has in any case fill up.
    let send = |bench: &mut Bench, range: std::ops::Range<u16>| {
        for n in range {
            bench.packet(
                1,
                BOTH[usize::from(n % 2)],
                Channel::Rtp,
                u64::from(n),
                &rtp(BOTH[usize::from(n % 2)], n),
            );
        }
    };
    send(&mut bench, 0..300);
    bench.drain.drain();
    send(&mut bench, 300..310);
    bench.drain.drain();
    bench.drain.drain();
    send(&mut bench, 310..600);
    bench.mark(1, 600, Mark::Paused);
    let recorded = bench.finish();

    let file = read::pcapng(&recorded.bytes("call=f.pcapng"));
    let real: Vec<_> = file.real().collect();
    let [first, second] = real.iter().filter(|packet| packet.drops.is_some()).collect::<Vec<_>>()[..] else {
        panic!("one note for each leg")
    };
    assert_eq!((first.interface.as_str(), second.interface.as_str()), ("caller", "callee"));
    assert_eq!(first.datagram.payload, rtp(Leg::Caller, 300));
    assert_eq!(second.datagram.payload, rtp(Leg::Callee, 301));
    let comment = &first.comments[0];
    assert!(comment.starts_with(&format!("gap: {} packets of caller rtp are missing", first.drops.unwrap())));

    let json = recorded.json("call=f.json");
    let dropped = 600 - real.len() as u64;
    assert_eq!((&json["packets"], &json["dropped"]), (&real.len().into(), &dropped.into()));
    assert_eq!(json["gaps"].as_array().unwrap().len(), 4);
    assert_eq!(json["gaps"][0]["packets"], first.drops.unwrap());
    assert_eq!(file.totals[0].received, 300);
    assert_eq!(file.totals[0].dropped + file.totals[1].dropped, dropped);
    // What is missing at the end is said at the end.
    let at_end: Vec<_> = file.totals[0].comments.iter().map(|text| &text[..4]).collect();
    assert_eq!(at_end, ["paus", "gap:", "gap:"]);
}

#[test]
fn packets_and_events_keep_their_order() {
    let (mut tap, mut outlet) = way(&Budget::new(16 << 20, 1));
    let id = RecordingId(1);
    for n in 0..3000_u64 {
        tap.packet(&record(1, Leg::Caller, Channel::Rtp, n), &n.to_be_bytes());
        tap.event(RecordingEvent::Mark { id, at: at(n), mark: Mark::Paused });
        tap.flush(at(n).mono, at(n).wall);
    }
    // Without an open chunk, an event goes alone; more of them than the ring holds.
    for n in 3000..6000 {
        tap.flush(at(1_000_000).mono, at(n).wall);
        tap.event(RecordingEvent::Mark { id, at: at(n), mark: Mark::Paused });
    }
    drop(tap);
    let mut order = Vec::new();
    while let Some(item) = outlet.next() {
        match item {
            Item::Note(note) => order.extend(mark_of(note)),
            Item::Chunk(mut chunk) => {
                let arrived: Vec<_> = chunk
                    .arrivals()
                    .map(|arrived| match arrived {
                        Arrived::Packet(index, packet) => Ok((index, packet.at)),
                        Arrived::Note(note) => Err(mark_of(note).unwrap()),
                    })
                    .collect();
                order.extend(arrived.into_iter().map(|arrived| match arrived {
                    Ok((index, at)) => (at, Some(chunk.packet(index).1.to_vec())),
                    Err(mark) => mark,
                }));
            }
            Item::Preroll(_) => panic!("nobody gave one"),
        }
    }
    let packets_and_marks =
        (0..3000_u64).flat_map(|n| [(at(n), Some(n.to_be_bytes().to_vec())), (at(n), None)]);
    let expected: Vec<_> = packets_and_marks.chain((3000..6000).map(|n| (at(n), None))).collect();
    assert!(order == expected);
}

#[test]
fn a_chunk_waits_until_it_is_full_or_old() {
    let (mut tap, mut outlet) = way(&Budget::new(1 << 20, 1));
    let mut bench_packet = |ms| {
        tap.packet(&record(1, Leg::Caller, Channel::Rtp, ms), &[0; 172]);
        let again_at = tap.flush(at(ms).mono, at(ms).wall);
        (outlet.next().is_some(), again_at.is_some())
    };
    assert_eq!(bench_packet(0), (false, true));
    assert_eq!(bench_packet(19), (false, true));
    assert_eq!(bench_packet(20), (true, false));
    let taken: Vec<_> = (0..120).map(|_| bench_packet(30)).collect();
    // The packet without room begins the next one.
    assert_eq!(taken.iter().position(|&(is_handed_over, _)| is_handed_over), Some(111));
    assert!(taken.iter().all(|&(_, is_some_left)| is_some_left));
}

#[test]
fn a_recording_that_nothing_was_sent_to_is_closed_all_the_same() {
    let mut bench = Bench::new(RecordConfig::default());
    bench.start(1, b"call", Coverage::Call);
    bench.end(1, 10, EndReason::Deleted);
    let recorded = bench.finish();
    let file = read::pcapng(&recorded.bytes("call=f.pcapng"));
    assert!(file.packets.is_empty());
    assert!(recorded.json("call=f.json")["first_packet"].is_null());
}

fn mark_of(note: Note) -> Option<(Now, Option<Vec<u8>>)> {
    match note {
        Note::Event(event) => match *event {
            RecordingEvent::Mark { at, .. } => Some((at, None)),
            other => panic!("unexpected {other:?}"),
        },
        Note::Dropped(_) => None,
    }
}
