//! No recording upsets the reading of damaged ones, and every byte of it is told of once.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rtpproxy_core::salvage::{Event, Format, Salvage};

fuzz_target!(|input: &[u8]| {
    for expected in [None, Some(Format::Pcapng), Some(Format::Pcap), Some(Format::Adhoc)] {
        let mut salvage = Salvage::new(input, expected).expect("memory can be read");
        let mut position = 0;
        let mut is_over = false;
        while let Some(event) = salvage.next().expect("memory can be read") {
            assert!(!is_over, "nothing follows a tail");
            let (at, len) = match event {
                Event::Piece { at, bytes, .. } => (at, bytes.len() as u64),
                Event::Hole(hole) => (hole.at, hole.len),
                Event::Tail(tail) => {
                    is_over = true;
                    (tail.at, tail.len)
                }
            };
            assert_eq!(at, position);
            assert!(len > 0);
            position += len;
        }
        assert_eq!(position, input.len() as u64);
    }
});
