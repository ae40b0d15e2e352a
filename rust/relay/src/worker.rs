//! The thread that owns an engine and its media sockets: one loop over commands, packets and time.

use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rtpproxy_core::effects::{MediaPort, Out, Packet};
use rtpproxy_core::engine::{Arrival, Engine};
use rtpproxy_core::recording::EndReason;
use rtpproxy_core::time::{Mono, Now};

use crate::carrier::Carrier;
use crate::clock::{self, Batch};
use crate::dispatch::Job;
use crate::host::{Random, WorkerHost};
use crate::io::{MediaIo, Waker};
use crate::limits::Share;
use crate::pace::{Pace, Wait};
use crate::recorder::FolderWatch;
use crate::shutdown::Stage;

/// One worker: everything that a packet needs is in here, owned by one thread and never locked.
pub(crate) struct Worker<I> {
    engine: Engine,
    carrier: Carrier<I>,
    orders: Orders,
    random: Random,
    sessions: Share,
    pace: Pace,
    /// When the present turn began.
    now: Now,
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
            sessions,
            pace: Pace::new(now.mono),
            now,
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
        let packets = self.packets(Batch::new(self.now, earlier));
        self.pace.count(self.now.mono, packets);

        // Priority 3: time.
        if self.engine.next_deadline() <= self.now.mono {
            self.engine.handle_timeout(self.now, &mut self.out);
            self.carry_out();
            self.publish();
        }

        self.carrier.flush(self.now.mono);
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
            Job::Command { request, ticket } => {
                self.engine.set_draining(self.orders.stage.is_draining());
                let mut host = WorkerHost {
                    io: &mut self.carrier.io,
                    ports: &self.carrier.ports,
                    random: &mut self.random,
                    folder: &self.orders.folder,
                };
                let reply = self.engine.handle_command(self.now, &request, &mut host, &mut self.out);
                self.carry_out();
                self.publish();
                ticket.answer(reply);
            }
            Job::DeleteAll(part) => {
                self.engine.delete_all(self.now, EndReason::Deleted, &mut self.out);
                self.carry_out();
                self.publish();
                part.finish(&self.engine.stats());
            }
            Job::Stats(part) => part.finish(&self.engine.stats()),
        }
    }

    /// Relays what the ready sockets hold; returns how many packets.
    fn packets(&mut self, batch: Batch) -> u32 {
        let mut packets = 0;
        let ready = mem::take(&mut self.ready);
        for &port in &ready {
            for _ in 0..READS_PER_SOCKET {
                let Some(arrived) = self.packet(port, batch) else { break };
                packets += 1;
                // A phone sends one packet at a time. Only where one had to wait are there others behind it.
                if self.now.mono.since(arrived) < BACKLOG_AGE {
                    break;
                }
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
