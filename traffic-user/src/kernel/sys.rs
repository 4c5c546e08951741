//! The few uses of bpf(2) that aya does not offer: batches over maps, what a TCX link hangs on and its end, and what
//! hangs on a hook, asked with no more privilege than it takes.
//!
//! Everything unsafe about talking to the kernel in this crate is in this file.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use aya::Pod;
use traffic_common::Direction;

const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_LINK_DETACH: libc::c_int = 34;
/// `BPF_LINK_TYPE_TCX`
const LINK_TYPE_TCX: u32 = 11;
/// `BPF_TCX_INGRESS`, `BPF_TCX_EGRESS`
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// `BPF_MPROG_MAX`: more programs hang on no hook.
const PROGRAMS_ON_A_HOOK: usize = 64;

/// `union bpf_attr`, the part for batches (`struct { ... } batch`).
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// `union bpf_attr`, the part for single elements.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr`, the part for object information.
#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `union bpf_attr`, the part for taking a link off (`struct { ... } link_detach`).
#[repr(C)]
#[derive(Default)]
struct LinkDetachAttr {
    link_fd: u32,
}

/// `union bpf_attr`, the part for asking what hangs on a hook (`struct { ... } query`).
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

/// `union bpf_attr`, the part for opening an object by its id.
#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// `struct bpf_prog_info` as far as the name.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    before_map_ids: [u64; 7],
    map_ids: u64,
    name: [u8; 16],
}

/// `struct bpf_link_info` as far as a TCX link fills it.
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

/// What a TCX link hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcxLink {
    /// Index of the interface; 0 once the interface is gone, which the link outlives.
    pub ifindex: u32,
    /// Id of the program the link runs.
    pub program_id: u32,
}

#[expect(clippy::cast_possible_truncation, reason = "attribute structs are far below 4 GiB")]
fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is a live, fully initialised `repr(C)` prefix of `union bpf_attr` for this command; the
    // kernel reads and writes no more than the size given. Pointers inside it are to buffers the callers hold.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>() as libc::c_uint)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Asks a link for its interface.
///
/// # Errors
/// When the file descriptor is no link, or the link is not a TCX one.
pub fn tcx_link(link: BorrowedFd<'_>) -> io::Result<TcxLink> {
    let mut info = LinkInfo::default();
    let mut attributes = InfoAttr {
        bpf_fd: link.as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    if info.link_type != LINK_TYPE_TCX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the pinned object is not a TCX link"));
    }
    Ok(TcxLink { ifindex: info.ifindex, program_id: info.prog_id })
}

/// Takes a link's program off its hook now. Letting go of the link does the same, but some time later.
///
/// # Errors
/// When the file descriptor is no link that can be taken off.
pub fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(BPF_LINK_DETACH, &mut LinkDetachAttr { link_fd: link.as_raw_fd().cast_unsigned() }).map(drop)
}

/// Ids of the programs on one TCX hook of an interface, in the order they run. Unlike opening them, which takes
/// CAP_SYS_ADMIN, this needs no more than attaching does.
///
/// # Errors
/// As the kernel reports them: `ENODEV` for an interface that is gone, `EINVAL` where it has no TCX.
pub fn tcx_programs(ifindex: u32, direction: Direction) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; PROGRAMS_ON_A_HOOK];
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
    bpf(BPF_PROG_QUERY, &mut attributes)?;
    ids.truncate(attributes.count as usize);
    Ok(ids)
}

