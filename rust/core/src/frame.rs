//! Putting a datagram into the Ethernet, IP and UDP headers it did not have when the relay saw it.
//!
//! Capture formats hold frames, sockets hand out payloads. A [`Framer`] stands for one pair of addresses:
//! etherparse lays out the headers once, and each packet then changes only lengths, id and checksums.
//!
//! ```text
//! 0        14             34 or 54   42 or 62
//! | Ethernet | IPv4 or IPv6 |   UDP   | payload …
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder};

use crate::recording::Leg;

/// The longest payload a frame can hold, in bytes, so that it stays below a capture's snap length of 65535.
pub const MAX_PAYLOAD: usize = 65_535 - HEAD_V6;

/// How the two MAC addresses of a frame are made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Macs {
    /// From the IP addresses, as the C program does: two zero bytes and the IPv4 address, or the first six
    /// bytes of the IPv6 address with the other ten XORed over them.
    Compat,
    /// Locally administered: `02:00:00:00:00:0a` is the caller (A leg), `…:0b` the callee (B leg), and
    /// `…:00` the relay, to which the frame goes.
    Leg(Leg),
}

/// The headers of one direction between two addresses.
#[derive(Clone, Debug)]
pub struct Framer {
    head: [u8; HEAD_V6],
    is_v4: bool,
    /// The IPv4 header without length, id and checksum.
    ip_sum: Sum16BitWords,
    /// Pseudo header and UDP header without length and checksum.
    udp_sum: Sum16BitWords,
}

impl Framer {
    /// Frames for datagrams that `src` sent to `dst`.
    ///
    /// Addresses of different families are both written as IPv6, the IPv4 one as `::ffff:a.b.c.d`.
    pub fn new(src: SocketAddr, dst: SocketAddr, macs: Macs) -> Self {
        let (src_ip, dst_ip) = one_family(src.ip(), dst.ip());
        let (src_mac, dst_mac) = mac_pair(macs, src_ip, dst_ip);
        let builder = PacketBuilder::ethernet2(src_mac, dst_mac)
            .ip(ip_header(src_ip, dst_ip))
            .udp(src.port(), dst.port());
        let mut head = [0; HEAD_V6];
        let mut unused: &mut [u8] = &mut head;
        builder.write(&mut unused, &[]).expect("the headers fit the buffer, and an empty payload any length");
        let is_v4 = src_ip.is_ipv4();
        let mut framer = Self { head, is_v4, ip_sum: Sum16BitWords::new(), udp_sum: Sum16BitWords::new() };
        framer.clear_variables();
        framer.sum_constants();
        framer
    }

    /// Appends the frame around `payload` to `out`.
    ///
    /// `ip_id` is the identification of the IPv4 header; IPv6 has none. A payload is cut at [`MAX_PAYLOAD`].
    pub fn write(&self, ip_id: u16, payload: &[u8], out: &mut Vec<u8>) {
        let payload = &payload[..payload.len().min(MAX_PAYLOAD)];
        let udp_len = (UDP_LEN + payload.len()) as u16;
        let mut head = self.head;
        if self.is_v4 {
            let total = (IPV4_LEN as u16 + udp_len).to_be_bytes();
            let id = ip_id.to_be_bytes();
            let sum = self.ip_sum.clone().add_2bytes(total).add_2bytes(id);
            put(&mut head, IP_AT + 2, total);
            put(&mut head, IP_AT + 4, id);
            put(&mut head, IP_AT + 10, sum.ones_complement().to_ne_bytes());
        } else {
            put(&mut head, IP_AT + 4, udp_len.to_be_bytes());
        }
        let udp_at = self.head_len() - UDP_LEN;
        // The length stands in the pseudo header and in the UDP header.
        let len = udp_len.to_be_bytes();
        let sum = self.udp_sum.clone().add_2bytes(len).add_2bytes(len).add_slice(payload);
        put(&mut head, udp_at + 4, len);
        put(&mut head, udp_at + 6, sum.to_ones_complement_with_no_zero().to_ne_bytes());
        out.extend_from_slice(&head[..self.head_len()]);
        out.extend_from_slice(payload);
    }

    /// The length in bytes of the frame that [`Self::write`] makes of a payload of `payload_len` bytes.
    pub fn frame_len(&self, payload_len: usize) -> usize {
        self.head_len() + payload_len.min(MAX_PAYLOAD)
    }

