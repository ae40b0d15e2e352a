//! No file upsets the readers of captures, and what they give lies in the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rtpproxy_analysis::audio::Party;
use rtpproxy_analysis::capture::{Capture, Headers};
use rtpproxy_analysis::srtp::{Crypto, Decryptor};

fuzz_target!(|input: &[u8]| {
    let Ok(capture) = Capture::new(input.to_vec()) else { return };
    for headers in [Headers::Read, Headers::Fixed] {
        let crypto: Crypto = CRYPTO.parse().expect("the key has 30 bytes");
        let (mut party, mut decryptor) = (Party::new(), Decryptor::new(&crypto));
        let mut bytes = 0;
        for packet in capture.packets_by(headers).map_while(Result::ok) {
            bytes += packet.payload.len();
            let _ = party.packet(packet.payload, packet.at);
            let _ = decryptor.decrypt(packet.payload);
        }
        assert!(bytes <= input.len());
        assert!(party.playable() <= input.len());
    }
});

/// Of 30 zero bytes.
const CRYPTO: &str = "AES_CM_128_HMAC_SHA1_32:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
