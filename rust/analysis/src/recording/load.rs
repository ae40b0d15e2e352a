//! Loading a recording: from its files to what each party sent.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;

use rtpproxy_core::recording::{Channel, Leg};
use rtpproxy_core::rtcp;
use rtpproxy_core::rtp::{self, FIXED_HEADER_LEN, RtpError};
use rtpproxy_core::time::Wall;

use super::find::{Piece, Recording};
use super::sidecar::Sidecar;
use crate::audio::Party;
use crate::capture::{Capture, CaptureError, Headers, Origin, Packet};
use crate::srtp::{Crypto, Decryptor, SrtpError};
use crate::unlock::Identities;

/// What was found in a recording.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What each party sent: the caller, the callee.
    pub parties: [Party; 2],
    /// Packets that cannot be heard, by the reason.
    pub left_out: BTreeMap<String, u64>,
    /// What else there is to know: where a file is damaged, what had to be guessed.
    pub notes: Vec<String>,
}

impl Loaded {
    /// Whether there is nothing to be heard.
    pub fn is_silent(&self) -> bool {
        self.parties.iter().all(Party::is_empty)
    }

    fn leave_out(&mut self, reason: impl ToString) {
        *self.left_out.entry(reason.to_string()).or_default() += 1;
    }
}

/// Why a recording cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct RecordingError {
    path: PathBuf,
    error: CaptureError,
}

impl Recording {
    /// Reads its files, with `identities` if they are encrypted. What each party encrypts its packets with, caller
    /// first, is told by `crypto`.
    ///
    /// A file that is damaged gives what comes before the damage, and a note.
    ///
    /// # Errors
    ///
    /// When a file cannot be read at all.
    pub fn load(
        &self,
        crypto: &[Option<Crypto>; 2],
        identities: &Identities,
    ) -> Result<Loaded, RecordingError> {
        let mut loading = Loading::new(crypto);
        for missing in &self.missing {
            loading.note(format!("{}: {missing}", self.stem.display()));
        }
        for piece in &self.files {
            let failed = |error| RecordingError { path: piece.path.clone(), error };
            let capture = Capture::read(&piece.path, identities).map_err(failed)?;
            if let Some(damage) = capture.damage() {
                loading.note(format!("{}: {damage}", piece.path.display()));
            }
            let packets = loading.file(piece, &capture);
            if let Err(error) = packets {
                // A damaged tail is no reason to lose the rest, but what has no beginning is no capture.
                match loading.is_empty() {
                    true => return Err(failed(error)),
                    false => loading.note(format!("{}: {error}", piece.path.display())),
                }
            }
        }
        Ok(loading.finish())
    }
}

struct Loading {
    loaded: Loaded,
    decryptors: [Keyring; 2],
    packets: u64,
    /// Who is who in the files of a long recording so far.
    roles: Option<Roles>,
}

impl Loading {
    fn new(crypto: &[Option<Crypto>; 2]) -> Self {
        let decryptors = crypto.clone().map(|crypto| Keyring { crypto, decryptors: HashMap::new() });
        Self { loaded: Loaded::default(), decryptors, packets: 0, roles: None }
    }

    fn is_empty(&self) -> bool {
        self.packets == 0
    }

    fn note(&mut self, text: String) {
        self.loaded.notes.push(text);
    }

    /// Takes in the packets of a file, up to its end or to an error.
    fn file(&mut self, piece: &Piece, capture: &Capture) -> Result<(), CaptureError> {
        let sidecar = Sidecar::beside(&piece.path);
        let whole = piece.leg.or(sidecar.leg);
        let mut roles = self.roles.take();
        let mut are_learnt = false;
        let mut packets = capture.packets_by(Headers::Read);
        let outcome = loop {
            let packet = match packets.next() {
                None => break Ok(()),
                Some(Err(error)) => break Err(error),
                Some(Ok(packet)) => packet,
            };
            self.packets += 1;
            let leg = match packet.origin {
                Origin::Synthetic | Origin::Leg(_, Channel::Rtcp) => continue,
                _ if rtcp::is_rtcp(packet.payload) => continue,
                Origin::Leg(leg, Channel::Rtp) => Some(leg),
                Origin::Unnamed => whole.or_else(|| sidecar.leg_of(packet.source)).or_else(|| {
                    let roles = roles.get_or_insert_default();
                    if !std::mem::replace(&mut are_learnt, true) {
                        roles.learn(capture);
                    }
                    roles.leg(&packet)
                }),
            };
            match leg {
                Some(leg) => self.packet(leg, packet.payload, packet.at),
                None => self.loaded.leave_out("no RTP packet"),
            }
        };
        let shown = piece.path.display();
        if packets.skipped() > 0 {
            self.note(format!("{shown}: {} frames are left out: not UDP, or not whole", packets.skipped()));
        }
        if let Some(roles) = roles.as_ref().filter(|_| are_learnt) {
            self.note(format!("{shown}: {}", roles.note()));
        }
        // Of others, each file is a recording, or a party.
        self.roles = roles.filter(|_| piece.number.is_some());
        outcome
    }

