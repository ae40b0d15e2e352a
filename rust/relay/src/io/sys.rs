//! The calls to the kernel that have no safe wrapper: the one place of this crate with `unsafe`.
#![allow(unsafe_code, reason = "the rest of the crate denies it")]

use std::ffi::{c_int, c_long};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{io, mem, ptr};

use rtpproxy_core::time::Wall;

use crate::config::Scheduling;

/// What the kernel says about a received datagram.
pub(super) struct Received {
    /// Bytes in the buffer; what did not fit is cut off.
    pub(super) len: usize,
    /// Who sent it.
    pub(super) from: SocketAddr,
    /// Which of our addresses it was sent to, if the socket asks for [`Extra::PacketInfoV4`] or its twin.
    pub(super) to: Option<IpAddr>,
    /// When it arrived, if the socket asks for [`Extra::Timestamps`].
    pub(super) stamp: Option<Wall>,
}

/// What a socket can ask the kernel to tell with every datagram.
#[derive(Clone, Copy, Debug)]
pub(super) enum Extra {
    /// The moment of arrival in nanoseconds.
    Timestamps,
    /// The destination address, on an IPv4 socket.
    PacketInfoV4,
    /// The destination address, on an IPv6 socket.
    PacketInfoV6,
}

/// Receives one datagram into `buffer`.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    // SAFETY: `sockaddr_storage` is plain data for which all zeroes is a valid value.
    let mut name: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut control = Control([0; CONTROL_WORDS]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `msghdr` is plain data for which all zeroes (null pointers, no lengths) is a valid value. It is
    // not built by name because its padding differs between C libraries.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = size_of_val(&name) as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: every pointer in `message` leads to memory that is live and exclusively borrowed until the call
    // returns, with its true length beside it; the descriptor is open as long as `socket` borrows it.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    if len < 0 {
        return Err(io::Error::last_os_error());
    }
    let from = socket_addr(&name).ok_or(io::ErrorKind::InvalidData)?;
    let mut received = Received { len: len as usize, from, to: None, stamp: None };
    read_control(&message, &mut received);
    Ok(received)
}

/// Makes the kernel tell `extra` with every datagram of `socket`.
pub(super) fn enable(socket: BorrowedFd<'_>, extra: Extra) -> io::Result<()> {
    let (level, name) = match extra {
        Extra::Timestamps => (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS),
        Extra::PacketInfoV4 => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        Extra::PacketInfoV6 => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    let on: c_int = 1;
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the pointer leads to a live `c_int`, whose size is passed; the kernel copies it before the call
    // returns.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts the calling thread under real-time scheduling at the highest priority.
pub(crate) fn set_realtime(scheduling: Scheduling) -> io::Result<()> {
    let policy = match scheduling {
        Scheduling::Fifo => libc::SCHED_FIFO,
        Scheduling::RoundRobin => libc::SCHED_RR,
    };
    // SAFETY: the call takes and returns numbers only.
    let priority = unsafe { libc::sched_get_priority_max(policy) };
    // SAFETY: `sched_param` is plain data for which all zeroes is a valid value.
    let mut param: libc::sched_param = unsafe { mem::zeroed() };
    param.sched_priority = priority;
    // SAFETY: the pointer leads to a live `sched_param`; 0 names the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether a file that we have open to read is open anywhere else, in this process or another.
///
/// # Errors
///
/// When the kernel does not tell: a file system without leases, or a file of another user.
pub(crate) fn is_open_elsewhere(file: BorrowedFd<'_>) -> io::Result<bool> {
    // Whoever opens the file in the moment of the lease has us sent a signal. SIGIO, which it would be, ends
    // a process that does not expect it.
    for (command, argument) in [
        (F_SETSIG, libc::SIGURG),
        (libc::F_SETLEASE, libc::F_WRLCK as c_int),
        (libc::F_SETLEASE, libc::F_UNLCK as c_int),
    ] {
        // SAFETY: the call takes and returns numbers only, and the descriptor is borrowed, so it is open.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(true) } else { Err(error) };
        }
    }
    Ok(false)
}

/// A new descriptor for the open file that the number `fd` means in this process.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes and returns numbers only; a number that means nothing is an error.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, FIRST_OWN_FD) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made this descriptor just now, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Reads the control messages that the kernel left in `message`, which [`receive`] filled.
fn read_control(message: &libc::msghdr, received: &mut Received) {
    // SAFETY: `msg_control` leads to the live buffer of [`receive`], aligned for `cmsghdr`, and the kernel set
    // `msg_controllen` to the part that it wrote.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: the macros only return headers that lie whole within the control buffer.
        let (level, kind, len) =
            unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len as usize) };
        // SAFETY: the data of a control message directly follows its header, which is within the buffer.
        let data = unsafe { libc::CMSG_DATA(header) };
        // SAFETY: pure arithmetic on a constant.
        let data_len = len.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: the message holds `data_len` bytes at `data`.
                let stamp: Option<[c_long; 2]> = unsafe { read_data(data, data_len) };
                received.stamp = stamp.and_then(wall);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: as above; `in_pktinfo` is made of integers.
                let info: Option<libc::in_pktinfo> = unsafe { read_data(data, data_len) };
                received.to = info.map(|info| IpAddr::V4(ipv4(info.ipi_addr)));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: as above; `in6_pktinfo` is made of integers.
                let info: Option<libc::in6_pktinfo> = unsafe { read_data(data, data_len) };
                received.to = info.map(|info| IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
            }
            _ => {}
        }
        // SAFETY: `header` came from the same `message`, whose lengths are unchanged.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
}

