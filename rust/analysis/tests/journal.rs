//! Calls out of journals: of sound segments, damaged ones, and such whose indexes lie.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use proptest::prelude::*;
use rtpproxy_analysis::journal::{Call, Figures, calls};
use rtpproxy_analysis::unlock::Identities;
use rtpproxy_analysis::verify::{Kind, survey, verify};
use rtpproxy_core::compression::Compressor;
use rtpproxy_core::file_name::Compression;
use rtpproxy_core::frame::{self, Framer, Macs};
use rtpproxy_core::journal::{Entry, INTERFACES, Index, Member};
use rtpproxy_core::pcapng::{self, PacketOptions};
use rtpproxy_core::recording::{EndReason, Leg};
use rtpproxy_core::salvage::{Event, Piece, Salvage};
use rtpproxy_core::time::Wall;
use tempfile::TempDir;

const START: u64 = 1_700_000_000_000_000_000;

/// A segment as the recorder writes it, and what is where in it.
#[derive(Clone, Debug, Default)]
struct Sample {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    previous: Option<u64>,
    from: u64,
    /// Where each packet is, from and to, of which recording, and what it says.
    packets: Vec<(usize, usize, usize, Vec<u8>)>,
    /// Where the indexes are.
    indexes: Vec<usize>,
    /// Where recordings are told of, from and to.
    heads: Vec<(usize, usize)>,
}

#[derive(Clone, Debug)]
struct Row {
    member: Member,
    is_told: bool,
    entry: Entry,
    total: Figures,
}

impl Sample {
    /// `calls` calls with `rounds` packets each, and an index after each ten of them.
    fn new(calls: usize, rounds: usize) -> Self {
        let mut sample = Self::default();
        pcapng::section(&["journal of worker 0"], &mut sample.bytes);
        sample.heads.push((0, sample.bytes.len()));
        (0..calls).for_each(|number| sample.tell(number));
        for round in 0..rounds {
            (0..calls).for_each(|row| sample.packet(row, round));
            if round % 10 == 9 {
                sample.write_index(false);
            }
        }
        sample
    }

    /// The same, closed as a segment is.
    fn closed(calls: usize, rounds: usize) -> Self {
        let mut sample = Self::new(calls, rounds);
        sample.write_index(false);
        sample.write_index(true);
        sample
    }

    fn tell(&mut self, number: usize) {
        let member = Member {
            first_interface: self.rows.len() as u32 * INTERFACES,
            recording: number as u64 + 1,
            leg: None,
            start: Wall(START),
            call_id: call_id(number).as_bytes().into(),
            from_tag: "f".into(),
            to_tag: None,
        };
        let at = self.bytes.len();
        member.tell(&["told"], &mut self.bytes);
        self.heads.push((at, self.bytes.len()));
        let first_interface = member.first_interface;
        let entry = Entry { first_interface, ..Entry::default() };
        self.rows.push(Row { member, is_told: false, entry, total: Figures::default() });
        self.note(self.rows.len() - 1, at);
    }

    fn packet(&mut self, row: usize, round: usize) {
        let addrs = [([192, 0, 2, 10], 4000).into(), ([192, 0, 2, 1], 35000).into()];
        let payload = format!("packet {round} of call {row}, and more of it").into_bytes();
        let mut frame = Vec::new();
        Framer::new(addrs[0], addrs[1], Macs::Leg(Leg::Caller)).write(round as u16, &payload, &mut frame);
        let at = self.bytes.len();
        let interface = self.rows[row].member.first_interface + round as u32 % 2;
        let time = Wall(START + round as u64 * 20_000_000);
        pcapng::packet(interface, time, &frame, PacketOptions::default(), &mut self.bytes);
        self.note(row, at);
        let figures = &mut self.rows[row].entry.figures;
        let stream = round as u32 % 2;
        *figures = figures.plus(Figures::of_packet(stream, time, Some(addrs[0]), payload.len(), 0));
        self.packets.push((at, self.bytes.len(), row, payload));
    }

    fn note(&mut self, row: usize, at: usize) {
        let len = (self.bytes.len() - at) as u64;
        self.rows[row].entry.stretches.push((at as u64, len));
    }

    fn write_index(&mut self, is_directory: bool) {
        let at = self.bytes.len() as u64;
        let entries = self.rows.iter_mut().map(|row| {
            let first_interface = row.member.first_interface;
            if is_directory {
                let member = Some(row.member.clone());
                return Entry { first_interface, member, figures: row.total, stretches: Vec::new() };
            }
            let fresh = Entry { first_interface, ..Entry::default() };
            let mut entry = std::mem::replace(&mut row.entry, fresh);
            row.total = row.total.plus(entry.figures);
            entry.member = (!std::mem::replace(&mut row.is_told, true)).then(|| row.member.clone());
            entry
        });
        let from = if is_directory { at } else { self.from };
        let index =
            Index { at, previous: self.previous, from, to: at, is_directory, entries: entries.collect() };
        self.add_index(&index);
    }

