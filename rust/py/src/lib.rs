//! The module `rtpproxy._rtpproxy`: thin and typed, no logic of its own.
//!
//! A `Door` leads to a relay, in this process or behind a socket. Its methods turn Python's
//! arguments into one command of the core (`arguments`), wait for the reply without holding the GIL
//! (`wait`) and hand plain values back; errors become exceptions in one place (`error`). The classes that
//! people use are Python, in `python/rtpproxy`.

use pyo3::prelude::*;

mod arguments;
mod door;
mod error;
mod events;
#[cfg(target_os = "linux")]
mod in_process;
mod recording_file;
mod socket;
mod tap;
mod wait;

#[pymodule]
mod _rtpproxy {
    use std::ffi::OsString;

    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::door::Door;
    #[pymodule_export]
    use crate::recording_file::RecordingFile;
    #[pymodule_export]
    use crate::tap::Tap;

    /// Runs the `rtpproxy` command with these arguments, the program's name first, and returns its exit status.
    #[pyfunction]
    fn run_cli(py: Python<'_>, argv: Vec<OsString>) -> i32 {
        py.detach(|| rtpproxy_cli::run(argv))
    }
}
