//! The programs on an interface's TCX hooks, read from the kernel directly: the tools of Debian 12 are older
//! than TCX.

use std::ffi::CString;
use std::io;
use std::mem::size_of;

use anyhow::{Result, ensure};
use traffic_tests::Namespace;

/// `BPF_PROG_QUERY`, `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of linux/bpf.h.
const QUERY: libc::c_long = 16;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;

/// `union bpf_attr`, the part for this query.
#[repr(C)]
#[derive(Default)]
struct Question {
    interface: u32,
    hook: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    rest: [u64; 4],
}

/// The number of programs on a TCX hook.
///
/// # Errors
///
/// When the interface does not exist, or the kernel has no TCX.
pub fn tcx_programs(namespace: &Namespace, interface: &str, ingress: bool) -> Result<u32> {
    namespace.enter(|| {
        let name = CString::new(interface)?;
        // SAFETY: the name is NUL-terminated.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        ensure!(index != 0, "there is no interface {interface}");
        let mut ids = [0_u32; 64];
        let mut question = Question {
            interface: index,
            hook: if ingress { TCX_INGRESS } else { TCX_EGRESS },
            program_ids: ids.as_mut_ptr() as u64,
            count: 64,
            ..Question::default()
        };
        // SAFETY: the query has the stated length, and room for as many ids as it states.
        let answer = unsafe {
            libc::syscall(libc::SYS_bpf, QUERY, std::ptr::from_mut(&mut question), size_of::<Question>())
        };
        ensure!(answer == 0, "cannot query the programs on {interface}: {}", io::Error::last_os_error());
        Ok(question.count)
    })
}
