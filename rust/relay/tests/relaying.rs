//! Whole relays on loopback: commands in, packets through.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test ends where its helpers fail")]

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rtpproxy_core::addr::LocalAddr;
use rtpproxy_core::command::{Command, ErrorCode, NotifyTarget, Reply};
use rtpproxy_core::config::{EngineConfig, FrontConfig, ListenAddr, NotifySpec};
use rtpproxy_core::front::Origin;
use rtpproxy_relay::config::{Config, RecordConfig, RecordFormat};
use rtpproxy_relay::notifier::Notice;
use rtpproxy_relay::{Relay, RelayHandle, StartError};

#[test]
fn packets_pass_both_ways_with_exact_counts() {
    for workers in [1, 4] {
        let relay = start(workers, V4);
        let handle = relay.handle();
        let calls: Vec<Call> = (0..8).map(|number| Call::set_up(&handle, number, V4, V4)).collect();
        for call in &calls {
            call.exchange(25, 10);
        }
        for call in &calls {
            let counts = [25, 10, 35, 0].map(|count: u32| count.to_string()).join(" ") + "\n";
            let reply = text(&handle, &format!("Q {} f t", call.id));
            assert_eq!(reply.split_once(' ').unwrap().1, counts, "{workers} workers");
        }
        let info = text(&handle, "I");
        let figures: Vec<&str> = info.lines().map(|line| line.rsplit_once(' ').unwrap().1).collect();
        assert_eq!(figures, ["8", "8", "16", "280", "280"]);
        assert_eq!(handle.active_sessions(), 8);
    }
}

#[test]
fn the_answers_of_all_workers_are_one() {
    let relay = start(4, V4);
    let handle = relay.handle();
    let calls: Vec<Call> = (0..20).map(|number| Call::set_up(&handle, number, V4, V4)).collect();
    calls[3].exchange(5, 0);
    calls[11].exchange(0, 7);
    let counters = "G v nsess_created nsess_complete nsess_destroyed npkts_rcvd npkts_relayed";
    assert_eq!(
        text(&handle, &counters.replace("G v", "Gv")),
        "nsess_created=20 nsess_complete=20 nsess_destroyed=0 npkts_rcvd=12 npkts_relayed=12\n"
    );
    assert_eq!(text(&handle, "X"), "0\n");
    assert_eq!(handle.active_sessions(), 0);
    assert_eq!(text(&handle, "G nsess_destroyed nsess_owrtp nsess_nortp"), "20 2 18\n");
    assert_eq!(text(&handle, &format!("Q {} f t", calls[3].id)), "E50\n");
    // U and L of each call, G, X, G, Q: only Q failed, and the present G is counted as received alone.
    assert_eq!(text(&handle, "G ncmds_rcvd ncmds_succd ncmds_errs ncmds_repld"), "45 43 1 44\n");
}

#[test]
fn a_prompt_is_heard_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let sound: Vec<u8> = (0..800).map(|at| at as u8).collect();
    std::fs::write(dir.path().join("hello.0"), &sound).unwrap();
    let relay = start(2, V4);
    let handle = relay.handle();
    let call = Call::set_up(&handle, 1, V4, V4);
    call.exchange(1, 1);
    let play = |codecs| text(&handle, &format!("P {} {}/hello {codecs} f t", call.id, dir.path().display()));
    assert_eq!(play("8"), "E60\n");
    assert_eq!(play("session"), "E35\n");
    let begin = Instant::now();
    assert_eq!(play("8,0"), "0\n");
    let mut buffer = [0; 256];
    for (number, expected) in sound.chunks(80).enumerate() {
        let (len, source) = call.caller.rtp.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[12..len], source), (expected, call.caller_sends_to));
        assert!(begin.elapsed() >= Duration::from_millis(10) * number as u32);
    }
    // The end is noticed with the next packet's time.
    while text(&handle, "G nplrs_destroyed") == "0\n" {
        assert!(begin.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(text(&handle, "G nplrs_created nplrs_destroyed npkts_played npkts_relayed"), "1 1 10 2\n");
}

#[test]
fn ipv4_and_ipv6_are_joined() {
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("NOT TESTED: this machine has no IPv6");
        return;
    }
    let relay = start(2, BOTH);
    let handle = relay.handle();
    let call = Call::set_up(&handle, 1, V4, V6);
    call.exchange(12, 9);
    let back = Call::set_up(&handle, 2, V6, V4);
    back.exchange(3, 4);
}

