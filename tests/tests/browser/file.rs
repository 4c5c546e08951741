//! `trafctl web FILE`: a ledger without a daemon, with a thousand containers and names that look like markup.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::browser::Browser;
use traffic_tests::process::{Process, run_ok};

use crate::site::{Site, rows};

const CONTAINERS: u64 = 1000;
const NAME: &str = "<script>alert(1)</script>";

#[test]
fn a_thousand_containers_are_listed_at_once() -> Result<()> {
    let site = Site::new("web-file", "")?;
    let daemon = site.start()?;
    site.send(5)?;
    site.settled()?;
    let samples: Vec<_> = (1..=CONTAINERS).map(|id| (format!("{}", 2000 + id), 3600, 1000 * id)).collect();
    site.import(&samples)?;
    ensure!(daemon.terminate(Duration::from_secs(10))?.success());
    // No id of a container can look like this, but the page must not rely on it.
    let copy = site.lab.path("copy.sqlite");
    let file = copy.to_str().context("a path")?;
    site.lab.run_ok(&["ledger", "backup", file])?;
    let rename = format!("UPDATE container SET label = '{NAME}', name = '{NAME}' WHERE name = '2999'");
    run_ok(Command::new("sqlite3").arg(&copy).arg(rename))?;

    let mut command = site.lab.trafctl(&["web", file])?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Process::spawn(&mut command)?;
    let mut page = String::new();
    BufReader::new(server.child().stdout.take().context("stdout")?).read_line(&mut page)?;
    let page = page.trim();

    let browser = Browser::start(site.lab.host())?;
    browser.open(&format!("{page}#/containers"))?;
    browser.wait("document.querySelectorAll('tbody tr').length === 50")?;
    browser.wait("document.querySelector('.pager').innerText.includes('of 1\u{202f}002')")?;
    // The largest first, then by id, both directions.
    ensure!(rows(&browser, "Containers")?[0][0] == "3000", "{:?}", rows(&browser, "Containers")?[0]);
    ensure!(rows(&browser, "Containers")?[1][0] == NAME);
    let sorting = Instant::now();
    browser.run(
        "const sort = document.querySelector('[data-key=\"sort container\"]'); sort.focus(); sort.click()",
    )?;
    ensure!(rows(&browser, "Containers")?[0][0] == "101");
    ensure!(sorting.elapsed() < Duration::from_secs(2), "sorting took {:?}", sorting.elapsed());
    // The focus stays on the button, and the next page is reached by keyboard.
    browser.wait("document.activeElement.dataset.key === 'sort container'")?;
    browser.run("document.querySelector('[data-key=\"page Next\"]').focus()")?;
    browser.press("\u{e007}")?;
    browser.wait("document.querySelector('.pager').innerText.includes('51\u{2013}100')")?;
    browser.run(
        "const box = document.querySelector('input[type=search]'); box.focus(); box.value = 'SCRIPT';
        box.dispatchEvent(new Event('input'))",
    )?;
    browser.wait("document.querySelectorAll('tbody tr').length === 1")?;
    browser.is_accessible()?;
    browser.run("document.querySelector('tbody a').click()")?;
    browser.wait(&format!("document.querySelector('h1').textContent === 'Container {NAME}'"))?;
    browser.wait("document.querySelectorAll('.main-panel tbody tr').length === 1")?;
    let shown = rows(&browser, &format!("Traffic of Container {NAME} by class"))?;
    assert_eq!(shown[0][2], "999000");
    for (fragment, text) in [("#/", "Largest containers"), ("#/node", "Without a daemon")] {
        browser.open(&format!("{page}{fragment}"))?;
        browser.wait(&format!("document.querySelector('main').innerText.includes('{text}')"))?;
        browser.wait("document.getElementById('connection').textContent === 'Recorded'")?;
        browser.is_accessible()?;
    }
    ensure!(browser.run("return document.querySelectorAll('main script').length")? == 0);
    browser.is_quiet(page)?;
    ensure!(server.terminate(Duration::from_secs(10))?.success());
    Ok(())
}

#[test]
fn an_empty_ledger_says_what_to_do() -> Result<()> {
    let site = Site::new("web-empty", "")?;
    let browser = Browser::start(site.lab.host())?;
    let daemon = site.start()?;
    browser.open(crate::site::PAGE)?;
    browser.wait("document.querySelector('main').innerText.includes('Largest containers')")?;
    browser.open(&format!("{}#/container/777", crate::site::PAGE))?;
    browser.wait("/No container 777 is known/.test(document.querySelector('main').innerText)")?;
    ensure!(daemon.terminate(Duration::from_secs(10))?.success());
    Ok(())
}
