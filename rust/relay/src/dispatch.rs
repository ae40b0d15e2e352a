//! From a request to the worker that answers it, and back.
//!
//! ```text
//! request ──► Front: parse, check, count ──► lane of the call's worker ──► Ticket::answer ──► caller
//!                  │ │                         X, I, G: every lane, Part::finish; the last one answers
//!                  │ └── P: Prompts::prepare reads the file first; C: Resolver looks a name up
//!                  └── answered at once
//! ```
//!
//! On the way a name that `C` gives is looked up, and a call that forks another one moves to that one's worker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rtpproxy_core::command::{CallId, Command, ErrorCode, Party, RECORDINGS_MAX, Reply};
use rtpproxy_core::effects::{PairId, TapId};
use rtpproxy_core::engine::{CallState, TapError};
use rtpproxy_core::front::{Accepted, CopyTo, Front, Origin, Request};
use rtpproxy_core::recording::KeptId;
use rtpproxy_core::stats::{CommandStats, Stats};
use tokio::sync::oneshot;

use crate::host::KernelRoutes;
use crate::io::{SocketPair, Waker};
use crate::limits::Sessions;
use crate::notifier::{Events, NotifyHandle};
use crate::placement::{Placement, Places, Stay, companion};
use crate::preroll::{Memory, Ring};
use crate::prompts::{Prepared, Prompts, Wanted};
use crate::recorder::{RecorderView, RecordingStatus};
use crate::resolver::Resolver;
use crate::shutdown::Stage;
use crate::tap::Inlet;

/// The way into a running relay. Cheap to clone; may be used from any thread.
///
/// Every request gets exactly one reply, also when the relay is gone (`E81`). A command sees the effect of
/// every command that was answered before it.
#[derive(Clone, Debug)]
pub struct RelayHandle {
    desk: Arc<Desk>,
    lanes: Arc<[Lane]>,
    placement: Arc<Placement>,
    around: Surroundings,
}

