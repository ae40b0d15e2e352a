//! G.729: 80 samples in 10 bytes, or in the 2 bytes of a description of silence.

use super::{CodecError, Decoder, Encoder};
use crate::native::g729::{FRAME_BYTES, FRAME_SAMPLES, Frame, G729Decoder, G729Encoder, SILENCE_BYTES};

impl Decoder for G729Decoder {
    fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) -> Result<(), CodecError> {
        let size = frame_bytes(payload.len()).ok_or(CodecError::Broken {
            codec: "G.729",
            reason: "the length is that of no number of frames",
        })?;
        for bytes in payload.chunks_exact(size) {
            let frame = if let Ok(speech) = bytes.try_into() {
                Frame::Speech(speech)
            } else if let Ok(silence) = bytes.try_into() {
                Frame::Silence(silence)
            } else {
                // Annexes D and E, which the library does not know.
                Frame::Lost
            };
            samples.extend(self.decode(frame));
        }
        Ok(())
    }
}

impl Encoder for G729Encoder {
    fn frame_samples(&self) -> usize {
        FRAME_SAMPLES
    }

    fn encode(&mut self, samples: &[i16], payload: &mut Vec<u8>) {
        let (frames, _) = samples.as_chunks::<FRAME_SAMPLES>();
        for frame in frames {
            self.encode(frame, payload);
        }
    }
}

/// The size of the frames in a payload: its length is the only thing that tells.
fn frame_bytes(length: usize) -> Option<usize> {
    [FRAME_BYTES, ANNEX_D_BYTES, ANNEX_E_BYTES, SILENCE_BYTES]
        .into_iter()
        .find(|size| length.is_multiple_of(*size))
}

const ANNEX_D_BYTES: usize = 8;
const ANNEX_E_BYTES: usize = 15;
