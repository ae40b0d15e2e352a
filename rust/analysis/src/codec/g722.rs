//! G.722 at 64 kbit/s, of which only the lower band is used: it carries what sounds at 8000 Hz have.
//!
//! A byte is one sample here. Its upper two bits belong to the band from 4 to 8 kHz; they are written as those of
//! silence and not read. The names of the steps are those of the block diagrams in
//! [ITU-T G.722](https://www.itu.int/rec/T-REC-G.722), section 6.2, whose arithmetic this is, bit by bit.

use super::{CodecError, Decoder, Encoder};

/// Decoder and encoder, which have the same memory.
#[derive(Debug)]
pub(super) struct G722(Predictor);

impl G722 {
    pub(super) fn new() -> Self {
        Self(Predictor::new())
    }
}

impl Decoder for G722 {
    fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) -> Result<(), CodecError> {
        samples.extend(payload.iter().map(|byte| {
            let code = usize::from(byte & 0x3f);
            let difference = (self.0.scale * INVERSE_6_BITS[code]) >> 15;
            let sample = (self.0.signal + difference).clamp(-16384, 16383);
            self.0.adapt(code >> 2);
            // The coder has 15 bits.
            (sample << 1) as i16
        }));
        Ok(())
    }
}

impl Encoder for G722 {
    fn frame_samples(&self) -> usize {
        1
    }

    fn encode(&mut self, samples: &[i16], payload: &mut Vec<u8>) {
        payload.extend(samples.iter().map(|sample| {
            let difference = saturate((i32::from(*sample) >> 1) - self.0.signal);
            let code = quantize(difference, self.0.scale);
            self.0.adapt(usize::from(code >> 2));
            HIGHER_BAND_SILENCE | code
        }));
    }
}

/// QUANTL: 6 bits for a difference.
fn quantize(difference: i32, scale: i32) -> u8 {
    let is_negative = difference < 0;
    let magnitude = if is_negative { !difference } else { difference };
    let level = DECISIONS.iter().take_while(|decision| magnitude >= (*decision * scale) >> 12).count() as u8;
    match (is_negative, level) {
        (true, 0 | 1) => 63 - level,
        (true, _) => 33 - level,
        (false, _) => 61 - level,
    }
}

/// What the coder foretells of the lower band. Index 0 of the histories is the present.
#[derive(Debug)]
struct Predictor {
    /// NBL: logarithm of the scale.
    log_scale: i32,
    /// DETL: what one step of a difference is worth.
    scale: i32,
    /// SL: the next sample, as it is foretold.
    signal: i32,
    /// SZL: the part of it that comes from the zeros.
    zeros_part: i32,
    /// RLT: samples as they were rebuilt.
    rebuilt: [i32; 2],
    /// PLT: differences and the zeros' part.
    partial: [i32; 2],
    /// DLT: differences.
    differences: [i32; 6],
    /// AL: coefficients of the poles.
    poles: [i32; 2],
    /// BL: coefficients of the zeros.
    zeros: [i32; 6],
}

impl Predictor {
    fn new() -> Self {
        Self {
            log_scale: 0,
            scale: 32,
            signal: 0,
            zeros_part: 0,
            rebuilt: [0; 2],
            partial: [0; 2],
            differences: [0; 6],
            poles: [0; 2],
            zeros: [0; 6],
        }
    }

    /// Learns from a code, without its two lowest bits.
    fn adapt(&mut self, code: usize) {
        let difference = (self.scale * INVERSE_4_BITS[code]) >> 15;
        self.adapt_scale(code);
        let rebuilt = saturate(self.signal + difference);
        let partial = saturate(self.zeros_part + difference);
        self.adapt_poles(partial);
        self.adapt_zeros(difference);

        self.rebuilt = [rebuilt, self.rebuilt[0]];
        self.partial = [partial, self.partial[0]];
        self.differences.rotate_right(1);
        self.differences[0] = difference;
        self.predict();
    }

    /// LOGSCL and SCALEL.
    fn adapt_scale(&mut self, code: usize) {
        self.log_scale = (((self.log_scale * 127) >> 7) + SCALE_STEPS[code]).clamp(0, 18432);
        let mantissa = INVERSE_LOGARITHM[(self.log_scale >> 6) as usize & 31];
        let exponent = 8 - (self.log_scale >> 11);
        let scale = if exponent < 0 { mantissa << -exponent } else { mantissa >> exponent };
        self.scale = scale << 2;
    }

    /// UPPOL2 and UPPOL1.
    fn adapt_poles(&mut self, partial: i32) {
        let like_last = same_sign(partial, self.partial[0]);
        let quadruple = saturate(self.poles[0] << 2);
        let turned = if like_last { saturate(-quadruple) } else { quadruple };
        let nudge = if same_sign(partial, self.partial[1]) { 128 } else { -128 };
        let second = ((turned >> 7) + nudge + ((self.poles[1] * 32512) >> 15)).clamp(-12288, 12288);

        let nudge = if like_last { 192 } else { -192 };
        let limit = 15360 - second;
        let first = (nudge + ((self.poles[0] * 32640) >> 15)).clamp(-limit, limit);
        self.poles = [first, second];
    }

    /// UPZERO.
    fn adapt_zeros(&mut self, difference: i32) {
        let nudge = if difference == 0 { 0 } else { 128 };
        for (zero, earlier) in self.zeros.iter_mut().zip(self.differences) {
            let nudge = if same_sign(difference, earlier) { nudge } else { -nudge };
            *zero = saturate(nudge + ((*zero * 32640) >> 15));
        }
    }

    /// FILTEP, FILTEZ and PREDIC.
    fn predict(&mut self) {
        let weigh = |(factor, value): (&i32, &i32)| (factor * saturate(value + value)) >> 15;
        let poles_part = saturate(self.poles.iter().zip(&self.rebuilt).map(weigh).sum());
        // From the oldest on, as the limits of 16 bits are met in that order.
        let weighed = self.zeros.iter().zip(&self.differences).map(weigh);
        self.zeros_part = weighed.rev().fold(0, |sum, part| saturate(sum + part));
        self.signal = saturate(poles_part + self.zeros_part);
    }
}

fn saturate(value: i32) -> i32 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX))
}

fn same_sign(one: i32, other: i32) -> bool {
    (one < 0) == (other < 0)
}

const HIGHER_BAND_SILENCE: u8 = 0xc0;

/// Q6 in table 14 of G.722.
const DECISIONS: [i32; 29] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023, 1121, 1219,
    1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919,
];

/// WL by way of RL4: how a code moves the logarithm of the scale.
const SCALE_STEPS: [i32; 16] =
    [-60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60];

/// ILB: powers of two between 2048 and 4096.
const INVERSE_LOGARITHM: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834, 2896,
    2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];

/// QM4.
const INVERSE_4_BITS: [i32; 16] =
    [0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584, 1200, 0];

/// QM6.
const INVERSE_6_BITS: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232, -9360,
    -8576, -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776, -2400, -2032, -1688,
    -1360, -1040, -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280, 11192, 10232, 9360, 8576, 7856,
    7192, 6576, 6000, 5456, 4944, 4464, 4008, 3576, 3168, 2776, 2400, 2032, 1688, 1360, 1040, 728, 432, 136,
    -432, -136,
];
