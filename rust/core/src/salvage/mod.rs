//! Reading a recording that may be damaged: its whole pieces, and what lies between them.
//!
//! A killed process leaves the beginning of a record at the end of a file. A machine that loses power may leave
//! runs of zeros where nothing had reached the disk yet, a bad disk anything anywhere. [`Salvage`] walks through
//! all of it in bounded memory: it gives each piece that is whole, and looks for the next one behind what is
//! not. pcapng has the length of a block at both its ends; in pcap and ad-hoc files a record counts behind
//! damage if everything in its headers is plausible.
//!
//! ```
//! use rtpproxy_core::pcap::{self, Resolution};
//! use rtpproxy_core::salvage::{Event, Salvage};
//!
//! let mut file = Vec::new();
//! pcap::file_header(Resolution::Micro, &mut file);
//! file.extend(b"torn");
//! let mut salvage = Salvage::new(&file[..], None)?;
//! assert!(matches!(salvage.next()?, Some(Event::Piece { at: 0, .. })));
//! assert!(matches!(salvage.next()?, Some(Event::Tail(tail)) if tail.at == 24 && tail.len == 4));
//! assert!(salvage.next()?.is_none());
//! # Ok::<(), std::io::Error>(())
//! ```

mod adhoc;
mod pcap;
mod pcapng;

use std::io::{self, Read};

use crate::frame::Datagram;
use crate::recording::{Channel, Leg};
use crate::time::Wall;
use crate::window::Window;

/// The format of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// pcapng.
    Pcapng,
    /// Classic pcap.
    Pcap,
    /// The C program's own.
    Adhoc,
}

impl Format {
    /// The word for sidecars and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcapng => "pcapng",
            Self::Pcap => "pcap",
            Self::Adhoc => "adhoc",
        }
    }
}

/// What comes next in a recording.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// A whole piece.
    Piece {
        /// Where it begins, in bytes from the start.
        at: u64,
        /// All of it.
        bytes: &'a [u8],
        /// What it is.
        what: Piece<'a>,
    },
    /// Bytes that are no pieces, with a whole piece behind them.
    Hole(Hole),
    /// The same up to the end of the recording.
    Tail(Hole),
}

/// Bytes that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Where they begin, in bytes from the start.
    pub at: u64,
    /// How many they are.
    pub len: u64,
    /// What is wrong with the first of them.
    pub reason: &'static str,
    /// The last half of them, at least, is zeros: something that never reached the disk.
    pub is_zeros: bool,
}

/// A part of a recording that stands for itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece<'a> {
    /// The start of a file, or of a section in pcapng.
    Head {
        /// Its remarks; only pcapng has them.
        comments: Vec<&'a str>,
        /// Written in the byte order of this machine.
        is_native: bool,
    },
    /// The description of an interface in pcapng.
    Interface {
        /// Its number.
        number: u32,
    },
    /// A packet.
    Packet(Packet<'a>),
    /// The totals of an interface in pcapng.
    Totals {
        /// Its number.
        interface: u32,
    },
    /// Something that is left as it is.
    Other,
}

/// A packet of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet<'a> {
    /// When it was received.
    pub at: Wall,
    /// The number of its interface in pcapng, otherwise 0.
    pub interface: u32,
    /// What its interface says of it.
    pub origin: Origin,
    /// How many packets are missing before it, as the recorder counted.
    pub dropped: u64,
    /// Its remarks; only pcapng has them.
    pub comments: Vec<&'a str>,
    /// The datagram in it, if it is one as our recorder writes them.
    pub datagram: Option<Datagram<'a>>,
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

/// A walk through a recording.
#[derive(Debug)]
pub struct Salvage<R> {
    window: Window<R>,
    /// The length of the piece that was given last, which is done with at the next call.
    given: usize,
    layout: Layout,
}

