//! bcg729, which knows G.729 with annexes A and B.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::{MissingLibrary, load};

/// Bytes of a frame of speech.
pub(crate) const FRAME_BYTES: usize = 10;
/// Bytes of a frame that describes silence (annex B).
pub(crate) const SILENCE_BYTES: usize = 2;
/// Samples of a frame.
pub(crate) const FRAME_SAMPLES: usize = 80;

/// What to decode for the time of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Frame<'a> {
    /// Speech.
    Speech(&'a [u8; FRAME_BYTES]),
    /// A description of silence.
    Silence(&'a [u8; SILENCE_BYTES]),
    /// Nothing that can be decoded: what came before goes on and fades.
    Lost,
}

/// Decodes one stream.
#[derive(Debug)]
pub(crate) struct G729Decoder {
    functions: &'static Functions,
    state: NonNull<c_void>,
}

// SAFETY: the library keeps nothing but the state, which only its owner reaches.
unsafe impl Send for G729Decoder {}

impl G729Decoder {
    /// Loads the library, if that has not been done, and begins a stream.
    pub(crate) fn new() -> Result<Self, MissingLibrary> {
        let functions = functions()?;
        // SAFETY: takes nothing and gives a new state, or null.
        let state = unsafe { (functions.open_decoder)() };
        Ok(Self { functions, state: NonNull::new(state).expect("there is memory for a stream") })
    }

    pub(crate) fn decode(&mut self, frame: Frame<'_>) -> [i16; FRAME_SAMPLES] {
        let nothing = [0; FRAME_BYTES];
        let (bytes, is_lost, is_silence): (&[u8], _, _) = match frame {
            Frame::Speech(bytes) => (bytes, 0, 0),
            Frame::Silence(bytes) => (bytes, 0, 1),
            Frame::Lost => (&nothing, 1, 0),
        };
        let mut samples = [0; FRAME_SAMPLES];
        // SAFETY: the state is alive and ours alone; the library reads as many bytes as a frame of this kind has,
        // and writes the samples of one frame.
        unsafe {
            (self.functions.decode)(
                self.state.as_ptr(),
                bytes.as_ptr(),
                bytes.len() as u8,
                is_lost,
                is_silence,
                0,
                samples.as_mut_ptr(),
            );
        }
        samples
    }
}

impl Drop for G729Decoder {
    fn drop(&mut self) {
        // SAFETY: the state came from `open_decoder` and is not used again.
        unsafe { (self.functions.close_decoder)(self.state.as_ptr()) };
    }
}

/// Encodes one stream.
#[derive(Debug)]
pub(crate) struct G729Encoder {
    functions: &'static Functions,
    state: NonNull<c_void>,
}

// SAFETY: the library keeps nothing but the state, which only its owner reaches.
unsafe impl Send for G729Encoder {}

impl G729Encoder {
    /// Loads the library, if that has not been done, and begins a stream; `detects_voice` leaves silence out.
    pub(crate) fn new(detects_voice: bool) -> Result<Self, MissingLibrary> {
        let functions = functions()?;
        // SAFETY: gives a new state, or null.
        let state = unsafe { (functions.open_encoder)(detects_voice.into()) };
        Ok(Self { functions, state: NonNull::new(state).expect("there is memory for a stream") })
    }

    /// Appends a frame to `payload`: 10 bytes; in silence 2 or none, if voice is detected.
    pub(crate) fn encode(&mut self, samples: &[i16; FRAME_SAMPLES], payload: &mut Vec<u8>) {
        let (mut frame, mut length) = ([0; FRAME_BYTES], 0);
        // SAFETY: the state is alive and ours alone; the library reads the samples of one frame, and writes at most
        // the bytes of one and how many these are.
        unsafe {
            (self.functions.encode)(
                self.state.as_ptr(),
                samples.as_ptr(),
                frame.as_mut_ptr(),
                &raw mut length,
            );
        }
        payload.extend_from_slice(&frame[..FRAME_BYTES.min(length.into())]);
    }
}

impl Drop for G729Encoder {
    fn drop(&mut self) {
        // SAFETY: the state came from `open_encoder` and is not used again.
        unsafe { (self.functions.close_encoder)(self.state.as_ptr()) };
    }
}

/// What is used of `bcg729/decoder.h` and `bcg729/encoder.h`, version 1.0.4 and later.
#[derive(Debug)]
struct Functions {
    open_decoder: unsafe extern "C" fn() -> *mut c_void,
    close_decoder: unsafe extern "C" fn(*mut c_void),
    decode: unsafe extern "C" fn(*mut c_void, *const u8, u8, u8, u8, u8, *mut i16),
    open_encoder: unsafe extern "C" fn(u8) -> *mut c_void,
    close_encoder: unsafe extern "C" fn(*mut c_void),
    encode: unsafe extern "C" fn(*mut c_void, *const i16, *mut u8, *mut u8),
}

fn functions() -> Result<&'static Functions, MissingLibrary> {
    static FUNCTIONS: OnceLock<Result<Functions, MissingLibrary>> = OnceLock::new();
    FUNCTIONS.get_or_init(Functions::load).as_ref().map_err(MissingLibrary::clone)
}

impl Functions {
    fn load() -> Result<Self, MissingLibrary> {
        load("G.729", "libbcg729.so.0", "libbcg729-0", |library| {
            // SAFETY: the types are those that the headers declare. Versions whose functions take fewer arguments
            // lack the first symbol.
            unsafe {
                library.get::<unsafe extern "C" fn()>("bcg729GetRFC3389Payload")?;
                Ok(Self {
                    open_decoder: *library.get("initBcg729DecoderChannel")?,
                    close_decoder: *library.get("closeBcg729DecoderChannel")?,
                    decode: *library.get("bcg729Decoder")?,
                    open_encoder: *library.get("initBcg729EncoderChannel")?,
                    close_encoder: *library.get("closeBcg729EncoderChannel")?,
                    encode: *library.get("bcg729Encoder")?,
                })
            }
        })
    }
}
