//! Captures are read as pcap-file and etherparse read them, and no bytes upset the readers.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice, VlanId};
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapTsResolution, PcapWriter};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::{Block, PcapNgReader, PcapNgWriter};
use pcap_file::{DataLink, Endianness};
use proptest::collection::vec;
use proptest::prelude::*;
use rtpproxy_analysis::capture::{Capture, CaptureError, Format, Headers, Origin, Packet};
use rtpproxy_core::adhoc;
use rtpproxy_core::frame::{Framer, Macs};
use rtpproxy_core::pcap::{self, Resolution};
use rtpproxy_core::pcapng::{self, PacketOptions};
use rtpproxy_core::recording::{Channel, Leg};
use rtpproxy_core::time::Wall;

/// What is compared: time in nanoseconds, source, destination, payload.
type Seen = (u64, SocketAddr, SocketAddr, Vec<u8>);

#[derive(Clone, Debug)]
struct Sent {
    at: Duration,
    v6: bool,
    vlan: bool,
    is_tcp: bool,
    ports: (u16, u16),
    payload: Vec<u8>,
}

fn sent() -> impl Strategy<Value = Vec<Sent>> {
    let one = (
        0..4_000_000_000_u64,
        0..1_000_000_u32,
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.1),
        any::<(u16, u16)>(),
        vec(any::<u8>(), 0..60),
    );
    let one = one.prop_map(|(seconds, micros, v6, vlan, is_tcp, ports, payload)| Sent {
        at: Duration::new(seconds, micros * 1000),
        v6,
        vlan,
        is_tcp,
        ports,
        payload,
    });
    vec(one, 0..12)
}

fn frame(sent: &Sent, link: DataLink) -> Vec<u8> {
    let mut out = Vec::new();
    let (from, to) = sent.ports;
    // The builder has a type for each combination, so the layers cannot be put on one by one.
    macro_rules! finish {
        ($ip:expr) => {
            if sent.is_tcp {
                $ip.tcp(from, to, 7, 512).write(&mut out, &sent.payload).unwrap();
            } else {
                $ip.udp(from, to).write(&mut out, &sent.payload).unwrap();
            }
        };
    }
    macro_rules! network {
        ($link:expr) => {
            if sent.v6 {
                finish!($link.ipv6([1; 16], [2; 16], 9));
            } else {
                finish!($link.ipv4([1; 4], [2; 4], 9));
            }
        };
    }
    match link {
        DataLink::ETHERNET if sent.vlan => {
            network!(PacketBuilder::ethernet2([1; 6], [2; 6]).single_vlan(VlanId::try_new(7).unwrap()));
        }
        DataLink::ETHERNET => {
            network!(PacketBuilder::ethernet2([1; 6], [2; 6]));
        }
        DataLink::LINUX_SLL => {
            network!(PacketBuilder::linux_sll(etherparse::LinuxSllPacketType::OUTGOING, 6, [0; 8]));
        }
        _ if sent.v6 => finish!(PacketBuilder::ipv6([1; 16], [2; 16], 9)),
        _ => finish!(PacketBuilder::ipv4([1; 4], [2; 4], 9)),
    }
    out
}

/// A frame by etherparse.
fn datagram(link: DataLink, frame: &[u8]) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
    let sliced = match link {
        DataLink::ETHERNET => SlicedPacket::from_ethernet(frame),
        DataLink::LINUX_SLL => SlicedPacket::from_linux_sll(frame),
        _ => SlicedPacket::from_ip(frame),
    };
    let sliced = sliced.ok()?;
    let (source, destination): (IpAddr, IpAddr) = match sliced.net? {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Arp(_) => return None,
    };
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { return None };
    Some((
        (source, udp.source_port()).into(),
        (destination, udp.destination_port()).into(),
        udp.payload().to_vec(),
    ))
}

fn by_us(file: &[u8]) -> Vec<Seen> {
    let capture = Capture::new(file.to_vec()).unwrap();
    let seen = |packet: Packet<'_>| {
        (packet.at.0, packet.source, packet.destination.unwrap(), packet.payload.to_vec())
    };
    capture.packets().map(|packet| seen(packet.unwrap())).collect()
}

