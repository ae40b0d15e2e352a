//! Carrying out what an engine decided.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rtpproxy_core::effects::{Effect, Out, Packet, PairId, Payload, TapId, TappedPacket};
use rtpproxy_core::time::{Mono, Wall};

use crate::host::Ports;
use crate::io::MediaIo;
use crate::modules::ModuleTap;
use crate::notifier::NotifyHandle;
use crate::preroll::Store;
use crate::recorder::RecorderTap;
use crate::tap::{Inlet, TapHead};

/// The hands of one worker: its sockets, and the ways to the recorder, the modules and the notifier.
pub(crate) struct Carrier<I> {
    /// The media sockets.
    pub(crate) io: I,
    /// The ports of the process.
    pub(crate) ports: Arc<Ports>,
    /// With `--preroll`.
    pub(crate) preroll: Option<Store>,
    tap: RecorderTap,
    /// When something recorded must be handed over at the latest.
    flush_by: Option<Mono>,
    modules: ModuleTap,
    notify: NotifyHandle,
    send_errors: SendErrors,
    pub(crate) copy_errors: CopyErrors,
    /// Where the packets for taps go.
    pub(crate) taps: HashMap<TapId, Box<Inlet>>,
}

impl<I: MediaIo> Carrier<I> {
    /// Hands with nothing to do yet.
    pub(crate) fn new(
        io: I,
        ports: Arc<Ports>,
        tap: RecorderTap,
        preroll: Option<Store>,
        modules: ModuleTap,
        notify: NotifyHandle,
    ) -> Self {
        let (send_errors, copy_errors) = (SendErrors::default(), CopyErrors::default());
        let taps = HashMap::new();
        let flush_by = None;
        Self { io, ports, preroll, tap, flush_by, modules, notify, send_errors, copy_errors, taps }
    }

    /// Does everything in `out`, in order, and empties it. `packet` is the one that was being handled, if any.
    pub(crate) fn carry_out(&mut self, now: Mono, packet: &Packet, out: &mut Out) {
        let Out { effects, scratch } = out;
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { payload, via, to } => {
                    if let Err(error) = self.io.send(via, to, bytes(&payload, packet, scratch)) {
                        self.send_errors.count(now, to, &error);
                    }
                }
                Effect::Copy { payload, via, to } => {
                    if let Err(error) = self.io.send(via, to, bytes(&payload, packet, scratch)) {
                        self.copy_errors.count(via.pair, to, &error);
                    }
                }
                Effect::Tap(tapped) => {
                    if let Some(inlet) = self.taps.get_mut(&tapped.id) {
                        let TappedPacket { leg, channel, at, src, dst, ref payload, id: _ } = tapped;
                        let head = TapHead { leg, channel, at, src: Some(src), dst: Some(dst) };
                        inlet.push(head, bytes(payload, packet, scratch));
                    }
                }
                Effect::TapEnd(id) => drop(self.taps.remove(&id)),
                Effect::Record(record) => {
                    self.tap.packet(&record, bytes(&record.payload, packet, scratch));
                    self.flush_by.get_or_insert(now);
                }
                Effect::Recording(event) => {
                    self.tap.event(event);
                    self.flush_by.get_or_insert(now);
                }
                Effect::Keep(kept) => {
                    if let Some(store) = &mut self.preroll {
                        store.keep(&kept, bytes(&kept.payload, packet, scratch));
                    }
                }
                Effect::HandOver(order) => {
                    if let Some(preroll) = self.preroll.as_mut().and_then(|store| store.hand_over(&order)) {
                        self.tap.preroll(preroll);
                    }
                }
                Effect::Forget(id) => {
                    if let Some(store) = &mut self.preroll {
                        store.forget(id);
                    }
                }
                Effect::SetTos { pair, tos } => {
                    if let Err(error) = self.io.set_tos(pair, tos) {
                        tracing::error!("cannot set the TOS byte of a media socket: {error}");
                    }
                }
                Effect::Close(id) => {
                    self.copy_errors.close(id);
                    if let Some(local) = self.io.close_pair(id) {
                        self.ports.release(now, local);
                    }
                }
                Effect::Notify { target, text } => self.notify.send(target, text),
                Effect::Rtcp(captured) => {
                    self.modules.rtcp(&captured, bytes(&captured.payload, packet, scratch));
                }
                Effect::Ended(end) => self.modules.session_ended(end),
            }
        }
        scratch.clear();
    }

    /// Ends a batch: what was recorded is handed over once it is old or much enough, what was kept is freed once it is
    /// too old. All packets that came until `settled` were in this batch or in earlier ones.
    pub(crate) fn flush(&mut self, now: Mono, settled: Wall) {
        if let Some(store) = &mut self.preroll {
            store.sweep(now);
        }
        if self.flush_by.is_some() {
            self.flush_by = self.tap.flush(now, settled);
        }
    }

    /// When [`Self::flush`] wants to be called at the latest.
    pub(crate) fn deadline(&self) -> Mono {
        let sweep = self.preroll.as_ref().map(Store::deadline);
        self.flush_by.into_iter().chain(sweep).min().unwrap_or(Mono(u64::MAX))
    }
}

