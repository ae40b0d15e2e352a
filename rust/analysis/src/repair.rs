//! Readable files from damaged ones: what is whole is kept, in its order, and the rest is left out.
//!
//! The original is never written to. A repaired recording is complete before it gets its name.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rtpproxy_core::compression::{Broken, Compressor};
use rtpproxy_core::file_name::{Compression, FileName};
use rtpproxy_core::pcap::{self, Resolution};
use rtpproxy_core::pcapng::{self, INTERFACE_NAMES, SYNTHETIC_NAME};
use rtpproxy_core::recording::{Channel, Leg};
use rtpproxy_core::salvage::{Event, Format, Hole, Origin, Packet, Piece, Salvage};
use rtpproxy_core::time::Wall;
use serde_json::{Value, json};

use crate::content::{self, UpToDamage};
use crate::unlock::{Identities, Kind as Encryption};
use crate::verify::{Inspection, Sidecar, Unit, expected_format, is_being_written, sidecar_of, without_part};

/// Where a repaired recording goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Beside the original, as `NAME.repaired` and its suffix.
    Beside,
    /// Into a folder, under its own name. The folder is made if it is missing.
    Folder(PathBuf),
    /// In place of the original.
    InPlace,
}

/// What a repair has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The files that were written; none if there was nothing to repair.
    pub files: Vec<PathBuf>,
    /// Packets in them.
    pub packets: u64,
    /// Packets that the recording had, as its sidecar says, and that are lost.
    pub lost_packets: Option<u64>,
    /// Bytes that are not in them.
    pub lost_bytes: u64,
    /// What had to be assumed.
    pub notes: Vec<String>,
}

/// Why a recording is not repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A process writes it.
    #[error("{}: it is being written", .0.display())]
    InUse(PathBuf),
    /// There is something of that name.
    #[error("{}: it exists; --force replaces it", .0.display())]
    Exists(PathBuf),
    /// It is encrypted.
    #[error("{}: {}", .0.display(), .1)]
    Locked(PathBuf, String),
    /// It is encrypted, and what is in it would take its place.
    #[error("{}: it is encrypted, and would be replaced by what is in it; choose another place", .0.display())]
    WouldUncover(PathBuf),
    /// There are no packets in it.
    #[error("{}: nothing in it can be read", .0.display())]
    Nothing(PathBuf),
}

/// Repairs a recording, if anything can be done for it. What is encrypted needs `identities`; what is in a sealed file, or
/// in a damaged one of age, is written as it was before it was encrypted.
/// `replaces`: also files that are there.
///
/// # Errors
///
/// When a file cannot be read or written, is in use, exists, or holds nothing.
pub fn repair(
    unit: &Unit,
    target: &Target,
    replaces: bool,
    identities: &Identities,
    progress: &dyn Fn(u64),
) -> Result<Repaired, RepairError> {
    let mut needs_repair = false;
    for path in &unit.files {
        if without_part(path).is_some() && is_being_written(path).map_err(in_file(path))? {
            return Err(RepairError::InUse(path.clone()));
        }
        let found = Inspection::of(path, identities, progress).map_err(in_file(path))?;
        if let Some(reason) = found.locked {
            return Err(RepairError::Locked(path.clone(), reason));
        }
        if found.encryption != Encryption::Plain && *target == Target::InPlace {
            return Err(RepairError::WouldUncover(path.clone()));
        }
        needs_repair |=
            found.is_damaged() || without_part(path).is_some() || found.encryption == Encryption::Sealed;
    }
    if !needs_repair {
        return Ok(Repaired::default());
    }
    if let Target::Folder(folder) = target {
        fs::create_dir_all(folder).map_err(in_file(folder))?;
    }
    let mut work =
        Work { unit, target, replaces, identities, done: Repaired::default(), bytes: 0, holes: Vec::new() };
    let mut listed = Vec::new();
    for (index, path) in unit.files.iter().enumerate() {
        listed.push(work.file(index, path, progress)?);
    }
    work.sidecar(listed)?;
    Ok(work.done)
}

struct Work<'a> {
    unit: &'a Unit,
    target: &'a Target,
    replaces: bool,
    identities: &'a Identities,
    done: Repaired,
    bytes: u64,
    holes: Vec<Value>,
}

