//! What calls for attention beyond the problems of a look: what was lost, and what changes from one look to
//! the next. For alerts; `trafctl status` shows the same as figures.

use std::{collections::BTreeMap, time::Duration};

use traffic_common::Fault;
use traffic_ledger::{Gap, GapReason};
use traffic_model::{ContainerId, Snapshot, local_time::LocalTime, units::format_duration};
use traffic_quota::ProblemKind;

use super::{Problem, Status};

/// How old the last reading may be before nothing is recorded any more: several drains, at the least.
const LATE: Duration = Duration::from_mins(5);
/// From which part of a table's places on it is nearly full, in percent.
const NEARLY_FULL: u64 = 90;
/// Tables with fewer places are never nearly full: they are that small on purpose.
const SMALLEST_TABLE: u64 = 20;
/// From which part of what a container sends on its faults are told, in percent.
const MOST_FAULTS: u64 = 5;
/// So many packets in faults from one look to the next are too few to tell.
const FEW_FAULTS: u64 = 1000;

/// The last reading is old, although there should be newer ones.
pub fn late_reading(status: &Status, interval: Duration, now_s: i64) -> Option<Problem> {
    let last = status.ledger.last_reading.as_ref().filter(|_| status.ledger.configured)?;
    let last_s = last.parse::<jiff::Timestamp>().ok()?.as_second();
    let age = Duration::from_secs(u64::try_from(now_s.saturating_sub(last_s)).ok()?);
    (age > LATE.max(interval * 3)).then(|| {
        let age = format_duration(Duration::from_secs(age.as_secs() / 60 * 60));
        let text = format!(
            "nothing was recorded for {age}, since {last}: the kernel counts on, and a reboot would lose it; start \
             trafctl.service, or see why it does not drain"
        );
        Problem { kind: ProblemKind::Drains, text }
    })
}

/// Tables that are nearly full.
pub fn nearly_full(status: &Status) -> Vec<Problem> {
    let tables = status.tables.iter().filter(|table| {
        let taken = table.used.saturating_sub(table.gone);
        table.table != "classes"
            && table.capacity >= SMALLEST_TABLE
            && taken * 100 >= table.capacity * NEARLY_FULL
    });
    let problem = |table: &super::TableUse| Problem {
        kind: ProblemKind::Tables,
        text: format!(
            "{}: {} of {} places are taken; raise the limit under [limits] before there is none",
            table.table,
            table.used.saturating_sub(table.gone),
            table.capacity
        ),
    };
    tables.map(problem).collect()
}

/// What gaps say: traffic that was lost, and a clock that jumped. With what each is known by: one of an
/// interface may have a row for each drain, and is told once a day.
pub fn of_gaps(gaps: &[Gap], local_time: &LocalTime) -> Vec<(String, Problem)> {
    let problem = |gap: &Gap| {
        let kind = match gap.reason {
            GapReason::ClockStepped | GapReason::Reverted => ProblemKind::Clock,
            reason if reason.loses_traffic() && !gap.is_small() => ProblemKind::Gaps,
            _ => return None,
        };
        let end_s = gap.end.as_second();
        let key = match (&gap.interface, &gap.container) {
            (None, None) => format!("{}/{end_s}", gap.reason.name()),
            (interface, container) => {
                format!("{}/{interface:?}/{container:?}/{}", gap.reason.name(), end_s.div_euclid(86_400))
            }
        };
        Some((key, Problem { kind, text: gap.text(local_time) }))
    };
    gaps.iter().filter_map(problem).collect()
}

/// What containers have sent so far: all packets, and those in faults that a sender makes.
#[derive(Debug, Default)]
pub struct Sent {
    epoch: u64,
    by_container: BTreeMap<ContainerId, [u64; 2]>,
}

