//! Audio codecs of telephony: 16-bit samples at 8000 Hz to RTP payloads and back.
//!
//! | payload type | codec | comes from |
//! |---|---|---|
//! | 0, 8 | G.711, µ-law and A-law | here |
//! | 9 | G.722 at 64 kbit/s, its lower band | here |
//! | 3 | GSM 06.10 full rate | libgsm, if the machine has it |
//! | 18 | G.729 with annexes A and B | bcg729, if the machine has it |

mod g711;
mod g722;
mod g729;
mod gsm;

use crate::native::MissingLibrary;
use crate::native::g729::{G729Decoder, G729Encoder};
use crate::native::gsm::Gsm;
use g711::{Law, MuLawWithoutZero};
use g722::G722;

/// The static payload types (RFC 3551) that there is a codec for.
pub const PAYLOAD_TYPES: [u8; 5] = [0, 3, 8, 9, 18];

/// Samples in a second, of every codec here.
pub const SAMPLE_RATE: u32 = 8000;

/// Begins to decode a stream of `payload_type`.
///
/// # Errors
///
/// [`CodecError::Unknown`] for a payload type that is not in [`PAYLOAD_TYPES`], [`CodecError::Missing`].
pub fn decoder(payload_type: u8) -> Result<Box<dyn Decoder>, CodecError> {
    Ok(match payload_type {
        0 => Box::new(Law::Mu),
        3 => Box::new(Gsm::new()?),
        8 => Box::new(Law::A),
        9 => Box::new(G722::new()),
        18 => Box::new(G729Decoder::new()?),
        _ => return Err(CodecError::Unknown(payload_type)),
    })
}

/// The same as the C program's `extractaudio` decodes it, which has no zero in the µ-law: 0x7F is -2 and 0xFF is 2.
///
/// # Errors
///
/// As of [`decoder`].
pub fn decoder_of_extractaudio(payload_type: u8) -> Result<Box<dyn Decoder>, CodecError> {
    if payload_type == 0 { Ok(Box::new(MuLawWithoutZero)) } else { decoder(payload_type) }
}

/// Begins to encode a stream of `payload_type`.
///
/// # Errors
///
/// [`CodecError::Unknown`] for a payload type that is not in [`PAYLOAD_TYPES`], [`CodecError::Missing`].
pub fn encoder(payload_type: u8) -> Result<Box<dyn Encoder>, CodecError> {
    Ok(match payload_type {
        0 => Box::new(Law::Mu),
        3 => Box::new(Gsm::new()?),
        8 => Box::new(Law::A),
        9 => Box::new(G722::new()),
        18 => Box::new(G729Encoder::new(false)?),
        _ => return Err(CodecError::Unknown(payload_type)),
    })
}

/// Begins to encode a stream of G.729 in which silence takes fewer bytes (annex B): a frame is 10 bytes of speech, 2
/// that describe silence, or none, and only their packets would tell which.
///
/// # Errors
///
/// [`CodecError::Missing`].
pub fn g729_encoder_with_silence() -> Result<Box<dyn Encoder>, CodecError> {
    Ok(Box::new(G729Encoder::new(true)?))
}

/// Decodes the payloads of one stream, in order.
pub trait Decoder: Send {
    /// Appends the samples of `payload` to `samples`.
    ///
    /// # Errors
    ///
    /// [`CodecError::Broken`]; `samples` may then hold what came before.
    fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) -> Result<(), CodecError>;
}

/// Encodes one stream.
pub trait Encoder: Send {
    /// Samples that go into one frame; whoever calls gives whole frames.
    fn frame_samples(&self) -> usize;

    /// Appends the bytes of `samples`, whole frames, to `payload`.
    fn encode(&mut self, samples: &[i16], payload: &mut Vec<u8>);
}

/// Why a codec cannot be used, or a payload cannot be decoded.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CodecError {
    /// No codec is known for this payload type.
    #[error("payload type {0}: no codec is known for it")]
    Unknown(u8),
    /// The library that knows the codec is not on this machine.
    #[error(transparent)]
    Missing(#[from] MissingLibrary),
    /// The payload is not of this codec.
    #[error("{codec}: {reason}")]
    Broken {
        /// The codec.
        codec: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
}
