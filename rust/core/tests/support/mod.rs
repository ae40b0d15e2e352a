//! An engine on fake ports in virtual time.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rtpproxy_core::addr::{Family, LocalAddr};
use rtpproxy_core::command::{Command, Reply};
use rtpproxy_core::config::{EngineConfig, FrontConfig, ListenAddr};
use rtpproxy_core::effects::{Effect, MediaPort, Out, Packet, PairId, Payload};
use rtpproxy_core::engine::{Arrival, Engine};
use rtpproxy_core::front::{Accepted, Front, Origin, Routes};
use rtpproxy_core::host::{FolderState, Host, OpenError, OpenedPair};
use rtpproxy_core::port_pool::{Bind, PortPool};
use rtpproxy_core::recording::{Channel, EndReason};
use rtpproxy_core::time::{Mono, Now, Wall};

/// Front, engine and a host without sockets, with a clock that only tests move.
pub struct Lab {
    pub front: Front,
    pub engine: Engine,
    pub host: FakeHost,
    pub out: Out,
    pub now: Now,
    pub origin: Origin,
    packet: Packet,
}

impl Lab {
    /// Ports 22000 to 22398 in order, on 127.0.0.1 (internal) and ::1 (external), symmetric by default.
    pub fn new() -> Self {
        Self::with(EngineConfig::default(), bridge(), 22000, 22398)
    }

    pub fn with_engine(config: EngineConfig) -> Self {
        Self::with(config, bridge(), 22000, 22398)
    }

    pub fn with(engine: EngineConfig, front: FrontConfig, port_min: u16, port_max: u16) -> Self {
        let now = Now { mono: Mono(1_000_000_000_000), wall: Wall(1_700_000_000_000_000_000) };
        Self {
            front: Front::new(front),
            engine: Engine::new(engine, now),
            host: FakeHost::new(port_min, port_max),
            out: Out::default(),
            now,
            origin: Origin::default(),
            packet: Packet::new(),
        }
    }

    /// Sends a command; the reply without its line feed. Effects replace those of the call before.
    pub fn ask(&mut self, command: &str) -> String {
        self.ask_bytes(command.as_bytes())
    }

    pub fn ask_bytes(&mut self, command: &[u8]) -> String {
        let accepted = self.front.accept(command, self.origin, &FakeRoutes);
        self.carry_out(accepted)
    }

    /// Sends a command as a value.
    pub fn ask_command(&mut self, command: Command) -> String {
        let accepted = self.front.accept_command(command, self.origin, &FakeRoutes);
        self.carry_out(accepted)
    }

    fn carry_out(&mut self, accepted: Accepted) -> String {
        self.out.clear();
        let reply = match accepted {
            Accepted::Answer(reply) => reply,
            Accepted::One(request) => {
                self.engine.handle_command(self.now, &request, &mut self.host, &mut self.out)
            }
            Accepted::DeleteAll => {
                self.engine.delete_all(self.now, EndReason::Deleted, &mut self.out);
                Reply::Done
            }
            Accepted::Info { load } => self.front.info(&self.engine.stats(), load),
            Accepted::Counters { verbose, names } => {
                self.front.counters(&self.engine.stats(), verbose, &names)
            }
            Accepted::Recordings { .. } => Reply::Recordings("{}".into()),
        };
        self.front.answered(&reply);
        self.close_pairs();
        let text = String::from_utf8(reply.encode()).expect("replies are text");
        text.strip_suffix('\n').expect("replies end in a line feed").to_owned()
    }

    /// Lets time pass, second by second.
    pub fn pass(&mut self, span: Duration) {
        self.out.clear();
        let end = self.now.mono + span;
        while self.engine.next_deadline() <= end {
            let step = self.engine.next_deadline().since(self.now.mono);
            self.now = self.now + step;
            self.engine.handle_timeout(self.now, &mut self.out);
        }
        self.now = self.now + end.since(self.now.mono);
        self.close_pairs();
    }

    /// The TOS bytes that the last command set, by the RTP port.
    pub fn tos_set(&self) -> Vec<(u16, u8)> {
        let effects = self.out.effects.iter();
        effects
            .filter_map(|effect| match effect {
                Effect::SetTos { pair, tos } => Some((self.host.port_of(*pair)?, *tos)),
                _ => None,
            })
            .collect()
    }

    /// A datagram from `from` to one of our ports; where it goes, by our port and the receiver.
    pub fn datagram(&mut self, from: &str, port: u16, payload: &[u8]) -> Vec<(u16, SocketAddr)> {
        self.out.clear();
        let from: SocketAddr = from.parse().expect("an address");
        let channel = if port.is_multiple_of(2) { Channel::Rtp } else { Channel::Rtcp };
        let family = Family::of(from.ip());
        let pair = self.host.pair_of(port & !1, family).expect("an open port");
        self.packet.fill(payload);
        let arrival = Arrival { port: MediaPort { pair, channel }, from, to: None };
        self.engine.handle_packet(self.now, arrival, &mut self.packet, &mut self.out);
        self.sent().into_iter().map(|(_, port, to)| (port, to)).collect()
    }

