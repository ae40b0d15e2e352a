//! From the command line to the work.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Parser;

use crate::daemon;
use crate::demo::Demo;
use crate::flags::{self, FlagError, Request};
use crate::settings::Settings;

/// Runs the command with `args`, the program's name first, and gives back the exit status.
///
/// In the background (without `-f`) the calling process ends inside, as soon as the daemon runs; the daemon
/// itself returns when it has ended.
pub fn run(args: Vec<OsString>) -> i32 {
    if args.get(1).is_some_and(|word| word == "demo") {
        return demo(args.into_iter().skip(1));
    }
    match flags::parse(args.into_iter().skip(1)) {
        Ok(Request::Run(flags)) => {
            let compat = std::env::var_os("RTPPROXY_COMPAT");
            let status = Settings::new(*flags, compat.as_deref()).and_then(daemon::serve);
            status.unwrap_or_else(|error| {
                complain(&error);
                1
            })
        }
        Ok(Request::Help) => i32::from(flags::command().print_help().is_err()),
        Ok(Request::Print(text)) => {
            say(&text);
            0
        }
        Err(error) => {
            complain(&error.to_string());
            if matches!(error, FlagError::Usage(_)) {
                let usage = flags::command().render_usage();
                let _ = writeln!(io::stderr(), "{usage}\n\nrtpproxy --help says more.");
            }
            1
        }
    }
}

fn demo(args: impl Iterator<Item = OsString>) -> i32 {
    match Demo::try_parse_from(args) {
        Ok(demo) => demo.run(),
        Err(error) => {
            // Help is an error without the status of one.
            let printed = error.print().is_ok();
            i32::from(error.use_stderr() || !printed)
        }
    }
}

/// Text on standard output. A reader that has gone away misses it, that is all.
pub(crate) fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// A message to whoever starts the program, for what comes before the log.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "rtpproxy: {text}");
}