impl<R: Read> Salvage<R> {
    /// A walk through `source`, whose format is told by its first bytes, or by `expected` if they are damaged.
    ///
    /// # Errors
    ///
    /// When `source` cannot be read.
    pub fn new(source: R, expected: Option<Format>) -> io::Result<Self> {
        let mut salvage = Self {
            window: Window::new(source, 0),
            given: 0,
            layout: Layout::Adhoc(adhoc::Layout::default()),
        };
        salvage.window.fill(MAGIC_LEN)?;
        let begin = salvage.window.rest();
        let format = if pcapng::is_magic(begin) {
            Format::Pcapng
        } else if pcap::is_magic(begin) {
            Format::Pcap
        } else {
            expected.unwrap_or(Format::Adhoc)
        };
        salvage.layout = match format {
            Format::Pcapng => Layout::Pcapng(pcapng::Layout::default()),
            Format::Pcap => Layout::Pcap(pcap::Layout::default()),
            Format::Adhoc => Layout::Adhoc(adhoc::Layout::default()),
        };
        Ok(salvage)
    }

    /// The format.
    pub fn format(&self) -> Format {
        match &self.layout {
            Layout::Pcapng(_) => Format::Pcapng,
            Layout::Pcap(_) => Format::Pcap,
            Layout::Adhoc(_) => Format::Adhoc,
        }
    }

    /// What comes next; none at the end. Every byte of the source is in exactly one event.
    ///
    /// # Errors
    ///
    /// When the source cannot be read.
    #[expect(clippy::should_implement_trait, reason = "what it gives lives in the window")]
    pub fn next(&mut self) -> io::Result<Option<Event<'_>>> {
        let given = std::mem::take(&mut self.given);
        self.window.discard(given);
        if !self.window.fill(1)? {
            return Ok(None);
        }
        let whole = match self.measure(0)? {
            Ok(len) if self.goes_over_into_damage(len)? => Err("a packet whose end is damaged"),
            other => other,
        };
        let len = match whole {
            Ok(len) => len,
            Err(reason) => return self.skip(reason).map(Some),
        };
        self.given = len;
        let bytes = &self.window.rest()[..len];
        let what = self.layout.parse(bytes);
        self.layout.accept(bytes, &what);
        Ok(Some(Event::Piece { at: self.window.at(), bytes, what }))
    }

    /// The length of the whole piece `offset` bytes from here, or what is wrong.
    fn measure(&mut self, offset: usize) -> io::Result<Result<usize, &'static str>> {
        loop {
            match self.layout.measure(&self.window.rest()[offset..]) {
                Measure::Whole(len) => return Ok(Ok(len)),
                Measure::Damaged(reason) => return Ok(Err(reason)),
                Measure::More(len) => {
                    if !self.window.fill(offset + len)? {
                        return Ok(Err(CUT));
                    }
                }
            }
        }
    }

    /// Whether damage that follows the piece of `len` bytes here has begun in it: its checksum is wrong, or, where
    /// there is none, another packet lies in it, so that its length is wrong.
    fn goes_over_into_damage(&mut self, len: usize) -> io::Result<bool> {
        let Piece::Packet(Packet { datagram: Some(datagram), .. }) =
            self.layout.parse(&self.window.rest()[..len])
        else {
            return Ok(false);
        };
        let has_checksum = datagram.dst.is_some();
        if (has_checksum && datagram.is_intact) || !self.window.fill(len + 1)? || self.measure(len)?.is_ok() {
            return Ok(false);
        }
        let piece = &self.window.rest()[..len];
        let is_packet = |at| matches!(self.layout.resembles(&piece[at..], false), Measure::Whole(_));
        Ok(has_checksum || (1..len).any(is_packet))
    }

    /// Looks for the next whole piece.
    fn skip(&mut self, reason: &'static str) -> io::Result<Event<'static>> {
        self.layout.note_hole();
        let mut hole = Hole { at: self.window.at(), len: 0, reason, is_zeros: false };
        let mut zeros = 0;
        let mut offset = 1;
        let is_tail = loop {
            if !self.window.fill(offset + 1)? {
                break true;
            }
            let is_all = self.window.is_all();
            match self.layout.resembles(&self.window.rest()[offset..], is_all) {
                Measure::Whole(_) => break false,
                Measure::More(len) if self.window.fill(offset + len)? || !is_all => continue,
                Measure::More(_) | Measure::Damaged(_) => offset += 1,
            }
            if offset >= STRIDE {
                (hole.len, zeros) = (hole.len + offset as u64, self.zeros_behind(zeros, offset));
                self.window.discard(offset);
                offset = 0;
            }
        };
        (hole.len, zeros) = (hole.len + offset as u64, self.zeros_behind(zeros, offset));
        self.window.discard(offset);
        hole.is_zeros = zeros >= ZEROS_MIN && 2 * zeros >= hole.len;
        Ok(if is_tail { Event::Tail(hole) } else { Event::Hole(hole) })
    }

    /// How many zeros there are, after `zeros` before, in the next `len` bytes.
    fn zeros_behind(&self, zeros: u64, len: usize) -> u64 {
        zeros + self.window.rest()[..len].iter().filter(|byte| **byte == 0).count() as u64
    }
}

