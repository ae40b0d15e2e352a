//! Whether Wireshark shows a recording as a decoded call. Asks tshark; without it the tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rtpproxy_core::frame::{Framer, Macs};
use rtpproxy_core::pcap::{self, Resolution};
use rtpproxy_core::pcapng::{self, PacketOptions};
use rtpproxy_core::recording::{Channel, Leg};
use rtpproxy_core::sip_head::{self, HeadFacts, HeadLeg};
use rtpproxy_core::time::Wall;

const PACKETS: u16 = 25;
const START_NS: u64 = 1_700_000_000_000_000_000;
const STEP_NS: u64 = 20_000_000;

#[test]
fn an_ipv4_call_is_decoded_without_help() {
    check_decoded(&Call::new("192.0.2.10", "192.0.2.20", "198.51.100.1", 0));
}

#[test]
fn an_ipv6_call_is_decoded_without_help() {
    check_decoded(&Call::new("2001:db8:a::1", "2001:db8:b::1", "2001:db8::ff", 8));
}

#[test]
fn a_call_on_one_host_is_decoded() {
    check_decoded(&Call::new("127.0.0.1", "127.0.0.1", "127.0.0.1", 0));
}

#[test]
fn ports_of_other_protocols_do_not_mislead() {
    let mut call = Call::new("192.0.2.10", "192.0.2.20", "198.51.100.1", 0);
    // GTP-U and IPsec, for which Wireshark has dissectors by port.
    call.legs[0].set_port(2152);
    call.legs[1].set_port(4500);
    check_decoded(&call);
}

#[test]
fn a_dynamic_codec_is_named_if_the_operator_did() {
    for (payload_type, name) in [(111, " opus "), (97, " RTPType-97 ")] {
        let call = Call::new("192.0.2.10", "192.0.2.20", "198.51.100.1", payload_type);
        let folder = tempfile::tempdir().unwrap();
        let file = save(folder.path(), "call.pcapng", &call.pcapng());
        let Some(streams) = tshark(&file, &["-q", "-z", "rtp,streams"]) else { return };
        assert_eq!(streams.matches(name).count(), 2, "{streams}");
    }
}

#[test]
fn a_new_address_in_the_middle_is_followed() {
    let mut call = Call::new("192.0.2.10", "192.0.2.20", "198.51.100.1", 0);
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = call.pcapng();
    call.legs[0] = SocketAddr::new(call.legs[0].ip(), 51_000);
    call.cseq = 2;
    call.start_ns += 10_000_000_000;
    call.ssrc += 2;
    call.write_pcapng_packets(&mut bytes);
    let file = save(folder.path(), "call.pcapng", &bytes);
    let Some(streams) = tshark(&file, &["-q", "-z", "rtp,streams"]) else { return };
    assert_eq!(streams.matches("g711U").count(), 4, "{streams}");
    assert!(streams.contains(" 51000 "), "{streams}");
    let calls =
        tshark(&file, &["-Y", "sip.Method == \"INVITE\"", "-T", "fields", "-e", "sip.Call-ID"]).unwrap();
    assert_eq!(calls.lines().collect::<Vec<_>>(), ["1@example.com"; 2]);
}

#[test]
fn a_classic_file_has_right_times_and_checksums() {
    let call = Call::new("192.0.2.10", "192.0.2.20", "198.51.100.1", 0);
    let folder = tempfile::tempdir().unwrap();
    for (name, resolution) in [("micro.pcap", Resolution::Micro), ("nano.pcap", Resolution::Nano)] {
        let file = save(folder.path(), name, &call.pcap(resolution));
        let Some(times) = tshark(&file, &["-c", "1", "-T", "fields", "-e", "frame.time_epoch"]) else {
            return;
        };
        assert_eq!(times.trim(), "1700000000.000000000");
        assert_eq!(bad_checksums(&file), "");
    }
}

