//! Telling RTCP from RTP, and reading compound RTCP packets (RFC 3550, section 6).

/// True if the second byte of a datagram of RTP version 2 is that of an RTCP packet (RFC 5761, section 4).
pub(crate) fn is_rtcp_type(second_byte: u8) -> bool {
    (200..=213).contains(&second_byte)
}
