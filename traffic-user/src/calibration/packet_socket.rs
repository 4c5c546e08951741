//! Sends frames as they are, by a packet socket.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use traffic_common::Family;

use super::plan::{Frame, Segmentation};

/// `struct virtio_net_hdr`, which stands in front of each frame.
const HEADER: usize = 10;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: without it, the kernel segments nothing.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`, `VIRTIO_NET_HDR_GSO_TCPV6`
const GSO_TCP: [u8; 2] = [1, 4];
/// Where the checksum is in a TCP header, and the header's length.
const TCP_CHECKSUM_AT: u16 = 16;
const TCP: u16 = 20;

/// A packet socket on one interface, which receives nothing.
#[derive(Debug)]
pub(super) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens one in the network namespace of this thread. Needs CAP_NET_RAW.
    pub fn open(ifindex: u32) -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let on: libc::c_int = 1;
        // SAFETY: the option's value is one integer.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_VNET_HDR,
                (&raw const on).cast(),
                socklen(size_of_val(&on)),
            )
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        let address = libc::sockaddr_ll {
            sll_family: libc::c_ushort::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
            // No protocol: nothing is received.
            sll_protocol: 0,
            sll_ifindex: i32::try_from(ifindex).map_err(io::Error::other)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: an address of this length.
        let bound = unsafe {
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), socklen(size_of_val(&address)))
        };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(socket))
    }

    /// Sends a frame.
    pub fn send(&self, frame: &Frame) -> io::Result<()> {
        let mut bytes = header(frame.segmentation).to_vec();
        bytes.extend_from_slice(&frame.bytes);
        let sent = rustix::net::send(&self.0, &bytes, rustix::net::SendFlags::empty())?;
        if sent != bytes.len() {
            return Err(io::Error::other(format!("only {sent} of {} bytes were sent", bytes.len())));
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the sizes of small structures")]
const fn socklen(bytes: usize) -> libc::socklen_t {
    bytes as libc::socklen_t
}

fn header(segmentation: Option<Segmentation>) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let Some(Segmentation { family, size, transport }) = segmentation else { return header };
    header[0] = NEEDS_CHECKSUM;
    header[1] = GSO_TCP[usize::from(family == Family::Ipv6)];
    // Lengths: of all headers, of a segment; then where the checksum begins, and where it is from there.
    for (at, value) in [(2, transport + TCP), (4, size), (6, transport), (8, TCP_CHECKSUM_AT)] {
        header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::plan::ETHERNET;

    #[test]
    fn a_header_says_how_a_frame_is_segmented() {
        assert_eq!(header(None), [0; HEADER]);
        let transport = u16::try_from(ETHERNET + 40).unwrap();
        let header = header(Some(Segmentation { family: Family::Ipv6, size: 1000, transport }));
        assert_eq!(header[..2], [1, 4]);
        let words: Vec<u16> =
            header[2..].chunks(2).map(|word| u16::from_ne_bytes([word[0], word[1]])).collect();
        assert_eq!(words, [74, 1000, 54, 16]);
    }
}
