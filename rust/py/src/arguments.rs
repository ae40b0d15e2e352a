//! Python's arguments as values of the protocol, checked before anything is sent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use rtpproxy_core::command::{
    CallId, Command, LocalSpec, MediaAddr, Modifier, Modifiers, NotifyArgs, Offer, Party, Tag,
};
use rtpproxy_relay::tap::TapLimits;

/// `str` or `bytes`.
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl FromPyObject<'_, '_> for Bytes {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = value.cast::<PyBytes>() {
            Ok(Self(bytes.as_bytes().to_vec()))
        } else if let Ok(text) = value.cast::<PyString>() {
            Ok(Self(text.to_cow()?.as_bytes().to_vec()))
        } else {
            Err(wrong_type(value, "str or bytes"))
        }
    }
}

/// `str`, `ipaddress.IPv4Address` or `ipaddress.IPv6Address`.
pub(crate) enum Host {
    Addr(IpAddr),
    /// Text that is no address.
    Other(String),
}

impl FromPyObject<'_, '_> for Host {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if let Ok(text) = value.cast::<PyString>() {
            let text = text.to_cow()?;
            return Ok(text.parse().map_or_else(|_| Self::Other(text.into_owned()), Self::Addr));
        }
        if value.hasattr("packed")? {
            return value.extract().map(Self::Addr);
        }
        Err(wrong_type(value, "str or an address of the ipaddress module"))
    }
}

/// The call and the tags of a command.
pub(crate) struct PartyArgs {
    pub(crate) call_id: Bytes,
    pub(crate) from_tag: Bytes,
    pub(crate) to_tag: Option<Bytes>,
    pub(crate) media_number: Option<i64>,
}

impl PartyArgs {
    /// The party, the media number appended to its tags.
    pub(crate) fn party(self) -> PyResult<Party> {
        let media_number = self.media_number.map(media_number).transpose()?;
        let tag = |name, bytes: Bytes| {
            let mut tag = token(name, bytes.0)?;
            if let Some(number) = media_number {
                tag.extend_from_slice(format!(";{number}").as_bytes());
            }
            Ok::<_, PyErr>(Tag::from(&*tag))
        };
        Ok(Party {
            call_id: CallId::from(&*token("call_id", self.call_id.0)?),
            from_tag: tag("from_tag", self.from_tag)?,
            to_tag: self.to_tag.map(|bytes| tag("to_tag", bytes)).transpose()?,
        })
    }
}

/// What `U` and `L` have in common.
pub(crate) struct OfferArgs {
    pub(crate) party: PartyArgs,
    pub(crate) media: Option<(Host, i64)>,
    pub(crate) codecs: Option<Vec<i64>>,
    pub(crate) weak: bool,
    pub(crate) asymmetric: Option<bool>,
    pub(crate) bind: Option<Host>,
    pub(crate) route_to: Option<Host>,
    pub(crate) directions: Option<Vec<String>>,
    pub(crate) new_port: bool,
}

impl OfferArgs {
    /// The offer, without sub-commands.
    pub(crate) fn offer(self, notify: Option<NotifyArgs>) -> PyResult<Offer> {
        let (media, ipv6) = self.media.map_or(Ok((MediaAddr::Unknown, false)), media)?;
        let mut modifiers = Vec::new();
        let mut switch = |on: bool, modifier: Modifier| {
            if on {
                modifiers.push(modifier);
            }
        };
        switch(ipv6, Modifier::Ipv6);
        switch(self.asymmetric == Some(true), Modifier::Asymmetric);
        switch(self.asymmetric == Some(false), Modifier::Symmetric);
        switch(self.weak, Modifier::Weak);
        switch(self.new_port, Modifier::NewPort);
        modifiers.extend(directions(self.directions.unwrap_or_default())?);
        modifiers.extend(local(self.bind, self.route_to)?);
        modifiers.extend(self.codecs.map(codecs).transpose()?);
        let party = self.party.party()?;
        Ok(Offer { party, modifiers: Modifiers(modifiers), media, notify, subs: Vec::new() })
    }
}

/// The target of a `C` to a host: the protocol knows IPv4 only, and RTCP goes one port above.
pub(crate) fn receiver((host, port): (Host, i64)) -> PyResult<Box<[u8]>> {
    let ip = address("to", host)?;
    if !ip.is_ipv4() {
        return Err(PyValueError::new_err(format!("to: {ip} is not an IPv4 address")));
    }
    if !(1..=65534).contains(&port) {
        return Err(PyValueError::new_err(format!("to: port {port} is not in 1 to 65534")));
    }
    Ok(format!("udp:{ip}:{port}").into_bytes().into())
}

/// An address of this machine where taps listen.
pub(crate) fn tap_address(host: Host) -> PyResult<Ipv4Addr> {
    match address("tap_address", host)? {
        IpAddr::V4(ip) if !ip.is_unspecified() => Ok(ip),
        ip => Err(PyValueError::new_err(format!("tap_address: {ip} is not an IPv4 address of this machine"))),
    }
}

/// How much may wait in a tap.
pub(crate) fn tap_limits(max_packets: i64, max_bytes: i64) -> PyResult<TapLimits> {
    let within = |name: &str, value: i64, min: usize, max: usize| {
        let value = usize::try_from(value).ok().filter(|value| (min..=max).contains(value));
        value.ok_or_else(|| PyValueError::new_err(format!("{name}: must be from {min} to {max}")))
    };
    Ok(TapLimits {
        packets: within("max_packets", max_packets, 1, TapLimits::PACKETS_MAX)?,
        bytes: within("max_bytes", max_bytes, TapLimits::BYTES_MIN, TapLimits::BYTES_MAX)?,
    })
}

