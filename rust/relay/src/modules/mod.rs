//! Modules: what the relay tells other programs of its sessions, each on a thread of its own behind a bounded
//! queue (docs/modules.md).
//!
//! They are opened first, while the process still has all its rights and its first working directory, and
//! started with the relay.

mod acct_csv;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rtpproxy_core::accounting::SessionEnd;
use rtpproxy_core::config::ModuleKind;

use crate::config::Module;
use acct_csv::{AcctCsv, AcctQueue, AcctThread};

/// Modules with what they need from the system, ready to be started with a relay.
#[derive(Debug, Default)]
pub struct Modules {
    kinds: Vec<ModuleKind>,
    accounts: Vec<AcctCsv>,
}

impl Modules {
    /// Opens the files of the modules.
    ///
    /// # Errors
    ///
    /// The first one that cannot work.
    pub fn open(modules: &[Module]) -> Result<Self, ModuleError> {
        let mut opened = Self { kinds: modules.iter().map(Module::kind).collect(), ..Self::default() };
        for module in modules {
            match module {
                Module::AcctCsv(config) => {
                    let file = std::path::absolute(&config.file).unwrap_or_else(|_| config.file.clone());
                    let account =
                        AcctCsv::open(&file).map_err(|source| ModuleError::AcctCsv { file, source })?;
                    opened.accounts.push(account);
                }
                Module::AcctRtcpHep(_) | Module::CatchDtmf => {}
            }
        }
        Ok(opened)
    }

    /// What they are, in load order.
    pub(crate) fn kinds(&self) -> &[ModuleKind] {
        &self.kinds
    }

    /// Starts their threads.
    pub(crate) fn start(self) -> io::Result<(ModuleThreads, ModuleTap)> {
        let mut threads = ModuleThreads { accounts: Vec::new() };
        let mut tap = ModuleTap::default();
        for account in self.accounts {
            let (queue, thread) = account.start()?;
            tap.accounts.push(queue);
            threads.accounts.push(thread);
        }
        Ok((threads, tap))
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
}

/// The threads of the modules. Dropping them ends them: what is queued is dealt with first, within some seconds.
#[derive(Debug)]
pub(crate) struct ModuleThreads {
    accounts: Vec<AcctThread>,
}

/// The way of one worker to the modules. Never waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModuleTap {
    accounts: Vec<AcctQueue>,
}

impl ModuleTap {
    /// Tells of a session that has ended.
    pub(crate) fn session_ended(&self, end: Box<SessionEnd>) {
        let end = Arc::from(end);
        for account in &self.accounts {
            account.add(Arc::clone(&end));
        }
    }
}
