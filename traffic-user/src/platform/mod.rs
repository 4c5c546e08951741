//! Which container platforms are on this host, and to whose container each interface leads.
//!
//! No command is run, and nothing needs more than the shipped unit allows. Any veth is attributed by its peer's
//! network namespace: the kernel's id of that namespace is compared with that of the processes in each
//! container's cgroup. Names and ids come from the platforms' files; taps come from those alone.
//!
//! - [`survey`]: the whole look at the host, and its result.
//! - `cgroups`: the cgroups of containers; the names that platforms give them are in `cgroup_names`.
//! - `known`: everything that was found, put together.
//! - [`inside`]: devices in containers that have no end on this host.
//! - `netns`: from cgroups, processes and files of namespaces to interfaces.
//! - `readers`: reading the platforms' files, each on a thread of its own with a time limit.
//! - `docker`, `kubernetes`, `libvirt`, `lxc`, `lxd`, `nspawn`, `podman`, `proxmox`, `virtuozzo`: one platform
//!   each.
//! - `root`: the root directory, which tests replace, and lenient reading of what is below it.
//!
//! Virtuozzo's container files, which name addresses too, are read in [`crate::ownership`].

mod cgroup_names;
mod cgroups;
mod docker;
pub mod inside;
mod known;
mod kubernetes;
mod libvirt;
mod lxc;
mod lxd;
mod netns;
mod nspawn;
mod podman;
mod proxmox;
mod readers;
mod root;
pub mod survey;
#[cfg(test)]
mod tests;
mod virtuozzo;

use std::{fmt, path::PathBuf};

use traffic_model::ContainerId;

/// A platform that runs containers or virtual machines. Where two have a container of the same id, the one that
/// comes first here keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Platform {
    /// Virtuozzo, and OpenVZ.
    Virtuozzo,
    /// Proxmox VE: containers and machines.
    Proxmox,
    /// Incus: containers and machines.
    Incus,
    /// LXD: containers and machines.
    Lxd,
    /// Libvirt's machines.
    Libvirt,
    /// LXC without another platform above it.
    Lxc,
    /// systemd-nspawn.
    Nspawn,
    /// Docker.
    Docker,
    /// Podman: containers and pods.
    Podman,
    /// The pods of Kubernetes, whatever runs them.
    Kubernetes,
}

impl Platform {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Virtuozzo,
        Self::Proxmox,
        Self::Incus,
        Self::Lxd,
        Self::Libvirt,
        Self::Lxc,
        Self::Nspawn,
        Self::Docker,
        Self::Podman,
        Self::Kubernetes,
    ];

    /// Its name in documents, and before the colon of an id.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Virtuozzo => "virtuozzo",
            Self::Proxmox => "proxmox",
            Self::Incus => "incus",
            Self::Lxd => "lxd",
            Self::Libvirt => "libvirt",
            Self::Lxc => "lxc",
            Self::Nspawn => "nspawn",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Kubernetes => "kubernetes",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Virtuozzo => "Virtuozzo",
            Self::Proxmox => "Proxmox",
            Self::Incus => "Incus",
            Self::Lxd => "LXD",
            Self::Libvirt => "libvirt",
            Self::Lxc => "LXC",
            Self::Nspawn => "systemd-nspawn",
            Self::Docker => "Docker",
            Self::Podman => "Podman",
            Self::Kubernetes => "Kubernetes",
        })
    }
}

/// A container or machine, as its platform knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The id that it is counted under.
    pub id: ContainerId,
    /// Its name for people, where that is another text.
    pub name: Option<String>,
    /// The platform that runs it.
    pub platform: Platform,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} ({name}, {})", self.id, self.platform),
            None => write!(f, "{} ({})", self.id, self.platform),
        }
    }
}

/// Where the processes of a container are found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A cgroup, and all below it.
    Cgroup(PathBuf),
    /// One process, and the file that names it.
    Process(u32, String),
}

/// A container that runs, as one source shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    platform: Platform,
    /// The id as the platform has it.
    id: String,
    place: Place,
    /// Whether the source leaves open which platform it is, because others build on this one.
    may_be_another: bool,
}

/// An interface that a platform's files name together with its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NamedInterface {
    platform: Platform,
    id: String,
    interface: String,
    /// The file or socket that says so.
    source: String,
}

/// What the files and sockets of one platform show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reading {
    /// What shows that the platform is on this host.
    evidence: Vec<String>,
    members: Vec<Member>,
    interfaces: Vec<NamedInterface>,
    /// Names for people by the platform's id.
    names: Vec<(String, String)>,
    /// Ids whose network namespace is that of another container.
    joined: Vec<String>,
    /// What could not be read.
    problems: Vec<String>,
}

/// The id that a container is counted under, from the platform's own. What comes out is what the platform's own
/// commands accept.
///
/// The ids of Docker and Podman have 64 digits. Their first twelve are what `docker ps` and `podman ps` show.
fn usable_id(platform: Platform, id: &str) -> Result<ContainerId, String> {
    // The user whose container it is stands before the platform's id.
    let at = id.rfind(':').map_or(0, |colon| colon + 1);
    let shown = match platform {
        Platform::Docker | Platform::Podman if is_hash(&id[at..]) => &id[..at + SHOWN_DIGITS],
        _ => id,
    };
    ContainerId::of_container(shown).map_err(|error| error.to_string())
}

/// How many digits of a hash are shown.
const SHOWN_DIGITS: usize = 12;

/// Whether a text is the id of a container of Docker or Podman.
fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
