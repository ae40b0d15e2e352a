//! Prompt files. They are read before the command that plays them goes to its worker, so that a slow disk
//! holds up neither media nor the control sockets.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rtpproxy_core::command::Command;
use rtpproxy_core::player::{PAYLOAD_TYPES, SESSION_CODECS, playable};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// The files that a `P` may need.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    prompt: Box<[u8]>,
    payload_types: Vec<u8>,
    /// All there are, since only the engine knows the codec list; else the first one.
    all: bool,
}

impl Wanted {
    /// What `command` needs; `None` if it plays nothing.
    pub(crate) fn of(command: &Command) -> Option<Self> {
        let Command::Play { count, prompt, codecs, .. } = command else { return None };
        let all = **codecs == *SESSION_CODECS;
        let mut payload_types = if all { PAYLOAD_TYPES.to_vec() } else { Vec::new() };
        for payload_type in playable(codecs) {
            if !payload_types.contains(&payload_type) {
                payload_types.push(payload_type);
            }
        }
        (*count != 0 && !payload_types.is_empty()).then(|| Self {
            prompt: prompt.clone(),
            payload_types,
            all,
        })
    }

    /// `PROMPT.PT`
    fn path(&self, payload_type: u8) -> PathBuf {
        let mut path = OsString::from_vec(self.prompt.to_vec());
        path.push(format!(".{payload_type}"));
        path.into()
    }
}

/// What was found of the files that a `P` may need.
#[derive(Debug, Default)]
pub(crate) struct Prepared(Vec<(u8, Arc<[u8]>)>);

impl Prepared {
    /// The prompt in the coding of a payload type.
    pub(crate) fn get(&self, payload_type: u8) -> Option<Arc<[u8]>> {
        self.0.iter().find(|(found, _)| *found == payload_type).map(|(_, bytes)| Arc::clone(bytes))
    }
}

/// The way to prompt files. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Prompts {
    runtime: Handle,
    /// So many files may be read at a time.
    readers: Arc<Semaphore>,
    /// The last read took too long: the next ones get less time, since a caller may hold up others.
    is_stalled: Arc<AtomicBool>,
    cache: Arc<Cache>,
}

impl Prompts {
    /// Reads files, then calls `done`, which must only hand them over. A disk that does not answer in time counts
    /// as one without the files. When the relay has ended, `done` is dropped.
    pub(crate) fn prepare(&self, wanted: Wanted, done: impl FnOnce(Prepared) + Send + 'static) {
        let (readers, cache) = (Arc::clone(&self.readers), Arc::clone(&self.cache));
        let is_stalled = Arc::clone(&self.is_stalled);
        self.runtime.spawn(async move {
            let name = wanted.prompt.clone();
            let stalled = Arc::clone(&is_stalled);
            let read = async {
                let turn = readers.acquire_owned().await.ok()?;
                let read = spawn_blocking(move || {
                    let start = Instant::now();
                    let prepared = cache.prepare(&wanted);
                    // A read that came too late for its command tells about the disk all the same.
                    stalled.store(start.elapsed() >= PATIENCE, Ordering::Relaxed);
                    drop(turn);
                    prepared
                });
                read.await.ok()
            };
            let patience = if is_stalled.load(Ordering::Relaxed) { STALLED_PATIENCE } else { PATIENCE };
            let read = timeout(patience, read).await;
            let prepared = read.unwrap_or_else(|_| {
                is_stalled.store(true, Ordering::Relaxed);
                tracing::error!("the disk with the prompt {} does not answer", name.escape_ascii());
                None
            });
            done(prepared.unwrap_or_default());
        });
    }
}