/// The parts of a relay, besides its workers, that requests have to do with.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// Looks names up.
    pub(crate) resolver: Resolver,
    /// How far the end is.
    pub(crate) stage: Arc<Stage>,
    /// How many sessions there are.
    pub(crate) sessions: Arc<Sessions>,
    /// Delivers notifications.
    pub(crate) notify: NotifyHandle,
    /// Reads prompts.
    pub(crate) prompts: Prompts,
    /// Knows of recordings.
    pub(crate) recorder: RecorderView,
    /// The memory for what is kept for recordings that begin later.
    pub(crate) preroll: Option<Arc<Memory>>,
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
        tracing::debug!("received command \"{}\"", text.trim_ascii().escape_ascii());
        let accepted = self.desk.front().accept(text, origin, &KernelRoutes);
        self.place(accepted, Done::Text(done));
    }

    /// Counts a repeated datagram that was answered from the reply cache.
    pub fn repeated(&self) {
        self.desk.front().repeated();
    }

    /// Starts the slow shutdown: new sessions are refused with `E99`, existing ones go on.
    pub fn drain(&self) {
        self.around.stage.drain();
    }

    /// True after [`Self::drain`].
    pub fn is_draining(&self) -> bool {
        self.around.stage.is_draining()
    }

    /// Sessions now, over all workers.
    pub fn active_sessions(&self) -> usize {
        self.around.sessions.active()
    }

    /// The notifications to in-process targets from now on.
    pub fn subscribe(&self) -> Events {
        self.around.notify.subscribe()
    }

    /// From now on, what becomes of recordings is told to the in-process target `number` too, as lines of JSON
    /// (docs/recording.md, events). The number of the first call holds.
    pub fn announce_recordings(&self, number: u32) {
        self.around.recorder.tell_process(self.around.notify.clone(), number);
    }

    /// The recordings that run and the last that ended, as they are now, by their numbers. Does not wait for a disk.
    pub fn recordings(&self) -> Vec<RecordingStatus> {
        self.around.recorder.recordings(0)
    }

    /// A way to a relay whose workers take their jobs from `lanes`.
    pub(crate) fn new(front: Front, lanes: Vec<Lane>, around: Surroundings) -> Self {
        let desk = Arc::new(Desk { front: Mutex::new(front) });
        let placement = Arc::new(Placement::new(lanes.len()));
        Self { desk, lanes: lanes.into(), placement, around }
    }

    /// The counters of commands.
    pub(crate) fn command_stats(&self) -> CommandStats {
        self.desk.front().stats()
    }

    /// Asks all workers for their figures. The sum comes once the last one has answered; the sender is dropped
    /// if one cannot.
    pub(crate) fn stats(&self) -> oneshot::Receiver<Stats> {
        let (sender, receiver) = oneshot::channel();
        self.gather(Asked::Figures(sender));
        receiver
    }

    /// The parts of the relay around the workers.
    pub(crate) fn around(&self) -> &Surroundings {
        &self.around
    }

    /// Wakes every worker, so that it sees how far the shutdown is.
    pub(crate) fn wake_all(&self) {
        for lane in &*self.lanes {
            lane.waker.wake();
        }
    }

    /// Gives a job to the worker of a call. One that it does not take is dropped.
    pub(crate) fn send_job(&self, call_id: &CallId, job: Job) {
        let mut places = self.placement.lock();
        let (worker, _stay) = places.of(call_id);
        // Nobody is left who could be told, or the job tells it when it is dropped.
        let _ = self.lanes[worker].send(job);
    }

    fn place(&self, accepted: Accepted, done: Done) {
        let ticket = Ticket { desk: Arc::clone(&self.desk), done: Some(done) };
        match accepted {
            Accepted::Answer(reply) => ticket.answer(reply),
            Accepted::One(request) => self.prepare(request, ticket),
            Accepted::DeleteAll => self.ask_all(Question::DeleteAll, ticket),
            Accepted::Info { load } => self.ask_all(Question::Info { load }, ticket),
            Accepted::Counters { verbose, names } => {
                self.ask_all(Question::Counters { verbose, names }, ticket);
            }
            Accepted::Recordings { after } => ticket.answer(self.tell_recordings(after)),
        }
    }

    /// Gets what the request needs of disk or name service, then hands it to the worker of its call.
    fn prepare(&self, mut request: Box<Request>, ticket: Ticket) {
        let handle = self.clone();
        if let Some(wanted) = Wanted::of(&request.command) {
            self.around
                .prompts
                .prepare(wanted, move |prompts| handle.send_to_owner(request, prompts, ticket));
        } else if let Some(CopyTo::Name { host, .. }) = &request.copy {
            self.around.resolver.look_up(host.clone(), move |addr| {
                request.copy = request.copy.take().map(|copy| copy.found(addr, &KernelRoutes));
                handle.send_to_owner(request, Prepared::default(), ticket);
            });
        } else {
            self.send_to_owner(request, Prepared::default(), ticket);
        }
    }

    fn send_to_owner(&self, request: Box<Request>, prompts: Prepared, ticket: Ticket) {
        let Some(call_id) = request.command.call_id() else {
            return ticket.answer(Reply::Error(ErrorCode::INTERNAL_FAILURE));
        };
        let mut places = self.placement.lock();
        // What keeps a new exception must live until the job that follows carries it.
        let brought =
            companion(&request.command).map(|other| self.bring_together(&mut places, call_id, other));
        let (worker, stay) = places.of(call_id);
        drop(brought);
        // A job that is dropped is answered.
        let _ = self.lanes[worker].send(Job::Command { request, prompts, ticket, stay });
    }

    /// Places a call with another one: where there is none yet it will be created there, else it moves. It takes
    /// a turn of one worker, and only forks of calls that are apart need it.
    fn bring_together(&self, places: &mut Places, call_id: &CallId, companion: &CallId) -> Option<Stay> {
        let (here, there) = (places.of(call_id).0, places.of(companion).0);
        if here == there {
            return None;
        }
        let (answer, answered) = mpsc::sync_channel(1);
        self.lanes[here].send(Job::Leave { call_id: call_id.clone(), answer }).ok()?;
        match answered.recv() {
            Ok(Leaving::Absent) => places.settle(call_id, there),
            Ok(Leaving::Left(parcel)) => {
                let stay = places.settle(call_id, there);
                let Err(job) = self.lanes[there].send(Job::Arrive { parcel, stay: stay.clone() }) else {
                    return stay;
                };
                // Nobody there takes it: back to where it was.
                let Job::Arrive { parcel, .. } = *job else { return None };
                let stay = places.settle(call_id, here);
                let _ = self.lanes[here].send(Job::Arrive { parcel, stay: stay.clone() });
                stay
            }
            // It stays, or its worker is gone; then the fork finds nothing to fork.
            Ok(Leaving::Stays) | Err(_) => None,
        }
    }

    /// As many recordings as fit a reply, one at least, and whether there are more.
    fn tell_recordings(&self, after: u64) -> Reply {
        let recordings = self.around.recorder.recordings(after);
        let mut list = String::new();
        let mut told = 0;
        for recording in &recordings {
            let text = serde_json::to_string(recording).expect("its fields are texts and numbers");
            if told > 0 && list.len() + text.len() + RECORDINGS_FRAME > RECORDINGS_MAX {
                break;
            }
            list += if told > 0 { "," } else { "" };
            list += &text;
            told += 1;
        }
        let has_more = told < recordings.len();
        Reply::Recordings(format!("{{\"recordings\":[{list}],\"more\":{has_more}}}").into())
    }

    fn ask_all(&self, question: Question, ticket: Ticket) {
        self.gather(Asked::Command(question, ticket));
    }

    fn gather(&self, asked: Asked) {
        let delete = matches!(asked, Asked::Command(Question::DeleteAll, _));
        let gather = Arc::new(Gather {
            open: AtomicUsize::new(self.lanes.len()),
            state: Mutex::new(Gathered { stats: Stats::default(), failed: false, asked: Some(asked) }),
        });
        // No call is on its way between two workers meanwhile.
        let places = self.placement.lock();
        for lane in &*self.lanes {
            let part = Part { gather: Arc::clone(&gather), done: false };
            let _ = lane.send(if delete { Job::DeleteAll(part) } else { Job::Stats(part) });
        }
        drop(places);
    }
}

