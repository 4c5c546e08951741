//! What a statement says, from the ledger.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use jiff::Timestamp;
use traffic_common::{Family, Tally};
use traffic_ledger::{
    Adjustment, Basis, By, CalibrationRecord, ClosedPeriod, Figures, Frozen, FrozenContainer, Gap, Ledger,
    ReportQuery, Split,
};
use traffic_model::ByDirection;
use traffic_statement::{
    Amounts, Calibration, ClassTable, ClosedRate, ClosedRow, Counts, Day, Dropped, DroppedRow, Facts,
    FaultRow, GapLine, Kind, Log, Period, Record, Salts, SignedCounts, issue,
};

use super::Keys;
use crate::render::ClassNames;

/// The log of a ledger.
///
/// # Errors
/// When something else than trafctl changed a closed month, or the ledger cannot be read.
pub fn log(ledger: &Ledger, salts: Salts) -> anyhow::Result<Log> {
    let mut log = Log::new(salts);
    ledger.frozen_entries(|entry| {
        append(entry.content, |kind, period, records| Ok(log.push((kind, period, &entry.hash), records)?))
    })?;
    Ok(log)
}

/// Makes the statement of a container and a closed month. `cosigned` is a checkpoint with cosignatures, which it has where
/// that covers everything in it.
///
/// # Errors
/// When the month is not closed or has no figures of the container, when something else than trafctl changed a closed
/// month, or the ledger cannot be read.
pub fn make(
    ledger: &Ledger,
    (month, container): (&str, &str),
    names: &ClassNames,
    (keys, cosigned): (Keys, Option<&str>),
    made: Timestamp,
) -> anyhow::Result<String> {
    let (number, container_now) = ledger.frozen_container(month, container)?;
    let closed = ledger.closed_periods()?;
    let closed = closed.iter().find(|period| period.name == month);
    let closed =
        closed.with_context(|| format!("{month} is not among the closed months; write it like 2026-10"))?;
    let extent = ledger.extent()?;
    let label = container_now.clone().unwrap_or_else(|| container.to_owned());
    let days = days(ledger, closed, &label)?;
    let dropped = dropped(ledger, closed, &label)?;
    let faults = faults(ledger, closed, &label)?;
    let gaps = ledger.gaps_of(&[label], Some(closed.start), Some(closed.end))?;
    let facts = Facts {
        trafctl: env!("CARGO_PKG_VERSION").to_owned(),
        made: seconds(made),
        period: Period {
            name: closed.name.clone(),
            start: seconds(closed.start),
            end: seconds(closed.end),
            closed: seconds(closed.closed),
            time_zone: extent.zone,
            billing_day: extent.billing_day,
        },
        number,
        container_now,
        class_names: names.clone(),
        gaps: gaps.iter().map(gap_line).collect(),
        days,
        dropped,
        faults,
        calibration: ledger.last_calibration(closed.start)?.map(calibration),
        class_tables: class_tables(ledger, month, number)?,
    };
    let mut issuing = issue(Log::new(keys.salts), facts);
    ledger.frozen_entries(|entry| {
        append(
            entry.content,
            |kind, period, records| Ok(issuing.entry((kind, period, &entry.hash), records)?),
        )
    })?;
    Ok(issuing.finish(&keys.key, cosigned)?)
}

