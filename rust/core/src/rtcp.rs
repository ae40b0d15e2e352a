//! Telling RTCP from RTP, and reading compound RTCP packets (RFC 3550, section 6).

use std::ops::RangeInclusive;

use crate::rtp::VERSION;

/// The types of RTCP packets that are told from RTP on a shared port (RFC 5761, section 4).
///
/// They are where RTP has the marker and the payload type; 200 is the sender report, 201 the receiver report.
pub const TYPES: RangeInclusive<u8> = 200..=213;

/// The length of the header that all RTCP packets share, in bytes.
pub const HEADER_LEN: usize = 4;

/// True if a datagram begins like RTCP: what tells it from RTP where both share a port.
///
/// Holds for SRTCP too, whose first eight bytes are in the clear.
pub fn is_rtcp(bytes: &[u8]) -> bool {
    matches!(bytes, [first, kind, _, _, ..] if first >> 6 == VERSION && TYPES.contains(kind))
}

/// A datagram that was checked to be one or more RTCP packets, end to end.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +---+-+---------+---------------+-------------------------------+
/// |V=2|P|  count  |     type      |       words that follow       |
/// +---+-+---------+---------------+-------------------------------+
/// |                             SSRC                              |
/// +---------------------------------------------------------------+
/// |                             body                              |
/// |                 +---------------------------------------------+
/// |                 | if P: padding, its last byte is its length  |
/// +-----------------+---------------------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtcpView<'a> {
    bytes: &'a [u8],
}

impl<'a> RtcpView<'a> {
    /// Checks that `bytes` is a compound packet, or a single one (RFC 5506).
    ///
    /// # Errors
    ///
    /// When a version is not 2, when the type of the first packet is not one of [`TYPES`], and when a packet
    /// or its padding does not fit.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtcpError> {
        let (first, mut rest) = split_first(bytes)?;
        if !TYPES.contains(&first.kind) {
            return Err(RtcpError::Type(first.kind));
        }
        while !rest.is_empty() {
            (_, rest) = split_first(rest)?;
        }
        Ok(Self { bytes })
    }

    /// The SSRC of the first packet: that of whoever sent the datagram. None if that packet is only a header.
    pub fn first_ssrc(&self) -> Option<u32> {
        self.packets().next()?.ssrc
    }

    /// The packets in their order; there is at least one.
    pub fn packets(&self) -> Packets<'a> {
        Packets { rest: self.bytes }
    }
}

/// One packet of a compound packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtcpPacket<'a> {
    /// The type.
    pub kind: u8,
    /// The five bits behind the padding bit: the number of reports or sources, or a subtype.
    pub count: u8,
    /// The first word behind the header: the sender, in SDES and BYE the first source.
    pub ssrc: Option<u32>,
    /// What follows the SSRC, without the padding.
    pub body: &'a [u8],
}

/// The packets of an [`RtcpView`].
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = RtcpPacket<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        // Fails at the end only: the rest was checked by `parse`.
        let (packet, rest) = split_first(self.rest).ok()?;
        self.rest = rest;
        Some(packet)
    }
}

/// Why a datagram is not a compound RTCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtcpError {
    /// Shorter than a header.
    #[error("{len} bytes are too short for an RTCP header")]
    Short {
        /// What is left of the datagram, in bytes.
        len: usize,
    },
    /// Another version than 2.
    #[error("RTCP version {0} instead of 2")]
    Version(u8),
    /// The first packet is not RTCP.
    #[error("RTCP packet of the unknown type {0}")]
    Type(u8),
    /// A packet reaches beyond the datagram.
    #[error("RTCP packet of {packet_len} bytes where {len} are left")]
    Truncated {
        /// The length that the header tells, in bytes.
        packet_len: usize,
        /// What is left of the datagram, in bytes.
        len: usize,
    },
    /// Padding that is announced but empty, or longer than what it pads.
    #[error("RTCP padding of {0} bytes")]
    Padding(u8),
}

/// The first packet of `bytes` and what follows it.
fn split_first(bytes: &[u8]) -> Result<(RtcpPacket<'_>, &[u8]), RtcpError> {
    let (packet, rest) = split_whole(bytes)?;
    let (first, kind) = (packet[0], packet[1]);
    let content = &packet[HEADER_LEN..];
    let content = if first & PADDING_BIT != 0 { without_padding(content)? } else { content };
    let (ssrc, body) = match content.split_first_chunk() {
        Some((ssrc, body)) => (Some(u32::from_be_bytes(*ssrc)), body),
        None => (None, content),
    };
    Ok((RtcpPacket { kind, count: first & COUNT, ssrc, body }, rest))
}

/// The bytes of the first packet, at least [`HEADER_LEN`], and what follows it. Type and padding are not looked at.
pub(crate) fn split_whole(bytes: &[u8]) -> Result<(&[u8], &[u8]), RtcpError> {
    let len = bytes.len();
    let &[first, _, high, low, ..] = bytes else {
        return Err(RtcpError::Short { len });
    };
    if first >> 6 != VERSION {
        return Err(RtcpError::Version(first >> 6));
    }
    let packet_len = HEADER_LEN + 4 * usize::from(u16::from_be_bytes([high, low]));
    bytes.split_at_checked(packet_len).ok_or(RtcpError::Truncated { packet_len, len })
}

