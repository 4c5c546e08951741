//! A netlink socket of the route family, and the trait by which tests replace it.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, recv, send,
        socket_with,
    },
};

/// The bytes between this process and the kernel; a trait, so that tests can replace the kernel.
pub(super) trait Transport: Send {
    fn send(&mut self, request: &[u8]) -> io::Result<()>;

    /// The length of the next datagram; `TimedOut` when none comes before the deadline.
    fn receive(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize>;
}

/// A netlink socket of the route family.
pub(super) struct RouteSocket(OwnedFd);

impl RouteSocket {
    /// Opens a socket that does not block, in the groups of this mask.
    pub(super) fn open(groups: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self(socket))
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.0
    }
}

/// Receives a datagram without waiting; `None` when there is none.
pub(super) fn receive_now(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match recv(socket, &mut *buffer, RecvFlags::TRUNC) {
            Ok((_, length)) if length > buffer.len() => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a netlink datagram of {length} bytes does not fit the buffer"),
                ));
            }
            Ok((length, _)) => return Ok(Some(length)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Transport for RouteSocket {
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        send(&self.0, request, SendFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            if let Some(length) = receive_now(&self.0, buffer)? {
                return Ok(length);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer in time"));
            }
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
