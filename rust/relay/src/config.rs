//! Everything the relay is told at start. The command line and the Python class build the same [`Config`].

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use rtpproxy_core::addr::Family;
use rtpproxy_core::config::{EngineConfig, FrontConfig, ModuleKind};
use rtpproxy_core::file_name::Compression;

pub use crate::recipients::Recipients;
use crate::record_name::RecordName;
use crate::{hostport, socket_file};

/// Settings of a relay.
#[derive(Clone, Debug)]
pub struct Config {
    /// The session logic.
    pub engine: EngineConfig,
    /// The rules before it: listen addresses, notification targets.
    pub front: FrontConfig,
    /// Worker threads; `None`: as many as affinity and the cgroup's quota allow.
    pub workers: Option<usize>,
    /// The lowest RTP port, even.
    pub port_min: u16,
    /// The highest RTP port, even; its RTCP port is one above.
    pub port_max: u16,
    /// Ports in order from `port_min` (`-b`) instead of unpredictable ones.
    pub sequential_ports: bool,
    /// The IP TOS byte of IPv4 media (`-t`).
    pub tos: u8,
    /// The names of hosts in commands are looked up (not with `--no_resolve`).
    pub resolve_names: bool,
    /// The recorder.
    pub record: RecordConfig,
    /// Real-time scheduling of the media threads (`-c`).
    pub scheduling: Option<Scheduling>,
    /// The modules in the order in which they were named. What `front` has to know of them follows from this
    /// list when the relay starts.
    pub modules: Vec<Module>,
    /// Where metrics are served over HTTP (`--metrics`).
    pub metrics: Option<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            engine: EngineConfig::default(),
            front: FrontConfig::default(),
            workers: None,
            port_min: 35000,
            port_max: 64998,
            sequential_ports: false,
            tos: 0xb8,
            resolve_names: true,
            record: RecordConfig::default(),
            scheduling: None,
            modules: Vec::new(),
            metrics: None,
        }
    }
}

/// Real-time scheduling policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduling {
    /// First in, first out.
    Fifo,
    /// Round robin.
    RoundRobin,
}

/// File formats of recordings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordFormat {
    /// pcapng with named legs, comments and a SIP head.
    #[default]
    Pcapng,
    /// Classic pcap (`-P`).
    Pcap,
    /// The C program's own format.
    Adhoc,
}

/// How recordings are laid out in files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordLayout {
    /// A file, or two, for each recording.
    #[default]
    Call,
    /// A file for all recordings of a worker, and the next one when its time is over.
    Journal,
}

/// Settings of the recorder.
#[derive(Clone, Debug)]
pub struct RecordConfig {
    /// Where recordings end up (`-r`); `None`: nothing can be recorded.
    pub folder: Option<PathBuf>,
    /// Where they are written until they are complete (`-S`).
    pub spool: Option<PathBuf>,
    /// Where recordings go while neither takes them (`--record-fallback`).
    pub fallback: Option<PathBuf>,
    /// How much of a disk stays free (`--record-min-free`): recordings pause before that.
    pub min_free: Option<MinFree>,
    /// What recordings are called, and the folders they are in (`--record-name`); `None`: `CALLID=FROMTAG`.
    pub name: Option<RecordName>,
    /// The format.
    pub format: RecordFormat,
    /// How files are compressed when they are complete (`--record-compress`).
    pub compress: Option<Compression>,
    /// Whether each recording has its own file, or all of a worker share one (`--record-layout`).
    pub layout: RecordLayout,
    /// How long a file of the journal layout is written until the next one begins (`--record-segment`).
    pub segment: Duration,
    /// Nanosecond time stamps in classic pcap (`--record-ns`); pcapng always has them.
    pub nanoseconds: bool,
    /// Names, modes and visibility of the C program: no `.part`, mode by umask, `%` as it is, no sidecar.
    pub compat: bool,
    /// The last seconds of every call are kept for recordings that begin later (`--preroll`).
    pub preroll: Option<PrerollConfig>,
    /// Bytes of memory for packets on their way to the recorder, at most, over the whole process. The buffers
    /// of open files, 4 to 6 KiB each, come on top.
    pub buffer_bytes: usize,
    /// A synthetic SIP head: on in pcapng, off in pcap.
    pub sip_head: bool,
    /// Dynamic payload types for the SIP head: number and `NAME/RATE[/CHANNELS]`.
    pub codec_map: Vec<(u8, String)>,
    /// A recording goes on in the next file before one is longer than this, in bytes (`--record-rotate-size`, at least
    /// [`Self::ROTATE_BYTES_MIN`]).
    pub rotate_bytes: Option<u64>,
    /// A recording goes on in the next file when the first packet of one is so long ago (`--record-rotate-time`, at
    /// least [`Self::ROTATE_TIME_MIN`]).
    pub rotate_time: Option<Duration>,
    /// How long a packet is in memory alone, at most, while the disk takes it (`--record-flush`, within
    /// [`Self::FLUSH_RANGE`]).
    pub flush: Duration,
    /// Finished recordings are removed when they ended so long ago (`--record-max-age`).
    pub max_age: Option<Duration>,
    /// The oldest finished recordings are removed while all take more bytes than this (`--record-quota`).
    pub quota_bytes: Option<u64>,
    /// Who is told of recordings (`--record-events`).
    pub events: Vec<RecordEvents>,
    /// Who can read recordings, which are then encrypted from their first byte on (`--record-encrypt`). Not with
    /// [`Self::compat`].
    pub encrypt: Option<Recipients>,
}

