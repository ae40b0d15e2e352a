//! How far the end of a relay is, and the order in which its parts stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::control::ControlThread;
use crate::dispatch::RelayHandle;
use crate::metrics::MetricsThread;
use crate::notifier::Notifier;
use crate::prompts::PromptThread;
use crate::recorder::Recorder;
use crate::work::WorkThreads;

/// How far the end of a relay is: it runs, it takes no new sessions, it stops. Seen by all its threads.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    draining: AtomicBool,
    stopping: AtomicBool,
}

impl Stage {
    /// From now on new sessions are refused.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// True after [`Self::drain`].
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// From now on workers end when they are woken.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// True after [`Self::stop`].
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// The threads of a relay. Dropping them stops everything, in an order in which nothing is lost.
#[derive(Debug)]
pub(crate) struct Threads {
    handle: RelayHandle,
    stage: Arc<Stage>,
    control: Option<ControlThread>,
    metrics: Option<MetricsThread>,
    prompts: Option<PromptThread>,
    workers: Vec<JoinHandle<()>>,
    recorder: Option<Recorder>,
    modules: Option<WorkThreads>,
    notifier: Option<Notifier>,
}

impl Threads {
    /// The threads that workers hand things to; workers and control are still to come.
    pub(crate) fn new(
        handle: RelayHandle,
        stage: Arc<Stage>,
        prompts: PromptThread,
        recorder: Recorder,
        modules: WorkThreads,
        notifier: Notifier,
    ) -> Self {
        let (prompts, recorder) = (Some(prompts), Some(recorder));
        let (modules, notifier) = (Some(modules), Some(notifier));
        Self {
            handle,
            stage,
            control: None,
            metrics: None,
            prompts,
            workers: Vec::new(),
            recorder,
            modules,
            notifier,
        }
    }

    /// Adds the thread of a worker.
    pub(crate) fn add_worker(&mut self, worker: JoinHandle<()>) {
        self.workers.push(worker);
    }

    /// Adds the thread of the control transports.
    pub(crate) fn set_control(&mut self, control: ControlThread) {
        self.control = Some(control);
    }

    /// Adds the thread that serves metrics.
    pub(crate) fn set_metrics(&mut self, metrics: MetricsThread) {
        self.metrics = Some(metrics);
    }

    /// The way to give commands.
    pub(crate) fn handle(&self) -> RelayHandle {
        self.handle.clone()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // 1. No more commands come in; UNIX sockets disappear.
        if let Some(control) = self.control.take() {
            control.stop();
        }
        drop(self.prompts.take());
        drop(self.metrics.take());
        // 2. Workers end their sessions, and with them the recordings.
        self.stage.stop();
        self.handle.wake_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        // 3. What the workers handed over is written, and files are closed.
        if let Some(recorder) = self.recorder.take() {
            recorder.shutdown();
        }
        // 4. What they had to tell is written and delivered.
        drop(self.modules.take());
        drop(self.notifier.take());
    }
}
