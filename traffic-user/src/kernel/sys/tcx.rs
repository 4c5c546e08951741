//! TCX links by interface index: create, replace, pin, inspect. aya does this by interface name, which can
//! pass to another interface at any moment and need not be UTF-8.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use traffic_common::Direction;

use super::{
    BPF_LINK_CREATE, bpf,
    objects::object_info,
    pins::{self, owned},
};

const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;
const BPF_LINK_DETACH: libc::c_int = 34;
/// `BPF_LINK_TYPE_TCX`
const LINK_TYPE_TCX: u32 = 11;
/// `BPF_TCX_INGRESS`, `BPF_TCX_EGRESS`
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// `BPF_F_BEFORE`: without a program named, before all others.
const BEFORE_ALL: u32 = 1 << 3;
/// `BPF_MPROG_MAX`: no hook has more programs.
const PROGRAMS_ON_A_HOOK: usize = 64;

/// The part of `union bpf_attr` for creating a TCX link (`struct { ... } link_create`).
#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    padding: u32,
    expected_revision: u64,
}

/// The part of `union bpf_attr` for replacing a link's program (`struct { ... } link_update`).
#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// The part of `union bpf_attr` for detaching a link (`struct { ... } link_detach`).
#[repr(C)]
#[derive(Default)]
struct LinkDetachAttr {
    link_fd: u32,
}

/// The part of `union bpf_attr` for opening a link by its id.
#[repr(C)]
#[derive(Default)]
struct LinkIdAttr {
    link_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The part of `union bpf_attr` for asking what is on a hook (`struct { ... } query`).
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

/// A TCX link, kept by its pin or by this handle.
#[derive(Debug)]
pub struct TcxLink(OwnedFd);

/// What a TCX link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcxLinkInfo {
    /// The kernel's id of the link.
    pub id: u32,
    /// Index of the interface, in whichever network namespace it is now; 0 once the interface is gone.
    pub ifindex: u32,
    /// Id of the program that the link runs.
    pub program_id: u32,
    /// Whether it is on the egress hook, otherwise on the ingress hook.
    pub is_egress: bool,
}

/// A program on a TCX hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnHook {
    /// The kernel's id of the program.
    pub program_id: u32,
    /// The kernel's id of the link that holds it; 0 without one.
    pub link_id: u32,
}

const fn attach_type(direction: Direction) -> u32 {
    match direction {
        Direction::In => TCX_EGRESS,
        Direction::Out => TCX_INGRESS,
    }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

impl TcxLink {
    /// Attaches a program to the hook of the interface of this index in the caller's network namespace,
    /// before all other programs there. The link ends with this handle unless it is pinned.
    ///
    /// # Errors
    /// As the kernel reports them: `ENODEV` for an interface that is gone, `EINVAL` where the kernel has no
    /// TCX.
    pub fn create(program: BorrowedFd<'_>, ifindex: u32, direction: Direction) -> io::Result<Self> {
        let mut attributes = LinkCreateAttr {
            prog_fd: raw(program),
            target_ifindex: ifindex,
            attach_type: attach_type(direction),
            flags: BEFORE_ALL,
            ..LinkCreateAttr::default()
        };
        // SAFETY: the attributes hold no address.
        unsafe { bpf(BPF_LINK_CREATE, &mut attributes) }.and_then(owned).map(Self)
    }

    /// Opens a pinned link; `None` where nothing is pinned.
    ///
    /// # Errors
    /// When the pin cannot be opened.
    pub fn open(pin: &Path) -> io::Result<Option<Self>> {
        Ok(pins::open(pin)?.map(Self))
    }

    /// Opens a link by the kernel's id of it.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN; `ENOENT` when the link is gone.
    pub fn by_id(id: u32) -> io::Result<Self> {
        let mut attributes = LinkIdAttr { link_id: id, ..LinkIdAttr::default() };
        // SAFETY: the attributes hold no address.
        unsafe { bpf(BPF_LINK_GET_FD_BY_ID, &mut attributes) }.and_then(owned).map(Self)
    }

    /// Pins the link, so that it outlives this process.
    ///
    /// # Errors
    /// As the kernel reports them.
    pub fn pin(&self, pin: &Path) -> io::Result<()> {
        pins::pin(self.0.as_fd(), pin)
    }

    /// What the link is attached to.
    ///
    /// # Errors
    /// When it is not a TCX link.
    pub fn info(&self) -> io::Result<TcxLinkInfo> {
        // SAFETY: `LinkInfo` starts as `struct bpf_link_info` does. It holds integers only, and its default
        // is zero.
        let info: LinkInfo = unsafe { object_info(self.0.as_fd()) }?;
        if info.link_type != LINK_TYPE_TCX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the pinned object is not a TCX link"));
        }
        let is_egress = info.attach_type == TCX_EGRESS;
        Ok(TcxLinkInfo { id: info.id, ifindex: info.ifindex, program_id: info.prog_id, is_egress })
    }

    /// Puts another program in place of the link's own, between two packets.
    ///
    /// # Errors
    /// As the kernel reports them; `ENOLINK` when the interface is gone.
    pub fn replace_program(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut attributes = LinkUpdateAttr {
            link_fd: raw(self.0.as_fd()),
            new_prog_fd: raw(program),
            ..LinkUpdateAttr::default()
        };
        // SAFETY: the attributes hold no address.
        unsafe { bpf(BPF_LINK_UPDATE, &mut attributes) }.map(drop)
    }

    /// Detaches the program now. Unpinning does the same at a time of the kernel's choice, and the program
    /// counts until then.
    ///
    /// # Errors
    /// As the kernel reports them.
    pub fn detach(&self) -> io::Result<()> {
        let mut attributes = LinkDetachAttr { link_fd: raw(self.0.as_fd()) };
        // SAFETY: the attributes hold no address.
        unsafe { bpf(BPF_LINK_DETACH, &mut attributes) }.map(drop)
    }
}

/// The programs on one TCX hook of an interface, in the order they run. Unlike opening them, which takes
/// CAP_SYS_ADMIN, this needs no more than attaching does.
///
/// # Errors
/// As the kernel reports them: `ENODEV` for an interface that is gone, `EINVAL` where the kernel has no TCX.
pub fn on_hook(ifindex: u32, direction: Direction) -> io::Result<Vec<OnHook>> {
    let mut programs = [0_u32; PROGRAMS_ON_A_HOOK];
    let mut links = [0_u32; PROGRAMS_ON_A_HOOK];
    let mut attributes = QueryAttr {
        target_ifindex: ifindex,
        attach_type: attach_type(direction),
        prog_ids: programs.as_mut_ptr() as u64,
        link_ids: links.as_mut_ptr() as u64,
        count: u32::try_from(PROGRAMS_ON_A_HOOK).map_err(io::Error::other)?,
        ..QueryAttr::default()
    };
    // SAFETY: the kernel writes at most `count` ids to each of the two arrays, which are that long. All other
    // addresses are zero, for which it writes nothing.
    unsafe { bpf(BPF_PROG_QUERY, &mut attributes) }?;
    let count = (attributes.count as usize).min(PROGRAMS_ON_A_HOOK);
    let both = programs.into_iter().zip(links).take(count);
    Ok(both.map(|(program_id, link_id)| OnHook { program_id, link_id }).collect())
}
