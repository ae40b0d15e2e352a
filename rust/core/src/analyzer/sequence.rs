//! What sequence numbers tell: packets sent, received and doubled.

/// The sequence numbers of a stream, one source after another.
///
/// A sequence number becomes a *position* by adding 65,536 for each wrap. Positions are signed: when the
/// second packet comes from before a wrap and the first from behind it, the second has a negative one. (In
/// the C program that position is unsigned, and the figures of the stream overflow.)
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sequence {
    /// 65,536 for each wrap; survives a change of source.
    offset: i64,
    /// The lowest position since the last restart.
    min: i64,
    /// The highest.
    max: i64,
    /// Packets since the last restart, without duplicates; 0 only before the first packet.
    count: u64,
    duplicates: u64,
    window: Window,
    /// What lies before the last restart.
    folded: Totals,
}

impl Sequence {
    /// Starts with the first packet of a source.
    pub(super) fn start(&mut self, sequence: u16) {
        self.restart(i64::from(sequence));
    }

    /// Takes in a further packet of the source.
    pub(super) fn packet(&mut self, sequence: u16, marker: bool) -> Step {
        let mut position = i64::from(sequence) + self.offset;
        let max_sequence = self.max.rem_euclid(CYCLE);
        if marker && position < self.max && max_sequence != CYCLE - 1 {
            self.restart(position);
            return Step::Reset;
        }
        let step = if position == 0 && max_sequence < FAR_FROM_WRAP { Step::Reset } else { Step::Forward };
        if max_sequence < TOLERANCE && i64::from(sequence) > WRAP {
            position -= CYCLE;
        } else if self.max > WRAP && position < self.max - WRAP {
            self.offset += CYCLE;
            position += CYCLE;
        } else if (position - self.max).abs() > TOLERANCE {
            self.restart(position);
            return step;
        }
        if self.add(position) { step } else { Step::Misplaced }
    }

    /// What was counted since the last restart.
    pub(super) fn segment(&self) -> Segment {
        Segment {
            count: self.count,
            min: self.min,
            max: self.max,
            offset: self.offset,
            duplicates: self.duplicates,
        }
    }

    /// The counters over all restarts.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = self.folded;
        if self.count > 0 {
            totals.sent += (self.max - self.min + 1) as u64;
            totals.received += self.count;
            totals.duplicates += self.duplicates;
        }
        totals
    }

    fn restart(&mut self, position: i64) {
        self.folded = self.totals();
        self.min = position;
        self.max = position;
        self.count = 1;
        self.duplicates = 0;
        self.window.restart(position);
    }

    /// Counts a packet; false if it has no place.
    fn add(&mut self, position: i64) -> bool {
        if !self.window.insert(position) {
            self.duplicates += 1;
            return true;
        }
        self.max = self.max.max(position);
        if position >= self.min {
            self.count += 1;
        } else if self.offset == 0 {
            self.min = position;
            self.count += 1;
        } else {
            return false;
        }
        true
    }
}

/// How a packet follows the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// In the course of the stream, even if late, doubled or after a long gap.
    Forward,
    /// The sender began a new sequence.
    Reset,
    /// It lies before the first packet of a sequence that has wrapped, and is not counted.
    Misplaced,
}

/// The packets since the sequence last started anew, positions being sequence numbers with 65,536 added for
/// each wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Packets, without duplicates.
    pub count: u64,
    /// The lowest position; negative if a packet from before a wrap came after the first.
    pub min: i64,
    /// The highest position.
    pub max: i64,
    /// What was added to sequence numbers for wraps.
    pub offset: i64,
    /// Duplicates.
    pub duplicates: u64,
}

/// Counters of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) duplicates: u64,
}

/// Which of the latest positions were seen.
///
/// It stands for a map of 131,072 positions on a circle, two cycles of sequence numbers, whose halves are
/// emptied in turn as the stream enters them. All that is ever asked of that map lies within 1,072 positions
/// of the highest, so the 2,048 up to the foremost one are enough to give the same answers.
#[derive(Clone, Debug, PartialEq)]
struct Window {
    /// One bit for a position, at its place modulo 2,048.
    bits: [u64; Self::LEN as usize / 64],
    /// The foremost position, on the circle.
    head: u32,
}

