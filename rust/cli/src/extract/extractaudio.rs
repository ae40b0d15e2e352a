//! `extractaudio`: the options, messages and exit statuses of the C program of this name.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use rtpproxy_analysis::audio::{
    AudioError, AudioFile, AudioFormat, CONTAINERS, ENCODINGS, Gaps, Mixer, Party, halves,
};
use rtpproxy_analysis::capture::{Capture, Format};
use rtpproxy_analysis::one_side::{self, OneSide};
use rtpproxy_analysis::srtp::Crypto;
use rtpproxy_analysis::unlock::Identities;
use rtpproxy_core::recording::Leg;

use crate::say;

/// Runs `extractaudio` and gives back the exit status: 1 for what cannot be done, 2 if the output cannot be
/// opened.
pub(crate) fn run(args: Vec<OsString>) -> i32 {
    let outcome = match ExtractAudio::try_parse_from(args) {
        Ok(options) => options.extract_audio(),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            let _ = error.print();
            return 0;
        }
        Err(error) => Err(Failure::Usage(error.render().to_string())),
    };
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            failure.report();
            if matches!(failure, Failure::Output(..)) { 2 } else { 1 }
        }
    }
}

/// Makes an audio file of what two parties sent.
///
/// The parties are read from RDIR.a.rtp (who answered) and RDIR.o.rtp (who called), or from the captures that
/// -A and -B name.
#[derive(Debug, Parser)]
#[command(
    name = "extractaudio",
    override_usage = "extractaudio [-idsne] [-F FORMAT] [-D FORMAT] RDIR OUTFILE [LINK]...\n       \
        extractaudio [-idsne] [-F FORMAT] [-D FORMAT] [-A CAPTURE] [-B CAPTURE] [--alice-crypto CRYPTO] \
        [--bob-crypto CRYPTO] OUTFILE [LINK]...\n       \
        extractaudio -S [-A CAPTURE] [-B CAPTURE]\n       \
        extractaudio -S RDIR",
    infer_long_args = true,
    args_override_self = true,
    max_term_width = 110
)]
pub(crate) struct ExtractAudio {
    /// Run at the lowest priority.
    #[arg(short)]
    idle: bool,
    /// Delete the captures afterwards.
    #[arg(short)]
    delete: bool,
    /// Stereo, with who answered on the left, instead of a mono mix.
    #[arg(short)]
    stereo: bool,
    /// Leave out gaps instead of filling them with silence.
    #[arg(short)]
    no_sync: bool,
    /// Fail if one of the captures cannot be loaded.
    #[arg(short = 'e')]
    all_or_nothing: bool,
    /// Only count packets.
    #[arg(short = 'S')]
    scan: bool,
    /// File format [default: wav]
    #[arg(short = 'F', value_name = "FORMAT")]
    container: Option<String>,
    /// Data format [default: gsm610; stereo: ms_adpcm]
    #[arg(short = 'D', value_name = "FORMAT")]
    encoding: Option<String>,
    /// Capture of who answered.
    #[arg(short = 'A', value_name = "CAPTURE")]
    answer: Option<PathBuf>,
    /// Capture of who called.
    #[arg(short = 'B', value_name = "CAPTURE")]
    originate: Option<PathBuf>,
    /// What -A is encrypted with: AES_CM_128_HMAC_SHA1_32:KEY or AES_CM_128_HMAC_SHA1_80:KEY.
    #[arg(long, value_name = "CRYPTO")]
    alice_crypto: Option<String>,
    /// What -B is encrypted with.
    #[arg(long, value_name = "CRYPTO")]
    bob_crypto: Option<String>,
    #[arg(hide = true)]
    words: Vec<PathBuf>,
}

