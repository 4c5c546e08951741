//! Outages of ClickHouse, where they differ.

use std::process::Command;

use anyhow::{Result, ensure};
use traffic_tests::{
    Lab,
    certificates::{certificates, expire},
    clickhouse::ClickHouse,
    process::run_ok,
    small_disk::SmallDisk,
};

use crate::{PATIENCE, Site, node};

fn store<'l>(lab: &'l Lab, certificates: Option<&std::path::Path>) -> Result<ClickHouse<'l>> {
    let server = ClickHouse::start(lab.host(), certificates)?;
    lab.run_ok(&["store", "init", &server.url("default")])?;
    Ok(server)
}

#[test]
fn a_server_that_cannot_be_reached_is_named_and_asked_again() -> Result<()> {
    let (lab, a, b) = node("out-ch-away")?;
    let tls = certificates()?;
    let mut server = store(&lab, Some(tls.path()))?;
    let site = Site::new(&lab, [&a, &b])?;
    let options = format!("?ca_file={}/ca.pem", tls.path().display());
    let at = |place: &str| format!("clickhouse+https://ship@{place}{options}");
    let url = at("127.0.0.1/traffic");
    site.ships(&url)?;

    server.kill()?;
    let running = site.shipper(&url, "log")?;
    site.fails(&url, &["cannot connect to", "refused"])?;
    site.logs("log", "refused")?;
    site.fails(&at("db.invalid/traffic"), &["db.invalid"])?;
    let _silent = site.silent(8444)?;
    site.fails(&at("127.0.0.1:8444/traffic"), &["127.0.0.1:8444", "took too long"])?;
    server.restart()?;
    site.logs("log", "shipping again")?;
    ensure!(running.terminate(PATIENCE)?.success());
    site.ships(&url)?;
    // The running shipper takes the changed password.
    site.set_password("hunter3")?;
    let running = site.shipper(&url, "log2")?;
    site.fails(&url, &["does not let this user in"])?;
    site.logs("log2", "does not let this user in")?;
    site.set_password("hunter2")?;
    site.logs("log2", "shipping again")?;
    ensure!(running.terminate(PATIENCE)?.success());

    expire(tls.path())?;
    server.kill()?;
    server.restart()?;
    site.fails(&url, &["TLS with", "xpired"])
}

#[test]
fn a_full_disk_of_the_store_loses_nothing() -> Result<()> {
    let (lab, a, b) = node("out-ch-disk")?;
    let mut server = store(&lab, None)?;
    let site = Site::new(&lab, [&a, &b])?;
    let url = server.url("default");
    site.ships(&url)?;
    server.kill()?;
    let disk = SmallDisk::replace(server.data(), 64)?;
    server.restart()?;
    let filler = disk.fill()?;
    site.fails(&url, &["No space left on device"])?;
    std::fs::remove_file(filler)?;
    site.ships(&url)?;
    // Its directory is a mount as long as the server runs.
    server.kill()
}

#[test]
fn a_store_from_a_backup_gets_what_it_lacks() -> Result<()> {
    let (lab, a, b) = node("out-ch-backup")?;
    let mut server = store(&lab, None)?;
    let site = Site::new(&lab, [&a, &b])?;
    let url = server.url("default");
    site.ships(&url)?;
    server.kill()?;
    let backup = lab.path("backup");
    run_ok(Command::new("cp").arg("-aT").arg(server.data()).arg(&backup))?;
    server.restart()?;
    site.ships(&url)?;
    site.ships(&url)?;
    server.kill()?;
    std::fs::remove_dir_all(server.data())?;
    run_ok(Command::new("cp").arg("-aT").arg(&backup).arg(server.data()))?;
    server.restart()?;
    site.ships(&url)
}
