//! Sends small datagrams out of the containers as fast as one CPU can, and says what that took.

use std::{fs, io, net::UdpSocket, ops::Add, os::fd::AsRawFd as _, time::Instant};

use anyhow::{Context as _, Result, ensure};
use traffic_common::bench::Address;

use super::node::Node;
use crate::program::{stay_on_this_cpu, thread_time_ns};

/// Datagrams a system call.
const BATCH: usize = 64;
/// Makes frames of 64 bytes, the least that Ethernet has.
const PAYLOAD: [u8; 18] = [0x5a; 18];
/// Nobody listens there.
const PORT: u16 = 9;

/// One socket in each container.
pub struct Sender {
    sockets: Vec<UdpSocket>,
    /// The thread on this CPU that takes over what is left to do after an interrupt, with its statistics.
    softirq_statistics: String,
}

/// What sending took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Datagrams.
    pub packets: f64,
    /// By the clock, in seconds.
    pub seconds: f64,
    /// CPU time, of the kernel's own thread too, in nanoseconds.
    pub cpu_ns: f64,
}

impl Sent {
    /// Packets a second, by the clock.
    pub fn rate(&self) -> f64 {
        self.packets / self.seconds
    }

    /// CPU time a packet, in nanoseconds.
    pub fn cost(&self) -> f64 {
        self.cpu_ns / self.packets
    }
}

impl Add for Sent {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            seconds: self.seconds + other.seconds,
            cpu_ns: self.cpu_ns + other.cpu_ns,
        }
    }
}

impl Sender {
    /// Opens the sockets, and keeps this thread on one CPU.
    pub fn new(node: &Node) -> Result<Self> {
        let cpu = stay_on_this_cpu()?;
        let open = |namespace: &traffic_tests::Namespace| {
            namespace.enter(|| Ok(UdpSocket::bind(("0.0.0.0", 0))?)).context("a socket in a container")
        };
        let sockets = node.containers.iter().map(open).collect::<Result<_>>()?;
        Ok(Self { sockets, softirq_statistics: softirq_thread(cpu)? })
    }

    /// Sends a datagram to each address, from the first so many containers in turn.
    pub fn send(&self, addresses: &[Address], containers: usize) -> Result<Sent> {
        let cpu_before = thread_time_ns() + self.softirq_ns()?;
        let start = Instant::now();
        for (batch, socket) in addresses.chunks(BATCH).zip(self.sockets[..containers].iter().cycle()) {
            send_batch(socket, batch)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let cpu = thread_time_ns() + self.softirq_ns()? - cpu_before;
        Ok(Sent { packets: addresses.len() as f64, seconds, cpu_ns: cpu as f64 })
    }

    /// Has the last container send to some addresses, then the others to theirs, and says what the latter took.
    pub fn send_after(&self, first: &[Address], addresses: &[Address]) -> Result<Sent> {
        let last = self.sockets.last().context("a container")?;
        for batch in first.chunks(BATCH) {
            send_batch(last, batch)?;
        }
        self.send(addresses, self.sockets.len() - 1)
    }

    fn softirq_ns(&self) -> Result<u64> {
        let text = fs::read_to_string(&self.softirq_statistics).context("the kernel's thread")?;
        text.split_whitespace().next().and_then(|ns| ns.parse().ok()).context("its time on the CPU")
    }
}

/// The file with the scheduler's figures of `ksoftirqd` on a CPU.
fn softirq_thread(cpu: usize) -> Result<String> {
    let name = format!("ksoftirqd/{cpu}\n");
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // A process may end while its directory is looked into.
        if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm == name) {
            return Ok(path.join("schedstat").display().to_string());
        }
    }
    anyhow::bail!("there is no thread {}", name.trim())
}

fn send_batch(socket: &UdpSocket, addresses: &[Address]) -> Result<()> {
    let mut names: Vec<libc::sockaddr_in> = addresses
        .iter()
        .map(|address| libc::sockaddr_in {
            sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
            sin_port: PORT.to_be(),
            sin_addr: libc::in_addr { s_addr: address[0] },
            sin_zero: [0; 8],
        })
        .collect();
    let mut payload = libc::iovec { iov_base: PAYLOAD.as_ptr().cast_mut().cast(), iov_len: PAYLOAD.len() };
    let mut messages: Vec<libc::mmsghdr> = names
        .iter_mut()
        .map(|name| {
            // SAFETY: plain integers and pointers, of which zeros are a value.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
            message.msg_hdr.msg_namelen =
                libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).unwrap_or(0);
            message.msg_hdr.msg_iov = &raw mut payload;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let count = libc::c_uint::try_from(messages.len())?;
    // SAFETY: the messages point to names and a payload that live through the call; the payload is only read.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error()).context("sendmmsg");
    }
    ensure!(
        usize::try_from(sent)? == addresses.len(),
        "only {sent} of {} datagrams went out",
        addresses.len()
    );
    Ok(())
}
