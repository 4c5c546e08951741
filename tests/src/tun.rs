//! TUN and TAP devices with their userspace end. The kernel passes whole super-packets in both directions,
//! with a segmentation header (`virtio_net_hdr`, as virtual machines use it).

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::namespace::Namespace;

/// Size of the longest packet.
pub(crate) const BUFFER_BYTES: usize = 1 << 17;

/// `struct virtio_net_hdr`: the work that is left to do on a packet. Offsets count from the start of the
/// frame, or of the IP header on a TUN device.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct VnetHeader {
    /// 1: the checksum must be filled in; 2: it has been verified.
    pub flags: u8,
    /// The kind of segmentation: one of the `GSO_` constants.
    pub gso_type: u8,
    /// Length of all headers in bytes.
    pub hdr_len: u16,
    /// Payload of each segment in bytes.
    pub gso_size: u16,
    /// Offset of the transport header, where the checksum begins.
    pub csum_start: u16,
    /// Offset of the checksum in the transport header.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Its length in front of each packet.
    pub const BYTES: usize = 10;
    /// No segmentation.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// UDP as IP fragments (UFO), which guests used before 2017.
    pub const GSO_UDP: u8 = 3;
    /// TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// UDP as datagrams.
    pub const GSO_UDP_L4: u8 = 5;

    /// The header of a packet that is complete.
    pub const NONE: Self =
        Self { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };

    /// TCP over IPv4 with the TCP header at `transport` and the payload at `headers`.
    #[must_use]
    pub const fn tcp_v4(transport: u16, headers: u16, gso_size: u16) -> Self {
        Self::segmented(Self::GSO_TCPV4, [transport, headers, gso_size, 16])
    }

    /// TCP over IPv6; see [`VnetHeader::tcp_v4`].
    #[must_use]
    pub const fn tcp_v6(transport: u16, headers: u16, gso_size: u16) -> Self {
        Self::segmented(Self::GSO_TCPV6, [transport, headers, gso_size, 16])
    }

    /// A long datagram that is sent as IP fragments of `gso_size` bytes.
    #[must_use]
    pub const fn udp_fragments(transport: u16, gso_size: u16) -> Self {
        Self::segmented(Self::GSO_UDP, [transport, transport + 8, gso_size, 6])
    }

    /// A buffer that is sent as datagrams with `gso_size` bytes of payload.
    #[must_use]
    pub const fn udp_l4(transport: u16, gso_size: u16) -> Self {
        Self::segmented(Self::GSO_UDP_L4, [transport, transport + 8, gso_size, 6])
    }

    /// Segmentation always implies a checksum that must be filled in.
    const fn segmented(gso_type: u8, [csum_start, hdr_len, gso_size, csum_offset]: [u16; 4]) -> Self {
        Self { flags: 1, gso_type, hdr_len, gso_size, csum_start, csum_offset }
    }

    /// The bytes in front of a packet, in the machine's byte order, which is the default of a device.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let [b2, b3] = self.hdr_len.to_ne_bytes();
        let [b4, b5] = self.gso_size.to_ne_bytes();
        let [b6, b7] = self.csum_start.to_ne_bytes();
        let [b8, b9] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, b2, b3, b4, b5, b6, b7, b8, b9]
    }

    /// Parses the bytes in front of a packet.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [flags, gso_type, b2, b3, b4, b5, b6, b7, b8, b9] = bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([b2, b3]),
            gso_size: u16::from_ne_bytes([b4, b5]),
            csum_start: u16::from_ne_bytes([b6, b7]),
            csum_offset: u16::from_ne_bytes([b8, b9]),
        }
    }
}

/// The layer of the device's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// With an Ethernet header: TAP.
    Two,
    /// Without an Ethernet header: TUN.
    Three,
}

/// The userspace end of a device. The device exists as long as this value.
#[derive(Debug)]
pub(crate) struct Tun {
    file: File,
}

impl Tun {
    /// Creates a device in a namespace and enables every offload that a guest may have.
    pub(crate) fn open(namespace: &Namespace, name: &str, layer: Layer) -> Result<Self> {
        ensure!(name.len() < libc::IFNAMSIZ, "{name} is too long for an interface");
        let file = namespace.enter(|| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open("/dev/net/tun")
                .context("cannot open /dev/net/tun")?;
            let kind = if layer == Layer::Two { libc::IFF_TAP } else { libc::IFF_TUN };
            let flags = i16::try_from(kind | libc::IFF_NO_PI | libc::IFF_VNET_HDR)?;
            // struct ifreq: the name, then a union that begins with the flags.
            let mut request = [0_u8; 40];
            request[..name.len()].copy_from_slice(name.as_bytes());
            request[16..18].copy_from_slice(&flags.to_ne_bytes());
            // SAFETY: TUNSETIFF reads and writes a struct ifreq, which is 40 bytes long.
            if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) } != 0 {
                return Err(io::Error::last_os_error())
                    .with_context(|| format!("cannot create the device {name}"));
            }
            Ok(file)
        })?;
        // TUN_F_USO4 and TUN_F_USO6 of linux/if_tun.h.
        let datagrams = 0x20 | 0x40;
        let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_UFO | datagrams;
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) } != 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("cannot set the offloads of {name}"));
        }
        // The queue is as long as the ring to userspace. Packets that do not fit are lost.
        namespace.ip(&format!("link set {name} txqueuelen 10000 up"))?;
        Ok(Self { file })
    }

    /// Passes a packet to the kernel, as if it had come from the other end.
    pub(crate) fn send(&self, header: VnetHeader, packet: &[u8]) -> Result<()> {
        let header = header.to_bytes();
        let sent = (&self.file)
            .write_vectored(&[IoSlice::new(&header), IoSlice::new(packet)])
            .with_context(|| format!("the device refused a packet of {} bytes", packet.len()))?;
        ensure!(sent == header.len() + packet.len(), "the device took only {sent} bytes of a packet");
        Ok(())
    }

    /// Passes on a received packet with its header.
    pub(crate) fn send_with_header(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.file).write(bytes)
    }

    /// The next packet from the kernel, or none if none is waiting.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<(VnetHeader, &'a [u8])>> {
        let mut header = [0; VnetHeader::BYTES];
        let both = &mut [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)];
        match (&self.file).read_vectored(both) {
            Ok(size) => {
                let size = size.saturating_sub(VnetHeader::BYTES);
                Ok(Some((VnetHeader::from_bytes(header), &buffer[..size])))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next packet with its header, to be passed on unchanged.
    pub(crate) fn receive_with_header(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Waits until one of the descriptors is readable or the time is over. The results have the same order.
pub(crate) fn readable<const N: usize>(
    descriptors: [BorrowedFd<'_>; N],
    limit: Option<Duration>,
) -> Result<[bool; N]> {
    let mut polled = descriptors.map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
    let limit = limit.map(Timespec::try_from).transpose().context("cannot convert the time limit")?;
    loop {
        match poll(&mut polled, limit.as_ref()) {
            Ok(_) => return Ok(polled.map(|descriptor| !descriptor.revents().is_empty())),
            // A signal interrupted the wait.
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot poll"),
        }
    }
}
