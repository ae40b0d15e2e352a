//! Keys that a party presses, as telephone events in its RTP (RFC 4733).

use crate::rtcp;
use crate::rtp::{FIXED_HEADER_LEN, VERSION};

/// The payload type that is usual for telephone events.
pub const USUAL_PAYLOAD_TYPE: u8 = 101;

/// A key press that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPress {
    /// `0` to `9`, `*`, `#`, `A` to `D`, or a space for the hook flash.
    pub key: u8,
    /// How far below full scale it was, 0 to 63 dB.
    pub volume: u8,
    /// How long it was, in units of the RTP timestamp.
    pub duration: u16,
}

/// Makes key presses of packets with telephone events.
///
/// A press is sent as several packets with one timestamp: some while the key is down, then one with the end
/// bit, which is repeated against loss. It is told once, at the first end, if any packet came before that. The
/// last four presses are kept apart, so that packets may be repeated and come out of order.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +---------------+-+-+-----------+-------------------------------+
/// |     event     |E|R|  volume   |           duration            |
/// +---------------+-+-+-----------+-------------------------------+
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyCatcher {
    events: [Option<Event>; EVENTS_KEPT],
    /// The place for the next one: that of the oldest.
    next: usize,
}

impl KeyCatcher {
    /// Takes a datagram of which [`is_of_type`] holds. The event is read behind the fixed header, as if there
    /// were neither CSRCs nor a header extension.
    pub fn packet(&mut self, datagram: &[u8]) -> Option<KeyPress> {
        let &[_, _, _, _, a, b, c, d, _, _, _, _, event, flags, high, low, ..] = datagram else {
            return None;
        };
        let key = *KEYS.get(usize::from(event))?;
        let timestamp = u32::from_be_bytes([a, b, c, d]);
        let duration = u16::from_be_bytes([high, low]);
        let has_ended = flags & END_BIT != 0;

        let known = self.events.iter_mut().flatten().find(|known| known.timestamp == timestamp);
        let Some(known) = known else {
            if !has_ended {
                self.events[self.next] = Some(Event { timestamp, key, duration, is_told: false });
                self.next = (self.next + 1) % EVENTS_KEPT;
            }
            return None;
        };
        if known.is_told || known.key != key {
            return None;
        }
        known.duration = known.duration.max(duration);
        known.is_told = has_ended;
        has_ended.then_some(KeyPress { key, volume: flags & VOLUME, duration: known.duration })
    }
}

