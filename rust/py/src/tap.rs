//! Live taps as Python sees them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rtpproxy_core::command::{Command, ErrorCode, MediaReply, Party, Reply};
use rtpproxy_core::recording::{Channel, Leg};
use rtpproxy_core::rtp::RtpView;
use rtpproxy_relay::client::{ListeningTap, TapSockets};
#[cfg(target_os = "linux")]
use rtpproxy_relay::tap::AttachedTap;
use rtpproxy_relay::tap::{Taken, TapHead, TapLimits, TapPacket};

use crate::door::{Door, seconds};
use crate::error;
use crate::socket::Socket;
use crate::wait;

/// A live tap of one session.
#[pyclass(frozen, module = "rtpproxy._rtpproxy")]
pub(crate) struct Tap {
    source: Source,
    has_ended: AtomicBool,
    /// The process it was opened in.
    process: u32,
}

enum Source {
    /// A session of a relay in this process.
    #[cfg(target_os = "linux")]
    Attached(AttachedTap),
    /// A session elsewhere.
    Listening(Listening),
}

struct Listening {
    tap: ListeningTap,
    door: Py<Door>,
    party: Party,
    at: SocketAddr,
}

/// Leg, channel, time in nanoseconds, source, destination, the datagram, and of RTP: payload type, marker, sequence
/// number, timestamp, SSRC, and where its payload begins and ends.
type Fields<'py> =
    (&'static str, &'static str, u64, Option<Place>, Option<Place>, Bound<'py, PyBytes>, Option<RtpFields>);
type Place = (String, u16);
type RtpFields = (u8, bool, u16, u32, u32, usize, usize);

#[pymethods]
impl Tap {
    /// The packets that are there, at most `max_packets`; waits for a first one. None at the end, or when none came in time.
    fn take<'py>(
        &self,
        py: Python<'py>,
        max_packets: usize,
        timeout_s: Option<f64>,
    ) -> PyResult<Vec<Fields<'py>>> {
        if self.process != std::process::id() {
            return Err(error::closed("it belongs to the parent process"));
        }
        let timeout = timeout_s.map(|timeout| seconds("timeout_s", timeout)).transpose()?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let ask_at = Instant::now() + ASK_PERIOD;
            let until = deadline.map_or(ask_at, |deadline| deadline.min(ask_at));
            match wait::in_slices(py, Some(until), |slice| self.attempt(max_packets, slice))? {
                Some(Taken::Packets(packets)) => {
                    return Ok(packets.into_iter().map(|packet| fields(py, packet)).collect());
                }
                Some(Taken::End) => {
                    self.has_ended.store(true, Ordering::Release);
                    return Ok(Vec::new());
                }
                Some(Taken::Nothing) | None => {}
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(Vec::new());
            }
            self.ask_for_session(py)?;
        }
    }

    /// How many packets found no room.
    #[getter]
    fn dropped(&self) -> u64 {
        match &self.source {
            #[cfg(target_os = "linux")]
            Source::Attached(tap) => tap.dropped(),
            Source::Listening(listening) => listening.tap.dropped(),
        }
    }

    /// True once nothing can come any more.
    #[getter]
    fn ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Takes it off; does nothing the second time, and in a child process.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.has_ended.swap(true, Ordering::AcqRel) || self.process != std::process::id() {
            return Ok(());
        }
        match &self.source {
            #[cfg(target_os = "linux")]
            Source::Attached(tap) => {
                py.detach(|| tap.close());
                Ok(())
            }
            Source::Listening(listening) => listening.close(py),
        }
    }
}

impl Tap {
    /// Of a session in this process.
    #[cfg(target_os = "linux")]
    pub(crate) fn attached(tap: AttachedTap) -> Self {
        Self::new(Source::Attached(tap))
    }

    /// Of a session elsewhere: has the relay copy what both parties send to ports of our own.
    pub(crate) fn listen(
        py: Python<'_>,
        door: Py<Door>,
        socket: &Socket,
        party: &Party,
        limits: TapLimits,
    ) -> PyResult<Self> {
        let Some(other) = exchanged(party) else {
            return Err(PyValueError::new_err("to_tag: needed to tap a call through a control socket"));
        };
        let Some(ip) = socket.tap_address() else {
            return Err(error::other("taps need an IPv4 address to listen at: Client(…, tap_address=…)"));
        };
        let sockets = TapSockets::bind(ip)?;
        let at = sockets.at();
        let ways = door.get();
        // Whoever cannot end one copy cannot be left alone with it.
        match ways.call(py, stop_copy(party, at)) {
            Err(error) if error::has_code(py, &error, ErrorCode::UNKNOWN_COMMAND) => {
                let reason = "this relay cannot be tapped: it is the C program, or was started with --compat";
                return Err(error::other(reason));
            }
            Err(error) if error::has_code(py, &error, ErrorCode::NOT_FOUND) => {}
            answered => drop(answered?),
        }
        let caller = copy(py, ways, party, at)?;
        let callee = copy(py, ways, &other, at);
        let tap = callee.and_then(|callee| {
            let sources = [(caller, Leg::Caller), (callee, Leg::Callee)];
            Ok(sockets.listen(sources, limits)?)
        });
        match tap {
            Ok(tap) => Ok(Self::new(Source::Listening(Listening { tap, door, party: party.clone(), at }))),
            Err(error) => {
                end_copies(py, ways, party, at)?;
                Err(error)
            }
        }
    }

