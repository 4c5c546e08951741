//! Pieces of the page on documents that a test makes, and a page of which one document is missing.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use traffic_tests::browser::Browser;

use crate::site::{PAGE, Site, open, rows, with_module};

#[test]
fn what_happened_to_many_interfaces_is_one_line_and_a_late_reading_is_spread() -> Result<()> {
    let site = Site::new("web-parts", "")?;
    let daemon = site.start()?;
    let browser = Browser::start(site.lab.host())?;
    open(&browser, "#/", "Overview")?;

    let gap = |start: Value, end: &str, reason: &str, interface: Value, loses: bool| {
        let size = interface.is_string().then(|| json!({"in_skb_bytes": 1500, "out_skb_bytes": 20}));
        json!({"start": start, "end": end, "reason": reason, "interface": interface, "container": null,
            "size": size, "detail": null, "loses_traffic": loses})
    };
    let late = gap("1970-01-01T00:05:00Z".into(), "1970-01-01T00:25:00Z", "missed_drain", Value::Null, false);
    let attached = |name: &str| gap(Value::Null, "1970-01-01T00:10:00Z", "before_attach", name.into(), true);
    let gaps = json!([late, attached("veth1.0"), attached("veth2.0"), attached("veth3.0")]);
    let panel =
        format!("const list = all.gapList({gaps}, 'UTC', 'Planted gaps'); document.body.append(list)");
    with_module(&browser, "js/parts.js", &format!("{{ {panel} }}"))?;
    let lines = rows(&browser, "Planted gaps")?;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0][1..], ["until 1970-01-01 00:10", "3 interfaces", "4.50\u{a0}kB in, 60\u{a0}B out"]);
    assert_eq!(lines[1][1..], ["1970-01-01 00:05 \u{2013} 00:25", "node", "nothing lost"]);

    // Five-minute steps: a reading at 0:05, the next at 0:25, and one more at 0:28, where the document ends.
    let spread = |bytes: &str, gaps: &Value| {
        let document = json!({"starts": [0, 300, 600, 900, 1200, 1500], "gaps": gaps});
        with_module(&browser, "js/parts.js", &format!("all.spread({bytes}, {document}, 1680)"))
    };
    let expected = json!([7.0, 100.0, 100.0, 100.0, 100.0, 9.0]);
    assert_eq!(as_floats(&spread("[7, null, null, null, 400, 9]", &json!([late]))?), as_floats(&expected));
    // Within a step it begins and ends where it does, and what was in these steps stays in the sum.
    let within =
        gap("1970-01-01T00:02:00Z".into(), "1970-01-01T00:27:00Z", "daemon_down", Value::Null, false);
    let expected = json!([7.0 + 18.0, 30.0, 30.0, 30.0, 30.0, 18.0]);
    assert_eq!(as_floats(&spread("[7, null, 0, null, 0, 156]", &json!([within]))?), as_floats(&expected));
    // What is lost is not made up, and neither is what lies within a step, before the first, or nowhere.
    let lost = gap("1970-01-01T00:05:00Z".into(), "1970-01-01T00:25:00Z", "reboot", Value::Null, true);
    let short =
        gap("1970-01-01T00:20:05Z".into(), "1970-01-01T00:21:00Z", "missed_drain", Value::Null, false);
    let early =
        gap("1969-12-31T23:00:00Z".into(), "1970-01-01T00:02:00Z", "missed_drain", Value::Null, false);
    for gaps in [json!([lost]), json!([short]), json!([early]), json!([])] {
        let same = "[1, null, null, 2, 3, 4]";
        assert_eq!(spread(same, &gaps)?, serde_json::from_str::<Value>(same)?, "{gaps}");
    }
    assert_eq!(spread("[null, null, null, null, null, null]", &json!([late]))?[1], Value::Null);
    browser.is_quiet(PAGE)?;
    drop(daemon);
    Ok(())
}

/// The numbers of a list, without the last digits of a float.
fn as_floats(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|one| format!("{:.6}", one.as_f64().unwrap_or(-1.0))).collect()
}

#[test]
fn months_that_cannot_be_read_hide_nothing_else() -> Result<()> {
    let site = Site::new("web-months", "")?;
    let daemon = site.start()?;
    site.send(20)?;
    site.settled()?;
    let browser = Browser::start(site.lab.host())?;
    browser.devtools("Network.enable", &json!({}))?;
    browser.devtools("Network.setBlockedURLs", &json!({"urls": ["*/api/v1/months*"]}))?;
    open(&browser, "#/container/101", "Container 101")?;
    browser.wait("document.querySelector('main').innerText.includes('Nothing answers')")?;
    let shown = rows(&browser, "Traffic of Container 101 by class")?;
    ensure!(shown.iter().any(|row| row[0].starts_with('2')), "{shown:?}");
    browser.devtools("Network.setBlockedURLs", &json!({"urls": []}))?;
    open(&browser, "#/container/101", "Container 101")?;
    browser.wait("[...document.querySelectorAll('caption')].some((one) => one.textContent === 'Months')")?;
    drop(daemon);
    Ok(())
}