/// Name of any program in the kernel; `None` where that may not be known, or the program is gone.
///
/// # Errors
/// When the kernel refuses for another reason.
pub fn program_name(id: u32) -> io::Result<Option<String>> {
    let program = match bpf(BPF_PROG_GET_FD_BY_ID, &mut IdAttr { id, ..IdAttr::default() }) {
        Ok(fd) => {
            let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
            // SAFETY: the kernel has just made this file descriptor for us, and nobody else knows of it.
            unsafe { OwnedFd::from_raw_fd(fd) }
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOENT)) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut info = ProgramInfo::default();
    let mut attributes = InfoAttr {
        bpf_fd: program.as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(size_of::<ProgramInfo>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    let len = info.name.iter().position(|&byte| byte == 0).unwrap_or(info.name.len());
    Ok(Some(String::from_utf8_lossy(&info.name[..len]).into_owned()))
}

/// Reads the elements `first .. first + count` of an array map in as few calls as the kernel allows.
///
/// `V` is the element; a per-CPU map gives `cpus` of them for each index (the number of *possible* CPUs), any other
/// map one. Element sizes must be multiples of 8, as the kernel rounds them up.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] where the kernel has no batches for this kind of map (before 5.6, for per-CPU arrays
/// before 5.13); other errors as the kernel reports them.
pub fn lookup_batch<V: Pod>(map: BorrowedFd<'_>, first: u32, count: u32, cpus: usize) -> io::Result<Vec<V>> {
    assert!(size_of::<V>().is_multiple_of(8), "the kernel pads elements to 8 bytes");
    let total = count as usize * cpus;
    let mut values: Vec<V> = Vec::with_capacity(total);
    let mut keys: Vec<u32> = vec![0; count as usize];
    let mut done = 0_u32;
    while done < count {
        // An array's batch starts after the key given; without one, at the beginning.
        let before = (first + done).wrapping_sub(1);
        let mut after = 0_u32;
        let mut attributes = BatchAttr {
            in_batch: if first + done == 0 { 0 } else { std::ptr::from_ref(&before) as u64 },
            out_batch: std::ptr::from_mut(&mut after) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.spare_capacity_mut()[done as usize * cpus..].as_mut_ptr() as u64,
            count: count - done,
            map_fd: map.as_raw_fd().cast_unsigned(),
            ..BatchAttr::default()
        };
        match bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
            // "No more elements": the last batch, which is filled all the same.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                done += attributes.count;
                break;
            }
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => done += attributes.count,
            Err(error) if is_unsupported(&error) => return Err(io::ErrorKind::Unsupported.into()),
            Err(error) => return Err(error),
            Ok(_) if attributes.count == 0 => break,
            Ok(_) => done += attributes.count,
        }
    }
    if done != count {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("asked for {count} elements from {first}, the map gave {done}"),
        ));
    }
    // SAFETY: the kernel has written `count * cpus` elements, each of which is plain old data.
    unsafe { values.set_len(total) };
    Ok(values)
}

/// Writes many elements; gives the number written, which is less than all only with an error.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] where the kernel has no batches for this kind of map.
pub fn update_batch<K: Copy, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()> {
    assert_eq!(keys.len(), values.len());
    let mut done = 0;
    while done < keys.len() {
        let mut attributes = BatchAttr {
            keys: keys[done..].as_ptr() as u64,
            values: values[done..].as_ptr() as u64,
            count: u32::try_from(keys.len() - done).unwrap_or(u32::MAX),
            map_fd: map.as_raw_fd().cast_unsigned(),
            ..BatchAttr::default()
        };
        match bpf(BPF_MAP_UPDATE_BATCH, &mut attributes) {
            Ok(_) => done += attributes.count as usize,
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => done += attributes.count as usize,
            Err(error) if is_unsupported(&error) => return Err(io::ErrorKind::Unsupported.into()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes an element of a map of maps. One that is not there is no error.
///
/// # Errors
/// As the kernel reports them.
pub fn delete_element(map: BorrowedFd<'_>, key: u32) -> io::Result<()> {
    let mut attributes = ElementAttr {
        map_fd: map.as_raw_fd().cast_unsigned(),
        key: std::ptr::from_ref(&key) as u64,
        ..ElementAttr::default()
    };
    match bpf(BPF_MAP_DELETE_ELEM, &mut attributes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map(drop),
    }
}

/// `ENOTSUPP`, which is the kernel's own and has no name in libc, is what a map type without batches answers.
const ENOTSUPP: i32 = 524;

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EOPNOTSUPP | libc::EINVAL))
}
