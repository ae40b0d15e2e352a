//! Damaged recordings: what is whole is found, and nothing else.

use std::io::{self, Read};
use std::net::SocketAddr;

use proptest::prelude::*;
use rtpproxy_core::adhoc;
use rtpproxy_core::frame::{Framer, Macs};
use rtpproxy_core::pcap::{self, Resolution};
use rtpproxy_core::pcapng::{self, PacketOptions};
use rtpproxy_core::recording::{Channel, Leg};
use rtpproxy_core::salvage::{Event, Format, Hole, Origin, Packet, Piece, Salvage};
use rtpproxy_core::time::Wall;

const START: u64 = 1_700_000_000_123_456_789;

/// How a file of the tests is written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Pcapng,
    Pcap(Resolution),
    Adhoc,
}

const KINDS: [Kind; 4] =
    [Kind::Pcapng, Kind::Pcap(Resolution::Micro), Kind::Pcap(Resolution::Nano), Kind::Adhoc];

impl Kind {
    fn format(self) -> Format {
        match self {
            Self::Pcapng => Format::Pcapng,
            Self::Pcap(_) => Format::Pcap,
            Self::Adhoc => Format::Adhoc,
        }
    }
}

/// A file, where its pieces end, and its payloads with the end of each.
struct File {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    payloads: Vec<(usize, Vec<u8>)>,
}

fn file(kind: Kind, payloads: &[Vec<u8>]) -> File {
    let mut file = File { bytes: Vec::new(), ends: vec![0], payloads: Vec::new() };
    let addrs: [SocketAddr; 2] = [([192, 0, 2, 10], 4000).into(), ([192, 0, 2, 1], 35000).into()];
    let framer = Framer::new(addrs[0], addrs[1], Macs::Leg(Leg::Caller));
    let out = &mut file.bytes;
    match kind {
        Kind::Pcapng => {
            pcapng::section(&["call-id: a", "from-tag: b"], out);
            file.ends.push(out.len());
            for name in pcapng::INTERFACE_NAMES.into_iter().chain([pcapng::SYNTHETIC_NAME]) {
                pcapng::interface(name, out);
                file.ends.push(out.len());
            }
        }
        Kind::Pcap(resolution) => {
            pcap::file_header(resolution, out);
            file.ends.push(out.len());
        }
        Kind::Adhoc => {}
    }
    for (number, payload) in payloads.iter().enumerate() {
        let at = Wall(START + number as u64 * 20_000_000);
        match kind {
            Kind::Pcapng => {
                let mut frame = Vec::new();
                framer.write(number as u16, payload, &mut frame);
                let comments: &[&str] = if number % 7 == 0 { &["latched"] } else { &[] };
                let options = PacketOptions { inbound: true, drops: Some(2), comments };
                pcapng::packet(number as u32 % 2, at, &frame, options, out);
            }
            Kind::Pcap(resolution) => {
                pcap::record_header(resolution, at, framer.frame_len(payload.len()), out);
                framer.write(number as u16, payload, out);
            }
            Kind::Adhoc => adhoc::record(addrs[0], at, payload, out),
        }
        file.ends.push(out.len());
        file.payloads.push((out.len(), payload.clone()));
    }
    if kind == Kind::Pcapng {
        for interface in 0..4 {
            pcapng::statistics(interface, Wall(START), Wall(START), 1, 0, &[], out);
            file.ends.push(out.len());
        }
    }
    file
}

/// What a walk found.
#[derive(Debug, Default, PartialEq)]
struct Found {
    payloads: Vec<Vec<u8>>,
    holes: Vec<Hole>,
    tail: Option<Hole>,
}

fn salvage(source: impl Read, format: Format) -> Found {
    let mut salvage = Salvage::new(source, Some(format)).expect("memory can be read");
    let mut found = Found::default();
    let mut position = 0;
    while let Some(event) = salvage.next().expect("memory can be read") {
        position += match event {
            Event::Piece { at, bytes, what } => {
                assert_eq!(at, position);
                if let Piece::Packet(Packet { datagram: Some(datagram), .. }) = what {
                    found.payloads.push(datagram.payload.to_vec());
                }
                bytes.len() as u64
            }
            Event::Hole(hole) => {
                assert_eq!((hole.at, found.tail), (position, None));
                found.holes.push(hole);
                hole.len
            }
            Event::Tail(hole) => {
                assert_eq!(hole.at, position);
                found.tail = Some(hole);
                hole.len
            }
        };
    }
    found
}

fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 12..300), 1..12)
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(&KINDS[..])
}

fn talk(packets: u32) -> Vec<Vec<u8>> {
    // Different in each place, so that a packet is never taken for another one.
    (0..packets).map(|n| (0..172_u32).map(|i| (n * 31 + i * 7 + 1) as u8 | 1).collect()).collect()
}

