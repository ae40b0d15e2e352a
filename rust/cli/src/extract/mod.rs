//! `rtpproxy extract`: audio files from recordings.

mod extractaudio;
mod journal;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use indicatif::{ProgressBar, ProgressStyle};
use rtpproxy_analysis::audio::{
    AudioFile, AudioFormat, CONTAINERS, ENCODINGS, Gaps, Mixer, Party, RATE, halves,
};
use rtpproxy_analysis::journal::is_segment_path;
use rtpproxy_analysis::recording::{self, Loaded, Recording};
use rtpproxy_analysis::srtp::{BadCrypto, Crypto};
use rtpproxy_analysis::unlock::Identities;

use crate::folders::mirrored;
use crate::say;
pub(crate) use extractaudio::{ExtractAudio, run as extractaudio};

/// Makes audio files from recordings of calls.
///
/// A recording may be a pcapng or pcap file, the files of one in the ad-hoc format (or what their names have in
/// common), or one that is still being written (.part). The caller is on the left, the callee on the right.
#[derive(Debug, Parser)]
#[command(name = "rtpproxy extract", bin_name = "rtpproxy extract", max_term_width = 110)]
pub(crate) struct Extract {
    /// Recordings, and folders with recordings, however deep; with --call segments of journals, and folders with them.
    #[arg(value_name = "RECORDING", required = true)]
    recordings: Vec<PathBuf>,
    /// File to write, or folder if there are several recordings or a folder of them, which then has the same folders
    /// [default: beside each recording]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// File format; all but wav with pcm_16 need the library libsndfile.
    #[arg(long, value_name = "NAME", default_value = "wav", ignore_case = true,
        value_parser = names(CONTAINERS))]
    format: String,
    /// Encoding of the samples [default: pcm_16; ogg: vorbis]
    #[arg(long, value_name = "NAME", ignore_case = true,
        value_parser = names(ENCODINGS))]
    data: Option<String>,
    /// Mix both parties into one channel.
    #[arg(long)]
    mix: bool,
    /// Leave out gaps instead of filling them with silence; the parties then no longer run side by side.
    #[arg(long)]
    no_sync: bool,
    /// What a party encrypts with, as in the a=crypto line of its SDP: caller=AES_CM_128_HMAC_SHA1_80:KEY.
    #[arg(long, value_name = "PARTY=SUITE:KEY", value_parser = party_crypto)]
    crypto: Vec<(usize, Crypto)>,
    /// File with a secret key of age or ssh that opens encrypted recordings; repeatable.
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// Take a call with this call-id, or the only one with such a part of it, out of journals; also while they are being
    /// written.
    #[arg(long, value_name = "CALL-ID")]
    call: Option<String>,
    /// With --call: the caller's tag, if there are several calls.
    #[arg(long, value_name = "TAG", requires = "call")]
    from_tag: Option<String>,
    /// With --call: write the packets of the call as pcapng, as an output that ends in .pcapng says too.
    #[arg(long, requires = "call")]
    capture: bool,
    /// Replace files that exist.
    #[arg(short, long)]
    force: bool,
}

impl Extract {
    /// Runs it and gives back the exit status: 0 if each recording gave an audio file.
    pub(crate) fn run(&self) -> i32 {
        match self.extract_all() {
            Ok(true) => 0,
            Ok(false) => 1,
            Err(error) => {
                complain(&error);
                1
            }
        }
    }

