//! From the command line to the work.

use std::ffi::OsString;

use crate::flags::{self, FlagError, Flags, Request};
use crate::settings::Settings;

/// Runs the command with `args`, the program's name first, and gives back the exit status.
pub fn run(args: Vec<OsString>) -> i32 {
    match flags::parse(args.into_iter().skip(1)) {
        Ok(Request::Run(flags)) => serve(*flags),
        Ok(Request::Help) => match flags::command().print_help() {
            Ok(()) => 0,
            Err(_) => 1,
        },
        Ok(Request::Print(text)) => {
            print!("{text}");
            0
        }
        Err(error) => {
            complain(&error.to_string());
            if matches!(error, FlagError::Usage(_)) {
                eprintln!("{}\n\nrtpproxy --help says more.", flags::command().render_usage());
            }
            1
        }
    }
}

fn serve(flags: Flags) -> i32 {
    let _ = match Settings::new(flags, std::env::var_os("RTPPROXY_COMPAT").as_deref()) {
        Ok(settings) => settings,
        Err(error) => {
            complain(&error);
            return 1;
        }
    };
    0
}

/// A message to whoever starts the program, before there is a log.
fn complain(text: &str) {
    eprintln!("rtpproxy: {text}");
}