proptest! {
    #[test]
    fn a_file_that_is_cut_anywhere_keeps_all_whole_pieces(
        kind in kinds(), payloads in payloads(), cut in any::<prop::sample::Index>(),
    ) {
        let file = file(kind, &payloads);
        let cut = cut.index(file.bytes.len() + 1);
        let found = salvage(&file.bytes[..cut], kind.format());
        let whole: Vec<_> =
            file.payloads.iter().filter(|(end, _)| *end <= cut).map(|(_, payload)| payload.clone()).collect();
        prop_assert_eq!(found.payloads, whole);
        prop_assert!(found.holes.is_empty());
        let last = *file.ends.iter().rfind(|end| **end <= cut).unwrap();
        prop_assert_eq!(found.tail.map(|tail| tail.at), (last < cut).then_some(last as u64));
    }

    #[test]
    fn what_lies_behind_a_hole_is_found(
        kind in kinds(), begin in any::<prop::sample::Index>(), len in 1_usize..3000, is_zero: bool,
    ) {
        let File { mut bytes, payloads, .. } = file(kind, &talk(40));
        let begin = match (kind, begin.index(bytes.len())) {
            // A wrong version or link type of a right head would be believed.
            (Kind::Pcap(_), begin) if begin >= 4 => begin.max(pcap::FILE_HEADER_LEN),
            (_, begin) => begin,
        };
        let end = (begin + len).min(bytes.len());
        for (index, byte) in bytes[begin..end].iter_mut().enumerate() {
            *byte = if is_zero { 0 } else { (index * 89 + 0x55) as u8 };
        }
        let found = salvage(&bytes[..], kind.format());
        let mut starts = 0;
        let mut untouched = Vec::new();
        for (stop, payload) in payloads {
            // Headers and what is before the first packet count to it.
            if stop <= begin || starts >= end {
                untouched.push(payload);
            }
            starts = stop;
        }
        let kept: Vec<_> = untouched.iter().filter(|payload| found.payloads.contains(payload)).collect();
        prop_assert_eq!(kept.len(), untouched.len(), "holes: {:?}", found.holes);
    }

    #[test]
    fn no_bytes_upset_it(
        kind in kinds(), begin in prop::collection::vec(any::<u8>(), 0..400), packets in 0_u32..4,
    ) {
        let file = file(kind, &talk(packets));
        salvage(&begin[..], kind.format());
        salvage(&[&begin[..], &file.bytes].concat()[..], kind.format());
        salvage(&[&file.bytes[..], &begin].concat()[..], kind.format());
    }
}

#[test]
fn a_page_of_zeros_costs_only_the_packets_in_it() {
    for kind in KINDS {
        let File { mut bytes, payloads, .. } = file(kind, &talk(100));
        bytes[4096..8192].fill(0);
        let found = salvage(&bytes[..], kind.format());
        assert!(found.payloads.len() >= 75, "{kind:?}: {} packets", found.payloads.len());
        assert_eq!(found.holes.len(), 1, "{kind:?}");
        assert!(found.holes[0].is_zeros && found.tail.is_none());
        // The ad-hoc format has no checksum that would tell of the packet in which the hole begins.
        let foreign =
            found.payloads.iter().filter(|payload| payloads.iter().all(|(_, sent)| sent != *payload));
        assert_eq!(foreign.count(), usize::from(kind == Kind::Adhoc), "{kind:?}");
    }
}

#[test]
fn a_lost_head_is_made_up_for() {
    for kind in KINDS {
        let File { mut bytes, payloads, .. } = file(kind, &talk(20));
        bytes[..100].fill(0);
        let mut salvage = Salvage::new(&bytes[..], Some(kind.format())).unwrap();
        let Some(Event::Hole(hole)) = salvage.next().unwrap() else { panic!("no hole") };
        assert_eq!(hole.at, 0);
        let mut packets = Vec::new();
        while let Some(event) = salvage.next().expect("memory can be read") {
            if let Event::Piece { what: Piece::Packet(packet), .. } = event {
                if kind == Kind::Pcapng {
                    let leg = if packet.interface == 0 { Leg::Caller } else { Leg::Callee };
                    assert_eq!(packet.origin, Origin::Leg(leg, Channel::Rtp));
                    assert_eq!(packet.dropped, 2);
                }
                let late = Wall(START + (payloads.len() - 1) as u64 * 20_000_000);
                assert!((Wall(START - 1000)..=Wall(late.0 + 1000)).contains(&packet.at), "{:?}", packet.at);
                packets.push(packet.datagram.unwrap().payload.to_vec());
            }
        }
        let sent: Vec<_> = payloads.into_iter().map(|(_, payload)| payload).collect();
        assert!(packets.len() >= 19 && sent.ends_with(&packets), "{kind:?}: {}", packets.len());
    }
}

#[test]
fn a_wrong_length_costs_its_own_packet() {
    for kind in KINDS {
        let File { mut bytes, ends, payloads } = file(kind, &talk(20));
        let first = ends[ends.len() - 16];
        let (at, value) = match kind {
            Kind::Pcapng => (first + 4, 0x4000_u32),
            Kind::Pcap(_) => (first + 8, 0x4000),
            // The family of the address: its length alone cannot be told from a right one.
            Kind::Adhoc => (first, 0x4000),
        };
        bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        let found = salvage(&bytes[..], kind.format());
        assert_eq!(found.payloads.len(), payloads.len() - 1, "{kind:?}");
        assert_eq!(found.holes.len(), 1, "{kind:?}");
    }
}

#[test]
fn memory_is_bounded_in_a_huge_hole() {
    let File { bytes, payloads, .. } = file(Kind::Pcapng, &talk(3));
    let zeros = io::repeat(0).take(20 << 20);
    let found = salvage(bytes.chain(zeros).chain(&bytes[..]), Format::Pcapng);
    assert_eq!(found.payloads.len(), 2 * payloads.len());
    assert_eq!((found.holes.len(), found.holes[0].len, found.holes[0].is_zeros), (1, 20 << 20, true));
}

#[test]
fn what_the_head_says_is_given() {
    let File { bytes, .. } = file(Kind::Pcapng, &talk(1));
    let mut salvage = Salvage::new(&bytes[..], None).unwrap();
    let Some(Event::Piece { what: Piece::Head { comments, is_native }, .. }) = salvage.next().unwrap() else {
        panic!("no head");
    };
    assert_eq!((comments, is_native), (vec!["call-id: a", "from-tag: b"], true));
}
