//! Reads the finished recording back.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use pcap_file::pcapng::{Block, PcapNgReader};

/// A recording on disk.
#[derive(Debug)]
pub(super) struct Recording {
    /// The file.
    pub(super) path: PathBuf,
    /// Packets by the address that they came from.
    packets: HashMap<SocketAddrV4, u64>,
}

impl Recording {
    /// Finds the finished recording of `call_id` in `folder` and counts its packets.
    pub(super) fn read(folder: &Path, call_id: &str) -> Result<Self, String> {
        let path = find(folder, call_id)?;
        let packets = count(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path, packets })
    }

    /// The packets that came from `port` of this machine.
    pub(super) fn packets_from(&self, port: u16) -> u64 {
        let source = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        self.packets.get(&source).copied().unwrap_or_default()
    }

    /// What the relay knows of a party: the address it was latched to, from the file beside the recording.
    pub(super) fn latched(&self, leg: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.path.with_extension("json")).ok()?;
        let sidecar: serde_json::Value = serde_json::from_str(&text).ok()?;
        let marks = sidecar["marks"].as_array()?;
        let latched = marks.iter().rev().find(|mark| {
            mark["leg"] == leg
                && mark["channel"] == "rtp"
                && (mark["event"] == "latched" || mark["event"] == "relatched")
        })?;
        Some(latched["source"].as_str()?.to_owned())
    }
}

fn find(folder: &Path, call_id: &str) -> Result<PathBuf, String> {
    let shown = folder.display();
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{shown}: {error}"))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(call_id) && name.ends_with(".pcapng")
        })
        .ok_or_else(|| format!("{shown}: there is no recording of the call"))
}

fn count(path: &Path) -> Result<HashMap<SocketAddrV4, u64>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut reader = PcapNgReader::new(BufReader::new(file)).map_err(|error| error.to_string())?;
    let mut packets = HashMap::new();
    while let Some(block) = reader.next_block() {
        let (block, _) = block.map_err(|error| error.to_string())?;
        if let Block::EnhancedPacket(packet) = block
            && let Some(source) = source(&packet.data)
        {
            *packets.entry(source).or_default() += 1;
        }
    }
    Ok(packets)
}

fn source(frame: &[u8]) -> Option<SocketAddrV4> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match (packet.net?, packet.transport?) {
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            Some(SocketAddrV4::new(ip.header().source_addr(), udp.source_port()))
        }
        _ => None,
    }
}
