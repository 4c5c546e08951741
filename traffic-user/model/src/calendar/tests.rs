use proptest::prelude::*;

use super::*;

const ZONES: [&str; 9] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "Pacific/Apia",
];

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

fn hours_of_day(zone: &str, instant: &str) -> usize {
    let calendar = Calendar::new(zone, 1).unwrap();
    let start = calendar.start(Level::Day, at(instant)).unwrap();
    let end = calendar.end(Level::Day, start).unwrap();
    let hours = calendar.cover(Level::Hour, start, end).unwrap();
    assert_eq!((hours[0].0, hours[hours.len() - 1].1), (start, end));
    assert_eq!((end - start) / 3600, i64::try_from(hours.len()).unwrap());
    hours.len()
}

#[test]
fn days_at_clock_changes_have_23_and_25_hours() {
    assert_eq!(hours_of_day("Europe/Berlin", "2026-03-29T12:00:00Z"), 23);
    assert_eq!(hours_of_day("Europe/Berlin", "2026-10-25T12:00:00Z"), 25);
    assert_eq!(hours_of_day("Europe/Berlin", "2026-10-26T12:00:00Z"), 24);
    assert_eq!(hours_of_day("America/New_York", "2026-03-08T12:00:00Z"), 23);
    assert_eq!(hours_of_day("America/New_York", "2026-11-01T12:00:00Z"), 25);
}

#[test]
fn a_zone_with_a_half_hour_offset_has_its_own_hours() {
    let calendar = Calendar::new("Asia/Kolkata", 1).unwrap();
    assert_eq!(calendar.start(Level::Hour, at("2026-05-05T10:10:00Z")).unwrap(), at("2026-05-05T09:30:00Z"));
    assert_eq!(calendar.start(Level::Day, at("2026-05-05T10:10:00Z")).unwrap(), at("2026-05-04T18:30:00Z"));
}

#[test]
fn billing_months_are_clamped_to_the_month() {
    let calendar = Calendar::new("UTC", 31).unwrap();
    assert_eq!(
        calendar.month_named("2026-02").unwrap(),
        (at("2026-02-28T00:00:00Z"), at("2026-03-31T00:00:00Z"))
    );
    assert_eq!(calendar.start(Level::Month, at("2026-03-30T10:00:00Z")).unwrap(), at("2026-02-28T00:00:00Z"));
    let tenth = Calendar::new("UTC", 10).unwrap();
    assert_eq!(tenth.start(Level::Month, at("2026-01-09T23:59:59Z")).unwrap(), at("2025-12-10T00:00:00Z"));
    assert_eq!(tenth.label(Level::Month, at("2025-12-10T00:00:00Z")).unwrap(), "2025-12");
    assert!(matches!(Calendar::new("UTC", 32), Err(CalendarError::BillingDay(32))));
    assert!(Calendar::new("Mars/Olympus", 1).is_err());
}

#[test]
fn labels_are_local_with_an_offset_that_distinguishes_repeated_hours() {
    let calendar = Calendar::new("Europe/Berlin", 1).unwrap();
    let label = |text| calendar.label(Level::Hour, at(text)).unwrap();
    assert_eq!(label("2026-10-25T00:00:00Z"), "2026-10-25T02:00+02:00");
    assert_eq!(label("2026-10-25T01:00:00Z"), "2026-10-25T02:00+01:00");
}

proptest! {
    /// Buckets partition time, and every level nests in the next.
    #[test]
    fn buckets_partition_and_nest(
        zone in 0..ZONES.len(), day in 1..=31_u8, unix_s in 946_684_800..2_208_988_800_i64,
    ) {
        let calendar = Calendar::new(ZONES[zone], day).unwrap();
        for level in Level::ALL {
            let start = calendar.start(level, unix_s).unwrap();
            let end = calendar.end(level, start).unwrap();
            prop_assert!(start <= unix_s && unix_s < end, "{level:?} {start} {unix_s} {end}");
            prop_assert_eq!(calendar.start(level, start).unwrap(), start);
            prop_assert_eq!(calendar.start(level, end).unwrap(), end);
            prop_assert_eq!(calendar.start(level, end - 1).unwrap(), start);
            for finer in Level::ALL.into_iter().take_while(|&finer| finer < level) {
                let nests = calendar.is_start(finer, start).unwrap();
                prop_assert!(nests, "{finer:?} in {level:?} at {start}");
            }
        }
    }
}
