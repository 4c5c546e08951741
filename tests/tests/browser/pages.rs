//! Every page against what the commands report, on live traffic and imported history.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use traffic_tests::browser::Browser;
use traffic_tests::check::eventually;
use traffic_tests::process::run_ok;

use crate::site::{PAGE, Site, bytes, open, rows};

const DAY: u64 = 86_400;

/// The pages by fragment, with the beginning of their title.
const PAGES: [(&str, &str); 6] = [
    ("#/", "Overview"),
    ("#/containers", "Containers"),
    ("#/container/101?commit=1M", "Container 101"),
    ("#/container?last=13mo", "Whole node"),
    ("#/classes", "Classes"),
    ("#/node", "Node"),
];

/// The figures of classes in a report, as the tables of the page have them: in, out and total.
fn by_class(report: &Value) -> Result<Vec<Vec<String>>> {
    let rows = report["rows"].as_array().context("rows")?;
    let mut classes: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            Ok(vec![
                row["class"].to_string(),
                bytes(row, "/in/bytes")?,
                bytes(row, "/out/bytes")?,
                bytes(row, "/total/bytes")?,
            ])
        })
        .collect::<Result<_>>()?;
    classes.sort();
    Ok(classes)
}

/// The same from a table of the page, whose first column begins with the class's number.
fn shown_by_class(browser: &Browser<'_>, caption: &str) -> Result<Vec<Vec<String>>> {
    let mut shown = rows(browser, caption)?;
    for row in &mut shown {
        row.truncate(4);
        row[0] = row[0].chars().filter(char::is_ascii_digit).collect();
    }
    shown.sort();
    Ok(shown)
}

#[test]
fn a_container_is_shown_with_its_name() -> Result<()> {
    // The second name would turn the direction of what follows it.
    let turning = "[[container]]\nid = '102'\nname = \"\\u202E5.2 kB\"\n";
    let site = Site::new("web-names", &format!("[[container]]\nid = '101'\nname = 'shop <b>'\n{turning}"))?;
    let _daemon = site.start()?;
    site.send(40)?;
    site.settled()?;
    let browser = Browser::start(site.lab.host())?;
    let named = "101 (shop <b>)";
    for (fragment, heading) in [("#/", "Overview"), ("#/containers", "Containers"), ("#/node", "Node")] {
        open(&browser, fragment, heading)?;
        let links =
            format!("[...document.querySelectorAll('main a')].some((a) => a.textContent === '{named}')");
        browser.wait(&links).with_context(|| fragment.to_owned())?;
        let steady = "102 (\u{fffd}5.2 kB)";
        browser.wait(&format!(
            "[...document.querySelectorAll('main a')].some((a) => a.textContent === '{steady}')"
        ))?;
    }
    // The rates of a client of the API have it too, and the table of interfaces is searched by it.
    let event = eventually_named(&site)?;
    let rows = event["rows"].as_array().context("rows")?;
    let name = |row: &Value| if row["container"] == "101" { "shop <b>" } else { "\u{202e}5.2 kB" };
    ensure!(rows.iter().all(|row| row["name"] == name(row)), "{event}");
    let table =
        "[...document.querySelectorAll('table')].find((one) => one.caption?.textContent === 'Interfaces')";
    open(&browser, "#/node", "Node")?;
    browser.wait(&format!("{table}?.tBodies[0].rows.length === 2"))?;
    browser.run(&format!(
        "const box = {table}.closest('.table').querySelector('input'); box.value = 'SHOP';
        box.dispatchEvent(new Event('input'));"
    ))?;
    browser.wait(&format!("{table}.tBodies[0].rows.length === 1"))?;
    browser.wait(&format!("{table}.tBodies[0].rows[0].cells[1].textContent === '{named}'"))?;
    open(&browser, "#/container/101", "Container 101")?;
    browser.wait(&format!("document.querySelector('h1').textContent === 'Container {named}'"))?;
    browser.wait(&format!("document.title.includes('Container {named}')"))?;
    open(&browser, "#/container/102", "Container 102")?;
    browser.wait("document.querySelector('h1').textContent === 'Container 102 (\u{fffd}5.2 kB)'")?;
    Ok(())
}

