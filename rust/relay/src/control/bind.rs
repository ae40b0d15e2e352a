//! Opening the control sockets, before the process leaves the foreground or gives up its rights.

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use listenfd::ListenFd;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::config::ControlSpec;
use crate::io::duplicate;
use crate::socket_file::SocketFile;

/// Who may use the UNIX sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// The owner; `None`: as created.
    pub uid: Option<u32>,
    /// The group; `None`: as created.
    pub gid: Option<u32>,
    /// The permission bits; `None`: as created, that is by the umask.
    pub mode: Option<u32>,
}

/// An open control socket.
#[derive(Debug)]
pub struct Bound {
    pub(super) spec: ControlSpec,
    pub(super) endpoint: Endpoint,
    pub(super) file: Option<SocketFile>,
}

impl Bound {
    /// The address of a TCP or UDP socket, with the port that the system chose if the spec said 0.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.endpoint {
            Endpoint::Tcp(listener) => listener.local_addr().ok(),
            Endpoint::Udp(socket) => socket.local_addr().ok(),
            Endpoint::OneShot(_) | Endpoint::Lines(_) | Endpoint::Stdio { .. } | Endpoint::Stream(_) => None,
        }
    }
}

/// A control socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("can't open the control socket \"{spec}\": {source}")]
pub struct BindError {
    /// Which.
    pub spec: ControlSpec,
    /// Why.
    pub source: io::Error,
}

/// What a spec became.
#[derive(Debug)]
pub(super) enum Endpoint {
    OneShot(UnixListener),
    Lines(UnixListener),
    Tcp(TcpListener),
    Udp(UdpSocket),
    Stdio { always_drain: bool },
    Stream(UnixStream),
}

/// Opens the control sockets. An old file in the place of a UNIX socket is removed.
///
/// The files of UNIX sockets stay until the control thread stops, or until [`discard`].
///
/// # Errors
///
/// The first socket that cannot be opened; the ones before it are closed and their files removed.
pub fn bind(specs: &[ControlSpec], options: &SocketOptions) -> Result<Vec<Bound>, BindError> {
    let mut bound = Vec::with_capacity(specs.len());
    for spec in specs {
        match open(spec, specs, options) {
            Ok((endpoint, file)) => bound.push(Bound { spec: spec.clone(), endpoint, file }),
            Err(source) => {
                discard(bound);
                return Err(BindError { spec: spec.clone(), source });
            }
        }
    }
    Ok(bound)
}

/// Closes control sockets that were never served, and removes the files of the UNIX ones.
pub fn discard(bound: Vec<Bound>) {
    for file in bound.into_iter().filter_map(|bound| bound.file) {
        file.remove();
    }
}

fn open(
    spec: &ControlSpec,
    all: &[ControlSpec],
    options: &SocketOptions,
) -> io::Result<(Endpoint, Option<SocketFile>)> {
    let endpoint = match spec {
        ControlSpec::Unix(path) => {
            let (listener, file) = SocketFile::create(path, |path| unix(path, options))?;
            return Ok((Endpoint::OneShot(listener), Some(file)));
        }
        ControlSpec::Cunix(path) => {
            let (listener, file) = SocketFile::create(path, |path| unix(path, options))?;
            return Ok((Endpoint::Lines(listener), Some(file)));
        }
        ControlSpec::Tcp(addr) => Endpoint::Tcp(tcp(addr, all.contains(&ControlSpec::Tcp(v4_twin(addr))))?),
        ControlSpec::Udp(addr) => Endpoint::Udp(udp(addr, all.contains(&ControlSpec::Udp(v4_twin(addr))))?),
        ControlSpec::Stdio { always_drain } => Endpoint::Stdio { always_drain: *always_drain },
        ControlSpec::Systemd => Endpoint::Lines(inherited_listener()?),
        ControlSpec::Fd(fd) => Endpoint::Stream(own_stream(*fd)?),
    };
    Ok((endpoint, None))
}

fn unix(path: &Path, options: &SocketOptions) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before the rights are set.
    if let Err(error) = set_rights(path, options).and_then(|()| socket.listen(BACKLOG)) {
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(OwnedFd::from(socket).into())
}

