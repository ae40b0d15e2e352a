//! `--check`: what would be in force, and where each setting comes from. Nothing is started or opened.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::thread;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Attribute, Cell, ContentArrangement, Table};
use rtpproxy_core::config::{LatchMode, RecordScope};
use rtpproxy_relay::config::{Module, RecordFormat, RecordLayout};
use rtpproxy_relay::modules::Modules;

use crate::daemon::guard_root;
use crate::flags::{Fallback, Flags, Form, GROUPS, Given, Opt, Origin, PREROLL_MEMORY_DEFAULT, Reach, Value};
use crate::modules;
use crate::settings::{Note, Settings};
use crate::{complain, say};

/// Prints the settings in force: a table on a terminal, else text that is a settings file itself.
///
/// # Errors
/// The first thing that would hinder the start.
pub(crate) fn run(flags: Flags) -> Result<i32, String> {
    let given = flags.given.clone();
    let settings = Settings::new(flags)?;
    Modules::look_up(&settings.relay.modules, settings.relay.resolve_names)
        .map_err(|error| error.to_string())?;
    let warning = guard_root(&settings.process, &settings.control)?;
    let groups = groups(&given, &settings);
    if io::stdout().is_terminal() {
        say(&format!("{}\n", table(&groups)));
    } else {
        say(&plain(&groups));
    }
    for note in &settings.notes {
        match note {
            Note::Info(text) => complain(&format!("note: {text}")),
            Note::Warn(text) => complain(&format!("warning: {text}")),
        }
    }
    if let Some(warning) = warning {
        complain(&warning);
    }
    Ok(0)
}

/// A heading and its settings.
type Group = (&'static str, Vec<Row>);

/// One setting.
struct Row {
    key: &'static str,
    /// Whether a settings file may have it.
    settable: bool,
    /// What is in force; `None` if that is nothing.
    value: Option<toml::Value>,
    from: String,
}

fn groups(given: &Given, settings: &Settings) -> Vec<Group> {
    let groups = GROUPS.iter().map(|(heading, options)| {
        let shown = options.iter().filter(|option| option.reach > Reach::Line);
        let rows = shown.map(|option| row(option, given, settings));
        (*heading, rows.chain(loaded(settings).filter(|_| *heading == "Modules")).collect::<Vec<_>>())
    });
    groups.filter(|(_, rows)| !rows.is_empty()).collect()
}

/// The modules that options and the configuration file name, if there are any.
fn loaded(settings: &Settings) -> impl Iterator<Item = Row> {
    let shown = |module: &Module| match module {
        Module::AcctRtcpHep(config) => format!("acct_rtcp_hep to {config} as {}", config.capture_id),
        Module::AcctCsv(_) | Module::CatchDtmf => modules::name(module.kind()).into(),
    };
    let shown: Vec<_> = settings.relay.modules.iter().map(shown).collect();
    let row = Row {
        key: "modules in force",
        settable: false,
        value: Some(shown.into()),
        from: "because of config, dso".into(),
    };
    (!settings.relay.modules.is_empty()).then_some(row).into_iter()
}

fn row(option: &Opt, given: &Given, settings: &Settings) -> Row {
    let (key, settable) = (option.key, option.reach == Reach::File);
    if let Some((value, origin)) = given.get(option.key) {
        let from = match origin {
            Origin::Line(option) => format!("command line: {option}"),
            Origin::Variable(name) => format!("environment: {name}"),
            Origin::File(path, line, _) => format!("{}:{line}", path.display()),
        };
        return Row { key, settable, value: Some(typed(option.form, value)), from };
    }
    let (value, from) = match option.default {
        Fallback::Value(text) => (Some(typed(option.form, &Value::Texts(vec![text.into()]))), "default"),
        Fallback::Words(_) => worked_out(option.key, given, settings),
        Fallback::None if matches!(option.form, Form::Switch | Form::LooseSwitch(_)) => {
            (Some(false.into()), "default")
        }
        Fallback::None => (None, "default"),
    };
    Row { key, settable, value, from: from.into() }
}

/// What holds for an option whose default depends on others, and what decided that.
fn worked_out(key: &str, given: &Given, settings: &Settings) -> (Option<toml::Value>, &'static str) {
    let relay = &settings.relay;
    match key {
        "listen" if given.get("listen6").is_some() => (None, "default"),
        "listen" => (Some(vec!["*"].into()), "default"),
        "latch" => match relay.engine.latch {
            LatchMode::Strict => (Some("strict".into()), "default"),
            LatchMode::Nat => (Some("nat".into()), "default"),
            LatchMode::Legacy => (Some("legacy".into()), "because of compat"),
        },
        "workers" => {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            (i64::try_from(cores).ok().map(Into::into), "default")
        }
        "setup_ttl" => {
            let from = if given.get("ttl").is_some() { "because of ttl" } else { "default" };
            (Some(i64::from(relay.engine.setup_ttl_s).into()), from)
        }
        "record_format" => match relay.record.format {
            RecordFormat::Pcapng => (Some("pcapng".into()), "default"),
            RecordFormat::Pcap => (Some("pcap".into()), "because of pcap"),
            RecordFormat::Adhoc => (Some("adhoc".into()), "because of compat"),
        },
        "record_scope" => match relay.engine.record_scope {
            RecordScope::Call => (Some("call".into()), "default"),
            RecordScope::Stream if relay.record.compat => (Some("stream".into()), "because of compat"),
            RecordScope::Stream => (Some("stream".into()), "because of record_format"),
        },
        "preroll_memory" if relay.record.preroll.is_some() => {
            (Some(PREROLL_MEMORY_DEFAULT.into()), "because of preroll")
        }
        "record_segment" if relay.record.layout == RecordLayout::Journal => {
            (Some("60s".into()), "because of record_layout")
        }
        "preroll_memory" | "record_segment" => (None, "default"),
        _ => unreachable!("every default that depends on others is named here: {key}"),
    }
}

/// The value as a settings file has it.
fn typed(form: Form, value: &Value) -> toml::Value {
    let text = |text: &OsString| text.to_string_lossy().into_owned();
    let texts = match value {
        Value::Switch(on) => return (*on).into(),
        Value::Texts(texts) => texts,
    };
    let last = texts.last().map(text).unwrap_or_default();
    match form {
        Form::Texts(_) => texts.iter().map(text).collect::<Vec<_>>().into(),
        Form::Number(_) => last.trim().parse::<i64>().map_or(last.into(), Into::into),
        _ => last.into(),
    }
}

fn plain(groups: &[Group]) -> String {
    let mut lines = Vec::new();
    for (heading, rows) in groups {
        lines.push(format!("# {heading}"));
        for Row { key, settable, value, from } in rows {
            lines.push(match value {
                Some(value) if *settable => format!("{:WIDTH$}  # {from}", format!("{key} = {value}")),
                Some(value) => format!("# {key} = {value}  # {from}"),
                None => format!("# {key} is not set"),
            });
        }
        lines.push(String::new());
    }
    lines.join("\n")
}

fn table(groups: &[Group]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["setting", "value", "from"]);
    for (heading, rows) in groups {
        table.add_row([Cell::new(heading).add_attribute(Attribute::Bold)]);
        for Row { key, value, from, .. } in rows {
            let shown = value.as_ref().map_or("-".into(), shown);
            table.add_row([Cell::new(format!("  {key}")), Cell::new(shown), Cell::new(from)]);
        }
    }
    table
}

fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Boolean(on) => if *on { "on" } else { "off" }.into(),
        toml::Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join("\n"),
        other => other.to_string(),
    }
}

/// Columns of a plain line before its origin.
const WIDTH: usize = 40;
