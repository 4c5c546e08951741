//! The report of a month of many nodes.
//!
//! One node's first day is shipped to the store by `trafctl`. The other nodes and days are copies of these rows, made by
//! the server: with other nodes' numbers and other times, and otherwise as the shipper wrote them. Nobody could ship as
//! many in the time of a measurement.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use jiff::{Timestamp, Unit, Zoned, tz::TimeZone};
use traffic_tests::{Lab, process::run_ok};

use super::{
    CPU_OF_REPORT, DAY_S, MONTH, ROWS, Scale, TIME, fill,
    server::{Kind, Server},
    trafctl,
};
use crate::{process::timed, progress::Progress, results::Results};

/// The part of a row of five minutes or a day, and what a copy has instead of a column.
struct Copied<'a> {
    column: &'a str,
    /// SQL.
    instead: String,
}

/// The month, and the days of it that have rows.
struct Month {
    begin: Zoned,
    days: i64,
}

impl Month {
    /// The month before this one, in UTC.
    fn before(now: Timestamp, days: i64) -> Result<Self> {
        let this = now.to_zoned(TimeZone::UTC).round(Unit::Day)?.first_of_month()?;
        let begin = this.yesterday()?.first_of_month()?;
        let days = days.min(begin.days_in_month().into());
        Ok(Self { begin, days })
    }

    fn start_s(&self) -> i64 {
        self.begin.timestamp().as_second()
    }

    /// The name of a day, as it is in the rows.
    fn name(&self, day: i64) -> Result<String> {
        Ok(self.begin.checked_add(jiff::Span::new().days(day))?.strftime("%Y-%m-%d").to_string())
    }

    /// What a copy for another day has instead of the columns that tell the time.
    fn times(&self, day: i64) -> Result<Vec<Copied<'static>>> {
        let shift = day * DAY_S;
        let name = self.name(day)?;
        let mut all: Vec<Copied<'static>> = ["start", "part_number", "end", "from", "until"]
            .map(|column| Copied { column, instead: format!("t.{column} + {shift}") })
            .into();
        all.push(Copied {
            column: "day",
            instead: format!("CASE WHEN t.day IS NULL THEN NULL ELSE '{name}' END"),
        });
        Ok(all)
    }
}

/// Measures the report with one kind of store.
pub fn run(
    kind: Kind,
    (scale, rounds): (Scale, usize),
    results: &mut Results,
    progress: &Progress,
) -> Result<()> {
    let lab = Lab::new("fleet")?;
    lab.configure("node = 'node1'\n")?;
    let server = Server::start(kind, lab.host())?;
    server.empty_store(&lab)?;
    let month = Month::before(Timestamp::now(), scale.days_of_month())?;
    progress.note(&format!("fleet: making a month in {}", kind.name()));
    let state = lab.path("month");
    std::fs::create_dir(&state)?;
    let first = Timestamp::from_second(month.start_s() + DAY_S)?;
    fill(&state.join("ledger.sqlite"), (scale.containers(), 1), scale.apart_s(kind), first)?;
    run_ok(&mut trafctl(&lab, &state, &["ship", "--once", "--to", &server.url()])?)?;
    let bytes = in_bytes_of_days(&server)?;
    copy(&server, &month, scale.nodes(), progress)?;
    let rows = server.rows()?;
    let containers = u64::from(scale.containers() * scale.nodes());
    let case = case(scale);
    results.push(ROWS, &case, kind.name(), (rows as f64, "rows"));

    let url = server.url();
    let (from, to) = (month.name(0)?, month.name(31)?);
    let arguments = ["report", "--store", &url, "--tz", "UTC", "--by", "total", "--from", &from, "--to", &to];
    let report = run_ok(&mut trafctl(&lab, &state, &[&arguments[..], &["--format", "csv"]].concat())?)?;
    let sum = u128::from(bytes) * u128::from(scale.nodes()) * u128::try_from(month.days)?;
    is_complete(&report, containers, sum)?;
    for round in 0..rounds {
        progress.note(&format!("fleet, a month from {}: round {} of {rounds}", kind.name(), round + 1));
        let mut command = trafctl(&lab, &state, &[&arguments[..], &["--format", "json"]].concat())?;
        let taken = timed(command.stderr(Stdio::null()))?;
        results.push(TIME, &case, kind.name(), (taken.wall, "s"));
        results.push(CPU_OF_REPORT, &case, kind.name(), (taken.cpu, "s"));
    }
    Ok(())
}