#[test]
fn rtcp_passes_beside_rtp() {
    let relay = start(1, V4);
    let handle = relay.handle();
    let call = Call::set_up(&handle, 1, V4, V4);
    call.exchange(1, 1);
    let report = [0x80, 201, 0, 1, 0, 0, 0, 7];
    for (from, to, relay_port) in [
        (&call.caller.rtcp, &call.callee.rtcp, call.caller_sends_to),
        (&call.callee.rtcp, &call.caller.rtcp, call.callee_sends_to),
    ] {
        let at = SocketAddr::new(relay_port.ip(), relay_port.port() + 1);
        from.send_to(&report, at).unwrap();
        let mut buffer = [0; 64];
        let (len, source) = to.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..len], report);
        assert_eq!(source.port() % 2, 1, "RTCP leaves from an RTCP port");
    }
    // The RTP pair alone is told of.
    assert!(text(&handle, &format!("Q {} f t", call.id)).ends_with(" 1 1 2 0\n"));
}

#[test]
fn large_datagrams_are_cut_and_empty_ones_pass() {
    let relay = start(1, V4);
    let handle = relay.handle();
    let call = Call::set_up(&handle, 1, V4, V4);
    call.exchange(1, 1);
    let mut large = rtp(2, 7);
    large.resize(9000, 0x55);
    let mut buffer = vec![0; 10_000];
    for (sent, received) in [(&large[..], &large[..8192]), (&large[..8192], &large[..8192]), (&[], &[])] {
        call.caller.rtp.send_to(sent, call.caller_sends_to).unwrap();
        let len = call.callee.rtp.recv(&mut buffer).unwrap();
        assert!(buffer[..len] == *received, "{len} bytes came of {}", sent.len());
    }
}

#[test]
fn resized_packets_are_sent_as_they_were_rebuilt() {
    let relay = start(1, V4);
    let handle = relay.handle();
    let call = Call::set_up(&handle, 1, V4, V4);
    let (family, media) = call.caller.media();
    text(&handle, &format!("Uz40{family} {} {media} f", call.id));
    let mut buffer = [0; 512];
    for sequence in [1, 3, 5] {
        call.caller.rtp.send_to(&rtp(sequence, 7), call.caller_sends_to).unwrap();
        call.caller.rtp.send_to(&rtp(sequence + 1, 7), call.caller_sends_to).unwrap();
        let len = call.callee.rtp.recv(&mut buffer).unwrap();
        let mut expected = [&rtp(sequence, 7)[..], &rtp(sequence + 1, 7)[12..]].concat();
        expected[3] = 1 + sequence as u8 / 2;
        assert_eq!(buffer[..len], expected);
    }
    assert_eq!(text(&handle, "G npkts_resizer_in npkts_resizer_out npkts_resizer_discard"), "6 3 0\n");
}

#[test]
fn a_burst_on_one_socket_keeps_its_order() {
    let relay = start(1, V4);
    let handle = relay.handle();
    let call = Call::set_up(&handle, 1, V4, V4);
    call.exchange(100, 0);
    for sequence in 100..250 {
        call.caller.rtp.send_to(&rtp(sequence, 1), call.caller_sends_to).unwrap();
    }
    let mut buffer = [0; 256];
    for sequence in 100..250 {
        let len = call.callee.rtp.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..len], rtp(sequence, 1));
    }
}

