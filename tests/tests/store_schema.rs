//! Tables of a store that somebody altered by hand: `store check` and `store migrate` name the table and the column.

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{Lab, check::stderr, clickhouse::ClickHouse, postgres::Postgres};

/// Checks a store that should have a problem with a column, and migrates it, which says the same.
fn is_named(lab: &Lab, url: &str, parts: &[&str]) -> Result<()> {
    is_named_by(&["check", "migrate"], lab, url, parts)
}

fn is_named_by(commands: &[&str], lab: &Lab, url: &str, parts: &[&str]) -> Result<()> {
    for command in commands {
        let output = lab.trafctl(&["store", command, url])?.output()?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
        ensure!(output.status.code() == Some(1), "{command}: {}: {text}", output.status);
        let is_named = |line: &str| parts.iter().all(|part| line.contains(part));
        ensure!(text.lines().any(is_named), "{command}: not {parts:?}: {text}");
    }
    Ok(())
}

fn is_well(lab: &Lab, url: &str) -> Result<()> {
    ["check", "migrate"].iter().try_for_each(|command| lab.run_ok(&["store", command, url]).map(drop))
}

#[test]
fn each_column_of_postgresql_that_is_gone_or_another_is_named() -> Result<()> {
    let lab = Lab::new("schema-pg")?;
    let server = Postgres::start(lab.host(), &["-c", "fsync=off"])?;
    let url = server.url("postgres");
    lab.run_ok(&["store", "init", &url])?;
    is_well(&lab, &url)?;
    let columns = server.query(
        "select c.relname, a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid
         where c.relnamespace = 'trafctl'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
           and a.attnum > 0 and not a.attisdropped order by 1, 2",
    )?;
    let mut renamed = 0;
    for line in columns.lines() {
        let (table, column) = line.split_once('|').context("a column")?;
        let rename = |from: &str, to: &str| {
            server.query(&format!("alter table trafctl.\"{table}\" rename column \"{from}\" to \"{to}\""))
        };
        // Without the version, it is not known which columns there should be.
        if table == "store_version" {
            continue;
        }
        rename(column, "another")?;
        let parts = [&format!("trafctl.{table} "), &format!("column {column},")];
        is_named_by(&["check"], &lab, &url, &parts.map(String::as_str))?;
        rename("another", column)?;
        renamed += 1;
    }
    ensure!(renamed > 100, "{renamed}");
    for (breaks, parts, mends) in [
        (
            "alter table trafctl.gap alter column detail type varchar(9)",
            &["detail of trafctl.gap", "character varying(9) instead of text"],
            "alter table trafctl.gap alter column detail type text",
        ),
        (
            "alter table trafctl.part alter column rev type numeric",
            &["rev of trafctl.part", "numeric instead of bigint"],
            "alter table trafctl.part alter column rev type bigint",
        ),
    ] {
        server.query(breaks)?;
        is_named(&lab, &url, parts)?;
        server.query(mends)?;
    }
    is_well(&lab, &url)?;
    server.query("alter table trafctl.traffic drop column in_packets cascade")?;
    is_named(&lab, &url, &["trafctl.traffic has no column in_packets, of type bigint"])
}

#[test]
fn single_statements_to_postgresql_have_their_bounds() -> Result<()> {
    let lab = Lab::new("schema-bounds")?;
    let server = Postgres::start(lab.host(), &["-c", "fsync=off"])?;
    let url = server.url("postgres");
    lab.run_ok(&["store", "init", &url])?;
    server.query(
        "insert into trafctl.assignment (tenant, container, \"from\") values ('acme', '101', 0);
         create function says_bounds() returns trigger language plpgsql as $$ begin
             raise exception 'lock_timeout is %', current_setting('lock_timeout');
         end $$;
         create trigger says_bounds before update on trafctl.assignment for each row execute function says_bounds()",
    )?;
    let output = lab.trafctl(&["store", "unassign", &url, "1", "--until", "2026-01-01"])?.output()?;
    let text = stderr(&output);
    ensure!(text.contains("lock_timeout is 1min"), "{text}");
    Ok(())
}

#[test]
fn columns_of_clickhouse_that_are_gone_or_others_are_named() -> Result<()> {
    let lab = Lab::new("schema-ch")?;
    let server = ClickHouse::start(lab.host(), None)?;
    let url = server.url("default");
    lab.run_ok(&["store", "init", &url])?;
    is_well(&lab, &url)?;
    for (table, column, kind) in [
        ("units", "in_packets", "Int64"),
        ("units", "day", "Nullable(String)"),
        ("records", "detail", "Nullable(String)"),
        ("progress", "zone", "String"),
        ("progress", "last_reading", "Nullable(Int64)"),
        ("adoption", "replaced_by", "String"),
        ("assignment", "removed", "UInt8"),
    ] {
        let alter = |what: &str| server.query(&format!("ALTER TABLE traffic.{table} {what}"));
        alter(&format!("DROP COLUMN {column}"))?;
        is_named(&lab, &url, &[&format!("traffic.{table} has no column {column}, of type {kind}")])?;
        alter(&format!("ADD COLUMN {column} Date"))?;
        let another = format!("column {column} of traffic.{table} has type Date instead of {kind}");
        is_named(&lab, &url, &[&another])?;
        alter(&format!("DROP COLUMN {column}"))?;
        alter(&format!("ADD COLUMN {column} {kind}"))?;
    }
    // A migration that ended before it wrote the version is repeated. It changes nothing where a column is gone.
    let version = || server.query("SELECT max(version) FROM traffic.store_version");
    let newest = version()?;
    server.query("TRUNCATE TABLE traffic.store_version")?;
    server.query("INSERT INTO traffic.store_version (version) VALUES (1)")?;
    is_named_by(&["check"], &lab, &url, &["version 1", "run `trafctl store migrate`"])?;
    server.query("ALTER TABLE traffic.units DROP COLUMN in_packets")?;
    is_named(&lab, &url, &["traffic.units has no column in_packets, of type Int64"])?;
    assert_eq!(version()?.trim(), "1");
    server.query("ALTER TABLE traffic.units ADD COLUMN in_packets Int64")?;
    lab.run_ok(&["store", "migrate", &url])?;
    assert_eq!(version()?, newest);
    is_well(&lab, &url)?;
    server.query("ALTER TABLE traffic.units MODIFY COLUMN part Enum8('5min' = 0, 'day' = 1, 'week' = 9)")?;
    is_named(&lab, &url, &["column part of traffic.units has type Enum8("])
}
