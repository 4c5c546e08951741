//! Whether there will be figures to bill from: the ledger, the room on its disk, the months that are not
//! closed, and what is missing in them.

use std::{
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use serde::Serialize;
use traffic_ledger::{Ledger, OpenGaps, Standing};
use traffic_model::units::format_bytes;
use traffic_quota::ProblemKind;

use super::problem::Problem;
use crate::drain::{LedgerLook, ledger_path};

/// With less room than a quarter of the ledger's size, within these limits, drains are about to fail. Nothing
/// is lost until the node boots again, but nobody can be billed either.
const LITTLE_ROOM: RangeInclusive<u64> = 4 << 20..=64 << 20;

/// The ledger as a file, and as what bills come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LedgerStatus {
    /// Whether the configuration has one.
    pub configured: bool,
    /// Bytes of the file and of its write-ahead log; `null` while there is none.
    pub bytes: Option<u64>,
    /// Bytes that are free on its disk for everybody.
    pub free_bytes: Option<u64>,
    /// Time of the last reading in it.
    pub last_reading: Option<String>,
    /// Months that are over and not closed, the oldest first.
    pub months_to_close: Vec<String>,
    /// The running month.
    pub running_month: Option<String>,
    /// Gaps in these months that lost traffic; `null` if the ledger cannot be read.
    pub gaps: Option<GapsStatus>,
}

/// Gaps in the months that are not closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GapsStatus {
    /// How many lost traffic.
    pub losing_traffic: usize,
    /// How many of them are of unknown size.
    pub of_unknown_size: usize,
    /// Bytes that the others lost, both directions, with link-layer headers.
    pub bytes: u64,
}

impl From<OpenGaps> for GapsStatus {
    fn from(gaps: OpenGaps) -> Self {
        Self { losing_traffic: gaps.losing, of_unknown_size: gaps.of_unknown_size, bytes: gaps.bytes }
    }
}

/// What a look at the ledger found.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub status: LedgerStatus,
    /// The pending owners in it.
    pub pending_ids: Vec<String>,
    pub problems: Vec<Problem>,
}

/// Looks at the ledger and its disk.
pub(super) fn look(state_dir: &Path, configured: bool) -> Look {
    let mut look = Look { status: LedgerStatus { configured, ..LedgerStatus::default() }, ..Look::default() };
    if !configured {
        return look;
    }
    // The log is beside the file itself, wherever a link leads.
    let path = ledger_path(state_dir);
    let path = fs::canonicalize(&path).unwrap_or(path);
    let size = |path: &Path| fs::metadata(path).map(|metadata| metadata.len()).ok();
    let log = {
        let mut name = path.clone().into_os_string();
        name.push("-wal");
        PathBuf::from(name)
    };
    look.status.bytes = size(&path).map(|bytes| bytes + size(&log).unwrap_or_default());
    let directory = path.parent().unwrap_or(state_dir);
    look.status.free_bytes =
        rustix::fs::statvfs(directory).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    look.problems.extend(look.status.little_room().map(|free| {
        let text = format!(
            "only {} are free for the ledger in {}: drains fail once the disk is full; make room there",
            format_bytes(free, true),
            directory.display()
        );
        Problem { kind: ProblemKind::Disk, text }
    }));
    // One that does not exist yet is made at the first drain. Who may not read it sees the counters alone.
    if rustix::fs::access(&path, rustix::fs::Access::READ_OK).is_err() {
        return look;
    }
    let looked = match LedgerLook::kept(&path, state_dir) {
        Some(kept) => Ok(kept),
        None => Ledger::open_read_only(&path).and_then(|ledger| LedgerLook::at(&ledger)),
    };
    match looked {
        Ok(LedgerLook { standing, pending_ids }) => {
            look.pending_ids = pending_ids;
            look.status.stands(standing);
        }
        Err(error) => {
            let text = format!("the ledger cannot be read: {error}");
            look.problems.push(Problem { kind: ProblemKind::Drains, text });
        }
    }
    look
}

impl LedgerStatus {
    fn stands(&mut self, standing: Standing) {
        self.last_reading = standing.last_reading.map(|time| time.to_string());
        for month in standing.open_months {
            match month.complete {
                true => self.months_to_close.push(month.name),
                false => self.running_month = Some(month.name),
            }
        }
        self.gaps = Some(standing.gaps.into());
    }

    /// Free bytes, if they are few.
    fn little_room(&self) -> Option<u64> {
        let enough = (self.bytes.unwrap_or_default() / 4).clamp(*LITTLE_ROOM.start(), *LITTLE_ROOM.end());
        self.free_bytes.filter(|&free| free < enough)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use traffic_ledger::OpenMonth;

    use super::*;

    #[test]
    fn months_are_to_be_closed_once_they_are_complete() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let month = |name: &str, start, complete| OpenMonth {
            name: name.to_owned(),
            start: at(start),
            end: at(start + 100),
            complete,
        };
        let mut status = LedgerStatus::default();
        status.stands(Standing {
            last_reading: Some(at(250)),
            open_months: vec![month("a", 0, true), month("b", 100, true), month("c", 200, false)],
            gaps: OpenGaps { losing: 3, of_unknown_size: 1, bytes: 5 },
        });
        assert_eq!(status.months_to_close, ["a", "b"]);
        assert_eq!(status.running_month.as_deref(), Some("c"));
        assert_eq!(status.last_reading.as_deref(), Some("1970-01-01T00:04:10Z"));
        assert_eq!(status.gaps, Some(GapsStatus { losing_traffic: 3, of_unknown_size: 1, bytes: 5 }));
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_a_problem_and_a_missing_ledger_is_none() {
        let directory = tempfile::tempdir().unwrap();
        for (bytes, enough) in [(0, 4 << 20), (40 << 20, 10 << 20), (1 << 40, 64 << 20)] {
            let of =
                |free| LedgerStatus { bytes: Some(bytes), free_bytes: Some(free), ..LedgerStatus::default() };
            assert_eq!(of(enough).little_room(), None);
            assert_eq!(of(enough - 1).little_room(), Some(enough - 1));
        }
        let look = look(directory.path(), true);
        assert_eq!((look.status.bytes, look.problems), (None, Vec::new()));
        assert!(look.status.free_bytes.is_some());
    }

    #[test]
    fn a_ledger_that_is_none_is_a_problem() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ledger.sqlite"), "no ledger at all").unwrap();
        fs::write(directory.path().join("ledger.sqlite-wal"), "log").unwrap();
        let look = look(directory.path(), true);
        assert_eq!(look.status.bytes, Some(16 + 3));
        assert_eq!(look.problems.len(), 1, "{:?}", look.problems);
        assert!(look.problems[0].text.starts_with("the ledger cannot be read: "), "{:?}", look.problems);
    }
}
