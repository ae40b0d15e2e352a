//! G.711: a sample in a byte, in the steps of the µ-law or of the A-law.
//!
//! Of 16-bit samples the µ-law looks at the upper 14 bits and the A-law at the upper 13
//! ([ITU-T G.711](https://www.itu.int/rec/T-REC-G.711)).

use super::{CodecError, Decoder, Encoder};

/// One of the two laws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Law {
    /// µ-law, payload type 0.
    Mu,
    /// A-law, payload type 8.
    A,
}

impl Decoder for Law {
    fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) -> Result<(), CodecError> {
        let table = match self {
            Self::Mu => &MU_LAW,
            Self::A => &A_LAW,
        };
        samples.extend(payload.iter().map(|byte| table[usize::from(*byte)]));
        Ok(())
    }
}

impl Encoder for Law {
    fn frame_samples(&self) -> usize {
        1
    }

    fn encode(&mut self, samples: &[i16], payload: &mut Vec<u8>) {
        match self {
            Self::Mu => payload.extend(samples.iter().map(|sample| to_mu_law(*sample))),
            Self::A => payload.extend(samples.iter().map(|sample| to_a_law(*sample))),
        }
    }
}

/// The µ-law as `extractaudio` decodes it: its two codes of zero are the neighbours of zero.
#[derive(Debug)]
pub(super) struct MuLawWithoutZero;

impl Decoder for MuLawWithoutZero {
    fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) -> Result<(), CodecError> {
        samples.extend(payload.iter().map(|byte| match byte {
            0x7f => -2,
            0xff => 2,
            _ => MU_LAW[usize::from(*byte)],
        }));
        Ok(())
    }
}

fn to_mu_law(sample: i16) -> u8 {
    let sample = sample >> 2;
    let sign = if sample < 0 { 0x7f } else { 0xff };
    let magnitude = (sample.unsigned_abs() + MU_BIAS).min(0x1fff);
    // The bias makes 6 bits the least.
    let segment = 10 - magnitude.leading_zeros();
    let step = (magnitude >> (segment + 1)) & 0x0f;
    (segment << 4 | u32::from(step)) as u8 ^ sign
}

fn to_a_law(sample: i16) -> u8 {
    let sample = sample >> 3;
    let (magnitude, sign) = if sample < 0 { (!sample, 0x55) } else { (sample, 0xd5) };
    let magnitude = magnitude.unsigned_abs();
    // The first two segments have steps of the same size.
    let segment = 11_u32.saturating_sub(magnitude.leading_zeros());
    let step = (magnitude >> segment.max(1)) & 0x0f;
    (segment << 4 | u32::from(step)) as u8 ^ sign
}

const fn from_mu_law(byte: u8) -> i16 {
    let byte = !byte;
    let step = (byte & 0x0f) as i16;
    let segment = (byte >> 4) & 7;
    let magnitude = ((step << 1) + MU_BIAS as i16) << segment;
    let sample = (magnitude - MU_BIAS as i16) << 2;
    if byte & 0x80 == 0 { sample } else { -sample }
}

const fn from_a_law(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let step = (byte & 0x0f) as i16;
    let segment = (byte >> 4) & 7;
    // The middle of the step.
    let magnitude = (step << 4) + 8;
    let sample = if segment == 0 { magnitude } else { (magnitude + 0x100) << (segment - 1) };
    if byte & 0x80 == 0 { -sample } else { sample }
}

const MU_BIAS: u16 = 33;

const MU_LAW: [i16; 256] = table(true);
const A_LAW: [i16; 256] = table(false);

const fn table(mu_law: bool) -> [i16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = if mu_law { from_mu_law(byte as u8) } else { from_a_law(byte as u8) };
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_the_code_of_its_sample() {
        for byte in 0..=u8::MAX {
            // Both zeros of the µ-law are 0.
            let again = if byte == 0x7f { 0xff } else { byte };
            assert_eq!(to_mu_law(MU_LAW[usize::from(byte)]), again, "{byte:02x}");
            assert_eq!(to_a_law(A_LAW[usize::from(byte)]), byte, "{byte:02x}");
        }
    }

    #[test]
    fn the_ends_and_the_middle_are_those_of_the_tables_of_g711() {
        // 14 bits of µ-law end at 8031, 13 bits of A-law at 4032.
        assert_eq!((MU_LAW[0x80], MU_LAW[0x00]), (4 * 8031, -4 * 8031));
        assert_eq!((A_LAW[0xaa], A_LAW[0x2a]), (8 * 4032, -8 * 4032));
        assert_eq!((MU_LAW[0xff], MU_LAW[0x7f]), (0, 0));
        assert_eq!((A_LAW[0xd5], A_LAW[0x55]), (8, -8));
        for (sample, mu_law, a_law) in
            [(0, 0xff, 0xd5), (-1, 0x7e, 0x55), (i16::MAX, 0x80, 0xaa), (i16::MIN, 0x00, 0x2a)]
        {
            assert_eq!((to_mu_law(sample), to_a_law(sample)), (mu_law, a_law), "{sample}");
        }
    }

    #[test]
    fn louder_samples_have_louder_codes() {
        for sample in i16::MIN..i16::MAX {
            assert!(MU_LAW[usize::from(to_mu_law(sample))] <= MU_LAW[usize::from(to_mu_law(sample + 1))]);
            assert!(A_LAW[usize::from(to_a_law(sample))] <= A_LAW[usize::from(to_a_law(sample + 1))]);
        }
    }
}
