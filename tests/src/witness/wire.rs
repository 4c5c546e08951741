//! Every buffer at an interface, expanded to the packets it is on the wire.
//!
//! A packet socket hands over each buffer with the kernel's own note of how it is to be segmented, which a capture file
//! has no room for. The expansion is the literal one: cut the payload piece by piece, and put the headers before each. It
//! shares nothing with the formulas of the program under test.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Amounts;
use crate::counters::sum;

/// Room for the buffers that wait to be read: they are charged at their full size.
const RECEIVE_BUFFER: libc::c_int = 1 << 29;
/// Enough of a buffer for all headers up to the transport's.
const SNAP: usize = 512;
/// `struct virtio_net_hdr`, which stands before each buffer.
const VNET_HEADER: usize = 10;
/// The nominal link header of Ethernet.
const ETHERNET: usize = 14;
/// How long the witness waits for silence before it is read.
const SILENCE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);

/// Whose packets: the address at the other end, or `None` for what is no IP.
pub type Peer = Option<IpAddr>;

/// What passed an interface, by peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireCount {
    /// Packets and layer-3 bytes on the wire.
    pub peers: BTreeMap<Peer, Amounts>,
    /// Buffers seen.
    pub buffers: u64,
    /// Buffers among them that the container received.
    pub in_buffers: u64,
    /// Buffers among them that are more than one packet.
    pub large_buffers: u64,
}

impl WireCount {
    /// Everything, other protocols included.
    #[must_use]
    pub fn total(&self) -> Amounts {
        sum(self.peers.values().copied())
    }

    /// Everything of IP whose peer fits.
    #[must_use]
    pub fn of(&self, fits: impl Fn(IpAddr) -> bool) -> Amounts {
        sum(self.peers.iter().filter(|(peer, _)| peer.is_some_and(&fits)).map(|(_, amounts)| *amounts))
    }

    /// What is no IP.
    #[must_use]
    pub fn other(&self) -> Amounts {
        self.peers.get(&None).copied().unwrap_or_default()
    }

    /// What came since an earlier reading of the same witness.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        for (peer, amounts) in &earlier.peers {
            let entry = self.peers.entry(*peer).or_default();
            *entry = entry.since(*amounts);
        }
        self.buffers -= earlier.buffers;
        self.in_buffers -= earlier.in_buffers;
        self.large_buffers -= earlier.large_buffers;
        self
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (peer, amounts) in &other.peers {
            let entry = self.peers.entry(*peer).or_default();
            *entry = entry.plus(*amounts);
        }
        self.buffers += other.buffers;
        self.in_buffers += other.in_buffers;
        self.large_buffers += other.large_buffers;
        self
    }
}

/// On which end of a container's link the witness stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Inside: what comes in is `in`.
    Container,
    /// On the host: what comes in is `out` of the container.
    Host,
}

/// A thread that reads a packet socket until it is stopped.
#[derive(Debug)]
pub struct WireWitness {
    count: Arc<Mutex<Result<WireCount, String>>>,
    stop: Arc<AtomicBool>,
    socket: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl WireWitness {
    /// Listens on an interface of the namespace that a file stands for, such as `/run/netns/NAME` or
    /// `/proc/PID/ns/net`. The namespace lives as long as the witness.
    ///
    /// # Errors
    ///
    /// Without root, or when there is no such namespace or interface.
    pub fn start(namespace: &Path, interface: &str, side: Side) -> Result<Self> {
        let (socket, link_header) = std::thread::scope(|scope| {
            let inside = || {
                let file = File::open(namespace).with_context(|| format!("open {}", namespace.display()))?;
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("enter {}", namespace.display()))?;
                open(interface)
            };
            scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .with_context(|| format!("a witness on {interface}"))?;
        let socket = Arc::new(socket);
        let count = Arc::new(Mutex::new(Ok(WireCount::default())));
        let stop = Arc::new(AtomicBool::new(false));
        let reader = Reader { link_header, side };
        let (to, ends, from) = (Arc::clone(&count), Arc::clone(&stop), Arc::clone(&socket));
        let thread = std::thread::Builder::new()
            .name("wire-witness".to_owned())
            .spawn(move || reader.read(&from, &to, &ends))?;
        Ok(Self { count, stop, socket, thread: Some(thread) })
    }

    /// What has been seen until now.
    ///
    /// # Errors
    ///
    /// When a buffer could not be understood, or was lost.
    pub fn read(&self) -> Result<WireCount> {
        let lost = lost(&self.socket)?;
        ensure!(lost == 0, "the witness lost {lost} buffers");
        self.count
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .map_err(|error| anyhow!("the witness: {error}"))
    }

    /// What has been seen when nothing comes any more.
    ///
    /// # Errors
    ///
    /// As [`WireWitness::read`], or when the traffic does not end.
    pub fn at_rest(&self) -> Result<WireCount> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = self.read()?;
        loop {
            std::thread::sleep(SILENCE);
            let now = self.read()?;
            if now == last {
                return Ok(now);
            }
            ensure!(Instant::now() < deadline, "the traffic at the witness does not come to rest");
            last = now;
        }
    }
}

impl Drop for WireWitness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread keeps its errors in the count.
            let _ = thread.join();
        }
    }
}

