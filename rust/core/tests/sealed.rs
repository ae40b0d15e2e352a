//! Sealed files: whatever happens to one, what is whole is read, and what is not is noticed.

use std::io::Read;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rtpproxy_core::salvage::Format;
use rtpproxy_core::sealed::{Chunks, Event, Head, HeadError, Key, OpenError, Sealer, State, Unsealer};

proptest! {
    #[test]
    fn what_was_sealed_is_read_back(file in a_file()) {
        let (plain, state) = read(&file.bytes).unwrap();
        prop_assert_eq!(plain, file.flushes.concat());
        prop_assert_eq!(state, State { is_complete: true, ..State::default() });
    }

    #[test]
    fn a_cut_file_is_read_up_to_its_last_whole_chunk(file in a_file(), place in any::<Index>()) {
        let cut = file.head_len + place.index(file.bytes.len() - file.head_len);
        let whole = file.ends.iter().filter(|end| **end <= cut).count();
        let (plain, state) = read(&file.bytes[..cut]).unwrap();
        prop_assert_eq!(plain, file.flushes[..whole].concat());
        prop_assert!(!state.is_complete);
        let end = file.ends[..whole].last().copied().unwrap_or(file.head_len);
        prop_assert_eq!(state.tail.map(|tail| (tail.at, tail.len)), (cut > end).then_some((end as u64, (cut - end) as u64)));
    }

    #[test]
    fn a_cut_in_the_head_is_noticed(file in a_file(), place in any::<Index>()) {
        let cut = place.index(file.head_len);
        let error = Chunks::new(&file.bytes[..cut]).map(drop).unwrap_err();
        let expected = if cut < 8 { HeadError::NotSealed } else { HeadError::Cut };
        prop_assert!(matches!(error, OpenError::Head(error) if error == expected), "{}", error);
    }

    #[test]
    fn every_flipped_bit_is_noticed(file in a_file(), place in any::<Index>(), bit in 0..8) {
        let mut bytes = file.bytes.clone();
        bytes[place.index(file.bytes.len())] ^= 1u8 << bit;
        match read(&bytes) {
            // Behind the head, damage without anything whole behind it is the end of the file.
            Ok((plain, state)) => {
                prop_assert!(!state.is_complete && state.tail.is_some());
                prop_assert!(file.flushes.concat().starts_with(&plain));
            }
            Err(error) => prop_assert!(error.contains("damaged") || error.contains("not"), "{}", error),
        }
    }

    #[test]
    fn damage_costs_its_chunk_only(file in a_file(), place in any::<Index>(), noise in any::<u8>()) {
        let index = place.index(file.flushes.len());
        let begin = file.begin_of(index);
        let mut bytes = file.bytes.clone();
        bytes[begin..file.ends[index]].fill(noise);
        let mut unsealer = Unsealer::new(Chunks::new(&bytes[..]).unwrap(), &key());
    unsealer.leave_out_damage();
        let mut plain = Vec::new();
        unsealer.read_to_end(&mut plain).unwrap();
        let mut kept = file.flushes.clone();
        kept.remove(index);
        prop_assert_eq!(plain, kept.concat());
        prop_assert_eq!(unsealer.state().missing, 1);
        prop_assert_eq!(unsealer.state().holes[0].at, begin as u64);
    }

    #[test]
    fn a_chunk_is_where_it_belongs_or_nowhere(file in a_file(), one in any::<Index>(), other in any::<Index>()) {
        let (one, other) = (one.index(file.flushes.len()), other.index(file.flushes.len()));
        prop_assume!(one != other);
        let chunk = |index: usize| &file.bytes[file.begin_of(index)..file.ends[index]];
        let mut bytes = file.bytes[..file.head_len].to_vec();
        for index in 0..file.ends.len() {
            let from = if index == one { other } else { index };
            bytes.extend_from_slice(chunk(from));
        }
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn a_chunk_that_is_taken_out_is_missed(file in a_file(), place in any::<Index>()) {
        let index = place.index(file.flushes.len());
        let bytes = [&file.bytes[..file.begin_of(index)], &file.bytes[file.ends[index]..]].concat();
        let error = read(&bytes).unwrap_err();
        prop_assert!(error.contains("1 chunks are missing"), "{}", error);
    }

    #[test]
    fn every_byte_is_in_one_event(bytes in vec(any::<u8>(), 0..300), file in a_file(), place in any::<Index>()) {
        let mut mixed = file.bytes.clone();
        let at = file.head_len + place.index(mixed.len() - file.head_len);
        mixed.splice(at..at, bytes);
        let mut chunks = Chunks::new(&mixed[..]).unwrap();
        let mut at = chunks.head_len();
        while let Some(event) = chunks.next().unwrap() {
            let (begin, len) = match event {
                Event::Chunk(chunk) => (chunk.at, chunk.len),
                Event::Hole(hole) | Event::Tail(hole) => (hole.at, hole.len),
            };
            prop_assert_eq!(begin, at);
            prop_assert!(len > 0);
            at += len;
        }
        prop_assert_eq!(at, mixed.len() as u64);
    }
}

#[test]
fn a_write_that_is_tried_again_uses_another_nonce() {
    let head = head(Vec::new()).to_bytes();
    let mut sealer = Sealer::new(&key(), &head);
    let mut first = Vec::new();
    sealer.seal(b"one", &mut first);
    let mut second = Vec::new();
    sealer.seal(b"one and more", &mut second);
    sealer.written();
    let nonce = |chunk: &[u8]| chunk[8..20].to_vec();
    assert_eq!(nonce(&first)[..8], nonce(&second)[..8], "they are for the same place");
    assert_ne!(nonce(&first), nonce(&second));
    // The same bytes under the same nonce would show as the same bytes.
    assert_ne!(first[24..27], second[24..27]);

    sealer.seal_last(&mut second);
    let (plain, state) = read(&[head, second].concat()).unwrap();
    assert_eq!((plain.as_slice(), state.is_complete), (&b"one and more"[..], true));
}

#[test]
fn a_long_flush_becomes_several_chunks() {
    let head = head(Vec::new()).to_bytes();
    let mut sealer = Sealer::new(&key(), &head);
    let plain: Vec<u8> = (0..5 << 19).map(|number| number as u8).collect();
    let mut bytes = head;
    sealer.seal(&plain, &mut bytes);
    sealer.written();
    let mut chunks = Chunks::new(&bytes[..]).unwrap();
    let mut count = 0;
    while chunks.next().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 3);
    assert!(!chunks.is_complete());
    assert_eq!(read(&bytes).unwrap().0, plain);
}

