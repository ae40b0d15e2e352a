//! The thread that owns an engine and its media sockets: one loop over commands, packets and time.

use std::collections::HashMap;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SendError};
use std::time::Duration;

use rtpproxy_core::command::{CallId, Reply};
use rtpproxy_core::effects::{MediaPort, Out, Packet};
use rtpproxy_core::engine::{Arrival, Engine};
use rtpproxy_core::front::Request;
use rtpproxy_core::recording::EndReason;
use rtpproxy_core::time::{Mono, Now, Wall};

use crate::carrier::Carrier;
use crate::clock::{self, Batch};
use crate::dispatch::{Job, Leaving, Parcel};
use crate::host::{Random, WorkerHost};
use crate::io::{EVENTS_PER_WAIT, MediaIo, Waker};
use crate::limits::Share;
use crate::pace::{Pace, Wait};
use crate::placement::Stay;
use crate::prompts::Prepared;
use crate::recorder::FolderWatch;
use crate::shutdown::Stage;

/// One worker: everything that a packet needs is in here, owned by one thread and never locked.
pub(crate) struct Worker<I> {
    engine: Engine,
    carrier: Carrier<I>,
    orders: Orders,
    random: Random,
    /// Calls that are here against the hash of their call-id.
    guests: HashMap<CallId, Stay>,
    sessions: Share,
    pace: Pace,
    /// When the present turn began.
    now: Now,
    /// All packets that came until then have been relayed.
    settled: Wall,
    ready: Vec<MediaPort>,
    packet: Packet,
    out: Out,
}

/// What reaches a worker from other threads.
pub(crate) struct Orders {
    /// Commands, with their way back.
    pub(crate) jobs: Receiver<Job>,
    /// Ends the wait for packets.
    pub(crate) waker: Waker,
    /// How far the shutdown is.
    pub(crate) stage: Arc<Stage>,
    /// What the recorder knows of its folder.
    pub(crate) folder: Arc<FolderWatch>,
}

impl<I: MediaIo> Worker<I> {
    /// A worker that has its engine, and what carries out the engine's effects.
    pub(crate) fn new(engine: Engine, carrier: Carrier<I>, orders: Orders, sessions: Share) -> Self {
        let now = clock::now();
        Self {
            engine,
            carrier,
            orders,
            random: Random::new(),
            guests: HashMap::new(),
            sessions,
            pace: Pace::new(now.mono),
            now,
            settled: Wall::default(),
            ready: Vec::new(),
            packet: Packet::new(),
            out: Out::default(),
        }
    }

    /// Works until the relay stops, then ends all sessions.
    pub(crate) fn run(mut self) {
        while !self.orders.stage.is_stopping() {
            if let Err(error) = self.wait() {
                tracing::error!("a media worker cannot wait for packets and ends: {error}");
                break;
            }
            // A defect that one packet or command brings to light must not end the calls of all others.
            if panic::catch_unwind(AssertUnwindSafe(|| self.turn())).is_err() {
                tracing::error!("a media worker panicked; it goes on with the next packet");
                self.out.clear();
            }
        }
        self.engine.delete_all(clock::now(), EndReason::Shutdown, &mut self.out);
        self.carry_out();
    }

    /// One round: what is there is dealt with in the order of urgency, each kind within a budget, so that none
    /// can keep the others waiting.
    fn turn(&mut self) {
        let earlier = mem::replace(&mut self.now, clock::now());

        // Priority 1: commands. A SIP server waits for each, and they are few.
        self.commands();

        // Priority 2: packets, from every socket that the wait reported.
        let is_report_full = self.ready.len() + 1 >= EVENTS_PER_WAIT;
        let packets = self.packets(Batch::new(self.now, earlier));
        if self.ready.is_empty() && !is_report_full {
            // What came before the wait was reported by it, and what is left in a socket is younger than a backlog.
            self.settled = Wall(earlier.wall.0.saturating_sub(BACKLOG_AGE.as_nanos() as u64));
        }
        self.pace.count(self.now.mono, packets);

        // Priority 3: time.
        if self.engine.next_deadline() <= self.now.mono {
            let sessions = self.engine.stats().sessions_active;
            self.engine.handle_timeout(self.now, &mut self.out);
            // Prompts ask for time often, and only what has ended leaves anything to forget.
            if self.engine.stats().sessions_active != sessions {
                self.guests.retain(|call_id, _| self.engine.has_call(call_id));
            }
            // Whoever is told of a timeout finds the session gone.
            self.publish();
            self.carry_out();
        }

        self.carrier.flush(self.now.mono, self.settled);
    }