fn check_decoded(call: &Call) {
    let folder = tempfile::tempdir().unwrap();
    let file = save(folder.path(), "call.pcapng", &call.pcapng());
    let Some(streams) = tshark(&file, &["-q", "-z", "rtp,streams"]) else { return };
    for (leg, local) in call.legs.iter().zip(call.local) {
        let row = streams.lines().find(|line| line.contains(&format!(" {} ", leg.port())));
        let row = row.unwrap_or_else(|| panic!("{leg} is missing:\n{streams}"));
        for part in
            [leg.ip().to_string(), local.ip().to_string(), local.port().to_string(), "g711".to_owned()]
        {
            assert!(row.contains(&part), "no {part} in {row}");
        }
        assert!(row.contains(&format!(" {PACKETS} ")), "{row}");
    }

    let statistics = tshark(&file, &["-q", "-z", "sip,stat"]).unwrap();
    assert!(statistics.contains("Number of SIP messages: 2"), "{statistics}");
    assert!(statistics.contains("INVITE") && statistics.contains("200 OK"), "{statistics}");
    let names =
        tshark(&file, &["-T", "fields", "-e", "frame.interface_name", "-e", "_ws.col.Protocol"]).unwrap();
    for (name, protocol) in
        [("caller", "RTP"), ("callee", "RTP"), ("caller rtcp", "RTCP"), ("callee rtcp", "RTCP")]
    {
        assert!(names.contains(&format!("{name}\t{protocol}\n")), "no {name} {protocol} in:\n{names}");
    }
    assert!(!names.contains("UDP"), "{names}");
    let marked = tshark(&file, &["-Y", "frame.comment", "-T", "fields", "-e", "frame.comment"]).unwrap();
    assert_eq!(marked.lines().collect::<Vec<_>>(), ["synthetic", "synthetic"]);
    assert_eq!(bad_checksums(&file), "");
    let malformed = tshark(&file, &["-Y", "_ws.malformed || _ws.expert.severity >= warning"]).unwrap();
    assert_eq!(malformed, "");
}

fn bad_checksums(file: &Path) -> String {
    let checked = ["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"];
    let bad = "ip.checksum.status == Bad || udp.checksum.status == Bad";
    tshark(file, &[&checked[..], &["-Y", bad]].concat()).unwrap()
}

/// A call of two parties, each sending [`PACKETS`] RTP packets and one RTCP packet.
struct Call {
    legs: [SocketAddr; 2],
    local: [SocketAddr; 2],
    payload_type: u8,
    cseq: u32,
    start_ns: u64,
    ssrc: u32,
}

impl Call {
    fn new(caller: &str, callee: &str, relay: &str, payload_type: u8) -> Self {
        let addr = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
        Self {
            legs: [addr(caller, 40_000), addr(callee, 41_002)],
            local: [addr(relay, 35_000), addr(relay, 35_002)],
            payload_type,
            cseq: 1,
            start_ns: START_NS,
            ssrc: 0x1111_1111,
        }
    }

    fn pcapng(&self) -> Vec<u8> {
        let mut out = Vec::new();
        pcapng::section(&["call-id: 1@example.com"], &mut out);
        for name in pcapng::INTERFACE_NAMES {
            pcapng::interface(name, &mut out);
        }
        self.write_pcapng_packets(&mut out);
        for number in 0..4 {
            let end = Wall(self.start_ns + u64::from(PACKETS) * STEP_NS);
            pcapng::statistics(number, Wall(self.start_ns), end, PACKETS.into(), 0, &[], &mut out);
        }
        out
    }

    fn write_pcapng_packets(&self, out: &mut Vec<u8>) {
        self.write_head(out);
        let options = PacketOptions { inbound: true, ..PacketOptions::default() };
        self.packets(|leg, channel, at, framer, payload| {
            let mut frame = Vec::new();
            framer.write(0, payload, &mut frame);
            pcapng::packet(pcapng::interface_of(leg, channel), at, &frame, options, out);
        });
    }

