//! What the kernel says about its BPF objects.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use super::bpf;

const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// The part of `union bpf_attr` for object information.
#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The part of `union bpf_attr` for opening an object by its id.
#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// `struct bpf_prog_info` up to the name.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    before_map_ids: [u64; 7],
    map_ids: u64,
    name: [u8; 16],
}

/// Reads the kernel's description of a BPF object.
///
/// # Errors
/// As the kernel reports them.
///
/// # Safety
/// `I` must be a `repr(C)` prefix of the object's info structure and consist of integers only. Its default
/// must be all zeros, so that no field names a buffer that the kernel would fill.
pub(super) unsafe fn object_info<I: Default>(object: BorrowedFd<'_>) -> io::Result<I> {
    let mut info = I::default();
    let mut attributes = InfoAttr {
        bpf_fd: object.as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(size_of::<I>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes to `info`, which is that large, and any bytes are a
    // valid `I`.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info)
}

/// Returns the name of any program in the kernel, or `None` where the privileges do not suffice or the
/// program is gone.
///
/// # Errors
/// When the kernel refuses for another reason.
pub fn program_name(id: u32) -> io::Result<Option<String>> {
    let mut attributes = IdAttr { id, ..IdAttr::default() };
    // SAFETY: the attributes hold no address.
    let program = match unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes) } {
        Ok(fd) => {
            let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
            // SAFETY: the kernel has just opened this file descriptor for us, and nothing else owns it.
            unsafe { OwnedFd::from_raw_fd(fd) }
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOENT)) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    // SAFETY: `ProgramInfo` starts as `struct bpf_prog_info` does. It holds integers only, and its default is
    // zero.
    let info: ProgramInfo = unsafe { object_info(program.as_fd()) }?;
    let len = info.name.iter().position(|&byte| byte == 0).unwrap_or(info.name.len());
    Ok(Some(String::from_utf8_lossy(&info.name[..len]).into_owned()))
}
