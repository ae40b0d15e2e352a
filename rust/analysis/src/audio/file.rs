//! Writing audio files.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use super::RATE;
use crate::MissingLibrary;
use crate::native::sndfile::{OpenError, SoundFile};

/// The names of containers, with the numbers that libsndfile has for them.
pub const CONTAINERS: &[(&str, u32)] = &[
    ("wav", 0x01_0000),
    ("aiff", 0x02_0000),
    ("au", 0x03_0000),
    ("raw", 0x04_0000),
    ("paf", 0x05_0000),
    ("svx", 0x06_0000),
    ("nist", 0x07_0000),
    ("voc", 0x08_0000),
    ("ircam", 0x0a_0000),
    ("w64", 0x0b_0000),
    ("mat4", 0x0c_0000),
    ("mat5", 0x0d_0000),
    ("pvf", 0x0e_0000),
    ("xi", 0x0f_0000),
    ("htk", 0x10_0000),
    ("sds", 0x11_0000),
    ("avr", 0x12_0000),
    ("wavex", 0x13_0000),
    ("sd2", 0x16_0000),
    ("flac", 0x17_0000),
    ("caf", 0x18_0000),
    ("wve", 0x19_0000),
    ("ogg", 0x20_0000),
    ("mpc2k", 0x21_0000),
    ("rf64", 0x22_0000),
];

/// The names of encodings, with the numbers that libsndfile has for them.
pub const ENCODINGS: &[(&str, u32)] = &[
    ("pcm_s8", 0x01),
    ("pcm_16", 0x02),
    ("pcm_24", 0x03),
    ("pcm_32", 0x04),
    ("pcm_u8", 0x05),
    ("float", 0x06),
    ("double", 0x07),
    ("ulaw", 0x10),
    ("alaw", 0x11),
    ("ima_adpcm", 0x12),
    ("ms_adpcm", 0x13),
    ("gsm610", 0x20),
    ("vox_adpcm", 0x21),
    ("g721_32", 0x30),
    ("g723_24", 0x31),
    ("g723_40", 0x32),
    ("dwvw_12", 0x40),
    ("dwvw_16", 0x41),
    ("dwvw_24", 0x42),
    ("dwvw_n", 0x43),
    ("dpcm_8", 0x50),
    ("dpcm_16", 0x51),
    ("vorbis", 0x60),
    ("opus", 0x64),
];

/// What kind of audio file to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioFormat {
    container: (&'static str, u32),
    encoding: (&'static str, u32),
}

impl AudioFormat {
    /// The format of these names, in letters of either case.
    ///
    /// # Errors
    ///
    /// When a name is not in [`CONTAINERS`] or [`ENCODINGS`]. Not every pair of them exists; that is found
    /// out when a file is created.
    pub fn new(container: &str, encoding: &str) -> Result<Self, UnknownName> {
        Ok(Self { container: Self::container(container)?, encoding: Self::encoding(encoding)? })
    }

    /// The name of the container, which is also a suffix for files.
    pub fn suffix(self) -> &'static str {
        self.container.0
    }

    fn container(name: &str) -> Result<(&'static str, u32), UnknownName> {
        find(CONTAINERS, name).ok_or_else(|| UnknownName { kind: "file format", name: name.to_owned() })
    }

    fn encoding(name: &str) -> Result<(&'static str, u32), UnknownName> {
        find(ENCODINGS, name).ok_or_else(|| UnknownName { kind: "data format", name: name.to_owned() })
    }
}

/// No container or encoding is called so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no known {kind}")]
pub struct UnknownName {
    kind: &'static str,
    name: String,
}

/// An audio file that is being written, of 8000 samples of 16 bits a second.
///
/// WAV with 16-bit PCM needs nothing else; for all other formats libsndfile is loaded.
#[derive(Debug)]
pub struct AudioFile(Kind);

enum Kind {
    Wav { file: hound::WavWriter<BufWriter<File>>, room: u64 },
    Library(SoundFile),
}

