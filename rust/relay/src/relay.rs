//! A running relay: starting its threads.

use std::net::SocketAddr;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::{io, thread};

use rtpproxy_core::addr::{Family, LocalAddr};
use rtpproxy_core::config::{EngineConfig, FrontConfig, ModuleKind};
use rtpproxy_core::engine::Engine;
use rtpproxy_core::front::Front;

use crate::carrier::Carrier;
use crate::clock;
use crate::config::{Config, Scheduling};
use crate::control::{self, Bound, Claimed};
use crate::dispatch::{Lane, RelayHandle, Surroundings};
use crate::host::Ports;
use crate::io::{EpollIo, set_realtime};
use crate::limits::{Sessions, Share, raise_descriptor_limit};
use crate::metrics::{Metrics, Sources};
use crate::modules::{ModuleError, Modules};
use crate::notifier::Notifier;
use crate::preroll::{Memory, Store};
use crate::prompts::PromptThread;
use crate::recorder::Recorder;
use crate::resolver::Resolver;
use crate::shutdown::{Stage, Threads};
use crate::worker::{Orders, Worker};

/// A running relay. Dropping it is the same as [`Relay::shutdown`].
#[derive(Debug)]
pub struct Relay {
    threads: Threads,
}

impl Relay {
    /// Starts the recorder, the modules, the notifier, the reader of prompts, the workers, and the control transports that were bound before.
    ///
    /// Raises the process's limit of open descriptors as far as it may.
    ///
    /// # Errors
    ///
    /// [`StartError`] says what could not start; nothing is left running then.
    pub fn start(config: Config, control: Vec<Bound>) -> Result<Self, StartError> {
        let control = Claimed::new(control);
        let modules = Modules::open(&config.modules, config.resolve_names)?;
        Self::start_all(config, control, modules)
    }

    /// The same with the modules of `config` that were opened before.
    ///
    /// # Errors
    ///
    /// As [`Relay::start`].
    pub fn start_with(config: Config, control: Vec<Bound>, modules: Modules) -> Result<Self, StartError> {
        Self::start_all(config, Claimed::new(control), modules)
    }

    fn start_all(config: Config, control: Claimed, modules: Modules) -> Result<Self, StartError> {
        let workers = check(&config)?;
        let metrics = bind_metrics(config.metrics)?;
        let addresses = addresses(&config.front);
        let mut seats = Vec::with_capacity(workers);
        let mut lanes = Vec::with_capacity(workers);
        for _ in 0..workers {
            let io = EpollIo::new(config.tos).map_err(StartError::Worker)?;
            let (lane, jobs) = Lane::new(io.waker());
            seats.push((io, jobs));
            lanes.push(lane);
        }
        let stage = Arc::new(Stage::default());
        let sessions = Arc::new(Sessions::new(raise_descriptor_limit()));
        let ports = Arc::new(Ports::new(config.port_min, config.port_max, config.sequential_ports));
        let notifier = Notifier::start().map_err(StartError::Notifier)?;
        let notify = notifier.handle();
        let preroll = config.record.preroll.filter(|_| config.record.folder.is_some());
        let preroll = preroll.map(|it| (Memory::new(it.memory_bytes, workers), it.span));
        let (recorder, taps) = Recorder::start(config.record, workers).map_err(StartError::Recorder)?;
        let folder = recorder.folder();
        let kinds = modules.kinds().to_vec();
        let engine = EngineConfig {
            accounting: kinds.contains(&ModuleKind::AcctCsv),
            preroll: preroll.is_some(),
            capture_rtcp: kinds.contains(&ModuleKind::AcctRtcpHep),
            ..config.engine
        };
        let front = Front::new(FrontConfig { modules: kinds, ..config.front });
        let (modules, module_tap) = modules.start().map_err(StartError::ModuleThread)?;
        let prompts = PromptThread::start().map_err(StartError::Prompts)?;
        let around = Surroundings {
            resolver: Resolver::new(config.resolve_names),
            stage: Arc::clone(&stage),
            sessions: Arc::clone(&sessions),
            notify: notify.clone(),
            prompts: prompts.prompts(),
            recorder: recorder.view(),
            preroll: preroll.as_ref().map(|(memory, _)| Arc::clone(memory)),
        };
        let handle = RelayHandle::new(front, lanes, around);
        // From here on, dropping `threads` stops what has been started.
        let mut threads =
            Threads::new(handle.clone(), Arc::clone(&stage), prompts, recorder, modules, notifier);

        for (number, ((io, jobs), tap)) in seats.into_iter().zip(taps).enumerate() {
            let orders =
                Orders { jobs, waker: io.waker(), stage: Arc::clone(&stage), folder: Arc::clone(&folder) };
            let store = preroll.as_ref().map(|(memory, span)| Store::new(memory, number, *span));
            let carrier =
                Carrier::new(io, Arc::clone(&ports), tap, store, module_tap.clone(), notify.clone());
            let engine = Engine::new(engine.clone(), clock::now());
            let worker = Worker::new(engine, carrier, orders, Share::new(Arc::clone(&sessions)));
            let thread = spawn(number, config.scheduling, worker).map_err(StartError::Worker)?;
            threads.add_worker(thread);
        }
        if let Some(metrics) = metrics {
            let sources = Sources::new(handle.clone(), ports, module_tap, addresses);
            threads.set_metrics(metrics.start(sources).map_err(StartError::MetricsThread)?);
        }
        threads.set_control(control::start(control, handle).map_err(StartError::Control)?);
        Ok(Self { threads })
    }

