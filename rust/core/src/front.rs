//! What happens to a command before it reaches a session: the rules that depend on the configuration, the
//! command counters, and the answers that need no session.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use tracing::{debug, error, info};

pub use self::copy_to::CopyTo;

use crate::addr::{Family, LocalAddr};
use crate::command::{
    CAPABILITIES, Command, ErrorCode, Info, LocalSpec, Modifier, Modifiers, NOTIFY_CAPABILITY, NotifyTarget,
    Offer, REPLY_MAX, Reply, Rules, SubCommand, parse,
};
use crate::config::{FrontConfig, NotifySpec};
use crate::stats::{CommandStats, Stats};

mod copy_to;

/// Where a command came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The IPv4 address of the sender; `None` for UNIX, stdio and IPv6 sockets.
    pub peer: Option<Ipv4Addr>,
    /// The IPv4 address that the control socket is bound to, unless it is the wildcard.
    pub bound: Option<Ipv4Addr>,
}

/// The answer of the host's routing table, asked for by the `r` modifier.
pub trait Routes {
    /// Our source address for packets to `to`.
    fn source_for(&self, to: IpAddr) -> Option<IpAddr>;
}

/// Which local addresses a `U` or `L` asks for (docs/protocol.md, local addresses).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalChoice {
    /// `l`, `r`, or the family of the media address: for both sides of a new session, or for a side of an
    /// existing one that gets a new port.
    pub replace: Option<LocalAddr>,
    /// The addresses of the direction letters in the order written.
    pub directions: Vec<LocalAddr>,
    /// The default address (bindaddr 0).
    pub default: LocalAddr,
}

/// A command with everything resolved that depends on the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The command.
    pub command: Command,
    /// For `U` and `L`.
    pub locals: Option<LocalChoice>,
    /// For each sub-command `L`, in order.
    pub sub_locals: Vec<LocalChoice>,
    /// The notification target of a `U` with notify arguments; `None` if it is unknown.
    pub notify: Option<NotifyTarget>,
    /// For `C` and `?uncopy`. A [`CopyTo::Name`] is to be looked up before the engine gets the request.
    pub copy: Option<CopyTo>,
}

/// What to do with a command that arrived.
#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// Answer it; no session is concerned.
    Answer(Reply),
    /// Hand it to the engine that owns its call-id.
    One(Box<Request>),
    /// `X`: every engine deletes everything.
    DeleteAll,
    /// `I`: gather the figures of every engine, then [`Front::info`].
    Info {
        /// With the load.
        load: bool,
    },
    /// `G`: gather the figures of every engine, then [`Front::counters`].
    Counters {
        /// Show the names.
        verbose: bool,
        /// The counters asked for.
        names: Vec<Box<[u8]>>,
    },
    /// `?recordings`: ask the recorder.
    Recordings {
        /// The recordings whose number is above this one.
        after: u64,
    },
}

/// The state before the sessions: local addresses, notification targets and command counters.
#[derive(Debug)]
pub struct Front {
    config: FrontConfig,
    /// Every local address in the order it became known: configured ones first, then those of `l` and `r`.
    locals: Vec<LocalAddr>,
    stats: CommandStats,
}

impl Front {
    /// The front for this configuration; `config.listen` has at least one address.
    pub fn new(config: FrontConfig) -> Self {
        let mut locals: Vec<LocalAddr> = config.listen.iter().map(|listen| listen.addr.clone()).collect();
        // In bridge mode the external address follows the default one it was configured with.
        if let Some(external) = &config.external {
            locals.insert(1.min(locals.len()), external.clone());
        }
        Self { config, locals, stats: CommandStats::default() }
    }

    /// Takes a command as text. It is counted; [`Self::answered`] must follow with its reply.
    pub fn accept(&mut self, text: &[u8], origin: Origin, routes: &dyn Routes) -> Accepted {
        self.stats.rcvd += 1;
        let routes = &Remembered::new(routes);
        let parsed = parse(text, &mut Checks { front: self, routes });
        match parsed {
            Ok(command) => self.admit(command, origin, routes),
            Err(code) => {
                debug!(code = %code, "refused: {}", code.text());
                Accepted::Answer(Reply::Error(code))
            }
        }
    }

