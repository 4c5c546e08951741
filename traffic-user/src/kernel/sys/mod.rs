//! The bpf(2) commands that aya does not offer. All unsafe code that talks to the kernel is in this folder.
//!
//! | file | owns |
//! |---|---|
//! | this one | the system call itself, and the number of possible CPUs |
//! | `batch` | reading and writing many map elements at once |
//! | `nested` | the maps in a map of maps |
//! | [`netfilter`] | programs on netfilter's hooks |
//! | `objects` | what the kernel says about a BPF object |
//! | [`pins`] | pins of any object |
//! | [`tcx`] | TCX links by interface index, and the programs on a TCX hook |
//!
//! The public functions are safe: they check sizes against what the kernel reports about the map, and own
//! every buffer that the kernel writes to.

mod batch;
mod nested;
pub mod netfilter;
mod objects;
pub mod pins;
pub mod tcx;

use std::{io, mem::size_of};

pub use batch::{lookup_batch, update_batch};
pub use nested::{nested_map_ids, nested_maps_used, put_maps, remove_maps};
pub use objects::program_name;

/// The command that attaches a program by a link.
const BPF_LINK_CREATE: libc::c_int = 28;

/// Calls bpf(2).
///
/// # Errors
/// As the kernel reports them.
///
/// # Safety
/// `T` must be a `repr(C)` prefix of `union bpf_attr` as `command` defines it. Each address in it must point
/// to memory that stays valid for the call, is at least as large as what the kernel reads or writes there,
/// and to which no other reference is used meanwhile.
#[expect(clippy::cast_possible_truncation, reason = "attribute structs are far below 4 GiB")]
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is live for the call, and the kernel is given its size, so it stays within it. The
    // caller vouches for the addresses in it.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>() as libc::c_uint)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Number of possible CPUs: a per-CPU map holds one value for each.
///
/// # Errors
/// When the kernel's list in `/sys` cannot be read.
pub fn possible_cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(path, error)| {
        io::Error::new(error.kind(), format!("cannot read the number of CPUs from {path}: {error}"))
    })
}