impl Default for RecordConfig {
    fn default() -> Self {
        Self {
            folder: None,
            spool: None,
            fallback: None,
            min_free: None,
            name: None,
            format: RecordFormat::Pcapng,
            compress: None,
            layout: RecordLayout::Call,
            segment: Duration::from_secs(60),
            nanoseconds: false,
            compat: false,
            preroll: None,
            buffer_bytes: 64 << 20,
            sip_head: true,
            codec_map: Vec::new(),
            rotate_bytes: None,
            rotate_time: None,
            flush: Duration::from_secs(1),
            max_age: None,
            quota_bytes: None,
            events: Vec::new(),
            encrypt: None,
        }
    }
}

impl RecordConfig {
    /// The smallest [`Self::rotate_bytes`]: some of the largest packets fit, with a SIP head before them.
    pub const ROTATE_BYTES_MIN: u64 = 1 << 20;
    /// The smallest [`Self::rotate_time`].
    pub const ROTATE_TIME_MIN: Duration = Duration::from_secs(1);
    /// What [`Self::segment`] may be.
    pub const SEGMENT_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
    /// What [`Self::flush`] may be.
    pub const FLUSH_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

    /// Whether a recording may have several files, one after the other.
    pub fn is_rotating(&self) -> bool {
        self.rotate_bytes.is_some() || self.rotate_time.is_some()
    }
}

/// What is kept of calls that are not recorded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrerollConfig {
    /// How far back a recording reaches.
    pub span: Duration,
    /// Bytes of memory for it, at most, over the whole process (`--preroll-memory`).
    pub memory_bytes: usize,
}

impl PrerollConfig {
    /// The memory unless something else is said, in bytes.
    pub const MEMORY_DEFAULT: usize = 256 << 20;
}

/// How much of a disk stays free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinFree {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of it.
    Percent(u8),
}

impl MinFree {
    /// In bytes, of a disk with `total` bytes.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => total / 100 * u64::from(percent),
        }
    }
}

impl fmt::Display for MinFree {
    /// In the largest unit that leaves a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => {
                let units = [(30, "G"), (20, "M"), (10, "K")];
                let unit = units.into_iter().find(|(bits, _)| bytes > 0 && bytes % (1 << bits) == 0);
                let (bits, name) = unit.unwrap_or((0, ""));
                write!(f, "{}{name}", bytes >> bits)
            }
        }
    }
}

/// Who is told what becomes of recordings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordEvents {
    /// Whoever listens on this UNIX stream socket gets lines of JSON.
    Unix(PathBuf),
    /// They are appended to this file.
    File(PathBuf),
    /// This program is run for each finished recording with the path of its sidecar. A name without a slash is
    /// looked for in `PATH`.
    Exec(PathBuf),
}