    fn new(source: Source) -> Self {
        Self { source, has_ended: AtomicBool::new(false), process: std::process::id() }
    }

    fn attempt(&self, max: usize, wait: Duration) -> Option<Taken> {
        let taken = match &self.source {
            #[cfg(target_os = "linux")]
            Source::Attached(tap) => tap.take(max, wait),
            Source::Listening(listening) => listening.tap.take(max, wait),
        };
        (taken != Taken::Nothing).then_some(taken)
    }

    /// A relay elsewhere does not tell that a session is over.
    fn ask_for_session(&self, py: Python<'_>) -> PyResult<()> {
        #[cfg_attr(not(target_os = "linux"), expect(irrefutable_let_patterns, reason = "one kind only"))]
        let Source::Listening(listening) = &self.source else { return Ok(()) };
        let party = listening.party.clone();
        let query = Command::Query { party, modifiers: [].into(), names: Vec::new(), subs: Vec::new() };
        match listening.door.get().call(py, query) {
            Err(error) if error::has_code(py, &error, ErrorCode::NOT_FOUND) => {
                listening.tap.close();
                Ok(())
            }
            answered => answered.map(drop),
        }
    }
}

impl Listening {
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.tap.close();
        end_copies(py, self.door.get(), &self.party, self.at)
    }
}

/// Starts the copies of what one party sends; returns where they come from.
fn copy(py: Python<'_>, door: &Door, party: &Party, at: SocketAddr) -> PyResult<SocketAddr> {
    let target = target(at);
    let command = Command::Copy { party: party.clone(), target, single_file: false, report_port: true };
    let Reply::Media(MediaReply { port, addr: Some(addr), .. }) = door.call(py, command)? else {
        return Err(error::other("the relay does not say where copies come from"));
    };
    let ip = addr.parse().map_err(|_| error::other("the relay does not say where copies come from"))?;
    Ok(SocketAddr::new(ip, port))
}

/// Ends the copies of what both parties send, as far as there are any.
fn end_copies(py: Python<'_>, door: &Door, party: &Party, at: SocketAddr) -> PyResult<()> {
    for party in [Some(party.clone()), exchanged(party)].into_iter().flatten() {
        match door.call(py, stop_copy(&party, at)) {
            // They end with the session, and with the relay; then there is nothing to be told.
            Err(error) if error::is_ours(py, &error) => {}
            answered => drop(answered?),
        }
    }
    Ok(())
}

fn stop_copy(party: &Party, at: SocketAddr) -> Command {
    Command::StopCopy { party: party.clone(), target: target(at) }
}

fn target(at: SocketAddr) -> Box<[u8]> {
    format!("udp:{at}").into_bytes().into()
}

/// The party on the other side, if its tag is known.
fn exchanged(party: &Party) -> Option<Party> {
    let from_tag = party.to_tag.clone()?;
    Some(Party { call_id: party.call_id.clone(), from_tag, to_tag: Some(party.from_tag.clone()) })
}

fn fields(py: Python<'_>, packet: TapPacket) -> Fields<'_> {
    let TapPacket { head: TapHead { leg, channel, at, src, dst }, data } = packet;
    let (channel, rtp) = match channel {
        Channel::Rtp => ("rtp", RtpView::parse(&data).ok()),
        Channel::Rtcp => ("rtcp", None),
    };
    let rtp = rtp.map(|rtp| {
        let begin = rtp.header_len();
        let end = begin + rtp.payload().len();
        (rtp.payload_type(), rtp.marker(), rtp.sequence(), rtp.timestamp(), rtp.ssrc(), begin, end)
    });
    let place = |addr: SocketAddr| (addr.ip().to_string(), addr.port());
    (leg.name(), channel, at.0, src.map(place), dst.map(place), PyBytes::new(py, &data), rtp)
}

/// How long nothing may come before it is asked whether the session is still there.
const ASK_PERIOD: Duration = Duration::from_secs(1);
