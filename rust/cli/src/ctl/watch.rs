//! A command again and again.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use chrono::Local;
use rtpproxy_core::command::{AnyRules, Command, StatValue, parse};
use rustix::termios::tcgetwinsize;

use super::dialog::{Dialog, Exchange, RECORDINGS};
use super::fault::Fault;
use super::show::{self, Figures, Form};

/// Gives `command` each `interval`, until it is refused or not answered. For people the screen is drawn anew each
/// time, with how fast counters grow.
pub(super) fn watch(
    dialog: &mut Dialog,
    command: &[u8],
    form: Form,
    interval: Duration,
) -> Result<bool, Fault> {
    if !changes_nothing(command) {
        let command = String::from_utf8_lossy(command);
        return Err(Fault::Input(format!(
            "--watch repeats I, G, recordings, and Q without sub-commands, not {command:?}"
        )));
    }
    let mut before: Option<(Instant, Vec<StatValue>)> = None;
    loop {
        let started = Instant::now();
        let exchange = dialog.ask(command, form)?;
        if !exchange.is_done() {
            show::print(&exchange, form)?;
            return Ok(false);
        }
        let figures = exchange.reply.as_ref().and_then(Figures::of);
        match figures.filter(|_| form == Form::Readable) {
            Some(figures) => {
                let since = before.as_ref().map(|(then, values)| (started - *then, &values[..]));
                draw(&headline(dialog, &exchange, interval), &figures, since)?;
                before = Some((started, figures.values()));
            }
            None => show::print(&exchange, form)?,
        }
        thread::sleep(interval.saturating_sub(started.elapsed()));
    }
}

fn changes_nothing(command: &[u8]) -> bool {
    if command.trim_ascii() == RECORDINGS {
        return true;
    }
    match parse(command, &mut AnyRules) {
        Ok(Command::Info { .. } | Command::Counters { .. }) => true,
        Ok(Command::Query { subs, .. }) => subs.is_empty(),
        _ => false,
    }
}

fn headline(dialog: &Dialog, exchange: &Exchange, interval: Duration) -> String {
    format!(
        "{}  {}  every {} s, Ctrl-C ends  {}",
        dialog.socket(),
        String::from_utf8_lossy(&exchange.command),
        interval.as_secs_f64(),
        Local::now().format("%H:%M:%S")
    )
}

fn draw(headline: &str, figures: &Figures<'_>, since: Option<(Duration, &[StatValue])>) -> io::Result<()> {
    let rates = match since {
        Some((elapsed, before)) => figures.rates(before, elapsed.as_secs_f64()),
        None => figures.rates(&[], 1.0),
    };
    let screen = fitting(&format!("{headline}\n{}", figures.table(Some(&rates))), screen_lines());
    let mut output = io::stdout().lock();
    write!(output, "{CLEAR}{screen}")?;
    output.flush()
}

/// The lines of the terminal; `None` if it does not say.
fn screen_lines() -> Option<usize> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    Some(size.ws_row.into()).filter(|lines| *lines > 2)
}

/// `text` with as many of its lines as fit, and how many do not: more would scroll the others away.
fn fitting(text: &str, lines: Option<usize>) -> String {
    let all = text.lines().count();
    match lines {
        // The last line is the cursor's.
        Some(lines) if all >= lines => {
            let shown = lines - 2;
            let mut kept: String = text.lines().take(shown).map(|line| format!("{line}\n")).collect();
            kept +=
                &format!("[{} more lines: they need a taller terminal, or a choice of names]\n", all - shown);
            kept
        }
        _ => format!("{text}\n"),
    }
}

/// Clears the terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        assert_eq!(fitting("a\nb\nc", None), "a\nb\nc\n");
        assert_eq!(fitting("a\nb\nc", Some(4)), "a\nb\nc\n");
        let cut = fitting("a\nb\nc", Some(3));
        assert!(cut.starts_with("a\n[2 more lines") && cut.lines().count() == 2, "{cut}");
    }

    #[test]
    fn only_what_changes_nothing_is_repeated() {
        for command in ["I", "Il", "G", "Gv pps_in", "Q c f t"] {
            assert!(changes_nothing(command.as_bytes()), "{command}");
        }
        for command in ["X", "U c 0 0 f", "Q c f t && D", "V", "nonsense", ""] {
            assert!(!changes_nothing(command.as_bytes()), "{command}");
        }
    }
}
