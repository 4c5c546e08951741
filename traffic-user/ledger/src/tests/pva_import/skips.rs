//! What an import skips or refuses, and how it chooses between classes and totals.

use rusqlite::{Connection, params};

use super::*;

#[test]
fn classes_are_used_if_they_add_up_and_otherwise_the_total() {
    let (mut file, _) = begun_at_noon();
    let mut pva = Pva::new(&file, "pva");
    let total = pva.bytes_in("102");
    let one = pva.define("102", "counters_vz_net", "1", IN_BYTES);
    let two = pva.define("102", "counters_vz_net", "2", IN_BYTES);
    let zero = pva.define("102", "counters_vz_net", "0", IN_BYTES);
    let outgoing = pva.define("102", "counters_vz_net", "", OUT_BYTES);
    let start = NOON - DAY;
    // No classes yet; classes that add up; classes that do not; no total any more. Outgoing has no classes at
    // all.
    pva.sample(total, start, 1000);
    pva.sample(total, start + 300, 30).sample(one, start + 300, 10).sample(two, start + 300, 20);
    pva.sample(zero, start + 300, 5);
    pva.sample(total, start + 600, 7000).sample(one, start + 600, 6000);
    pva.sample(two, start + 900, 400);
    pva.sample(outgoing, start + 300, 77);
    let import = PvaImport { class: 9, ..import() };
    let imported = file.ledger.import_pva(&pva.path, &import, &mut |_| ()).unwrap();
    assert_eq!(imported.totals_taken.count, 1);
    let first = imported.totals_taken.first.as_deref();
    assert_eq!(first, Some(format!("{IN_BYTES} of 102 at 2026-11-09T12:10:00Z").as_str()));
    let of = |class| bytes(&file, "traffic_5min", "102", class);
    assert_eq!([of(9), of(1), of(2), of(0)], [[8000, 77], [10, 0], [420, 0], [5, 0]]);
}

#[test]
fn unusable_rows_are_counted_and_skipped() {
    let (mut file, _) = begun_at_noon();
    let mut pva = Pva::new(&file, "pva");
    let good = pva.bytes_in("102");
    pva.define("no good id", "counters_vz_net", "", IN_BYTES);
    pva.define("102", "counters_vz_net", "local", IN_BYTES);
    pva.define("102", "counters_vz_net", "255", IN_BYTES);
    pva.define("102", "counters_vz_net", "", "counter_net_incoming_dropped");
    pva.conn
        .execute("INSERT INTO log_def VALUES (?1, '103', 'counters_vz_net', '', ?2)", params![good, IN_BYTES])
        .unwrap();
    let start = NOON - DAY;
    pva.sample(good, start, 1).sample(good, (start + 60).to_string(), "2").sample(good, start + 120, 4.0);
    pva.sample(good, "soon", 10).sample(good, 7, 10).sample(good, Option::<i64>::None, 10);
    pva.sample(good, start + 180, "much").sample(good, start + 180, Option::<i64>::None);
    pva.sample(good, start + 240, -5).sample(good, start + 240, i64::MAX).sample(
        good,
        start + 240,
        f64::INFINITY,
    );
    pva.sample(good, start + 120, 9).sample(99, start, 1);
    let imported = take(&mut file, &pva);
    assert_eq!(bytes(&file, "traffic_5min", "102", 1), [7, 0]);
    assert_eq!(
        reasons(&imported),
        [
            (SkipReason::UnknownCounter, 1),
            (SkipReason::BadContainerId, 1),
            (SkipReason::BadClass, 2),
            (SkipReason::DuplicateDefinition, 1),
            (SkipReason::UndefinedCounter, 1),
            (SkipReason::BadTime, 3),
            (SkipReason::NotANumber, 2),
            (SkipReason::Negative, 1),
            (SkipReason::TooLarge, 2),
            (SkipReason::DuplicateSample, 1),
        ]
    );
    let negative = imported.skipped.iter().find(|skipped| skipped.reason == SkipReason::Negative).unwrap();
    assert_eq!(negative.first, format!("{IN_BYTES} of 102 at {}: -5", start + 240));
}

#[test]
fn a_file_that_is_not_a_pva_database_is_refused() {
    let (mut file, _) = begun_at_noon();
    let nowhere = file.dir.path().join("nowhere");
    assert!(file.ledger.import_pva(&nowhere, &import(), &mut |_| ()).is_err());
    assert!(!nowhere.exists());
    let own = file.ledger.path().with_extension("copy");
    file.ledger.backup(&own).unwrap();
    Connection::open(&own).unwrap().execute_batch("DROP VIEW log_data").unwrap();
    let refused = file.ledger.import_pva(&own, &import(), &mut |_| ());
    assert!(matches!(refused, Err(LedgerError::Query(reason)) if reason.contains("not a PVA database")));
}

