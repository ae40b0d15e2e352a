//! Sub-commands: what follows `&&` behind a `U`, `L` or `Q` that succeeded (docs/protocol.md, sub-commands).

use tracing::info;

use super::Engine;
use crate::addr::Family;
use crate::command::{Command, MediaAddr, Modifiers, Offer, Party, Reply, Setting, SubCommand, SubResult};
use crate::config::ModuleKind;
use crate::effects::{Effect, Out};
use crate::front::{LocalChoice, Request};
use crate::host::Host;
use crate::recording::EndReason;
use crate::time::Now;

/// Where a sub-command acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The session.
    pub(super) key: usize,
    /// The side of the party that the command speaks of ("in"); the other one is "out".
    pub(super) side: usize,
}

/// What became of the command before its sub-commands: its answer, and where they act. An error has none.
pub(super) type Answered = Result<(Reply, Place), Reply>;

impl Engine {
    /// Carries out the sub-commands of an answered command, in order, up to the first that fails.
    ///
    /// Sessions that one of them deletes are removed behind the last, so that all act on what they were given.
    pub(super) fn with_subs(
        &mut self,
        now: Now,
        answered: Answered,
        request: &Request,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> Reply {
        let (reply, mut place) = match answered {
            Ok(answer) => answer,
            Err(reply) => return reply,
        };
        let mut locals = request.sub_locals.iter();
        let mut doomed = Vec::new();
        let mut results = Vec::new();
        for sub in request.command.subs() {
            let result = match sub {
                SubCommand::Delete { weak } => self.sub_delete(place, *weak, &mut doomed),
                SubCommand::Set { reverse, setting } => self.sub_set(place, *reverse, *setting, out),
                SubCommand::Lookup { modifiers, media } => {
                    let answer = self.sub_lookup(
                        now,
                        place,
                        &request.command,
                        (modifiers, *media),
                        locals.next(),
                        host,
                        out,
                    );
                    place.side = 1 - place.side;
                    answer
                }
                SubCommand::Fork(source) => self.fork_from(source, place),
                SubCommand::Module { id, instance, args } if *id == ModuleKind::CatchDtmf.id() => {
                    self.watch_keys(place, *instance, args)
                }
                // The front lets no other through: they take no commands.
                SubCommand::Module { .. } => SubResult::Failed,
            };
            let failed = result == SubResult::Failed;
            results.push(result);
            if failed {
                break;
            }
        }
        for key in doomed {
            self.remove(now, key, EndReason::Deleted, out);
        }
        reply.with_results(results)
    }

    fn sub_delete(&mut self, place: Place, weak: bool, doomed: &mut Vec<usize>) -> SubResult {
        let session = &self.sessions[place.key];
        let party =
            Party { call_id: session.call_id.clone(), from_tag: session.from_tag.clone(), to_tag: None };
        let Some(given_up) = self.give_up(&party, weak) else { return SubResult::Failed };
        doomed.extend(given_up);
        SubResult::Done
    }

    fn sub_set(&mut self, place: Place, reverse: bool, setting: Setting, out: &mut Out) -> SubResult {
        let side = if reverse { 1 - place.side } else { place.side };
        let session = &mut self.sessions[place.key];
        match setting {
            Setting::Ttl(seconds) => session.set_ttl(side, seconds),
            Setting::Tos(tos) => {
                let side = &mut session.sides[side];
                if side.local.family() != Family::V4 {
                    info!(call_id = %session.call_id, "can't set the TOS byte: {} is not IPv4", side.local.ip);
                    return SubResult::Failed;
                }
                // The kernel takes the low 8 bits of what it is given.
                side.tos = Some(tos as u8);
                if let Some(pair) = side.pair {
                    out.push(Effect::SetTos { pair: pair.id, tos: tos as u8 });
                }
            }
        }
        SubResult::Done
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request, used once")]
    fn sub_lookup(
        &mut self,
        now: Now,
        place: Place,
        command: &Command,
        (modifiers, media): (&Modifiers, MediaAddr),
        choice: Option<&LocalChoice>,
        host: &mut dyn Host,
        out: &mut Out,
    ) -> SubResult {
        let (Command::Update(main), Some(choice)) = (command, choice) else { return SubResult::Failed };
        let party = main.party.clone();
        let offer = Offer { party, modifiers: modifiers.clone(), media, notify: None, subs: Vec::new() };
        match self.amend(now, place.key, place.side, &offer, choice, host, out) {
            Ok(()) => SubResult::Text(self.media_reply(place.key, place.side).to_string().into()),
            Err(_) => SubResult::Failed,
        }
    }
}
