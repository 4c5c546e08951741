//! Changes of files, by inotify: the class file and Virtuozzo's container files.
//!
//! The watches are on directories, not on files, because editors replace a file by another one. Each
//! directory above is watched too, because it can appear later or be replaced as a whole. A file that is
//! being written is read only after its writer has closed it.
//!
//! Any user can take all inotify instances of the node, or all watches. Then `file_states` compares the files
//! every few seconds, and the watch is tried again. `file_thread` runs all this.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};

use super::file_states::FileStates;
use crate::{config::Config, health::Backoff};

/// Changes that follow each other this closely are one.
const QUIET: Duration = Duration::from_millis(100);
/// Changes are reported after this time even if more keep coming.
const PATIENCE: Duration = Duration::from_millis(400);
/// The longest chain of symbolic links that is followed.
const MOST_LINKS: usize = 8;
/// How often the files are compared while they cannot be watched.
const POLL: Duration = Duration::from_secs(2);
/// How soon, and how seldom, the watch is tried again.
const FIRST_RETRY: Duration = Duration::from_secs(4);
const LONGEST_RETRY: Duration = Duration::from_mins(1);

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

    pub(super) fn is_empty(self) -> bool {
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

/// The calls to inotify. Tests replace them by a kernel that refuses.
pub(super) trait Inotify {
    /// Makes an instance.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn instance(&self) -> Result<OwnedFd, Errno>;

    /// Adds a watch, or changes the one on the same directory.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn add(&self, instance: BorrowedFd<'_>, path: &Path, flags: WatchFlags) -> Result<i32, Errno>;
}

/// The kernel's.
#[derive(Debug)]
pub(super) struct KernelInotify;

impl Inotify for KernelInotify {
    fn instance(&self) -> Result<OwnedFd, Errno> {
        inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
    }

    fn add(&self, instance: BorrowedFd<'_>, path: &Path, flags: WatchFlags) -> Result<i32, Errno> {
        inotify::add_watch(instance, path, flags)
    }
}

/// A watch on everything that the configuration names.
#[derive(Debug)]
pub(super) struct FileWatch<I> {
    kernel: I,
    /// `None` while the kernel refuses an instance.
    instance: Option<OwnedFd>,
    class_files: Vec<PathBuf>,
    containers: PathBuf,
    watched: HashMap<i32, Interest>,
    pending: Changed,
    /// When the first and the last of the pending changes came.
    times: Option<(Instant, Instant)>,
    /// How the last attempt to watch everything ended, until that is asked for. When it failed, the files are
    /// compared as well.
    attempt: Option<Result<(), String>>,
    states: Option<(FileStates, Instant)>,
    retry: Backoff,
}

impl<I: Inotify> FileWatch<I> {
    /// Watches the files that a configuration names. At first everything counts as changed, because it may
    /// have changed since it was read.
    pub(super) fn new(kernel: I, config: &Config, now: Instant) -> Self {
        let mut watch = Self {
            kernel,
            instance: None,
            class_files: Vec::new(),
            containers: PathBuf::new(),
            watched: HashMap::new(),
            pending: Changed::default(),
            times: None,
            attempt: None,
            states: None,
            retry: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
        };
        watch.follow(config, now);
        watch
    }

    /// Watches the files of another configuration, with the same instance.
    pub(super) fn follow(&mut self, config: &Config, now: Instant) {
        self.class_files = config.class_file_candidates();
        self.containers.clone_from(&config.vz_conf_dir);
        self.states = None;
        self.add(Changed::ALL, now);
        self.arm(now);
    }

    /// How the last attempt to watch everything ended, unless that was asked for already. After a failure,
    /// changes are noticed a few seconds late.
    pub(super) fn take_attempt(&mut self) -> Option<Result<(), String>> {
        self.attempt.take()
    }

    /// What becomes readable with a change.
    pub(super) fn instance(&self) -> Option<BorrowedFd<'_>> {
        self.instance.as_ref().map(|instance| instance.as_fd())
    }

    /// When the next step is due even if nothing becomes readable.
    pub(super) fn due(&self) -> Option<Instant> {
        let report = self.times.map(|(first, last)| (last + QUIET).min(first + PATIENCE));
        let poll = self.states.as_ref().map(|(_, read)| *read + POLL);
        [report, poll, self.retry.due()].into_iter().flatten().min()
    }

    /// Takes events, and compares the files where they cannot be watched. Returns changes once they have come
    /// to a rest. Read the files only after this returns them.
    pub(super) fn step(&mut self, now: Instant) -> Changed {
        let events = self.take_events();
        self.add(events, now);
        if self.retry.is_due(now) {
            self.arm(now);
        }
        if let Some((states, read)) = &mut self.states
            && now >= *read + POLL
        {
            *read = now;
            let found = states.compare(&self.class_files, &self.containers);
            self.add(found, now);
        }
        match self.times {
            Some((first, last)) if now >= (last + QUIET).min(first + PATIENCE) => {
                // Before anything is read: a later change is reported again.
                self.arm(now);
                self.times = None;
                std::mem::take(&mut self.pending)
            }
            _ => Changed::default(),
        }
    }

    fn add(&mut self, changed: Changed, now: Instant) {
        if !changed.is_empty() {
            self.pending.add(changed);
            self.times = Some((self.times.map_or(now, |(first, _)| first), now));
        }
    }

    fn take_events(&mut self) -> Changed {
        let mut changed = Changed::default();
        let Some(instance) = &self.instance else { return changed };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(instance, &mut buffer);
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

    /// Adds and removes watches to match what exists now. What cannot be watched is compared from here on.
    fn arm(&mut self, now: Instant) {
        let attempt = self.try_arm();
        if attempt.is_ok() {
            self.retry.succeeded();
            let left = self.states.take();
            if left.is_some_and(|(states, _)| states.is_outdated(&self.class_files, &self.containers)) {
                self.add(Changed::ALL, now);
            }
        } else {
            if self.retry.due().is_none_or(|due| now >= due) {
                self.retry.failed(now);
            }
            if self.states.is_none() {
                self.states = Some((FileStates::read(&self.class_files, &self.containers), now));
                // It may have changed since the watch was lost.
                self.add(Changed::ALL, now);
            }
        }
        self.attempt = Some(attempt);
    }

    fn try_arm(&mut self) -> Result<(), String> {
        let instance = match self.instance.take() {
            Some(instance) => instance,
            None => self
                .kernel
                .instance()
                .map_err(|error| format!("cannot watch files (inotify): {}", io::Error::from(error)))?,
        };
        let instance = &*self.instance.insert(instance);
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
        let mut failure = Ok(());
        for (path, interest) in wanted {
            match self.kernel.add(instance.as_fd(), &path, flags) {
                Ok(watch) => watched.entry(watch).or_default().merge(path, interest),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) if failure.is_ok() => {
                    failure = Err(format!("cannot watch {}: {}", path.display(), io::Error::from(error)));
                }
                Err(_) => {}
            }
        }
        for &old in self.watched.keys().filter(|old| !watched.contains_key(old)) {
            // The kernel removed the watch together with the directory.
            let _gone = inotify::remove_watch(instance, old);
        }
        self.watched = watched;
        failure
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

#[cfg(test)]
mod tests;
