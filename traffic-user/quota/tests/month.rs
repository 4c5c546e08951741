//! A month of thousands of containers, with looks that are killed, over a change of the clock, short months,
//! corrections and outages. What is found must be what a naive reference finds, once.
#![expect(clippy::unwrap_used, reason = "a test; clippy does not count helpers as such")]

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use traffic_model::calendar::Calendar;
use traffic_quota::{Change, Look, Quota, Quotas, Span, Subject, Track};

const CONTAINERS: u64 = 3000;
/// From before the end of summer time to after a month's end.
const BEGIN: &str = "2026-10-18T00:00:00Z";
const HOURS: i64 = 40 * 24;
const THRESHOLDS: [u16; 3] = [50, 80, 100];
/// What is looked at: each of these of every third container.
const KINDS: [&str; 5] = [
    "period = 'month'\nbilling_day = 31\ntime_zone = 'Europe/Berlin'",
    "period = 'week'\ntime_zone = 'Europe/Berlin'",
    "period = 'day'\ntime_zone = 'America/New_York'",
    "period = 'month'\nbilling_day = 1",
    "period = 'day'\ntime_zone = 'Asia/Kolkata'",
];

/// Random numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        // SplitMix64, by Steele, Lea and Flood.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % most
    }
}

fn quota(number: u64) -> Quota {
    let kind = KINDS[usize::try_from(number % KINDS.len() as u64).unwrap()];
    let text = format!(
        "[[quota]]\nname = 'q'\ndefault = true\nallowance = '{}B'\n{kind}\nthresholds = ['50%', '80%', '100%']\n",
        1000 + number * 7
    );
    Quotas::parse(&text).unwrap().quotas.remove(0)
}

/// The first instants of the periods of a kind, day by day on the calendar: no arithmetic with hours.
fn starts(kind: &str) -> BTreeSet<i64> {
    let zone =
        ["Europe/Berlin", "America/New_York", "Asia/Kolkata"].into_iter().find(|zone| kind.contains(zone));
    let zone = zone.map_or(TimeZone::UTC, |zone| TimeZone::get(zone).unwrap());
    let begins = |date: Date| match kind {
        _ if kind.contains("'day'") => true,
        _ if kind.contains("'week'") => date.weekday() == jiff::civil::Weekday::Monday,
        _ if kind.contains("= 31") => date.tomorrow().unwrap().day() == 1,
        _ => date.day() == 1,
    };
    let mut date: Date = "2026-08-25".parse().unwrap();
    let mut all = BTreeSet::new();
    while date.year() == 2026 {
        if begins(date) {
            all.insert(date.to_zoned(zone.clone()).unwrap().timestamp().as_second());
        }
        date = date.tomorrow().unwrap();
    }
    all
}

/// What a ledger keeps of a container: it is written at once, or not at all.
#[derive(Default)]
struct Kept {
    tracks: BTreeMap<i64, Vec<(u16, u32, bool)>>,
    /// Up to when it has looked.
    looked_s: Option<i64>,
    crossings: Vec<String>,
}

/// A naive reference: what each period was seen to have, at each look that was kept.
#[derive(Default)]
struct Seen(BTreeMap<i64, Vec<Option<u64>>>);

impl Seen {
    /// The crossings, from all looks: `None` is the end.
    fn crossings(&self, allowance: u64) -> BTreeMap<(i64, u16, &'static str), u32> {
        let mut found = BTreeMap::new();
        for (start_s, looks) in &self.0 {
            for percent in THRESHOLDS {
                let mut is_above = false;
                for look in looks {
                    let above =
                        look.map(|used| used as f64 >= (allowance * u64::from(percent)) as f64 / 100.0);
                    let change = match (is_above, above) {
                        (false, Some(true)) => "reached",
                        (true, Some(false)) => "undone",
                        (true, None) => "ended",
                        _ => continue,
                    };
                    *found.entry((*start_s, percent, change)).or_default() += 1;
                    // A period that goes on after its end begins with nothing crossed.
                    is_above = change == "reached";
                }
            }
        }
        found
    }
}

/// One container and its quota.
struct Container {
    number: u64,
    quota: Quota,
    /// The last period that was asked for.
    span: Option<Span>,
    starts: BTreeSet<i64>,
    used: BTreeMap<i64, u64>,
    kept: Kept,
    seen: Seen,
}

impl Container {
    fn span(&mut self, at_s: i64) -> Span {
        match self.span {
            Some(span) if (span.start_s..span.end_s).contains(&at_s) => span,
            _ => {
                let span = self.quota.period.span(&Calendar::utc(), at_s).unwrap();
                *self.span.insert(span)
            }
        }
    }

    /// The reference's period.
    fn start_s(&self, at_s: i64) -> i64 {
        *self.starts.range(..=at_s).next_back().unwrap()
    }

