//! TCX links, and the programs on a TCX hook. None of it needs more privileges than attaching does.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use traffic_common::Direction;

use super::bpf;

const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_DETACH: libc::c_int = 34;
/// `BPF_LINK_TYPE_TCX`
const LINK_TYPE_TCX: u32 = 11;
/// `BPF_TCX_INGRESS`, `BPF_TCX_EGRESS`
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// `BPF_MPROG_MAX`: the most programs that one hook can have.
const PROGRAMS_PER_HOOK: usize = 64;

/// The part of `union bpf_attr` for object information.
#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The part of `union bpf_attr` for detaching a link (`struct { ... } link_detach`).
#[repr(C)]
#[derive(Default)]
struct LinkDetachAttr {
    link_fd: u32,
}

/// The part of `union bpf_attr` for querying a hook (`struct { ... } query`).
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
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

/// `struct bpf_link_info`, as far as a TCX link fills it.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    link_type: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    ifindex: u32,
    attach_type: u32,
    rest: [u64; 8],
}

/// What a TCX link connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcxLink {
    /// Index of the interface. A link outlives its interface, and this is 0 from then on.
    pub ifindex: u32,
    /// Id of the program that the link runs.
    pub program_id: u32,
}

/// Reads the kernel's description of a BPF object.
///
/// # Errors
/// As the kernel reports them.
///
/// # Safety
/// `I` must be a `repr(C)` prefix of the object's info structure and consist of integers only. Its default
/// must be all zeros, so that no field names a buffer that the kernel would fill.
unsafe fn object_info<I: Default>(object: BorrowedFd<'_>) -> io::Result<I> {
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

/// Returns the interface and the program of a TCX link.
///
/// # Errors
/// When the file descriptor is not a TCX link.
pub fn tcx_link(link: BorrowedFd<'_>) -> io::Result<TcxLink> {
    // SAFETY: `LinkInfo` starts as `struct bpf_link_info` does. It holds integers only, and its default is
    // zero.
    let info: LinkInfo = unsafe { object_info(link) }?;
    if info.link_type != LINK_TYPE_TCX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the pinned object is not a TCX link"));
    }
    Ok(TcxLink { ifindex: info.ifindex, program_id: info.prog_id })
}

/// Detaches a link's program from its hook at once. Closing the last handle on a link does the same, but some
/// time later.
///
/// # Errors
/// When the file descriptor is not a link that can be detached.
pub fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = LinkDetachAttr { link_fd: link.as_raw_fd().cast_unsigned() };
    // SAFETY: the attributes hold no address.
    unsafe { bpf(BPF_LINK_DETACH, &mut attributes) }.map(drop)
}

/// Returns the ids of the programs on one TCX hook of an interface, in the order in which they run. Opening
/// these programs takes CAP_SYS_ADMIN; listing their ids takes no more than attaching does.
///
/// # Errors
/// As the kernel reports them: `ENODEV` for an interface that is gone, `EINVAL` where it has no TCX.
pub fn tcx_programs(ifindex: u32, direction: Direction) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; PROGRAMS_PER_HOOK];
    let mut attributes = QueryAttr {
        target_ifindex: ifindex,
        attach_type: match direction {
            Direction::In => TCX_EGRESS,
            Direction::Out => TCX_INGRESS,
        },
        prog_ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(ids.len()).map_err(io::Error::other)?,
        ..QueryAttr::default()
    };
    // SAFETY: the kernel writes at most `count` ids, and `ids` holds that many. All other addresses are zero,
    // for which it writes nothing.
    unsafe { bpf(BPF_PROG_QUERY, &mut attributes) }?;
    ids.truncate(attributes.count as usize);
    Ok(ids)
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
