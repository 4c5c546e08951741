//! Outages of PostgreSQL.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{
    Counters, Lab,
    certificates::{certificates, expire},
    check::eventually,
    postgres::{Postgres, with_tls},
    process::{Process, run_ok},
};

use crate::{PATIENCE, Server, Site, node};

impl Server for Postgres<'_> {
    fn end(&mut self) -> Result<()> {
        self.stop()
    }

    fn restart(&mut self) -> Result<()> {
        self.restart()
    }

    fn data(&self) -> PathBuf {
        self.data()
    }

    fn stored_bytes(&self) -> Result<String> {
        self.query("select sum(out_bytes) from trafctl.traffic_5min where container = '101'")
    }
}

fn store<'l>(lab: &'l Lab, options: &[String]) -> Result<Postgres<'l>> {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let server = Postgres::start(lab.host(), &options)?;
    lab.run_ok(&["store", "init", &server.url("postgres")])?;
    server.query("create user ship password 'hunter2' in role trafctl_ship")?;
    Ok(server)
}

/// A session that does something until it is ended.
fn session(server: &Postgres<'_>, sql: &str) -> Result<Process> {
    let mut psql = Command::new("psql");
    psql.arg("-h").arg(server.socket()).args(["-Xq", "-U", "postgres", "-c", sql]);
    Process::spawn(psql.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
}

#[test]
fn a_server_that_cannot_be_reached_is_named_and_asked_again() -> Result<()> {
    let (lab, a, b) = node("out-away")?;
    let tls = certificates()?;
    let mut server = store(&lab, &with_tls(tls.path()))?;
    let site = Site::new(&lab, [&a, &b])?;
    let options = format!("?sslrootcert={}/ca.pem", tls.path().display());
    let at = |place: &str| format!("postgresql://ship@{place}{options}");
    let says = [
        &["cannot connect to postgresql://ship@127.0.0.1/postgres", "refused"][..],
        &["db.invalid", "lookup address"],
        &["127.0.0.1:5433", "no answer within 10s"],
    ];
    site.outlives_absence(&mut server, (at, "127.0.0.1/postgres", 5433), says)?;
    let url = at("127.0.0.1/postgres");
    site.fails(&at("127.0.0.1/nowhere"), &["\"nowhere\" does not exist", "trafctl store init"])?;
    expire(tls.path())?;
    server.query("select pg_reload_conf()")?;
    eventually("the server has the certificate", || Ok(!site.run(&["ship", "--once", "--to", &url])?.0))?;
    site.fails(&url, &["certificate", "xpired"])
}

#[test]
fn a_running_shipper_takes_a_changed_password() -> Result<()> {
    let (lab, a, b) = node("out-password")?;
    let tls = certificates()?;
    let server = store(&lab, &with_tls(tls.path()))?;
    let site = Site::new(&lab, [&a, &b])?;
    let url = format!("postgresql://ship@127.0.0.1/postgres?sslrootcert={}/ca.pem", tls.path().display());
    site.ships(&url)?;
    let change = || {
        server.query("alter user ship password 'hunter3'")?;
        Ok(())
    };
    site.takes_password(&url, change, "hunter3", &["password authentication failed", "password file"])
}

#[test]
fn a_store_that_takes_nothing_says_why() -> Result<()> {
    let (lab, a, b) = node("out-refused")?;
    let server = store(&lab, &[])?;
    let site = Site::new(&lab, [&a, &b])?;
    let url = server.url("ship");
    for (breaks, says, mends) in [
        (
            "alter database postgres set default_transaction_read_only = on",
            ["read-only transaction", "name the primary server"],
            "begin read write; alter database postgres reset default_transaction_read_only; commit",
        ),
        (
            "alter role ship connection limit 0",
            ["cannot connect to", "too many connections"],
            "alter role ship connection limit -1",
        ),
        (
            "revoke trafctl_ship from ship",
            ["permission denied", "`GRANT trafctl_ship TO`"],
            "grant trafctl_ship to ship",
        ),
        (
            "alter schema trafctl rename to elsewhere",
            ["there is no store of this version", "trafctl store init"],
            "alter schema elsewhere rename to trafctl",
        ),
    ] {
        server.query(breaks)?;
        site.fails(&url, &says).context(breaks)?;
        server.query(mends)?;
        site.ships(&url).context(mends)?;
    }
    // A newer schema takes the rows of an older program, which cannot read it.
    let version = server.query("select version from trafctl.store_version")?;
    server.query("update trafctl.store_version set version = 99")?;
    site.ships(&url)?;
    let (is_read, text) = site.run(&["report", "--store", &server.url("postgres")])?;
    ensure!(!is_read && text.contains("schema version 99") && text.contains("newer trafctl"), "{text}");
    server.query(&format!("update trafctl.store_version set version = {version}"))?;
    Ok(())
}

#[test]
fn a_lock_is_waited_for_but_not_for_ever() -> Result<()> {
    let (lab, a, b) = node("out-lock")?;
    let server = store(&lab, &[])?;
    let site = Site::new(&lab, [&a, &b])?;
    let url = server.url("ship");
    site.ships(&url)?;
    let lock = "begin; lock table trafctl.traffic in access exclusive mode; select pg_sleep(600)";
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> \
               pg_backend_pid()";
    let is_locked = || {
        Ok(server.query("select count(*) from pg_locks where granted and mode = 'AccessExclusiveLock'")?
            != "0")
    };
    let holder = session(&server, lock)?;
    eventually("the table is locked", is_locked)?;
    // An hour of maintenance must not keep the shipper's connection for that long.
    site.fails(&url, &["lock timeout"])?;
    let waiting = site.shipper(&url, "log")?;
    eventually("the shipper waits", || {
        Ok(server.query("select count(*) from pg_locks where not granted")? != "0")
    })?;
    server.query(end)?;
    drop(holder);
    let counted = Counters::at_rest(&lab)?.container("101").out_bytes.to_string();
    let stored = "select sum(out_bytes) from trafctl.traffic_5min where container = '101'";
    eventually("it is shipped", || Ok(server.query(stored)? == counted))?;
    ensure!(waiting.terminate(PATIENCE)?.success());
    site.ships(&url)
}

#[test]
fn a_full_disk_of_the_store_loses_nothing() -> Result<()> {
    let (lab, a, b) = node("out-disk")?;
    let mut server = store(&lab, &[])?;
    let url = server.url("ship");
    let owner = run_ok(Command::new("id").args(["-u", "postgres"]))?.trim().parse()?;
    Site::new(&lab, [&a, &b])?.outlives_full_disk(&mut server, &url, (160, Some(owner)))
}

#[test]
fn a_store_from_a_backup_gets_what_it_lacks() -> Result<()> {
    let (lab, a, b) = node("out-backup")?;
    let mut server = store(&lab, &[])?;
    let url = server.url("ship");
    Site::new(&lab, [&a, &b])?.outlives_restore(&mut server, &url)
}

#[test]
fn a_pooler_of_transactions_changes_nothing() -> Result<()> {
    let (lab, a, b) = node("out-pooler")?;
    let mut server = store(&lab, &[])?;
    let site = Site::new(&lab, [&a, &b])?;
    let socket = server.socket().display().to_string();
    // One connection to the server for all, so that two calls of one client need not be on the same one.
    let users = lab.write("users.txt", "\"postgres\" \"\"\n\"ship\" \"\"\n")?;
    let users = users.display();
    let config = lab.write(
        "pgbouncer.ini",
        &format!(
            "[databases]\npostgres = host={socket} dbname=postgres\n[pgbouncer]\npool_mode = transaction\n\
             listen_addr =\nunix_socket_dir = {socket}\nlisten_port = 6432\nauth_type = trust\nauth_file = {users}\nuser = postgres\n\
             default_pool_size = 2\nlogfile = {socket}/pgbouncer.log\nserver_login_retry = 1\n"
        ),
    )?;
    // It drops its rights.
    run_ok(Command::new("chmod").arg("a+rx").arg(&config).arg(config.parent().context("directory")?))?;
    let mut command = lab.host().command("/usr/sbin/pgbouncer");
    command.arg("-q").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _pooler = Process::spawn(&mut command)?;
    let socket_file = server.socket().join(".s.PGSQL.6432");
    eventually("pgbouncer listens", || Ok(socket_file.exists()))?;
    let path = socket.replace('/', "%2F");
    let url = |user: &str| format!("postgresql://{user}@{path}:6432/postgres");
    site.ships(&url("ship"))?;
    let running = [site.shipper(&url("ship"), "one")?, site.shipper(&url("ship"), "two")?];
    // Others get the same connections, and nothing of what was set for a transaction.
    for setting in ["lock_timeout", "idle_in_transaction_session_timeout"].repeat(5) {
        let shown = server.psql_by(6432, "ship", &format!("show {setting}"))?;
        ensure!(String::from_utf8_lossy(&shown.stdout).trim() == "0", "{setting}: {shown:?}");
    }
    for _ in 0..3 {
        site.ships(&url("ship"))?;
        server.kill()?;
        server.restart()?;
        // The pooler has broken connections for a moment.
        eventually("it ships again", || Ok(site.run(&["ship", "--once", "--to", &url("ship")])?.0))?;
    }
    for shipper in running {
        ensure!(shipper.terminate(PATIENCE)?.success());
    }
    site.ships(&url("ship"))?;
    let direct = site.run(&["report", "--store", &server.url("postgres"), "--format", "json"])?;
    let pooled = site.run(&["report", "--store", &url("postgres"), "--format", "json"])?;
    ensure!(direct.0 && direct == pooled, "{direct:?} {pooled:?}");
    Ok(())
}