/// What the report is called in the results.
pub fn case(scale: Scale) -> String {
    format!(
        "{MONTH}, {} nodes of {} containers, {} days",
        scale.nodes(),
        scale.containers(),
        scale.days_of_month()
    )
}

/// Whether a report as CSV has all containers, each with class 0 beside the others, and the expected bytes.
fn is_complete(report: &str, containers: u64, bytes: u128) -> Result<()> {
    let mut lines = report.lines();
    let header = lines.next().context("the report is empty")?;
    let column = header.split(',').position(|name| name == "in_bytes").context("no column in_bytes")?;
    let (mut rows, mut sum) = (0, 0);
    for line in lines {
        rows += 1;
        sum += line.split(',').nth(column).context("a short line")?.parse::<u128>()?;
    }
    ensure!(rows == 2 * containers, "the report has {rows} rows of {containers} containers");
    ensure!(sum == bytes, "the report has {sum} bytes instead of {bytes}");
    Ok(())
}

/// The bytes to all containers in the days that the store has.
fn in_bytes_of_days(server: &Server<'_>) -> Result<u64> {
    server.number(match server {
        Server::ClickHouse(_) => "SELECT sum(in_bytes) FROM traffic.traffic WHERE level = 2",
        Server::Postgres(_) => "SELECT sum(in_bytes)::bigint FROM trafctl.traffic WHERE level = 2",
    })
}

/// Copies the first day of the only node to the other days and nodes.
fn copy(server: &Server<'_>, month: &Month, nodes: u32, progress: &Progress) -> Result<()> {
    match server {
        Server::ClickHouse(_) => copy_clickhouse(server, month, nodes, progress),
        Server::Postgres(_) => copy_postgres(server, month, nodes, progress),
    }
}

