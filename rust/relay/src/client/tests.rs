//! The client against the server of this crate, and against servers that misbehave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::thread;

use rtpproxy_core::command::{Info, Reply};
use rtpproxy_core::front::Origin;

use socket2::{Domain, Type};

use super::listener::QUEUE_MAX;
use super::*;
use crate::config::ControlSpec;
use crate::control::{self, ControlThread, Executor, SocketOptions};
use crate::testing::has_ipv6;

/// Answers what the commands of these tests ask for.
#[derive(Clone)]
struct Fake;

impl Executor for Fake {
    fn submit(&self, text: &[u8], _: Origin, done: Box<dyn FnOnce(Vec<u8>) + Send>) {
        match text.trim_ascii() {
            b"V" => done(b"20040107\n".to_vec()),
            b"I" | b"Ib" => done(INFO.to_vec()),
            b"Il" => done([INFO, b"average load: 0.000000\n"].concat()),
            b"Ix" => done(b"E18\n".to_vec()),
            b"hang" => std::mem::forget(done),
            b"garbage" => done(b"20040107\nmore\n".to_vec()),
            _ => done(b"E0\n".to_vec()),
        }
    }

    fn repeated(&self) {}

    fn drain(&self) {}
}

/// Serves `spec`, with `PATH` a path in `dir`; the client's address for it.
fn serve(spec: &str, dir: &tempfile::TempDir) -> (ControlThread, String) {
    let spec = spec.replace("PATH", dir.path().join("control.sock").to_str().unwrap());
    let bound =
        control::bind(&[ControlSpec::parse(&spec, false).unwrap()], &SocketOptions::default()).unwrap();
    let address = match bound[0].local_addr() {
        Some(addr) => format!("{}{}", &spec[..=spec.find(':').unwrap()], addr),
        None => spec,
    };
    (control::start(control::Claimed::new(bound), Fake).unwrap(), address)
}

fn hasty() -> ClientOptions {
    ClientOptions { timeout: Duration::from_millis(200), retries: 3 }
}

fn specs() -> Vec<&'static str> {
    let mut specs = vec!["unix:PATH", "cunix:PATH", "tcp:127.0.0.1:0", "udp:127.0.0.1:0"];
    if has_ipv6() {
        specs.extend(["tcp6:::1:0", "udp6:::1:0"]);
    }
    specs
}

const INFO: &[u8] = b"sessions created: 1\nactive sessions: 2\nactive streams: 3\npackets received: 4\n\
                      packets transmitted: 5\n";

#[test]
fn every_transport_answers() {
    for spec in specs() {
        let dir = tempfile::tempdir().unwrap();
        let (_control, address) = serve(spec, &dir);
        let mut client = Client::connect(&address, ClientOptions::default()).unwrap();
        for _ in 0..3 {
            assert_eq!(client.command(b"V", None).unwrap(), b"20040107\n", "{spec}");
            assert_eq!(client.command(b"V\n", None).unwrap(), b"20040107\n", "{spec}");
            assert_eq!(client.command(b"Ib", None).unwrap(), INFO, "{spec}");
            assert_eq!(client.command(b"Il", None).unwrap().iter().filter(|byte| **byte == b'\n').count(), 6);
            assert_eq!(client.command(b"Ix", None).unwrap(), b"E18\n", "{spec}");
            let kind = ReplyKind::Info { load: false };
            assert_eq!(client.command(b"Ix", Some(&kind)).unwrap(), b"E18\n", "{spec}");
            assert_eq!(client.command(b"x\ny", None).unwrap(), b"E0\n", "{spec}");
        }
    }
}

#[test]
fn a_lasting_connection_serves_one_command_too() {
    let dir = tempfile::tempdir().unwrap();
    let (_control, address) = serve("cunix:PATH", &dir);
    let mut client = Client::connect(address.strip_prefix("cunix:").unwrap(), hasty()).unwrap();
    assert_eq!(client.command(b"V", None).unwrap(), b"20040107\n");
    assert_eq!(client.command(b"I", None).unwrap(), INFO);
}

