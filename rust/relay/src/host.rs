//! What the engine asks of the shell while it answers a command: ports, random numbers, prompts, the state of
//! the recording folder, and routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rtpproxy_core::addr::Family;
use rtpproxy_core::front::Routes;
use rtpproxy_core::host::{FolderState, Host, OpenError, OpenedPair};
use rtpproxy_core::port_pool::{Bind, PoolError, PortPool};
use rtpproxy_core::time::{Mono, Now};

use crate::io::{BindError, MediaIo};
use crate::prompts::Prepared;
use crate::recorder::FolderWatch;

/// The ports of the process: one pool for each family, locked when a session is set up or ends only.
#[derive(Debug)]
pub(crate) struct Ports {
    pools: Mutex<Pools>,
}

#[derive(Debug)]
struct Pools {
    v4: PortPool,
    v6: PortPool,
    /// Pairs that are open: of IPv4, of IPv6.
    open: [u64; 2],
    /// Pairs in the range.
    range: u64,
}

/// How many pairs of ports there are, as far as this process knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortUse {
    /// Pairs that are open.
    pub(crate) in_use: u64,
    /// Pairs that are not, over all addresses.
    pub(crate) free: u64,
}

impl Ports {
    /// The pairs from `min` to `max`, both even, in sequential or unpredictable order.
    pub(crate) fn new(min: u16, max: u16, sequential: bool) -> Self {
        let pool = || PortPool::new(min, max, sequential);
        let range = u64::from((max - min) / 2 + 1);
        Self { pools: Mutex::new(Pools { v4: pool(), v6: pool(), open: [0; 2], range }) }
    }

    /// Gives the pair back that was bound to `local`.
    pub(crate) fn release(&self, now: Mono, local: SocketAddr) {
        let mut pools = self.lock();
        pools.of(local.ip()).release(now, local.port());
        let open = pools.open(local.ip());
        *open = open.saturating_sub(1);
    }

    /// How many pairs of IPv4 and of IPv6 are open and free, with so many addresses of each.
    pub(crate) fn in_use(&self, addresses: [u64; 2]) -> [PortUse; 2] {
        let pools = self.lock();
        [0, 1].map(|family| {
            let in_use = pools.open[family];
            PortUse { in_use, free: (addresses[family] * pools.range).saturating_sub(in_use) }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pools {
    fn of(&mut self, ip: IpAddr) -> &mut PortPool {
        match Family::of(ip) {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    fn open(&mut self, ip: IpAddr) -> &mut u64 {
        &mut self.open[usize::from(Family::of(ip) == Family::V6)]
    }
}

/// The host of one worker's engine, for as long as one command takes.
pub(crate) struct WorkerHost<'a, I> {
    /// Where pairs are opened.
    pub(crate) io: &'a mut I,
    /// Which ones are tried.
    pub(crate) ports: &'a Ports,
    /// The source of random numbers.
    pub(crate) random: &'a mut Random,
    /// What the recorder knows of its folder.
    pub(crate) folder: &'a FolderWatch,
    /// The prompt files that were read for this command.
    pub(crate) prompts: &'a Prepared,
}

impl<I: MediaIo> Host for WorkerHost<'_, I> {
    fn open_pair(&mut self, now: Now, ip: IpAddr) -> Result<OpenedPair, OpenError> {
        let Self { io, ports, random, .. } = self;
        let mut draw = || random.next();
        let bind = |port| match io.add_pair(ip, port) {
            Ok(id) => Bind::Ok(OpenedPair { id, port }),
            Err(BindError::Busy) => Bind::Busy,
            Err(BindError::Failed(error)) => Bind::Failed((port, error)),
        };
        let mut pools = ports.lock();
        match pools.of(ip).allocate(now.mono, &mut draw, bind) {
            Ok(pair) => {
                *pools.open(ip) += 1;
                Ok(pair)
            }
            Err(PoolError::Exhausted) => {
                tracing::error!("no free port in the range for {ip}");
                Err(OpenError::Exhausted)
            }
            Err(PoolError::Failed((port, error))) => {
                tracing::error!("cannot open media ports on {}: {error}", SocketAddr::new(ip, port));
                Err(OpenError::Failed)
            }
        }
    }

    fn prompt(&self, payload_type: u8) -> Option<Arc<[u8]>> {
        self.prompts.get(payload_type)
    }

    fn recording_folder(&self) -> FolderState {
        self.folder.state()
    }

    fn random(&mut self) -> u64 {
        self.random.next()
    }
}

/// Random numbers of the kernel, fetched some dozens at a time.
#[derive(Debug)]
pub(crate) struct Random {
    bytes: [u8; RANDOM_BYTES],
    used: usize,
}

impl Random {
    /// A source with nothing fetched yet.
    pub(crate) fn new() -> Self {
        Self { bytes: [0; RANDOM_BYTES], used: RANDOM_BYTES }
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        if self.used == RANDOM_BYTES {
            getrandom::fill(&mut self.bytes).expect("the kernel has a random source");
            self.used = 0;
        }
        let (number, _) = self.bytes[self.used..].split_first_chunk().expect("the size is a multiple of 8");
        self.used += number.len();
        u64::from_ne_bytes(*number)
    }
}

/// The routing table of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelRoutes;

impl Routes for KernelRoutes {
    fn source_for(&self, to: IpAddr) -> Option<IpAddr> {
        let any: IpAddr = match Family::of(to) {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        // Connecting chooses the route and with it the source; nothing is sent.
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((to, DISCARD_PORT)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    }
}

const RANDOM_BYTES: usize = 512;

/// Any port but 0 would do.
const DISCARD_PORT: u16 = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::has_ipv6;

    #[test]
    fn random_numbers_do_not_repeat_when_the_buffer_is_used_up() {
        let mut random = Random::new();
        let numbers: std::collections::HashSet<u64> = (0..RANDOM_BYTES).map(|_| random.next()).collect();
        assert_eq!(numbers.len(), RANDOM_BYTES);
    }

    #[test]
    fn loopback_is_reached_from_loopback() {
        let v4 = IpAddr::from([127, 0, 0, 5]);
        assert_eq!(KernelRoutes.source_for(v4), Some(IpAddr::from([127, 0, 0, 1])));
        let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
        assert_eq!(KernelRoutes.source_for(v6), has_ipv6().then_some(v6));
    }

    #[test]
    fn what_cannot_be_reached_has_no_source() {
        assert_eq!(KernelRoutes.source_for(IpAddr::from([255, 255, 255, 255])), None);
    }
}
