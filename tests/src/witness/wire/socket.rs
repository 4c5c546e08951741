//! The packet socket: each buffer with the kernel's segmentation header in front of it.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};

/// Size of the receive queue in bytes. Waiting buffers are charged at their full size.
const RECEIVE_BUFFER: libc::c_int = 1 << 29;
/// The nominal link header of Ethernet.
const ETHERNET: usize = 14;

/// Opens a packet socket in the namespace of this thread. Also returns the length of the interface's link
/// header.
pub(super) fn open(interface: &str) -> Result<(OwnedFd, usize)> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: the name is NUL-terminated.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index != 0, "there is no interface {interface}: {}", io::Error::last_os_error());
    // Without a protocol it receives nothing until it is bound.
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(fd >= 0, "cannot open a packet socket: {}", io::Error::last_os_error());
    // SAFETY: the descriptor was just created and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1).context("cannot enable segmentation headers")?;
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)
        .context("cannot enlarge the socket")?;
    let timeout = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
    set_value(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout).context("cannot set a time limit")?;
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: u16::try_from(libc::ETH_P_ALL)?.to_be(),
        sll_ifindex: libc::c_int::try_from(index)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: the address is a sockaddr_ll of that size.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    ensure!(bound == 0, "cannot bind to {interface}: {}", io::Error::last_os_error());
    let mut own = address;
    let mut own_size = size;
    // SAFETY: there is room for a sockaddr_ll of that size, into which the kernel writes the link type.
    let named = unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut own).cast(), &raw mut own_size) };
    ensure!(named == 0, "cannot read the link type of {interface}: {}", io::Error::last_os_error());
    let link_header = match own.sll_hatype {
        libc::ARPHRD_ETHER => ETHERNET,
        libc::ARPHRD_NONE => 0,
        other => bail!("the link type {other} of {interface} is unknown"),
    };
    Ok((socket, link_header))
}

fn set(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> Result<()> {
    set_value(socket, level, name, &value)
}

fn set_value<T>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> Result<()> {
    let size = libc::socklen_t::try_from(size_of::<T>())?;
    // SAFETY: the value outlives the call and has that size.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), size) };
    ensure!(set == 0, "{}", io::Error::last_os_error());
    Ok(())
}

/// The number of buffers that did not fit into the socket since the last call.
pub(super) fn lost(socket: &OwnedFd) -> Result<u32> {
    let mut statistics = [0_u32; 2];
    let mut size = libc::socklen_t::try_from(size_of::<[u32; 2]>())?;
    // SAFETY: struct tpacket_stats is two words, packets and drops.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            statistics.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    ensure!(asked == 0, "cannot read the number of lost buffers: {}", io::Error::last_os_error());
    Ok(statistics[1])
}

/// A received buffer.
#[derive(Clone, Copy)]
pub(super) struct Received {
    /// Its whole length in bytes, including the segmentation header.
    pub(super) length: usize,
    /// The interface sent it; otherwise the interface received it.
    pub(super) sent: bool,
}

/// The next buffer, or none when the time limit of the socket has passed.
pub(super) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    // `PACKET_OUTGOING` of linux/if_packet.h.
    const OUTGOING: u8 = 4;
    // SAFETY: a sockaddr_ll may be all zeros.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: buffer and address have the given lengths. With MSG_TRUNC the call returns the whole length.
    let length = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_TRUNC,
            (&raw mut from).cast(),
            &raw mut size,
        )
    };
    match usize::try_from(length) {
        Ok(length) => Ok(Some(Received { length, sent: from.sll_pkttype == OUTGOING })),
        Err(_) => match io::Error::last_os_error() {
            error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            error => Err(error),
        },
    }
}
