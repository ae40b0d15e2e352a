//! Commands to one call.

use tracing::info;

use super::Engine;
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
            Command::Update(offer) => self.update(now, offer, request, host, out),
            Command::Lookup(offer) => self.lookup(now, offer, request, host, out),
            Command::Delete { party, weak } => self.delete(now, party, *weak, out),
            Command::Record { party, single_file } => self.record(now, party, *single_file, host, out),
            Command::StopRecord { party, both } => self.stop_record(now, party, *both, out),
            Command::Query { party, modifiers, names, .. } => self.query(party, modifiers, names),
            Command::Play { party, count, prompt, codecs } => {
                self.play(now, party, *count, prompt, codecs, host)
            }
            Command::StopPlay(party) => self.stop_play(party),
            Command::Copy { party, .. } => self.refuse(party, "copies (C)", ErrorCode::RECORD_TARGET),
            Command::DeleteAll => {
                self.delete_all(now, EndReason::Deleted, out);
                Reply::Done
            }
            // These are answered by the front; it never hands them on.
            Command::Version | Command::Feature(_) | Command::Info { .. } | Command::Counters { .. } => {
                Reply::Error(ErrorCode::INTERNAL_FAILURE)
            }
        }
    }

    /// What this version does not do: E50 without the session, else the code of the command's failure.
    fn refuse(&self, party: &Party, what: &str, code: ErrorCode) -> Reply {
        if self.find(party).is_none() {
            return Reply::Error(ErrorCode::NOT_FOUND);
        }
        info!(call_id = %party.call_id, "refused: {what} are not supported by this version");
        Reply::Error(code)
    }

    fn delete(&mut self, now: Now, party: &Party, weak: bool, out: &mut Out) -> Reply {
        let mut touched = false;
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
                self.remove(now, key, EndReason::Deleted, out);
                if exact {
                    break 'search;
                }
                continue 'search;
            }
            break;
        }
        if touched { Reply::Done } else { Reply::Error(ErrorCode::NOT_FOUND) }
    }
}
