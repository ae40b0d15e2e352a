//! From the command line to the work.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory, Parser};

use crate::bench::Bench;
use crate::check;
use crate::ctl::Ctl;
use crate::daemon;
use crate::demo::Demo;
use crate::extract::{self, Extract, ExtractAudio};
use crate::flags::{self, FlagError, Request};
use crate::logging;
use crate::ls::Ls;
use crate::prompts::{self, Makeann, Prompts};
use crate::reference::{Completions, Man};
use crate::repair::Repair;
use crate::settings::Settings;
use crate::verify::Verify;

/// Runs the command with `args`, the program's name first, and gives back the exit status.
///
/// In the background (without `-f`) the calling process ends inside, as soon as the daemon runs; the daemon
/// itself returns when it has ended.
pub fn run(mut args: Vec<OsString>) -> i32 {
    let called = args.first().and_then(|name| Path::new(name).file_name());
    if let Some(companion) = called.and_then(|name| find(COMPANIONS, name)) {
        return (companion.run)(args);
    }
    if let Some(sub) = args.get(1).and_then(|word| find(SUB_COMMANDS, word)) {
        args.remove(0);
        return (sub.run)(args);
    }
    relay(args)
}

/// Every option and every sub-command, for the help, man pages and completions.
pub(crate) fn command() -> Command {
    flags::command().disable_help_subcommand(true).subcommands(SUB_COMMANDS.iter().map(Program::command))
}

/// The programs that the binary is under other names, with their options.
pub(crate) fn companions() -> impl Iterator<Item = Command> {
    COMPANIONS.iter().map(Program::command)
}

/// A program within the binary.
struct Program {
    name: &'static str,
    /// Its arguments, its own name first, to its exit status.
    run: fn(Vec<OsString>) -> i32,
    options: fn() -> Command,
}

impl Program {
    fn command(&self) -> Command {
        (self.options)().name(self.name)
    }
}

fn find<'a>(programs: &'a [Program], name: &OsStr) -> Option<&'a Program> {
    programs.iter().find(|program| name == program.name)
}

/// Runs the work of a sub-command, if its arguments can be understood.
pub(crate) fn sub_command<Work: Parser>(args: Vec<OsString>, run: fn(&Work) -> i32) -> i32 {
    sub_command_or(1, args, run)
}

/// The same with an exit status of its own for arguments that cannot be understood.
fn sub_command_or<Work: Parser>(misuse: i32, args: Vec<OsString>, run: fn(&Work) -> i32) -> i32 {
    match Work::try_parse_from(args) {
        Ok(work) => run(&work),
        Err(error) => {
            // Help is an error without the status of one.
            let printed = error.print().is_ok();
            if error.use_stderr() || !printed { misuse } else { 0 }
        }
    }
}

fn relay(args: Vec<OsString>) -> i32 {
    match flags::parse(args.into_iter().skip(1), std::env::vars_os()) {
        Ok(Request::Run(flags)) => status(Settings::new(*flags).and_then(daemon::serve)),
        Ok(Request::Check(flags)) => status(check::run(*flags)),
        Ok(Request::Help) => i32::from(command().print_help().is_err()),
        Ok(Request::Print(text)) => {
            say(&text);
            0
        }
        Err(error) => {
            error.to_string().lines().for_each(complain);
            if matches!(error, FlagError::Usage(_)) {
                let usage = flags::command().render_usage();
                let _ = writeln!(io::stderr(), "{usage}\n\nrtpproxy --help says more.");
            }
            1
        }
    }
}

fn status(outcome: Result<i32, String>) -> i32 {
    outcome.unwrap_or_else(|error| {
        complain(logging::without_number(&error));
        1
    })
}

/// Text on standard output. A reader that has gone away misses it, that is all.
pub(crate) fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// A message to whoever starts the program, for what comes before the log.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "rtpproxy: {text}");
}

/// Sub-commands, known as the first argument only: no option of the daemon can be taken for one.
const SUB_COMMANDS: &[Program] = &[
    Program { name: "bench", run: |args| sub_command(args, Bench::run), options: Bench::command },
    Program { name: "ctl", run: |args| sub_command(args, Ctl::run), options: Ctl::command },
    Program { name: "demo", run: |args| sub_command(args, Demo::run), options: Demo::command },
    Program { name: "extract", run: |args| sub_command(args, Extract::run), options: Extract::command },
    Program { name: "ls", run: |args| sub_command(args, Ls::run), options: Ls::command },
    Program { name: "prompts", run: |args| sub_command(args, Prompts::run), options: Prompts::command },
    Program { name: "repair", run: |args| sub_command_or(2, args, Repair::run), options: Repair::command },
    Program { name: "verify", run: |args| sub_command_or(2, args, Verify::run), options: Verify::command },
    Program { name: "man", run: |args| sub_command(args, Man::run), options: || Man::command().hide(true) },
    Program {
        name: "completions",
        run: |args| sub_command(args, Completions::run),
        options: || Completions::command().hide(true),
    },
];

/// What the binary is if it is called by another name, through a link or `exec -a`.
const COMPANIONS: &[Program] = &[
    Program { name: "extractaudio", run: extract::extractaudio, options: ExtractAudio::command },
    Program { name: "makeann", run: prompts::makeann, options: Makeann::command },
];
