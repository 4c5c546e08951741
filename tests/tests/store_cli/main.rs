//! The commands that read a store: their output is that of the ledgers, and what cannot be answered is a sentence.

mod web;

use std::{net::SocketAddr, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{
    Daemon, Lab, check::stderr, clickhouse::ClickHouse, container::introduce, postgres::Postgres,
    traffic::udp_send,
};

/// A node that has counted, and a store with its rows.
fn shipped(name: &str) -> Result<(Lab, String)> {
    let lab = Lab::new(name)?;
    let classes = lab.write("networks_classes", "1 0.0.0.0/0\n1 ::/0\n2 10.1.0.2/32\n")?;
    lab.configure(&format!(
        "class_file = {classes:?}\nnode = 'n7'\n[drain]\ninterval = '100ms'\n[ledger]\ntime_zone = 'Europe/Berlin'\n\
         billing_day = 15\n"
    ))?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    let daemon = Daemon::start(&lab)?;
    udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 300, 333)?;
    udp_send(b.namespace(), a.namespace(), SocketAddr::new(a.v6(), 0), 200, 700)?;
    daemon.stop()?;
    Ok((lab, "reader".to_owned()))
}

fn store<'l>(lab: &'l Lab) -> Result<Postgres<'l>> {
    let server = Postgres::start(lab.host(), &[])?;
    lab.run_ok(&["store", "init", &server.url("postgres")])?;
    server.query("create user ship in role trafctl_ship")?;
    server.query("create user reader in role trafctl_read")?;
    Ok(server)
}

/// A store in ClickHouse with the rows of the node, and its URL.
fn in_clickhouse(lab: &Lab) -> Result<(ClickHouse<'_>, String)> {
    let server = ClickHouse::start(lab.host(), None)?;
    let url = server.url("default");
    lab.run_ok(&["store", "init", &url])?;
    lab.run_ok(&["ship", "--once", "--to", &url])?;
    Ok((server, url))
}

/// Commands whose output is compared in each format.
const COMPARED: [&str; 12] = [
    "report --by day",
    "report --by month --split class,family,direction --percentile 95",
    "report --by total --container 101 --basis l2 --tz America/New_York",
    "report --by hour --percentile 100 --billing-day 3",
    "report --show interfaces",
    "report --show faults",
    "report --show balance --by day",
    "report --show drops --by day --split class,direction",
    "top-talkers",
    "top-talkers --by-class --count 1",
    "gaps",
    "gaps --container 102",
];

fn fails(lab: &Lab, arguments: &[&str], reason: &str) -> Result<()> {
    let output = lab.trafctl(arguments)?.output()?;
    let text = stderr(&output);
    ensure!(!output.status.success() && text.contains(reason), "{arguments:?}: {text}");
    ensure!(text.lines().count() == 1, "{arguments:?}: {text}");
    Ok(())
}

#[test]
fn every_answer_is_that_of_the_ledger_to_the_byte() -> Result<()> {
    let (lab, reader) = shipped("store-cli")?;
    let server = store(&lab)?;
    let url = server.url(&reader);
    fails(&lab, &["report", "--store", &url], "no rows yet")?;
    lab.run_ok(&["ship", "--once", "--to", &server.url("ship")])?;
    let mut compared = 0;
    for line in COMPARED {
        for format in ["table", "json", "csv"] {
            let options: Vec<&str> = line.split_whitespace().chain(["--format", format]).collect();
            let stored = [&options[..], &["--store", &url, "--node", "n7"]].concat();
            let (ledger, stored) = (lab.run_ok(&options)?, lab.run_ok(&stored)?);
            ensure!(ledger == stored && !ledger.is_empty(), "{options:?}:\n{ledger}\n{stored}");
            compared += 1;
        }
    }
    ensure!(compared == 36);
    for options in [&["report", "--human"][..], &["report", "--plot"], &["report", "--svg", "-"]] {
        let stored = [options, &["--store", &url]].concat();
        ensure!(lab.run_ok(options)? == lab.run_ok(&stored)?, "{options:?}");
    }
    fails(&lab, &["report", "--store", &url, "--node", "n8"], "the store has no node \"n8\"; it has n7")?;
    fails(&lab, &["report", "--store", &url, "--container", "999"], "999")?;
    fails(&lab, &["report", "--store", &server.url("ship")], "permission denied")?;
    fails(&lab, &["report", "--store", "mysql://x@y/z"], "mysql")?;
    fails(&lab, &["report", "--store", "postgresql://x@127.0.0.1:1/z?sslmode=disable"], "cannot connect")?;
    // Rows of a month that somebody dropped are not reported as if they had never been.
    let partition = server.query(
        "select inhrelid::regclass from pg_inherits where inhparent = 'trafctl.traffic'::regclass limit 1",
    )?;
    server.query(&format!("drop table {partition}"))?;
    fails(&lab, &["report", "--store", &url, "--by", "total"], "were dropped from the store")
}

