//! What was dropped, on the page of a container and of the node.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use traffic_tests::browser::Browser;
use traffic_tests::check::eventually;
use traffic_tests::process::{run_ok, run_with_input};

use crate::site::{PAGE, Site, bytes, open, rows, with_module};

/// The rows with drops of `trafctl report --show drops`, as the table has them, the largest first.
fn reported(site: &Site, container: Option<&str>) -> Result<Vec<Vec<String>>> {
    let mut query = vec!["report", "--show", "drops", "--split", "class,direction", "--last", "24h"];
    query.extend(container.iter().flat_map(|id| ["--container", id]));
    let report = site.json(&query)?;
    let mut rows: Vec<&Value> = report["rows"].as_array().context("rows")?.iter().collect();
    rows.retain(|row| row["dropped"]["total"]["packets"] != 0);
    rows.sort_by_key(|row| std::cmp::Reverse(row["dropped"]["total"]["bytes"].as_u64()));
    let cells = |row: &&Value| {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let reasons = row["reasons"].as_array().context("reasons")?.iter().map(|of| {
            let packets = of["total"]["packets"].as_u64().context("packets")?;
            Ok(format!("{} {packets}", of["reason"].as_str().context("a reason")?))
        });
        let mut cells = if container.is_none() { vec![text("container")] } else { Vec::new() };
        cells.extend([format!("{} UA-IX <b>", row["class"]), text("direction")]);
        for field in ["counted", "dropped", "delivered"] {
            cells.push(bytes(row, &format!("/{field}/total/bytes"))?);
        }
        cells.push(reasons.collect::<Result<Vec<_>>>()?.join(", "));
        Ok(cells)
    };
    rows.iter().map(cells).collect()
}

/// The table of drops without its shares.
fn shown(browser: &Browser<'_>) -> Result<Vec<Vec<String>>> {
    let mut shown = rows(browser, "Drops")?;
    for row in &mut shown {
        let share = row.len() - 3;
        ensure!(row.remove(share).ends_with("\u{a0}%"), "{row:?}");
    }
    Ok(shown)
}

#[test]
fn what_was_dropped_is_shown_as_the_report_has_it() -> Result<()> {
    let site = Site::new("web-drops", "")?;
    let daemon = site.start()?;
    eventually("drops are counted", || {
        let drops = &site.json(&["status"])?["drops"];
        Ok(drops["in_force"] == true && drops["reason"].is_null())
    })?;
    site.send(40)?;
    site.settled()?;
    let browser = Browser::start(site.lab.host())?;
    open(&browser, "#/container/101", "Container 101")?;
    browser.wait("document.querySelector('main').innerText.includes('No drops are recorded.')")?;
    browser.wait("document.querySelector('main').innerText.includes('Drops are recorded since ')")?;

    // What 102 gets of IPv4 goes through a slow shaper, and a firewall refuses what it sends of IPv6.
    let shaper = ["root", "tbf", "rate", "1mbit", "burst", "5000", "limit", "12000"];
    let add = ["qdisc", "add", "dev", site.b.interface()];
    run_ok(site.lab.host().command("tc").args(add).args(shaper))?;
    let rules = "table bridge t { chain c { type filter hook forward priority 0; meta protocol ip6 udp length > 200 drop; }; }";
    run_with_input(site.lab.host().command("nft").args(["-f", "-"]), rules)?;
    site.send(70)?;
    site.settled()?;

    let of_node = reported(&site, None)?;
    let of: Vec<_> = of_node.iter().map(|row| [&row[0][..], &row[2]]).collect();
    ensure!(of.iter().all(|row| [["101", "out"], ["102", "in"], ["102", "out"]].contains(row)), "{of:?}");
    ensure!(of.len() == 3, "{of_node:?}");
    for (fragment, heading, container) in [
        ("#/container/101", "Container 101", Some("101")),
        ("#/container/102", "Container 102", Some("102")),
        ("#/container", "Whole node", None),
    ] {
        open(&browser, fragment, heading)?;
        browser
            .wait("[...document.querySelectorAll('caption')].some((one) => one.textContent === 'Drops')")?;
        let expected = reported(&site, container)?;
        assert_eq!(shown(&browser)?, expected, "{fragment}");
        let fields = &expected[0][expected[0].len() - 4..];
        ensure!((1..4).all(|at| !fields[..at].contains(&fields[at])), "the figures are the same: {fields:?}");
        for theme in ["light", "dark"] {
            browser.theme(theme)?;
            browser.is_accessible().with_context(|| format!("{fragment} {theme}"))?;
        }
        for width in [320, 640, 1000] {
            browser.size(width, 740)?;
            let all = "[document.documentElement, ...document.querySelectorAll('.scroll')]";
            let fits = format!("{all}.every((one) => one.scrollWidth <= one.clientWidth)");
            browser.wait(&fits).with_context(|| format!("{fragment} at {width}"))?;
        }
        browser.size(1280, 900)?;
    }
    // Of the whole node, a row leads to its container. The class that is chosen is that of the drops, too.
    browser.run("document.querySelector('[data-key=\"drops 2 in 102\"]').click()")?;
    browser.wait("document.querySelector('h1').textContent === 'Container 102'")?;
    open(&browser, "#/container/101?class=1", "Container 101")?;
    browser.wait("document.querySelector('main').innerText.includes('No drops are recorded.')")?;
    // What is dropped now is beside what passes.
    eventually("the rate of drops", || {
        site.send(200)?;
        let now = "document.querySelector('.now').textContent";
        Ok(browser.run(&format!("return /dropped [1-9].*bit/.test({now})"))? == true)
    })?;
    browser.is_quiet(PAGE)?;

    // Drops that cannot be read hide nothing else.
    browser.devtools("Network.enable", &json!({}))?;
    browser.devtools("Network.setBlockedURLs", &json!({"urls": ["*show=drops*"]}))?;
    open(&browser, "#/container/101", "Container 101")?;
    browser.wait(
        "document.querySelector('[role=alert]')?.innerText === 'They cannot be shown: nothing answers'",
    )?;
    ensure!(!rows(&browser, "Traffic of Container 101 by class")?.is_empty());
    browser.wait("[...document.querySelectorAll('caption')].some((one) => one.textContent === 'Months')")?;
    drop(daemon);
    Ok(())
}

