//! Prompts: sounds that the command `P` plays, as one file of payloads for each codec.
//!
//! The file of a codec is called after its payload type, `welcome.0` and `welcome.18`, and is nothing but payloads
//! behind each other. [`sound`] reads what they are made from, [`PromptFiles`] writes them.

pub mod sound;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::codec::Encoder;

/// Samples that are encoded at a time: 20 ms, which is a whole number of frames of every codec.
pub const BLOCK_SAMPLES: usize = 160;

/// Encoders with their payload types.
pub type Encoders = Vec<(u8, Box<dyn Encoder>)>;

/// The files of one prompt while they are written.
pub struct PromptFiles(Vec<PromptFile>);

impl PromptFiles {
    /// Creates `TEMPLATE.PT` for each of `encoders`. A file that is there is written anew, unless it is `source`, the
    /// one that the sound was read from.
    ///
    /// # Errors
    ///
    /// [`PromptError`] with the file that cannot be created; those before it stay.
    pub fn create(template: &Path, encoders: Encoders, source: &Path) -> Result<Self, PromptError> {
        let open = |(payload_type, encoder)| {
            let path = file_name(template, payload_type);
            match create(&path, source) {
                Ok(file) => Ok(PromptFile {
                    payload_type,
                    path,
                    file: BufWriter::new(file),
                    encoder,
                    payload: Vec::new(),
                    bytes: 0,
                }),
                Err(error) => Err(PromptError { path, error }),
            }
        };
        encoders.into_iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// Encodes a block into every file. The last one may be shorter than [`BLOCK_SAMPLES`]: G.711 then has as many
    /// bytes as it has samples, for the other codecs it is filled up with silence.
    ///
    /// # Errors
    ///
    /// [`PromptError`] with the file that cannot be written.
    pub fn write(&mut self, block: &[i16]) -> Result<(), PromptError> {
        let mut whole = [0; BLOCK_SAMPLES];
        whole[..block.len()].copy_from_slice(block);
        for prompt in &mut self.0 {
            let samples = if is_g711(prompt.payload_type) { block } else { &whole };
            prompt.payload.clear();
            prompt.encoder.encode(samples, &mut prompt.payload);
            prompt.bytes += prompt.payload.len() as u64;
            let written = prompt.file.write_all(&prompt.payload);
            written.map_err(|error| PromptError { path: prompt.path.clone(), error })?;
        }
        Ok(())
    }

    /// Ends the files, and tells the payload type, path and number of bytes of each.
    ///
    /// # Errors
    ///
    /// [`PromptError`] with the file that cannot be written.
    pub fn finish(self) -> Result<Vec<(u8, PathBuf, u64)>, PromptError> {
        let end = |prompt: PromptFile| match prompt.file.into_inner() {
            Ok(_) => Ok((prompt.payload_type, prompt.path, prompt.bytes)),
            Err(error) => Err(PromptError { path: prompt.path, error: error.into_error() }),
        };
        self.0.into_iter().map(end).collect()
    }
}

/// The name of a prompt's file: `TEMPLATE.PT`.
pub fn file_name(template: &Path, payload_type: u8) -> PathBuf {
    let mut name = OsString::from(template);
    name.push(format!(".{payload_type}"));
    name.into()
}

/// A file of a prompt that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct PromptError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub error: io::Error,
}

struct PromptFile {
    payload_type: u8,
    path: PathBuf,
    file: BufWriter<File>,
    encoder: Box<dyn Encoder>,
    /// Room for one block.
    payload: Vec<u8>,
    bytes: u64,
}

fn create(path: &Path, source: &Path) -> io::Result<File> {
    let identity = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino())).ok();
    if identity(path).is_some_and(|found| identity(source) == Some(found)) {
        return Err(io::Error::other("this is the file that the sound comes from"));
    }
    File::create(path)
}

fn is_g711(payload_type: u8) -> bool {
    matches!(payload_type, 0 | 8)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::codec;

    fn make(folder: &Path, blocks: &[&[i16]]) -> Vec<(u8, PathBuf, u64)> {
        let encoders = [0, 8, 9].map(|payload_type| (payload_type, codec::encoder(payload_type).unwrap()));
        let template = folder.join("a.b");
        let mut files = PromptFiles::create(&template, encoders.into(), Path::new("none")).unwrap();
        for block in blocks {
            files.write(block).unwrap();
        }
        files.finish().unwrap()
    }

    #[test]
    fn only_g711_ends_within_a_block() {
        let folder = tempfile::tempdir().unwrap();
        let made = make(folder.path(), &[&[5; 160], &[5; 3]]);
        let names = ["a.b.0", "a.b.8", "a.b.9"].map(|name| folder.path().join(name));
        let [mu_law, a_law, g722] = names.clone();
        assert_eq!(made, [(0, mu_law, 163), (8, a_law, 163), (9, g722, 320)]);
        let sizes = names.map(|name| fs::metadata(name).unwrap().len());
        assert_eq!(sizes, [163, 163, 320]);
        assert_eq!(fs::read(folder.path().join("a.b.8")).unwrap(), [0xd5; 163]);
    }

    #[test]
    fn a_sound_is_never_its_own_prompt() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("sound.0");
        fs::write(&source, "sound").unwrap();
        let encoders = vec![(0, codec::encoder(0).unwrap())];
        let error = PromptFiles::create(&folder.path().join("sound"), encoders, &source).err().unwrap();
        let place = source.display();
        assert_eq!(error.to_string(), format!("{place}: this is the file that the sound comes from"));
        assert_eq!(fs::read(&source).unwrap(), b"sound");
    }
}