/// Appends what an entry froze by its kind, month and records.
fn append(
    content: Frozen,
    to: impl FnOnce(Kind, Option<&str>, &[Record]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    match content {
        Frozen::Period(period, containers) => {
            let records: Vec<Record> =
                containers.into_iter().map(|container| figures(&period, container)).collect();
            to(Kind::Period, Some(&period), &records)
        }
        Frozen::Correction(number, adjustment) => {
            let period = adjustment.period.clone();
            to(Kind::Correction, Some(&period), &[correction(number, adjustment)])
        }
        Frozen::KeyChange(note) => to(Kind::Key, None, &[Record::Key { note }]),
    }
}

fn figures(period: &str, frozen: FrozenContainer) -> Record {
    let row = |row: traffic_ledger::FrozenRow| ClosedRow {
        node: row.node,
        class: row.class,
        family: row.family.name().to_owned(),
        class_table: row.class_table,
        counts: Amounts::new(row.counts),
    };
    let rate = |rate: traffic_ledger::FrozenRate| {
        let basis = match rate.basis {
            Basis::L3 => "l3",
            Basis::L2 => "l2",
            Basis::L1 => "l1",
        };
        ClosedRate::new(rate.class, basis.to_owned(), rate.bits)
    };
    Record::Figures {
        period: period.to_owned(),
        container: frozen.container,
        number: frozen.number,
        rows: frozen.rows.into_iter().map(row).collect(),
        rates: frozen.rates.into_iter().map(rate).collect(),
    }
}

fn correction(number: i64, adjustment: Adjustment) -> Record {
    let [[in_packets, out_packets], [in_bytes, out_bytes]] = [adjustment.packets, adjustment.bytes];
    let family = if adjustment.family == 0 { Family::Ipv4 } else { Family::Ipv6 };
    Record::Correction {
        period: adjustment.period,
        container: adjustment.container,
        number,
        made: seconds(adjustment.made),
        class: adjustment.class,
        family: family.name().to_owned(),
        counts: SignedCounts::new([in_packets, in_bytes, out_packets, out_bytes].map(i128::from)),
        reason: adjustment.reason,
    }
}

fn gap_line(gap: &Gap) -> GapLine {
    GapLine {
        start: gap.start.map(seconds),
        end: seconds(gap.end),
        reason: gap.reason.name().to_owned(),
        interface: gap.interface.clone(),
        missing: gap
            .size
            .map(|size| Amounts::new([size.in_skbs, size.in_skb_bytes, size.out_skbs, size.out_skb_bytes])),
    }
}

/// What was counted of a container on each day of a month, in billed classes.
fn days(ledger: &Ledger, month: &ClosedPeriod, label: &str) -> anyhow::Result<Vec<Day>> {
    let report = ledger.report(&ReportQuery { by: By::Day, ..of_container(month, label) })?;
    let billed = report.rows.iter().filter(|row| row.billed && row.figures.total.packets > 0);
    Ok(billed.map(|row| Day { day: row.period.clone(), counts: counts(&row.figures) }).collect())
}

/// What was dropped of a container's traffic in a month, by class and reason.
fn dropped(ledger: &Ledger, month: &ClosedPeriod, label: &str) -> anyhow::Result<Option<Dropped>> {
    let split = Split { class: true, ..Split::default() };
    let report = ledger.report_drops(&ReportQuery { split, ..of_container(month, label) })?;
    let Some(recorded_from) = report.recorded_from else { return Ok(None) };
    let rows = report.rows.iter().flat_map(|row| {
        row.delivery.reasons.iter().map(|of| DroppedRow {
            class: row.class.unwrap_or_default(),
            reason: of.reason.clone(),
            counts: counts(&of.figures),
        })
    });
    Ok(Some(Dropped { recorded_from: seconds(recorded_from), rows: rows.collect() }))
}

/// What passed a container's own interfaces in a month and is in no class, by reason.
fn faults(ledger: &Ledger, month: &ClosedPeriod, label: &str) -> anyhow::Result<Vec<FaultRow>> {
    let mut sums: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    for row in ledger.report_interfaces(&of_container(month, label))?.faults {
        let sum = sums.entry(row.fault).or_default();
        for (sum, amount) in sum.iter_mut().zip(counts(&row.figures).values()) {
            *sum = sum.saturating_add(amount);
        }
    }
    sums.retain(|_, sum| *sum != [0; 4]);
    Ok(sums.into_iter().map(|(reason, sum)| FaultRow { reason, counts: Amounts::new(sum) }).collect())
}

fn calibration(record: CalibrationRecord) -> Calibration {
    let counts = |both: ByDirection<Tally>| {
        let ByDirection { incoming, outgoing } = both;
        Amounts::new([incoming.packets, incoming.bytes, outgoing.packets, outgoing.bytes])
    };
    Calibration {
        time: seconds(record.time),
        class_table: record.class_table,
        program: record.program,
        sent: counts(record.sent),
        counted: counts(record.counted),
        differing: record.differing,
    }
}

fn of_container(month: &ClosedPeriod, label: &str) -> ReportQuery {
    ReportQuery {
        from: Some(month.start),
        to: Some(month.end),
        containers: vec![label.to_owned()],
        basis: Basis::L3,
        ..ReportQuery::default()
    }
}

fn counts(figures: &Figures) -> Counts {
    let [incoming, outgoing] = [figures.incoming, figures.outgoing].map(Option::unwrap_or_default);
    Amounts::new([incoming.packets, incoming.bytes, outgoing.packets, outgoing.bytes])
}

/// The class tables that decided in the rows of a container.
fn class_tables(ledger: &Ledger, month: &str, number: i64) -> anyhow::Result<Vec<ClassTable>> {
    let mut hashes = BTreeSet::new();
    ledger.frozen_entries(|entry| -> anyhow::Result<()> {
        if let Frozen::Period(period, containers) = entry.content
            && period == month
        {
            let own = containers.into_iter().filter(|container| container.number == number);
            hashes.extend(own.flat_map(|container| container.rows).map(|row| row.class_table));
        }
        Ok(())
    })?;
    let hashes: Vec<String> = hashes.into_iter().collect();
    let table = |table: traffic_ledger::KnownClassTable| ClassTable {
        hash: table.hash,
        loaded: seconds(table.loaded),
        prefixes: table.prefixes,
    };
    Ok(ledger.class_tables(&hashes)?.into_iter().map(table).collect())
}

/// A time in UTC without fractions of a second.
pub(super) fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

#[cfg(test)]
mod tests {
    use traffic_common::{DropGroup, Fault};
    use traffic_ledger::testing::{self, File, NOON, Node, ledger};
    use traffic_statement::verify;

    use super::*;

    #[test]
    fn it_has_what_was_dropped_in_the_month_of_this_container() {
        let mut file = ledger();
        let mut node = Node::balanced(NOON);
        let mut day = |node: &mut Node, of_shaper, of_class_zero| {
            node.traffic("101", 1, [9, 900, 8, 8000]).traffic("101", 0, [7, 70, 0, 0]);
            node.traffic("102", 1, [9, 900, 8, 8000]).dropped("102", 1, DropGroup::Shaper, [5, 55, 6, 66]);
            node.dropped("101", 1, DropGroup::Shaper, of_shaper);
            node.dropped("101", 0, DropGroup::Firewall, of_class_zero);
            node.pass(86_400).drain(&mut file.ledger);
        };
        day(&mut node, [0; 4], [0; 4]);
        node.count_drops();
        for _ in 0..10 {
            day(&mut node, [1, 100, 2, 2000], [3, 30, 0, 0]);
        }
        node.pass(12 * 86_400);
        // December's.
        day(&mut node, [4, 400, 0, 0], [0; 4]);
        file.ledger.close_anyway("2026-11", node.wall).unwrap();
        let keys = Keys::generate("node1.example.com").unwrap();
        let public = keys.key.public().clone();
        let text =
            make(&file.ledger, ("2026-11", "101"), &ClassNames::default(), (keys, None), node.wall).unwrap();
        let dropped = verify(&text, Some(&public)).unwrap().document.dropped.unwrap();
        assert_eq!(dropped.recorded_from, "2026-11-11T12:00:00Z");
        let rows = dropped.rows.iter().map(|row| (row.class, row.reason.as_str(), row.counts.values()));
        assert_eq!(
            rows.collect::<Vec<_>>(),
            [(1, "shaper", [10, 1000, 20, 20_000]), (0, "firewall", [30, 300, 0, 0])]
        );
    }

    #[test]
    fn it_has_the_latest_calibration() {
        let mut file = ledger();
        let mut node = Node::new(NOON);
        node.traffic("101", 1, [20, 2000, 0, 0]).pass(60).drain(&mut file.ledger);
        node.pass(30 * 86_400).drain(&mut file.ledger);
        file.ledger.close_anyway("2026-11", node.wall).unwrap();
        let made = |file: &File| {
            let keys = Keys::generate("node1.example.com").unwrap();
            let public = keys.key.public().clone();
            let text =
                make(&file.ledger, ("2026-11", "101"), &ClassNames::default(), (keys, None), node.wall)
                    .unwrap();
            verify(&text, Some(&public)).unwrap().document.calibration
        };
        assert_eq!(made(&file), None);
        let earlier = node.wall - jiff::SignedDuration::from_hours(24);
        file.ledger
            .record_calibration(&CalibrationRecord { differing: 9, ..testing::calibration(earlier) })
            .unwrap();
        file.ledger.record_calibration(&testing::calibration(node.wall)).unwrap();
        let found = made(&file).unwrap();
        assert_eq!((found.time, found.differing), (seconds(node.wall), 3));
        assert_eq!(found.sent.values(), [20, 13_305, 21, 14_229]);
        assert_eq!(found.counted.values(), [22, 13_307, 23, 14_231]);
        assert_eq!((found.class_table, found.program), ("a1".repeat(32), "b2".repeat(32)));
    }

    #[test]
    fn it_has_what_is_in_no_class_of_this_container_and_month() {
        let mut file = ledger();
        let mut node = Node::new(NOON);
        node.traffic("101", 1, [20, 2000, 0, 0]).traffic("102", 1, [5, 500, 0, 0]);
        node.interface("veth101.0", Some("101"), 30, 4).interface("veth101.1", Some("101"), 9, 4);
        node.interface("veth102.0", Some("102"), 8, 4);
        node.fault("veth101.0", Fault::NotIp, 2).fault("veth101.1", Fault::NotIp, 3);
        node.fault("veth101.0", Fault::Malformed, 4).fault("veth102.0", Fault::NotIp, 7);
        node.pass(60).drain(&mut file.ledger);
        node.pass(30 * 86_400).drain(&mut file.ledger);
        // December's.
        node.fault("veth101.0", Fault::Truncated, 11).pass(86_400).drain(&mut file.ledger);
        file.ledger.close_anyway("2026-11", node.wall).unwrap();
        let keys = Keys::generate("node1.example.com").unwrap();
        let public = keys.key.public().clone();
        let text =
            make(&file.ledger, ("2026-11", "101"), &ClassNames::default(), (keys, None), node.wall).unwrap();
        let faults = verify(&text, Some(&public)).unwrap().document.faults;
        let rows = faults.iter().map(|row| (row.reason.as_str(), row.counts.values()));
        assert_eq!(rows.collect::<Vec<_>>(), [("malformed", [0, 0, 4, 240]), ("not_ip", [0, 0, 5, 300])]);
    }
}
