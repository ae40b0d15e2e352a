//! Recordings that are compressed: read, checked, repaired and listed as they are.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rtpproxy_analysis::capture::{Capture, CaptureError};
use rtpproxy_analysis::listing::{self, State};
use rtpproxy_analysis::recording::find;
use rtpproxy_analysis::repair::{Target, repair};
use rtpproxy_analysis::unlock::Identities;
use rtpproxy_analysis::verify::{Kind, Unit, Verdict, survey, verify};
use rtpproxy_core::compression::{Compressor, Content};
use rtpproxy_core::file_name::Compression;
use rtpproxy_core::frame::{Framer, Macs};
use rtpproxy_core::pcapng::{self, PacketOptions};
use rtpproxy_core::recording::Leg;
use rtpproxy_core::time::Wall;
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const PACKETS: u64 = 5000;
const PAYLOAD: u64 = 172;
const BOTH: [Compression; 2] = [Compression::Zstd, Compression::Gzip];

/// A compressed recording and its sidecar.
struct Sample {
    _folder: TempDir,
    path: PathBuf,
    plain: Vec<u8>,
}

impl Sample {
    fn new(compression: Compression) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plain = capture();
        let bytes = compressed(&plain, compression);
        let path = folder.path().join(format!("call=f.pcapng{}", compression.suffix()));
        let name = path.file_name().unwrap().to_str().unwrap();
        let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let sidecar = json!({
            "version": 1, "call_id": "call", "from_tag": "f", "to_tag": null, "format": "pcapng",
            "files": [{
                "name": name, "size": bytes.len(), "sha256": sha256,
                "compression": compression.name(), "content_size": plain.len(),
            }],
            "packets": PACKETS, "bytes": PACKETS * PAYLOAD, "dropped": 0, "gaps": [],
            "legs": null, "ended": {"at": null, "reason": "deleted"},
        });
        fs::write(&path, bytes).unwrap();
        fs::write(folder.path().join("call=f.json"), sidecar.to_string()).unwrap();
        Self { _folder: folder, path, plain }
    }

    fn damage(&self) -> usize {
        let mut bytes = fs::read(&self.path).unwrap();
        let at = bytes.len() / 2;
        bytes.drain(at..at + 1000);
        fs::write(&self.path, bytes).unwrap();
        at
    }

    fn unit(&self) -> Unit {
        let mut units = survey(std::slice::from_ref(&self.path)).unwrap();
        assert_eq!(units.len(), 1);
        units.remove(0)
    }

    fn verify(&self) -> Verdict {
        verify(&self.unit(), true, &Identities::default(), &|_| ()).unwrap()
    }
}

#[test]
fn a_whole_recording_is_whole() {
    for compression in BOTH {
        let verdict = Sample::new(compression).verify();
        assert_eq!((verdict.is_whole, verdict.packets), (true, Some(PACKETS)), "{:?}", verdict.problems);
    }
}

#[test]
fn damage_is_told_with_its_place() {
    for compression in BOTH {
        let sample = Sample::new(compression);
        let at = sample.damage() as u64;
        let verdict = sample.verify();
        let broken = verdict.problems.iter().find(|problem| problem.kind == Kind::Broken).unwrap();
        assert!(broken.text.contains("data is damaged at byte"), "{}", broken.text);
        let told = broken.at.unwrap();
        // It is noticed where a block makes no sense, or at the checksum.
        assert!(told + (128 << 10) >= at, "{told} is before {at}");
        let kinds: Vec<_> = verdict.problems.iter().map(|problem| problem.kind).collect();
        assert!(kinds.contains(&Kind::Changed) && kinds.contains(&Kind::Packets), "{kinds:?}");
        assert!(verdict.packets.unwrap() < PACKETS);
    }
}

#[test]
fn every_byte_of_the_file_counts_for_its_digest() {
    let sample = Sample::new(Compression::Gzip);
    let mut file = fs::OpenOptions::new().append(true).open(&sample.path).unwrap();
    file.write_all(b"more").unwrap();
    let kinds: Vec<_> = sample.verify().problems.iter().map(|problem| problem.kind).collect();
    assert!(kinds.contains(&Kind::Changed), "{kinds:?}");
}

#[test]
fn what_comes_before_damage_is_saved_and_compressed_again() {
    for compression in BOTH {
        let sample = Sample::new(compression);
        sample.damage();
        let repaired =
            repair(&sample.unit(), &Target::Beside, false, &Identities::default(), &|_| ()).unwrap();
        let name = format!("call=f.repaired.pcapng{}", compression.suffix());
        assert_eq!(repaired.files, [sample.path.with_file_name(name)]);
        assert!(repaired.packets > 100 && repaired.packets < PACKETS, "{}", repaired.packets);
        assert_eq!(repaired.lost_packets, Some(PACKETS - repaired.packets));
        assert!(repaired.notes.iter().any(|note| note.contains("is damaged at")), "{:?}", repaired.notes);
        let mut content = Content::new(fs::File::open(&repaired.files[0]).unwrap()).unwrap();
        let mut plain = Vec::new();
        content.read_to_end(&mut plain).unwrap();
        assert_eq!(content.compression(), Some(compression));
        assert_eq!(packets(&repaired.files[0]).0, repaired.packets);
        let verdict =
            verify(&survey(&repaired.files).unwrap()[0], true, &Identities::default(), &|_| ()).unwrap();
        // That something is lost stays to be told.
        let kinds: Vec<_> = verdict.problems.iter().map(|problem| problem.kind).collect();
        assert_eq!(kinds, [Kind::Lost]);
    }
}