    fn pcap(&self, resolution: Resolution) -> Vec<u8> {
        let mut out = Vec::new();
        pcap::file_header(resolution, &mut out);
        self.packets(|_, _, at, framer, payload| {
            pcap::record_header(resolution, at, framer.frame_len(payload.len()), &mut out);
            framer.write(7, payload, &mut out);
        });
        out
    }

    fn write_head(&self, out: &mut Vec<u8>) {
        let leg = |addr| HeadLeg { addr, rtcp: None, payload_types: vec![self.payload_type] };
        let facts = HeadFacts {
            call_id: b"1@example.com",
            from_tag: b"from",
            to_tag: Some(b"to"),
            legs: self.legs.map(leg),
            codec_map: &[(111, "opus/48000/2".to_owned())],
            cseq: self.cseq,
        };
        let [caller, callee] = facts.signalling();
        let options = PacketOptions { comments: &["synthetic"], ..PacketOptions::default() };
        for (number, src, dst, leg, message, before_ns) in [
            (0, caller, callee, Leg::Caller, sip_head::invite(&facts), 2),
            (1, callee, caller, Leg::Callee, sip_head::ok(&facts), 1),
        ] {
            let mut frame = Vec::new();
            Framer::new(src, dst, Macs::Leg(leg)).write(0, &message, &mut frame);
            pcapng::packet(number, Wall(self.start_ns - before_ns), &frame, options, out);
        }
    }

    fn packets(&self, mut each: impl FnMut(Leg, Channel, Wall, &Framer, &[u8])) {
        let odd = |addr: SocketAddr| SocketAddr::new(addr.ip(), addr.port() + 1);
        let parties = [(Leg::Caller, 0), (Leg::Callee, 1)];
        let rtp = parties.map(|(leg, i)| Framer::new(self.legs[i], self.local[i], Macs::Leg(leg)));
        let rtcp = parties.map(|(leg, i)| Framer::new(odd(self.legs[i]), odd(self.local[i]), Macs::Leg(leg)));
        for sequence in 0..PACKETS {
            let at = Wall(self.start_ns + u64::from(sequence) * STEP_NS);
            for (leg, i) in parties {
                each(leg, Channel::Rtp, at, &rtp[i], &self.rtp_packet(i, sequence));
            }
        }
        let end = Wall(self.start_ns + u64::from(PACKETS) * STEP_NS);
        for (leg, i) in parties {
            each(leg, Channel::Rtcp, end, &rtcp[i], &self.rtcp_packet(i));
        }
    }

    fn rtp_packet(&self, leg: usize, sequence: u16) -> Vec<u8> {
        let mut packet = vec![0x80, self.payload_type];
        packet.extend(sequence.to_be_bytes());
        packet.extend((u32::from(sequence) * 160).to_be_bytes());
        packet.extend((self.ssrc + leg as u32).to_be_bytes());
        // An odd length, so that the checksum has a byte left over.
        packet.resize(12 + 161, 0xd5);
        packet
    }

    /// An empty receiver report and a source description, the least that a compound packet holds.
    fn rtcp_packet(&self, leg: usize) -> Vec<u8> {
        let ssrc = (self.ssrc + leg as u32).to_be_bytes();
        let description = [&[0x81, 202, 0, 2][..], &ssrc, &[1, 1, b'x', 0]].concat();
        [&[0x80, 201, 0, 1][..], &ssrc, &description].concat()
    }
}

fn save(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// What tshark prints about the file; nothing where tshark is not installed.
fn tshark(file: &Path, args: &[&str]) -> Option<String> {
    let output = match Command::new("tshark").arg("-r").arg(file).args(args).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // Past the capture of test output, because nothing else shows that the test was empty.
            std::io::stderr().write_all(b"NOT TESTED: tshark is not installed\n").unwrap();
            return None;
        }
        Err(error) => panic!("tshark does not start: {error}"),
    };
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "tshark {args:?}: {errors}");
    Some(String::from_utf8(output.stdout).unwrap())
}