/// A row of drops: `dropped` of 1000 times as many bytes.
fn row(class: u64, dropped: u64, reasons: &Value) -> Value {
    let figures = |bytes: u64| json!({"total": {"packets": bytes / 100, "bytes": bytes}});
    let of = reasons.as_array().into_iter().flatten();
    let reasons: Vec<_> = of.map(|of| json!({"reason": of[0], "total": {"packets": of[1]}})).collect();
    json!({"container": "101", "class": class, "direction": "out", "counted": figures(dropped * 1000),
        "dropped": figures(dropped), "delivered": figures(dropped * 999), "reasons": reasons})
}

#[test]
fn the_block_of_drops_says_what_is_missing() -> Result<()> {
    let site = Site::new("web-drop-parts", "")?;
    let daemon = site.start()?;
    let browser = Browser::start(site.lab.host())?;
    open(&browser, "#/", "Overview")?;
    let report = |recorded: Value, rows: Value, gaps: u64| {
        let gap = |reason: &str| json!({"reason": reason, "start": null, "end": "2026-11-10T11:00:00Z"});
        let mut all = vec![gap("reboot")];
        all.extend((0..gaps).map(|_| gap("drops_not_counted")));
        json!({"from": "2026-11-10T10:00:00Z", "to": "2026-11-10T12:00:00Z", "zone": "UTC", "rows": rows,
            "recorded_from": recorded, "class_names": {"3": "<i>"}, "gaps": all})
    };
    let show = |report: &Value, container: &str| -> Result<String> {
        let panel = format!(
            "{{ const block = all.dropPanel({report}, {{ container: {container} }});
            document.querySelector('main').replaceChildren(block); return block.innerText; }}"
        );
        let text = with_module(&browser, "js/blocks.js", &panel)?;
        Ok(text.as_str().context("no text")?.to_owned())
    };
    let before = || Value::from("2026-11-10T09:00:00Z");
    let still = json!([row(1, 0, &json!([]))]);
    let text = show(&report(before(), still.clone(), 0), "'101'")?;
    ensure!(text.contains("Nothing was dropped.") && !text.contains("gap"), "{text}");
    for (recorded, gaps, sentence) in [
        (
            before(),
            2,
            "Drops were not counted in 2 gaps, listed below. What was dropped then is shown as delivered.",
        ),
        (
            "2026-11-10T10:30:00Z".into(),
            0,
            "Drops are recorded since 2026-11-10 10:30. Earlier ones are shown as delivered.",
        ),
        (Value::Null, 0, "Drops were never recorded here: trafctl status says why."),
    ] {
        let text = show(&report(recorded, still.clone(), gaps), "'101'")?;
        ensure!(text.contains("No drops are recorded.") && text.contains(sentence), "{sentence}: {text}");
    }

    let mut planted: Vec<_> = (1..=11).map(|class| row(class, 1000 + class, &json!([]))).collect();
    planted.insert(2, row(0, 0, &json!([])));
    let reasons = json!([["no_route", 12345], ["neighbour", 2], ["reason 9", 1]]);
    planted.push(row(3, 7_000, &reasons));
    let text = show(&report(before(), planted.into(), 1), "'101'")?;
    ensure!(text.contains("2 more: CSV and JSON have all."), "{text}");
    ensure!(text.contains("in 1 gap, listed below") && !text.contains("between two containers"), "{text}");
    let lines = rows(&browser, "Drops")?;
    let reasons = "no route 12\u{202f}345, no answer from the next hop 2, reason 9 1";
    assert_eq!(lines[0], ["3 <i>", "out", "7000000", "7000", "0.1\u{a0}%", "6993000", reasons]);
    let classes: Vec<_> = lines[1..].iter().map(|row| &row[0][..]).collect();
    let rest =
        ["Class 11", "Class 10", "Class 9", "Class 8", "Class 7", "Class 6", "Class 5", "Class 4", "3 <i>"];
    assert_eq!(classes, rest);
    let text = show(&report(before(), json!([row(3, 5, &json!([["other", 1]]))]), 0), "null")?;
    ensure!(text.contains("A drop between two containers is in the rows of both."), "{text}");
    assert_eq!(rows(&browser, "Drops")?[0][..3], ["101", "3 <i>", "out"]);
    browser.is_quiet(PAGE)?;
    drop(daemon);
    Ok(())
}
