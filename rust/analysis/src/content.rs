//! What is in the files of recordings, compressed and encrypted or not.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rtpproxy_core::compression::Content;
use rtpproxy_core::sealed::State;

use crate::unlock::{Identities, Kind, UnlockError, Unlocked};

/// Opens a file of a recording, with `identities` if it is encrypted.
///
/// # Errors
///
/// When it cannot be read, or is encrypted and no identity opens it.
pub(crate) fn open(path: &Path, identities: &Identities) -> io::Result<Content<Ending<File>>> {
    let file = Unlocked::new(File::open(path)?, identities)?;
    Content::new(Ending::of(file))
}

/// A file of a recording as it was before it was compressed and encrypted.
///
/// Damage ends the reading with an error. A sealed file that is being written, or was when its relay was killed, ends
/// with its last whole chunk.
pub struct PlainFile(Content<Unlocked<File>>);

impl PlainFile {
    /// Opens a file, with `identities` if it is encrypted.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is encrypted and no identity opens it.
    pub fn open(path: &Path, identities: &Identities) -> Result<Self, UnlockError> {
        let file = Unlocked::new(File::open(path)?, identities)?;
        Ok(Self(Content::new(file)?))
    }
}

impl Read for PlainFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer);
        match read {
            Err(error)
                if self.0.broken().is_none()
                    && self.0.source_mut().kind() == Kind::Age
                    && is_damage(&error) =>
            {
                Err(io::Error::new(io::ErrorKind::InvalidData, AGE_DAMAGED))
            }
            read => read,
        }
    }
}

/// An encrypted file, which ends where nothing more can be read of it.
pub(crate) struct Ending<R: Read> {
    file: Unlocked<R>,
    cut: Option<String>,
}

impl<R: Read> Ending<R> {
    /// Of a file that was just opened.
    pub(crate) fn of(file: Unlocked<R>) -> Self {
        Self { file, cut: None }
    }

    /// How the file is encrypted.
    pub(crate) fn kind(&self) -> Kind {
        self.file.kind()
    }

    /// Reads on behind the damaged chunks of a sealed file.
    pub(crate) fn leave_out_damage(&mut self) {
        self.file.leave_out_damage();
    }

    /// Why it ended before its end.
    pub(crate) fn cut(&self) -> Option<&str> {
        self.cut.as_deref()
    }

    /// The same, or how a sealed file ends.
    pub(crate) fn damage(&self) -> Option<String> {
        let torn = || Some(self.file.sealed()?.tail?.reason.to_owned());
        self.cut.clone().or_else(torn)
    }

    /// What was met in a sealed file.
    pub(crate) fn sealed(&self) -> Option<&State> {
        self.file.sealed()
    }
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cut.is_some() {
            return Ok(0);
        }
        match self.file.read(buffer) {
            Err(error) if self.kind() != Kind::Plain && is_damage(&error) => {
                self.cut = Some(match self.kind() {
                    Kind::Sealed => error.to_string(),
                    _ => AGE_DAMAGED.to_owned(),
                });
                Ok(0)
            }
            other => other,
        }
    }
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

fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

const AGE_DAMAGED: &str = "what follows in the encrypted file is damaged, or cut off";