#[test]
fn busy_workers_answer_and_lose_nothing() {
    let relay = start(1, V4);
    let handle = relay.handle();
    let calls: Vec<Call> = (0..50).map(|number| Call::set_up(&handle, number, V4, V4)).collect();
    // 5 packets a millisecond: well above the rate from which packets gather.
    let start = Instant::now();
    for sequence in 0..60 {
        for call in &calls {
            call.caller.rtp.send_to(&rtp(sequence, 1), call.caller_sends_to).unwrap();
        }
        let asked = Instant::now();
        assert!(text(&handle, &format!("Q {} f t", calls[0].id)).contains(' '));
        assert!(asked.elapsed() < Duration::from_secs(1));
        thread::sleep((start + Duration::from_millis(10) * u32::from(sequence)) - Instant::now());
    }
    let mut buffer = [0; 256];
    for call in &calls {
        for sequence in 0..60 {
            let len = call.callee.rtp.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..len], rtp(sequence, 1), "{}", call.id);
        }
    }
}

#[test]
fn the_range_of_ports_has_an_end() {
    let (min, _) = free_ports(4);
    let config = Config { port_min: min, port_max: min + 6, sequential_ports: true, ..config(1, V4) };
    let relay = Relay::start(config, Vec::new()).unwrap();
    let handle = relay.handle();
    let mut ports = HashSet::new();
    for command in ["U a 0 0 f", "U b 0 0 f", "L a 0 0 f t", "U c 0 0 f"] {
        assert!(ports.insert(media(&text(&handle, command)).port()), "{command}");
    }
    assert_eq!(ports, (min..min + 8).step_by(2).collect());
    assert_eq!(text(&handle, "U d 0 0 f"), "E72\n");
    assert_eq!(text(&handle, "L b 0 0 f t"), "E71\n");
    assert_eq!(text(&handle, "D a f"), "0\n");
    assert!(text(&handle, "L b 0 0 f t").contains("127.0.0.1"));
}

#[test]
fn an_address_that_is_not_ours_cannot_be_bound() {
    let relay = start(1, V4);
    let handle = relay.handle();
    assert_eq!(text(&handle, "Ul192.0.2.77 a 0 0 f"), "E72\n");
    assert!(text(&handle, "U a 0 0 f").contains("127.0.0.1"));
    assert_eq!(text(&handle, "Ll192.0.2.77 a 0 0 f t"), "E71\n");
}

#[test]
fn a_recording_shows_the_address_that_each_packet_was_sent_to() {
    let folder = tempfile::tempdir().unwrap();
    let record = RecordConfig {
        folder: Some(folder.path().to_owned()),
        format: RecordFormat::Pcap,
        sip_head: false,
        ..RecordConfig::default()
    };
    let any = [Ipv4Addr::UNSPECIFIED.into()];
    let relay = Relay::start(Config { record, ..config(2, &any) }, Vec::new()).unwrap();
    let handle = relay.handle();
    let (caller, callee) = (Phone::new(V4[0]), Phone::new(V4[0]));
    let port = |reply: String| reply.trim().parse::<u16>().unwrap();
    port(text(&handle, &format!("U call {} f", caller.media().1)));
    let port = port(text(&handle, &format!("L call {} f t", callee.media().1)));
    assert_eq!(text(&handle, "R call f t"), "0\n");
    let destinations = [[127, 0, 0, 1], [127, 9, 8, 7], [127, 0, 0, 5]];
    for (sequence, destination) in destinations.into_iter().enumerate() {
        caller.rtp.send_to(&rtp(sequence as u16, 1), (Ipv4Addr::from(destination), port)).unwrap();
        assert_eq!(callee.rtp.recv(&mut [0; 256]).unwrap(), 172);
    }
    relay.shutdown();
    let file = std::fs::read(folder.path().join("call=f.pcap")).unwrap();
    // A file header; for each packet a record header, Ethernet, IPv4, UDP.
    let frames: Vec<&[u8]> = file[24..].chunks(16 + 14 + 20 + 8 + 172).map(|record| &record[16..]).collect();
    assert_eq!(frames.len(), 3);
    for (frame, destination) in frames.iter().zip(destinations) {
        assert_eq!(frame[26..30], [127, 0, 0, 1]);
        assert_eq!(frame[30..34], destination);
        assert_eq!(frame[36..38], port.to_be_bytes());
    }
}

