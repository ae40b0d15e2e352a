//! What the two phones say: a sentence each, ten seconds in all, over and over.

use rtpproxy_core::recording::Leg;

/// Samples of G.711 in 20 ms at 8000 Hz, one byte each.
pub(super) const FRAME_SAMPLES: usize = 160;

/// The speech of one phone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clip {
    speech: &'static [u8],
    /// The frame of a round in which it starts.
    start: usize,
}

impl Clip {
    /// What the phone of `leg` says.
    pub(super) fn of(leg: Leg) -> Self {
        match leg {
            Leg::Caller => Self { speech: include_bytes!("../../assets/caller.ulaw"), start: 0 },
            Leg::Callee => Self { speech: include_bytes!("../../assets/callee.ulaw"), start: 320 },
        }
    }

    /// The mu-law samples of frame `number`, counted from the start of the call.
    pub(super) fn frame(&self, number: u64) -> [u8; FRAME_SAMPLES] {
        let mut frame = [SILENCE; FRAME_SAMPLES];
        let of_round = usize::try_from(number % ROUND_FRAMES).unwrap_or_default();
        let from = of_round.checked_sub(self.start).map(|frame| frame * FRAME_SAMPLES);
        if let Some(speech) = from.and_then(|from| self.speech.get(from..)) {
            let length = speech.len().min(FRAME_SAMPLES);
            frame[..length].copy_from_slice(&speech[..length]);
        }
        frame
    }
}

/// Ten seconds.
const ROUND_FRAMES: u64 = 500;
/// The sample value zero in mu-law.
const SILENCE: u8 = 0xff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phones_take_turns() {
        let speaks = |leg, frame| Clip::of(leg).frame(frame) != [SILENCE; FRAME_SAMPLES];
        assert!(speaks(Leg::Caller, 50) && !speaks(Leg::Callee, 50));
        assert!(!speaks(Leg::Caller, 400) && speaks(Leg::Callee, 400));
        assert!(!speaks(Leg::Caller, 499) && !speaks(Leg::Callee, 499));
        assert_eq!(Clip::of(Leg::Caller).frame(550), Clip::of(Leg::Caller).frame(50));
    }
}
