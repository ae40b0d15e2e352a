//! Audio codecs of telephony: 16-bit samples at 8000 Hz to RTP payloads and back.

/// Why a codec cannot be used, or a payload cannot be decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CodecError {
    /// No codec is known for this payload type.
    #[error("payload type {0}: no codec is known for it")]
    Unknown(u8),
    /// The library that knows the codec is not on this machine.
    #[error("{codec} needs the library {library}, which is missing (Debian: apt-get install {package})")]
    Missing {
        /// The codec.
        codec: &'static str,
        /// The file that was looked for.
        library: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// The payload is not of this codec.
    #[error("{codec}: {reason}")]
    Broken {
        /// The codec.
        codec: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
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