#[test]
fn values_travel_as_text() {
    for spec in specs() {
        let dir = tempfile::tempdir().unwrap();
        let (_control, address) = serve(spec, &dir);
        let mut client = Client::connect(&address, ClientOptions::default()).unwrap();
        assert_eq!(client.call(&Command::Version).unwrap(), Reply::Version);
        let info = Info {
            sessions_created: 1,
            sessions_active: 2,
            streams_active: 3,
            packets_received: 4,
            packets_transmitted: 5,
            load: None,
        };
        assert_eq!(client.call(&Command::Info { load: false }).unwrap(), Reply::Info(info));
    }
}

#[test]
fn a_silent_daemon_is_a_timeout() {
    for spec in specs() {
        let dir = tempfile::tempdir().unwrap();
        let (_control, address) = serve(spec, &dir);
        if address.starts_with("udp") {
            // One at a time: it would hold up the datagrams behind it as well.
            continue;
        }
        let mut client = Client::connect(&address, hasty()).unwrap();
        let start = Instant::now();
        let error = client.command(b"hang", None).unwrap_err();
        assert!(matches!(error, ClientError::Timeout { .. }), "{spec}: {error}");
        assert!(start.elapsed() < Duration::from_secs(2));
        // A late reply must not be taken for the next one.
        assert_eq!(client.command(b"V", None).unwrap(), b"20040107\n", "{spec}");
    }
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut client = Client::connect(&format!("udp:{}", silent.local_addr().unwrap()), hasty()).unwrap();
    assert!(matches!(client.command(b"V", None), Err(ClientError::Timeout { .. })));
}

#[test]
fn a_dead_daemon_is_told_at_once_and_found_again() {
    for spec in specs() {
        let dir = tempfile::tempdir().unwrap();
        let (control, address) = serve(spec, &dir);
        let mut client = Client::connect(&address, ClientOptions::default()).unwrap();
        assert_eq!(client.command(b"V", None).unwrap(), b"20040107\n", "{spec}");
        control.stop();
        let start = Instant::now();
        for _ in 0..2 {
            let error = client.command(b"V", None).unwrap_err();
            assert!(matches!(error, ClientError::ConnectionLost { .. }), "{spec}: {error}");
        }
        assert!(start.elapsed() < Duration::from_secs(1), "{spec}");
        let (_control, _) = serve(address.as_str(), &dir);
        assert_eq!(client.command(b"V", None).unwrap(), b"20040107\n", "{spec}");
    }
}

#[test]
fn a_lost_connection_is_not_repaired_silently() {
    for spec in ["cunix:PATH", "tcp:127.0.0.1:0"] {
        let dir = tempfile::tempdir().unwrap();
        let (control, address) = serve(spec, &dir);
        let mut client = Client::connect(&address, ClientOptions::default()).unwrap();
        drop(control);
        let (_control, _) = serve(address.as_str(), &dir);
        assert!(matches!(client.command(b"V", None), Err(ClientError::ConnectionLost { .. })), "{spec}");
        assert_eq!(client.command(b"V", None).unwrap(), b"20040107\n", "{spec}");
    }
}

#[test]
fn nobody_there_and_nonsense_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent");
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("tcp:{}", listener.local_addr().unwrap())
    };
    for address in [format!("cunix:{}", absent.display()), refused] {
        let error = Client::connect(&address, hasty()).unwrap_err();
        assert!(matches!(error, ClientError::ConnectionLost { .. }), "{error}");
    }
    let mut client = Client::connect(absent.to_str().unwrap(), hasty()).unwrap();
    assert!(matches!(client.command(b"V", None), Err(ClientError::ConnectionLost { .. })));
    for bad in ["udp:", "tcp:127.0.0.1:port", "cunix:"] {
        assert!(matches!(Client::connect(bad, hasty()), Err(ClientError::Address { .. })), "{bad}");
    }
}

#[test]
fn replies_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_control, address) = serve("cunix:PATH", &dir);
    let mut client = Client::connect(&address, hasty()).unwrap();
    assert!(matches!(client.command(b"garbage", None), Err(ClientError::BadReply { .. })));
    assert!(matches!(client.command(&[b'x'; 8192], None), Err(ClientError::TooLong)));
    assert_eq!(client.command(b"V", None).unwrap(), b"20040107\n");
    let error = client.call(&Command::DeleteAll).unwrap();
    assert!(error.is_error());
}