/// The tag of a notification: any text that a line can carry.
pub(crate) fn notify_tag(text: String) -> PyResult<Box<[u8]>> {
    if text.is_empty() || text.contains('\n') {
        return Err(PyValueError::new_err("notify: must not be empty or contain a line feed"));
    }
    Ok(text.into_bytes().into())
}

/// Names of figures or counters.
pub(crate) fn names(names: Vec<String>) -> PyResult<Vec<Box<[u8]>>> {
    let checked = |name: String| Ok(token("names", name.into_bytes())?.into());
    names.into_iter().map(checked).collect()
}

/// The text of a raw command, without its line end.
pub(crate) fn raw_command(text: Bytes) -> PyResult<Vec<u8>> {
    let mut text = text.0;
    while matches!(text.last(), Some(b'\n' | b'\r')) {
        text.pop();
    }
    if text.contains(&b'\n') {
        return Err(PyValueError::new_err("text: one command only, no line feed inside"));
    }
    fits(&text)?;
    Ok(text)
}

/// Refuses a command that not every transport could carry.
pub(crate) fn sendable(command: &Command) -> PyResult<()> {
    fits(&command.encode())?;
    command
        .check()
        .map_err(|code| PyValueError::new_err(format!("no text means this command: {}", code.text())))
}

fn fits(text: &[u8]) -> PyResult<()> {
    if text.len() > COMMAND_BYTES_MAX {
        let message =
            format!("the command has {} bytes, at most {COMMAND_BYTES_MAX} are possible", text.len());
        return Err(PyValueError::new_err(message));
    }
    Ok(())
}

fn token(name: &str, bytes: Vec<u8>) -> PyResult<Vec<u8>> {
    let complaint = if bytes.is_empty() {
        "must not be empty"
    } else if bytes.iter().any(|byte| b"\0\t\n\r ".contains(byte)) {
        "must not contain white space or NUL"
    } else if bytes == b"&&" {
        "must not be &&"
    } else {
        return Ok(bytes);
    };
    Err(PyValueError::new_err(format!("{name}: {complaint}")))
}

fn media_number(number: i64) -> PyResult<u16> {
    u16::try_from(number)
        .map_err(|_| PyValueError::new_err(format!("media_number: {number} is not in 0 to 65535")))
}

fn media((host, port): (Host, i64)) -> PyResult<(MediaAddr, bool)> {
    let ip = address("media", host)?;
    if ip.is_unspecified() {
        return Ok((MediaAddr::Hold, ip.is_ipv6()));
    }
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok((MediaAddr::At(SocketAddr::new(ip, port)), ip.is_ipv6())),
        _ => Err(PyValueError::new_err(format!("media: port {port} is not in 1 to 65535"))),
    }
}

fn address(name: &str, host: Host) -> PyResult<IpAddr> {
    match host {
        Host::Addr(ip) => Ok(ip),
        Host::Other(text) => Err(PyValueError::new_err(format!("{name}: {text:?} is not an IP address"))),
    }
}

fn directions(words: Vec<String>) -> PyResult<Vec<Modifier>> {
    if words.len() > 2 {
        return Err(PyValueError::new_err("directions: at most two, towards the caller and the callee"));
    }
    let modifier = |word: String| match &*word {
        "internal" => Ok(Modifier::Internal),
        "external" => Ok(Modifier::External),
        _ => Err(PyValueError::new_err(format!("directions: {word:?} is neither 'internal' nor 'external'"))),
    };
    words.into_iter().map(modifier).collect()
}

fn local(bind: Option<Host>, route_to: Option<Host>) -> PyResult<Option<Modifier>> {
    match (bind, route_to) {
        (None, None) => Ok(None),
        (Some(Host::Addr(ip)), None) => Ok(Some(Modifier::Local(LocalSpec::Addr(ip)))),
        (Some(Host::Other(label)), None) => {
            token("bind", label.clone().into_bytes())?;
            if label.contains('}') {
                return Err(PyValueError::new_err("bind: a label must not contain }"));
            }
            Ok(Some(Modifier::Local(LocalSpec::Label(label.into()))))
        }
        (None, Some(host)) => Ok(Some(Modifier::RouteTo(address("route_to", host)?))),
        (Some(_), Some(_)) => Err(PyValueError::new_err("bind and route_to exclude each other")),
    }
}

fn codecs(payload_types: Vec<i64>) -> PyResult<Modifier> {
    if payload_types.is_empty() {
        return Err(PyValueError::new_err("codecs: must not be empty"));
    }
    if let Some(wrong) = payload_types.iter().find(|payload_type| !(0..=127).contains(*payload_type)) {
        return Err(PyValueError::new_err(format!("codecs: payload type {wrong} is not in 0 to 127")));
    }
    let list: Vec<String> = payload_types.iter().map(i64::to_string).collect();
    Ok(Modifier::Codecs(list.join(",").into()))
}

fn wrong_type(value: Borrowed<'_, '_, PyAny>, wanted: &str) -> PyErr {
    let name = value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("must be {wanted}, not {name}"))
}

/// The longest command that every control transport carries, in bytes; a datagram needs some for its cookie.
const COMMAND_BYTES_MAX: usize = 8000;
