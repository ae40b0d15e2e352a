//! What happens by itself: packets of prompts, and the countdown of sessions (docs/protocol.md, timers).

use tracing::info;

use super::{Engine, TICK};
use crate::effects::{Effect, Out};
use crate::recording::EndReason;
use crate::time::{Mono, Now};

impl Engine {
    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn next_deadline(&self) -> Mono {
        self.next_appointment().map_or(self.next_tick, |at| at.min(self.next_tick))
    }

    /// Sends the packets of prompts that are due, and lets a second pass for every session, if one has passed.
    ///
    /// After a stall of several seconds only one is counted: a relay that could not run did not hear its
    /// parties either.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Out) {
        self.play_due(now, out);
        if now.mono >= self.next_tick {
            self.tick(now, out);
        }
    }

    fn tick(&mut self, now: Now, out: &mut Out) {
        let late = now.mono.since(self.next_tick);
        self.next_tick = if late < TICK { self.next_tick + TICK } else { now.mono + TICK };
        let elapsed = (TICK + late).as_secs_f64();
        self.stats.pps_in = (self.stats.npkts_rcvd - self.rcvd_at_tick) as f64 / elapsed;
        self.rcvd_at_tick = self.stats.npkts_rcvd;

        let mut expired = Vec::new();
        for (key, session) in &mut self.sessions {
            if !session.tick() {
                expired.push(key);
            }
        }
        for key in expired {
            self.expire(now, key, out);
        }
    }

    fn expire(&mut self, now: Now, key: usize, out: &mut Out) {
        let session = &mut self.sessions[key];
        info!(call_id = %session.call_id, "session timeout");
        self.stats.nsess_timeout += 1;
        if let Some(notify) = session.notify.take() {
            let mut text = notify.tag.into_vec();
            text.push(b'\n');
            out.push(Effect::Notify { target: notify.target, text });
        }
        self.remove(now, key, EndReason::Timeout, out);
    }
}
