//! What the engine and the front need to know of the configuration.

use std::net::IpAddr;

use crate::addr::LocalAddr;
use crate::command::NotifyTarget;

/// How a stream's source is chosen and defended (docs/latching.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LatchMode {
    /// Only the signalled address speaks; without one, nobody does.
    Strict,
    /// The signalled address first, then its host, then a stranger that behaves like a phone.
    #[default]
    Nat,
    /// The rules of the C program.
    Legacy,
}

/// What one `R` records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordScope {
    /// Both legs of the call in one recording.
    #[default]
    Call,
    /// Only what the named party sends, as the C program does.
    Stream,
}

/// Settings of the session logic.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Seconds without media until a complete session ends (`-T`).
    pub max_ttl_s: u32,
    /// Seconds until a session that is not complete ends (`-W`).
    pub setup_ttl_s: u32,
    /// One countdown for each side instead of one for the session (`-i`).
    pub independent_timers: bool,
    /// How sources are latched (`--latch`).
    pub latch: LatchMode,
    /// Parties are asymmetric unless a command says otherwise: `--force_asymmetric`, or bridge mode without
    /// `--bridge_symmetric`.
    pub asymmetric: bool,
    /// Packets shorter than 128 bytes are sent twice (`-2`).
    pub double_send: bool,
    /// Every session is recorded from its creation (`-a`).
    pub record_all: bool,
    /// What one `R` covers (`--record-scope`).
    pub record_scope: RecordScope,
    /// RTCP is recorded too (off with `-R`).
    pub record_rtcp: bool,
    /// The last seconds of calls are kept for recordings that begin later; the relay sets this (`--preroll`).
    pub preroll: bool,
    /// `Rs` and `-a` make one file of both sides in scope [`RecordScope::Stream`]: true with `-P`.
    pub single_file: bool,
    /// A party has one copy at a time, a recording or a host, as in the C program (with `--compat`).
    pub one_copy: bool,
    /// Each session that ends tells its figures; the relay sets this if it has a module for them.
    pub accounting: bool,
    /// RTCP is told to capture servers ([`crate::effects::Effect::Rtcp`]).
    pub capture_rtcp: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_ttl_s: 60,
            setup_ttl_s: 60,
            independent_timers: false,
            latch: LatchMode::Nat,
            asymmetric: false,
            double_send: false,
            record_all: false,
            record_scope: RecordScope::Call,
            record_rtcp: true,
            preroll: false,
            single_file: false,
            one_copy: false,
            accounting: false,
            capture_rtcp: false,
        }
    }
}

/// One listen address, in the order of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddr {
    /// The name for `l{LABEL}`; the default address has none.
    pub label: Option<Box<str>>,
    /// The address and what replies say instead of it.
    pub addr: LocalAddr,
}

/// One notification target (`-n`), by the text the operator wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotifySpec {
    /// A fixed target and the exact text that names it in `U`.
    Fixed {
        /// The text after `-n`.
        name: Box<[u8]>,
        /// Where it leads.
        target: NotifyTarget,
    },
    /// `tcp:%%CC_SELF%%:PORT`: back to whoever sent the command.
    Caller {
        /// The text after `-n`.
        name: Box<[u8]>,
        /// The port to connect to.
        port: u16,
    },
}

/// A built-in module of the relay, by the number that sub-commands know it by (docs/protocol.md, `M`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleKind {
    /// A line in a CSV file for each session that ends.
    AcctCsv = 1,
    /// RTCP reports to a capture server, as HEPv3.
    AcctRtcpHep = 2,
    /// Digits that a party dials are reported.
    CatchDtmf = 3,
}

impl ModuleKind {
    /// The number in `M`.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// Whether the module takes sub-commands.
    pub fn has_commands(self) -> bool {
        self == Self::CatchDtmf
    }
}

/// Settings of the rules that are applied before a command reaches a session.
#[derive(Clone, Debug)]
pub struct FrontConfig {
    /// The local addresses; the first is the default (bindaddr 0, "internal").
    pub listen: Vec<ListenAddr>,
    /// The "external" address of bridge mode (bindaddr 1).
    pub external: Option<LocalAddr>,
    /// Where timeouts may be reported.
    pub notify: Vec<NotifySpec>,
    /// The modules in the order in which they were named; the relay fills this in from its own list. Those of
    /// one kind are its instances 1, 2, …
    pub modules: Vec<ModuleKind>,
    /// As [`EngineConfig::one_copy`].
    pub one_copy: bool,
}

impl Default for FrontConfig {
    fn default() -> Self {
        let addr = LocalAddr { ip: IpAddr::from([0, 0, 0, 0]), advertised: None };
        Self {
            listen: vec![ListenAddr { label: None, addr }],
            external: None,
            notify: Vec::new(),
            modules: Vec::new(),
            one_copy: false,
        }
    }
}
