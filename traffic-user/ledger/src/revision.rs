//! The state and the size of a ledger's files, without opening them.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use crate::wal_guard;

/// Names the present state of a ledger: every write gives it another name. So an answer that was made from it is
/// still right as long as the name is the same.
///
/// Every commit appends to the log or writes it anew, and every checkpoint writes the main file, so sizes and
/// times show it. The time of the main file's last change cannot be set back, as a copy could do with that of its
/// modification. A name is only good if it was read before the answer was made.
///
/// # Errors
/// When there is no such file, or it cannot be looked at.
pub fn revision(ledger: &Path) -> io::Result<String> {
    let ledger = wal_guard::resolve(ledger);
    let log = match fs::metadata(wal_guard::beside(&ledger, "-wal")) {
        // Every reader touches the log: it makes an empty one, and as root it sets its owner again, which changes
        // nothing but the time of the last change. So the log has the time of its last modification instead.
        Ok(log) if log.len() > 0 => name(&log, (log.mtime(), log.mtime_nsec())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => "none".to_owned(),
    };
    let file = fs::metadata(&ledger)?;
    Ok(format!("{} {log}", name(&file, (file.ctime(), file.ctime_nsec()))))
}

/// Bytes of a ledger's file and its log.
///
/// # Errors
/// When there is no such file, or it cannot be looked at.
pub fn file_bytes(ledger: &Path) -> io::Result<u64> {
    let ledger = wal_guard::resolve(ledger);
    let log = fs::metadata(wal_guard::beside(&ledger, "-wal")).map_or(0, |file| file.len());
    Ok(fs::metadata(&ledger)?.len() + log)
}

fn name(file: &fs::Metadata, (seconds, nanoseconds): (i64, i64)) -> String {
    format!("{}-{}-{}-{seconds}.{nanoseconds:09}", file.dev(), file.ino(), file.size())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ledger, testing::*};

    #[test]
    fn every_drain_gives_another_name_and_reading_does_not() {
        let mut file = ledger();
        let path = file.ledger.path().to_owned();
        let mut node = Node::new(NOON);
        let mut names = vec![revision(&path).unwrap()];
        for _ in 0..20 {
            node.traffic("101", 1, [1, 100, 2, 200]).pass(60).drain(&mut file.ledger);
            names.push(revision(&path).unwrap());
            Ledger::open_beside_writer(&path).unwrap().containers().unwrap();
            assert_eq!(names.last(), Some(&revision(&path).unwrap()), "after a reader");
        }
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(revision(Path::new("/nonexistent/ledger")).is_err());
    }

    #[test]
    fn readers_of_a_ledger_that_nobody_writes_leave_its_name() {
        let mut file = ledger();
        Node::new(NOON).traffic("101", 1, [1, 100, 2, 200]).pass(60).drain(&mut file.ledger);
        let path = file.ledger.path().to_owned();
        // Something is only in the log.
        from_outside(&file.ledger, "UPDATE container SET since = since + 1");
        let with_log = revision(&path).unwrap();
        for _ in 0..3 {
            Ledger::open_read_only(&path).unwrap().containers().unwrap();
            assert_eq!(revision(&path).unwrap(), with_log, "beside a writer");
        }
        let File { dir: _dir, ledger } = file;
        drop(ledger);
        let closed = revision(&path).unwrap();
        for _ in 0..3 {
            Ledger::open_read_only(&path).unwrap().containers().unwrap();
            assert_eq!(revision(&path).unwrap(), closed, "alone");
        }
    }
}
