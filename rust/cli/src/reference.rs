//! Man pages and shell completions, made from the tables of options: `rtpproxy man`, `rtpproxy completions`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Command, Parser, ValueEnum, ValueHint};
use clap_complete::Shell as Syntax;
use clap_mangen::Man as Page;
use clap_mangen::roff::{Roff, bold, roman};

use crate::app;

/// Prints the man page of rtpproxy, or writes the pages of all commands.
#[derive(Debug, Parser)]
#[command(bin_name = "rtpproxy man", max_term_width = 110)]
pub(crate) struct Man {
    /// Folder for the pages, one file for each command; made if it is missing.
    #[arg(value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

impl Man {
    /// Does it and gives back the exit status.
    pub(crate) fn run(&self) -> i32 {
        let written = match &self.dir {
            Some(dir) => write_pages(dir).map_err(|error| format!("{}: {error}", dir.display())),
            None => print(&page(&root())),
        };
        status("man", written)
    }
}

/// Prints the completions of a shell.
#[derive(Debug, Parser)]
#[command(bin_name = "rtpproxy completions", max_term_width = 110)]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// The shells whose completions are made and tested.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Fish,
    Zsh,
}

impl Completions {
    /// Does it and gives back the exit status.
    pub(crate) fn run(&self) -> i32 {
        let syntax = match self.shell {
            Shell::Bash => Syntax::Bash,
            Shell::Fish => Syntax::Fish,
            Shell::Zsh => Syntax::Zsh,
        };
        let mut script = Vec::new();
        clap_complete::generate(syntax, &mut app::command(), "rtpproxy", &mut script);
        status("completions", print(&script))
    }
}

fn status(name: &str, done: Result<(), String>) -> i32 {
    done.map_or_else(
        |error| {
            crate::complain(&format!("{name}: {error}"));
            1
        },
        |()| 0,
    )
}

fn print(text: &[u8]) -> Result<(), String> {
    io::stdout().write_all(text).map_err(|error| format!("can't write: {error}"))
}

fn write_pages(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for command in documented(&root()) {
        fs::write(dir.join(format!("{}.1", title(&command))), page(&command))?;
    }
    Ok(())
}

/// Every command that has a page.
fn documented(root: &Command) -> Vec<Command> {
    std::iter::once(root).chain(subs(root)).cloned().chain(app::companions()).collect()
}

/// All commands, with the names that they have beside each other.
fn root() -> Command {
    let mut root = app::command();
    root.build();
    root
}

fn subs(root: &Command) -> impl Iterator<Item = &Command> {
    root.get_subcommands().filter(|sub| !sub.is_hide_set())
}

fn title(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// The page of a command in the language of roff(7).
fn page(command: &Command) -> Vec<u8> {
    let page = Page::new(command.clone())
        // An empty argument would be left out, and the next one taken for it.
        .date(" ")
        .source(concat!("rtpproxy ", env!("CARGO_PKG_VERSION")))
        .manual("rtpproxy manual");
    let mut text = Vec::new();
    let mut render = || -> io::Result<()> {
        page.render_title(&mut text)?;
        page.render_name_section(&mut text)?;
        page.render_synopsis_section(&mut text)?;
        page.render_description_section(&mut text)?;
        page.render_options_section(&mut text)?;
        if command.has_subcommands() {
            page.render_subcommands_section(&mut text)?;
            process_sections().to_writer(&mut text)?;
        }
        last_sections(command).to_writer(&mut text)
    };
    render().expect("memory takes everything");
    text
}

/// What the table of options does not tell about the daemon.
fn process_sections() -> Roff {
    let mut roff = Roff::new();
    for (heading, entries) in [("SIGNALS", SIGNALS), ("EXIT STATUS", EXIT_STATUS), ("FILES", FILES)] {
        roff.control("SH", [heading]);
        for (term, meaning) in entries {
            roff.control("TP", []).text([bold(*term)]).text([roman(*meaning)]);
        }
    }
    roff
}

fn last_sections(command: &Command) -> Roff {
    let mut roff = Roff::new();
    let notes = command.get_after_long_help().or_else(|| command.get_after_help());
    if let Some(notes) = notes {
        roff.control("SH", ["NOTES"]);
        for line in notes.to_string().lines() {
            if line.is_empty() {
                roff.control("PP", []);
            } else {
                roff.text([roman(line)]);
            }
        }
    }
    let pages: Vec<_> = documented(&root())
        .iter()
        .map(|other| format!("{}(1)", title(other)))
        .filter(|page| *page != format!("{}(1)", title(command)))
        .collect();
    roff.control("SH", ["SEE ALSO"]).text([roman(pages.join(", "))]);
    roff
}

const SIGNALS: &[(&str, &str)] = &[
    ("HUP", "Slow shutdown: new sessions are refused, the process ends with the last one."),
    (
        "TERM, INT, USR1, USR2, XCPU, XFSZ, VTALRM, PROF",
        "Ends at once; recordings are completed first. A second signal does not wait for them.",
    ),
];

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "It ended as it was told to; in the background: the daemon runs."),
    ("1", "It could not start; the reason is on standard error."),
    ("128 + N", "Signal N came while it was ending."),
];

const FILES: &[(&str, &str)] = &[
    ("/var/run/rtpproxy.sock", "The control socket, unless -s says otherwise."),
    ("/var/run/rtpproxy.pid", "The process id, unless -p says otherwise."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_all_its_options() {
        let commands = documented(&root());
        for expected in ["rtpproxy", "rtpproxy-demo", "makeann"] {
            assert!(commands.iter().any(|command| title(command) == expected), "{expected}");
        }
        for command in &commands {
            let text = String::from_utf8(page(command)).unwrap().replace("\\-", "-");
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let name = match (arg.get_long(), arg.get_short()) {
                    (Some(long), _) => format!("\\fB--{long}\\fR"),
                    (None, Some(short)) => format!("\\fB-{short}\\fR"),
                    (None, None) => continue,
                };
                assert!(text.contains(&name), "{name} in the page of {}", title(command));
            }
        }
    }
}
