//! Files of recordings as Python reads them.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rtpproxy_analysis::content::PlainFile;
use rtpproxy_analysis::unlock::{Identities, IdentityError, UnlockError};

use crate::error;

/// A file of a recording, as it was before it was compressed and encrypted.
#[pyclass(frozen, module = "rtpproxy._rtpproxy")]
pub(crate) struct RecordingFile {
    path: PathBuf,
    file: Mutex<PlainFile>,
}

#[pymethods]
impl RecordingFile {
    #[new]
    fn new(py: Python<'_>, path: PathBuf, identities: Vec<PathBuf>) -> PyResult<Self> {
        let opened = py.detach(|| {
            let identities = Identities::read(&identities).map_err(Refusal::Identity)?;
            PlainFile::open(&path, &identities).map_err(Refusal::File)
        });
        match opened {
            Ok(file) => Ok(Self { path, file: Mutex::new(file) }),
            Err(Refusal::Identity(error)) => Err(error::identity(&error.path, &error.reason)),
            Err(Refusal::File(UnlockError::Io(error))) => Err(error::not_read(&path, &error)),
            Err(Refusal::File(error)) => Err(error::locked(&path, &error)),
        }
    }

    /// The next bytes, `max_bytes` at most; none at the end.
    fn read<'py>(&self, py: Python<'py>, max_bytes: usize) -> PyResult<Bound<'py, PyBytes>> {
        let read = py.detach(|| {
            let mut bytes = vec![0; max_bytes.min(READ_MAX)];
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                match file.read(&mut bytes) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => return read.map(|len| (bytes, len)),
                }
            }
        });
        let (bytes, len) = read.map_err(|error| error::not_read(&self.path, &error))?;
        Ok(PyBytes::new(py, &bytes[..len]))
    }
}

enum Refusal {
    Identity(IdentityError),
    File(UnlockError),
}

/// Bytes that are read at a time.
const READ_MAX: usize = 1 << 20;
