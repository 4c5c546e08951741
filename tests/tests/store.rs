//! The ledger in a real PostgreSQL: every row once, whatever fails, and nobody's rows twice.

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
    container::introduce,
    postgres::{Postgres, with_tls},
    process::Process,
    systemd::{Systemd, unit_named},
    traffic::udp_send,
};

const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n0 192.168.0.0/16\n2 10.1.0.2/32\n3 fd00:1::/64\n";
const PATIENCE: Duration = Duration::from_secs(20);

/// A node with two containers whose daemon drains at the shortest interval.
fn node(name: &str) -> Result<(Lab, Container, Container)> {
    Lab::with_two(name, CLASSES, "node = 'n7'\n[drain]\ninterval = '100ms'\n[ship]\ninterval = '1s'\n")
}

/// A store with a user who may ship, and one who may read.
fn store<'l>(lab: &'l Lab, options: &str) -> Result<Postgres<'l>> {
    let options: Vec<&str> = options.split_whitespace().collect();
    let server = Postgres::start(lab.host(), &options)?;
    lab.run_ok(&["store", "init", &server.url("postgres")])?;
    server.query("create user ship password 'hunter2' in role trafctl_ship")?;
    server.query("create user reader in role trafctl_read")?;
    Ok(server)
}

fn ship(lab: &Lab, server: &Postgres<'_>) -> Result<Output> {
    Ok(lab.trafctl(&["ship", "--once", "--to", &server.url("ship")])?.output()?)
}

fn ship_ok(lab: &Lab, server: &Postgres<'_>) -> Result<()> {
    let output = ship(lab, server)?;
    ensure!(output.status.success(), "{}", stderr(&output));
    Ok(())
}

/// The store's sums of a container, by a view.
fn stored(server: &Postgres<'_>, view: &str, container: &str) -> Result<Amounts> {
    let row = server.query(&format!(
        "select coalesce(sum(in_packets), 0), coalesce(sum(in_bytes), 0), coalesce(sum(out_packets), 0),
         coalesce(sum(out_bytes), 0) from trafctl.{view} where node = 'n7' and container = '{container}'"
    ))?;
    let numbers: Vec<u64> = row.split('|').map(str::parse).collect::<Result<_, _>>()?;
    let [in_packets, in_bytes, out_packets, out_bytes] = numbers[..] else { anyhow::bail!("{row}") };
    Ok(Amounts { in_packets, in_bytes, out_packets, out_bytes })
}

fn verify(lab: &Lab, server: &Postgres<'_>, more: &[&str]) -> Result<serde_json::Value> {
    let url = server.url("ship");
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

fn is_equal(lab: &Lab, server: &Postgres<'_>) -> Result<()> {
    let verified = verify(lab, server, &[])?;
    ensure!(verified["differences"].as_array().is_some_and(Vec::is_empty), "{verified}");
    Ok(())
}

#[test]
fn rows_arrive_once_while_the_server_is_killed_and_two_ship() -> Result<()> {
    let (lab, a, b) = node("store-kill")?;
    let mut server = store(&lab, "")?;
    let daemon = Daemon::start(&lab)?;
    let url = server.url("ship");
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
        eventually("the rows are in the store", || Ok(stored(&server, "traffic_5min", "101")? == sent))?;
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
        for view in ["traffic_5min", "traffic_day"] {
            ensure!(stored(&server, view, container)? == counted, "{view} of {container}: not {counted:?}");
        }
        // Class 0 is not billed; nothing here is of class 0.
        ensure!(stored(&server, "bill_month", container)? == counted, "{container}: {counted:?}");
    }
    is_equal(&lab, &server)?;
    // Once more: nothing is sent twice.
    let output = ship(&lab, &server)?;
    ensure!(String::from_utf8(output.stdout)?.starts_with("shipped 0 rows in 0 parts"));
    ensure!(server.query("select node, version <> '', kernel <> '' from trafctl.nodes")? == "n7|t|t");
    Ok(())
}

