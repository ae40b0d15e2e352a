//! No compressed bytes upset their reading, and what is given is not more than is taken of them.

#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use rtpproxy_core::compression::{Content, magic};

fuzz_target!(|input: &[u8]| {
    let starts: [&[u8]; 3] = [b"", b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08"];
    for start in starts {
        let file = [start, input].concat();
        let mut content = Content::new(&file[..]).expect("memory can be read");
        assert_eq!(content.compression(), magic(&file));
        let mut bytes = Vec::new();
        let outcome = content.by_ref().take(CONTENT_MAX).read_to_end(&mut bytes);
        assert_eq!(outcome.is_err(), content.broken().is_some());
        match content.broken() {
            Some(broken) => {
                assert!(broken.at <= file.len() as u64);
                assert_eq!(broken.content_len, bytes.len() as u64);
            }
            None if content.compression().is_none() => assert_eq!(bytes, file),
            None => {}
        }
    }
});

/// A few bytes may have very much content.
const CONTENT_MAX: u64 = 1 << 20;
