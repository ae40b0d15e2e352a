//! How long the payload of a static payload type lasts, and where it may be cut (RFC 3551, section 4.5).
//!
//! Times are ticks of the 8000 Hz clock that all of these payload types have; G.722 has it too, although it
//! samples twice as often (RFC 3551, section 4.5.2).

/// How long a payload lasts, in ticks; `None` if its codec is not known here, if it is empty, or if it is no
/// whole number of frames.
pub(super) fn duration(payload_type: u8, payload: &[u8]) -> Option<u32> {
    if payload.is_empty() {
        return None;
    }
    let ticks = match payload_type {
        PCMU | PCMA | G722 => payload.len(),
        GSM if payload.len().is_multiple_of(GSM_FRAME_BYTES) => payload.len() / GSM_FRAME_BYTES * GSM_TICKS,
        G723 => g723_frames(payload)? * G723_TICKS,
        G729 => payload.len().div_ceil(G729_FRAME_BYTES) * G729_TICKS,
        _ => return None,
    };
    u32::try_from(ticks).ok()
}

/// What the duration of a packet should be a multiple of, in ticks.
pub(super) fn granularity(payload_type: u8) -> u32 {
    match payload_type {
        GSM => GSM_TICKS as u32,
        G723 => G723_TICKS as u32,
        _ => G729_TICKS as u32,
    }
}

/// The longest part at the front of `payload` that has whole frames and lasts at most `limit` ticks, but at
/// least one frame: its length in bytes, and its ticks. `payload` has a [`duration`].
pub(super) fn front(payload_type: u8, payload: &[u8], limit: u32) -> (usize, u32) {
    let limit = limit as usize;
    let (bytes, ticks) = match payload_type {
        GSM => fixed_frames(payload, limit, GSM_FRAME_BYTES, GSM_TICKS),
        G723 => {
            let frames = (limit / G723_TICKS).max(1);
            let sizes = G723Frames(payload).map_while(|size| size).take(frames);
            sizes.fold((0, 0), |(bytes, ticks), size| (bytes + size, ticks + G723_TICKS))
        }
        G729 => fixed_frames(payload, limit, G729_FRAME_BYTES, G729_TICKS),
        _ => fixed_frames(payload, limit, 1, 1),
    };
    (bytes, ticks as u32)
}

/// True if the speech pauses after this payload: G.729 says so with a silence descriptor as its last frame,
/// which is shorter than the others.
pub(super) fn ends_speech(payload_type: u8, payload: &[u8]) -> bool {
    payload_type == G729 && !payload.len().is_multiple_of(G729_FRAME_BYTES)
}

fn fixed_frames(payload: &[u8], limit: usize, frame_bytes: usize, frame_ticks: usize) -> (usize, usize) {
    let frames = (limit / frame_ticks).max(1).min(payload.len().div_ceil(frame_bytes));
    ((frames * frame_bytes).min(payload.len()), frames * frame_ticks)
}

/// How many G.723 frames there are; `None` if they do not fill the payload exactly.
fn g723_frames(payload: &[u8]) -> Option<usize> {
    G723Frames(payload).try_fold(0, |frames, size| size.map(|_| frames + 1))
}

/// The lengths of G.723 frames, which may differ from frame to frame; `None` for what is no frame.
struct G723Frames<'a>(&'a [u8]);

impl Iterator for G723Frames<'_> {
    type Item = Option<usize>;

    fn next(&mut self) -> Option<Self::Item> {
        let size = match self.0.first()? & 0b11 {
            0b00 => Some(24),
            0b01 => Some(20),
            0b10 => Some(4),
            _ => None,
        };
        let rest = size.and_then(|size| self.0.get(size..));
        self.0 = rest.unwrap_or_default();
        Some(rest.and(size))
    }
}

const PCMU: u8 = 0;
const GSM: u8 = 3;
const G723: u8 = 4;
const PCMA: u8 = 8;
const G722: u8 = 9;
const G729: u8 = 18;

const GSM_FRAME_BYTES: usize = 33;
const GSM_TICKS: usize = 160;
const G723_TICKS: usize = 240;
const G729_FRAME_BYTES: usize = 10;
const G729_TICKS: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_how_long_payloads_last() {
        for (payload_type, len, ticks) in [
            (PCMU, 160, Some(160)),
            (PCMA, 1, Some(1)),
            (G722, 160, Some(160)),
            (GSM, 33, Some(160)),
            (GSM, 99, Some(480)),
            (GSM, 34, None),
            (G729, 10, Some(80)),
            (G729, 20, Some(160)),
            (G729, 22, Some(240)),
            (G729, 2, Some(80)),
            (101, 4, None),
            (13, 1, None),
            (5, 160, None),
            (PCMU, 0, None),
            (G729, 0, None),
        ] {
            assert_eq!(duration(payload_type, &vec![0; len]), ticks, "{payload_type} with {len} bytes");
        }
    }

    #[test]
    fn reads_the_frames_of_g723() {
        let frame = |kind: u8, len: usize| [vec![kind], vec![0xff; len - 1]].concat();
        let (high, low, silence) = (frame(0xfc, 24), frame(0xfd, 20), frame(0xfe, 4));
        for (payload, ticks) in [
            (high.clone(), Some(240)),
            (low.clone(), Some(240)),
            (silence.clone(), Some(240)),
            ([high.clone(), low.clone(), silence.clone()].concat(), Some(720)),
            (frame(0xff, 24), None),
            ([low.clone(), frame(0xff, 4)].concat(), None),
            (high[..23].to_vec(), None),
        ] {
            assert_eq!(duration(G723, &payload), ticks, "{payload:02x?}");
        }
        let mixed = [low, silence, high].concat();
        assert_eq!(front(G723, &mixed, 480), (24, 480));
        assert_eq!(front(G723, &mixed, 9999), (48, 720));
    }

    #[test]
    fn cuts_between_frames() {
        assert_eq!(front(PCMU, &[0; 160], 80), (80, 80));
        assert_eq!(front(G722, &[0; 160], 80), (80, 80));
        assert_eq!(front(PCMA, &[0; 100], 160), (100, 100));
        assert_eq!(front(GSM, &[0; 99], 320), (66, 320));
        assert_eq!(front(G729, &[0; 22], 160), (20, 160));
        assert_eq!(front(G729, &[0; 22], 240), (22, 240));
        // Never nothing, so that there is always progress.
        assert_eq!(front(GSM, &[0; 99], 80), (33, 160));
    }
}