#[test]
fn copies_reach_a_host_by_address_and_by_name() {
    for (workers, host) in [(1, "127.0.0.1"), (4, "127.0.0.1"), (4, "localhost")] {
        let relay = start(workers, V4);
        let handle = relay.handle();
        let call = Call::set_up(&handle, 1, V4, V4);
        let third = Phone::new(V4[0]);
        let command = format!("Cp {} udp:{host}:{} f t", call.id, third.addr.port());
        let from = media(&text(&handle, &command));
        call.exchange(5, 3);
        for sequence in 0..5 {
            third.expect(&rtp(sequence, 1), from);
        }
        let report = [0x80, 201, 0, 1, 0, 0, 0, 7];
        let rtcp = SocketAddr::new(call.caller_sends_to.ip(), call.caller_sends_to.port() + 1);
        call.caller.rtcp.send_to(&report, rtcp).unwrap();
        let mut buffer = [0; 64];
        let (len, source) = third.rtcp.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], source.port()), (&report[..], from.port() + 1));
        assert_eq!(text(&handle, &format!("N {} f t", call.id)), "0\n");
        UdpSocket::bind(from).unwrap();
        assert_eq!(text(&handle, &format!("C {} udp:no-such-host.invalid:9 f t", call.id)), "E65\n");
    }
}

#[test]
fn names_are_not_looked_up_if_that_is_forbidden() {
    let config = Config { resolve_names: false, ..config(1, V4) };
    let relay = Relay::start(config, Vec::new()).unwrap();
    let handle = relay.handle();
    Call::set_up(&handle, 1, V4, V4);
    assert_eq!(text(&handle, "C call1@test udp:localhost:9 f t"), "E65\n");
    assert_eq!(text(&handle, "C call1@test udp:127.0.0.1:9 f t"), "0\n");
}

#[test]
fn a_fork_is_created_where_its_source_is() {
    for workers in [1, 4] {
        let relay = start(workers, V4);
        let handle = relay.handle();
        for number in 0..8 {
            let source = Call::set_up(&handle, number, V4, V4);
            let fork = Fork::new();
            let reply = text(&handle, &fork.command(number, &source));
            fork.expect_media(&source, &reply);
            let id = format!("fork{number}");
            assert_eq!(text(&handle, &format!("Q {id} rf rt ttl")), "60\n");
            assert_eq!(text(&handle, &format!("D {id} rf rt")), "0\n");
            assert_eq!(text(&handle, &format!("D {id} rf rt")), "E50\n");
            // Its place is forgotten with it: the same name serves again, forked or not.
            media(&text(&handle, &format!("U {id} 0 0 rf")));
            assert_eq!(text(&handle, &format!("D {id} rf")), "0\n");
        }
        assert_eq!(handle.active_sessions(), 8);
    }
}

#[test]
fn a_call_moves_to_the_worker_of_what_it_forks() {
    for workers in [1, 4] {
        let relay = start(workers, V4);
        let handle = relay.handle();
        for number in 0..8 {
            let source = Call::set_up(&handle, number, V4, V4);
            let fork = Fork::new();
            let set_up = text(&handle, &fork.set_up(number));
            let (callee, caller) = set_up.trim().split_once(" && ").unwrap();
            for (from, to, relay) in
                [(&fork.caller, &fork.callee, media(caller)), (&fork.callee, &fork.caller, media(callee))]
            {
                from.rtp.send_to(&rtp(77, 9), relay).unwrap();
                assert_eq!(to.rtp.recv(&mut [0; 256]).unwrap(), 172);
            }
            let reply = text(&handle, &fork.command(number, &source));
            assert_eq!(reply, set_up, "the ports are the same");
            fork.expect_media(&source, &reply);
            // What the session knew went along.
            assert!(text(&handle, &format!("Q fork{number} rf rt")).ends_with(" 1 1 2 0\n"));
        }
        assert_eq!(text(&handle, "G nsess_created nsess_complete nsess_destroyed"), "16 16 0\n");
        assert_eq!(text(&handle, "X"), "0\n");
        assert_eq!(handle.active_sessions(), 0);
    }
}

