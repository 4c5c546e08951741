//! Changes of files, by inotify: the class file and Virtuozzo's container files.
//!
//! The watches are on directories, not on files, because editors replace a file by another one. Each
//! directory above is watched too, because it can appear later or be replaced as a whole. A file that is
//! being written is read only after its writer has closed it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    fs, io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use tokio::{
    io::unix::AsyncFd,
    time::{self, Instant},
};

use crate::config::Config;

/// Changes that follow each other this closely are one.
const QUIET: Duration = Duration::from_millis(100);
/// Changes are reported after this time even if more keep coming.
const PATIENCE: Duration = Duration::from_millis(400);
/// The longest chain of symbolic links that is followed.
const MOST_LINKS: usize = 8;

/// What may have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The class file, or the place where it could be.
    pub classes: bool,
    /// A container's file.
    pub container_files: bool,
}

impl Changed {
    const CLASSES: Self = Self { classes: true, container_files: false };
    const IDENTITIES: Self = Self { classes: false, container_files: true };
    /// Everything.
    pub const ALL: Self = Self { classes: true, container_files: true };

    fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Adds what else changed.
    pub fn add(&mut self, other: Self) {
        self.classes |= other.classes;
        self.container_files |= other.container_files;
    }
}

/// The names in a directory that matter, and what a change of each means.
#[derive(Debug, Default)]
struct Interest {
    path: PathBuf,
    names: HashMap<OsString, Changed>,
    /// Every `*.conf` belongs to a container.
    containers: bool,
}

/// A watch on everything that the configuration names.
#[derive(Debug)]
pub struct FileWatch {
    inotify: AsyncFd<OwnedFd>,
    class_files: Vec<PathBuf>,
    containers: PathBuf,
    watched: HashMap<i32, Interest>,
    pending: Changed,
    /// When the first and the last of the pending changes came.
    times: Option<(Instant, Instant)>,
    complained: BTreeSet<PathBuf>,
}

impl FileWatch {
    /// Watches the files that a configuration names. At first everything counts as changed, because it may
    /// have changed since it was read.
    ///
    /// # Errors
    /// When the kernel refuses an inotify instance, or outside a tokio runtime.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .context("cannot watch files (inotify)")?;
        let now = Instant::now();
        let mut watch = Self {
            // SAFETY: the owned descriptor stays open and the same for as long as this lives.
            inotify: unsafe { AsyncFd::register(inotify) }.context("cannot wait for changes of files")?,
            class_files: config.class_file_candidates(),
            containers: config.vz_conf_dir.clone(),
            watched: HashMap::new(),
            pending: Changed::ALL,
            times: Some((now, now)),
            complained: BTreeSet::new(),
        };
        watch.arm();
        Ok(watch)
    }

    /// Waits for changes and then for a pause in them. Read the files only after this returns. It can be
    /// cancelled and called again without losing a change.
    pub async fn changed(&mut self) -> Changed {
        loop {
            let more = self.take_events();
            if !more.is_empty() {
                let now = Instant::now();
                self.pending.add(more);
                self.times = Some((self.times.map_or(now, |(first, _)| first), now));
            }
            let Some((first, last)) = self.times else {
                self.readable().await;
                continue;
            };
            let due = (last + QUIET).min(first + PATIENCE);
            if Instant::now() >= due {
                // Before anything is read: a later change is reported again.
                self.arm();
                self.times = None;
                return std::mem::take(&mut self.pending);
            }
            tokio::select! {
                () = self.readable() => {}
                () = time::sleep_until(due) => {}
            }
        }
    }

    async fn readable(&self) {
        match self.inotify.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            // The runtime is ending.
            Err(_) => std::future::pending().await,
        }
    }

    fn take_events(&mut self) -> Changed {
        let mut changed = Changed::default();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(self.inotify.get_ref(), &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                        changed.add(Changed::ALL);
                    } else if let Some(interest) = self.watched.get(&event.wd()) {
                        let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                        changed.add(interest.in_event(event.events(), name));
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return changed,
                Err(error) => {
                    tracing::warn!("cannot read changes of files: {error}");
                    return changed;
                }
            }
        }
    }

    /// Adds and removes watches to match what exists now.
    fn arm(&mut self) {
        let mut wanted: BTreeMap<PathBuf, Interest> = BTreeMap::new();
        for file in &self.class_files {
            want_file(&mut wanted, file, Changed::CLASSES);
        }
        let directory = self.containers.join("");
        want_file(&mut wanted, &self.containers, Changed::IDENTITIES);
        wanted.entry(directory.clone()).or_default().containers = true;
        // Virtuozzo's files are links into each container's private area.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if is_conf(path.as_os_str()) && path.is_symlink() {
                want_file(&mut wanted, &path, Changed::IDENTITIES);
            }
        }
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let mut watched: HashMap<i32, Interest> = HashMap::new();
        for (path, interest) in wanted {
            match inotify::add_watch(self.inotify.get_ref(), &path, flags) {
                Ok(watch) => watched.entry(watch).or_default().merge(path, interest),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => {
                    if self.complained.insert(path.clone()) {
                        tracing::warn!(
                            "cannot watch {} ({}): changes of container files take effect later, and those \
                             of the class file after `trafctl classes load` or SIGHUP",
                            path.display(),
                            io::Error::from(error)
                        );
                    }
                }
            }
        }
        for &old in self.watched.keys().filter(|old| !watched.contains_key(old)) {
            // The kernel removed the watch together with the directory.
            let _gone = inotify::remove_watch(self.inotify.get_ref(), old);
        }
        self.watched = watched;
    }
}

impl Interest {
    /// Two paths can lead to one directory.
    fn merge(&mut self, path: PathBuf, other: Self) {
        self.path = path;
        self.containers |= other.containers;
        for (name, changed) in other.names {
            self.names.entry(name).or_default().add(changed);
        }
    }

    fn in_event(&self, events: ReadFlags, name: Option<&OsStr>) -> Changed {
        let Some(name) = name else {
            // The directory itself is gone. The watch on the one above reports its replacement.
            let mut all = Changed { classes: false, container_files: self.containers };
            self.names.values().for_each(|&changed| all.add(changed));
            return all;
        };
        let mut changed = self.names.get(name).copied().unwrap_or_default();
        changed.container_files |= self.containers && is_conf(name);
        // A new file is reported when its writer closes it. A link or a directory is complete at once.
        let being_written = events.contains(ReadFlags::CREATE)
            && !events.contains(ReadFlags::ISDIR)
            && fs::symlink_metadata(self.path.join(name))
                .is_ok_and(|file| file.is_file() && file.nlink() == 1);
        if being_written { Changed::default() } else { changed }
    }
}

fn is_conf(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".conf")
}

/// Adds a file, the targets of its links, and all directories above.
fn want_file(wanted: &mut BTreeMap<PathBuf, Interest>, file: &Path, changed: Changed) {
    let mut path = file.to_owned();
    for _ in 0..MOST_LINKS {
        want_chain(wanted, &path, changed);
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    // Directories above can be links too.
    if let Ok(whole) = fs::canonicalize(file) {
        want_chain(wanted, &whole, changed);
    }
}

fn want_chain(wanted: &mut BTreeMap<PathBuf, Interest>, file: &Path, changed: Changed) {
    let mut path = file;
    while let (Some(above), Some(name)) = (path.parent(), path.file_name()) {
        // A relative path begins in the working directory.
        let directory = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        wanted.entry(directory.join("")).or_default().names.entry(name.to_owned()).or_default().add(changed);
        path = above;
    }
}
