//! Log lines as the C program writes them, from the events of [`tracing`].
//!
//! ```text
//! LEVEL:CALLID:function:line: text
//! ```
//! `CALLID` is the event's field `call_id`, or `GLOBAL`; `function` is the last part of the event's module;
//! a field `error` ends the text, other fields stand behind it as `name=value`. A field `crit` raises an error
//! to the level CRIT, which [`tracing`] does not have.
//!
//! Lines are written by a thread of their own: a log that cannot be written never holds up a worker.

mod clock;
mod level;
mod sink;
mod syslog;

use std::fmt::{self, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

pub(crate) use clock::LineClock;
pub(crate) use level::{Facility, Level};
pub(crate) use sink::{Flush, Targets};
pub(crate) use syslog::Syslog;

/// Starts the log for the whole process. Keep the value: dropping it waits until the lines are written.
///
/// # Errors
/// The process logs already, or the writing thread cannot start.
pub(crate) fn start(level: Level, clock: Option<LineClock>, targets: Targets) -> Result<Flush, String> {
    let sink =
        Arc::new(sink::Sink::start(targets).map_err(|error| format!("cannot start the log: {error}"))?);
    let layer = LineLayer { level, clock, sink: sink.clone() };
    tracing::subscriber::set_global_default(Registry::default().with(layer))
        .map_err(|_| "this process has a log already".to_owned())?;
    Ok(Flush(sink))
}

struct LineLayer {
    level: Level,
    clock: Option<LineClock>,
    sink: Arc<sink::Sink>,
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with("rtpproxy") && *metadata.level() <= self.level.least()
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.level.least().into())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let level = if parts.crit { Level::Crit } else { Level::of(event.metadata().level()) };
        if level < self.level {
            return;
        }
        let text = line(level, event.metadata(), &parts);
        let prefix = self.clock.map(LineClock::prefix).unwrap_or_default();
        self.sink.write(level, &prefix, &text);
    }
}

/// Puts a line together, without the line feed. What would break the line or the terminal is escaped.
fn line(level: Level, metadata: &Metadata<'_>, parts: &Parts) -> String {
    let module = metadata.module_path().unwrap_or(metadata.target());
    let function = module.rsplit("::").next().unwrap_or(module);
    let number = metadata.line().unwrap_or(0);
    let call_id = parts.call_id.as_deref().unwrap_or("GLOBAL");
    let raw = format!(
        "{}:{call_id}:{function}:{number}: {}{}{}",
        level.name(),
        parts.text,
        parts.fields,
        parts.error
    );
    let mut text = String::with_capacity(raw.len());
    for symbol in without_number(&raw).chars() {
        if symbol.is_control() {
            text.extend(symbol.escape_default());
        } else {
            text.push(symbol);
        }
    }
    text
}

/// A line that ends with an error of the system, without the number of the error: strerror(3) has none.
pub(crate) fn without_number(line: &str) -> &str {
    let is_number = |text: &str| text.strip_suffix(')').is_some_and(|code| code.parse::<i32>().is_ok());
    line.rsplit_once(" (os error ").filter(|(_, tail)| is_number(tail)).map_or(line, |(head, _)| head)
}

/// The fields of an event, sorted by what they mean for the line.
#[derive(Default)]
struct Parts {
    call_id: Option<String>,
    text: String,
    fields: String,
    error: String,
    crit: bool,
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            "call_id" => {
                self.call_id = Some(format!("{value:?}"));
                Ok(())
            }
            "error" => write!(self.error, ": {value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        written.expect("a string takes everything");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "crit" {
            self.crit = value;
        } else {
            self.record_debug(field, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Lines(Mutex<Vec<String>>);

    impl<S: Subscriber> Layer<S> for &'static Lines {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut parts = Parts::default();
            event.record(&mut parts);
            let level = if parts.crit { Level::Crit } else { Level::of(event.metadata().level()) };
            self.0.lock().unwrap().push(line(level, event.metadata(), &parts));
        }
    }

    fn lines_of(body: impl FnOnce()) -> Vec<String> {
        let lines: &'static Lines = Box::leak(Box::new(Lines(Mutex::default())));
        tracing::subscriber::with_default(Registry::default().with(lines), body);
        lines.0.lock().unwrap().clone()
    }

    #[test]
    fn a_line_names_level_call_function_and_line() {
        let lines = lines_of(|| tracing::info!(call_id = "c1", "session on ports {}/{} is cleaned up", 1, 2));
        let number = line!() - 1;
        assert_eq!(lines, [format!("INFO:c1:tests:{number}: session on ports 1/2 is cleaned up")]);
    }

    #[test]
    fn fields_stand_behind_the_text_and_the_error_last() {
        let error = std::io::Error::from_raw_os_error(libc::ENOENT);
        let lines = lines_of(|| {
            tracing::warn!(%error, path = "/x", "cannot open the pid file");
            tracing::error!(crit = true, "the worker is gone");
            tracing::debug!("plain");
            tracing::debug!("it said {error}, twice");
        });
        assert!(lines[0].starts_with("WARN:GLOBAL:tests:"), "{lines:?}");
        assert!(lines[0].ends_with(": cannot open the pid file path=/x: No such file or directory"));
        assert!(lines[3].ends_with(": it said No such file or directory (os error 2), twice"));
        assert!(lines[1].starts_with("CRIT:GLOBAL:"));
        assert!(lines[2].starts_with("DBUG:GLOBAL:"));
    }

    #[test]
    fn bytes_of_a_peer_cannot_forge_a_line() {
        let lines = lines_of(|| tracing::info!(call_id = "a\x1b[2J", "one\ntwo"));
        assert!(lines[0].contains(r"a\u{1b}[2J"), "{lines:?}");
        assert!(lines[0].ends_with(r"one\ntwo"));
    }
}
