//! Traffic that goes on until it is told to stop, and counts itself.

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
    /// Datagrams, each a packet.
    pub packets: u64,
    /// Layer-3 bytes.
    pub bytes: u64,
}

/// A stream of datagrams of one size, some ten thousand a second, whether they arrive or not.
#[derive(Debug)]
pub struct Load {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    packet_bytes: u64,
    sender: Option<JoinHandle<Result<()>>>,
    /// Keeps the port open, so that nobody answers that it is closed.
    _receiver: UdpSocket,
}

impl Load {
    /// Starts sending to an address in another namespace. A port of 0 lets the kernel choose.
    ///
    /// # Errors
    ///
    /// When a socket refuses, or datagrams do not flow.
    pub fn start(from: &Namespace, to: &Namespace, address: SocketAddr, size: usize) -> Result<Self> {
        let receiver = to.enter(|| UdpSocket::bind(address).with_context(|| format!("bind to {address}")))?;
        let address = receiver.local_addr()?;
        let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let socket = from.enter(|| Ok(UdpSocket::bind(any)?))?;
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ends) = (Arc::clone(&sent), Arc::clone(&stop));
        let sender = thread::spawn(move || {
            // Unconnected: that the receiver went, and that its port is closed when it is back, does not stop the sender.
            let payload = vec![0x5a; size];
            while !ends.load(Ordering::Relaxed) {
                for _ in 0..10 {
                    socket.send_to(&payload, address).context("send a datagram")?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                // Room for the others: the machine may have few processors.
                thread::sleep(Duration::from_micros(200));
            }
            Ok(())
        });
        let headers = if address.is_ipv4() { 28 } else { 48 };
        Ok(Self {
            sent,
            stop,
            packet_bytes: size as u64 + headers,
            sender: Some(sender),
            _receiver: receiver,
        })
    }

    /// Datagrams sent until now.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until so many more have been sent.
    ///
    /// # Errors
    ///
    /// When a socket refuses, or datagrams do not flow.
    pub fn passes(&self, packets: u64) -> Result<()> {
        let until = self.packets() + packets;
        eventually("datagrams flow", || Ok(self.packets() >= until))
    }

    /// Stops it.
    ///
    /// # Errors
    ///
    /// When a socket refuses, or datagrams do not flow.
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