    fn add_index(&mut self, index: &Index) {
        self.indexes.push(self.bytes.len());
        self.previous = Some(self.bytes.len() as u64);
        index.encode(&mut self.bytes);
        self.from = self.bytes.len() as u64;
    }

    /// The packets of a call that lie in front of `end`, and not in `hole`.
    fn said(&self, call: usize, end: usize, hole: (usize, usize)) -> Vec<Vec<u8>> {
        let is_there = |from: usize, to: usize| to <= end && (to <= hole.0 || from >= hole.1);
        let packets = self.packets.iter().filter(|(from, to, row, _)| *row == call && is_there(*from, *to));
        packets.map(|(.., payload)| payload.clone()).collect()
    }
}

fn call_id(number: usize) -> String {
    format!("call-{number}@host")
}

/// A folder with one segment.
struct Journal {
    _folder: TempDir,
    path: PathBuf,
}

impl Journal {
    fn of(bytes: &[u8], suffix: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("journal-20231114T221320.000Z-w0.pcapng{suffix}"));
        fs::write(&path, bytes).unwrap();
        Self { _folder: folder, path }
    }

    fn calls(&self) -> Vec<Call> {
        let (calls, errors) = self.calls_and_errors();
        assert!(errors.is_empty(), "{errors:?}");
        calls
    }

    fn calls_and_errors(&self) -> (Vec<Call>, Vec<String>) {
        let (calls, errors) =
            calls(std::slice::from_ref(&self.path), &Identities::default(), &|_| true, &|| {});
        (calls, errors.iter().map(ToString::to_string).collect())
    }

    /// What is cut out of a call; nothing if the segment does not tell of it.
    fn cut(&self, number: usize) -> Vec<Vec<u8>> {
        let wanted = call_id(number);
        self.calls().iter().find(|call| call.call_id.as_bytes() == wanted.as_bytes()).map_or(vec![], cut)
    }
}

/// The payloads in the capture of a call. Its figures are those of what is in it.
fn cut(call: &Call) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    let figures = call.cut(&mut bytes, &Identities::default()).unwrap();
    let mut found = Vec::new();
    let mut salvage = Salvage::new(&bytes[..], None).unwrap();
    while let Some(event) = salvage.next().unwrap() {
        let Event::Piece { bytes, what, .. } = event else { panic!("{event:?}") };
        if let Piece::Packet(packet) = what {
            let len = pcapng::word(bytes, 20).unwrap() as usize;
            assert!(packet.interface < 5);
            // The frame may be damaged.
            let datagram = frame::datagram(&bytes[28..28 + len]);
            found.push(datagram.map_or(Vec::new(), |datagram| datagram.payload.to_vec()));
        }
    }
    assert_eq!(figures.packets, found.len() as u64);
    found
}

const NO_HOLE: (usize, usize) = (usize::MAX, usize::MAX);

#[test]
fn each_call_is_cut_out_of_a_whole_segment() {
    let sample = Sample::closed(5, 35);
    let journal = Journal::of(&sample.bytes, "");
    let calls = journal.calls();
    assert_eq!(calls.len(), 5);
    assert!(calls.iter().all(|call| call.figures.packets == 35));
    for number in 0..5 {
        assert_eq!(journal.cut(number), sample.said(number, usize::MAX, NO_HOLE));
    }
}

#[test]
fn the_parties_and_the_end_are_known_with_an_index_and_without() {
    let caller = ([192, 0, 2, 10], 4000).into();
    for is_closed in [true, false] {
        let mut sample = Sample::new(2, 15);
        let at = sample.bytes.len();
        let comments = ["gap: 3 packets", "end: timeout at noon"];
        pcapng::statistics(0, Wall(START), Wall(START), 15, 0, &comments, &mut sample.bytes);
        sample.note(0, at);
        sample.rows[0].entry.figures.end = Some(EndReason::Timeout);
        if is_closed {
            sample.write_index(false);
            sample.write_index(true);
        }
        let calls = Journal::of(&sample.bytes, "").calls();
        assert_eq!(calls[0].figures.end, Some(EndReason::Timeout));
        assert_eq!(calls[1].figures.end, None);
        assert!(calls.iter().all(|call| call.figures.parties == [Some(caller); 2]));
    }
}

#[test]
fn a_segment_that_is_cut_off_anywhere_has_what_is_in_front_of_that() {
    let sample = Sample::closed(3, 25);
    for end in (0..sample.bytes.len()).step_by(13).chain(sample.indexes.iter().copied()) {
        let journal = Journal::of(&sample.bytes[..end], ".part");
        for number in 0..3 {
            let expected = sample.said(number, end, NO_HOLE);
            assert_eq!(journal.cut(number), expected, "of call {number} in {end} bytes");
            let listed = journal.calls().iter().map(|call| call.figures.packets).sum::<u64>();
            assert_eq!(listed as usize, (0..3).map(|n| sample.said(n, end, NO_HOLE).len()).sum::<usize>());
        }
    }
}

