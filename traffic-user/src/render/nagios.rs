//! A [`Status`] as the result of a plugin for Nagios, Icinga and what reads the same: a line with the figures to
//! plot, a line for each problem, and an exit status.

use jiff::Timestamp;
use traffic_model::{counted, units::format_duration};

use crate::node::status::{DaemonState, Status};

/// How bad it is. The numbers are the exit statuses that such monitors know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Severity {
    /// All is well.
    Ok = 0,
    /// Somebody should look today.
    Warning = 1,
    /// Traffic is not counted, or not recorded.
    Critical = 2,
    /// The state could not be read.
    Unknown = 3,
}

impl Severity {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// The result for a state that was read.
pub fn result(status: &Status, now: Timestamp) -> (String, Severity) {
    let (daemon, ledger) = (&status.daemon, &status.ledger);
    let unattached = status.attachments.iter().filter(|one| !is_attached(one)).count();
    let runs = daemon.state == DaemonState::Running;
    let mut problems: Vec<&str> = status.problems.iter().map(String::as_str).collect();
    // To stop it is no mistake, but without it nothing is recorded.
    if matches!(daemon.state, DaemonState::Stopped | DaemonState::Absent) {
        problems
            .insert(0, "the daemon is not running: new interfaces are not counted, and nothing is recorded");
    }
    let severity = if !runs || unattached > 0 || daemon.ledger_accepts_writes == Some(false) {
        Severity::Critical
    } else if problems.is_empty() {
        Severity::Ok
    } else {
        Severity::Warning
    };
    let drained = daemon.last_drain.as_ref().and_then(|time| time.parse::<Timestamp>().ok());
    let drained_s =
        drained.map(|time| now.as_second().saturating_sub(time.as_second()).max(0).unsigned_abs());
    let mut figures = vec![
        format!("interfaces={}", status.attachments.len() - unattached),
        format!("not_attached={unattached}"),
        format!("problems={}", problems.len()),
    ];
    figures.extend(drained_s.map(|age| format!("last_drain={age}s")));
    figures.extend(ledger.bytes.map(|bytes| format!("ledger_size={bytes}B")));
    figures.extend(ledger.free_bytes.map(|bytes| format!("ledger_free={bytes}B")));
    figures.extend(ledger.gaps.map(|gaps| format!("gaps={} gap_bytes={}B", gaps.losing_traffic, gaps.bytes)));
    if ledger.last_reading.is_some() {
        figures.push(format!("months_to_close={}", ledger.months_to_close.len()));
    }
    let summary = match problems.first() {
        Some(first) => first.lines().next().unwrap_or_default().to_owned(),
        None => {
            let age = drained_s.map(|age| format_duration(std::time::Duration::from_secs(age)));
            let drained =
                age.map_or_else(|| "not drained yet".to_owned(), |age| format!("drained {age} ago"));
            format!("{} counted, {drained}", counted(status.attachments.len() as u64, "interface"))
        }
    };
    let mut text = format!("TRAFCTL {} - {} | {}\n", severity.word(), plain(&summary), figures.join(" "));
    for problem in problems {
        text += &format!("{}\n", plain(problem));
    }
    (text, severity)
}

/// The result for a state that could not be read.
pub fn unknown(error: &anyhow::Error) -> (String, Severity) {
    let severity = Severity::Unknown;
    (format!("TRAFCTL {} - {}\n", severity.word(), plain(&format!("{error:#}"))), severity)
}

const fn is_attached(one: &crate::node::status::Attachment) -> bool {
    one.incoming.kind.is_some() && one.outgoing.kind.is_some()
}

/// What follows a bar would be read as figures, and another line as another problem.
fn plain(text: &str) -> String {
    text.replace('|', "/").replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::{node::status::Daemon, render::status::tests::sample};

    fn now() -> Timestamp {
        "2026-11-23T12:11:05Z".parse().unwrap()
    }

    /// Everything attached, and a daemon that works.
    fn healthy() -> Status {
        let mut status = sample();
        status.problems.clear();
        status.attachments.retain(is_attached);
        status.daemon.ledger_accepts_writes = Some(true);
        status
    }

    #[test]
    fn what_is_not_counted_or_not_recorded_is_critical() {
        let (text, severity) = result(&sample(), now());
        assert_eq!(severity, Severity::Critical);
        assert_snapshot!(text, @r"
        TRAFCTL CRITICAL - veth101.0: not attached (in) | interfaces=1 not_attached=1 problems=1 last_drain=65s ledger_size=35651584B ledger_free=128849018880B gaps=3 gap_bytes=1500B months_to_close=2
        veth101.0: not attached (in)
        ");
        let mut status = healthy();
        status.daemon.ledger_accepts_writes = Some(false);
        assert_eq!(result(&status, now()).1, Severity::Critical);
        for state in [DaemonState::Absent, DaemonState::Stopped] {
            let daemon = Daemon { state, ..Daemon::default() };
            let (text, severity) = result(&Status { daemon, ..healthy() }, now());
            assert_eq!(severity, Severity::Critical);
            assert!(text.starts_with("TRAFCTL CRITICAL - the daemon is not running: "), "{text}");
        }
    }

    #[test]
    fn another_problem_is_a_warning_and_none_is_ok() {
        let (text, severity) = result(&healthy(), now());
        assert_eq!(severity, Severity::Ok);
        assert!(
            text.starts_with("TRAFCTL OK - 1 interface counted, drained 1m 5s ago | interfaces=1 "),
            "{text}"
        );
        let mut status = healthy();
        status.problems = vec!["a | b\nc".to_owned(), "d".to_owned()];
        let (text, severity) = result(&status, now());
        assert_eq!(severity, Severity::Warning);
        assert!(
            text.starts_with("TRAFCTL WARNING - a / b | interfaces=1 not_attached=0 problems=2 "),
            "{text}"
        );
        assert!(text.ends_with("\na / b; c\nd\n"), "{text}");
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let error = anyhow::anyhow!("no such file").context("cannot open the maps");
        let (text, severity) = unknown(&error);
        assert_eq!(
            (text.as_str(), severity as u8),
            ("TRAFCTL UNKNOWN - cannot open the maps: no such file\n", 3)
        );
    }
}