    /// Takes a command as a value, with the same checks in the same order.
    pub fn accept_command(&mut self, command: Command, origin: Origin, routes: &dyn Routes) -> Accepted {
        self.stats.rcvd += 1;
        let routes = &Remembered::new(routes);
        let checked = command.check().and_then(|()| match &command {
            Command::Update(offer) | Command::Lookup(offer) => {
                check_modifiers(&offer.modifiers, &mut Checks { front: self, routes })
            }
            _ => Ok(()),
        });
        let checked = checked.and_then(|()| check_subs(command.subs(), &mut Checks { front: self, routes }));
        match checked {
            Ok(()) => self.admit(command, origin, routes),
            Err(code) => Accepted::Answer(Reply::Error(code)),
        }
    }

    /// Counts a repeated datagram, which is answered from the reply cache.
    pub fn repeated(&mut self) {
        self.stats.rcvd_dups += 1;
    }

    /// Counts the reply to a command.
    pub fn answered(&mut self, reply: &Reply) {
        self.stats.repld += 1;
        if reply.is_error() {
            self.stats.errs += 1;
        } else {
            self.stats.succd += 1;
        }
    }

    /// The counters of commands.
    pub fn stats(&self) -> CommandStats {
        self.stats
    }

    /// The answer to `I`, from the figures of all engines.
    pub fn info(&self, stats: &Stats, load: bool) -> Reply {
        Reply::Info(Info {
            sessions_created: stats.nsess_created,
            sessions_active: stats.sessions_active,
            streams_active: stats.sessions_active * 2,
            packets_received: stats.npkts_rcvd,
            packets_transmitted: stats.npkts_relayed + stats.npkts_played,
            load: load.then_some(0.0),
        })
    }

    /// The answer to `G`, from the figures of all engines.
    pub fn counters(&self, stats: &Stats, verbose: bool, names: &[Box<[u8]>]) -> Reply {
        let mut values = Vec::with_capacity(names.len());
        for name in names {
            let Some((name, value)) = stats.counter(name, &self.stats) else {
                return Reply::Error(ErrorCode::UNKNOWN_COUNTER);
            };
            values.push((name.into(), value));
        }
        let reply = Reply::Counters { verbose, values };
        if reply.encode().len() > REPLY_MAX { Reply::Error(ErrorCode::COUNTERS_TOO_LONG) } else { reply }
    }

    fn admit(&mut self, command: Command, origin: Origin, routes: &dyn Routes) -> Accepted {
        if let Some(code) = self.refusal(&command) {
            return Accepted::Answer(Reply::Error(code));
        }
        match command {
            Command::Version => Accepted::Answer(Reply::Version),
            Command::Feature(id) => Accepted::Answer(Reply::Feature(self.has_capability(&id))),
            Command::DeleteAll => Accepted::DeleteAll,
            Command::Info { load } => Accepted::Info { load },
            Command::Counters { verbose, names } => Accepted::Counters { verbose, names },
            Command::Recordings { after } => Accepted::Recordings { after },
            command => {
                let (locals, notify) = match &command {
                    Command::Update(offer) => {
                        (Some(self.local_choice(&offer.modifiers, routes)), self.notify_target(offer, origin))
                    }
                    Command::Lookup(offer) => (Some(self.local_choice(&offer.modifiers, routes)), None),
                    _ => (None, None),
                };
                let sub_locals = command.subs().iter().filter_map(|sub| match sub {
                    SubCommand::Lookup { modifiers, .. } => Some(self.local_choice(modifiers, routes)),
                    _ => None,
                });
                let sub_locals = sub_locals.collect();
                let copy = match &command {
                    Command::Copy { target, .. } | Command::StopCopy { target, .. } => {
                        Some(CopyTo::parse(target, routes))
                    }
                    _ => None,
                };
                Accepted::One(Box::new(Request { command, locals, sub_locals, notify, copy }))
            }
        }
    }