impl Window {
    const LEN: u32 = 2_048;
    const CIRCLE: u32 = 131_072;

    /// Forgets everything but `position`.
    fn restart(&mut self, position: i64) {
        self.bits.fill(0);
        self.head = on_circle(position);
        self.set(self.head);
    }

    /// Adds `position`; false if it was there.
    fn insert(&mut self, position: i64) -> bool {
        let place = on_circle(position);
        let ahead = place.wrapping_sub(self.head) % Self::CIRCLE;
        if ahead <= Self::CIRCLE / 2 {
            self.advance(ahead);
        } else if Self::CIRCLE - ahead >= Self::LEN {
            return true;
        }
        let seen = self.bits[word(place)] & bit(place) != 0;
        self.set(place);
        !seen
    }

    /// Moves the head on, forgetting as many positions at the other end.
    fn advance(&mut self, by: u32) {
        if by >= Self::LEN {
            self.bits.fill(0);
        } else {
            for place in self.head + 1..=self.head + by {
                self.bits[word(place)] &= !bit(place);
            }
        }
        self.head = (self.head + by) % Self::CIRCLE;
    }

    fn set(&mut self, place: u32) {
        self.bits[word(place)] |= bit(place);
    }
}

impl Default for Window {
    fn default() -> Self {
        Self { bits: [0; _], head: 0 }
    }
}

fn on_circle(position: i64) -> u32 {
    position.rem_euclid(i64::from(Window::CIRCLE)) as u32
}

fn word(place: u32) -> usize {
    (place % Window::LEN / 64) as usize
}

fn bit(place: u32) -> u64 {
    1 << (place % 64)
}

