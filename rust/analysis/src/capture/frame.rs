//! From a frame to the UDP datagram in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Headers, chunk};

/// What surrounds IP in a frame, by the number of the link type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(pub(super) u16);

impl Link {
    /// Whether frames of this link type can be read.
    pub(super) fn is_known(self) -> bool {
        matches!(self.0, NULL | ETHERNET | RAW_BSD | RAW_OPENBSD | RAW | LOOP | SLL | SLL2 | IPV4 | IPV6)
    }

    /// The link types that the C program knows.
    pub(super) fn is_original(self) -> bool {
        matches!(self.0, NULL | ETHERNET)
    }
}

/// A UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datagram<'a> {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) payload: &'a [u8],
}

/// The datagram in a frame; none if it is something else, a fragment, or not whole.
pub(super) fn datagram(link: Link, frame: &[u8], headers: Headers) -> Option<Datagram<'_>> {
    if headers == Headers::Fixed {
        return fixed_ipv4(fixed_link(link, frame)?);
    }
    let (payload_type, packet) = network(link, frame)?;
    match (payload_type, packet.first()? >> 4) {
        (Network::Ipv4 | Network::Ip, 4) => ipv4(packet),
        (Network::Ipv6 | Network::Ip, 6) => ipv6(packet),
        _ => None,
    }
}

/// What a link says that it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Ipv4,
    Ipv6,
    /// Either; its version tells.
    Ip,
}

fn network(link: Link, frame: &[u8]) -> Option<(Network, &[u8])> {
    match link.0 {
        ETHERNET => by_ether_type(frame, 12),
        SLL => by_ether_type(frame, 14),
        SLL2 => ether_type(u16::from_be_bytes(chunk(frame, 0)?), frame.get(20..)?),
        RAW | RAW_BSD | RAW_OPENBSD | IPV4 | IPV6 => Some((Network::Ip, frame)),
        // The number of the address family in the byte order of the machine that captured; only that of
        // IPv4 is the same everywhere, and the version of IP says as much.
        NULL | LOOP => Some((Network::Ip, frame.get(4..)?)),
        _ => None,
    }
}

fn by_ether_type(frame: &[u8], mut at: usize) -> Option<(Network, &[u8])> {
    loop {
        let number = u16::from_be_bytes(chunk(frame, at)?);
        if !VLAN_TAGS.contains(&number) {
            return ether_type(number, frame.get(at + 2..)?);
        }
        at += 4;
    }
}

fn ether_type(number: u16, packet: &[u8]) -> Option<(Network, &[u8])> {
    match number {
        IPV4_ETHER_TYPE => Some((Network::Ipv4, packet)),
        0x86dd => Some((Network::Ipv6, packet)),
        _ => None,
    }
}

fn ipv4(packet: &[u8]) -> Option<Datagram<'_>> {
    let header: [u8; IPV4_LEN] = chunk(packet, 0)?;
    let header_len = 4 * usize::from(header[0] & 0x0f);
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let is_fragment = u16::from_be_bytes([header[6], header[7]]) & MORE_OR_OFFSET != 0;
    if header_len < IPV4_LEN || header[9] != UDP || is_fragment {
        return None;
    }
    let (source, destination) = ipv4_addresses(&header);
    udp(source, destination, packet.get(header_len..total)?)
}

/// What a link carries if that is IPv4, without tags.
fn fixed_link(link: Link, frame: &[u8]) -> Option<&[u8]> {
    let (is_ipv4, packet) = match link.0 {
        ETHERNET => (chunk(frame, 12)? == IPV4_ETHER_TYPE.to_be_bytes(), frame.get(14..)),
        NULL => (chunk(frame, 0)? == IPV4_FAMILY.to_ne_bytes(), frame.get(4..)),
        _ => return None,
    };
    packet.filter(|_| is_ipv4)
}

fn fixed_ipv4(packet: &[u8]) -> Option<Datagram<'_>> {
    let header: [u8; IPV4_LEN + UDP_LEN] = chunk(packet, 0)?;
    if header[0] >> 4 != 4 || header[9] != UDP {
        return None;
    }
    let [.., a, b, c, d, _, _, _, _] = header;
    let (source, destination) = ipv4_addresses(header.first_chunk()?);
    Some(Datagram {
        source: (source, u16::from_be_bytes([a, b])).into(),
        destination: (destination, u16::from_be_bytes([c, d])).into(),
        payload: &packet[header.len()..],
    })
}

fn ipv4_addresses(header: &[u8; IPV4_LEN]) -> (IpAddr, IpAddr) {
    let [.., a, b, c, d, e, f, g, h] = *header;
    (Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into())
}

fn ipv6(packet: &[u8]) -> Option<Datagram<'_>> {
    let source = Ipv6Addr::from(chunk::<16>(packet, 8)?);
    let destination = Ipv6Addr::from(chunk::<16>(packet, 24)?);
    let len = usize::from(u16::from_be_bytes(chunk(packet, 4)?));
    let mut body = packet.get(IPV6_LEN..IPV6_LEN + len)?;
    let mut next = packet[6];
    while EXTENSIONS.contains(&next) {
        let [following, words] = chunk(body, 0)?;
        body = body.get(8 * (usize::from(words) + 1)..)?;
        next = following;
    }
    if next == UDP { udp(source.into(), destination.into(), body) } else { None }
}

fn udp(source: IpAddr, destination: IpAddr, bytes: &[u8]) -> Option<Datagram<'_>> {
    let [a, b, c, d, e, f, _, _]: [u8; UDP_LEN] = chunk(bytes, 0)?;
    Some(Datagram {
        source: (source, u16::from_be_bytes([a, b])).into(),
        destination: (destination, u16::from_be_bytes([c, d])).into(),
        payload: bytes.get(UDP_LEN..usize::from(u16::from_be_bytes([e, f])))?,
    })
}

const NULL: u16 = 0;
const ETHERNET: u16 = 1;
const RAW_BSD: u16 = 12;
const RAW_OPENBSD: u16 = 14;
const RAW: u16 = 101;
const LOOP: u16 = 108;
const SLL: u16 = 113;
const IPV4: u16 = 228;
const IPV6: u16 = 229;
const SLL2: u16 = 276;

const IPV4_ETHER_TYPE: u16 = 0x0800;
const IPV4_FAMILY: u32 = 2;
/// IEEE 802.1Q and what came before and after it.
const VLAN_TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const UDP: u8 = 17;
/// In the word of an IPv4 header that has both: more fragments follow, and the offset.
const MORE_OR_OFFSET: u16 = 0x3fff;
/// Hop-by-hop options, routing, destination options.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
