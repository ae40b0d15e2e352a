//! Folders as relays leave them, and worse.

use std::fs::File;

use rtpproxy_core::frame::{Framer, Macs};
use rtpproxy_core::pcapng::{self, PacketOptions};
use tempfile::TempDir;

use super::*;

const SECOND: u64 = 1_000_000_000;
const CALLER: &str = "192.0.2.1:4000";
const CALLEE: &str = "192.0.2.2:5000";

fn all(folder: &TempDir) -> Vec<Entry> {
    let (entries, errors) = list(&[folder.path().to_owned()], &Identities::default(), &|_| true, &|| {});
    assert!(errors.is_empty(), "{errors:?}");
    entries
}

/// A recording of two packets, one a second after the other, from this second on.
fn pcapng(start: u64) -> Vec<u8> {
    let mut file = Vec::new();
    pcapng::section(&["call-id: a@b", "from-tag: f;1"], &mut file);
    pcapng::INTERFACE_NAMES.iter().for_each(|name| pcapng::interface(name, &mut file));
    for (interface, from, at) in [(0, CALLER, start), (1, CALLEE, start + 1)] {
        let mut frame = Vec::new();
        let framer = Framer::new(from.parse().unwrap(), "192.0.2.9:35000".parse().unwrap(), Macs::Compat);
        framer.write(0, &[0x80; 172], &mut frame);
        pcapng::packet(interface, Wall(at * SECOND), &frame, PacketOptions::default(), &mut file);
    }
    file
}

fn sidecar(name: &str, size: usize, start: u64) -> String {
    let (first, last) = (time_text(Wall(start * SECOND)), time_text(Wall((start + 60) * SECOND)));
    format!(
        r#"{{"version": 1, "call_id": "c-{start}", "from_tag": "f", "to_tag": null,
            "files": [{{"name": "{name}", "size": {size}, "sha256": ""}}],
            "requested": "{first}", "first_packet": "{first}", "last_packet": "{last}",
            "packets": 100, "dropped": 7, "unsaved": 2,
            "legs": {{"caller": {{"signalled": "{CALLEE}", "remote": null, "rtp": {{"sources": ["{CALLER}"]}}}},
                      "callee": {{"signalled": "{CALLEE}", "remote": null, "rtp": {{"sources": []}}}}}},
            "ended": {{"at": "{last}", "reason": "deleted"}}}}"#
    )
}

#[test]
fn sidecars_tell_it_all() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("below")).unwrap();
    for (name, start) in [("b", 2000), ("a", 3000), ("below/c", 1000)] {
        fs::write(folder.path().join(format!("{name}.pcapng")), [0; 50]).unwrap();
        let file = format!("{}.pcapng", name.rsplit('/').next().unwrap());
        fs::write(folder.path().join(format!("{name}.json")), sidecar(&file, 50, start)).unwrap();
    }
    let entries = all(&folder);
    let starts: Vec<_> = entries.iter().map(|entry| entry.start.unwrap().0 / SECOND).collect();
    assert_eq!(starts, [1000, 2000, 3000]);
    assert_eq!(
        entries[1],
        Entry {
            path: folder.path().join("b.pcapng"),
            state: State::Finished,
            start: Some(Wall(2000 * SECOND)),
            duration: Some(Duration::from_secs(60)),
            call_id: Some("c-2000".into()),
            from_tag: Some("f".into()),
            to_tag: None,
            caller: Some(CALLER.parse().unwrap()),
            callee: Some(CALLEE.parse().unwrap()),
            packets: Some(98),
            missing: Some(9),
            size: 50,
            ended: Some("deleted".into()),
            part: None,
            error: None,
        }
    );
}

#[test]
fn what_is_wrong_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| fs::write(folder.path().join(name), text).unwrap();
    write("gone.json", sidecar("gone.pcapng", 50, 1).as_bytes());
    write("short.json", sidecar("short.pcapng", 50, 2).as_bytes());
    write("short.pcapng", &[0; 49]);
    write("away.json", sidecar("../away.pcapng", 50, 2).as_bytes());
    write("torn.json", &sidecar("torn.pcapng", 50, 2).as_bytes()[..99]);
    write("torn.pcapng", &pcapng(3));
    write("noise.pcapng", &[7; 999]);
    write("empty.pcap", b"");
    write("other.json", b"{}");
    write("notes.txt", b"no recording");
    let entries = all(&folder);
    assert!(entries.iter().all(|entry| entry.state == State::Damaged), "{entries:#?}");
    let errors: BTreeMap<_, _> = entries
        .iter()
        .map(|entry| (entry.path.file_name().unwrap().to_str().unwrap(), entry.error.as_deref().unwrap()))
        .collect();
    assert_eq!(errors.len(), 6);
    assert_eq!(errors["gone.pcapng"], "gone.pcapng is not there");
    assert_eq!(errors["short.pcapng"], "short.pcapng has 49 bytes instead of 50");
    assert!(errors["away.json"].starts_with("it cannot be read: it names a file"));
    assert!(errors["torn.pcapng"].starts_with("its sidecar cannot be read: "));
    assert!(errors["noise.pcapng"].starts_with("it is no pcapng file: "));
    assert_eq!(errors["empty.pcap"], "it is empty");
    let torn = entries.iter().find(|entry| entry.path.ends_with("torn.pcapng")).unwrap();
    assert_eq!(torn.call_id.as_deref(), Some("a@b"));
}

