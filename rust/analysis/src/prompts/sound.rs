//! Sounds as the codecs take them: 16-bit samples at 8000 Hz, one channel.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use hound::{SampleFormat, WavReader};
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Async, FixedAsync, Resampler, SincInterpolationParameters, WindowFunction};

use crate::codec::SAMPLE_RATE;

/// A sound, and what it was in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sound {
    /// Samples at 8000 Hz, one channel.
    pub samples: Vec<i16>,
    /// Samples in a second of the file.
    pub rate_hz: u32,
    /// Channels of the file.
    pub channels: u16,
}

/// Reads a WAV file with whole or floating-point numbers, of any rate and number of channels.
///
/// Channels are mixed, each as loud as the others. Of a file with 16 bits, 8000 Hz and one channel the samples are
/// those of the file.
///
/// # Errors
///
/// [`SoundError`]
pub fn read_wav(path: &Path) -> Result<Sound, SoundError> {
    let reader = WavReader::new(BufReader::new(File::open(path)?))?;
    let spec = reader.spec();
    if spec.channels == 0 || !RATES_HZ.contains(&spec.sample_rate) {
        return Err(SoundError::Rate { rate_hz: spec.sample_rate, channels: spec.channels });
    }
    if !matches!(spec.bits_per_sample, 8 | 16 | 24 | 32) {
        return Err(SoundError::Broken("its samples do not have 8, 16, 24 or 32 bits"));
    }
    let channels = usize::from(spec.channels);
    let sound = |samples| Sound { samples, rate_hz: spec.sample_rate, channels: spec.channels };
    if (spec.sample_format, spec.bits_per_sample, channels) == (SampleFormat::Int, 16, 1)
        && spec.sample_rate == SAMPLE_RATE
    {
        let samples = reader.into_samples().collect::<Result<_, _>>()?;
        return Ok(sound(samples));
    }
    let mixed = match spec.sample_format {
        SampleFormat::Float => mix(reader.into_samples(), channels)?,
        SampleFormat::Int => {
            let scale = 1.0 / (1_u32 << (spec.bits_per_sample - 1)) as f32;
            let samples = reader.into_samples::<i32>();
            mix(samples.map(|sample| Ok(sample? as f32 * scale)), channels)?
        }
    };
    Ok(sound(to_16_bits(&resample(mixed, spec.sample_rate))))
}

/// Reads raw samples, signed 16-bit little-endian at 8000 Hz in one channel, `limit` of them at most. An odd byte at
/// the end is left out.
///
/// # Errors
///
/// What reading says.
pub fn read_raw(path: &Path, limit: Option<u64>) -> io::Result<Vec<i16>> {
    let bytes_max = limit.map_or(u64::MAX, |samples| samples.saturating_mul(2));
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    let (samples, _) = bytes.as_chunks();
    Ok(samples.iter().map(|sample| i16::from_le_bytes(*sample)).collect())
}

/// A file that cannot be taken as a sound.
#[derive(Debug, thiserror::Error)]
pub enum SoundError {
    /// It cannot be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// It is no WAV file, or a broken one.
    #[error("not a WAV file that can be read: {0}")]
    Broken(&'static str),
    /// It is coded.
    #[error(
        "the samples of this WAV file are coded: make it one with PCM, as sox INPUT -e signed -b 16 OUTPUT does"
    )]
    Coded,
    /// Its rate or its number of channels is none that sounds have.
    #[error("{rate_hz} Hz and {channels} channels: rates are 1000 to 768000 Hz, and there must be a channel")]
    Rate {
        /// Samples in a second.
        rate_hz: u32,
        /// Channels.
        channels: u16,
    },
}

impl From<hound::Error> for SoundError {
    fn from(error: hound::Error) -> Self {
        match error {
            // What the system did not refuse is a sound that is shorter than the header says.
            hound::Error::IoError(error) if error.raw_os_error().is_none() => {
                Self::Broken("it ends before its sound does")
            }
            hound::Error::IoError(error) => Self::Read(error),
            hound::Error::FormatError(reason) => Self::Broken(reason),
            hound::Error::UnfinishedSample => Self::Broken("it ends within a sample"),
            hound::Error::TooWide | hound::Error::Unsupported | hound::Error::InvalidSampleFormat => {
                Self::Coded
            }
        }
    }
}

/// Makes one channel of interleaved ones.
fn mix(
    samples: impl Iterator<Item = Result<f32, hound::Error>>,
    channels: usize,
) -> Result<Vec<f32>, hound::Error> {
    let mut mixed = Vec::new();
    let mut sum = 0.0;
    for (index, sample) in samples.enumerate() {
        sum += sample?;
        if (index + 1).is_multiple_of(channels) {
            mixed.push(sum / channels as f32);
            sum = 0.0;
        }
    }
    Ok(mixed)
}

/// Brings samples to 8000 Hz.
fn resample(samples: Vec<f32>, rate_hz: u32) -> Vec<f32> {
    if rate_hz == SAMPLE_RATE || samples.is_empty() {
        return samples;
    }
    // The filter is as long in time at any rate, so that it is as steep below 4 kHz.
    let taps = TAPS * rate_hz.div_ceil(SAMPLE_RATE) as usize;
    let parameters = SincInterpolationParameters::new(taps, WindowFunction::BlackmanHarris2);
    let ratio = f64::from(SAMPLE_RATE) / f64::from(rate_hz);
    let length = samples.len();
    let resampler = Async::new_sinc(ratio, 1.0, &parameters, CHUNK_SAMPLES, 1, FixedAsync::Input);
    let mut resampler: Async<f32> = resampler.expect("the ratio is positive");
    let input =
        InterleavedSlice::new(&samples, 1, length).expect("one channel has as many frames as samples");
    let output = resampler.process_all(&input, length, None).expect("the buffers fit the resampler");
    output.take_data()
}

