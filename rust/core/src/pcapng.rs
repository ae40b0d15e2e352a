//! The pcapng format: a section, an interface for each leg, packets, and totals at the end.
//!
//! Each function appends one block in host byte order, so the caller may cut the stream anywhere between two calls.
//! pcap-file encodes them, but for those of packets, which are written here as they are many. All interfaces are Ethernet with time stamps in nanoseconds; their
//! numbers are given in the order in which they are described, from 0. A file is laid out like this:
//!
//! ```
//! use rtpproxy_core::pcapng::{self, PacketOptions};
//! use rtpproxy_core::time::Wall;
//!
//! let (frame, now) = (&[0; 60][..], Wall(1_700_000_000_000_000_000));
//! let mut file = Vec::new();
//! pcapng::section(&["call-id: 1@example.com"], &mut file);
//! for name in pcapng::INTERFACE_NAMES {
//!     pcapng::interface(name, &mut file);
//! }
//! pcapng::packet(0, now, frame, PacketOptions { inbound: true, ..Default::default() }, &mut file);
//! for number in 0..4 {
//!     pcapng::statistics(number, now, now, 1, 0, &[], &mut file);
//! }
//! ```

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use byteorder::NativeEndian;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{Block, PcapNgBlock, PcapNgState};
use pcap_file::{DataLink, Endianness};

use crate::recording::{Channel, Leg};
use crate::time::Wall;

/// The names of the interfaces of a recorded call, in the order of their numbers.
pub const INTERFACE_NAMES: [&str; 4] = ["caller", "callee", "caller rtcp", "callee rtcp"];

/// The name of a further interface, of frames that never were on the wire.
pub const SYNTHETIC_NAME: &str = "synthetic";

/// The number of the interface in [`INTERFACE_NAMES`] that stands for what `leg` sends on `channel`.
pub fn interface_of(leg: Leg, channel: Channel) -> u32 {
    match (channel, leg) {
        (Channel::Rtp, Leg::Caller) => 0,
        (Channel::Rtp, Leg::Callee) => 1,
        (Channel::Rtcp, Leg::Caller) => 2,
        (Channel::Rtcp, Leg::Callee) => 3,
    }
}

/// What a packet block may say besides the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketOptions<'a> {
    /// The relay received it (`epb_flags` inbound); false says nothing, as befits a synthetic frame.
    pub inbound: bool,
    /// How many packets of this interface are missing between the one before and this one
    /// (`epb_dropcount`).
    pub drops: Option<u64>,
    /// Remarks that a reader sees at this packet. Each is cut at 65535 bytes.
    pub comments: &'a [&'a str],
}

/// Appends the head of a section of open length: our name and version, and `comments`, each cut at 65535
/// bytes.
pub fn section(comments: &[&str], out: &mut Vec<u8>) {
    let writer = SectionHeaderOption::UserApplication(Cow::Borrowed(APPLICATION));
    let comments = comments.iter().map(|text| SectionHeaderOption::Common(comment(text)));
    let block = SectionHeaderBlock {
        endianness: Endianness::native(),
        options: std::iter::once(writer).chain(comments).collect(),
        ..SectionHeaderBlock::default()
    };
    encode(&block.into_block(), out);
}

/// Appends the description of the next interface.
pub fn interface(name: &str, out: &mut Vec<u8>) {
    encode(&description(Cow::Borrowed(fitting(name))).into_block(), out);
}

/// Appends the description of the next interface with words on what it is and `comments`, each text cut at 65535
/// bytes.
pub fn described_interface(name: &str, words: &str, comments: &[&str], out: &mut Vec<u8>) {
    let mut block = description(Cow::Borrowed(fitting(name)));
    block.options.push(InterfaceDescriptionOption::IfDescription(Cow::Borrowed(fitting(words))));
    block.options.extend(comments.iter().map(|text| InterfaceDescriptionOption::Common(comment(text))));
    encode(&block.into_block(), out);
}

/// Appends a block of any type around `body`, which is filled up with zeros to whole words.
pub fn block(kind: u32, body: &[u8], out: &mut Vec<u8>) {
    let filled = body.len().next_multiple_of(4);
    let len = (filled as u32 + 12).to_ne_bytes();
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&len);
    out.extend_from_slice(body);
    out.resize(out.len() + filled - body.len(), 0);
    out.extend_from_slice(&len);
}

