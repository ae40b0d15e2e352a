//! `rtpproxy prompts`: sounds to files that the command `P` plays.

mod makeann;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rtpproxy_analysis::codec::{self, CodecError, SAMPLE_RATE};
use rtpproxy_analysis::prompts::sound::{Sound, SoundError, read_raw, read_wav};
use rtpproxy_analysis::prompts::{BLOCK_SAMPLES, Encoders, PromptFiles, file_name};

use crate::{complain, say};
pub(crate) use makeann::{Makeann, run as makeann};

/// Encodes sounds for the command P, which plays them to a party: one file for each codec.
///
/// welcome.wav becomes welcome.0, welcome.3, welcome.8, welcome.9 and welcome.18: each has the payload type of its
/// codec at the end of its name, and P is told "welcome".
#[derive(Debug, Parser)]
#[command(bin_name = "rtpproxy prompts", max_term_width = 110)]
pub(crate) struct Prompts {
    /// WAV files of any rate and number of channels
    #[arg(required = true, value_name = "SOUND")]
    sounds: Vec<PathBuf>,
    /// What the names of the files begin with [default: SOUND without .wav]
    #[arg(short, long, value_name = "TEMPLATE")]
    output: Option<PathBuf>,
    /// Codecs by payload type: 0 (G.711 µ-law), 3 (GSM), 8 (G.711 A-law), 9 (G.722), 18 (G.729)
    /// [default: all that the machine has]
    #[arg(short, long, value_delimiter = ',', value_name = "LIST", value_parser = payload_type)]
    codecs: Vec<u8>,
    /// Stop after so many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    limit: Option<f64>,
    /// Repeat the sound until the limit
    #[arg(short = 'L', long = "loop", requires = "limit")]
    repeats: bool,
    /// SOUND has no header: its samples are signed, 16 bits, little-endian, 8000 Hz, one channel
    #[arg(long)]
    raw: bool,
}

impl Prompts {
    /// Runs it and gives back the exit status: 0 if everything that was asked for is there.
    pub(crate) fn run(&self) -> i32 {
        if self.output.is_some() && self.sounds.len() > 1 {
            complain("prompts: --output is for one sound, and there are several");
            return 1;
        }
        let mut status = 0;
        for path in &self.sounds {
            match self.make(path) {
                Ok(Complete::Yes) => {}
                Ok(Complete::No) => status = 1,
                Err(error) => {
                    complain(&format!("prompts: {error}"));
                    status = 1;
                }
            }
        }
        status
    }

    fn make(&self, path: &Path) -> Result<Complete, String> {
        let sound = self.read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let template = self.template(path);
        let (encoders, complete) = self.encoders(&template)?;
        let files = PromptFiles::create(&template, encoders, path);
        let mut files = files.map_err(|error| error.to_string())?;
        say(&format!("{}: {}\n", path.display(), describe(&sound)));
        let bar = progress(sound.samples.len());
        for block in sound.samples.chunks(BLOCK_SAMPLES) {
            files.write(block).map_err(|error| error.to_string())?;
            bar.inc(block.len() as u64);
        }
        bar.finish_and_clear();
        for (payload_type, path, bytes) in files.finish().map_err(|error| error.to_string())? {
            say(&format!("  {}: {}, {bytes} bytes\n", path.display(), codec_name(payload_type)));
        }
        Ok(complete)
    }

    /// Reads the sound, and makes it as long as it shall be.
    fn read(&self, path: &Path) -> Result<Sound, String> {
        let limit = self.limit.map(|seconds| (seconds * f64::from(SAMPLE_RATE)).round() as usize);
        let mut sound = if self.raw {
            let samples =
                read_raw(path, limit.map(|limit| limit as u64)).map_err(|error| error.to_string())?;
            Sound { samples, rate_hz: SAMPLE_RATE, channels: 1 }
        } else {
            read_wav(path).map_err(|error| match error {
                SoundError::Broken(_) if !is_wav(path) => format!("{error}; if it has no header, say --raw"),
                error => error.to_string(),
            })?
        };
        if sound.samples.is_empty() {
            return Err("there is no sound in it".into());
        }
        let length = match limit {
            Some(limit) if self.repeats => limit,
            Some(limit) => limit.min(sound.samples.len()),
            None => sound.samples.len(),
        };
        sound.samples = sound.samples.iter().copied().cycle().take(length).collect();
        Ok(sound)
    }

    fn template(&self, sound: &Path) -> PathBuf {
        match &self.output {
            Some(output) => output.clone(),
            None if !self.raw && is_wav(sound) => sound.with_extension(""),
            None => sound.to_owned(),
        }
    }

    /// The codecs to use; those that are missing are told.
    fn encoders(&self, template: &Path) -> Result<(Encoders, Complete), String> {
        let wanted = if self.codecs.is_empty() { &codec::PAYLOAD_TYPES[..] } else { &self.codecs };
        let mut encoders = Encoders::new();
        let mut complete = Complete::Yes;
        for payload_type in wanted {
            if encoders.iter().any(|(known, _)| known == payload_type) {
                continue;
            }
            match codec::encoder(*payload_type) {
                Ok(encoder) => encoders.push((*payload_type, encoder)),
                Err(CodecError::Missing(library)) => {
                    let name = file_name(template, *payload_type);
                    complain(&format!("prompts: {} is not made: {library}", name.display()));
                    if !self.codecs.is_empty() {
                        complete = Complete::No;
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok((encoders, complete))
    }
}

/// Whether every file that was asked for is there.
enum Complete {
    Yes,
    No,
}

fn describe(sound: &Sound) -> String {
    let length = sound.samples.len() as f64 / f64::from(SAMPLE_RATE);
    let channels = match sound.channels {
        1 => "one channel".into(),
        channels => format!("{channels} channels mixed"),
    };
    let rate = match sound.rate_hz {
        SAMPLE_RATE => format!("{SAMPLE_RATE} Hz"),
        rate_hz => format!("{rate_hz} Hz brought to {SAMPLE_RATE}"),
    };
    format!("{length:.2} s, {rate}, {channels}")
}

fn codec_name(payload_type: u8) -> &'static str {
    match payload_type {
        0 => "G.711 µ-law",
        3 => "GSM 06.10",
        8 => "G.711 A-law",
        9 => "G.722",
        18 => "G.729",
        _ => unreachable!("payload types are checked when the command line is read"),
    }
}

/// A bar on a terminal.
fn progress(samples: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("Encoding {wide_bar} {percent} %")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(samples as u64).with_style(style)
}

fn is_wav(path: &Path) -> bool {
    path.extension().and_then(OsStr::to_str).is_some_and(|extension| extension.eq_ignore_ascii_case("wav"))
}

fn payload_type(text: &str) -> Result<u8, String> {
    let known = text.parse().ok().filter(|payload_type| codec::PAYLOAD_TYPES.contains(payload_type));
    known.ok_or_else(|| "the payload types with a codec are 0, 3, 8, 9 and 18".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.001..=SECONDS_MAX).contains(seconds));
    seconds.ok_or_else(|| format!("the limit is a number of seconds up to {SECONDS_MAX}"))
}

/// A day: the sound is held in memory.
const SECONDS_MAX: f64 = 86_400.0;
