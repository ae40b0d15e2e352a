//! Prompts: a file of encoded speech becomes a stream of RTP packets.
//!
//! A [`Player`] is plain data. It says when its next packet is due and writes that packet; who hears it is
//! the engine's business.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::rtp::{FIXED_HEADER_LEN, VERSION};
use crate::time::Mono;

/// The payload types that prompts can be played in (RFC 3551, table 4): PCMU, GSM, G.723, PCMA, G.722, G.729.
pub const PAYLOAD_TYPES: [u8; 6] = [0, 3, 4, 8, 9, 18];

/// In the place of a codec list: the one that came with the listener's `c` modifier.
pub const SESSION_CODECS: &[u8] = b"session";

/// The numbers of a comma-separated codec list that can be played, in order. What is no number ends the list.
pub fn playable(codecs: &[u8]) -> impl Iterator<Item = u8> {
    let numbers =
        codecs.split(|byte| *byte == b',').map_while(|word| str::from_utf8(word).ok()?.parse().ok());
    numbers
        .filter_map(|number: i64| u8::try_from(number).ok())
        .filter(|number| PAYLOAD_TYPES.contains(number))
}

/// A prompt in one coding: frames of speech, one behind the other, without any header.
#[derive(Clone, PartialEq, Eq)]
pub struct Prompt {
    payload_type: u8,
    frame: Frame,
    bytes: Arc<[u8]>,
}

impl Prompt {
    /// The frames `bytes` in the coding of `payload_type`; `None` unless that is one of [`PAYLOAD_TYPES`].
    pub fn new(payload_type: u8, bytes: Arc<[u8]>) -> Option<Self> {
        Some(Self { payload_type, frame: Frame::of(payload_type)?, bytes })
    }

    /// The coding.
    pub fn payload_type(&self) -> u8 {
        self.payload_type
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prompt({} bytes of payload type {})", self.bytes.len(), self.payload_type)
    }
}

/// A prompt on its way to a listener.
///
/// It waits until [`Self::start`]; from then on [`Self::due`] tells when to call [`Self::next_packet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Player {
    prompt: Prompt,
    packet_ms: u32,
    /// Bytes of the prompt in one packet.
    chunk: usize,
    /// How far the prompt has been played, in bytes.
    offset: usize,
    /// How often it is still played from its start; `None`: for ever.
    repeats: Option<u32>,
    marker: bool,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    due: Option<Mono>,
}

impl Player {
    /// A player that waits. It will play the prompt `count` times, for ever if that is negative; 0 is as 1.
    ///
    /// A packet holds `ptime_ms` milliseconds, 10 without a value, rounded up to whole frames. `random` gives
    /// SSRC, sequence number and timestamp of the first packet.
    pub fn new(prompt: Prompt, count: i32, ptime_ms: Option<u16>, mut random: impl FnMut() -> u64) -> Self {
        let frames = u32::from(ptime_ms.unwrap_or(PTIME_MS)).div_ceil(prompt.frame.ms).max(1);
        let (first, second) = (random(), random());
        Self {
            packet_ms: frames * prompt.frame.ms,
            chunk: frames as usize * prompt.frame.bytes,
            offset: 0,
            repeats: u32::try_from(count).ok().map(|count| count.saturating_sub(1)),
            marker: true,
            sequence: second as u16,
            timestamp: (first >> 32) as u32,
            ssrc: first as u32,
            due: None,
            prompt,
        }
    }

    /// When the next packet is to be sent; `None` while the player waits.
    pub fn due(&self) -> Option<Mono> {
        self.due
    }

    /// Ends the wait: the next packet is due now.
    pub fn start(&mut self, now: Mono) {
        self.due = Some(now);
    }

    /// Waits for another [`Self::start`], to go on where it is.
    pub fn wait(&mut self) {
        self.due = None;
    }

    /// Writes the next packet behind what is in `buffer` and tells where it is; `None` at the end of the
    /// prompt. What remains there of a prompt is too short for a packet and not played.
    ///
    /// Packets are due at even intervals from the start, also when some were late. After a stall of a second
    /// or more the intervals begin anew, since a burst of old sound helps nobody.
    pub fn next_packet(&mut self, now: Mono, buffer: &mut Vec<u8>) -> Option<Range<usize>> {
        let chunk = self.next_chunk()?;
        let start = buffer.len();
        buffer.extend(self.header());
        buffer.extend(&self.prompt.bytes[chunk]);
        self.marker = false;
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(TICKS_PER_MS * self.packet_ms);

        let interval = Duration::from_millis(self.packet_ms.into());
        let due = self.due.unwrap_or(now);
        self.due = Some(if now.since(due) < STALL { due + interval } else { now + interval });
        Some(start..buffer.len())
    }

    /// The part of the prompt that comes next, from its start again if it is to be repeated.
    fn next_chunk(&mut self) -> Option<Range<usize>> {
        let len = self.prompt.bytes.len();
        if self.offset + self.chunk > len {
            if self.chunk > len || self.repeats == Some(0) {
                return None;
            }
            self.repeats = self.repeats.map(|repeats| repeats - 1);
            self.offset = 0;
        }
        let start = self.offset;
        self.offset += self.chunk;
        Some(start..self.offset)
    }

