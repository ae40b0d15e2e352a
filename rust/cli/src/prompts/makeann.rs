//! `makeann`: the C program of this name, for scripts that call it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{ArgAction, Parser};
use rtpproxy_analysis::codec::{self, CodecError};
use rtpproxy_analysis::prompts::sound::read_raw;
use rtpproxy_analysis::prompts::{BLOCK_SAMPLES, Encoders, PromptFiles};

/// Encodes a sound for the command P of rtpproxy: TEMPLATE.0, .3, .8, .9 and .18, one file for each codec.
///
/// Files of GSM (.3) and of G.729 (.18) are made if the machine has the libraries libgsm and bcg729. For WAV files
/// and more there is rtpproxy prompts.
#[derive(Debug, Parser)]
#[command(name = "makeann", bin_name = "makeann", max_term_width = 110)]
#[command(override_usage = "makeann [-l LIMIT [-L]] [-v] INFILE [TEMPLATE]")]
#[command(args_override_self = true, disable_help_flag = true)]
pub(crate) struct Makeann {
    /// Stop after so many samples; a second has 8000
    #[arg(short, value_name = "LIMIT", allow_hyphen_values = true)]
    limit: Option<String>,
    /// Begin again at the end of the sound until the limit
    #[arg(short = 'L')]
    repeats: bool,
    /// Leave silence out of the file of G.729, which P then does not play right
    #[arg(short = 'v')]
    detects_voice: bool,
    /// Raw samples: signed, 16 bits, little-endian, 8000 Hz, one channel
    infile: PathBuf,
    /// What the names of the files begin with [default: INFILE]
    #[arg(value_name = "TEMPLATE")]
    template: Option<PathBuf>,
    /// Print this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

impl Makeann {
    /// Runs it and gives back the exit status.
    pub(crate) fn run(&self) -> i32 {
        match self.make() {
            Ok(()) => 0,
            Err(error) => {
                complain(&error);
                1
            }
        }
    }

    fn make(&self) -> Result<(), String> {
        let limit = self.limit.as_deref().map(limit).transpose()?;
        if self.repeats && limit.is_none() {
            return Err("-L needs a limit, by -l".into());
        }
        let place = self.infile.display();
        let samples = read_raw(&self.infile, limit).map_err(|error| format!("{place}: {error}"))?;
        if self.repeats && samples.is_empty() {
            return Err(format!("{place}: there is no sound in it that -L could repeat"));
        }
        if self.detects_voice {
            complain(
                "warning: with -v frames of G.729 may be 2 or 0 bytes long, and P plays only frames of 10 right",
            );
        }
        let template = self.template.as_ref().unwrap_or(&self.infile);
        let files = PromptFiles::create(template, self.encoders()?, &self.infile);
        let mut files = files.map_err(|error| error.to_string())?;
        for block in self.blocks(&samples, limit) {
            files.write(block).map_err(|error| error.to_string())?;
        }
        files.finish().map_err(|error| error.to_string())?;
        Ok(())
    }

    /// The codecs that this machine has.
    fn encoders(&self) -> Result<Encoders, String> {
        let mut encoders = Encoders::new();
        for payload_type in codec::PAYLOAD_TYPES {
            let encoder = match payload_type {
                18 if self.detects_voice => codec::g729_encoder_with_silence(),
                _ => codec::encoder(payload_type),
            };
            match encoder {
                Ok(encoder) => encoders.push((payload_type, encoder)),
                Err(CodecError::Missing(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(encoders)
    }

    /// Blocks of the sound. Each pass over it ends with a block of what is left.
    fn blocks<'a>(&self, samples: &'a [i16], limit: Option<u64>) -> impl Iterator<Item = &'a [i16]> {
        let passes = if self.repeats { usize::MAX } else { 1 };
        let mut left = limit.unwrap_or(u64::MAX);
        let blocks = std::iter::repeat_n(samples, passes).flat_map(|pass| pass.chunks(BLOCK_SAMPLES));
        blocks.map_while(move |block| {
            let length = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
            left -= length as u64;
            (length > 0).then(|| &block[..length])
        })
    }
}

/// Called as `makeann`.
pub(crate) fn run(args: Vec<OsString>) -> i32 {
    crate::app::sub_command(args, Makeann::run)
}

fn limit(text: &str) -> Result<u64, String> {
    match text.parse::<i64>() {
        Ok(limit) if limit > 0 => Ok(limit.unsigned_abs()),
        _ => Err(format!("{text}: the limit is a number of samples, 1 or more")),
    }
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "makeann: {text}");
}