#[test]
fn a_restored_ledger_and_a_clone_are_refused_until_somebody_decides() -> Result<()> {
    let (lab, a, b) = node("store-restore")?;
    let server = store(&lab, "")?;
    let ledger = lab.state_dir().join("ledger.sqlite");
    let send = |packets| udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), packets, 333);
    let count = |packets: u64| -> Result<()> {
        let daemon = Daemon::start(&lab)?;
        send(packets)?;
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
    ensure!(text.contains("trafctl ship adopt"), "{text}");
    ensure!(stored(&server, "traffic_5min", "101")? == before, "a refused ledger changes nothing");
    // Only the owner may decide, after a look at what happens.
    let adopt = |user: &str, more: &[&str]| -> Result<Output> {
        let url = server.url(user);
        Ok(lab.trafctl(&[&["ship", "adopt", "--to", &url][..], more].concat())?.output()?)
    };
    let preview = adopt("ship", &[])?;
    ensure!(
        preview.status.code() == Some(1) && String::from_utf8(preview.stdout)?.contains("repeat the command")
    );
    let denied = adopt("ship", &["--yes"])?;
    ensure!(
        denied.status.code() == Some(1) && stderr(&denied).contains("schema's owner"),
        "{}",
        stderr(&denied)
    );
    ensure!(stored(&server, "traffic_5min", "101")? == before);
    let adopted = adopt("postgres", &["--yes"])?;
    ensure!(adopted.status.success(), "{}", stderr(&adopted));
    ship_ok(&lab, &server)?;
    is_equal(&lab, &server)?;
    let counted = Counters::at_rest(&lab)?.container("101");
    ensure!(stored(&server, "traffic_5min", "101")? == counted, "{counted:?}");
    // The same ledger from another machine.
    server.query("update trafctl.ledger set machine = 'another'")?;
    let text = stderr(&ship(&lab, &server)?);
    ensure!(text.contains("a clone") && text.contains("trafctl ship adopt"), "{text}");
    let adopted = adopt("postgres", &["--yes"])?;
    ensure!(adopted.status.success(), "{}", stderr(&adopted));
    is_equal(&lab, &server)?;
    ensure!(server.query("select count(*) from trafctl.ledger")? == "1");
    Ok(())
}

#[test]
fn a_single_altered_row_is_found_and_repaired() -> Result<()> {
    let (lab, a, b) = node("store-verify")?;
    let server = store(&lab, "")?;
    let daemon = Daemon::start(&lab)?;
    udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 300, 333)?;
    daemon.stop()?;
    ship_ok(&lab, &server)?;
    is_equal(&lab, &server)?;
    let row = "ctid = (select ctid from trafctl.traffic where in_bytes > 0 limit 1) and tableoid = (select tableoid \
               from trafctl.traffic where in_bytes > 0 limit 1)";
    for (sql, table) in [
        (format!("update trafctl.traffic set in_bytes = in_bytes + 1 where {row}"), "traffic"),
        (format!("delete from trafctl.traffic where {row}"), "traffic"),
        ("update trafctl.container set label = label || 'x' where number = 1".to_owned(), "container"),
        ("delete from trafctl.series".to_owned(), "series"),
    ] {
        server.query(&sql)?;
        let found = verify(&lab, &server, &[])?;
        ensure!(found["differences"][0]["table"] == table, "{sql}: {found}");
        verify(&lab, &server, &["--repair"])?;
        is_equal(&lab, &server).context(sql)?;
    }
    // A row of a day that the ledger does not have, which only the owner can remove.
    server.query(
        "select trafctl.add_months('{1600000200}'); create temp table x as select * from trafctl.traffic limit 1;
         update x set start = 1600000200; insert into trafctl.traffic select * from x",
    )?;
    let found = verify(&lab, &server, &["--repair"])?;
    ensure!(found["differences"][0]["rows_in_store"] == 1 && found["repaired"] == 0, "{found}");
    Ok(())
}

#[test]
fn roles_can_add_or_read_and_nothing_else() -> Result<()> {
    let (lab, a, b) = node("store-roles")?;
    let server = store(&lab, "")?;
    let daemon = Daemon::start(&lab)?;
    udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 100, 333)?;
    daemon.stop()?;
    ship_ok(&lab, &server)?;
    for (user, allowed, refused) in [
        (
            "ship",
            &["select trafctl.known('x')"][..],
            &[
                "delete from trafctl.traffic",
                "update trafctl.traffic set in_bytes = 0",
                "insert into trafctl.part values (1, 'x', 1, 1)",
                "select * from trafctl.traffic",
                "select trafctl.take_over('x', 'y', null, 1, null, null)",
                "truncate trafctl.traffic",
                "drop table trafctl.traffic",
                "create table trafctl.x (a int)",
            ][..],
        ),
        (
            "reader",
            &["select * from trafctl.bill_month", "select count(*) from trafctl.traffic"][..],
            &[
                "delete from trafctl.traffic",
                "update trafctl.ledger set done = 0",
                "select trafctl.known('x')",
                "select trafctl.add_months('{0}')",
            ][..],
        ),
    ] {
        for sql in allowed {
            ensure!(server.psql(user, sql)?.status.success(), "{user}: {sql}");
        }
        for sql in refused {
            let output = server.psql(user, sql)?;
            let text = stderr(&output);
            let is_refused = text.contains("permission denied") || text.contains("must be owner");
            ensure!(is_refused, "{user}: {sql}: {text}");
        }
    }
    let again = lab.run_ok(&["store", "init", &server.url("postgres")])?;
    ensure!(again.starts_with("store "), "{again}");
    let checked = lab.run_json(&["store", "check", &server.url("ship"), "--format", "json"])?;
    ensure!(checked["may_ship"] == true && checked["may_read"] == false, "{checked}");
    server.query("create user nobody_here; grant usage on schema trafctl to nobody_here")?;
    server.query("grant select on trafctl.store_version to nobody_here")?;
    let output = lab.trafctl(&["store", "check", &server.url("nobody_here")])?.output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    server.query("drop view trafctl.bill_month")?;
    let output = lab.trafctl(&["store", "check", &server.url("ship")])?.output()?;
    ensure!(String::from_utf8(output.stdout)?.contains("trafctl.bill_month is missing"));
    // Another version, and no store at all.
    server.query("update trafctl.store_version set version = 7")?;
    let text = stderr(&lab.trafctl(&["store", "check", &server.url("ship")])?.output()?);
    ensure!(text.contains("schema version 7"), "{text}");
    server.query("drop schema trafctl cascade")?;
    let text = stderr(&ship(&lab, &server)?);
    ensure!(text.contains("trafctl store init"), "{text}");
    Ok(())
}

