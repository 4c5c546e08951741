//! UDP datagrams, sent singly or as buffers that the kernel segments, with the count of those that arrived.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{ip_header_bytes, sockopt};
use crate::namespace::Namespace;

/// How many bytes the sender may be ahead of the receiver: few enough for every queue on the way.
const AHEAD_BYTES: u64 = 512 * 1024;

/// How long nothing may arrive before the rest counts as lost.
const QUIET: Duration = Duration::from_millis(500);

/// `UDP_SEGMENT` of `linux/udp.h`.
const UDP_SEGMENT: i32 = 103;

/// What was sent and what arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpCount {
    /// Datagrams sent. They are packets on the wire as long as none is fragmented.
    pub packets: u64,
    /// Payload sent in bytes.
    pub payload_bytes: u64,
    /// Layer-3 bytes sent, computed.
    pub l3_bytes: u64,
    /// Datagrams that arrived.
    pub packets_received: u64,
    /// Payload that arrived, in bytes.
    pub payload_bytes_received: u64,
}

/// Buffers of several datagrams each, which are segmented on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superdatagrams {
    /// Buffers to send.
    pub sends: u64,
    /// Payload of each buffer in bytes; at most 65,507 and 128 segments.
    pub payload_bytes: usize,
    /// Payload of each datagram in bytes; the last of a buffer may be shorter.
    pub segment_bytes: u16,
}

/// Sends datagrams of one size to an address in another namespace. For port 0 the kernel chooses one.
///
/// # Errors
///
/// When they cannot be sent. Losses on the way are not an error; see the count.
pub fn udp_send(
    from: &Namespace,
    to: &Namespace,
    address: SocketAddr,
    datagrams: u64,
    size: usize,
) -> Result<UdpCount> {
    send(from, to, address, &Plan { sends: datagrams, payload_bytes: size, segment_bytes: None })
}

/// Sends buffers that pass the kernel whole (UDP GSO) and are segmented at the device or the receiver.
///
/// # Errors
///
/// See [`udp_send`].
pub fn udp_send_segmented(
    from: &Namespace,
    to: &Namespace,
    address: SocketAddr,
    buffers: Superdatagrams,
) -> Result<UdpCount> {
    let Superdatagrams { sends, payload_bytes, segment_bytes } = buffers;
    ensure!(segment_bytes > 0 && payload_bytes > 0, "a segment and a buffer have at least one byte");
    send(from, to, address, &Plan { sends, payload_bytes, segment_bytes: Some(segment_bytes) })
}

struct Plan {
    sends: u64,
    payload_bytes: usize,
    segment_bytes: Option<u16>,
}

/// What the receiver has seen so far, and whether the sender has finished.
#[derive(Default)]
struct Progress {
    packets: AtomicU64,
    bytes: AtomicU64,
    sent: AtomicBool,
}

fn send(from: &Namespace, to: &Namespace, address: SocketAddr, plan: &Plan) -> Result<UdpCount> {
    let receiver =
        to.enter(|| UdpSocket::bind(address).with_context(|| format!("cannot bind to {address}")))?;
    let address = receiver.local_addr()?;
    receiver.set_read_timeout(Some(Duration::from_millis(20)))?;
    // Above the system's limit, which root may exceed: a buffer of 64 segments arrives at once.
    sockopt::set(&receiver, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 16 << 20)?;
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let sender = from.enter(|| {
        let socket = UdpSocket::bind(any)?;
        socket.connect(address).with_context(|| format!("cannot connect to {address}"))?;
        Ok(socket)
    })?;
    // The sender then waits for a full device queue, and no datagram is lost.
    sockopt::set(&sender, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 1 << 20)?;
    if let Some(segment) = plan.segment_bytes {
        sockopt::set(&sender, libc::IPPROTO_UDP, UDP_SEGMENT, segment.into())?;
    }
    let payload = plan.payload_bytes as u64;
    let packets = plan.sends * plan.segment_bytes.map_or(1, |segment| payload.div_ceil(segment.into()));
    let progress = Progress::default();
    std::thread::scope(|scope| {
        scope.spawn(|| receive(&receiver, packets, &progress));
        let sent = send_all(&sender, plan, &progress);
        progress.sent.store(true, Ordering::Release);
        sent
    })?;
    let payload_bytes = plan.sends * payload;
    Ok(UdpCount {
        packets,
        payload_bytes,
        l3_bytes: payload_bytes + packets * (ip_header_bytes(address.ip()) + 8),
        packets_received: progress.packets.into_inner(),
        payload_bytes_received: progress.bytes.into_inner(),
    })
}

fn send_all(socket: &UdpSocket, plan: &Plan, progress: &Progress) -> Result<()> {
    let buffer = vec![0x5a; plan.payload_bytes];
    let mut sent = 0;
    // After a loss it is unknown how far ahead the sender is.
    let mut paced = true;
    for _ in 0..plan.sends {
        socket.send(&buffer).context("cannot send a datagram")?;
        sent += buffer.len() as u64;
        let since = Instant::now();
        while paced && sent - progress.bytes.load(Ordering::Acquire).min(sent) > AHEAD_BYTES {
            std::thread::yield_now();
            paced = since.elapsed() < QUIET;
        }
    }
    Ok(())
}

fn receive(socket: &UdpSocket, expected: u64, progress: &Progress) {
    let mut buffer = vec![0; 65_536];
    let mut last = Instant::now();
    while progress.packets.load(Ordering::Relaxed) < expected {
        // A timeout, and the error that an ICMP message causes, both mean that nothing arrived.
        if let Ok(size) = socket.recv(&mut buffer) {
            progress.packets.fetch_add(1, Ordering::Release);
            progress.bytes.fetch_add(size as u64, Ordering::Release);
            last = Instant::now();
        } else if !progress.sent.load(Ordering::Acquire) {
            last = Instant::now();
        } else if last.elapsed() > QUIET {
            return;
        }
    }
}
