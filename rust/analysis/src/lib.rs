//! Work on recordings, away from the relay: captures are read, and audio comes out.
//!
//! - [`capture`]: the packets of pcap, pcapng and ad-hoc files.
//! - [`journal`]: calls that share files.
//! - [`listing`]: which recordings there are.
//! - [`recording`]: which files make a recording, and who is who in it.
//! - [`verify`]: whether recordings are whole, and what is missing.
//! - [`repair`]: readable files from damaged ones.
//! - [`unlock`]: opening encrypted ones.
//! - [`srtp`]: decrypting their packets.
//! - [`audio`]: from packets to sound, and into files.
//! - [`one_side`]: a file as what one side sent.
//! - [`codec`]: audio codecs by their static RTP payload type (RFC 3551), to and from 16-bit samples at 8000 Hz.
//! - [`prompts`]: sounds to files that the command `P` plays.
//! - [`MissingLibrary`]: what a machine lacks if something needs a library in C; these are loaded at run time.

pub mod audio;
pub mod capture;
pub mod codec;
pub mod content;
pub mod journal;
pub mod listing;
mod native;
pub mod one_side;
pub mod prompts;
pub mod recording;
pub mod repair;
pub mod srtp;
pub mod unlock;
pub mod verify;

pub use native::MissingLibrary;
