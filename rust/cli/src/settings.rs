//! [`Flags`] to [`Settings`]: ready values for the relay and for the process around it.

use std::ffi::OsString;
use std::path::PathBuf;

use rtpproxy_core::config::{EngineConfig, FrontConfig, LatchMode, RecordScope};
use rtpproxy_relay::config::{
    Config, ControlSpec, Module, PrerollConfig, Recipients, RecordConfig, RecordEvents, RecordFormat,
    RecordLayout, Scheduling, metrics_address,
};

use crate::config_file;
use crate::flags::{self, Flags, Request};
use crate::identity::Identity;
use crate::listen::{Listen, listen};
use crate::logging::{Facility, Level};
use crate::notify;

/// Everything the daemon needs to know.
#[derive(Debug)]
pub(crate) struct Settings {
    /// For the relay.
    pub(crate) relay: Config,
    /// The control sockets.
    pub(crate) control: Vec<ControlSpec>,
    /// For the process.
    pub(crate) process: ProcessSettings,
    /// What the operator should know, for the log once it runs.
    pub(crate) notes: Vec<Note>,
}

/// How the process is set up.
#[derive(Debug)]
pub(crate) struct ProcessSettings {
    /// Stay in the foreground.
    pub(crate) foreground: bool,
    /// Running as root needs no warning.
    pub(crate) allow_root: bool,
    /// Change to `/` in the background.
    pub(crate) chdir: bool,
    /// Give up standard output and error in the background.
    pub(crate) redirect: bool,
    /// Where the process id is written.
    pub(crate) pid_file: PathBuf,
    /// Who to run as.
    pub(crate) identity: Option<Identity>,
    /// Mode of UNIX control sockets if a group was named; 0 leaves it.
    pub(crate) socket_mode: u32,
    /// The least level to log.
    pub(crate) log_level: Level,
    /// The facility for the system's log.
    pub(crate) log_facility: Facility,
    /// The limit of open files.
    pub(crate) open_files: Option<u64>,
    /// The nice level.
    pub(crate) nice: Option<i32>,
    /// Real-time scheduling.
    pub(crate) scheduling: Option<Scheduling>,
}

/// A line for the log at start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// Worth knowing.
    Info(String),
    /// Probably not what was meant.
    Warn(String),
}

impl Settings {
    /// Works out what `flags` mean together.
    pub(crate) fn new(flags: Flags) -> Result<Self, String> {
        let compat = flags.compat;
        let (port_min, port_max) = ports(&flags)?;
        let names = !flags.no_resolve;
        let listen = listen(&flags.listen, flags.advertise.as_ref(), names)?;
        let record = record(&flags, compat)?;
        let control = control(&flags, names)?;
        let modules = modules(&flags)?;
        let metrics = flags.metrics.as_deref().map(|text| metrics_address(text, names)).transpose()?;
        let notes = notes(&flags, compat, &listen);
        let front = FrontConfig {
            listen: listen.addrs,
            external: listen.external,
            notify: notify::targets(&flags.notify, names)?,
            modules: Vec::new(),
            one_copy: compat,
        };
        let relay = Config {
            engine: engine(&flags, compat, front.external.is_some(), record.format)?,
            front,
            workers: flags.workers,
            port_min,
            port_max,
            sequential_ports: flags.sequential,
            tos: flags.tos.unwrap_or(Config::default().tos),
            resolve_names: names,
            record,
            scheduling: flags.schedule,
            modules,
            metrics,
        };
        Ok(Self { relay, control, process: process(flags), notes })
    }
}

