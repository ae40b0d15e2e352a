//! The order in which media ports are tried.

use std::time::Duration;

use crate::time::Mono;

/// The even ports of a range, of one address family.
///
/// The pool knows the order, not which ports are free: a port can be in use on one address and free on
/// another. A walk starts behind the pair that was tried last and leaves that one out, so a range of a single
/// pair never yields any.
#[derive(Debug)]
pub struct PortPool {
    /// RTP ports; ascending if the order is sequential.
    table: Box<[u16]>,
    /// Where in `table` the pair stands that was tried last.
    last: usize,
    /// The lowest port.
    min: u16,
    /// By port, from `min`: until when it rests. Empty if the order is sequential.
    rest_ends: Box<[Mono]>,
}

impl PortPool {
    /// How long a freed port is passed over while another can be had, so that late packets of the old call do
    /// not reach a new one. Does not apply to a sequential order.
    pub const REST: Duration = Duration::from_secs(5);

    /// A pool of the RTP ports `min`, `min + 2` … `max`; RTCP uses the odd port behind each.
    ///
    /// Sequential order starts at `min` and goes round; otherwise the order is that of the random numbers.
    ///
    /// # Panics
    ///
    /// If a bound is odd or `min` is above `max`.
    pub fn new(min: u16, max: u16, sequential: bool) -> Self {
        assert!(min.is_multiple_of(2) && max.is_multiple_of(2) && min <= max, "the range is of even ports");
        let table: Box<[u16]> = (min..=max).step_by(2).collect();
        let resting = if sequential { 0 } else { table.len() };
        Self { last: table.len() - 1, min, rest_ends: vec![Mono::default(); resting].into(), table }
    }

    /// Tries pairs with `bind` until one can be had.
    ///
    /// `random` gives numbers that outsiders cannot predict; it is not asked if the order is sequential.
    ///
    /// # Errors
    ///
    /// [`PoolError::Exhausted`] when all pairs are busy; [`PoolError::Failed`] as soon as `bind` says so, and
    /// then the pair it was tried with counts as the last one.
    pub fn allocate<T, E>(
        &mut self,
        now: Mono,
        random: &mut dyn FnMut() -> u64,
        mut bind: impl FnMut(u16) -> Bind<T, E>,
    ) -> Result<T, PoolError<E>> {
        let len = self.table.len();
        let first = self.last + 1;
        let mut passed_over = false;
        for step in 0..len - 1 {
            let index = (first + step) % len;
            if !self.is_sequential() {
                self.draw(index, len - 1 - step, random);
            }
            if self.is_resting(now, index) {
                passed_over = true;
            } else if let Some(outcome) = self.attempt(index, &mut bind) {
                return outcome;
            }
        }
        if passed_over {
            for index in (0..len - 1).map(|step| (first + step) % len) {
                if self.is_resting(now, index)
                    && let Some(outcome) = self.attempt(index, &mut bind)
                {
                    return outcome;
                }
            }
        }
        Err(PoolError::Exhausted)
    }

    /// Says that the pair of the RTP port `port` was closed; it rests for [`Self::REST`].
    pub fn release(&mut self, now: Mono, port: u16) {
        let index = usize::from(port.wrapping_sub(self.min) / 2);
        if let Some(end) = self.rest_ends.get_mut(index) {
            *end = now + Self::REST;
        }
    }

    fn is_sequential(&self) -> bool {
        self.rest_ends.is_empty()
    }

    /// Brings one of the `remaining` pairs from `index` on to `index`, each as likely as the others.
    fn draw(&mut self, index: usize, remaining: usize, random: &mut dyn FnMut() -> u64) {
        let ahead = random() % remaining as u64;
        let other = (index + ahead as usize) % self.table.len();
        self.table.swap(index, other);
    }

    fn is_resting(&self, now: Mono, index: usize) -> bool {
        let port = usize::from((self.table[index] - self.min) / 2);
        self.rest_ends.get(port).is_some_and(|&end| now < end)
    }

    /// Tries the pair at `index`; none if it is busy.
    fn attempt<T, E>(
        &mut self,
        index: usize,
        bind: &mut impl FnMut(u16) -> Bind<T, E>,
    ) -> Option<Result<T, PoolError<E>>> {
        let outcome = match bind(self.table[index]) {
            Bind::Busy => return None,
            Bind::Ok(pair) => Ok(pair),
            Bind::Failed(error) => Err(PoolError::Failed(error)),
        };
        self.last = index;
        Some(outcome)
    }
}

