//! The one table of options: names, values and help texts.

use clap::builder::Styles;
use clap::{Arg, ArgAction, Command, ValueHint};

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

/// Every option of the daemon, for [`super::getopt`] to walk over and for the help to show.
pub(crate) fn command() -> Command {
    Command::new("rtpproxy")
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .styles(Styles::styled())
        .max_term_width(110)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .override_usage("rtpproxy [OPTION]...\n       rtpproxy demo [OPTION]...")
        .after_help(
            "Short options may be joined (-fF), long ones abbreviated (--no_red).\n\
             The environment variable RTPPROXY_COMPAT=1 stands for --compat.",
        )
        .args(addresses())
        .args(control())
        .args(media())
        .args(sessions())
        .args(recording())
        .args(process())
        .args(information())
}

/// Bytes of the default of `--record-buffer`, as the help writes it.
pub(super) const RECORD_BUFFER_DEFAULT: &str = "64M";

fn addresses() -> Vec<Arg> {
    group(
        "Addresses and ports",
        vec![
            value("listen4", 'l', "ADDR").help(
                "IPv4 address for media: [LABEL@]ADDR[/ADDR2][=ADVERTISED] [default: *]; ADDR2 bridges",
            ),
            value("listen6", '6', "ADDR").help("The same for IPv6"),
            value("advertise", 'A', "ADDR[/ADDR2]")
                .help("What replies say instead of the two bridged addresses"),
            value("port_min", 'm', "PORT").help("Lowest port for media [default: 35000]"),
            value("port_max", 'M', "PORT").help("Highest port for media [default: 65000]"),
            flag("sequential", 'b').help("Give out ports in order instead of unpredictable ones"),
            long_flag("no_resolve").help("Take numeric addresses only, ask no name service"),
        ],
    )
}

fn control() -> Vec<Arg> {
    group(
        "Control",
        vec![
            value("control", 's', "SOCKET").help(
                "Control socket, repeatable: unix:PATH, cunix:PATH, udp:HOST[:PORT], udp6:…, tcp:…, tcp6:…, \
                 stdio:, stdioc:, systemd: [default: unix:/var/run/rtpproxy.sock]",
            ),
            value("mode", 'w', "MODE").help("Mode of UNIX control sockets, decimal; needs a group by -u"),
            value("notify", 'n', "TARGET")
                .help("Where sessions may report their end, repeatable: unix:PATH, tcp:HOST:PORT"),
        ],
    )
}

fn media() -> Vec<Arg> {
    group(
        "Media",
        vec![
            long_value("latch", "MODE")
                .help("Who may speak for a party: strict, nat or legacy (as the C program) [default: nat]"),
            value("tos", 't', "N").help("IP TOS byte of IPv4 media, 0 to 255 [default: 184]"),
            flag("double", '2').help("Send packets shorter than 128 bytes twice"),
            long_flag("bridge_symmetric").help("Parties are symmetric in bridge mode too"),
            long_flag("force_asymmetric").help("Parties are asymmetric unless a command says otherwise"),
            long_value("workers", "N").help("Media threads [default: as many as there are cores to use]"),
            value("schedule", 'c', "POLICY").help("Real-time scheduling: fifo or rr"),
        ],
    )
}

fn sessions() -> Vec<Arg> {
    group(
        "Sessions",
        vec![
            value("ttl", 'T', "SECONDS").help("A session ends after so long without media [default: 60]"),
            value("setup_ttl", 'W', "SECONDS")
                .help("A session that is not complete ends after so long [default: as -T]"),
            flag("independent", 'i').help("Each side of a session counts down on its own"),
            long_optional("overload_prot", "X")
                .help("Accepted for scripts of the C program; changes nothing"),
        ],
    )
}

fn recording() -> Vec<Arg> {
    group(
        "Recording",
        vec![
            value("record_dir", 'r', "DIR").value_hint(ValueHint::DirPath).help("Folder for recordings"),
            value("spool_dir", 'S', "DIR")
                .value_hint(ValueHint::DirPath)
                .help("Folder for recordings that are not complete yet"),
            flag("record_all", 'a').help("Record every session"),
            flag("pcap", 'P').help("Classic pcap with microseconds"),
            flag("no_rtcp", 'R').help("Leave RTCP out"),
            long_value("record-format", "FORMAT").help("pcapng, pcap or adhoc (the C program's own) [default: pcapng]"),
            long_value("record-scope", "SCOPE").help("What one command records: call (both legs) or stream (one direction) [default: call]"),
            long_flag("record-ns").help("Nanoseconds in classic pcap"),
            long_value("record-buffer", "BYTES").help(format!(
                "Memory for packets that wait for the disk; K, M, G [default: {RECORD_BUFFER_DEFAULT}]"
            )),
            long_value("codec-map", "PT=NAME/RATE")
                .help("Name a dynamic payload type for Wireshark, repeatable: 111=opus/48000/2"),
            long_flag("compat").help(
                "The C program's defaults: --latch legacy --record-format adhoc --record-scope stream, its file \
                 names and modes",
            ),
        ],
    )
}

fn process() -> Vec<Arg> {
    group(
        "Process",
        vec![
            flag("foreground", 'f').help("Stay in the foreground"),
            flag("allow_root", 'F').help("Run as root without a warning, and with UDP control sockets"),
            value("user", 'u', "USER[:GROUP]").help("Give up root for this user, this group"),
            value("pid_file", 'p', "FILE")
                .value_hint(ValueHint::FilePath)
                .help("File for the process id [default: /var/run/rtpproxy.pid]"),
            flag("no_chdir", 'D').help("Do not change to / in the background"),
            long_flag("no_redirect").help("Keep standard output and error in the background, log there too"),
            value("log", 'd', "LEVEL[:FACILITY]")
                .help("Log from this level: dbug, info, warn, err, crit [default: err]; syslog facility"),
            value("files", 'L', "N").help("Limit of open files"),
            long_value("nice", "N").help("Nice level, -20 to 20"),
            long_value("config", "FILE").help("Configuration of modules; not supported yet"),
            long_value("dso", "PATH").help("Load a module; not supported yet"),
        ],
    )
}

fn information() -> Vec<Arg> {
    group(
        "Information",
        vec![
            flag("version", 'V').help("Print the version"),
            flag("protocol", 'v').help("Print the versions of the control protocol"),
            flag("clock", 'C').help("Print the name of the clock that log times are measured on"),
            long_flag("help").help("Print this help"),
        ],
    )
}

fn group(heading: &'static str, args: Vec<Arg>) -> Vec<Arg> {
    args.into_iter().map(|arg| arg.help_heading(heading)).collect()
}

fn flag(id: &'static str, short: char) -> Arg {
    Arg::new(id).short(short).action(ArgAction::SetTrue)
}

fn long_flag(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue)
}

fn value(id: &'static str, short: char, placeholder: &'static str) -> Arg {
    Arg::new(id).short(short).value_name(placeholder).action(ArgAction::Append)
}

fn long_value(name: &'static str, placeholder: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(placeholder).action(ArgAction::Append)
}

fn long_optional(name: &'static str, placeholder: &'static str) -> Arg {
    long_value(name, placeholder).num_args(0..=1).require_equals(true)
}