/// What options of the command line mean for a relay in another program: its configuration, and the control
/// sockets that are named. The environment has no say.
///
/// # Errors
///
/// The message for whoever chose the options.
pub fn relay_settings(
    options: impl IntoIterator<Item = OsString>,
) -> Result<(Config, Vec<ControlSpec>), String> {
    match flags::parse(options, []).map_err(|error| error.to_string())? {
        Request::Run(flags) => {
            let named = !flags.control.is_empty();
            let settings = Settings::new(*flags)?;
            Ok((settings.relay, if named { settings.control } else { Vec::new() }))
        }
        Request::Check(_) | Request::Help | Request::Print(_) => {
            Err("not an option of a relay in another program".into())
        }
    }
}

fn ports(flags: &Flags) -> Result<(u16, u16), String> {
    let min = u32::from(flags.port_min.unwrap_or(PORT_MIN)).next_multiple_of(2);
    // The RTCP port above the highest RTP port must be in the range too.
    let max = (u32::from(flags.port_max.unwrap_or(PORT_MAX)) - 1) / 2 * 2;
    match (u16::try_from(min), u16::try_from(max)) {
        (Ok(min), Ok(max)) if min <= max => Ok((min, max)),
        _ => Err("port_min should be less than port_max".into()),
    }
}

fn record(flags: &Flags, compat: bool) -> Result<RecordConfig, String> {
    if flags.spool_dir.is_some() && flags.record_dir.is_none() {
        return Err("-S switch requires -r switch".into());
    }
    check_record_options(flags, compat)?;
    let format = match (flags.record_format, flags.pcap) {
        (Some(RecordFormat::Pcap) | None, true) => RecordFormat::Pcap,
        (Some(_), true) => return Err("-P contradicts --record-format".into()),
        (Some(format), false) => format,
        (None, false) if compat => RecordFormat::Adhoc,
        (None, false) => RecordFormat::Pcapng,
    };
    if flags.record_ns && format == RecordFormat::Adhoc {
        return Err("--record-ns is of no use with the adhoc format".into());
    }
    let layout = layout(flags, compat, format)?;
    let preroll = preroll(flags)?;
    let defaults = RecordConfig::default();
    Ok(RecordConfig {
        folder: flags.record_dir.clone(),
        spool: flags.spool_dir.clone(),
        fallback: flags.record_fallback.clone(),
        min_free: flags.record_min_free,
        name: flags.record_name.clone(),
        format,
        compress: flags.record_compress,
        layout,
        segment: flags.record_segment.unwrap_or(defaults.segment),
        nanoseconds: flags.record_ns,
        compat,
        preroll,
        buffer_bytes: flags.record_buffer.unwrap_or(defaults.buffer_bytes),
        sip_head: format == RecordFormat::Pcapng,
        codec_map: flags.codec_map.clone(),
        rotate_bytes: flags.record_rotate_size,
        rotate_time: flags.record_rotate_time,
        flush: flags.record_flush.unwrap_or(defaults.flush),
        max_age: flags.record_max_age,
        quota_bytes: flags.record_quota,
        events: flags.record_events.clone(),
        encrypt: Recipients::parse(&flags.record_encrypt)?,
    })
}

/// Refuses options of recordings that make no sense without a folder, or with `--compat`.
fn check_record_options(flags: &Flags, compat: bool) -> Result<(), String> {
    let one_file = Some(": the C program has one file for a recording");
    let no_sidecars = Some(": without sidecars, recordings cannot be told from other files");
    for (option, is_given, not_with_compat) in [
        ("--record-fallback", flags.record_fallback.is_some(), None),
        ("--record-min-free", flags.record_min_free.is_some(), None),
        ("--record-events", !flags.record_events.is_empty(), None),
        ("--preroll", flags.preroll.is_some(), None),
        ("--record-name", flags.record_name.is_some(), Some(", which has the C program's file names")),
        ("--record-compress", flags.record_compress.is_some(), Some(", which has the C program's files")),
        ("--record-encrypt", !flags.record_encrypt.is_empty(), Some(", which has the C program's files")),
        ("--record-rotate-size", flags.record_rotate_size.is_some(), one_file),
        ("--record-rotate-time", flags.record_rotate_time.is_some(), one_file),
        ("--record-layout journal", flags.record_layout == Some(RecordLayout::Journal), None),
        ("--record-max-age", flags.record_max_age.is_some(), no_sidecars),
        ("--record-quota", flags.record_quota.is_some(), no_sidecars),
    ] {
        match not_with_compat {
            Some(reason) if is_given && compat => {
                return Err(format!("{option} is not possible with --compat{reason}"));
            }
            _ if is_given && flags.record_dir.is_none() => {
                return Err(format!("{option} requires -r switch"));
            }
            _ => {}
        }
    }
    if compat && flags.record_events.iter().any(|target| matches!(target, RecordEvents::Exec(_))) {
        return Err("--record-events exec: needs sidecars, which --compat does not write".into());
    }
    Ok(())
}