/// True if a datagram is RTP of this payload type, as far as its fixed header tells.
pub fn is_of_type(datagram: &[u8], payload_type: u8) -> bool {
    datagram.len() >= FIXED_HEADER_LEN
        && datagram[0] >> 6 == VERSION
        && !rtcp::TYPES.contains(&datagram[1])
        && datagram[1] & PAYLOAD_TYPE == payload_type
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Event {
    timestamp: u32,
    key: u8,
    /// The largest seen.
    duration: u16,
    is_told: bool,
}

/// Presses that are told apart by their timestamps.
const EVENTS_KEPT: usize = 4;

/// The keys by the number of their event (RFC 4733, section 3.2; 16 is the hook flash of RFC 2833).
const KEYS: &[u8; 17] = b"0123456789*#ABCD ";

const PAYLOAD_TYPE: u8 = 0x7f;
const END_BIT: u8 = 0x80;
const VOLUME: u8 = 0x3f;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn packet(timestamp: u32, event: u8, has_ended: bool, duration: u16) -> Vec<u8> {
        let mut packet = vec![0x80, USUAL_PAYLOAD_TYPE, 0, 1];
        packet.extend(timestamp.to_be_bytes());
        packet.extend([0xa1, 0xb2, 0xc3, 0xd4, event, if has_ended { 0x8a } else { 0x0a }]);
        packet.extend(duration.to_be_bytes());
        packet
    }

    /// Feeds packets of (timestamp, event, end, duration); the keys and durations told.
    fn caught(packets: &[(u32, u8, bool, u16)]) -> Vec<(char, u16)> {
        let mut catcher = KeyCatcher::default();
        let presses = packets.iter().filter_map(|&(timestamp, event, has_ended, duration)| {
            catcher.packet(&packet(timestamp, event, has_ended, duration))
        });
        presses.map(|press| (char::from(press.key), press.duration)).collect()
    }

    #[test]
    fn a_press_is_told_once_at_its_first_end() {
        let mut catcher = KeyCatcher::default();
        for duration in [160, 320, 480] {
            assert_eq!(catcher.packet(&packet(8000, 5, false, duration)), None);
        }
        let press = KeyPress { key: b'5', volume: 10, duration: 640 };
        assert_eq!(catcher.packet(&packet(8000, 5, true, 640)), Some(press));
        assert_eq!(catcher.packet(&packet(8000, 5, true, 640)), None);
        assert_eq!(catcher.packet(&packet(8000, 5, true, 640)), None);
    }

    #[test]
    fn every_key_has_its_event() {
        let told: String = (0..=u8::MAX)
            .flat_map(|event| {
                caught(&[(u32::from(event), event, false, 0), (u32::from(event), event, true, 80)])
            })
            .map(|(key, _)| key)
            .collect();
        assert_eq!(told, "0123456789*#ABCD ");
    }

    #[test]
    fn an_end_without_a_start_is_not_told() {
        assert_eq!(caught(&[(1, 5, true, 640), (1, 5, true, 640)]), []);
        // The start was overtaken by the first end; the second one is good enough.
        assert_eq!(caught(&[(1, 5, true, 640), (1, 5, false, 160), (1, 5, true, 640)]), [('5', 640)]);
    }

    #[test]
    fn a_lost_end_leaves_the_others_alone() {
        assert_eq!(caught(&[(1, 5, false, 160), (2, 6, false, 160), (2, 6, true, 320)]), [('6', 320)]);
    }

    #[test]
    fn the_longest_duration_counts() {
        assert_eq!(caught(&[(1, 5, false, 800), (1, 5, false, 320), (1, 5, true, 640)]), [('5', 800)]);
    }

    #[test]
    fn the_same_key_twice_is_two_presses() {
        let twice = [(1, 7, false, 160), (1, 7, true, 320), (900, 7, false, 160), (900, 7, true, 480)];
        assert_eq!(caught(&twice), [('7', 320), ('7', 480)]);
    }

    #[test]
    fn four_presses_are_kept_apart() {
        let starts = (1..=4).map(|timestamp| (timestamp, 1, false, 160));
        let ends = (1..=4).map(|timestamp| (timestamp, 1, true, 320));
        assert_eq!(caught(&starts.clone().chain(ends.clone()).collect::<Vec<_>>()).len(), 4);
        // A fifth takes the place of the first, whose end is then one without a start.
        let fifth = [(5, 1, false, 160)];
        assert_eq!(caught(&starts.chain(fifth).chain(ends).collect::<Vec<_>>()).len(), 3);
    }

    #[test]
    fn other_keys_with_the_timestamp_of_a_press_are_not_it() {
        assert_eq!(caught(&[(1, 5, false, 160), (1, 6, true, 9000), (1, 5, true, 320)]), [('5', 320)]);
    }

    #[test]
    fn the_payload_type_is_looked_for_in_rtp_only() {
        let event = packet(1, 5, false, 160);
        assert!(is_of_type(&event, 101));
        assert!(!is_of_type(&event, 96));
        assert!(is_of_type(&[0x80, 0xe5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 101), "with a marker");
        assert!(!is_of_type(&event[..11], 101));
        assert!(!is_of_type(&[0x40, 101, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 101), "version 1");
        assert!(!is_of_type(&[0x80, 200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 72), "a sender report");
    }

    proptest! {
        #[test]
        fn every_timestamp_is_told_at_most_once_and_only_after_a_start(
            packets in prop::collection::vec((0..4_u32, 0..20_u8, any::<bool>(), any::<u16>()), 0..64),
        ) {
            // No more timestamps than are kept: what is told is what a memory without bounds would tell.
            let mut catcher = KeyCatcher::default();
            let mut open: HashMap<u32, (u8, u16, bool)> = HashMap::new();
            for (timestamp, event, has_ended, duration) in packets {
                let told = catcher.packet(&packet(timestamp, event, has_ended, duration));
                let mut expected = None;
                if event < 17 {
                    match open.get_mut(&timestamp) {
                        None if !has_ended => drop(open.insert(timestamp, (event, duration, false))),
                        Some((key, longest, is_told)) if *key == event && !*is_told => {
                            *longest = duration.max(*longest);
                            *is_told = has_ended;
                            expected = has_ended.then_some(*longest);
                        }
                        _ => {}
                    }
                }
                prop_assert_eq!(told.map(|press| press.duration), expected);
            }
        }

        #[test]
        fn no_bytes_upset_it(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..24), 0..32)) {
            let mut catcher = KeyCatcher::default();
            for datagram in datagrams {
                let told = catcher.packet(&datagram);
                prop_assert!(told.is_none_or(|press| KEYS.contains(&press.key) && press.volume < 64));
            }
        }
    }
}