/// Adds a node `n8` that counted the same as `n7`.
fn second_node(server: &Postgres<'_>) -> Result<()> {
    let second = "insert into trafctl.ledger (id, node, version, kernel, changes, done, zone, billing_day, begun, \
                  ended, id_scope) select 'x', 'n8', version, kernel, 0, 0, zone, billing_day, begun, ended, \
                  id_scope from trafctl.ledger";
    server.query(second)?;
    let number = server.query("select number from trafctl.ledger where node = 'n8'")?;
    for (table, columns) in [
        ("container", "number, name, label, kind, since, retired"),
        (
            "traffic",
            "level, start, container, class, family, series, in_packets, in_bytes, out_packets, out_bytes",
        ),
    ] {
        server.query(&format!(
            "insert into trafctl.{table} (ledger, {columns}, rev) select {number}, {columns}, rev from trafctl.{table}"
        ))?;
    }
    Ok(())
}

#[test]
fn nodes_are_listed_with_how_far_they_are() -> Result<()> {
    let (lab, reader) = shipped("store-nodes")?;
    let server = store(&lab)?;
    let url = server.url(&reader);
    ensure!(lab.run_ok(&["store", "nodes", &url])? == "the store has no nodes yet\n");
    lab.run_ok(&["ship", "--once", "--to", &server.url("ship")])?;
    let listed = lab.run_json(&["store", "nodes", &url, "--format", "json"])?;
    let node = &listed["nodes"][0];
    ensure!(node["node"] == "n7" && node["is_behind"] == false && node["version"] != "", "{listed}");
    ensure!(node["lag_s"].as_i64().is_some_and(|lag| lag < 600), "{listed}");
    server.query("update trafctl.ledger set last_reading = last_reading - 7200000")?;
    let output = lab.trafctl(&["store", "nodes", &url])?.output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(1) && text.lines().nth(1).is_some_and(|line| line.ends_with("yes")));
    ensure!(lab.trafctl(&["store", "nodes", &url, "--max-lag", "3h"])?.output()?.status.success());
    let csv = lab.trafctl(&["store", "nodes", &url, "--format", "csv"])?.output()?;
    let csv = String::from_utf8(csv.stdout)?;
    ensure!(
        csv.starts_with("node,last_bucket,lag_s,version,open_gaps,is_behind,") && csv.contains("\nn7,"),
        "{csv}"
    );
    // The container that moved: of two nodes with ids of their own, it is two.
    second_node(&server)?;
    let total = |arguments: &[&str]| -> Result<serde_json::Value> {
        let arguments =
            [&["report", "--by", "total", "--format", "json", "--store", &url][..], arguments].concat();
        lab.run_json(&arguments)
    };
    let of = |report: &serde_json::Value| -> Result<Vec<String>> {
        let rows = report["rows"].as_array().context("rows")?;
        Ok(rows.iter().filter_map(|row| row["container"].as_str().map(str::to_owned)).collect())
    };
    let both = total(&[])?;
    ensure!(of(&both)? == ["n7/101", "n8/101", "n7/102", "n8/102"], "{both}");
    let one = total(&["--node", "n7"])?;
    ensure!(of(&one)? == ["101", "102"], "{one}");
    ensure!(of(&total(&["--container", "101"])?)? == ["n7/101", "n8/101"]);
    ensure!(of(&total(&["--container", "n8/101"])?)? == ["n8/101"]);
    // Where ids are those of the cluster, it is one with the sum of both.
    server.query("update trafctl.ledger set id_scope = 'cluster'")?;
    let merged = total(&[])?;
    ensure!(of(&merged)? == ["101", "102"], "{merged}");
    let bytes = |report: &serde_json::Value| report["total"]["total"]["bytes"].as_u64().unwrap_or_default();
    ensure!(bytes(&merged) == 2 * bytes(&one) && bytes(&both) == bytes(&merged) && bytes(&one) > 0);
    // A zone that this machine does not know, and one that it does.
    server.query("update trafctl.ledger set zone = 'Mars/Base'")?;
    fails(&lab, &["report", "--store", &url, "--by", "total"], "no zone \"Mars/Base\"")?;
    ensure!(bytes(&total(&["--tz", "UTC"])?) == bytes(&merged));
    server.query("update trafctl.ledger set zone = 'Europe/Berlin'")?;
    server.query("update trafctl.ledger set zone = 'UTC' where node = 'n8'")?;
    fails(
        &lab,
        &["report", "--store", &url, "--by", "total"],
        "several time zones (n7: Europe/Berlin, n8: UTC)",
    )?;
    ensure!(bytes(&total(&["--tz", "UTC"])?) == bytes(&merged));
    Ok(())
}