impl RecordEvents {
    /// Reads the text of `--record-events`: `unix:PATH`, `exec:PROGRAM`, or a file. Relative paths start in the
    /// working directory of this moment.
    ///
    /// # Errors
    ///
    /// The message for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = |reason: &str| format!("--record-events {text}: {reason}");
        let absolute = |path: &str| std::path::absolute(path).map_err(|error| refused(&error.to_string()));
        if let Some(path) = text.strip_prefix("unix:") {
            let path = absolute(path)?;
            socket_file::check_path(&path).map_err(|error| refused(&error.to_string()))?;
            Ok(Self::Unix(path))
        } else if let Some(program) = text.strip_prefix("exec:") {
            match program {
                "" => Err(refused("names no program")),
                name if !name.contains('/') => Ok(Self::Exec(name.into())),
                path => absolute(path).map(Self::Exec),
            }
        } else {
            absolute(text).map(Self::File)
        }
    }
}

impl fmt::Display for RecordEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::File(path) => path.display().fmt(f),
            Self::Exec(program) => write!(f, "exec:{}", program.display()),
        }
    }
}

/// Reads the text of `--metrics`: `HOST:PORT`, with an IPv6 address in brackets. Names are looked up only if
/// `resolve`.
///
/// # Errors
///
/// The message for the operator.
pub fn metrics_address(text: &str, resolve: bool) -> Result<SocketAddr, String> {
    let refused = |reason: String| format!("--metrics {text}: {reason}");
    let (host, port) = hostport::split(text).map_err(refused)?;
    let port = port.ok_or_else(|| refused("the port is missing".to_owned()))?;
    let lookup = |family| hostport::lookup(host, port, family, resolve);
    if host.contains(':') { lookup(Family::V6) } else { lookup(Family::V4) }.map_err(refused)
}

/// A module with its settings. The same one may be there several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// A line in a CSV file for each session that ends.
    AcctCsv(AcctCsvConfig),
    /// RTCP reports to a capture server, as HEPv3.
    AcctRtcpHep(HepConfig),
    /// Digits that a party dials are reported.
    CatchDtmf,
}

impl Module {
    /// What it is, as commands know it.
    pub fn kind(&self) -> ModuleKind {
        match self {
            Self::AcctCsv(_) => ModuleKind::AcctCsv,
            Self::AcctRtcpHep(_) => ModuleKind::AcctRtcpHep,
            Self::CatchDtmf => ModuleKind::CatchDtmf,
        }
    }
}

/// Settings of `acct_csv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcctCsvConfig {
    /// The file. A relative path is one from the working directory of the moment it is opened.
    pub file: PathBuf,
}

impl Default for AcctCsvConfig {
    fn default() -> Self {
        Self { file: "rtpproxy_acct.csv".into() }
    }
}

/// Settings of `acct_rtcp_hep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HepConfig {
    /// The capture server: an address or a name (`capt_host`).
    pub host: String,
    /// Its port, not 0 (`capt_port`).
    pub port: u16,
    /// How it is reached (`capt_ptype`).
    pub transport: HepTransport,
    /// The number of this capture agent (`capt_id`).
    pub capture_id: u32,
}

impl Default for HepConfig {
    fn default() -> Self {
        Self { host: "10.0.0.1".into(), port: 9060, transport: HepTransport::Udp, capture_id: 101 }
    }
}

impl fmt::Display for HepConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.transport, self.host, self.port)
    }
}

/// Ways to a capture server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HepTransport {
    /// One datagram for each message.
    #[default]
    Udp,
    /// One connection for all.
    Tcp,
}

impl fmt::Display for HepTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

/// One control transport (`-s`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlSpec {
    /// One command a connection.
    Unix(PathBuf),
    /// Persistent connections.
    Cunix(PathBuf),
    /// TCP over IPv4 or IPv6.
    Tcp(SocketAddr),
    /// UDP over IPv4 or IPv6.
    Udp(SocketAddr),
    /// Standard input and output; `always_drain`: `stdioc:`.
    Stdio {
        /// The end of input always starts the slow shutdown.
        always_drain: bool,
    },
    /// The first inherited descriptor of socket activation.
    Systemd,
    /// An open stream descriptor of this process, for in-process use.
    Fd(i32),
}
