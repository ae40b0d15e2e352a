//! Both sides of a call on one timeline.

use std::collections::BTreeMap;

use super::party::Party;
use super::voice::{Decoders, Voice};
use super::{Gaps, RATE};
use crate::codec;

/// Decodes two parties side by side: an iterator over samples, one of each party.
///
/// A party that has two sources at a time is heard with both, each half as loud.
pub struct Mixer<'a> {
    voices: Vec<Placed<'a>>,
    gaps: Gaps,
    position: u64,
    decoded: [u64; 2],
}

/// A source and where it begins.
struct Placed<'a> {
    voice: Voice<'a>,
    party: usize,
    /// The number of the sample at which it begins.
    begin: u64,
}

impl<'a> Mixer<'a> {
    /// A mixer of two parties.
    ///
    /// # Errors
    ///
    /// When their packets are days apart.
    pub fn new(parties: [&'a Party; 2], gaps: Gaps) -> Result<Self, TooLong> {
        Self::with_decoders(parties, gaps, codec::decoder)
    }

    /// A mixer that gives the very samples that the C program's `extractaudio` gives.
    ///
    /// # Errors
    ///
    /// When their packets are days apart.
    pub fn of_extractaudio(parties: [&'a Party; 2], gaps: Gaps) -> Result<Self, TooLong> {
        Self::with_decoders(parties, gaps, codec::decoder_of_extractaudio)
    }

    /// How many samples were decoded of each party, silence in its gaps included.
    pub fn decoded(&self) -> [u64; 2] {
        self.decoded
    }

    /// Packets that could not be decoded so far, by the reason.
    pub fn undecoded(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (reason, count) in self.voices.iter().flat_map(|placed| placed.voice.undecoded()) {
            *all.entry(reason.clone()).or_default() += count;
        }
        all
    }

    fn with_decoders(parties: [&'a Party; 2], gaps: Gaps, decoders: Decoders) -> Result<Self, TooLong> {
        let mut voices: Vec<_> = parties
            .into_iter()
            .enumerate()
            .flat_map(|(party, sources)| sources.sources().iter().map(move |source| (party, source)))
            .map(|(party, source)| Placed { voice: Voice::new(source, gaps, decoders), party, begin: 0 })
            .collect();
        voices.sort_by(|a, b| a.voice.start().total_cmp(&b.voice.start()));
        if let Some(first) = voices.first().map(|placed| placed.voice.start()) {
            for placed in &mut voices {
                if placed.voice.end() - first > SECONDS_MAX {
                    return Err(TooLong);
                }
                if gaps == Gaps::Filled {
                    placed.begin = ((placed.voice.start() - first) * f64::from(RATE)) as u64;
                }
            }
        }
        Ok(Self { voices, gaps, position: 0, decoded: [0; 2] })
    }

    /// The next sample of each party that has one; none when no party will have any.
    fn samples(&mut self) -> Option<[Option<i16>; 2]> {
        let mut samples = [None; 2];
        let mut is_over = true;
        for placed in &mut self.voices {
            let heard = &mut samples[placed.party];
            if placed.begin > self.position {
                is_over = false;
                continue;
            }
            // Without the clock nothing is simultaneous: sources of a party follow one another.
            if self.gaps == Gaps::Omitted && heard.is_some() {
                continue;
            }
            if let Some(sample) = placed.voice.sample() {
                is_over = false;
                self.decoded[placed.party] += 1;
                *heard = Some(heard.map_or(sample, |other| halves(other, sample)));
            }
        }
        self.position += 1;
        (!is_over).then_some(samples)
    }
}

impl Iterator for Mixer<'_> {
    type Item = Result<[i16; 2], TooLong>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position > SECONDS_MAX as u64 * u64::from(RATE) {
            return Some(Err(TooLong));
        }
        Some(Ok(self.samples()?.map(Option::unwrap_or_default)))
    }
}

/// Two samples as one, each half as loud.
pub fn halves(one: i16, other: i16) -> i16 {
    ((i32::from(one) + i32::from(other)) / 2) as i16
}

/// The packets of a recording are too far apart to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its packets are more than six days apart, so their times cannot be right")]
pub struct TooLong;

/// Six days: then samples no longer have numbers of 32 bits, which the timeline counts by.
const SECONDS_MAX: f64 = 6.0 * 24.0 * 3_600.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtpproxy_core::time::Wall;

    use super::*;
    use crate::codec::{CodecError, Decoder};

    /// Samples that are the bytes of the payload.
    struct Plain;

