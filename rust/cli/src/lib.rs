//! The `rtpproxy` command.
//!
//! The command line becomes `flags` (each value checked on its own), then `settings` (what they mean
//! together), then work: `daemon` runs the relay, `demo` shows it, `ctl` asks one that runs.
//! Sub-commands are known as the first argument only, so that no option of the daemon can be taken for one.

#[cfg(target_os = "linux")]
mod app;
#[cfg(target_os = "linux")]
mod bench;
#[cfg(target_os = "linux")]
mod check;
#[cfg(target_os = "linux")]
mod config_file;
#[cfg(target_os = "linux")]
mod ctl;
#[cfg(target_os = "linux")]
mod daemon;
#[cfg(target_os = "linux")]
mod demo;
#[cfg(target_os = "linux")]
mod extract;
#[cfg(target_os = "linux")]
mod flags;
#[cfg(target_os = "linux")]
mod folders;
#[cfg(target_os = "linux")]
mod identity;
#[cfg(target_os = "linux")]
mod listen;
#[cfg(target_os = "linux")]
mod logging;
#[cfg(target_os = "linux")]
mod ls;
#[cfg(target_os = "linux")]
mod modules;
#[cfg(target_os = "linux")]
mod notify;
#[cfg(target_os = "linux")]
mod prompts;
#[cfg(target_os = "linux")]
mod reference;
#[cfg(target_os = "linux")]
mod repair;
#[cfg(target_os = "linux")]
mod settings;
#[cfg(target_os = "linux")]
mod ucl;
#[cfg(target_os = "linux")]
mod verify;

#[cfg(target_os = "linux")]
pub use app::run;
#[cfg(target_os = "linux")]
use app::{complain, say};
#[cfg(target_os = "linux")]
pub use settings::relay_settings;

/// Runs the command with `args`, the program's name first, and gives back the exit status.
#[cfg(not(target_os = "linux"))]
pub fn run(_args: Vec<std::ffi::OsString>) -> i32 {
    eprintln!("rtpproxy: the relay runs on Linux only");
    1
}
