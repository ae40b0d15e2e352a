//! Scope stream: the C program's files, and its ways with `compat`.

use std::os::unix::fs::PermissionsExt;

use rtpproxy_core::effects::RecordPacket;
use rtpproxy_core::recording::{Channel, Coverage, EndReason, Leg, RecordingEvent, RecordingStart};
use rtpproxy_core::time::Wall;

use super::bench::{Bench, addrs, at, record, rtp, start};
use super::read;
use crate::config::{RecordConfig, RecordFormat};

#[test]
fn adhoc_has_a_file_for_each_channel_of_a_party() {
    let mut bench = Bench::new(adhoc());
    bench.start(1, b"call", Coverage::Stream(Leg::Callee));
    for n in 0..3 {
        bench.packet(1, Leg::Callee, Channel::Rtp, u64::from(n), &rtp(Leg::Callee, n));
    }
    bench.packet(1, Leg::Callee, Channel::Rtcp, 5, b"rtcp");
    bench.end(1, 10, EndReason::Stopped);
    let recorded = bench.finish();
    assert_eq!(recorded.names(), ["call=f.a.json", "call=f.a.rtcp", "call=f.a.rtp"]);
    let packets = read::adhoc(&recorded.bytes("call=f.a.rtp"));
    assert_eq!(packets.len(), 3);
    assert_eq!(packets[2], (addrs(Leg::Callee).0, at(2).wall.seconds(), rtp(Leg::Callee, 2)));
    let packets = read::adhoc(&recorded.bytes("call=f.a.rtcp"));
    assert_eq!((packets.len(), &packets[0].2[..]), (1, &b"rtcp"[..]));
    let json = recorded.json("call=f.a.json");
    assert_eq!((&json["leg"], &json["files"][1]["name"]), (&"callee".into(), &"call=f.a.rtcp".into()));
}

#[test]
fn without_rtcp_there_is_one_file() {
    let mut bench = Bench::new(adhoc());
    let start = start(1, b"call", Coverage::Stream(Leg::Caller));
    let start = RecordingStart { rtcp: false, ..start };
    bench.tap.event(RecordingEvent::Start(Box::new(start)));
    assert_eq!(bench.finish().names(), ["call=f.o.json", "call=f.o.rtp"]);
}

#[test]
fn pcap_streams_and_single_files_are_read_back() {
    let config = RecordConfig { format: RecordFormat::Pcap, ..RecordConfig::default() };
    let mut bench = Bench::new(config);
    bench.start(1, b"one", Coverage::Stream(Leg::Caller));
    bench.start(2, b"two", Coverage::SingleFile);
    for id in [1, 2] {
        bench.packet(id, Leg::Caller, Channel::Rtp, 1, &rtp(Leg::Caller, 1));
        bench.packet(id, Leg::Caller, Channel::Rtcp, 2, b"rtcp");
        // The other party joined the recording.
        bench.packet(id, Leg::Callee, Channel::Rtcp, 3, b"theirs");
    }
    let recorded = bench.finish();
    let names = ["one=f.o.json", "one=f.o.rtcp", "one=f.o.rtp", "two=f.json", "two=f.pcap"];
    assert_eq!(recorded.names(), names);
    let payloads = |name: &str| -> Vec<_> {
        read::pcap(&recorded.bytes(name)).into_iter().map(|packet| packet.payload).collect()
    };
    assert_eq!(payloads("one=f.o.rtp"), [rtp(Leg::Caller, 1), b"theirs".to_vec()]);
    assert_eq!(payloads("one=f.o.rtcp"), [b"rtcp"]);
    assert_eq!(payloads("two=f.pcap"), [rtp(Leg::Caller, 1), b"rtcp".to_vec(), b"theirs".to_vec()]);
}

