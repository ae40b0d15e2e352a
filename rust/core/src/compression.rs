//! Compressing the files of recordings, and reading them back.
//!
//! ```
//! use std::io::{Read, Write};
//! use rtpproxy_core::compression::{Compressor, Content};
//! use rtpproxy_core::file_name::Compression;
//!
//! let mut compressor = Compressor::new(Vec::new(), Compression::Zstd, Some(5))?;
//! compressor.write_all(b"hello")?;
//! let file = compressor.finish()?;
//!
//! let mut content = Content::new(&file[..])?;
//! let mut text = String::new();
//! content.read_to_string(&mut text)?;
//! assert_eq!((text.as_str(), content.compression()), ("hello", Some(Compression::Zstd)));
//! # Ok::<(), std::io::Error>(())
//! ```

use std::io::{self, BufReader, Cursor, Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::file_name::Compression;

/// Compresses what is written to it. Only [`Compressor::finish`] makes it complete.
pub struct Compressor<W: Write>(Encoder<W>);

enum Encoder<W: Write> {
    Zstd(zstd::Encoder<'static, W>),
    Gzip(GzEncoder<W>),
}

impl<W: Write> Compressor<W> {
    /// A compressor of content of exactly `len` bytes, if that is known. Zstandard makes one frame, with that length and
    /// a checksum.
    ///
    /// # Errors
    ///
    /// Without memory.
    pub fn new(sink: W, compression: Compression, len: Option<u64>) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(sink, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                encoder.set_pledged_src_size(len)?;
                Encoder::Zstd(encoder)
            }
            Compression::Gzip => Encoder::Gzip(GzEncoder::new(sink, flate2::Compression::default())),
        }))
    }

    /// Writes what is left and gives back the sink.
    ///
    /// # Errors
    ///
    /// Those of the sink, and with Zstandard if the content had another length.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Encoder::Zstd(encoder) => encoder.finish(),
            Encoder::Gzip(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Encoder::Zstd(encoder) => encoder.write(bytes),
            Encoder::Gzip(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Encoder::Zstd(encoder) => encoder.flush(),
            Encoder::Gzip(encoder) => encoder.flush(),
        }
    }
}

/// The content of a file, compressed or not: the first bytes tell. It takes 10 MiB at most, whatever the file says.
///
/// Compressed data that is damaged gives what comes before, and then an error with a [`Broken`] in it.
pub struct Content<R: Read> {
    decoder: Decoder<R>,
    len: u64,
    broken: Option<Broken>,
}

enum Decoder<R: Read> {
    Plain(Source<R>),
    Zstd(zstd::Decoder<'static, BufReader<Source<R>>>),
    Gzip(MultiGzDecoder<BufReader<Source<R>>>),
}

impl<R: Read> Content<R> {
    /// The content of what `source` gives.
    ///
    /// # Errors
    ///
    /// Those of `source`.
    pub fn new(mut source: R) -> io::Result<Self> {
        let mut start = Vec::with_capacity(MAGIC_LEN);
        source.by_ref().take(MAGIC_LEN as u64).read_to_end(&mut start)?;
        let compression = magic(&start);
        let source = Source { start: Cursor::new(start), inner: source, len: 0, has_failed: false };
        let decoder = match compression {
            None => Decoder::Plain(source),
            Some(Compression::Gzip) => Decoder::Gzip(MultiGzDecoder::new(BufReader::new(source))),
            Some(Compression::Zstd) => {
                let mut decoder = zstd::Decoder::with_buffer(BufReader::new(source))?;
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                Decoder::Zstd(decoder)
            }
        };
        Ok(Self { decoder, len: 0, broken: None })
    }

    /// How the file is compressed.
    pub fn compression(&self) -> Option<Compression> {
        match self.decoder {
            Decoder::Plain(_) => None,
            Decoder::Zstd(_) => Some(Compression::Zstd),
            Decoder::Gzip(_) => Some(Compression::Gzip),
        }
    }