fn without_padding(content: &[u8]) -> Result<&[u8], RtcpError> {
    let padding = content.last().copied().unwrap_or(0);
    match content.len().checked_sub(usize::from(padding)) {
        Some(end) if padding > 0 => Ok(&content[..end]),
        _ => Err(RtcpError::Padding(padding)),
    }
}

const PADDING_BIT: u8 = 0x20;
const COUNT: u8 = 0x1f;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A receiver report without reports, by 0xa1b2c3d4.
    const REPORT: [u8; 8] = [0x80, 201, 0, 1, 0xa1, 0xb2, 0xc3, 0xd4];
    /// A BYE of the same source, with the reason "bye".
    const BYE: [u8; 12] = [0x81, 203, 0, 2, 0xa1, 0xb2, 0xc3, 0xd4, 3, b'b', b'y', b'e'];

    #[test]
    fn rtcp_is_told_from_rtp() {
        assert!(is_rtcp(&REPORT));
        assert!(!is_rtcp(&REPORT[..3]));
        assert!(!is_rtcp(b""));
        for kind in 0..=u8::MAX {
            assert_eq!(is_rtcp(&[0x80, kind, 0, 0]), (200..=213).contains(&kind));
            assert!(!is_rtcp(&[0x40, kind, 0, 0]));
        }
    }

    #[test]
    fn iterates_a_compound_packet() {
        let bytes = [REPORT.as_slice(), &BYE].concat();
        let rtcp = RtcpView::parse(&bytes).unwrap();
        assert_eq!(rtcp.first_ssrc(), Some(0xa1b2_c3d4));
        let report = RtcpPacket { kind: 201, count: 0, ssrc: Some(0xa1b2_c3d4), body: b"" };
        let bye = RtcpPacket { kind: 203, count: 1, ssrc: Some(0xa1b2_c3d4), body: b"\x03bye" };
        assert_eq!(rtcp.packets().collect::<Vec<_>>(), [report, bye]);
    }

    #[test]
    fn a_bare_header_has_no_ssrc() {
        assert_eq!(RtcpView::parse(&[0x80, 203, 0, 0]).unwrap().first_ssrc(), None);
    }

    #[test]
    fn only_the_first_type_is_checked() {
        let mut bytes = [REPORT, REPORT].concat();
        bytes[9] = 250;
        assert_eq!(RtcpView::parse(&bytes).unwrap().packets().last().unwrap().kind, 250);
        bytes[1] = 199;
        assert_eq!(RtcpView::parse(&bytes), Err(RtcpError::Type(199)));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert_eq!(RtcpView::parse(b""), Err(RtcpError::Short { len: 0 }));
        assert_eq!(RtcpView::parse(&REPORT[..7]), Err(RtcpError::Truncated { packet_len: 8, len: 7 }));
        let trailing = [REPORT.as_slice(), &[0x80, 201, 0]].concat();
        assert_eq!(RtcpView::parse(&trailing), Err(RtcpError::Short { len: 3 }));
        let other_version = [REPORT.as_slice(), &[0x40, 201, 0, 0]].concat();
        assert_eq!(RtcpView::parse(&other_version), Err(RtcpError::Version(1)));
    }

    #[test]
    fn takes_padding_off() {
        let padded = |padding: u8| {
            let mut bytes = [0xa1, 203, 0, 3, 1, 2, 3, 4, 3, b'b', b'y', b'e', 0, 0, 0, 0];
            bytes[15] = padding;
            RtcpView::parse(&bytes).map(|rtcp| rtcp.packets().next().unwrap().body.len())
        };
        assert_eq!(padded(4), Ok(4));
        assert_eq!(padded(8), Ok(0));
        assert_eq!(padded(0), Err(RtcpError::Padding(0)));
        assert_eq!(padded(13), Err(RtcpError::Padding(13)));
        assert_eq!(RtcpView::parse(&[0xa0, 203, 0, 0]), Err(RtcpError::Padding(0)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn never_panics_and_covers_the_datagram(
            packets in prop::collection::vec(
                (0x80..=0xbf_u8, 199..=214_u8, 0..4_u16, any::<[u8; 16]>()),
                1..5,
            ),
            cut in 0..3_usize,
        ) {
            let mut bytes = Vec::new();
            for (first, kind, words, content) in packets {
                bytes.extend([first, kind]);
                bytes.extend(words.to_be_bytes());
                bytes.extend(&content[..4 * usize::from(words)]);
            }
            bytes.truncate(bytes.len() - cut);
            if let Ok(rtcp) = RtcpView::parse(&bytes) {
                prop_assert!(is_rtcp(&bytes));
                let mut packets = rtcp.packets();
                prop_assert!(packets.by_ref().count() > 0);
                prop_assert!(packets.rest.is_empty());
            }
        }
    }
}
