//! The directory in the BPF file system where everything that outlives a process is pinned, and the lock on it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock, statfs};
use traffic_common::Direction;

/// `BPF_FS_MAGIC`
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// The place where every distribution mounts it.
pub const STANDARD_MOUNT: &str = "/sys/fs/bpf";
/// How long a command waits for another one that is changing something.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// Our directory in the BPF file system.
#[derive(Clone, Debug)]
pub struct Bpffs {
    root: PathBuf,
}

/// Held by every command that changes anything pinned; let go when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct ChangeLock {
    _directory: File,
}

impl Bpffs {
    /// The directory as it is, for reading only. It need not exist.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Makes the directory with its parts; mounts the BPF file system where it is missing.
    ///
    /// # Errors
    /// Without the privilege to mount, or when the path cannot be a directory.
    pub fn prepare(root: &Path) -> anyhow::Result<Self> {
        if !is_bpffs(root) {
            // Below the standard place the whole file system is missing; elsewhere the directory itself is to be one.
            let mount_point = if root.starts_with(STANDARD_MOUNT) { Path::new(STANDARD_MOUNT) } else { root };
            if !is_bpffs(mount_point) {
                mount(mount_point)?;
            }
        }
        let bpffs = Self::new(root);
        for directory in [bpffs.root.clone(), bpffs.maps(), bpffs.programs(), bpffs.links()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o750)
                .create(&directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        if !is_bpffs(root) {
            bail!("{} is not on a BPF file system, and none could be mounted there", root.display());
        }
        Ok(bpffs)
    }

    /// Waits for its turn to change something.
    ///
    /// # Errors
    /// When another command holds the lock for longer than any should.
    pub fn lock(&self) -> anyhow::Result<ChangeLock> {
        let open = || {
            File::open(&self.root).with_context(|| format!("cannot open {} to lock it", self.root.display()))
        };
        let mut directory = open()?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if self.is_at_root(&directory)? => return Ok(ChangeLock { _directory: directory }),
                // Somebody removed the directory meanwhile and made it anew: a lock on the old one keeps nobody out.
                Ok(()) => directory = open()?,
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(error) => {
                    return Err(io::Error::from(error)).with_context(|| {
                        format!("cannot lock {}: another trafctl has been changing it", self.root.display())
                    });
                }
            }
        }
    }

    fn is_at_root(&self, directory: &File) -> anyhow::Result<bool> {
        let (locked, now) = (directory.metadata()?, fs::metadata(&self.root)?);
        Ok((locked.dev(), locked.ino()) == (now.dev(), now.ino()))
    }

    /// Makes again what somebody has removed of the directory, while it was in use.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn mend(&self) -> anyhow::Result<()> {
        let parts = [self.maps(), self.programs(), self.links()];
        if parts.iter().all(|directory| directory.is_dir()) {
            return Ok(());
        }
        Self::prepare(&self.root).map(drop)
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    fn programs(&self) -> PathBuf {
        self.root.join("programs")
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

    /// Where the link of an interface's hook is pinned. By index: the file system refuses names with a dot.
    pub fn link(&self, ifindex: u32, direction: Direction) -> PathBuf {
        self.links().join(match direction {
            Direction::In => format!("{ifindex}-in"),
            Direction::Out => format!("{ifindex}-out"),
        })
    }

    /// Indexes of all interfaces that have a pinned link, sorted.
    ///
    /// # Errors
    /// When the directory can't be read; a missing one is empty.
    pub fn linked_interfaces(&self) -> io::Result<Vec<u32>> {
        let entries = match fs::read_dir(self.links()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut indexes = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let index =
                name.to_str().and_then(|name| name.split_once('-')).map(|(index, _)| index.parse::<u32>());
            indexes.extend(index.and_then(Result::ok));
        }
        indexes.sort_unstable();
        indexes.dedup();
        Ok(indexes)
    }

    /// Unpins everything. What is attached by a link falls off with it.
    ///
    /// # Errors
    /// When a file can't be removed; what was removed before stays removed.
    pub fn clear(&self) -> anyhow::Result<()> {
        for directory in [self.links(), self.programs(), self.maps()] {
            let entries = match fs::read_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.with_context(|| format!("cannot list {}", directory.display()))?,
            };
            for entry in entries {
                let path = entry?.path();
                fs::remove_file(&path).with_context(|| format!("cannot unpin {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Whether this path, or the nearest of its parents that exists, lies on a BPF file system.
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
                "no BPF file system on {} and none may be mounted there; try: mount -t bpf bpf {}",
                point.display(),
                point.display()
            )
        })?;
    debug_assert!(fs::metadata(point).is_ok_and(|metadata| metadata.is_dir() && metadata.nlink() > 0));
    Ok(())
}
