//! The directory in the BPF file system that holds everything pinned.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustix::fs::{CWD, RenameFlags, statfs};
use traffic_common::Direction;

/// `BPF_FS_MAGIC`
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// Where every distribution mounts the BPF file system.
pub const STANDARD_MOUNT: &str = "/sys/fs/bpf";

/// Our directory in the BPF file system.
#[derive(Clone, Debug)]
pub struct Bpffs {
    root: PathBuf,
    maps: &'static str,
}

/// Where the maps in use are pinned.
const MAPS: &str = "maps";
/// Where maps are pinned that are to replace those in use, or that were replaced.
const NEXT_MAPS: &str = "maps_next";

impl Bpffs {
    /// Names the directory, for commands that only read. It need not exist.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), maps: MAPS }
    }

    /// The same directory, with the place for maps that are to replace those in use.
    #[must_use]
    pub fn next(&self) -> Self {
        Self { root: self.root.clone(), maps: NEXT_MAPS }
    }

    /// Creates the directory and its subdirectories, and mounts the BPF file system if it is missing.
    ///
    /// # Errors
    /// When the file system cannot be mounted or a directory cannot be created.
    pub fn prepare(root: &Path) -> anyhow::Result<Self> {
        if !is_bpffs(root) {
            // Below the standard place, the whole file system is missing. Elsewhere, mount one on the
            // directory.
            let mount_point = if root.starts_with(STANDARD_MOUNT) { Path::new(STANDARD_MOUNT) } else { root };
            if !is_bpffs(mount_point) {
                mount(mount_point)?;
            }
        }
        let bpffs = Self::new(root);
        for directory in [bpffs.root.clone(), bpffs.maps(), bpffs.programs(), bpffs.links(), bpffs.drops()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o750)
                .create(&directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        if !is_bpffs(root) {
            bail!("{} is not on a BPF file system, and mounting one there had no effect", root.display());
        }
        bpffs.create_lock_directories()?;
        Ok(bpffs)
    }

    /// Creates again the subdirectories that were removed while they were in use.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn mend(&self) -> anyhow::Result<()> {
        let parts = [self.maps(), self.programs(), self.links(), self.drops()];
        if parts.iter().all(|directory| directory.is_dir()) {
            return Ok(());
        }
        Self::prepare(&self.root).map(drop)
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the pinned maps.
    pub fn maps(&self) -> PathBuf {
        self.root.join(self.maps)
    }

    /// The directory of the pinned programs.
    pub fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    /// The directory of everything that belongs to the drop program.
    pub fn drops(&self) -> PathBuf {
        self.root.join("drops")
    }

    /// The directory of the shadow class table's own maps.
    pub fn shadow(&self) -> PathBuf {
        self.root.join("shadow")
    }

    /// Creates the directory of the shadow class table's maps.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create_shadow(&self) -> anyhow::Result<()> {
        let directory = self.shadow();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))
    }

    /// Unpins the shadow class table's maps. Those of the program stay.
    ///
    /// # Errors
    /// When a file cannot be removed. Files removed before that stay removed.
    pub fn clear_shadow(&self) -> anyhow::Result<()> {
        unpin_all(&self.shadow())
    }

    fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Where the map of this name is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Where the program of this name is pinned.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs().join(name)
    }

    /// Where the link of an interface's hook is pinned. Named by index: the file system refuses names with a
    /// dot.
    pub fn link(&self, ifindex: u32, direction: Direction) -> PathBuf {
        self.links().join(match direction {
            Direction::In => format!("{ifindex}-in"),
            Direction::Out => format!("{ifindex}-out"),
        })
    }

    /// Returns the indexes of all interfaces that have a pinned link, sorted. A missing directory has none.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn linked_interfaces(&self) -> io::Result<Vec<u32>> {
        let mut indexes: Vec<u32> = self.linked_hooks()?.into_iter().map(|(index, _)| index).collect();
        indexes.sort_unstable();
        indexes.dedup();
        Ok(indexes)
    }

    /// Returns index and direction of all hooks for which a link is pinned. A missing directory has none.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn linked_hooks(&self) -> io::Result<HashSet<(u32, Direction)>> {
        let entries = match fs::read_dir(self.links()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
            other => other?,
        };
        let mut hooks = HashSet::new();
        for entry in entries {
            let name = entry?.file_name();
            let Some((index, direction)) = name.to_str().and_then(|name| name.split_once('-')) else {
                continue;
            };
            let direction = match direction {
                "in" => Direction::In,
                "out" => Direction::Out,
                _ => continue,
            };
            hooks.extend(index.parse().ok().map(|index: u32| (index, direction)));
        }
        Ok(hooks)
    }

    /// Unpins everything. Unpinning a link detaches its program.
    ///
    /// # Errors
    /// When a file cannot be removed. Files removed before that stay removed.
    pub fn clear(&self) -> anyhow::Result<()> {
        let next = self.next().maps();
        let directories =
            [self.shadow(), self.drops(), self.links(), self.programs(), self.maps(), next.clone()];
        directories.iter().try_for_each(|directory| unpin_all(directory))?;
        match fs::remove_dir(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", next.display()))
            }
            _ => Ok(()),
        }
    }

    /// Removes the place for maps that are to replace those in use. `META` goes last: as long as it is there,
    /// it says what the others are.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove_next(&self) -> anyhow::Result<()> {
        let next = self.next();
        let directory = next.maps();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.with_context(|| format!("cannot list {}", directory.display()))?,
        };
        let remove = || -> io::Result<()> {
            for entry in entries {
                let path = entry?.path();
                if path != next.map("META") {
                    fs::remove_file(&path)?;
                }
            }
            match fs::remove_file(next.map("META")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::remove_dir(&directory)
        };
        remove().with_context(|| format!("cannot remove {}", directory.display()))
    }

    /// Exchanges the maps in use with those that are to replace them, in one step where the kernel can. Where
    /// it cannot (before 5.16), a reader in between finds no maps, and tries again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn exchange_next(&self) -> anyhow::Result<()> {
        let (maps, next) = (self.maps(), self.next().maps());
        let exchanged = rustix::fs::renameat_with(CWD, &next, CWD, &maps, RenameFlags::EXCHANGE);
        if exchanged == Err(rustix::io::Errno::INVAL) {
            let aside = self.root.join("maps_former");
            return fs::rename(&maps, &aside)
                .and_then(|()| fs::rename(&next, &maps))
                .and_then(|()| fs::rename(&aside, &next))
                .with_context(|| format!("cannot put {} in place", next.display()));
        }
        exchanged.map_err(io::Error::from).with_context(|| format!("cannot put {} in place", next.display()))
    }
}

