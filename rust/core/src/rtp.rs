//! Reading RTP packets (RFC 3550, section 5.1).

use crate::rtcp;

/// The version of RTP.
pub const VERSION: u8 = 2;

/// The length of the fixed header, in bytes.
pub const FIXED_HEADER_LEN: usize = 12;

/// A datagram that was checked to be an RTP packet.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +---+-+-+-------+-+-------------+-------------------------------+
/// |V=2|P|X|  CC   |M|     PT      |           sequence            |
/// +---+-+-+-------+-+-------------+-------------------------------+
/// |                           timestamp                           |
/// +---------------------------------------------------------------+
/// |                             SSRC                              |
/// +---------------------------------------------------------------+
/// |                     CC times 4 bytes: CSRCs                   |
/// +-------------------------------+-------------------------------+
/// | if X:        profile          |        words that follow      |
/// +-------------------------------+-------------------------------+
/// |                            payload                            |
/// |                 +---------------------------------------------+
/// |                 | if P: padding, its last byte is its length  |
/// +-----------------+---------------------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpView<'a> {
    header: &'a [u8; FIXED_HEADER_LEN],
    header_len: usize,
    payload: &'a [u8],
}

impl<'a> RtpView<'a> {
    /// Checks that `bytes` is one RTP packet.
    ///
    /// # Errors
    ///
    /// When the version is not 2, when CSRCs, header extension or padding do not fit in `bytes`, and when
    /// the second byte says that this is RTCP sharing the port (RFC 5761, section 4).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtpError> {
        match bytes {
            [first, second, ..]
                if bytes.len() >= FIXED_HEADER_LEN
                    && first >> 6 == VERSION
                    && rtcp::TYPES.contains(second) =>
            {
                Err(RtpError::Rtcp(*second))
            }
            _ => Self::parse_unshared(bytes),
        }
    }

    /// As [`Self::parse`], for a datagram of a port that has no RTCP: a second byte that RTCP would have
    /// is a marker and a payload type.
    ///
    /// # Errors
    ///
    /// The others of [`Self::parse`].
    pub fn parse_unshared(bytes: &'a [u8]) -> Result<Self, RtpError> {
        let header = bytes.first_chunk().ok_or(RtpError::Short { len: bytes.len() })?;
        let version = header[0] >> 6;
        if version != VERSION {
            return Err(RtpError::Version(version));
        }
        let header_len = header_len(header, bytes)?;
        let body = bytes.get(header_len..).ok_or(RtpError::Header { header_len, len: bytes.len() })?;
        let padded = header[0] & PADDING_BIT != 0;
        let payload = if padded { without_padding(body)? } else { body };
        Ok(Self { header, header_len, payload })
    }

    /// The marker bit.
    pub fn marker(&self) -> bool {
        self.header[1] & MARKER_BIT != 0
    }

    /// The payload type, 0 to 127.
    pub fn payload_type(&self) -> u8 {
        self.header[1] & !MARKER_BIT
    }

    /// The sequence number.
    pub fn sequence(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// The timestamp, in units of the payload type's clock.
    pub fn timestamp(&self) -> u32 {
        let [_, _, _, _, a, b, c, d, ..] = *self.header;
        u32::from_be_bytes([a, b, c, d])
    }

    /// The synchronization source.
    pub fn ssrc(&self) -> u32 {
        let [.., a, b, c, d] = *self.header;
        u32::from_be_bytes([a, b, c, d])
    }

    /// The length of everything before the payload, in bytes: fixed header, CSRCs and extension.
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// The payload without the padding; may be empty.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// Why a datagram is not an RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtpError {
    /// Shorter than the fixed header.
    #[error("{len} bytes are too short for an RTP header")]
    Short {
        /// The length of the datagram, in bytes.
        len: usize,
    },
    /// Another version than 2.
    #[error("RTP version {0} instead of 2")]
    Version(u8),
    /// RTCP on the RTP port.
    #[error("RTCP packet of type {0}")]
    Rtcp(u8),
    /// CSRCs or extension reach beyond the datagram.
    #[error("RTP header of at least {header_len} bytes in a datagram of {len}")]
    Header {
        /// What the header says its length is, as far as it can be read, in bytes.
        header_len: usize,
        /// The length of the datagram, in bytes.
        len: usize,
    },
    /// Padding that is announced but counts no byte, not even itself.
    #[error("RTP padding of length 0")]
    EmptyPadding,
    /// Padding longer than what follows the header.
    #[error("RTP padding of {padding} bytes where {room} follow the header")]
    Padding {
        /// The length that the padding claims, in bytes; 1 where there is no room to claim any.
        padding: usize,
        /// What follows the header, in bytes.
        room: usize,
    },
}

