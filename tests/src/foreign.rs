//! Foreign programs on the TCX hooks: two instructions that return a verdict, loaded without any library.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};
use rustix::net::netdevice::name_to_index;

use crate::Namespace;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
/// `BPF_PROG_TYPE_SCHED_CLS`
const SCHED_CLS: u32 = 3;
/// `BPF_TCX_INGRESS`, `BPF_TCX_EGRESS`
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
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
        let program = load(verdict).context("cannot load a foreign program")?;
        let interface = interface.to_owned();
        namespace.enter(move || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            let mut attributes = LinkAttr {
                prog_fd: program.as_raw_fd().cast_unsigned(),
                target_ifindex: name_to_index(&socket, &interface)?,
                attach_type: if hook == Hook::Ingress { TCX_INGRESS } else { TCX_EGRESS },
                flags: if place == Place::First { BEFORE } else { AFTER },
                ..LinkAttr::default()
            };
            let link = bpf(BPF_LINK_CREATE, &mut attributes).context("cannot attach a foreign program")?;
            Ok(Self { _link: link })
        })
    }
}

fn load(verdict: Verdict) -> io::Result<OwnedFd> {
    // `r0 = verdict; exit`: opcode, registers, offset and immediate value of each instruction.
    let mut instructions = [0xb7_u64, 0x95];
    instructions[0] |= u64::from((verdict as i32).cast_unsigned()) << 32;
    let mut attributes = LoadAttr {
        prog_type: SCHED_CLS,
        insn_cnt: 2,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..LoadAttr::default()
    };
    attributes.prog_name[..7].copy_from_slice(b"foreign");
    bpf(BPF_PROG_LOAD, &mut attributes)
}
