use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::config::ControlSpec;
use crate::testing::has_ipv6;

type Done = Box<dyn FnOnce(Vec<u8>) + Send>;

/// Answers `N TEXT` from another thread, N counting the executed commands, and `E5` to blank text.
#[derive(Clone)]
struct Fake {
    jobs: mpsc::Sender<(Vec<u8>, Done)>,
    origins: Arc<Mutex<Vec<Origin>>>,
    repeated: Arc<AtomicUsize>,
    drained: Arc<AtomicBool>,
}

impl Fake {
    fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<(Vec<u8>, Done)>();
        thread::spawn(move || {
            for (number, (text, done)) in queue.into_iter().enumerate() {
                match text.trim_ascii() {
                    b"" => done(b"E5\n".to_vec()),
                    b"die" => drop(done),
                    b"big" => done([vec![b'x'; 1000], b"\n".to_vec()].concat()),
                    text => done(format!("{number} {}\n", text.escape_ascii()).into_bytes()),
                }
            }
        });
        Self { jobs, origins: Arc::default(), repeated: Arc::default(), drained: Arc::default() }
    }
}

impl Executor for Fake {
    fn submit(&self, text: &[u8], origin: Origin, done: Done) {
        assert_ne!(text.trim_ascii(), b"panic");
        self.origins.lock().unwrap().push(origin);
        self.jobs.send((text.to_vec(), done)).unwrap();
    }

    fn repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    fn drain(&self) {
        self.drained.store(true, Ordering::Relaxed);
    }
}

/// A control thread with one socket.
struct Setup {
    fake: Fake,
    addr: Option<SocketAddr>,
    path: std::path::PathBuf,
    control: Option<ControlThread>,
    _dir: tempfile::TempDir,
}

impl Setup {
    /// `PATH` in `spec` is a path in a fresh folder.
    fn new(spec: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let spec = ControlSpec::parse(&spec.replace("PATH", path.to_str().unwrap()), false).unwrap();
        let bound = bind(&[spec], &SocketOptions::default()).unwrap();
        let addr = bound[0].local_addr();
        let fake = Fake::new();
        let control = Some(start(Claimed::new(bound), fake.clone()).unwrap());
        Self { fake, addr, path, control, _dir: dir }
    }

    fn unix(&self) -> BufReader<UnixStream> {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        BufReader::new(stream)
    }

    fn tcp(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(self.addr.unwrap()).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        BufReader::new(stream)
    }

    fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind((self.addr.unwrap().ip(), 0)).unwrap();
        socket.connect(self.addr.unwrap()).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket
    }
}

fn send<S: Read + Write>(client: &mut BufReader<S>, text: &[u8]) {
    client.get_mut().write_all(text).unwrap();
}

fn line<S: Read>(client: &mut BufReader<S>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}

fn rest<S: Read>(client: &mut BufReader<S>) -> String {
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    rest
}

fn ask(socket: &UdpSocket, datagram: &[u8]) -> Vec<u8> {
    socket.send(datagram).unwrap();
    let mut buffer = [0; 16384];
    let len = socket.recv(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

#[test]
fn lines_are_answered_in_order_however_they_arrive() {
    let setup = Setup::new("cunix:PATH");
    let mut client = setup.unix();
    send(&mut client, b"a\nb\r\n \t\nc");
    assert_eq!(line(&mut client), "0 a\n");
    assert_eq!(line(&mut client), "1 b\n");
    assert_eq!(line(&mut client), "E5\n");
    send(&mut client, b"c");
    send(&mut client, b"\n\n");
    assert_eq!(line(&mut client), "3 cc\n");
    assert_eq!(line(&mut client), "E5\n");
    assert_eq!(setup.fake.origins.lock().unwrap()[0], Origin::default());
}

#[test]
fn an_unterminated_last_line_is_dropped() {
    let setup = Setup::new("cunix:PATH");
    let mut client = setup.unix();
    send(&mut client, b"a\nb");
    client.get_mut().shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), "0 a\n");
}

