//! The shell around `rtpproxy-core`: worker threads, media sockets, control transports and the recorder.

pub mod client;
#[cfg(target_os = "linux")]
pub mod config;
#[cfg(target_os = "linux")]
pub mod control;
#[cfg(target_os = "linux")]
mod dispatch;
mod hostport;
#[cfg(target_os = "linux")]
pub mod notifier;
#[cfg(target_os = "linux")]
pub mod recorder;
#[cfg(unix)]
mod socket_file;

#[cfg(target_os = "linux")]
pub use dispatch::RelayHandle;