fn layout(flags: &Flags, compat: bool, format: RecordFormat) -> Result<RecordLayout, String> {
    let layout = flags.record_layout.unwrap_or_default();
    if layout == RecordLayout::Call {
        return match flags.record_segment {
            Some(_) => Err("--record-segment is of no use without --record-layout journal".into()),
            None => Ok(layout),
        };
    }
    let runs_programs = flags.record_events.iter().any(|target| matches!(target, RecordEvents::Exec(_)));
    let conflicts = [
        (compat, "--compat, which has the C program's files"),
        (format != RecordFormat::Pcapng, "a format other than pcapng"),
        (flags.record_name.is_some(), "--record-name: its files are called journal-TIME"),
        (
            flags.record_rotate_size.is_some(),
            "--record-rotate-size: --record-segment says how long a file is",
        ),
        (
            flags.record_rotate_time.is_some(),
            "--record-rotate-time: --record-segment says how long a file is",
        ),
        (runs_programs, "--record-events exec: it writes no sidecar for each recording"),
    ];
    match conflicts.into_iter().find(|(is_given, _)| *is_given) {
        Some((_, what)) => Err(format!("--record-layout journal is not possible with {what}")),
        None => Ok(layout),
    }
}

fn preroll(flags: &Flags) -> Result<Option<PrerollConfig>, String> {
    let Some(span) = flags.preroll else {
        return match flags.preroll_memory {
            Some(_) => Err("--preroll-memory is of no use without --preroll".into()),
            None => Ok(None),
        };
    };
    let memory_bytes = flags.preroll_memory.unwrap_or(PrerollConfig::MEMORY_DEFAULT);
    Ok(Some(PrerollConfig { span, memory_bytes }))
}

fn engine(flags: &Flags, compat: bool, bridged: bool, format: RecordFormat) -> Result<EngineConfig, String> {
    let adhoc = format == RecordFormat::Adhoc;
    let record_scope = match flags.record_scope {
        Some(RecordScope::Call) if adhoc => {
            return Err("--record-scope call is not possible with the adhoc format".into());
        }
        Some(scope) => scope,
        None if adhoc || compat => RecordScope::Stream,
        None => RecordScope::Call,
    };
    let latch = flags.latch.unwrap_or(if compat { LatchMode::Legacy } else { LatchMode::default() });
    let defaults = EngineConfig::default();
    let max_ttl_s = flags.ttl.unwrap_or(defaults.max_ttl_s);
    Ok(EngineConfig {
        max_ttl_s,
        setup_ttl_s: flags.setup_ttl.unwrap_or(max_ttl_s),
        independent_timers: flags.independent,
        latch,
        asymmetric: flags.force_asymmetric || (bridged && !flags.bridge_symmetric),
        double_send: flags.double,
        record_all: flags.record_all,
        record_scope,
        record_rtcp: !flags.no_rtcp,
        single_file: format == RecordFormat::Pcap,
        one_copy: compat,
        ..defaults
    })
}