    fn head_len(&self) -> usize {
        if self.is_v4 { HEAD_V4 } else { HEAD_V6 }
    }

    /// Zeroes what differs from packet to packet.
    fn clear_variables(&mut self) {
        if self.is_v4 {
            put(&mut self.head, IP_AT + 2, [0; 2]);
            put(&mut self.head, IP_AT + 4, [0; 2]);
            put(&mut self.head, IP_AT + 10, [0; 2]);
        } else {
            put(&mut self.head, IP_AT + 4, [0; 2]);
        }
        let udp_at = self.head_len() - UDP_LEN;
        self.head[udp_at + 4..udp_at + UDP_LEN].fill(0);
    }

    /// Sums what does not.
    fn sum_constants(&mut self) {
        let head_len = self.head_len();
        let (ip, udp) = self.head[IP_AT..head_len].split_at(head_len - IP_AT - UDP_LEN);
        let addresses = if self.is_v4 { &ip[12..] } else { &ip[8..] };
        self.udp_sum =
            Sum16BitWords::new().add_slice(addresses).add_2bytes([0, IpNumber::UDP.0]).add_slice(udp);
        if self.is_v4 {
            self.ip_sum = Sum16BitWords::new().add_slice(ip);
        }
    }
}

/// A datagram of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Where it came from.
    pub src: SocketAddr,
    /// Where it went, if the format tells.
    pub dst: Option<SocketAddr>,
    /// The bytes above UDP.
    pub payload: &'a [u8],
    /// Its checksum is right, or there is none.
    pub is_intact: bool,
}

/// The datagram in a frame as [`Framer`] writes them: without VLAN, IP options and extensions. None in others.
pub fn datagram(frame: &[u8]) -> Option<Datagram<'_>> {
    let is_v4 = match *frame.get(12..=IP_AT)? {
        [0x08, 0x00, 0x45] => true,
        [0x86, 0xdd, version] if version >> 4 == 6 => false,
        _ => return None,
    };
    let (head_len, protocol_at, addresses_at) =
        if is_v4 { (HEAD_V4, IP_AT + 9, IP_AT + 12) } else { (HEAD_V6, IP_AT + 6, IP_AT + 8) };
    let udp = frame.get(head_len - UDP_LEN..)?;
    let number = |at: usize| Some(u16::from_be_bytes(*udp.get(at..)?.first_chunk()?));
    let udp_len = number(4)?;
    let udp = udp.get(..usize::from(udp_len))?;
    if frame[protocol_at] != IpNumber::UDP.0 || udp.len() < UDP_LEN {
        return None;
    }
    let addresses = &frame[addresses_at..head_len - UDP_LEN];
    let (src, dst) = addresses.split_at(addresses.len() / 2);
    let sum = Sum16BitWords::new()
        .add_slice(addresses)
        .add_2bytes([0, IpNumber::UDP.0])
        .add_2bytes(udp_len.to_be_bytes())
        .add_slice(udp);
    Some(Datagram {
        src: SocketAddr::new(ip(src)?, number(0)?),
        dst: Some(SocketAddr::new(ip(dst)?, number(2)?)),
        payload: &udp[UDP_LEN..],
        is_intact: sum.ones_complement() == 0,
    })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

fn one_family(src: IpAddr, dst: IpAddr) -> (IpAddr, IpAddr) {
    let mapped = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    };
    if src.is_ipv4() == dst.is_ipv4() { (src, dst) } else { (mapped(src), mapped(dst)) }
}

fn mac_pair(macs: Macs, src: IpAddr, dst: IpAddr) -> ([u8; 6], [u8; 6]) {
    match macs {
        Macs::Compat => (compat_mac(src), compat_mac(dst)),
        Macs::Leg(Leg::Caller) => (local_mac(0x0a), local_mac(0)),
        Macs::Leg(Leg::Callee) => (local_mac(0x0b), local_mac(0)),
    }
}

fn local_mac(last: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0, last]
}

fn compat_mac(ip: IpAddr) -> [u8; 6] {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [0, 0, a, b, c, d]
        }
        IpAddr::V6(v6) => fold(v6),
    }
}

