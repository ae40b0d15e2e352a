//! The phones of a benchmark: G.711 in real time, spread as evenly as that of real calls.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A phone that sends 50 packets a second, and hears the other one.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Arc<UdpSocket>,
    packet: [u8; PACKET_LEN],
}

impl Stream {
    /// A phone on a free port of 127.0.0.1.
    pub(super) fn open() -> Result<Self, String> {
        let open = || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.set_nonblocking(true)?;
            Ok(Arc::new(socket))
        };
        let socket = open().map_err(|error: io::Error| format!("no socket for a phone: {error}"))?;
        let mut packet = [0; PACKET_LEN];
        getrandom::fill(&mut packet).map_err(|error| error.to_string())?;
        // RTP version 2, PCMU, without padding, extension, sources and marker.
        packet[..2].copy_from_slice(&[0x80, 0]);
        Ok(Self { socket, packet })
    }

    /// The port of the phone.
    pub(super) fn port(&self) -> Result<u16, String> {
        self.socket.local_addr().map(|addr| addr.port()).map_err(failed)
    }

    /// Says to which port of the relay it talks.
    pub(super) fn connect(&mut self, port: u16) -> Result<(), String> {
        self.socket.connect((Ipv4Addr::LOCALHOST, port)).map_err(failed)
    }

    /// Sends the next 20 ms.
    fn send(&mut self) -> io::Result<()> {
        let sequence = u16::from_be_bytes([self.packet[2], self.packet[3]]).wrapping_add(1);
        self.packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        let time = u32::from_be_bytes([self.packet[4], self.packet[5], self.packet[6], self.packet[7]]);
        self.packet[4..8].copy_from_slice(&time.wrapping_add(SAMPLES).to_be_bytes());
        self.socket.send(&self.packet).map(drop)
    }
}

/// Phones that talk, in threads of this process.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    mouth: JoinHandle<io::Result<Duration>>,
    ear: JoinHandle<u64>,
}

/// What the phones sent and heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) sent: u64,
    pub(super) heard: u64,
    /// How late the latest packet was sent.
    pub(super) latest: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    is_silent: AtomicBool,
    sent: AtomicU64,
}

impl Load {
    /// Lets the phones talk.
    pub(super) fn start(streams: Vec<Stream>) -> Result<Self, String> {
        let shared = Arc::new(Shared::default());
        let sockets: Vec<_> = streams.iter().map(|stream| Arc::clone(&stream.socket)).collect();
        let (at_mouth, at_ear) = (Arc::clone(&shared), Arc::clone(&shared));
        let mouth = spawn("mouth", move || talk(streams, &at_mouth))?;
        let ear = spawn("ear", move || listen(&sockets, &at_ear))?;
        Ok(Self { shared, mouth, ear })
    }

    /// Packets sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Ends it; returns when what was sent has been heard, or will not be.
    pub(super) fn stop(self) -> Result<Heard, String> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let latest = self.mouth.join().map_err(|_| "the thread that sends panicked".to_owned())?;
        let latest = latest.map_err(|error| format!("a phone cannot send: {error}"))?;
        thread::sleep(LAST_WORDS);
        self.shared.is_silent.store(true, Ordering::Relaxed);
        let heard = self.ear.join().map_err(|_| "the thread that receives panicked".to_owned())?;
        Ok(Heard { sent: self.shared.sent.load(Ordering::Relaxed), heard, latest })
    }
}

/// Sends in turn for all phones, one after the other over the 20 ms of a packet, as long as the load runs. Returns how
/// late it was at most.
fn talk(mut streams: Vec<Stream>, shared: &Shared) -> io::Result<Duration> {
    let step = PACKET_TIME / u32::try_from(streams.len()).unwrap_or(u32::MAX);
    let mut latest = Duration::ZERO;
    let mut due = Instant::now();
    while !shared.is_over.load(Ordering::Relaxed) {
        let round = due;
        for stream in &mut streams {
            let now = Instant::now();
            if now < due {
                thread::sleep(due - now);
            }
            latest = latest.max(now.saturating_duration_since(due));
            due += step;
            stream.send()?;
            shared.sent.fetch_add(1, Ordering::Relaxed);
        }
        due = round + PACKET_TIME;
        // A machine that cannot keep up shall not be flooded with what it has missed.
        if due + LATE_MAX < Instant::now() {
            due = Instant::now();
        }
    }
    Ok(latest)
}

/// Counts what the phones hear. To wait for packets would let the relay, whose sending delivers them, pay for waking
/// this thread; so it looks from time to time.
fn listen(sockets: &[Arc<UdpSocket>], shared: &Shared) -> u64 {
    let mut heard = 0;
    let mut packet = [0; 2 * PACKET_LEN];
    loop {
        let is_last = shared.is_silent.load(Ordering::Relaxed);
        for socket in sockets {
            while let Ok(len) = socket.recv(&mut packet) {
                heard += u64::from(len == PACKET_LEN);
            }
        }
        if is_last {
            return heard;
        }
        thread::sleep(LISTEN_PERIOD);
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, String> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map_err(|error| format!("no thread for the phones: {error}"))
}

fn failed(error: io::Error) -> String {
    format!("a phone: {error}")
}

const PACKET_TIME: Duration = Duration::from_millis(20);
/// Of 20 ms.
const SAMPLES: u32 = 160;
/// How late packets are still sent.
const LATE_MAX: Duration = Duration::from_millis(100);
/// An RTP header and 20 ms of G.711.
const PACKET_LEN: usize = 12 + SAMPLES as usize;
/// Sockets hold more than what comes meanwhile.
const LISTEN_PERIOD: Duration = Duration::from_millis(200);
/// How long a packet may be under way.
const LAST_WORDS: Duration = Duration::from_millis(300);
