//! Libraries in C that the operator may have. They are loaded at run time, and nothing is linked to them.

pub(crate) mod g729;
pub(crate) mod gsm;
pub(crate) mod sndfile;

use std::error::Error;

use libloading::Library;

/// A library that something needs and that cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} needs the library {library} (Debian: apt-get install {package}): {reason}")]
pub struct MissingLibrary {
    /// What needs it.
    pub wanted: &'static str,
    /// The file that was looked for.
    pub library: &'static str,
    /// The package of Debian that has it.
    pub package: &'static str,
    /// What the dynamic loader says.
    pub reason: String,
}

/// Loads a library; `read` looks up what is needed of it. It stays loaded.
fn load<Functions>(
    wanted: &'static str,
    library: &'static str,
    package: &'static str,
    read: impl FnOnce(&Library) -> Result<Functions, libloading::Error>,
) -> Result<Functions, MissingLibrary> {
    // SAFETY: the libraries named here have no code that runs when they are loaded.
    let loaded = unsafe { Library::new(library) };
    let functions = loaded.and_then(|loaded| {
        let functions = read(&loaded);
        // Unloading would take the functions away.
        std::mem::forget(loaded);
        functions
    });
    functions.map_err(|error| {
        // What the loader says stands behind the error that wraps it.
        let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        MissingLibrary { wanted, library, package, reason }
    })
}
