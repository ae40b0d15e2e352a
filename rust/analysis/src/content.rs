//! What is in the files of recordings, compressed or not.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rtpproxy_core::compression::Content;

/// Opens a file of a recording.
///
/// # Errors
///
/// When it cannot be read.
pub(crate) fn open(path: &Path) -> io::Result<Content<File>> {
    Content::new(File::open(path)?)
}

/// Content whose end is where damage of the compressed data begins; [`Content::broken`] tells of it.
pub(crate) struct UpToDamage<'a, R: Read>(pub(crate) &'a mut Content<R>);

impl<R: Read> Read for UpToDamage<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Err(_) if self.0.broken().is_some() => Ok(0),
            outcome => outcome,
        }
    }
}