/// Removes all files of a directory, which need not exist.
fn unpin_all(directory: &Path) -> anyhow::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("cannot list {}", directory.display()))?,
    };
    for entry in entries {
        let path = entry?.path();
        fs::remove_file(&path).with_context(|| format!("cannot unpin {}", path.display()))?;
    }
    Ok(())
}

/// Whether this path, or its nearest ancestor that exists, lies on a BPF file system.
fn is_bpffs(path: &Path) -> bool {
    path.ancestors()
        .find(|ancestor| ancestor.exists())
        .is_some_and(|existing| statfs(existing).is_ok_and(|stat| stat.f_type == BPF_FS_MAGIC))
}

fn mount(point: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(point).with_context(|| format!("cannot create {}", point.display()))?;
    tracing::info!("mounting the BPF file system on {}", point.display());
    rustix::mount::mount("bpf", point, "bpf", rustix::mount::MountFlags::empty(), Some(c"mode=0700"))
        .map_err(io::Error::from)
        .with_context(|| {
            format!(
                "cannot mount the BPF file system on {}; run as root: mount -t bpf bpf {}",
                point.display(),
                point.display()
            )
        })?;
    debug_assert!(fs::metadata(point).is_ok_and(|metadata| metadata.is_dir() && metadata.nlink() > 0));
    Ok(())
}