#[test]
fn compressed_segments_hold_the_same() {
    let sample = Sample::closed(3, 25);
    for (compression, suffix) in [(Compression::Zstd, ".zst"), (Compression::Gzip, ".gz")] {
        let mut compressor = Compressor::new(Vec::new(), compression, None).unwrap();
        compressor.write_all(&sample.bytes).unwrap();
        let compressed = compressor.finish().unwrap();
        let journal = Journal::of(&compressed, suffix);
        for number in 0..3 {
            assert_eq!(journal.cut(number), sample.said(number, usize::MAX, NO_HOLE));
        }
        assert!(journal.calls().iter().all(|call| call.figures.packets == 25));
        // As far as it can be read, which is told.
        let torn = Journal::of(&compressed[..compressed.len() / 2], suffix);
        let (calls, errors) = torn.calls_and_errors();
        assert!(calls.iter().all(|call| cut(call).len() <= 25));
        let [error] = &errors[..] else { panic!("{errors:?}") };
        assert!(error.starts_with(&torn.path.display().to_string()) && error.contains("damaged"), "{error}");
    }
}

#[test]
fn a_chain_of_indexes_that_is_broken_is_not_needed() {
    let sample = Sample::closed(4, 45);
    for at in &sample.indexes {
        let mut bytes = sample.bytes.clone();
        bytes[at + 8..at + 24].fill(0xff);
        let journal = Journal::of(&bytes, "");
        for number in 0..4 {
            let expected = sample.said(number, usize::MAX, NO_HOLE);
            assert_eq!(journal.cut(number), expected, "of call {number} without the index at {at}");
        }
        assert!(journal.calls().iter().all(|call| call.figures.packets == 45));
    }
}

#[test]
fn stretches_that_overlap_give_every_packet_once() {
    let mut sample = Sample::new(3, 9);
    let to = sample.bytes.len() as u64;
    // Each recording is said to be everywhere.
    for row in &mut sample.rows {
        let begin = sample.heads[0].1 as u64;
        row.entry.stretches = vec![(begin, to - begin)];
    }
    sample.write_index(false);
    let journal = Journal::of(&sample.bytes, "");
    for number in 0..3 {
        assert_eq!(journal.cut(number), sample.said(number, usize::MAX, NO_HOLE));
    }
    // Those of two recordings of one call are read once, too.
    let mut twice = sample.clone();
    twice.rows[1].member.call_id = call_id(0).as_bytes().into();
    let mut bytes = Vec::new();
    std::mem::swap(&mut bytes, &mut twice.bytes);
    let text = call_id(1).into_bytes();
    while let Some(at) = bytes.windows(text.len()).position(|window| window == text) {
        bytes[at..at + text.len()].copy_from_slice(call_id(0).as_bytes());
    }
    let both = Journal::of(&bytes, "").cut(0);
    assert_eq!(both.len(), 18);
}

#[test]
fn a_recording_whose_head_is_damaged_is_known_by_the_index() {
    let sample = Sample::closed(3, 15);
    let mut bytes = sample.bytes.clone();
    let (from, to) = sample.heads[2];
    bytes[from..to].fill(0);
    assert_eq!(Journal::of(&bytes, "").cut(1), sample.said(1, usize::MAX, NO_HOLE));
}