#[test]
fn chunks_of_another_file_are_refused() {
    let heads = [1, 2].map(|id| Head { id: [id; 16], ..head(Vec::new()) }.to_bytes());
    let mut chunk = Vec::new();
    Sealer::new(&key(), &heads[0]).seal(b"secret", &mut chunk);
    assert!(read(&[&heads[0][..], &chunk].concat()).is_ok());
    let error = read(&[&heads[1][..], &chunk].concat()).unwrap_err();
    assert!(error.contains("not what was written there"), "{error}");
}

#[test]
fn nothing_is_read_with_another_key() {
    let mut bytes = head(Vec::new()).to_bytes();
    Sealer::new(&key(), &bytes.clone()).seal(b"secret", &mut bytes);
    let mut unsealer = Unsealer::new(Chunks::new(&bytes[..]).unwrap(), &Key::new([8; 32]));
    let mut plain = Vec::new();
    unsealer.read_to_end(&mut plain).unwrap_err();
    assert_eq!(plain, b"");
    assert!(!bytes.windows(6).any(|bytes| bytes == b"secret"));
    assert_eq!(format!("{:?}", key()), "Key(..)");
}

#[test]
fn the_head_says_what_it_is() {
    let head = head(vec!["call-id: ä@b".to_owned(), "x".repeat(40_000)]);
    let bytes = head.to_bytes();
    let chunks = Chunks::new(&bytes[..]).unwrap();
    assert_eq!(chunks.head().comments[0], "call-id: ä@b");
    assert_eq!(chunks.head().comments[1].len(), 16 << 10);
    assert_eq!((chunks.head().format, chunks.head().id), (Format::Pcap, [3; 16]));
    assert_eq!(chunks.head().sealed_key, b"sealed key");

    let mut later = head.to_bytes();
    later[12] = 9;
    let end = later.len() - 4;
    let checksum = crc32fast::hash(&later[..end]).to_be_bytes();
    later[end..].copy_from_slice(&checksum);
    assert!(matches!(Chunks::new(&later[..]), Err(OpenError::Head(HeadError::Version(9)))));
}

