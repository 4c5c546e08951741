//! Zones whose rules or names change.

use traffic_model::calendar::{Calendar, Level, Retention};

use crate::{By, Ledger, LedgerConfig, ReportQuery, testing::*, time::borders::Borders};

const HOUR: i64 = 3600;
const DAY: i64 = 86_400;

fn at(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_second()
}

/// The zone of the test, with or without a change of its offset on 1 September, at local midnight.
fn calendar(first_s: i32, change: Option<i32>) -> Calendar {
    let changes: Vec<_> =
        change.map(|to_s| (at("2026-09-01T00:00:00Z") - i64::from(first_s), to_s)).into_iter().collect();
    Calendar::with_rules(zone("Test/City", first_s, &changes), "Test/City", 1).unwrap()
}

fn config(calendar: Calendar) -> LedgerConfig {
    let retention = Retention { five_minutes_days: 300, ..Retention::default() };
    LedgerConfig { calendar, retention, ..LedgerConfig::default() }
}

/// A reading every two hours until a date.
fn run_until(node: &mut Node, ledger: &mut Ledger, date: &str) {
    while node.wall.as_second() < at(&format!("{date}T00:00:00Z")) {
        node.traffic("101", 1, [1, 1000, 1, 100]).pass(7200).drain(ledger);
    }
}

fn steps(ledger: &Ledger, by: By) -> Vec<(String, u64)> {
    let report = ledger.report(&ReportQuery { by, ..ReportQuery::default() }).unwrap();
    let sum: u64 = report.rows.iter().map(|row| row.figures.incoming.unwrap().bytes).sum();
    assert_eq!(sum, report.total.incoming.unwrap().bytes);
    report.rows.iter().map(|row| (row.period.clone(), row.figures.incoming.unwrap().bytes)).collect()
}

fn assert_whole(ledger: &Ledger, node: &Node) {
    assert_eq!(ledger.audit().unwrap().problems, Vec::<String>::new());
    for by in [By::FiveMinutes, By::Hour, By::Day, By::Month, By::Total] {
        let steps = steps(ledger, by);
        let sum: u64 = steps.iter().map(|step| step.1).sum();
        assert_eq!(sum, node.truth[&("101".to_owned(), 1)][1], "{by:?}");
        let mut names: Vec<&String> = steps.iter().map(|step| &step.0).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), steps.len(), "each name once: {by:?}");
    }
    // Read once or one by one, the borders are the same.
    let borders = Borders::new(&ledger.conn, &ledger.calendar);
    let (from, to) = (node.wall.as_second() - 60 * DAY, node.wall.as_second() + 40 * DAY);
    for level in [Level::Day, Level::Month] {
        for unit in borders.named_cover(level, from, to).unwrap() {
            for instant in [unit.start, unit.end - 1] {
                assert_eq!(borders.named(level, instant).unwrap(), unit);
            }
        }
    }
}

/// Every way in which the offset may change, in seconds.
const CHANGES: [(i32, i32); 6] = [
    (21_600, 18_000),
    (18_000, 21_600),
    (19_800, 20_700),
    (20_700, 19_800),
    (-39_600, 46_800),
    (34_200, 32_400),
];

#[test]
fn months_keep_their_borders_when_tzdata_comes_weeks_late() {
    for (old, new) in CHANGES {
        let mut file = ledger_with(config(calendar(old, None)));
        let mut node = Node::balanced(at("2026-08-22T00:00:00Z") - i64::from(old));
        run_until(&mut node, &mut file.ledger, "2026-09-10");
        file.ledger.maintain(node.wall).unwrap();
        let before = steps(&file.ledger, By::Month);
        file.ledger.calendar = calendar(old, Some(new));
        assert_eq!(steps(&file.ledger, By::Month), before, "the update alone changes nothing");
        assert_whole(&file.ledger, &node);
        run_until(&mut node, &mut file.ledger, "2026-10-03");
        file.ledger.maintain(node.wall).unwrap();
        assert_whole(&file.ledger, &node);
        assert_eq!(steps(&file.ledger, By::Month)[0], before[0]);
        let closed = file.ledger.close_anyway("2026-08", node.wall).unwrap();
        assert_eq!((closed.rows, closed.end.as_second()), (1, at("2026-09-01T00:00:00Z") - i64::from(old)));
        file.ledger.close_anyway("2026-09", node.wall).unwrap();
        assert_whole(&file.ledger, &node);
        // Another machine makes the report, with older data or without the zone.
        for rules in [calendar(old, None), Calendar::utc()] {
            file.ledger.calendar = rules;
            assert_eq!(steps(&file.ledger, By::Month).len(), 3);
            assert_whole(&file.ledger, &node);
        }
    }
}

