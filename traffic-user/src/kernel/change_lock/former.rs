//! A lock that former versions took on a directory or file which readers could open. It is taken as well, so
//! that an upgrade under a running daemon is safe. Held by another user, it is ignored.

use std::{
    fs::{self, File, Permissions, TryLockError},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    sync::Once,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// Time between two attempts.
const INTERVAL: Duration = Duration::from_millis(2);
/// How long a holder is waited for that cannot be identified. A change of a former version takes less, except
/// at its start and while it loads classes.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often it is looked for.
const UNKNOWN_LOOKS: u32 = 20;
/// Permission to read a file or to list a directory, for group and others. Without it, they cannot open it.
const READABLE_BY_OTHERS: u32 = 0o044;

/// What became of the lock.
#[derive(Debug)]
pub enum Former {
    /// No former version holds it, and none can until this is dropped.
    Acquired(File),
    /// Another user holds it, who has no part in changes.
    Ignored,
    /// A former version holds it.
    Held,
}

/// Locks an open directory or file, and takes the permission to read it from others. The caller holds the
/// lock of this version. `path` is its path.
///
/// # Errors
/// When its mode cannot be set or it cannot be locked.
pub fn acquire(file: File, path: &Path, deadline: Instant) -> anyhow::Result<Former> {
    let what = || format!("cannot lock {}", path.display());
    let metadata = file.metadata().with_context(what)?;
    if metadata.mode() & READABLE_BY_OTHERS != 0 {
        // Readers of a directory open what is in it by its path. They need not list it.
        let mode = metadata.mode() & 0o7777 & !READABLE_BY_OTHERS;
        file.set_permissions(Permissions::from_mode(mode)).with_context(what)?;
    }
    // The kernel shows its locks in pieces, and those that others take meanwhile can hide one: only a holder
    // that stays unknown is.
    let (mut unknown, mut unknown_since) = (0, Instant::now());
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Former::Acquired(file)),
            Err(TryLockError::Error(error)) => return Err(error).with_context(what),
            Err(TryLockError::WouldBlock) => {}
        }
        let now = Instant::now();
        match holder(&metadata) {
            Holder::Other => return Ok(ignored(path)),
            Holder::Owner => (unknown, unknown_since) = (0, now),
            Holder::Unknown => unknown += 1,
        }
        if unknown >= UNKNOWN_LOOKS && now >= unknown_since + PATIENCE {
            return Ok(ignored(path));
        }
        if unknown == 0 && now >= deadline {
            return Ok(Former::Held);
        }
        thread::sleep(INTERVAL);
    }
}

fn ignored(path: &Path) -> Former {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            "another user holds a lock on {}; it is ignored, because only former versions of trafctl need it",
            path.display()
        );
    });
    Former::Ignored
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// A process of the user who owns the file.
    Owner,
    /// A process of another user.
    Other,
    /// It released the lock, ended, or is in another PID namespace.
    Unknown,
}

fn holder(file: &fs::Metadata) -> Holder {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let users = holders(&locks, file.dev(), file.ino()).map(|process| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        Some(is_user(&status, file.uid()))
    });
    users.fold(Holder::Unknown, |so_far, is_owner| match (so_far, is_owner) {
        (Holder::Owner, _) | (_, Some(true)) => Holder::Owner,
        (_, Some(false)) => Holder::Other,
        (_, None) => so_far,
    })
}

/// Ids of the processes that hold an flock(2) on a file, in the text of `/proc/locks`.
fn holders(locks: &str, device: u64, inode: u64) -> impl Iterator<Item = u32> {
    let file = format!("{:02x}:{:02x}:{inode}", libc::major(device), libc::minor(device));
    // 3: FLOCK  ADVISORY  WRITE 1234 00:2a:5678 0 EOF; a second word "->" marks one that waits.
    locks.lines().filter_map(move |line| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, process, locked, ..] if locked == file => process.parse().ok(),
            _ => None,
        }
    })
}

/// Whether a process with this `/proc/PID/status` runs as this user, really and effectively. The owner of its
/// directory in `/proc` does not show that: it is root for every process that cannot be dumped.
fn is_user(status: &str, user: u32) -> bool {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    let mut ids = ids.split_whitespace().map(str::parse);
    [ids.next(), ids.next()].iter().all(|id| *id == Some(Ok(user)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "\
        1: FLOCK  ADVISORY  WRITE 4711 00:2a:5678 0 EOF\n\
        1: -> FLOCK  ADVISORY  WRITE 4712 00:2a:5678 0 EOF\n\
        2: POSIX  ADVISORY  WRITE 4713 00:2a:5678 128 128\n\
        3: FLOCK  ADVISORY  READ 4714 00:2a:567 0 EOF\n\
        4: FLOCK  ADVISORY  READ 4715 103:02:5678 0 EOF\n";

    #[test]
    fn only_holders_of_an_flock_on_this_file_are_found() {
        let found =
            |major, minor, inode| holders(LOCKS, libc::makedev(major, minor), inode).collect::<Vec<_>>();
        assert_eq!(found(0, 0x2a, 5678), [4711]);
        assert_eq!(found(0, 0x2a, 567), [4714]);
        assert_eq!(found(0x103, 2, 5678), [4715]);
        assert_eq!(found(0, 0x2b, 5678), [0; 0]);
    }

    #[test]
    fn a_process_is_its_users_only_by_both_ids() {
        let status = |ids: &str| format!("Name:\tflock\nUid:\t{ids}\nGid:\t0\t0\t0\t0\n");
        assert!(is_user(&status("0\t0\t0\t0"), 0));
        assert!(!is_user(&status("1000\t0\t0\t0"), 0), "a set-uid program of another user");
        assert!(!is_user(&status("1000\t1000\t1000\t1000"), 0));
        assert!(is_user(&status("1000\t1000\t1000\t1000"), 1000));
        assert!(!is_user("Name:\tflock\n", 0));
    }
}