/// The clock of a static payload type in Hz (RFC 3551, section 6); none for video and dynamic types.
///
/// All types with a clock are audio.
pub fn clock_rate(payload_type: u8) -> Option<u32> {
    match payload_type {
        0 | 3 | 4 | 5 | 7 | 8 | 9 | 12 | 13 | 15 | 18 => Some(8_000),
        6 => Some(16_000),
        10 | 11 => Some(44_100),
        14 => Some(90_000),
        16 => Some(11_025),
        17 => Some(22_050),
        _ => None,
    }
}

/// The length of everything before the payload, by what the header says.
fn header_len(header: &[u8; FIXED_HEADER_LEN], bytes: &[u8]) -> Result<usize, RtpError> {
    let csrc_end = FIXED_HEADER_LEN + 4 * usize::from(header[0] & CSRC_COUNT);
    if header[0] & EXTENSION_BIT == 0 {
        return Ok(csrc_end);
    }
    let extension_start = csrc_end + EXTENSION_HEADER_LEN;
    match bytes.get(csrc_end..extension_start) {
        Some(&[_, _, high, low]) => Ok(extension_start + 4 * usize::from(u16::from_be_bytes([high, low]))),
        _ => Err(RtpError::Header { header_len: extension_start, len: bytes.len() }),
    }
}

fn without_padding(body: &[u8]) -> Result<&[u8], RtpError> {
    let padding = match body.last() {
        Some(0) => return Err(RtpError::EmptyPadding),
        Some(&count) => usize::from(count),
        None => 1,
    };
    let end = body.len().checked_sub(padding).ok_or(RtpError::Padding { padding, room: body.len() })?;
    Ok(&body[..end])
}

/// In the first byte: there is padding.
pub(crate) const PADDING_BIT: u8 = 0x20;
const EXTENSION_BIT: u8 = 0x10;
const CSRC_COUNT: u8 = 0x0f;

/// In the second byte, above the payload type.
pub(crate) const MARKER_BIT: u8 = 0x80;

