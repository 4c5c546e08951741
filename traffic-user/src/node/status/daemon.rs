//! The daemon's part of the status: whether it lives, and how its optional parts are.

use std::{path::Path, time::Duration};

use serde::Serialize;
use traffic_model::units::format_duration;
use traffic_quota::ProblemKind;

use super::problem::{Problem, kind_of_part, of_kind};
use crate::health::{self, Component, DaemonRecord, Liveness, Part, State, Work};

/// Work that takes longer than this keeps interfaces and drains waiting, which is a problem.
const LONG: u64 = 30;

/// The daemon of these counters.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Daemon {
    /// Whether it lives.
    pub state: DaemonState,
    /// Its process id, in its own namespace. This and the following fields are `null` if it never ran since
    /// the last boot.
    pub pid: Option<u32>,
    /// Version of its program.
    pub trafctl_version: Option<String>,
    /// When it started.
    pub started: Option<String>,
    /// When it last reported.
    pub reported: Option<String>,
    /// What it did then; `null` if nothing.
    pub work: Option<Work>,
    /// When it last wrote the counters into the ledger; `null` if not since it started.
    pub last_drain: Option<String>,
    /// Drains that failed since it started.
    pub drain_failures: u64,
    /// Whether the ledger accepted the last write; `null` without a ledger, or if the daemon does not live.
    pub ledger_accepts_writes: Option<bool>,
    /// Its optional parts.
    pub components: Vec<Component>,
}

/// Whether the daemon lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DaemonState {
    /// It runs.
    Running,
    /// Its process exists, but it does not report.
    Silent,
    /// It ended without being stopped.
    Dead,
    /// It was stopped.
    Stopped,
    /// None has run.
    #[default]
    Absent,
}

/// Reads what the daemon published beside the pins below `root`. Returns it with the problems that follow.
pub(super) fn gather(root: &Path) -> (Daemon, Vec<Problem>) {
    health::read(root).map_or_else(Default::default, |(record, liveness)| described(record, liveness))
}

fn described(record: DaemonRecord, liveness: Liveness) -> (Daemon, Vec<Problem>) {
    let pid = record.pid;
    let mut problems = Vec::new();
    let state = match liveness {
        Liveness::Alive => DaemonState::Running,
        Liveness::Silent(age) => {
            let age = format_duration(Duration::from_secs(age.as_secs()));
            problems.push(format!(
                "the daemon (process {pid}) has not reported for {age}: nothing is drained, and new interfaces \
                 are not attached; restart it"
            ));
            DaemonState::Silent
        }
        Liveness::Dead => {
            problems.push(format!(
                "the daemon (process {pid}) ended at some time after {} without being stopped; start `trafctl \
                 run` again",
                record.written
            ));
            DaemonState::Dead
        }
        Liveness::Stopped => DaemonState::Stopped,
    };
    let lives = matches!(liveness, Liveness::Alive | Liveness::Silent(_));
    if let Some(work) = record.work.as_ref().filter(|work| lives && work.seconds > LONG) {
        problems.push(format!(
            "the daemon has been busy with {} for {} s: drains and new interfaces wait for it",
            work.doing, work.seconds
        ));
    }
    let mut problems: Vec<Problem> = of_kind(ProblemKind::Daemon, problems).collect();
    let failing = record.components.iter().filter(|part| lives && part.state == State::Failing);
    problems.extend(failing.map(|part| {
        let tries = if part.failures == 1 { "time" } else { "times" };
        let error = part.last_error.as_deref().unwrap_or("no reason is known");
        // After an error of several lines, it would read as part of the last one.
        let end = if error.contains('\n') { "\n  " } else { " " };
        let text =
            format!("{}: {error}{end}(failed {} {tries} since {})", part.name, part.failures, part.since);
        Problem { kind: kind_of_part(&part.name), text }
    }));
    let ledger = record.components.iter().find(|part| part.name == Part::Ledger.name());
    let ledger_accepts_writes =
        ledger.filter(|part| lives && part.state != State::Disabled).map(|part| part.state == State::Ok);
    let daemon = Daemon {
        state,
        pid: Some(pid),
        trafctl_version: Some(record.trafctl_version),
        started: Some(record.started),
        reported: Some(record.written),
        work: record.work,
        last_drain: record.last_drain,
        drain_failures: record.drain_failures,
        ledger_accepts_writes,
        components: record.components,
    };
    (daemon, problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Components, Publisher, Report};

    /// What a daemon published whose API and ledger fail, and which is busy for this long.
    fn record(seconds: u64) -> DaemonRecord {
        let pins = tempfile::tempdir().unwrap();
        let components = Components::default();
        components.works(Part::FileWatch);
        components.failed_because(Part::Api, "the port is in use");
        components.failed_because(Part::Ledger, "the disk is full");
        components.failed_because(Part::Ledger, "the disk is full");
        let report = Report {
            work: Some(Work { doing: "draining".to_owned(), seconds }),
            last_drain: Some("2026-11-28T12:00:00Z".to_owned()),
            drain_failures: 5,
            components: components.read(),
        };
        Publisher::new(pins.path()).unwrap().publish(report, false).unwrap();
        health::read(pins.path()).unwrap().0
    }

    #[test]
    fn each_failing_part_of_a_living_daemon_is_a_problem() {
        let (daemon, problems) = described(record(30), Liveness::Alive);
        assert_eq!((daemon.state, daemon.drain_failures), (DaemonState::Running, 5));
        assert_eq!(daemon.ledger_accepts_writes, Some(false));
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!([problems[0].kind, problems[1].kind], [ProblemKind::Other, ProblemKind::Drains]);
        assert!(
            problems[0].text.starts_with("api: the port is in use (failed 1 time since 20"),
            "{problems:?}"
        );
        assert!(
            problems[1].text.starts_with("ledger: the disk is full (failed 2 times since 20"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_daemon_that_is_dead_silent_or_stuck_is_a_problem() {
        let (daemon, problems) = described(record(31), Liveness::Dead);
        // What it last knew does not count any more.
        assert_eq!((daemon.state, daemon.ledger_accepts_writes), (DaemonState::Dead, None));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].text.contains("without being stopped; start `trafctl run`"), "{problems:?}");
        let (_, problems) = described(record(1), Liveness::Silent(Duration::from_secs(95)));
        assert!(problems[0].text.contains("has not reported for 1m 35s"), "{problems:?}");
        let (_, problems) = described(record(31), Liveness::Alive);
        assert!(problems[0].text.contains("busy with draining for 31 s"), "{problems:?}");
        let (daemon, problems) = described(record(1), Liveness::Stopped);
        assert_eq!((daemon.state, problems), (DaemonState::Stopped, Vec::new()));
        let (daemon, problems) = gather(Path::new("/nonexistent"));
        assert_eq!((daemon.state, daemon.pid, problems), (DaemonState::Absent, None, Vec::new()));
    }
}
