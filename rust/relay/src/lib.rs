//! The shell around `rtpproxy-core`: worker threads, media sockets, control transports and the recorder.

#[cfg(target_os = "linux")]
pub mod config;
#[cfg(target_os = "linux")]
mod dispatch;

#[cfg(target_os = "linux")]
pub use dispatch::RelayHandle;
