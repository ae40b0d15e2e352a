//! The C program's own format ([`crate::adhoc`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Measure, Origin, Packet, Piece, chunk, is_near};
use crate::adhoc::HEADER_LEN;
use crate::frame::Datagram;
use crate::time::Wall;

#[derive(Debug, Default)]
pub(super) struct Layout {
    last: Option<Wall>,
    /// Packets are missing since `last`.
    is_behind_hole: bool,
}

impl Layout {
    pub(super) fn measure(&self, window: &[u8]) -> Measure {
        let Some(header) = chunk::<HEADER_LEN>(window, 0) else { return Measure::More(HEADER_LEN) };
        if source(&header).is_none() {
            return Measure::Damaged("no address where a packet should begin");
        }
        let Some(at) = time(&header) else { return Measure::Damaged("an impossible time") };
        if !self.is_behind_hole && self.last.is_some_and(|last| !is_near(at, last)) {
            return Measure::Damaged("a time far from the one before");
        }
        let len = HEADER_LEN + usize::from(u16::from_ne_bytes([header[28], header[29]]));
        if window.len() < len { Measure::More(len) } else { Measure::Whole(len) }
    }

    pub(super) fn resembles(&self, window: &[u8], is_all: bool) -> Measure {
        let Some(header) = chunk::<HEADER_LEN>(window, 0) else { return Measure::More(HEADER_LEN) };
        let is_padded = !matches!(source(&header), Some(SocketAddr::V4(_))) || header[8..20] == [0; 12];
        let Some(at) = time(&header).filter(|_| is_padded && header[28..] != [0; 2]) else {
            return Measure::Damaged("nothing like a packet");
        };
        let measured = Self { is_behind_hole: true, ..*self }.measure(window);
        let is_timely = self.last.is_some_and(|last| is_near(at, last));
        match measured {
            // Either the call was silent for very long, or damage reaches into the time.
            Measure::Whole(len) if !is_timely => match chunk::<HEADER_LEN>(window, len) {
                None if is_all && self.last.is_none() => measured,
                None => Measure::More(len + HEADER_LEN),
                Some(next) if time(&next).is_some_and(|next| is_near(at, next)) => measured,
                Some(_) => Measure::Damaged("a time of its own"),
            },
            _ => measured,
        }
    }

    pub(super) fn parse<'a>(&self, piece: &'a [u8]) -> Piece<'a> {
        let Some(header) = chunk::<HEADER_LEN>(piece, 0) else { return Piece::Other };
        let (Some(src), Some(at)) = (source(&header), time(&header)) else { return Piece::Other };
        let payload = &piece[HEADER_LEN..];
        let datagram = Some(Datagram { src, dst: None, payload, is_intact: true });
        Piece::Packet(Packet {
            at,
            interface: 0,
            origin: Origin::Unnamed,
            dropped: 0,
            comments: Vec::new(),
            datagram,
        })
    }

    pub(super) fn accept(&mut self, what: &Piece<'_>) {
        if let Piece::Packet(packet) = what {
            (self.last, self.is_behind_hole) = (Some(packet.at), false);
        }
    }

    pub(super) fn note_hole(&mut self) {
        self.is_behind_hole = true;
    }
}

fn source(header: &[u8; HEADER_LEN]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(chunk(header, 2)?);
    let ip: IpAddr = match u16::from_ne_bytes(chunk(header, 0)?) {
        2 => Ipv4Addr::from(chunk::<4>(header, 4)?).into(),
        10 => Ipv6Addr::from(chunk::<16>(header, 4)?).into(),
        _ => return None,
    };
    Some((ip, port).into())
}

fn time(header: &[u8; HEADER_LEN]) -> Option<Wall> {
    Wall::from_seconds(f64::from_ne_bytes(chunk(header, 20)?)).filter(|at| (AFTER..BEFORE).contains(at))
}

/// The years 2000 and 2100.
const AFTER: Wall = Wall(946_684_800_000_000_000);
const BEFORE: Wall = Wall(4_102_444_800_000_000_000);
