//! A whole relay, asked over each of its control transports.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test ends where its helpers fail")]

use std::net::{Ipv6Addr, UdpSocket};
use std::time::Duration;

use rtpproxy_core::command::NotifyTarget;
use rtpproxy_core::config::NotifySpec;
use rtpproxy_relay::Relay;
use rtpproxy_relay::client::{Client, ClientError, ClientOptions, NotifyListener};
use rtpproxy_relay::config::{Config, ControlSpec};
use rtpproxy_relay::control::{SocketOptions, bind};
use rtpproxy_relay::notifier::parse_target;

/// Starts a relay with these transports (`PATH` is a path in `dir`), and tells their addresses.
fn relay(specs: &[&str], dir: &tempfile::TempDir, mut config: Config) -> (Relay, Vec<String>) {
    config.workers = Some(2);
    let specs: Vec<_> = specs
        .iter()
        .map(|spec| {
            let spec = spec.replace("PATH", &dir.path().display().to_string());
            ControlSpec::parse(&spec, false).unwrap()
        })
        .collect();
    let bound = bind(&specs, &SocketOptions::default()).unwrap();
    let addresses = specs
        .iter()
        .zip(&bound)
        .map(|(spec, bound)| match (spec, bound.local_addr()) {
            (ControlSpec::Tcp(_), Some(addr)) => ControlSpec::Tcp(addr).to_string(),
            (ControlSpec::Udp(_), Some(addr)) => ControlSpec::Udp(addr).to_string(),
            _ => spec.to_string(),
        })
        .collect();
    (Relay::start(config, bound).unwrap(), addresses)
}

fn ask(client: &mut Client, text: &str) -> String {
    String::from_utf8(client.command(text.as_bytes(), None).unwrap()).unwrap()
}

#[test]
fn a_call_is_set_up_over_each_transport() {
    let dir = tempfile::tempdir().unwrap();
    let mut specs = vec!["unix:PATH/one", "cunix:PATH/lines", "tcp:127.0.0.1:0", "udp:127.0.0.1:0"];
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        specs.extend(["tcp6:::1:0", "udp6:::1:0"]);
    } else {
        eprintln!("NOT TESTED: this machine has no IPv6");
    }
    let (relay, addresses) = relay(&specs, &dir, Config::default());
    for (number, address) in addresses.iter().enumerate() {
        let mut client = Client::connect(address, ClientOptions::default()).unwrap();
        assert_eq!(ask(&mut client, "V"), "20040107\n", "{address}");
        assert_eq!(ask(&mut client, "VF 20050322"), "1\n", "{address}");
        let port: u16 =
            ask(&mut client, &format!("U call-{number} 127.0.0.1 4000 from")).trim().parse().unwrap();
        assert!(port.is_multiple_of(2), "{address}");
        let info = ask(&mut client, "I");
        assert!(info.contains("active sessions: 1\n") && info.lines().count() == 5, "{address}: {info}");
        assert_eq!(ask(&mut client, &format!("D call-{number} from")), "0\n", "{address}");
        assert_eq!(ask(&mut client, &format!("D call-{number} from")), "E50\n", "{address}");
        assert_eq!(ask(&mut client, "hello"), "E0\n", "{address}");
        assert_eq!(ask(&mut client, " "), "E5\n", "{address}");
    }
    relay.shutdown();
    assert!(!dir.path().join("one").exists());
    let error = Client::connect(&addresses[2], ClientOptions::default()).unwrap_err();
    assert!(matches!(error, ClientError::ConnectionLost { .. }), "{error}");
}

#[test]
fn a_repeated_datagram_sets_up_one_call() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, addresses) = relay(&["udp:127.0.0.1:0"], &dir, Config::default());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(addresses[0].strip_prefix("udp:").unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let ask = |datagram: &[u8]| {
        socket.send(datagram).unwrap();
        let mut buffer = [0; 1024];
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    };
    let first = ask(b"c1 U call 127.0.0.1 4000 from");
    for _ in 0..3 {
        assert_eq!(ask(b"c1 U call 127.0.0.1 4000 from"), first);
    }
    assert_eq!(ask(b"c2 G ncmds_rcvd ncmds_rcvd_ndups nsess_created"), "c2 2 3 1\n");
    assert_eq!(ask(b""), "E5\n");
    assert_eq!(ask(b"c3"), "c3 E5\n");
}

#[test]
fn a_timeout_is_told_to_a_listener_and_in_process() {
    let dir = tempfile::tempdir().unwrap();
    let listener = NotifyListener::bind(&format!("unix:{}/notify", dir.path().display())).unwrap();
    let mut config = Config::default();
    config.engine.setup_ttl_s = 1;
    let inside = NotifySpec::Fixed { name: b"fd:9".as_slice().into(), target: NotifyTarget::InProcess(9) };
    config.front.notify = vec![parse_target(listener.target(), false).unwrap(), inside];
    let (relay, addresses) = relay(&["unix:PATH/one"], &dir, config);
    let mut events = relay.handle().subscribe();
    let mut client = Client::connect(&addresses[0], ClientOptions::default()).unwrap();
    for (number, target) in [listener.target(), "fd:9"].iter().enumerate() {
        // The notify pair stands behind a to-tag.
        ask(&mut client, &format!("U call-{number} 127.0.0.1 4000 from to {target} tag%00{number}"));
    }
    assert_eq!(listener.next_within(Duration::from_secs(5)).unwrap(), b"tag\x000");
    let notice = events.next_within(Duration::from_secs(5)).unwrap().unwrap();
    assert_eq!((notice.number, &notice.text[..]), (9, b"tag\x001\n".as_slice()));
    relay.shutdown();
    assert_eq!(events.next(), None);
}
