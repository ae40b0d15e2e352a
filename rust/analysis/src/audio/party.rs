//! What one side of a call sent, in the order in which it is to be heard.

use rtpproxy_core::analyzer::Analyzer;
use rtpproxy_core::rtp::{RtpError, RtpView};
use rtpproxy_core::time::Wall;

/// The packets of one side of a call, by their sources, and its figures.
#[derive(Clone, Debug, Default)]
pub struct Party {
    sources: Vec<Source>,
    analyzer: Analyzer,
}

impl Party {
    /// A party that sent nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a datagram. RTCP is not told from RTP: whoever calls leaves it out.
    ///
    /// # Errors
    ///
    /// When the packet cannot be played. Whether it counts in the figures, [`Unplayable`] says.
    pub fn packet(&mut self, datagram: &[u8], at: Wall) -> Result<(), Unplayable> {
        let rtp = RtpView::parse_unshared(datagram)?;
        if self.analyzer.packet(&rtp, at).misplaced {
            return Err(Unplayable::Misplaced(rtp.sequence()));
        }
        if rtp.payload().is_empty() {
            return Err(Unplayable::Empty);
        }
        if !PLAYABLE.contains(&rtp.payload_type()) {
            return Err(Unplayable::PayloadType(rtp.payload_type()));
        }
        let packet = Queued {
            sequence: rtp.sequence(),
            timestamp: rtp.timestamp(),
            at: at.seconds(),
            payload_type: rtp.payload_type(),
            payload: rtp.payload().into(),
        };
        let is_full = self.sources.len() == SOURCES_MAX;
        match self.sources.iter_mut().find(|source| source.ssrc == rtp.ssrc()) {
            Some(source) => source.insert(packet),
            None if is_full => return Err(Unplayable::Source(rtp.ssrc())),
            None => self.sources.push(Source { ssrc: rtp.ssrc(), packets: vec![packet] }),
        }
        Ok(())
    }

    /// Whether there is nothing to be played.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// How many packets there are to be played.
    pub fn playable(&self) -> usize {
        self.sources.iter().map(|source| source.packets.len()).sum()
    }

    /// The figures of all packets that are RTP.
    pub fn figures(&self) -> &Analyzer {
        &self.analyzer
    }

    pub(super) fn sources(&self) -> &[Source] {
        &self.sources
    }
}

/// Why a packet is not played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unplayable {
    /// It is no RTP packet, and in no figures.
    #[error(transparent)]
    Rtp(#[from] RtpError),
    /// It has no place in the numbers of its stream, and is in no figures.
    #[error("sequence number {0} lies before the first one, behind which the numbers have wrapped")]
    Misplaced(u16),
    /// It carries nothing; it counts in the figures.
    #[error("a packet without a payload")]
    Empty,
    /// It is of one source more than a party can have; it counts in the figures.
    #[error("SSRC 0x{0:08X} is one more than the {SOURCES_MAX} that a party can have")]
    Source(u32),
    /// It is no audio that is known; it counts in the figures.
    #[error("payload type {0} is not known to be audio")]
    PayloadType(u8),
}

/// The packets of one SSRC.
#[derive(Clone, Debug)]
pub(super) struct Source {
    ssrc: u32,
    packets: Vec<Queued>,
}

impl Source {
    /// At least one packet, in order.
    pub(super) fn packets(&self) -> &[Queued] {
        &self.packets
    }

    /// Puts a packet behind the last one that is before it by timestamp or by number; drops it if one with
    /// its number is met on the way.
    fn insert(&mut self, packet: Queued) {
        let mut place = self.packets.len();
        while let Some(before) = place.checked_sub(1).map(|index| &self.packets[index]) {
            if before.sequence == packet.sequence {
                return;
            }
            if before.timestamp < packet.timestamp || before.sequence < packet.sequence {
                break;
            }
            place -= 1;
        }
        self.packets.insert(place, packet);
    }
}

/// A packet that waits to be decoded.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    sequence: u16,
    pub(super) timestamp: u32,
    /// Arrival in seconds since the epoch.
    pub(super) at: f64,
    pub(super) payload_type: u8,
    pub(super) payload: Box<[u8]>,
}

