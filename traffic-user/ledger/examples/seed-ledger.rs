//! Fills a ledger through the same code as the daemon, then measures drains and queries.
//!
//! `seed-ledger FILE [CONTAINERS] [CLASSES] [DAYS] [ROUNDS] [quick]`; an existing file is only measured.
//!
//! Every container has traffic in every class and family in every bucket, which is the most rows that so many containers
//! can write. Recent buckets have five minutes; older ones have one reading per hour, which leaves the same
//! hours, days and months. With `quick`, only the last ten days have five minutes, and older ones have one reading
//! per day: the same days and months, and few hours.
//!
//! It prints one line per measurement, with the milliseconds of every round in order, then the CPU time of all
//! threads in each round. The first round uses whatever the page cache holds of the file. An audit runs once, and
//! its largest resident set follows. Drains use an epoch of their own, so measuring a file again adds some minutes
//! to it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use traffic_ledger::testing::seeded::{self, Volume};
use traffic_ledger::{By, Ledger, LedgerConfig, ReportQuery, TopQuery};
use traffic_model::calendar::Retention;

const DAY: i64 = 86_400;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments.first().context("usage: seed-ledger FILE [CONTAINERS] [CLASSES] [DAYS]")?;
    let number = |at: usize, default| arguments.get(at).map_or(Ok(default), |text| text.parse::<u32>());
    let (containers, classes, days) = (number(1, 1000)?, number(2, 4)?, i64::from(number(3, 365)?));
    let path = Path::new(path);
    let rounds = number(4, 5)?;
    let classes = u8::try_from(classes)?;
    if !path.exists() {
        let quick = arguments.get(5).is_some_and(|word| word == "quick");
        let usual = i64::from(Retention::default().five_minutes_days);
        let (fine_days, old_step) = if quick { (10, DAY.unsigned_abs()) } else { (usual, 3600) };
        seed(path, (containers, classes), days, (fine_days, old_step))?;
    }
    print_line(&format!("file: {} bytes", std::fs::metadata(path)?.len()));
    measure_drains(path, containers, classes, rounds)?;
    measure_questions(&Ledger::open_read_only(path)?, containers, rounds)
}

