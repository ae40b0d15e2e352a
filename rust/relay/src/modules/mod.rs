//! Modules: what the relay tells other programs of its sessions, each on a thread of its own behind a bounded
//! queue (docs/modules.md).
//!
//! They are opened first, while the process still has all its rights and its first working directory, and
//! started with the relay.

mod acct_csv;
mod hep;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rtpproxy_core::accounting::SessionEnd;
use rtpproxy_core::config::ModuleKind;
use rtpproxy_core::effects::CapturedRtcp;

use crate::config::{HepConfig, Module};
use crate::work::{Outcome, WorkQueue, WorkThreads};
use acct_csv::AcctCsv;
use hep::{Hep, Report};

/// Modules with what they need from the system, ready to be started with a relay.
#[derive(Debug, Default)]
pub struct Modules {
    kinds: Vec<ModuleKind>,
    accounts: Vec<AcctCsv>,
    captures: Vec<Hep>,
}

impl Modules {
    /// Opens the files of the modules and connects to their servers. Host names are looked up only if
    /// `resolve_names`.
    ///
    /// # Errors
    ///
    /// The first one that cannot work.
    pub fn open(modules: &[Module], resolve_names: bool) -> Result<Self, ModuleError> {
        let mut opened = Self { kinds: modules.iter().map(Module::kind).collect(), ..Self::default() };
        for module in modules {
            match module {
                Module::AcctCsv(config) => {
                    let file = std::path::absolute(&config.file).unwrap_or_else(|_| config.file.clone());
                    let account =
                        AcctCsv::open(&file).map_err(|source| ModuleError::AcctCsv { file, source })?;
                    opened.accounts.push(account);
                }
                Module::AcctRtcpHep(config) => {
                    let capture = Hep::open(config, resolve_names)
                        .map_err(|source| ModuleError::AcctRtcpHep { server: config.clone(), source })?;
                    opened.captures.push(capture);
                }
                Module::CatchDtmf => {}
            }
        }
        Ok(opened)
    }

    /// Looks up the servers of the modules as [`Modules::open`] does, and opens nothing.
    ///
    /// # Errors
    ///
    /// The first server that has no address.
    pub fn look_up(modules: &[Module], resolve_names: bool) -> Result<(), ModuleError> {
        for module in modules {
            if let Module::AcctRtcpHep(config) = module {
                hep::addresses(config, resolve_names)
                    .map_err(|source| ModuleError::AcctRtcpHep { server: config.clone(), source })?;
            }
        }
        Ok(())
    }

    /// What they are, in load order.
    pub(crate) fn kinds(&self) -> &[ModuleKind] {
        &self.kinds
    }

    /// Starts their threads.
    pub(crate) fn start(self) -> io::Result<(WorkThreads, ModuleTap)> {
        let mut threads = Vec::new();
        let mut tap = ModuleTap::default();
        for account in self.accounts {
            let (queue, thread) = account.start()?;
            tap.accounts.push(queue);
            threads.push(thread);
        }
        for capture in self.captures {
            let (queue, thread) = capture.start()?;
            tap.captures.push(queue);
            threads.push(thread);
        }
        Ok((WorkThreads(threads), tap))
    }
}

/// Why a module cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The file of `acct_csv`.
    #[error("module acct_csv: can't open {}: {source}", file.display())]
    AcctCsv {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The capture server of `acct_rtcp_hep`.
    #[error("module acct_rtcp_hep: can't connect to {server}: {source}")]
    AcctRtcpHep {
        /// The server.
        server: HepConfig,
        /// Why not.
        source: io::Error,
    },
}

/// The figures of the modules, over all of a kind; `None` without one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ModuleFigures {
    /// Lines.
    pub(crate) acct_csv: Option<Outcome>,
    /// Reports.
    pub(crate) acct_rtcp_hep: Option<Outcome>,
}

/// The way of one worker to the modules. Never waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModuleTap {
    accounts: Vec<WorkQueue<SessionEnd>>,
    captures: Vec<WorkQueue<Report>>,
}

impl ModuleTap {
    /// The figures of the modules.
    pub(crate) fn figures(&self) -> ModuleFigures {
        ModuleFigures {
            acct_csv: Outcome::sum(self.accounts.iter().map(WorkQueue::outcome)),
            acct_rtcp_hep: Outcome::sum(self.captures.iter().map(WorkQueue::outcome)),
        }
    }

    /// Tells of a session that has ended.
    pub(crate) fn session_ended(&self, end: Box<SessionEnd>) {
        let end = Arc::from(end);
        for account in &self.accounts {
            account.add(Arc::clone(&end));
        }
    }

    /// Tells of RTCP that a party sent.
    pub(crate) fn rtcp(&self, captured: &CapturedRtcp, rtcp: &[u8]) {
        let report = Arc::new(Report::new(captured, rtcp));
        for capture in &self.captures {
            capture.add(Arc::clone(&report));
        }
    }
}
