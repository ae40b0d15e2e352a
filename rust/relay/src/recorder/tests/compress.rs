//! Recordings that are compressed when they have ended.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::thread;

use crossbeam_channel::{bounded, unbounded};
use rtpproxy_core::compression::{Compressor, Content};
use rtpproxy_core::file_name::Compression;
use rtpproxy_core::recording::{Channel, Coverage, EndReason, Leg};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::super::files::Site;
use super::super::finish::Recipe;
use super::super::recover::Recovery;
use super::super::sidecar;
use super::bench::{Bench, Recorded, rtp, run_finisher};
use super::read;
use crate::config::{RecordConfig, RecordFormat};

const ZSTD: Option<Compression> = Some(Compression::Zstd);

#[test]
fn every_format_is_compressed_both_ways() {
    for (format, coverage, names) in [
        (RecordFormat::Pcapng, Coverage::Call, &["call=f.pcapng"][..]),
        (RecordFormat::Pcap, Coverage::Call, &["call=f.pcap"]),
        (RecordFormat::Adhoc, Coverage::Stream(Leg::Caller), &["call=f.o.rtp", "call=f.o.rtcp"]),
    ] {
        let config = RecordConfig { format, ..RecordConfig::default() };
        let plain = record(config.clone(), &coverage);
        for compression in [Compression::Zstd, Compression::Gzip] {
            let recorded = record(RecordConfig { compress: Some(compression), ..config.clone() }, &coverage);
            assert_eq!(recorded.names().len(), names.len() + 1, "{:?}", recorded.names());
            let sidecar = if names.len() > 1 { "call=f.o.json" } else { "call=f.json" };
            let files = recorded.json(sidecar)["files"].clone();
            for (name, facts) in names.iter().zip(files.as_array().unwrap()) {
                let compressed = format!("{name}{}", compression.suffix());
                assert_eq!(facts["name"], compressed);
                let bytes = recorded.bytes(&compressed);
                assert_eq!(facts["size"], bytes.len());
                assert_eq!(facts["sha256"], sidecar::hex(&Sha256::digest(&bytes)));
                assert_eq!(facts["compression"], compression.name());
                let content = content(&recorded.path(&compressed));
                assert_eq!(facts["content_size"], content.len());
                let packets = |bytes: &[u8]| -> Vec<_> {
                    read::pcapng(bytes).real().map(|packet| packet.datagram.payload.clone()).collect()
                };
                match format {
                    // No two heads are the same.
                    RecordFormat::Pcapng => assert_eq!(packets(&content), packets(&plain.bytes(name))),
                    _ => assert!(content == plain.bytes(name), "{compressed}"),
                }
            }
            assert!(recorded.json(sidecar)["not_converted"].is_null());
        }
    }
}

#[test]
fn without_compression_the_sidecar_has_no_word_of_it() {
    let facts = record(RecordConfig::default(), &Coverage::Call).json("call=f.json")["files"][0].clone();
    assert!(facts.get("compression").is_none() && facts.get("content_size").is_none(), "{facts}");
}

#[test]
fn what_cannot_be_compressed_is_finished_as_it_is() {
    let mut bench = Bench::new(RecordConfig { compress: ZSTD, ..RecordConfig::default() });
    talk(&mut bench, &Coverage::Call);
    bench.work();
    // Somebody writes under the name that the new file would have.
    let taken = File::create(bench.folder.path().join("call=f.pcapng.zst.part")).unwrap();
    taken.lock().unwrap();
    let recorded = bench.finish();
    assert_eq!(recorded.names(), ["call=f.json", "call=f.pcapng", "call=f.pcapng.zst.part"]);
    assert_eq!(read::pcapng(&recorded.bytes("call=f.pcapng")).real().count(), 20);
    let json = recorded.json("call=f.json");
    assert_eq!(json["not_converted"], "another process has taken the file");
    assert_eq!(json["files"][0]["size"], recorded.bytes("call=f.pcapng").len());
}

#[test]
fn a_file_of_two_that_cannot_be_compressed_keeps_the_other_as_it_is() {
    let config = RecordConfig {
        compress: Some(Compression::Gzip),
        format: RecordFormat::Adhoc,
        ..RecordConfig::default()
    };
    let mut bench = Bench::new(config);
    talk(&mut bench, &Coverage::Stream(Leg::Caller));
    bench.work();
    let taken = File::create(bench.folder.path().join("call=f.o.rtcp.gz.part")).unwrap();
    taken.lock().unwrap();
    let expected = ["call=f.o.json", "call=f.o.rtcp", "call=f.o.rtcp.gz.part", "call=f.o.rtp"];
    assert_eq!(bench.finish().names(), expected);
}

#[test]
fn the_compressed_file_ends_up_in_the_folder_of_recordings() {
    let spool = tempfile::tempdir().unwrap();
    let config =
        RecordConfig { compress: ZSTD, spool: Some(spool.path().to_owned()), ..RecordConfig::default() };
    let recorded = record(config, &Coverage::Call);
    assert_eq!(recorded.names(), ["call=f.json", "call=f.pcapng.zst"]);
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
}