/// The state that the pieces of a format depend on.
#[derive(Debug)]
enum Layout {
    Pcapng(pcapng::Layout),
    Pcap(pcap::Layout),
    Adhoc(adhoc::Layout),
}

impl Layout {
    /// How long the piece is at the start of `window`.
    fn measure(&self, window: &[u8]) -> Measure {
        match self {
            Self::Pcapng(layout) => layout.measure(window),
            Self::Pcap(layout) => layout.measure(window),
            Self::Adhoc(layout) => layout.measure(window),
        }
    }

    /// The same behind damage, where more has to be right before it counts. `is_all`: nothing follows `window`.
    fn resembles(&self, window: &[u8], is_all: bool) -> Measure {
        match self {
            Self::Pcapng(layout) => layout.resembles(window),
            Self::Pcap(layout) => layout.resembles(window, is_all),
            Self::Adhoc(layout) => layout.resembles(window, is_all),
        }
    }

    /// What a piece is that was measured.
    fn parse<'a>(&self, piece: &'a [u8]) -> Piece<'a> {
        match self {
            Self::Pcapng(layout) => layout.parse(piece),
            Self::Pcap(layout) => layout.parse(piece),
            Self::Adhoc(layout) => layout.parse(piece),
        }
    }

    /// Takes note of a piece for those that follow.
    fn accept(&mut self, piece: &[u8], what: &Piece<'_>) {
        match self {
            Self::Pcapng(layout) => layout.accept(piece, what),
            Self::Pcap(layout) => layout.accept(piece, what),
            Self::Adhoc(layout) => layout.accept(what),
        }
    }

    /// From here on pieces may be missing.
    fn note_hole(&mut self) {
        match self {
            Self::Pcapng(layout) => layout.note_hole(),
            Self::Pcap(layout) => layout.note_hole(),
            Self::Adhoc(layout) => layout.note_hole(),
        }
    }
}

/// What the bytes at a place are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// A piece of this length.
    Whole(usize),
    /// It takes so many bytes to tell.
    More(usize),
    /// No piece.
    Damaged(&'static str),
}

/// Whether two packets in a row may have these times.
fn is_near(at: Wall, other: Wall) -> bool {
    at.0.abs_diff(other.0) <= SILENCE_MAX_NANOS
}

/// The first `N` bytes of what follows `at`.
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Why a piece at the end is none.
const CUT: &str = "the file ends inside a record";
const MAGIC_LEN: usize = 12;
/// How many bytes of a hole are kept in memory.
const STRIDE: usize = 64 << 10;
/// Fewer zeros than that may be anything.
const ZEROS_MIN: u64 = 64;
/// A week: no call is silent for so long.
const SILENCE_MAX_NANOS: u64 = 7 * 24 * 3600 * 1_000_000_000;
