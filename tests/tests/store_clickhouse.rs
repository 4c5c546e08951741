//! The ledger in a real ClickHouse of the oldest kind: every row once, whatever fails, and nobody's rows twice.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{
    Amounts, Container, Counters, Daemon, Lab,
    certificates::certificates,
    check::{eventually, stderr},
    clickhouse::ClickHouse,
    process::Process,
    traffic::udp_send,
};

const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n0 192.168.0.0/16\n2 10.1.0.2/32\n3 fd00:1::/64\n";
const PATIENCE: Duration = Duration::from_secs(20);

/// A node with two containers whose daemon drains at the shortest interval.
fn node(name: &str) -> Result<(Lab, Container, Container)> {
    Lab::with_two(name, CLASSES, "node = 'n7'\n[drain]\ninterval = '100ms'\n[ship]\ninterval = '1s'\n")
}

fn store<'l>(lab: &'l Lab, certificates: Option<&Path>) -> Result<ClickHouse<'l>> {
    let server = ClickHouse::start(lab.host(), certificates)?;
    lab.run_ok(&["store", "init", &server.url("default")])?;
    Ok(server)
}

fn ship(lab: &Lab, server: &ClickHouse<'_>) -> Result<Output> {
    Ok(lab.trafctl(&["ship", "--once", "--to", &server.url("default")])?.output()?)
}

fn ship_ok(lab: &Lab, server: &ClickHouse<'_>) -> Result<()> {
    let output = ship(lab, server)?;
    ensure!(output.status.success(), "{}", stderr(&output));
    Ok(())
}

/// The store's sums of a container, by a view.
fn stored(server: &ClickHouse<'_>, view: &str, container: &str) -> Result<Amounts> {
    let row = server.query(&format!(
        "SELECT sum(in_packets), sum(in_bytes), sum(out_packets), sum(out_bytes) FROM traffic.{view} WHERE node = 'n7' AND \
         container = '{container}'"
    ))?;
    let numbers: Vec<u64> = row.split('\t').map(str::parse).collect::<Result<_, _>>()?;
    let [in_packets, in_bytes, out_packets, out_bytes] = numbers[..] else { anyhow::bail!("{row}") };
    Ok(Amounts { in_packets, in_bytes, out_packets, out_bytes })
}

fn verify(lab: &Lab, server: &ClickHouse<'_>, more: &[&str]) -> Result<serde_json::Value> {
    let url = server.url("default");
    let arguments = [&["ship", "verify", "--to", &url, "--format", "json"][..], more].concat();
    let output = lab.trafctl(&arguments)?.output()?;
    let verified: serde_json::Value =
        serde_json::from_slice(&output.stdout).with_context(|| stderr(&output))?;
    let store = &verified["stores"][0];
    let differences = store["differences"].as_array().context("differences")?.len();
    let repaired = store["repaired"].as_u64().context("repaired")?;
    ensure!(output.status.success() == (differences as u64 == repaired), "{verified}");
    ensure!(store["parts"].as_u64() > Some(0), "{verified}");
    Ok(store.clone())
}

fn is_equal(lab: &Lab, server: &ClickHouse<'_>) -> Result<()> {
    let verified = verify(lab, server, &[])?;
    ensure!(verified["differences"].as_array().is_some_and(Vec::is_empty), "{verified}");
    Ok(())
}

