//! A recorder without threads, so that tests say when it works.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rtpproxy_core::effects::{Payload, RecordPacket};
use rtpproxy_core::recording::{
    Channel, Coverage, EndReason, Leg, LegFacts, Mark, RecordingEvent, RecordingId, RecordingStart,
};
use rtpproxy_core::time::{Mono, Now, Wall};
use tempfile::TempDir;

use super::super::drain::Drain;
use super::super::files::Folders;
use super::super::finish::{self, Converter, Job, Recipe};
use super::super::journal::sync::{self, Work};
use super::super::ledger::Ledger;
use super::super::queue::{self, Budget, RecorderTap};
use super::super::recording::Shared;
use super::super::watch::FolderWatch;
use crate::config::{RecordConfig, RecordLayout};

/// A worker's tap, the recorder thread's work and the finisher's, all in this thread.
pub(super) struct Bench {
    pub(super) folder: TempDir,
    pub(super) tap: RecorderTap,
    pub(super) drain: Drain,
    pub(super) watch: Arc<FolderWatch>,
    pub(super) ledger: Arc<Ledger>,
    jobs: Receiver<Job>,
    recipe: Option<Recipe>,
    /// Of the journal layout.
    syncing: Option<(Receiver<Work>, Sender<Job>)>,
}

/// What is left when everything is written.
pub(super) struct Recorded {
    pub(super) folder: TempDir,
}

impl Bench {
    pub(super) fn new(config: RecordConfig) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), config)
    }

    pub(super) fn in_folder(folder: TempDir, mut config: RecordConfig) -> Self {
        config.folder.get_or_insert_with(|| folder.path().to_owned());
        let budget = Budget::new(config.buffer_bytes, 1);
        let (tap, outlet) = queue::way(&budget);
        let (finished, jobs) = unbounded();
        let folders = Folders::new(&config).unwrap().unwrap();
        let watch = FolderWatch::unprobed();
        let recipe = Recipe::of(&config);
        let ledger = Arc::default();
        let shared = Shared {
            config,
            folders,
            ip_id: 0,
            running: 0,
            budget,
            watch: Arc::clone(&watch),
            ledger: Arc::clone(&ledger),
            left: Vec::new(),
        };
        let (syncs, works) = unbounded();
        let is_journal = shared.config.layout == RecordLayout::Journal;
        let syncs = if is_journal { vec![syncs.clone(), syncs] } else { Vec::new() };
        let syncing = is_journal.then(|| (works, finished.clone()));
        let drain = Drain::new(vec![outlet], shared, vec![finished.clone(), finished], &syncs);
        Self { folder, tap, drain, watch, ledger, jobs, recipe, syncing }
    }

    pub(super) fn start(&mut self, id: u64, call_id: &[u8], coverage: Coverage) {
        self.tap.event(RecordingEvent::Start(Box::new(start(id, call_id, coverage))));
    }

    /// The same, so many milliseconds after the time that tests count from.
    pub(super) fn start_at(&mut self, id: u64, call_id: &[u8], coverage: Coverage, ms: u64) {
        let start = RecordingStart { at: at(ms), ..start(id, call_id, coverage) };
        self.tap.event(RecordingEvent::Start(Box::new(start)));
    }

    /// One packet, `ms` after the start of the recording.
    pub(super) fn packet(&mut self, id: u64, leg: Leg, channel: Channel, ms: u64, payload: &[u8]) {
        self.tap.packet(&record(id, leg, channel, ms), payload);
    }

    /// RTP of the caller from another address than the usual one.
    pub(super) fn packet_from(&mut self, src: SocketAddr, ms: u64, payload: &[u8]) {
        let record = RecordPacket { src, ..record(1, Leg::Caller, Channel::Rtp, ms) };
        self.tap.packet(&record, payload);
    }

    pub(super) fn mark(&mut self, id: u64, ms: u64, mark: Mark) {
        self.tap.event(RecordingEvent::Mark { id: RecordingId(id), at: at(ms), mark });
    }

    pub(super) fn end(&mut self, id: u64, ms: u64, reason: EndReason) {
        self.tap.event(RecordingEvent::End { id: RecordingId(id), at: at(ms), reason });
    }

    /// Lets the recorder work on what was given so far.
    pub(super) fn work(&mut self) {
        self.tap.flush(Mono(u64::MAX), Wall(u64::MAX));
        self.drain.drain();
    }

    /// Ends the process in the middle of everything, as far as the files can tell.
    pub(super) fn kill(mut self) -> TempDir {
        self.work();
        // Twice: for the packets that wait for others, and for what waits in the buffers then.
        for seconds in [2, 4] {
            self.drain.sweep(Instant::now() + Duration::from_secs(seconds));
        }
        self.folder
    }

    pub(super) fn finish(self) -> Recorded {
        let Self { folder, tap, drain, jobs, recipe, syncing, .. } = self;
        drop(tap);
        let (_, stopped) = bounded(0);
        drain.run(&stopped);
        if let Some((works, finished)) = syncing {
            sync::run(&works, &finished);
        }
        run_finisher(&jobs, recipe);
        Recorded { folder }
    }
}