    /// One look: all periods since the last one, in their order. Not kept if it is killed.
    fn look(&mut self, at_s: i64, is_killed: bool) {
        let allowance = 1000 + self.number * 7;
        let (mut rows, mut crossings) = (Vec::new(), Vec::new());
        let mut seen: Vec<(i64, Option<u64>)> = Vec::new();
        let id = format!("{}", self.number);
        let last_s = self.kept.looked_s.unwrap_or(at_s).min(at_s);
        let mut span = self.span(last_s);
        loop {
            let used = self.used.get(&span.start_s).copied().unwrap_or(0);
            let subject = Subject { quota: "q", container: 7, id: &id, ledger: "l", span };
            let mut track =
                Track::from_rows(self.kept.tracks.get(&span.start_s).cloned().unwrap_or_default());
            let look = Look { used, allowance };
            let is_over = span.end_s <= at_s;
            let mut found = track.follow(subject, &THRESHOLDS, Some(look));
            seen.push((span.start_s, Some(used)));
            if is_over {
                found.extend(track.end(subject, look));
                track.reopen();
                seen.push((span.start_s, None));
            }
            crossings.extend(found.into_iter().map(|crossing| crossing.id));
            rows.push((span.start_s, track.rows().collect::<Vec<_>>()));
            if !is_over {
                break;
            }
            span = self.span(span.end_s);
        }
        if !is_killed {
            self.kept.looked_s = Some(at_s);
            self.kept.tracks.extend(rows);
            self.kept.crossings.extend(crossings);
            for (start_s, used) in seen {
                self.seen.0.entry(start_s).or_default().push(used);
            }
        }
    }

    fn check(&self) -> usize {
        let expected = self.seen.crossings(1000 + self.number * 7);
        let mut ids: BTreeSet<String> = BTreeSet::new();
        for ((start_s, percent, change), times) in expected {
            assert!(Change::ALL.iter().any(|(_, name)| *name == change));
            // What is undone or ends has the number of what was reached.
            for number in 1..=times {
                let id = format!("{}/7/{start_s}/{percent}/{change}", self.number);
                ids.insert(format!("{id} #{number}"));
            }
        }
        let mut found: BTreeMap<String, u32> = BTreeMap::new();
        let mut of_kept = BTreeSet::new();
        let once: BTreeSet<&String> = self.kept.crossings.iter().collect();
        assert_eq!(once.len(), self.kept.crossings.len(), "an id was given twice");
        for id in &self.kept.crossings {
            let what = id.strip_prefix("l/q/").unwrap().rsplit_once('/').unwrap().0;
            let times = found.entry(what.to_owned()).or_default();
            *times += 1;
            of_kept.insert(format!("{what} #{times}"));
        }
        assert_eq!(of_kept, ids, "container {}", self.number);
        ids.len()
    }
}

#[test]
fn what_is_found_in_a_month_of_thousands_is_what_a_naive_reference_finds() {
    let begin: Timestamp = BEGIN.parse().unwrap();
    let mut random = Random(26);
    let starts_of: Vec<BTreeSet<i64>> = KINDS.iter().map(|kind| starts(kind)).collect();
    let (mut all, mut kills) = (0, 0);
    for number in 0..CONTAINERS {
        let mut container = Container {
            number,
            quota: quota(number),
            span: None,
            starts: starts_of[usize::try_from(number % KINDS.len() as u64).unwrap()].clone(),
            used: BTreeMap::new(),
            kept: Kept::default(),
            seen: Seen::default(),
        };
        let rate = 1 + random.below(400);
        let mut down = 0;
        for hour in 0..HOURS {
            let at_s = (begin + hour.hours()).as_second() + 1;
            let start_s = container.start_s(at_s);
            assert_eq!(
                container.span(at_s).start_s,
                start_s,
                "the period of {at_s} of {}",
                KINDS[(number % 5) as usize]
            );
            *container.used.entry(start_s).or_default() += random.below(rate);
            // A correction takes something back.
            if random.below(300) == 0 {
                let used = container.used.get_mut(&start_s).unwrap();
                *used -= random.below(*used + 1);
            }
            // Nobody looks for up to four days.
            down =
                if down == 0 && random.below(400) == 0 { random.below(96) } else { down.saturating_sub(1) };
            if down > 0 {
                continue;
            }
            // A look is killed before what it found is kept, and done again; or it is done twice.
            let is_killed = random.below(40) == 0;
            kills += u64::from(is_killed);
            container.look(at_s, is_killed);
            if random.below(60) == 0 {
                container.look(at_s, false);
            }
        }
        all += container.check();
    }
    assert!(all > 50_000 && kills > 10_000, "{all} crossings, {kills} kills");
}
