//! libsndfile, which writes audio files of many formats.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::{MissingLibrary, load};

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct SoundFile {
    functions: &'static Functions,
    file: NonNull<c_void>,
    channels: usize,
}

// SAFETY: the library keeps what belongs to a file in that file, which only its owner reaches.
unsafe impl Send for SoundFile {}

impl SoundFile {
    /// Creates a file, or empties it. `format` is a sum of the library's numbers for container and encoding.
    pub(crate) fn create(path: &Path, format: c_int, channels: usize, rate: u32) -> Result<Self, OpenError> {
        static FUNCTIONS: OnceLock<Result<Functions, MissingLibrary>> = OnceLock::new();
        let functions = FUNCTIONS.get_or_init(Functions::load).as_ref().map_err(MissingLibrary::clone)?;
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| OpenError::Refused("a name with a NUL byte".to_owned()))?;
        let mut info = Info {
            frames: 0,
            sample_rate: rate as c_int,
            channels: channels as c_int,
            format,
            sections: 0,
            seekable: 0,
        };
        // The library would empty an existing file before it finds that out.
        // SAFETY: the library only reads the struct, which has its layout.
        if unsafe { (functions.check)(&raw const info) } == 0 {
            return Err(OpenError::Refused("there is no such file format".to_owned()));
        }
        // SAFETY: the name is a C string, and the library only fills the struct, which has its layout.
        let file = unsafe { (functions.open)(name.as_ptr(), MODE_WRITE, &raw mut info) };
        match NonNull::new(file) {
            Some(file) => Ok(Self { functions, file, channels }),
            // SAFETY: without a file this tells why the last opening failed.
            None => Err(OpenError::Refused(unsafe { functions.message(std::ptr::null_mut()) })),
        }
    }

    /// Makes formats of floating point hold samples from -1 to 1 instead of those of 16 bits.
    pub(crate) fn normalize(&mut self) {
        // SAFETY: the file is open; this command takes a flag and no data.
        unsafe {
            (self.functions.command)(self.file.as_ptr(), SCALE_INT_TO_FLOAT, std::ptr::null_mut(), 1);
        }
    }

    /// Appends whole frames: a sample of each channel in turn.
    pub(crate) fn write(&mut self, samples: &[i16]) -> Result<(), String> {
        let frames = (samples.len() / self.channels) as i64;
        // SAFETY: the file is open, and the buffer holds that many frames.
        let written = unsafe { (self.functions.write)(self.file.as_ptr(), samples.as_ptr(), frames) };
        // SAFETY: the file is open.
        if written == frames { Ok(()) } else { Err(unsafe { self.functions.message(self.file.as_ptr()) }) }
    }

    /// Writes what is left and the final header.
    pub(crate) fn close(self) -> Result<(), String> {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: the file is open, and not dropped a second time.
        match unsafe { (this.functions.close)(this.file.as_ptr()) } {
            0 => Ok(()),
            number => Err(format!("it could not be closed (error {number})")),
        }
    }
}

impl Drop for SoundFile {
    fn drop(&mut self) {
        // SAFETY: the file is open and not used again.
        unsafe { (self.functions.close)(self.file.as_ptr()) };
    }
}

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Missing(#[from] MissingLibrary),
    /// In the words of the library.
    #[error("{0}")]
    Refused(String),
}

/// `SF_INFO` of `sndfile.h`.
#[repr(C)]
struct Info {
    frames: i64,
    sample_rate: c_int,
    channels: c_int,
    format: c_int,
    sections: c_int,
    seekable: c_int,
}

/// What is used of `sndfile.h`.
#[derive(Debug)]
struct Functions {
    check: unsafe extern "C" fn(*const Info) -> c_int,
    open: unsafe extern "C" fn(*const c_char, c_int, *mut Info) -> *mut c_void,
    command: unsafe extern "C" fn(*mut c_void, c_int, *mut c_void, c_int) -> c_int,
    write: unsafe extern "C" fn(*mut c_void, *const i16, i64) -> i64,
    error: unsafe extern "C" fn(*mut c_void) -> *const c_char,
    close: unsafe extern "C" fn(*mut c_void) -> c_int,
}

impl Functions {
    fn load() -> Result<Self, MissingLibrary> {
        load("this audio format", "libsndfile.so.1", "libsndfile1", |library| {
            // SAFETY: the types are those that `sndfile.h` declares.
            unsafe {
                Ok(Self {
                    check: *library.get("sf_format_check")?,
                    open: *library.get("sf_open")?,
                    command: *library.get("sf_command")?,
                    write: *library.get("sf_writef_short")?,
                    error: *library.get("sf_strerror")?,
                    close: *library.get("sf_close")?,
                })
            }
        })
    }

    /// What the library says of the last error of `file`, or of the last opening if it is null.
    ///
    /// # Safety
    ///
    /// `file` must be open or null.
    unsafe fn message(&self, file: *mut c_void) -> String {
        // SAFETY: as the caller promises.
        let text = unsafe { (self.error)(file) };
        if text.is_null() {
            return "no reason is given".to_owned();
        }
        // SAFETY: the library gives a C string that stays as it is until its next call.
        let text = unsafe { CStr::from_ptr(text) };
        text.to_string_lossy().trim_end_matches('.').to_owned()
    }
}

const MODE_WRITE: c_int = 0x20;
/// `SFC_SET_SCALE_INT_FLOAT_WRITE`.
const SCALE_INT_TO_FLOAT: c_int = 0x1015;
