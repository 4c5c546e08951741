//! Programs on netfilter's hooks, which aya does not know.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya_obj::generated::bpf_insn;

use super::{BPF_LINK_CREATE, bpf, pins::owned};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
/// `BPF_PROG_TYPE_NETFILTER`
const NETFILTER_PROGRAM: u32 = 32;
/// `BPF_NETFILTER`
const NETFILTER_ATTACH: u32 = 45;
/// `NF_INET_LOCAL_IN`
const LOCAL_IN: u32 = 1;
/// `NF_ACCEPT`
const ACCEPT: u32 = 1;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`
pub const FAMILIES: [u32; 2] = [2, 10];
/// Places behind all rules. Two programs of netfilter never have the same.
const LAST_PLACES: i32 = 16;
/// The most that the kernel takes of a name, with the zero at its end.
const NAME_BYTES: usize = 16;

/// The part of `union bpf_attr` for loading a program.
#[repr(C)]
#[derive(Default)]
struct ProgLoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; NAME_BYTES],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The part of `union bpf_attr` for running a program once (`struct { ... } test`).
#[repr(C)]
#[derive(Default)]
struct TestRunAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

/// The part of `union bpf_attr` for creating a link of netfilter (`struct { ... } link_create`).
#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    pf: u32,
    hooknum: u32,
    priority: i32,
    netfilter_flags: u32,
}

/// Loads a program for netfilter's hooks, under the licence of all our programs.
///
/// # Errors
/// As the kernel reports them: `EINVAL` where it knows no such programs.
pub fn load(name: &str, instructions: &[bpf_insn]) -> io::Result<OwnedFd> {
    let mut prog_name = [0; NAME_BYTES];
    for (to, from) in prog_name[..NAME_BYTES - 1].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let mut attributes = ProgLoadAttr {
        prog_type: NETFILTER_PROGRAM,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        prog_name,
        expected_attach_type: NETFILTER_ATTACH,
        ..ProgLoadAttr::default()
    };
    // SAFETY: the instructions, as many as stated, and the licence outlive the call, which only reads them.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attributes)? };
    owned(fd)
}

/// Whether a program lets a packet pass, by running it on one. Attached, one that does not would cut the node off.
///
/// # Errors
/// As the kernel reports them.
pub fn accepts(program: BorrowedFd<'_>) -> io::Result<bool> {
    let mut packet = [0_u8; 64];
    // EtherType of IPv4, and the first byte of its header.
    packet[12] = 8;
    packet[14] = 0x45;
    let mut attributes = TestRunAttr {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        data_size_in: u32::try_from(packet.len()).map_err(io::Error::other)?,
        data_in: packet.as_ptr() as u64,
        repeat: 1,
        ..TestRunAttr::default()
    };
    // SAFETY: the kernel reads as many bytes of the packet as stated. No other address is passed.
    unsafe { bpf(BPF_PROG_TEST_RUN, &mut attributes)? };
    Ok(attributes.retval == ACCEPT)
}

/// Attaches a program behind all input rules of a family in the caller's network namespace, until the link is closed.
///
/// # Errors
/// As the kernel reports them.
pub fn attach_behind_input(program: BorrowedFd<'_>, family: u32) -> io::Result<OwnedFd> {
    let mut last = None;
    for place in 1..=LAST_PLACES {
        let mut attributes = LinkCreateAttr {
            prog_fd: program.as_raw_fd().cast_unsigned(),
            attach_type: NETFILTER_ATTACH,
            pf: family,
            hooknum: LOCAL_IN,
            priority: i32::MAX - place,
            ..LinkCreateAttr::default()
        };
        // SAFETY: no addresses are passed.
        match unsafe { bpf(BPF_LINK_CREATE, &mut attributes) } {
            Ok(fd) => return owned(fd),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EBUSY)))
}
