//! Interface settings that the installed `ip` may be too old for.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

/// `linux/if_link.h`
pub(crate) const IFLA_GSO_MAX_SIZE: u16 = 41;
/// `linux/if_link.h`
pub(crate) const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;

/// `nlmsghdr` and `ifinfomsg`, each 16 bytes.
const HEADERS: usize = 32;

/// Sets attributes of an interface in the namespace of the calling thread.
pub(crate) fn set_link(interface: &str, attributes: &[(u16, u32)]) -> Result<()> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: the name is NUL-terminated and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index != 0, "there is no interface {interface}");
    let mut message = Vec::with_capacity(HEADERS + 8 * attributes.len());
    message.extend(u32::try_from(message.capacity())?.to_ne_bytes());
    message.extend(libc::RTM_NEWLINK.to_ne_bytes());
    message.extend(u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK)?.to_ne_bytes());
    // One request with one answer needs no sequence number and no port. Then follow family, type and index.
    message.extend([0; 12]);
    message.extend(index.to_ne_bytes());
    message.extend([0; 8]);
    for (attribute, value) in attributes {
        message.extend(8_u16.to_ne_bytes());
        message.extend(attribute.to_ne_bytes());
        message.extend(value.to_ne_bytes());
    }
    // SAFETY: a plain system call; its result is checked before use.
    let fd =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    ensure!(fd >= 0, "cannot open a netlink socket: {}", io::Error::last_os_error());
    // SAFETY: the descriptor was just created and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the message outlives the call and is passed with its own length.
    let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    ensure!(usize::try_from(sent) == Ok(message.len()), "netlink: {}", io::Error::last_os_error());
    let mut answer = [0_u8; 512];
    // SAFETY: the kernel writes at most as many bytes as the buffer holds.
    let size = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
    // The answer is a header and an error number, which is zero or negative.
    ensure!(size >= 20, "netlink: {}", io::Error::last_os_error());
    let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    if error == 0 {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(-error))
        .with_context(|| format!("cannot change the interface {interface}"))
}
