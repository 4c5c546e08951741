//! Raw frames exactly as a test has built them: ARP, stacked VLAN tags, truncated headers.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

use super::sockopt;
use crate::namespace::Namespace;

/// Sends without the queues of the interface; see packet(7).
const PACKET_QDISC_BYPASS: libc::c_int = 20;
/// `AF_PACKET` with the width of its field in an address.
const AF_PACKET: u16 = 17;
/// `ETH_P_ALL`
const ALL_PROTOCOLS: u16 = 3;

/// Sends a frame from an interface, beginning with the link header, or with the IP header on a device without
/// one (`venet0`). The frame passes the interface's queue and egress hooks like any other.
///
/// # Errors
///
/// When the interface does not exist or refuses the frame (too long, or shorter than its link header).
pub fn send_raw(namespace: &Namespace, interface: &str, frame: &[u8]) -> Result<()> {
    RawSocket::open(namespace, interface)?.send(frame)
}

/// Sends frames from one interface, on any thread; see [`send_raw`].
#[derive(Debug)]
pub struct RawSocket {
    socket: OwnedFd,
    interface: String,
    index: i32,
    has_link_header: bool,
}

impl RawSocket {
    /// Opens the socket inside a namespace.
    ///
    /// # Errors
    ///
    /// When the interface does not exist.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let text = namespace.ip(&format!("-j link show dev {interface}"))?;
        let link: serde_json::Value =
            serde_json::from_str(&text).context("cannot read the output of ip -j")?;
        let index = link[0]["ifindex"].as_i64().and_then(|index| i32::try_from(index).ok());
        let socket = namespace.enter(|| {
            // SAFETY: a plain system call; its result is checked before use.
            let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            if fd < 0 {
                return Err(io::Error::last_os_error()).context("cannot open a packet socket");
            }
            // SAFETY: the descriptor was just created and has no other owner.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        })?;
        Ok(Self {
            socket,
            interface: interface.to_owned(),
            index: index.with_context(|| format!("no index in {text}"))?,
            has_link_header: link[0]["link_type"] == "ether",
        })
    }

    /// The same, past the queues of the interface, and past what is attached there.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn past_the_queues(self) -> Result<Self> {
        let yes: libc::c_int = 1;
        // SAFETY: the value outlives the call and is passed with its own length.
        let set = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_QDISC_BYPASS,
                (&raw const yes).cast(),
                libc::socklen_t::try_from(size_of::<libc::c_int>())?,
            )
        };
        ensure!(set == 0, "cannot send past the queues: {}", io::Error::last_os_error());
        Ok(self)
    }

    /// Opens a sniffer with the smallest buffer: what it does not read soon fills it, and the kernel discards
    /// further copies.
    ///
    /// # Errors
    ///
    /// When the interface does not exist.
    pub fn listening(namespace: &Namespace, interface: &str) -> Result<Self> {
        let socket = Self::open(namespace, interface)?;
        sockopt::set(&socket.socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 1)?;
        let address = libc::sockaddr_ll {
            sll_family: AF_PACKET,
            sll_protocol: ALL_PROTOCOLS.to_be(),
            sll_ifindex: socket.index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
        // SAFETY: the address outlives the call and is passed with its own length.
        let bound = unsafe { libc::bind(socket.socket.as_raw_fd(), (&raw const address).cast(), length) };
        ensure!(bound == 0, "cannot listen on {interface}: {}", io::Error::last_os_error());
        Ok(socket)
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
        // SAFETY: the frame and the address outlive the call and are passed with their own lengths.
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
            return Err(io::Error::last_os_error()).with_context(|| {
                format!("cannot send a frame of {} bytes from {}", frame.len(), self.interface)
            });
        }
        ensure!(usize::try_from(sent) == Ok(frame.len()), "only {sent} bytes of a frame were sent");
        Ok(())
    }

    /// The protocol for the kernel: the EtherType of the frame, or that of its IP version on a device without
    /// link header.
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