fn seed(
    path: &Path,
    (containers, classes): (u32, u8),
    days: i64,
    (fine_days, old_step): (i64, u64),
) -> anyhow::Result<()> {
    let mut ledger = Ledger::open(path, LedgerConfig::default())?;
    let begin: Timestamp = "2026-01-01T00:00:00Z".parse()?;
    let mut snapshot = seeded::first_snapshot(begin, containers, classes);
    let started = Instant::now();
    let end = begin + SignedDuration::from_secs(days * DAY);
    let fine_from = begin + SignedDuration::from_secs((days - fine_days).max(0) * DAY);
    let mut drains = seeded::fill(&mut ledger, &mut snapshot, (fine_from, old_step), Volume::Busy)?;
    drains += seeded::fill(&mut ledger, &mut snapshot, (end, 300), Volume::Busy)?;
    print_line(&format!("seeded: {drains} drains in {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// Drains once per minute with all containers and classes moving, then runs the maintenance.
fn measure_drains(path: &Path, containers: u32, classes: u8, rounds: u32) -> anyhow::Result<()> {
    let mut ledger = Ledger::open(path, LedgerConfig::default())?;
    let end = ledger.report(&ReportQuery { by: By::Total, ..ReportQuery::default() })?.to;
    let mut snapshot = seeded::first_snapshot(end, containers, classes);
    snapshot.epoch = end.as_second().unsigned_abs();
    snapshot.boot_id = format!("measured at {end}");
    // The first reading of a new epoch inserts its names.
    ledger.drain(&snapshot, seeded::every(60))?;
    let mut drains = Vec::new();
    for _ in 0..rounds.max(1) * 4 {
        seeded::advance(&mut snapshot, 60, Volume::Busy);
        drains.push(measure(|| ledger.drain(&snapshot, seeded::every(60)))?);
    }
    print_times("a drain", &drains);
    let maintenance = measure(|| ledger.maintain(snapshot.time + SignedDuration::from_secs(60)))?;
    print_times("maintenance after them", &[maintenance]);
    Ok(())
}

/// Runs the same queries in every round.
fn measure_questions(ledger: &Ledger, containers: u32, rounds: u32) -> anyhow::Result<()> {
    let one = vec![(containers / 2).to_string()];
    let end = ledger.report(&ReportQuery { containers: one.clone(), ..ReportQuery::default() })?.to;
    // The last whole month, or the last days if the history is shorter.
    let begin: Timestamp = "2026-01-01T00:00:00Z".parse()?;
    let (from, to) = ("2026-11-01T00:00:00Z".parse()?, "2026-12-01T00:00:00Z".parse()?);
    let (from, to) =
        if to <= end { (from, to) } else { ((end - SignedDuration::from_secs(30 * DAY)).max(begin), end) };
    let month = ReportQuery { by: By::Month, from: Some(from), to: Some(to), ..ReportQuery::default() };
    let year = ReportQuery { by: By::Month, containers: one.clone(), ..ReportQuery::default() };
    let last_30_days = ReportQuery {
        from: Some((end - SignedDuration::from_secs(30 * DAY)).max(begin)),
        percentile: Some(95.0),
        ..ReportQuery::default()
    };
    let of_one = ReportQuery { containers: one, ..last_30_days.clone() };
    let questions = [
        ("a month, all containers", month.clone()),
        ("a month by days, all containers", ReportQuery { by: By::Day, ..month.clone() }),
        ("the whole year, all containers", ReportQuery::default()),
        ("one container's year by months", year.clone()),
        ("one container's year by days", ReportQuery { by: By::Day, ..year.clone() }),
        ("one container's year by hours", ReportQuery { by: By::Hour, ..year }),
        ("one container's 30 days, with percentile", of_one),
        ("all containers' 30 days, with percentile", last_30_days),
    ];
    let top = TopQuery {
        count: 10,
        from: month.from,
        to: month.to,
        calendar: None,
        classes: Vec::new(),
        by_class: false,
        basis: month.basis,
    };
    // From here on, the most memory is the audit's.
    std::fs::write("/proc/self/clear_refs", "5")?;
    print_times("an audit", &[measure(|| ledger.audit())?]);
    print_line(&format!("the most memory during it: {}", most_memory()?));
    let mut took = vec![Vec::new(); questions.len() + 2];
    for _ in 0..rounds {
        for (times, (_, query)) in took.iter_mut().zip(&questions) {
            times.push(measure(|| ledger.report(query))?);
        }
        took[questions.len()].push(measure(|| ledger.top_talkers(&top))?);
        took[questions.len() + 1].push(measure(|| ledger.report_interfaces(&month))?);
    }
    let names = questions.iter().map(|question| question.0);
    for (name, times) in names.chain(["top 10 of a month", "a month's interfaces and balance"]).zip(&took) {
        print_times(name, times);
    }
    Ok(())
}

/// The largest resident set of this process, as the kernel prints it.
fn most_memory() -> anyhow::Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in /proc")?;
    Ok(line.trim().to_owned())
}

/// Wall clock time and CPU time.
type Took = (Duration, Duration);

fn measure<T, E>(run: impl FnOnce() -> Result<T, E>) -> Result<Took, E> {
    let cpu = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let (started, before) = (Instant::now(), cpu());
    run()?;
    Ok((started.elapsed(), cpu().saturating_sub(before)))
}

/// Prints the median and every round.
fn print_times(name: &str, times: &[Took]) {
    let milliseconds = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    let list = |of: fn(&Took) -> Duration| -> (String, String) {
        let all: Vec<Duration> = times.iter().map(of).collect();
        let mut sorted = all.clone();
        sorted.sort();
        let median = sorted.get(sorted.len() / 2).copied().map(milliseconds).unwrap_or_default();
        (median, all.into_iter().map(milliseconds).collect::<Vec<_>>().join(" "))
    };
    let (wall, cpu) = (list(|took| took.0), list(|took| took.1));
    print_line(&format!("{name}: median {} ms of {}; CPU {} ms of {}", wall.0, wall.1, cpu.0, cpu.1));
}

#[expect(clippy::print_stdout, reason = "the numbers are what this program is for")]
fn print_line(line: &str) {
    println!("{line}");
}
