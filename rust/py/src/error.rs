//! Errors as the exceptions of `rtpproxy.errors`.

use std::io;
use std::path::Path;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use rtpproxy_analysis::unlock::UnlockError;
use rtpproxy_core::command::{Command, ErrorCode, Party};
use rtpproxy_relay::client::ClientError;
#[cfg(target_os = "linux")]
use rtpproxy_relay::tap::TapError;

mod python {
    pyo3::import_exception!(rtpproxy.errors, Closed);
    pyo3::import_exception!(rtpproxy.errors, CommandError);
    pyo3::import_exception!(rtpproxy.errors, ConnectionLost);
    pyo3::import_exception!(rtpproxy.errors, Error);
    pyo3::import_exception!(rtpproxy.errors, IdentityError);
    pyo3::import_exception!(rtpproxy.errors, Locked);
    pyo3::import_exception!(rtpproxy.errors, NotFound);
    pyo3::import_exception!(rtpproxy.errors, RecordingError);
    pyo3::import_exception!(rtpproxy.errors, StartError);
    pyo3::import_exception!(rtpproxy.errors, Timeout);
}

/// True if it says that the relay refused a command with this code.
pub(crate) fn has_code(py: Python<'_>, error: &PyErr, code: ErrorCode) -> bool {
    let given = error.value(py).getattr("code").and_then(|given| given.extract::<u16>());
    error.is_instance_of::<python::CommandError>(py) && given.is_ok_and(|given| given == code.0)
}

/// True if it is one of `rtpproxy.errors`.
pub(crate) fn is_ours(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<python::Error>(py)
}

/// The relay refused `command`.
pub(crate) fn refused(code: ErrorCode, command: &Command) -> PyErr {
    let text = String::from_utf8_lossy(&command.encode()).into_owned();
    let arguments = (code.0, text, reason(code, command));
    if code == ErrorCode::NOT_FOUND {
        python::NotFound::new_err(arguments)
    } else {
        python::CommandError::new_err(arguments)
    }
}

/// A session of this process cannot be tapped.
#[cfg(target_os = "linux")]
pub(crate) fn not_tapped(error: TapError, party: &Party) -> PyErr {
    match error {
        // No command says so, but the one that finds sessions the same way would.
        TapError::NotFound => refused(
            ErrorCode::NOT_FOUND,
            &Command::Query {
                party: party.clone(),
                modifiers: [].into(),
                names: Vec::new(),
                subs: Vec::new(),
            },
        ),
        TapError::Gone => closed("the relay is closed"),
        TapError::TooMany => python::Error::new_err(error.to_string()),
    }
}

fn reason(code: ErrorCode, command: &Command) -> &'static str {
    match (code, command) {
        (ErrorCode::NOT_FOUND, Command::Record { .. }) => "session not found, or no folder to record to",
        (ErrorCode::NOT_FOUND, Command::StopCopy { .. }) => "session not found, or no copies go there",
        (ErrorCode::NOT_FOUND, Command::StopRecord { .. }) => "session not found, or not being recorded",
        _ => code.text(),
    }
}

/// The client could not get an answer.
pub(crate) fn client(error: ClientError) -> PyErr {
    let text = error.to_string();
    match error {
        ClientError::Address { .. } | ClientError::TooLong => PyValueError::new_err(text),
        ClientError::ConnectionLost { .. } => python::ConnectionLost::new_err(text),
        ClientError::Timeout { .. } => python::Timeout::new_err(text),
        ClientError::BadReply { .. } => python::Error::new_err(text),
    }
}

/// No relay came about, or no place to listen.
pub(crate) fn not_started(reason: String) -> PyErr {
    python::StartError::new_err(reason)
}

/// A file with a secret key is of no use.
pub(crate) fn identity(path: &Path, reason: &str) -> PyErr {
    python::IdentityError::new_err((path.to_owned(), reason.to_owned()))
}

/// A file of a recording is encrypted and cannot be opened.
pub(crate) fn locked(path: &Path, error: &UnlockError) -> PyErr {
    match error {
        UnlockError::NoIdentity => {
            python::Locked::new_err((path.to_owned(), "it is encrypted: identities are needed"))
        }
        UnlockError::OtherIdentity => python::Locked::new_err((path.to_owned(), error.to_string())),
        _ => python::RecordingError::new_err((path.to_owned(), error.to_string())),
    }
}

/// A file of a recording cannot be read: the system refuses, or what is in it is damaged.
pub(crate) fn not_read(path: &Path, error: &io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(code) => PyOSError::new_err((code, without_code(error), path.to_owned())),
        None => python::RecordingError::new_err((path.to_owned(), error.to_string())),
    }
}

/// Python names the code itself.
fn without_code(error: &io::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" (os error").map_or(text.clone(), |(text, _)| text.to_owned())
}

/// The door is closed.
pub(crate) fn closed(reason: &'static str) -> PyErr {
    python::Closed::new_err(reason)
}

/// Something else is wrong.
pub(crate) fn other(reason: &'static str) -> PyErr {
    python::Error::new_err(reason)
}
