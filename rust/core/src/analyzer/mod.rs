//! Counting what a stream sent, what arrived of it, and how evenly.
//!
//! The figures are those that `Q` and `G` show. `sequence` finds losses and duplicates, `jitter` measures
//! how far arrival times stray from timestamps. Both follow the C program rule by rule, so that figures can
//! be compared across a migration.

mod jitter;
mod sequence;

use crate::rtp::{self, RtpView};
use crate::time::Wall;

pub use jitter::Jitter;
use jitter::JitterMeter;
pub use sequence::Segment;
use sequence::{Sequence, Step};

/// The statistics of one RTP stream, over all sources (SSRCs) it had.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Analyzer {
    sequence: Sequence,
    jitter: JitterMeter,
    parse_errors: u64,
    ssrc: Option<u32>,
    ssrc_changes: u32,
    payload_type: Option<u8>,
}

impl Analyzer {
    /// An analyzer that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in an accepted packet and the moment the kernel received it.
    pub fn packet(&mut self, rtp: &RtpView<'_>, arrival: Wall) -> Seen {
        let ssrc = rtp.ssrc();
        let same_source = self.ssrc.replace(ssrc) == Some(ssrc);
        let step = if same_source {
            self.sequence.packet(rtp.sequence(), rtp.marker())
        } else {
            self.sequence.start(rtp.sequence());
            self.ssrc_changes = self.ssrc_changes.saturating_add(1);
            Step::Forward
        };
        self.payload_type = Some(rtp.payload_type());
        let clock = rtp::clock_rate(rtp.payload_type());
        self.jitter.packet(ssrc, clock, rtp.timestamp(), arrival, step == Step::Reset);
        Seen { ssrc_changed: !same_source && self.ssrc_changes > 1, misplaced: step == Step::Misplaced }
    }

    /// Counts a datagram that is not an RTP packet.
    pub fn parse_error(&mut self) {
        self.parse_errors += 1;
    }

    /// The counters so far.
    pub fn report(&self) -> Report {
        let totals = self.sequence.totals();
        Report {
            nsent: totals.sent,
            nrcvd: totals.received,
            ndups: totals.duplicates,
            nlost: totals.sent.wrapping_sub(totals.received),
            perrs: self.parse_errors,
            ssrc_last: self.ssrc,
            ssrc_changes: self.ssrc_changes,
            pt_last: self.payload_type,
        }
    }

    /// The counters since the sequence last started anew.
    pub fn segment(&self) -> Segment {
        self.sequence.segment()
    }

    /// The jitter so far, unless no two packets could be compared yet.
    pub fn measured_jitter(&self) -> Option<Jitter> {
        self.jitter.measured()
    }

    /// The jitter so far.
    pub fn jitter(&self) -> Jitter {
        self.jitter.summary()
    }
}

/// What a packet revealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The packet before it had another SSRC; false for the first packet.
    pub ssrc_changed: bool,
    /// It has no place in its sequence and is in no counter: it lies before the first packet, behind which
    /// the numbers have wrapped.
    pub misplaced: bool,
}

