//! History with long samples and fractions.

use super::*;

const CONSTANT_BYTES_PER_S: i64 = 1000;

fn rate_of(file: &File, from: i64, to: i64) -> crate::Rates {
    let query = ReportQuery {
        from: Some(time(from)),
        to: Some(time(to)),
        percentile: Some(95.0),
        ..ReportQuery::default()
    };
    file.ledger.report(&query).unwrap().rows[0].percentile.unwrap()
}

#[test]
fn long_samples_have_the_rate_of_their_time_and_are_marked() {
    for length in [300, 900, 3600, 4 * 3600] {
        let (mut file, _) = begun_at_noon();
        let mut pva = Pva::new(&file, "pva");
        let id = pva.bytes_in("102");
        let (from, to) = (NOON - 5 * DAY, NOON - DAY);
        for start in (from..to).step_by(usize::try_from(length).unwrap()) {
            pva.sample(id, start, CONSTANT_BYTES_PER_S * length);
        }
        let imported = take(&mut file, &pva);
        let rates = rate_of(&file, from, to);
        assert_eq!(rates.incoming, Some(8000), "{length} s");
        assert_eq!(
            bytes(&file, "traffic_5min", "102", 1)[0],
            (CONSTANT_BYTES_PER_S * (to - from)).unsigned_abs()
        );
        let marked: i64 =
            file.ledger.conn.query_row("SELECT count(*) FROM span", [], |row| row.get(0)).unwrap();
        assert_eq!(marked > 0, length > 300, "{length} s");
        assert_eq!(imported.conflicts.count, 0);
        // The same file changes nothing and agrees with what it wrote.
        let again = take(&mut file, &pva);
        assert_eq!((again.samples, again.conflicts.count), (0, 0), "{length} s: {:?}", again.conflicts);
        assert_eq!(file.ledger.audit().unwrap().problems, Vec::<String>::new());
    }
}

#[test]
fn a_sample_over_the_border_of_a_month_is_shared() {
    let (mut file, _) = begun_at_noon();
    let mut pva = Pva::new(&file, "pva");
    let id = pva.bytes_in("102");
    // Four hours each; the third one begins an hour before November.
    let november = NOON - 9 * DAY - DAY / 2;
    for sample in 0..6 {
        pva.sample(id, november - 9 * 3600 + sample * 4 * 3600, 4003);
    }
    take(&mut file, &pva);
    file.ledger.maintain(time(NOON + DAY)).unwrap();
    let containers = vec!["102".to_owned()];
    let report =
        file.ledger.report(&ReportQuery { by: By::Month, containers, ..ReportQuery::default() }).unwrap();
    let months: Vec<u64> = report.rows.iter().map(|row| row.figures.incoming.unwrap().bytes).collect();
    let october = 2 * 4003 + 1000;
    assert!(months[0].abs_diff(october) <= 1, "{months:?}");
    assert_eq!(months.iter().sum::<u64>(), 6 * 4003);
}

#[test]
fn fractional_classes_are_added_before_they_are_rounded() {
    let (mut file, _) = begun_at_noon();
    let mut pva = Pva::new(&file, "pva");
    let total = pva.bytes_in("102");
    let one = pva.define("102", "counters_vz_net", "1", IN_BYTES);
    let two = pva.define("102", "counters_vz_net", "2", IN_BYTES);
    let three = pva.define("102", "counters_vz_net", "3", IN_BYTES);
    let start = NOON - DAY;
    for (at, (a, b, c)) in
        [(60.5, 39.5, 0.0), (33.3, 33.3, 33.4), (0.1, 0.2, 99.7), (50.25, 49.5, 0.25)].iter().enumerate()
    {
        let start = start + 300 * i64::try_from(at).unwrap();
        pva.sample(total, start, 100.0)
            .sample(one, start, *a)
            .sample(two, start, *b)
            .sample(three, start, *c);
    }
    let import = PvaImport { class: 9, ..import() };
    let imported = file.ledger.import_pva(&pva.path, &import, &mut |_| ()).unwrap();
    assert_eq!(imported.totals_taken.count, 0, "{:?}", imported.totals_taken);
    let of = |class| bytes(&file, "traffic_5min", "102", class)[0];
    assert_eq!([of(1) + of(2) + of(3), of(9)], [400, 0]);
    assert!(of(1).abs_diff(144) <= 1 && of(2).abs_diff(122) <= 1, "{} {}", of(1), of(2));
    // Every five minutes add up as well.
    let mut statement = file
        .ledger
        .conn
        .prepare("SELECT sum(in_bytes) FROM traffic_5min WHERE start < ?1 GROUP BY start")
        .unwrap();
    let sums: Vec<i64> =
        statement.query_map([NOON - 60], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(sums, [100; 4]);
}

#[test]
fn history_is_taken_up_to_the_true_start_of_counting() {
    for wrong_by in [-NOON, 3650 * DAY] {
        let mut file = ledger();
        let mut node = Node::balanced(NOON + wrong_by);
        node.traffic("102", 1, [1, 7, 1, 7]).pass(60).drain(&mut file.ledger);
        node.set_clock(-wrong_by);
        for _ in 0..10 * 24 {
            node.traffic("102", 1, [1, 7, 1, 7]).pass(3600).drain(&mut file.ledger);
        }
        let mut pva = Pva::new(&file, "pva");
        let id = pva.bytes_in("102");
        let starts: Vec<i64> = (NOON - DAY..NOON + 11 * DAY).step_by(300).collect();
        for &start in &starts {
            pva.sample(id, start, 1000);
        }
        let imported = take(&mut file, &pva);
        let until = imported.until.as_second();
        assert!((NOON - 600..=NOON + 60).contains(&until), "{wrong_by}: {}", imported.until);
        let before = starts.iter().filter(|&&start| start + 300 <= until).count();
        assert_eq!(imported.samples, before as u64);
        assert_eq!(file.ledger.audit().unwrap().problems, Vec::<String>::new());
    }
}
