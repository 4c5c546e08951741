//! Routed containers behind `venet0`, one layer-3 interface for all of them, without Ethernet header.
//!
//! ```text
//! container's venet0 -> its pump -> host's venet0 (ingress) -> the host routes it -> host's venet0 (egress)
//!   -> the host's pump -> by destination address -> container's venet0
//! ```
//!
//! All devices are TUN devices that pass super-packets whole, so the host sees what a real `venet0` shows it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use rustix::event::{EventfdFlags, eventfd};

use crate::namespace::Namespace;
use crate::tun::{BUFFER_BYTES, Layer, Tun, VnetHeader, readable};

/// The name of the interface on both sides, as in Virtuozzo.
const NAME: &str = "venet0";

/// The addresses of the host on `venet0`.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 253);
/// See [`HOST_V4`].
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xffff, 0, 0, 0, 0, 0, 0xfffd);

/// The device of each address: packets that the host's `venet0` sends find their container here.
#[derive(Debug, Default)]
struct Table {
    devices: RwLock<HashMap<IpAddr, Arc<Tun>>>,
    lost: AtomicU64,
}

impl Table {
    fn find(&self, address: IpAddr) -> Option<Arc<Tun>> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<IpAddr, Arc<Tun>>)) {
        change(&mut self.devices.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The host's `venet0`. It exists as long as its guard.
#[derive(Debug)]
pub struct Venet<'a> {
    host: &'a Namespace,
    table: Arc<Table>,
    // The pump must end before the device does.
    _pump: Pump,
    device: Arc<Tun>,
}

impl<'a> Venet<'a> {
    pub(crate) fn new(host: &'a Namespace) -> Result<Self> {
        let device = Arc::new(Tun::open(host, NAME, Layer::Three)?);
        host.ip_batch(&format!(
            "address add {HOST_V4}/32 dev {NAME}\naddress add {HOST_V6}/128 dev {NAME} nodad\n"
        ))?;
        host.sysctl("ipv4/ip_forward", "1")?;
        host.sysctl("ipv6/conf/all/forwarding", "1")?;
        let table = Arc::new(Table::default());
        let known = Arc::clone(&table);
        let pump = Pump::start(Arc::clone(&device), move |bytes| {
            let device = destination(&bytes[VnetHeader::BYTES..]).and_then(|address| known.find(address));
            if device.is_none_or(|device| device.send_with_header(bytes).is_err()) {
                known.lost.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        Ok(Self { host, table, _pump: pump, device })
    }

    /// The name of the interface on the host.
    #[must_use]
    pub fn interface(&self) -> &'static str {
        NAME
    }

    /// Creates a container with these addresses. All its traffic goes through `venet0`.
    ///
    /// # Errors
    ///
    /// When its namespace or its device cannot be created.
    pub fn container(&self, id: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<RoutedContainer<'a>> {
        let mut container = RoutedContainer {
            id: id.to_owned(),
            host: self.host,
            venet: Arc::downgrade(&self.device),
            table: Arc::clone(&self.table),
            addresses: vec![v4.into(), v6.into()],
            running: None,
            namespace: Namespace::new(&format!("venet-{id}"))?,
        };
        container.connect()?;
        Ok(container)
    }

    /// Passes a packet to the host's `venet0` as if a container had sent it. It begins with the IP header.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it: the first four bits must be 4 or 6.
    pub fn inject(&self, packet: &[u8]) -> Result<()> {
        self.inject_with(VnetHeader::NONE, packet)
    }

    /// As [`Venet::inject`], with a segmentation header.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the packet, or the header does not fit it.
    pub fn inject_with(&self, header: VnetHeader, packet: &[u8]) -> Result<()> {
        self.device.send(header, packet)
    }

    /// The number of packets that the host sent through `venet0` to an address without a running container,
    /// or that the container's device refused.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.table.lost.load(Ordering::Relaxed)
    }
}

/// A container behind `venet0`; see the [module](self).
#[derive(Debug)]
pub struct RoutedContainer<'a> {
    id: String,
    host: &'a Namespace,
    // Weak: a container must not keep the host's interface alive.
    venet: Weak<Tun>,
    table: Arc<Table>,
    addresses: Vec<IpAddr>,
    running: Option<Running>,
    namespace: Namespace,
}

/// What a container has only while it runs. The order of the fields is that of their drop.
#[derive(Debug)]
struct Running {
    _pump: Pump,
    device: Arc<Tun>,
}

impl RoutedContainer<'_> {
    /// The id, which is not part of an interface name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its first IPv4 address.
    #[must_use]
    pub fn v4(&self) -> IpAddr {
        self.addresses[0]
    }

    /// Its first IPv6 address.
    #[must_use]
    pub fn v6(&self) -> IpAddr {
        self.addresses[1]
    }

    /// Its namespace; it is the same after a stop and a start.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The name of the interface inside it.
    #[must_use]
    pub fn interface(&self) -> &'static str {
        NAME
    }

    /// Gives it one more address.
    ///
    /// # Errors
    ///
    /// When it has that address, or is stopped.
    pub fn add_address(&mut self, address: IpAddr) -> Result<()> {
        let device = Arc::clone(&self.running.as_ref().context("the container is stopped")?.device);
        self.own(address, device)?;
        self.addresses.push(address);
        Ok(())
    }

    /// Stops it: its routes, its device and its namespace go.
    ///
    /// # Errors
    ///
    /// When it is stopped already.
    pub fn stop(&mut self) -> Result<()> {
        ensure!(self.running.is_some(), "the container is stopped");
        self.disconnect();
        for address in &self.addresses {
            self.host.ip(&format!("route delete {address} dev {NAME}"))?;
        }
        self.namespace.delete()
    }

    /// Starts the container again under the same names and addresses.
    ///
    /// # Errors
    ///
    /// When it is running.
    pub fn start(&mut self) -> Result<()> {
        self.namespace.create()?;
        self.connect()
    }

    fn connect(&mut self) -> Result<()> {
        let device = Arc::new(Tun::open(&self.namespace, NAME, Layer::Three)?);
        let (venet, table) = (self.venet.clone(), Arc::clone(&self.table));
        let pump = Pump::start(Arc::clone(&device), move |bytes| {
            if venet.upgrade().is_none_or(|venet| venet.send_with_header(bytes).is_err()) {
                table.lost.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        for &address in &self.addresses {
            self.own(address, Arc::clone(&device))?;
        }
        self.namespace.ip_batch(&format!("route add 0.0.0.0/0 dev {NAME}\nroute add ::/0 dev {NAME}\n"))?;
        self.running = Some(Running { _pump: pump, device });
        Ok(())
    }

    fn own(&self, address: IpAddr, device: Arc<Tun>) -> Result<()> {
        let option = if address.is_ipv6() { "nodad" } else { "" };
        self.namespace.ip(&format!("address add {address} dev {NAME} {option}"))?;
        self.host.ip(&format!("route replace {address} dev {NAME}"))?;
        self.table.change(|devices| drop(devices.insert(address, device)));
        Ok(())
    }

    fn disconnect(&mut self) {
        self.table.change(|devices| devices.retain(|address, _| !self.addresses.contains(address)));
        self.running = None;
    }
}

impl Drop for RoutedContainer<'_> {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// A thread that receives what the kernel sends through a device. Its drop ends the thread.
#[derive(Debug)]
struct Pump {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    fn start(device: Arc<Tun>, mut deliver: impl FnMut(&[u8]) + Send + 'static) -> Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).context("cannot create an eventfd")?);
        let stopped = Arc::clone(&stop);
        let run = move || {
            let mut buffer = vec![0; BUFFER_BYTES];
            // When the device is gone because its namespace was deleted, the loop ends too.
            while let Ok([false, _]) = readable([stopped.as_fd(), device.as_fd()], None) {
                match device.receive_with_header(&mut buffer) {
                    Ok(size) if size > VnetHeader::BYTES => deliver(&buffer[..size]),
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        let thread = std::thread::Builder::new().name("venet-pump".to_owned()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        // A write of 1 to a new eventfd succeeds. If the thread has ended by itself, only the join is left.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The destination address in an IP header.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => <[u8; 4]>::try_from(packet.get(16..20)?).ok().map(IpAddr::from),
        6 => <[u8; 16]>::try_from(packet.get(24..40)?).ok().map(IpAddr::from),
        _ => None,
    }
}