/// The modules of `--dso`, then those of the configuration file.
fn modules(flags: &Flags) -> Result<Vec<Module>, String> {
    let mut modules = flags.dso.clone();
    if let Some(path) = &flags.config {
        modules.extend(config_file::modules(path)?);
    }
    Ok(modules)
}

fn control(flags: &Flags, names: bool) -> Result<Vec<ControlSpec>, String> {
    if flags.control.is_empty() {
        return Ok(vec![ControlSpec::Unix(CONTROL_DEFAULT.into())]);
    }
    let specs =
        flags.control.iter().map(|text| ControlSpec::parse(text, names)).collect::<Result<Vec<_>, _>>()?;
    if !flags.foreground && specs.iter().any(|spec| matches!(spec, ControlSpec::Stdio { .. })) {
        return Err("stdio command mode requires -f switch".into());
    }
    Ok(specs)
}

fn notes(flags: &Flags, compat: bool, listen: &Listen) -> Vec<Note> {
    let mut notes: Vec<_> = flags.unknown_variables.iter().cloned().map(Note::Warn).collect();
    if listen.advertise_unused {
        notes.push(Note::Warn("-A has no effect without bridge mode; write -l ADDR=ADVERTISED".into()));
    }
    let chosen = flags
        .given
        .keys()
        .any(|key| key.starts_with("record_") && key != "record_dir" && key != "record_all");
    if flags.record_dir.is_some() && !compat && !chosen {
        let format = if flags.pcap { "pcap" } else { "pcapng" };
        notes.push(Note::Info(format!(
            "recordings differ from those of the C program: one {format} file holds both legs of a call, has \
             mode 0600 and ends in .part until it is complete; --compat restores the old defaults"
        )));
    }
    notes
}

fn process(flags: Flags) -> ProcessSettings {
    ProcessSettings {
        foreground: flags.foreground,
        allow_root: flags.allow_root,
        chdir: !flags.no_chdir,
        redirect: !flags.no_redirect,
        pid_file: flags.pid_file.unwrap_or_else(|| PID_FILE_DEFAULT.into()),
        identity: flags.identity,
        socket_mode: flags.mode.unwrap_or(SOCKET_MODE),
        log_level: flags.log_level.unwrap_or_default(),
        log_facility: flags.log_facility.unwrap_or_default(),
        open_files: flags.open_files,
        nice: flags.nice,
        scheduling: flags.schedule,
    }
}

