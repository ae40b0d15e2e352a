//! From a request to the worker that answers it, and back.
//!
//! ```text
//! request ──► Front: parse, check, count ──► lane of the call-id's worker ──► Ticket::answer ──► caller
//!                  └── answered at once         X, I, G: every lane, Part::finish; the last one answers
//! ```

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use crossbeam_channel::{Receiver, Sender, bounded};
use foldhash::quality::RandomState;
use rtpproxy_core::command::{CallId, Command, ErrorCode, Reply};
use rtpproxy_core::front::{Accepted, Front, Origin, Request};
use rtpproxy_core::stats::Stats;

use crate::host::KernelRoutes;
use crate::io::Waker;
use crate::limits::Sessions;
use crate::notifier::{Events, NotifyHandle};
use crate::shutdown::Stage;

/// The way into a running relay. Cheap to clone; may be used from any thread.
///
/// Every request gets exactly one reply, also when the relay is gone (`E81`). A command sees the effect of
/// every command that was answered before it.
#[derive(Clone, Debug)]
pub struct RelayHandle {
    desk: Arc<Desk>,
    lanes: Arc<[Lane]>,
    placement: RandomState,
    stage: Arc<Stage>,
    sessions: Arc<Sessions>,
    notify: NotifyHandle,
}

impl RelayHandle {
    /// Executes one command given as text without cookie, and waits for its reply, line feed included.
    pub fn execute(&self, text: &[u8], origin: Origin) -> Vec<u8> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.submit(text, origin, Box::new(move |reply| drop(sender.send(reply))));
        receiver.recv().expect("every request gets a reply")
    }

    /// Executes one command and waits for its reply.
    pub fn execute_command(&self, command: Command) -> Reply {
        let (sender, receiver) = mpsc::sync_channel(1);
        tracing::debug!("received command \"{}\"", command.encode().escape_ascii());
        let accepted = self.desk.front().accept_command(command, Origin::default(), &KernelRoutes);
        self.place(accepted, Done::Value(Box::new(move |reply| drop(sender.send(reply)))));
        receiver.recv().expect("every request gets a reply")
    }

    /// Executes one command given as text without cookie. `done` is called once, with the reply and its line
    /// feed, on the caller's thread or on a worker's: it must only hand the reply over.
    pub fn submit(&self, text: &[u8], origin: Origin, done: Box<dyn FnOnce(Vec<u8>) + Send>) {
        tracing::debug!("received command \"{}\"", text.escape_ascii());
        let accepted = self.desk.front().accept(text, origin, &KernelRoutes);
        self.place(accepted, Done::Text(done));
    }

    /// Counts a repeated datagram that was answered from the reply cache.
    pub fn repeated(&self) {
        self.desk.front().repeated();
    }

    /// Starts the slow shutdown: new sessions are refused with `E99`, existing ones go on.
    pub fn drain(&self) {
        self.stage.drain();
    }

    /// True after [`Self::drain`].
    pub fn is_draining(&self) -> bool {
        self.stage.is_draining()
    }

    /// Sessions now, over all workers.
    pub fn active_sessions(&self) -> usize {
        self.sessions.active()
    }

    /// The notifications to in-process targets from now on.
    pub fn subscribe(&self) -> Events {
        self.notify.subscribe()
    }

    pub(crate) fn new(
        front: Front,
        lanes: Vec<Lane>,
        stage: Arc<Stage>,
        sessions: Arc<Sessions>,
        notify: NotifyHandle,
    ) -> Self {
        let desk = Arc::new(Desk { front: Mutex::new(front) });
        Self { desk, lanes: lanes.into(), placement: RandomState::default(), stage, sessions, notify }
    }

    /// Wakes every worker, so that it sees how far the shutdown is.
    pub(crate) fn wake_all(&self) {
        for lane in &*self.lanes {
            lane.waker.wake();
        }
    }

    fn place(&self, accepted: Accepted, done: Done) {
        let ticket = Ticket { desk: Arc::clone(&self.desk), done: Some(done) };
        match accepted {
            Accepted::Answer(reply) => ticket.answer(reply),
            Accepted::One(request) => match request.command.call_id() {
                Some(call_id) => self.lane(call_id).send(Job::Command { request, ticket }),
                None => ticket.answer(Reply::Error(ErrorCode::INTERNAL_FAILURE)),
            },
            Accepted::DeleteAll => self.ask_all(Question::DeleteAll, ticket),
            Accepted::Info { load } => self.ask_all(Question::Info { load }, ticket),
            Accepted::Counters { verbose, names } => {
                self.ask_all(Question::Counters { verbose, names }, ticket);
            }
        }
    }

    fn lane(&self, call_id: &CallId) -> &Lane {
        let hash = self.placement.hash_one(call_id.as_bytes());
        &self.lanes[(hash % self.lanes.len() as u64) as usize]
    }

    fn ask_all(&self, question: Question, ticket: Ticket) {
        let delete = matches!(question, Question::DeleteAll);
        let gather = Arc::new(Gather {
            open: AtomicUsize::new(self.lanes.len()),
            state: Mutex::new(Gathered {
                stats: Stats::default(),
                failed: false,
                ask: Some((question, ticket)),
            }),
        });
        for lane in &*self.lanes {
            let part = Part { gather: Arc::clone(&gather), done: false };
            lane.send(if delete { Job::DeleteAll(part) } else { Job::Stats(part) });
        }
    }
}

