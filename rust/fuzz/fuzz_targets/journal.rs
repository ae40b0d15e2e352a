//! No segment of a journal, and no index in one, upsets those who take calls out of it.

#![no_main]

use std::fs;
use std::io::sink;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rtpproxy_analysis::journal::calls;
use rtpproxy_analysis::unlock::Identities;
use rtpproxy_core::journal::{BLOCK_TYPE, Index, Record};
use rtpproxy_core::pcapng;

/// A file in memory, where the system has such.
static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("journal-20231114T221320.000Z-w0.{}.pcapng", std::process::id()))
});

fuzz_target!(|input: &[u8]| {
    read(input);
    // As an index at the end of what may be a segment, where it says it is.
    let (begin, body) = input.split_at(input.len() / 2);
    let mut segment = Vec::new();
    pcapng::section(&[], &mut segment);
    segment.extend_from_slice(&begin[..begin.len() & !3]);
    let mut block = Vec::new();
    pcapng::block(BLOCK_TYPE, body, &mut block);
    match Record::parse(&block) {
        Some(Record::Index(index)) => Index { at: segment.len() as u64, ..index }.encode(&mut segment),
        _ => segment.extend_from_slice(&block),
    }
    read(&segment);
});

fn read(segment: &[u8]) {
    fs::write(&*PATH, segment).expect("there is memory");
    let identities = Identities::default();
    let (calls, _) = calls(&[PATH.clone()], &identities, &|_| true, &|| {});
    for call in calls {
        if let Ok(figures) = call.cut(&mut sink(), &identities) {
            assert!(figures.packets <= segment.len() as u64 / 32, "each packet takes a block of its own");
        }
    }
}
