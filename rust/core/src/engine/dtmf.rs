//! The sub-command `M` of catch_dtmf, and the watch over what a party sends (docs/protocol.md, key presses).

use tracing::info;

use super::Engine;
use super::packet::Passing;
use super::subs::Place;
use crate::command::{SubResult, signed, url_decode};
use crate::dtmf::{KeyCatcher, KeyPress, USUAL_PAYLOAD_TYPE, is_of_type};
use crate::effects::{Effect, Out};
use crate::recording::Channel;
use crate::session::{KeyWatcher, Notify, Side, leg_of};

impl Engine {
    /// `M3:INSTANCE TAG [PT [h]]`: from now on the keys that the party of `place` presses are told.
    ///
    /// A repeated one has another payload type or hides, but the tag and the target are those of the first.
    pub(super) fn watch_keys(&mut self, place: Place, instance: u32, args: &[Box<[u8]>]) -> SubResult {
        let session = &mut self.sessions[place.key];
        let Some(wish) = Wish::parse(args) else {
            info!(call_id = %session.call_id, "can't tell of key presses: the arguments are not TAG [0-127 [h]]");
            return SubResult::Failed;
        };
        let Some(notify) = &session.notify else {
            info!(call_id = %session.call_id, "can't tell of key presses: the session has no notification target");
            return SubResult::Failed;
        };
        info!(
            call_id = %session.call_id,
            "keys that the {} presses are told, payload type {}", leg_of(place.side).name(), wish.payload_type
        );
        let watchers = &mut session.sides[place.side].key_watchers;
        let at = watchers.iter().position(|watcher| watcher.instance == instance).unwrap_or_else(|| {
            watchers.push(KeyWatcher {
                instance,
                notify: Notify { target: notify.target.clone(), tag: wish.tag },
                payload_type: wish.payload_type,
                hides: wish.hides,
                catcher: KeyCatcher::default(),
            });
            watchers.len() - 1
        });
        watchers[at].payload_type = wish.payload_type;
        watchers[at].hides = wish.hides;
        SubResult::Done
    }
}

/// Tells of keys that a packet to the port of `side` completes; true if the packet must go no further.
pub(super) fn watch(side: usize, own: &mut Side, passing: &Passing<'_>, out: &mut Out) -> bool {
    if own.key_watchers.is_empty() || passing.arrival.port.channel != Channel::Rtp {
        return false;
    }
    let Out { effects, scratch } = out;
    let datagram = passing.bytes(scratch);
    let mut is_hidden = false;
    for watcher in &mut own.key_watchers {
        if !is_of_type(datagram, watcher.payload_type) {
            continue;
        }
        is_hidden |= watcher.hides;
        if let Some(press) = watcher.catcher.packet(datagram) {
            let Notify { target, tag } = &watcher.notify;
            effects.push(Effect::Notify { target: target.clone(), text: line(tag, press, side) });
        }
    }
    is_hidden
}

/// What the arguments ask for.
struct Wish {
    tag: Box<[u8]>,
    payload_type: u8,
    hides: bool,
}

impl Wish {
    fn parse(args: &[Box<[u8]>]) -> Option<Self> {
        let (tag, payload_type, letters) = match args {
            [tag] => (tag, None, None),
            [tag, payload_type] => (tag, Some(payload_type), None),
            [tag, payload_type, letters] => (tag, Some(payload_type), Some(letters)),
            _ => return None,
        };
        let payload_type = match payload_type {
            Some(number) => u8::try_from(signed(number)?).ok().filter(|number| *number < 128)?,
            None => USUAL_PAYLOAD_TYPE,
        };
        let is_h = |letter: &u8| letter.eq_ignore_ascii_case(&b'H');
        if letters.is_some_and(|letters| !letters.iter().all(is_h)) {
            return None;
        }
        Some(Self { tag: url_decode(tag)?, payload_type, hides: letters.is_some() })
    }
}

/// `TAG KEY VOLUME DURATION SIDE`, of which the side of the caller is 0.
fn line(tag: &[u8], press: KeyPress, side: usize) -> Vec<u8> {
    let KeyPress { key, volume, duration } = press;
    let facts = format!(" {} {volume} {duration} {}\n", char::from(key), 1 - side);
    [tag, facts.as_bytes()].concat()
}
