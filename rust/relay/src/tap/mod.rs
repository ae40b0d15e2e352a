//! Live taps: copies of the packets of one session, for whoever reads them while the call goes on.
//!
//! ```text
//! worker: Inlet::push ──► ring of heads, ring of bytes ──► Tap::take, on the reader's thread
//! ```
//!
//! Both rings have their size from the start. A packet that finds no room in one of them is counted and left out:
//! whoever writes never waits, allocates nothing and wakes nobody. The reader looks every few milliseconds instead.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rtpproxy_core::recording::{Channel, Leg};
use rtpproxy_core::time::Wall;

#[cfg(target_os = "linux")]
mod attach;
#[cfg(target_os = "linux")]
pub use attach::{AttachedTap, TapError};

/// How much may wait in a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapLimits {
    /// Packets, at least 1.
    pub packets: usize,
    /// Bytes of packets, at least [`TapLimits::BYTES_MIN`].
    pub bytes: usize,
}

impl TapLimits {
    /// Room for any packet.
    pub const BYTES_MIN: usize = 16 << 10;
    /// The largest number of packets, and a thousandth of the largest number of bytes.
    pub const PACKETS_MAX: usize = 1 << 20;
    /// The largest number of bytes.
    pub const BYTES_MAX: usize = 1 << 30;
}

/// What is known of a packet besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapHead {
    /// Who sent it.
    pub leg: Leg,
    /// On which port.
    pub channel: Channel,
    /// When it was received.
    pub at: Wall,
    /// From where, if known.
    pub src: Option<SocketAddr>,
    /// To which address of the relay, if known.
    pub dst: Option<SocketAddr>,
}

/// A packet that came through a tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapPacket {
    /// What is known of it.
    pub head: TapHead,
    /// The datagram.
    pub data: Vec<u8>,
}

/// What [`Tap::take`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// These, at least one.
    Packets(Vec<TapPacket>),
    /// None came in time.
    Nothing,
    /// None will come any more.
    End,
}

/// A tap and the end that fills it.
pub(crate) fn tap(limits: TapLimits) -> (Inlet, Tap) {
    let (heads_in, heads) = rtrb::RingBuffer::new(limits.packets.max(1));
    let (bytes_in, bytes) = rtrb::RingBuffer::new(limits.bytes.max(TapLimits::BYTES_MIN));
    let dropped = Arc::new(AtomicU64::new(0));
    let inlet = Inlet { heads: heads_in, bytes: bytes_in, dropped: Arc::clone(&dropped) };
    let outlet = Mutex::new(Outlet { heads, bytes });
    (inlet, Tap { outlet, dropped, is_closed: AtomicBool::new(false) })
}

/// The end that is filled.
#[derive(Debug)]
pub(crate) struct Inlet {
    heads: rtrb::Producer<(TapHead, usize)>,
    bytes: rtrb::Producer<u8>,
    dropped: Arc<AtomicU64>,
}

impl Inlet {
    /// Copies a packet, or counts it if there is no room. Never waits.
    pub(crate) fn push(&mut self, head: TapHead, data: &[u8]) {
        // The bytes go first: a head that can be seen has its bytes behind it.
        if self.heads.is_full()
            || self.bytes.push_entire_slice(data).is_err()
            || self.heads.push((head, data.len())).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The end that is read, by any thread.
#[derive(Debug)]
pub struct Tap {
    outlet: Mutex<Outlet>,
    dropped: Arc<AtomicU64>,
    is_closed: AtomicBool,
}

impl Tap {
    /// Takes what is there, `max` packets at most, in the order of arrival; waits for a first one if there is none.
    pub fn take(&self, max: usize, wait: Duration) -> Taken {
        let deadline = Instant::now() + wait;
        loop {
            if self.is_closed.load(Ordering::Acquire) {
                return Taken::End;
            }
            match self.outlet().take(max) {
                Taken::Nothing => {}
                taken => return taken,
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Taken::Nothing;
            }
            thread::sleep(left.min(LOOK_PERIOD));
        }
    }

    /// How many packets found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// From now on there is nothing to take.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    fn outlet(&self) -> MutexGuard<'_, Outlet> {
        self.outlet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Outlet {
    heads: rtrb::Consumer<(TapHead, usize)>,
    bytes: rtrb::Consumer<u8>,
}

impl Outlet {
    fn take(&mut self, max: usize) -> Taken {
        // Looked at first: once true, nothing more is pushed.
        let is_last = self.heads.is_abandoned();
        let mut packets = Vec::new();
        while packets.len() < max.max(1)
            && let Ok((head, len)) = self.heads.pop()
        {
            let mut data = vec![0; len];
            self.bytes.pop_entire_slice(&mut data).expect("a head is pushed behind its bytes");
            packets.push(TapPacket { head, data });
        }
        match packets.is_empty() {
            false => Taken::Packets(packets),
            true if is_last => Taken::End,
            true => Taken::Nothing,
        }
    }
}

/// How long a packet may lie unseen.
const LOOK_PERIOD: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TapLimits = TapLimits { packets: 4, bytes: TapLimits::BYTES_MIN };

    fn head(number: u64) -> TapHead {
        TapHead { leg: Leg::Caller, channel: Channel::Rtp, at: Wall(number), src: None, dst: None }
    }

    fn times(taken: &Taken) -> Vec<u64> {
        let Taken::Packets(packets) = taken else { panic!("{taken:?}") };
        packets.iter().map(|packet| packet.head.at.0).collect()
    }

    #[test]
    fn packets_come_out_in_order_and_whole() {
        let (mut inlet, tap) = tap(TapLimits { packets: 100, ..LIMITS });
        for number in 0..10_u8 {
            inlet.push(head(number.into()), &vec![number; usize::from(number)]);
        }
        assert_eq!(times(&tap.take(4, Duration::ZERO)), [0, 1, 2, 3]);
        let Taken::Packets(rest) = tap.take(100, Duration::ZERO) else { panic!("there are more") };
        assert_eq!(rest.len(), 6);
        assert!(
            rest.iter().all(|packet| packet.data == vec![packet.head.at.0 as u8; packet.head.at.0 as usize])
        );
        assert_eq!(tap.take(1, Duration::ZERO), Taken::Nothing);
        assert_eq!(tap.dropped(), 0);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_the_rest_stays_whole() {
        let (mut inlet, tap) = tap(LIMITS);
        for number in 0..10 {
            inlet.push(head(number), &[7; 100]);
        }
        assert_eq!(tap.dropped(), 6);
        assert_eq!(times(&tap.take(100, Duration::ZERO)), [0, 1, 2, 3]);
        for number in 10..14 {
            inlet.push(head(number), &[8; 8000]);
        }
        assert_eq!(tap.dropped(), 8);
        assert_eq!(times(&tap.take(100, Duration::ZERO)), [10, 11]);
        inlet.push(head(14), &[]);
        assert_eq!(times(&tap.take(100, Duration::ZERO)), [14]);
    }

    #[test]
    fn the_end_comes_behind_the_last_packet() {
        let (mut inlet, tap) = tap(LIMITS);
        inlet.push(head(1), &[1]);
        drop(inlet);
        assert_eq!(times(&tap.take(1, Duration::ZERO)), [1]);
        assert_eq!(tap.take(1, Duration::from_secs(5)), Taken::End);
    }

    #[test]
    fn closing_ends_the_wait_of_another_thread() {
        let (_inlet, tap) = tap(LIMITS);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| tap.take(1, Duration::from_secs(20)));
            thread::sleep(Duration::from_millis(20));
            tap.close();
            assert_eq!(waiting.join().unwrap(), Taken::End);
        });
    }
}
