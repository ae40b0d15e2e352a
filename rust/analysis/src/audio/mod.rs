//! From RTP packets to sound at 8000 Hz, and into audio files.
//!
//! A [`Party`] gathers what one side of a call sent, a [`Mixer`] decodes both sides onto one timeline, and an
//! [`AudioFile`] takes the samples. The timeline is that of the C program's `extractaudio`, step by step, so
//! that the same recording gives the same samples.

mod file;
mod mixer;
mod party;
mod voice;

pub use file::{AudioError, AudioFile, AudioFormat, CONTAINERS, ENCODINGS, UnknownName};
pub use mixer::{Mixer, TooLong, halves};
pub use party::{Party, Unplayable};

/// Samples in a second.
pub const RATE: u32 = 8_000;

/// Whether time passes where no packets were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gaps {
    /// What is heard is as long as the call was: silence fills the gaps.
    Filled,
    /// What was sent is heard without gaps.
    Omitted,
}