impl ExtractAudio {
    fn extract_audio(self) -> Result<(), Failure> {
        let format = self.format()?;
        let [alice, bob] = [("alice", &self.alice_crypto), ("bob", &self.bob_crypto)].map(|(who, text)| {
            let crypto = text.as_ref().map(|text| text.parse::<Crypto>()).transpose();
            crypto.map_err(|error| Failure::Other(format!("--{who}-crypto: {error}")))
        });
        let (inputs, outputs) = self.words([alice?, bob?])?;
        if self.idle {
            // A machine that does not let us be polite still gets its audio.
            let _ = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
        }
        if self.scan {
            scan(&inputs);
            return Ok(());
        }
        let parties = self.load(&inputs)?;
        let Some((output, links)) = outputs.split_first() else { return Err(usage()) };
        if parties.iter().any(|party| !party.is_empty()) {
            self.extract(&parties, output, format)?;
            for link in links {
                let linked = fs::hard_link(output, link);
                linked.map_err(|error| Failure::Other(format!("cannot link {}: {error}", link.display())))?;
            }
        }
        if self.delete {
            delete(&inputs)?;
        }
        Ok(())
    }

    fn format(&self) -> Result<AudioFormat, Failure> {
        let container = self.container.as_deref().unwrap_or("wav");
        let encoding = self.encoding.as_deref().unwrap_or(if self.stereo { "ms_adpcm" } else { "gsm610" });
        AudioFormat::new(container, encoding).map_err(|error| {
            let is_container = AudioFormat::new(container, "pcm_16").is_err();
            let table = if is_container { CONTAINERS } else { ENCODINGS };
            let names: Vec<_> = table.iter().map(|(name, _)| *name).collect();
            Failure::Other(format!("{error}; there are:\n  {}", names.join(" ")))
        })
    }

    /// The captures that are named, who answered before who called, and the files to write.
    fn words(&self, [alice, bob]: [Option<Crypto>; 2]) -> Result<(Vec<OneSide>, Vec<PathBuf>), Failure> {
        let mut words = self.words.clone();
        let (answer, originate) = if self.answer.is_some() || self.originate.is_some() {
            (self.answer.clone(), self.originate.clone())
        } else if words.is_empty() {
            return Err(usage());
        } else {
            let folder = words.remove(0);
            (Some(with_suffix(&folder, ".a.rtp")), Some(with_suffix(&folder, ".o.rtp")))
        };
        if self.scan != words.is_empty() {
            return Err(usage());
        }
        let answer = answer.map(|path| OneSide { path, leg: Leg::Callee, crypto: alice });
        let originate = originate.map(|path| OneSide { path, leg: Leg::Caller, crypto: bob });
        Ok((answer.into_iter().chain(originate).collect(), words))
    }

    /// Loads the captures, and prints the figures of each: who answered, who called.
    fn load(&self, inputs: &[OneSide]) -> Result<[Party; 2], Failure> {
        let mut parties = [Party::new(), Party::new()];
        let mut loaded = 0;
        for input in inputs {
            let shown = input.path.display();
            if input.crypto.is_some() && is_adhoc(&input.path) {
                complain(&format!("{shown}: not decrypted: the ad-hoc format has no encrypted packets"));
            }
            let party = input.load(&mut |number, reason| {
                complain(&format!("{shown}: packet {number} is skipped: {reason}"));
            });
            match party {
                Ok(party) => {
                    say(&figures(&party));
                    parties[usize::from(input.leg == Leg::Caller)] = party;
                    loaded += 1;
                }
                Err(error) if self.all_or_nothing => {
                    return Err(Failure::Other(format!("cannot load {shown}: {error}")));
                }
                Err(error) => complain(&format!("{shown}: {error}")),
            }
        }
        if loaded == 0 {
            let names: Vec<_> = inputs.iter().map(|input| input.path.display().to_string()).collect();
            let either = if names.len() > 1 { "neither " } else { "" };
            return Err(Failure::Other(format!("cannot load {either}{}", names.join(" nor "))));
        }
        Ok(parties)
    }

