//! From containers to network namespaces, and so to the interfaces whose other end is there.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
};

use super::{Member, Place, cgroups, root::Root};
use crate::net::{interface::NetInterface, netlink::Netlink};

/// Where namespaces have names: those of `ip netns`, which Podman and Kubernetes use as well, and Docker's.
pub(super) const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];
/// Most named namespaces that are looked at.
pub(super) const MOST_NAMED: usize = 10_000;

/// The kernel's ids of network namespaces; a trait, so that tests can replace the kernel.
pub(super) trait NamespaceIds {
    /// That of a process; `None` where its namespace has none.
    fn of_process(&self, pid: u32) -> io::Result<Option<i32>>;

    /// That of a file.
    fn of_file(&self, path: &Path) -> io::Result<Option<i32>>;

    /// The hardware address of an interface in another namespace; `None` where it has none, or is gone.
    fn address_in(&self, namespace: i32, index: u32) -> io::Result<Option<[u8; 6]>>;

    /// That of this process, which has one from now on.
    fn own(&self) -> io::Result<i32>;

    /// That of another process, which has one from now on.
    fn number_of_process(&self, pid: u32) -> io::Result<i32>;

    /// That of a file, which has one from now on.
    fn number_of_file(&self, path: &Path) -> io::Result<i32>;

    /// The interfaces in another namespace.
    fn interfaces_in(&self, namespace: i32) -> io::Result<Vec<NetInterface>>;
}

impl NamespaceIds for Netlink {
    fn of_process(&self, pid: u32) -> io::Result<Option<i32>> {
        self.namespace_of_process(pid)
    }

    fn of_file(&self, path: &Path) -> io::Result<Option<i32>> {
        self.namespace_of_file(open(path)?.as_fd())
    }

    fn address_in(&self, namespace: i32, index: u32) -> io::Result<Option<[u8; 6]>> {
        self.address_in_namespace(namespace, index)
    }

    fn own(&self) -> io::Result<i32> {
        Self::number_of_process(self, std::process::id())
    }

    fn number_of_process(&self, pid: u32) -> io::Result<i32> {
        Self::number_of_process(self, pid)
    }

    fn number_of_file(&self, path: &Path) -> io::Result<i32> {
        Self::number_of_file(self, open(path)?.as_fd())
    }

    fn interfaces_in(&self, namespace: i32) -> io::Result<Vec<NetInterface>> {
        self.interfaces_in_namespace(namespace)
    }
}

/// Opens the file of a namespace, or whatever is in its place, without waiting for anybody. Not through `files::open`:
/// these files belong to a file system of the kernel's.
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Which members are where, as positions in the list of all.
#[derive(Debug, Default)]
pub(super) struct Located {
    /// Those in each of the wanted namespaces.
    pub by_namespace: BTreeMap<i32, Vec<usize>>,
    /// Those that have a process.
    pub alive: BTreeSet<usize>,
}

/// Finds the members that are in each of the wanted namespaces.
///
/// # Errors
/// When the kernel does not answer.
pub(super) fn locate(
    members: &[Member],
    wanted: &HashSet<i32>,
    ids: &dyn NamespaceIds,
) -> io::Result<Located> {
    let mut located = Located::default();
    for (at, member) in members.iter().enumerate() {
        let (in_cgroup, leader) = match &member.place {
            Place::Cgroup(path) => (Some(cgroups::processes(path)), None),
            Place::Process(pid, _) => (None, Some(*pid)),
        };
        // Others may be in namespaces of their own within the container, which have no end on the host.
        for pid in in_cgroup.into_iter().flatten().chain(leader) {
            located.alive.insert(at);
            if wanted.is_empty() {
                break;
            }
            let id = unless_gone(ids.of_process(pid))?.filter(|id| wanted.contains(id));
            if let Some(id) = id {
                located.by_namespace.entry(id).or_default().push(at);
                break;
            }
        }
    }
    Ok(located)
}

/// A process may end, and a file may be removed, while they are looked at.
fn unless_gone(answer: io::Result<Option<i32>>) -> io::Result<Option<i32>> {
    match answer {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(error),
        other => Ok(other.unwrap_or(None)),
    }
}

/// The names of the wanted namespaces that have one.
pub(super) fn names(root: &Root, wanted: &BTreeSet<i32>, ids: &dyn NamespaceIds) -> BTreeMap<i32, String> {
    let mut found = BTreeMap::new();
    if wanted.is_empty() {
        return found;
    }
    for directory in NAMED {
        let Ok(entries) = fs::read_dir(root.at(directory)) else { continue };
        for entry in entries.take(MOST_NAMED).flatten() {
            let Ok(Some(id)) = ids.of_file(&entry.path()) else { continue };
            if wanted.contains(&id) {
                found.insert(id, root.shown(&entry.path()));
            }
        }
    }
    found
}
