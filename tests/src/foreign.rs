//! Foreign programs on the TCX hooks, on a netkit and at XDP: a few instructions that return a verdict or redirect,
//! loaded without any library.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};
use rustix::net::netdevice::name_to_index;

use crate::Namespace;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
/// `BPF_PROG_TYPE_SCHED_CLS`, `BPF_PROG_TYPE_XDP`
const SCHED_CLS: u32 = 3;
const XDP: u32 = 6;
/// `BPF_XDP`
const AT_XDP: u32 = 37;
/// `BPF_TCX_INGRESS`, `BPF_TCX_EGRESS`
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// `BPF_NETKIT_PEER`
const NETKIT_PEER: u32 = 55;
/// `BPF_F_BEFORE`, `BPF_F_AFTER`. Without a reference program they mean first and last.
const BEFORE: u32 = 1 << 3;
const AFTER: u32 = 1 << 4;

/// The verdict of a foreign program (`linux/pkt_cls.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `TC_ACT_UNSPEC`: the next program decides.
    Next = -1,
    /// `TC_ACT_OK`: the packet continues, and no further program runs.
    Ok = 0,
    /// `TC_ACT_SHOT`: the packet is dropped.
    Drop = 2,
    /// `TC_ACT_REDIRECT` without a target.
    Redirect = 7,
}

/// A hook, as seen by the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets from the container.
    Ingress,
    /// Packets to the container.
    Egress,
}

/// The position among the programs of the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before all present programs.
    First,
    /// After all present programs.
    Last,
}

/// A foreign program on a hook. Its drop detaches it.
#[derive(Debug)]
pub struct Foreign {
    _link: OwnedFd,
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct LinkAttr {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    padding: u32,
    expected_revision: u64,
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    let size = libc::c_uint::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `attributes` is a live, initialised `repr(C)` prefix of `union bpf_attr` for this command, and
    // the buffers that it points to outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: both commands return a new file descriptor, which has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Foreign {
    /// Attaches a program named `foreign` to a hook of an interface in a namespace.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it, as kernels without TCX do (before 6.6).
    pub fn attach(
        namespace: &Namespace,
        interface: &str,
        hook: Hook,
        place: Place,
        verdict: Verdict,
    ) -> Result<Self> {
        let program =
            load(SCHED_CLS, &verdict_of(verdict as i32)).context("cannot load a foreign program")?;
        let attach_type = if hook == Hook::Ingress { TCX_INGRESS } else { TCX_EGRESS };
        let flags = if place == Place::First { BEFORE } else { AFTER };
        link(namespace, interface, program, (attach_type, flags))
    }

    /// Attaches a program that puts all packets of an interface at the other end of another one (`bpf_redirect_peer`),
    /// as the last program of the hook for packets from the container.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub fn redirect_to_peer(namespace: &Namespace, interface: &str, of: &str) -> Result<Self> {
        let program = load(SCHED_CLS, &redirecting(REDIRECT_PEER, index_of(namespace, of)?))
            .context("cannot load a program that redirects")?;
        link(namespace, interface, program, (TCX_INGRESS, AFTER))
    }

    /// Attaches a program to a netkit that sends all packets of its other end on an interface of the host, past the
    /// hooks of the netkit.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it, as kernels without netkit do.
    pub fn netkit_redirect(namespace: &Namespace, netkit: &str, to: &str) -> Result<Self> {
        let program = load(SCHED_CLS, &redirecting(REDIRECT, index_of(namespace, to)?))
            .context("cannot load a program that redirects")?;
        link(namespace, netkit, program, (NETKIT_PEER, AFTER))
    }

    /// Attaches an XDP program with this verdict, in the driver or before the hooks of TC.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub fn xdp(namespace: &Namespace, interface: &str, mode: XdpMode, verdict: XdpVerdict) -> Result<Self> {
        let program = load(XDP, &verdict_of(verdict as i32)).context("cannot load an XDP program")?;
        link(namespace, interface, program, (AT_XDP, mode as u32))
    }

    /// Attaches an XDP program that sends all packets of an interface on another one, past the hooks of both.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub fn xdp_redirect(namespace: &Namespace, interface: &str, to: &str, mode: XdpMode) -> Result<Self> {
        let program = load(XDP, &redirecting(REDIRECT, index_of(namespace, to)?))
            .context("cannot load an XDP program that redirects")?;
        link(namespace, interface, program, (AT_XDP, mode as u32))
    }
}

/// Where an XDP program runs: `XDP_FLAGS_SKB_MODE`, `XDP_FLAGS_DRV_MODE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the kernel's common code.
    Generic = 2,
    /// In the driver.
    Native = 4,
}

/// The verdict of an XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpVerdict {
    /// The packet is dropped.
    Drop = 1,
    /// The packet continues.
    Pass = 2,
    /// The packet is sent back.
    SendBack = 3,
}

fn index_of(namespace: &Namespace, interface: &str) -> Result<u32> {
    let interface = interface.to_owned();
    namespace.enter(move || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        Ok(name_to_index(&socket, &interface)?)
    })
}

fn link(
    namespace: &Namespace,
    interface: &str,
    program: OwnedFd,
    (attach_type, flags): (u32, u32),
) -> Result<Foreign> {
    let index = index_of(namespace, interface)?;
    namespace.enter(move || {
        let mut attributes = LinkAttr {
            prog_fd: program.as_raw_fd().cast_unsigned(),
            target_ifindex: index,
            attach_type,
            flags,
            ..LinkAttr::default()
        };
        let link = bpf(BPF_LINK_CREATE, &mut attributes).context("cannot attach a foreign program")?;
        Ok(Foreign { _link: link })
    })
}

/// `r0 = verdict; exit`: opcode, registers, offset and immediate value of each instruction.
fn verdict_of(verdict: i32) -> [u64; 2] {
    [0xb7 | u64::from(verdict.cast_unsigned()) << 32, 0x95]
}

/// The numbers of `bpf_redirect` and `bpf_redirect_peer`.
const REDIRECT: u32 = 23;
const REDIRECT_PEER: u32 = 155;

/// `r1 = index; r2 = 0; call helper; exit`
fn redirecting(helper: u32, index: u32) -> [u64; 4] {
    let immediate = |value: u32| u64::from(value) << 32;
    [0x1b7 | immediate(index), 0x2b7, 0x85 | immediate(helper), 0x95]
}

fn load(prog_type: u32, instructions: &[u64]) -> io::Result<OwnedFd> {
    let mut attributes = LoadAttr {
        prog_type,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..LoadAttr::default()
    };
    attributes.prog_name[..7].copy_from_slice(b"foreign");
    bpf(BPF_PROG_LOAD, &mut attributes)
}
