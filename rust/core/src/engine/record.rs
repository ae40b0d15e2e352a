//! `R`, `N` and `-a`: which recordings run (docs/recording.md, scope). What `C` adds is in `copy`.

use std::mem;

use tracing::{error, info};

use super::Engine;
use super::packet::recordings_of;
use crate::command::{ErrorCode, Party, Reply};
use crate::config::RecordScope;
use crate::effects::{Effect, HandOver, Out};
use crate::host::{FolderState, Host};
use crate::recording::{Coverage, EndReason, Mark, RecordingEvent, RecordingId, RecordingStart};
use crate::session::{CallRecording, FileWitness, Session, leg_of};
use crate::time::Now;

impl Engine {
    pub(super) fn record(
        &mut self,
        now: Now,
        party: &Party,
        single_file: bool,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> Reply {
        let matching: Vec<(usize, usize)> = self.matching(party).collect();
        let mut running = false;
        for (key, side) in matching {
            let session = &mut self.sessions[key];
            session.learn_to_tag(&party.from_tag, party.to_tag.as_ref());
            running |= match self.config.record_scope {
                RecordScope::Call => self.record_call(now, key, host, out),
                RecordScope::Stream if single_file && self.config.single_file => {
                    self.record_single(now, key, side, host, out)
                }
                RecordScope::Stream => self.record_stream(now, key, side, host, out),
            };
        }
        if running {
            return Reply::Done;
        }
        if host.recording_folder() == FolderState::Unusable && self.matching(party).next().is_some() {
            error!(call_id = %party.call_id, "can't record: no recording folder that can be written to (-r)");
        }
        Reply::Error(ErrorCode::NOT_FOUND)
    }

    pub(super) fn stop_record(&mut self, now: Now, party: &Party, both: bool, out: &mut Out) -> Reply {
        let matching: Vec<(usize, usize)> = self.matching(party).collect();
        let mut stopped = false;
        for (key, side) in matching {
            let mut is_ours = self.pause_call(now, key, out);
            let sides: &[usize] = if both { &[1, 0] } else { &[side][..] };
            for side in sides {
                is_ours |= self.stop_side(now, key, *side, out);
            }
            // What is said from now on is not to be recorded, by no later command either.
            let is_call = self.config.record_scope == RecordScope::Call;
            for side in if is_call { &[1, 0] } else { sides }.iter().filter(|_| is_ours) {
                self.forget(key, *side, out);
            }
            stopped |= is_ours;
        }
        if stopped { Reply::Done } else { Reply::Error(ErrorCode::NOT_FOUND) }
    }

    /// `-a`: a new session is recorded from its creation; failures are silent.
    pub(super) fn record_from_start(&mut self, now: Now, key: usize, host: &mut dyn Host, out: &mut Out) {
        match self.config.record_scope {
            RecordScope::Call => {
                self.record_call(now, key, host, out);
            }
            RecordScope::Stream => {
                for side in [1, 0] {
                    if self.config.single_file {
                        self.record_single(now, key, side, host, out);
                    } else {
                        self.record_stream(now, key, side, host, out);
                    }
                }
            }
        }
    }

    /// Tells the recorder what a `U` or `L` changed.
    pub(super) fn update_facts(&self, key: usize, out: &mut Out) {
        let session = &self.sessions[key];
        for id in recordings_of(session) {
            let facts =
                RecordingEvent::Facts { id, to_tag: session.to_tag.clone(), legs: Box::new(session.facts()) };
            out.push(Effect::Recording(facts));
        }
    }

    /// Ends every recording and every copy of a session that goes away.
    pub(super) fn end_recordings(&mut self, now: Now, key: usize, reason: EndReason, out: &mut Out) {
        let session = &mut self.sessions[key];
        for id in recordings_of(session) {
            out.push(Effect::Recording(RecordingEvent::End { id, at: now, reason }));
        }
        session.recording = None;
        for side in &mut session.sides {
            side.file = None;
            for receiver in side.receivers.drain(..) {
                out.push(Effect::Close(receiver.pair.id));
            }
            out.effects.extend(side.kept.take().map(Effect::Forget));
        }
    }

    /// The sessions that `D`, `R` and `N` mean, with the side.
    fn matching(&self, party: &Party) -> impl Iterator<Item = (usize, usize)> {
        let keys = self.by_call.get(&party.call_id).map_or(&[][..], Vec::as_slice);
        keys.iter().filter_map(|key| {
            let (side, _) = self.sessions[*key].matches(&party.from_tag, party.to_tag.as_ref())?;
            Some((*key, side))
        })
    }

    /// Scope call: starts or resumes; a running one is left as it is. False if it cannot start.
    fn record_call(&mut self, now: Now, key: usize, host: &mut dyn Host, out: &mut Out) -> bool {
        match &mut self.sessions[key].recording {
            Some(recording) if recording.paused => {
                recording.paused = false;
                let id = recording.id;
                out.push(Effect::Recording(RecordingEvent::Mark { id, at: now, mark: Mark::Resumed }));
            }
            Some(_) => {}
            None => {
                let Some(id) = self.start(now, key, &[1, 0], Coverage::Call, host, out) else { return false };
                self.sessions[key].recording = Some(CallRecording { id, paused: false });
            }
        }
        true
    }

    fn pause_call(&mut self, now: Now, key: usize, out: &mut Out) -> bool {
        let Some(recording) = &mut self.sessions[key].recording else { return false };
        if recording.paused {
            return false;
        }
        recording.paused = true;
        out.push(Effect::Recording(RecordingEvent::Mark { id: recording.id, at: now, mark: Mark::Paused }));
        true
    }

    /// Scope stream: what the party sends; a running one is left as it is. False if it cannot start.
    fn record_stream(
        &mut self,
        now: Now,
        key: usize,
        side: usize,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> bool {
        self.start_beside(now, key, side, Coverage::Stream(leg_of(side)), host, out)
    }

    /// Scope stream with `s`: one file of both sides. False if the side is recorded or copied already.
    fn record_single(
        &mut self,
        now: Now,
        key: usize,
        side: usize,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> bool {
        self.join_or_start(now, key, side, Coverage::SingleFile, host, out)
    }

    /// The second side joins the first one's file, whatever that was started as. What was kept of it would come too
    /// late for the order of that file.
    pub(super) fn join_or_start(
        &mut self,
        now: Now,
        key: usize,
        side: usize,
        coverage: Coverage,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> bool {
        let sides = &mut self.sessions[key].sides;
        if sides[side].is_copied() {
            return false;
        }
        sides[side].file = sides[1 - side].file;
        if sides[side].file.is_none() {
            return self.start_file(now, key, side, coverage, host, out);
        }
        self.forget(key, side, out);
        true
    }

    /// Starts a recording of what one side's party sends, beside its receivers. One that runs is left as it is. A
    /// party that has a copy counts as recorded, as in the C program, also if there is no folder. False without
    /// either.
    pub(super) fn start_beside(
        &mut self,
        now: Now,
        key: usize,
        side: usize,
        coverage: Coverage,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> bool {
        let own = &self.sessions[key].sides[side];
        let is_copied = own.is_copied();
        let takes_a_file = if self.config.one_copy { !is_copied } else { own.file.is_none() };
        (takes_a_file && self.start_file(now, key, side, coverage, host, out)) || is_copied
    }

    /// Starts a recording of what one side's party sends. False without a folder for it.
    fn start_file(
        &mut self,
        now: Now,
        key: usize,
        side: usize,
        coverage: Coverage,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> bool {
        let single = matches!(coverage, Coverage::SingleFile | Coverage::NamedSingleFile { .. });
        let Some(id) = self.start(now, key, &[side], coverage, host, out) else { return false };
        self.sessions[key].sides[side].file = Some(FileWitness { id, single });
        true
    }

    /// Ends the recording of a side, unless the other side is in it too, and its copies.
    fn stop_side(&mut self, now: Now, key: usize, side: usize, out: &mut Out) -> bool {
        let session = &mut self.sessions[key];
        let was_copied = session.sides[side].is_copied();
        if let Some(FileWitness { id, .. }) = session.sides[side].file.take()
            && session.sides[1 - side].recording() != Some(id)
        {
            info!(call_id = %session.call_id, "recording of the {} stopped", leg_of(side).name());
            out.push(Effect::Recording(RecordingEvent::End { id, at: now, reason: EndReason::Stopped }));
        }
        for receiver in mem::take(&mut session.sides[side].receivers) {
            let (leg, to) = (leg_of(side).name(), receiver.rtp);
            info!(call_id = %session.call_id, "copies of the {leg} to {to} stopped");
            out.push(Effect::Close(receiver.pair.id));
        }
        was_copied
    }

    /// Frees what is kept of a side, and keeps nothing more.
    fn forget(&mut self, key: usize, side: usize, out: &mut Out) {
        let kept = self.sessions[key].sides[side].kept.take();
        out.effects.extend(kept.map(Effect::Forget));
    }

    /// Starts a recording of `sides`, if the folder takes any. A running one does not need the folder any more.
    fn start(
        &mut self,
        now: Now,
        key: usize,
        sides: &[usize],
        coverage: Coverage,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> Option<RecordingId> {
        if host.recording_folder() == FolderState::Unusable {
            return None;
        }
        let id = RecordingId(host.random());
        // In scope call, that of the call may begin later and wants the same.
        let stays =
            self.config.record_scope == RecordScope::Call && matches!(coverage, Coverage::Named { .. });
        let start = recording_start(now, &self.sessions[key], id, coverage, self.config.record_rtcp);
        out.push(Effect::Recording(RecordingEvent::Start(Box::new(start))));
        let kept = [1, 0].map(|side: usize| {
            let kept = sides.contains(&side).then_some(&mut self.sessions[key].sides[side].kept)?;
            if stays { *kept } else { kept.take() }
        });
        if kept.iter().any(Option::is_some) {
            out.push(Effect::HandOver(HandOver { to: id, at: now, kept, stays }));
        }
        Some(id)
    }
}

fn recording_start(
    now: Now,
    session: &Session,
    id: RecordingId,
    coverage: Coverage,
    rtcp: bool,
) -> RecordingStart {
    RecordingStart {
        id,
        call_id: session.call_id.clone(),
        from_tag: session.from_tag.clone(),
        to_tag: session.to_tag.clone(),
        coverage,
        rtcp,
        at: now,
        legs: session.facts(),
    }
}