fn to_16_bits(samples: &[f32]) -> Vec<i16> {
    // The conversion keeps to the limits of 16 bits.
    samples.iter().map(|sample| (sample * 32768.0).round() as i16).collect()
}

const RATES_HZ: std::ops::RangeInclusive<u32> = 1000..=768_000;
/// Of the filter at 8000 Hz.
const TAPS: usize = 256;
const CHUNK_SAMPLES: usize = 1024;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use hound::{WavSpec, WavWriter};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn write<Sample: hound::Sample + Copy>(spec: WavSpec, samples: &[Sample]) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sound.wav");
        let mut writer = WavWriter::create(&path, spec).unwrap();
        for sample in samples {
            writer.write_sample(*sample).unwrap();
        }
        writer.finalize().unwrap();
        (folder, path)
    }

    fn spec(channels: u16, sample_rate: u32, bits_per_sample: u16, sample_format: SampleFormat) -> WavSpec {
        WavSpec { channels, sample_rate, bits_per_sample, sample_format }
    }

    /// A quarter of a second of a sine.
    fn sine(rate_hz: u32, frequency_hz: f32) -> Vec<f32> {
        let step = std::f32::consts::TAU * frequency_hz / rate_hz as f32;
        (0..rate_hz / 4).map(|i| 0.5 * (i as f32 * step).sin()).collect()
    }

    fn loudness(samples: &[i16]) -> f32 {
        let middle = &samples[samples.len() / 4..samples.len() / 4 * 3];
        (middle.iter().map(|sample| f32::from(*sample).powi(2)).sum::<f32>() / middle.len() as f32).sqrt()
    }

    #[test]
    fn samples_that_fit_are_not_touched() {
        let samples = [0, 1, -1, i16::MAX, i16::MIN];
        let (_folder, path) = write(spec(1, 8000, 16, SampleFormat::Int), &samples);
        let sound = read_wav(&path).unwrap();
        assert_eq!(sound, Sound { samples: samples.into(), rate_hz: 8000, channels: 1 });
    }

    #[test]
    fn every_width_has_the_same_loudness() {
        for (bits, half) in [(8, 64), (16, 16384), (24, 4_194_304), (32, 1_073_741_824)] {
            let (_folder, path) = write(spec(2, 8000, bits, SampleFormat::Int), &[half, 0, -half, -half]);
            assert_eq!(read_wav(&path).unwrap().samples, [8192, -16384], "{bits} bits");
        }
        let (_folder, path) = write(spec(1, 8000, 32, SampleFormat::Float), &[0.5_f32, -1.0, 1.0, 7.0]);
        assert_eq!(read_wav(&path).unwrap().samples, [16384, i16::MIN, i16::MAX, i16::MAX]);
    }

    #[test]
    fn other_rates_sound_the_same_and_alias_nothing() {
        for rate_hz in [11_025, 16_000, 44_100, 48_000, 192_000] {
            for (frequency_hz, is_heard) in [(300.0, true), (3400.0, true), (4600.0, false)] {
                let (_folder, path) =
                    write(spec(1, rate_hz, 32, SampleFormat::Float), &sine(rate_hz, frequency_hz));
                let sound = read_wav(&path).unwrap();
                assert_eq!((sound.samples.len(), sound.rate_hz), (2000, rate_hz));
                let expected = if is_heard { 32768.0 * 0.5 / 2_f32.sqrt() } else { 0.0 };
                let loudness = loudness(&sound.samples);
                assert!((loudness - expected).abs() < 60.0, "{frequency_hz} Hz of {rate_hz}: {loudness}");
            }
        }
        let (_folder, path) = write(spec(1, 6000, 32, SampleFormat::Float), &sine(6000, 1000.0));
        assert!((loudness(&read_wav(&path).unwrap().samples) - 11585.0).abs() < 60.0);
    }

    #[test]
    fn what_is_no_sound_is_refused() {
        let (folder, path) = write(spec(1, 999, 16, SampleFormat::Int), &[0_i16; 10]);
        assert!(read_wav(&path).unwrap_err().to_string().starts_with("999 Hz and 1 channels: "));
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        assert!(read_wav(&path).is_err());
        fs::write(&path, b"not a wav file at all").unwrap();
        assert!(read_wav(&path).unwrap_err().to_string().starts_with("not a WAV file that can be read: "));
        let mut mu_law = whole;
        mu_law[20] = 7;
        fs::write(&path, mu_law).unwrap();
        assert!(matches!(read_wav(&path), Err(SoundError::Coded)));
        assert!(matches!(read_wav(&folder.path().join("none")), Err(SoundError::Read(_))));
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(
            changes in vec((0..60_usize, any::<u8>()), 1..5),
            bits in 1..5_u16,
        ) {
            let (_folder, path) = write(spec(1, 8000, bits * 8, SampleFormat::Int), &[1_i8; 100]);
            let mut bytes = fs::read(&path).unwrap();
            for (index, byte) in changes {
                bytes[index] = byte;
            }
            fs::write(&path, &bytes).unwrap();
            if let Ok(sound) = read_wav(&path) {
                prop_assert!(sound.samples.len() <= 8 * bytes.len());
            }
        }
    }

    #[test]
    fn raw_samples_are_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("raw");
        fs::write(&path, [1, 0, 0xff, 0xff, 0, 0x80, 9]).unwrap();
        assert_eq!(read_raw(&path, None).unwrap(), [1, -1, i16::MIN]);
        assert_eq!(read_raw(&path, Some(2)).unwrap(), [1, -1]);
        assert_eq!(read_raw(Path::new("/dev/zero"), Some(5)).unwrap(), [0; 5]);
    }
}