#[test]
fn a_recorded_call_stays_and_is_not_forked_across_workers() {
    let folder = tempfile::tempdir().unwrap();
    let record = RecordConfig { folder: Some(folder.path().to_owned()), ..RecordConfig::default() };
    let relay = Relay::start(Config { record, ..config(4, V4) }, Vec::new()).unwrap();
    let handle = relay.handle();
    let mut refused = 0;
    for number in 0..24 {
        let source = Call::set_up(&handle, number, V4, V4);
        let fork = Fork::new();
        let set_up = text(&handle, &fork.set_up(number));
        assert_eq!(text(&handle, &format!("R fork{number} rf rt")), "0\n");
        let reply = text(&handle, &fork.command(number, &source));
        if let Some(reply) = reply.strip_suffix(" && -1\n") {
            assert_eq!(reply, set_up.trim());
            refused += 1;
        } else {
            fork.expect_media(&source, &reply);
        }
    }
    assert!((1..24).contains(&refused), "{refused} of 24 calls were on another worker");
}

#[test]
fn a_timeout_is_told_to_subscribers() {
    let front = FrontConfig {
        notify: vec![NotifySpec::Fixed { name: (*b"fd:5").into(), target: NotifyTarget::InProcess(5) }],
        ..config(1, V4).front
    };
    let engine = EngineConfig { setup_ttl_s: 1, ..EngineConfig::default() };
    let relay = Relay::start(Config { front, engine, ..config(1, V4) }, Vec::new()).unwrap();
    let handle = relay.handle();
    let mut events = handle.subscribe();
    let asked = Instant::now();
    media(&text(&handle, "U call 0 0 f fd:5 the%20tag"));
    assert_eq!(events.next(), Some(Notice { number: 5, text: b"the tag\n".to_vec() }));
    assert!((1.0..3.0).contains(&asked.elapsed().as_secs_f64()));
    assert_eq!(handle.active_sessions(), 0);
    relay.shutdown();
    assert_eq!(events.next(), None);
    assert_eq!(handle.subscribe().next(), None);
}

#[test]
fn values_and_text_are_one_road() {
    let relay = start(2, V4);
    let handle = relay.handle();
    assert_eq!(handle.execute_command(Command::Version), Reply::Version);
    assert_eq!(text(&handle, "V"), "20040107\n");
    assert_eq!(text(&handle, "Vx"), "E2\n");
    assert_eq!(handle.execute_command(Command::DeleteAll), Reply::Done);
    let Reply::Info(info) = handle.execute_command(Command::Info { load: true }) else { panic!("no info") };
    assert_eq!(info.load, Some(0.0));
    assert_eq!(text(&handle, "G ncmds_rcvd ncmds_errs"), "6 1\n");
}

#[test]
fn replies_may_come_on_another_thread() {
    let relay = start(4, V4);
    let handle = relay.handle();
    let (sender, receiver) = mpsc::channel();
    for number in 0..200 {
        let sender = sender.clone();
        let command = format!("Q none{number} f t");
        let done = Box::new(move |reply| drop(sender.send(reply)));
        handle.submit(command.as_bytes(), Origin::default(), done);
    }
    drop(sender);
    let replies: Vec<Vec<u8>> = receiver.iter().collect();
    assert_eq!(replies.len(), 200);
    assert!(replies.iter().all(|reply| reply == b"E50\n"));
}

#[test]
fn a_draining_relay_takes_no_new_sessions() {
    let relay = start(2, V4);
    let handle = relay.handle();
    let call = Call::set_up(&handle, 1, V4, V4);
    handle.drain();
    assert!(handle.is_draining());
    assert_eq!(text(&handle, "U new 0 0 f"), "E99\n");
    call.exchange(3, 3);
    assert_eq!(handle.active_sessions(), 1);
    assert_eq!(text(&handle, &format!("D {} f t", call.id)), "0\n");
    assert_eq!(handle.active_sessions(), 0);
}

