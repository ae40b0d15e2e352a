//! The shell around `rtpproxy-core`: worker threads, media sockets, control transports and the recorder.
//!
//! [`Relay::start`] makes a running relay out of a [`config::Config`]. Inside:
//!
//! - the road of a packet: `io` reads it, `worker` asks the engine of the core, `carrier` does what the engine
//!   decided. One thread owns all of it: there is no lock, no queue and no allocation on this road.
//! - the road of a command: `control` frames it, `dispatch` has it parsed and chooses the worker of its call,
//!   the worker's engine answers. [`RelayHandle`] is the same road without sockets.
//! - `prompts` reads prompt files before the command that plays them reaches a worker.
//! - `recorder` writes copies of packets to files, `notifier` tells others of timeouts, `modules` tell them of
//!   calls; each has a thread of its own behind a bounded queue, so that neither a disk nor a peer can hold up
//!   a packet.
//!
//! Workers, sockets and recorder need Linux; elsewhere only the client is there.
#![deny(unsafe_code)]

#[cfg(target_os = "linux")]
mod carrier;
pub mod client;
#[cfg(target_os = "linux")]
mod clock;
#[cfg(target_os = "linux")]
pub mod config;
#[cfg(target_os = "linux")]
pub mod control;
#[cfg(target_os = "linux")]
mod dispatch;
#[cfg(target_os = "linux")]
mod host;
pub mod hostport;
#[cfg(target_os = "linux")]
mod io;
#[cfg(target_os = "linux")]
mod limits;
#[cfg(target_os = "linux")]
mod metrics;
#[cfg(target_os = "linux")]
pub mod modules;
#[cfg(target_os = "linux")]
pub mod notifier;
#[cfg(target_os = "linux")]
mod pace;
#[cfg(target_os = "linux")]
mod placement;
#[cfg(target_os = "linux")]
mod preroll;
#[cfg(target_os = "linux")]
mod prompts;
#[cfg(target_os = "linux")]
mod recipients;
#[cfg(target_os = "linux")]
pub mod record_name;
#[cfg(target_os = "linux")]
pub mod recorder;
#[cfg(target_os = "linux")]
mod relay;
#[cfg(target_os = "linux")]
mod resolver;
#[cfg(target_os = "linux")]
mod shutdown;
#[cfg(unix)]
mod socket_file;
pub mod tap;
#[cfg(test)]
mod testing;
#[cfg(target_os = "linux")]
mod work;
#[cfg(target_os = "linux")]
mod worker;

#[cfg(target_os = "linux")]
pub use dispatch::RelayHandle;
#[cfg(target_os = "linux")]
pub use relay::{Relay, StartError};
