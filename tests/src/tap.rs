//! The interface of a virtual machine, `vme201.0`. The test acts as the machine: it sends frames with any
//! segmentation header and receives what the host sends.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::container::{Bridge, Mac, await_forwarding};
use crate::namespace::Namespace;
use crate::process::run_ok;
use crate::tun::{BUFFER_BYTES, Layer, Tun, VnetHeader, readable};

/// A TAP device in the host's namespace. It exists as long as its guard.
#[derive(Debug)]
pub struct Tap<'a> {
    host: &'a Namespace,
    name: String,
    device: Tun,
}

impl<'a> Tap<'a> {
    pub(crate) fn new(host: &'a Namespace, name: &str) -> Result<Self> {
        let device = Tun::open(host, name, Layer::Two)?;
        Ok(Self { host, name: name.to_owned(), device })
    }

    /// The name of the interface on the host.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.name
    }

    /// Puts the tap on the bridge, and configures the bridge with the hardware address of the machine behind
    /// it.
    ///
    /// # Errors
    ///
    /// When it is on a bridge already.
    pub fn on_bridge(&self, bridge: &Bridge, mac: Mac) -> Result<()> {
        self.host.ip(&format!("link set {} master {}", self.name, bridge.name()))?;
        let mac = mac.to_string();
        run_ok(
            self.host.command("bridge").args(["fdb", "replace", &mac, "dev", &self.name, "master", "static"]),
        )?;
        await_forwarding(self.host.name(), &self.name)
    }

    /// Gives the host an address on the tap, with a prefix length, such as `10.9.0.1/24`.
    ///
    /// # Errors
    ///
    /// When the address is invalid.
    pub fn with_address(&self, address: &str) -> Result<()> {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        self.host.ip(&format!("address add {address} dev {}{nodad}", self.name)).map(drop)
    }

    /// Routes some addresses to the machine behind this interface.
    ///
    /// # Errors
    ///
    /// When such a route exists.
    pub fn knows(&self, addresses: &[IpAddr], mac: Mac) -> Result<()> {
        for address in addresses {
            self.host.ip(&format!("route replace {address} dev {}", self.name))?;
            self.host
                .ip(&format!("neighbour replace {address} lladdr {mac} dev {} nud permanent", self.name))?;
        }
        Ok(())
    }

    /// Sends a frame as the machine.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the frame or its header.
    pub fn send(&self, header: VnetHeader, frame: &[u8]) -> Result<()> {
        self.device.send(header, frame)
    }

    /// The next frame that the host sends to the machine, or none if none comes in time.
    ///
    /// # Errors
    ///
    /// When the device cannot be read.
    pub fn receive(&self, limit: Duration) -> Result<Option<(VnetHeader, Vec<u8>)>> {
        let deadline = Instant::now() + limit;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            if let Some((header, frame)) = self.device.receive(&mut buffer).context("cannot read the tap")? {
                return Ok(Some((header, frame.to_vec())));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            readable([self.device.as_fd()], Some(left))?;
        }
    }
}
