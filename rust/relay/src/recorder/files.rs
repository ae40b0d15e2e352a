//! The folders of recordings: nothing outside them is ever touched, and no file in them overwritten.
//!
//! A recording is written as `NAME.part`, in the spool folder if there is one, and gets its name when it is
//! complete. The C program's way (`compat`) has no `.part` and replaces what is there.
//!
//! Each file is locked (`flock`) while it is open, so that no other process takes it for a leftover.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rtpproxy_core::file_name::PART;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::claim::{create_first_free, replace_all};
use super::disk::{Disk, RecordFile};
use super::names::Names;
use super::seal::Seal;
use super::sidecar::format_of;
use crate::config::RecordConfig;

/// Where recordings are written and where they end up.
#[derive(Debug)]
pub(super) struct Folders {
    main: Place,
    fallback: Option<Place>,
}

/// One of two places for recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// The folder of recordings, and the spool folder.
    Main,
    /// The folder for when these fail.
    Fallback,
}

impl Site {
    /// The one that is left when this one fails.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Main => Self::Fallback,
            Self::Fallback => Self::Main,
        }
    }
}

impl Folders {
    /// The folders of `config`; `None` without a recording folder.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub(super) fn new(config: &RecordConfig) -> io::Result<Option<Self>> {
        let Some(folder) = &config.folder else { return Ok(None) };
        let place = |target: &Path, spool: Option<&PathBuf>| -> io::Result<Place> {
            let (target, spool) = (Reopened::new(target), spool.map(|path| Reopened::new(path)));
            let pair = Pair { target, spool, compat: config.compat };
            // Where there is no other place to go to, the recorder may as well wait for this one.
            let disk = config.fallback.is_some().then(Disk::start).transpose()?;
            Ok(Place { pair: Arc::new(Mutex::new(pair)), disk })
        };
        let main = place(folder, config.spool.as_ref())?;
        let fallback = config.fallback.as_deref().map(|path| place(path, None)).transpose()?;
        Ok(Some(Self { main, fallback }))
    }

    /// Whether there is such a place.
    pub(super) fn has(&self, site: Site) -> bool {
        site == Site::Main || self.fallback.is_some()
    }

    /// Creates the files of a recording under the first free name.
    pub(super) fn create(&self, site: Site, names: &Names) -> io::Result<Created> {
        let place = match (site, &self.fallback) {
            (Site::Main, _) => &self.main,
            (Site::Fallback, Some(fallback)) => fallback,
            (Site::Fallback, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        let mut created = match &place.disk {
            None => place.lock().create(site, names),
            Some(disk) => {
                let (place, names) = (place.clone(), names.clone());
                disk.run(move || place.lock().create(site, &names), Created::remove)
            }
        }?;
        for (file, _) in &mut created.files {
            file.disk.clone_from(&place.disk);
        }
        Ok(created)
    }
}

#[derive(Clone, Debug)]
struct Place {
    /// Locked while files are created, which only the recorder asks for.
    pair: Arc<Mutex<Pair>>,
    disk: Option<Disk>,
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, Pair> {
        self.pair.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Pair {
    target: Reopened,
    spool: Option<Reopened>,
    compat: bool,
}

impl Pair {
    fn create(&mut self, site: Site, names: &Names) -> io::Result<Created> {
        let mut tries = 1;
        loop {
            match self.try_create(site, names) {
                // An empty folder was removed between two steps; retention and the finisher do that.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < FOLDER_TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    fn try_create(&mut self, site: Site, names: &Names) -> io::Result<Created> {
        let target = self.target.open(names.folders())?;
        let spool = match &mut self.spool {
            Some(spool) => spool.open(names.folders())?,
            None => Arc::clone(&target),
        };
        let create = if self.compat { replace_all } else { create_first_free };
        let (files, attempt) = create(names, &target, &spool)?;
        let files = files
            .into_iter()
            .map(|(file, part)| (RecordFile { file: Arc::new(file), disk: None, seal: None }, part));
        Ok(Created { files: files.collect(), attempt, site, spool, target })
    }
}

/// The files of a recording, just created.
#[derive(Debug)]
pub(super) struct Created {
    /// In the order of [`Names`], with the names they have while they are written.
    pub(super) files: Vec<(RecordFile, OsString)>,
    /// Under which of its names, from 1.
    pub(super) attempt: u32,
    /// Which folders these are.
    pub(super) site: Site,
    /// The folder they are in.
    pub(super) spool: Arc<Folder>,
    /// The folder they are to end up in.
    pub(super) target: Arc<Folder>,
}

impl Created {
    /// Encrypts what will be written to them, if recordings are encrypted. Everybody can read `comments`. Without a key
    /// the files go again.
    pub(super) fn sealed(mut self, config: &RecordConfig, comments: &[String]) -> io::Result<Self> {
        let Some(recipients) = &config.encrypt else { return Ok(self) };
        for index in 0..self.files.len() {
            match Seal::new(recipients, format_of(config.format), comments.to_vec()) {
                Ok(seal) => self.files[index].0.seal = Some(seal),
                Err(error) => {
                    self.remove();
                    return Err(error);
                }
            }
        }
        Ok(self)
    }

    /// Nobody waits for them any more.
    fn remove(self) {
        for (_, part) in &self.files {
            // What stays is an empty file.
            let _ = self.spool.remove(part);
        }
        if !Arc::ptr_eq(&self.spool, &self.target) {
            self.spool.remove_if_empty();
        }
    }
}

/// How large a disk is, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    /// What is free for us.
    pub(super) free: u64,
    /// All of it.
    pub(super) total: u64,
}

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    /// Of one that was asked for in another one: that, and its path there.
    above: Option<(Arc<Self>, Vec<OsString>)>,
    /// The names of the folders on this path are on the disk.
    is_durable: AtomicBool,
}

impl Folder {
    /// Opens the folder at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        Ok(Self::new(fd, path.to_owned()))
    }

    /// Opens a folder below `root`, and makes what is missing on the way, for the owner alone. Links are not
    /// followed.
    pub(super) fn make(root: &Arc<Self>, names: &[OsString]) -> io::Result<Self> {
        let mut folder = root.below(OsStr::new("."))?;
        for (depth, name) in names.iter().enumerate() {
            let in_path = |error: io::Error| {
                let path = root.path.join(names[..=depth].iter().collect::<PathBuf>());
                io::Error::new(error.kind(), format!("folder {}: {error}", path.display()))
            };
            folder = match folder.below(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match rustix::fs::mkdirat(&folder.fd, name, Mode::RWXU) {
                        Ok(()) | Err(Errno::EXIST) => folder.below(name).map_err(in_path)?,
                        Err(error) => return Err(in_path(error.into())),
                    }
                }
                other => other.map_err(in_path)?,
            };
        }
        Ok(folder.belongs_to(root, names))
    }

    /// Opens a folder below `root` that is there.
    pub(super) fn inside(root: &Arc<Self>, names: &[OsString]) -> io::Result<Self> {
        let folder = root.descend(names.iter().map(OsString::as_os_str))?;
        Ok(folder.belongs_to(root, names))
    }

    fn belongs_to(self, root: &Arc<Self>, names: &[OsString]) -> Self {
        let path = root.path.join(names.iter().collect::<PathBuf>());
        let above = Some((Arc::clone(root), names.to_vec()));
        Self { path, above, is_durable: AtomicBool::new(false), ..self }
    }

    /// This one, or if somebody has removed it, another one in its place.
    pub(super) fn renewed(self: &Arc<Self>) -> io::Result<Arc<Self>> {
        let Some((root, names)) = &self.above else { return Ok(Arc::clone(self)) };
        let there = Self::make(root, names)?;
        Ok(if there.identity()? == self.identity()? { Arc::clone(self) } else { Arc::new(there) })
    }

    /// What tells it from others.
    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        let status = rustix::fs::fstat(&self.fd)?;
        Ok((status.st_dev, status.st_ino))
    }

    fn new(fd: OwnedFd, path: PathBuf) -> Self {
        Self { fd, path, above: None, is_durable: AtomicBool::new(true) }
    }

    /// Its path, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a folder in this one. Links are not followed.
    pub(super) fn below(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        Ok(Self::new(fd, self.path.join(name)))
    }

    /// Opens a folder at any depth below, one name after the other, so that no link leads outside.
    pub(super) fn descend<'a>(&self, path: impl IntoIterator<Item = &'a OsStr>) -> io::Result<Self> {
        path.into_iter().try_fold(self.below(OsStr::new("."))?, |folder, name| folder.below(name))
    }

    /// Removes the folder at `path` in this one if nothing is in it and it is none of `kept`, and then likewise those
    /// above.
    ///
    /// # Errors
    /// Why the first that stays is not removed.
    pub(super) fn remove_empty(&self, path: &[OsString], kept: &[Self]) -> io::Result<()> {
        for depth in (1..=path.len()).rev() {
            let name = &path[depth - 1];
            let above = self.descend(path[..depth - 1].iter().map(OsString::as_os_str))?;
            let identity = above.below(name)?.identity()?;
            if kept.iter().any(|kept| kept.identity().is_ok_and(|kept| kept == identity)) {
                return Ok(());
            }
            rustix::fs::unlinkat(&above.fd, name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }

    /// Removes it if it was asked for in another one and nothing is in it, and then likewise those between.
    pub(super) fn remove_if_empty(&self) {
        if let Some((root, names)) = &self.above {
            // One that stays is in use, and an empty one does no harm.
            let _ = root.remove_empty(names, &[]);
        }
    }

    /// What is in it, in no order.
    pub(super) fn entries(&self) -> io::Result<Dir> {
        Ok(Dir::read_from(&self.fd)?)
    }

    /// What `name` is, a link being a link; `None` if there is nothing.
    pub(super) fn status(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => Ok(Some(status)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The path of a file in it, for messages.
    pub(super) fn path_of(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }

    /// Whether files can be created in it; how large its disk is.
    pub(super) fn probe(&self) -> io::Result<Space> {
        use rustix::fs::{Access, accessat, fstatvfs};
        accessat(&self.fd, c".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?;
        let disk = fstatvfs(&self.fd)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Space { free: bytes(disk.f_bavail), total: bytes(disk.f_blocks) })
    }

    /// Creates a file that must not exist yet, and locks it: it is written by a living process.
    pub(super) fn create(&self, name: &OsStr, mode: Mode) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND;
        let file = self.open_beneath(name, flags, mode)?;
        match file.try_lock() {
            // Another process has just taken it for a leftover.
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::AlreadyExists.into()),
            // Without locks nothing is recovered, but recording goes on.
            Err(TryLockError::Error(_)) | Ok(()) => Ok(file),
        }
    }

    /// Opens and locks a file that an earlier process has left; none if it is in use, or gone.
    pub(super) fn take_over(&self, name: &OsStr) -> io::Result<Option<File>> {
        let file = match self.open_beneath(name, OFlags::RDWR | OFlags::APPEND, Mode::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Somebody may have finished it before we had the lock.
        let ours = rustix::fs::fstat(&file)?;
        let is_there = match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino),
            Err(Errno::NOENT) => false,
            Err(error) => return Err(error.into()),
        };
        Ok(is_there.then_some(file))
    }

    /// What is in it that is being written, or was when its process ended, and the folders; sorted.
    pub(super) fn contents(&self) -> io::Result<Contents> {
        let mut contents = Contents::default();
        for entry in self.entries()? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if self.is_folder(name, entry.file_type()) {
                contents.folders.push(name.to_owned());
            } else if name.as_bytes().ends_with(PART.as_bytes()) {
                contents.parts.push(name.to_owned());
            }
        }
        contents.parts.sort();
        contents.folders.sort();
        Ok(contents)
    }

    /// Whether `name` is a folder and no link to one, with what a look at all entries has said of its kind.
    pub(super) fn is_folder(&self, name: &OsStr, kind: FileType) -> bool {
        match kind {
            FileType::Directory => true,
            FileType::Unknown => self.status(name).is_ok_and(|status| {
                status.is_some_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Directory)
            }),
            _ => false,
        }
    }

    /// Opens a regular file to read.
    pub(super) fn read(&self, name: &OsStr) -> io::Result<File> {
        self.open_beneath(name, OFlags::RDONLY, Mode::empty())
    }

    /// Whether there is anything of that name.
    pub(super) fn has(&self, name: &OsStr) -> io::Result<bool> {
        Ok(self.status(name)?.is_some())
    }

    /// Removes a file; none there is fine.
    pub(super) fn remove(&self, name: &OsStr) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes names durable: those in it, and its own.
    pub(super) fn sync(&self) -> io::Result<()> {
        rustix::fs::fsync(&self.fd)?;
        if let Some((root, names)) = self.above.as_ref().filter(|_| !self.is_durable.load(Ordering::Relaxed))
        {
            for depth in 0..names.len() {
                match root.descend(names[..depth].iter().map(OsString::as_os_str)) {
                    Ok(above) => rustix::fs::fsync(&above.fd)?,
                    // It was moved to another place with what is in it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(error) => return Err(error),
                }
            }
            self.is_durable.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Gives `name` of this folder its name in `to`, on the same file system; `replace` what is there or fail
    /// with [`io::ErrorKind::AlreadyExists`].
    pub(super) fn rename(&self, name: &OsStr, to: &Self, new_name: &OsStr, replace: bool) -> io::Result<()> {
        if !replace {
            match rustix::fs::renameat_with(&self.fd, name, &to.fd, new_name, RenameFlags::NOREPLACE) {
                // Some file systems do not know the flag.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if !to.has(new_name)? => {}
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => return Err(Errno::EXIST.into()),
                other => return Ok(other?),
            }
        }
        Ok(rustix::fs::renameat(&self.fd, name, &to.fd, new_name)?)
    }

    fn open_beneath(&self, name: &OsStr, flags: OFlags, mode: Mode) -> io::Result<File> {
        // A pipe somebody left there must not make us wait for its reader.
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let fd = match rustix::fs::openat2(&self.fd, name, flags, mode, resolve) {
            // Kernels before 5.6, and sandboxes that do not know the call. A name of ours is one component,
            // so NOFOLLOW alone keeps it inside.
            Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(&self.fd, name, flags, mode)?,
            other => other?,
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(fd.into())
    }
}

/// What of a folder matters to those who look for leftovers.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Files that are being written, or were when their process ended.
    pub(super) parts: Vec<OsString>,
    /// Folders in it.
    pub(super) folders: Vec<OsString>,
}

/// The name of a file while it is written.
pub(super) fn part_name(name: &OsStr) -> OsString {
    let mut part = name.to_owned();
    part.push(PART);
    part
}

/// The mode that new files get.
pub(super) fn file_mode(compat: bool) -> Mode {
    if compat { Mode::from_raw_mode(0o666) } else { Mode::RUSR | Mode::WUSR }
}

/// A folder that is opened anew for each recording, as somebody may have put another one, or another disk,
/// in its place; recordings share the descriptor as long as it is the same one.
#[derive(Debug)]
struct Reopened {
    path: PathBuf,
    last: Option<Arc<Folder>>,
    /// The last one below it.
    last_below: Option<Arc<Folder>>,
}

impl Reopened {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), last: None, last_below: None }
    }

    /// The folder, or with `names` one below it.
    fn open(&mut self, names: &[OsString]) -> io::Result<Arc<Folder>> {
        let root = shared(&mut self.last, Folder::open(&self.path)?)?;
        if names.is_empty() {
            return Ok(root);
        }
        shared(&mut self.last_below, Folder::make(&root, names)?)
    }
}

/// What `last` has if it is the same folder as `folder`, which takes its place otherwise.
fn shared(last: &mut Option<Arc<Folder>>, folder: Folder) -> io::Result<Arc<Folder>> {
    if let Some(last) = last
        && last.path == folder.path
        && last.identity()? == folder.identity()?
    {
        return Ok(Arc::clone(last));
    }
    let folder = Arc::new(folder);
    *last = Some(Arc::clone(&folder));
    Ok(folder)
}

/// How often a folder is made again that somebody removes at the same time.
const FOLDER_TRIES: u32 = 8;