#[test]
fn rows_arrive_once_while_the_server_is_killed_and_two_ship() -> Result<()> {
    let (lab, a, b) = node("ch-kill")?;
    let mut server = store(&lab, None)?;
    let daemon = Daemon::start(&lab)?;
    let url = server.url("default");
    let mut shippers = Vec::new();
    for name in ["one", "two"] {
        let mut command = lab.trafctl(&["ship", "--to", &url])?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(lab.path(name))?);
        shippers.push(Process::spawn(&mut command)?);
    }
    for _ in 0..3 {
        // Rows of this round arrive before the server is killed in the next one.
        udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 300, 333)?;
        udp_send(b.namespace(), a.namespace(), SocketAddr::new(a.v6(), 0), 200, 700)?;
        let sent = Counters::at_rest(&lab)?.container("101");
        server.kill()?;
        server.restart()?;
        eventually("the rows are in the store", || Ok(stored(&server, "traffic_5min", "101")? == sent))
            .with_context(|| fs::read_to_string(lab.path("one")).unwrap_or_default())?;
    }
    for shipper in shippers {
        ensure!(shipper.terminate(PATIENCE)?.success());
    }
    daemon.stop()?;
    ship_ok(&lab, &server)?;
    let counters = Counters::at_rest(&lab)?;
    for container in ["101", "102"] {
        let counted = counters.container(container);
        ensure!(counted.out_packets > 0);
        // Class 0 is not billed; nothing here is of class 0.
        for view in ["traffic_5min", "traffic_day", "bill_month"] {
            ensure!(stored(&server, view, container)? == counted, "{view} of {container}: not {counted:?}");
        }
    }
    is_equal(&lab, &server)?;
    // Once more: nothing is sent twice.
    let output = ship(&lab, &server)?;
    ensure!(String::from_utf8(output.stdout)?.starts_with("shipped 0 rows in 0 parts"));
    ensure!(server.query("SELECT node, version != '', kernel != '' FROM traffic.nodes")? == "n7\t1\t1");
    let nodes = lab.run_json(&["store", "nodes", &server.url("default"), "--format", "json"])?;
    ensure!(nodes["nodes"][0]["node"] == "n7" && nodes["nodes"][0]["last_bucket"].is_string(), "{nodes}");
    Ok(())
}

#[test]
fn a_restored_ledger_is_refused_until_somebody_decides() -> Result<()> {
    let (lab, a, b) = node("ch-restore")?;
    let server = store(&lab, None)?;
    let ledger = lab.state_dir().join("ledger.sqlite");
    let count = |packets: u64| -> Result<()> {
        let daemon = Daemon::start(&lab)?;
        udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), packets, 333)?;
        daemon.stop()
    };
    count(100)?;
    ship_ok(&lab, &server)?;
    let backup = lab.path("backup.sqlite");
    lab.run_ok(&["ledger", "backup", backup.to_str().context("path")?])?;
    count(200)?;
    ship_ok(&lab, &server)?;
    let before = stored(&server, "traffic_5min", "101")?;
    // The copy is restored, and counts on.
    fs::rename(&backup, &ledger)?;
    for suffix in ["-wal", "-shm"] {
        let _missing = fs::remove_file(lab.state_dir().join(format!("ledger.sqlite{suffix}")));
    }
    count(300)?;
    let refused = ship(&lab, &server)?;
    let text = stderr(&refused);
    ensure!(refused.status.code() == Some(1) && text.contains("a restored copy"), "{text}");
    ensure!(stored(&server, "traffic_5min", "101")? == before, "a refused ledger changes nothing");
    let adopted = lab.trafctl(&["ship", "adopt", "--yes", "--to", &server.url("default")])?.output()?;
    ensure!(adopted.status.success(), "{}", stderr(&adopted));
    ship_ok(&lab, &server)?;
    is_equal(&lab, &server)?;
    let counted = Counters::at_rest(&lab)?.container("101");
    ensure!(stored(&server, "traffic_5min", "101")? == counted, "{counted:?}");
    ensure!(server.query("SELECT count() FROM traffic.nodes")? == "1");
    Ok(())
}