/// An event of the live rates in which a container has its name.
fn eventually_named(site: &Site) -> Result<Value> {
    let mut found = Value::Null;
    eventually("rates with a name", || {
        let mut curl = site.lab.host().command("curl");
        // The stream has no end but this one. Only while somebody listens are there readings.
        curl.args(["--silent", "--no-buffer", "--max-time", "4"]).arg(format!("{PAGE}api/v1/rates"));
        let mut curl = curl.stdout(Stdio::piped()).spawn()?;
        while curl.try_wait()?.is_none() {
            site.send(30)?;
        }
        let output = String::from_utf8(curl.wait_with_output()?.stdout)?;
        let events = output.lines().filter_map(|line| line.strip_prefix("data: "));
        for event in events.map(serde_json::from_str::<Value>) {
            let event = event?;
            let rows = event["rows"].as_array().context("rows")?;
            if rows.iter().any(|row| row["container"] == "101" && row["name"] == "shop <b>") {
                found = event;
            }
        }
        Ok(!found.is_null())
    })?;
    Ok(found)
}

#[test]
fn a_container_has_a_block_of_its_quotas() -> Result<()> {
    let site = Site::new("web-quotas", "")?;
    let quotas = site.lab.config().with_file_name("quotas.toml");
    let text = "[[quota]]\nname = 'traffic <b>'\ncontainer = '101'\nallowance = '10kB'\n";
    std::fs::write(&quotas, text.replace(" <b>", ""))?;
    let _daemon = site.start()?;
    site.send(40)?;
    site.settled()?;
    let browser = Browser::start(site.lab.host())?;
    open(&browser, "#/container/101", "Container 101")?;
    let table =
        "[...document.querySelectorAll('table')].some((one) => one.caption?.textContent === 'Quotas')";
    browser.wait(table)?;
    let shown = rows(&browser, "Quotas")?;
    let document = site.json(&["quota", "show", "101"])?;
    let standing = &document["standings"][0];
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(
        shown[0][..4],
        ["traffic", text_of(standing, "period")?, &bytes(standing, "/used_bytes")?, "10000"]
    );
    assert_eq!(shown[0][6..], ["used up", "80 %, 100 %"]);
    // One without a quota has no block, and a mistake in the file hides nothing else.
    open(&browser, "#/container/102", "Container 102")?;
    browser.wait("document.body.innerText.includes('Months')")?;
    ensure!(!browser.run(&format!("return {table}"))?.as_bool().unwrap_or(true));
    std::fs::write(&quotas, text)?;
    open(&browser, "#/container/101", "Container 101")?;
    browser.wait("document.body.innerText.includes('quotas.toml:2:8: ')")?;
    browser.wait("document.body.innerText.includes('Months')")?;
    Ok(())
}

/// A text of a document.
fn text_of<'v>(value: &'v Value, key: &str) -> Result<&'v str> {
    value[key].as_str().with_context(|| format!("{key} in {value:#}"))
}

