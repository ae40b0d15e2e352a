//! The file of a UNIX socket.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf, absolute};

/// The longest path of a UNIX socket, in bytes.
pub(crate) const PATH_MAX_LEN: usize = 107;

/// The file of a listener of ours, remembered so that only our own is removed.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Makes the file by `bind`, in place of an old file at `path`.
    ///
    /// # Errors
    ///
    /// The path is empty or too long, a folder or a device is there, or `bind` fails.
    pub(crate) fn create<L>(path: &Path, bind: impl FnOnce(&Path) -> io::Result<L>) -> io::Result<(L, Self)> {
        check_path(path)?;
        clear(path)?;
        let listener = bind(path)?;
        let meta = fs::symlink_metadata(path)?;
        // The working directory may change before the file is removed.
        let file = Self { path: absolute(path)?, device: meta.dev(), inode: meta.ino() };
        Ok((listener, file))
    }

    /// Removes the file unless another one has taken its place.
    pub(crate) fn remove(&self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!("the socket {} stays: {error}", self.path.display());
        }
    }
}

/// Refuses what cannot be the path of a socket.
pub(crate) fn check_path(path: &Path) -> io::Result<()> {
    match path.as_os_str().as_bytes().len() {
        0 => Err(invalid("the path is empty")),
        1..=PATH_MAX_LEN => Ok(()),
        _ => Err(invalid("the path is longer than 107 bytes")),
    }
}

/// Removes an old file at `path`, as the C program does; but a device is nobody's leftover.
fn clear(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path).map(|meta| meta.file_type()) {
        Ok(kind) if kind.is_dir() || kind.is_block_device() || kind.is_char_device() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a folder or a device"))
        }
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn old_files_are_replaced_and_only_our_own_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::create_dir(&path).unwrap();
        assert!(SocketFile::create(&path, |path| UnixListener::bind(path)).is_err());
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "text").unwrap();
        let (_first, old) = SocketFile::create(&path, |path| UnixListener::bind(path)).unwrap();
        // Keeps the first inode in use, so that the second socket has another.
        fs::hard_link(&path, dir.path().join("link")).unwrap();
        let (_second, new) = SocketFile::create(&path, |path| UnixListener::bind(path)).unwrap();
        old.remove();
        assert!(path.exists());
        new.remove();
        assert!(!path.exists());
    }

    #[test]
    fn the_length_of_a_path_is_bounded() {
        assert!(check_path(Path::new("")).is_err());
        assert!(check_path(Path::new(&"x".repeat(PATH_MAX_LEN))).is_ok());
        assert!(check_path(Path::new(&"x".repeat(PATH_MAX_LEN + 1))).is_err());
    }
}
