//! The protocol and the session logic of rtpproxy, without any IO.
//!
//! Bytes and the time go in, decisions come out. The shell around this crate (`rtpproxy-relay`) owns the
//! sockets, the threads, the clock and the files; nothing here does.
//!
//! The road of a packet: [`engine::Engine::handle_packet`] finds the session and the stream behind a media
//! port, lets [`latch`] decide whether the source may speak for that party, counts it ([`stats`],
//! [`analyzer`]), copies it to a recording and says where to send it ([`effects::Out`]).
//!
//! The road of a command: [`command::parse`] turns text into a [`command::Command`],
//! [`front::Front`] applies the rules that depend on the configuration, the engine carries it out and
//! answers with a [`command::Reply`].
//!
//! How a recording looks as bytes is in [`pcapng`], [`pcap`] and [`adhoc`], its frames in [`frame`], and
//! the signalling that is made up for them in [`sip_head`]. [`salvage`] reads them back, damaged ones too.
//! [`sealed`] is how they look encrypted while they are written.
//! [`file_name`] knows how they are called, [`compression`] makes them small.

pub mod accounting;
pub mod addr;
pub mod adhoc;
pub mod analyzer;
pub mod command;
pub mod compression;
pub mod config;
pub mod dtmf;
pub mod effects;
pub mod engine;
pub mod file_name;
pub mod frame;
pub mod front;
pub mod hep;
pub mod host;
pub mod journal;
pub mod latch;
pub mod pcap;
pub mod pcapng;
pub mod player;
pub mod port_pool;
pub mod recording;
pub mod resizer;
pub mod rtcp;
pub mod rtcp_json;
pub mod rtp;
pub mod salvage;
pub mod sealed;
mod session;
pub mod sip_head;
pub mod stats;
pub mod time;
mod window;
