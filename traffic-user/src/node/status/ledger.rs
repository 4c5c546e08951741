//! Whether there will be figures to bill from: the ledger, the room on its disk, the months that are not
//! closed, and what is missing in them.

use std::{
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Serialize;
use traffic_ledger::{Ledger, OpenGaps, Standing};
use traffic_model::{calendar::Retention, units::format_bytes};
use traffic_quota::ProblemKind;

use super::problem::Problem;
use crate::{
    config::{Config, ShipConfig},
    drain::{LedgerLook, ledger_path},
    shipping::{self, Held},
    time,
};

/// With less room than a quarter of the ledger's size, within these limits, drains are about to fail. Nothing
/// is lost until the node boots again, but nobody can be billed either.
const LITTLE_ROOM: RangeInclusive<u64> = 4 << 20..=64 << 20;
/// How long rows may be kept beyond their retention, in seconds. Each night, what is over is verified.
const MOST_HELD_S: i64 = 2 * 86_400;

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
    /// Five-minute rows that are kept beyond their retention, as stores have not verified them; `null` if there are none.
    pub held: Option<HeldStatus>,
}

/// Five-minute rows that are kept beyond their retention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldStatus {
    /// Start of the oldest.
    pub oldest: String,
    /// When their retention was over.
    pub since: String,
    /// The stores that have not verified them.
    pub stores: Vec<String>,
}

/// What the configuration says of the ledger.
#[derive(Debug)]
pub(super) struct Wanted {
    configured: bool,
    ship: ShipConfig,
    retention: Retention,
}

impl From<&Config> for Wanted {
    fn from(config: &Config) -> Self {
        Self { configured: config.ledger_enabled, ship: config.ship.clone(), retention: config.retention }
    }
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
pub(super) fn look(state_dir: &Path, wanted: &Wanted) -> Look {
    let configured = wanted.configured;
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
    let held = held(&path, state_dir, wanted, time::now_or_end());
    look.status.held = held.as_ref().map(HeldStatus::from);
    look.problems.extend(look.status.little_room().map(|free| {
        let held = look.status.held.as_ref().map_or_else(String::new, |held| {
            format!(
                ", or let {} verify what is kept since {} ([ship] required)",
                held.stores.join(" and "),
                held.since
            )
        });
        let text = format!(
            "only {} are free for the ledger in {}: drains fail once the disk is full; make room there{held}",
            format_bytes(free, true),
            directory.display()
        );
        Problem { kind: ProblemKind::Disk, text }
    }));
    look.problems.extend(held.and_then(|held| held_long(&held, time::now_or_end())));
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

/// What is kept beyond its retention. A ledger that cannot be read is a problem of its own.
fn held(path: &Path, state_dir: &Path, wanted: &Wanted, now: Timestamp) -> Option<Held> {
    if !wanted.ship.required || !path.exists() {
        return None;
    }
    let ledger = Ledger::open_read_only(path).ok()?;
    shipping::held(&ledger, state_dir, (&wanted.ship, wanted.retention), now).ok()?
}

/// Rows that are kept for longer than a comparison each night would explain.
fn held_long(held: &Held, now: Timestamp) -> Option<Problem> {
    let HeldStatus { oldest, since, stores } = held.into();
    (now.as_second() - held.rows.since.as_second() > MOST_HELD_S).then(|| Problem {
        kind: ProblemKind::Other,
        text: format!(
            "the five-minute rows from {oldest} on stay in the ledger, although their retention ended at {since}, as {} has \
             not verified them ([ship] required): `trafctl ship verify` compares, `--repair` ships what differs again",
            stores.join(" and ")
        ),
    })
}

impl From<&Held> for HeldStatus {
    fn from(held: &Held) -> Self {
        Self {
            oldest: held.rows.oldest.to_string(),
            since: held.rows.since.to_string(),
            stores: held.stores.clone(),
        }
    }
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
    use traffic_ledger::{HeldRows, OpenMonth};

    use super::*;

    fn wanted() -> Wanted {
        Wanted { configured: true, ship: ShipConfig::default(), retention: Retention::default() }
    }

    #[test]
    fn rows_that_are_kept_for_long_are_a_problem() {
        let of = |second| Timestamp::from_second(second).unwrap();
        let rows = HeldRows { oldest: of(1_790_424_000), since: of(1_793_448_000) };
        let held = Held { rows, stores: vec!["a".to_owned(), "b".to_owned()] };
        assert_eq!(held_long(&held, of(1_793_448_000 + MOST_HELD_S)), None);
        let problem = held_long(&held, of(1_793_448_001 + MOST_HELD_S)).unwrap();
        assert!(
            problem.text.starts_with(
                "the five-minute rows from 2026-09-26T12:00:00Z on stay in the ledger, although their retention ended at \
                 2026-10-31T12:00:00Z, as a and b has not"
            ),
            "{problem:?}"
        );
    }

    #[test]
    fn what_is_kept_for_a_store_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.sqlite");
        let mut ledger = Ledger::open(&path, traffic_ledger::LedgerConfig::default()).unwrap();
        let mut node = traffic_ledger::testing::Node::balanced(1_790_424_000);
        for _ in 0..50 {
            node.traffic("101", 1, [1, 100, 2, 7]).pass(86_400).drain(&mut ledger);
        }
        drop(ledger);
        let mut wanted = wanted();
        wanted.ship.to.push("postgresql://ship@db/traffic".to_owned());
        assert_eq!(look(directory.path(), &wanted).status.held, None);
        wanted.ship.required = true;
        let look = look(directory.path(), &wanted);
        let held = look.status.held.unwrap();
        assert_eq!(held.stores, ["postgresql://ship@db/traffic"]);
        assert_eq!(held.since, "2026-11-02T00:00:00Z");
        assert!(look.problems.iter().any(|problem| problem.text.contains("retention ended")));
    }

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
        let look = look(directory.path(), &wanted());
        assert_eq!((look.status.bytes, look.problems), (None, Vec::new()));
        assert!(look.status.free_bytes.is_some());
    }

    #[test]
    fn a_ledger_that_is_none_is_a_problem() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ledger.sqlite"), "no ledger at all").unwrap();
        fs::write(directory.path().join("ledger.sqlite-wal"), "log").unwrap();
        let look = look(directory.path(), &wanted());
        assert_eq!(look.status.bytes, Some(16 + 3));
        assert_eq!(look.problems.len(), 1, "{:?}", look.problems);
        assert!(look.problems[0].text.starts_with("the ledger cannot be read: "), "{:?}", look.problems);
    }
}
