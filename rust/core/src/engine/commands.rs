//! Commands to one call.

use tracing::info;

use super::Engine;
use super::copy::CopyLetters;
use crate::command::{Command, ErrorCode, Party, Reply};
use crate::effects::Out;
use crate::front::Request;
use crate::host::Host;
use crate::recording::EndReason;
use crate::time::Now;

impl Engine {
    /// Carries out a command that a [`crate::front::Front`] accepted. There is exactly one reply.
    pub fn handle_command(
        &mut self,
        now: Now,
        request: &Request,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> Reply {
        match &request.command {
            Command::Update(offer) => {
                let answered = self.update(now, offer, request, host, out);
                self.with_subs(now, answered, request, host, out)
            }
            Command::Lookup(offer) => {
                let answered = self.lookup(now, offer, request, host, out);
                self.with_subs(now, answered, request, host, out)
            }
            Command::Delete { party, weak } => {
                let Some(doomed) = self.give_up(party, *weak) else {
                    return Reply::Error(ErrorCode::NOT_FOUND);
                };
                for key in doomed {
                    self.remove(now, key, EndReason::Deleted, out);
                }
                Reply::Done
            }
            Command::Record { party, single_file } => self.record(now, party, *single_file, host, out),
            Command::StopRecord { party, both } => self.stop_record(now, party, *both, out),
            Command::Query { party, modifiers, names, .. } => {
                let answered = self.query(party, modifiers, names);
                self.with_subs(now, answered, request, host, out)
            }
            Command::Play { party, count, prompt, codecs } => {
                self.play(now, party, *count, prompt, codecs, host)
            }
            Command::StopPlay(party) => self.stop_play(party),
            Command::Copy { party, single_file, report_port, .. } => {
                let letters = CopyLetters { single_file: *single_file, report_port: *report_port };
                self.copy(now, party, letters, request.copy.as_ref(), host, out)
            }
            Command::StopCopy { party, .. } => self.stop_copy(party, request.copy.as_ref(), out),
            Command::DeleteAll => {
                self.delete_all(now, EndReason::Deleted, out);
                Reply::Done
            }
            // These are answered by the front; it never hands them on.
            Command::Version
            | Command::Feature(_)
            | Command::Info { .. }
            | Command::Counters { .. }
            | Command::Recordings { .. } => Reply::Error(ErrorCode::INTERNAL_FAILURE),
        }
    }

    /// Gives up the hold of a `D` on sessions. Those that nothing holds any more are taken out of the table by
    /// which commands find them, and are the caller's to remove. `None` if the tags mean no session.
    pub(super) fn give_up(&mut self, party: &Party, weak: bool) -> Option<Vec<usize>> {
        let mut touched = false;
        let mut doomed = Vec::new();
        'search: loop {
            for key in self.sessions_of(&party.call_id) {
                let session = &mut self.sessions[key];
                let Some((side, exact)) = session.matches(&party.from_tag, party.to_tag.as_ref()) else {
                    continue;
                };
                touched = true;
                if weak {
                    session.weak[side] = false;
                } else {
                    session.strong = false;
                }
                if session.strong || session.weak.contains(&true) {
                    info!(call_id = %session.call_id, "delete: session {} is still referenced", session.from_tag);
                    continue;
                }
                self.unlist(key);
                doomed.push(key);
                if exact {
                    break 'search;
                }
                continue 'search;
            }
            break;
        }
        touched.then_some(doomed)
    }
}