    /// Whether all went well.
    fn extract_all(&self) -> Result<bool, String> {
        let format = AudioFormat::new(&self.format, self.encoding()).map_err(|error| error.to_string())?;
        let identities = Identities::read(&self.identity).map_err(|error| error.to_string())?;
        if let Some(call) = &self.call {
            return journal::extract(self, call, format, &identities);
        }
        if let Some(segment) = self.recordings.iter().find(|path| is_segment_path(path) && path.is_file()) {
            let text = "it is a segment of a journal; --call says which of its calls";
            return Err(format!("{}: {text}", segment.display()));
        }
        let recordings = recording::find(&self.recordings).map_err(|error| error.to_string())?;
        if recordings.is_empty() {
            return Err("there are no recordings (.pcapng, .pcap, .rtp) in what was given".to_owned());
        }
        let are_many = recordings.len() > 1 || self.recordings.iter().any(|path| path.is_dir());
        let is_folder = self.output.as_ref().is_some_and(|output| are_many || is_folder(output));
        let progress = progress(recordings.len());
        let mut is_well = true;
        let mut outputs = HashSet::new();
        for recording in &recordings {
            let output = self.output_of(recording, format, is_folder);
            progress.set_message(recording.stem.display().to_string());
            let outcome = if outputs.insert(output.clone()) {
                self.extract(recording, &output, format, &identities)
            } else {
                Err(format!("{}: two recordings have this name; extract them one by one", output.display()))
            };
            progress.suspend(|| match outcome {
                Ok(report) => say(&report),
                Err(error) => {
                    is_well = false;
                    complain(&error);
                }
            });
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(is_well)
    }

    fn encoding(&self) -> &str {
        let by_format = if self.format.eq_ignore_ascii_case("ogg") { "vorbis" } else { "pcm_16" };
        self.data.as_deref().unwrap_or(by_format)
    }

    fn output_of(&self, recording: &Recording, format: AudioFormat, is_folder: bool) -> PathBuf {
        let mut name = recording.stem.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(format.suffix());
        match &self.output {
            None => recording.stem.with_file_name(name),
            Some(folder) if is_folder => mirrored(folder, &self.recordings, &recording.stem).join(name),
            Some(file) => file.clone(),
        }
    }

    /// Makes one audio file, and says what became of it.
    fn extract(
        &self,
        recording: &Recording,
        output: &Path,
        format: AudioFormat,
        identities: &Identities,
    ) -> Result<String, String> {
        if !self.force && output.exists() {
            return Err(format!("{}: it exists; --force replaces it", output.display()));
        }
        if recording.files().any(|file| is_same(file, output)) {
            return Err(format!("{}: this is the recording itself", output.display()));
        }
        let mut crypto = [None, None];
        for (party, key) in &self.crypto {
            crypto[*party] = Some(key.clone());
        }
        let loaded = recording.load(&crypto, identities).map_err(|error| error.to_string())?;
        let mut report = String::new();
        if loaded.is_silent() {
            let mut error = format!("{}: there is no audio in it\n", recording.stem.display());
            remarks(&loaded, &mut error);
            return Err(error.trim_end().to_owned());
        }
        if let Some(folder) =
            output.parent().filter(|_| self.output.as_deref().is_some_and(|given| given != output))
        {
            fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        let (length, undecoded) =
            self.write(&loaded, output, format).map_err(|error| format!("{}: {error}", output.display()))?;
        let [caller, callee] = loaded.parties.each_ref().map(Party::playable);
        let seconds = Duration::from_millis(length * 1000 / u64::from(RATE)).as_secs_f64();
        let shown = output.display();
        report +=
            &format!("{shown}: {seconds:.1} s, of the caller {caller} packets, of the callee {callee}\n");
        for (reason, count) in undecoded {
            report += &format!("  {count} packets could not be decoded: {reason}\n");
        }
        remarks(&loaded, &mut report);
        Ok(report)
    }

    /// Writes the file, and gives back its length in frames and what could not be decoded.
    fn write(&self, loaded: &Loaded, output: &Path, format: AudioFormat) -> Result<Written, String> {
        let gaps = if self.no_sync { Gaps::Omitted } else { Gaps::Filled };
        let [caller, callee] = &loaded.parties;
        let mut mixer = Mixer::new([caller, callee], gaps).map_err(|error| error.to_string())?;
        let channels = if self.mix { 1 } else { 2 };
        let mut file = AudioFile::create(output, format, channels).map_err(|error| error.to_string())?;
        file.normalize();
        let length = self.pour(&mut mixer, &mut file).and_then(|length| {
            file.finish().map_err(|error| error.to_string())?;
            Ok(length)
        });
        if length.is_err() {
            // Half a file would pass for a whole one.
            let _ = fs::remove_file(output);
        }
        Ok((length?, mixer.undecoded()))
    }

    fn pour(&self, mixer: &mut Mixer<'_>, file: &mut AudioFile) -> Result<u64, String> {
        let mut buffer = Vec::with_capacity(BUFFER + 2);
        let mut length = 0;
        for frame in mixer {
            let frame = frame.map_err(|error| error.to_string())?;
            if self.mix {
                buffer.push(halves(frame[0], frame[1]));
            } else {
                buffer.extend(frame);
            }
            length += 1;
            if buffer.len() >= BUFFER {
                file.write(&buffer).map_err(|error| error.to_string())?;
                buffer.clear();
            }
        }
        file.write(&buffer).map_err(|error| error.to_string())?;
        Ok(length)
    }
}

/// The length in frames, and packets that could not be decoded, by the reason.
type Written = (u64, BTreeMap<String, u64>);

/// What there is to know of a recording besides its audio, a line each.
fn remarks(loaded: &Loaded, text: &mut String) {
    for (reason, count) in &loaded.left_out {
        *text += &format!("  {count} packets are left out: {reason}\n");
    }
    for note in &loaded.notes {
        *text += &format!("  {note}\n");
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino())).ok();
    identity(one).is_some_and(|found| identity(other) == Some(found))
}

fn is_folder(path: &Path) -> bool {
    path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

fn names(table: &'static [(&str, u32)]) -> PossibleValuesParser {
    table.iter().map(|(name, _)| *name).collect::<Vec<_>>().into()
}

/// The number of the party, the caller being the first, and what it encrypts with.
fn party_crypto(text: &str) -> Result<(usize, Crypto), String> {
    let (party, crypto) = text.split_once('=').ok_or("it is written PARTY=SUITE:KEY")?;
    let party = match party {
        "caller" => 0,
        "callee" => 1,
        _ => return Err(format!("{party:?} is neither caller nor callee")),
    };
    Ok((party, crypto.parse().map_err(|error: BadCrypto| error.to_string())?))
}

/// Nothing is shown for a single recording, or if nobody watches.
fn progress(recordings: usize) -> ProgressBar {
    if recordings < 2 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} recordings, {eta} left  {wide_msg}");
    ProgressBar::new(recordings as u64).with_style(style.expect("the template is right"))
}

fn complain(text: &str) {
    crate::complain(&format!("extract: {text}"));
}

/// Samples that are written at a time.
const BUFFER: usize = 8_192;
