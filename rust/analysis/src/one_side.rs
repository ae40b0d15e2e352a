//! Reading a file as what one side of a call sent, by the rules of the C program's `extractaudio`.

use std::path::{Path, PathBuf};

use rtpproxy_core::recording::{Channel, Leg};
use rtpproxy_core::rtp::FIXED_HEADER_LEN;

use crate::audio::{Party, Unplayable};
use crate::capture::{Capture, CaptureError, Format, Headers, Origin, Packet};
use crate::srtp::{Crypto, Decryptor, SrtpError};
use crate::unlock::Identities;

/// A file, and what to take of it.
#[derive(Clone, Debug)]
pub struct OneSide {
    /// The file.
    pub path: PathBuf,
    /// The leg, of a file that names the legs; all of other files is taken.
    pub leg: Leg,
    /// What the packets are encrypted with. Files in the ad-hoc format are taken as they are.
    pub crypto: Option<Crypto>,
}

impl OneSide {
    /// Reads the file; `skipped` is told of each packet that is not played.
    ///
    /// # Errors
    ///
    /// When the file cannot be read to its end, or the numbers of its packets cannot be followed.
    pub fn load(&self, skipped: &mut dyn FnMut(u64, Skipped)) -> Result<Party, LoadError> {
        let capture = Capture::read(&self.path, &Identities::default())?;
        let mut decryptor = self.crypto.as_ref().map(Decryptor::with_replay_list);
        if capture.format() == Format::Adhoc {
            decryptor = None;
        }
        let mut party = Party::new();
        let mut number = 0;
        for packet in packets(&capture, self.leg) {
            let packet = packet?;
            number += 1;
            let decrypted = decryptor.as_mut().map(|decryptor| decryptor.decrypt(packet.payload)).transpose();
            let taken = match &decrypted {
                Ok(plain) => {
                    let bytes = plain.as_deref().unwrap_or(packet.payload);
                    party.packet(bytes, packet.at).map_err(Skipped::Unplayable)
                }
                Err(error) => Err(Skipped::Encrypted(*error)),
            };
            match taken {
                Ok(()) => {}
                Err(Skipped::Unplayable(Unplayable::Misplaced(sequence))) => {
                    return Err(LoadError::Misplaced(sequence));
                }
                Err(reason) => skipped(number, reason),
            }
        }
        Ok(party)
    }
}

/// How many packets a file holds of `leg`, or in all if it names no legs.
///
/// # Errors
///
/// When it cannot be read to its end.
pub fn count(path: &Path, leg: Leg) -> Result<u64, LoadError> {
    let capture = Capture::read(path, &Identities::default())?;
    let mut count = 0;
    for packet in packets(&capture, leg) {
        packet?;
        count += 1;
    }
    Ok(count)
}

/// Why a packet is not played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skipped {
    /// It cannot be decrypted.
    #[error(transparent)]
    Encrypted(SrtpError),
    /// It is no audio.
    #[error(transparent)]
    Unplayable(Unplayable),
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read, or not to its end.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Its packets are in no order that could be followed.
    #[error("sequence number {0} lies before the first one, behind which the numbers have wrapped")]
    Misplaced(u16),
}

fn packets(capture: &Capture, leg: Leg) -> impl Iterator<Item = Result<Packet<'_>, CaptureError>> {
    let is_adhoc = capture.format() == Format::Adhoc;
    capture.packets_by(Headers::Fixed).filter(move |packet| {
        packet.as_ref().map_or(true, |packet| match packet.origin {
            Origin::Unnamed => !is_adhoc || packet.payload.len() >= FIXED_HEADER_LEN,
            Origin::Leg(of, channel) => of == leg && channel == Channel::Rtp,
            Origin::Synthetic => false,
        })
    })
}