#[test]
fn a_line_has_at_most_8191_bytes_and_its_line_feed() {
    let setup = Setup::new("cunix:PATH");
    let mut client = setup.unix();
    for _ in 0..2 {
        send(&mut client, &[&[b'y'; 8191][..], b"\n"].concat());
        assert_eq!(line(&mut client).trim_end().len(), "0 ".len() + 8191);
    }
    send(&mut client, &[b'y'; 8192]);
    assert_eq!(rest(&mut client), "");
}

#[test]
fn a_command_that_is_not_answered_ends_only_its_connection() {
    let setup = Setup::new("cunix:PATH");
    for text in [b"die\n".as_slice(), b"panic\n"] {
        let mut client = setup.unix();
        send(&mut client, text);
        assert_eq!(rest(&mut client), "");
    }
    let mut client = setup.unix();
    send(&mut client, b"a\n");
    assert!(line(&mut client).ends_with(" a\n"));
}

#[test]
fn a_hundred_slots_hold_the_listener_and_99_connections() {
    let setup = Setup::new("cunix:PATH");
    let mut clients: Vec<_> = (0..99).map(|_| setup.unix()).collect();
    for client in &mut clients {
        send(client, b"a\n");
        assert!(line(client).ends_with(" a\n"));
    }
    assert_eq!(rest(&mut setup.unix()), "");
    drop(clients.pop());
    // The server sees the end a moment later.
    let again = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(10));
        let mut client = setup.unix();
        let sent = client.get_mut().write_all(b"b\n");
        sent.is_ok() && line(&mut client).ends_with(" b\n")
    });
    assert!(again);
}

#[test]
fn a_client_that_never_reads_stops_nobody() {
    let setup = Setup::new("cunix:PATH");
    let mut deaf = setup.unix();
    deaf.get_mut().set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let burst = b"big\n".repeat(1000);
    while deaf.get_mut().write_all(&burst).is_ok() {}
    let mut client = setup.unix();
    send(&mut client, b"a\n");
    assert!(line(&mut client).ends_with(" a\n"));
}

#[test]
fn one_shot_takes_one_read_as_one_command() {
    let setup = Setup::new("unix:PATH");
    for text in [b"V".as_slice(), b"V\n", b"V\nVF x\n"] {
        let mut client = setup.unix();
        send(&mut client, text);
        let shown = text.trim_ascii().escape_ascii().to_string();
        assert!(rest(&mut client).ends_with(&format!(" {shown}\n")));
    }
    let mut client = setup.unix();
    send(&mut client, b" \n");
    assert_eq!(rest(&mut client), "E5\n");
    let mut client = setup.unix();
    client.get_mut().shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), "");
}

#[test]
fn one_shot_reads_at_most_8191_bytes() {
    let setup = Setup::new("unix:PATH");
    let mut client = setup.unix();
    send(&mut client, &[b'y'; 8300]);
    assert_eq!(line(&mut client).trim_end().len(), "0 ".len() + 8191);
}

#[test]
fn tcp_tells_who_asks_and_where() {
    let here = Some(Ipv4Addr::LOCALHOST);
    let v4 = ("tcp:127.0.0.1:0", Origin { peer: here, bound: here });
    let v6 = ("tcp6:::1:0", Origin::default());
    for (spec, origin) in [v4, v6].into_iter().take(families()) {
        let setup = Setup::new(spec);
        let mut client = setup.tcp();
        send(&mut client, b"a\nb\n");
        assert_eq!(line(&mut client), "0 a\n");
        assert_eq!(line(&mut client), "1 b\n");
        assert_eq!(*setup.fake.origins.lock().unwrap(), [origin; 2]);
    }
}

#[test]
fn datagrams_carry_their_cookie() {
    for spec in UDP.iter().take(families()) {
        let setup = Setup::new(spec);
        let socket = setup.udp();
        assert_eq!(ask(&socket, b"c1 V"), b"c1 0 V\n");
        assert_eq!(ask(&socket, b" c2\tV x\r\n"), b"c2 1 V x\n");
        assert_eq!(ask(&socket, b"c3"), b"c3 E5\n");
        assert_eq!(ask(&socket, b""), b"E5\n");
        assert_eq!(ask(&socket, b" \n"), b"E5\n");
        let long = ask(&socket, &[b"c4 ".as_slice(), &[b'y'; 9000]].concat());
        assert_eq!(long.trim_ascii_end().len(), "c4 5 ".len() + 8191 - "c4 ".len());
    }
}

