//! Where the files of a recording are, and how it gets to another place.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtpproxy_core::time::{Mono, Now};
use tracing::{error, info, warn};

use super::super::disk::REMOVED;
use super::super::files::{Created, Folder, Site};
use super::super::finish::Job;
use super::super::names::Names;
use super::super::queue::Dropped;
use super::super::sidecar::section_comments;
use super::super::writer::Written;
use super::{OpenFile, Recording, Shared, Trouble};

/// Where files are.
#[derive(Debug)]
pub(in crate::recorder) struct Place {
    pub(in crate::recorder) site: Site,
    /// The names of the files.
    pub(in crate::recorder) parts: Vec<OsString>,
    pub(in crate::recorder) attempt: u32,
    pub(in crate::recorder) spool: Arc<Folder>,
    pub(in crate::recorder) target: Arc<Folder>,
}

impl Recording {
    /// Opens the files in a folder that takes them; otherwise it is tried again.
    pub(super) fn open(&mut self, shared: &Shared, now: Instant) {
        let mut outcome = self.create(shared, Site::Main, &self.names);
        if outcome.is_err() && self.is_stuck_since(now, MOVE_AFTER) && shared.folders.has(Site::Fallback) {
            outcome = self.create(shared, Site::Fallback, &self.names).or(outcome);
        }
        match outcome {
            Ok(created) => {
                self.settle_in(created);
                let file = self.path(0);
                info!(call_id = %self.start.call_id, file = %file.display(), "recording started");
                self.flush(shared, now, |_| true);
            }
            Err(error) => {
                self.entry.totals().count_error();
                if self.trouble.is_none() {
                    let file = self.path(0);
                    let file = file.display();
                    error!(call_id = %self.start.call_id, %file, "recording degraded, cannot create: {error}");
                }
                self.refused(&error, now);
                self.retry_at = now + RETRY_PERIOD;
            }
        }
    }

    /// Goes on in the other folder if this one has refused for so long; returns the files that are left behind.
    pub(super) fn move_on(&mut self, shared: &Shared, now: Instant, after: Duration) -> Option<Job> {
        let other = self.place.as_ref()?.site.other();
        if !self.is_stuck_since(now, after) || !shared.folders.has(other) {
            return None;
        }
        self.retry_at = now + RETRY_PERIOD;
        let names = self.names.next_part(self.place.as_ref()?.attempt);
        let created = self.create(shared, other, &names).ok()?;
        let from = self.path(0);
        let job = self.leave(shared, (created, names), "moved", now);
        let (call_id, to) = (&self.start.call_id, self.path(0));
        warn!(%call_id, from = %from.display(), to = %to.display(), "recording goes on in the other folder");
        job
    }

    /// Somebody has removed the files: what was in them is missing in the next ones.
    pub(super) fn forget_files(&mut self, shared: &Shared) {
        for index in 0..self.files.len() {
            self.detach(index, shared);
        }
        let mut packets = 0;
        for (leg, channel, lost, [first, last]) in self.tally.lose() {
            let [first, last] = [first, last].map(|wall| Now { mono: Mono::default(), wall });
            self.miss(
                &Dropped { id: self.start.id, leg, channel, packets: lost, first, last },
                Some(REMOVED),
            );
            packets += lost;
        }
        let (call_id, file) = (&self.start.call_id, self.path(0));
        error!(%call_id, file = %file.display(), packets, "recording lost its file, which was removed");
        self.place = None;
        self.rotation.begin_file();
    }

    /// Takes a file from its writer. What is not in there waits for the next one, behind a beginning of its own.
    pub(super) fn detach(&mut self, index: usize, shared: &Shared) -> Option<Written> {
        let OpenFile { writer, encoder, pending } = &mut self.files[index];
        let mut header = Vec::new();
        encoder.begin(&section_comments(&self.start), &mut header);
        // Otherwise what was told waits, too.
        if let Some(head) = self.head.as_mut().filter(|_| self.tally.synthetic_frames > 0) {
            match pending.first() {
                None => head.tell_again(),
                Some(first) => {
                    for frame in
                        head.repeat(&self.start, &shared.config.codec_map, first).into_iter().flatten()
                    {
                        encoder.synthetic(frame.sender, frame.addrs, frame.at, &frame.text, &mut header);
                        pending.synthetic_frames += 1;
                    }
                }
            }
        }
        writer.detach(&header)
    }

    pub(super) fn create(&self, shared: &Shared, site: Site, names: &Names) -> io::Result<Created> {
        match shared.watch.lack(site) {
            // What is left of an ended recording is little.
            Some(lack) if self.ended.is_none() => Err(lack),
            Some(_) | None => {
                let created = shared.folders.create(site, names)?;
                created.sealed(&shared.config, &section_comments(&self.start))
            }
        }
    }

    /// The files are there.
    pub(super) fn settle_in(&mut self, created: Created) {
        let Created { files, attempt, site, spool, target } = created;
        let mut parts = Vec::with_capacity(files.len());
        for (file, (handle, part)) in self.files.iter_mut().zip(files) {
            file.writer.attach(handle);
            parts.push(part);
        }
        self.place = Some(Place { site, parts, attempt, spool, target });
        self.entry.set_file(self.path(0));
    }

    /// Takes note of what the disk refused.
    pub(super) fn refused(&mut self, error: &io::Error, now: Instant) {
        let (since, missing) = self.trouble.as_ref().map_or((now, 0), |old| (old.since, old.missing));
        self.trouble = Some(Trouble { cause: error.to_string(), since, missing });
    }

    fn is_stuck_since(&self, now: Instant, after: Duration) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| now.saturating_duration_since(trouble.since) >= after)
    }
}

/// How long a folder may refuse until the recording goes on in the other one.
pub(super) const MOVE_AFTER: Duration = Duration::from_secs(3);
/// How long to wait before the folders are tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(1);
