//! Command line to [`Flags`]: plain values, close to the text, each checked on its own when it is met.
//!
//! What options mean together is the business of [`crate::settings`].

mod defs;
mod file;
mod getopt;
mod given;
mod number;
mod variables;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use rtpproxy_core::config::{LatchMode, RecordScope};
use rtpproxy_core::file_name::Compression;
use rtpproxy_relay::config::{
    MinFree, Module, RecordConfig, RecordEvents, RecordFormat, RecordLayout, Scheduling,
};
use rtpproxy_relay::record_name::RecordName;

use crate::identity::{self, Identity};
use crate::logging::{Facility, Level};
use crate::modules;

pub(crate) use defs::{Fallback, Form, GROUPS, Opt, PREROLL_MEMORY_DEFAULT, Reach, VARIABLE_PREFIX, command};
use given::Entry;
pub(crate) use given::{Given, Origin, Value};
pub(crate) use number::duration;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Request {
    /// Run the daemon.
    Run(Box<Flags>),
    /// Say what would be in force, and end.
    Check(Box<Flags>),
    /// Print the help and end.
    Help,
    /// Print this text and end.
    Print(String),
}

/// A command line that cannot be followed. The exit status is 1.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlagError {
    /// The line does not fit the table of options: the usage is shown too.
    #[error("{0}")]
    Usage(String),
    /// A value is not acceptable.
    #[error("{0}")]
    Value(String),
    /// So are these of the environment and the settings file.
    #[error("{}", .0.join("\n"))]
    Entries(Vec<String>),
}

/// The options as they were given. What was not given is `None`, empty or false.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) listen: Vec<ListenFlag>,
    pub(crate) advertise: Option<Advertise>,
    pub(crate) port_min: Option<u16>,
    pub(crate) port_max: Option<u16>,
    pub(crate) sequential: bool,
    pub(crate) no_resolve: bool,
    pub(crate) control: Vec<String>,
    pub(crate) mode: Option<u32>,
    pub(crate) notify: Vec<String>,
    pub(crate) metrics: Option<String>,
    pub(crate) latch: Option<LatchMode>,
    pub(crate) tos: Option<u8>,
    pub(crate) double: bool,
    pub(crate) bridge_symmetric: bool,
    pub(crate) force_asymmetric: bool,
    pub(crate) workers: Option<usize>,
    pub(crate) schedule: Option<Scheduling>,
    pub(crate) ttl: Option<u32>,
    pub(crate) setup_ttl: Option<u32>,
    pub(crate) independent: bool,
    pub(crate) record_dir: Option<PathBuf>,
    pub(crate) spool_dir: Option<PathBuf>,
    pub(crate) record_fallback: Option<PathBuf>,
    pub(crate) record_min_free: Option<MinFree>,
    pub(crate) record_all: bool,
    pub(crate) pcap: bool,
    pub(crate) no_rtcp: bool,
    pub(crate) record_format: Option<RecordFormat>,
    pub(crate) record_scope: Option<RecordScope>,
    pub(crate) record_name: Option<RecordName>,
    pub(crate) record_layout: Option<RecordLayout>,
    pub(crate) record_segment: Option<Duration>,
    pub(crate) record_ns: bool,
    pub(crate) record_buffer: Option<usize>,
    pub(crate) record_flush: Option<Duration>,
    pub(crate) record_compress: Option<Compression>,
    pub(crate) record_rotate_size: Option<u64>,
    pub(crate) record_rotate_time: Option<Duration>,
    pub(crate) preroll: Option<Duration>,
    pub(crate) preroll_memory: Option<usize>,
    pub(crate) record_max_age: Option<Duration>,
    pub(crate) record_quota: Option<u64>,
    pub(crate) codec_map: Vec<(u8, String)>,
    pub(crate) record_events: Vec<RecordEvents>,
    pub(crate) record_encrypt: Vec<String>,
    pub(crate) compat: bool,
    pub(crate) foreground: bool,
    pub(crate) allow_root: bool,
    pub(crate) identity: Option<Identity>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) no_chdir: bool,
    pub(crate) no_redirect: bool,
    pub(crate) log_level: Option<Level>,
    pub(crate) log_facility: Option<Facility>,
    pub(crate) open_files: Option<u64>,
    pub(crate) nice: Option<i32>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) dso: Vec<Module>,
    pub(crate) settings: Option<PathBuf>,
    pub(crate) check: bool,
    /// Where each of these comes from.
    pub(crate) given: Given,
    /// Variables that look like ours and are not, with words about them.
    pub(crate) unknown_variables: Vec<String>,
}

