//! `R`, `N` and `-a`: which recordings run (docs/recording.md, scope).

use tracing::{error, info};

use super::Engine;
use super::packet::recordings_of;
use crate::command::{ErrorCode, Party, Reply};
use crate::config::RecordScope;
use crate::effects::{Effect, Out};
use crate::host::{FolderState, Host};
use crate::recording::{Coverage, EndReason, Mark, RecordingEvent, RecordingId, RecordingStart};
use crate::session::{CallRecording, Session, leg_of};
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
            if let Some(to_tag) = &party.to_tag
                && session.to_tag.is_none()
            {
                let other = if *to_tag == session.from_tag { &party.from_tag } else { to_tag };
                session.to_tag = Some(other.clone());
            }
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
            stopped |= self.pause_call(now, key, out);
            let sides: &[usize] = if both { &[1, 0] } else { &[side][..] };
            for side in sides {
                stopped |= self.stop_stream(now, key, *side, out);
            }
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

    /// Ends every recording of a session that goes away.
    pub(super) fn end_recordings(&mut self, now: Now, key: usize, reason: EndReason, out: &mut Out) {
        let session = &mut self.sessions[key];
        for id in recordings_of(session) {
            out.push(Effect::Recording(RecordingEvent::End { id, at: now, reason }));
        }
        session.recording = None;
        session.sides.iter_mut().for_each(|side| side.recording = None);
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
                let Some(id) = self.start(now, key, Coverage::Call, host, out) else { return false };
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
        if self.sessions[key].sides[side].recording.is_none() {
            let coverage = Coverage::Stream(leg_of(side));
            let Some(id) = self.start(now, key, coverage, host, out) else { return false };
            self.sessions[key].sides[side].recording = Some(id);
        }
        true
    }

    /// Scope stream with `s`: one file of both sides; the second side joins the first one's file.
    fn record_single(
        &mut self,
        now: Now,
        key: usize,
        side: usize,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> bool {
        let sides = &self.sessions[key].sides;
        if sides[side].recording.is_some() {
            return false;
        }
        let joined = sides[1 - side].recording;
        let Some(id) = joined.or_else(|| self.start(now, key, Coverage::SingleFile, host, out)) else {
            return false;
        };
        self.sessions[key].sides[side].recording = Some(id);
        true
    }

    fn stop_stream(&mut self, now: Now, key: usize, side: usize, out: &mut Out) -> bool {
        let session = &mut self.sessions[key];
        let Some(id) = session.sides[side].recording.take() else { return false };
        if session.sides[1 - side].recording != Some(id) {
            info!(call_id = %session.call_id, "recording of the {} stopped", leg_of(side).name());
            out.push(Effect::Recording(RecordingEvent::End { id, at: now, reason: EndReason::Stopped }));
        }
        true
    }

    /// Starts a recording, if the folder takes any. A running one does not need the folder any more.
    fn start(
        &mut self,
        now: Now,
        key: usize,
        coverage: Coverage,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> Option<RecordingId> {
        if host.recording_folder() == FolderState::Unusable {
            return None;
        }
        let id = RecordingId(host.random());
        let rtcp = self.config.record_rtcp;
        let session = &mut self.sessions[key];
        session.coverage = Some(coverage.clone());
        out.push(Effect::Recording(RecordingEvent::Start(Box::new(recording_start(
            now, session, id, coverage, rtcp,
        )))));
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