fn fold(ip: Ipv6Addr) -> [u8; 6] {
    let mut mac = [0; 6];
    for (i, byte) in ip.octets().into_iter().enumerate() {
        mac[i % 6] ^= byte;
    }
    mac
}

fn ip_header(src: IpAddr, dst: IpAddr) -> IpHeaders {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let header = Ipv4Header {
                dont_fragment: false,
                time_to_live: TTL_V4,
                source: src.octets(),
                destination: dst.octets(),
                ..Ipv4Header::default()
            };
            IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
        }
        (src, dst) => {
            let header = Ipv6Header {
                hop_limit: HOP_LIMIT_V6,
                source: v6_octets(src),
                destination: v6_octets(dst),
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default())
        }
    }
}

fn v6_octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn put(head: &mut [u8], at: usize, bytes: [u8; 2]) {
    head[at..at + 2].copy_from_slice(&bytes);
}

const IP_AT: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const HEAD_V4: usize = IP_AT + IPV4_LEN + UDP_LEN;
const HEAD_V6: usize = IP_AT + IPV6_LEN + UDP_LEN;
const TTL_V4: u8 = 127;
const HOP_LIMIT_V6: u8 = 64;

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn frame(framer: &Framer, ip_id: u16, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        framer.write(ip_id, payload, &mut out);
        out
    }

    #[test]
    fn ipv4_frame_is_byte_exact() {
        let framer = Framer::new(addr("192.0.2.10:40000"), addr("192.0.2.1:35000"), Macs::Compat);
        #[rustfmt::skip]
        let expected = [
            0x00, 0x00, 192, 0, 2, 1,   0x00, 0x00, 192, 0, 2, 10,   0x08, 0x00,
            // 0x45, length 20 + 8 + 3, id 0x0102, no flags, TTL 127, UDP.
            // Sum: 4500 + 001f + 0102 + 7f11 + c000 + 020a + c000 + 0201 = 2493d -> 493f -> b6c0
            0x45, 0x00, 0x00, 0x1f, 0x01, 0x02, 0x00, 0x00, 0x7f, 0x11, 0xb6, 0xc0,
            192, 0, 2, 10,   192, 0, 2, 1,
            // Sum: c000 + 020a + c000 + 0201 + 0011 + 000b + 9c40 + 88b8 + 000b + 6162 + 6300
            //    = 36d8c -> 6d8f -> 9270
            0x9c, 0x40, 0x88, 0xb8, 0x00, 0x0b, 0x92, 0x70,
            b'a', b'b', b'c',
        ];
        assert_eq!(frame(&framer, 0x0102, b"abc"), expected);
        assert_eq!(framer.frame_len(3), expected.len());
    }

    #[test]
    fn ipv6_frame_is_byte_exact() {
        let framer = Framer::new(addr("[2001:db8::a]:40000"), addr("[2001:db8::1]:35000"), Macs::Compat);
        #[rustfmt::skip]
        let expected = [
            // Bytes 6..16 fold over 0..6: the last one (index 15) lands on index 3.
            0x20, 0x01, 0x0d, 0xb8 ^ 0x01, 0, 0,   0x20, 0x01, 0x0d, 0xb8 ^ 0x0a, 0, 0,   0x86, 0xdd,
            0x60, 0, 0, 0, 0x00, 0x0b, 17, 64,
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a,
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01,
            // Sum: 2*(2001 + 0db8) + 000a + 0001 + 0011 + 000b + 9c40 + 88b8 + 000b + 6162 + 6300
            //    = 244fe -> 4500 -> baff
            0x9c, 0x40, 0x88, 0xb8, 0x00, 0x0b, 0xba, 0xff,
            b'a', b'b', b'c',
        ];
        assert_eq!(frame(&framer, 7, b"abc"), expected);
    }

    #[test]
    fn legs_show_in_the_mac() {
        for (leg, last) in [(Leg::Caller, 0x0a), (Leg::Callee, 0x0b)] {
            let framer = Framer::new(addr("192.0.2.10:1"), addr("192.0.2.1:2"), Macs::Leg(leg));
            let bytes = frame(&framer, 0, b"");
            assert_eq!(bytes[..6], [0x02, 0, 0, 0, 0, 0]);
            assert_eq!(bytes[6..12], [0x02, 0, 0, 0, 0, last]);
        }
    }

    #[test]
    fn a_udp_checksum_of_zero_is_sent_as_ones() {
        for (src, dst) in [("192.0.2.10:4", "192.0.2.1:6"), ("[2001:db8::a]:4", "[2001:db8::1]:6")] {
            let framer = Framer::new(addr(src), addr(dst), Macs::Compat);
            let udp_at = framer.head_len() - UDP_LEN;
            let other = frame(&framer, 0, &[0, 0]);
            // The checksum of a zero word, as the word itself, completes the sum to all ones.
            let bytes = frame(&framer, 0, &[other[udp_at + 6], other[udp_at + 7]]);
            assert_eq!(bytes[udp_at + 6..udp_at + 8], [0xff, 0xff]);
        }
    }

    #[test]
    fn mixed_families_are_written_as_ipv6() {
        let framer = Framer::new(addr("192.0.2.10:1"), addr("[2001:db8::1]:2"), Macs::Compat);
        let bytes = frame(&framer, 0, b"x");
        let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
        let Some(NetSlice::Ipv6(ip)) = packet.net else { panic!("not IPv6") };
        assert_eq!(ip.header().source_addr(), "::ffff:192.0.2.10".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn an_oversized_payload_is_cut_at_the_snap_length() {
        for (src, dst) in [("192.0.2.10:4", "192.0.2.1:6"), ("[2001:db8::a]:4", "[2001:db8::1]:6")] {
            let framer = Framer::new(addr(src), addr(dst), Macs::Compat);
            let bytes = frame(&framer, 0, &vec![1; 70_000]);
            assert_eq!(bytes.len(), framer.frame_len(70_000));
            assert!(bytes.len() <= 65_535);
            SlicedPacket::from_ethernet(&bytes).unwrap();
        }
    }

    fn any_pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let v4 = any::<([u8; 4], u16, [u8; 4], u16)>()
            .prop_map(|(a, p, b, q)| (SocketAddr::from((a, p)), SocketAddr::from((b, q))));
        let v6 = any::<([u8; 16], u16, [u8; 16], u16)>()
            .prop_map(|(a, p, b, q)| (SocketAddr::from((a, p)), SocketAddr::from((b, q))));
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn etherparse_reads_back_what_was_framed(
            (src, dst) in any_pair(),
            ip_id: u16,
            payload in proptest::collection::vec(any::<u8>(), 0..2000),
            macs in prop_oneof![Just(Macs::Compat), Just(Macs::Leg(Leg::Caller))],
        ) {
            let framer = Framer::new(src, dst, macs);
            // What stands in the buffer already must stay.
            let mut out = vec![0xaa; 5];
            framer.write(ip_id, &payload, &mut out);
            prop_assert_eq!(&out[..5], &[0xaa; 5]);
            let bytes = &out[5..];
            prop_assert_eq!(bytes.len(), framer.frame_len(payload.len()));

            let packet = SlicedPacket::from_ethernet(bytes).unwrap();
            let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("not UDP") };
            prop_assert_eq!(udp.payload(), &payload);
            prop_assert_eq!((udp.source_port(), udp.destination_port()), (src.port(), dst.port()));
            let header = udp.to_header();
            let checksum = match packet.net.unwrap() {
                NetSlice::Ipv4(ip) => {
                    let ip = ip.header().to_header();
                    prop_assert_eq!(IpAddr::from(ip.source), src.ip());
                    prop_assert_eq!(IpAddr::from(ip.destination), dst.ip());
                    prop_assert_eq!(ip.identification, ip_id);
                    prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                    prop_assert!(!ip.dont_fragment && !ip.more_fragments);
                    prop_assert_eq!(ip.time_to_live, 127);
                    header.calc_checksum_ipv4(&ip, &payload).unwrap()
                }
                NetSlice::Ipv6(ip) => {
                    let ip = ip.header().to_header();
                    prop_assert_eq!(IpAddr::from(ip.source), src.ip());
                    prop_assert_eq!(IpAddr::from(ip.destination), dst.ip());
                    prop_assert_eq!(ip.hop_limit, 64);
                    header.calc_checksum_ipv6(&ip, &payload).unwrap()
                }
                NetSlice::Arp(_) => panic!("not IP"),
            };
            prop_assert_eq!(header.checksum, checksum);
            prop_assert_ne!(checksum, 0);
        }
    }
}