#[test]
fn tenants_are_assigned_containers_and_reported() -> Result<()> {
    let (lab, reader) = shipped("store-tenants")?;
    let server = store(&lab)?;
    let (owner, url) = (server.url("postgres"), server.url(&reader));
    lab.run_ok(&["ship", "--once", "--to", &server.url("ship")])?;
    fails(&lab, &["store", "assign", &url, "beta", "--container", "7"], "permission denied")?;
    tenants(&lab, &owner, &url)
}

#[test]
fn tenants_are_assigned_containers_and_reported_in_clickhouse() -> Result<()> {
    let (lab, _) = shipped("ch-assign")?;
    let (server, url) = in_clickhouse(&lab)?;
    tenants(&lab, &url, &url)?;
    at_once(&lab, &url)?;
    migrated(&lab, &server, &url)
}

/// Of those who want a container at the same moment, at most one has it, and each number is one assignment.
fn at_once(lab: &Lab, url: &str) -> Result<()> {
    let all = ["a", "b", "c", "d"].map(|tenant| {
        let mut command = lab.trafctl(&["store", "assign", url, tenant, "--container", "55"])?;
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        anyhow::Ok(command.spawn()?)
    });
    let mut made = 0;
    for child in all {
        let output = child?.wait_with_output()?;
        made += usize::from(output.status.success());
        let text = stderr(&output);
        ensure!(output.status.success() || text.contains("while") || text.contains("repeat"), "{text}");
    }
    let csv = lab.run_ok(&["store", "tenants", url, "--format", "csv"])?;
    ensure!(made <= 1 && csv.lines().filter(|line| line.contains(",55,")).count() == made, "{csv}");
    let mut numbers: Vec<&str> = csv.lines().filter_map(|line| line.split(',').next()).collect();
    numbers.sort_unstable();
    let count = numbers.len();
    numbers.dedup();
    ensure!(numbers.len() == count, "{csv}");
    Ok(())
}

/// A store from before there were tenants is shipped to and reported from, and gets them.
fn migrated(lab: &Lab, server: &ClickHouse<'_>, url: &str) -> Result<()> {
    for sql in [
        "DROP TABLE traffic.assignment",
        "TRUNCATE TABLE traffic.store_version",
        "INSERT INTO traffic.store_version (version) VALUES (1)",
    ] {
        server.query(sql)?;
    }
    let report = ["report", "--store", url, "--by-tenant"];
    let migrate = "run `trafctl store migrate`";
    for command in [&["store", "tenants", url][..], &report, &["store", "init", url]] {
        fails(lab, command, migrate)?;
    }
    fails(lab, &["store", "assign", url, "beta", "--container", "7"], migrate)?;
    let output = lab.trafctl(&["store", "check", url])?.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(!output.status.success() && text.contains(migrate), "{text}");
    lab.run_ok(&["ship", "--once", "--to", url])?;
    lab.run_ok(&report[..3])?;
    for expected in [": schema version 1 became 3\n", " has schema version 3 already; nothing was changed\n"]
    {
        let done = lab.run_ok(&["store", "migrate", url])?;
        ensure!(done.ends_with(expected), "{done}");
    }
    lab.run_ok(&["store", "check", url])?;
    lab.run_ok(&report)?;
    ensure!(lab.run_ok(&["store", "tenants", url])? == "nobody has a container yet\n");
    Ok(())
}