    fn packet(&mut self, leg: Leg, datagram: &[u8], at: Wall) {
        let index = usize::from(leg == Leg::Callee);
        let decrypted = match self.decryptors[index].decrypt(datagram) {
            Ok(decrypted) => decrypted,
            Err(error) => return self.loaded.leave_out(error),
        };
        let datagram = decrypted.as_deref().unwrap_or(datagram);
        if let Err(reason) = self.loaded.parties[index].packet(datagram, at) {
            self.loaded.leave_out(reason);
        }
    }

    fn finish(self) -> Loaded {
        self.loaded
    }
}

/// The keys of one party, for each of its sources.
struct Keyring {
    crypto: Option<Crypto>,
    decryptors: HashMap<u32, Decryptor>,
}

impl Keyring {
    /// The plain packet, if the party encrypts.
    fn decrypt(&mut self, packet: &[u8]) -> Result<Option<Vec<u8>>, SrtpError> {
        let Some(crypto) = &self.crypto else { return Ok(None) };
        let ssrc = packet.get(8..12).and_then(|bytes| bytes.first_chunk().copied());
        let ssrc = ssrc.ok_or(RtpError::Short { len: packet.len() })?;
        let ssrc = u32::from_be_bytes(ssrc);
        if let Some(decryptor) = self.decryptors.get_mut(&ssrc) {
            return decryptor.decrypt(packet).map(Some);
        }
        // A source counts from its first packet that is of this key, so that noise takes no memory.
        let mut decryptor = Decryptor::new(crypto);
        let plain = decryptor.decrypt(packet)?;
        self.decryptors.insert(ssrc, decryptor);
        Ok(Some(plain))
    }
}

/// Who is who in a capture that does not say it.
///
/// Usually there are two destinations, and each gets what one party sends. Where there are more, because a relay was
/// captured on both sides or a party moved, the SSRC says what belongs together.
#[derive(Debug, Default)]
struct Roles {
    /// In the order in which they are met.
    destinations: Vec<Option<SocketAddr>>,
    /// The leg of each SSRC, by the destination that it was first met with.
    by_ssrc: HashMap<u32, Leg>,
}

impl Roles {
    /// Looks through a capture, up to its end or to an error.
    fn learn(&mut self, capture: &Capture) {
        let packets = capture.packets_by(Headers::Read).map_while(Result::ok);
        for packet in packets.filter(|packet| packet.origin == Origin::Unnamed) {
            let Some(ssrc) = ssrc(packet.payload) else { continue };
            if !self.destinations.contains(&packet.destination) && self.destinations.len() <= MANY {
                self.destinations.push(packet.destination);
            }
            let leg = self.by_destination(packet.destination);
            self.by_ssrc.entry(ssrc).or_insert(leg);
        }
    }

    /// Whose packet it is; none if it is no RTP.
    fn leg(&self, packet: &Packet<'_>) -> Option<Leg> {
        let ssrc = ssrc(packet.payload)?;
        if self.destinations.len() > MANY {
            return self.by_ssrc.get(&ssrc).copied();
        }
        Some(self.by_destination(packet.destination))
    }

    fn by_destination(&self, destination: Option<SocketAddr>) -> Leg {
        let is_first = self.destinations.first().is_none_or(|first| *first == destination);
        if is_first { Leg::Caller } else { Leg::Callee }
    }

    fn note(&self) -> &'static str {
        match self.destinations.len() {
            0 | 1 => "it does not say whose packets it holds: they are taken for the caller's",
            2 => "it does not say who is who: whoever is heard first is taken for the caller",
            _ => "it does not say who is who of several: whoever is heard first is taken for the caller",
        }
    }
}

/// The SSRC of what may be RTP, encrypted or not.
fn ssrc(datagram: &[u8]) -> Option<u32> {
    let header: &[u8; FIXED_HEADER_LEN] = datagram.first_chunk()?;
    let [first, .., a, b, c, d] = *header;
    let is_rtp = first >> 6 == rtp::VERSION && !rtcp::is_rtcp(datagram);
    is_rtp.then(|| u32::from_be_bytes([a, b, c, d]))
}