impl AudioFile {
    /// Creates a file of one or two channels, or replaces it.
    ///
    /// # Errors
    ///
    /// When that is not possible, there is no such pair of container and encoding, or libsndfile is needed
    /// and missing.
    pub fn create(path: &Path, format: AudioFormat, channels: u16) -> Result<Self, AudioError> {
        if (format.container.0, format.encoding.0) == ("wav", "pcm_16") {
            let spec = hound::WavSpec {
                channels,
                sample_rate: RATE,
                bits_per_sample: 16,
                sample_format: hound::SampleFormat::Int,
            };
            let file = BufWriter::new(File::create(path)?);
            return Ok(Self(Kind::Wav { file: hound::WavWriter::new(file, spec)?, room: WAV_ROOM }));
        }
        let number = (format.container.1 | format.encoding.1) as i32;
        match SoundFile::create(path, number, usize::from(channels), RATE) {
            Ok(file) => Ok(Self(Kind::Library(file))),
            Err(OpenError::Missing(missing)) => Err(missing.into()),
            Err(OpenError::Refused(reason)) => Err(AudioError::Library(format!(
                "{reason} ({}, {}, {channels} channels)",
                format.container.0, format.encoding.0
            ))),
        }
    }

    /// Makes formats of floating point hold samples from -1 to 1, as most programs expect, instead of from
    /// -32768 to 32767.
    pub fn normalize(&mut self) {
        if let Kind::Library(file) = &mut self.0 {
            file.normalize();
        }
    }

    /// Appends samples: whole frames, each with one of each channel.
    ///
    /// # Errors
    ///
    /// When they cannot be written, or the format has no room for so many.
    pub fn write(&mut self, samples: &[i16]) -> Result<(), AudioError> {
        match &mut self.0 {
            Kind::Wav { file, room } => {
                *room = room.checked_sub(samples.len() as u64).ok_or(AudioError::Full)?;
                for &sample in samples {
                    file.write_sample(sample)?;
                }
                Ok(())
            }
            Kind::Library(file) => file.write(samples).map_err(AudioError::Library),
        }
    }

    /// Completes the file.
    ///
    /// # Errors
    ///
    /// When the rest of it cannot be written.
    pub fn finish(self) -> Result<(), AudioError> {
        match self.0 {
            Kind::Wav { file, .. } => Ok(file.finalize()?),
            Kind::Library(file) => file.close().map_err(AudioError::Library),
        }
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Wav { .. } => "Wav",
            Self::Library(_) => "Library",
        })
    }
}

/// Why an audio file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// The system does not let it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The format needs a library that is not there.
    #[error(transparent)]
    Missing(#[from] MissingLibrary),
    /// The samples are too many for a WAV file.
    #[error("a WAV file has room for 4 GiB, and there is more; the formats w64 and rf64 have room")]
    Full,
    /// The library does not do it, in its words.
    #[error("{0}")]
    Library(String),
}

impl From<hound::Error> for AudioError {
    fn from(error: hound::Error) -> Self {
        match error {
            hound::Error::IoError(error) => Self::Io(error),
            error => Self::Library(error.to_string()),
        }
    }
}

fn find(table: &[(&'static str, u32)], name: &str) -> Option<(&'static str, u32)> {
    table.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).copied()
}

/// Samples of 16 bits that a WAV file has room for: its lengths have 32 bits, and count the header too.
const WAV_ROOM: u64 = (u32::MAX as u64 - 64) / 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wav_files_have_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let format = AudioFormat::new("wav", "pcm_16").unwrap();
        let mut file = AudioFile::create(&folder.path().join("x.wav"), format, 2).unwrap();
        let Kind::Wav { room, .. } = &mut file.0 else { panic!("hound writes it") };
        assert!((u64::from(u32::MAX) - 200..u64::from(u32::MAX) - 44).contains(&(2 * *room)));
        *room = 6;
        file.write(&[1; 6]).unwrap();
        assert!(matches!(file.write(&[1; 2]), Err(AudioError::Full)));
    }
}
