//! A disk in memory that knows what was synced. It can stop at any write, as when the process is killed, and
//! lose what was not synced, as when the power fails.
//!
//! A directory of the real file system holds an empty file for each of its files, because the ledger compares
//! the identities of files. Renaming or removing such a file renames or removes the content.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs, io,
    ops::Range,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{Random, vfs};
use crate::wal_guard::beside;

/// The smallest part of a file that is written or lost as a whole.
const SECTOR: usize = 512;
/// Size of a region of shared memory, in words.
const REGION_WORDS: usize = 4096;

/// Why a change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The process was killed: nothing more can be done.
    Stopped,
    /// The disk is full or broken, for a while.
    Failed,
}

/// A file.
#[derive(Debug, Default)]
pub struct Inode {
    /// What readers see.
    pub content: Vec<u8>,
    /// What is on the disk for certain.
    durable: Vec<u8>,
    /// Which ranges of `content` may not be.
    unsynced: Vec<Range<usize>>,
    /// Whether its name is on the disk.
    is_linked: bool,
    pub locks: Locks,
    pub shared_memory: SharedMemory,
}

/// The memory that all connections to a ledger share. Boxed, because SQLite keeps its address.
pub type SharedMemory = Vec<Box<[u64; REGION_WORDS]>>;

/// The locks of all connections to a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Locks {
    /// Connections that read.
    pub shared: usize,
    /// Levels above it have one holder.
    pub reserved: bool,
    pub pending: bool,
    pub exclusive: bool,
    /// The locks of the shared memory.
    pub memory_shared: [u32; 8],
    pub memory_exclusive: [bool; 8],
}

impl Inode {
    fn with(content: Vec<u8>) -> Self {
        Self { durable: content.clone(), content, is_linked: true, ..Self::default() }
    }

    /// Writes at an offset.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        let (end, length) = (at + bytes.len(), self.content.len());
        if length < at {
            self.content.resize(at, 0);
            self.unsynced.push(length..at);
        }
        if length <= at {
            self.content.extend_from_slice(bytes);
        } else {
            self.content.resize(length.max(end), 0);
            self.content[at..end].copy_from_slice(bytes);
        }
        match self.unsynced.last_mut() {
            Some(last) if last.end == at => last.end = end,
            _ => self.unsynced.push(at..end),
        }
    }

    pub fn sync(&mut self) {
        let known = self.durable.len().min(self.content.len());
        self.durable.truncate(known);
        self.durable.extend_from_slice(&self.content[known..]);
        for range in self.unsynced.drain(..) {
            let range = range.start..range.end.min(known);
            if !range.is_empty() {
                self.durable[range.clone()].copy_from_slice(&self.content[range]);
            }
        }
        self.is_linked = true;
    }

    /// Keeps some of what was not synced.
    fn lose(&mut self, random: &mut Random, keeps: Keeps) {
        let length = if keeps.this(random) { self.content.len() } else { self.durable.len() };
        self.durable.resize(length, 0);
        for range in std::mem::take(&mut self.unsynced) {
            let mut at = range.start;
            while at < range.end.min(length) {
                let end = (at / SECTOR * SECTOR + SECTOR).min(range.end).min(length).min(self.content.len());
                if end <= at {
                    break;
                }
                if keeps.this(random) {
                    self.durable[at..end].copy_from_slice(&self.content[at..end]);
                }
                at = end;
            }
        }
        self.content.clone_from(&self.durable);
        self.is_linked = true;
    }
}

/// How much of what was not synced a power failure keeps.
#[derive(Clone, Copy, Debug)]
enum Keeps {
    Nothing,
    Half,
    All,
}

impl Keeps {
    fn this(self, random: &mut Random) -> bool {
        match self {
            Self::Nothing => false,
            Self::Half => random.within(0, 2) == 0,
            Self::All => true,
        }
    }
}

thread_local! {
    /// Whether new disks of this thread forget what they were told to sync.
    pub static FORGETS: Cell<bool> = const { Cell::new(false) };
}