impl Work<'_> {
    /// Repairs a file and gives back its entry in the sidecar.
    fn file(&mut self, index: usize, path: &Path, progress: &dyn Fn(u64)) -> Result<Value, RepairError> {
        let output = self.output_of(path);
        let draft = Draft::create(&output, self.replaces || *self.target == Target::InPlace)?;
        let Copied { packets, bytes, holes, notes, pieces, broken } = draft.fill(path, self.identities)?;
        if pieces == 0 && (!holes.is_empty() || broken.is_some()) {
            return Err(RepairError::Nothing(path.to_owned()));
        }
        draft.finish(&output)?;
        let found = Inspection::of(&output, self.identities, progress).map_err(in_file(&output))?;
        self.done.packets += packets;
        self.bytes += bytes;
        self.done.lost_bytes += holes.iter().map(|hole| hole.len).sum::<u64>();
        let notes = notes.into_iter().map(str::to_owned).chain(broken.map(|broken| broken.to_string()));
        self.done.notes.extend(notes.map(|note| format!("{}: {note}", path.display())));
        let holes = holes.iter().take(HOLES_MAX);
        self.holes.extend(holes.map(|hole| json!({ "file": index, "at": hole.at, "bytes": hole.len })));
        self.done.files.push(output.clone());
        let name = output.file_name().unwrap_or_default();
        let mut entry = json!({
            "name": name.to_string_lossy(), "size": found.size, "sha256": found.sha256,
        });
        if let Some(compression) = found.compression {
            entry["compression"] = compression.name().into();
            entry["content_size"] = found.content_size.into();
        }
        if name.to_str().is_none() {
            entry["name_hex"] = name.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        }
        Ok(entry)
    }

    fn output_of(&self, path: &Path) -> PathBuf {
        let finished = without_part(path).unwrap_or_else(|| path.to_owned());
        let finished = unencrypted(&finished);
        match self.target {
            Target::InPlace => path.to_owned(),
            Target::Folder(folder) => folder.join(finished.file_name().unwrap_or_default()),
            Target::Beside => {
                let name = finished.file_name().unwrap_or_default();
                let name = match FileName::parse(name.as_bytes()) {
                    // Before the letter of the leg, like the names of recovered files.
                    Some(name) => {
                        let stem = [name.stem, b".repaired"].concat();
                        OsString::from_vec(FileName { stem: &stem, ..name }.to_bytes())
                    }
                    None => [name, OsStr::new(".repaired")].iter().copied().collect(),
                };
                finished.with_file_name(name)
            }
        }
    }

    fn sidecar(&mut self, listed: Vec<Value>) -> Result<(), RepairError> {
        let Some(first) = self.done.files.first() else { return Ok(()) };
        let output = sidecar_of(first);
        let mut sidecar = match &self.unit.sidecar {
            Sidecar::Read(_, before) => before.clone(),
            Sidecar::Missing | Sidecar::Broken(..) => json!({
                "version": 1, "call_id": null, "from_tag": null, "to_tag": null, "dropped": 0, "gaps": [],
                "legs": null,
            }),
        };
        if matches!(self.unit.sidecar, Sidecar::Read(..)) {
            let number = |key: &str| sidecar[key].as_u64().unwrap_or_default();
            // What an earlier repair lost is lost still.
            let had = number("packets").saturating_sub(number("unsaved"));
            let before = sidecar["repaired"]["lost_packets"].as_u64().unwrap_or_default();
            // Of a sealed file that was recovered nobody had counted them.
            if !sidecar["packets"].is_null() {
                self.done.lost_packets = Some(before + had.saturating_sub(self.done.packets));
            }
        }
        let names: Vec<_> = self.unit.files.iter().map(|path| path.file_name().unwrap_or_default()).collect();
        let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
        sidecar["files"] = listed.into();
        sidecar["packets"] = (self.done.packets + sidecar["unsaved"].as_u64().unwrap_or_default()).into();
        sidecar["bytes"] = self.bytes.into();
        sidecar["repaired"] = json!({
            "from": names, "lost_packets": self.done.lost_packets, "lost_bytes": self.done.lost_bytes,
            "holes": self.holes,
        });
        let mut text = serde_json::to_vec_pretty(&sidecar).map_err(|error| in_file(&output)(error.into()))?;
        text.push(b'\n');
        let draft = Draft::create(&output, self.replaces || *self.target == Target::InPlace)?;
        (&draft.file).write_all(&text).map_err(in_file(&draft.path))?;
        draft.finish(&output)
    }
}

/// The name of what is in an encrypted file; any other one as it is.
fn unencrypted(path: &Path) -> PathBuf {
    match FileName::parse(path.file_name().unwrap_or_default().as_bytes()) {
        Some(name) => {
            let name = FileName { encryption: None, ..name }.to_bytes();
            path.with_file_name(OsString::from_vec(name))
        }
        None => path.to_owned(),
    }
}

/// A file that is not complete yet; without [`Self::finish`] it goes again.
struct Draft {
    path: PathBuf,
    file: File,
    is_done: bool,
}

