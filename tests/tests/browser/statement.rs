//! A statement as a page, and the page that checks statements, both from files and without a network.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use traffic_common::DropGroup;
use traffic_ledger::AdjustmentRequest;
use traffic_ledger::testing::{File, NOON, Node, adjustment, ledger};
use traffic_tests::Lab;
use traffic_tests::browser::{Browser, decode};

/// What `browser` shows of the check.
const RESULT: &str = "document.getElementById('result').innerText";

/// Gives the lab a ledger with a month that was closed and corrected, with more of everything than a sheet has room for.
fn close_month(lab: &Lab) -> Result<()> {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    node.count_drops();
    for day in 0..25 {
        node.traffic("101", 1, [1, 1_000_000 * (day + 1), 2, 123_456_789]);
        node.traffic("101", 2, [7, 7000, 3, 300]).traffic("101", 0, [5, 50, 4, 40]);
        node.dropped("101", 1, DropGroup::Shaper, [1, 1000, 0, 0]);
        node.pass(86_400).drain(&mut file.ledger);
        if day % 2 == 1 {
            node.reboot(600).count_drops();
        }
    }
    file.ledger.close_anyway("2026-11", node.wall)?;
    for at in 0..12 {
        let reason = format!("<b>flood</b> & more, number {at}");
        file.ledger.adjust(&AdjustmentRequest { reason, ..adjustment(node.wall) })?;
    }
    let File { ledger, dir } = file;
    drop(ledger);
    fs::create_dir_all(lab.path("state"))?;
    fs::copy(dir.path().join("ledger.sqlite"), lab.path("state/ledger.sqlite"))?;
    Ok(())
}

/// Figures as the page shows them, without the spaces between digits.
fn shown(browser: &Browser<'_>) -> Result<Vec<Vec<String>>> {
    let cells =
        "return [...document.querySelectorAll('#figures tbody tr')].map((row) => [...row.querySelectorAll(
        'td + td small')].map((cell) => cell.textContent.replaceAll('\\u202f', '')))";
    Ok(serde_json::from_value(browser.run(cells)?)?)
}

fn expected(json: &Value) -> Result<Vec<Vec<String>>> {
    let of = |sum: &Value| -> Option<Vec<String>> {
        let cell = |name: &str, what| Some(format!("{} {what}", sum.get(name)?.as_str()?));
        let cells = [
            ("in_bytes", "bytes"),
            ("in_packets", "packets"),
            ("out_bytes", "bytes"),
            ("out_packets", "packets"),
        ];
        cells.iter().map(|(name, what)| cell(name, what)).collect()
    };
    let sums = json["statement"]["sums"].as_array().context("no sums")?;
    sums.iter().map(|sum| of(sum).with_context(|| format!("{sum}"))).collect()
}

/// What a document must not have.
const CHANGES: [&str; 21] = [
    "row.in_bytes = '01'",
    "row.in_bytes = '-1'",
    "row.in_bytes = '0x10'",
    "row.in_bytes = ['1']",
    "row.in_bytes = 1",
    "row.in_bytes = '18446744073709551616'",
    "row.class = '1'",
    "row.class = 256",
    "row.more = 1",
    "of.figures.entry.entry = '1'",
    "of.figures.proof.salt = ''",
    "of.figures.proof.index = -1",
    "of.days = {length: 0}",
    "of.dropped = null",
    "of.faults = []",
    "of.keys = []",
    "of.keys = [of.figures]",
    "of.figures.entry.period = null",
    "of.container_now = '\\ud800'",
    "delete of.made",
    "of.sums[0].class = [0]",
];

fn give_key(browser: &Browser<'_>, key: &str) -> Result<()> {
    let script =
        "const box = document.getElementById('key'); box.value = KEY; box.dispatchEvent(new Event('input'))";
    browser.run(&script.replace("KEY", &format!("{key:?}"))).map(drop)
}

fn choose(browser: &Browser<'_>, file: &Path) -> Result<()> {
    let document = browser.devtools("DOM.getDocument", &json!({}))?;
    let input = json!({"nodeId": document["root"]["nodeId"], "selector": "#file"});
    let input = browser.devtools("DOM.querySelector", &input)?;
    let chosen = json!({"files": [file], "nodeId": input["nodeId"]});
    browser.devtools("DOM.setFileInputFiles", &chosen).map(drop)
}

fn open(browser: &Browser<'_>, file: &Path) -> Result<()> {
    browser.open(&format!("file://{}", file.display()))
}

