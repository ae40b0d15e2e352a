//! No payloads upset a decoder, and each gives as many samples as its length says.
//!
//! The input is a choice of the codec in one byte, and a row of payloads, each behind one byte of its length.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rtpproxy_analysis::codec::{self, PAYLOAD_TYPES};

fuzz_target!(|input: &[u8]| {
    let Some((choice, mut rest)) = input.split_first() else { return };
    let payload_type = PAYLOAD_TYPES[usize::from(*choice) % PAYLOAD_TYPES.len()];
    let (frame_bytes, frame_samples) = match payload_type {
        3 => (33, 160),
        18 => (10, 80),
        _ => (1, 1),
    };
    // Without the library there is nothing to try.
    let Ok(mut decoder) = codec::decoder(payload_type) else { return };
    let mut samples = Vec::new();
    while let Some((len, behind)) = rest.split_first() {
        let (payload, behind) = behind.split_at(usize::from(*len).min(behind.len()));
        rest = behind;
        samples.clear();
        let outcome = decoder.decode(payload, &mut samples);
        assert_eq!(samples.len() % frame_samples, 0);
        if outcome.is_ok() && payload.len().is_multiple_of(frame_bytes) {
            assert_eq!(samples.len(), payload.len() / frame_bytes * frame_samples);
        }
    }
});
