//! A program for each recording that is finished, with the path of its sidecar.

use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{AccessFlags, Pid, access};

use super::Event;
use crate::work::Work;

/// Programs that run, few at a time.
pub(super) struct Programs {
    program: PathBuf,
    running: Vec<(Child, Instant)>,
    /// Losses that the log knows already.
    told: u64,
    time_max: Duration,
}

impl Programs {
    /// Nothing runs yet. A name without a slash is looked for in `PATH`.
    pub(super) fn of(program: &Path) -> io::Result<Self> {
        if program.components().count() > 1 {
            access(program, AccessFlags::X_OK)?;
        }
        Ok(Self { program: program.to_owned(), running: Vec::new(), told: 0, time_max: TIME_MAX })
    }

    /// Runs programs until the relay ends, and then those that are left.
    pub(super) fn run(&mut self, work: &Work<Event>) {
        loop {
            self.look_after(work);
            self.tell_lost(work);
            if self.running.is_empty() {
                let Some(event) = work.next() else { return };
                self.start(&event, work);
            }
            self.fill_up(work);
            if work.ends_within(LOOK_PERIOD) {
                return self.finish(work);
            }
        }
    }

    /// The relay ends: what is queued is still done, as far as the time allows.
    fn finish(&mut self, work: &Work<Event>) {
        let deadline = Instant::now() + FINISH_MAX;
        loop {
            self.look_after(work);
            self.fill_up(work);
            if self.running.is_empty() {
                return;
            }
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(LOOK_PERIOD);
        }
        for (child, _) in &mut self.running {
            end(child);
        }
        let left = self.running.len() + work.waiting().count();
        tracing::error!(
            "record events: the relay ends before {} was done with {left} recordings",
            self.name()
        );
        work.lose(left as u64);
    }

    fn fill_up(&mut self, work: &Work<Event>) {
        while self.running.len() < RUNNING_MAX
            && let Some(event) = work.waiting().next()
        {
            self.start(&event, work);
        }
    }

    /// Tells of those for which there was no room.
    fn tell_lost(&mut self, work: &Work<Event>) {
        let lost = work.take_lost() - std::mem::take(&mut self.told);
        if lost > 0 {
            tracing::error!("record events: {} is not run for {lost} recordings: too many wait", self.name());
        }
    }

    fn lose(&mut self, work: &Work<Event>) {
        work.lose(1);
        self.told += 1;
    }

    fn start(&mut self, event: &Event, work: &Work<Event>) {
        let Some(sidecar) = &event.sidecar else { return };
        let spawned = Command::new(&self.program)
            .arg(&**sidecar)
            .stdin(Stdio::null())
            // Standard output may be a control connection.
            .stdout(Stdio::null())
            .process_group(0)
            .spawn();
        match spawned {
            Ok(child) => self.running.push((child, Instant::now())),
            Err(error) => {
                tracing::error!("record events: can't run {} {}: {error}", self.name(), sidecar.display());
                self.lose(work);
            }
        }
    }

    /// Takes leave of programs that have ended, and ends those that take too long.
    fn look_after(&mut self, work: &Work<Event>) {
        let mut faults = Vec::new();
        let time_max = self.time_max;
        self.running.retain_mut(|(child, since)| {
            match child.try_wait() {
                Ok(None) if since.elapsed() < time_max => return true,
                Ok(None) => {
                    end(child);
                    faults.push(format!("took longer than {} s and was ended", time_max.as_secs()));
                }
                Ok(Some(status)) if status.success() => work.succeed(1),
                Ok(Some(status)) => faults.push(format!("failed, {status}")),
                Err(error) => faults.push(error.to_string()),
            }
            false
        });
        for fault in faults {
            tracing::error!("record events: {}: {fault}", self.name());
            self.lose(work);
        }
    }

    fn name(&self) -> String {
        self.program.display().to_string()
    }
}

/// Ends a program and what it started.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).map_err(|_| ErrorKind::InvalidData.into());
    let ended = group.and_then(|group| Ok(killpg(Pid::from_raw(group), Signal::SIGKILL)?));
    if let Err(error) = ended.and_then(|()| child.wait().map(drop)) {
        tracing::error!("record events: a program cannot be ended: {error}");
    }
}

/// Programs at a time.
const RUNNING_MAX: usize = 4;
/// How long one may take.
const TIME_MAX: Duration = Duration::from_secs(60);
/// How often they are looked after.
const LOOK_PERIOD: Duration = Duration::from_millis(50);
/// How long those that run at the end of the relay may take.
const FINISH_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::EventKind;
    use super::*;

    #[test]
    fn a_program_that_takes_too_long_is_ended_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let program = folder.path().join("slow");
        let script = format!("#!/bin/sh\nsleep 1000 & echo $! > {}\nwait\n", pid_file.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let mut programs = Programs::of(&program).unwrap();
        programs.time_max = Duration::from_millis(500);
        let (queue, work) = Work::of_relay_that_ended();
        programs.start(&finished("x"), &work);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !programs.running.is_empty() {
            assert!(Instant::now() < deadline, "it still runs");
            programs.look_after(&work);
            std::thread::sleep(LOOK_PERIOD);
        }
        assert_eq!(queue.outcome().lost, 1);
        let pid = fs::read_to_string(pid_file).unwrap();
        let is_gone = || {
            let status = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            status.map_or(true, |status| status.contains(") Z "))
        };
        while !is_gone() {
            assert!(Instant::now() < deadline, "the program's child is still there");
            std::thread::sleep(LOOK_PERIOD);
        }
    }

    #[test]
    fn what_fails_and_what_is_not_there_is_counted() {
        for (program, done, lost) in [("true", 1, 0), ("false", 0, 1), ("no-such-program", 0, 1)] {
            let mut programs = Programs::of(Path::new(program)).unwrap();
            let (queue, work) = Work::of_relay_that_ended();
            programs.start(&finished("x"), &work);
            programs.finish(&work);
            let outcome = queue.outcome();
            assert_eq!((outcome.done, outcome.lost), (done, lost), "{program}");
        }
        assert!(Programs::of(Path::new("/no/such/program")).is_err());
    }

    fn finished(sidecar: &str) -> Event {
        Event { kind: EventKind::Finished, line: Vec::new(), sidecar: Some(Path::new(sidecar).into()) }
    }
}