    impl Decoder for Plain {
        fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) -> Result<(), CodecError> {
            samples.extend(payload.iter().map(|&byte| i16::from(byte)));
            Ok(())
        }
    }

    fn plain(payload_type: u8) -> Result<Box<dyn Decoder>, CodecError> {
        if payload_type == 0 { Ok(Box::new(Plain)) } else { Err(CodecError::Unknown(payload_type)) }
    }

    const START: u64 = 1_700_000_000_000_000_000;
    const MS: u64 = 1_000_000;

    /// A packet of 20 ms that is all `byte`.
    fn put(party: &mut Party, ssrc: u32, number: u32, at_ms: u64, byte: u8) {
        put_ticks(party, ssrc, number as u16, number * 160, at_ms, &[byte; 160]);
    }

    fn put_ticks(party: &mut Party, ssrc: u32, sequence: u16, ticks: u32, at_ms: u64, payload: &[u8]) {
        let mut packet = vec![0x80, 0];
        packet.extend(sequence.to_be_bytes());
        packet.extend(ticks.to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        packet.extend(payload);
        party.packet(&packet, Wall(START + at_ms * MS)).unwrap();
    }

    fn heard(parties: [&Party; 2], gaps: Gaps) -> Vec<[i16; 2]> {
        Mixer::with_decoders(parties, gaps, plain).unwrap().map(Result::unwrap).collect()
    }

    /// The samples of the first party as runs of equal ones.
    fn runs(samples: &[[i16; 2]]) -> Vec<(i16, usize)> {
        let mut runs: Vec<(i16, usize)> = Vec::new();
        for &[sample, _] in samples {
            match runs.last_mut() {
                Some((value, count)) if *value == sample => *count += 1,
                _ => runs.push((sample, 1)),
            }
        }
        runs
    }

    fn alone(party: &Party, gaps: Gaps) -> Vec<(i16, usize)> {
        runs(&heard([party, &Party::new()], gaps))
    }

    #[test]
    fn nothing_gives_nothing() {
        assert!(heard([&Party::new(), &Party::new()], Gaps::Filled).is_empty());
    }

    #[test]
    fn a_lost_packet_is_silence() {
        let mut party = Party::new();
        put(&mut party, 7, 1, 0, 1);
        put(&mut party, 7, 3, 40, 3);
        assert_eq!(alone(&party, Gaps::Filled), [(1, 160), (0, 160), (3, 160)]);
        assert_eq!(alone(&party, Gaps::Omitted), [(1, 160), (3, 160)]);
    }

    #[test]
    fn a_long_pause_is_as_long_as_it_was() {
        let mut party = Party::new();
        put(&mut party, 7, 1, 0, 1);
        put(&mut party, 7, 101, 2000, 2);
        assert_eq!(alone(&party, Gaps::Filled), [(1, 160), (0, 99 * 160), (2, 160)]);
        assert_eq!(alone(&party, Gaps::Omitted), [(1, 160), (2, 160)]);
    }

    #[test]
    fn timestamps_that_leap_ahead_of_the_clock_are_not_believed() {
        let mut party = Party::new();
        put_ticks(&mut party, 7, 1, 0, 0, &[1; 160]);
        // 2 s ahead of a clock that went on by 20 ms.
        put_ticks(&mut party, 7, 2, 16_160, 20, &[2; 160]);
        put_ticks(&mut party, 7, 3, 16_320, 40, &[3; 160]);
        assert_eq!(alone(&party, Gaps::Filled), [(1, 160), (2, 160), (3, 160)]);
        // Whole seconds count: less than 2 s ahead are believed.
        let mut party = Party::new();
        put_ticks(&mut party, 7, 1, 0, 0, &[1; 160]);
        put_ticks(&mut party, 7, 2, 15_999, 20, &[2; 160]);
        assert_eq!(alone(&party, Gaps::Filled), [(1, 160), (0, 15_839), (2, 160)]);
    }

    #[test]
    fn a_clock_that_runs_ahead_is_followed_by_halves() {
        let mut party = Party::new();
        put_ticks(&mut party, 7, 1, 0, 0, &[1; 160]);
        // On hold for 2 s, and the timestamps stood still.
        put_ticks(&mut party, 7, 2, 160, 2_000, &[2; 160]);
        // 15840 samples behind: 4000 at most, then halves of 11840, 7840, 3920, 1960, until less than 1600.
        let silence = 4_000 + 4_000 + 3_920 + 1_960 + 980;
        assert_eq!(alone(&party, Gaps::Filled), [(1, 160), (0, silence), (2, 160)]);
        assert_eq!(alone(&party, Gaps::Omitted), [(1, 160), (2, 160)]);
    }

    #[test]
    fn late_sources_begin_when_they_did() {
        let (mut caller, mut callee) = (Party::new(), Party::new());
        // An eighth of a second: doubles have it exactly.
        put(&mut caller, 7, 1, 125, 1);
        put(&mut callee, 8, 1, 0, 2);
        let samples = heard([&caller, &callee], Gaps::Filled);
        assert_eq!(runs(&samples), [(0, 1000), (1, 160)]);
        assert_eq!(samples[..160], [[0, 2]; 160]);
        assert_eq!(samples[160..1000], [[0, 0]; 840]);
        assert_eq!(heard([&caller, &callee], Gaps::Omitted), [[1, 2]; 160]);
    }

    #[test]
    fn two_sources_of_a_party_are_averaged_or_follow_one_another() {
        let mut party = Party::new();
        put_ticks(&mut party, 7, 1, 0, 0, &[100; 1600]);
        put_ticks(&mut party, 8, 1, 0, 125, &[51; 1600]);
        assert_eq!(alone(&party, Gaps::Filled), [(100, 1000), (75, 600), (51, 1000)]);
        assert_eq!(alone(&party, Gaps::Omitted), [(100, 1600), (51, 1600)]);
        let empty = Party::new();
        let mut mixer = Mixer::with_decoders([&party, &empty], Gaps::Filled, plain).unwrap();
        assert_eq!(mixer.by_ref().count(), 2600);
        assert_eq!(mixer.decoded(), [3200, 0]);
    }

    #[test]
    fn halves_are_truncated() {
        assert_eq!(halves(-3, 0), -1);
        assert_eq!(halves(3, 0), 1);
        assert_eq!(halves(i16::MIN, i16::MIN), i16::MIN);
    }

    #[test]
    fn timestamps_may_wrap() {
        let mut party = Party::new();
        put_ticks(&mut party, 7, 1, u32::MAX - 159, 0, &[1; 160]);
        put_ticks(&mut party, 7, 2, 0, 20, &[2; 160]);
        assert_eq!(alone(&party, Gaps::Filled), [(1, 160), (2, 160)]);
    }

    #[test]
    fn what_has_no_decoder_is_silent_and_counted() {
        let mut party = Party::new();
        put(&mut party, 7, 1, 0, 1);
        let mut packet = vec![0x80, 4, 0, 2, 0, 0, 1, 64, 0, 0, 0, 7];
        packet.extend([9; 24]);
        party.packet(&packet, Wall(START + 20 * MS)).unwrap();
        put(&mut party, 7, 3, 40, 3);
        let empty = Party::new();
        let mut mixer = Mixer::with_decoders([&party, &empty], Gaps::Filled, plain).unwrap();
        let samples: Vec<_> = mixer.by_ref().map(Result::unwrap).collect();
        assert_eq!(runs(&samples), [(1, 160), (0, 160), (3, 160)]);
        let reason = CodecError::Unknown(4).to_string();
        assert_eq!(mixer.undecoded(), BTreeMap::from([(reason, 1)]));
    }

    #[test]
    fn a_packet_gives_no_more_samples_than_fit_a_buffer() {
        let mut party = Party::new();
        put_ticks(&mut party, 7, 1, 0, 0, &[1; 5_000]);
        assert_eq!(alone(&party, Gaps::Filled), [(1, 4_096)]);
    }

    #[test]
    fn packets_days_apart_are_refused() {
        let mut party = Party::new();
        put(&mut party, 7, 1, 0, 1);
        put(&mut party, 7, 2, 7 * 24 * 3_600 * 1_000, 1);
        assert!(Mixer::new([&party, &Party::new()], Gaps::Filled).is_err());
    }

    proptest! {
        #[test]
        fn no_times_or_numbers_upset_it(
            packets in prop::collection::vec(
                (any::<u16>(), any::<u32>(), 0..3_000_u64, 1..200_usize, 0..3_u32), 0..20),
            is_synced: bool,
        ) {
            let mut party = Party::new();
            for (sequence, ticks, at_ms, len, ssrc) in packets {
                let mut packet = vec![0x80, 0];
                packet.extend(sequence.to_be_bytes());
                packet.extend(ticks.to_be_bytes());
                packet.extend(ssrc.to_be_bytes());
                packet.extend(vec![1; len]);
                let _ = party.packet(&packet, Wall(START + at_ms * MS));
            }
            let gaps = if is_synced { Gaps::Filled } else { Gaps::Omitted };
            let empty = Party::new();
            let mixer = Mixer::with_decoders([&party, &empty], gaps, plain).unwrap();
            prop_assert!(mixer.map(Result::unwrap).count() < 100 * 8_000);
        }
    }
}