#[test]
fn heads_tell_what_no_sidecar_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("x.pcapng.part"), pcapng(10)).unwrap();
    fs::write(path.join("y.pcapng.part"), pcapng(20)).unwrap();
    fs::write(path.join("z.pcapng.part"), b"").unwrap();
    let lock = |name: &str| {
        let file = File::open(path.join(name)).unwrap();
        file.lock().unwrap();
        file
    };
    let locks = ["y.pcapng.part", "z.pcapng.part"].map(lock);
    let entries = all(&folder);
    let states: Vec<_> = entries.iter().map(|entry| entry.state).collect();
    assert_eq!(states, [State::Interrupted, State::Running, State::Running]);
    assert_eq!(entries[0].duration, None);
    assert!(entries[1].duration.unwrap() > Duration::from_secs(365 * 24 * 3600));
    assert_eq!((entries[2].start, entries[2].error.as_ref()), (None, None));
    for entry in &entries[..2] {
        assert_eq!(entry.call_id.as_deref(), Some("a@b"));
        assert_eq!(entry.from_tag.as_deref(), Some("f;1"));
        assert_eq!([entry.caller, entry.callee], [CALLER, CALLEE].map(|party| party.parse().ok()));
    }
    drop(locks);
    assert!(all(&folder).iter().all(|entry| entry.state != State::Running));
}

#[test]
fn names_tell_the_call_where_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a%2Fb=c=f%25.o.rtp", "a%2Fb=c=f%25.o.rtcp", "named.rtcp"] {
        fs::write(folder.path().join(name), b"").unwrap();
    }
    let entries = all(&folder);
    let ids: Vec<_> =
        entries.iter().map(|entry| (entry.call_id.as_deref(), entry.from_tag.as_deref())).collect();
    assert_eq!(ids, [(Some("a/b=c"), Some("f%")), (None, None)]);
    assert!(entries.iter().all(|entry| entry.state == State::Finished), "{entries:?}");
}

#[test]
fn a_part_of_a_long_recording_that_is_missing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for (number, name, next) in [(1, "x", ""), (2, "x.recovered", ""), (4, "x", "x.005.pcapng"), (7, "x", "")]
    {
        let file = format!("{name}.{number:03}.pcapng");
        fs::write(folder.path().join(&file), [0; 50]).unwrap();
        let next = if next.is_empty() { "null".to_owned() } else { format!("\"{next}\"") };
        let more = format!(r#"{{"part": {number}, "next": {next}, "#);
        let text = sidecar(&file, 50, number).replacen('{', &more, 1);
        fs::write(folder.path().join(format!("{name}.{number:03}.json")), text).unwrap();
    }
    fs::write(folder.path().join("x.008.pcapng.part"), pcapng(9)).unwrap();
    // Somebody calls himself so.
    fs::write(folder.path().join("y=t.002.pcapng"), [0; 50]).unwrap();
    fs::write(folder.path().join("y=t.002.json"), sidecar("y=t.002.pcapng", 50, 10)).unwrap();
    let entries = all(&folder);
    let errors: Vec<_> = entries.iter().map(|entry| (entry.part, entry.error.as_deref())).collect();
    let missing = |number: u32| format!("part {number} of the recording is missing");
    let (third, sixth) = (missing(3), missing(6));
    let expected = [
        (Some(1), None),
        (Some(2), None),
        (Some(4), Some(&*third)),
        (Some(7), Some(&*sixth)),
        (Some(8), None),
        (None, None),
    ];
    assert_eq!(errors, expected);
    assert!(entries[..4].iter().all(|entry| entry.state == State::Finished));
}

#[test]
fn what_is_not_wanted_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.pcapng"), pcapng(10)).unwrap();
    let folders = [folder.path().to_owned(), "/nonexistent/x".into()];
    let (entries, errors) = list(&folders, &Identities::default(), &|entry| entry.start.is_none(), &|| {});
    assert!(entries.is_empty());
    assert!(errors[0].to_string().starts_with("/nonexistent/x: "), "{errors:?}");
}
