//! Where metrics come from, and all of them at one moment.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rtpproxy_core::stats::{CommandStats, Stats};

use crate::RelayHandle;
use crate::host::{PortUse, Ports};
use crate::modules::{ModuleFigures, ModuleTap};
use crate::preroll::PrerollFigures;
use crate::recorder::RecorderFigures;

/// The parts of a relay that have figures.
#[derive(Debug)]
pub(crate) struct Sources {
    handle: RelayHandle,
    ports: Arc<Ports>,
    modules: ModuleTap,
    /// Addresses for media: of IPv4, of IPv6.
    addresses: [u64; 2],
    started: SystemTime,
}

impl Sources {
    /// The parts of a relay that starts now and has so many addresses of IPv4 and of IPv6.
    pub(crate) fn new(
        handle: RelayHandle,
        ports: Arc<Ports>,
        modules: ModuleTap,
        addresses: [u64; 2],
    ) -> Self {
        Self { handle, ports, modules, addresses, started: SystemTime::now() }
    }

    /// The figures as they are now; `None` if a media thread has failed or is far behind.
    pub(super) async fn figures(&self) -> Option<Figures> {
        let stats = self.handle.stats().await.ok()?;
        let around = self.handle.around();
        Some(Figures {
            stats,
            commands: self.handle.command_stats(),
            ports: self.ports.in_use(self.addresses),
            is_draining: around.stage.is_draining(),
            notifications_lost: around.notify.lost(),
            recorder: around.recorder.figures(),
            preroll: around.preroll.as_ref().map(|memory| memory.figures()),
            modules: self.modules.figures(),
            started_s: self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        })
    }
}

/// All figures of a relay.
#[derive(Debug)]
pub(super) struct Figures {
    /// Of all engines.
    pub(super) stats: Stats,
    /// Of the control plane.
    pub(super) commands: CommandStats,
    /// Port pairs of IPv4, of IPv6.
    pub(super) ports: [PortUse; 2],
    /// New sessions are refused.
    pub(super) is_draining: bool,
    /// Notifications that nobody got.
    pub(super) notifications_lost: u64,
    /// Of the recorder, if there is a folder.
    pub(super) recorder: Option<RecorderFigures>,
    /// Of what is kept for recordings that begin later, if anything is.
    pub(super) preroll: Option<PrerollFigures>,
    /// Of the modules in use.
    pub(super) modules: ModuleFigures,
    /// When the relay started, in seconds since 1970.
    pub(super) started_s: u64,
}
