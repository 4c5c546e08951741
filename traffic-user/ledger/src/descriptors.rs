//! Reading files that SQLite has open.
//!
//! POSIX locks belong to a table of file descriptors. Whoever closes any descriptor of a file releases all locks that
//! its table holds on the file, SQLite's as well: another process then takes itself for the only one, and begins the log's
//! index anew under the first. A thread with a table of its own has no locks to lose.

use std::thread;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs `read` in a thread with a table of file descriptors of its own. `None` if there can be none.
///
/// What it returns must hold no file descriptor: outside that thread its number means another file, or none.
pub(crate) fn with_own_descriptors<T: Send>(read: impl FnOnce() -> Option<T> + Send) -> Option<T> {
    thread::scope(|scope| {
        let own = thread::Builder::new().spawn_scoped(scope, || {
            // SAFETY: the callers of this crate return bytes and numbers alone, and the thread ends here. Descriptors of
            // other threads stay valid in their own table.
            unsafe { unshare_unsafe(UnshareFlags::FILES) }.ok()?;
            read()
        });
        own.ok()?.join().ok()?
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, fs::File, os::unix::fs::MetadataExt as _};

    use super::*;
    use crate::{testing::*, wal_guard::beside};

    /// How many locks this process has on a file.
    fn locks(path: &std::path::Path) -> usize {
        let (inode, process) = (fs::metadata(path).unwrap().ino(), std::process::id());
        let all = fs::read_to_string("/proc/locks").unwrap();
        let ours = all.lines().filter(|line| {
            let mut fields = line.split_whitespace().skip(4);
            fields.next() == Some(&process.to_string())
                && fields.next().is_some_and(|file| file.ends_with(&format!(":{inode}")))
        });
        ours.count()
    }

    #[test]
    fn reading_a_file_releases_no_lock_on_it() {
        let (mut file, mut node) = (ledger(), Node::balanced(NOON));
        node.traffic("101", 1, [1, 100, 1, 10]).drain(&mut file.ledger);
        for path in [file.ledger.path().to_owned(), beside(file.ledger.path(), "-shm")] {
            let before = locks(&path);
            assert!(before > 0, "{}", path.display());
            assert!(with_own_descriptors(|| File::open(&path).ok().map(drop)).is_some());
            assert_eq!(locks(&path), before, "{}", path.display());
            drop(File::open(&path).unwrap());
            assert_eq!(locks(&path), 0, "a file that is closed in the same table");
        }
    }
}
