//! The reply cache of the datagram transports.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::time::Mono;

/// How long a reply is kept at least.
const LIFE: Duration = Duration::from_secs(35);
/// How often old replies are thrown away; until then they still answer.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3);
/// The bound on all entries together, in bytes. Beyond it the oldest go early.
const SIZE_MAX: usize = 32 << 20;
/// What an entry takes besides its cookie and its reply, in bytes, about.
const ENTRY_SIZE: usize = 128;

/// Remembers replies by cookie, so that a request that is sent again is not carried out again.
///
/// Only the cookie counts, neither the sender nor the text of the command.
#[derive(Debug, Default)]
pub struct ReplyCache {
    replies: HashMap<Arc<[u8]>, Box<[u8]>>,
    /// When each cookie was stored, oldest first.
    ages: VecDeque<(Mono, Arc<[u8]>)>,
    /// The sum of [`entry_size`] over all entries.
    size: usize,
    /// The last sweep; they are a fixed time apart, counted from the first use.
    swept: Option<Mono>,
}

impl ReplyCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// The reply stored for `cookie`.
    pub fn get(&mut self, now: Mono, cookie: &[u8]) -> Option<&[u8]> {
        self.sweep(now);
        self.replies.get(cookie).map(|reply| &**reply)
    }

    /// Keeps `reply` for the next 35 s. A cookie that is known already keeps its first reply.
    pub fn store(&mut self, now: Mono, cookie: &[u8], reply: &[u8]) {
        self.sweep(now);
        if self.replies.contains_key(cookie) {
            return;
        }
        let cookie: Arc<[u8]> = cookie.into();
        self.size += entry_size(&cookie, reply);
        self.replies.insert(Arc::clone(&cookie), reply.into());
        self.ages.push_back((now, cookie));
        while self.size > SIZE_MAX {
            self.remove_oldest();
        }
    }

    /// Does the sweep that was due last, if it has not been done.
    fn sweep(&mut self, now: Mono) {
        let mut last = *self.swept.get_or_insert(now);
        let missed = now.since(last).as_secs() / SWEEP_INTERVAL.as_secs();
        if missed == 0 {
            return;
        }
        last = last + Duration::from_secs(missed * SWEEP_INTERVAL.as_secs());
        self.swept = Some(last);
        while self.ages.front().is_some_and(|(stored, _)| last.since(*stored) >= LIFE) {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some((_, cookie)) = self.ages.pop_front() {
            let reply = self.replies.remove(&cookie).expect("each cookie has a reply");
            self.size -= entry_size(&cookie, &reply);
        }
    }
}

fn entry_size(cookie: &[u8], reply: &[u8]) -> usize {
    ENTRY_SIZE + cookie.len() + reply.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_lives_until_the_sweep_after_its_life() {
        let start = Mono(7);
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut cache = ReplyCache::new();
        assert_eq!(cache.get(start, b"c1"), None);
        cache.store(at(0.5), b"c1", b"c1 0\n");
        cache.store(at(1.5), b"c2", b"c2 E50\n");
        assert_eq!(cache.get(at(35.0), b"c1"), Some(b"c1 0\n".as_slice()));
        assert_eq!(cache.get(at(35.9), b"c1"), Some(b"c1 0\n".as_slice()));
        assert_eq!(cache.get(at(36.0), b"c1"), None);
        assert_eq!(cache.get(at(38.9), b"c2"), Some(b"c2 E50\n".as_slice()));
        assert_eq!(cache.get(at(39.0), b"c2"), None);
        assert_eq!((cache.size, cache.ages.len()), (0, 0));
    }

    #[test]
    fn sweeps_that_nobody_watched_still_count() {
        let mut cache = ReplyCache::new();
        cache.store(Mono(0), b"c1", b"c1 0\n");
        assert_eq!(cache.get(Mono(0) + Duration::from_secs(3600), b"c1"), None);
    }

    #[test]
    fn the_first_reply_stays() {
        let mut cache = ReplyCache::new();
        cache.store(Mono(0), b"c1", b"first");
        cache.store(Mono(1), b"c1", b"second");
        assert_eq!(cache.get(Mono(2), b"c1"), Some(b"first".as_slice()));
        assert_eq!(cache.ages.len(), 1);
    }

    #[test]
    fn the_oldest_go_when_it_is_full() {
        let mut cache = ReplyCache::new();
        let reply = vec![b'x'; 1 << 20];
        for number in 0..40_u8 {
            cache.store(Mono(0), &[number], &reply);
            assert!(cache.size <= SIZE_MAX);
        }
        assert_eq!(cache.get(Mono(0), &[0]), None);
        assert!(cache.get(Mono(0), &[39]).is_some());
        assert_eq!(cache.ages.len(), cache.replies.len());
    }
}
