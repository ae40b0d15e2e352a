//! `rtpproxy ctl`: gives commands to a running relay and shows its replies.
//!
//! `Dialog` asks; `show` turns a reply into bytes, a table or JSON; commands come from the command line, from
//! `lines`, from `prompt`, or one again and again from `watch`. `fault` says what went wrong, and `guide` knows
//! the protocol in words.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

mod dialog;
mod fault;
mod guide;
mod lines;
mod prompt;
mod show;
mod watch;

use dialog::Dialog;
use fault::{Fault, STATUS_REFUSED};
use show::Form;

/// Gives commands to a running relay: one, a file of them, or at a prompt.
#[derive(Debug, Parser)]
#[command(
    name = "rtpproxy ctl",
    bin_name = "rtpproxy ctl",
    max_term_width = 110,
    override_usage = "rtpproxy ctl [OPTIONS] COMMAND [WORD]...\n       \
                      rtpproxy ctl [OPTIONS] -i FILE\n       \
                      rtpproxy ctl [OPTIONS]",
    after_help = AFTER_HELP
)]
pub(crate) struct Ctl {
    /// Control socket of the relay, as its own -s: a PATH or unix:PATH, cunix:PATH, udp:HOST[:PORT], udp6:, tcp:,
    /// tcp6: [default: the first of RTPPROXY_CONTROL, or unix:/var/run/rtpproxy.sock]
    #[arg(short, long, value_name = "SOCKET")]
    socket: Option<String>,
    /// How long a reply may take
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    timeout: Duration,
    /// Reads commands from FILE (-: standard input), one a line; blank lines and lines that begin with # are
    /// passed over
    #[arg(short, long, value_name = "FILE", conflicts_with = "command")]
    input: Option<PathBuf>,
    /// Replies as they came, also on a terminal
    #[arg(long)]
    raw: bool,
    /// A line of JSON for each reply
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// Gives I, G or Q again and again until Ctrl-C, and shows what changes
    #[arg(long, value_name = "SECONDS", requires = "command", conflicts_with = "input", value_parser = seconds)]
    watch: Option<Duration>,
    /// A command and its words, or all in one; without one a prompt, or the lines of standard input
    #[arg(value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Ctl {
    /// Does what the command line says and gives back the exit status.
    pub(crate) fn run(&self) -> i32 {
        match self.work() {
            Ok(true) => 0,
            Ok(false) => STATUS_REFUSED,
            Err(fault) => {
                if !fault.is_silent() {
                    crate::complain(&format!("ctl: {fault}"));
                }
                fault.status()
            }
        }
    }

    /// False if a command was refused.
    fn work(&self) -> Result<bool, Fault> {
        if let Some(topic) = self.help_topic() {
            io::stdout().write_all(guide::help(&topic).as_bytes())?;
            return Ok(true);
        }
        let mut dialog = Dialog::connect(&self.socket(), self.timeout)?;
        let form = self.form();
        if let Some(interval) = self.watch {
            return watch::watch(&mut dialog, &self.command(), form, interval);
        }
        if !self.command.is_empty() {
            let exchange = dialog.ask(&self.command(), form)?;
            show::print(&exchange, form)?;
            return Ok(exchange.is_done());
        }
        match &self.input {
            Some(path) if path.as_os_str() != "-" => lines::file(path, &mut dialog, form),
            None if io::stdin().is_terminal() => prompt::prompt(&mut dialog, form),
            _ => lines::read(io::stdin().lock(), "standard input", &mut dialog, form),
        }
    }

    /// What `help` is asked about, in place of a command: that needs no relay.
    fn help_topic(&self) -> Option<String> {
        match &self.command[..] {
            [help] if help == "help" => Some(String::new()),
            [help, topic] if help == "help" => Some(topic.to_string_lossy().into_owned()),
            _ => None,
        }
    }

    fn socket(&self) -> String {
        let from_environment = || {
            let listed = env::var(SOCKET_VARIABLE).ok()?;
            // The relay may have several.
            let first =
                listed.split(|c: char| c == ',' || c.is_ascii_whitespace()).find(|spec| !spec.is_empty())?;
            Some(first.to_owned())
        };
        self.socket.clone().or_else(from_environment).unwrap_or_else(|| SOCKET_DEFAULT.to_owned())
    }

    fn form(&self) -> Form {
        match (self.raw, self.json) {
            (_, true) => Form::Json,
            (false, false) if io::stdout().is_terminal() => Form::Readable,
            _ => Form::Raw,
        }
    }

    fn command(&self) -> Vec<u8> {
        let words: Vec<&[u8]> = self.command.iter().map(|word| word.as_bytes()).collect();
        words.join(&b' ')
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (SECONDS_MIN..=SECONDS_MAX).contains(seconds));
    let seconds = seconds.ok_or_else(|| format!("not a number from {SECONDS_MIN} to {SECONDS_MAX}"))?;
    Ok(Duration::from_secs_f64(seconds))
}

const SOCKET_VARIABLE: &str = "RTPPROXY_CONTROL";
const SOCKET_DEFAULT: &str = "unix:/var/run/rtpproxy.sock";
const SECONDS_MIN: f64 = 0.01;
const SECONDS_MAX: f64 = 86_400.0;
const AFTER_HELP: &str = "\
Replies are shown readably on a terminal, and as they came elsewhere. `rtpproxy ctl help`, also at the prompt, \
explains the commands.

Exit status:
  0  every command was done
  1  a command was refused (E and a number, 0 to L, -1 of a sub-command);
     bad options, an unreadable file, or no place to write to
  2  no connection, no reply, or something that is no reply
  3  no reply in time

Examples:
  rtpproxy ctl I
  rtpproxy ctl -s udp:127.0.0.1:22222 Q call-1 from-a to-b
  rtpproxy ctl --json G nsess_created npkts_relayed | jq .result
  rtpproxy ctl --watch 2 G
  rtpproxy ctl recordings";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_bounds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "x", "", "1e9", "nan", "inf"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_and_lines_are_the_same_command() {
        for words in [&["rtpproxy ctl", "Qv c f t"][..], &["rtpproxy ctl", "--raw", "Qv", "c", "f", "t"]] {
            assert_eq!(Ctl::try_parse_from(words).unwrap().command(), b"Qv c f t");
        }
    }

    #[test]
    fn options_that_exclude_each_other_are_refused() {
        for words in ["-i x I", "--raw --json I", "--watch 1", "--watch 1 -i x", "--timeout 0 I"] {
            let words = ["ctl"].into_iter().chain(words.split(' '));
            assert!(Ctl::try_parse_from(words.clone()).is_err(), "{words:?}");
        }
    }
}
