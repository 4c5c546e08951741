//! Outages of ClickHouse.

use std::path::{Path, PathBuf};

use anyhow::Result;
use traffic_tests::{
    Lab,
    certificates::{certificates, expire},
    clickhouse::ClickHouse,
};

use crate::{Server, Site, node};

impl Server for ClickHouse<'_> {
    fn end(&mut self) -> Result<()> {
        self.kill()
    }

    fn restart(&mut self) -> Result<()> {
        self.restart()
    }

    fn data(&self) -> PathBuf {
        self.data()
    }

    fn stored_bytes(&self) -> Result<String> {
        self.query("SELECT sum(out_bytes) FROM traffic.traffic_5min WHERE container = '101'")
    }
}

fn store<'l>(lab: &'l Lab, certificates: Option<&Path>) -> Result<ClickHouse<'l>> {
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
    let says = [&["cannot connect to", "refused"][..], &["db.invalid"], &["127.0.0.1:8444", "took too long"]];
    site.outlives_absence(&mut server, (at, "127.0.0.1/traffic", 8444), says)?;
    let url = at("127.0.0.1/traffic");
    // The server's password stays as it is. Another one in the file is refused alike.
    site.takes_password(&url, || site.set_password("hunter3"), "hunter2", &["does not let this user in"])?;
    expire(tls.path())?;
    server.kill()?;
    server.restart()?;
    site.fails(&url, &["TLS with", "xpired"])
}

#[test]
fn a_full_disk_of_the_store_loses_nothing() -> Result<()> {
    let (lab, a, b) = node("out-ch-disk")?;
    let mut server = store(&lab, None)?;
    let url = server.url("default");
    Site::new(&lab, [&a, &b])?.outlives_full_disk(&mut server, &url, (64, None))
}

#[test]
fn a_store_from_a_backup_gets_what_it_lacks() -> Result<()> {
    let (lab, a, b) = node("out-ch-backup")?;
    let mut server = store(&lab, None)?;
    let url = server.url("default");
    Site::new(&lab, [&a, &b])?.outlives_restore(&mut server, &url)
}