    /// What this relay refuses whatever the session is: notify arguments without a target, and commands that
    /// end one of several copies where there is only one.
    fn refusal(&self, command: &Command) -> Option<ErrorCode> {
        match command {
            Command::Update(offer) if offer.notify.is_some() && self.config.notify.is_empty() => {
                error!(call_id = %offer.party.call_id, "notify arguments, but no notification target (-n) is configured");
                Some(ErrorCode::NO_NOTIFY)
            }
            Command::StopCopy { .. } if self.config.one_copy => Some(ErrorCode::UNKNOWN_COMMAND),
            _ => None,
        }
    }

    fn has_capability(&self, id: &[u8]) -> bool {
        CAPABILITIES.iter().any(|(known, _)| known.as_bytes() == id)
            && (id != NOTIFY_CAPABILITY.as_bytes() || !self.config.notify.is_empty())
    }

    fn local_choice(&mut self, modifiers: &Modifiers, routes: &dyn Routes) -> LocalChoice {
        let mut explicit = None;
        let mut directions = Vec::new();
        for modifier in &modifiers.0 {
            match modifier {
                Modifier::Local(LocalSpec::Addr(ip)) => explicit = Some(self.local_addr(*ip)),
                Modifier::Local(LocalSpec::Label(label)) => explicit = self.labelled(label),
                Modifier::RouteTo(ip) => {
                    if let Some(source) = routes.source_for(*ip) {
                        explicit = Some(self.local_addr(source));
                    }
                }
                Modifier::External => directions.extend(self.config.external.clone()),
                Modifier::Internal => directions.push(self.default_local().clone()),
                _ => {}
            }
        }
        let replace = explicit.or_else(|| self.family_choice(modifiers).ok().flatten().cloned());
        LocalChoice { replace, directions, default: self.default_local().clone() }
    }

    /// The address that the family of the media asks for, where neither `l r e i` nor the default decides.
    fn family_choice(&self, modifiers: &Modifiers) -> Result<Option<&LocalAddr>, ErrorCode> {
        let chosen = modifiers.0.iter().any(|modifier| {
            matches!(
                modifier,
                Modifier::Local(_) | Modifier::RouteTo(_) | Modifier::External | Modifier::Internal
            )
        });
        let family = if modifiers.has(&Modifier::Ipv6) { Family::V6 } else { Family::V4 };
        if chosen || self.default_local().family() == family {
            return Ok(None);
        }
        let last = self.locals.iter().rev().find(|local| local.family() == family);
        last.map(Some).ok_or(ErrorCode::NO_LOCAL_ADDRESS)
    }

    fn default_local(&self) -> &LocalAddr {
        &self.locals[0]
    }

    fn labelled(&self, label: &str) -> Option<LocalAddr> {
        let listen = self.config.listen.iter().find(|listen| listen.label.as_deref() == Some(label))?;
        Some(listen.addr.clone())
    }

    fn local_addr(&mut self, ip: IpAddr) -> LocalAddr {
        if let Some(known) = self.locals.iter().find(|local| local.ip == ip) {
            return known.clone();
        }
        let added = LocalAddr::plain(ip);
        if self.locals.len() < LOCALS_MAX {
            self.locals.push(added.clone());
        }
        added
    }

    fn notify_target(&self, offer: &Offer, origin: Origin) -> Option<NotifyTarget> {
        let wanted = &*offer.notify.as_ref()?.socket;
        let target = self.config.notify.iter().find_map(|spec| match spec {
            NotifySpec::Fixed { name, target } => (same_target(name, wanted)).then(|| target.clone()),
            NotifySpec::Caller { name, port } => (**name == *wanted).then(|| {
                let peer = origin.peer.unwrap_or(Ipv4Addr::LOCALHOST);
                NotifyTarget::Tcp { to: SocketAddrV4::new(peer, *port), from: origin.bound }
            }),
        });
        if target.is_none() {
            error!(
                call_id = %offer.party.call_id,
                "unknown notification target \"{}\": no notification for this session",
                String::from_utf8_lossy(wanted)
            );
        }
        target
    }
}