/// One thing for a worker to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Execute a command.
    Command {
        /// The command, checked.
        request: Box<Request>,
        /// The prompt files that it may need.
        prompts: Prepared,
        /// Where the reply goes.
        ticket: Ticket,
        /// To be kept while there is a session of the call.
        stay: Option<Stay>,
    },
    /// Give a call away.
    Leave {
        /// The call.
        call_id: CallId,
        /// Where it goes.
        answer: SyncSender<Leaving>,
    },
    /// Take a call that another worker gave away.
    Arrive {
        /// The call.
        parcel: Box<Parcel>,
        /// To be kept while there is a session of the call.
        stay: Option<Stay>,
    },
    /// Tap a session.
    Tap {
        /// The session.
        party: Party,
        /// The tap.
        id: TapId,
        /// Where the packets go.
        inlet: Box<Inlet>,
        /// Where it is told whether that was possible.
        answer: SyncSender<Result<(), TapError>>,
    },
    /// Take a tap off.
    Untap {
        /// The call of the session.
        call_id: CallId,
        /// The tap.
        id: TapId,
    },
    /// Delete every session.
    DeleteAll(Part),
    /// Tell the figures.
    Stats(Part),
}

/// What a worker that shall give a call away answers.
#[derive(Debug)]
pub(crate) enum Leaving {
    /// It has no such call.
    Absent,
    /// The call cannot leave.
    Stays,
    /// Here it is.
    Left(Box<Parcel>),
}