#[test]
fn every_page_shows_what_the_commands_report() -> Result<()> {
    let site = Site::new("web-pages", "")?;
    site.lab.host().ip("link add <script>x type bridge")?;
    let daemon = site.start()?;
    site.send(40)?;
    site.settled()?;
    // A month that is closed and corrected, and a day of history.
    let ago = |days: u64| ("101".to_owned(), days * DAY, 700_000_000);
    site.import(&[ago(70), ago(40), ("101".to_owned(), 7200, 900_000), ("102".to_owned(), 7200, 5)])?;
    let month = |days: u64| -> Result<String> {
        let text = run_ok(Command::new("date").args(["--utc", "+%Y-%m", "-d", &format!("{days} days ago")]))?;
        Ok(text.trim().to_owned())
    };
    site.lab.run_ok(&["close", &month(70)?, "--yes"])?;
    let corrected = ["adjust", &month(70)?, "--container", "101", "--class", "1", "--out", "-0.2GB"];
    site.lab.run_ok(&[&corrected[..], &["--reason", "<i>credited</i>", "--yes"]].concat())?;
    // A gap: traffic while nothing is attached to an interface.
    daemon.signal(Signal::KILL)?;
    drop(daemon);
    site.lab.run_ok(&["detach", site.b.interface()])?;
    site.send(200)?;
    let daemon = site.start()?;
    eventually("the gap", || {
        let gaps = site.json(&["gaps"])?;
        let gaps = gaps["gaps"].as_array().context("gaps")?;
        Ok(gaps.iter().any(|gap| gap["reason"] == "before_attach" && gap["interface"] == site.b.interface()))
    })?;
    site.settled()?;

    let browser = Browser::start(site.lab.host())?;
    browser.size(1280, 900)?;
    for (fragment, heading) in PAGES {
        open(&browser, fragment, heading)?;
        for theme in ["light", "dark"] {
            browser.theme(theme)?;
            browser.is_accessible().with_context(|| format!("{fragment} {theme}"))?;
        }
        // A phone, and a small screen at 200 %: nothing has to be moved sideways.
        for width in [360, 640] {
            browser.size(width, 740)?;
            let all = "[document.documentElement, ...document.querySelectorAll('.scroll')]";
            let fits = format!("{all}.every((one) => one.scrollWidth <= one.clientWidth)");
            browser.wait(&fits).with_context(|| format!("{fragment} at {width}"))?;
        }
        browser.size(1280, 900)?;
        // A name is shown, and nothing of it becomes an element.
        let elements =
            browser.run("return document.querySelectorAll('main script, main b, main i').length")?;
        ensure!(elements == 0, "{fragment}: {elements} elements came from text");
    }

    // Where the system chooses all colours, those of classes still tell them apart.
    open(&browser, "#/classes", "Classes")?;
    let forced = json!({"features": [{"name": "forced-colors", "value": "active"}]});
    browser.devtools("Emulation.setEmulatedMedia", &forced)?;
    browser.wait("matchMedia('(forced-colors: active)').matches")?;
    browser.wait(
        "new Set([...document.querySelectorAll('.swatch')].map((one) => getComputedStyle(one).backgroundColor)).size
        === document.querySelectorAll('.swatch').length",
    )?;
    open(&browser, "#/node", "Node")?;
    browser.wait("document.body.innerText.includes('<script>x')")?;
    browser.wait("document.body.innerText.includes('Traffic passed before trafctl was attached.')")?;
    open(&browser, "#/classes", "Classes")?;
    browser.wait("document.body.innerText.includes('UA-IX <b>')")?;
    let ask =
        "const box = document.getElementById('address'); box.value = '10.1.0.9'; box.form.requestSubmit();";
    browser.run(ask)?;
    browser.wait("document.querySelector('.answer').innerText.includes('10.1.0.9 is in')")?;
    browser.wait("document.querySelector('.answer').innerText.includes('line 3: 2 10.1.0.0/16')")?;

    figures_of_a_container(&site, &browser)?;
    figures_of_lists(&site, &browser)?;
    browser.is_quiet(PAGE)?;
    ensure!(daemon.terminate(Duration::from_secs(10))?.success());
    Ok(())
}

/// The page of a container against `trafctl report`.
fn figures_of_a_container(site: &Site, browser: &Browser<'_>) -> Result<()> {
    open(browser, "#/container/101?last=24h", "Container 101")?;
    let query = ["report", "--container", "101", "--split", "class", "--last", "24h"];
    let caption = "Traffic of Container 101 by class";
    assert_eq!(shown_by_class(browser, caption)?, by_class(&site.json(&query)?)?);
    // The link has what is shown, whenever it is opened: zone, span, steps and classes.
    open(browser, "#/container/101?last=24h&tz=Asia/Kolkata&class=1&class=2", "Container 101")?;
    let shown = shown_by_class(browser, caption)?;
    let link = browser.text("document.querySelector('[data-key=link]').getAttribute('href')")?;
    for part in ["tz=Asia%2FKolkata", "from=", "to=", "by=5min", "class=1&class=2"] {
        ensure!(link.contains(part) && !link.contains("last="), "{link}");
    }
    open(browser, &link, "Container 101")?;
    assert_eq!(shown_by_class(browser, caption)?, shown);
    browser.wait("document.querySelector('.panel-head .note').textContent.includes('five-minute steps')")?;
    open(browser, "#/container/101?last=24h", "Container 101")?;
    // One class alone, by its button, is in the address.
    browser.run("document.querySelector('[data-key=\"class 2\"]').click()")?;
    browser.wait("location.hash.includes('class=2')")?;
    browser.wait("document.querySelectorAll('.main-panel tbody tr').length === 1")?;
    let of_two = site.json(&[&query[..], &["--class", "2"]].concat())?;
    assert_eq!(shown_by_class(browser, caption)?, by_class(&of_two)?);
    ensure!(of_two["total"]["in"]["bytes"].as_u64() > Some(40 * 300), "{of_two:#}");

    open(browser, "#/container/101", "Container 101")?;
    let months = rows(browser, "Months")?;
    let report = site.json(&["report", "--by", "month", "--container", "101"])?;
    for row in report["rows"].as_array().context("rows")?.iter().filter(|row| row["billed"] == true) {
        let name = row["period"].as_str().context("a period")?;
        let shown =
            months.iter().find(|cells| cells[0] == name && cells.last().is_some_and(|c| c != "estimate"));
        let shown = shown.with_context(|| format!("{name} in {months:#?}"))?;
        let expected = [bytes(row, "/in/bytes")?, bytes(row, "/out/bytes")?, bytes(row, "/total/bytes")?];
        assert_eq!(shown[1..4], expected, "{name}");
        assert_eq!(shown[5], row["billing"]["to_bill"]["total"]["bytes"].to_string(), "{name}");
    }
    let corrections = rows(browser, "Corrections")?;
    ensure!(
        corrections.len() == 1 && corrections[0].contains(&"<i>credited</i>".to_owned()),
        "{corrections:?}"
    );

    // By keyboard alone: the plot is reached, moved in and zoomed.
    browser.run("document.querySelector('.plot').focus()")?;
    browser.press("\u{e014}")?;
    browser.wait("/: in .*, out /.test(document.querySelector('.plot-readout').textContent)")?;
    browser.press("+")?;
    browser.wait("location.hash.includes('from=')")?;
    browser.wait("document.activeElement.classList.contains('plot')")?;

    // One container is one page of paper.
    open(browser, "#/container/101", "Container 101")?;
    let printed = browser.printed()?;
    let pages = printed.windows(11).filter(|part| part == b"/Type /Page").count()
        - printed.windows(12).filter(|part| part == b"/Type /Pages").count();
    assert_eq!(pages, 1);
    Ok(())
}

