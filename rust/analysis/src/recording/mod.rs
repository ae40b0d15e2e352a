//! Recordings of calls as a whole: which files belong together, and who is who in them.

pub(crate) mod chain;
mod find;
mod load;
mod sidecar;

pub use find::{FindError, Recording, find};
pub use load::{Loaded, RecordingError};