impl Sent {
    /// What a reading has.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut by_container: BTreeMap<ContainerId, [u64; 2]> = BTreeMap::new();
        let mut of_interface: BTreeMap<(&str, u32), &ContainerId> = BTreeMap::new();
        for interface in &snapshot.interfaces {
            let Some(container) = interface.container.as_ref().filter(|id| !id.is_node()) else { continue };
            of_interface.insert((&interface.interface, interface.generation), container);
            let sent = interface.passed.outgoing.wire.packets;
            by_container.entry(container.clone()).or_default()[0] += sent;
        }
        for fault in snapshot.faults.iter().filter(|fault| is_of_sender(fault.fault)) {
            let key = (fault.interface.as_str(), fault.generation);
            if let Some(container) = of_interface.get(&key) {
                let sent = fault.tally.outgoing.packets;
                by_container.entry((*container).clone()).or_default()[1] += sent;
            }
        }
        Self { epoch: snapshot.epoch, by_container }
    }

    /// Containers much of whose packets since an earlier reading are in faults.
    pub fn faulty(&self, before: &Self) -> Vec<Problem> {
        if self.epoch != before.epoch {
            return Vec::new();
        }
        let mut problems = Vec::new();
        for (container, [sent, faults]) in &self.by_container {
            let [sent_before, faults_before] =
                before.by_container.get(container).copied().unwrap_or_default();
            let (sent, faults) = (sent.saturating_sub(sent_before), faults.saturating_sub(faults_before));
            if faults > FEW_FAULTS && faults * 100 > sent * MOST_FAULTS {
                let text = format!(
                    "container {container}: {faults} of {sent} packets that it sent since the last look are in no \
                     class; `trafctl dump --faults` shows why"
                );
                problems.push(Problem { kind: ProblemKind::Faults, text });
            }
        }
        problems
    }
}

/// Whether a sender can bring about a fault by odd frames.
const fn is_of_sender(fault: Fault) -> bool {
    matches!(fault, Fault::NotIp | Fault::Truncated | Fault::Malformed | Fault::VlanDepth)
}

#[cfg(test)]
mod tests {
    use traffic_ledger::testing::{NOON, Node, time};

    use super::*;

    fn gap(reason: GapReason, end_s: i64, interface: Option<&str>) -> Gap {
        let (interface, container) = (interface.map(str::to_owned), interface.map(|_| "101".to_owned()));
        Gap {
            start: None,
            end: time(end_s),
            reason,
            interface,
            container,
            size: None,
            detail: None,
            node: None,
        }
    }

    #[test]
    fn a_gap_of_an_interface_is_told_once_a_day_and_one_that_lost_nothing_never() {
        let of = |gaps: &[Gap]| {
            let found = of_gaps(gaps, &LocalTime::named("UTC"));
            found.into_iter().map(|(key, problem)| (key, problem.kind)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[gap(GapReason::MissedDrain, NOON, None)]), []);
        let bypassed = |end_s| of(&[gap(GapReason::Bypassed, end_s, Some("veth101.0"))]);
        assert_eq!(bypassed(NOON)[0].1, ProblemKind::Gaps);
        assert_eq!(bypassed(NOON), bypassed(NOON + 60));
        assert_ne!(bypassed(NOON), bypassed(NOON + 86_400));
        assert_ne!(bypassed(NOON), of(&[gap(GapReason::Bypassed, NOON, Some("veth102.0"))]));
        let reboot = |end_s| of(&[gap(GapReason::Reboot, end_s, None)]);
        assert_ne!(reboot(NOON), reboot(NOON + 60));
        assert_eq!(of(&[gap(GapReason::ClockStepped, NOON, None)])[0].1, ProblemKind::Clock);
    }

    #[test]
    fn odd_frames_of_a_container_are_told_if_they_are_many_and_much_of_what_it_sends() {
        let mut node = Node::balanced(NOON);
        node.interface("veth101.0", Some("101"), 100_000, 0).interface("veth102.0", Some("102"), 100_000, 0);
        let first = Sent::of(&node.snapshot());
        assert_eq!(first.faulty(&first), []);
        node.fault("veth101.0", Fault::Malformed, 900).fault("veth102.0", Fault::NotTheNodes, 9000);
        assert_eq!(Sent::of(&node.snapshot()).faulty(&first), [], "few, and none that a sender makes");
        node.fault("veth101.0", Fault::VlanDepth, 7000);
        let problems = Sent::of(&node.snapshot()).faulty(&first);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].text.starts_with("container 101: "), "{problems:?}");
        // Other counters have nothing to compare with.
        node.renew_maps();
        assert_eq!(Sent::of(&node.snapshot()).faulty(&first), []);
    }
}