const EXTENSION_HEADER_LEN: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtp_types::RtpPacket;

    use super::*;

    /// Marker, payload type 8, sequence 0x1234, timestamp 0x01020304, SSRC 0xa1b2c3d4.
    const PLAIN: [u8; 12] = [0x80, 0x88, 0x12, 0x34, 1, 2, 3, 4, 0xa1, 0xb2, 0xc3, 0xd4];

    fn packet(first: u8, tail: &[u8]) -> Vec<u8> {
        let mut bytes = PLAIN.to_vec();
        bytes[0] = first;
        bytes.extend_from_slice(tail);
        bytes
    }

    #[test]
    fn reads_the_fields() {
        let bytes = packet(0x80, b"sound");
        let rtp = RtpView::parse(&bytes).unwrap();
        assert!(rtp.marker());
        assert_eq!(rtp.payload_type(), 8);
        assert_eq!(rtp.sequence(), 0x1234);
        assert_eq!(rtp.timestamp(), 0x0102_0304);
        assert_eq!(rtp.ssrc(), 0xa1b2_c3d4);
        assert_eq!(rtp.header_len(), 12);
        assert_eq!(rtp.payload(), b"sound");
    }

    #[test]
    fn accepts_an_empty_payload() {
        assert_eq!(RtpView::parse(&PLAIN).unwrap().payload(), b"");
    }

    #[test]
    fn refuses_short_headers_and_other_versions() {
        assert_eq!(RtpView::parse(b""), Err(RtpError::Short { len: 0 }));
        assert_eq!(RtpView::parse(&PLAIN[..11]), Err(RtpError::Short { len: 11 }));
        for version in [0, 1, 3] {
            assert_eq!(RtpView::parse(&packet(version << 6, b"")), Err(RtpError::Version(version)));
        }
    }

    #[test]
    fn refuses_rtcp() {
        let mut bytes = PLAIN;
        for byte in 0..=u8::MAX {
            bytes[1] = byte;
            let expected = (200..=213).contains(&byte).then_some(RtpError::Rtcp(byte));
            assert_eq!(RtpView::parse(&bytes).err(), expected);
        }
    }

    #[test]
    fn a_port_of_its_own_has_no_rtcp() {
        let mut bytes = PLAIN;
        for byte in 0..=u8::MAX {
            bytes[1] = byte;
            let rtp = RtpView::parse_unshared(&bytes).unwrap();
            assert_eq!((rtp.marker(), rtp.payload_type()), (byte >= 128, byte & 127));
        }
        assert_eq!(RtpView::parse_unshared(&PLAIN[..11]), Err(RtpError::Short { len: 11 }));
    }

    #[test]
    fn skips_csrcs_and_extension() {
        let bytes = packet(0x92, b"CSRC....\xbe\xde\x00\x01EXT.sound");
        let rtp = RtpView::parse(&bytes).unwrap();
        assert_eq!(rtp.header_len(), 12 + 8 + 4 + 4);
        assert_eq!(rtp.payload(), b"sound");
    }

    #[test]
    fn refuses_csrcs_and_extension_beyond_the_end() {
        let csrcs = packet(0x82, b"CSRC...");
        assert_eq!(RtpView::parse(&csrcs), Err(RtpError::Header { header_len: 20, len: 19 }));
        let no_extension = packet(0x90, b"\xbe\xde\x00");
        assert_eq!(RtpView::parse(&no_extension), Err(RtpError::Header { header_len: 16, len: 15 }));
        let long_extension = packet(0x90, b"\xbe\xde\x00\x02EXT.");
        assert_eq!(RtpView::parse(&long_extension), Err(RtpError::Header { header_len: 24, len: 20 }));
    }

    #[test]
    fn takes_padding_off() {
        assert_eq!(RtpView::parse(&packet(0xa0, b"sound\0\0\x03")).unwrap().payload(), b"sound");
        assert_eq!(RtpView::parse(&packet(0xa0, b"\x01")).unwrap().payload(), b"");
    }

    #[test]
    fn refuses_impossible_padding() {
        assert_eq!(RtpView::parse(&packet(0xa0, b"sound\0")), Err(RtpError::EmptyPadding));
        assert_eq!(RtpView::parse(&packet(0xa0, b"")), Err(RtpError::Padding { padding: 1, room: 0 }));
        assert_eq!(RtpView::parse(&packet(0xa0, b"ab\x04")), Err(RtpError::Padding { padding: 4, room: 3 }));
    }

    #[test]
    fn knows_the_static_clocks() {
        let known: Vec<_> = (0..=127).filter(|&pt| clock_rate(pt).is_some()).collect();
        assert_eq!(known, [0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]);
        assert_eq!(clock_rate(9), Some(8_000));
        assert_eq!(clock_rate(14), Some(90_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn agrees_with_rtp_types(
            // Mostly version 2, so that the later checks are reached.
            first in prop_oneof![4 => 0x80..=0xbfu8, 1 => any::<u8>()],
            rest in prop::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..64),
        ) {
            let mut bytes = vec![first];
            bytes.extend(rest);
            let rtcp = bytes.get(1).is_some_and(|byte| (200..=213).contains(byte));
            match (RtpView::parse(&bytes), RtpPacket::parse(&bytes)) {
                (Ok(ours), Ok(theirs)) => {
                    prop_assert_eq!(ours.marker(), theirs.marker_bit());
                    prop_assert_eq!(ours.payload_type(), theirs.payload_type());
                    prop_assert_eq!(ours.sequence(), theirs.sequence_number());
                    prop_assert_eq!(ours.timestamp(), theirs.timestamp());
                    prop_assert_eq!(ours.ssrc(), theirs.ssrc());
                    prop_assert_eq!(ours.header_len(), theirs.payload_offset());
                    prop_assert_eq!(ours.payload(), theirs.payload());
                }
                (Ok(_), Err(error)) => prop_assert!(false, "only rtp-types refuses: {error}"),
                (Err(error), Ok(_)) => prop_assert!(rtcp, "only we refuse: {error}"),
                (Err(_), Err(_)) => {}
            }
        }
    }
}