#[test]
fn after_the_end_requests_are_refused_and_ports_are_free() {
    let relay = start(3, V4);
    let handle = relay.handle();
    let call = Call::set_up(&handle, 1, V4, V4);
    let asked = Instant::now();
    relay.shutdown();
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(text(&handle, "U a 0 0 f"), "E81\n");
    assert_eq!(text(&handle, "I"), "E81\n");
    assert_eq!(text(&handle, "V"), "20040107\n");
    let gone = handle.execute_command(Command::DeleteAll);
    assert_eq!(gone, Reply::Error(ErrorCode::INTERNAL_FAILURE));
    assert_eq!(handle.active_sessions(), 0);
    for port in [call.caller_sends_to, call.callee_sends_to] {
        UdpSocket::bind(port).unwrap();
    }
}

#[test]
fn what_cannot_work_is_refused_at_start() {
    let refused = |change: fn(&mut Config)| {
        let mut config = config(1, V4);
        change(&mut config);
        Relay::start(config, Vec::new()).unwrap_err()
    };
    assert!(matches!(refused(|config| config.workers = Some(0)), StartError::NoWorkers));
    assert!(matches!(refused(|config| config.port_min = 35001), StartError::Ports { .. }));
    assert!(matches!(refused(|config| config.port_max = 2), StartError::Ports { .. }));
    assert!(matches!(refused(|config| config.front.listen.clear()), StartError::NoListenAddress));
}

/// A phone: an RTP port and the RTCP port behind it.
struct Phone {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    addr: SocketAddr,
}

impl Phone {
    fn new(ip: IpAddr) -> Self {
        let (port, _) = free_ports(1);
        let open = |port| {
            let socket = UdpSocket::bind((ip, port)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket
        };
        Self { rtp: open(port), rtcp: open(port + 1), addr: (ip, port).into() }
    }

    /// The next packet on the RTP port, and where it came from.
    fn expect(&self, packet: &[u8], from: SocketAddr) {
        let mut buffer = [0; 256];
        let (len, source) = self.rtp.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], source), (packet, from));
    }

    /// The port as `U` and `L` take it, with the modifier of its family.
    fn media(&self) -> (&'static str, String) {
        (if self.addr.is_ipv6() { "6" } else { "" }, format!("{} {}", self.addr.ip(), self.addr.port()))
    }
}

/// The two ends of a session that gets what the parties of another call say.
struct Fork {
    caller: Phone,
    callee: Phone,
}

impl Fork {
    fn new() -> Self {
        Self { caller: Phone::new(V4[0]), callee: Phone::new(V4[0]) }
    }

    /// Sets the session up, or up again.
    fn set_up(&self, number: u32) -> String {
        format!("U fork{number} {} rf rt && L {}", self.caller.media().1, self.callee.media().1)
    }

    /// The same, with what makes it a fork.
    fn command(&self, number: u32, source: &Call) -> String {
        format!("{} && C {} f t", self.set_up(number), source.id)
    }

    /// Both parties of the source speak; they are heard at the source and here, from the ports in `reply`.
    fn expect_media(&self, source: &Call, reply: &str) {
        let (callee_side, caller_side) = reply.trim().split_once(" && ").unwrap();
        source.exchange(5, 3);
        for sequence in 0..5 {
            self.caller.expect(&rtp(sequence, 1), media(caller_side));
        }
        for sequence in 0..3 {
            self.callee.expect(&rtp(sequence, 1), media(callee_side));
        }
    }
}

/// A call between two phones through a relay.
struct Call {
    id: String,
    caller: Phone,
    callee: Phone,
    caller_sends_to: SocketAddr,
    callee_sends_to: SocketAddr,
}