#[test]
fn a_whole_recording_needs_no_repair() {
    let sample = Sample::new(Compression::Zstd);
    let repaired = repair(&sample.unit(), &Target::Beside, false, &Identities::default(), &|_| ()).unwrap();
    assert_eq!(repaired.files, Vec::<PathBuf>::new());
}

#[test]
fn captures_are_read_compressed_up_to_damage() {
    for compression in BOTH {
        let sample = Sample::new(compression);
        assert_eq!(packets(&sample.path), (PACKETS, None));
        sample.damage();
        let (before, error) = packets(&sample.path);
        assert!(before > 100 && before < PACKETS);
        assert!(error.unwrap().contains("data is damaged at byte"));
    }
}

#[test]
fn content_without_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.pcap.zst");
    let file = fs::File::create(&path).unwrap();
    let mut compressor = Compressor::new(file, Compression::Zstd, None).unwrap();
    let zeros = vec![0; 1 << 20];
    (0..=1024).for_each(|_| compressor.write_all(&zeros).unwrap());
    compressor.finish().unwrap();
    assert!(path.metadata().unwrap().len() < 1 << 20);
    assert!(matches!(Capture::read(&path, &Identities::default()), Err(CaptureError::Large)));
}

#[test]
fn they_are_found_and_listed() {
    for compression in BOTH {
        let sample = Sample::new(compression);
        let folder = sample.path.parent().unwrap().to_owned();
        let found = find(std::slice::from_ref(&folder)).unwrap();
        assert_eq!((found.len(), &found[0].stem), (1, &folder.join("call=f")));
        let list =
            || listing::list(std::slice::from_ref(&folder), &Identities::default(), &|_| true, &|| ()).0;
        let listed = list();
        assert_eq!((listed.len(), listed[0].state, &listed[0].path), (1, State::Finished, &sample.path));
        assert_eq!(listed[0].size, sample.path.metadata().unwrap().len());

        fs::remove_file(folder.join("call=f.json")).unwrap();
        let listed = list();
        assert_eq!((listed.len(), listed[0].state), (1, State::Finished), "{:?}", listed[0].error);
        assert_eq!(listed[0].call_id.as_deref(), Some("call"));
        assert_eq!(listed[0].start, Some(Wall(START)));
    }
}

#[test]
fn two_compressed_files_are_a_pair() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["x=1.o.rtp.gz", "x=1.a.rtp.gz"] {
        fs::write(folder.path().join(name), compressed(b"", Compression::Gzip)).unwrap();
    }
    let found = find(&[folder.path().join("x=1")]).unwrap();
    assert_eq!((found.len(), found[0].files().count()), (1, 2));
}

#[test]
fn nothing_is_lost_on_the_way() {
    for compression in BOTH {
        let sample = Sample::new(compression);
        let mut content = Vec::new();
        let file = fs::File::open(&sample.path).unwrap();
        Content::new(file).unwrap().read_to_end(&mut content).unwrap();
        assert!(content == sample.plain);
    }
}

/// How many packets can be read, and what keeps the others from it.
fn packets(path: &Path) -> (u64, Option<String>) {
    let capture = Capture::read(path, &Identities::default()).unwrap();
    let (mut count, mut error) = (0, None);
    for packet in capture.packets() {
        match packet {
            Ok(_) => count += 1,
            Err(reason) => error = Some(reason.to_string()),
        }
    }
    (count, error)
}

fn compressed(content: &[u8], compression: Compression) -> Vec<u8> {
    let mut compressor = Compressor::new(Vec::new(), compression, Some(content.len() as u64)).unwrap();
    compressor.write_all(content).unwrap();
    compressor.finish().unwrap()
}

fn capture() -> Vec<u8> {
    let framer = Framer::new(
        "192.0.2.10:4000".parse().unwrap(),
        "192.0.2.1:35000".parse().unwrap(),
        Macs::Leg(Leg::Caller),
    );
    let mut out = Vec::new();
    pcapng::section(&["call-id: call"], &mut out);
    pcapng::INTERFACE_NAMES.into_iter().for_each(|name| pcapng::interface(name, &mut out));
    let mut noise = 1u32;
    for n in 0..PACKETS {
        // Four random bits in each byte take some room compressed too.
        let payload: Vec<_> = (0..PAYLOAD)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 28) as u8
            })
            .collect();
        let mut frame = Vec::new();
        framer.write(n as u16, &payload, &mut frame);
        pcapng::packet(0, Wall(START + n * 20_000_000), &frame, PacketOptions::default(), &mut out);
    }
    for interface in 0..4 {
        pcapng::statistics(interface, Wall(START), Wall(START), PACKETS, 0, &[], &mut out);
    }
    out
}

const START: u64 = 1_700_000_000_000_000_000;