const PORT_MIN: u16 = 35000;
const PORT_MAX: u16 = 65000;
const SOCKET_MODE: u32 = 0o755;
const CONTROL_DEFAULT: &str = "/var/run/rtpproxy.sock";
const PID_FILE_DEFAULT: &str = "/var/run/rtpproxy.pid";

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::flags::{Fallback, parse};

    fn settings(words: &str) -> Result<Settings, String> {
        let args = words.split_whitespace().map(OsString::from);
        match parse(args, []).map_err(|error| error.to_string())? {
            Request::Run(flags) => Settings::new(*flags),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_said_gives_the_defaults() {
        let settings = settings("").unwrap();
        let (relay, defaults) = (settings.relay, Config::default());
        assert_eq!(format!("{relay:?}"), format!("{defaults:?}"));
        assert_eq!(settings.control, [ControlSpec::Unix("/var/run/rtpproxy.sock".into())]);
        assert!(settings.notes.is_empty());
    }

    #[test]
    fn the_table_tells_the_defaults() {
        let said = |words: &str| {
            let Settings { relay, control, process, .. } = settings(words).unwrap();
            format!("{relay:?} {control:?} {process:?}")
        };
        let defaults = flags::GROUPS.iter().flat_map(|(_, options)| options.iter()).filter_map(|option| {
            let Fallback::Value(text) = option.default else { return None };
            Some(format!("{} {text}", option.spelling()))
        });
        let defaults: Vec<_> = defaults.collect();
        assert!(defaults.len() >= 8, "{defaults:?}");
        for words in defaults {
            assert_eq!(said(&words), said(""), "{words}");
        }
    }

    #[test]
    fn another_program_has_the_control_sockets_it_names() {
        let options = |words: &'static str| relay_settings(words.split_whitespace().map(OsString::from));
        let (relay, control) = options("-m 12000 -M 12010").unwrap();
        assert_eq!((relay.port_min, relay.port_max, control), (12000, 12008, vec![]));
        assert_eq!(options("-s cunix:/x").unwrap().1, [ControlSpec::Cunix("/x".into())]);
        assert!(options("-V").is_err());
    }

    #[test]
    fn ports_are_made_even() {
        for (words, ports) in [
            ("", (35000, 64998)),
            ("-m 12001 -M 12011", (12002, 12010)),
            ("-m 12000 -M 12012", (12000, 12010)),
            ("-m 1 -M 4", (2, 2)),
        ] {
            let relay = settings(words).unwrap().relay;
            assert_eq!((relay.port_min, relay.port_max), ports, "{words}");
        }
        for words in ["-m 12000 -M 12000", "-m 65535 -M 65535", "-M 1", "-m 40000 -M 30000"] {
            assert_eq!(settings(words).unwrap_err(), "port_min should be less than port_max", "{words}");
        }
    }

    #[test]
    fn compat_is_one_word_for_many_and_explicit_words_win() {
        let compat = settings("--compat").unwrap().relay;
        assert_eq!(compat.engine.latch, LatchMode::Legacy);
        assert_eq!(compat.engine.record_scope, RecordScope::Stream);
        assert_eq!(compat.record.format, RecordFormat::Adhoc);
        assert!(compat.record.compat && !compat.record.sip_head && !compat.engine.single_file);

        let pcap = settings("--compat -P").unwrap().relay;
        assert_eq!(pcap.record.format, RecordFormat::Pcap);
        assert_eq!(pcap.engine.record_scope, RecordScope::Stream);
        assert!(pcap.record.compat && pcap.engine.single_file);

        let mixed =
            settings("--record-format pcapng --latch=strict --record-scope call --compat").unwrap().relay;
        assert_eq!(mixed.record.format, RecordFormat::Pcapng);
        assert_eq!(mixed.engine.latch, LatchMode::Strict);
        assert_eq!(mixed.engine.record_scope, RecordScope::Call);
        assert!(mixed.record.compat);
    }

    #[test]
    fn contradictions_are_refused() {
        for (words, message) in [
            ("-S /tmp", "-S switch requires -r switch"),
            ("--record-events /tmp/x", "--record-events requires -r switch"),
            ("--record-name %Y/%{call-id}", "--record-name requires -r switch"),
            (
                "-r /tmp --compat --record-name %Y/%{call-id}",
                "--record-name is not possible with --compat, which has the C program's file names",
            ),
            (
                "-r /tmp --compat --record-events exec:true",
                "--record-events exec: needs sidecars, which --compat does not write",
            ),
            ("-r /tmp --record-events exec:", "--record-events exec:: names no program"),
            ("-r /tmp --record-events unix:", "--record-events unix:: cannot make an empty path absolute"),
            ("--metrics 127.0.0.1", "--metrics 127.0.0.1: the port is missing"),
            ("--metrics 127.0.0.1:x", "--metrics 127.0.0.1:x: 127.0.0.1:x: the port is not a number"),
            ("-s stdio:", "stdio command mode requires -f switch"),
            ("-P --record-format adhoc", "-P contradicts --record-format"),
            ("--compat --record-scope call", "--record-scope call is not possible with the adhoc format"),
            ("--record-format adhoc --record-ns", "--record-ns is of no use with the adhoc format"),
            ("--record-quota 1G", "--record-quota requires -r switch"),
            ("--record-compress zstd", "--record-compress requires -r switch"),
            (
                "-r /tmp --compat --record-compress gzip",
                "--record-compress is not possible with --compat, which has the C program's files",
            ),
            ("--record-rotate-time 1h", "--record-rotate-time requires -r switch"),
            ("--record-layout journal", "--record-layout journal requires -r switch"),
            (
                "-r /tmp --record-layout journal -P",
                "--record-layout journal is not possible with a format other than pcapng",
            ),
            (
                "-r /tmp --record-layout journal --compat --record-format pcapng",
                "--record-layout journal is not possible with --compat, which has the C program's files",
            ),
            (
                "-r /tmp --record-layout journal --record-rotate-time 5m",
                "--record-layout journal is not possible with --record-rotate-time: --record-segment says how long a \
                 file is",
            ),
            (
                "-r /tmp --record-layout journal --record-events exec:true",
                "--record-layout journal is not possible with --record-events exec: it writes no sidecar for each \
                 recording",
            ),
            (
                "-r /tmp --compat --record-rotate-size 1G",
                "--record-rotate-size is not possible with --compat: the C program has one file for a recording",
            ),
            ("--preroll 10", "--preroll requires -r switch"),
            ("-r /tmp --preroll-memory 1G", "--preroll-memory is of no use without --preroll"),
            ("-r /tmp --record-segment 10s", "--record-segment is of no use without --record-layout journal"),
            (
                "-r /tmp --record-max-age 1d --compat",
                "--record-max-age is not possible with --compat: without sidecars, recordings cannot be told from \
                 other files",
            ),
        ] {
            assert_eq!(settings(words).unwrap_err(), message, "{words}");
        }
        assert!(settings("-f -s stdio:").is_ok());
    }

    #[test]
    fn the_last_seconds_are_kept_if_that_is_said() {
        let preroll = |words| settings(words).unwrap().relay.record.preroll;
        let of =
            |seconds, memory_bytes| Some(PrerollConfig { span: Duration::from_secs(seconds), memory_bytes });
        assert_eq!(preroll("-r /tmp"), None);
        assert_eq!(preroll("-r /tmp --preroll 30"), of(30, 256 << 20));
        assert_eq!(preroll("-r /tmp --compat --preroll 3600 --preroll-memory 1M"), of(3600, 1 << 20));
    }

    #[test]
    fn bridge_mode_is_asymmetric_unless_told_otherwise() {
        let asymmetric = |words| settings(words).unwrap().relay.engine.asymmetric;
        assert!(!asymmetric("-l 127.0.0.1"));
        assert!(asymmetric("-l 127.0.0.1/127.0.0.2"));
        assert!(!asymmetric("-l 127.0.0.1/127.0.0.2 --bridge_symmetric"));
        assert!(asymmetric("--force_asymmetric"));
    }

    #[test]
    fn timers_follow_each_other() {
        let timers =
            |words| settings(words).map(|it| (it.relay.engine.max_ttl_s, it.relay.engine.setup_ttl_s));
        assert_eq!(timers("-T 10"), Ok((10, 10)));
        assert_eq!(timers("-T 10 -W 5"), Ok((10, 5)));
        assert_eq!(timers("-W 5"), Ok((60, 5)));
    }

    #[test]
    fn the_operator_is_told_what_differs_once() {
        assert!(matches!(settings("-r /tmp").unwrap().notes[..], [Note::Info(_)]));
        assert!(
            matches!(&settings("-r /tmp -P").unwrap().notes[..], [Note::Info(it)] if it.contains("pcap "))
        );
        assert!(settings("-r /tmp -a").unwrap().notes.len() == 1);
        for chosen in ["--record-scope stream", "--record-compress zstd", "--record-min-free 5%"] {
            assert!(settings(&format!("-r /tmp {chosen}")).unwrap().notes.is_empty(), "{chosen}");
        }
        assert!(settings("-r /tmp --compat").unwrap().notes.is_empty());
        assert!(matches!(settings("-A 192.0.2.1").unwrap().notes[..], [Note::Warn(_)]));
    }
}