impl Draft {
    fn create(output: &Path, replaces: bool) -> Result<Self, RepairError> {
        if !replaces && output.exists() {
            return Err(RepairError::Exists(output.to_owned()));
        }
        let mut name = output.file_name().unwrap_or_default().to_owned();
        name.push(".repair");
        let path = output.with_file_name(name);
        let mut options = File::options();
        options.write(true).create_new(true);
        // Recordings are for their owner alone.
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(in_file(&path))?;
        Ok(Self { path, file, is_done: false })
    }

    /// Writes what is whole of the file at `path`.
    fn fill(&self, path: &Path, identities: &Identities) -> Result<Copied, RepairError> {
        let mut content = content::open(path, identities).map_err(in_file(path))?;
        content.source_mut().leave_out_damage();
        let compression = content.compression();
        let output = Output::new(&self.file, compression).map_err(in_file(&self.path))?;
        let source = UpToDamage(&mut content);
        let salvage = Salvage::new(source, expected_format(path)).map_err(in_file(path))?;
        let mut copy = Copy::new(output);
        copy.run(salvage).map_err(in_file(&self.path))?;
        copy.output.finish().map_err(in_file(&self.path))?;
        copy.done.broken = content.broken().cloned();
        Ok(copy.done)
    }

    fn finish(mut self, output: &Path) -> Result<(), RepairError> {
        self.file.sync_data().map_err(in_file(&self.path))?;
        fs::rename(&self.path, output).map_err(in_file(output))?;
        self.is_done = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_done {
            // The error that ended the repair tells more.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What became of one file.
#[derive(Debug, Default)]
struct Copied {
    pieces: u64,
    packets: u64,
    bytes: u64,
    holes: Vec<Hole>,
    notes: Vec<&'static str>,
    /// The file is compressed, and its data is damaged.
    broken: Option<Broken>,
}

/// The file for what is whole, compressed as the damaged one was.
enum Output<'a> {
    Plain(BufWriter<&'a File>),
    Compressed(Compressor<&'a File>),
}

impl<'a> Output<'a> {
    fn new(file: &'a File, compression: Option<Compression>) -> io::Result<Self> {
        Ok(match compression {
            None => Self::Plain(BufWriter::new(file)),
            Some(compression) => Self::Compressed(Compressor::new(file, compression, None)?),
        })
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(mut file) => file.flush(),
            Self::Compressed(compressor) => compressor.finish().map(drop),
        }
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Compressed(compressor) => compressor.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Compressed(compressor) => compressor.flush(),
        }
    }
}

/// One file, on its way to another.
struct Copy<W> {
    output: W,
    format: Format,
    done: Copied,
    /// Bytes that are missing before the next piece.
    gap: u64,
    has_head: bool,
    is_native: bool,
    interfaces: u32,
    has_totals: bool,
    /// Packets of each stream: in the file, and dropped before.
    counts: [(u64, u64); 4],
    span: Option<(Wall, Wall)>,
}

impl<W: Write> Copy<W> {
    fn new(output: W) -> Self {
        Self {
            output,
            format: Format::Adhoc,
            done: Copied::default(),
            gap: 0,
            has_head: false,
            is_native: true,
            interfaces: 0,
            has_totals: false,
            counts: [(0, 0); 4],
            span: None,
        }
    }

    fn run(&mut self, mut salvage: Salvage<impl Read>) -> io::Result<()> {
        self.format = salvage.format();
        while let Some(event) = salvage.next()? {
            match event {
                Event::Piece { bytes, what, .. } => self.piece(bytes, &what)?,
                Event::Hole(hole) | Event::Tail(hole) => {
                    self.gap += hole.len;
                    self.done.holes.push(hole);
                }
            }
        }
        self.end()
    }

    fn piece(&mut self, bytes: &[u8], what: &Piece<'_>) -> io::Result<()> {
        self.done.pieces += 1;
        match what {
            Piece::Head { is_native, .. } => {
                (self.has_head, self.is_native, self.interfaces) = (true, *is_native, 0);
            }
            Piece::Interface { number } => {
                self.lost_head(bytes)?;
                self.lost_interfaces(*number)?;
                self.interfaces = self.interfaces.max(number + 1);
            }
            Piece::Packet(packet) => {
                self.lost_head(bytes)?;
                if self.format == Format::Pcapng {
                    self.lost_interfaces(packet.interface + 1)?;
                }
                self.count(packet);
                let gap = std::mem::take(&mut self.gap);
                if gap > 0 && self.format == Format::Pcapng && self.is_native {
                    let text =
                        format!("gap: {gap} bytes of the damaged file could not be read before this packet");
                    return self.output.write_all(&with_comment(bytes, &text));
                }
            }
            Piece::Totals { interface } => {
                self.lost_head(bytes)?;
                self.lost_interfaces(interface + 1)?;
                self.has_totals = true;
            }
            Piece::Other => self.lost_head(bytes)?,
        }
        self.output.write_all(bytes)
    }

    /// Writes the head that a file should have had before the first piece behind it.
    fn lost_head(&mut self, first: &[u8]) -> io::Result<()> {
        if std::mem::replace(&mut self.has_head, true) {
            return Ok(());
        }
        let mut head = Vec::new();
        match self.format {
            Format::Adhoc => {}
            Format::Pcap => {
                let fraction = first.get(4..).and_then(|bytes| bytes.first_chunk()).copied();
                let is_nano = fraction.is_some_and(|fraction| u32::from_ne_bytes(fraction) >= 1_000_000);
                pcap::file_header(if is_nano { Resolution::Nano } else { Resolution::Micro }, &mut head);
                self.done
                    .notes
                    .push("its head is lost: Ethernet and the times of this project's recorder are assumed");
            }
            Format::Pcapng => {
                pcapng::section(&["repaired: the head of the file was lost"], &mut head);
                self.done
                    .notes
                    .push("its head is lost: the interfaces of this project's recorder are assumed");
            }
        }
        self.output.write_all(&head)
    }

    /// Writes the descriptions of interfaces up to `number` that are lost.
    fn lost_interfaces(&mut self, number: u32) -> io::Result<()> {
        let mut descriptions = Vec::new();
        for lost in self.interfaces..number {
            let name = INTERFACE_NAMES.get(lost as usize).copied().unwrap_or(SYNTHETIC_NAME);
            pcapng::interface(name, &mut descriptions);
        }
        self.interfaces = self.interfaces.max(number);
        self.output.write_all(&descriptions)
    }

    fn count(&mut self, packet: &Packet<'_>) {
        if packet.origin == Origin::Synthetic {
            return;
        }
        self.done.packets += 1;
        self.done.bytes += packet.datagram.map_or(0, |datagram| datagram.payload.len() as u64);
        let (first, last) = self.span.unwrap_or((packet.at, packet.at));
        self.span = Some((first.min(packet.at), last.max(packet.at)));
        if let Origin::Leg(leg, channel) = packet.origin {
            let (packets, dropped) = &mut self.counts[pcapng::interface_of(leg, channel) as usize];
            *packets += 1;
            *dropped += packet.dropped;
        }
    }

    /// Writes the totals that a recording of ours lacks.
    fn end(&mut self) -> io::Result<()> {
        let Some((start, end)) = self.span else { return Ok(()) };
        let is_ours = self.counts.iter().any(|(packets, _)| *packets > 0);
        if self.format != Format::Pcapng || !self.is_native || self.has_totals || !is_ours {
            return Ok(());
        }
        let mut totals = Vec::new();
        let mut comments: &[&str] = &["the end of the recording is lost; it was repaired"];
        for channel in [Channel::Rtp, Channel::Rtcp] {
            for leg in [Leg::Caller, Leg::Callee] {
                let interface = pcapng::interface_of(leg, channel);
                let (packets, dropped) = self.counts[interface as usize];
                if interface < self.interfaces {
                    pcapng::statistics(
                        interface,
                        start,
                        end,
                        packets + dropped,
                        dropped,
                        comments,
                        &mut totals,
                    );
                    comments = &[];
                }
            }
        }
        self.output.write_all(&totals)
    }
}

/// A packet block of this machine's byte order with a further comment.
fn with_comment(block: &[u8], text: &str) -> Vec<u8> {
    let word = |at: usize| {
        block.get(at..).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_ne_bytes(*bytes))
    };
    let options_at = word(CAPTURED_AT).map(|len| PACKET_AT + (len as usize).next_multiple_of(4));
    let split = options_at.and_then(|at| block.split_at_checked(at));
    let Some((head, [options @ .., _, _, _, _])) = split.filter(|_| word(0) == Some(ENHANCED_PACKET)) else {
        return block.to_vec();
    };
    let mut out = head.to_vec();
    out.extend(OPTION_COMMENT.to_ne_bytes());
    out.extend((text.len() as u16).to_ne_bytes());
    out.extend(text.as_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
    if options.is_empty() {
        out.extend([0; 4]);
    }
    out.extend(options);
    let len = (out.len() as u32 + 4).to_ne_bytes();
    out.extend(len);
    out[4..8].copy_from_slice(&len);
    out
}

fn in_file(path: &Path) -> impl Fn(io::Error) -> RepairError + '_ {
    |error| RepairError::Io { path: path.to_owned(), error }
}

/// How many holes of a file the sidecar tells one by one.
const HOLES_MAX: usize = 100;
const ENHANCED_PACKET: u32 = 6;
/// Where a packet block has the length of its packet, and where that begins.
const CAPTURED_AT: usize = 20;
const PACKET_AT: usize = 28;
const OPTION_COMMENT: u16 = 1;