/// The thread that sees to the reading. Dropping it stops it; a read that the disk holds up is left behind.
#[derive(Debug)]
pub(crate) struct PromptThread {
    prompts: Prompts,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl PromptThread {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system refuses the thread or a descriptor.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().thread_name("prompt-reader").build()?;
        let prompts = Prompts {
            runtime: runtime.handle().clone(),
            readers: Arc::new(Semaphore::new(READERS)),
            is_stalled: Arc::default(),
            cache: Arc::default(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("prompts".to_owned()).spawn(move || {
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { prompts, stop: Some(stop), thread: Some(thread) })
    }

    /// The way to prompt files.
    pub(crate) fn prompts(&self) -> Prompts {
        self.prompts.clone()
    }
}

impl Drop for PromptThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The files read lately, as long as they do not change: the longest unused ones make room for others.
#[derive(Debug, Default)]
struct Cache {
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    entries: HashMap<PathBuf, Entry>,
    bytes: u64,
    /// Counts look-ups, to tell which entry was used last.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    version: Version,
    bytes: Arc<[u8]>,
    used: u64,
}

impl Cache {
    /// Reads files; those that are missing or cannot be read are left out.
    fn prepare(&self, wanted: &Wanted) -> Prepared {
        let found = wanted.payload_types.iter().filter_map(|&payload_type| {
            let path = wanted.path(payload_type);
            match self.read(&path) {
                Ok(bytes) => Some((payload_type, bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => {
                    tracing::error!("can't read the prompt {}: {error}", path.display());
                    None
                }
            }
        });
        Prepared(if wanted.all { found.collect() } else { found.take(1).collect() })
    }

    fn read(&self, path: &Path) -> io::Result<Arc<[u8]>> {
        // Without the flag, opening a pipe waits for somebody to write.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        let version = Version::of(&metadata);
        if let Some(bytes) = self.shelf().get(path, &version) {
            return Ok(bytes);
        }
        let bytes = read_all(file, &metadata)?;
        self.shelf().put(path, version, &bytes);
        Ok(bytes)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn get(&mut self, path: &Path, version: &Version) -> Option<Arc<[u8]>> {
        self.clock += 1;
        let entry = self.entries.get_mut(path).filter(|entry| entry.version == *version)?;
        entry.used = self.clock;
        Some(Arc::clone(&entry.bytes))
    }

    fn put(&mut self, path: &Path, version: Version, bytes: &Arc<[u8]>) {
        self.remove(path);
        while self.entries.len() >= CACHE_FILES_MAX || self.bytes + bytes.len() as u64 > CACHE_BYTES_MAX {
            let Some((oldest, _)) = self.entries.iter().min_by_key(|(_, entry)| entry.used) else { break };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
        self.bytes += bytes.len() as u64;
        let entry = Entry { version, bytes: Arc::clone(bytes), used: self.clock };
        self.entries.insert(path.to_owned(), entry);
    }

    fn remove(&mut self, path: &Path) {
        if let Some(entry) = self.entries.remove(path) {
            self.bytes -= entry.bytes.len() as u64;
        }
    }
}

/// What tells that a file is still the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    file: (u64, u64),
    modified: (i64, i64),
    len: u64,
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            len: metadata.len(),
        }
    }
}

fn read_all(file: File, metadata: &Metadata) -> io::Result<Arc<[u8]>> {
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // A file that grows meanwhile is read as it was.
    file.take(metadata.len()).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

/// How long a disk may take to read a prompt. A SIP server waits about as long for a reply.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it may take once it did not answer, until it does again.
const STALLED_PATIENCE: Duration = Duration::from_millis(50);
/// Files that are read at a time.
const READERS: usize = 4;
/// The longest prompt: more than two hours of PCMU.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of prompts that are kept for the next command.
const CACHE_BYTES_MAX: u64 = 64 << 20;
/// Files that are kept for the next command.
const CACHE_FILES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use rtpproxy_core::command::{AnyRules, parse};
    use tempfile::TempDir;

    use super::*;

    fn wanted(command: &str) -> Option<Wanted> {
        Wanted::of(&parse(command.as_bytes(), &mut AnyRules).unwrap())
    }

    /// A folder with files of this length, and the command that plays them.
    fn folder(files: &[(&str, usize)], codecs: &str) -> (TempDir, Wanted) {
        let dir = tempfile::tempdir().unwrap();
        for (name, len) in files {
            fs::write(dir.path().join(name), vec![7; *len]).unwrap();
        }
        let wanted = wanted(&format!("P c {}/hello {codecs} f", dir.path().display())).unwrap();
        (dir, wanted)
    }

    fn found(prepared: &Prepared) -> Vec<(u8, usize)> {
        prepared.0.iter().map(|(payload_type, bytes)| (*payload_type, bytes.len())).collect()
    }

    #[test]
    fn only_files_that_may_be_played_are_wanted() {
        assert_eq!(wanted("P0 c hello 0 f"), None);
        assert_eq!(wanted("P c hello 101,x,0 f"), None);
        assert_eq!(wanted("S c f"), None);
        let all = wanted("P c a/hello session f").unwrap();
        assert!(all.all);
        assert_eq!(all.payload_types, PAYLOAD_TYPES);
        let listed = wanted("P-1 c a/hello 8,0,8,101 f").unwrap();
        assert_eq!((&listed.payload_types[..], listed.all), (&[8, 0][..], false));
        assert_eq!(listed.path(8), Path::new("a/hello.8"));
    }

    #[test]
    fn a_list_gets_the_first_file_and_session_gets_all() {
        let files = [("hello.0", 100), ("hello.18", 20), ("hello.8", 300), ("hello", 1), ("hello.101", 1)];
        let (_dir, wanted) = folder(&files, "3,18,0");
        assert_eq!(found(&Cache::default().prepare(&wanted)), [(18, 20)]);
        let (_dir, wanted) = folder(&files, "session");
        let prepared = Cache::default().prepare(&wanted);
        assert_eq!(found(&prepared), [(0, 100), (8, 300), (18, 20)]);
        assert_eq!(prepared.get(18).unwrap().len(), 20);
        assert_eq!(prepared.get(9), None);
    }

    #[test]
    fn what_is_no_file_or_too_long_is_left_out() {
        let (dir, wanted) = folder(&[("hello.8", 5)], "session");
        fs::create_dir(dir.path().join("hello.0")).unwrap();
        File::create(dir.path().join("hello.9")).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        std::os::unix::net::UnixListener::bind(dir.path().join("hello.4")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("hello.3"), rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(found(&Cache::default().prepare(&wanted)), [(8, 5)]);
    }

    #[test]
    fn files_are_kept_until_they_change() {
        let (dir, wanted) = folder(&[("hello.0", 100)], "0");
        let cache = Cache::default();
        let [first, second] = [0, 1].map(|_| cache.prepare(&wanted).get(0).unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        fs::write(dir.path().join("hello.0"), [1; 101]).unwrap();
        assert_eq!(found(&cache.prepare(&wanted)), [(0, 101)]);
        assert_eq!(cache.shelf().bytes, 101);
        fs::remove_file(dir.path().join("hello.0")).unwrap();
        assert_eq!(found(&cache.prepare(&wanted)), []);
    }

    #[test]
    fn the_longest_unused_file_makes_room() {
        let version = Version { file: (1, 1), modified: (1, 1), len: 1 };
        let mut shelf = Shelf::default();
        let third: Arc<[u8]> = vec![0; CACHE_BYTES_MAX as usize / 3].into();
        for name in ["a", "b", "c"] {
            shelf.put(Path::new(name), version.clone(), &third);
            assert!(shelf.get(Path::new(name), &version).is_some());
        }
        assert!(shelf.get(Path::new("a"), &version).is_some());
        shelf.put(Path::new("d"), version.clone(), &third);
        let mut kept: Vec<_> = shelf.entries.keys().map(|path| path.display().to_string()).collect();
        kept.sort();
        assert_eq!(kept, ["a", "c", "d"]);
        assert!(shelf.bytes <= CACHE_BYTES_MAX);
        for number in 0..2 * CACHE_FILES_MAX {
            shelf.put(Path::new(&number.to_string()), version.clone(), &Arc::from([]));
        }
        assert_eq!(shelf.entries.len(), CACHE_FILES_MAX);
    }

    fn prepare(prompts: &Prompts, wanted: Wanted) -> mpsc::Receiver<Vec<(u8, usize)>> {
        let (sender, receiver) = mpsc::channel();
        prompts.prepare(wanted, move |prepared| drop(sender.send(found(&prepared))));
        receiver
    }

    #[test]
    fn a_disk_without_an_answer_has_no_prompts() {
        let thread = PromptThread::start().unwrap();
        let prompts = thread.prompts();
        let (_dir, wanted) = folder(&[("hello.0", 100)], "0");
        let turns = prompts.readers.try_acquire_many(READERS as u32).unwrap();
        assert_eq!(prepare(&prompts, wanted).recv().unwrap(), []);
        let (_dir, wanted) = folder(&[("hello.0", 100)], "0");
        let again = Instant::now();
        assert_eq!(prepare(&prompts, wanted).recv().unwrap(), []);
        assert!(again.elapsed() < PATIENCE, "others wait no longer than they must");
        drop(turns);
        wait_for_file(&prompts);
        assert!(!prompts.is_stalled.load(Ordering::Relaxed));
    }

    #[test]
    fn a_disk_that_is_slow_after_a_stall_gets_its_time_again() {
        let thread = PromptThread::start().unwrap();
        let prompts = thread.prompts();
        prompts.is_stalled.store(true, Ordering::Relaxed);
        let (_dir, wanted) = folder(&[("hello.0", 100)], "0");
        let slow = prompts.cache.shelf();
        assert_eq!(prepare(&prompts, wanted).recv().unwrap(), []);
        drop(slow);
        let begin = Instant::now();
        while prompts.is_stalled.load(Ordering::Relaxed) {
            assert!(begin.elapsed() < Duration::from_secs(20), "the disk still counts as stalled");
            thread::yield_now();
        }
    }

    /// A loaded machine may need more than one attempt in the short time that a stall leaves.
    fn wait_for_file(prompts: &Prompts) {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(20) {
            let (_dir, wanted) = folder(&[("hello.0", 100)], "0");
            if prepare(prompts, wanted).recv().unwrap() == [(0, 100)] {
                return;
            }
        }
        panic!("the file is not found");
    }

    #[test]
    fn after_the_end_nothing_is_read() {
        let thread = PromptThread::start().unwrap();
        let prompts = thread.prompts();
        let turns = prompts.readers.try_acquire_many(READERS as u32).unwrap();
        let (_dir, wanted) = folder(&[("hello.0", 100)], "0");
        let waiting = prepare(&prompts, wanted);
        drop(thread);
        assert!(waiting.recv().is_err());
        drop(turns);
        let (_dir, wanted) = folder(&[("hello.0", 100)], "0");
        assert!(prepare(&prompts, wanted).recv().is_err());
    }
}
