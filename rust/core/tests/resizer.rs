//! Packets of another length, in virtual time: the resizer alone, and in a session.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use rtpproxy_core::command::CallId;
use rtpproxy_core::config::EngineConfig;
use rtpproxy_core::effects::{Effect, PairId, Payload};
use rtpproxy_core::resizer::{Inserted, QUEUED_BYTES_MAX, QUEUED_PACKETS_MAX, Resizer};
use rtpproxy_core::rtp::RtpView;
use rtpproxy_core::time::Mono;
use support::{Lab, rtp};

const PCMU: u8 = 0;
const GSM: u8 = 3;
const G723: u8 = 4;
const G722: u8 = 9;
const G729: u8 = 18;

/// A packet as a sender makes it, or as it came out.
#[derive(Clone, Debug, PartialEq)]
struct Rtp {
    payload_type: u8,
    marker: bool,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    payload: Vec<u8>,
}

impl Rtp {
    fn new(payload_type: u8, sequence: u16, timestamp: u32, payload: Vec<u8>) -> Self {
        Self { payload_type, marker: false, sequence, timestamp, ssrc: 7, payload }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0x80, self.payload_type | u8::from(self.marker) << 7];
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(self.ssrc.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    fn read(bytes: &[u8]) -> Self {
        let view = RtpView::parse(bytes).expect("RTP");
        Self {
            payload_type: view.payload_type(),
            marker: view.marker(),
            sequence: view.sequence(),
            timestamp: view.timestamp(),
            ssrc: view.ssrc(),
            payload: view.payload().to_vec(),
        }
    }

    /// Its timestamp and the length of its payload.
    fn shape(&self) -> (u32, usize) {
        (self.timestamp, self.payload.len())
    }
}

/// A resizer with a clock.
struct Bench {
    resizer: Resizer,
    now: Mono,
}

impl Bench {
    fn new(packet_ms: u16) -> Self {
        Self { resizer: Resizer::new(packet_ms), now: Mono(5_000_000_000) }
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
    }

    fn insert_bytes(&mut self, bytes: &[u8]) -> Inserted {
        let view = RtpView::parse(bytes).expect("RTP");
        self.resizer.insert(self.now, bytes, &view)
    }

    fn drain_bytes(&mut self) -> Vec<Vec<u8>> {
        let mut scratch = b"before".to_vec();
        let mut packets = Vec::new();
        while let Some(range) = self.resizer.next(self.now, &mut scratch) {
            assert_eq!(range.end, scratch.len());
            packets.push(scratch[range].to_vec());
        }
        assert!(scratch.starts_with(b"before"));
        packets
    }

    /// What comes out after this packet went in and was queued.
    fn send(&mut self, packet: &Rtp) -> Vec<Rtp> {
        assert_eq!(self.insert_bytes(&packet.bytes()), Inserted::Queued, "{packet:?}");
        self.drain_bytes().iter().map(|bytes| Rtp::read(bytes)).collect()
    }

