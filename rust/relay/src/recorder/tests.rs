//! Recordings from the tap to the files, read back with readers of their own.

mod below;
mod bench;
mod call;
mod compress;
mod encrypt;
mod faults;
mod folder;
mod gather;
mod journal;
mod preroll;
mod read;
mod recover;
mod resume;
mod rotate;
mod stream;
