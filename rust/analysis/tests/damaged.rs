//! Damaged recordings: what `verify` says of them, and what `repair` makes of them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use pcap_file::pcapng::{Block, PcapNgReader};
use rtpproxy_analysis::repair::{RepairError, Repaired, Target, repair};
use rtpproxy_analysis::unlock::Identities;
use rtpproxy_analysis::verify::{Kind, Unit, Verdict, survey, verify};
use rtpproxy_core::adhoc;
use rtpproxy_core::frame::{Framer, Macs};
use rtpproxy_core::pcap::{self, Resolution};
use rtpproxy_core::pcapng::{self, PacketOptions};
use rtpproxy_core::recording::Leg;
use rtpproxy_core::time::Wall;
use serde_json::{Value, json};
use tempfile::TempDir;

const START: u64 = 1_700_000_000_000_000_000;
const PACKETS: u64 = 50;
const PAYLOAD: usize = 172;

/// A folder with a recording of both parties and its sidecar.
struct Recorded {
    folder: TempDir,
    path: PathBuf,
}

impl Recorded {
    fn new(suffix: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("call=f.{suffix}"));
        fs::write(&path, capture(suffix)).unwrap();
        let recorded = Self { folder, path };
        recorded.write_sidecar();
        recorded
    }

    fn write_sidecar(&self) {
        let report = verify(&self.unit(), false, &Identities::default(), &|_| ()).unwrap();
        assert!(report.is_whole, "{report:?}");
        let sidecar = json!({
            "version": 1, "call_id": "call", "packets": PACKETS, "bytes": PACKETS as usize * PAYLOAD,
            "dropped": 0, "unsaved": 0, "gaps": [],
            "files": [{
                "name": self.path.file_name().unwrap().to_str().unwrap(),
                "size": fs::metadata(&self.path).unwrap().len(),
                "sha256": sha256(&self.path),
            }],
        });
        fs::write(self.path.with_extension("json"), sidecar.to_string()).unwrap();
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(&self.path).unwrap();
        change(&mut bytes);
        fs::write(&self.path, bytes).unwrap();
    }

    fn change_sidecar(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path.with_extension("json");
        let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        fs::write(&path, json.to_string()).unwrap();
    }

    fn unit(&self) -> Unit {
        unit(&self.path)
    }

    fn verify(&self) -> Verdict {
        verify(&self.unit(), true, &Identities::default(), &|_| ()).unwrap()
    }

    fn kinds(&self) -> Vec<Kind> {
        self.verify().problems.iter().map(|problem| problem.kind).collect()
    }

    fn repair(&self, target: &Target) -> Result<Repaired, RepairError> {
        repair(&self.unit(), target, false, &Identities::default(), &|_| ())
    }
}

fn unit(path: &Path) -> Unit {
    let mut units = survey(&[path.to_owned()]).unwrap();
    assert_eq!(units.len(), 1);
    units.remove(0)
}

fn sha256(path: &Path) -> String {
    let mut command = std::process::Command::new("sha256sum");
    let output = command.arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

fn capture(suffix: &str) -> Vec<u8> {
    let addrs = [([192, 0, 2, 10], 4000).into(), ([192, 0, 2, 1], 35000).into()];
    let framer = Framer::new(addrs[0], addrs[1], Macs::Leg(Leg::Caller));
    let mut out = Vec::new();
    match suffix {
        "pcapng" => {
            pcapng::section(&["call-id: call"], &mut out);
            pcapng::INTERFACE_NAMES.into_iter().for_each(|name| pcapng::interface(name, &mut out));
        }
        "pcap" => pcap::file_header(Resolution::Nano, &mut out),
        _ => {}
    }
    for n in 0..PACKETS {
        let at = Wall(START + n * 20_000_000 + 1_234_567);
        let payload: Vec<_> = (0..PAYLOAD as u64).map(|i| (n * 31 + i * 7) as u8 | 1).collect();
        match suffix {
            "pcapng" => {
                let mut frame = Vec::new();
                framer.write(n as u16, &payload, &mut frame);
                let options = PacketOptions { inbound: n % 2 == 0, ..PacketOptions::default() };
                pcapng::packet((n % 2) as u32, at, &frame, options, &mut out);
            }
            "pcap" => {
                pcap::record_header(Resolution::Nano, at, framer.frame_len(payload.len()), &mut out);
                framer.write(n as u16, &payload, &mut out);
            }
            _ => adhoc::record(addrs[0], at, &payload, &mut out),
        }
    }
    if suffix == "pcapng" {
        for interface in 0..4 {
            pcapng::statistics(interface, Wall(START), Wall(START), PACKETS / 2, 0, &[], &mut out);
        }
    }
    out
}

/// Packets and comments of a pcapng file, by a reader that stops at any damage.
fn read_strictly(path: &Path) -> (usize, String) {
    let bytes = fs::read(path).unwrap();
    let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
    let (mut packets, mut text) = (0, String::new());
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap().0 {
            packets += 1;
            text += &format!("{:?}", packet.options);
        }
    }
    (packets, text)
}