#[test]
fn an_update_that_comes_in_time_applies_to_the_open_month() {
    for (old, new) in CHANGES {
        let mut file = ledger_with(config(calendar(old, None)));
        let mut node = Node::balanced(at("2026-08-22T00:00:00Z") - i64::from(old));
        run_until(&mut node, &mut file.ledger, "2026-08-28");
        file.ledger.maintain(node.wall).unwrap();
        file.ledger.calendar = calendar(old, Some(new));
        run_until(&mut node, &mut file.ledger, "2026-10-03");
        file.ledger.maintain(node.wall).unwrap();
        assert_whole(&file.ledger, &node);
        // Local midnight by the new rules: the hour before or after the change is in the right month.
        let by_rules = file.ledger.calendar.month_named("2026-09").unwrap();
        let closed = file.ledger.close_anyway("2026-08", node.wall).unwrap();
        assert_eq!(closed.end.as_second(), by_rules.0, "{old} {new}");
        assert_eq!(steps(&file.ledger, By::Month).len(), 3);
    }
}

/// The stored days and months that hold an instant: level, start, end, name.
fn stored_around(ledger: &Ledger, instant: i64) -> Vec<(u8, i64, i64, String)> {
    let sql = "SELECT level, start, end, name FROM border WHERE start <= ?1 AND end > ?1 ORDER BY level";
    let mut statement = ledger.conn.prepare(sql).unwrap();
    let rows = statement.query_map([instant], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn the_first_traffic_after_an_update_may_lie_between_the_former_end_and_the_new_one() {
    let updates = CHANGES.into_iter().filter(|(old, new)| (old - new).abs() < 12 * 3600);
    for ((old, new), after_s) in updates.flat_map(|update| [(update, 0), (update, 300)]) {
        // The day after the last reading begins with and without a month.
        for (last, next) in [("2026-08-28T20:00:00Z", "2026-08-29"), ("2026-08-31T20:00:00Z", "2026-09-01")] {
            let midnights = [old, new].map(|offset| at(&format!("{next}T00:00:00Z")) - i64::from(offset));
            let between = midnights[0].min(midnights[1]) + after_s;
            let mut file = ledger_with(config(calendar(old, None)));
            let mut node = Node::balanced(at("2026-08-22T00:00:00Z") - i64::from(old));
            while node.wall.as_second() < at(last) - i64::from(old) {
                node.traffic("101", 1, [1, 1000, 1, 100]).pass(7200).drain(&mut file.ledger);
            }
            let rules = calendar(new, None);
            file.ledger.calendar = rules.clone();
            let pause_s = between + 300 - node.wall.as_second();
            node.traffic("101", 1, [1, 1000, 1, 100]).pass(pause_s.unsigned_abs()).drain(&mut file.ledger);
            let [day, month] = stored_around(&file.ledger, between).try_into().unwrap();
            assert_eq!((day.0, month.0), (2, 3));
            assert!(month.1 <= day.1 && day.2 <= month.2, "{day:?} in {month:?}");
            assert_eq!(day.3, rules.label(Level::Day, between).unwrap(), "{old} {new} {next}");
            assert_eq!(month.3[..7], rules.label(Level::Month, between).unwrap(), "{old} {new} {next}");
            file.ledger.maintain(node.wall).unwrap();
            assert_whole(&file.ledger, &node);
        }
    }
}

#[test]
fn a_day_whose_hours_were_dropped_keeps_its_end() {
    let retention = Retention { five_minutes_days: 35, hours_months: 3 };
    let mut file = ledger_with(LedgerConfig { retention, ..config(calendar(18_000, None)) });
    // The last hour of the day, until which it lasts by these rules alone.
    let last = at("2026-01-24T18:30:00Z");
    let mut node = Node::balanced(last - 7200);
    node.drain(&mut file.ledger);
    node.traffic("101", 1, [1, 1000, 1, 100]).pass(7200).drain(&mut file.ledger);
    let before = stored_around(&file.ledger, last);
    for days in [300, 1, 1] {
        node.traffic("101", 1, [1, 1000, 1, 100]).pass(86_400 * days).drain(&mut file.ledger);
    }
    file.ledger.maintain(node.wall).unwrap();
    assert_eq!(sums(&file.ledger, "traffic_hour").len(), 1);
    let hours = "SELECT count(*) FROM unit WHERE level < 2 AND start < ?1";
    let hours: i64 = file.ledger.conn.query_row(hours, [last + DAY], |row| row.get(0)).unwrap();
    assert_eq!(hours, 0, "dropped");
    // As an import does it, into time between the day and the next one that is stored.
    let rules = calendar(21_600, None);
    Borders::new(&file.ledger.conn, &rules).book(node.wall.as_second() - 20 * DAY).unwrap();
    assert_eq!(stored_around(&file.ledger, last), before);
    assert_eq!(steps(&file.ledger, By::Day)[0], ("2026-01-24".to_owned(), 1000));
}

#[test]
fn a_month_does_not_end_within_a_day() {
    // The month would end two hours before the day does that was booked last.
    let file = ledger_with(config(calendar(-43_200, None)));
    let last = at("2026-08-30T13:00:00Z");
    Borders::new(&file.ledger.conn, &calendar(-43_200, None)).book(last).unwrap();
    Borders::new(&file.ledger.conn, &calendar(50_400, None)).book(at("2026-09-05T00:00:00Z")).unwrap();
    let [day, month] = stored_around(&file.ledger, last).try_into().unwrap();
    assert!(month.1 <= day.1 && day.2 <= month.2, "{day:?} in {month:?}");
}

#[test]
fn rules_that_change_the_past_move_nothing() {
    // The new data says that the offset was another one all the time.
    for (old, new) in CHANGES {
        let mut file = ledger_with(config(calendar(old, None)));
        let mut node = Node::balanced(at("2026-08-22T00:00:00Z") - i64::from(old));
        run_until(&mut node, &mut file.ledger, "2026-09-05");
        file.ledger.maintain(node.wall).unwrap();
        let before = steps(&file.ledger, By::Day);
        file.ledger.calendar = calendar(new, None);
        run_until(&mut node, &mut file.ledger, "2026-10-03");
        // The clock goes back into days with and without rows.
        node.set_clock(-20 * HOUR);
        run_until(&mut node, &mut file.ledger, "2026-10-04");
        file.ledger.maintain(node.wall).unwrap();
        assert_whole(&file.ledger, &node);
        assert_eq!(steps(&file.ledger, By::Day)[..before.len() - 1], before[..before.len() - 1]);
    }
}

#[test]
fn a_ledger_of_version_3_gets_the_borders_it_was_summed_by() {
    // A day that was booked under another date altogether, as across the date line, cannot be recognised.
    for (old, new) in CHANGES.into_iter().filter(|(old, new)| (old - new).abs() < 12 * 3600) {
        let mut file = ledger_with(config(calendar(old, None)));
        let mut node = Node::balanced(at("2026-08-22T00:00:00Z") - i64::from(old));
        run_until(&mut node, &mut file.ledger, "2026-09-10");
        file.ledger.maintain(node.wall).unwrap();
        let before = steps(&file.ledger, By::Day);
        let stored = |ledger: &Ledger| -> i64 {
            ledger
                .conn
                .query_row("SELECT sum(start * level + end) FROM border", [], |row| row.get(0))
                .unwrap()
        };
        let borders = stored(&file.ledger);
        let path = file.ledger.path().to_owned();
        let migrating = rusqlite::Connection::open(&path).unwrap();
        migrating.execute_batch(&as_version_3()).unwrap();
        migrating.execute_batch(crate::schema::TIME).unwrap();
        crate::time::borders::store_existing_by(&migrating, &calendar(old, Some(new))).unwrap();
        crate::digest::create(&migrating).unwrap();
        migrating.pragma_update(None, "user_version", 5).unwrap();
        file.ledger = Ledger::open(&path, config(calendar(old, Some(new)))).unwrap();
        assert_eq!(steps(&file.ledger, By::Day), before);
        run_until(&mut node, &mut file.ledger, "2026-10-03");
        file.ledger.maintain(node.wall).unwrap();
        assert_whole(&file.ledger, &node);
        assert_ne!(borders, 0);
    }
}

#[test]
fn days_of_version_3_do_not_cut_hours_of_a_zone_that_nobody_knows_any_more() {
    // Until the first day was summed, and later.
    for (offset_s, until) in [19_800, -12_600, 20_700, -34_200]
        .into_iter()
        .flat_map(|offset_s| [(offset_s, "2026-08-22"), (offset_s, "2026-08-26")])
    {
        let mut file = ledger_with(config(calendar(offset_s, None)));
        let mut node = Node::balanced(at("2026-08-21T20:00:00Z"));
        while node.wall.as_second() < at(&format!("{until}T03:00:00Z")) {
            node.traffic("101", 1, [1, 1000, 1, 100]).pass(300).drain(&mut file.ledger);
        }
        // Hours and days that are over.
        file.ledger.roll_up_only().unwrap();
        let path = file.ledger.path().to_owned();
        file.ledger.conn.execute_batch(&as_version_3()).unwrap();
        file.ledger = Ledger::open(&path, forgotten()).unwrap();
        file.ledger.maintain(node.wall).unwrap();
        assert_whole(&file.ledger, &node);
        node.traffic("101", 1, [1, 1000, 1, 100]).pass(86_400).drain(&mut file.ledger);
        file.ledger.maintain(node.wall).unwrap();
        assert_whole(&file.ledger, &node);
    }
}

#[test]
fn a_former_name_and_the_current_one_are_the_same_calendar() {
    let zone = |name| config(Calendar::new(name, 1).unwrap());
    let mut file = ledger_with(zone("US/Eastern"));
    let mut node = Node::balanced(NOON);
    node.traffic("101", 1, [1, 100, 1, 100]).pass(60).drain(&mut file.ledger);
    for (name, accepted) in [("America/New_York", true), ("US/Eastern", true), ("America/Toronto", false)] {
        let opened = Ledger::open(file.ledger.path(), zone(name));
        assert_eq!(opened.is_ok(), accepted, "{name}: {opened:?}");
    }
    // The name that was configured last is the one that reports use.
    drop(Ledger::open(file.ledger.path(), zone("America/New_York")).unwrap());
    let reader = Ledger::open_read_only(file.ledger.path()).unwrap();
    assert_eq!(reader.calendar().zone_name(), "America/New_York");
}

#[test]
fn a_reader_that_does_not_know_the_zone_uses_the_stored_borders() {
    let mut file = ledger_with(config(calendar(21_600, None)));
    let mut node = Node::balanced(at("2026-08-22T00:00:00Z") - 21_600);
    run_until(&mut node, &mut file.ledger, "2026-09-03");
    file.ledger.maintain(node.wall).unwrap();
    let reader = Ledger::open_read_only(file.ledger.path()).unwrap();
    assert_eq!(steps(&reader, By::Month), steps(&file.ledger, By::Month));
    assert_eq!(steps(&reader, By::Day), steps(&file.ledger, By::Day));
    assert_whole(&reader, &node);
}

/// The zone of the test, of which only the name is left.
fn forgotten() -> LedgerConfig {
    config(Calendar::new_or_unknown("Test/City", 1).unwrap())
}

#[test]
fn a_ledger_whose_zone_nobody_knows_any_more_continues_at_the_last_offset() {
    for offset_s in [21_600, -12_600, 0] {
        let mut file = ledger_with(config(calendar(offset_s, None)));
        let mut node = Node::balanced(at("2026-08-22T00:00:00Z") - i64::from(offset_s));
        run_until(&mut node, &mut file.ledger, "2026-08-30");
        assert_eq!(file.ledger.unknown_zone(), None);
        let path = file.ledger.path().to_owned();
        file.ledger = Ledger::open(&path, forgotten()).unwrap();
        let problem = file.ledger.unknown_zone().unwrap();
        assert!(problem.contains("Test/City"), "{problem}");
        run_until(&mut node, &mut file.ledger, "2026-09-03");
        file.ledger.maintain(node.wall).unwrap();
        assert_whole(&file.ledger, &node);
        // As if the zone had been known all the time.
        let mut known = ledger_with(config(calendar(offset_s, None)));
        let mut same = Node::balanced(at("2026-08-22T00:00:00Z") - i64::from(offset_s));
        run_until(&mut same, &mut known.ledger, "2026-09-03");
        known.ledger.maintain(same.wall).unwrap();
        for by in [By::Hour, By::Day, By::Month] {
            assert_eq!(steps(&file.ledger, by), steps(&known.ledger, by), "{offset_s} {by:?}");
        }
        let reader = Ledger::open_read_only(&path).unwrap();
        assert_eq!(steps(&reader, By::Day), steps(&known.ledger, By::Day));
        // A month is closed by the borders that were booked.
        let closed = file.ledger.close_anyway("2026-08", node.wall).unwrap();
        assert_eq!(closed.end, known.ledger.close_anyway("2026-08", same.wall).unwrap().end);
        assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
        // The zone is known again.
        file.ledger = Ledger::open(&path, config(calendar(offset_s, None))).unwrap();
        assert_eq!(file.ledger.unknown_zone(), None);
        run_until(&mut node, &mut file.ledger, "2026-09-05");
        assert_whole(&file.ledger, &node);
    }
}

#[test]
fn an_unknown_zone_is_not_written_into_a_new_ledger_and_does_not_replace_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.sqlite");
    let refused = Ledger::open(&path, forgotten()).unwrap_err().to_string();
    assert!(refused.contains("\"Test/City\"") && refused.contains("correct `time_zone`"), "{refused}");
    assert!(!path.exists());
    drop(Ledger::open(&path, config(Calendar::new("Asia/Tokyo", 1).unwrap())).unwrap());
    let other = Ledger::open(&path, forgotten()).unwrap_err();
    assert!(matches!(other, crate::LedgerError::CalendarChanged { .. }), "{other}");
}

#[test]
fn a_day_that_a_zone_skips_has_no_row() {
    let mut file = ledger_with(config(Calendar::new("Pacific/Apia", 30).unwrap()));
    let mut node = Node::balanced(at("2011-12-25T10:00:00Z"));
    run_until(&mut node, &mut file.ledger, "2012-01-03");
    file.ledger.maintain(node.wall).unwrap();
    assert_whole(&file.ledger, &node);
    let days: Vec<String> = steps(&file.ledger, By::Day).into_iter().map(|step| step.0).collect();
    assert!(days.contains(&"2011-12-29".to_owned()) && !days.contains(&"2011-12-30".to_owned()), "{days:?}");
    assert_eq!(days.len(), 9, "{days:?}");
    let months = steps(&file.ledger, By::Month);
    assert_eq!(months.iter().map(|step| step.0.as_str()).collect::<Vec<_>>(), ["2011-11", "2011-12"]);
}

#[test]
fn clock_changes_and_leap_days_leave_the_sums_whole() {
    for (name, from, to) in [
        ("Europe/Berlin", "2026-03-27", "2026-04-02"),
        ("Europe/Berlin", "2026-10-23", "2026-11-02"),
        ("Australia/Lord_Howe", "2026-04-03", "2026-04-07"),
        ("Asia/Kathmandu", "2028-02-27", "2028-03-02"),
        ("America/Sao_Paulo", "2018-11-02", "2018-11-06"),
    ] {
        let mut file = ledger_with(config(Calendar::new(name, 1).unwrap()));
        let mut node = Node::balanced(at(&format!("{from}T00:00:00Z")));
        run_until(&mut node, &mut file.ledger, to);
        file.ledger.maintain(node.wall).unwrap();
        assert_whole(&file.ledger, &node);
        let calendar = file.ledger.calendar().clone();
        let stored: Vec<(i64, i64)> = {
            let mut statement =
                file.ledger.conn.prepare("SELECT start, end FROM border WHERE level = 2").unwrap();
            statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap()
                .map(Result::unwrap)
                .collect()
        };
        for (start, end) in stored {
            assert_eq!(calendar.start(Level::Day, start).unwrap(), start, "{name}");
            assert_eq!(calendar.end(Level::Day, start).unwrap(), end, "{name}");
            assert!((DAY - HOUR..=DAY + HOUR).contains(&(end - start)));
        }
    }
}