/// A call has a few sources. Without an end, each sample of a hostile file would be looked for in all of them.
const SOURCES_MAX: usize = 256;
/// Payload types whose duration is known: G.711, GSM, G.723, G.722 and G.729.
const PLAYABLE: [u8; 6] = [0, 3, 4, 8, 9, 18];

#[cfg(test)]
mod tests {
    use super::*;

    fn rtp(payload_type: u8, sequence: u16, timestamp: u32, ssrc: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, payload_type];
        packet.extend(sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        packet.extend(payload);
        packet
    }

    fn order(packets: &[(u16, u32)]) -> Vec<(u16, u32)> {
        let mut party = Party::new();
        for &(sequence, timestamp) in packets {
            party.packet(&rtp(0, sequence, timestamp, 7, b"x"), Wall(0)).unwrap();
        }
        party.sources()[0].packets().iter().map(|packet| (packet.sequence, packet.timestamp)).collect()
    }

    #[test]
    fn late_packets_find_their_place() {
        assert_eq!(order(&[(1, 0), (3, 320), (2, 160), (4, 480)]), [(1, 0), (2, 160), (3, 320), (4, 480)]);
        assert_eq!(order(&[(3, 320), (2, 160), (1, 0)]), [(1, 0), (2, 160), (3, 320)]);
    }

    #[test]
    fn the_numbers_may_wrap_while_time_goes_on() {
        assert_eq!(order(&[(65_535, 0), (0, 160), (1, 320)]), [(65_535, 0), (0, 160), (1, 320)]);
    }

    #[test]
    fn duplicates_are_dropped_where_they_would_stand() {
        assert_eq!(order(&[(1, 0), (2, 160), (2, 160)]), [(1, 0), (2, 160)]);
        assert_eq!(order(&[(1, 0), (2, 160), (1, 0)]), [(1, 0), (2, 160)]);
    }

    #[test]
    fn sources_are_kept_apart() {
        let mut party = Party::new();
        party.packet(&rtp(0, 1, 0, 7, b"x"), Wall(0)).unwrap();
        party.packet(&rtp(8, 1, 0, 8, b"y"), Wall(0)).unwrap();
        assert_eq!(party.sources().len(), 2);
        assert_eq!(party.playable(), 2);
        assert_eq!(party.figures().report().ssrc_changes, 2);
    }

    #[test]
    fn sources_have_an_end() {
        let mut party = Party::new();
        let mut put = |ssrc| party.packet(&rtp(0, 1, 0, ssrc, b"x"), Wall(0));
        (0..SOURCES_MAX as u32).for_each(|ssrc| put(ssrc).unwrap());
        assert_eq!(put(9_999), Err(Unplayable::Source(9_999)));
        assert_eq!(put(7), Ok(()));
    }

    #[test]
    fn what_is_not_played_counts_if_it_is_rtp() {
        let mut party = Party::new();
        assert_eq!(party.packet(&rtp(101, 1, 0, 7, b"x"), Wall(0)), Err(Unplayable::PayloadType(101)));
        assert_eq!(party.packet(&rtp(0, 2, 0, 7, b""), Wall(0)), Err(Unplayable::Empty));
        // RTCP on a port of its own would not be met here, so it is a marked packet of type 72.
        assert_eq!(party.packet(&rtp(200, 3, 0, 7, b"x"), Wall(0)), Err(Unplayable::PayloadType(72)));
        assert!(matches!(party.packet(b"\x80", Wall(0)), Err(Unplayable::Rtp(_))));
        assert_eq!(party.figures().report().nrcvd, 3);
        assert!(party.is_empty());
    }

    #[test]
    fn a_number_before_the_first_of_a_wrapped_sequence_has_no_place() {
        let mut party = Party::new();
        for sequence in [65_535, 0] {
            party.packet(&rtp(0, sequence, 0, 7, b"x"), Wall(0)).unwrap();
        }
        assert_eq!(party.packet(&rtp(0, 65_534, 0, 7, b"x"), Wall(0)), Err(Unplayable::Misplaced(65_534)));
    }
}