    /// The damage that reading has come to.
    pub fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// The rest of the file as it is, behind what was taken from it so far.
    pub fn source_mut(&mut self) -> &mut R {
        match &mut self.decoder {
            Decoder::Plain(source) => &mut source.inner,
            Decoder::Zstd(decoder) => &mut decoder.get_mut().get_mut().inner,
            Decoder::Gzip(decoder) => &mut decoder.get_mut().get_mut().inner,
        }
    }

    fn source(&self) -> &Source<R> {
        match &self.decoder {
            Decoder::Plain(source) => source,
            Decoder::Zstd(decoder) => decoder.get_ref().get_ref(),
            Decoder::Gzip(decoder) => decoder.get_ref().get_ref(),
        }
    }

    /// What is wrong, unless the source has refused.
    fn broken_by(&self, error: &io::Error) -> Option<Broken> {
        let compression = self.compression()?;
        let source = self.source();
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
            _ => error.to_string(),
        };
        // A decoder does not say how much it has used of what it refuses.
        let (at, content_len) = (source.len, self.len);
        (!source.has_failed).then_some(Broken { compression, at, content_len, reason })
    }
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone().into());
        }
        let read = match &mut self.decoder {
            Decoder::Plain(source) => source.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
        };
        match read {
            Ok(read) => {
                self.len += read as u64;
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => match self.broken_by(&error) {
                Some(broken) => Err(self.broken.insert(broken).clone().into()),
                None => Err(error),
            },
        }
    }
}

/// Compressed data that cannot be read further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {} data is damaged at byte {at} or before, {content_len} bytes of content could be read: {reason}",
    compression.name()
)]
pub struct Broken {
    /// What it should be.
    pub compression: Compression,
    /// How many bytes of the file had been taken; the damage is here or before.
    pub at: u64,
    /// How much content came before.
    pub content_len: u64,
    /// What is wrong.
    pub reason: String,
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        Self::new(io::ErrorKind::InvalidData, broken)
    }
}

/// How a file is compressed that begins like this.
pub fn magic(start: &[u8]) -> Option<Compression> {
    match start {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Compression::Zstd),
        // Something of others before the first frame.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Compression::Zstd),
        [0x1f, 0x8b, 8, ..] => Some(Compression::Gzip),
        _ => None,
    }
}

/// A file that was begun to be read.
struct Source<R> {
    start: Cursor<Vec<u8>>,
    inner: R,
    /// How much was taken.
    len: u64,
    has_failed: bool,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = self.start.read(buffer)?;
        if read == 0 {
            read = self.inner.read(buffer).inspect_err(|error| {
                self.has_failed |= error.kind() != io::ErrorKind::Interrupted;
            })?;
        }
        self.len += read as u64;
        Ok(read)
    }
}