/// More destinations than this are not told apart.
const MANY: usize = 2;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rtpproxy_core::frame::{Framer, Macs};
    use rtpproxy_core::pcap::{self, Resolution};
    use rtpproxy_core::pcapng::{self, PacketOptions};

    use super::super::find;
    use super::*;

    const CALLER: &str = "192.0.2.1:4000";
    const CALLEE: &str = "192.0.2.2:5000";
    const RELAY: [&str; 2] = ["192.0.2.9:35000", "192.0.2.9:35002"];

    fn rtp(ssrc: u32, sequence: u16, payload_type: u8) -> Vec<u8> {
        let mut packet = vec![0x80, payload_type];
        packet.extend(sequence.to_be_bytes());
        packet.extend((u32::from(sequence) * 160).to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        packet.extend([0xd5; 160]);
        packet
    }

    /// A classic pcap of packets from, to and with these bytes, a millisecond apart.
    fn capture(packets: &[(&str, &str, Vec<u8>)]) -> Vec<u8> {
        let mut file = Vec::new();
        pcap::file_header(Resolution::Micro, &mut file);
        for (at, (from, to, payload)) in packets.iter().enumerate() {
            let framer = Framer::new(from.parse().unwrap(), to.parse().unwrap(), Macs::Compat);
            let at = Wall(1_700_000_000_000_000_000 + at as u64 * 1_000_000);
            pcap::record_header(Resolution::Micro, at, framer.frame_len(payload.len()), &mut file);
            framer.write(0, payload, &mut file);
        }
        file
    }

    fn load(folder: &Path) -> Result<Loaded, RecordingError> {
        let found = find(&[folder.to_owned()]).unwrap();
        assert_eq!(found.len(), 1);
        found[0].load(&[None, None], &Identities::default())
    }

    fn playable(loaded: &Loaded) -> [usize; 2] {
        loaded.parties.each_ref().map(Party::playable)
    }

    fn talk() -> Vec<(&'static str, &'static str, Vec<u8>)> {
        vec![
            (CALLEE, RELAY[1], rtp(8, 1, 8)),
            (CALLER, RELAY[0], rtp(7, 1, 8)),
            (CALLER, RELAY[0], rtp(7, 2, 8)),
        ]
    }

    #[test]
    fn without_names_the_first_to_be_heard_is_the_caller() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.pcap"), capture(&talk())).unwrap();
        let loaded = load(folder.path()).unwrap();
        assert_eq!(playable(&loaded), [1, 2]);
        assert!(loaded.notes[0].contains("whoever is heard first"), "{:?}", loaded.notes);
    }

    #[test]
    fn the_sidecar_knows_better() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.pcap.part"), capture(&talk())).unwrap();
        let legs = format!(
            r#"{{"legs": {{"caller": {{"rtp": {{"sources": ["{CALLER}"]}}}},
                "callee": {{"rtp": {{"sources": ["{CALLEE}"]}}}}}}}}"#
        );
        std::fs::write(folder.path().join("x.json"), legs).unwrap();
        let loaded = load(folder.path()).unwrap();
        assert_eq!(playable(&loaded), [2, 1]);
        assert_eq!(loaded.notes, Vec::<String>::new());
    }

    #[test]
    fn a_capture_of_both_sides_of_a_relay_has_each_packet_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut packets = Vec::new();
        for (from, to, payload) in talk() {
            let out = if from == CALLER { (RELAY[1], CALLEE) } else { (RELAY[0], CALLER) };
            packets.push((from, to, payload.clone()));
            packets.push((out.0, out.1, payload));
        }
        std::fs::write(folder.path().join("x.pcap"), capture(&packets)).unwrap();
        assert_eq!(playable(&load(folder.path()).unwrap()), [1, 2]);
    }

    #[test]
    fn what_is_not_heard_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut packets = talk();
        packets.push((CALLER, RELAY[0], rtp(7, 3, 101)));
        packets.push((CALLER, RELAY[0], b"INVITE sip:x".to_vec()));
        // RTCP is no audio, and no trouble either.
        packets.push((CALLER, RELAY[0], vec![0x80, 200, 0, 1, 0, 0, 0, 7]));
        let mut file = capture(&packets);
        file.extend([0; 7]);
        std::fs::write(folder.path().join("x.pcap"), file).unwrap();
        let loaded = load(folder.path()).unwrap();
        assert_eq!(playable(&loaded), [1, 2]);
        let left_out: Vec<_> =
            loaded.left_out.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
        assert_eq!(left_out, [("no RTP packet", 1), ("payload type 101 is not known to be audio", 1)]);
        assert!(loaded.notes.iter().any(|note| note.contains("ends inside")), "{:?}", loaded.notes);
    }

    #[test]
    fn what_is_no_capture_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.pcap"), "no capture, but text that goes on for a while")
            .unwrap();
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("x.pcap: neither a known capture format"), "{error}");
    }

    #[test]
    fn names_of_interfaces_tell_the_leg() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = Vec::new();
        pcapng::section(&[], &mut file);
        pcapng::INTERFACE_NAMES.iter().for_each(|name| pcapng::interface(name, &mut file));
        for (interface, ssrc, sequence) in [(1, 8, 1), (0, 7, 1), (0, 7, 2), (2, 7, 3)] {
            let mut frame = Vec::new();
            Framer::new(CALLER.parse().unwrap(), RELAY[0].parse().unwrap(), Macs::Compat).write(
                0,
                &rtp(ssrc, sequence, 0),
                &mut frame,
            );
            pcapng::packet(interface, Wall(1), &frame, PacketOptions::default(), &mut file);
        }
        std::fs::write(folder.path().join("x.pcapng"), file).unwrap();
        let loaded = load(folder.path()).unwrap();
        assert_eq!(playable(&loaded), [2, 1]);
        assert!(loaded.notes.is_empty() && loaded.left_out.is_empty());
    }
}
