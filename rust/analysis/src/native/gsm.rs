//! libgsm, which knows GSM 06.10.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::{MissingLibrary, load};

/// Bytes of a frame.
pub(crate) const FRAME_BYTES: usize = 33;
/// Samples of a frame.
pub(crate) const FRAME_SAMPLES: usize = 160;

/// The state of one stream: of decoding or of encoding it.
#[derive(Debug)]
pub(crate) struct Gsm {
    functions: &'static Functions,
    state: NonNull<c_void>,
}

// SAFETY: the library keeps nothing but the state, which only its owner reaches.
unsafe impl Send for Gsm {}

impl Gsm {
    /// Loads the library, if that has not been done, and begins a stream.
    pub(crate) fn new() -> Result<Self, MissingLibrary> {
        static FUNCTIONS: OnceLock<Result<Functions, MissingLibrary>> = OnceLock::new();
        let functions = FUNCTIONS.get_or_init(Functions::load).as_ref().map_err(MissingLibrary::clone)?;
        // SAFETY: takes nothing and gives a new state, or null.
        let state = unsafe { (functions.create)() };
        Ok(Self { functions, state: NonNull::new(state).expect("there is memory for a stream") })
    }

    /// Decodes a frame; `None` if it does not begin as a frame must.
    pub(crate) fn decode(&mut self, frame: &[u8; FRAME_BYTES]) -> Option<[i16; FRAME_SAMPLES]> {
        let mut samples = [0; FRAME_SAMPLES];
        // SAFETY: the state is alive and ours alone; both buffers are as long as a frame.
        let status =
            unsafe { (self.functions.decode)(self.state.as_ptr(), frame.as_ptr(), samples.as_mut_ptr()) };
        (status == 0).then_some(samples)
    }

    /// Encodes a frame.
    pub(crate) fn encode(&mut self, samples: &[i16; FRAME_SAMPLES]) -> [u8; FRAME_BYTES] {
        let mut frame = [0; FRAME_BYTES];
        // SAFETY: as for `decode`; the samples are only read.
        unsafe { (self.functions.encode)(self.state.as_ptr(), samples.as_ptr(), frame.as_mut_ptr()) };
        frame
    }
}

impl Drop for Gsm {
    fn drop(&mut self) {
        // SAFETY: the state came from `create` and is not used again.
        unsafe { (self.functions.destroy)(self.state.as_ptr()) };
    }
}

/// What is used of `gsm.h`.
#[derive(Debug)]
struct Functions {
    create: unsafe extern "C" fn() -> *mut c_void,
    destroy: unsafe extern "C" fn(*mut c_void),
    decode: unsafe extern "C" fn(*mut c_void, *const u8, *mut i16) -> c_int,
    encode: unsafe extern "C" fn(*mut c_void, *const i16, *mut u8),
}

impl Functions {
    fn load() -> Result<Self, MissingLibrary> {
        load("GSM 06.10", "libgsm.so.1", "libgsm1", |library| {
            // SAFETY: the types are those that `gsm.h` declares; both buffers count as read-only where it reads.
            unsafe {
                Ok(Self {
                    create: *library.get("gsm_create")?,
                    destroy: *library.get("gsm_destroy")?,
                    decode: *library.get("gsm_decode")?,
                    encode: *library.get("gsm_encode")?,
                })
            }
        })
    }
}