/// One thing for a worker to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Execute a command.
    Command {
        /// The command, checked.
        request: Box<Request>,
        /// Where the reply goes.
        ticket: Ticket,
    },
    /// Delete every session.
    DeleteAll(Part),
    /// Tell the figures.
    Stats(Part),
}

/// The way to one worker.
#[derive(Debug)]
pub(crate) struct Lane {
    jobs: Sender<Job>,
    waker: Waker,
}

impl Lane {
    /// A lane to the worker that `waker` wakes, and the worker's end of it.
    pub(crate) fn new(waker: Waker) -> (Self, Receiver<Job>) {
        let (jobs, receiver) = bounded(LANE_LEN);
        (Self { jobs, waker }, receiver)
    }

    /// Hands over a job. If the worker is gone or far behind, dropping the job answers it.
    fn send(&self, job: Job) {
        match self.jobs.try_send(job) {
            Ok(()) => self.waker.wake(),
            Err(error) => tracing::error!("a media worker takes no command: {error}"),
        }
    }
}

/// The duty to answer one request. Dropped without an answer, it answers `E81`.
#[derive(Debug)]
pub(crate) struct Ticket {
    desk: Arc<Desk>,
    done: Option<Done>,
}

impl Ticket {
    /// Counts the reply and hands it to whoever waits for it.
    pub(crate) fn answer(mut self, reply: Reply) {
        self.finish(reply);
    }

    fn finish(&mut self, reply: Reply) {
        let Some(done) = self.done.take() else { return };
        self.desk.front().answered(&reply);
        match done {
            Done::Text(done) => {
                let text = reply.encode();
                tracing::debug!("sending reply \"{}\"", text.escape_ascii());
                done(text);
            }
            Done::Value(done) => {
                tracing::debug!("sending reply \"{}\"", reply.encode().escape_ascii());
                done(reply);
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.finish(Reply::Error(ErrorCode::INTERNAL_FAILURE));
    }
}

/// One worker's share in an answer. Dropped unfinished, it makes the answer `E81`.
#[derive(Debug)]
pub(crate) struct Part {
    gather: Arc<Gather>,
    done: bool,
}

impl Part {
    /// Adds the worker's figures. The last part gives the answer.
    pub(crate) fn finish(mut self, stats: &Stats) {
        self.done = true;
        self.gather.state().stats.add(stats);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.done {
            self.gather.state().failed = true;
        }
        if self.gather.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.gather.answer();
        }
    }
}

/// What every worker is asked.
#[derive(Debug)]
enum Question {
    DeleteAll,
    Info { load: bool },
    Counters { verbose: bool, names: Vec<Box<[u8]>> },
}

#[derive(Debug)]
struct Gather {
    /// Parts without an outcome yet.
    open: AtomicUsize,
    state: Mutex<Gathered>,
}

#[derive(Debug)]
struct Gathered {
    stats: Stats,
    failed: bool,
    ask: Option<(Question, Ticket)>,
}

impl Gather {
    fn state(&self) -> MutexGuard<'_, Gathered> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self) {
        let mut state = self.state();
        let Some((question, ticket)) = state.ask.take() else { return };
        let reply = match question {
            _ if state.failed => Reply::Error(ErrorCode::INTERNAL_FAILURE),
            Question::DeleteAll => Reply::Done,
            Question::Info { load } => ticket.desk.front().info(&state.stats, load),
            Question::Counters { verbose, names } => {
                ticket.desk.front().counters(&state.stats, verbose, &names)
            }
        };
        drop(state);
        ticket.answer(reply);
    }
}

/// What all requests pass on their way in and out.
#[derive(Debug)]
struct Desk {
    front: Mutex<Front>,
}

impl Desk {
    fn front(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Done {
    Text(Box<dyn FnOnce(Vec<u8>) + Send>),
    Value(Box<dyn FnOnce(Reply) + Send>),
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text",
            Self::Value(_) => "Value",
        })
    }
}

/// Commands that may wait for one worker. A worker takes far less than a second for them.
const LANE_LEN: usize = 4096;