/// The tenants of a store that has node n7 with containers 101 and 102.
fn tenants(lab: &Lab, owner: &str, url: &str) -> Result<()> {
    ensure!(lab.run_ok(&["store", "tenants", url])? == "nobody has a container yet\n");
    let assign = ["store", "assign", owner];
    let made = lab.run_ok(&[&assign[..], &["acme", "--container", "101", "--node", "n7"]].concat())?;
    ensure!(made == "acme has container 101 (assignment 1, node n7, from the beginning)\n", "{made}");
    let both = "beta would have container 101 while acme has it (assignment 1, node n7, from the beginning)";
    fails(lab, &[&assign[..], &["beta", "--container", "101", "--from", "2026-11-01"]].concat(), both)?;
    fails(lab, &[&assign[..], &["beta", "--container", "7", "--from", "soon"]].concat(), "is not a time")?;
    fails(
        lab,
        &[&assign[..], &["beta", "--container", "7", "--from", "2026-11-02", "--until", "2026-11-01"]]
            .concat(),
        "would end before it begins",
    )?;
    let unknown =
        lab.run_ok(&[&assign[..], &["beta", "--container", "7", "--until", "2031-01-01"]].concat())?;
    ensure!(unknown.ends_with("the store has no such container yet\n"), "{unknown}");
    let report = |more: &[&str]| -> Result<serde_json::Value> {
        let all = [&["report", "--by", "total", "--format", "json", "--store", url][..], more].concat();
        lab.run_json(&all)
    };
    let bytes = |report: &serde_json::Value, container: &str| -> Option<u64> {
        let rows = report["rows"].as_array()?;
        rows.iter().find(|row| row["container"] == container)?["total"]["bytes"].as_u64()
    };
    let (plain, by_tenant) = (report(&[])?, report(&["--by-tenant"])?);
    ensure!(
        bytes(&by_tenant, "acme") == bytes(&plain, "101") && bytes(&plain, "101").is_some(),
        "{by_tenant}"
    );
    ensure!(bytes(&by_tenant, "(no tenant)") == bytes(&plain, "102"), "{by_tenant}");
    ensure!(by_tenant["total"] == plain["total"] && by_tenant["faults"] == plain["faults"]);
    let one = report(&["--by-tenant", "--tenant", "acme"])?;
    ensure!(one["total"]["total"]["bytes"].as_u64() == bytes(&plain, "101"), "{one}");
    let csv = lab.run_ok(&["top-talkers", "--store", url, "--by-tenant", "--format", "csv"])?;
    ensure!(csv.contains(",acme,") && !csv.contains(",101,"), "{csv}");
    fails(lab, &["report", "--store", url, "--by-tenant", "--tenant", "nobody"], "of tenant \"nobody\"")?;
    fails(lab, &["report", "--store", url, "--by-tenant", "--container", "101"], "use --tenant")?;
    fails(lab, &["report", "--store", url, "--by-tenant", "--show", "faults"], "interfaces have no tenants")?;
    // The customer moves: an assignment ends, and one that never held is removed.
    let ended = lab.run_ok(&["store", "unassign", owner, "1", "--until", "2026-01-01"])?;
    ensure!(
        ended.starts_with("acme had container 101 (assignment 1, ")
            && ended.contains("until 2026-01-01T00:00:00Z")
    );
    fails(lab, &["store", "unassign", owner, "1", "--until", "2026-02-01"], "no assignment 1 that goes on")?;
    lab.run_ok(&[&assign[..], &["beta", "--container", "101", "--from", "2026-01-01"]].concat())?;
    let listed = lab.run_json(&["store", "tenants", url, "--tenant", "beta", "--format", "json"])?;
    let number = listed["assignments"][0]["number"].as_i64().context("number")?.to_string();
    ensure!(listed["assignments"][0]["from"] == "2026-01-01T00:00:00Z", "{listed}");
    ensure!(bytes(&report(&["--by-tenant"])?, "beta") == bytes(&plain, "101"));
    let removed = lab.run_ok(&["store", "unassign", owner, &number, "--until", "2026-01-01"])?;
    ensure!(removed.contains("it was removed"), "{removed}");
    let csv = lab.run_ok(&["store", "tenants", url, "--format", "csv"])?;
    ensure!(
        csv.lines().next() == Some("number,tenant,container,node,from,until") && csv.lines().count() == 3,
        "{csv}"
    );
    Ok(())
}

