//! The way to a relay, as Python sees it.

use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rtpproxy_core::command::{Command, ErrorCode, MediaReply, NotifyArgs, Reply, StatValue};
use rtpproxy_core::stats::COUNTERS;
use rtpproxy_relay::client::ClientOptions;

use crate::arguments::{self, Bytes, Host, OfferArgs, PartyArgs};
use crate::error;
use crate::events::{Events, Notification};
#[cfg(target_os = "linux")]
use crate::in_process::InProcess;
use crate::socket::Socket;
use crate::tap::Tap;
use crate::wait;

/// The way to one relay. May be used from many threads.
#[pyclass(frozen, module = "rtpproxy._rtpproxy")]
pub(crate) struct Door {
    way: Way,
    /// The process it was opened in: threads do not survive a fork.
    process: u32,
}

enum Way {
    #[cfg(target_os = "linux")]
    InProcess(Box<InProcess>),
    Socket(Socket),
}

/// Port, address unless it is the wildcard, and whether that is IPv6.
type LegFields = (u16, Option<String>, bool);

#[pymethods]
impl Door {
    /// Starts a relay in this process, set up by options of the command line.
    #[staticmethod]
    fn relay(py: Python<'_>, options: Vec<std::ffi::OsString>) -> PyResult<Self> {
        #[cfg(target_os = "linux")]
        return Ok(Self::new(Way::InProcess(Box::new(InProcess::start(py, options)?))));
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (py, options);
            Err(error::not_started(
                "a relay runs on Linux only; use Client for one that runs elsewhere".into(),
            ))
        }
    }

    /// Connects to the control socket of a running relay.
    #[staticmethod]
    fn connect(
        py: Python<'_>,
        address: String,
        timeout_s: f64,
        retries: u32,
        events: Option<String>,
        record_events: Option<String>,
        tap_address: Option<Host>,
    ) -> PyResult<Self> {
        let timeout = seconds("timeout_s", timeout_s)?;
        if timeout.is_zero() {
            return Err(PyValueError::new_err("timeout_s: must not be 0"));
        }
        let options = ClientOptions { timeout, retries };
        let tap_address = tap_address.map(arguments::tap_address).transpose()?;
        let (events, record_events) = (events.as_deref(), record_events.as_deref());
        let socket = Socket::connect(py, address, options, events, record_events, tap_address)?;
        Ok(Self::new(Way::Socket(socket)))
    }

    /// `U`
    #[expect(clippy::too_many_arguments, reason = "each is an argument of Python")]
    fn start(
        &self,
        py: Python<'_>,
        call_id: Bytes,
        from_tag: Bytes,
        to_tag: Option<Bytes>,
        media: Option<(Host, i64)>,
        codecs: Option<Vec<i64>>,
        notify: Option<String>,
        weak: bool,
        asymmetric: Option<bool>,
        bind: Option<Host>,
        route_to: Option<Host>,
        directions: Option<Vec<String>>,
        new_port: bool,
        media_number: Option<i64>,
    ) -> PyResult<LegFields> {
        let party = PartyArgs { call_id, from_tag, to_tag, media_number };
        let args = OfferArgs { party, media, codecs, weak, asymmetric, bind, route_to, directions, new_port };
        let notify = notify.map(|tag| self.notify(tag)).transpose()?;
        self.leg(py, Command::Update(args.offer(notify)?))
    }

    /// `L`
    #[expect(clippy::too_many_arguments, reason = "each is an argument of Python")]
    fn lookup(
        &self,
        py: Python<'_>,
        call_id: Bytes,
        from_tag: Bytes,
        to_tag: Bytes,
        media: Option<(Host, i64)>,
        codecs: Option<Vec<i64>>,
        weak: bool,
        asymmetric: Option<bool>,
        bind: Option<Host>,
        route_to: Option<Host>,
        directions: Option<Vec<String>>,
        new_port: bool,
        media_number: Option<i64>,
    ) -> PyResult<LegFields> {
        let party = PartyArgs { call_id, from_tag, to_tag: Some(to_tag), media_number };
        let args = OfferArgs { party, media, codecs, weak, asymmetric, bind, route_to, directions, new_port };
        self.leg(py, Command::Lookup(args.offer(None)?))
    }

    /// `R`
    fn record(
        &self,
        py: Python<'_>,
        call_id: Bytes,
        from_tag: Bytes,
        to_tag: Option<Bytes>,
        media_number: Option<i64>,
    ) -> PyResult<()> {
        let party = PartyArgs { call_id, from_tag, to_tag, media_number }.party()?;
        self.done(py, Command::Record { party, single_file: false })
    }

    /// `N`
    fn stop_recording(
        &self,
        py: Python<'_>,
        call_id: Bytes,
        from_tag: Bytes,
        to_tag: Option<Bytes>,
        media_number: Option<i64>,
    ) -> PyResult<()> {
        let party = PartyArgs { call_id, from_tag, to_tag, media_number }.party()?;
        self.done(py, Command::StopRecord { party, both: false })
    }

    /// `Cp` to a host: where the copies come from.
    fn copy(
        &self,
        py: Python<'_>,
        call_id: Bytes,
        from_tag: Bytes,
        to_tag: Option<Bytes>,
        to: (Host, i64),
        media_number: Option<i64>,
    ) -> PyResult<(String, u16)> {
        let party = PartyArgs { call_id, from_tag, to_tag, media_number }.party()?;
        let target = arguments::receiver(to)?;
        match self.call(py, Command::Copy { party, target, single_file: false, report_port: true })? {
            Reply::Media(MediaReply { port, addr: Some(addr), .. }) => Ok((addr.into(), port)),
            _ => Err(unexpected()),
        }
    }

    /// `?uncopy`
    fn stop_copy(
        &self,
        py: Python<'_>,
        call_id: Bytes,
        from_tag: Bytes,
        to_tag: Option<Bytes>,
        to: (Host, i64),
        media_number: Option<i64>,
    ) -> PyResult<()> {
        let party = PartyArgs { call_id, from_tag, to_tag, media_number }.party()?;
        self.done(py, Command::StopCopy { party, target: arguments::receiver(to)? })
    }

    /// Taps a session.
    fn tap(
        slf: Bound<'_, Self>,
        call_id: Bytes,
        from_tag: Bytes,
        to_tag: Option<Bytes>,
        media_number: Option<i64>,
        max_packets: i64,
        max_bytes: i64,
    ) -> PyResult<Tap> {
        let party = PartyArgs { call_id, from_tag, to_tag, media_number }.party()?;
        let limits = arguments::tap_limits(max_packets, max_bytes)?;
        let py = slf.py();
        let door = slf.get();
        door.open()?;
        match &door.way {
            #[cfg(target_os = "linux")]
            Way::InProcess(relay) => {
                let tapped = relay.tap(py, party.clone(), limits)?;
                tapped.map(Tap::attached).map_err(|error| error::not_tapped(error, &party))
            }
            Way::Socket(socket) => Tap::listen(py, slf.as_unbound().clone_ref(py), socket, &party, limits),
        }
    }

    /// `D`
    fn stop(
        &self,
        py: Python<'_>,
        call_id: Bytes,
        from_tag: Bytes,
        to_tag: Option<Bytes>,
        weak: bool,
        media_number: Option<i64>,
    ) -> PyResult<()> {
        let party = PartyArgs { call_id, from_tag, to_tag, media_number }.party()?;
        self.done(py, Command::Delete { party, weak })
    }

    /// `X`
    fn stop_all(&self, py: Python<'_>) -> PyResult<()> {
        self.done(py, Command::DeleteAll)
    }

    /// `Q` without names: ttl, packets of the one and of the other party, relayed, dropped.
    fn stats(
        &self,
        py: Python<'_>,
        call_id: Bytes,
        from_tag: Bytes,
        to_tag: Option<Bytes>,
        media_number: Option<i64>,
    ) -> PyResult<(i64, i64, i64, i64, i64)> {
        let party = PartyArgs { call_id, from_tag, to_tag, media_number }.party()?;
        let command = Command::Query { party, modifiers: [].into(), names: Vec::new(), subs: Vec::new() };
        match self.call(py, command)? {
            Reply::Stats { values, .. } => {
                let whole = |index: usize| values.get(index).map(|(_, value)| whole(*value));
                let five = || Some((whole(0)?, whole(1)?, whole(2)?, whole(3)?, whole(4)?));
                five().ok_or_else(unexpected)
            }
            _ => Err(unexpected()),
        }
    }

    /// `Q` with names.
    fn query<'py>(
        &self,
        py: Python<'py>,
        call_id: Bytes,
        from_tag: Bytes,
        to_tag: Option<Bytes>,
        names: Vec<String>,
        media_number: Option<i64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        if to_tag.is_none() {
            return Err(PyValueError::new_err("to_tag: needed to ask for names"));
        }
        let party = PartyArgs { call_id, from_tag, to_tag, media_number }.party()?;
        self.figures(py, arguments::names(names)?, |names| Command::Query {
            party: party.clone(),
            modifiers: [].into(),
            names,
            subs: Vec::new(),
        })
    }

    /// `I`: sessions created and active, streams, packets received and transmitted.
    fn info(&self, py: Python<'_>) -> PyResult<(u64, u64, u64, u64, u64)> {
        match self.call(py, Command::Info { load: false })? {
            Reply::Info(info) => Ok((
                info.sessions_created,
                info.sessions_active,
                info.streams_active,
                info.packets_received,
                info.packets_transmitted,
            )),
            _ => Err(unexpected()),
        }
    }

    /// `G`; without names, all.
    fn counters<'py>(&self, py: Python<'py>, names: Vec<String>) -> PyResult<Bound<'py, PyDict>> {
        let all = || COUNTERS.iter().map(|name| name.as_bytes().into()).collect();
        let names = if names.is_empty() { all() } else { arguments::names(names)? };
        self.figures(py, names, |names| Command::Counters { verbose: false, names })
    }

    /// `?recordings`: one page of JSON
    fn recordings(&self, py: Python<'_>, after: u64) -> PyResult<String> {
        match self.call(py, Command::Recordings { after })? {
            Reply::Recordings(page) => Ok(page.into()),
            _ => Err(unexpected()),
        }
    }

    /// `V`
    fn version(&self, py: Python<'_>) -> PyResult<u32> {
        match self.call(py, Command::Version)? {
            Reply::Version => Ok(20_040_107),
            _ => Err(unexpected()),
        }
    }

    /// `VF`
    fn feature(&self, py: Python<'_>, number: i64) -> PyResult<bool> {
        if number < 0 {
            return Err(PyValueError::new_err("number: must not be negative"));
        }
        match self.call(py, Command::Feature(number.to_string().into_bytes().into()))? {
            Reply::Feature(known) => Ok(known),
            _ => Err(unexpected()),
        }
    }

    /// A raw command; the reply without its line end.
    fn command(&self, py: Python<'_>, text: Bytes) -> PyResult<String> {
        let text = arguments::raw_command(text)?;
        self.open()?;
        let mut reply = match &self.way {
            #[cfg(target_os = "linux")]
            Way::InProcess(relay) => relay.command(py, &text)?,
            Way::Socket(socket) => socket.command(py, text)?,
        };
        if reply.last() == Some(&b'\n') {
            reply.pop();
        }
        Ok(String::from_utf8_lossy(&reply).into_owned())
    }

    /// The next notification: whether it is of a recording, and the line of JSON then, else the tag of a timeout.
    /// `None` at the end, or when none came in time.
    fn next_event(&self, py: Python<'_>, timeout_s: Option<f64>) -> PyResult<Option<(bool, Vec<u8>)>> {
        let timeout = timeout_s.map(|timeout| seconds("timeout_s", timeout)).transpose()?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let events = self.events().ok_or_else(|| error::other("no notifications come here"))?;
        let taken = wait::in_slices(py, deadline, |slice| events.take(slice))?.flatten();
        Ok(taken.map(|notification| match notification {
            Notification::Timeout(tag) => (false, tag),
            Notification::Recording(line) => (true, line),
        }))
    }

    /// Has a relay in this process tell of recordings from now on.
    fn announce_recordings(&self) {
        match &self.way {
            #[cfg(target_os = "linux")]
            Way::InProcess(relay) => relay.announce_recordings(),
            // It was told at its start.
            Way::Socket(_) => {}
        }
    }

    /// True if notifications have a way to here.
    #[getter]
    fn hears_events(&self) -> bool {
        self.events().is_some()
    }

    #[getter]
    fn events_dropped(&self) -> u64 {
        self.events().map_or(0, Events::lost)
    }

    /// Ends it; does nothing the second time, and in a child process.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.open().is_err() {
            return Ok(());
        }
        match &self.way {
            #[cfg(target_os = "linux")]
            Way::InProcess(relay) => relay.close(py),
            Way::Socket(socket) => {
                socket.close();
                Ok(())
            }
        }
    }
}