/// Sequence numbers before they wrap.
const CYCLE: i64 = 65_536;
/// How far a packet may lie from the highest one.
const TOLERANCE: i64 = 536;
/// Falling back by more than this is a wrap.
const WRAP: i64 = 65_000;
/// Number 0 behind a lower one than this does not come from a wrap.
const FAR_FROM_WRAP: i64 = 65_500;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn totals(sent: u64, received: u64, duplicates: u64) -> Totals {
        Totals { sent, received, duplicates }
    }

    /// A stream of one source, without markers.
    fn stream(sequences: impl IntoIterator<Item = u16>) -> Sequence {
        let mut sequences = sequences.into_iter();
        let mut sequence = Sequence::default();
        sequence.start(sequences.next().unwrap());
        for number in sequences {
            assert_ne!(sequence.packet(number, false), Step::Reset);
        }
        sequence
    }

    #[test]
    fn counts_from_the_first_packet() {
        assert_eq!(Sequence::default().totals(), totals(0, 0, 0));
        assert_eq!(stream([700]).totals(), totals(1, 1, 0));
        assert_eq!(stream(700..800).totals(), totals(100, 100, 0));
    }

    #[test]
    fn gaps_are_losses_until_filled() {
        assert_eq!(stream([10, 11, 14]).totals(), totals(5, 3, 0));
        assert_eq!(stream([10, 11, 14, 13, 12]).totals(), totals(5, 5, 0));
    }

    #[test]
    fn doubled_packets_are_counted_apart() {
        assert_eq!(stream([10, 10, 11, 12, 11, 10, 10]).totals(), totals(3, 3, 4));
    }

    #[test]
    fn packets_before_the_first_extend_the_stream() {
        assert_eq!(stream([10, 8, 9, 11]).totals(), totals(4, 4, 0));
        assert_eq!(stream([0, 65535, 65534, 1, 2]).totals(), totals(5, 5, 0));
    }

    #[test]
    fn the_numbers_wrap() {
        let sequence = stream((65530..=65535).chain(0..6));
        assert_eq!(sequence.totals(), totals(12, 12, 0));
        assert_eq!(sequence.offset, 65_536);
        assert_eq!(stream((0..=65535).chain(0..=65535).chain(0..6)).totals(), totals(131_078, 131_078, 0));
    }

    #[test]
    fn late_packets_from_before_the_wrap_find_their_place() {
        assert_eq!(stream([65533, 65535, 0, 65534, 1, 65534, 65535]).totals(), totals(5, 5, 2));
        assert_eq!(stream([65001, 65535, 500, 65002]).totals(), totals(1036, 4, 0));
    }

    #[test]
    fn late_packets_from_before_the_first_after_a_wrap_count_nowhere() {
        assert_eq!(stream([65535, 0, 65534]).totals(), totals(2, 2, 0));
        assert_eq!(stream([65535, 0, 65534, 65534]).totals(), totals(2, 2, 1));
    }

    #[test]
    fn a_leap_starts_a_new_count() {
        assert_eq!(stream([1000, 1536]).totals(), totals(537, 2, 0));
        assert_eq!(stream([1000, 1537]).totals(), totals(2, 2, 0));
        assert_eq!(stream([2000, 1464]).totals(), totals(537, 2, 0));
        assert_eq!(stream([2000, 1463]).totals(), totals(2, 2, 0));
        assert_eq!(stream([1000, 1000, 9000, 9000, 1000]).totals(), totals(3, 3, 2));
    }

    #[test]
    fn a_marker_with_a_lower_number_starts_a_new_count() {
        let mut sequence = stream(1000..1010);
        assert_eq!(sequence.packet(1005, true), Step::Reset);
        assert_eq!(sequence.totals(), totals(11, 11, 0));
        assert_eq!(sequence.packet(1006, false), Step::Forward);
        assert_eq!(sequence.totals(), totals(12, 12, 0));
        assert_eq!(sequence.packet(1007, true), Step::Forward, "a marker in order is the start of talk");
        assert_eq!(sequence.totals(), totals(13, 13, 0));
    }

    #[test]
    fn a_marker_just_behind_the_wrap_starts_nothing() {
        let mut sequence = stream([65534, 65535]);
        assert_eq!(sequence.packet(0, true), Step::Forward);
        assert_eq!(sequence.totals(), totals(3, 3, 0));
    }

    #[test]
    fn number_0_far_from_a_wrap_is_a_reset() {
        let mut sequence = stream([400, 401]);
        assert_eq!(sequence.packet(0, false), Step::Reset);
        assert_eq!(sequence.totals(), totals(402, 3, 0), "near enough to be counted as late");
    }

    #[test]
    fn a_change_of_source_folds_and_keeps_the_offset() {
        let mut sequence = stream((65530..=65535).chain(0..4));
        sequence.start(30_000);
        assert_eq!(sequence.totals(), totals(11, 11, 0));
        // The offset of the first source makes the second packet a leap.
        sequence.packet(30_002, false);
        assert_eq!(sequence.totals(), totals(12, 12, 0));
        sequence.packet(30_004, false);
        assert_eq!(sequence.totals(), totals(14, 13, 0));
    }

    /// The same rules over the whole circle, word for word.
    struct Model {
        offset: i64,
        min: i64,
        max: i64,
        count: i64,
        dups: i64,
        map: Vec<u64>,
        psent: i64,
        precvd: i64,
        pdups: i64,
    }

    impl Model {
        fn new() -> Self {
            let map = vec![0; 131_072 / 64];
            Self { offset: 0, min: 0, max: 0, count: 0, dups: 0, map, psent: 0, precvd: 0, pdups: 0 }
        }

        fn restart(&mut self, at: i64) {
            if self.count > 0 {
                self.psent += self.max - self.min + 1;
                self.precvd += self.count;
                self.pdups += self.dups;
            }
            (self.min, self.max, self.count, self.dups) = (at, at, 1, 0);
            self.map.fill(0);
            self.mark(at);
        }

        /// Marks a position; true if it was marked.
        fn mark(&mut self, at: i64) -> bool {
            let place = at.rem_euclid(131_072) as usize;
            let marked = self.map[place / 64] >> (place % 64) & 1 == 1;
            self.map[place / 64] |= 1 << (place % 64);
            marked
        }

        fn packet(&mut self, sequence: u16, marker: bool) {
            let sequence = i64::from(sequence);
            let mut at = sequence + self.offset;
            if marker && at < self.max && self.max % 65_536 != 65_535 {
                return self.restart(at);
            }
            if self.max % 65_536 < 536 && sequence > 65_000 {
                at -= 65_536;
            } else if self.max > 65_000 && at < self.max - 65_000 {
                self.offset += 65_536;
                at += 65_536;
                let entered = if self.offset % 131_072 == 65_536 { 1024..2048 } else { 0..1024 };
                self.map[entered].fill(0);
            } else if at + 536 < self.max || at > self.max + 536 {
                return self.restart(at);
            }
            if self.mark(at) {
                self.dups += 1;
                return;
            }
            if at > self.max {
                self.max = at;
            }
            if at >= self.min {
                self.count += 1;
            } else if self.offset == 0 {
                self.min = at;
                self.count += 1;
            }
        }

        fn totals(&self) -> Totals {
            let open = if self.count > 0 { self.max - self.min + 1 } else { 0 };
            Totals {
                sent: (self.psent + open) as u64,
                received: (self.precvd + self.count) as u64,
                duplicates: (self.pdups + self.dups) as u64,
            }
        }
    }

    #[derive(Clone, Debug, PartialEq)]
    enum Act {
        /// So far from the last number, in either direction.
        Move(i32, bool),
        /// A number near the wrap, on either side.
        NearWrap(i32, bool),
        Any(u16, bool),
        /// The number that came so many packets ago.
        Again(usize),
        /// Far ahead in steps that are just tolerated, once or twice round the circle.
        Sweep {
            step: u16,
            packets: u16,
        },
        NewSource(i32),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let marker = prop::bool::weighted(0.1);
        let near_wrap = prop_oneof![-3..3, -540..540];
        let act = prop_oneof![
            8 => (-3..8, marker).prop_map(|(by, marker)| Act::Move(by, marker)),
            4 => (-1100..1100, marker).prop_map(|(by, marker)| Act::Move(by, marker)),
            6 => (near_wrap, marker).prop_map(|(number, marker)| Act::NearWrap(number, marker)),
            1 => (any::<u16>(), marker).prop_map(|(number, marker)| Act::Any(number, marker)),
            4 => (1..12_usize).prop_map(Act::Again),
            2 => (500..=536_u16, 100..300_u16).prop_map(|(step, packets)| Act::Sweep { step, packets }),
            2 => (-540..540).prop_map(Act::NewSource),
        ];
        prop::collection::vec(act, 1..80)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn the_window_answers_like_the_whole_circle(first: u16, acts in acts()) {
            let mut sequence = Sequence::default();
            let mut model = Model::new();
            let mut sent = vec![first];
            sequence.start(first);
            model.restart(i64::from(first));
            for act in acts {
                let last = sent[sent.len() - 1];
                let (numbers, marker) = match act {
                    Act::Move(by, marker) => (vec![last.wrapping_add(by as u16)], marker),
                    Act::NearWrap(number, marker) => (vec![number as u16], marker),
                    Act::Any(number, marker) => (vec![number], marker),
                    Act::Again(ago) => (vec![sent[sent.len().saturating_sub(ago)]], false),
                    Act::Sweep { step, packets } => {
                        ((1..=packets).map(|n| last.wrapping_add(step.wrapping_mul(n))).collect(), false)
                    }
                    Act::NewSource(number) => {
                        sequence.start(number as u16);
                        model.restart(i64::from(number as u16));
                        sent.push(number as u16);
                        continue;
                    }
                };
                for number in numbers {
                    sequence.packet(number, marker);
                    model.packet(number, marker);
                    sent.push(number);
                    let latest = &sent[sent.len().saturating_sub(8)..];
                    prop_assert_eq!(sequence.totals(), model.totals(), "after {:?}", latest);
                    prop_assert!(model.totals().sent >= model.totals().received, "after {:?}", latest);
                }
            }
        }
    }
}
