//! No bytes upset the reading of sealed files, each is told of once, and none passes for something that was sealed.

#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use rtpproxy_core::salvage::Format;
use rtpproxy_core::sealed::{Chunks, Event, Head, Key, Sealer, Unsealer};

fuzz_target!(|input: &[u8]| {
    walk(input);
    let key = Key::new([7; Key::LEN]);
    let head = Head { format: Format::Pcapng, id: [1; 16], comments: Vec::new(), sealed_key: Vec::new() };
    let mut file = head.to_bytes();
    let mut sealer = Sealer::new(&key, &file);
    sealer.seal(b"first", &mut file);
    sealer.written();
    file.extend_from_slice(input);
    sealer.seal(b"second", &mut file);
    walk(&file);
    let chunks = Chunks::new(&file[..]).expect("the head is whole");
    let mut unsealer = Unsealer::new(chunks, &key);
    unsealer.leave_out_damage();
    let mut plain = Vec::new();
    unsealer.read_to_end(&mut plain).expect("memory can be read");
    assert!(plain == b"firstsecond" || plain == b"first", "{plain:?}");
    assert!(!unsealer.state().is_complete);
});

fn walk(file: &[u8]) {
    let Ok(mut chunks) = Chunks::new(file) else { return };
    let mut position = chunks.head_len();
    while let Some(event) = chunks.next().expect("memory can be read") {
        let (at, len) = match event {
            Event::Chunk(chunk) => (chunk.at, chunk.len),
            Event::Hole(hole) | Event::Tail(hole) => (hole.at, hole.len),
        };
        assert_eq!(at, position);
        assert!(len > 0);
        position += len;
    }
    assert_eq!(position, file.len() as u64);
}