impl Call {
    fn set_up(handle: &RelayHandle, number: u32, caller: &[IpAddr], callee: &[IpAddr]) -> Self {
        let (caller, callee) = (Phone::new(caller[0]), Phone::new(callee[0]));
        let id = format!("call{number}@test");
        let local = |towards: &Phone| match towards.addr.ip() {
            IpAddr::V4(_) => "l127.0.0.1",
            IpAddr::V6(_) => "l[::1]",
        };
        let (family, addr) = caller.media();
        let reply = text(handle, &format!("U{family}{} {id} {addr} f", local(&callee)));
        let callee_sends_to = media(&reply);
        let (family, addr) = callee.media();
        let reply = text(handle, &format!("L{family}{} {id} {addr} f t", local(&caller)));
        let caller_sends_to = media(&reply);
        Self { id, caller, callee, caller_sends_to, callee_sends_to }
    }

    /// Sends so many packets each way, one after the other, and sees each arrive from the port that the other
    /// party sends to.
    fn exchange(&self, from_caller: u16, from_callee: u16) {
        for (count, from, to, relay, leaves_from) in [
            (from_caller, &self.caller, &self.callee, self.caller_sends_to, self.callee_sends_to),
            (from_callee, &self.callee, &self.caller, self.callee_sends_to, self.caller_sends_to),
        ] {
            let mut buffer = [0; 256];
            for sequence in 0..count {
                let packet = rtp(sequence, 1);
                from.rtp.send_to(&packet, relay).unwrap();
                let (len, source) = to.rtp.recv_from(&mut buffer).unwrap();
                assert_eq!(buffer[..len], packet);
                assert_eq!(source, leaves_from);
            }
        }
    }
}

fn start(workers: usize, listen: &[IpAddr]) -> Relay {
    Relay::start(config(workers, listen), Vec::new()).unwrap()
}

fn config(workers: usize, listen: &[IpAddr]) -> Config {
    let listen = listen.iter().enumerate().map(|(number, ip)| ListenAddr {
        label: (number > 0).then(|| format!("other{number}").into()),
        addr: LocalAddr::plain(*ip),
    });
    let (port_min, port_max) = free_ports(150);
    Config {
        workers: Some(workers),
        front: FrontConfig { listen: listen.collect(), ..FrontConfig::default() },
        port_min,
        port_max,
        ..Config::default()
    }
}

fn text(handle: &RelayHandle, command: &str) -> String {
    String::from_utf8(handle.execute(command.as_bytes(), Origin::default())).unwrap()
}

/// The address in a reply to `U` or `L`.
fn media(reply: &str) -> SocketAddr {
    let mut words = reply.split_whitespace();
    let port = words.next().unwrap().parse().unwrap_or_else(|_| panic!("{reply}"));
    SocketAddr::new(words.next().unwrap().parse().unwrap(), port)
}

/// 20 ms of G.711.
fn rtp(sequence: u16, ssrc: u8) -> Vec<u8> {
    let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ssrc];
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet[4..8].copy_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
    packet.resize(172, sequence as u8);
    packet
}

/// The lowest and the highest RTP port of so many pairs in a row that nothing else uses.
fn free_ports(pairs: u16) -> (u16, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below the ports that the kernel hands out. Other test processes begin elsewhere.
    const FIRST: u16 = 11_000;
    const LEN: u16 = 20_000;
    let begin = (std::process::id() % 100) as u16 * (LEN / 100);
    loop {
        let offset = NEXT.fetch_add(pairs * 2, Ordering::Relaxed).wrapping_add(begin) % LEN;
        let min = FIRST + offset / 2 * 2;
        // A machine without IPv6 refuses the address, not the port.
        let in_use = |socket: io::Result<UdpSocket>| {
            socket.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
        };
        let free = |port: u16| {
            !in_use(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))
                && !in_use(UdpSocket::bind((Ipv6Addr::LOCALHOST, port)))
        };
        if (min..min + pairs * 2).all(free) {
            return (min, min + pairs * 2 - 2);
        }
    }
}

const V4: &[IpAddr] = &[IpAddr::V4(Ipv4Addr::LOCALHOST)];
const V6: &[IpAddr] = &[IpAddr::V6(Ipv6Addr::LOCALHOST)];
const BOTH: &[IpAddr] = &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