/// The columns of an insertion, and what is selected for them.
fn columns(names: &[&str], copied: &[Copied<'_>], quote: char) -> (String, String) {
    let quoted = |name: &str| format!("{quote}{name}{quote}");
    let list = names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let selected = names.iter().map(|name| {
        let instead = copied.iter().find(|copied| copied.column == *name);
        instead.map_or_else(
            || format!("t.{}", quoted(name)),
            |copied| copied.instead.replace(&format!("t.{name}"), &format!("t.{}", quoted(name))),
        )
    });
    (list, selected.collect::<Vec<_>>().join(", "))
}

fn copy_clickhouse(server: &Server<'_>, month: &Month, nodes: u32, progress: &Progress) -> Result<()> {
    let names = |table: &str| {
        server.run(&format!(
            "SELECT name FROM system.columns WHERE database = 'traffic' AND table = '{table}' ORDER BY name"
        ))
    };
    let all = (0..nodes).map(|node| node.to_string()).collect::<Vec<_>>().join(", ");
    let others = (1..nodes).map(|node| node.to_string()).collect::<Vec<_>>().join(", ");
    let place = || Copied { column: "place", instead: "t.place + n".to_owned() };
    let insert = |table: &str, copied: &[Copied<'_>], (nodes, filter): (&str, &str)| {
        let names = names(table)?;
        let names: Vec<&str> = names.lines().collect();
        let (list, selected) = columns(&names, copied, '`');
        // Old servers know no alias of a table before an ARRAY JOIN.
        let selected = selected.replace("t.", "");
        server.run(&format!(
            "INSERT INTO traffic.{table} ({list}) SELECT {selected} FROM traffic.{table} ARRAY JOIN [{nodes}] AS n {filter}"
        ))
    };
    insert("records", &[place()], (&others, ""))?;
    let start = month.start_s();
    for day in 0..month.days {
        progress.note(&format!("fleet: day {} of {}", day + 1, month.days));
        let mut copied = month.times(day)?;
        copied.push(place());
        let filter = format!(
            "WHERE place = (SELECT min(place) FROM traffic.progress) AND part_number >= {start} AND part_number < {}",
            start + DAY_S
        );
        insert("units", &copied, (if day == 0 { &others } else { &all }, &filter))?;
    }
    // Last, because the nodes are found by it. The higher number replaces the first node's own.
    let copied = [
        place(),
        Copied { column: "number", instead: "t.number + 1".to_owned() },
        Copied { column: "ledger", instead: "if(n = 0, t.ledger, concat(t.ledger, toString(n)))".to_owned() },
        Copied { column: "node", instead: "concat('node', toString(n + 1))".to_owned() },
        Copied {
            column: "ended",
            instead: format!("if(t.what = 'seen', {}, t.ended)", start + month.days * DAY_S),
        },
    ];
    insert("progress", &copied, (&all, ""))?;
    Ok(())
}

fn copy_postgres(server: &Server<'_>, month: &Month, nodes: u32, progress: &Progress) -> Result<()> {
    let (start, days) = (month.start_s(), month.days);
    let names = |table: &str| {
        server.run(&format!(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'trafctl' AND table_name = '{table}'"
        ))
    };
    // The names of the tables with rows of ledgers: partitioned ones are those of five minutes and days.
    let tables = |kind: char| {
        server.run(&format!(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'trafctl'
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'ledger' AND NOT a.attisdropped
             WHERE c.relkind = '{kind}' AND NOT c.relispartition AND c.relname <> 'part'"
        ))
    };
    let number = server.run("SELECT number FROM trafctl.ledger")?;
    let ledger = || Copied { column: "ledger", instead: "n".to_owned() };
    let insert = |table: &str, copied: &[Copied<'_>], (nodes, filter): (&str, &str)| {
        let names = names(table)?;
        let names: Vec<&str> = names.lines().collect();
        let (list, selected) = columns(&names, copied, '"');
        server.run(&format!(
            "INSERT INTO trafctl.{table} ({list}) SELECT {selected} FROM trafctl.{table} t CROSS JOIN ({nodes}) m(n)
             WHERE t.ledger = {number} {filter} ORDER BY n"
        ))
    };
    let names_of_ledger = names("ledger")?;
    let names_of_ledger: Vec<&str> = names_of_ledger.lines().filter(|name| *name != "number").collect();
    let copied = [
        Copied { column: "id", instead: "t.id || n".to_owned() },
        Copied { column: "node", instead: "'node' || n".to_owned() },
    ];
    let (list, selected) = columns(&names_of_ledger, &copied, '"');
    server.run(&format!(
        "UPDATE trafctl.ledger SET ended = {};
         INSERT INTO trafctl.ledger ({list}) SELECT {selected} FROM trafctl.ledger t CROSS JOIN generate_series(2, {nodes}) n",
        start + days * DAY_S
    ))?;
    let all = "SELECT number FROM trafctl.ledger";
    let others = format!("{all} WHERE number <> {number}");
    for table in tables('r')?.lines() {
        insert(table, &[ledger()], (&others, ""))?;
    }
    let units = tables('p')?;
    for day in 0..days {
        progress.note(&format!("fleet: day {} of {days}", day + 1));
        let nodes = if day == 0 { others.as_str() } else { all };
        for table in units.lines() {
            let mut copied = month.times(day)?;
            copied.push(ledger());
            let filter = format!("AND t.start >= {start} AND t.start < {}", start + DAY_S);
            insert(table, &copied, (nodes, &filter))?;
        }
        let shift = day * DAY_S;
        let copied = [ledger(), Copied { column: "number", instead: format!("t.number + {shift}") }];
        let filter =
            format!("AND t.name IN ('5min', 'day') AND t.number >= {start} AND t.number < {}", start + DAY_S);
        insert("part", &copied, (nodes, &filter))?;
    }
    // The server does this by itself within minutes.
    server.run("VACUUM ANALYZE")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_differs_from_its_row_in_node_and_time_alone() {
        let month = Month::before("2026-03-05T07:00:00Z".parse().unwrap(), 28).unwrap();
        assert_eq!((month.start_s(), month.name(27).unwrap().as_str()), (1_769_904_000, "2026-02-28"));
        let mut copied = month.times(2).unwrap();
        copied.push(Copied { column: "ledger", instead: "n".to_owned() });
        let (list, selected) = columns(&["ledger", "start", "class", "end"], &copied, '"');
        assert_eq!(list, "\"ledger\", \"start\", \"class\", \"end\"");
        assert_eq!(selected, "n, t.\"start\" + 172800, t.\"class\", t.\"end\" + 172800");
    }

    #[test]
    fn a_report_that_lacks_a_container_or_a_byte_is_found() {
        let report = "period,container,in_bytes\nall,a,5\nall,a,1\nall,b,7\nall,b,0\n";
        is_complete(report, 2, 13).unwrap();
        assert!(is_complete(report, 3, 13).is_err());
        assert!(is_complete(report, 2, 14).is_err());
    }
}