/// The counters of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Packets that were sent, by their sequence numbers.
    pub nsent: u64,
    /// Packets that arrived, without duplicates.
    pub nrcvd: u64,
    /// Duplicates.
    pub ndups: u64,
    /// `nsent` less `nrcvd`, modulo 2^64: summing up needs `wrapping_add`.
    pub nlost: u64,
    /// Datagrams that are not RTP packets.
    pub perrs: u64,
    /// The SSRC of the last packet.
    pub ssrc_last: Option<u32>,
    /// How often a source appeared: 1 after the first packet.
    pub ssrc_changes: u32,
    /// The payload type of the last packet.
    pub pt_last: Option<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of G.711 µ-law.
    fn packet(ssrc: u32, sequence: u16, timestamp: u32, marker: bool) -> [u8; 12] {
        let mut bytes = [0x80, u8::from(marker) << 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&sequence.to_be_bytes());
        bytes[4..8].copy_from_slice(&timestamp.to_be_bytes());
        bytes[8..].copy_from_slice(&ssrc.to_be_bytes());
        bytes
    }

    fn feed(analyzer: &mut Analyzer, ssrc: u32, sequence: u16) -> Seen {
        let bytes = packet(ssrc, sequence, u32::from(sequence) * 160, false);
        analyzer.packet(&RtpView::parse(&bytes).unwrap(), Wall(u64::from(sequence) * 20_000_000))
    }

    #[test]
    fn nothing_seen_is_all_zero() {
        assert_eq!(Analyzer::new().report(), Report::default());
        assert_eq!(Analyzer::new().jitter(), Jitter::default());
    }

    #[test]
    fn a_change_of_source_is_told_and_counted() {
        let mut analyzer = Analyzer::new();
        assert!(!feed(&mut analyzer, 1, 10).ssrc_changed);
        assert!(!feed(&mut analyzer, 1, 12).ssrc_changed);
        assert!(feed(&mut analyzer, 2, 500).ssrc_changed);
        assert!(!feed(&mut analyzer, 2, 500).ssrc_changed);
        assert!(feed(&mut analyzer, 1, 13).ssrc_changed);
        let report = analyzer.report();
        assert_eq!(report.ssrc_changes, 3);
        assert_eq!(report.ssrc_last, Some(1));
        assert_eq!((report.nsent, report.nrcvd, report.ndups, report.nlost), (5, 4, 1, 1));
    }

    #[test]
    fn the_segment_is_what_came_since_the_last_leap() {
        let mut analyzer = Analyzer::new();
        assert_eq!(analyzer.segment(), Segment::default());
        for sequence in [65_530, 65_535, 0, 0, 2] {
            assert!(!feed(&mut analyzer, 7, sequence).misplaced);
        }
        let expected = Segment { count: 4, min: 65_530, max: 65_538, offset: 65_536, duplicates: 1 };
        assert_eq!(analyzer.segment(), expected);
        assert!(feed(&mut analyzer, 7, 65_529).misplaced);
        assert_eq!(analyzer.segment(), expected);
        feed(&mut analyzer, 7, 9_000);
        assert_eq!(analyzer.segment().count, 1);
        assert_eq!((analyzer.segment().min, analyzer.segment().max), (74_536, 74_536));
    }

    #[test]
    fn jitter_is_measured_from_the_second_packet_on() {
        let mut analyzer = Analyzer::new();
        feed(&mut analyzer, 7, 1);
        assert_eq!(analyzer.measured_jitter(), None);
        feed(&mut analyzer, 7, 2);
        assert_eq!(analyzer.measured_jitter(), Some(analyzer.jitter()));
    }

    #[test]
    fn parse_errors_change_nothing_else() {
        let mut analyzer = Analyzer::new();
        feed(&mut analyzer, 7, 1);
        let before = analyzer.report();
        analyzer.parse_error();
        analyzer.parse_error();
        assert_eq!(analyzer.report(), Report { perrs: 2, ..before });
    }

    #[test]
    fn the_last_payload_type_is_kept() {
        let mut analyzer = Analyzer::new();
        feed(&mut analyzer, 7, 1);
        assert_eq!(analyzer.report().pt_last, Some(0));
        let mut bytes = packet(7, 2, 320, true);
        bytes[1] |= 101;
        analyzer.packet(&RtpView::parse(&bytes).unwrap(), Wall(0));
        assert_eq!(analyzer.report().pt_last, Some(101));
    }

    #[test]
    fn a_restart_of_the_sequence_is_no_jitter() {
        let mut analyzer = Analyzer::new();
        for sequence in 1000..1010 {
            feed(&mut analyzer, 7, sequence);
        }
        // The sender starts anew: lower numbers, a timestamp from elsewhere, and the marker.
        let bytes = packet(7, 20, 900_000, true);
        analyzer.packet(&RtpView::parse(&bytes).unwrap(), Wall(1010 * 20_000_000));
        let report = analyzer.report();
        assert_eq!((report.nsent, report.nrcvd, report.ssrc_changes), (11, 11, 1));
        assert!(analyzer.jitter().max < 1.0);
    }

    #[test]
    fn two_analyzers_leave_room_in_a_call_of_4_kb() {
        assert!(size_of::<Analyzer>() <= 512, "{}", size_of::<Analyzer>());
    }
}