impl Door {
    fn new(way: Way) -> Self {
        Self { way, process: std::process::id() }
    }

    /// Fails in a child process: what a door leads to lives in threads of the parent.
    fn open(&self) -> PyResult<()> {
        if self.process == std::process::id() {
            Ok(())
        } else {
            Err(error::closed("it belongs to the parent process"))
        }
    }

    /// Executes a typed command; what the relay refuses is an exception.
    pub(crate) fn call(&self, py: Python<'_>, command: Command) -> PyResult<Reply> {
        arguments::sendable(&command)?;
        self.open()?;
        let reply = match &self.way {
            #[cfg(target_os = "linux")]
            Way::InProcess(relay) => relay.call(py, command.clone())?,
            Way::Socket(socket) => socket.call(py, command.clone())?,
        };
        match reply {
            Reply::Error(code) => Err(error::refused(code, &command)),
            Reply::NoSession => Err(error::refused(ErrorCode::NOT_FOUND, &command)),
            reply => Ok(reply),
        }
    }

    fn done(&self, py: Python<'_>, command: Command) -> PyResult<()> {
        self.call(py, command).map(drop)
    }

    fn leg(&self, py: Python<'_>, command: Command) -> PyResult<LegFields> {
        match self.call(py, command)? {
            Reply::Media(MediaReply { port, addr, ipv6 }) => Ok((port, addr.map(String::from), ipv6)),
            _ => Err(unexpected()),
        }
    }

