//! A witness that expands every buffer at an interface to the packets on the wire.
//!
//! A packet socket delivers each buffer with the kernel's segmentation header, which a capture file cannot
//! hold. The expansion is literal: cut the payload into pieces and put the headers in front of each. It
//! shares nothing with the formulas of the program under test.
//!
//! `socket` reads buffers, `segment` cuts them, and this file counts the packets by peer.

mod segment;
mod socket;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Amounts;
use crate::counters::sum;

/// The length in bytes that is kept of a buffer: enough for all headers.
const SNAP: usize = 512;
/// Size of `struct virtio_net_hdr`, in front of each buffer.
const VNET_HEADER: usize = 10;
/// How long nothing must arrive before the count is final.
const SILENCE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);

/// The address at the other end, or `None` for packets that are not IP.
pub type Peer = Option<IpAddr>;

/// The traffic of an interface, by peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireCount {
    /// Packets and layer-3 bytes on the wire.
    pub peers: BTreeMap<Peer, Amounts>,
    /// Buffers seen.
    pub buffers: u64,
    /// Buffers that the container received.
    pub in_buffers: u64,
    /// Buffers that become more than one packet.
    pub large_buffers: u64,
}

impl WireCount {
    /// The sum over all protocols.
    #[must_use]
    pub fn total(&self) -> Amounts {
        sum(self.peers.values().copied())
    }

    /// The sum over IP packets whose peer matches.
    #[must_use]
    pub fn of(&self, fits: impl Fn(IpAddr) -> bool) -> Amounts {
        sum(self.peers.iter().filter(|(peer, _)| peer.is_some_and(&fits)).map(|(_, amounts)| *amounts))
    }

    /// Packets that are not IP.
    #[must_use]
    pub fn other(&self) -> Amounts {
        self.peers.get(&None).copied().unwrap_or_default()
    }

    /// The growth since an earlier reading of the same witness.
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

    /// The sum of two counts.
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

/// The end of a container's link at which the witness is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Inside the container: what the interface receives is `in`.
    Container,
    /// On the host: what the interface receives is `out` of the container.
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
    /// Starts on an interface in the namespace of a file such as `/run/netns/NAME` or `/proc/PID/ns/net`. The
    /// witness keeps the namespace alive.
    ///
    /// # Errors
    ///
    /// Without root, or when the namespace or the interface does not exist.
    pub fn start(namespace: &Path, interface: &str, side: Side) -> Result<Self> {
        let (socket, link_header) = std::thread::scope(|scope| {
            let inside = || {
                let file =
                    File::open(namespace).with_context(|| format!("cannot open {}", namespace.display()))?;
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("cannot enter {}", namespace.display()))?;
                socket::open(interface)
            };
            scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .with_context(|| format!("cannot start a witness on {interface}"))?;
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

    /// The count so far.
    ///
    /// # Errors
    ///
    /// When a buffer could not be parsed, or was lost.
    pub fn read(&self) -> Result<WireCount> {
        let lost = socket::lost(&self.socket)?;
        ensure!(lost == 0, "the witness lost {lost} buffers");
        self.count
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .map_err(|error| anyhow!("the witness failed: {error}"))
    }

    /// The count when no more packets arrive.
    ///
    /// # Errors
    ///
    /// See [`WireWitness::read`]; also when the traffic does not end.
    pub fn at_rest(&self) -> Result<WireCount> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = self.read()?;
        loop {
            std::thread::sleep(SILENCE);
            let now = self.read()?;
            if now == last {
                return Ok(now);
            }
            ensure!(Instant::now() < deadline, "the traffic at the witness does not end");
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

struct Reader {
    link_header: usize,
    side: Side,
}

impl Reader {
    fn read(&self, socket: &OwnedFd, count: &Mutex<Result<WireCount, String>>, stop: &AtomicBool) {
        let mut buffer = [0_u8; VNET_HEADER + SNAP];
        while !stop.load(Ordering::Relaxed) {
            let received = match socket::receive(socket, &mut buffer) {
                Ok(Some(received)) => received,
                Ok(None) => continue,
                Err(error) => {
                    // The interface is gone. The count stays, and no more packets arrive.
                    if error.raw_os_error() != Some(libc::ENETDOWN) {
                        *count.lock().unwrap_or_else(PoisonError::into_inner) =
                            Err(format!("cannot read the packet socket: {error}"));
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

    fn add(&self, count: &mut WireCount, buffer: &[u8], received: socket::Received) -> Result<()> {
        let kept = received.length.min(buffer.len());
        let (note, frame) =
            buffer[..kept].split_at_checked(VNET_HEADER).context("a buffer has no segmentation header")?;
        let length = received.length - VNET_HEADER;
        // In means that the container's end receives the buffer, or the host's end sends it.
        let is_in = received.sent == (self.side == Side::Host);
        let (l3, l3_length) = match self.link_header {
            0 => (frame, length),
            header => (frame.get(header..).context("a frame has no link header")?, length - header),
        };
        let protocol = match self.link_header {
            0 => match l3.first().map(|byte| byte >> 4) {
                Some(6) => 0x86dd,
                _ => 0x0800,
            },
            _ => u16::from_be_bytes([frame[12], frame[13]]),
        };
        let ip = segment::Headers::read(protocol, l3);
        let packets = segment::cut(note, ip.as_ref(), l3_length)?;
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
