//! The one table of options: names, values, defaults and help texts.
//!
//! The command line, the settings file, the environment and the help are all read from here.

use clap::builder::{PossibleValuesParser, Styles};
use clap::{Arg, ArgAction, Command, ValueHint};

/// One option of the daemon.
#[derive(Debug)]
pub(crate) struct Opt {
    /// Its key in a settings file; in capitals, with `RTPPROXY_` before it, its variable.
    pub(crate) key: &'static str,
    /// What it takes.
    pub(crate) form: Form,
    /// What holds if it is not given.
    pub(crate) default: Fallback,
    /// The ways to set it.
    pub(crate) reach: Reach,
    pub(super) short: Option<char>,
    pub(super) long: Option<&'static str>,
    help: &'static str,
}

/// What an option takes. The texts name the value in the help.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// Nothing: it is on or off.
    Switch,
    /// Nothing, or on the command line a value that is ignored.
    LooseSwitch(&'static str),
    /// A whole number.
    Number(&'static str),
    /// A count of bytes: a number, or a text with a unit.
    Bytes(&'static str),
    /// One of these words.
    Word(&'static str, &'static [&'static str]),
    /// A text.
    Text(&'static str),
    /// The name of a file.
    File(&'static str),
    /// The name of a folder.
    Folder(&'static str),
    /// Texts: the option is repeatable.
    Texts(&'static str),
}

/// What holds without an option.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fallback {
    /// Nothing, or off.
    None,
    /// This value.
    Value(&'static str),
    /// What these words say, which depends on other options or on the machine.
    Words(&'static str),
}

/// The ways to set an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// The command line.
    Line,
    /// That and the environment.
    Variable,
    /// Those and the settings file.
    File,
}

/// Every option, in the groups of the help.
pub(crate) const GROUPS: &[(&str, &[Opt])] = &[
    ("Addresses and ports", ADDRESSES),
    ("Control", CONTROL),
    ("Media", MEDIA),
    ("Sessions", SESSIONS),
    ("Recording", RECORDING),
    ("Modules", MODULES),
    ("Process", PROCESS),
    ("Settings", SETTINGS),
    ("Information", INFORMATION),
];

/// The long options of the C program. What abbreviates exactly one of them keeps that meaning, whatever long
/// options are added to the table.
pub(super) const ORIGINAL_LONGS: &[&str] = &[
    "bridge_symmetric",
    "config",
    "dso",
    "force_asymmetric",
    "nice",
    "no_redirect",
    "no_resolve",
    "overload_prot",
];

/// All options, one after the other.
pub(crate) fn options() -> impl Iterator<Item = &'static Opt> {
    GROUPS.iter().flat_map(|(_, options)| options.iter())
}

/// The option with this key.
pub(crate) fn option(key: &str) -> Option<&'static Opt> {
    options().find(|option| option.key == key)
}

/// The table as [`clap`] has it, for the help and all that is made from it.
pub(crate) fn command() -> Command {
    let args = GROUPS
        .iter()
        .flat_map(|(heading, options)| options.iter().map(|option| option.arg().help_heading(*heading)));
    Command::new("rtpproxy")
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .styles(Styles::styled())
        .max_term_width(110)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .override_usage("rtpproxy [OPTION]...\n       rtpproxy COMMAND [ARGUMENT]...")
        .after_help(
            "Short options may be joined (-fF), long ones abbreviated (--no_red).\n\n\
             Each option can also be set in a settings file, where its key is the name in brackets or the long \
             name with _ for -, and by a variable: RTPPROXY_PORT_MIN for [port_min], RTPPROXY_COMPAT=1 for \
             --compat. The command line comes before the environment, that before the file.\n\n\
             rtpproxy COMMAND --help tells of a command.",
        )
        .args(args)
}

/// Bytes of the default of `--preroll-memory`, as the help writes it.
pub(crate) const PREROLL_MEMORY_DEFAULT: &str = "256M";

/// Bytes of the default of `--record-buffer`, as the help writes it.
pub(super) const RECORD_BUFFER_DEFAULT: &str = "64M";

impl Opt {
    const fn new(key: &'static str, form: Form, help: &'static str) -> Self {
        Self { key, form, default: Fallback::None, reach: Reach::File, short: None, long: None, help }
    }

    const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    const fn long(mut self, name: &'static str) -> Self {
        self.long = Some(name);
        self
    }

    const fn default(mut self, default: Fallback) -> Self {
        self.default = default;
        self
    }

    const fn reach(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }

    /// The option as it is written on the command line: `-m`, `--latch`.
    pub(crate) fn spelling(&self) -> String {
        match (self.long, self.short) {
            (Some(long), _) => format!("--{long}"),
            (None, Some(short)) => format!("-{short}"),
            (None, None) => unreachable!("an option has a name: {}", self.key),
        }
    }

    /// The name of its variable in the environment.
    pub(crate) fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.key.to_ascii_uppercase())
    }

    /// True if it may be given several times.
    pub(crate) fn is_repeatable(&self) -> bool {
        matches!(self.form, Form::Texts(_))
    }

    fn arg(&self) -> Arg {
        let mut help = self.help.to_owned();
        if let Fallback::Value(text) | Fallback::Words(text) = self.default {
            help += &format!(" (default: {text})");
        }
        if self.long.is_none() && self.reach == Reach::File {
            help += &format!(" [{}]", self.key);
        }
        let arg = Arg::new(self.key).long(self.long).help(help);
        let arg = match self.short {
            Some(letter) => arg.short(letter),
            None => arg,
        };
        match self.form {
            Form::Switch => arg.action(ArgAction::SetTrue),
            Form::LooseSwitch(name) => arg.value_name(name).num_args(0..=1).require_equals(true),
            Form::Number(name) | Form::Bytes(name) | Form::Text(name) => arg.value_name(name),
            Form::Texts(name) => arg.value_name(name).action(ArgAction::Append),
            Form::File(name) => arg.value_name(name).value_hint(ValueHint::FilePath),
            Form::Folder(name) => arg.value_name(name).value_hint(ValueHint::DirPath),
            Form::Word(name, words) => arg
                .value_name(name)
                .value_parser(PossibleValuesParser::new(words.iter().copied()))
                .hide_possible_values(true),
        }
    }
}

/// What every variable of ours begins with.
pub(crate) const VARIABLE_PREFIX: &str = "RTPPROXY_";

const ADDRESSES: &[Opt] = &[
    Opt::new(
        "listen",
        Form::Texts("ADDR"),
        "IPv4 address for media: ADDR, ADDR=ADVERTISED, LABEL@ADDR; INTERNAL/EXTERNAL bridges; repeatable",
    )
    .short('l')
    .default(Fallback::Words("*")),
    Opt::new("listen6", Form::Texts("ADDR"), "The same for IPv6").short('6'),
    Opt::new("advertise", Form::Text("ADDR/ADDR2"), "What replies say instead of the two bridged addresses")
        .short('A'),
    Opt::new("port_min", Form::Number("PORT"), "Lowest port for media")
        .short('m')
        .default(Fallback::Value("35000")),
    Opt::new("port_max", Form::Number("PORT"), "Highest port for media")
        .short('M')
        .default(Fallback::Value("65000")),
    Opt::new("sequential_ports", Form::Switch, "Give out ports in order instead of unpredictable ones")
        .short('b'),
    Opt::new("no_resolve", Form::Switch, "Take numeric addresses only, ask no name service")
        .long("no_resolve"),
];

const CONTROL: &[Opt] = &[
    Opt::new(
        "control",
        Form::Texts("SOCKET"),
        "Control socket, repeatable: unix:PATH, cunix:PATH, udp:HOST[:PORT], udp6:…, tcp:…, tcp6:…, stdio:, \
         stdioc:, systemd:",
    )
    .short('s')
    .default(Fallback::Value("unix:/var/run/rtpproxy.sock")),
    Opt::new(
        "control_mode",
        Form::Number("MODE"),
        "Mode of UNIX control sockets, decimal; needs a group by -u",
    )
    .short('w')
    .default(Fallback::Value("493")),
    Opt::new(
        "notify",
        Form::Texts("TARGET"),
        "Where sessions may report their end, repeatable: unix:PATH, tcp:HOST:PORT",
    )
    .short('n'),
    Opt::new(
        "metrics",
        Form::Text("HOST:PORT"),
        "Serve metrics over HTTP here, for Prometheus; anybody who reaches it can read them",
    )
    .long("metrics"),
];

const MEDIA: &[Opt] = &[
    Opt::new(
        "latch",
        Form::Word("MODE", &["strict", "nat", "legacy"]),
        "Who may speak for a party: strict, nat or legacy (as the C program)",
    )
    .long("latch")
    .default(Fallback::Words("nat")),
    Opt::new("tos", Form::Number("N"), "IP TOS byte of IPv4 media, 0 to 255")
        .short('t')
        .default(Fallback::Value("184")),
    Opt::new("double_send", Form::Switch, "Send packets shorter than 128 bytes twice").short('2'),
    Opt::new("bridge_symmetric", Form::Switch, "Parties are symmetric in bridge mode too")
        .long("bridge_symmetric"),
    Opt::new("force_asymmetric", Form::Switch, "Parties are asymmetric unless a command says otherwise")
        .long("force_asymmetric"),
    Opt::new("workers", Form::Number("N"), "Media threads")
        .long("workers")
        .default(Fallback::Words("as many as there are cores to use")),
    Opt::new("schedule", Form::Word("POLICY", &["fifo", "rr"]), "Real-time scheduling: fifo or rr")
        .short('c'),
];

const SESSIONS: &[Opt] = &[
    Opt::new("ttl", Form::Number("SECONDS"), "A session ends after so long without media")
        .short('T')
        .default(Fallback::Value("60")),
    Opt::new("setup_ttl", Form::Number("SECONDS"), "A session that is not complete ends after so long")
        .short('W')
        .default(Fallback::Words("as -T")),
    Opt::new("independent_timers", Form::Switch, "Each side of a session counts down on its own").short('i'),
    Opt::new(
        "overload_prot",
        Form::LooseSwitch("X"),
        "Accepted for scripts of the C program; changes nothing",
    )
    .long("overload_prot"),
];

const RECORDING: &[Opt] = &[
    Opt::new("record_dir", Form::Folder("DIR"), "Folder for recordings").short('r'),
    Opt::new("spool_dir", Form::Folder("DIR"), "Folder for recordings that are not complete yet").short('S'),
    Opt::new("record_fallback", Form::Folder("DIR"), "Folder for recordings while the others fail")
        .long("record-fallback"),
    Opt::new(
        "record_min_free",
        Form::Bytes("BYTES|PERCENT%"),
        "Pause recordings while less of the disk is free: 2G, 5%",
    )
    .long("record-min-free"),
    Opt::new("record_all", Form::Switch, "Record every session").short('a'),
    Opt::new("no_rtcp", Form::Switch, "Leave RTCP out").short('R'),
    Opt::new("pcap", Form::Switch, "Classic pcap, as --record-format pcap").short('P'),
    Opt::new(
        "record_format",
        Form::Word("FORMAT", &["pcapng", "pcap", "adhoc"]),
        "pcapng, pcap or adhoc (the C program's own)",
    )
    .long("record-format")
    .default(Fallback::Words("pcapng")),
    Opt::new(
        "record_scope",
        Form::Word("SCOPE", &["call", "stream"]),
        "What one command records: call (both legs) or stream (one direction)",
    )
    .long("record-scope")
    .default(Fallback::Words("call")),
    Opt::new(
        "record_name",
        Form::Text("TEMPLATE"),
        "Names and folders of recordings in place of CALLID=FROMTAG: %Y/%m/%d/%{call-id}=%{from-tag}",
    )
    .long("record-name"),
    Opt::new(
        "record_layout",
        Form::Word("LAYOUT", &["call", "journal"]),
        "call (files for each recording) or journal (one file for all, the next one each minute)",
    )
    .long("record-layout")
    .default(Fallback::Value("call")),
    Opt::new("record_segment", Form::Text("DURATION"), "How long a file of a journal lasts: 30s, 5m, 1h")
        .long("record-segment")
        .default(Fallback::Words("60s")),
    Opt::new("record_ns", Form::Switch, "Nanoseconds in classic pcap").long("record-ns"),
    Opt::new("record_buffer", Form::Bytes("BYTES"), "Memory for packets that wait for the disk; K, M, G")
        .long("record-buffer")
        .default(Fallback::Value(RECORD_BUFFER_DEFAULT)),
    Opt::new(
        "record_flush",
        Form::Text("DURATION"),
        "Write packets to their files after so long at most: 100ms to 60s",
    )
    .long("record-flush")
    .default(Fallback::Value("1s")),
    Opt::new(
        "record_rotate_size",
        Form::Bytes("BYTES"),
        "Recordings go on in the next file before one is longer; K, M, G, T",
    )
    .long("record-rotate-size"),
    Opt::new(
        "record_rotate_time",
        Form::Text("DURATION"),
        "Recordings go on in the next file after so long: 30s, 15m, 1h",
    )
    .long("record-rotate-time"),
    Opt::new(
        "record_compress",
        Form::Word("METHOD", &["zstd", "gzip"]),
        "Compress recordings when they have ended: zstd or gzip",
    )
    .long("record-compress"),
    Opt::new("preroll", Form::Number("SECONDS"), "Keep the last seconds of calls for recordings that begin later")
        .long("preroll"),
    Opt::new("preroll_memory", Form::Bytes("BYTES"), "Memory for what --preroll keeps; K, M, G")
        .long("preroll-memory")
        .default(Fallback::Words(PREROLL_MEMORY_DEFAULT)),
    Opt::new("record_max_age", Form::Text("AGE"), "Remove recordings that ended so long ago: 30d, 12h, 90m")
        .long("record-max-age"),
    Opt::new(
        "record_quota",
        Form::Bytes("BYTES"),
        "Remove the oldest recordings while all take more; K, M, G, T",
    )
    .long("record-quota"),
    Opt::new(
        "record_encrypt",
        Form::Texts("RECIPIENT"),
        "Encrypt recordings for a public key of age or ssh, or for those in a file; repeatable",
    )
    .long("record-encrypt"),
    Opt::new(
        "codec_map",
        Form::Texts("PT=NAME/RATE"),
        "Name a dynamic payload type for Wireshark, repeatable: 111=opus/48000/2",
    )
    .long("codec-map"),
    Opt::new(
        "record_events",
        Form::Texts("TARGET"),
        "Tell what becomes of recordings, repeatable: lines of JSON to unix:PATH or a FILE; exec:PROGRAM runs it \
         for each finished one",
    )
    .long("record-events"),
    Opt::new(
        "compat",
        Form::Switch,
        "The C program's defaults: --latch legacy --record-format adhoc --record-scope stream, its file names \
         and modes",
    )
    .long("compat"),
];

const MODULES: &[Opt] = &[
    Opt::new("config", Form::File("FILE"), "File that names modules and sets them up").long("config"),
    Opt::new(
        "dso",
        Form::Texts("MODULE"),
        "Use a module: acct_csv, catch_dtmf, or a path that ends in rtpp_NAME.so",
    )
    .long("dso"),
];

const PROCESS: &[Opt] = &[
    Opt::new("foreground", Form::Switch, "Stay in the foreground").short('f'),
    Opt::new("allow_root", Form::Switch, "Run as root without a warning, and with UDP control sockets")
        .short('F'),
    Opt::new("user", Form::Text("USER[:GROUP]"), "Give up root for this user, this group").short('u'),
    Opt::new("pid_file", Form::File("FILE"), "File for the process id")
        .short('p')
        .default(Fallback::Value("/var/run/rtpproxy.pid")),
    Opt::new("no_chdir", Form::Switch, "Do not change to / in the background").short('D'),
    Opt::new("no_redirect", Form::Switch, "Keep standard output and error in the background, log there too")
        .long("no_redirect"),
    Opt::new(
        "log",
        Form::Text("LEVEL[:FACILITY]"),
        "Log from this level on: dbug, info, warn, err, crit; facility of syslog",
    )
    .short('d')
    .default(Fallback::Value("err:daemon")),
    Opt::new("open_files", Form::Number("N"), "Limit of open files").short('L'),
    Opt::new("nice", Form::Number("N"), "Nice level, -20 to 20").long("nice"),
];

const SETTINGS: &[Opt] = &[
    Opt::new(
        "settings",
        Form::File("FILE"),
        "Read settings from this TOML file; or the one that RTPPROXY_SETTINGS names",
    )
    .long("settings")
    .reach(Reach::Variable),
    Opt::new("check", Form::Switch, "Print the settings in force and where each comes from, start nothing")
        .long("check")
        .reach(Reach::Line),
];

const INFORMATION: &[Opt] = &[
    Opt::new("version", Form::Switch, "Print the version").short('V').reach(Reach::Line),
    Opt::new("protocol", Form::Switch, "Print the versions of the control protocol")
        .short('v')
        .reach(Reach::Line),
    Opt::new("clock", Form::Switch, "Print the name of the clock that log times are measured on")
        .short('C')
        .reach(Reach::Line),
    Opt::new("help", Form::Switch, "Print this help").long("help").reach(Reach::Line),
];