#[test]
fn pcapng_of_one_party_has_its_letter_in_the_name() {
    let mut bench = Bench::new(RecordConfig::default());
    bench.start(1, b"call", Coverage::Stream(Leg::Caller));
    bench.packet(1, Leg::Caller, Channel::Rtp, 1, &rtp(Leg::Caller, 1));
    bench.packet(1, Leg::Caller, Channel::Rtcp, 2, b"rtcp");
    bench.work();
    let recorded = bench.finish();
    assert_eq!(recorded.names(), ["call=f.o.json", "call=f.o.pcapng"]);
    let file = read::pcapng(&recorded.bytes("call=f.o.pcapng"));
    assert_eq!((file.synthetic().len(), file.real().count()), (2, 2));
}

#[test]
fn ipv6_packets_are_recorded_in_every_format() {
    let src = "[2001:db8::1]:4000".parse().unwrap();
    let dst = "[2001:db8::2]:35000".parse().unwrap();
    for (format, coverage) in [
        (RecordFormat::Adhoc, Coverage::Stream(Leg::Caller)),
        (RecordFormat::Pcap, Coverage::Call),
        (RecordFormat::Pcapng, Coverage::Call),
    ] {
        let mut bench = Bench::new(RecordConfig { format, ..RecordConfig::default() });
        bench.start(1, b"call", coverage);
        let packet = RecordPacket { src, dst, ..record(1, Leg::Caller, Channel::Rtp, 1) };
        bench.tap.packet(&packet, &rtp(Leg::Caller, 1));
        let recorded = bench.finish();
        let read = match format {
            RecordFormat::Adhoc => read::adhoc(&recorded.bytes("call=f.o.rtp"))[0].0,
            RecordFormat::Pcap => read::pcap(&recorded.bytes("call=f.pcap"))[0].src,
            RecordFormat::Pcapng => {
                read::pcapng(&recorded.bytes("call=f.pcapng")).real().next().unwrap().datagram.src
            }
        };
        assert_eq!(read, src, "{format:?}");
    }
}

#[test]
fn compat_writes_in_place_replaces_and_has_no_sidecar() {
    let mut bench = Bench::new(RecordConfig { compat: true, ..adhoc() });
    std::fs::write(bench.folder.path().join("call=f.o.rtp"), "old").unwrap();
    bench.start(1, b"call", Coverage::Stream(Leg::Caller));
    bench.work();
    let path = bench.folder.path().join("call=f.o.rtp");
    assert_eq!(std::fs::read(&path).unwrap(), b"");
    let plain = std::fs::File::create(bench.folder.path().join("plain")).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode(), plain.metadata().unwrap().permissions().mode());
    bench.packet(1, Leg::Caller, Channel::Rtp, 1, &rtp(Leg::Caller, 1));
    bench.end(1, 10, EndReason::Deleted);
    let recorded = bench.finish();
    assert_eq!(recorded.names(), ["call=f.o.rtcp", "call=f.o.rtp", "plain"]);
    assert_eq!(read::adhoc(&recorded.bytes("call=f.o.rtp")).len(), 1);
}

#[test]
fn in_compat_a_clock_that_is_set_does_not_move_the_stamps() {
    for compat in [true, false] {
        let mut bench = Bench::new(RecordConfig { compat, ..adhoc() });
        bench.start(1, b"call", Coverage::Stream(Leg::Caller));
        bench.packet(1, Leg::Caller, Channel::Rtp, 0, &rtp(Leg::Caller, 0));
        let mut packet = record(1, Leg::Caller, Channel::Rtp, 20);
        packet.at.wall = Wall(packet.at.wall.0 + 3_600_000_000_000);
        bench.tap.packet(&packet, &rtp(Leg::Caller, 1));
        let recorded = bench.finish();
        let packets = read::adhoc(&recorded.bytes("call=f.o.rtp"));
        let span = packets[1].1 - packets[0].1;
        assert!((span - if compat { 0.02 } else { 3600.02 }).abs() < 1e-4, "{span}");
    }
}

fn adhoc() -> RecordConfig {
    RecordConfig { format: RecordFormat::Adhoc, ..RecordConfig::default() }
}
