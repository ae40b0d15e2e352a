//! Reading recordings back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::section_header::SectionHeaderOption;
use pcap_file::pcapng::{Block, PcapNgReader};

/// A datagram as a capture has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) at: Duration,
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
    pub(super) payload: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(super) struct NgPacket {
    pub(super) interface: String,
    pub(super) datagram: Datagram,
    pub(super) drops: Option<u64>,
    pub(super) comments: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Totals {
    pub(super) received: u64,
    pub(super) dropped: u64,
    pub(super) comments: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct NgFile {
    pub(super) comments: Vec<String>,
    pub(super) packets: Vec<NgPacket>,
    /// Of the interfaces, in order.
    pub(super) totals: Vec<Totals>,
}

impl NgFile {
    /// What was on the wire.
    pub(super) fn real(&self) -> impl Iterator<Item = &NgPacket> {
        self.packets.iter().filter(|packet| packet.interface != "synthetic")
    }

    /// The texts of what was not.
    pub(super) fn synthetic(&self) -> Vec<String> {
        let packets = self.packets.iter().filter(|packet| packet.interface == "synthetic");
        packets.map(|packet| String::from_utf8(packet.datagram.payload.clone()).unwrap()).collect()
    }
}

pub(super) fn pcapng(bytes: &[u8]) -> NgFile {
    let mut reader = PcapNgReader::new(bytes).unwrap();
    let comments = reader.section().options.iter().filter_map(|option| match option {
        SectionHeaderOption::Common(CommonOption::Comment(text)) => Some(text.to_string()),
        _ => None,
    });
    let mut file = NgFile { comments: comments.collect(), ..NgFile::default() };
    let mut names = Vec::new();
    while let Some(block) = reader.next_block() {
        match block.unwrap().0 {
            Block::InterfaceDescription(block) => names.push(
                block
                    .options
                    .iter()
                    .find_map(|option| match option {
                        InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                        _ => None,
                    })
                    .unwrap(),
            ),
            Block::EnhancedPacket(block) => {
                file.packets.push(ng_packet(names[block.interface_id as usize].clone(), &block));
            }
            Block::InterfaceStatistics(block) => {
                assert_eq!(block.interface_id as usize, file.totals.len());
                file.totals.push(totals(&block.options));
            }
            other => panic!("unexpected block {other:?}"),
        }
    }
    file
}

pub(super) fn pcap(bytes: &[u8]) -> Vec<Datagram> {
    let mut reader = PcapReader::new(bytes).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap();
        packets.push(datagram(packet.timestamp(), packet.data()));
    }
    packets
}

/// Source, seconds since the epoch and payload of each record of the C program's format.
pub(super) fn adhoc(mut bytes: &[u8]) -> Vec<(SocketAddr, f64, Vec<u8>)> {
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_at(30);
        let port = u16::from_be_bytes([header[2], header[3]]);
        let ip = match u16::from_ne_bytes([header[0], header[1]]) {
            2 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&header[4..8]).unwrap())),
            10 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&header[4..20]).unwrap())),
            other => panic!("unexpected family {other}"),
        };
        let at = f64::from_ne_bytes(header[20..28].try_into().unwrap());
        let (payload, rest) = rest.split_at(u16::from_ne_bytes([header[28], header[29]]).into());
        packets.push((SocketAddr::new(ip, port), at, payload.to_vec()));
        bytes = rest;
    }
    packets
}

fn ng_packet(interface: String, block: &EnhancedPacketBlock<'_>) -> NgPacket {
    let mut packet = NgPacket {
        interface,
        datagram: datagram(block.timestamp, &block.data),
        drops: None,
        comments: Vec::new(),
    };
    for option in &block.options {
        match option {
            EnhancedPacketOption::DropCount(drops) => packet.drops = Some(*drops),
            EnhancedPacketOption::Common(CommonOption::Comment(text)) => {
                packet.comments.push(text.to_string());
            }
            _ => {}
        }
    }
    packet
}

fn totals(options: &[InterfaceStatisticsOption<'_>]) -> Totals {
    let mut totals = Totals { received: 0, dropped: 0, comments: Vec::new() };
    for option in options {
        match option {
            InterfaceStatisticsOption::IsbIfRecv(count) => totals.received = *count,
            InterfaceStatisticsOption::IsbIfDrop(count) => totals.dropped = *count,
            InterfaceStatisticsOption::Common(CommonOption::Comment(text)) => {
                totals.comments.push(text.to_string());
            }
            _ => {}
        }
    }
    totals
}

fn datagram(at: Duration, frame: &[u8]) -> Datagram {
    let (src, dst, udp): (IpAddr, IpAddr, usize) = match frame[12..14] {
        [0x08, 0x00] => (ip4(&frame[26..30]), ip4(&frame[30..34]), 34),
        [0x86, 0xdd] => (ip6(&frame[22..38]), ip6(&frame[38..54]), 54),
        _ => panic!("unexpected frame {frame:?}"),
    };
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    Datagram {
        at,
        src: SocketAddr::new(src, port(udp)),
        dst: SocketAddr::new(dst, port(udp + 2)),
        payload: frame[udp + 8..].to_vec(),
    }
}

fn ip4(bytes: &[u8]) -> IpAddr {
    Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap()).into()
}

fn ip6(bytes: &[u8]) -> IpAddr {
    Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap()).into()
}