#[test]
fn a_forged_chunk_costs_nothing_behind_it() {
    let mut bytes = head(Vec::new()).to_bytes();
    let mut sealer = Sealer::new(&key(), &bytes);
    let mut forger = Sealer::new(&Key::new([6; 32]), &bytes);
    sealer.seal(b"before ", &mut bytes);
    sealer.written();
    // The first of them would be the last of the file, the others have numbers above those that follow.
    forger.seal_last(&mut bytes);
    for _ in 0..3 {
        forger.seal(b"forged", &mut bytes);
        forger.written();
    }
    sealer.seal(b"behind", &mut bytes);
    sealer.written();
    sealer.seal_last(&mut bytes);
    assert!(read(&bytes).is_err());

    let mut unsealer = Unsealer::new(Chunks::new(&bytes[..]).unwrap(), &key());
    unsealer.leave_out_damage();
    let mut plain = String::new();
    unsealer.read_to_string(&mut plain).unwrap();
    assert_eq!(plain, "before behind");
    let state = unsealer.state();
    assert!(state.is_complete && state.missing == 0 && !state.holes.is_empty(), "{state:?}");
}

/// A sealed file.
#[derive(Clone, Debug)]
struct File {
    bytes: Vec<u8>,
    head_len: usize,
    flushes: Vec<Vec<u8>>,
    /// Where the chunks end, that of the last one included.
    ends: Vec<usize>,
}

impl File {
    fn begin_of(&self, index: usize) -> usize {
        if index == 0 { self.head_len } else { self.ends[index - 1] }
    }
}

/// Sealed files with some flushes, each after so many that failed.
fn a_file() -> impl Strategy<Value = File> {
    vec((vec(any::<u8>(), 1..2000), 0..3), 1..6).prop_map(|flushes| {
        let mut bytes = head(vec!["call-id: a".to_owned()]).to_bytes();
        let head_len = bytes.len();
        let mut sealer = Sealer::new(&key(), &bytes);
        let mut ends = Vec::new();
        for (flush, failures) in &flushes {
            (0..*failures).for_each(|_| sealer.seal(&flush[..flush.len() / 2], &mut Vec::new()));
            sealer.seal(flush, &mut bytes);
            sealer.written();
            ends.push(bytes.len());
        }
        sealer.seal_last(&mut bytes);
        ends.push(bytes.len());
        File { bytes, head_len, flushes: flushes.into_iter().map(|(flush, _)| flush).collect(), ends }
    })
}

fn head(comments: Vec<String>) -> Head {
    Head { format: Format::Pcap, id: [3; 16], comments, sealed_key: b"sealed key".to_vec() }
}

fn key() -> Key {
    Key::new([5; 32])
}

fn read(bytes: &[u8]) -> Result<(Vec<u8>, State), String> {
    let chunks = Chunks::new(bytes).map_err(|error| error.to_string())?;
    let mut unsealer = Unsealer::new(chunks, &key());
    let mut plain = Vec::new();
    unsealer.read_to_end(&mut plain).map_err(|error| error.to_string())?;
    Ok((plain, unsealer.state().clone()))
}