    fn wait(&mut self) -> std::io::Result<()> {
        let deadline = self.engine.next_deadline().min(self.carrier.deadline());
        let idle = deadline.since(self.now.mono);
        let io = &mut self.carrier.io;
        match self.pace.next_wait() {
            Wait::Block => io.wait(Some(idle), &mut self.ready),
            Wait::Look => io.wait(Some(Duration::ZERO), &mut self.ready),
            Wait::Gather(tick) => {
                io.gather(tick.min(idle))?;
                io.wait(Some(Duration::ZERO), &mut self.ready)
            }
        }
    }

    fn commands(&mut self) {
        for _ in 0..COMMANDS_PER_TURN {
            let Ok(job) = self.orders.jobs.try_recv() else { return };
            self.execute(job);
        }
        // The rest must not wait for the next packet.
        self.orders.waker.wake();
    }

    /// Carries one job out. All its effects are done before it is answered.
    fn execute(&mut self, job: Job) {
        match job {
            Job::Command { request, prompts, ticket, stay } => {
                let reply = self.command(&request, &prompts);
                if let (Some(stay), Some(call_id)) = (stay, request.command.call_id()) {
                    self.host_guest(call_id, stay);
                }
                self.publish();
                ticket.answer(reply);
            }
            Job::Leave { call_id, answer } => {
                let leaving = self.leave(call_id);
                if let Err(SendError(Leaving::Left(parcel))) = answer.send(leaving) {
                    self.arrive(*parcel, None);
                }
            }
            Job::Arrive { parcel, stay } => self.arrive(*parcel, stay),
            Job::Tap { party, id, inlet, answer } => {
                let tapped = self.engine.tap(&party, id);
                if tapped.is_ok() {
                    self.carrier.taps.insert(id, inlet);
                }
                // Whoever asked waits, unless a signal has ended that; then the tap is taken off again.
                let _ = answer.send(tapped);
            }
            Job::Untap { call_id, id } => {
                self.engine.untap(&call_id, id);
                self.carrier.taps.remove(&id);
            }
            Job::DeleteAll(part) => {
                self.engine.delete_all(self.now, EndReason::Deleted, &mut self.out);
                self.carry_out();
                self.guests.clear();
                self.publish();
                part.finish(&self.engine.stats());
            }
            Job::Stats(part) => part.finish(&self.engine.stats()),
        }
    }

    fn command(&mut self, request: &Request, prompts: &Prepared) -> Reply {
        self.engine.set_draining(self.orders.stage.is_draining());
        let mut host = WorkerHost {
            io: &mut self.carrier.io,
            ports: &self.carrier.ports,
            random: &mut self.random,
            folder: &self.orders.folder,
            prompts,
        };
        let reply = self.engine.handle_command(self.now, request, &mut host, &mut self.out);
        self.carry_out();
        reply
    }

    /// Keeps the exception for a call as long as there is a session of it.
    fn host_guest(&mut self, call_id: &CallId, stay: Stay) {
        if self.engine.has_call(call_id) {
            self.guests.insert(call_id.clone(), stay);
        } else {
            self.guests.remove(call_id);
        }
    }

    /// Gives a call away with its sockets. The worker that takes it publishes it; to be counted twice for a
    /// moment is better than not at all.
    fn leave(&mut self, call_id: CallId) -> Leaving {
        if !self.engine.has_call(&call_id) {
            return Leaving::Absent;
        }
        if !self.engine.can_leave(&call_id) {
            tracing::warn!(call_id = %call_id, "a call that is recorded or has forks cannot move to another worker");
            return Leaving::Stays;
        }
        let state = self.engine.export(&call_id).expect("there is such a call");
        let Carrier { io, copy_errors, preroll, taps, .. } = &mut self.carrier;
        let sockets = state.pairs().filter_map(|pair| {
            copy_errors.close(pair.id);
            Some((pair.id, io.detach(pair.id)?))
        });
        let sockets = sockets.collect();
        let kept = state.kept().filter_map(|id| Some((id, preroll.as_mut()?.detach(id)?))).collect();
        let taps = state.taps().filter_map(|id| taps.remove_entry(&id)).collect();
        self.guests.remove(&call_id);
        Leaving::Left(Box::new(Parcel { call_id, state, sockets, kept, taps }))
    }