/// Makes the socket in the namespace of this thread; gives the length of the interface's link header with it.
fn open(interface: &str) -> Result<(OwnedFd, usize)> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: the name is a string that ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index != 0, "there is no interface {interface}: {}", io::Error::last_os_error());
    // Without a protocol it hears nothing until it is bound.
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(fd >= 0, "a packet socket: {}", io::Error::last_os_error());
    // SAFETY: a descriptor that was just made and that nothing else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1).context("ask for segmentation headers")?;
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER).context("enlarge the socket")?;
    let timeout = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
    set_value(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout).context("set a time limit")?;
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
    ensure!(bound == 0, "bind to {interface}: {}", io::Error::last_os_error());
    let mut own = address;
    let mut own_size = size;
    // SAFETY: room for a sockaddr_ll of that size; the kernel says the link type in it.
    let named = unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut own).cast(), &raw mut own_size) };
    ensure!(named == 0, "the link type of {interface}: {}", io::Error::last_os_error());
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
    // SAFETY: the value lives over the call and has that size.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), size) };
    ensure!(set == 0, "{}", io::Error::last_os_error());
    Ok(())
}

/// Buffers for which the socket had no room since it was last asked.
fn lost(socket: &OwnedFd) -> Result<u32> {
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
    ensure!(asked == 0, "ask for lost buffers: {}", io::Error::last_os_error());
    Ok(statistics[1])
}

struct Reader {
    link_header: usize,
    side: Side,
}

impl Reader {
    fn read(&self, socket: &OwnedFd, count: &Mutex<Result<WireCount, String>>, stop: &AtomicBool) {
        let mut buffer = [0_u8; VNET_HEADER + SNAP];
        while !stop.load(Ordering::Relaxed) {
            let received = match receive(socket, &mut buffer) {
                Ok(Some(received)) => received,
                Ok(None) => continue,
                Err(error) => {
                    // The interface went: what was seen stays, and nothing more will come.
                    if error.raw_os_error() != Some(libc::ENETDOWN) {
                        *count.lock().unwrap_or_else(PoisonError::into_inner) =
                            Err(format!("read the packet socket: {error}"));
                    }
                    continue;
                }
            };
            let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
            let Ok(so_far) = count.as_mut() else { return };
            if let Err(error) = self.add(so_far, &buffer, received) {
                *count = Err(format!("{error:#}"));
                return;
            }
        }
    }

    fn add(&self, count: &mut WireCount, buffer: &[u8], received: Received) -> Result<()> {
        let kept = received.length.min(buffer.len());
        let (note, frame) =
            buffer[..kept].split_at_checked(VNET_HEADER).context("a buffer without its header")?;
        let length = received.length - VNET_HEADER;
        // In is what the container receives: by its own end, or what the host's end sends.
        let is_in = received.sent == (self.side == Side::Host);
        let (l3, l3_length) = match self.link_header {
            0 => (frame, length),
            header => (frame.get(header..).context("a frame without its header")?, length - header),
        };
        let protocol = match self.link_header {
            0 => match l3.first().map(|byte| byte >> 4) {
                Some(6) => 0x86dd,
                _ => 0x0800,
            },
            _ => u16::from_be_bytes([frame[12], frame[13]]),
        };
        let ip = Headers::read(protocol, l3);
        let packets = cut(note, ip.as_ref(), l3_length)?;
        let peer = ip.map(|ip| if is_in { ip.source } else { ip.destination });
        let bytes = packets.iter().sum();
        let packets = packets.len() as u64;
        let amounts =
            if is_in { Amounts::incoming(packets, bytes) } else { Amounts::outgoing(packets, bytes) };
        let entry = count.peers.entry(peer).or_default();
        *entry = entry.plus(amounts);
        count.buffers += 1;
        count.in_buffers += u64::from(is_in);
        count.large_buffers += u64::from(packets > 1);
        Ok(())
    }
}