#[test]
fn a_single_altered_row_is_found_and_repaired() -> Result<()> {
    let (lab, a, b) = node("ch-verify")?;
    let server = store(&lab, None)?;
    let daemon = Daemon::start(&lab)?;
    udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 300, 333)?;
    daemon.stop()?;
    ship_ok(&lab, &server)?;
    is_equal(&lab, &server)?;
    let columns = "place, entity, part, part_number, version, container, class, family, series, in_packets";
    let one = "FROM traffic.units FINAL WHERE entity = 'traffic' AND in_bytes > 0 LIMIT 1";
    for (sql, table) in [
        // An altered row, an added one, one that is lost, and a part that is lost.
        (
            format!("INSERT INTO traffic.units ({columns}, in_bytes) SELECT {columns}, in_bytes + 1 {one}"),
            "traffic",
        ),
        (
            format!(
                "INSERT INTO traffic.units (place, entity, part, part_number, version, container) SELECT place, entity, part, \
                 part_number, version, 77 {one}"
            ),
            "traffic",
        ),
        ("ALTER TABLE traffic.units DELETE WHERE entity = 'traffic' AND container = 1".to_owned(), "traffic"),
        (
            "ALTER TABLE traffic.records DELETE WHERE entity = 'part' AND part = 'container'".to_owned(),
            "container",
        ),
    ] {
        server.query(&sql)?;
        let mut found = serde_json::Value::Null;
        // Deletions are done later.
        eventually("the store differs", || {
            found = verify(&lab, &server, &[])?;
            Ok(found["differences"][0].is_object())
        })?;
        ensure!(found["differences"][0]["table"] == table, "{sql}: {found}");
        eventually("nothing is deleted any more", || {
            Ok(server.query("SELECT count() FROM system.mutations WHERE NOT is_done")? == "0")
        })?;
        verify(&lab, &server, &["--repair"])?;
        is_equal(&lab, &server).context(sql)?;
    }
    Ok(())
}

#[test]
fn the_server_is_verified_and_the_password_stays_in_its_file() -> Result<()> {
    let (lab, a, b) = node("ch-tls")?;
    let directory = certificates()?;
    let path = directory.path().display();
    let server = store(&lab, Some(directory.path()))?;
    let daemon = Daemon::start(&lab)?;
    udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 100, 333)?;
    daemon.stop()?;
    let passwords = lab.write("pgpass", "127.0.0.1:8443:*:ship:hunter2\n")?;
    let wrong = lab.write("wrong", "*:*:*:*:letmein\n")?;
    for file in [&passwords, &wrong] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    }
    let ship = |options: &str, file: &Path| -> Result<(bool, String)> {
        let url = format!("clickhouse+https://ship@127.0.0.1/traffic{options}");
        let file = file.to_str().context("path")?;
        let output =
            lab.trafctl(&["ship", "--once", "-vv", "--to", &url, "--password-file", file])?.output()?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
        ensure!(!text.contains("hunter2") && !text.contains("letmein"), "{text}");
        Ok((output.status.success(), text))
    };
    let verified = format!("?ca_file={path}/ca.pem");
    for (options, file, reason) in [
        // The system does not know this authority, and the other one did not sign.
        ("", &passwords, "TLS with"),
        (&format!("?ca_file={path}/other.pem"), &passwords, "TLS with"),
        (&verified, &wrong, "let this user in"),
    ] {
        let (is_shipped, text) = ship(options, file)?;
        ensure!(!is_shipped && text.contains(reason), "{options}: {text}");
    }
    let (is_shipped, text) = ship(&verified, &passwords)?;
    ensure!(is_shipped, "{text}");
    ensure!(stored(&server, "traffic_5min", "101")? == Counters::at_rest(&lab)?.container("101"));
    // No store, and another version.
    server.query("INSERT INTO traffic.store_version (version) VALUES (7)")?;
    let (is_shipped, text) = ship(&verified, &passwords)?;
    ensure!(!is_shipped && text.contains("schema version 7"), "{text}");
    server.query("DROP DATABASE traffic")?;
    let (is_shipped, text) = ship(&verified, &passwords)?;
    ensure!(!is_shipped && text.contains("trafctl store init"), "{text}");
    Ok(())
}
