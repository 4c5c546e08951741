//! The interface of a virtual machine, `vme201.0`, with the test in the role of the machine: it sends frames with any
//! segmentation header and sees what the host sends it.

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

    /// Puts it on the bridge, which is told that the machine with this hardware address is behind it.
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

    /// Gives the host an address on it, with the length of its prefix, such as `10.9.0.1/24`.
    ///
    /// # Errors
    ///
    /// When that is no address.
    pub fn with_address(&self, address: &str) -> Result<()> {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        self.host.ip(&format!("address add {address} dev {}{nodad}", self.name)).map(drop)
    }

    /// Tells the host that some addresses are those of the machine, directly behind this interface.
    ///
    /// # Errors
    ///
    /// When there is such a route already.
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

    /// The next frame the host sends the machine, or nothing if none comes in time.
    ///
    /// # Errors
    ///
    /// When the device can't be read.
    pub fn receive(&self, limit: Duration) -> Result<Option<(VnetHeader, Vec<u8>)>> {
        let deadline = Instant::now() + limit;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            if let Some((header, frame)) = self.device.receive(&mut buffer).context("read the tap")? {
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