/// The overview and the list of containers against `trafctl report` and `top-talkers`.
fn figures_of_lists(site: &Site, browser: &Browser<'_>) -> Result<()> {
    open(browser, "#/containers?last=30d", "Containers")?;
    browser.wait("document.querySelectorAll('tbody tr').length >= 2")?;
    let top = site.json(&["top-talkers", "--last", "30d", "--count", "100"])?;
    browser.wait("document.querySelector('tbody a').hash.includes('last=30d')")?;
    let shown = rows(browser, "Containers")?;
    for row in top["rows"].as_array().context("rows")? {
        let cells = shown.iter().find(|cells| row["container"] == cells[0].as_str());
        let cells = cells.with_context(|| format!("{} in {shown:?}", row["container"]))?;
        let expected = [bytes(row, "/in/bytes")?, bytes(row, "/out/bytes")?, bytes(row, "/total/bytes")?];
        assert_eq!(cells[3..6], expected);
    }
    open(browser, "#/", "Overview")?;
    let shown = rows(browser, "Traffic by class, last 24 hours")?;
    let class_2 = shown.iter().find(|cells| cells[0].starts_with("2 UA-IX <b>")).context("class 2")?;
    let report = site.json(&["report", "--last", "23h", "--class", "2"])?;
    assert_eq!(class_2[3], bytes(&report, "/total/total/bytes")?);
    // Live: what is sent now is seen now.
    let sent = Instant::now();
    let is_seen = "[...document.querySelectorAll('table')].some((table) =>
        table.caption?.textContent === 'Throughput by class now' &&
        [...table.tBodies[0].rows].some((row) => Number(row.cells[3].querySelector('data')?.value) > 50_000))";
    eventually("the traffic on the page", || {
        ensure!(sent.elapsed() < Duration::from_secs(30), "no traffic is seen");
        site.send(200)?;
        Ok(browser.run(&format!("return {is_seen}"))? == true)
    })
}

#[test]
fn a_daemon_goes_away_and_returns() -> Result<()> {
    let site = Site::new("web-gone", "")?;
    let daemon = site.start()?;
    site.send(20)?;
    site.settled()?;
    let browser = Browser::start(site.lab.host())?;
    open(&browser, "#/", "Overview")?;
    browser.wait("document.getElementById('connection').textContent === 'Live'")?;
    browser.is_quiet(PAGE)?;

    ensure!(daemon.terminate(Duration::from_secs(10))?.success());
    browser.wait("document.getElementById('lost')?.innerText.includes('No answer from trafctl since')")?;
    // What was shown stays.
    ensure!(!rows(&browser, "Largest containers")?.is_empty());
    browser.is_accessible()?;
    let daemon = site.start()?;
    browser.wait("!document.getElementById('lost')")?;
    browser.wait("document.getElementById('connection').textContent === 'Live'")?;
    // Only the refused connections were reported, by the browser itself.
    browser.is_quiet_but_for(PAGE, "net::ERR_")?;
    ensure!(daemon.terminate(Duration::from_secs(10))?.success());
    Ok(())
}
