//! Whether drains can move the ledger's log into its main file.
//!
//! A drain is safe in the log, but whoever copies the main file alone lacks it, and the log grows. Only a reader that does
//! not end keeps it there: a stopped report, or another program that has the file open in a transaction.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::drain;

/// Readers of less than this are no problem: a report takes as long.
const LONG: Duration = Duration::from_secs(5);

/// The results of drains.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// The first drain that was left in the log, of those since the last that was moved.
    left_since: Option<Instant>,
}

impl Checkpoints {
    /// Notes a drain. What is wrong if a reader has kept drains in the log for long.
    pub(super) fn problem(&mut self, is_moved: bool, state_dir: &Path) -> Option<String> {
        if is_moved {
            self.left_since = None;
            return None;
        }
        let since = *self.left_since.get_or_insert_with(Instant::now);
        (since.elapsed() >= LONG).then(|| text(state_dir))
    }
}

/// The same at each drain, so that it is logged once.
fn text(state_dir: &Path) -> String {
    let path = drain::ledger_path(state_dir);
    let path = path.display();
    format!(
        "cannot move the log {path}-wal into {path}, because another process has been reading the ledger for long: a copy \
         of {path} alone lacks the last drains, and the log grows; end the reader (`fuser {path}` shows who has it open), \
         and copy the ledger with `trafctl ledger backup`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_reader_is_a_problem() {
        let mut checkpoints = Checkpoints::default();
        let directory = Path::new("/state");
        assert_eq!(checkpoints.problem(false, directory), None);
        assert_eq!(checkpoints.problem(false, directory), None, "a short reader");
        checkpoints.left_since = Instant::now().checked_sub(LONG);
        let problem = checkpoints.problem(false, directory).unwrap();
        assert!(problem.contains("/state/ledger.sqlite-wal"), "{problem}");
        assert_eq!(checkpoints.problem(false, directory), Some(problem));
        assert_eq!(checkpoints.problem(true, directory), None);
        assert_eq!(checkpoints.problem(false, directory), None, "it begins anew");
    }
}