fn bytes<'a>(payload: &Payload, packet: &'a Packet, scratch: &'a [u8]) -> &'a [u8] {
    match payload {
        Payload::Received => packet.payload(),
        Payload::Scratch(range) => &scratch[range.clone()],
    }
}

/// Packets that could not be sent, by kind of error. A kind is logged at most once a minute.
#[derive(Debug, Default)]
struct SendErrors {
    kinds: Vec<SendError>,
}

#[derive(Debug)]
struct SendError {
    code: Option<i32>,
    logged: Mono,
    since: u64,
}

impl SendErrors {
    /// Counts a packet to `to`; true if the error was logged.
    fn count(&mut self, now: Mono, to: SocketAddr, error: &io::Error) -> bool {
        let code = error.raw_os_error();
        let Some(kind) = self.kinds.iter_mut().find(|kind| kind.code == code) else {
            tracing::warn!("cannot send to {to}: {error}");
            self.kinds.push(SendError { code, logged: now, since: 0 });
            return true;
        };
        kind.since += 1;
        if now.since(kind.logged) < LOG_INTERVAL {
            return false;
        }
        tracing::warn!("cannot send to {to}: {error}; {} packets like this since the last line", kind.since);
        (kind.logged, kind.since) = (now, 0);
        true
    }
}

/// Copies that a receiver did not get, by the pair of sockets that is the receiver's own. One is told of once, and
/// at its end with their number.
#[derive(Debug, Default)]
pub(crate) struct CopyErrors(HashMap<PairId, (SocketAddr, u64)>);

impl CopyErrors {
    /// Counts a copy; true if the error was logged.
    fn count(&mut self, pair: PairId, to: SocketAddr, error: &io::Error) -> bool {
        let (_, count) = self.0.entry(pair).or_insert((to, 0));
        *count += 1;
        if *count > 1 {
            return false;
        }
        tracing::warn!("cannot send copies to {to}: {error}");
        true
    }

    /// The pair is no more, or belongs to another worker from now on. Gives back how many copies it could not send.
    pub(crate) fn close(&mut self, pair: PairId) -> u64 {
        // Looked at first, as nearly always there are none.
        if self.0.is_empty() {
            return 0;
        }
        let Some((to, count)) = self.0.remove(&pair) else { return 0 };
        tracing::warn!("{count} copies could not be sent to {to}");
        count
    }
}

const LOG_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_told_of_once_and_at_its_end() {
        let mut errors = CopyErrors::default();
        let to = SocketAddr::from(([192, 0, 2, 1], 4000));
        let refused = || io::Error::from_raw_os_error(111);
        assert!(errors.count(PairId(3), to, &refused()));
        assert!(!errors.count(PairId(3), to, &refused()));
        assert!(errors.count(PairId(4), to, &refused()));
        assert_eq!([3, 4, 5, 3].map(|pair| errors.close(PairId(pair))), [2, 1, 0, 0]);
        assert!(errors.count(PairId(3), to, &refused()), "another receiver has the pair now");
    }

    #[test]
    fn each_kind_of_error_is_logged_once_a_minute() {
        let mut errors = SendErrors::default();
        let to = SocketAddr::from(([192, 0, 2, 1], 4000));
        let full = io::Error::from_raw_os_error(105);
        let refused = io::Error::from_raw_os_error(111);
        let start = Mono(1);
        assert!(errors.count(start, to, &full));
        assert!(errors.count(start, to, &refused));
        for second in 1..60 {
            assert!(!errors.count(start + Duration::from_secs(second), to, &full));
        }
        assert_eq!(errors.kinds[0].since, 59);
        assert!(errors.count(start + LOG_INTERVAL, to, &full));
        assert!(!errors.count(start + LOG_INTERVAL, to, &full));
    }
}