#[test]
fn a_whole_recording_is_whole() {
    for suffix in ["pcapng", "pcap", "rtp"] {
        let recorded = Recorded::new(suffix);
        let verdict = recorded.verify();
        assert_eq!((verdict.is_whole, verdict.packets, verdict.problems), (true, Some(PACKETS), vec![]));
        assert_eq!(recorded.repair(&Target::Beside).unwrap(), Repaired::default());
        assert_eq!(fs::read_dir(recorded.folder.path()).unwrap().count(), 2);
    }
}

#[test]
fn each_fault_is_told_with_its_place() {
    let cut = Recorded::new("pcapng");
    cut.change(|bytes| bytes.truncate(6000));
    assert_eq!(cut.kinds(), [Kind::Torn, Kind::Changed, Kind::Packets]);
    let torn = &cut.verify().problems[0];
    assert_eq!(torn.at.unwrap() + torn.count.unwrap(), 6000);
    assert!(torn.text.contains("after 2023-11-14T22:13:20"), "{}", torn.text);

    let holed = Recorded::new("pcap");
    holed.change(|bytes| bytes[4096..8192].fill(0));
    assert_eq!(holed.kinds(), [Kind::Hole, Kind::Changed, Kind::Packets]);
    assert!(holed.verify().problems[0].text.contains("(zeros), between "), "{:?}", holed.verify());

    let changed = Recorded::new("pcapng");
    changed.change(|bytes| bytes[2000] ^= 1);
    assert!(changed.kinds().contains(&Kind::Changed), "{:?}", changed.kinds());

    let headless = Recorded::new("pcap");
    headless.change(|bytes| bytes[..24].fill(0));
    assert_eq!(headless.kinds()[..2], [Kind::NoHead, Kind::Hole]);
}

#[test]
fn what_the_sidecar_says_is_missing_is_told() {
    let recorded = Recorded::new("pcapng");
    recorded.change_sidecar(|json| {
        json["dropped"] = 5.into();
        json["gaps"] = json!([{
            "leg": "caller", "channel": "rtp", "from": "A", "to": "B", "packets": 3, "cause": "disk full",
        }]);
    });
    let problems = recorded.verify().problems;
    assert_eq!(problems.iter().map(|problem| problem.count.unwrap()).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(problems[0].text, "3 packets of caller rtp were not written, from A to B: disk full");

    recorded.change_sidecar(|json| json["dropped"] = 0.into());
    recorded.change_sidecar(|json| json["packets"] = 60.into());
    recorded.change_sidecar(|json| json["gaps"] = json!([]));
    assert_eq!(recorded.kinds(), [Kind::Packets]);
    fs::write(recorded.path.with_extension("json"), "{").unwrap();
    let units = survey(&[recorded.folder.path().to_owned()]).unwrap();
    let kinds: Vec<_> = units
        .iter()
        .flat_map(|unit| verify(unit, true, &Identities::default(), &|_| ()).unwrap().problems)
        .map(|p| p.kind)
        .collect();
    assert_eq!(kinds, [Kind::BadSidecar, Kind::NoSidecar]);
}

#[test]
fn a_folder_tells_of_all_there_is() {
    let recorded = Recorded::new("pcapng");
    let folder = recorded.folder.path();
    fs::create_dir(folder.join("2026")).unwrap();
    fs::write(folder.join("2026/alone=f.pcap"), capture("pcap")).unwrap();
    fs::write(folder.join("left=f.rtp.part"), &capture("rtp")[..5000]).unwrap();
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    fs::write(folder.join("settings.json"), "{}").unwrap();
    let units = survey(&[folder.to_owned()]).unwrap();
    let kinds: Vec<_> = units
        .iter()
        .map(|unit| {
            verify(unit, true, &Identities::default(), &|_| ())
                .unwrap()
                .problems
                .iter()
                .map(|p| p.kind)
                .collect::<Vec<_>>()
        })
        .collect();
    let unfinished = vec![Kind::NoSidecar, Kind::Unfinished, Kind::Torn];
    assert_eq!(kinds, [vec![Kind::NoSidecar], vec![], unfinished]);

    fs::remove_file(&recorded.path).unwrap();
    let unit = unit(&recorded.path.with_extension("json"));
    assert_eq!(verify(&unit, true, &Identities::default(), &|_| ()).unwrap().problems[0].kind, Kind::Missing);
}

#[test]
fn a_file_that_is_being_written_is_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("now=f.pcapng.part");
    fs::write(&path, &capture("pcapng")[..4000]).unwrap();
    let writer = fs::File::open(&path).unwrap();
    writer.try_lock().unwrap();
    let verdict = verify(&unit(&path), false, &Identities::default(), &|_| ()).unwrap();
    assert_eq!((verdict.is_whole, &verdict.notes[..]), (true, &["it is being written".to_owned()][..]));
    assert!(matches!(
        repair(&unit(&path), &Target::Beside, false, &Identities::default(), &|_| ()),
        Err(RepairError::InUse(_))
    ));
    drop(writer);
    let repaired = repair(&unit(&path), &Target::Beside, false, &Identities::default(), &|_| ()).unwrap();
    assert_eq!(repaired.files, [folder.path().join("now=f.repaired.pcapng")]);
}