#[test]
fn samples_in_closed_periods_are_skipped_and_the_rest_is_imported() {
    let mut file = ledger();
    // From September 1.
    let mut node = Node::balanced(NOON - 70 * DAY);
    for _ in 0..80 {
        node.traffic("101", 1, [0, 1, 0, 0]).pass(DAY.unsigned_abs()).drain(&mut file.ledger);
    }
    let september = file.ledger.close_anyway("2026-09", node.wall).unwrap();
    file.ledger.close_anyway("2026-10", node.wall).unwrap();
    // As if its own counting had begun later. A closed period stays closed, whoever counted it.
    file.ledger.conn.execute("UPDATE epoch SET created = ?1", [NOON]).unwrap();
    let mut pva = Pva::new(&file, "pva");
    let id = pva.bytes_in("102");
    pva.minutes(id, september.start.as_second() - 120, &[1, 2, 4, 8]);
    pva.minutes(id, NOON - 11 * DAY, &[100]).minutes(id, NOON - DAY, &[1000]);
    let imported = take(&mut file, &pva);
    assert_eq!(imported.samples, 3);
    let skipped: Vec<_> = imported
        .skipped
        .iter()
        .map(|skipped| (skipped.reason, skipped.period.as_deref(), skipped.count))
        .collect();
    let closed = SkipReason::ClosedPeriod;
    assert_eq!(skipped, [(closed, Some("2026-09"), 2), (closed, Some("2026-10"), 1)]);
    file.ledger.maintain(node.wall).unwrap();
    let query = ReportQuery { containers: vec!["102".to_owned()], by: By::Month, ..ReportQuery::default() };
    let report = file.ledger.report(&query).unwrap();
    let months: Vec<_> =
        report.rows.iter().map(|row| (row.period.as_str(), row.figures.total.bytes)).collect();
    assert_eq!(months, [("2026-08", 3), ("2026-11", 1000)]);
    assert_sound(&file);
}

#[test]
fn history_before_a_closed_month_must_be_closed_before_the_next_month() {
    let (mut file, mut node) = begun_at_noon();
    for _ in 0..60 {
        node.traffic("101", 1, [0, 1, 0, 0]).pass(DAY.unsigned_abs()).drain(&mut file.ledger);
    }
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    let mut pva = Pva::new(&file, "pva");
    let id = pva.bytes_in("101");
    pva.minutes(id, NOON - 30 * DAY, &[1000, 2000]);
    assert_eq!(take(&mut file, &pva).samples, 2);
    let refused = file.ledger.close_anyway("2026-12", node.wall).unwrap_err().to_string();
    assert!(
        refused.contains("2026-10 holds figures") && refused.contains("trafctl close 2026-10"),
        "{refused}"
    );
    assert_eq!(file.ledger.close_anyway("2026-10", node.wall).unwrap().rows, 1);
    file.ledger.close_anyway("2026-12", node.wall).unwrap();
    pva.sample(id, NOON - 20 * DAY, 5);
    assert_eq!(reasons(&take(&mut file, &pva)), [(SkipReason::ClosedPeriod, 1)]);
    // Nothing is written before the end of the latest closed month, in whatever order they were closed.
    node.set_clock(-80 * DAY).traffic("101", 1, [0, 7, 0, 0]).pass(60).drain(&mut file.ledger);
    file.ledger.maintain(node.wall).unwrap();
    assert_sound(&file);
    assert_eq!(file.ledger.audit().unwrap().chain_entries, 3);
}

#[test]
fn the_minute_of_the_switch_over_is_recorded_as_a_gap() {
    let (mut file, _) = begun_at_noon();
    let mut pva = Pva::new(&file, "pva");
    let incoming = pva.bytes_in("102");
    let outgoing = pva.define("102", "counters_vz_net", "", OUT_BYTES);
    pva.minutes(incoming, NOON - 200, &[1, 2, 4, 8, 16]).minutes(
        outgoing,
        NOON - 200,
        &[10, 20, 40, 80, 160],
    );
    for _ in 0..2 {
        let imported = take(&mut file, &pva);
        assert_eq!(reasons(&imported), [(SkipReason::AfterUntil, 2), (SkipReason::OverBegin, 2)]);
        assert_eq!(bytes(&file, "traffic_5min", "102", 1), [7, 70]);
        let gaps = file.ledger.gaps(None, None).unwrap();
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!((gaps[0].start, gaps[0].end), (Some(time(NOON - 20)), time(NOON)));
        assert_eq!(gaps[0].reason, GapReason::BeforeAttach);
        assert!(gaps[0].detail.as_ref().unwrap().contains("in 8 bytes, out 80 bytes"), "{gaps:?}");
    }
    // If PVA's minute ends where the ledger begins, nothing is missing.
    let (mut file, _) = begun_at_noon();
    let mut even = Pva::new(&file, "even");
    let id = even.bytes_in("102");
    even.minutes(id, NOON - 120, &[1, 2, 4]);
    assert_eq!(take(&mut file, &even).samples, 2);
    assert_eq!(file.ledger.gaps(None, None).unwrap(), []);
}