#[test]
fn the_server_is_verified_and_the_password_stays_in_its_file() -> Result<()> {
    let (lab, a, b) = node("store-tls")?;
    let directory = certificates()?;
    let path = directory.path().display();
    let _server = store(&lab, &with_tls(directory.path()).join(" "))?;
    let daemon = Daemon::start(&lab)?;
    udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 100, 333)?;
    daemon.stop()?;
    let passwords = lab.write("pgpass", "127.0.0.1:5432:*:ship:hunter2\n")?;
    let wrong = lab.write("wrong", "*:*:*:*:letmein\n")?;
    for file in [&passwords, &wrong] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    }
    let ship = |options: &str, file: &Path| -> Result<(bool, String)> {
        let url = format!("postgresql://ship@127.0.0.1/postgres{options}");
        let file = file.to_str().context("path")?;
        let output =
            lab.trafctl(&["ship", "--once", "-vv", "--to", &url, "--password-file", file])?.output()?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
        ensure!(!text.contains("hunter2") && !text.contains("letmein"), "{text}");
        Ok((output.status.success(), text))
    };
    let verified = format!("?sslrootcert={path}/ca.pem");
    let (is_shipped, text) = ship(&verified, &passwords)?;
    ensure!(is_shipped, "{text}");
    for (options, file, reason) in [
        // The system does not know this authority, and the other one did not sign.
        ("", &passwords, "certificate"),
        (&format!("?sslrootcert={path}/other.pem"), &passwords, "certificate"),
        (&verified, &wrong, "password authentication failed"),
        ("?sslmode=disable", &passwords, "no pg_hba.conf entry"),
    ] {
        let (is_shipped, text) = ship(options, file)?;
        ensure!(!is_shipped && text.contains(reason), "{options}: {text}");
    }
    let (is_shipped, text) = ship("?sslmode=require", &passwords)?;
    ensure!(is_shipped, "{text}");
    Ok(())
}

#[test]
fn the_shipped_unit_ships_with_a_credential() -> Result<()> {
    let lab = Lab::new("store-unit")?;
    let directory = certificates()?;
    lab.configure(
        "node = 'n7'\n[drain]\ninterval = '100ms'\n[ship]\ninterval = '1s'\n\
         to = ['postgresql://ship@127.0.0.1/postgres?sslrootcert=/etc/trafctl/ca.pem']\n",
    )?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    let server = store(&lab, &with_tls(directory.path()).join(" "))?;
    let systemd = Systemd::boot(&lab, CLASSES)?;
    systemd.active()?;
    let units = systemd.root().join("etc/systemd/system");
    fs::copy(unit_named("trafctl-ship.service"), units.join("trafctl-ship.service"))?;
    fs::create_dir(units.join("trafctl-ship.service.d"))?;
    fs::write(
        units.join("trafctl-ship.service.d/lab.conf"),
        "[Service]\nExecStart=\nExecStart=/trafctl ship\nRestartSec=1\nEnvironment=TRAFCTL_BPFFS=/sys/fs/bpf\n\
         LoadCredential=pgpass:/etc/trafctl/pgpass\nStandardOutput=append:/log\nStandardError=append:/log\n",
    )?;
    fs::write(systemd.root().join("etc/trafctl/pgpass"), "*:*:*:ship:hunter2\n")?;
    fs::copy(directory.path().join("ca.pem"), systemd.root().join("etc/trafctl/ca.pem"))?;
    udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 300, 333)?;
    systemd.systemctl(&["daemon-reload"])?;
    systemd.systemctl(&["start", "trafctl-ship.service"])?;
    let sent = Counters::at_rest(&lab)?.container("101");
    eventually("the rows are in the store", || Ok(stored(&server, "traffic_5min", "101")? == sent))
        .with_context(|| systemd.log())?;
    ensure!(!systemd.log().contains("ERROR") && !systemd.log().contains("hunter2"), "{}", systemd.log());
    systemd.systemctl(&["stop", "trafctl-ship.service"])?;
    let result = systemd.systemctl(&["show", "--value", "--property=Result", "trafctl-ship.service"])?;
    ensure!(result.trim() == "success", "{result}: {}", systemd.log());
    Ok(())
}
