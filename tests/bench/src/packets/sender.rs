//! Sends small datagrams out of the containers as fast as one CPU can, and measures the time.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    ops::Add,
    os::fd::AsRawFd as _,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use traffic_common::{Family, bench::Address};

use super::node::Node;
use crate::program::{stay_on_this_cpu, thread_time_ns};

/// Datagrams in each system call.
const BATCH: usize = 64;
/// The payload of frames with 64 bytes, the minimum of Ethernet.
const PAYLOAD: [u8; 18] = [0x5a; 18];
/// A port without a socket.
const PORT: u16 = 9;

/// One socket in each container.
pub struct Sender {
    sockets: Vec<UdpSocket>,
    family: Family,
    /// The statistics of the kernel thread on this CPU that completes the work of interrupts.
    softirq_statistics: String,
}

/// The cost of sending.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Datagrams.
    pub packets: f64,
    /// Elapsed time in seconds.
    pub seconds: f64,
    /// CPU time in nanoseconds, including that of the kernel thread.
    pub cpu_ns: f64,
}

impl Sent {
    /// Packets per second of elapsed time.
    pub fn rate(&self) -> f64 {
        self.packets / self.seconds
    }

    /// CPU time per packet in nanoseconds.
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
    /// Opens IPv4 sockets, and binds this thread to one CPU.
    pub fn new(node: &Node) -> Result<Self> {
        Self::of_family(node, Family::Ipv4)
    }

    /// Opens the sockets, and binds this thread to one CPU.
    pub fn of_family(node: &Node, family: Family) -> Result<Self> {
        let unspecified: IpAddr = match family {
            Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let cpu = stay_on_this_cpu()?;
        let open = |namespace: &traffic_tests::Namespace| {
            namespace
                .enter(|| Ok(UdpSocket::bind((unspecified, 0))?))
                .context("cannot open a socket in a container")
        };
        let sockets = node.containers.iter().map(open).collect::<Result<_>>()?;
        Ok(Self { sockets, family, softirq_statistics: softirq_thread(cpu)? })
    }

    /// Sends a datagram to each address, from the first `containers` containers in turn.
    pub fn send(&self, addresses: &[Address], containers: usize) -> Result<Sent> {
        let cpu_before = thread_time_ns() + self.softirq_ns()?;
        let start = Instant::now();
        for (batch, socket) in addresses.chunks(BATCH).zip(self.sockets[..containers].iter().cycle()) {
            send_batch(socket, self.family, batch)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let cpu = thread_time_ns() + self.softirq_ns()? - cpu_before;
        Ok(Sent { packets: addresses.len() as f64, seconds, cpu_ns: cpu as f64 })
    }

    /// The last container sends to some addresses, then the others to theirs. Returns the cost of the latter.
    pub fn send_after(&self, first: &[Address], addresses: &[Address]) -> Result<Sent> {
        let last = self.sockets.last().context("a container")?;
        for batch in first.chunks(BATCH) {
            send_batch(last, self.family, batch)?;
        }
        self.send(addresses, self.sockets.len() - 1)
    }

    fn softirq_ns(&self) -> Result<u64> {
        let text = fs::read_to_string(&self.softirq_statistics)
            .context("cannot read the statistics of the kernel thread")?;
        text.split_whitespace()
            .next()
            .and_then(|ns| ns.parse().ok())
            .context("the statistics of the kernel thread have no CPU time")
    }
}

/// The file with the scheduler statistics of `ksoftirqd` on a CPU.
fn softirq_thread(cpu: usize) -> Result<String> {
    let name = format!("ksoftirqd/{cpu}\n");
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // A process may end while its directory is read.
        if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm == name) {
            return Ok(path.join("schedstat").display().to_string());
        }
    }
    anyhow::bail!("there is no thread {}", name.trim())
}

/// A socket address of either family.
#[repr(C)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    fn new(family: Family, address: &Address) -> Self {
        match family {
            Family::Ipv4 => Self {
                v4: libc::sockaddr_in {
                    sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
                    sin_port: PORT.to_be(),
                    sin_addr: libc::in_addr { s_addr: address[0] },
                    sin_zero: [0; 8],
                },
            },
            Family::Ipv6 => {
                let mut octets = [0; 16];
                for (to, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(address) {
                    *to = word.to_ne_bytes();
                }
                Self {
                    v6: libc::sockaddr_in6 {
                        sin6_family: libc::sa_family_t::try_from(libc::AF_INET6).unwrap_or_default(),
                        sin6_port: PORT.to_be(),
                        sin6_flowinfo: 0,
                        sin6_addr: libc::in6_addr { s6_addr: octets },
                        sin6_scope_id: 0,
                    },
                }
            }
        }
    }
}

fn send_batch(socket: &UdpSocket, family: Family, addresses: &[Address]) -> Result<()> {
    let name_len = match family {
        Family::Ipv4 => size_of::<libc::sockaddr_in>(),
        Family::Ipv6 => size_of::<libc::sockaddr_in6>(),
    };
    let name_len = libc::socklen_t::try_from(name_len).unwrap_or(0);
    let mut names: Vec<Name> = addresses.iter().map(|address| Name::new(family, address)).collect();
    let mut payload = libc::iovec { iov_base: PAYLOAD.as_ptr().cast_mut().cast(), iov_len: PAYLOAD.len() };
    let mut messages: Vec<libc::mmsghdr> = names
        .iter_mut()
        .map(|name| {
            // SAFETY: the structure has only integers and pointers, which may be zero.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
            message.msg_hdr.msg_namelen = name_len;
            message.msg_hdr.msg_iov = &raw mut payload;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let count = libc::c_uint::try_from(messages.len())?;
    // SAFETY: the messages point to names and a payload that outlive the call; the payload is only read.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error()).context("sendmmsg");
    }
    ensure!(
        usize::try_from(sent)? == addresses.len(),
        "only {sent} of {} datagrams were sent",
        addresses.len()
    );
    Ok(())
}
