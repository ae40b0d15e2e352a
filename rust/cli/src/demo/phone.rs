//! A phone of the demonstration: sends PCMU in real time, counts what it hears.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rtcp_types::{Compound, RtcpPacketWriter, RtcpPacketWriterExt, Sdes, SdesChunk, SdesItem, SenderReport};
use rtp_types::RtpPacketBuilder;
use rtpproxy_core::recording::Leg;
use rtpproxy_core::rtp::RtpView;

use super::clip::{Clip, FRAME_SAMPLES};

/// A phone with a pair of ports on the loopback interface.
#[derive(Debug)]
pub(super) struct Phone {
    leg: Leg,
    rtp: UdpSocket,
    rtcp: UdpSocket,
    ssrc: u32,
    /// Random, as [RFC 3550 section 5.1](https://www.rfc-editor.org/rfc/rfc3550#section-5.1) wants them.
    first_sequence: u16,
    first_timestamp: u32,
}

/// What became of a call, as its phone saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// The phone's own SSRC.
    pub(super) ssrc: u32,
    /// RTP packets sent.
    pub(super) rtp_sent: u64,
    /// RTCP packets sent.
    pub(super) rtcp_sent: u64,
    /// Different RTP packets of the other phone that arrived.
    pub(super) rtp_received: u64,
    /// RTCP packets that arrived.
    pub(super) rtcp_received: u64,
    /// The SSRC that the other phone sent.
    pub(super) peer_ssrc: Option<u32>,
    /// The interarrival jitter of [RFC 3550 section 6.4.1](https://www.rfc-editor.org/rfc/rfc3550#section-6.4.1)
    /// in milliseconds.
    pub(super) jitter_ms: f64,
}

impl Phone {
    /// A phone on 127.0.0.1 with a free even port and the odd one above it.
    pub(super) fn open(leg: Leg) -> io::Result<Self> {
        for _ in 0..PAIR_TRIES {
            let rtp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            let port = rtp.local_addr()?.port();
            if !port.is_multiple_of(2) {
                continue;
            }
            if let Ok(rtcp) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port + 1)) {
                rtcp.set_nonblocking(true)?;
                let random = || getrandom::u32().map_err(io::Error::other);
                let (ssrc, first_timestamp) = (random()?, random()?);
                return Ok(Self { leg, rtp, rtcp, ssrc, first_sequence: random()? as u16, first_timestamp });
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no free pair of ports"))
    }

    /// Its RTP port.
    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.rtp.local_addr()?.port())
    }

    /// Talks to the relay's `port` for `frames` times 20 ms and listens until the other phone is done.
    /// `progress` holds the number of frames sent.
    pub(super) fn call(self, port: u16, frames: u64, progress: &AtomicU64) -> io::Result<Heard> {
        let (rtp, rtcp) = (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv4Addr::LOCALHOST, port + 1));
        let clip = Clip::of(self.leg);
        let mut ear = Ear::new(self.ssrc);
        let start = Instant::now();
        for number in 0..frames {
            let due = start + FRAME * u32::try_from(number).unwrap_or(u32::MAX);
            self.listen_until(due, &mut ear)?;
            self.rtp.send_to(&self.packet(&clip, number)?, rtp)?;
            ear.heard.rtp_sent += 1;
            if number % REPORT_FRAMES == REPORT_FRAMES / 2 {
                self.rtcp.send_to(&self.report(&ear.heard)?, rtcp)?;
                ear.heard.rtcp_sent += 1;
            }
            progress.store(number + 1, Ordering::Relaxed);
        }
        let end = Instant::now() + PATIENCE;
        while ear.heard.rtp_received < frames && Instant::now() < end {
            self.listen_until(Instant::now() + FRAME, &mut ear)?;
        }
        // A report of the other phone may be on its way behind its last packet.
        self.listen_until(Instant::now() + FRAME, &mut ear)?;
        Ok(ear.heard)
    }

    fn listen_until(&self, due: Instant, ear: &mut Ear) -> io::Result<()> {
        let mut buffer = [0; 2048];
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.rtp.set_read_timeout(Some(left))?;
            match self.rtp.recv(&mut buffer) {
                Ok(length) => ear.rtp(&buffer[..length], Instant::now()),
                Err(error) if is_idle(&error) => {}
                Err(error) => return Err(error),
            }
        }
        while let Ok(length) = self.rtcp.recv(&mut buffer) {
            ear.rtcp(&buffer[..length]);
        }
        Ok(())
    }

    fn packet(&self, clip: &Clip, number: u64) -> io::Result<Vec<u8>> {
        let payload = clip.frame(number);
        RtpPacketBuilder::<_, &[u8]>::new()
            .payload_type(PCMU)
            .marker_bit(number == 0)
            .sequence_number(self.first_sequence.wrapping_add(number as u16))
            .timestamp(self.timestamp(number))
            .ssrc(self.ssrc)
            .payload(&payload[..])
            .write_vec()
            .map_err(io::Error::other)
    }

    fn timestamp(&self, number: u64) -> u32 {
        self.first_timestamp.wrapping_add((number as u32).wrapping_mul(FRAME_SAMPLES as u32))
    }

    /// A sender report with the name of the phone behind it, as RFC 3550 section 6.1 wants a compound.
    fn report(&self, heard: &Heard) -> io::Result<Vec<u8>> {
        let name = format!("{}@demo.invalid", self.leg.name());
        let report = SenderReport::builder(self.ssrc)
            .ntp_timestamp(ntp(SystemTime::now()))
            .rtp_timestamp(self.timestamp(heard.rtp_sent))
            .packet_count(heard.rtp_sent as u32)
            .octet_count((heard.rtp_sent as u32).wrapping_mul(FRAME_SAMPLES as u32));
        let names = Sdes::builder()
            .add_chunk(SdesChunk::builder(self.ssrc).add_item(SdesItem::builder(SdesItem::CNAME, &name)));
        let compound = Compound::builder().add_packet(report).add_packet(names);
        let mut bytes = vec![0; compound.calculate_size().map_err(io::Error::other)?];
        compound.write_into(&mut bytes).map_err(io::Error::other)?;
        Ok(bytes)
    }
}