    /// Takes a call that another worker gave away.
    fn arrive(&mut self, parcel: Parcel, stay: Option<Stay>) {
        let Parcel { call_id, state, mut sockets, kept, taps } = parcel;
        self.carrier.taps.extend(taps);
        let Carrier { io, preroll, .. } = &mut self.carrier;
        if let Some(store) = preroll {
            kept.into_iter().for_each(|(id, ring)| store.attach(id, ring));
        }
        self.engine.import(state, |pair| {
            let at = sockets.iter().position(|(id, _)| *id == pair.id).expect("each pair brings its sockets");
            io.attach(sockets.swap_remove(at).1)
        });
        if let Some(stay) = stay {
            self.guests.insert(call_id, stay);
        }
        self.publish();
    }

    /// Relays what the ready sockets hold; returns how many packets.
    ///
    /// Sockets give one packet each in turn, so that after a pause the parties of a call are not heard, and
    /// recorded, one after the other.
    fn packets(&mut self, batch: Batch) -> u32 {
        let mut packets = 0;
        let mut ready = mem::take(&mut self.ready);
        for _ in 0..READS_PER_SOCKET {
            ready.retain(|&port| {
                let Some(arrived) = self.packet(port, batch) else { return false };
                packets += 1;
                // A phone sends one packet at a time. Only where one had to wait are there others behind it.
                self.now.mono.since(arrived) >= BACKLOG_AGE
            });
            if ready.is_empty() {
                break;
            }
        }
        self.ready = ready;
        packets
    }

    /// Relays one packet; returns when it arrived.
    fn packet(&mut self, port: MediaPort, batch: Batch) -> Option<Mono> {
        let datagram = self.carrier.io.receive(port, &mut self.packet)?;
        let now = batch.arrival(datagram.stamp);
        let arrival = Arrival { port, from: datagram.from, to: datagram.to };
        self.engine.handle_packet(now, arrival, &mut self.packet, &mut self.out);
        self.carry_out();
        Some(now.mono)
    }

    /// Lets other threads know how many sessions there are.
    fn publish(&mut self) {
        self.sessions.set(self.engine.stats().sessions_active as usize);
    }

    fn carry_out(&mut self) {
        self.carrier.carry_out(self.now.mono, &self.packet, &mut self.out);
    }
}

/// Commands before packets get their turn again.
const COMMANDS_PER_TURN: usize = 16;

/// Packets of one socket before the others get their turn again.
const READS_PER_SOCKET: usize = 8;