    /// Packets that arrive when they are made; the shapes of what comes out after each.
    fn shapes(&mut self, packets: &[Rtp]) -> Vec<Vec<(u32, usize)>> {
        let first = packets.first().map_or(0, |packet| packet.timestamp);
        let start = self.now;
        let shapes = packets.iter().map(|packet| {
            let ticks = u64::from(packet.timestamp.wrapping_sub(first));
            self.now = start + Duration::from_micros(ticks * 125);
            self.send(packet).iter().map(Rtp::shape).collect()
        });
        shapes.collect()
    }
}

/// Packets without a gap: each of `len` bytes and `ticks`.
fn stream(payload_type: u8, count: u16, len: usize, ticks: u32) -> Vec<Rtp> {
    (0..count)
        .map(|at| Rtp::new(payload_type, 100 + at, 5000 + u32::from(at) * ticks, vec![at as u8 * 4; len]))
        .collect()
}

#[test]
fn packets_are_joined() {
    let mut bench = Bench::new(40);
    let [first, second, third, fourth] = &stream(PCMU, 4, 160, 160)[..] else { panic!("four packets") };
    assert_eq!(bench.send(&Rtp { marker: true, ..first.clone() }), []);
    bench.pass_ms(20);
    let joined = [first.payload.clone(), second.payload.clone()].concat();
    assert_eq!(bench.send(second), [Rtp { marker: true, payload: joined, ..first.clone() }]);
    bench.pass_ms(20);
    assert_eq!(bench.send(third), []);
    bench.pass_ms(20);
    let joined = [third.payload.clone(), fourth.payload.clone()].concat();
    assert_eq!(bench.send(fourth), [Rtp { sequence: 101, payload: joined, ..third.clone() }]);
    assert_eq!(bench.resizer.queued(), 0);
}

#[test]
fn packets_are_split_and_only_the_first_part_keeps_the_marker() {
    for payload_type in [PCMU, G722] {
        let mut bench = Bench::new(10);
        let payload: Vec<u8> = (0..160).collect();
        let whole = Rtp { marker: true, ..Rtp::new(payload_type, 9, u32::MAX - 79, payload.clone()) };
        let first = Rtp { payload: payload[..80].to_vec(), ..whole.clone() };
        let second = Rtp::new(payload_type, 10, 0, payload[80..].to_vec());
        assert_eq!(bench.send(&whole), [first, second]);
    }
}

#[test]
fn packets_are_joined_and_split_across_their_borders() {
    let mut bench = Bench::new(30);
    let shapes = bench.shapes(&stream(PCMU, 3, 160, 160));
    assert_eq!(shapes, [vec![], vec![(5000, 240)], vec![(5240, 240)]]);
}

#[test]
fn the_length_is_raised_to_whole_frames() {
    for (ms, payload_type, len, ticks, out) in [
        (1, PCMU, 160, 160, vec![vec![(5000, 80), (5080, 80)]; 1]),
        (25, PCMU, 160, 160, vec![vec![], vec![(5000, 240)]]),
        (10, GSM, 66, 320, vec![vec![(5000, 33), (5160, 33)]]),
        (30, GSM, 33, 160, vec![vec![], vec![(5000, 66)]]),
        (20, G723, 48, 480, vec![vec![(5000, 24), (5240, 24)]]),
        (50, G723, 24, 240, vec![vec![], vec![(5000, 48)]]),
        (15, G729, 10, 80, vec![vec![], vec![(5000, 20)]]),
        (10, G729, 20, 160, vec![vec![(5000, 10), (5080, 10)]]),
        (10, G722, 160, 160, vec![vec![(5000, 80), (5080, 80)]]),
    ] {
        let packets = stream(payload_type, out.len() as u16, len, ticks);
        assert_eq!(Bench::new(ms).shapes(&packets), out, "z{ms}, payload type {payload_type}");
    }
}

#[test]
fn a_silence_descriptor_of_g729_ends_a_packet() {
    let mut bench = Bench::new(60);
    let packets = [
        Rtp::new(G729, 1, 0, vec![1; 20]),
        Rtp::new(G729, 2, 160, vec![2; 12]),
        Rtp::new(G729, 3, 320, vec![3; 20]),
        Rtp::new(G729, 4, 480, vec![4; 20]),
    ];
    // 160 + 160 + 160 ticks are enough for a packet, which ends with the second one all the same.
    assert_eq!(bench.shapes(&packets), [vec![], vec![], vec![(0, 32)], vec![]]);

    // A descriptor that is split off still ends its packet.
    let mut bench = Bench::new(20);
    let packets = [Rtp::new(G729, 1, 0, vec![1; 22]), Rtp::new(G729, 2, 240, vec![2; 10])];
    assert_eq!(bench.shapes(&packets), [vec![(0, 20)], vec![(160, 2)]]);
}

#[test]
fn what_is_not_known_passes() {
    let mut bench = Bench::new(40);
    for (payload_type, len) in [(101, 4), (13, 1), (96, 160), (GSM, 20), (G723, 23), (PCMU, 0)] {
        let packet = Rtp::new(payload_type, 1, 0, vec![0; len]);
        assert_eq!(bench.insert_bytes(&packet.bytes()), Inserted::Passed, "{payload_type}");
    }
    assert_eq!(bench.resizer.queued(), 0);
}

#[test]
fn packets_are_put_in_order_and_late_ones_discarded() {
    let mut bench = Bench::new(40);
    let packets = stream(PCMU, 6, 160, 160);
    assert_eq!(bench.send(&packets[1]), []);
    let out = bench.send(&packets[0]);
    assert_eq!(out.iter().map(Rtp::shape).collect::<Vec<_>>(), [(5000, 320)]);
    // The sequence goes on from the first packet sent.
    assert_eq!(out[0].sequence, 100);
    for late in &packets[..2] {
        assert_eq!(bench.insert_bytes(&late.bytes()), Inserted::Discarded);
    }
    // A copy of a packet that waits still.
    assert_eq!(bench.send(&packets[2]), []);
    assert_eq!(bench.insert_bytes(&packets[2].bytes()), Inserted::Discarded);
    // A hole: what is before it leaves alone as soon as there is enough.
    bench.pass_ms(40);
    let out = bench.send(&packets[4]);
    assert_eq!(out.iter().map(Rtp::shape).collect::<Vec<_>>(), [(5320, 160)]);
    // And what fills it is not too late yet.
    let out = bench.send(&packets[3]);
    assert_eq!(out.iter().map(Rtp::shape).collect::<Vec<_>>(), [(5480, 320)]);
    assert_eq!(out[0].sequence, 102);
}

#[test]
fn another_payload_type_begins_another_packet() {
    let mut bench = Bench::new(60);
    let packets =
        [(PCMU, 0), (8, 160), (8, 320)].map(|(pt, at)| Rtp::new(pt, at as u16 / 160, at, vec![pt; 160]));
    assert_eq!(bench.shapes(&packets), [vec![], vec![], vec![(0, 160)]]);
    assert_eq!(bench.resizer.queued(), 2);
}

#[test]
fn packets_wait_for_no_longer_than_the_limit() {
    // Twice the length, but 40 ms at least; the clock is set 5 ms ahead.
    for (ms, limit_ms) in [(15, 40), (30, 60), (100, 200)] {
        let mut bench = Bench::new(ms);
        assert_eq!(bench.send(&Rtp::new(PCMU, 1, 0, vec![0; 80])), []);
        bench.pass_ms(limit_ms - 6);
        assert_eq!(bench.drain_bytes().len(), 0, "z{ms}");
        bench.pass_ms(1);
        assert_eq!(bench.drain_bytes().len(), 1, "z{ms}");
    }
}

#[test]
fn the_clock_follows_the_sender() {
    // A packet from the future sets the clock at once: what waits leaves with the packet after the gap.
    let mut bench = Bench::new(40);
    assert_eq!(bench.send(&Rtp::new(PCMU, 1, 0, vec![0; 160])), []);
    bench.pass_ms(20);
    let out = bench.send(&Rtp::new(PCMU, 2, 8000, vec![0; 80]));
    assert_eq!(out.iter().map(Rtp::shape).collect::<Vec<_>>(), [(0, 160)]);

    // Packets that come a second later than they used to leave alone at first, as if they had waited already;
    // half of the lag is forgiven by each, until they are joined again.
    let mut bench = Bench::new(40);
    bench.shapes(&stream(PCMU, 2, 160, 160));
    bench.pass_ms(1000);
    let later: Vec<Rtp> = stream(PCMU, 40, 160, 160).split_off(2);
    let shapes = bench.shapes(&later);
    let lengths: Vec<usize> = shapes.iter().flatten().map(|(_, len)| *len).collect();
    let alone = lengths.iter().take_while(|len| **len == 160).count();
    assert!((3..10).contains(&alone), "{alone} packets left alone");
    assert!(lengths[alone..].iter().all(|len| *len == 320), "{lengths:?}");
}

#[test]
fn another_source_flushes_and_keeps_the_sequence() {
    let mut bench = Bench::new(40);
    let packets = stream(PCMU, 3, 160, 160);
    bench.send(&packets[0]);
    assert_eq!(bench.send(&packets[1]).len(), 1);
    assert_eq!(bench.send(&packets[2]), []);
    // Far behind what was sent, but of another SSRC.
    let other =
        |sequence: u16, timestamp: u32| Rtp { ssrc: 8, ..Rtp::new(PCMU, sequence, timestamp, vec![1; 160]) };
    assert_eq!(bench.send(&other(7, 160)), [Rtp { sequence: 101, ..packets[2].clone() }]);
    let out = bench.send(&other(8, 320));
    assert_eq!(out, [Rtp { payload: vec![1; 320], ..other(102, 160) }]);
    assert_eq!(bench.insert_bytes(&other(6, 0).bytes()), Inserted::Discarded);
}

#[test]
fn packets_of_different_sources_are_never_joined() {
    let mut bench = Bench::new(60);
    let packets = stream(PCMU, 3, 160, 160);
    assert_eq!(bench.send(&packets[0]), []);
    for packet in &packets[1..] {
        // Its timestamp follows all the same.
        let out = bench.send(&Rtp { ssrc: u32::from(packet.sequence), ..packet.clone() });
        assert_eq!(out.iter().map(Rtp::shape).collect::<Vec<_>>(), [(packet.timestamp - 160, 160)]);
    }
}

#[test]
fn what_overlaps_a_waiting_packet_is_discarded() {
    let mut bench = Bench::new(60);
    let packet = |at: u32, len: usize| Rtp::new(PCMU, at as u16, at, vec![0; len]);
    assert_eq!(bench.send(&packet(160, 80)), []);
    for (at, len) in [(100, 61), (100, 300), (160, 80), (160, 1), (239, 20)] {
        assert_eq!(bench.insert_bytes(&packet(at, len).bytes()), Inserted::Discarded, "{at}, {len}");
    }
    assert_eq!(bench.send(&packet(100, 60)), []);
    assert_eq!(bench.send(&packet(240, 20)), []);
    assert_eq!(bench.resizer.queued(), 3);
}

#[test]
fn a_sender_whose_timestamps_jump_is_heard_at_once() {
    for jump in [90_000_u32, 1 << 31, 90_000_u32.wrapping_neg()] {
        let mut bench = Bench::new(40);
        let packets = stream(PCMU, 5, 160, 160);
        bench.shapes(&packets[..3]);
        let jumped =
            |at: usize| Rtp { timestamp: packets[at].timestamp.wrapping_add(jump), ..packets[at].clone() };
        assert_eq!(bench.send(&jumped(3)), [Rtp { sequence: 101, ..packets[2].clone() }]);
        let out = bench.send(&jumped(4));
        assert_eq!(out.iter().map(Rtp::shape).collect::<Vec<_>>(), [(jumped(3).timestamp, 320)]);
    }
}

#[test]
fn headers_keep_their_extension_and_lose_their_padding() {
    let packet = |sequence: u8, timestamp: u8, csrc: u8| {
        let mut bytes = vec![0xb1, 0, 0, sequence, 0, 0, 0, timestamp, 0, 0, 0, 7, 0, 0, 0, csrc];
        bytes.extend([0xbe, 0xde, 0, 1, b'e', b'x', b't', csrc]);
        bytes.extend([sequence; 80]);
        bytes.extend([0, 0, 3]);
        bytes
    };
    let mut bench = Bench::new(20);
    assert_eq!(bench.insert_bytes(&packet(1, 0, 50)), Inserted::Queued);
    assert_eq!(bench.insert_bytes(&packet(2, 80, 60)), Inserted::Queued);
    let mut expected = packet(1, 0, 50)[..24].to_vec();
    expected[0] = 0x91;
    expected.extend([[1; 80], [2; 80]].concat());
    assert_eq!(bench.drain_bytes(), [expected]);
}

#[test]
fn the_length_can_change() {
    let mut bench = Bench::new(40);
    let packets = stream(PCMU, 3, 160, 160);
    assert_eq!(bench.send(&packets[0]), []);
    bench.resizer.set_packet_ms(20);
    assert_eq!(bench.shapes(&packets[1..]), [vec![(5000, 160), (5160, 160)], vec![(5320, 160)]]);
}

#[test]
fn the_queue_is_bounded() {
    // The shortest packets there are.
    let mut bench = Bench::new(999);
    let mut out = 0;
    for at in 0..2000 {
        out += bench.send(&Rtp::new(PCMU, at, u32::from(at), vec![0])).len();
        assert!(bench.resizer.queued() <= QUEUED_PACKETS_MAX);
    }
    assert!(out > 0);

    // Headers that are much longer than the payload.
    let mut bench = Bench::new(999);
    for at in 0..100_u16 {
        let mut bytes = Rtp::new(PCMU, at, u32::from(at), vec![]).bytes();
        bytes[0] |= 0x10;
        bytes.extend([0, 0, 0x03, 0xe8]);
        bytes.extend([0; 4001]);
        assert_eq!(bench.insert_bytes(&bytes), Inserted::Queued);
        bench.drain_bytes();
        assert!(bench.resizer.queued() <= QUEUED_BYTES_MAX / 4000);
    }
}

/// How one packet differs from an even stream.
#[derive(Clone, Debug)]
struct Fate {
    ticks: u32,
    /// Ticks of silence before it.
    gap: u32,
    marker: bool,
    lost: bool,
    twice: bool,
    /// How much later it arrives than it should.
    delay_ms: u64,
}

fn fate() -> impl Strategy<Value = Fate> {
    let ticks = prop_oneof![Just(160_u32), Just(80), 1..400_u32];
    let gap = prop_oneof![9 => Just(0_u32), 1 => 1..20_000_u32];
    let delay = prop_oneof![4 => Just(0_u64), 2 => 0..60_u64, 1 => 0..500_u64];
    (ticks, gap, prop::bool::weighted(0.1), prop::bool::weighted(0.1), prop::bool::weighted(0.1), delay)
        .prop_map(|(ticks, gap, marker, lost, twice, delay_ms)| Fate {
            ticks,
            gap,
            marker,
            lost,
            twice,
            delay_ms,
        })
}

/// The packets in the order they arrive, with their times in microseconds.
fn arrivals(first_timestamp: u32, fates: &[Fate]) -> Vec<(u64, Rtp)> {
    let mut at = 0_u32;
    let mut arrivals = Vec::new();
    for (sequence, fate) in fates.iter().enumerate() {
        at += fate.gap;
        let sequence = sequence as u16;
        // Each tick of the stream has its own byte.
        let payload = (at..at + fate.ticks).map(|tick| (tick % 251) as u8).collect();
        let packet = Rtp {
            marker: fate.marker,
            ..Rtp::new(PCMU, sequence.wrapping_sub(3), first_timestamp.wrapping_add(at), payload)
        };
        at += fate.ticks;
        let time = u64::from(at) * 125 + fate.delay_ms * 1000;
        let copies = usize::from(!fate.lost) * (1 + usize::from(fate.twice));
        arrivals.extend(vec![(time, packet); copies]);
    }
    arrivals.sort_by_key(|(time, _)| *time);
    arrivals
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Nothing is lost, doubled, changed or out of order but what was discarded.
    #[test]
    fn every_tick_goes_in_and_out(
        packet_ms in prop_oneof![1..=999_u16, Just(20), Just(40)],
        first_timestamp in prop_oneof![any::<u32>(), Just(u32::MAX - 500)],
        fates in prop::collection::vec(fate(), 1..80),
    ) {
        let mut bench = Bench::new(packet_ms);
        let start = bench.now;
        let (mut taken, mut markers) = (BTreeMap::new(), BTreeMap::new());
        let (mut queued, mut discarded) = (0, 0);
        let mut out = Vec::new();
        let arrivals = arrivals(first_timestamp, &fates);
        for (time, packet) in &arrivals {
            bench.now = start + Duration::from_micros(*time);
            let at = packet.timestamp.wrapping_sub(first_timestamp);
            match bench.insert_bytes(&packet.bytes()) {
                Inserted::Queued => {
                    queued += 1;
                    markers.insert(at, packet.marker);
                    taken.extend((at..).zip(packet.payload.iter().copied()));
                }
                Inserted::Discarded => discarded += 1,
                Inserted::Passed => prop_assert!(false, "PCMU is known"),
            }
            out.extend(bench.drain_bytes());
        }
        prop_assert_eq!(queued + discarded, arrivals.len());
        // Another source flushes what waits; it waits itself unless it is long enough at once.
        let other = Rtp { ssrc: 8, ..Rtp::new(PCMU, 0, 0, vec![0]) };
        out.extend(bench.send(&other).iter().map(Rtp::bytes));
        let out: Vec<Rtp> = out.iter().map(|bytes| Rtp::read(bytes)).filter(|packet| packet.ssrc == 7).collect();

        let target = (usize::from(packet_ms) * 8).next_multiple_of(80);
        let mut given = BTreeMap::new();
        let mut end = 0;
        for (at, packet) in out.iter().enumerate() {
            prop_assert_eq!(packet.sequence, out[0].sequence.wrapping_add(at as u16));
            prop_assert!(!packet.payload.is_empty() && packet.payload.len() <= target);
            let at = packet.timestamp.wrapping_sub(first_timestamp);
            prop_assert!(at >= end, "in order and without overlap");
            end = at + packet.payload.len() as u32;
            prop_assert_eq!(packet.marker, markers.get(&at).copied().unwrap_or(false));
            given.extend((at..).zip(packet.payload.iter().copied()));
        }
        prop_assert_eq!(given, taken);
    }

    /// Any datagrams: the bounds hold, and packets that come out are RTP of a known type.
    #[test]
    fn strange_streams_do_no_harm(
        packet_ms in 1..=999_u16,
        packets in prop::collection::vec(
            (
                prop::sample::select(vec![0_u8, 3, 4, 8, 9, 18, 101]),
                prop_oneof![any::<u32>(), 0..2000_u32],
                0..3_u32,
                prop::collection::vec(any::<u8>(), 0..300),
                0..300_u64,
            ),
            1..200,
        ),
    ) {
        let mut bench = Bench::new(packet_ms);
        let mut sequence = None;
        for (at, (payload_type, timestamp, ssrc, payload, wait_ms)) in packets.into_iter().enumerate() {
            let packet = Rtp { ssrc, ..Rtp::new(payload_type, at as u16, timestamp, payload) };
            bench.insert_bytes(&packet.bytes());
            for bytes in bench.drain_bytes() {
                let out = Rtp::read(&bytes);
                prop_assert!(!out.payload.is_empty() && out.payload_type != 101);
                prop_assert_eq!(out.sequence, sequence.map_or(out.sequence, |last: u16| last.wrapping_add(1)));
                sequence = Some(out.sequence);
            }
            prop_assert!(bench.resizer.queued() <= QUEUED_PACKETS_MAX);
            bench.pass_ms(wait_ms);
        }
    }
}

const CALLER: &str = "127.0.0.1:30000";
const CALLEE: &str = "127.0.0.1:30100";
const RESIZER: &str = "G npkts_resizer_in npkts_resizer_out npkts_resizer_discard";

/// The caller, who sends to 22002, is to be heard in packets of 40 ms.
fn call() -> Lab {
    let mut lab = Lab::new();
    assert_eq!(lab.ask("Uz40 c 127.0.0.1 30000 f"), "22000 127.0.0.1");
    assert_eq!(lab.ask("L c 127.0.0.1 30100 f t"), "22002 127.0.0.1");
    lab
}

/// How many packets the caller's next one makes, 20 ms after the one before.
fn speak(lab: &mut Lab, sequence: u16) -> usize {
    lab.pass(Duration::from_millis(20));
    lab.rtp(CALLER, 22002, 1, sequence).len()
}

#[test]
fn one_direction_of_a_call_is_resized() {
    let mut lab = call();
    assert_eq!(speak(&mut lab, 1), 0);
    assert_eq!(speak(&mut lab, 2), 1);
    let (payload, via, to) = lab.sent().remove(0);
    assert_eq!((via, to.to_string().as_str()), (22000, CALLEE));
    let mut expected = rtp(0, 1, 1);
    expected.extend([0xd5; 160]);
    assert_eq!(payload, expected);
    assert_eq!(lab.rtp(CALLEE, 22000, 2, 1).len(), 1);
    assert_eq!(lab.ask(RESIZER), "2 1 0");
    assert_eq!(lab.ask("Q c f t"), "60 2 1 2 0");
    assert_eq!(lab.ask("G npkts_rcvd npkts_relayed npkts_discard"), "3 2 0");
}

#[test]
fn events_and_what_is_no_rtp_pass_at_once() {
    let mut lab = call();
    assert_eq!(speak(&mut lab, 1), 0);
    assert_eq!(lab.datagram(CALLER, 22002, &rtp(101, 1, 2)).len(), 1);
    assert_eq!(lab.datagram(CALLER, 22002, b"udptl").len(), 1);
    assert_eq!(lab.datagram("127.0.0.1:30001", 22003, &[0x80, 200, 0, 6]).len(), 1);
    assert_eq!(lab.ask(RESIZER), "1 0 0");
    // Whatever arrives on the port lets packets out whose time has come, behind itself.
    lab.pass(Duration::from_millis(100));
    assert_eq!(lab.datagram(CALLER, 22002, b"udptl").len(), 2);
    let sent: Vec<usize> = lab.sent().iter().map(|(payload, ..)| payload.len()).collect();
    assert_eq!(sent, [5, 172]);
    assert_eq!(lab.ask(RESIZER), "1 1 0");
}

#[test]
fn every_u_and_l_says_anew_whether_packets_are_resized() {
    let mut lab = call();
    assert_eq!(speak(&mut lab, 1), 0);
    // With `z` again the packets stay; with another length they follow it.
    assert_eq!(lab.ask("Uz60 c 127.0.0.1 30000 f"), "22000 127.0.0.1");
    assert_eq!(speak(&mut lab, 2), 0);
    assert_eq!(speak(&mut lab, 3), 1);
    assert_eq!(lab.sent()[0].0.len(), 12 + 480);
    assert_eq!(speak(&mut lab, 4), 0);
    // The other party's command does not matter.
    assert_eq!(lab.ask("L c 127.0.0.1 30100 f t"), "22002 127.0.0.1");
    assert_eq!(lab.ask(RESIZER), "4 1 0");
    assert_eq!(lab.ask("U c 127.0.0.1 30000 f"), "22000 127.0.0.1");
    assert_eq!(lab.ask(RESIZER), "4 1 1");
    assert_eq!(speak(&mut lab, 5), 1);
    assert_eq!(lab.ask(RESIZER), "4 1 1");
    // `L` describes the callee.
    assert_eq!(lab.ask("Lz10 c 127.0.0.1 30100 f t"), "22002 127.0.0.1");
    assert_eq!(lab.rtp(CALLEE, 22000, 2, 1).len(), 2);
    assert_eq!(lab.ask(RESIZER), "5 3 1");
}

#[test]
fn what_is_late_or_waits_at_the_end_is_counted() {
    let mut lab = call();
    for sequence in 1..=5 {
        speak(&mut lab, sequence);
    }
    assert_eq!(lab.rtp(CALLER, 22002, 1, 2).len(), 0);
    assert_eq!(lab.ask(RESIZER), "6 2 1");
    assert_eq!(lab.ask("D c f t"), "0");
    assert_eq!(lab.ask(RESIZER), "6 2 2");
    assert_eq!(lab.ask("G npkts_discard"), "0");
}

#[test]
fn recordings_have_the_resized_packets() {
    let mut lab = call();
    assert_eq!(lab.ask("R c f t"), "0");
    speak(&mut lab, 1);
    assert!(recorded(&lab).is_empty());
    speak(&mut lab, 2);
    let lengths: Vec<usize> = recorded(&lab).iter().map(Vec::len).collect();
    assert_eq!(lengths, [12 + 320]);
}

fn recorded(lab: &Lab) -> Vec<Vec<u8>> {
    let records = lab.out.effects.iter().filter_map(|effect| match effect {
        Effect::Record(record) => Some(&record.payload),
        _ => None,
    });
    let bytes = records.map(|payload| match payload {
        Payload::Scratch(range) => lab.out.scratch[range.clone()].to_vec(),
        Payload::Received => panic!("the received packet is not what is relayed"),
    });
    bytes.collect()
}

#[test]
fn small_resized_packets_go_twice_if_asked_for() {
    let mut lab = Lab::with_engine(EngineConfig { double_send: true, ..EngineConfig::default() });
    lab.ask("Uz10 c 127.0.0.1 30000 f");
    lab.ask("L c 127.0.0.1 30100 f t");
    assert_eq!(lab.rtp(CALLER, 22002, 1, 1).len(), 4);
    assert_eq!(lab.ask(RESIZER), "1 2 0");
}

#[test]
fn packets_that_wait_move_with_their_call() {
    let mut lab = call();
    assert_eq!(speak(&mut lab, 1), 0);
    let call_id = CallId::from("c");
    let state = lab.engine.export(&call_id).expect("the call");
    assert_eq!(state.clone(), state);
    lab.engine.import(state, |pair| PairId(pair.id.0));
    assert_eq!(speak(&mut lab, 2), 1);
    assert_eq!(lab.ask(RESIZER), "2 1 0");
}
