//! Packets and notes in the order of time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rtpproxy_core::recording::{Channel, Coverage, EndReason, Leg, Mark, RecordingEvent, RecordingId};
use rtpproxy_core::time::{Mono, Wall};

use super::super::gather::Gathered;
use super::super::queue::{Budget, Entry, Note, Outlet, RecorderTap, way};
use super::bench::{at, record, start};

/// What was given, as a letter for its kind, the recording and the milliseconds.
type Given = Vec<(char, u64, u64)>;

struct Way {
    tap: RecorderTap,
    outlet: Outlet,
    gathered: Gathered,
    budget: Arc<Budget>,
}

impl Way {
    fn new() -> Self {
        let budget = Budget::new(64 << 20, 1);
        let (tap, outlet) = way(&budget);
        Self { tap, outlet, gathered: Gathered::default(), budget }
    }

    fn packet(&mut self, id: u64, ms: u64) {
        self.tap.packet(&record(id, Leg::Caller, Channel::Rtp, ms), &ms.to_be_bytes());
    }

    fn event(&mut self, event: RecordingEvent) {
        self.tap.event(event);
    }

    fn mark(&mut self, id: u64, ms: u64) {
        self.event(RecordingEvent::Mark { id: RecordingId(id), at: at(ms), mark: Mark::Paused });
    }

    /// All packets until `ms` were given.
    fn hand_over(&mut self, ms: u64) {
        self.tap.flush(Mono(u64::MAX), at(ms).wall);
        let now = Instant::now();
        while let Some(item) = self.outlet.next() {
            if let Some(empty) = self.gathered.take(item, now) {
                self.outlet.give_back(empty);
            }
        }
    }

    fn release(&mut self, all: bool) -> Given {
        let mut given = Vec::new();
        let start = at(0).wall.0;
        let ms = |wall: Wall| (wall.0 - start) / 1_000_000;
        let give = |entry: Entry<'_>| match entry {
            Entry::Packet(packet, payload) => {
                assert_eq!(payload, ms(packet.at.wall).to_be_bytes());
                given.push(('p', packet.id.0, ms(packet.at.wall)));
            }
            Entry::Note(Note::Dropped(dropped)) => given.push(('d', dropped.id.0, dropped.packets)),
            Entry::Note(Note::Event(event)) => given.push(match *event {
                RecordingEvent::Start(start) => ('s', start.id.0, 0),
                RecordingEvent::End { id, at, .. } => ('e', id.0, ms(at.wall)),
                RecordingEvent::Mark { id, at, .. } => ('m', id.0, ms(at.wall)),
                RecordingEvent::Facts { id, .. } => ('f', id.0, 0),
            }),
        };
        self.gathered.release(all, give, |empty| self.outlet.give_back(empty));
        given
    }
}

#[test]
fn a_packet_waits_for_older_ones_and_notes_for_the_packets_before_them() {
    let mut way = Way::new();
    way.event(RecordingEvent::Start(Box::new(start(1, b"one", Coverage::Call))));
    way.packet(1, 12);
    way.packet(1, 10);
    way.mark(1, 13);
    way.packet(1, 20);
    way.mark(1, 21);
    way.hand_over(15);
    assert_eq!(way.release(false), [('s', 1, 0), ('p', 1, 10), ('p', 1, 12), ('m', 1, 13)]);
    way.packet(1, 18);
    way.event(RecordingEvent::End { id: RecordingId(1), at: at(30), reason: EndReason::Deleted });
    way.hand_over(17);
    assert_eq!(way.release(false), []);
    way.packet(2, 25);
    way.hand_over(20);
    assert_eq!(way.release(false), [('p', 1, 18), ('p', 1, 20), ('m', 1, 21), ('e', 1, 30)]);
    assert_eq!(way.gathered.chunks(), 1);
    assert_eq!(way.release(true), [('p', 2, 25)]);
    assert_eq!(way.gathered.chunks(), 0);
}

#[test]
fn a_recording_that_came_first_is_given_first() {
    let mut way = Way::new();
    for (id, name) in [(9, b"one"), (4, b"two"), (7, b"tri")] {
        way.event(RecordingEvent::Start(Box::new(start(id, name, Coverage::Call))));
        way.packet(id, 10);
        way.event(RecordingEvent::End { id: RecordingId(id), at: at(10), reason: EndReason::Stopped });
    }
    way.packet(2, 30);
    way.hand_over(20);
    let given: Vec<u64> = way.release(false).iter().map(|one| one.1).collect();
    assert_eq!(given, [9, 9, 9, 4, 4, 4, 7, 7, 7]);
    way.packet(1, 30);
    way.hand_over(30);
    assert_eq!(way.release(false), [('p', 2, 30), ('p', 1, 30)]);
}

#[test]
fn what_waits_too_long_is_overdue() {
    let mut way = Way::new();
    way.packet(1, 10);
    way.hand_over(0);
    assert_eq!(way.release(false), []);
    let span = Duration::from_millis(200);
    assert!(!way.gathered.is_overdue(Instant::now(), span));
    assert!(way.gathered.is_overdue(Instant::now() + span, span));
}

proptest! {
    /// Whatever the order, nothing is lost, and each recording has its packets in the order of time, and its notes in
    /// theirs.
    #[test]
    fn everything_is_given_once_and_in_order(
        steps in proptest::collection::vec((0_u8..10, 0_u64..4, 0_u64..50), 0..300),
    ) {
        let mut way = Way::new();
        let mut given = Given::new();
        let mut expected = Given::new();
        let mut settled = 0;
        for (kind, id, ms) in steps {
            match kind {
                0 => way.hand_over(settled),
                1 => {
                    way.hand_over(settled);
                    given.extend(way.release(false));
                }
                2 => settled += ms / 5,
                3 => {
                    way.mark(id, settled + ms);
                    expected.push(('m', id, settled + ms));
                }
                _ => {
                    // Nothing comes that is older than what has settled.
                    way.packet(id, settled + 1 + ms);
                    expected.push(('p', id, settled + 1 + ms));
                }
            }
        }
        way.hand_over(settled);
        given.extend(way.release(true));
        for id in 0..4 {
            let of = |all: &Given, kind| -> Vec<u64> {
                all.iter().filter(|one| (one.0, one.1) == (kind, id)).map(|one| one.2).collect()
            };
            let mut packets = of(&expected, 'p');
            packets.sort_unstable();
            prop_assert_eq!(of(&given, 'p'), packets);
            prop_assert_eq!(of(&given, 'm'), of(&expected, 'm'));
        }
        prop_assert!(way.gathered.is_empty() && way.gathered.chunks() == 0);
        let Way { tap, outlet, gathered, budget } = way;
        drop((tap, outlet, gathered));
        prop_assert_eq!(budget.used(), 0);
    }
}