/// A packet this old has waited longer than the longest tick.
const BACKLOG_AGE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::{IpAddr, SocketAddr};
    use std::sync::mpsc;

    use rtpproxy_core::config::{EngineConfig, FrontConfig};
    use rtpproxy_core::effects::PairId;
    use rtpproxy_core::front::{Front, Origin};
    use rtpproxy_core::recording::Channel;
    use rtpproxy_core::time::Wall;

    use super::*;
    use crate::config::RecordConfig;
    use crate::dispatch::{Lane, RelayHandle, Surroundings};
    use crate::host::Ports;
    use crate::io::{BindError, Datagram, EpollIo, SocketPair};
    use crate::limits::Sessions;
    use crate::modules::ModuleTap;
    use crate::notifier::Notifier;
    use crate::prompts::PromptThread;
    use crate::recorder::Recorder;
    use crate::resolver::Resolver;

    /// Sockets of which the test is the network.
    #[derive(Default)]
    struct FakeIo {
        pairs: Vec<SocketAddr>,
        closed: Vec<PairId>,
        tos: Vec<(PairId, u8)>,
        waiting: HashMap<MediaPort, VecDeque<(Datagram, Vec<u8>)>>,
        sent: Vec<(MediaPort, SocketAddr, Vec<u8>)>,
        refuses: bool,
    }

    impl FakeIo {
        fn arrive(&mut self, port: MediaPort, from: &str, stamp: Wall, payload: &[u8]) {
            let datagram = Datagram { from: from.parse().unwrap(), to: None, stamp: Some(stamp) };
            self.waiting.entry(port).or_default().push_back((datagram, payload.to_vec()));
        }
    }

    impl MediaIo for FakeIo {
        fn add_pair(&mut self, ip: IpAddr, port: u16) -> Result<PairId, BindError> {
            self.pairs.push((ip, port).into());
            Ok(PairId(self.pairs.len() as u32 - 1))
        }

        fn close_pair(&mut self, id: PairId) -> Option<SocketAddr> {
            self.closed.push(id);
            self.pairs.get(id.0 as usize).copied()
        }

        fn set_tos(&mut self, id: PairId, tos: u8) -> std::io::Result<()> {
            self.tos.push((id, tos));
            Ok(())
        }

        fn detach(&mut self, _: PairId) -> Option<SocketPair> {
            None
        }

        fn attach(&mut self, _: SocketPair) -> PairId {
            unreachable!("there is one worker only")
        }

        fn wait(&mut self, _: Option<Duration>, ready: &mut Vec<MediaPort>) -> std::io::Result<()> {
            ready.clear();
            ready.extend(self.waiting.iter().filter(|(_, queue)| !queue.is_empty()).map(|(port, _)| port));
            Ok(())
        }

        fn gather(&mut self, _: Duration) -> std::io::Result<()> {
            Ok(())
        }

        fn receive(&mut self, port: MediaPort, packet: &mut Packet) -> Option<Datagram> {
            let (datagram, payload) = self.waiting.get_mut(&port)?.pop_front()?;
            packet.fill(&payload);
            Some(datagram)
        }

        fn send(&mut self, via: MediaPort, to: SocketAddr, payload: &[u8]) -> std::io::Result<()> {
            if self.refuses {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            self.sent.push((via, to, payload.to_vec()));
            Ok(())
        }
    }

    /// A worker that the test drives by hand, and the way to give it commands.
    fn worker() -> (Worker<FakeIo>, RelayHandle) {
        let waker = EpollIo::new(0).unwrap().waker();
        let (lane, jobs) = Lane::new(waker.clone());
        let (recorder, mut taps) = Recorder::start(RecordConfig::default(), 1).unwrap();
        let notify = Notifier::start().unwrap().handle();
        let (stage, sessions) = (Arc::new(Stage::default()), Arc::new(Sessions::new(1000)));
        let front = Front::new(FrontConfig::default());
        let prompts = PromptThread::start().unwrap().prompts();
        let around = Surroundings {
            resolver: Resolver::new(false),
            stage: Arc::clone(&stage),
            sessions: Arc::clone(&sessions),
            notify: notify.clone(),
            prompts,
            recorder: recorder.view(),
            preroll: None,
        };
        let handle = RelayHandle::new(front, vec![lane], around);
        let ports = Arc::new(Ports::new(9000, 9100, true));
        let carrier =
            Carrier::new(FakeIo::default(), ports, taps.remove(0), None, ModuleTap::default(), notify);
        let orders = Orders { jobs, waker, stage, folder: recorder.folder() };
        let engine = Engine::new(EngineConfig::default(), clock::now());
        (Worker::new(engine, carrier, orders, Share::new(sessions)), handle)
    }

    fn submit(handle: &RelayHandle, command: &str) -> Receiver<Vec<u8>> {
        let (sender, receiver) = mpsc::channel();
        let done = Box::new(move |reply| drop(sender.send(reply)));
        handle.submit(command.as_bytes(), Origin::default(), done);
        receiver
    }

    /// Sets up a call: the callee at 192.0.2.2 sends to pair 0, the caller at 192.0.2.1 to pair 1.
    fn set_up(worker: &mut Worker<FakeIo>, handle: &RelayHandle) {
        let replies =
            ["U call 192.0.2.1 4000 f", "L call 192.0.2.2 4002 f t"].map(|text| submit(handle, text));
        worker.turn();
        assert_eq!(replies.map(|reply| reply.recv().unwrap()), [b"9000\n", b"9002\n"]);
    }

    fn rtp(sequence: u8) -> Vec<u8> {
        vec![0x80, 0, 0, sequence, 0, 0, 0, 0, 0, 0, 0, 1]
    }

    const FROM_CALLER: MediaPort = MediaPort { pair: PairId(1), channel: Channel::Rtp };
    const TO_CALLEE: MediaPort = MediaPort { pair: PairId(0), channel: Channel::Rtp };

    #[test]
    fn a_socket_is_read_again_only_behind_a_packet_that_had_to_wait() {
        let (mut worker, handle) = worker();
        set_up(&mut worker, &handle);
        let now = clock::now().wall;
        for sequence in 0..10 {
            worker.carrier.io.arrive(FROM_CALLER, "192.0.2.1:4000", Wall(now.0 - 50_000_000), &rtp(sequence));
        }
        let sent_after_a_turn = |worker: &mut Worker<FakeIo>| {
            worker.wait().unwrap();
            worker.turn();
            worker.carrier.io.sent.len()
        };
        assert_eq!(sent_after_a_turn(&mut worker), READS_PER_SOCKET);
        assert_eq!(sent_after_a_turn(&mut worker), 10);
        for sequence in 10..13 {
            // Later than any clock that the test will read.
            worker.carrier.io.arrive(
                FROM_CALLER,
                "192.0.2.1:4000",
                Wall(now.0 + 900_000_000),
                &rtp(sequence),
            );
        }
        assert_eq!(sent_after_a_turn(&mut worker), 11);
        let callee: SocketAddr = "192.0.2.2:4002".parse().unwrap();
        for (sequence, sent) in (0..).zip(&worker.carrier.io.sent) {
            assert_eq!(*sent, (TO_CALLEE, callee, rtp(sequence)));
        }
    }

    #[test]
    fn after_a_pause_packets_of_both_parties_keep_their_order() {
        let (mut worker, handle) = worker();
        set_up(&mut worker, &handle);
        let start = clock::now().wall.0 - 100_000_000;
        for number in 0..4 {
            let at = start + u64::from(number) * 20_000_000;
            worker.carrier.io.arrive(FROM_CALLER, "192.0.2.1:4000", Wall(at), &rtp(number));
            worker.carrier.io.arrive(TO_CALLEE, "192.0.2.2:4002", Wall(at + 1), &rtp(number));
        }
        worker.wait().unwrap();
        worker.turn();
        let sequences: Vec<_> = worker.carrier.io.sent.iter().map(|(_, _, payload)| payload[3]).collect();
        assert_eq!(sequences, [0, 0, 1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn a_command_comes_before_the_packets_of_its_turn() {
        let (mut worker, handle) = worker();
        set_up(&mut worker, &handle);
        assert_eq!(handle.active_sessions(), 1);
        worker.carrier.io.arrive(FROM_CALLER, "192.0.2.1:4000", clock::now().wall, &rtp(0));
        let reply = submit(&handle, "D call f");
        worker.wait().unwrap();
        worker.turn();
        assert_eq!(reply.recv().unwrap(), b"0\n");
        assert_eq!(handle.active_sessions(), 0);
        assert!(worker.carrier.io.sent.is_empty());
        assert_eq!(worker.carrier.io.closed.len(), 2);
    }

    #[test]
    fn the_tos_byte_reaches_the_sockets() {
        let (mut worker, handle) = worker();
        set_up(&mut worker, &handle);
        let reply = submit(&handle, "Q call f t ttl && S tos=8 && Sr tos=9");
        worker.turn();
        assert_eq!(reply.recv().unwrap(), b"60\n");
        assert_eq!(worker.carrier.io.tos, [(PairId(1), 8), (PairId(0), 9)]);
    }

    #[test]
    fn a_crowd_of_commands_lets_packets_through() {
        let (mut worker, handle) = worker();
        set_up(&mut worker, &handle);
        worker.carrier.io.arrive(FROM_CALLER, "192.0.2.1:4000", clock::now().wall, &rtp(0));
        let replies: Vec<_> = (0..COMMANDS_PER_TURN * 2).map(|_| submit(&handle, "Q call f t")).collect();
        worker.wait().unwrap();
        worker.turn();
        assert_eq!(worker.carrier.io.sent.len(), 1);
        assert_eq!(replies.iter().filter(|reply| reply.try_recv().is_ok()).count(), COMMANDS_PER_TURN);
        worker.turn();
        assert_eq!(replies.iter().filter(|reply| reply.try_recv().is_ok()).count(), COMMANDS_PER_TURN);
    }

    #[test]
    fn a_packet_that_cannot_be_sent_stops_nothing() {
        let (mut worker, handle) = worker();
        set_up(&mut worker, &handle);
        for refuses in [true, false] {
            worker.carrier.io.refuses = refuses;
            worker.carrier.io.arrive(FROM_CALLER, "192.0.2.1:4000", clock::now().wall, &rtp(0));
            worker.wait().unwrap();
            worker.turn();
        }
        assert_eq!(worker.carrier.io.sent.len(), 1);
    }
}