fn pcap_by_them(file: &[u8]) -> Vec<Seen> {
    let mut reader = PcapReader::new(file).unwrap();
    let link = reader.header().datalink;
    let mut seen = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap();
        if let Some((source, destination, payload)) = datagram(link, packet.data()) {
            seen.push((packet.timestamp().as_nanos() as u64, source, destination, payload));
        }
    }
    seen
}

fn pcapng_by_them(file: &[u8]) -> Vec<Seen> {
    let mut reader = PcapNgReader::new(file).unwrap();
    let mut seen = Vec::new();
    while let Some(block) = reader.next_block() {
        let (block, state) = block.unwrap();
        let Block::EnhancedPacket(packet) = block else { continue };
        let link = state.interfaces()[packet.interface_id as usize].linktype;
        if let Some((source, destination, payload)) = datagram(link, &packet.data) {
            seen.push((packet.timestamp.as_nanos() as u64, source, destination, payload));
        }
    }
    seen
}

fn links() -> impl Strategy<Value = DataLink> {
    prop_oneof![Just(DataLink::ETHERNET), Just(DataLink::LINUX_SLL), Just(DataLink::RAW)]
}

fn orders() -> impl Strategy<Value = Endianness> {
    prop_oneof![Just(Endianness::Big), Just(Endianness::Little)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn pcap_is_read_as_others_read_it(
        sent in sent(), datalink in links(), endianness in orders(), is_nano: bool,
    ) {
        let ts_resolution = if is_nano { PcapTsResolution::NanoSecond } else { PcapTsResolution::MicroSecond };
        let header = PcapHeader { datalink, endianness, ts_resolution, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
        for packet in &sent {
            let frame = frame(packet, datalink);
            writer.write_packet(&PcapPacket::new(packet.at, frame.len() as u32, Cow::Owned(frame)).unwrap())
                .unwrap();
        }
        let file = writer.into_inner();
        let seen = by_us(&file);
        prop_assert_eq!(seen.len(), sent.iter().filter(|packet| !packet.is_tcp).count());
        prop_assert_eq!(seen, pcap_by_them(&file));
    }

    #[test]
    fn pcapng_is_read_as_others_read_it(
        sent in sent(), links in vec((links(), 0..3_usize), 1..4), endianness in orders(),
    ) {
        let mut writer = PcapNgWriter::with_endianness(Vec::new(), endianness).unwrap();
        for (linktype, resolution) in &links {
            let resolutions = [None, Some(InterfaceTsResolution::NANO), Some(InterfaceTsResolution::MICRO)];
            let options = resolutions[*resolution].map(InterfaceDescriptionOption::IfTsResol);
            writer.write_pcapng_block(InterfaceDescriptionBlock {
                linktype: *linktype,
                snaplen: 0,
                options: options.into_iter().collect(),
            }).unwrap();
        }
        for (index, packet) in sent.iter().enumerate() {
            let interface = index % links.len();
            let frame = frame(packet, links[interface].0);
            writer.write_pcapng_block(EnhancedPacketBlock {
                interface_id: interface as u32,
                timestamp: packet.at,
                original_len: frame.len() as u32,
                data: Cow::Owned(frame),
                options: vec![],
            }).unwrap();
        }
        let file = writer.into_inner();
        let seen = by_us(&file);
        prop_assert_eq!(seen.len(), sent.iter().filter(|packet| !packet.is_tcp).count());
        prop_assert_eq!(seen, pcapng_by_them(&file));
    }

    #[test]
    fn adhoc_gives_back_what_was_written(
        packets in vec((1_000_000_000_000_000_000..3_000_000_000_000_000_000_u64, any::<bool>(),
            vec(any::<u8>(), 0..40)), 0..8),
    ) {
        let mut file = Vec::new();
        for (at, v6, payload) in &packets {
            adhoc::record(address(*v6), Wall(*at), payload, &mut file);
        }
        let capture = Capture::new(file).unwrap();
        prop_assert_eq!(capture.format(), Format::Adhoc);
        let read: Vec<_> = capture.packets().map(Result::unwrap).collect();
        prop_assert_eq!(read.len(), packets.len());
        for (read, (at, v6, payload)) in read.iter().zip(&packets) {
            prop_assert_eq!(read.at.seconds(), Wall(*at).seconds());
            prop_assert_eq!(read.source, address(*v6));
            prop_assert_eq!(read.payload, payload);
        }
    }

    #[test]
    fn no_bytes_upset_the_readers(
        magic in 0..5_usize, mut bytes in vec(prop_oneof![3 => 0..8_u8, 1 => any::<u8>()], 0..400),
    ) {
        let magics: [&[u8]; 5] = [
            &[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0],
            &[0xa1, 0xb2, 0x3c, 0x4d, 0, 2, 0, 4],
            &[0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a],
            &[0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 28, 0x1a, 0x2b, 0x3c, 0x4d],
            &[2, 0],
        ];
        let mut file = magics[magic].to_vec();
        file.append(&mut bytes);
        if let Ok(capture) = Capture::new(file.clone()) {
            for headers in [Headers::Read, Headers::Fixed] {
                prop_assert!(capture.packets_by(headers).count() <= file.len());
            }
        }
    }

    #[test]
    fn a_damaged_recording_upsets_nothing(place in any::<prop::sample::Index>(), value: u8, cut: bool) {
        for mut file in [recording(false), recording(true)] {
            let index = place.index(file.len());
            file[index] = value;
            if cut {
                file.truncate(index);
            }
            if let Ok(capture) = Capture::new(file) {
                capture.packets().for_each(drop);
                capture.packets_by(Headers::Fixed).for_each(drop);
            }
        }
    }
}

fn address(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8::7]:40000" } else { "192.0.2.7:40000" }.parse().unwrap()
}

const AT: Wall = Wall(1_700_000_000_123_456_000);

/// Three packets, as our recorder writes them.
fn recording(is_pcapng: bool) -> Vec<u8> {
    let framer = Framer::new(address(false), ([192, 0, 2, 1], 35000).into(), Macs::Compat);
    let mut file = Vec::new();
    if is_pcapng {
        pcapng::section(&[], &mut file);
        pcapng::INTERFACE_NAMES.iter().for_each(|name| pcapng::interface(name, &mut file));
        pcapng::interface(pcapng::SYNTHETIC_NAME, &mut file);
    } else {
        pcap::file_header(Resolution::Micro, &mut file);
    }
    for (number, payload) in [(1, "one"), (2, "two"), (4, "three")] {
        let mut frame = Vec::new();
        framer.write(0, payload.as_bytes(), &mut frame);
        if is_pcapng {
            pcapng::packet(number, AT, &frame, PacketOptions::default(), &mut file);
        } else {
            pcap::record_header(Resolution::Micro, AT, frame.len(), &mut file);
            file.extend(frame);
        }
    }
    file
}

#[test]
fn our_pcapng_names_the_legs() {
    let capture = Capture::new(recording(true)).unwrap();
    assert_eq!(capture.format(), Format::Pcapng);
    let origins: Vec<_> = capture.packets().map(|packet| packet.unwrap().origin).collect();
    assert_eq!(
        origins,
        [Origin::Leg(Leg::Callee, Channel::Rtp), Origin::Leg(Leg::Caller, Channel::Rtcp), Origin::Synthetic]
    );
}

#[test]
fn a_cut_file_gives_its_whole_packets_and_says_where_it_ends() {
    for is_pcapng in [false, true] {
        let mut file = recording(is_pcapng);
        file.pop();
        let capture = Capture::new(file).unwrap();
        let mut packets = capture.packets();
        assert_eq!(packets.next().unwrap().unwrap().payload, b"one");
        assert_eq!(packets.next().unwrap().unwrap().payload, b"two");
        assert!(matches!(packets.next(), Some(Err(CaptureError::Cut { .. }))));
        assert!(packets.next().is_none());
    }
}

#[test]
fn headers_of_pcap_must_be_whole_and_known() {
    let good = recording(false);
    assert!(matches!(Capture::new(good[..23].to_vec()), Err(CaptureError::Cut { .. })));
    for (place, value) in [(4, 3), (6, 5), (20, 147)] {
        let mut file = good.clone();
        file[place] = value;
        assert!(matches!(Capture::new(file), Err(CaptureError::Broken { .. })), "byte {place}");
    }
    assert_eq!(Capture::new(good[..24].to_vec()).unwrap().packets().count(), 0);
}

#[test]
fn text_is_no_capture() {
    let capture = Capture::new(b"Dear reader, this is no capture of anything.".to_vec()).unwrap();
    let Some(Err(error)) = capture.packets().next() else { panic!("it was read") };
    assert!(error.to_string().starts_with("neither a known capture format nor"), "{error}");
}

#[test]
fn fixed_headers_take_the_rest_of_an_ipv4_frame() {
    let mut file = Vec::new();
    pcap::file_header(Resolution::Micro, &mut file);
    let v4 = Framer::new(address(false), ([192, 0, 2, 1], 35000).into(), Macs::Compat);
    let v6 = Framer::new(address(true), "[::1]:35000".parse().unwrap(), Macs::Compat);
    for framer in [v4, v6] {
        let mut frame = Vec::new();
        framer.write(0, b"sound", &mut frame);
        // What a network card puts behind a short frame.
        frame.extend([0; 13]);
        pcap::record_header(Resolution::Micro, AT, frame.len(), &mut file);
        file.extend(frame);
    }
    let capture = Capture::new(file).unwrap();
    let payloads = |headers| {
        let packets = capture.packets_by(headers).map(|packet| packet.unwrap().payload.to_vec());
        packets.collect::<Vec<_>>()
    };
    assert_eq!(payloads(Headers::Read), [b"sound", b"sound"]);
    assert_eq!(payloads(Headers::Fixed), [b"sound\0\0\0\0\0\0\0\0\0\0\0\0\0"]);
}

#[test]
fn fixed_headers_are_those_of_one_kind_of_pcap() {
    let little = recording(false);
    let other = |place: usize, bytes: &[u8]| {
        let mut file = little.clone();
        file[place..place + bytes.len()].copy_from_slice(bytes);
        file
    };
    let big = b"\xa1\xb2\xc3\xd4\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\0\0\0\x01";
    for file in [big.to_vec(), other(0, b"\x4d\x3c\xb2\xa1"), other(20, b"\x71")] {
        let capture = Capture::new(file).unwrap();
        let mut packets = capture.packets_by(Headers::Fixed);
        let Some(Err(error)) = packets.next() else { panic!("it was read") };
        assert_eq!(error.to_string(), "a kind of pcap that only rtpproxy extract reads at byte 0");
        assert!(packets.next().is_none());
        assert!(capture.packets().all(|packet| packet.is_ok()));
    }
}

#[test]
fn fixed_headers_have_no_tags() {
    let mut file = Vec::new();
    pcap::file_header(Resolution::Micro, &mut file);
    let framer = Framer::new(address(false), ([192, 0, 2, 1], 35000).into(), Macs::Compat);
    let mut frame = Vec::new();
    framer.write(0, b"sound", &mut frame);
    frame.splice(12..12, [0x81, 0, 0, 7]);
    pcap::record_header(Resolution::Micro, AT, frame.len(), &mut file);
    file.extend(frame);
    let capture = Capture::new(file).unwrap();
    assert_eq!(capture.packets_by(Headers::Read).count(), 1);
    assert_eq!(capture.packets_by(Headers::Fixed).count(), 0);
}

#[test]
fn null_links_are_read() {
    let mut file = Vec::new();
    pcap::file_header(Resolution::Micro, &mut file);
    file[20] = 0;
    let framer = Framer::new(address(false), ([192, 0, 2, 1], 35000).into(), Macs::Compat);
    let mut frame = Vec::new();
    framer.write(0, b"sound", &mut frame);
    frame.splice(..14, [2, 0, 0, 0]);
    pcap::record_header(Resolution::Micro, AT, frame.len(), &mut file);
    file.extend(frame);
    let capture = Capture::new(file).unwrap();
    for headers in [Headers::Read, Headers::Fixed] {
        assert_eq!(capture.packets_by(headers).next().unwrap().unwrap().payload, b"sound");
    }
}

#[test]
fn fragments_are_skipped() {
    let mut file = recording(false);
    // The flags of the first packet's IP header: more fragments follow.
    file[24 + 16 + 14 + 6] = 0x20;
    let capture = Capture::new(file).unwrap();
    let mut packets = capture.packets();
    assert_eq!(packets.by_ref().count(), 2);
    assert_eq!(packets.skipped(), 1);
}