/// Files by what is appended to the name of the ledger.
pub type Files = Vec<(&'static str, Vec<u8>)>;

/// A disk.
#[derive(Debug)]
pub struct Disk {
    directory: tempfile::TempDir,
    /// By the number of the file in the directory.
    inodes: RefCell<HashMap<u64, Rc<RefCell<Inode>>>>,
    /// Files that were removed, while their removal is not on the disk.
    removed: RefCell<Vec<(PathBuf, Rc<RefCell<Inode>>)>>,
    /// How often something was changed, and at which change everything stops.
    changes: Cell<u64>,
    stop_at: Cell<u64>,
    stopped: Cell<bool>,
    /// The changes that fail, and whether one did.
    failing: RefCell<Range<u64>>,
    failed: Cell<bool>,
    forgets: bool,
}

impl Disk {
    /// A new disk, which this thread can use as long as it exists.
    pub fn new() -> Rc<Self> {
        let disk = Rc::new(Self {
            directory: tempfile::tempdir().unwrap(),
            inodes: RefCell::default(),
            removed: RefCell::default(),
            changes: Cell::new(0),
            stop_at: Cell::new(u64::MAX),
            stopped: Cell::new(false),
            failing: RefCell::new(0..0),
            failed: Cell::new(false),
            forgets: FORGETS.get(),
        });
        vfs::mount(&disk);
        disk
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Puts a file there, as another program does.
    pub fn put(&self, path: &Path, content: Vec<u8>) {
        drop(fs::remove_file(path));
        fs::write(path, [0]).unwrap();
        let number = fs::metadata(path).unwrap().ino();
        self.inodes.borrow_mut().insert(number, Rc::new(RefCell::new(Inode::with(content))));
    }

    /// The files of a ledger as they are at one moment, by what is appended to its name.
    pub fn files(&self, path: &Path) -> Files {
        ["", "-wal"].map(|addition| (addition, self.read(&beside(path, addition)))).to_vec()
    }

    /// Puts these files in the place of those that are there.
    pub fn put_files(&self, path: &Path, files: Files) {
        for (addition, content) in files {
            drop(fs::remove_file(beside(path, addition)));
            if !content.is_empty() {
                self.put(&beside(path, addition), content);
            }
        }
    }

    /// Reads a file, as `cp` does.
    pub fn read(&self, path: &Path) -> Vec<u8> {
        self.find(path).map(|inode| inode.borrow().content.clone()).unwrap_or_default()
    }

    pub fn find(&self, path: &Path) -> Option<Rc<RefCell<Inode>>> {
        let number = fs::metadata(path).ok()?.ino();
        self.inodes.borrow().get(&number).cloned()
    }

    /// Opens a file, or creates it.
    pub fn open(&self, path: &Path, create: bool) -> Result<Option<Rc<RefCell<Inode>>>, Refusal> {
        if self.stopped.get() {
            return Err(Refusal::Stopped);
        }
        if let Some(inode) = self.find(path) {
            return Ok(Some(inode));
        }
        if !create {
            return Ok(None);
        }
        self.change()?;
        // Not empty: an empty ledger would be one that lost its figures.
        fs::write(path, [0]).unwrap();
        let number = fs::metadata(path).unwrap().ino();
        let inode = Rc::new(RefCell::new(Inode::default()));
        self.inodes.borrow_mut().insert(number, Rc::clone(&inode));
        Ok(Some(inode))
    }

    /// Removes a file. Returns whether there was one.
    pub fn remove(&self, path: &Path, synced: bool) -> Result<bool, Refusal> {
        let Ok(metadata) = fs::metadata(path) else { return Ok(false) };
        self.change()?;
        fs::remove_file(path).unwrap();
        if let Some(inode) = self.inodes.borrow_mut().remove(&metadata.ino())
            && !synced
        {
            self.removed.borrow_mut().push((path.to_owned(), inode));
        }
        Ok(true)
    }

    /// Called before each change.
    pub fn change(&self) -> Result<(), Refusal> {
        if self.stopped.get() {
            return Err(Refusal::Stopped);
        }
        self.changes.set(self.changes.get() + 1);
        if self.changes.get() >= self.stop_at.get() {
            self.stopped.set(true);
            return Err(Refusal::Stopped);
        }
        if self.failing.borrow().contains(&self.changes.get()) {
            self.failed.set(true);
            return Err(Refusal::Failed);
        }
        Ok(())
    }

    /// How often something was changed.
    pub fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// Lets some changes fail from now on; 1 is the next one.
    pub fn fail_after(&self, changes: u64, count: u64) {
        let first = self.changes.get() + changes;
        *self.failing.borrow_mut() = first..first + count;
    }

    /// Works again. Returns whether something failed.
    pub fn heal(&self) -> bool {
        *self.failing.borrow_mut() = 0..0;
        self.failed.take()
    }

    /// A sync also writes the directory, as on every file system with a journal.
    pub fn sync(&self, inode: &RefCell<Inode>) -> Result<(), Refusal> {
        self.change()?;
        if self.forgets {
            return Ok(());
        }
        inode.borrow_mut().sync();
        self.removed.borrow_mut().clear();
        Ok(())
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Lets everything stop at the change with this number from now on; 1 is the next one.
    pub fn stop_after(&self, changes: u64) {
        self.stop_at.set(self.changes.get() + changes);
    }

    pub fn never_stop(&self) {
        self.stop_at.set(u64::MAX);
    }

    /// Goes on. All processes that used the disk must be gone.
    pub fn restart(&self) {
        self.stopped.set(false);
        self.stop_at.set(u64::MAX);
        for inode in self.inodes.borrow().values() {
            let mut inode = inode.borrow_mut();
            inode.locks = Locks::default();
            inode.shared_memory.clear();
        }
    }

    /// Loses some of what was not synced.
    pub fn lose_power(&self, random: &mut Random) {
        let keeps = [Keeps::Nothing, Keeps::Half, Keeps::All][random.below(3)];
        for (path, inode) in self.removed.borrow_mut().drain(..) {
            let has_place = path.parent().is_some_and(Path::exists);
            if has_place && !path.exists() && keeps.this(random) {
                inode.borrow_mut().lose(random, keeps);
                fs::write(&path, [0]).unwrap();
                self.inodes.borrow_mut().insert(fs::metadata(&path).unwrap().ino(), inode);
            }
        }
        for entry in fs::read_dir(self.path()).and_then(Iterator::collect::<io::Result<Vec<_>>>).unwrap() {
            let Some(inode) = self.find(&entry.path()) else { continue };
            if inode.borrow().is_linked || keeps.this(random) {
                inode.borrow_mut().lose(random, keeps);
            } else {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}