    /// RFC 3550, section 5.1: no padding, no extension, no CSRC.
    fn header(&self) -> [u8; FIXED_HEADER_LEN] {
        let mut header = [0; FIXED_HEADER_LEN];
        header[0] = VERSION << 6;
        header[1] = self.prompt.payload_type | if self.marker { MARKER_BIT } else { 0 };
        header[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        header[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        header[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        header
    }
}

/// The smallest piece that a coding can be cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    bytes: usize,
    ms: u32,
}

impl Frame {
    fn of(payload_type: u8) -> Option<Self> {
        let (bytes, ms) = match payload_type {
            0 | 8 | 9 => (8, 1),
            3 => (33, 20),
            4 => (24, 30),
            18 => (10, 10),
            _ => return None,
        };
        Some(Self { bytes, ms })
    }
}

/// Every coding has a clock of 8000 Hz, also G.722 (RFC 3551, section 4.5.2).
const TICKS_PER_MS: u32 = 8;

const MARKER_BIT: u8 = 0x80;

/// The length of a packet where none was asked for.
const PTIME_MS: u16 = 10;

/// A player this late does not catch up.
const STALL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::RtpView;

    fn player(payload_type: u8, len: usize, count: i32, ptime_ms: Option<u16>) -> Player {
        let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let prompt = Prompt::new(payload_type, bytes.into()).unwrap();
        let mut numbers = [0xffff_ff00_1234_5678, 0xfffe].into_iter();
        let mut player = Player::new(prompt, count, ptime_ms, || numbers.next().unwrap());
        player.start(Mono(0));
        player
    }

    /// Plays to the end, in time: when each packet came, and its bytes.
    fn play(player: &mut Player) -> Vec<(u64, Vec<u8>)> {
        let mut packets = Vec::new();
        let mut buffer = vec![0xee; 3];
        loop {
            let now = player.due().unwrap();
            let Some(range) = player.next_packet(now, &mut buffer) else { return packets };
            packets.push((now.0 / 1_000_000, buffer[range].to_vec()));
        }
    }

    #[test]
    fn a_packet_holds_whole_frames_of_at_least_its_length() {
        for (payload_type, ptime_ms, bytes, ms) in [
            (0, None, 80, 10),
            (8, Some(20), 160, 20),
            (9, Some(999), 7992, 999),
            (3, None, 33, 20),
            (3, Some(21), 66, 40),
            (4, None, 24, 30),
            (4, Some(60), 48, 60),
            (18, None, 10, 10),
            (18, Some(25), 30, 30),
        ] {
            let packets = play(&mut player(payload_type, 2 * bytes, 1, ptime_ms));
            assert_eq!(packets.len(), 2, "{payload_type}");
            for (number, (at, packet)) in packets.iter().enumerate() {
                let rtp = RtpView::parse(packet).unwrap();
                assert_eq!(rtp.payload().len(), bytes, "{payload_type}");
                assert_eq!(*at, number as u64 * ms, "{payload_type}");
                let ticks = rtp.timestamp().wrapping_sub(0xffff_ff00);
                assert_eq!(u64::from(ticks), number as u64 * ms * 8, "{payload_type}");
            }
        }
    }

    #[test]
    fn numbers_go_on_over_loops_and_the_marker_is_set_once() {
        let packets = play(&mut player(0, 2 * 80 + 79, 3, None));
        let mut sequences = Vec::new();
        for (number, (_, packet)) in packets.iter().enumerate() {
            let rtp = RtpView::parse(packet).unwrap();
            assert_eq!((packet[0], rtp.payload_type(), rtp.ssrc()), (0x80, 0, 0x1234_5678));
            assert_eq!(rtp.marker(), number == 0);
            assert_eq!(rtp.payload()[0], if number % 2 == 0 { 0 } else { 80 }, "the tail is left out");
            sequences.push(rtp.sequence());
        }
        assert_eq!(sequences, [0xfffe, 0xffff, 0, 1, 2, 3]);
    }

    #[test]
    fn without_a_whole_packet_nothing_is_played() {
        for (len, count) in [(0, 1), (0, -1), (79, 1), (79, -1)] {
            assert_eq!(play(&mut player(0, len, count, None)), []);
        }
    }

    #[test]
    fn a_negative_count_never_ends() {
        let mut player = player(18, 10, i32::MIN, None);
        let mut buffer = Vec::new();
        for _ in 0..10_000 {
            buffer.clear();
            assert!(player.next_packet(player.due().unwrap(), &mut buffer).is_some());
        }
    }

    #[test]
    fn late_packets_catch_up_unless_the_stall_was_long() {
        let mut player = player(0, 80, -1, None);
        let mut buffer = Vec::new();
        let late = Mono(0) + Duration::from_millis(35);
        player.next_packet(late, &mut buffer);
        assert_eq!(player.due(), Some(Mono(10_000_000)));
        let stalled = Mono(10_000_000) + STALL;
        player.next_packet(stalled, &mut buffer);
        assert_eq!(player.due(), Some(stalled + Duration::from_millis(10)));
    }

    #[test]
    fn lists_are_read_up_to_what_is_no_number() {
        for (list, expected) in [
            ("18,0,101,8", &[18, 0, 8][..]),
            ("+8,-1,00,256,99999999999", &[8, 0]),
            ("0,x,8", &[0]),
            ("0,", &[0]),
            ("", &[]),
            (",0", &[]),
            ("session", &[]),
        ] {
            assert_eq!(playable(list.as_bytes()).collect::<Vec<_>>(), expected, "{list}");
        }
        assert_eq!(playable(b"0,\xff,8").count(), 1);
    }

    #[test]
    fn other_codings_are_not_played() {
        let playable: Vec<u8> = (0..=255).filter(|pt| Prompt::new(*pt, Arc::new([])).is_some()).collect();
        assert_eq!(playable, PAYLOAD_TYPES);
    }
}