/// What became of trying one pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind<T, E> {
    /// The pair is bound.
    Ok(T),
    /// A port of the pair is in use or not permitted: the next pair may do.
    Busy,
    /// No pair would do.
    Failed(E),
}

/// Why no pair could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError<E> {
    /// All pairs of the range are busy.
    #[error("no free port in the range")]
    Exhausted,
    /// Trying on makes no sense.
    #[error("{0}")]
    Failed(E),
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Some ports in use and some broken, as a host would find them.
    #[derive(Default)]
    struct Ports {
        busy: HashSet<u16>,
        broken: HashSet<u16>,
        tried: Vec<u16>,
    }

    impl Ports {
        fn allocate(&mut self, pool: &mut PortPool, now: Mono) -> Result<u16, PoolError<&'static str>> {
            let mut seed = 7_u64;
            let mut random = || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                seed >> 33
            };
            pool.allocate(now, &mut random, |port| {
                self.tried.push(port);
                if self.broken.contains(&port) {
                    Bind::Failed("no such address")
                } else if self.busy.insert(port) {
                    Bind::Ok(port)
                } else {
                    Bind::Busy
                }
            })
        }

        fn free(&mut self, pool: &mut PortPool, now: Mono, port: u16) {
            assert!(self.busy.remove(&port));
            pool.release(now, port);
        }
    }

    #[test]
    fn sequential_order_starts_at_the_lowest_port_and_goes_round() {
        let mut pool = PortPool::new(12000, 12006, true);
        let mut ports = Ports::default();
        let now = Mono::default();
        for port in [12000, 12002, 12004] {
            assert_eq!(ports.allocate(&mut pool, now), Ok(port));
        }
        ports.free(&mut pool, now, 12000);
        assert_eq!(ports.allocate(&mut pool, now), Ok(12006));
        assert_eq!(ports.allocate(&mut pool, now), Ok(12000), "a freed port does not rest");
    }

    #[test]
    fn busy_pairs_are_skipped() {
        let mut pool = PortPool::new(12000, 12010, true);
        let mut ports = Ports { busy: HashSet::from([12002, 12004]), ..Ports::default() };
        assert_eq!(ports.allocate(&mut pool, Mono::default()), Ok(12000));
        assert_eq!(ports.allocate(&mut pool, Mono::default()), Ok(12006));
        assert_eq!(ports.tried, [12000, 12002, 12004, 12006]);
    }

    #[test]
    fn a_range_of_one_pair_yields_none() {
        for sequential in [true, false] {
            let mut pool = PortPool::new(12000, 12000, sequential);
            let mut ports = Ports::default();
            assert_eq!(ports.allocate(&mut pool, Mono::default()), Err(PoolError::Exhausted));
            assert!(ports.tried.is_empty(), "{:?}", ports.tried);
        }
    }

    #[test]
    fn the_pair_tried_last_is_left_out() {
        let mut pool = PortPool::new(12000, 12004, true);
        let mut ports = Ports::default();
        let now = Mono::default();
        for _ in 0..3 {
            ports.allocate(&mut pool, now).unwrap();
        }
        ports.free(&mut pool, now, 12004);
        assert_eq!(ports.allocate(&mut pool, now), Err(PoolError::Exhausted));
        assert_eq!(ports.tried[3..], [12000, 12002]);
        assert_eq!(
            ports.allocate(&mut pool, now),
            Err(PoolError::Exhausted),
            "the place of the walk is kept"
        );
    }

    #[test]
    fn a_failure_ends_the_walk_and_skips_one_pair() {
        let mut pool = PortPool::new(12000, 12010, true);
        let mut ports = Ports { broken: HashSet::from([12000]), ..Ports::default() };
        assert_eq!(ports.allocate(&mut pool, Mono::default()), Err(PoolError::Failed("no such address")));
        assert_eq!(ports.tried, [12000]);
        ports.broken.clear();
        assert_eq!(ports.allocate(&mut pool, Mono::default()), Ok(12002));
    }

    #[test]
    fn a_failure_among_resting_pairs_skips_one_too() {
        let mut pool = PortPool::new(12000, 12004, false);
        let mut ports = Ports::default();
        let now = Mono::default();
        let first = ports.allocate(&mut pool, now).unwrap();
        let second = ports.allocate(&mut pool, now).unwrap();
        ports.free(&mut pool, now, first);
        ports.broken.insert(first);
        let third = ports.allocate(&mut pool, now).unwrap();
        assert_eq!(ports.allocate(&mut pool, now), Err(PoolError::Failed("no such address")));
        ports.broken.clear();
        ports.tried.clear();
        assert_eq!(ports.allocate(&mut pool, now), Err(PoolError::Exhausted));
        assert_eq!(ports.tried.iter().copied().collect::<HashSet<_>>(), HashSet::from([second, third]));
    }

    #[test]
    fn a_freed_pair_rests_while_another_can_be_had() {
        let mut pool = PortPool::new(12000, 12006, false);
        let mut ports = Ports::default();
        let start = Mono(1);
        let first = ports.allocate(&mut pool, start).unwrap();
        let second = ports.allocate(&mut pool, start).unwrap();
        ports.free(&mut pool, start, first);
        let third = ports.allocate(&mut pool, start + SECOND).unwrap();
        let fourth = ports.allocate(&mut pool, start + 2 * SECOND).unwrap();
        assert_eq!(HashSet::from([first, second, third, fourth]).len(), 4);
        assert_eq!(ports.allocate(&mut pool, start + 3 * SECOND), Ok(first), "rest is only a preference");
    }

    #[test]
    fn a_freed_pair_comes_back_after_its_rest() {
        let comes_back = |after: Duration| {
            // Two free pairs can be drawn; one of them was just freed.
            [0, 1].into_iter().any(|draw| {
                let mut pool = PortPool::new(12000, 12004, false);
                let allocate =
                    |at, pool: &mut PortPool| pool.allocate(at, &mut || draw, Bind::<u16, ()>::Ok).unwrap();
                let first = allocate(Mono(1), &mut pool);
                let _second = allocate(Mono(1), &mut pool);
                pool.release(Mono(1), first);
                allocate(Mono(1) + after, &mut pool) == first
            })
        };
        assert!(comes_back(PortPool::REST));
        assert!(!comes_back(PortPool::REST - Duration::from_nanos(1)));
    }

    #[test]
    fn the_order_is_that_of_the_random_numbers() {
        let order = |seed: u64| {
            let mut pool = PortPool::new(35000, 65000, false);
            let mut random = {
                let mut state = seed;
                move || {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    state >> 33
                }
            };
            let mut allocate = || pool.allocate(Mono(0), &mut random, Bind::<u16, ()>::Ok).unwrap();
            (0..20).map(|_| allocate()).collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert!(!order(1).is_sorted());
    }

    #[test]
    fn foreign_ports_are_ignored_on_release() {
        for sequential in [true, false] {
            let mut pool = PortPool::new(12000, 12002, sequential);
            for port in [0, 11998, 12004, u16::MAX] {
                pool.release(Mono(1), port);
            }
            assert!(Ports::default().allocate(&mut pool, Mono(1)).is_ok());
        }
    }

    proptest! {
        #[test]
        fn every_pair_but_the_last_is_tried_once(
            pairs in 1..40_u16,
            sequential: bool,
            steps in prop::collection::vec((any::<u64>(), 0..8_u64, 0..40_usize), 1..60),
        ) {
            let max = 20000 + 2 * (pairs - 1);
            let mut pool = PortPool::new(20000, max, sequential);
            let mut held: Vec<u16> = Vec::new();
            let mut last = None;
            let mut now = Mono(0);
            for (seed, seconds, free) in steps {
                now = now + SECOND * seconds as u32;
                let mut tried = Vec::new();
                let mut state = seed;
                let mut random = || { state = state.rotate_left(7) ^ seed; state };
                let got: Result<u16, PoolError<()>> = pool.allocate(now, &mut random, |port| {
                    tried.push(port);
                    if held.contains(&port) { Bind::Busy } else { Bind::Ok(port) }
                });
                prop_assert!(tried.iter().all(|port| port.is_multiple_of(2) && (20000..=max).contains(port)));
                prop_assert_eq!(tried.iter().collect::<HashSet<_>>().len(), tried.len());
                prop_assert!(last.is_none_or(|last| !tried.contains(&last)));
                match got {
                    Ok(port) => { held.push(port); last = Some(port); }
                    Err(_) => prop_assert_eq!(tried.len(), usize::from(pairs) - 1),
                }
                if free < held.len() {
                    pool.release(now, held.swap_remove(free));
                }
            }
            let mut table = pool.table.to_vec();
            table.sort_unstable();
            prop_assert!(table.into_iter().eq((20000..=max).step_by(2)), "no pair is lost or doubled");
        }
    }
}
