//! Pins of any BPF object in the BPF file system.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use super::bpf;

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;

/// The part of `union bpf_attr` for pins.
#[repr(C)]
#[derive(Default)]
struct PinAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Takes ownership of the descriptor that a bpf(2) call returned.
pub(super) fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this file descriptor for this process, and nothing else holds it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn path_for_kernel(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Opens a pinned object; `None` where nothing is pinned.
///
/// # Errors
/// When the pin cannot be opened.
pub fn open(pin: &Path) -> io::Result<Option<OwnedFd>> {
    let path = path_for_kernel(pin)?;
    let mut attributes = PinAttr { pathname: path.as_ptr() as u64, ..PinAttr::default() };
    // SAFETY: the path is a C string that outlives the call.
    match unsafe { bpf(BPF_OBJ_GET, &mut attributes) } {
        Ok(fd) => owned(fd).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Pins an object, so that it outlives this process.
///
/// # Errors
/// As the kernel reports them.
pub fn pin(object: BorrowedFd<'_>, pin: &Path) -> io::Result<()> {
    let path = path_for_kernel(pin)?;
    let bpf_fd = object.as_raw_fd().cast_unsigned();
    let mut attributes = PinAttr { pathname: path.as_ptr() as u64, bpf_fd, ..PinAttr::default() };
    // SAFETY: the path is a C string that outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attributes) }.map(drop)
}
