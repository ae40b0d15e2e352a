//! The C program's own format: 30 bytes before each packet (`rtpproxy_core::adhoc`).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rtpproxy_core::adhoc::HEADER_LEN;
use rtpproxy_core::time::Wall;

use super::{CaptureError, Origin, Packet, Record, chunk};

#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn next(&mut self) -> Option<Record<'a>> {
        (self.at < self.bytes.len()).then(|| self.record().map(Some))
    }

    fn record(&mut self) -> Result<Packet<'a>, CaptureError> {
        let at = self.at;
        let cut = |what| CaptureError::Cut { what, at };
        // A file that is something else is recognised before its length would matter.
        let source = self.bytes.get(at..).and_then(source);
        let header: [u8; HEADER_LEN] = chunk(self.bytes, at).ok_or(cut("the header of a packet"))?;
        let source = source.ok_or(CaptureError::Broken {
            reason: "neither a known capture format nor an address of the ad-hoc format",
            at,
        })?;
        let [seconds @ .., _, _] = *header.last_chunk::<10>().expect("the header has 30 bytes");
        let seconds = Wall::from_seconds(f64::from_ne_bytes(seconds));
        let at_wall = seconds.ok_or(CaptureError::Broken { reason: "an impossible time", at: at + 20 })?;
        let len = usize::from(u16::from_ne_bytes([header[28], header[29]]));
        let start = at + HEADER_LEN;
        let payload = self.bytes.get(start..start + len).ok_or(cut("a packet"))?;
        self.at = start + len;
        Ok(Packet { at: at_wall, source, destination: None, origin: Origin::Unnamed, payload })
    }
}

/// The address at the start of a header, if it is one.
fn source(header: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(chunk(header, 2)?);
    match u16::from_ne_bytes(chunk(header, 0)?) {
        2 => Some((Ipv4Addr::from(chunk::<4>(header, 4)?), port).into()),
        10 | 28 | 30 => Some((Ipv6Addr::from(chunk::<16>(header, 4)?), port).into()),
        _ => None,
    }
}