/// One `-l` or `-6`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenFlag {
    /// True for `-6`.
    pub(crate) ipv6: bool,
    /// Its value.
    pub(crate) text: String,
}

/// The value of `-A`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advertise {
    /// For the internal address.
    pub(crate) first: String,
    /// For the external address.
    pub(crate) second: Option<String>,
}

/// Reads the command line, without the program's name, then `environment` and the settings file that either
/// of them names, for what is not on it.
pub(crate) fn parse(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Request, FlagError> {
    let mut flags = Flags::default();
    let mut walk = getopt::Getopt::new(args);
    for met in walk.by_ref() {
        let met = met.map_err(|error| FlagError::Usage(error.to_string()))?;
        match met.option.key {
            "version" => return Ok(Request::Print(format!("{}\n", env!("CARGO_PKG_VERSION")))),
            "protocol" => return Ok(Request::Print(protocol_versions())),
            "clock" => return Ok(Request::Print("CLOCK_BOOTTIME\n".into())),
            "help" => return Ok(Request::Help),
            _ => flags.set(met.option, met.value.as_deref()).map_err(FlagError::Value)?,
        }
        flags.given.on_the_line(met.option, met.value);
    }
    match walk.extra() {
        0 => {}
        extra => {
            return Err(FlagError::Usage(format!(
                "{extra} extra unhandled argument(s) at the end of the command line"
            )));
        }
    }
    flags.complete(environment).map_err(FlagError::Entries)?;
    let request = if flags.check { Request::Check } else { Request::Run };
    Ok(request(Box::new(flags)))
}

impl Flags {
    /// Takes what the command line leaves open from the environment, then from the settings file. What is
    /// overridden is checked all the same.
    fn complete(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        let variables = variables::read(environment);
        self.unknown_variables = variables.unknown;
        self.take_all(variables.entries, &mut errors);
        if let Some(path) = self.settings.clone() {
            match file::read(&path) {
                Ok(entries) => self.take_all(entries, &mut errors),
                Err(error) => errors.push(error),
            }
        }
        self.settle_pcap();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn take_all(&mut self, entries: Vec<Result<Entry, String>>, errors: &mut Vec<String>) {
        let stronger = self.given.clone();
        for entry in entries {
            let taken = entry.and_then(|entry| {
                let mut unused = Self::default();
                let overridden = stronger.holds(entry.option);
                let target = if overridden { &mut unused } else { &mut *self };
                target.take(entry)
            });
            errors.extend(taken.err());
        }
    }

    fn take(&mut self, entry: Entry) -> Result<(), String> {
        let Entry { option, value, origin } = &entry;
        let explain = |error| format!("{origin}: {error}");
        match value {
            Value::Switch(false) => {}
            Value::Switch(true) => self.set(option, None).map_err(explain)?,
            Value::Texts(texts) => {
                for text in texts {
                    self.set(option, Some(text)).map_err(explain)?;
                }
            }
        }
        self.given.elsewhere(entry);
        Ok(())
    }

    /// `-P` and `--record-format` are about one thing: the one with the stronger origin decides.
    fn settle_pcap(&mut self) {
        match self.given.stronger("pcap", "record_format") {
            Some("record_format") => {
                self.pcap = false;
                self.given.forget("pcap");
            }
            Some(_) if self.pcap => {
                self.record_format = None;
                self.given.forget("record_format");
            }
            _ => {}
        }
    }

    fn set(&mut self, option: &Opt, value: Option<&OsStr>) -> Result<(), String> {
        match value {
            Some(value) => self.set_value(option.key, value),
            None => {
                self.set_switch(option.key);
                Ok(())
            }
        }
    }

    fn set_switch(&mut self, key: &str) {
        let switch = match key {
            "sequential_ports" => &mut self.sequential,
            "no_resolve" => &mut self.no_resolve,
            "double_send" => &mut self.double,
            "bridge_symmetric" => &mut self.bridge_symmetric,
            "force_asymmetric" => &mut self.force_asymmetric,
            "independent_timers" => &mut self.independent,
            "record_all" => &mut self.record_all,
            "pcap" => &mut self.pcap,
            "no_rtcp" => &mut self.no_rtcp,
            "record_ns" => &mut self.record_ns,
            "compat" => &mut self.compat,
            "foreground" => &mut self.foreground,
            "allow_root" => &mut self.allow_root,
            "no_chdir" => &mut self.no_chdir,
            "no_redirect" => &mut self.no_redirect,
            "check" => &mut self.check,
            // An option of the C program without an effect, there as here.
            "overload_prot" => return,
            _ => unreachable!("every switch of the table is named here: {key}"),
        };
        *switch = true;
    }

    fn set_value(&mut self, key: &str, value: &OsStr) -> Result<(), String> {
        let text = value.to_string_lossy();
        match key {
            "listen" | "listen6" => {
                self.listen.push(ListenFlag { ipv6: key == "listen6", text: utf8(value)? });
            }
            "advertise" => self.advertise = Some(advertise(&utf8(value)?)?),
            "port_min" => self.port_min = Some(port(value, "min", "port_min")?),
            "port_max" => self.port_max = Some(port(value, "max", "port_max")?),
            "control" => self.control.push(utf8(value)?),
            "control_mode" => self.mode = Some(in_range(value, 0..=4095, "socket mode argument is invalid")?),
            "notify" => self.notify.push(utf8(value)?),
            "metrics" => self.metrics = Some(utf8(value)?),
            "latch" => self.latch = Some(latch(&text)?),
            "tos" => self.tos = Some(tos(value)?),
            "workers" => self.workers = Some(in_range(value, 1..=1024, "number of workers is invalid")?),
            "schedule" => self.schedule = Some(schedule(&text)?),
            "ttl" => self.ttl = Some(in_range(value, SECONDS, "max TTL argument is invalid")?),
            "setup_ttl" => {
                self.setup_ttl = Some(in_range(value, SECONDS, "max setup TTL argument is invalid")?);
            }
            "record_dir" => self.record_dir = Some(value.into()),
            "spool_dir" => self.spool_dir = Some(value.into()),
            "record_fallback" => self.record_fallback = Some(value.into()),
            "record_format" => self.record_format = Some(record_format(&text)?),
            "record_scope" => self.record_scope = Some(record_scope(&text)?),
            "record_layout" => self.record_layout = Some(record_layout(&text)?),
            "record_segment" => self.record_segment = Some(record_segment(&text)?),
            "record_name" => {
                let name = RecordName::parse(&utf8(value)?).map_err(|error| error.to_string())?;
                self.record_name = Some(name);
            }
            "record_min_free" => self.record_min_free = Some(min_free(&text)?),
            "record_buffer" => self.record_buffer = Some(record_buffer(&text)?),
            "record_compress" => self.record_compress = Some(record_compress(&text)?),
            "record_flush" => self.record_flush = Some(record_flush(&text)?),
            "record_rotate_size" => self.record_rotate_size = Some(record_rotate_size(&text)?),
            "record_rotate_time" => self.record_rotate_time = Some(record_rotate_time(&text)?),
            "preroll" => {
                let seconds = in_range(value, 1..=3600, "preroll is invalid, choose 1 to 3600 seconds")?;
                self.preroll = Some(Duration::from_secs(seconds));
            }
            "preroll_memory" => self.preroll_memory = Some(preroll_memory(&text)?),
            "record_max_age" => self.record_max_age = Some(record_max_age(&text)?),
            "record_quota" => self.record_quota = Some(record_quota(&text)?),
            "codec_map" => self.codec_map.push(codec(&text)?),
            "record_encrypt" => self.record_encrypt.push(utf8(value)?),
            "record_events" => self.record_events.push(RecordEvents::parse(&utf8(value)?)?),
            "user" => self.identity = Some(identity::parse(&utf8(value)?)?),
            "pid_file" => self.pid_file = Some(value.into()),
            "log" => self.set_log(&text)?,
            "open_files" => {
                self.open_files = Some(in_range(value, 0..=i64::MAX, "max file rlimit argument is invalid")?);
            }
            "nice" => self.nice = Some(nice(value)?),
            "settings" => self.settings = Some(value.into()),
            "config" => self.config = Some(value.into()),
            "dso" => self.dso.push(modules::from_dso(value)?),
            _ => unreachable!("every option of the table is named here: {key}"),
        }
        Ok(())
    }

    fn set_log(&mut self, text: &str) -> Result<(), String> {
        let (level, facility) = match text.split_once(':') {
            Some((level, facility)) => (level, Some(facility)),
            None => (text, None),
        };
        self.log_level = Some(Level::parse(level).ok_or_else(|| format!("{level}: invalid log level"))?);
        if let Some(name) = facility {
            let facility = Facility::parse(name).ok_or_else(|| format!("{name}: invalid log facility"))?;
            self.log_facility = Some(facility);
        }
        Ok(())
    }
}

fn protocol_versions() -> String {
    use std::fmt::Write;
    let mut text = format!("Basic version: {}\n", rtpproxy_core::command::CAPABILITIES[0].0);
    for (id, description) in rtpproxy_core::command::CAPABILITIES {
        writeln!(text, "Extension {id}: {description}").expect("a string takes everything");
    }
    text
}

fn utf8(value: &OsStr) -> Result<String, String> {
    let text = value.to_str().ok_or_else(|| format!("{}: not valid UTF-8", value.to_string_lossy()))?;
    Ok(text.to_owned())
}

fn in_range<T: TryFrom<i64>>(
    value: &OsStr,
    range: std::ops::RangeInclusive<i64>,
    complaint: &str,
) -> Result<T, String> {
    number::number(value)
        .filter(|number| range.contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("{}: {complaint}", value.to_string_lossy()))
}

fn port(value: &OsStr, short: &str, long: &str) -> Result<u16, String> {
    let Some(number) = number::number(value) else {
        return Err(format!("{}: {short} port argument is invalid", value.to_string_lossy()));
    };
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("invalid value of the {long} argument, not in the range 1-65535"))
}

fn tos(value: &OsStr) -> Result<u8, String> {
    let text = value.to_string_lossy();
    let number = number::number(value).ok_or_else(|| format!("{text}: TOS argument is invalid"))?;
    u8::try_from(number).map_err(|_| format!("{text}: TOS is too small/large"))
}

fn nice(value: &OsStr) -> Result<i32, String> {
    let text = value.to_string_lossy();
    let number = number::number(value).ok_or_else(|| format!("{text}: nice level argument is invalid"))?;
    if !(-20..=20).contains(&number) {
        return Err(format!("{text}: nice level is out of range -20..20"));
    }
    i32::try_from(number).map_err(|_| format!("{text}: nice level is out of range -20..20"))
}

fn advertise(text: &str) -> Result<Advertise, String> {
    let (first, second) = match text.split_once('/') {
        Some((first, second)) => (first, Some(second)),
        None => (text, None),
    };
    if first.is_empty() {
        return Err("first advertised address is invalid".into());
    }
    if second.is_some_and(str::is_empty) {
        return Err("second advertised address is invalid".into());
    }
    Ok(Advertise { first: first.into(), second: second.map(Into::into) })
}

fn latch(text: &str) -> Result<LatchMode, String> {
    match text {
        "strict" => Ok(LatchMode::Strict),
        "nat" => Ok(LatchMode::Nat),
        "legacy" => Ok(LatchMode::Legacy),
        _ => Err(format!("{text}: unknown latch mode, choose strict, nat or legacy")),
    }
}

fn schedule(text: &str) -> Result<Scheduling, String> {
    match text {
        "fifo" => Ok(Scheduling::Fifo),
        "rr" => Ok(Scheduling::RoundRobin),
        _ => Err(format!("{text}: unknown scheduling policy")),
    }
}

fn record_format(text: &str) -> Result<RecordFormat, String> {
    match text {
        "pcapng" => Ok(RecordFormat::Pcapng),
        "pcap" => Ok(RecordFormat::Pcap),
        "adhoc" => Ok(RecordFormat::Adhoc),
        _ => Err(format!("{text}: unknown record format, choose pcapng, pcap or adhoc")),
    }
}

fn record_scope(text: &str) -> Result<RecordScope, String> {
    match text {
        "call" => Ok(RecordScope::Call),
        "stream" => Ok(RecordScope::Stream),
        _ => Err(format!("{text}: unknown record scope, choose call or stream")),
    }
}

fn record_layout(text: &str) -> Result<RecordLayout, String> {
    match text {
        "call" => Ok(RecordLayout::Call),
        "journal" => Ok(RecordLayout::Journal),
        _ => Err(format!("{text}: unknown record layout, choose call or journal")),
    }
}

fn record_segment(text: &str) -> Result<Duration, String> {
    duration(text)
        .filter(|segment| RecordConfig::SEGMENT_RANGE.contains(segment))
        .ok_or_else(|| format!("{text}: record segment is invalid, write 1s to 1h"))
}

fn record_buffer(text: &str) -> Result<usize, String> {
    let size = number::bytes(text).ok_or_else(|| format!("{text}: record buffer size is invalid"))?;
    if size < RECORD_BUFFER_MIN {
        return Err(format!("{text}: record buffer is smaller than 1M"));
    }
    Ok(size)
}

fn record_compress(text: &str) -> Result<Compression, String> {
    [Compression::Zstd, Compression::Gzip]
        .into_iter()
        .find(|compression| compression.name() == text)
        .ok_or_else(|| format!("{text}: unknown compression, choose zstd or gzip"))
}

fn record_flush(text: &str) -> Result<Duration, String> {
    let millis = text.strip_suffix("ms").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    millis
        .and_then(|digits| digits.parse().ok().map(Duration::from_millis))
        .or_else(|| duration(text))
        .filter(|flush| RecordConfig::FLUSH_RANGE.contains(flush))
        .ok_or_else(|| format!("{text}: record flush is invalid, write 100ms to 60s"))
}

fn record_rotate_size(text: &str) -> Result<u64, String> {
    let size = number::bytes(text).ok_or_else(|| format!("{text}: record rotate size is invalid"))? as u64;
    if size < RecordConfig::ROTATE_BYTES_MIN {
        return Err(format!("{text}: record rotate size is smaller than 1M"));
    }
    Ok(size)
}

fn preroll_memory(text: &str) -> Result<usize, String> {
    let size = number::bytes(text).ok_or_else(|| format!("{text}: preroll memory size is invalid"))?;
    if size < PREROLL_MEMORY_MIN {
        return Err(format!("{text}: preroll memory is smaller than 1M"));
    }
    Ok(size)
}

fn record_rotate_time(text: &str) -> Result<Duration, String> {
    duration(text)
        .filter(|time| *time >= RecordConfig::ROTATE_TIME_MIN)
        .ok_or_else(|| format!("{text}: record rotate time is invalid, write 30s, 15m or 1h"))
}

fn record_max_age(text: &str) -> Result<Duration, String> {
    duration(text)
        .filter(|age| !age.is_zero())
        .ok_or_else(|| format!("{text}: record age is invalid, write 30d, 12h, 90m or 30s"))
}

fn record_quota(text: &str) -> Result<u64, String> {
    let size = number::bytes(text).ok_or_else(|| format!("{text}: record quota is invalid"))?;
    if size < RECORD_QUOTA_MIN {
        return Err(format!("{text}: record quota is smaller than 1M"));
    }
    Ok(size as u64)
}

fn min_free(text: &str) -> Result<MinFree, String> {
    let complaint = || format!("{text}: not a number of bytes, nor a percentage from 1% to 99%");
    let free = match text.strip_suffix('%') {
        Some(percent) => {
            percent.parse().ok().filter(|percent| (1..=99).contains(percent)).map(MinFree::Percent)
        }
        None => number::bytes(text).map(|bytes| MinFree::Bytes(bytes as u64)),
    };
    free.ok_or_else(complaint)
}

/// `PT=NAME/RATE[/CHANNELS]`, as an `a=rtpmap` of SDP has it.
fn codec(text: &str) -> Result<(u8, String), String> {
    let complaint =
        || format!("{text}: codec map is invalid, write PT=NAME/RATE, for example 111=opus/48000/2");
    let (number, codec) = text.split_once('=').ok_or_else(complaint)?;
    let payload_type =
        number.parse::<u8>().ok().filter(|payload_type| *payload_type < 128).ok_or_else(complaint)?;
    let mut parts = codec.split('/');
    let name = parts.next().unwrap_or_default();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    let positive = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u32>().is_ok_and(|number| number > 0)
    };
    let rate = parts.next().is_some_and(positive);
    let channels = parts.next().is_none_or(positive);
    if name.is_empty() || !name.bytes().all(token) || !rate || !channels || parts.next().is_some() {
        return Err(complaint());
    }
    Ok((payload_type, codec.to_owned()))
}

const SECONDS: std::ops::RangeInclusive<i64> = 1..=i32::MAX as i64;
const RECORD_BUFFER_MIN: usize = 1 << 20;
const RECORD_QUOTA_MIN: usize = 1 << 20;
const PREROLL_MEMORY_MIN: usize = 1 << 20;