#[test]
fn recordings_below_and_very_many_at_once_are_compressed() {
    let mut bench = Bench::new(RecordConfig { compress: ZSTD, ..RecordConfig::default() });
    // More than wait with open files.
    for id in 1..=300 {
        bench.start(id, format!("call{id}").as_bytes(), Coverage::Call);
        bench.packet(id, Leg::Caller, Channel::Rtp, 1, &rtp(Leg::Caller, 1));
        bench.end(id, 2, EndReason::Deleted);
    }
    let names = bench.finish().names();
    assert_eq!(names.len(), 600);
    assert!(names.iter().all(|name| name.ends_with(".json") || name.ends_with(".pcapng.zst")));
}

#[test]
fn a_crash_while_compressing_leaves_what_is_recovered() {
    for spooled in [false, true] {
        let spool = tempfile::tempdir().unwrap();
        let spool_path = spooled.then(|| spool.path().to_owned());
        let config = RecordConfig { compress: ZSTD, spool: spool_path, ..RecordConfig::default() };
        let mut bench = Bench::new(config.clone());
        talk(&mut bench, &Coverage::Call);
        let folder = bench.kill();
        let source = if spooled { spool.path() } else { folder.path() };
        assert!(source.join("call=f.pcapng.part").exists());
        fs::write(folder.path().join("call=f.pcapng.zst.part"), b"\x28\xb5\x2f\xfdhalf").unwrap();
        let recorded = recover(folder, config);
        assert_eq!(recorded.names(), ["call=f.recovered.json", "call=f.recovered.pcapng.zst"]);
        let packets = read::pcapng(&content(&recorded.path("call=f.recovered.pcapng.zst"))).real().count();
        assert_eq!(packets, 20);
        let json = recorded.json("call=f.recovered.json");
        assert_eq!((&json["packets"], &json["call_id"]), (&20.into(), &"call".into()));
    }
}

#[test]
fn a_compressed_file_that_had_no_name_yet_is_complete() {
    let plain = record(RecordConfig::default(), &Coverage::Call).bytes("call=f.pcapng");
    let mut compressor = Compressor::new(Vec::new(), Compression::Zstd, Some(plain.len() as u64)).unwrap();
    std::io::Write::write_all(&mut compressor, &plain).unwrap();
    let compressed = compressor.finish().unwrap();
    for compress in [None, ZSTD] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("call=f.pcapng.zst.part"), &compressed).unwrap();
        // Without its end it is no work of ours, and nobody knows better.
        fs::write(folder.path().join("torn=f.pcapng.zst.part"), &compressed[..compressed.len() / 2]).unwrap();
        let recorded = recover(folder, RecordConfig { compress, ..RecordConfig::default() });
        let expected = ["call=f.recovered.json", "call=f.recovered.pcapng.zst", "torn=f.pcapng.zst.part"];
        assert_eq!(recorded.names(), expected);
        assert_eq!(recorded.bytes("call=f.recovered.pcapng.zst"), compressed);
        let json = recorded.json("call=f.recovered.json");
        assert_eq!((&json["packets"], &json["recovered"]["cut_bytes"]), (&20.into(), &0.into()));
        let facts = &json["files"][0];
        assert_eq!((&facts["size"], &facts["content_size"]), (&compressed.len().into(), &plain.len().into()));
        assert_eq!(facts["sha256"], sidecar::hex(&Sha256::digest(&compressed)));
    }
}

pub(super) fn record(config: RecordConfig, coverage: &Coverage) -> Recorded {
    let mut bench = Bench::new(config);
    talk(&mut bench, coverage);
    bench.finish()
}

/// A recording of twenty packets of RTP, or of ten of the caller, and one of RTCP of the callee or the caller.
pub(super) fn talk(bench: &mut Bench, coverage: &Coverage) {
    bench.start(1, b"call", coverage.clone());
    let is_call = *coverage == Coverage::Call;
    for n in 0..10 {
        bench.packet(1, Leg::Caller, Channel::Rtp, u64::from(n) * 20, &rtp(Leg::Caller, n));
        if is_call {
            bench.packet(1, Leg::Callee, Channel::Rtp, u64::from(n) * 20 + 1, &rtp(Leg::Callee, n));
        }
    }
    if !is_call {
        bench.packet(1, Leg::Caller, Channel::Rtcp, 200, b"\x80\xc9\0\x01abcd");
    }
}

fn content(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    Content::new(File::open(path).unwrap()).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Lets another process start with `config` in a folder.
pub(super) fn recover(folder: TempDir, mut config: RecordConfig) -> Recorded {
    config.folder = Some(folder.path().to_owned());
    let (finished, jobs) = unbounded();
    let (_stop, stopped) = bounded(0);
    let recovery = Recovery::new(&config, Site::Main, finished, stopped).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| recovery.run());
        scope.spawn(|| run_finisher(&jobs, Recipe::of(&config)));
    });
    Recorded { folder }
}
