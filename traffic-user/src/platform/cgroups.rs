//! Finds the cgroups of containers, and the processes in them.
//!
//! Works on cgroup v2, and on v1 where the named hierarchy of systemd or any other one holds all processes.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Member, Place, Platform,
    cgroup_names::{self, Kind, Recognised},
    root::Root,
};
use crate::files;

/// Where cgroups are.
const MOUNT: &str = "/sys/fs/cgroup";
/// With v1, the hierarchies in which processes are looked for. All processes are in each of them, but a platform
/// may make cgroups in some only.
const HIERARCHIES: [&str; 5] = ["unified", "systemd", "memory", "pids", "freezer"];
/// Most cgroups that are looked at: a host with 3,000 containers has some 30,000.
const MOST_CGROUPS: usize = 200_000;
/// Most processes of one container that are looked at. One is enough, unless others share its cgroup.
const MOST_PROCESSES: usize = 4096;
/// Largest list of the processes in a cgroup, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// The containers that have a cgroup, and what went wrong while looking.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub members: Vec<Member>,
    pub problems: Vec<String>,
}

/// Looks at all cgroups.
pub(super) fn containers(root: &Root) -> Found {
    let mount = root.at(MOUNT);
    let mut walk = Walk { root, found: Found::default(), left: MOST_CGROUPS };
    if mount.join("cgroup.procs").exists() {
        walk.below(&mount, &mut Vec::new());
    } else {
        for hierarchy in HIERARCHIES {
            walk.below(&mount.join(hierarchy), &mut Vec::new());
        }
        // The same container in several hierarchies.
        walk.found.members.sort_by(|a, b| (a.platform, &a.id).cmp(&(b.platform, &b.id)));
        walk.found.members.dedup_by(|a, b| (a.platform, &a.id) == (b.platform, &b.id) && is_empty(&a.place));
    }
    if walk.left == 0 {
        walk.found.problems.push(format!("{MOUNT}: only the first {MOST_CGROUPS} cgroups are looked at"));
    }
    walk.found
}

fn is_empty(place: &Place) -> bool {
    matches!(place, Place::Cgroup(path) if processes(path).next().is_none())
}

struct Walk<'r> {
    root: &'r Root,
    found: Found,
    left: usize,
}

impl Walk<'_> {
    fn below(&mut self, directory: &Path, names: &mut Vec<String>) {
        for (name, path) in self.children(directory) {
            match cgroup_names::kind(names, &name) {
                Kind::Nothing => {}
                Kind::Container(found) => {
                    let member = self.member(found, directory, path);
                    self.found.members.push(member);
                }
                Kind::Other => {
                    names.push(name);
                    self.below(&path, names);
                    names.pop();
                }
            }
        }
    }

    /// The cgroups in a cgroup, without those of `MOST_CGROUPS` on.
    fn children(&mut self, directory: &Path) -> Vec<(String, PathBuf)> {
        let children = match subdirectories(directory) {
            Ok(children) => children,
            // It may end at any time, and with v1 it may be missing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                let place = self.root.shown(directory);
                self.found.problems.push(format!("{place}: cannot list the cgroups: {error}"));
                return Vec::new();
            }
        };
        let taken = children.len().min(self.left);
        self.left -= taken;
        children.into_iter().take(taken).collect()
    }

    /// LXC appends a number to the name of a cgroup that exists, as after a crash. So the name is taken from
    /// whoever watches the container: `[lxc monitor] PATH NAME`. The path tells LXC from LXD and Incus.
    fn member(&self, found: Recognised, parent: &Path, path: PathBuf) -> Member {
        let Recognised { mut platform, mut id, monitor } = found;
        let mut may_be_another = monitor.is_some();
        if let Some((directory, name)) = monitor.and_then(|monitor| self.watched(&parent.join(monitor))) {
            platform = lxc_platform(&directory);
            may_be_another = false;
            // The user's number before a colon stays.
            id = match id.split_once(':') {
                Some((user, _)) => format!("{user}:{name}"),
                None => name,
            };
        }
        Member { platform, id, place: Place::Cgroup(path), may_be_another }
    }

    /// The directory and the name on the command line of LXC's monitor.
    fn watched(&self, monitor: &Path) -> Option<(String, String)> {
        processes(monitor).find_map(|pid| {
            let line = files::read(&self.root.at(format!("/proc/{pid}/cmdline")), MOST_BYTES).ok()?;
            let line = String::from_utf8(line).ok()?;
            let rest = line.trim_end_matches(['\0', ' ']).strip_prefix("[lxc monitor] ")?;
            let (directory, name) = rest.rsplit_once(' ')?;
            Some((directory.to_owned(), name.to_owned()))
        })
    }
}

/// Who keeps containers of LXC in a directory.
fn lxc_platform(directory: &str) -> Platform {
    let has = |name: &str| directory.split('/').any(|part| part == name);
    match () {
        () if has("incus") => Platform::Incus,
        () if has("lxd") => Platform::Lxd,
        () => Platform::Lxc,
    }
}

fn subdirectories(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Not of what a link leads to: with v1, `cpu` is the same as `cpu,cpuacct`.
        if entry.file_type()?.is_dir() {
            found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The processes of a container: those of its cgroup, then those of the cgroups in it. They are read as far as they are
/// asked for: the first one is mostly enough.
pub(super) fn processes(cgroup: &Path) -> impl Iterator<Item = u32> + use<> {
    let mut waiting = VecDeque::from([cgroup.to_owned()]);
    let mut last: Option<PathBuf> = None;
    let lists = std::iter::from_fn(move || {
        let read = last.take().map(|directory| subdirectories(&directory).unwrap_or_default());
        waiting.extend(read.into_iter().flatten().map(|(_, path)| path));
        let directory = waiting.pop_front()?;
        let list = files::read(&directory.join("cgroup.procs"), MOST_BYTES).unwrap_or_default();
        last = Some(directory);
        // A process of another pid namespace is shown as 0.
        let pids =
            String::from_utf8_lossy(&list).lines().filter_map(|line| line.parse::<u32>().ok()).collect();
        Some::<Vec<u32>>(pids)
    });
    lists.flatten().filter(|&pid| pid != 0).take(MOST_PROCESSES)
}