impl Recorded {
    pub(super) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let names: BTreeSet<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.into_iter().collect()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(super) fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&self.bytes(name)).unwrap()
    }
}

/// Does the jobs of a finisher, and of its converter if there is one.
pub(super) fn run_finisher(jobs: &Receiver<Job>, recipe: Option<Recipe>) {
    let figures = Arc::default();
    let converter = recipe.map(|recipe| Converter::start(recipe, &figures).unwrap());
    let (converter, thread) = converter.unzip();
    finish::run(jobs, converter);
    thread.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(figures.waiting.load(Ordering::Relaxed), 0);
}

/// A packet between the usual addresses.
pub(super) fn record(id: u64, leg: Leg, channel: Channel, ms: u64) -> RecordPacket {
    let offset = u16::from(channel == Channel::Rtcp);
    let [src, dst] =
        <[SocketAddr; 2]>::from(addrs(leg)).map(|addr| SocketAddr::new(addr.ip(), addr.port() + offset));
    let id = RecordingId(id);
    RecordPacket { id, leg, channel, at: at(ms), src, dst, payload: Payload::Received }
}

pub(super) fn start(id: u64, call_id: &[u8], coverage: Coverage) -> RecordingStart {
    let facts = |leg| {
        let (remote, local) = addrs(leg);
        LegFacts {
            remote: None,
            signalled: Some(remote),
            local: Some((local.ip(), local.port())),
            codecs: vec![0, 101],
        }
    };
    RecordingStart {
        id: RecordingId(id),
        call_id: call_id.into(),
        from_tag: "f".into(),
        to_tag: Some("t".into()),
        coverage,
        rtcp: true,
        at: at(0),
        legs: [facts(Leg::Caller), facts(Leg::Callee)],
    }
}

/// Where a leg sends RTP from, and to.
pub(super) fn addrs(leg: Leg) -> (SocketAddr, SocketAddr) {
    let parse = |text: &str| text.parse().unwrap();
    match leg {
        Leg::Caller => (parse("192.0.2.10:4000"), parse("192.0.2.1:35000")),
        Leg::Callee => (parse("192.0.2.20:5000"), parse("192.0.2.1:35002")),
    }
}

pub(super) fn at(ms: u64) -> Now {
    let start = Now { mono: Mono(5_000_000_000), wall: Wall(1_700_000_000_123_456_789) };
    start + Duration::from_millis(ms)
}

/// 20 ms of G.711 from `leg`.
pub(super) fn rtp(leg: Leg, sequence: u16) -> Vec<u8> {
    rtp_of(leg, sequence, 0)
}

pub(super) fn rtp_of(leg: Leg, sequence: u16, payload_type: u8) -> Vec<u8> {
    let ssrc = ssrc(leg);
    let mut packet = vec![0x80, payload_type];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.resize(172, sequence as u8);
    packet
}

pub(super) fn ssrc(leg: Leg) -> u32 {
    match leg {
        Leg::Caller => 0xa,
        Leg::Callee => 0xb,
    }
}