    fn extract(
        &self,
        [answer, caller]: &[Party; 2],
        output: &Path,
        format: AudioFormat,
    ) -> Result<(), Failure> {
        let shown = output.display();
        let failed = |error: &dyn std::fmt::Display| Failure::Other(format!("{shown}: {error}"));
        let gaps = if self.no_sync { Gaps::Omitted } else { Gaps::Filled };
        let mut mixer = Mixer::of_extractaudio([answer, caller], gaps).map_err(|error| failed(&error))?;
        let mut file = AudioFile::create(output, format, if self.stereo { 2 } else { 1 })
            .map_err(|error| Failure::Output(output.to_owned(), error))?;
        let mut buffer = Vec::with_capacity(BUFFER + 2);
        let mut written = 0;
        while let Some(frame) = mixer.next().transpose().map_err(|error| failed(&error))? {
            match (self.stereo, frame) {
                (true, frame) => buffer.extend(frame),
                (false, [answer, caller]) => buffer.push(halves(answer, caller)),
            }
            if buffer.len() >= BUFFER {
                file.write(&buffer).map_err(|error| failed(&error))?;
                written += buffer.len() / 2;
                buffer.clear();
            }
        }
        file.write(&buffer).map_err(|error| failed(&error))?;
        written += buffer.len() / 2;
        file.finish().map_err(|error| failed(&error))?;
        for (reason, count) in mixer.undecoded() {
            complain(&format!("{count} packets could not be decoded: {reason}"));
        }
        let [answered, called] = mixer.decoded();
        let _ = writeln!(io::stderr(), "samples decoded: O: {called}, A: {answered}, written: {written}");
        Ok(())
    }
}

/// Why the program ends with another status than 0.
enum Failure {
    Usage(String),
    Other(String),
    Output(PathBuf, AudioError),
}

impl Failure {
    fn report(&self) {
        match self {
            // Clap has put it into words that stand for themselves.
            Self::Usage(text) => {
                let _ = write!(io::stderr(), "{text}");
            }
            Self::Other(text) => complain(text),
            Self::Output(path, error) => complain(&format!("cannot open {}: {error}", path.display())),
        }
    }
}

fn usage() -> Failure {
    let mut command = ExtractAudio::command();
    Failure::Usage(format!("{}\n", command.render_usage()))
}

fn scan(inputs: &[OneSide]) {
    for input in inputs {
        let shown = input.path.display();
        match one_side::count(&input.path, input.leg) {
            Ok(count) => say(&format!("{shown}: {count}\n")),
            Err(error) => {
                complain(&format!("{shown}: {error}"));
                say(&format!("{shown}: -1\n"));
            }
        }
    }
}

/// What the analyzer says of a party: the segment that came last, the totals, and the jitter if it is known.
fn figures(party: &Party) -> String {
    let analyzer = party.figures();
    let segment = analyzer.segment();
    let report = analyzer.report();
    let mut text = format!(
        "pcount={}, min_seq={}, max_seq={}, seq_offset={}, ssrc=0x{:08X}, duplicates={}\n\
         ssrc_changes={}, psent={}, precvd={}, plost={}\n",
        segment.count,
        // The fields are 32 bits wide, and lost packets may be fewer than none.
        segment.min as u32,
        segment.max as u32,
        segment.offset as u32,
        report.ssrc_last.unwrap_or_default(),
        segment.duplicates,
        report.ssrc_changes,
        report.nsent as u32,
        report.nrcvd as u32,
        report.nlost as i32,
    );
    if let Some(jitter) = analyzer.measured_jitter() {
        text += &format!(
            "last_jitter={:.6},average_jitter={:.6},max_jitter={:.6}\n",
            jitter.last, jitter.avg, jitter.max
        );
    }
    text
}

fn delete(inputs: &[OneSide]) -> Result<(), Failure> {
    for OneSide { path, .. } in inputs {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::Other(format!("cannot delete {}: {error}", path.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_adhoc(path: &Path) -> bool {
    Capture::read(path, &Identities::default()).is_ok_and(|capture| capture.format() == Format::Adhoc)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "extractaudio: {text}");
}

/// Samples that are written at a time.
const BUFFER: usize = 8_192;
const LOWEST_PRIORITY: i32 = 19;