/// A call between two workers.
#[derive(Debug)]
pub(crate) struct Parcel {
    /// The call.
    pub(crate) call_id: CallId,
    /// Its sessions.
    pub(crate) state: CallState,
    /// Its sockets, by the numbers they had.
    pub(crate) sockets: Vec<(PairId, SocketPair)>,
    /// Where the packets for its taps go.
    pub(crate) taps: Vec<(TapId, Box<Inlet>)>,
    /// What is kept of it for recordings that begin later.
    pub(crate) kept: Vec<(KeptId, Ring)>,
}

/// The way to one worker.
#[derive(Debug)]
pub(crate) struct Lane {
    /// When the worker's end is dropped, this channel drops the jobs that wait in it, and that answers them.
    jobs: SyncSender<Job>,
    waker: Waker,
}

impl Lane {
    /// A lane to the worker that `waker` wakes, and the worker's end of it.
    pub(crate) fn new(waker: Waker) -> (Self, Receiver<Job>) {
        let (jobs, receiver) = mpsc::sync_channel(LANE_LEN);
        (Self { jobs, waker }, receiver)
    }

    /// Hands over a job. If the worker is gone or far behind it comes back; dropping it answers it.
    fn send(&self, job: Job) -> Result<(), Box<Job>> {
        match self.jobs.try_send(job) {
            Ok(()) => {
                self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(job)) => {
                tracing::error!("a media worker is far behind: E81");
                Err(Box::new(job))
            }
            Err(TrySendError::Disconnected(job)) => {
                // Why it ended has been logged, unless the relay is at its end.
                tracing::debug!("a media worker is gone: E81");
                Err(Box::new(job))
            }
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
    asked: Option<Asked>,
}

/// Who asked all workers.
#[derive(Debug)]
enum Asked {
    /// A command.
    Command(Question, Ticket),
    /// Somebody who watches the relay, which counts as no command.
    Figures(oneshot::Sender<Stats>),
}

impl Gather {
    fn state(&self) -> MutexGuard<'_, Gathered> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self) {
        let mut state = self.state();
        let (question, ticket) = match state.asked.take() {
            None => return,
            Some(Asked::Figures(asker)) => {
                if !state.failed {
                    // Whoever has stopped waiting misses nothing.
                    let _ = asker.send(state.stats);
                }
                return;
            }
            Some(Asked::Command(question, ticket)) => (question, ticket),
        };
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

/// The bytes of a reply to `?recordings` around the recordings.
const RECORDINGS_FRAME: usize = 40;

/// Commands that may wait for one worker. A worker takes far less than a second for them.
const LANE_LEN: usize = 4096;

#[cfg(test)]
mod tests {
    use rtpproxy_core::config::FrontConfig;

    use super::*;
    use crate::io::{EpollIo, MediaIo};
    use crate::notifier::Notifier;
    use crate::prompts::PromptThread;

    /// A handle to lanes whose other ends the test holds.
    fn handle(workers: usize) -> (RelayHandle, Vec<Receiver<Job>>, Vec<EpollIo>) {
        let ios: Vec<EpollIo> = (0..workers).map(|_| EpollIo::new(0).unwrap()).collect();
        let (lanes, jobs) = ios.iter().map(|io| Lane::new(io.waker())).unzip();
        let front = Front::new(FrontConfig::default());
        let around = Surroundings {
            resolver: Resolver::new(true),
            stage: Arc::default(),
            sessions: Arc::new(Sessions::new(1000)),
            notify: Notifier::start().unwrap().handle(),
            prompts: PromptThread::start().unwrap().prompts(),
            recorder: RecorderView::default(),
            preroll: None,
        };
        (RelayHandle::new(front, lanes, around), jobs, ios)
    }

    fn submit(handle: &RelayHandle, command: &str) -> Receiver<Vec<u8>> {
        let (sender, receiver) = mpsc::channel();
        let done = Box::new(move |reply| drop(sender.send(reply)));
        handle.submit(command.as_bytes(), Origin::default(), done);
        receiver
    }

    #[test]
    fn the_commands_of_a_call_meet_on_one_worker() {
        let (handle, jobs, _ios) = handle(4);
        for number in 0..64 {
            for command in [format!("D call{number} f"), format!("Q call{number} f t")] {
                submit(&handle, &command);
            }
        }
        let lens: Vec<usize> = jobs.iter().map(|jobs| jobs.try_iter().count()).collect();
        assert_eq!(lens.iter().sum::<usize>(), 128);
        assert!(lens.iter().all(|len| len % 2 == 0 && (2..128).contains(len)), "{lens:?}");
    }

    #[test]
    fn without_its_worker_a_request_fails_and_is_counted() {
        let (handle, jobs, _ios) = handle(2);
        let waiting = submit(&handle, "D call f");
        let gathering = submit(&handle, "I");
        drop(jobs);
        assert_eq!(waiting.recv().unwrap(), b"E81\n");
        assert_eq!(gathering.recv().unwrap(), b"E81\n");
        assert_eq!(submit(&handle, "D call f").recv().unwrap(), b"E81\n");
        assert_eq!(submit(&handle, "X").recv().unwrap(), b"E81\n");
        assert_eq!(submit(&handle, "V").recv().unwrap(), b"20040107\n");
        let counted = handle.desk.front().counters(&Stats::default(), false, &[(*b"ncmds_errs").into()]);
        assert_eq!(counted.encode(), b"4\n");
    }

    #[test]
    fn one_lost_worker_spoils_what_all_must_answer() {
        let (handle, mut jobs, _ios) = handle(3);
        let reply = submit(&handle, "G nsess_created");
        drop(jobs.pop());
        for jobs in &jobs {
            let Ok(Job::Stats(part)) = jobs.try_recv() else { panic!("no question came") };
            part.finish(&Stats::default());
        }
        assert_eq!(reply.recv().unwrap(), b"E81\n");
    }

    #[test]
    fn figures_are_summed_once_all_have_answered() {
        let (handle, jobs, _ios) = handle(3);
        let reply = submit(&handle, "G nsess_created npkts_rcvd");
        for (number, jobs) in jobs.iter().enumerate() {
            assert!(reply.try_recv().is_err());
            let Ok(Job::Stats(part)) = jobs.try_recv() else { panic!("no question came") };
            part.finish(&Stats { nsess_created: 1, npkts_rcvd: number as u64, ..Stats::default() });
        }
        assert_eq!(reply.recv().unwrap(), b"3 3\n");
    }

    #[test]
    fn whoever_watches_counts_as_no_command() {
        let (handle, jobs, _ios) = handle(2);
        let mut sum = handle.stats();
        for jobs in &jobs {
            assert!(sum.try_recv().is_err());
            let Ok(Job::Stats(part)) = jobs.try_recv() else { panic!("no question came") };
            part.finish(&Stats { npkts_rcvd: 2, ..Stats::default() });
        }
        assert_eq!(sum.try_recv().unwrap().npkts_rcvd, 4);
        let mut lost = handle.stats();
        drop(jobs);
        assert!(lost.try_recv().is_err());
        assert_eq!(handle.command_stats(), CommandStats::default());
    }

    #[test]
    fn a_worker_far_behind_takes_no_more() {
        let (handle, jobs, _ios) = handle(1);
        let replies: Vec<_> = (0..LANE_LEN + 1).map(|_| submit(&handle, "D call f")).collect();
        assert_eq!(replies[LANE_LEN].recv().unwrap(), b"E81\n");
        assert!(replies[0].try_recv().is_err());
        assert_eq!(jobs[0].try_iter().count(), LANE_LEN);
    }

    #[test]
    fn every_job_wakes_its_worker() {
        let (handle, _jobs, mut ios) = handle(1);
        submit(&handle, "D call f");
        let start = std::time::Instant::now();
        ios[0].gather(std::time::Duration::from_secs(5)).unwrap();
        assert!(start.elapsed() < std::time::Duration::from_secs(4));
    }
}