/// Both are what the programs use if nothing is said: RTP gains little from more.
const ZSTD_LEVEL: i32 = 3;
/// What a decoder should support, of 8 MiB (RFC 8878, 3.1.1.1.2); a file that asks for more is refused.
const WINDOW_LOG_MAX: u32 = 23;
const MAGIC_LEN: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: [Compression; 2] = [Compression::Zstd, Compression::Gzip];

    fn compressed(content: &[u8], compression: Compression) -> Vec<u8> {
        let mut compressor = Compressor::new(Vec::new(), compression, Some(content.len() as u64)).unwrap();
        compressor.write_all(content).unwrap();
        compressor.finish().unwrap()
    }

    /// What can be read, and the damage behind it.
    fn read(file: &[u8]) -> (Vec<u8>, Option<Broken>) {
        let mut content = Content::new(file).unwrap();
        let mut bytes = Vec::new();
        let outcome = content.read_to_end(&mut bytes);
        assert_eq!(outcome.is_err(), content.broken().is_some());
        (bytes, content.broken().cloned())
    }

    fn noise(len: usize) -> Vec<u8> {
        (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 21) as u8).collect()
    }

    #[test]
    fn zstandard_is_one_frame_that_tells_its_length() {
        let content = noise(1 << 20);
        let file = compressed(&content, Compression::Zstd);
        assert_eq!(zstd::zstd_safe::find_frame_compressed_size(&file).unwrap(), file.len());
        assert_eq!(zstd::zstd_safe::get_frame_content_size(&file).unwrap(), Some(content.len() as u64));
        // RFC 8878, 3.1.1.1.1: the bit for the checksum.
        assert_eq!(file[4] & 4, 4);
    }

    #[test]
    fn content_of_another_length_than_was_said_is_refused() {
        let mut compressor = Compressor::new(Vec::new(), Compression::Zstd, Some(4)).unwrap();
        let written = compressor.write_all(b"hello");
        assert!(written.and_then(|()| compressor.finish()).is_err());
        let mut compressor = Compressor::new(Vec::new(), Compression::Zstd, Some(6)).unwrap();
        compressor.write_all(b"hello").unwrap();
        assert!(compressor.finish().is_err());
    }

    #[test]
    fn files_of_several_parts_are_read_to_the_end() {
        for compression in BOTH {
            let file = [compressed(b"one ", compression), compressed(b"two", compression)].concat();
            assert_eq!(read(&file), (b"one two".to_vec(), None));
        }
    }

    #[test]
    fn damage_is_told_with_its_place() {
        let content = noise(1 << 20);
        for compression in BOTH {
            let file = compressed(&content, compression);
            let (before, broken) = read(&file[..file.len() / 2]);
            let broken = broken.unwrap();
            assert_eq!((broken.at, broken.content_len), (file.len() as u64 / 2, before.len() as u64));
            assert_eq!(broken.reason, "it ends too early");
            assert!(content.starts_with(&before) && before.len() > content.len() / 4, "{}", before.len());

            let mut torn = file.clone();
            let at = file.len() - 2;
            torn[at] ^= 1;
            let (all, broken) = read(&torn);
            assert!(content.starts_with(&all) && content.len() - all.len() <= 128 << 10, "one block at most");
            assert!(broken.is_some_and(|broken| broken.at > file.len() as u64 - 16), "{compression:?}");

            let (all, broken) = read(&[&file[..], b"something"].concat());
            assert!(all == content && broken.is_some());
        }
    }

    #[test]
    fn an_error_of_the_source_is_no_damage() {
        struct Bad;
        impl Read for Bad {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::PermissionDenied.into())
            }
        }
        for compression in BOTH {
            let file = compressed(&noise(1000), compression);
            let mut content = Content::new((&file[..20]).chain(Bad)).unwrap();
            let error = content.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert_eq!(content.broken(), None);
        }
    }

    #[test]
    fn a_file_that_asks_for_much_memory_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(WINDOW_LOG_MAX + 1).unwrap();
        encoder.write_all(b"x").unwrap();
        let file = encoder.finish().unwrap();
        let broken = read(&file).1.unwrap();
        assert!(broken.reason.contains("memory"), "{broken}");
    }

    proptest! {
        #[test]
        fn content_comes_back(
            content in proptest::collection::vec(any::<u8>(), 0..5000),
            repeats in 1usize..100,
            compression in prop_oneof![Just(Compression::Zstd), Just(Compression::Gzip)],
        ) {
            let content = content.repeat(repeats);
            let file = compressed(&content, compression);
            prop_assert_eq!(Content::new(&file[..]).unwrap().compression(), Some(compression));
            prop_assert_eq!(read(&file), (content, None));
        }

        #[test]
        fn what_is_not_compressed_stays_as_it_is(content in proptest::collection::vec(any::<u8>(), 0..100)) {
            if magic(&content).is_none() {
                prop_assert_eq!(read(&content), (content, None));
            }
        }

        #[test]
        fn hostile_bytes_end_with_damage_or_well(
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            compression in prop_oneof![Just(Compression::Zstd), Just(Compression::Gzip)],
        ) {
            let mut file = compressed(&noise(20_000), compression);
            for (at, byte) in flips {
                let at = 4 + at.index(file.len() - 4);
                file[at] = byte;
            }
            let mut content = Content::new(&file[..]).unwrap().take(1 << 20);
            let _ = io::copy(&mut content, &mut io::sink());
        }
    }
}