/// Copies a `T` out of a control message; `None` if the message is too short.
///
/// # Safety
/// `data` leads to `len` readable bytes, and every bit pattern is a valid `T`.
unsafe fn read_data<T>(data: *const u8, len: usize) -> Option<T> {
    if len < size_of::<T>() {
        return None;
    }
    // SAFETY: long enough as just seen, valid by the caller's promise; alignment is not assumed.
    Some(unsafe { ptr::read_unaligned(data.cast()) })
}

fn socket_addr(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let name: *const libc::sockaddr_storage = name;
    // SAFETY: `sockaddr_storage` is large enough and aligned for every address, and the kernel filled in the
    // fields of the family that it wrote.
    match unsafe { (*name).ss_family } as c_int {
        libc::AF_INET => {
            // SAFETY: as above, the family is IPv4.
            let v4 = unsafe { &*name.cast::<libc::sockaddr_in>() };
            Some(SocketAddrV4::new(ipv4(v4.sin_addr), u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, the family is IPv6.
            let v6 = unsafe { &*name.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn ipv4(addr: libc::in_addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from_be(addr.s_addr))
}

fn wall([seconds, nanos]: [c_long; 2]) -> Option<Wall> {
    let seconds = u64::try_from(seconds).ok()?;
    Some(Wall(seconds.checked_mul(1_000_000_000)?.checked_add(u64::try_from(nanos).ok()?)?))
}

/// A buffer for control messages, aligned for their headers.
#[repr(C)]
struct Control([u64; CONTROL_WORDS]);

/// Room for a time stamp and an IPv6 packet info (72 bytes), and some to spare.
const CONTROL_WORDS: usize = 16;

/// Below are standard input, output and error.
const FIRST_OWN_FD: c_int = 3;

/// Chooses the signal of a lease (fcntl(2)); the number is that of Linux.
const F_SETSIG: c_int = 10;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn real_time_scheduling_is_granted_or_not_permitted() {
        for scheduling in [Scheduling::Fifo, Scheduling::RoundRobin] {
            let outcome = std::thread::spawn(move || set_realtime(scheduling)).join().unwrap();
            let refused = outcome.err().map(|error| error.kind());
            assert!(matches!(refused, None | Some(io::ErrorKind::PermissionDenied)), "{refused:?}");
        }
    }

    #[test]
    fn a_copy_of_a_descriptor_outlives_it() {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let copy = duplicate(one.as_raw_fd()).unwrap();
        drop(one);
        rustix::io::write(&copy, b"x").unwrap();
        assert_eq!(rustix::io::read(&other, &mut [0; 4]).unwrap(), 1);
        assert!(duplicate(-1).is_err());
    }

    #[test]
    fn what_is_no_datagram_is_an_error() {
        // Its address is of a family that no media socket has.
        let (one, other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        assert_eq!(receive(one.as_fd(), &mut []).map(drop).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        other.send(b"x").unwrap();
        assert!(receive(one.as_fd(), &mut [0; 4]).is_err());
        assert!(enable(one.as_fd(), Extra::PacketInfoV4).is_err());
    }
}