/// Counts what a phone receives.
struct Ear {
    heard: Heard,
    seen: HashSet<u32>,
    /// When the first packet arrived, and its time stamp.
    first: Option<(Instant, u32)>,
    /// How much later than the first one the last packet was on its way.
    transit_ms: f64,
}

impl Ear {
    fn new(ssrc: u32) -> Self {
        let heard = Heard { ssrc, ..Heard::default() };
        Self { heard, seen: HashSet::new(), first: None, transit_ms: 0.0 }
    }

    fn rtp(&mut self, bytes: &[u8], at: Instant) {
        let Ok(packet) = RtpView::parse(bytes) else { return };
        // Sequence numbers come round in a long call, time stamps do not.
        if !self.seen.insert(packet.timestamp()) {
            return;
        }
        self.heard.rtp_received += 1;
        self.heard.peer_ssrc = Some(packet.ssrc());
        let (start, first) = *self.first.get_or_insert((at, packet.timestamp()));
        let arrival_ms = at.duration_since(start).as_secs_f64() * 1000.0;
        let sent_ms = f64::from(packet.timestamp().wrapping_sub(first) as i32) / SAMPLES_PER_MS;
        let difference_ms = arrival_ms - sent_ms - self.transit_ms;
        self.transit_ms += difference_ms;
        self.heard.jitter_ms += (difference_ms.abs() - self.heard.jitter_ms) / 16.0;
    }

    fn rtcp(&mut self, bytes: &[u8]) {
        if Compound::parse(bytes).is_ok() {
            self.heard.rtcp_received += 1;
        }
    }
}

fn is_idle(error: &io::Error) -> bool {
    // A refused port belongs to a relay that is gone: the missing packets say so.
    use io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted | ConnectionRefused)
}

/// The 64-bit time of [RFC 3550 section 4](https://www.rfc-editor.org/rfc/rfc3550#section-4).
fn ntp(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    (since.as_secs() + NTP_TO_UNIX_S) << 32 | fraction
}

const PCMU: u8 = 0;
const FRAME: Duration = Duration::from_millis(20);
const SAMPLES_PER_MS: f64 = 8.0;
/// A report each 2.5 s, the first after half of that.
const REPORT_FRAMES: u64 = 125;
/// How long to wait for packets that are missing at the end.
const PATIENCE: Duration = Duration::from_secs(2);
const PAIR_TRIES: usize = 64;
/// Seconds from 1900 to 1970.
const NTP_TO_UNIX_S: u64 = 2_208_988_800;