/// The word at an offset of a block, in the byte order of this machine; none if it is not as long.
pub fn word(block: &[u8], at: usize) -> Option<u32> {
    block.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// Appends a frame of `interface`.
///
/// The interface must have been described in this section.
pub fn packet(interface: u32, at: Wall, frame: &[u8], options: PacketOptions<'_>, out: &mut Vec<u8>) {
    packet_with(interface, at, options, out, |out| out.extend_from_slice(frame));
}

/// Appends a frame of `interface` that `write` appends, to spare it a copy.
///
/// The interface must have been described in this section.
pub fn packet_with(
    interface: u32,
    at: Wall,
    options: PacketOptions<'_>,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let block_at = out.len();
    let words = [PACKET_BLOCK, 0, interface, (at.0 >> 32) as u32, at.0 as u32, 0, 0];
    out.extend_from_slice(words.map(u32::to_ne_bytes).as_flattened());
    let frame_at = out.len();
    write(out);
    let frame_len = out.len() - frame_at;
    pad(out, frame_len);
    let options_at = out.len();
    if options.inbound {
        option(PACKET_FLAGS, &FLAGS_INBOUND.to_ne_bytes(), out);
    }
    if let Some(drops) = options.drops {
        option(PACKET_DROP_COUNT, &drops.to_ne_bytes(), out);
    }
    for text in options.comments {
        option(COMMENT, fitting(text).as_bytes(), out);
    }
    if out.len() > options_at {
        option(END_OF_OPTIONS, &[], out);
    }
    let block_len = (out.len() - block_at + size_of::<u32>()) as u32;
    out.extend_from_slice(&block_len.to_ne_bytes());
    for (place, len) in [(1, block_len), (5, frame_len as u32), (6, frame_len as u32)] {
        let at = block_at + place * size_of::<u32>();
        out[at..at + size_of::<u32>()].copy_from_slice(&len.to_ne_bytes());
    }
}

/// Appends the totals of `interface`: when its recording started and ended, how many packets came
/// (`isb_ifrecv`, the dropped ones among them) and how many of them are not in the file (`isb_ifdrop`), with
/// `comments`, each cut at 65535 bytes.
///
/// The interface must have been described in this section.
pub fn statistics(
    interface: u32,
    start: Wall,
    end: Wall,
    received: u64,
    dropped: u64,
    comments: &[&str],
    out: &mut Vec<u8>,
) {
    let mut options = vec![
        InterfaceStatisticsOption::IsbStartTime(since_epoch(start)),
        InterfaceStatisticsOption::IsbEndTime(since_epoch(end)),
        InterfaceStatisticsOption::IsbIfRecv(received),
        InterfaceStatisticsOption::IsbIfDrop(dropped),
    ];
    options.extend(comments.iter().map(|text| InterfaceStatisticsOption::Common(comment(text))));
    let block = InterfaceStatisticsBlock { interface_id: MODEL, timestamp: since_epoch(end), options };
    encode_for(interface, &block.into_block(), out);
}

/// Encodes a block that speaks of an interface.
///
/// pcap-file knows the interfaces of a section by a state of about a kilobyte. Ours are all alike, so one
/// state with one model interface serves every file, and the number is set afterwards.
fn encode_for(interface: u32, block: &Block<'_>, out: &mut Vec<u8>) {
    let number_at = out.len() + 8;
    encode(block, out);
    out[number_at..number_at + 4].copy_from_slice(&interface.to_ne_bytes());
}

fn option(code: u16, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&code.to_ne_bytes());
    out.extend_from_slice(&(value.len() as u16).to_ne_bytes());
    out.extend_from_slice(value);
    pad(out, value.len());
}

/// Fills the last word of something of `len` bytes.
fn pad(out: &mut Vec<u8>, len: usize) {
    out.resize(out.len() + len.next_multiple_of(size_of::<u32>()) - len, 0);
}

fn encode(block: &Block<'_>, out: &mut Vec<u8>) {
    block
        .write_to::<NativeEndian, _>(&STATE, out)
        .expect("our blocks are valid, and a Vec takes every write");
}

fn description(name: Cow<'_, str>) -> InterfaceDescriptionBlock<'_> {
    InterfaceDescriptionBlock {
        linktype: DataLink::ETHERNET,
        snaplen: 65_535,
        options: vec![
            InterfaceDescriptionOption::IfName(name),
            InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
        ],
    }
}

fn comment(text: &str) -> CommonOption<'_> {
    CommonOption::Comment(Cow::Borrowed(fitting(text)))
}

/// The longest beginning that an option can hold.
fn fitting(text: &str) -> &str {
    &text[..text.floor_char_boundary(usize::from(u16::MAX))]
}

fn since_epoch(at: Wall) -> Duration {
    Duration::from_nanos(at.0)
}

static STATE: LazyLock<PcapNgState> = LazyLock::new(|| {
    let mut state = PcapNgState::default();
    state.update_from_block(&description(Cow::Borrowed("")).into_block());
    state
});

