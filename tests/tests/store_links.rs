//! Shipping over links that end after some bytes, to a real PostgreSQL and a real ClickHouse: a backlog of one change, as
//! an import leaves it, comes through all the same.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use traffic_ledger::{
    Ledger, LedgerConfig,
    testing::{
        from_outside,
        seeded::{self, Volume},
    },
};
use traffic_tests::{
    Lab,
    certificates::certificates,
    check::stderr,
    clickhouse::ClickHouse,
    cut_link::CutLink,
    postgres::{Postgres, with_tls},
};

/// Containers of the backlog, its classes and hours: 8 rows for each container in five minutes.
const SIZE: (u32, u8, i64) = (60, 4, 24);
/// Where the link begins.
const PORT: u16 = 9999;
/// Runs of `trafctl ship --once` within which it must be done.
const MOST_RUNS: usize = 60;

/// Writes a ledger all of whose parts one transaction changed.
fn backlog(lab: &Lab) -> Result<()> {
    let (containers, classes, hours) = SIZE;
    let mut ledger = Ledger::open(&lab.state_dir().join("ledger.sqlite"), LedgerConfig::default())?;
    let begin: Timestamp = "2026-11-01T00:00:00Z".parse()?;
    let mut snapshot = seeded::first_snapshot(begin, containers, classes);
    seeded::fill(&mut ledger, &mut snapshot, (begin + SignedDuration::from_hours(hours), 300), Volume::Busy)?;
    from_outside(&ledger, "UPDATE outbox SET rev = (SELECT number FROM changes)");
    Ok(())
}

/// Ships by a link that ends each connection after so many bytes, until everything is there. `url` is that of the link.
/// Without `is_configured`, one process does it. Otherwise, there is a new one after each failure.
fn comes_through(lab: &Lab, (url, port): (&str, u16), (bytes, is_configured): (u64, bool)) -> Result<()> {
    let passwords = lab.write("pgpass", "*:*:*:ship:hunter2\n")?;
    fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600))?;
    lab.configure(&format!("[ship]\nto = [{url:?}]\npassword_file = {passwords:?}\n"))?;
    let link = CutLink::start(lab.host(), (PORT, port), bytes)?;
    let mut said = String::new();
    if !is_configured {
        lab.run_ok(&["ship", "--once", "--to", url])?;
        ensure!(!lab.state_dir().join("ship.json").exists());
    }
    for run in 0.. {
        ensure!(run < MOST_RUNS, "not after {run} runs: {said}");
        let output = lab.trafctl(&["ship", "--once"])?.output()?;
        if output.status.success() {
            break;
        }
        said = stderr(&output);
        let state = fs::read_to_string(lab.state_dir().join("ship.json"))?;
        ensure!(state.contains("\"batch_halvings\": "), "{state}");
    }
    ensure!(link.cut() > 3, "{} connections ended, which is too easy", link.cut());
    drop(link);
    // All of it, and without the link's end.
    let _link = CutLink::start(lab.host(), (PORT, port), u64::MAX)?;
    lab.run_ok(&["ship", "verify"]).context("the store differs").map(drop)
}

/// As if other nodes made the partitions of months first, three times.
fn others_begin_months(server: &Postgres<'_>) -> Result<()> {
    let sql = "alter function trafctl.add_months(bigint[]) rename to add_months_alone;
        create sequence trafctl.turn;
        create function trafctl.add_months(starts bigint[]) returns void language plpgsql security definer as $$ begin
            if nextval('trafctl.turn') <= 3 then raise exception 'a month exists' using errcode = '42P07'; end if;
            perform trafctl.add_months_alone(starts);
        end $$";
    server.query(sql).map(drop)
}

#[test]
fn a_backlog_of_one_change_comes_to_postgresql() -> Result<()> {
    let lab = Lab::new("link-pg")?;
    let tls = certificates()?;
    let options = with_tls(tls.path());
    let options: Vec<&str> = options.iter().map(String::as_str).chain(["-c", "fsync=off"]).collect();
    let server = Postgres::start(lab.host(), &options)?;
    lab.run_ok(&["store", "init", &server.url("postgres")])?;
    server.query("create user ship password 'hunter2' in role trafctl_ship")?;
    others_begin_months(&server)?;
    backlog(&lab)?;
    let url =
        format!("postgresql://ship@127.0.0.1:{PORT}/postgres?sslrootcert={}/ca.pem", tls.path().display());
    comes_through(&lab, (&url, 5432), (4 << 20, false))
}

#[test]
fn a_backlog_of_one_change_comes_to_clickhouse() -> Result<()> {
    let lab = Lab::new("link-ch")?;
    let server = ClickHouse::start(lab.host(), None)?;
    lab.run_ok(&["store", "init", &server.url("default")])?;
    backlog(&lab)?;
    comes_through(&lab, (&format!("clickhouse+http://ship@127.0.0.1:{PORT}/traffic"), 8123), (2 << 20, true))
}