#[test]
fn a_statement_is_a_page_that_checks_itself_and_others() -> Result<()> {
    let lab = Lab::new("web-statement")?;
    close_month(&lab)?;
    let key = lab.run_ok(&["statement", "key", "--new", "billing.example.com"])?;
    let key = key.trim();
    let [page, note] = ["101.html", "101.statement"].map(|name| lab.path(name));
    let of_101 = ["statement", "2026-11", "--container", "101"];
    fs::write(&page, lab.run_ok(&[&of_101[..], &["--html"]].concat())?)?;
    fs::write(&note, lab.run_ok(&of_101)?)?;
    let path = page.to_str().context("a path")?;
    let json: Value =
        serde_json::from_str(&lab.run_ok(&["verify", path, "--key", key, "--format", "json"])?)?;
    let expected = expected(&json)?;
    ensure!(expected.len() == 3 && json["statement"]["gaps"].as_array().is_some_and(|gaps| gaps.len() > 10));

    let browser = Browser::start(lab.host())?;
    browser.size(800, 1000)?;
    for theme in ["dark", "light"] {
        browser.theme(theme)?;
        open(&browser, &page)?;
        browser.wait(&format!("{RESULT}.includes('Unchanged since it was signed')"))?;
        assert_eq!(shown(&browser)?, expected);
        browser.is_accessible()?;
    }
    let text = browser.text("document.getElementById('figures').innerText")?;
    for part in ["<b>flood</b> & more, number 11", "class 1, shaper", "billing.example.com+"] {
        ensure!(text.contains(part), "{part}: {text}");
    }
    ensure!(browser.run("return document.querySelectorAll('#figures svg rect.in').length")? == 30);
    let one_sheet = browser.devtools("Page.printToPDF", &json!({"preferCSSPageSize": true}))?;
    let one_sheet = decode(one_sheet["data"].as_str().context("no print")?).context("not base64")?;
    let sheets = String::from_utf8_lossy(&one_sheet);
    assert_eq!(sheets.matches("/Type /Page\n").count(), 1, "sheets of paper");
    give_key(&browser, key)?;
    browser.wait(&format!("{RESULT}.startsWith('Valid.')"))?;
    give_key(&browser, &key[..key.len() - 1])?;
    browser.wait(&format!("{RESULT}.includes('no complete key')"))?;
    assert_eq!(shown(&browser)?, expected, "a key that is being written");
    give_key(&browser, &key.replace("billing", "shop"))?;
    browser.wait(&format!("{RESULT}.startsWith('Not valid:') && {RESULT}.includes('another key')"))?;
    ensure!(shown(&browser)?.is_empty(), "nothing is shown that is not so");

    // Every day of a month is in the plot, also where the billing day is after the end of a short one.
    for (name, day, first, last) in [
        ("2026-01", 31, "2026-01-31", "2026-02-27"),
        ("2026-02", 31, "2026-02-28", "2026-03-30"),
        ("2028-02", 30, "2028-02-29", "2028-03-29"),
        ("2026-04", 31, "2026-04-30", "2026-05-30"),
        ("2026-12", 15, "2026-12-15", "2027-01-14"),
    ] {
        let days = format!(
            "const of = daysOf({{name: '{name}', billing_day: {day}}}, new Map()); return [of[0], of.at(-1)]"
        );
        assert_eq!(browser.run(&days)?, json!([first, last]), "{name} from {day}");
    }
    let sizes = browser.run("return [999n, 999999n, 9999000n, -1500n].map(human)")?;
    assert_eq!(sizes, json!(["999 B", "1.00 MB", "10.0 MB", "-1.50 kB"]));
    // Each value has one form, as in `trafctl verify`.
    ensure!(browser.run("return isStatement(JSON.parse(note.split('\\n')[0]))")? == true);
    for change in CHANGES {
        let changed = format!(
            "const of = JSON.parse(note.split('\\n')[0]); const row = of.figures.record.rows[0]; {change}; return isStatement(of)"
        );
        ensure!(browser.run(&changed)? == false, "{change}");
    }

    // A page with other figures, and one whose statement was made with another key.
    let changed = lab.path("changed.html");
    let whole = fs::read_to_string(&page)?;
    fs::write(&changed, whole.replacen("\"out_packets\":\"", "\"out_packets\":\"1", 1))?;
    open(&browser, &changed)?;
    browser.wait(&format!("{RESULT}.startsWith('Not valid:')"))?;

    // The page without a statement, with statements of both kinds.
    let checker = lab.path("verify.html");
    fs::write(&checker, lab.run_ok(&["verify", "--html"])?)?;
    for (statement, result) in
        [(&note, "Valid."), (&page, "Valid."), (&changed, "Not valid:"), (&checker, "Not valid:")]
    {
        open(&browser, &checker)?;
        browser.is_accessible()?;
        give_key(&browser, key)?;
        choose(&browser, statement)?;
        browser
            .wait(&format!("{RESULT}.startsWith('{result}')"))
            .with_context(|| statement.display().to_string())?;
        let nothing: Vec<Vec<String>> = Vec::new();
        assert_eq!(shown(&browser)?, if result == "Valid." { expected.clone() } else { nothing });
    }
    // The browser's own first page has fonts.
    browser.is_quiet_but_for("file://", "chrome://new-tab")?;
    Ok(())
}
