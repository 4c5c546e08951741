//! `trafctl web URL`: the page of a store, with the containers of two nodes, and with tenants.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use traffic_tests::browser::Browser;
use traffic_tests::postgres::Postgres;
use traffic_tests::process::Process;

use crate::site::{Site, rows};

/// Serves the page; returns its address.
fn serve(site: &Site, arguments: &[&str]) -> Result<(Process, String)> {
    let mut command = site.lab.trafctl(&[&["web"], arguments, &["--listen", "127.0.0.1:0"]].concat())?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Process::spawn(&mut command)?;
    let mut page = String::new();
    BufReader::new(server.child().stdout.take().context("stdout")?).read_line(&mut page)?;
    Ok((server, page.trim().to_owned()))
}

#[test]
fn a_store_is_shown_with_its_nodes_and_tenants() -> Result<()> {
    let site = Site::new("web-store", "")?;
    let other = Site::named("web-store2", "other")?;
    for of in [&site, &other] {
        let daemon = of.start()?;
        of.send(5)?;
        of.settled()?;
        ensure!(daemon.terminate(Duration::from_secs(10))?.success());
    }
    let store = Postgres::start(site.lab.host(), &[])?;
    let url = store.url("postgres");
    site.lab.run_ok(&["store", "init", &url])?;
    site.lab.run_ok(&["ship", "--once", "--to", &url])?;
    other.lab.run_ok(&["ship", "--once", "--to", &url])?;
    let nodes = site.json(&["store", "nodes", &url])?;
    let names: Vec<&str> =
        nodes["nodes"].as_array().context("nodes")?.iter().filter_map(|one| one["node"].as_str()).collect();
    ensure!(names.len() == 2 && names.contains(&"other"), "{nodes:#}");

    let browser = Browser::start(site.lab.host())?;
    let (server, page) = serve(&site, &[&url])?;
    browser.open(&format!("{page}#/containers"))?;
    browser.wait("document.querySelectorAll('tbody tr').length === 4")?;
    let shown = rows(&browser, "Containers")?;
    ensure!(shown.iter().filter(|row| row[0].starts_with("other/")).count() == 2, "{shown:?}");
    browser.is_accessible()?;
    browser.run(
        "[...document.querySelectorAll('tbody a')].find((a) => a.textContent === 'other/101').click()",
    )?;
    browser.wait("document.querySelector('h1').textContent === 'Container other/101'")?;
    browser.wait("document.querySelectorAll('.main-panel tbody tr').length === 1")?;
    for (fragment, text) in [("#/", "Largest containers"), ("#/node", "Without a daemon")] {
        browser.open(&format!("{page}{fragment}"))?;
        browser.wait(&format!("document.querySelector('main').innerText.includes('{text}')"))?;
        browser.wait("document.getElementById('connection').textContent === 'Recorded'")?;
        browser.is_accessible()?;
    }
    browser.is_quiet(&page)?;
    ensure!(server.terminate(Duration::from_secs(10))?.success());

    site.lab.run_ok(&["store", "assign", &url, "acme", "--container", "101", "--node", "other"])?;
    let (server, page) = serve(&site, &[&url, "--by-tenant"])?;
    browser.open(&format!("{page}#/containers"))?;
    browser.wait("document.querySelectorAll('tbody tr').length === 2")?;
    let shown = rows(&browser, "Containers")?;
    ensure!(shown.iter().any(|row| row[0] == "acme"), "{shown:?}");
    ensure!(server.terminate(Duration::from_secs(10))?.success());
    let (server, page) = serve(&site, &[&url, "--node", "other"])?;
    browser.open(&format!("{page}#/containers"))?;
    browser.wait("document.querySelectorAll('tbody tr').length === 2")?;
    let shown = rows(&browser, "Containers")?;
    ensure!(shown.iter().all(|row| ["101", "102"].contains(&row[0].as_str())), "{shown:?}");
    ensure!(server.terminate(Duration::from_secs(10))?.success());
    Ok(())
}