#[test]
fn verify_compares_the_indexes_with_what_they_tell_of() {
    let problems = |bytes: &[u8]| {
        let journal = Journal::of(bytes, "");
        let units = survey(std::slice::from_ref(&journal.path)).unwrap();
        let verdict = verify(&units[0], false, &Identities::default(), &|_| ()).unwrap();
        verdict
            .problems
            .into_iter()
            .map(|problem| (problem.kind, problem.at, problem.text))
            .collect::<Vec<_>>()
    };
    for (calls, rounds) in [(0, 0), (1, 5), (4, 35), (3, 40)] {
        assert_eq!(problems(&Sample::closed(calls, rounds).bytes), []);
        assert_eq!(problems(&Sample::new(calls, rounds).bytes), []);
    }
    // What an index may say wrongly, and what is said of that.
    type Lie = fn(&mut Sample);
    let lies: [(Lie, &str); 6] = [
        (
            |sample| sample.rows[1].entry.figures.packets += 1,
            "there are 10 packets of recording 2 of call-1@host",
        ),
        (|sample| _ = sample.rows[2].entry.stretches.pop(), "it does not lead to what is at "),
        (|sample| sample.rows[0].total.bytes += 1, "recording 1 of call-0@host has 20 packets"),
        (|sample| sample.previous = Some(4), "and it says the one at 4"),
        (|sample| _ = sample.rows.pop(), "it does not list recording 3 of call-2@host"),
        (|sample| sample.rows[0].member.recording = 9, "as another recording"),
    ];
    for (lie, expected) in lies {
        let mut sample = Sample::new(3, 10);
        for round in 10..20 {
            (0..3).for_each(|row| sample.packet(row, round));
        }
        let at = sample.bytes.len() as u64;
        lie(&mut sample);
        sample.write_index(false);
        sample.write_index(true);
        let found = problems(&sample.bytes);
        assert!(
            found.iter().all(|(kind, place, _)| *kind == Kind::Index && place.unwrap() >= at),
            "{found:?}"
        );
        assert!(found.iter().any(|(.., text)| text.contains(expected)), "{expected}: {found:?}");
    }
    let mut sample = Sample::closed(2, 10);
    let last = *sample.indexes.last().unwrap();
    sample.bytes.truncate(last);
    let at = sample.bytes.len() as u64 + 1;
    let index =
        Index { at, previous: sample.indexes.iter().rev().nth(1).map(|at| *at as u64), ..Index::default() };
    sample.add_index(&index);
    assert_eq!(
        problems(&sample.bytes)[0].2,
        format!("the index at {last} is wrong: it says that it is at {at}")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_hole_costs_what_was_in_it(from in 0.0..1.0, len in 1_usize..2000, is_closed: bool, filler: u8) {
        let sample = if is_closed { Sample::closed(3, 45) } else { Sample::new(3, 45) };
        let mut bytes = sample.bytes.clone();
        // What the recordings are is said in front.
        let begin = sample.heads.last().unwrap().1;
        let from = begin + ((bytes.len() - begin) as f64 * from) as usize;
        let to = (from + len).min(bytes.len());
        bytes[from..to].fill(filler);
        let journal = Journal::of(&bytes, "");
        for number in 0..3 {
            let (found, expected) = (journal.cut(number), sample.said(number, usize::MAX, (from, to)));
            let all = sample.said(number, usize::MAX, NO_HOLE);
            let mut rest = all.iter();
            // The packet in which the hole begins may still look whole.
            prop_assert!(found.iter().filter(|packet| all.contains(packet)).all(|packet| rest.any(|other| other == packet)));
            let lost = expected.iter().filter(|packet| !found.contains(packet)).count();
            prop_assert!(lost <= 1, "{lost} packets outside of the hole {from}-{to} are lost");
            prop_assert!(found.len() <= expected.len() + 2);
        }
    }

    /// An index may say anything: nothing is read twice for it, and nothing crashes.
    #[test]
    fn an_index_that_lies_does_no_harm(
        lies in prop::collection::vec(
            (lying_number(), prop::option::of(lying_number()), lying_number(), lying_number(), any::<bool>(), 0_u32..40,
             prop::collection::vec((0_u64..5000, 0_u64..1 << 40), 0..6)),
            1..4,
        ),
    ) {
        let mut sample = Sample::new(3, 25);
        for (from, previous, to, at, is_directory, first_interface, gaps) in lies {
            let here = sample.bytes.len() as u64;
            let at = if at % 3 == 0 { at } else { here };
            let (from, to) = (from.min(u64::MAX / 2), to.min(u64::MAX / 2));
            let mut end = from;
            let stretches = gaps.into_iter().map(|(gap, len)| {
                let begin = end + gap;
                end = begin + len;
                (begin, len)
            });
            let entry = Entry { first_interface, stretches: stretches.collect(), ..Entry::default() };
            let entries = vec![entry.clone(), entry];
            sample.add_index(&Index { at, previous, from, to, is_directory, entries });
        }
        let journal = Journal::of(&sample.bytes, "");
        for call in journal.calls() {
            let found = cut(&call);
            prop_assert!(found.len() <= 25, "{} packets", found.len());
        }
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(0_u8.., 0..3000), at in 0.0..1.0) {
        let sample = Sample::closed(2, 15);
        let mut changed = sample.bytes.clone();
        let at = (at * changed.len() as f64) as usize;
        let end = (at + bytes.len()).min(changed.len());
        changed[at..end].copy_from_slice(&bytes[..end - at]);
        for bytes in [changed, bytes] {
            let journal = Journal::of(&bytes, "");
            let (calls, _) = calls(std::slice::from_ref(&journal.path), &Identities::default(), &|_| true, &|| {});
            for call in calls {
                let _ = call.cut(&mut std::io::sink(), &Identities::default());
            }
        }
    }
}

/// Places in a segment, near its end, and far beyond it.
fn lying_number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..12_000, (0_u64..100).prop_map(|less| u64::MAX - less), 0_u64..]
}
