//! Frames exactly as a test has made them: ARP, stacked VLAN tags, headers cut short.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

use crate::namespace::Namespace;

/// `AF_PACKET` in the width an address has it.
const AF_PACKET: u16 = 17;

/// Sends a frame from an interface, link header first. On a device without link header (`venet0`) it begins with the
/// IP header. The frame goes through the interface's queue and its egress hooks like any other.
///
/// # Errors
///
/// When there is no such interface, or it refuses the frame (too long, or shorter than its link header).
pub fn send_raw(namespace: &Namespace, interface: &str, frame: &[u8]) -> Result<()> {
    RawSocket::open(namespace, interface)?.send(frame)
}

/// Sends frames from one interface, from whatever thread, as [`send_raw`] does.
#[derive(Debug)]
pub struct RawSocket {
    socket: OwnedFd,
    interface: String,
    index: i32,
    has_link_header: bool,
}

impl RawSocket {
    /// Opens it inside a namespace.
    ///
    /// # Errors
    ///
    /// When there is no such interface.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let text = namespace.ip(&format!("-j link show dev {interface}"))?;
        let link: serde_json::Value = serde_json::from_str(&text).context("read the output of ip -j")?;
        let index = link[0]["ifindex"].as_i64().and_then(|index| i32::try_from(index).ok());
        let socket = namespace.enter(|| {
            // SAFETY: a plain system call; its result is looked at before use.
            let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            if fd < 0 {
                return Err(io::Error::last_os_error()).context("open a packet socket");
            }
            // SAFETY: the descriptor was made above and belongs to nobody else.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        })?;
        Ok(Self {
            socket,
            interface: interface.to_owned(),
            index: index.with_context(|| format!("no index in {text}"))?,
            has_link_header: link[0]["link_type"] == "ether",
        })
    }

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// When the interface refuses it.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
        let address = libc::sockaddr_ll {
            sll_family: AF_PACKET,
            sll_protocol: self.protocol(frame).to_be(),
            sll_ifindex: self.index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the frame and the address live through the call and are passed with their own lengths.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                length,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("send a frame of {} bytes from {}", frame.len(), self.interface));
        }
        ensure!(usize::try_from(sent) == Ok(frame.len()), "only {sent} bytes of a frame were sent");
        Ok(())
    }

    /// What the kernel is told the frame holds: its EtherType, or on a device without link header the IP version's.
    fn protocol(&self, frame: &[u8]) -> u16 {
        if self.has_link_header {
            frame.get(12..14).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
        } else if frame.first().is_some_and(|first| first >> 4 == 6) {
            0x86dd
        } else {
            0x0800
        }
    }
}
