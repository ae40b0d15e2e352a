//! Work on recordings, away from the relay: captures are read, and audio comes out.
//!
//! - [`codec`]: audio codecs by their static RTP payload type (RFC 3551), to and from 16-bit samples at 8000 Hz.
//! - [`prompts`]: sounds to files that the command `P` plays.
//! - [`MissingLibrary`]: what a machine lacks if something needs a library in C; these are loaded at run time.

pub mod codec;
mod native;
pub mod prompts;

pub use native::MissingLibrary;
