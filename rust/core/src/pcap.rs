//! The classic pcap format: a file header, then a header before each frame, all in host byte order.
//!
//! The frames come from [`crate::frame::Framer`]; the link type is Ethernet.
//!
//! ```
//! use rtpproxy_core::frame::{Framer, Macs};
//! use rtpproxy_core::pcap::{self, Resolution};
//! use rtpproxy_core::time::Wall;
//!
//! let framer = Framer::new(([192, 0, 2, 10], 40000).into(), ([192, 0, 2, 1], 35000).into(), Macs::Compat);
//! let mut file = Vec::new();
//! pcap::file_header(Resolution::Micro, &mut file);
//! pcap::record_header(Resolution::Micro, Wall(1_700_000_000_000_001_000), framer.frame_len(3), &mut file);
//! framer.write(0, b"rtp", &mut file);
//! assert_eq!(file.len(), 24 + 16 + 45);
//! ```

use std::borrow::Cow;

use byteorder::NativeEndian;
use pcap_file::pcap::{PcapHeader, PcapTsResolution, RawPcapPacket};

use crate::time::Wall;

/// The unit of the fraction of a second in time stamps; the file's magic number tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Microseconds, magic `a1b2c3d4`: read by everything.
    Micro,
    /// Nanoseconds, magic `a1b23c4d`.
    Nano,
}

/// The length of what [`file_header`] appends, in bytes.
pub const FILE_HEADER_LEN: usize = 24;

/// The length of what [`record_header`] appends, in bytes.
pub const RECORD_HEADER_LEN: usize = 16;

/// Appends the header of a file: version 2.4, snap length 65535, link type Ethernet.
pub fn file_header(resolution: Resolution, out: &mut Vec<u8>) {
    let header = PcapHeader { ts_resolution: resolution.into(), ..PcapHeader::default() };
    header.write_to(out).expect("a Vec takes every write");
}

/// Appends the header of one record; a frame of `frame_len` bytes must follow.
///
/// The format's seconds end in 2106; later times are written as its last second.
pub fn record_header(resolution: Resolution, at: Wall, frame_len: usize, out: &mut Vec<u8>) {
    let nanos = (at.0 % 1_000_000_000) as u32;
    let len = frame_len as u32;
    let header = RawPcapPacket {
        ts_sec: u32::try_from(at.0 / 1_000_000_000).unwrap_or(u32::MAX),
        ts_frac: match resolution {
            Resolution::Micro => nanos / 1000,
            Resolution::Nano => nanos,
        },
        incl_len: len,
        orig_len: len,
        data: Cow::Borrowed(&[]),
    };
    header.write_to::<_, NativeEndian>(out).expect("a Vec takes every write");
}

impl From<Resolution> for PcapTsResolution {
    fn from(resolution: Resolution) -> Self {
        match resolution {
            Resolution::Micro => Self::MicroSecond,
            Resolution::Nano => Self::NanoSecond,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pcap_file::pcap::PcapReader;

    use super::*;

    #[test]
    fn headers_are_byte_exact() {
        for (resolution, magic, fraction) in
            [(Resolution::Micro, 0xa1b2_c3d4_u32, 123_456_u32), (Resolution::Nano, 0xa1b2_3c4d, 123_456_789)]
        {
            let mut out = Vec::new();
            file_header(resolution, &mut out);
            assert_eq!(out.len(), FILE_HEADER_LEN);
            record_header(resolution, Wall(1_700_000_000_123_456_789), 214, &mut out);
            assert_eq!(out.len(), FILE_HEADER_LEN + RECORD_HEADER_LEN);

            let mut expected = Vec::new();
            expected.extend(magic.to_ne_bytes());
            expected.extend(2_u16.to_ne_bytes());
            expected.extend(4_u16.to_ne_bytes());
            for word in [0, 0, 65_535, 1, 1_700_000_000, fraction, 214, 214_u32] {
                expected.extend(word.to_ne_bytes());
            }
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn pcap_file_reads_back_what_was_written() {
        let at = Wall(1_700_000_000_123_456_789);
        for (resolution, nanos) in [(Resolution::Micro, 123_456_000), (Resolution::Nano, 123_456_789)] {
            let mut file = Vec::new();
            file_header(resolution, &mut file);
            for frame in [&b"first"[..], b"", b"third"] {
                record_header(resolution, at, frame.len(), &mut file);
                file.extend_from_slice(frame);
            }
            let mut reader = PcapReader::new(&file[..]).unwrap();
            let mut frames = Vec::new();
            while let Some(packet) = reader.next_packet() {
                let packet = packet.unwrap();
                assert_eq!(packet.timestamp(), Duration::new(1_700_000_000, nanos));
                assert_eq!(packet.orig_len(), packet.len());
                frames.push(packet.data().to_vec());
            }
            assert_eq!(frames, [&b"first"[..], b"", b"third"]);
        }
    }

    #[test]
    fn times_after_2106_stay_in_range() {
        let mut out = Vec::new();
        record_header(Resolution::Nano, Wall(u64::MAX), 0, &mut out);
        assert_eq!(out[..4], u32::MAX.to_ne_bytes());
    }
}
