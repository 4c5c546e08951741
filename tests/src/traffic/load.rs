//! A flow that runs until it is stopped and counts itself.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::check::eventually;
use crate::namespace::Namespace;
use anyhow::{Context, Result};

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams, each of which is a packet.
    pub packets: u64,
    /// Layer-3 bytes.
    pub bytes: u64,
}

/// What a container without its interface is told. Its programs try again.
const NO_WAY: [ErrorKind; 3] =
    [ErrorKind::NetworkUnreachable, ErrorKind::NetworkDown, ErrorKind::HostUnreachable];

/// A flow of datagrams of one size, about ten thousand per second, whether they arrive or not. It goes on when the
/// interface of its sender comes back.
#[derive(Debug)]
pub struct Load {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    packet_bytes: u64,
    sender: Option<JoinHandle<Result<()>>>,
    /// Keeps the port open, so that no ICMP message reports it closed.
    receiver: Option<UdpSocket>,
}

impl Load {
    /// Starts to send to an address in another namespace. For port 0 the kernel chooses one.
    ///
    /// # Errors
    ///
    /// When a socket cannot be set up, or no datagrams are sent.
    pub fn start(from: &Namespace, to: &Namespace, address: SocketAddr, size: usize) -> Result<Self> {
        let receiver =
            to.enter(|| UdpSocket::bind(address).with_context(|| format!("cannot bind to {address}")))?;
        let address = receiver.local_addr()?;
        let mut load = Self::send(from, address, size)?;
        load.receiver = Some(receiver);
        Ok(load)
    }

    /// Starts to send to an address, at which somebody else may listen.
    ///
    /// # Errors
    ///
    /// When a socket cannot be set up.
    pub fn send(from: &Namespace, address: SocketAddr, size: usize) -> Result<Self> {
        let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let socket = from.enter(|| Ok(UdpSocket::bind(any)?))?;
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ends) = (Arc::clone(&sent), Arc::clone(&stop));
        let sender = thread::spawn(move || {
            // Unconnected, so that a missing receiver or a closed port does not stop the sender.
            let payload = vec![0x5a; size];
            while !ends.load(Ordering::Relaxed) {
                for _ in 0..10 {
                    match socket.send_to(&payload, address) {
                        Ok(_) => count.fetch_add(1, Ordering::Relaxed),
                        Err(error) if NO_WAY.contains(&error.kind()) => break,
                        Err(error) => return Err(error).context("cannot send a datagram"),
                    };
                }
                // Leaves processor time for others: the machine may have few processors.
                thread::sleep(Duration::from_micros(200));
            }
            Ok(())
        });
        let headers = if address.is_ipv4() { 28 } else { 48 };
        Ok(Self { sent, stop, packet_bytes: size as u64 + headers, sender: Some(sender), receiver: None })
    }

    /// Datagrams sent so far.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until this many more datagrams have been sent.
    ///
    /// # Errors
    ///
    /// When they are not sent in time.
    pub fn passes(&self, packets: u64) -> Result<()> {
        let until = self.packets() + packets;
        eventually("datagrams flow", || Ok(self.packets() >= until))
    }

    /// Stops the flow.
    ///
    /// # Errors
    ///
    /// When the sender failed.
    pub fn stop(mut self) -> Result<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(Sent { packets: self.packets(), bytes: self.packets() * self.packet_bytes })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