    fn figures<'py>(
        &self,
        py: Python<'py>,
        names: Vec<Box<[u8]>>,
        command: impl Fn(Vec<Box<[u8]>>) -> Command,
    ) -> PyResult<Bound<'py, PyDict>> {
        let figures = PyDict::new(py);
        for names in names.chunks(NAMES_MAX) {
            match self.call(py, command(names.to_vec()))? {
                Reply::Stats { values, .. } | Reply::Counters { values, .. } => {
                    for (name, value) in values {
                        match value {
                            StatValue::Real(real) => figures.set_item(&*name, real)?,
                            value => figures.set_item(&*name, whole(value))?,
                        }
                    }
                }
                _ => return Err(unexpected()),
            }
        }
        Ok(figures)
    }

    fn notify(&self, tag: String) -> PyResult<NotifyArgs> {
        let tag = arguments::notify_tag(tag)?;
        let socket = match &self.way {
            #[cfg(target_os = "linux")]
            Way::InProcess(_) => crate::in_process::NOTIFY_TARGET.into(),
            Way::Socket(socket) => socket.notify_target().ok_or_else(|| {
                PyValueError::new_err("notify: needs a place to listen, Client(…, events=…)")
            })?,
        };
        Ok(NotifyArgs { socket, tag })
    }

    fn events(&self) -> Option<&Events> {
        match &self.way {
            #[cfg(target_os = "linux")]
            Way::InProcess(relay) => Some(relay.events()),
            Way::Socket(socket) => socket.events(),
        }
    }
}

/// A whole number. The protocol writes a difference below zero as a large unsigned one.
fn whole(value: StatValue) -> i64 {
    match value {
        StatValue::Signed(number) => number,
        StatValue::Count(number) => number.cast_signed(),
        StatValue::Real(number) => number as i64,
    }
}

fn unexpected() -> PyErr {
    error::other("the relay's answer does not belong to the command")
}

/// A span of time in seconds that Python gave as `name`.
pub(crate) fn seconds(name: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("{name}: {seconds} is not a time span in seconds")))
}

/// Names in one `G` or `Q`, at most, so that every relay takes them.
const NAMES_MAX: usize = 11;