/// A buffer as it came.
#[derive(Clone, Copy)]
struct Received {
    /// Its whole length, the note before it included.
    length: usize,
    /// Sent by this interface, not received.
    sent: bool,
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    // `PACKET_OUTGOING` of linux/if_packet.h.
    const OUTGOING: u8 = 4;
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: buffer and address have the lengths given. With MSG_TRUNC the whole length is returned.
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

/// What the expansion needs of an IP packet's headers.
#[derive(Clone, Copy, Debug)]
struct Headers {
    source: IpAddr,
    destination: IpAddr,
    /// To the end of the transport header, if that is TCP or UDP.
    through_transport: Option<usize>,
}

impl Headers {
    fn read(protocol: u16, l3: &[u8]) -> Option<Self> {
        let bytes = |from: usize, to: usize| l3.get(from..to);
        let (source, destination, mut next, mut offset) = match protocol {
            0x0800 => {
                let address = |from| Some(IpAddr::from(<[u8; 4]>::try_from(bytes(from, from + 4)?).ok()?));
                (address(12)?, address(16)?, *l3.get(9)?, usize::from(l3.first()? & 15) * 4)
            }
            0x86dd => {
                let address = |from| Some(IpAddr::from(<[u8; 16]>::try_from(bytes(from, from + 16)?).ok()?));
                (address(8)?, address(24)?, *l3.get(6)?, 40)
            }
            _ => return None,
        };
        // Hop-by-hop, routing and destination options; a fragment is never a super-packet.
        while protocol == 0x86dd && matches!(next, 0 | 43 | 60) {
            let length = (usize::from(*l3.get(offset + 1)?) + 1) * 8;
            next = *l3.get(offset)?;
            offset += length;
        }
        let through_transport = match next {
            6 => l3.get(offset + 12).map(|byte| offset + usize::from(byte >> 4) * 4),
            17 => Some(offset + 8),
            _ => None,
        };
        Some(Self { source, destination, through_transport })
    }
}

/// The layer-3 lengths of the packets that a buffer is on the wire.
fn cut(note: &[u8], ip: Option<&Headers>, length: usize) -> Result<Vec<u64>> {
    // virtio_net_hdr: flags, gso_type, hdr_len, gso_size, ...
    let (kind, segment) = (note[1], usize::from(u16::from_ne_bytes([note[4], note[5]])));
    // VIRTIO_NET_HDR_GSO_NONE; the bit 0x80 only says that a TCP packet carries ECN.
    if kind & 0x7f == 0 {
        return Ok(vec![length as u64]);
    }
    // TCPV4, TCPV6, UDP_L4; the others do not occur here, and must not be guessed.
    ensure!(matches!(kind & 0x7f, 1 | 4 | 5), "a buffer of segmentation type {kind}");
    let headers = ip.and_then(|ip| ip.through_transport).context("a super-packet of no known transport")?;
    ensure!(segment > 0 && length >= headers, "a super-packet of {length} bytes in segments of {segment}");
    let mut left = length - headers;
    let mut packets = Vec::new();
    while left > 0 {
        let payload = left.min(segment);
        packets.push((headers + payload) as u64);
        left -= payload;
    }
    if packets.is_empty() {
        packets.push(headers as u64);
    }
    Ok(packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp_v4(payload: usize) -> (Headers, usize) {
        let headers = Headers {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            through_transport: Some(52),
        };
        (headers, 52 + payload)
    }

    #[test]
    fn a_super_packet_is_cut_with_its_headers_before_each_piece() {
        let (headers, length) = tcp_v4(2_500);
        let note = [0, 1, 66, 0, 0xe8, 0x03, 0, 0, 0, 0];
        assert_eq!(cut(&note, Some(&headers), length).unwrap(), [1052, 1052, 552]);
    }

    #[test]
    fn a_plain_buffer_is_one_packet() {
        let (headers, length) = tcp_v4(2_500);
        assert_eq!(cut(&[0; 10], Some(&headers), length).unwrap(), [2552]);
    }

    #[test]
    fn an_unknown_segmentation_is_an_error() {
        let (headers, length) = tcp_v4(2_500);
        assert!(cut(&[0, 3, 0, 0, 9, 9, 0, 0, 0, 0], Some(&headers), length).is_err());
    }
}