/// What versions 2 to 4 of the schema added, taken away again.
const AS_VERSION_1: &str = "
    drop table trafctl.dropped; drop function trafctl.put_dropped; drop function trafctl.take_parts;
    drop function trafctl.part_digests; drop function trafctl.note_drops;
    drop function trafctl.dropped_months;
    alter table trafctl.ledger drop column drops_from, drop column without_drops, drop column drops_kept_from;
    drop view trafctl.nodes; drop table trafctl.assignment; drop function trafctl.note_extent;
    alter table trafctl.ledger drop column zone, drop column billing_day, drop column begun, drop column ended,
        drop column last_bucket, drop column last_reading, drop column id_scope;
    create view trafctl.nodes as select l.node, l.version, l.kernel, l.id as ledger, l.changes, l.done,
        (select to_timestamp(max(p.number)) from trafctl.part p where p.ledger = l.number and p.name = '5min')
            as last_five_minutes from trafctl.ledger l;
    update trafctl.store_version set version = 1";

#[test]
fn a_store_of_an_older_version_is_migrated_once_and_a_newer_one_is_left_alone() -> Result<()> {
    let (lab, reader) = shipped("store-migrate")?;
    let server = store(&lab)?;
    let (owner, ship, url) = (server.url("postgres"), server.url("ship"), server.url(&reader));
    lab.run_ok(&["ship", "--once", "--to", &ship])?;
    let before = lab.run_ok(&["report", "--by", "total", "--store", &url])?;
    server.query(AS_VERSION_1)?;
    fails(&lab, &["report", "--store", &url], "run `trafctl store migrate`")?;
    fails(&lab, &["store", "check", &ship], "run `trafctl store migrate`")?;
    fails(&lab, &["store", "init", &owner], "run `trafctl store migrate`")?;
    fails(&lab, &["store", "migrate", &ship], "nothing was changed")?;
    ensure!(server.query("select version from trafctl.store_version")? == "1");
    let done = lab.run_ok(&["store", "migrate", &owner])?;
    ensure!(done.ends_with(": schema version 1 became 4\n"), "{done}");
    let again = lab.run_json(&["store", "migrate", &owner, "--format", "json"])?;
    ensure!(again["from_version"] == 4 && again["schema_version"] == 4, "{again}");
    // The node says what it did not say before when it ships again; until then nothing is guessed.
    fails(&lab, &["report", "--store", &url], "n7 has not shipped since the store was updated")?;
    lab.run_ok(&["ship", "--once", "--to", &ship])?;
    let after = lab.run_ok(&["report", "--by", "total", "--store", &url])?;
    ensure!(before == after, "{before}\n{after}");
    lab.run_ok(&["store", "check", &ship])?;
    // Two at once: one of them finds it done.
    server.query(AS_VERSION_1)?;
    let mut both = Vec::new();
    for _ in 0..2 {
        let mut command = lab.trafctl(&["store", "migrate", &owner])?;
        both.push(command.stdout(Stdio::piped()).spawn()?);
    }
    let mut texts = Vec::new();
    for child in both {
        let output = child.wait_with_output()?;
        ensure!(output.status.success());
        texts.push(String::from_utf8(output.stdout)?);
    }
    ensure!(texts.iter().filter(|text| text.contains("became")).count() == 1, "{texts:?}");
    server.query("update trafctl.store_version set version = 9")?;
    fails(&lab, &["store", "migrate", &owner], "schema version 9, but this trafctl knows version 4")
}