fn set_rights(path: &Path, options: &SocketOptions) -> io::Result<()> {
    if options.uid.is_some() || options.gid.is_some() {
        chown(path, options.uid, options.gid)?;
    }
    if let Some(mode) = options.mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn tcp(addr: &SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = inet(addr, Type::STREAM, only_v6)?;
    socket.set_reuse_address(true)?;
    // Frees the slots of clients that vanished; accepted connections inherit it.
    socket.set_keepalive(true)?;
    socket.bind(&(*addr).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn udp(addr: &SocketAddr, only_v6: bool) -> io::Result<UdpSocket> {
    let socket = inet(addr, Type::DGRAM, only_v6)?;
    socket.bind(&(*addr).into())?;
    Ok(socket.into())
}

fn inet(addr: &SocketAddr, kind: Type, only_v6: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(*addr), kind, None)?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    if addr.is_ipv6() && only_v6 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// The IPv4 address that the IPv6 wildcard of the same port would take as well.
fn v4_twin(addr: &SocketAddr) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], addr.port()))
}

/// The one listener of socket activation.
fn inherited_listener() -> io::Result<UnixListener> {
    let mut passed = ListenFd::from_env();
    if passed.len() > 1 {
        return Err(io::Error::other("more than one descriptor was passed"));
    }
    let listener =
        passed.take_unix_listener(0)?.ok_or_else(|| io::Error::other("no descriptor was passed"))?;
    if !SockRef::from(&listener).is_listener()? {
        return Err(io::Error::other("the passed descriptor does not listen"));
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A stream socket that this process has open already. The caller keeps its descriptor.
fn own_stream(fd: i32) -> io::Result<UnixStream> {
    let stream = UnixStream::from(duplicate(fd)?);
    if SockRef::from(&stream).r#type()? != Type::STREAM {
        return Err(io::Error::other("the descriptor is not a stream socket"));
    }
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 32;
/// Asked for on UDP and TCP sockets, in bytes.
const RECEIVE_BUFFER: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_unix_socket_gets_its_mode_and_replaces_an_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let specs = [ControlSpec::Unix(path.clone())];
        drop(bind(&specs, &SocketOptions::default()).unwrap());
        assert!(path.exists());
        let bound = bind(&specs, &SocketOptions { mode: Some(0o710), ..SocketOptions::default() }).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o710);
        discard(bound);
        assert!(!path.exists());
    }

    #[test]
    fn the_first_failure_undoes_the_rest_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (path, folder) = (dir.path().join("c"), dir.path().join("folder"));
        fs::create_dir(&folder).unwrap();
        let long = dir.path().join("x".repeat(108));
        for bad in [folder.clone(), long] {
            let specs = [ControlSpec::Cunix(path.clone()), ControlSpec::Unix(bad.clone())];
            let error = bind(&specs, &SocketOptions::default()).unwrap_err();
            assert!(error.to_string().contains(bad.to_str().unwrap()), "{error}");
            assert!(!path.exists());
        }
        assert!(folder.is_dir());
    }

    #[test]
    fn both_wildcards_may_share_a_port() {
        let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = probe.local_addr().unwrap().port();
        drop(probe);
        let v4 = format!("udp:*:{port}");
        let v6 = format!("udp6:*:{port}");
        let specs = [v6, v4].map(|text| ControlSpec::parse(&text, false).unwrap());
        let bound = bind(&specs, &SocketOptions::default()).unwrap();
        assert_eq!(bound[1].local_addr().unwrap().port(), port);
    }

    #[test]
    fn descriptors_are_checked() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(bind(&[ControlSpec::Fd(one.as_raw_fd())], &SocketOptions::default()).is_ok());
        let file = tempfile::tempfile().unwrap();
        for bad in [-1, 1 << 20, file.as_raw_fd()] {
            assert!(bind(&[ControlSpec::Fd(bad)], &SocketOptions::default()).is_err(), "{bad}");
        }
        assert!(bind(&[ControlSpec::Systemd], &SocketOptions::default()).is_err());
    }
}
