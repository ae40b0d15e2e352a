//! GSM 06.10 full rate: 160 samples in 33 bytes.

use super::{CodecError, Decoder, Encoder};
use crate::native::gsm::{FRAME_BYTES, FRAME_SAMPLES, Gsm};

impl Decoder for Gsm {
    fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) -> Result<(), CodecError> {
        let broken = |reason| CodecError::Broken { codec: "GSM 06.10", reason };
        let (frames, rest) = payload.as_chunks::<FRAME_BYTES>();
        for frame in frames {
            let decoded =
                self.decode(frame).ok_or_else(|| broken("a frame does not begin with the bits 1101"))?;
            samples.extend(decoded);
        }
        if rest.is_empty() { Ok(()) } else { Err(broken("the length is not a multiple of 33 bytes")) }
    }
}

impl Encoder for Gsm {
    fn frame_samples(&self) -> usize {
        FRAME_SAMPLES
    }

    fn encode(&mut self, samples: &[i16], payload: &mut Vec<u8>) {
        let (frames, _) = samples.as_chunks::<FRAME_SAMPLES>();
        for frame in frames {
            payload.extend(self.encode(frame));
        }
    }
}
