//! Encrypted recordings: nothing of them is on the disk in the clear, and all of it comes back with the identity.

use std::fs;
use std::io::{Read, Write};

use age::x25519::Identity;
use rtpproxy_core::compression::Content;
use rtpproxy_core::file_name::Compression;
use rtpproxy_core::recording::{Channel, Coverage, Leg};
use rtpproxy_core::sealed::{Chunks, Key, State, Unsealer};
use sha2::{Digest, Sha256};

use super::super::sidecar;
use super::bench::{Bench, Recorded, at, rtp};
use super::compress::recover;
use super::read;
use crate::config::{Recipients, RecordConfig, RecordFormat};

#[test]
fn an_ended_recording_is_a_file_of_age() {
    for (format, suffix) in [(RecordFormat::Pcapng, "pcapng"), (RecordFormat::Pcap, "pcap")] {
        for (compress, ending) in
            [(None, "age"), (Some(Compression::Zstd), "zst.age"), (Some(Compression::Gzip), "gz.age")]
        {
            let (identity, config) = encrypted(format);
            let recorded = record(RecordConfig { compress, ..config }, Coverage::Call).finish();
            let name = format!("call=f.{suffix}.{ending}");
            assert_eq!(recorded.names(), ["call=f.json", &name]);
            no_plaintext(&recorded);
            let bytes = recorded.bytes(&name);
            let mut plain = Vec::new();
            let inside = decrypt(&bytes, &identity);
            Content::new(&inside[..]).unwrap().read_to_end(&mut plain).unwrap();
            let packets = match format {
                RecordFormat::Pcapng => read::pcapng(&plain).real().count(),
                _ => read::pcap(&plain).len(),
            };
            assert_eq!(packets, 20);
            let json = recorded.json("call=f.json");
            assert_eq!((&json["packets"], &json["call_id"]), (&20.into(), &"call".into()));
            let facts = &json["files"][0];
            assert_eq!((&facts["encryption"], &facts["size"]), (&"age".into(), &bytes.len().into()));
            assert_eq!(facts["content_size"], plain.len());
            assert_eq!(facts["sha256"], sidecar::hex(&Sha256::digest(&bytes)));
        }
    }
}

#[test]
fn both_files_of_a_recording_are_encrypted() {
    let (identity, config) = encrypted(RecordFormat::Adhoc);
    let mut bench = record(config, Coverage::Stream(Leg::Caller));
    bench.packet(1, Leg::Caller, Channel::Rtcp, 300, b"\x80\xc9\0\x01abcd");
    let recorded = bench.finish();
    assert_eq!(recorded.names(), ["call=f.o.json", "call=f.o.rtcp.age", "call=f.o.rtp.age"]);
    assert_eq!(read::adhoc(&decrypt(&recorded.bytes("call=f.o.rtcp.age"), &identity)).len(), 1);
    assert_eq!(read::adhoc(&decrypt(&recorded.bytes("call=f.o.rtp.age"), &identity)).len(), 20);
}

#[test]
fn what_cannot_be_converted_stays_sealed_and_closed() {
    let (identity, config) = encrypted(RecordFormat::Pcapng);
    let mut bench = record(config, Coverage::Call);
    bench.work();
    // Somebody has put a folder where the new file is to be made.
    fs::create_dir(bench.folder.path().join("call=f.pcapng.age.part")).unwrap();
    let recorded = bench.finish();
    assert_eq!(recorded.names(), ["call=f.json", "call=f.pcapng.age.part", "call=f.pcapng.sealed"]);
    let bytes = recorded.bytes("call=f.pcapng.sealed");
    let (plain, state) = unseal(&bytes, &identity);
    assert!(state.is_complete);
    assert_eq!(read::pcapng(&plain).real().count(), 20);
    let json = recorded.json("call=f.json");
    assert!(json["not_converted"].is_string(), "{json}");
    assert_eq!((&json["files"][0]["encryption"], &json["packets"]), (&"sealed".into(), &20.into()));
    assert_eq!(json["files"][0]["sha256"], sidecar::hex(&Sha256::digest(&bytes)));
}

#[test]
fn a_crash_while_converting_leaves_the_sealed_file() {
    let (identity, config) = encrypted(RecordFormat::Pcapng);
    let folder = record(config.clone(), Coverage::Call).kill();
    fs::write(folder.path().join("call=f.pcapng.age.part"), "half").unwrap();
    // A conversion whose sealed file is gone was complete.
    fs::write(folder.path().join("done=f.pcapng.zst.age.part"), "age-encryption.org/v1\n").unwrap();
    let recorded = recover(folder, config);
    let expected = [
        "call=f.recovered.json",
        "call=f.recovered.pcapng.sealed",
        "done=f.recovered.json",
        "done=f.recovered.pcapng.zst.age",
    ];
    assert_eq!(recorded.names(), expected);
    let (plain, _) = unseal(&recorded.bytes("call=f.recovered.pcapng.sealed"), &identity);
    assert_eq!(read::pcapng(&plain).real().count(), 20);
    assert_eq!(recorded.json("done=f.recovered.json")["files"][0]["encryption"], "age");
}

