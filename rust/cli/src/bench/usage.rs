//! What a process takes of the machine, as the kernel tells in `/proc`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;
use serde::Serialize;

/// The CPU time of a process, and that of its threads by their jobs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Cpu {
    /// In user mode and in the kernel, of all threads, also of those that have ended.
    #[serde(serialize_with = "as_seconds")]
    pub(super) all: Duration,
    /// The threads that relay.
    #[serde(serialize_with = "as_seconds")]
    pub(super) media: Duration,
    /// The thread that writes files.
    #[serde(serialize_with = "as_seconds")]
    pub(super) recorder: Duration,
    /// The threads that finish recordings.
    #[serde(serialize_with = "as_seconds")]
    pub(super) finisher: Duration,
}

impl Cpu {
    /// What it is now.
    pub(super) fn of(pid: Pid) -> Result<Self, String> {
        let mut cpu = Self { all: process_time(pid)?, ..Self::default() };
        let folder = format!("/proc/{pid}/task");
        for entry in fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?.flatten() {
            // A thread may end at any time; its share stays in the sum.
            let read = |name| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            let nanos = read("schedstat").split(' ').next().and_then(|nanos| nanos.parse().ok());
            let spent = Duration::from_nanos(nanos.unwrap_or_default());
            match read("comm").trim_end() {
                "recorder" | "recorder-disk" => cpu.recorder += spent,
                "recorder-finish" => cpu.finisher += spent,
                name if name.starts_with("media-") => cpu.media += spent,
                _ => {}
            }
        }
        Ok(cpu)
    }

    /// What was added since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            all: self.all.saturating_sub(earlier.all),
            media: self.media.saturating_sub(earlier.media),
            recorder: self.recorder.saturating_sub(earlier.recorder),
            finisher: self.finisher.saturating_sub(earlier.finisher),
        }
    }

    /// All but the threads with a name of their own here.
    pub(super) fn others(&self) -> Duration {
        self.all.saturating_sub(self.media + self.recorder + self.finisher)
    }
}

/// The memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Memory {
    /// Pages that only it has written to.
    pub(super) private_dirty: i64,
    /// All its pages that are in memory.
    pub(super) resident: i64,
}

impl Memory {
    /// What it is now.
    pub(super) fn of(pid: Pid) -> Result<Self, String> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let figure = |name: &str| {
            let kilobytes = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
            let kilobytes: Option<i64> = kilobytes.and_then(|number| number.parse().ok());
            kilobytes.map(|number| number * 1024).ok_or_else(|| format!("{path} has no {name}"))
        };
        Ok(Self { private_dirty: figure("Private_Dirty:")?, resident: figure("Rss:")? })
    }

    /// What was added since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            private_dirty: self.private_dirty - earlier.private_dirty,
            resident: self.resident - earlier.resident,
        }
    }
}

/// Whether what is in a folder is in memory, not on a disk.
pub(super) fn is_in_memory(folder: &Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC)
}

/// The CPU clock of a process: what `utime` and `stime` of `/proc/PID/stat` say in steps of 10 ms.
fn process_time(pid: Pid) -> Result<Duration, String> {
    let pid = nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get());
    let time = nix::time::clock_getcpuclockid(pid).and_then(nix::time::ClockId::now);
    time.map(Duration::from).map_err(|error| format!("the CPU time of the relay: {error}"))
}

fn as_seconds<S: serde::Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_secs_f64())
}

/// `f_type` of a tmpfs (statfs(2)).
const TMPFS_MAGIC: i64 = 0x0102_1994;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_is_counted_for_its_thread() {
        let pid = rustix::process::getpid();
        let before = Cpu::of(pid).unwrap();
        let worker = std::thread::Builder::new().name("media-9".to_owned());
        let spent = worker.spawn(move || {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(50) {
                std::hint::spin_loop();
            }
            Cpu::of(pid).unwrap().since(&before)
        });
        let spent = spent.unwrap().join().unwrap();
        assert!(spent.media > Duration::from_millis(1), "{spent:?}");
        assert!(spent.all >= spent.media, "{spent:?}");
    }

    #[test]
    fn memory_grows_with_what_is_written_to() {
        let pid = rustix::process::getpid();
        let before = Memory::of(pid).unwrap();
        // Else the compiler leaves it out.
        let bytes = std::hint::black_box(vec![1_u8; 32 << 20]);
        let grown = Memory::of(pid).unwrap().since(&before);
        assert!(grown.private_dirty > 16 << 20 && grown.resident > 16 << 20, "{grown:?}");
        drop(bytes);
    }
}