    /// The packets that the last datagram made: the bytes, our port and the receiver.
    pub fn sent(&self) -> Vec<(Vec<u8>, u16, SocketAddr)> {
        let sends = self.out.effects.iter().filter_map(|effect| match effect {
            Effect::Send { payload, via, to } | Effect::Copy { payload, via, to } => Some((payload, via, to)),
            _ => None,
        });
        sends
            .map(|(payload, via, to)| {
                let bytes = match payload {
                    Payload::Received => self.packet.payload(),
                    Payload::Scratch(range) => &self.out.scratch[range.clone()],
                };
                let base = self.host.port_of(via.pair).expect("sends from an open pair");
                (bytes.to_vec(), base + u16::from(via.channel == Channel::Rtcp), *to)
            })
            .collect()
    }

    pub fn rtp(&mut self, from: &str, port: u16, ssrc: u32, sequence: u16) -> Vec<(u16, SocketAddr)> {
        self.datagram(from, port, &rtp(0, ssrc, sequence))
    }

    fn close_pairs(&mut self) {
        for effect in &self.out.effects {
            if let Effect::Close(pair) = effect {
                self.host.close(self.now, *pair);
            }
        }
    }
}

/// A PCMU packet of 20 ms.
pub fn rtp(payload_type: u8, ssrc: u32, sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0xd5; 160]);
    packet
}

/// A packet with a telephone event (RFC 4733), 10 dB below full scale.
pub fn event(payload_type: u8, timestamp: u32, number: u8, has_ended: bool, duration: u16) -> Vec<u8> {
    let mut packet = rtp(payload_type, 7, 1);
    packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
    packet.truncate(12);
    packet.extend([number, if has_ended { 0x8a } else { 0x0a }]);
    packet.extend(duration.to_be_bytes());
    packet
}

pub fn bridge() -> FrontConfig {
    let addr = |text: &str| LocalAddr::plain(text.parse().expect("an address"));
    FrontConfig {
        listen: vec![ListenAddr { label: None, addr: addr("127.0.0.1") }],
        external: Some(addr("::1")),
        modules: Vec::new(),
        notify: Vec::new(),
        one_copy: false,
    }
}

/// Ports without sockets.
pub struct FakeHost {
    v4: PortPool,
    v6: PortPool,
    open: Vec<Option<(IpAddr, u16)>>,
    /// Ports that something else holds.
    pub taken: HashSet<u16>,
    pub folder: FolderState,
    /// Prompt files by payload type, whatever their name.
    pub prompts: HashMap<u8, Arc<[u8]>>,
    random: u64,
}

impl FakeHost {
    fn new(port_min: u16, port_max: u16) -> Self {
        Self {
            v4: PortPool::new(port_min, port_max, true),
            v6: PortPool::new(port_min, port_max, true),
            open: Vec::new(),
            taken: HashSet::new(),
            folder: FolderState::Ready,
            prompts: HashMap::new(),
            random: 0,
        }
    }

    pub fn pair_of(&self, port: u16, family: Family) -> Option<PairId> {
        let at = self
            .open
            .iter()
            .position(|open| open.is_some_and(|(ip, p)| p == port && Family::of(ip) == family))?;
        Some(PairId(at as u32))
    }

    pub fn port_of(&self, pair: PairId) -> Option<u16> {
        self.open.get(pair.0 as usize).copied().flatten().map(|(_, port)| port)
    }

    pub fn open_ports(&self) -> usize {
        self.open.iter().flatten().count()
    }

    fn close(&mut self, now: Now, pair: PairId) {
        let (ip, port) = self.open[pair.0 as usize].take().expect("closes an open pair");
        let pool = if ip.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        pool.release(now.mono, port);
    }
}

impl Host for FakeHost {
    fn open_pair(&mut self, now: Now, ip: IpAddr) -> Result<OpenedPair, OpenError> {
        let (open, taken, random) = (&self.open, &self.taken, &mut self.random);
        let pool = if ip.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        let ours = ip.is_loopback() || ip.is_unspecified();
        let bind = |port: u16| {
            if !ours {
                Bind::Failed(())
            } else if taken.contains(&port) || open.contains(&Some((ip, port))) {
                Bind::Busy
            } else {
                Bind::Ok(port)
            }
        };
        let mut next = || {
            *random += 1;
            *random
        };
        let port = pool.allocate(now.mono, &mut next, bind).map_err(|error| match error {
            rtpproxy_core::port_pool::PoolError::Exhausted => OpenError::Exhausted,
            rtpproxy_core::port_pool::PoolError::Failed(()) => OpenError::Failed,
        })?;
        let at = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
        if at == self.open.len() {
            self.open.push(None);
        }
        self.open[at] = Some((ip, port));
        Ok(OpenedPair { id: PairId(at as u32), port })
    }

    fn prompt(&self, payload_type: u8) -> Option<Arc<[u8]>> {
        self.prompts.get(&payload_type).cloned()
    }

    fn recording_folder(&self) -> FolderState {
        self.folder
    }

    fn random(&mut self) -> u64 {
        self.random += 1;
        self.random
    }
}

/// 127.0.0.0/8 and ::1 are reachable.
pub struct FakeRoutes;

impl Routes for FakeRoutes {
    fn source_for(&self, to: IpAddr) -> Option<IpAddr> {
        to.is_loopback().then(|| if to.is_ipv4() { IpAddr::from([127, 0, 0, 1]) } else { to })
    }
}
