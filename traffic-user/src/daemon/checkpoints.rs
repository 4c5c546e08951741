//! Whether drains can move the ledger's log into its main file.
//!
//! A drain is safe in the log, but whoever copies the main file alone lacks it, and the log grows. Mostly a reader that does
//! not end keeps it there: a stopped report, or another program that has the file open in a transaction. The disk may also
//! fail.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use traffic_ledger::LedgerError;

/// Readers of less than this are no problem: a report takes as long.
const LONG: Duration = Duration::from_secs(5);

/// The results of drains.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// The first drain that was left in the log, of those since the last that was moved.
    left_since: Option<Instant>,
}

impl Checkpoints {
    /// Notes a drain. What is wrong if drains have been left in the log for long: `again` tries once more, and has the
    /// reason.
    pub(super) fn problem(
        &mut self,
        is_moved: bool,
        path: &Path,
        again: impl FnOnce() -> Result<bool, LedgerError>,
    ) -> Option<String> {
        let since = *self.left_since.get_or_insert_with(Instant::now);
        let is_long = !is_moved && since.elapsed() >= LONG;
        let result = if is_long { again() } else { Ok(is_moved) };
        if matches!(result, Ok(true)) {
            self.left_since = None;
        }
        if is_long { text(path, result) } else { None }
    }
}

/// The same at each drain, so that it is logged once. `None` if the log was moved.
fn text(path: &Path, result: Result<bool, LedgerError>) -> Option<String> {
    let path = path.display();
    let (reason, advice) = match result {
        Ok(true) => return None,
        Ok(false) => (
            "another process has been reading the ledger for long".to_owned(),
            format!("end the reader (`fuser {path}` shows who has it open)"),
        ),
        Err(error) => (format!("{:#}", anyhow::Error::new(error)), "correct the reason".to_owned()),
    };
    Some(format!(
        "cannot move the log {path}-wal into {path}, because {reason}: a copy of {path} alone lacks the last drains, and the \
         log grows; {advice}, and copy the ledger with `trafctl ledger backup`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(
        checkpoints: &mut Checkpoints,
        is_moved: bool,
        again: Result<bool, LedgerError>,
    ) -> Option<String> {
        checkpoints.problem(is_moved, Path::new("/state/ledger.sqlite"), || again)
    }

    #[test]
    fn only_what_lasts_is_a_problem() {
        let mut checkpoints = Checkpoints::default();
        assert_eq!(problem(&mut checkpoints, false, Ok(false)), None);
        assert_eq!(problem(&mut checkpoints, false, Ok(false)), None, "a short reader");
        checkpoints.left_since = Instant::now().checked_sub(LONG);
        let told = problem(&mut checkpoints, false, Ok(false)).unwrap();
        assert!(told.contains("/state/ledger.sqlite-wal") && told.contains("end the reader"), "{told}");
        assert_eq!(problem(&mut checkpoints, false, Ok(false)), Some(told));
        assert_eq!(problem(&mut checkpoints, true, Ok(false)), None);
        assert_eq!(problem(&mut checkpoints, false, Ok(false)), None, "it begins anew");
        checkpoints.left_since = Instant::now().checked_sub(LONG);
        assert_eq!(problem(&mut checkpoints, false, Ok(true)), None, "the reader has just ended");
        assert_eq!(problem(&mut checkpoints, false, Ok(false)), None, "it begins anew");
    }

    #[test]
    fn a_disk_that_fails_is_not_called_a_reader() {
        let mut checkpoints = Checkpoints { left_since: Instant::now().checked_sub(LONG) };
        let full = LedgerError::Log {
            path: "/state/ledger.sqlite-log-of".into(),
            source: std::io::ErrorKind::StorageFull.into(),
        };
        let told = problem(&mut checkpoints, false, Err(full)).unwrap();
        assert!(told.contains("beside the ledger: no storage space") && !told.contains("reader"), "{told}");
    }
}