/// Routes that are looked up once in a command, which is checked first and carried out then.
struct Remembered<'a> {
    routes: &'a dyn Routes,
    known: RefCell<Vec<(IpAddr, Option<IpAddr>)>>,
}

impl<'a> Remembered<'a> {
    fn new(routes: &'a dyn Routes) -> Self {
        Self { routes, known: RefCell::default() }
    }
}

impl Routes for Remembered<'_> {
    fn source_for(&self, to: IpAddr) -> Option<IpAddr> {
        let mut known = self.known.borrow_mut();
        if let Some((_, source)) = known.iter().find(|(known, _)| *known == to) {
            return *source;
        }
        let source = self.routes.source_for(to);
        known.push((to, source));
        source
    }
}

/// The checks that the parser asks for.
struct Checks<'a> {
    front: &'a Front,
    routes: &'a dyn Routes,
}

impl Rules for Checks<'_> {
    fn modifier(&mut self, earlier: &[Modifier], modifier: &Modifier) -> Result<(), ErrorCode> {
        let bridge = |code| {
            let letters =
                earlier.iter().filter(|m| matches!(m, Modifier::External | Modifier::Internal)).count();
            if self.front.config.external.is_some() && letters < 2 { Ok(()) } else { Err(code) }
        };
        match modifier {
            Modifier::External => bridge(ErrorCode::EXTERNAL),
            Modifier::Internal => bridge(ErrorCode::INTERNAL),
            Modifier::Local(LocalSpec::Label(label)) if self.front.labelled(label).is_none() => {
                Err(ErrorCode::LOCAL_UNKNOWN)
            }
            Modifier::RouteTo(ip) if self.routes.source_for(*ip).is_none() => Err(ErrorCode::NO_ROUTE),
            _ => Ok(()),
        }
    }

    fn has_module(&mut self, id: u32, instance: u32) -> bool {
        let named = self.front.config.modules.iter().filter(|kind| kind.id() == id && kind.has_commands());
        let known = instance >= 1 && named.count() >= instance as usize;
        if !known {
            info!("refused: sub-command M{id}:{instance}, as no such module is loaded that takes commands");
        }
        known
    }

    fn family(&mut self, modifiers: &Modifiers) -> Result<(), ErrorCode> {
        self.front.family_choice(modifiers).map(|_| ())
    }
}

fn check_modifiers(modifiers: &Modifiers, rules: &mut dyn Rules) -> Result<(), ErrorCode> {
    for (at, modifier) in modifiers.0.iter().enumerate() {
        rules.modifier(&modifiers.0[..at], modifier)?;
    }
    rules.family(modifiers)
}

/// Whatever is wrong with a sub-command is E3.
fn check_subs(subs: &[SubCommand], rules: &mut dyn Rules) -> Result<(), ErrorCode> {
    let is_right = subs.iter().all(|sub| match sub {
        SubCommand::Lookup { modifiers, .. } => check_modifiers(modifiers, rules).is_ok(),
        SubCommand::Module { id, instance, .. } => rules.has_module(*id, *instance),
        SubCommand::Delete { .. } | SubCommand::Set { .. } | SubCommand::Fork(_) => true,
    });
    if is_right { Ok(()) } else { Err(ErrorCode::SUB_COMMAND) }
}

/// The path of a UNIX target may be written with or without its prefix, on either side.
fn same_target(name: &[u8], wanted: &[u8]) -> bool {
    name.strip_prefix(b"unix:").unwrap_or(name) == wanted.strip_prefix(b"unix:").unwrap_or(wanted)
}

/// Local addresses that commands may add; a bound against a client that invents them.
const LOCALS_MAX: usize = 1024;