#[test]
fn a_hole_is_repaired() {
    for suffix in ["pcapng", "pcap", "rtp"] {
        let recorded = Recorded::new(suffix);
        recorded.change(|bytes| bytes[4096..6000].fill(0));
        let before = fs::read(&recorded.path).unwrap();
        let repaired = recorded.repair(&Target::Beside).unwrap();
        assert_eq!(fs::read(&recorded.path).unwrap(), before, "the original stays");
        let output = recorded.folder.path().join(format!("call=f.repaired.{suffix}"));
        assert_eq!(repaired.files, std::slice::from_ref(&output));
        assert!((38..=42).contains(&repaired.packets), "{repaired:?}");
        assert_eq!(repaired.lost_packets, Some(PACKETS - repaired.packets));
        // The ad-hoc format has no checksum that tells of the packet in which the hole begins.
        assert!(repaired.lost_bytes > 1904 - 202, "{repaired:?}");

        let verdict = verify(&unit(&output), true, &Identities::default(), &|_| ()).unwrap();
        let kinds: Vec<_> = verdict.problems.iter().map(|problem| (problem.kind, problem.count)).collect();
        assert_eq!(kinds, [(Kind::Lost, repaired.lost_packets)], "{verdict:?}");
        let json: Value = serde_json::from_slice(&fs::read(output.with_extension("json")).unwrap()).unwrap();
        assert_eq!(json["call_id"], "call");
        assert_eq!(json["repaired"]["from"][0], recorded.path.file_name().unwrap().to_str().unwrap());
        if suffix == "pcapng" {
            let (packets, text) = read_strictly(&output);
            assert_eq!(packets as u64, repaired.packets);
            assert!(text.contains("bytes of the damaged file could not be read"), "{text}");
        }
        assert!(matches!(recorded.repair(&Target::Beside), Err(RepairError::Exists(_))));
    }
}

#[test]
fn a_lost_head_is_written_anew() {
    let recorded = Recorded::new("pcapng");
    recorded.change(|bytes| bytes[..150].fill(0));
    let folder = recorded.folder.path().join("new");
    fs::create_dir(&folder).unwrap();
    let repaired = recorded.repair(&Target::Folder(folder.clone())).unwrap();
    assert_eq!(repaired.files, [folder.join("call=f.pcapng")]);
    assert!(repaired.notes[0].contains("its head is lost"), "{:?}", repaired.notes);
    assert_eq!(read_strictly(&repaired.files[0]).0 as u64, PACKETS);

    let recorded = Recorded::new("pcap");
    recorded.change(|bytes| bytes[..24].fill(0));
    let repaired = recorded.repair(&Target::InPlace).unwrap();
    assert_eq!(repaired.packets, PACKETS);
    let verdict = recorded.verify();
    assert!(verdict.is_whole, "{verdict:?}");
    let bytes = fs::read(&recorded.path).unwrap();
    assert_eq!(bytes, capture("pcap"), "nanoseconds are told from the first packet");
}

#[test]
fn nothing_comes_of_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noise=f.pcapng");
    fs::write(&path, [0x55; 3000]).unwrap();
    let error = repair(&unit(&path), &Target::Beside, false, &Identities::default(), &|_| ()).unwrap_err();
    assert!(matches!(error, RepairError::Nothing(_)), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
}