#[test]
fn a_repeated_cookie_is_answered_but_not_executed() {
    let setup = Setup::new("udp:127.0.0.1:0");
    let (socket, other) = (setup.udp(), setup.udp());
    assert_eq!(ask(&socket, b"c V"), b"c 0 V\n");
    assert_eq!(ask(&socket, b"c V"), b"c 0 V\n");
    assert_eq!(ask(&socket, b"c U x"), b"c 0 V\n");
    assert_eq!(ask(&other, b"c V"), b"c 0 V\n");
    // An error and a repetition that does not wait for the reply.
    socket.send(b"d").unwrap();
    assert_eq!(ask(&socket, b"d"), b"d E5\n");
    assert_eq!(socket.recv(&mut [0; 100]).unwrap(), b"d E5\n".len());
    assert_eq!(setup.fake.origins.lock().unwrap().len(), 2);
    assert_eq!(setup.fake.repeated.load(Ordering::Relaxed), 4);
}

#[test]
fn a_datagram_that_is_not_answered_ends_nothing() {
    let setup = Setup::new("udp:127.0.0.1:0");
    let socket = setup.udp();
    socket.send(b"c die").unwrap();
    socket.send(b"d panic").unwrap();
    assert_eq!(ask(&socket, b"e V"), b"e 1 V\n");
}

#[test]
fn all_udp_sockets_share_one_cache() {
    let specs: Vec<_> =
        UDP.iter().take(families()).map(|spec| ControlSpec::parse(spec, false).unwrap()).collect();
    let bound = bind(&specs, &SocketOptions::default()).unwrap();
    let addrs: Vec<_> = bound.iter().map(|bound| bound.local_addr().unwrap()).collect();
    let _control = start(Claimed::new(bound), Fake::new()).unwrap();
    for addr in addrs {
        let socket = UdpSocket::bind((addr.ip(), 0)).unwrap();
        socket.connect(addr).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        assert_eq!(ask(&socket, b"c V"), b"c 0 V\n");
    }
}

#[test]
fn the_end_of_standard_input_drains_if_it_must() {
    for drains in [false, true] {
        let fake = Fake::new();
        let runtime = Builder::new_current_thread().build().unwrap();
        let mut output = Vec::new();
        runtime.block_on(stdio::serve(b"a\nb\nc".as_slice(), &mut output, fake.clone(), drains));
        assert_eq!(output, b"0 a\n1 b\n");
        assert_eq!(fake.drained.load(Ordering::Relaxed), drains);
    }
}

#[test]
fn a_descriptor_of_ours_is_served_until_the_stop() {
    use std::os::fd::AsRawFd;

    let (ours, client) = UnixStream::pair().unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    let bound = bind(&[ControlSpec::Fd(ours.as_raw_fd())], &SocketOptions::default()).unwrap();
    let control = start(Claimed::new(bound), Fake::new()).unwrap();
    let mut client = BufReader::new(client);
    send(&mut client, b"a\nb\n");
    assert_eq!(line(&mut client), "0 a\n");
    assert_eq!(line(&mut client), "1 b\n");
    control.stop();
    assert_eq!(rest(&mut client), "");
}

#[test]
fn a_stop_removes_the_socket_and_ends_connections() {
    let mut setup = Setup::new("cunix:PATH");
    let mut client = setup.unix();
    send(&mut client, b"a\n");
    assert_eq!(line(&mut client), "0 a\n");
    assert!(setup.path.exists());
    setup.control.take().unwrap().stop();
    assert!(!setup.path.exists());
    assert_eq!(rest(&mut client), "");
}

#[test]
fn sockets_that_are_not_served_leave_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let bound = bind(&[ControlSpec::Unix(path.clone())], &SocketOptions::default()).unwrap();
    drop(Claimed::new(bound));
    assert!(!path.exists());
}

/// How many address families the machine has: IPv4 is the first.
fn families() -> usize {
    if has_ipv6() { 2 } else { 1 }
}

const UDP: [&str; 2] = ["udp:127.0.0.1:0", "udp6:::1:0"];
const TIMEOUT: Duration = Duration::from_secs(5);
