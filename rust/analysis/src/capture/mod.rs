//! Reading captures: the packets of pcap, pcapng and ad-hoc files.
//!
//! A file tells its format by its first bytes, and whether it is compressed. Nothing in it is believed: lengths are checked, a file that ends
//! inside a packet gives the whole ones before, and then an error that says so.

mod adhoc;
mod frame;
mod pcap;
mod pcapng;

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;

use rtpproxy_core::compression::Broken;
use rtpproxy_core::recording::{Channel, Leg};
use rtpproxy_core::time::Wall;

use crate::content::{self, UpToDamage};
use crate::unlock::{Identities, Kind};

/// A capture in memory.
#[derive(Clone, Debug)]
pub struct Capture {
    bytes: Vec<u8>,
    format: Format,
    /// What keeps the rest from being read.
    broken: Option<Broken>,
    damage: Option<String>,
}

impl Capture {
    /// Reads a file, which may be compressed, with `identities` if it is encrypted. Of an encrypted one that is damaged
    /// it reads what comes before the damage.
    ///
    /// # Errors
    ///
    /// When it cannot be read, begins like a format whose header is then not whole, or is compressed or encrypted and
    /// has more than a gibibyte of content.
    pub fn read(path: &Path, identities: &Identities) -> Result<Self, CaptureError> {
        let mut content = content::open(path, identities)?;
        if content.compression().is_none() && content.source_mut().kind() == Kind::Plain {
            return Self::new(std::fs::read(path)?);
        }
        let mut bytes = Vec::new();
        UpToDamage(&mut content).take(CONTENT_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > CONTENT_MAX {
            return Err(CaptureError::Large);
        }
        let broken = content.broken().cloned();
        let damage = content.source_mut().damage();
        Ok(Self { broken, damage, ..Self::new(bytes)? })
    }

    /// A capture of the bytes of a file.
    ///
    /// # Errors
    ///
    /// When they begin like a format whose header is then not whole.
    pub fn new(bytes: Vec<u8>) -> Result<Self, CaptureError> {
        let format = if pcapng::is_magic(&bytes) {
            Format::Pcapng
        } else if pcap::is_magic(&bytes) {
            pcap::Header::parse(&bytes)?;
            Format::Pcap
        } else {
            Format::Adhoc
        };
        Ok(Self { bytes, format, broken: None, damage: None })
    }

    /// Why there is nothing behind what was read of an encrypted file, if that was not its end.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// The format, by the first bytes; what is no pcap is taken for ad-hoc.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The UDP datagrams, in the order of the file.
    pub fn packets(&self) -> Packets<'_> {
        self.packets_by(Headers::Read)
    }

    /// The same, with headers of the lengths that they usually have.
    ///
    /// Classic pcap is then read as the C program's `extractaudio` reads it: with microseconds, in the machine's
    /// byte order, link type Ethernet or NULL, IPv4 frames only, no IP options, and the payload reaches to the
    /// end of the frame, padding of the link included. Other pcap files give an error, other formats are read
    /// as ever.
    pub fn packets_by(&self, headers: Headers) -> Packets<'_> {
        let reader = match self.format {
            Format::Adhoc => Reader::Adhoc(adhoc::Reader::new(&self.bytes)),
            Format::Pcap => Reader::Pcap(pcap::Reader::new(&self.bytes, headers)),
            Format::Pcapng => Reader::Pcapng(pcapng::Reader::new(&self.bytes)),
        };
        Packets { reader, broken: self.broken.as_ref(), skipped: 0, is_over: false }
    }
}

/// The format of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Classic pcap, with microseconds or nanoseconds, in either byte order.
    Pcap,
    /// pcapng.
    Pcapng,
    /// The C program's own: docs/recording-files.md has the layout.
    Adhoc,
}

/// How the headers around a payload are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headers {
    /// By what they say.
    Read,
    /// At fixed places, as the C program does.
    Fixed,
}

/// A UDP datagram of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When it was received.
    pub at: Wall,
    /// Where it came from.
    pub source: SocketAddr,
    /// Where it went; the ad-hoc format does not tell.
    pub destination: Option<SocketAddr>,
    /// What the file says of its origin.
    pub origin: Origin,
    /// The bytes above UDP.
    pub payload: &'a [u8],
}

/// Whose packet it is, by the name of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file does not say.
    Unnamed,
    /// A party of a call and its channel.
    Leg(Leg, Channel),
    /// Nobody's: the recorder made it up to describe the call.
    Synthetic,
}

/// The packets of a capture; nothing follows an error.
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    reader: Reader<'a>,
    broken: Option<&'a Broken>,
    skipped: u64,
    is_over: bool,
}

impl Packets<'_> {
    /// How many frames that are no UDP datagrams, or no whole ones, were met so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_over {
            let met = match &mut self.reader {
                Reader::Adhoc(reader) => reader.next(),
                Reader::Pcap(reader) => reader.next(),
                Reader::Pcapng(reader) => reader.next(),
            };
            match met {
                Some(Ok(Some(packet))) => return Some(Ok(packet)),
                Some(Ok(None)) => self.skipped += 1,
                Some(Err(error)) => {
                    self.is_over = true;
                    // It is why something is not whole at the end.
                    return Some(Err(self.broken.map_or(error, |broken| broken.clone().into())));
                }
                None => {
                    self.is_over = true;
                    return self.broken.map(|broken| Err(broken.clone().into()));
                }
            }
        }
        None
    }
}

#[derive(Clone, Debug)]
enum Reader<'a> {
    Adhoc(adhoc::Reader<'a>),
    Pcap(pcap::Reader<'a>),
    Pcapng(pcapng::Reader<'a>),
}

/// What a reader gives for one record: a datagram, or a frame that is none.
type Record<'a> = Result<Option<Packet<'a>>, CaptureError>;

/// Why a capture cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The system does not give it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is compressed, and that is damaged.
    #[error(transparent)]
    Compressed(#[from] Broken),
    /// It is compressed, and there is too much in it.
    #[error("it holds more than a gibibyte: decompress it first, with zstd -d or gzip -d")]
    Large,
    /// The file ends in the middle of something.
    #[error("the file ends inside {what} that begins at byte {at}")]
    Cut {
        /// What that is.
        what: &'static str,
        /// Where that begins.
        at: usize,
    },
    /// The bytes are not of the format.
    #[error("{reason} at byte {at}")]
    Broken {
        /// What is wrong.
        reason: &'static str,
        /// Where.
        at: usize,
    },
}

/// How much content a compressed file may have, in bytes: it takes so much memory, whatever its own size is.
const CONTENT_MAX: u64 = 1 << 30;

/// The first `N` bytes of what follows `at`.
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