const APPLICATION: &str = concat!("rtpproxy ", env!("CARGO_PKG_VERSION"));
const MODEL: u32 = 0;
const FLAGS_INBOUND: u32 = 1;
/// The type of an Enhanced Packet Block.
const PACKET_BLOCK: u32 = 6;
/// `epb_flags`.
const PACKET_FLAGS: u16 = 2;
/// `epb_dropcount`.
const PACKET_DROP_COUNT: u16 = 4;
/// `opt_comment`.
const COMMENT: u16 = 1;
/// `opt_endofopt`.
const END_OF_OPTIONS: u16 = 0;

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::PcapNgReader;

    use super::*;

    const AT: Wall = Wall(1_700_000_000_123_456_789);

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn option(code: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = code.to_ne_bytes().to_vec();
        bytes.extend((value.len() as u16).to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// The block of this type around `parts`, which make whole words.
    fn block(kind: u32, parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        let len = body.len() as u32 + 12;
        [words(&[kind, len]), body, words(&[len])].concat()
    }

    #[test]
    fn section_is_byte_exact() {
        let mut out = Vec::new();
        section(&["call-id: x"], &mut out);
        let version = [1_u16.to_ne_bytes(), 0_u16.to_ne_bytes()].concat();
        let expected = block(
            0x0a0d_0d0a,
            &[
                &words(&[0x1a2b_3c4d]),
                &version,
                &(-1_i64).to_ne_bytes(),
                &option(4, concat!("rtpproxy ", env!("CARGO_PKG_VERSION")).as_bytes()),
                &option(1, b"call-id: x"),
                &option(0, b""),
            ],
        );
        assert_eq!(out, expected);
    }

    #[test]
    fn interface_is_byte_exact() {
        let mut out = Vec::new();
        interface("caller", &mut out);
        let linktype = [1_u16.to_ne_bytes(), 0_u16.to_ne_bytes()].concat();
        let expected = block(
            1,
            &[&linktype, &words(&[65_535]), &option(2, b"caller"), &option(9, &[9]), &option(0, b"")],
        );
        assert_eq!(out, expected);
    }

    #[test]
    fn packets_are_byte_exact() {
        let (high, low) = ((AT.0 >> 32) as u32, AT.0 as u32);
        let mut out = Vec::new();
        packet(3, AT, b"abcde", PacketOptions::default(), &mut out);
        let plain = block(6, &[&words(&[3, high, low, 5, 5]), b"abcde\0\0\0"]);
        assert_eq!(out, plain);

        let options = PacketOptions { inbound: true, drops: Some(7), comments: &["latched", "gap"] };
        packet(1, AT, b"abcd", options, &mut out);
        let full = block(
            6,
            &[
                &words(&[1, high, low, 4, 4]),
                b"abcd",
                &option(2, &1_u32.to_ne_bytes()),
                &option(4, &7_u64.to_ne_bytes()),
                &option(1, b"latched"),
                &option(1, b"gap"),
                &option(0, b""),
            ],
        );
        assert_eq!(out, [plain, full].concat());
    }

    #[test]
    fn statistics_are_byte_exact() {
        let end = Wall(AT.0 + 5_000_000_000);
        let stamp = |at: Wall| words(&[(at.0 >> 32) as u32, at.0 as u32]);
        let mut out = Vec::new();
        statistics(2, AT, end, 1000, 3, &["end"], &mut out);
        let expected = block(
            5,
            &[
                &words(&[2]),
                &stamp(end),
                &option(2, &stamp(AT)),
                &option(3, &stamp(end)),
                &option(4, &1000_u64.to_ne_bytes()),
                &option(5, &3_u64.to_ne_bytes()),
                &option(1, b"end"),
                &option(0, b""),
            ],
        );
        assert_eq!(out, expected);
    }

    #[test]
    fn pcap_file_reads_back_what_was_written() {
        let mut file = Vec::new();
        section(&["call-id: a", "from-tag: b"], &mut file);
        for name in INTERFACE_NAMES {
            interface(name, &mut file);
        }
        let number = interface_of(Leg::Callee, Channel::Rtcp);
        let options = PacketOptions { inbound: true, drops: Some(2), comments: &["relatched"] };
        packet(number, AT, b"frame", options, &mut file);
        statistics(number, AT, AT, 3, 2, &[], &mut file);

        let mut reader = PcapNgReader::new(&file[..]).unwrap();
        let comments: Vec<_> = reader.section().options.clone();
        assert!(comments.contains(&SectionHeaderOption::Common(comment("call-id: a"))));
        assert!(comments.contains(&SectionHeaderOption::Common(comment("from-tag: b"))));
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block() {
            blocks.push(block.unwrap().0.into_owned());
        }
        let [
            Block::InterfaceDescription(_),
            ..,
            Block::EnhancedPacket(packet),
            Block::InterfaceStatistics(totals),
        ] = &blocks[..]
        else {
            panic!("unexpected blocks: {blocks:?}");
        };
        assert_eq!(reader.interfaces().len(), 4);
        assert_eq!(
            reader.interfaces()[packet.interface_id as usize].options[0],
            InterfaceDescriptionOption::IfName("callee rtcp".into())
        );
        assert_eq!(packet.timestamp, since_epoch(AT));
        assert_eq!(packet.data[..], *b"frame");
        assert_eq!(packet.options.len(), 3);
        assert_eq!(totals.interface_id, 3);
        assert_eq!(totals.options[2], InterfaceStatisticsOption::IsbIfRecv(3));
    }

    #[test]
    fn a_long_comment_is_cut_between_characters() {
        let long = "é".repeat(40_000);
        let mut file = Vec::new();
        section(&[&long], &mut file);
        let reader = PcapNgReader::new(&file[..]).unwrap();
        let Some(SectionHeaderOption::Common(CommonOption::Comment(text))) = reader.section().options.last()
        else {
            panic!("no comment");
        };
        assert_eq!(text.len(), 65_534);
    }
}
