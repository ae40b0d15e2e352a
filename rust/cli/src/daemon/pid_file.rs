//! The file that holds the process id.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An open pid file. Opened with the rights of the start, written by the process that stays. Dropping it removes
/// the file, if it is a regular one and still the one that was opened.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Opens or creates `path`; `/dev/null` stands for no pid file.
    ///
    /// # Errors
    /// The file cannot be opened for writing; a FIFO that nobody reads counts as such.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        if path == Path::new("/dev/null") {
            return Ok(None);
        }
        // Opening a FIFO would wait for a reader otherwise.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o644).custom_flags(libc::O_NONBLOCK);
        Ok(Some(Self { path: std::path::absolute(path)?, file: options.open(path)? }))
    }

    /// Writes the id of this process. A failure is logged.
    pub(super) fn write(&mut self) {
        if let Err(error) = self.file.write_all(format!("{}\n", std::process::id()).as_bytes()) {
            tracing::error!(%error, "can't write the pid file {}", self.path.display());
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let (Ok(opened), Ok(there)) = (self.file.metadata(), self.path.symlink_metadata()) else {
            return;
        };
        if !there.is_file() || (opened.dev(), opened.ino()) != (there.dev(), there.ino()) {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, "can't remove the pid file {}", self.path.display());
        }
    }
}