#[test]
fn a_half_reply_is_a_lost_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    let daemon = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 2]).unwrap();
        stream.write_all(b"2004").unwrap();
    });
    let mut client = Client::connect(&address, ClientOptions::default()).unwrap();
    assert!(matches!(client.command(b"V", None), Err(ClientError::ConnectionLost { .. })));
    daemon.join().unwrap();
}

#[test]
fn a_full_backlog_is_a_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c");
    let listener = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    let address = format!("cunix:{}", path.display());
    let mut clients = Vec::new();
    let error = loop {
        match Client::connect(&address, hasty()) {
            Ok(client) => clients.push(client),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
}

/// Loses the first `lose` datagrams, answers the rest with `before` and then the true reply.
fn lossy(lose: usize, before: &'static [u8]) -> (SocketAddr, thread::JoinHandle<Vec<Vec<u8>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let daemon = thread::spawn(move || {
        let mut seen = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            seen.push(buffer[..len].to_vec());
            if seen.len() > lose {
                socket.send_to(before, from).unwrap();
                let cookie = buffer[..len].split(|byte| *byte == b' ').next().unwrap();
                socket.send_to(&[cookie, b" 20040107\n"].concat(), from).unwrap();
                return seen;
            }
        }
    });
    (addr, daemon)
}

#[test]
fn datagrams_are_repeated_with_their_cookie() {
    let (addr, daemon) = lossy(3, b"other 0\n");
    let options = ClientOptions { timeout: Duration::from_secs(2), retries: 19 };
    let mut client = Client::connect(&format!("udp:{addr}"), options).unwrap();
    assert_eq!(client.command(b"V", None).unwrap(), b"20040107\n");
    let seen = daemon.join().unwrap();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|datagram| *datagram == seen[0]));
    assert!(seen[0].ends_with(b" V"));
}

#[test]
fn every_command_has_a_cookie_of_its_own() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let options = ClientOptions { timeout: Duration::from_millis(20), retries: 0 };
    let mut client = Client::connect(&format!("udp:{}", socket.local_addr().unwrap()), options).unwrap();
    let mut datagrams = Vec::new();
    for _ in 0..3 {
        assert!(client.command(b"V", None).is_err());
        let mut buffer = [0; 100];
        let len = socket.recv(&mut buffer).unwrap();
        datagrams.push(buffer[..len].to_vec());
    }
    datagrams.dedup();
    assert_eq!(datagrams.len(), 3);
}

#[test]
fn notifications_that_nobody_reads_are_counted() {
    let listener = NotifyListener::bind("tcp:127.0.0.1:0").unwrap();
    let place = listener.target().strip_prefix("tcp:").unwrap();
    let mut daemon = std::net::TcpStream::connect(place).unwrap();
    daemon.write_all(&b"tag\n".repeat(QUEUE_MAX + 6)).unwrap();
    while listener.lost() < 6 {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(std::iter::from_fn(|| listener.next_within(Duration::ZERO)).count(), QUEUE_MAX);
    assert_eq!(listener.lost(), 6);
}

#[test]
fn notifications_come_from_every_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n");
    for address in ["tcp:127.0.0.1:0".to_owned(), format!("unix:{}", path.display())] {
        let listener = NotifyListener::bind(&address).unwrap();
        assert_eq!(listener.next_within(Duration::ZERO), None);
        let notifier = crate::notifier::Notifier::start().unwrap();
        let Ok(rtpproxy_core::config::NotifySpec::Fixed { target, .. }) =
            crate::notifier::parse_target(listener.target(), false)
        else {
            unreachable!()
        };
        notifier.handle().send(target.clone(), b"a\0b\n".to_vec());
        assert_eq!(listener.next_within(Duration::from_secs(5)).unwrap(), b"a\0b");
        // A restarted daemon connects anew.
        drop(notifier);
        let notifier = crate::notifier::Notifier::start().unwrap();
        notifier.handle().send(target, b"c\n".to_vec());
        assert_eq!(listener.next_within(Duration::from_secs(5)).unwrap(), b"c");
    }
    assert!(!path.exists());
    assert!(UnixListener::bind(&path).is_ok());
    assert!(NotifyListener::bind("tcp:127.0.0.1").is_err());
    assert!(NotifyListener::bind("").is_err());
}