#[test]
fn what_an_earlier_process_left_in_the_clear_is_encrypted() {
    let (identity, config) = encrypted(RecordFormat::Pcapng);
    let folder = record(RecordConfig::default(), Coverage::Call).kill();
    let recorded = recover(folder, config);
    assert_eq!(recorded.names(), ["call=f.recovered.json", "call=f.recovered.pcapng.age"]);
    let plain = decrypt(&recorded.bytes("call=f.recovered.pcapng.age"), &identity);
    assert_eq!(read::pcapng(&plain).real().count(), 20);
}

#[test]
fn what_a_killed_process_has_sealed_is_recovered_without_its_key() {
    let (identity, config) = encrypted(RecordFormat::Pcapng);
    let folder = record(config, Coverage::Call).kill();
    let part = folder.path().join("call=f.pcapng.sealed.part");
    let whole = fs::metadata(&part).unwrap().len();
    fs::OpenOptions::new().append(true).open(&part).unwrap().write_all(b"\xa7CHK torn").unwrap();
    // Whoever recovers it does not even encrypt.
    let recorded = recover(folder, RecordConfig::default());
    assert_eq!(recorded.names(), ["call=f.recovered.json", "call=f.recovered.pcapng.sealed"]);
    no_plaintext(&recorded);

    let bytes = recorded.bytes("call=f.recovered.pcapng.sealed");
    assert_eq!(bytes.len() as u64, whole);
    let (plain, state) = unseal(&bytes, &identity);
    assert!(!state.is_complete);
    assert_eq!(read::pcapng(&plain).real().count(), 20);

    let json = recorded.json("call=f.recovered.json");
    assert_eq!((&json["call_id"], &json["from_tag"]), (&"call".into(), &"f".into()));
    assert!(json["packets"].is_null() && json["dropped"].is_null() && json["legs"].is_null(), "{json}");
    assert_eq!((&json["format"], &json["files"][0]["encryption"]), (&"pcapng".into(), &"sealed".into()));
    assert_eq!(json["recovered"]["cut_bytes"], 9);
    assert!(json["ended"]["at"].is_string());
    assert_eq!(json["requested"], sidecar::rfc3339(at(0).wall));
}

#[test]
fn damage_in_a_sealed_file_is_kept_and_told() {
    let (_, config) = encrypted(RecordFormat::Pcap);
    let folder = record(config, Coverage::Call).kill();
    let part = folder.path().join("call=f.pcap.sealed.part");
    let mut bytes = fs::read(&part).unwrap();
    bytes[20] ^= 1;
    fs::write(&part, &bytes).unwrap();
    fs::write(folder.path().join("empty=f.pcap.sealed.part"), b"").unwrap();
    let recorded = recover(folder, RecordConfig::default());
    assert_eq!(recorded.bytes("call=f.recovered.pcap.sealed"), bytes);
    let json = recorded.json("call=f.recovered.json");
    assert_eq!(json["recovered"]["holes"][0]["bytes"], bytes.len());
    assert_eq!(recorded.bytes("empty=f.recovered.pcap.sealed"), b"");
}

/// Keys, and a recorder that encrypts for them.
fn encrypted(format: RecordFormat) -> (Identity, RecordConfig) {
    let identity = Identity::generate();
    let encrypt = Recipients::parse(&[identity.to_public().to_string()]).unwrap();
    (identity, RecordConfig { format, encrypt, ..RecordConfig::default() })
}

/// A recorder that has just heard twenty packets.
fn record(config: RecordConfig, coverage: Coverage) -> Bench {
    let mut bench = Bench::new(config);
    bench.start(1, b"call", coverage);
    for n in 0..10 {
        for (leg, ms) in [(Leg::Caller, 0), (Leg::Callee, 1)] {
            bench.packet(1, leg, Channel::Rtp, u64::from(n) * 20 + ms, &rtp(leg, n));
        }
    }
    bench
}

/// No payload is in any file of the folder.
fn no_plaintext(recorded: &Recorded) {
    for name in recorded.names() {
        let bytes = recorded.bytes(&name);
        for n in 0..10 {
            let payload = &rtp(Leg::Caller, n)[..40];
            assert!(!bytes.windows(28).any(|window| window == &payload[12..]), "packet {n} is in {name}");
        }
    }
}

fn unseal(bytes: &[u8], identity: &Identity) -> (Vec<u8>, State) {
    let chunks = Chunks::new(bytes).unwrap();
    let key = Key::from_slice(&decrypt(&chunks.head().sealed_key, identity)).unwrap();
    let mut unsealer = Unsealer::new(chunks, &key);
    let mut plain = Vec::new();
    unsealer.read_to_end(&mut plain).unwrap();
    (plain, unsealer.state().clone())
}

fn decrypt(bytes: &[u8], identity: &Identity) -> Vec<u8> {
    let decryptor = age::Decryptor::new(bytes).unwrap();
    let mut plain = Vec::new();
    decryptor.decrypt(std::iter::once(identity as _)).unwrap().read_to_end(&mut plain).unwrap();
    plain
}