    /// The way to give it commands.
    pub fn handle(&self) -> RelayHandle {
        self.threads.handle()
    }

    /// Stops it: no more commands are taken, sessions end, recordings are closed, threads are joined, UNIX
    /// control sockets are removed.
    pub fn shutdown(self) {
        drop(self);
    }
}

/// Why a relay could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The range of media ports is none: bounds are even, at least 2, and in order.
    #[error("{min} to {max} is no range of RTP ports")]
    Ports {
        /// The lower bound.
        min: u16,
        /// The upper bound.
        max: u16,
    },
    /// There is no address to listen on.
    #[error("there is no address to listen on")]
    NoListenAddress,
    /// No workers were asked for.
    #[error("a relay needs at least one worker")]
    NoWorkers,
    /// The recorder.
    #[error("the recorder cannot start: {0}")]
    Recorder(#[source] io::Error),
    /// The notifier.
    #[error("the notifier cannot start: {0}")]
    Notifier(#[source] io::Error),
    /// The reader of prompts.
    #[error("prompts cannot be read: {0}")]
    Prompts(#[source] io::Error),
    /// A module lacks something.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The thread of a module.
    #[error("a module cannot start: {0}")]
    ModuleThread(#[source] io::Error),
    /// A media worker.
    #[error("a media worker cannot start: {0}")]
    Worker(#[source] io::Error),
    /// The address for metrics.
    #[error("metrics cannot be served at {addr}: {source}")]
    Metrics {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The thread for metrics.
    #[error("metrics cannot be served: {0}")]
    MetricsThread(#[source] io::Error),
    /// The control transports.
    #[error("the control sockets cannot be served: {0}")]
    Control(#[source] io::Error),
}

/// Refuses what cannot work; returns how many workers there shall be.
fn check(config: &Config) -> Result<usize, StartError> {
    let (min, max) = (config.port_min, config.port_max);
    if min == 0 || min > max || !min.is_multiple_of(2) || !max.is_multiple_of(2) {
        return Err(StartError::Ports { min, max });
    }
    if config.front.listen.is_empty() {
        return Err(StartError::NoListenAddress);
    }
    match config.workers {
        Some(0) => Err(StartError::NoWorkers),
        Some(workers) => Ok(workers),
        None => Ok(thread::available_parallelism().map_or(1, NonZero::get)),
    }
}

fn bind_metrics(addr: Option<SocketAddr>) -> Result<Option<Metrics>, StartError> {
    addr.map(|addr| Metrics::bind(addr).map_err(|source| StartError::Metrics { addr, source })).transpose()
}

/// How many addresses for media there are: of IPv4, of IPv6.
fn addresses(front: &FrontConfig) -> [u64; 2] {
    let listen = front.listen.iter().map(|listen| &listen.addr).chain(&front.external);
    let families: Vec<_> = listen.map(LocalAddr::family).collect();
    [Family::V4, Family::V6].map(|family| families.iter().filter(|&&is| is == family).count() as u64)
}

fn spawn(
    number: usize,
    scheduling: Option<Scheduling>,
    worker: Worker<EpollIo>,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(format!("media-{number}")).spawn(move || {
        if let Some(scheduling) = scheduling
            && let Err(error) = set_realtime(scheduling)
        {
            tracing::error!("no real-time scheduling for media: {error}");
        }
        // A failed worker takes its calls with it, but not the others, and the log must say so at once.
        if catch_unwind(AssertUnwindSafe(|| worker.run())).is_err() {
            tracing::error!("a media worker has failed: its calls are lost, commands for them get E81");
        }
    })
}
