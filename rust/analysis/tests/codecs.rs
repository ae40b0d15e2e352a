//! Codecs as those who use them see them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use proptest::collection::vec;
use proptest::prelude::*;
use rtpproxy_analysis::codec::{self, CodecError, Decoder, Encoder, PAYLOAD_TYPES};

#[test]
fn what_was_encoded_sounds_the_same() {
    for (payload_type, least) in [(0, 0.999), (3, 0.95), (8, 0.999), (9, 0.99), (18, 0.85)] {
        let Some((mut encoder, mut decoder)) = both(payload_type) else { continue };
        let (bytes, samples) = frame_of(payload_type);
        let (mut payload, mut sound) = (Vec::new(), Vec::new());
        encoder.encode(&tone(), &mut payload);
        assert_eq!(payload.len(), 4000 / samples * bytes, "{payload_type}");
        decoder.decode(&payload, &mut sound).unwrap();
        assert_eq!(sound.len(), 4000, "{payload_type}");
        let likeness = likeness(&tone(), &sound);
        assert!(likeness > least, "{payload_type}: {likeness}");
    }
}

/// The numbers are those that libg722 gives for the same samples.
#[test]
fn g722_is_exact() {
    let mut state = 1_u32;
    let noise = || {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12345) & 0x7fff_ffff;
        ((state >> 8 & 0xffff) as i32 - 32768) as i16
    };
    let noise: Vec<i16> = std::iter::repeat_with(noise).take(2000).collect();
    let (mut payload, mut sound) = (Vec::new(), Vec::new());
    codec::encoder(9).unwrap().encode(&noise, &mut payload);
    codec::decoder(9).unwrap().decode(&payload, &mut sound).unwrap();
    assert_eq!(fnv(&payload), 0x6028_5c04_1d1a_9bf7);
    let sound: Vec<u8> = sound.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    assert_eq!(fnv(&sound), 0xda62_1c0f_65a8_0b1b);
}

#[test]
fn codecs_are_known_by_payload_type() {
    for payload_type in 0..=u8::MAX {
        let is_known = PAYLOAD_TYPES.contains(&payload_type);
        let unknown = Some(CodecError::Unknown(payload_type));
        assert_eq!(codec::decoder(payload_type).err() == unknown, !is_known, "{payload_type}");
        assert_eq!(codec::encoder(payload_type).err() == unknown, !is_known, "{payload_type}");
    }
}

#[test]
fn broken_payloads_are_told() {
    if let Some((mut encoder, mut decoder)) = both(3) {
        let (mut frames, mut sound) = (Vec::new(), Vec::new());
        encoder.encode(&tone()[..320], &mut frames);
        let error = decoder.decode(&frames[..65], &mut sound).unwrap_err();
        assert_eq!(error.to_string(), "GSM 06.10: the length is not a multiple of 33 bytes");
        assert_eq!(sound.len(), 160, "what is whole is decoded");
        let error = decoder.decode(&[0; 33], &mut sound).unwrap_err();
        assert_eq!(error.to_string(), "GSM 06.10: a frame does not begin with the bits 1101");
    }
    if let Some(mut decoder) = available(codec::decoder(18)) {
        let error = decoder.decode(&[0; 7], &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "G.729: the length is that of no number of frames");
    }
}

#[test]
fn the_length_tells_the_frames_of_g729() {
    let Some(mut decoder) = available(codec::decoder(18)) else { return };
    for (bytes, frames) in
        [(0, 0), (10, 1), (20, 2), (40, 4), (8, 1), (16, 2), (15, 1), (45, 3), (2, 1), (12, 6)]
    {
        let mut sound = Vec::new();
        decoder.decode(&vec![0x5a; bytes], &mut sound).unwrap();
        assert_eq!(sound.len(), 80 * frames, "{bytes} bytes");
    }
}

#[test]
fn g729_leaves_silence_out_if_asked_to() {
    let Some(mut encoder) = available(codec::g729_encoder_with_silence()) else { return };
    let (mut talk, mut silence) = (Vec::new(), Vec::new());
    encoder.encode(&tone(), &mut talk);
    encoder.encode(&[0; 8000], &mut silence);
    assert_eq!(talk.len(), 500);
    assert!(silence.len() < 500, "{} bytes of silence", silence.len());
}

proptest! {
    #[test]
    fn anything_is_decoded_or_refused(
        payload_type in prop::sample::select(&PAYLOAD_TYPES),
        payloads in vec(vec(any::<u8>(), 0..200), 1..8),
    ) {
        if let Some(mut decoder) = available(codec::decoder(payload_type)) {
            let (bytes, samples) = frame_of(payload_type);
            for payload in payloads {
                let mut sound = Vec::new();
                let outcome = decoder.decode(&payload, &mut sound);
                prop_assert_eq!(sound.len() % samples, 0);
                if outcome.is_ok() && payload.len().is_multiple_of(bytes) {
                    prop_assert_eq!(sound.len(), payload.len() / bytes * samples);
                }
            }
        }
    }

    #[test]
    fn anything_is_encoded(
        payload_type in prop::sample::select(&PAYLOAD_TYPES),
        frames in 0..6_usize,
        noise in vec(any::<i16>(), 6 * 160),
    ) {
        if let Some((mut encoder, mut decoder)) = both(payload_type) {
            let (bytes, samples) = frame_of(payload_type);
            prop_assert_eq!(encoder.frame_samples(), samples);
            let (mut payload, mut sound) = (Vec::new(), Vec::new());
            encoder.encode(&noise[..frames * samples], &mut payload);
            prop_assert_eq!(payload.len(), frames * bytes);
            decoder.decode(&payload, &mut sound).unwrap();
            prop_assert_eq!(sound.len(), frames * samples);
        }
    }
}

/// Bytes and samples of a frame.
fn frame_of(payload_type: u8) -> (usize, usize) {
    match payload_type {
        3 => (33, 160),
        18 => (10, 80),
        _ => (1, 1),
    }
}

fn both(payload_type: u8) -> Option<(Box<dyn Encoder>, Box<dyn Decoder>)> {
    available(codec::encoder(payload_type)).zip(available(codec::decoder(payload_type)))
}

/// `None` where the library is missing and the caller of the tests allows that.
fn available<T>(codec: Result<T, CodecError>) -> Option<T> {
    let may_be_missing = std::env::var_os("RTPPROXY_TESTS_SKIP_MISSING").is_some();
    match codec {
        Ok(codec) => Some(codec),
        Err(CodecError::Missing(library)) if may_be_missing => {
            eprintln!("skipped: {library}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Half a second of a rising tone, by turns loud and soft.
fn tone() -> Vec<i16> {
    let sample = |i: i32| {
        let time = f64::from(i) / 8000.0;
        let loudness = 6000.0 * (1.0 + (time * 20.0).sin());
        ((time * (2000.0 + 3000.0 * time)).sin() * loudness) as i16
    };
    (0..4000).map(sample).collect()
}

/// How alike two sounds are at the best delay below 10 ms: 1 if one is the other, louder or softer.
fn likeness(one: &[i16], other: &[i16]) -> f64 {
    let product = |one: &[i16], other: &[i16]| -> f64 {
        one.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let at = |delay: usize| {
        let (one, other) = (&one[..one.len() - delay], &other[delay..]);
        product(one, other) / (product(one, one) * product(other, other)).sqrt()
    };
    (0..80).map(at).fold(0.0, f64::max)
}

fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
