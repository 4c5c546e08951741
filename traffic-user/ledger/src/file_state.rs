//! Whether a ledger has changed since somebody looked at it, told without opening it.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use traffic_model::hex;

use crate::{descriptors::with_own_descriptors, wal_guard::beside};

/// Length of the header of the log's index (`WalIndexHdr` of SQLite's file format). There are two copies of it.
const HEADER: usize = 48;
/// Where the header says that it is complete.
const IS_INIT: usize = 12;

/// A state of a ledger's file and of its log. Each transaction changes it, and each move of the log into the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FileState {
    device: u64,
    inode: u64,
    bytes: u64,
    changed_s: i64,
    changed_ns: i64,
    /// The header of the log's index, which names the last transaction: hexadecimal.
    index: String,
}

impl FileState {
    /// The present state; `None` while nobody has the ledger open, or while it is being changed.
    pub fn of(path: &Path) -> Option<Self> {
        with_own_descriptors(|| Self::read(path))
    }

    fn read(path: &Path) -> Option<Self> {
        let index = header(path)?;
        let file = fs::metadata(path).ok()?;
        let state = Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            changed_s: file.mtime(),
            changed_ns: file.mtime_nsec(),
            index: hex(&index),
        };
        // Nothing was moved from the log into the file meanwhile.
        (header(path)? == index).then_some(state)
    }
}

/// The header of the log's index, if it is whole. Nothing waits for a FIFO in its place.
fn header(path: &Path) -> Option<[u8; HEADER]> {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::CLOEXEC).bits()).ok()?;
    let index = File::options().read(true).custom_flags(flags).open(beside(path, "-shm"));
    let mut copies = [[0; HEADER]; 2];
    index.ok()?.read_exact(copies.as_flattened_mut()).ok()?;
    let [first, second] = copies;
    (first == second && first[IS_INIT] == 1).then_some(first)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::testing::*;

    #[test]
    fn a_fifo_in_the_place_of_the_index_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.sqlite");
        fs::write(&path, "").unwrap();
        mknodat(CWD, beside(&path, "-shm"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(FileState::of(&path), None);
    }

    #[test]
    fn each_change_is_another_state_and_reading_is_none() {
        let (mut file, mut node) = (ledger(), Node::balanced(NOON));
        let path = file.ledger.path().to_owned();
        let state = || FileState::of(&path).unwrap();
        let mut seen = vec![state()];
        let mut changed = |what: &str| {
            let now = state();
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        node.traffic("101", 1, [1, 100, 1, 10]).drain(&mut file.ledger);
        changed("a drain");
        node.traffic("101", 1, [1, 100, 1, 10]).pass(60).drain(&mut file.ledger);
        changed("another drain");
        file.ledger.store_class_table(&node.snapshot().class_table, b"1 10.0.0.0/8\n").unwrap();
        changed("a class table");
        file.ledger.retire("101", node.wall).unwrap();
        changed("a container");
        file.ledger.standing().unwrap();
        assert_eq!(state(), *seen.last().unwrap(), "reading");
        drop(file.ledger);
        assert_eq!(FileState::of(&path), None, "nobody has it open");
        assert_eq!(FileState::of(&path.with_extension("none")), None);
    }
}
