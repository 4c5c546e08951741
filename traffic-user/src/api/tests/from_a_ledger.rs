//! Documents from a ledger: the same text as the commands, tags, bounds, and what is refused.

use std::path::Path;

use serde_json::Value;
use traffic_ledger::{Ledger, testing};

use super::*;
use crate::{
    api::{LedgerClasses, Reader},
    queries::{
        Context, GapOptions, MonthOptions, Query, ReportOptions, SeriesOptions, TopOptions, parameters,
    },
};

fn names() -> ClassNames {
    [(1, "world".to_owned()), (2, "UA-IX".to_owned())].into()
}

/// Three days of two containers, one of which has a name that a page must escape.
fn ledger() -> testing::File {
    let mut file = testing::ledger();
    let mut node = testing::Node::new(testing::NOON);
    for hour in 0..60_u64 {
        let bytes = 1_000 * (hour + 1);
        node.traffic("101", 1, [1, bytes, 2, 2 * bytes])
            .traffic("101", 2, [3, bytes + 7, 4, 3])
            .traffic("102", 0, [1, 50, 1, 60])
            .traffic("9", 1, [1, 9, 1, 10])
            .pass(3600)
            .drain(&mut file.ledger);
    }
    // No id has such characters, but whoever can write the file can give it any label.
    let label = "UPDATE container SET label = '<script>alert(1)</script>' WHERE name = '9'";
    testing::from_outside(&file.ledger, label);
    file
}

fn source(path: &Path) -> Source {
    let named: Arc<ReadNames> = Arc::new(names);
    let reader = Reader::of_file(path).naming(Arc::clone(&named));
    Source::of_ledger(reader.clone()).with_classes(LedgerClasses { reader, names: named })
}

async fn get(path: &Path, query: &str) -> (String, String) {
    ask(source(path), &format!("GET /api/v1/{query}")).await
}

/// What the command prints for the same options.
fn printed<Q: Query + clap::Args>(ledger: &Ledger, query: &str) -> String {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), value.replace("%3A", ":"))
    });
    let takes_format =
        Q::augment_args(clap::Command::new("x")).get_arguments().any(|arg| arg.get_id() == "format");
    let fixed: &[_] = if takes_format { &[("format", "json")] } else { &[] };
    let options: Q = parameters::parse(&pairs.collect(), fixed).unwrap();
    let resolve = |_: &Ledger, typed: &[String]| Ok(typed.to_vec());
    let context = Context { resolve: &resolve, class_names: names(), kept: None, quotas: None };
    options.resolve(ledger, &context).unwrap()(ledger, &context).unwrap()
}

#[tokio::test]
async fn a_document_is_what_the_command_prints() {
    let file = ledger();
    let (path, ledger) = (file.ledger.path(), &file.ledger);
    for query in ["", "by=day&split=class", "by=hour&container=101&split=direction&percentile=95&basis=l2"] {
        let (head, body) = get(path, &format!("report?{query}")).await;
        assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
        assert_eq!(body, printed::<ReportOptions>(ledger, query), "{query}");
    }
    for (query, kind) in [("format=csv", "text/csv"), ("format=table&by=day", "text/plain")] {
        let (head, body) = get(path, &format!("report?{query}")).await;
        assert!(head.contains(&format!("\r\ncontent-type: {kind}; charset=utf-8\r\n")), "{head}");
        assert_eq!(body, printed::<ReportOptions>(ledger, query));
    }
    for query in ["show=interfaces", "show=balance&by=day", "show=faults&format=csv", "show=drops&by=day"] {
        let (_, body) = get(path, &format!("report?{query}")).await;
        assert_eq!(body, printed::<ReportOptions>(ledger, query), "{query}");
    }
    let (_, body) = get(path, "top?count=1&by_class=true").await;
    assert_eq!(body, printed::<TopOptions>(ledger, "count=1&by_class=true"));
    assert!(body.contains("\"class_names\""), "{body}");
    let (_, body) = get(path, "gaps?container=101").await;
    assert_eq!(body, printed::<GapOptions>(ledger, "container=101"));
    let (_, body) = get(path, "series?container=101&by=day").await;
    assert_eq!(body, printed::<SeriesOptions>(ledger, "container=101&by=day"));
    let (_, body) = get(path, "months?container=101").await;
    assert_eq!(body, printed::<MonthOptions>(ledger, "container=101"));
}

/// A document.
async fn json(path: &Path, query: &str) -> Value {
    let (head, body) = get(path, query).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{query}: {head} {body}");
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(document["version"], 1, "{query}");
    document
}

fn sum(values: &Value) -> u64 {
    values.as_array().unwrap().iter().filter_map(Value::as_u64).sum()
}

#[tokio::test]
async fn containers_have_their_names_in_every_document() {
    let mut file = testing::ledger();
    let mut node = testing::Node::new(testing::NOON);
    for (number, name) in ["shop", "web", "web", "web"].into_iter().enumerate() {
        file.ledger.note_names([("101".to_owned(), name.to_owned())].into());
        node.traffic("101", 1, [1, 700, 2, 900]).traffic("9", 1, [1, 9, 1, 10]);
        node.interface(&format!("veth101.{number}"), Some("101"), 5000, 300).interface(
            "veth9.0",
            Some("9"),
            50,
            40,
        );
        node.pass(3600).drain(&mut file.ledger);
    }
    let path = file.ledger.path();
    // A gap has the name of its time, what comes until now the last one, and nobody a name that is not known.
    let gaps = json(path, "gaps").await;
    let of_gap =
        |gap: &Value| (gap["container"].as_str().map(str::to_owned), gap["name"].as_str().map(str::to_owned));
    let some = |text: &str| Some(text.to_owned());
    let found: Vec<_> = gaps["gaps"].as_array().unwrap().iter().map(of_gap).collect();
    for expected in [(some("101"), some("shop")), (some("101"), some("web")), (some("9"), None)] {
        assert!(found.contains(&expected), "{found:?}");
    }
    for query in ["series?container=101&container=9&by=hour", "months?container=101&container=9"] {
        let document = json(path, query).await;
        assert_eq!(document["container_names"], serde_json::json!({"101": "web"}), "{query}");
    }
    let series = json(path, "series?container=101").await;
    assert!(series["gaps"].as_array().unwrap().iter().any(|gap| gap["name"] == "web"), "{series}");
    let overview = json(path, "overview").await;
    assert!(overview["gaps"].as_array().unwrap().iter().any(|gap| gap["name"] == "shop"), "{overview}");
    assert_eq!(overview["container_names"], Value::Null);
    for (query, name) in
        [("report?by=hour", "shop"), ("report", "web"), ("top?count=2", "web"), ("gaps", "shop")]
    {
        let separator = if query.contains('?') { '&' } else { '?' };
        let (_, csv) = get(path, &format!("{query}{separator}format=csv")).await;
        let mut rows = csv::Reader::from_reader(csv.as_bytes());
        let header = rows.headers().unwrap().clone();
        let at = |field: &str| header.iter().position(|one| one == field).unwrap();
        let (id, called) = (at("container"), at("container_name"));
        assert!(at("container_name") + 2 == header.len(), "{header:?}");
        let rows: Vec<_> = rows.records().map(Result::unwrap).collect();
        assert!(rows.iter().any(|row| &row[id] == "101" && &row[called] == name), "{query}: {csv}");
        assert!(rows.iter().all(|row| &row[id] == "101" || row[called].is_empty()), "{query}: {csv}");
    }
    let (_, table) = get(path, "gaps?format=table").await;
    assert!(table.contains("101 (shop)"), "{table}");
}

#[tokio::test]
async fn columns_and_months_have_the_sums_of_the_report() {
    let file = ledger();
    let path = file.ledger.path();
    let report = json(path, "report?container=101&split=class").await;
    let of_class = |class: u64| {
        let rows = report["rows"].as_array().unwrap();
        rows.iter().find(|row| row["class"] == class).unwrap_or_else(|| panic!("{report:#}")).clone()
    };
    for by in ["5min", "hour", "day", "month", "auto"] {
        let series = json(path, &format!("series?container=101&by={by}")).await;
        let classes = series["classes"].as_array().unwrap();
        assert_eq!(classes.len(), 2, "{series:#}");
        for class in classes {
            let row = of_class(class["class"].as_u64().unwrap());
            for direction in ["in", "out"] {
                let bytes = row[direction]["bytes"].as_u64().unwrap();
                assert_eq!(sum(&class[format!("{direction}_bytes")]), bytes, "{by} {direction}");
                assert_eq!(class[direction]["bytes"].as_u64(), Some(bytes));
            }
            assert_eq!(class["name"], if class["class"] == 1 { "world" } else { "UA-IX" });
            let steps = series["starts"].as_array().unwrap().len();
            assert_eq!(class["in_bytes"].as_array().unwrap().len(), steps);
            assert_eq!(series["periods"].as_array().unwrap().len(), steps);
        }
        assert_eq!(series["total"], report["total"], "{by}");
    }
    assert_eq!(json(path, "series?container=101").await["by"], "5min", "721 steps");
    assert_eq!(json(path, "series?container=101&points=100").await["by"], "hour");
    let months = json(path, "months?container=101").await;
    let month = &months["months"][0];
    assert_eq!(
        (&month["in"], &month["out"], &month["total"]),
        (&report["total"]["in"], &report["total"]["out"], &report["total"]["total"])
    );
    assert_eq!((&month["complete"], &month["closed"]), (&false.into(), &false.into()));
    assert!(month["estimate"]["in"]["bytes"].as_u64() > month["in"]["bytes"].as_u64(), "{month:#}");
    assert!((900..=1000).contains(&month["permille"].as_u64().unwrap()), "{month:#}");
    assert_eq!(json(path, "months").await["months"][0]["permille"], Value::Null);
}

#[tokio::test]
async fn steps_outside_the_ledger_have_no_value() {
    let file = ledger();
    let series = json(file.ledger.path(), "series?from=2026-11-09&to=2026-11-14&by=day&tz=UTC").await;
    let values = series["classes"][1]["in_bytes"].as_array().unwrap();
    let recorded: Vec<_> = values.iter().map(Value::is_u64).collect();
    assert_eq!(recorded, [false, true, true, true, false], "{series:#}");
    assert_eq!(series["ledger_begin"], "2026-11-10T12:55:00Z");
    assert_eq!(series["last_reading"], "2026-11-13T00:00:00Z");
}

#[tokio::test]
async fn a_percentile_is_there_or_its_absence_explained() {
    let file = ledger();
    let path = file.ledger.path();
    let report = json(path, "report?container=101&percentile=95").await;
    let series = json(path, "series?container=101&percentile=95").await;
    let (found, expected) = (&series["percentile"], &report["rows"][0]["percentile"]);
    for field in ["in_bits_per_s", "out_bits_per_s", "total_bits_per_s", "buckets"] {
        assert!(found[field].is_u64() && found[field] == expected[field], "{found:#} {expected:#}");
    }
    let of_all = json(path, "series?percentile=95").await;
    assert!(of_all["percentile"].is_null(), "{of_all:#}");
    assert!(of_all["percentile_missing"].as_str().unwrap().contains("name one"), "{of_all:#}");
}

#[tokio::test]
async fn the_overview_has_the_last_day_in_one_document() {
    let file = ledger();
    let path = file.ledger.path();
    let overview = json(path, "overview?count=2").await;
    assert_eq!((&overview["live"], &overview["problems"]), (&false.into(), &serde_json::json!([])));
    let (from, to) = (overview["from"].as_str().unwrap(), overview["to"].as_str().unwrap());
    let query = format!("report?split=class&from={from}&to={to}");
    let report = json(path, &query).await;
    assert_eq!(overview["total"], report["total"]);
    assert_eq!(overview["class_zero"], report["class_zero"]);
    let containers = overview["containers"].as_array().unwrap();
    let labels: Vec<_> = containers.iter().map(|one| one["container"].as_str().unwrap()).collect();
    assert_eq!((labels, &overview["container_count"]), (vec!["101", "<script>alert(1)</script>"], &2.into()));
    let steps = overview["spark_starts"].as_array().unwrap().len();
    for one in containers {
        assert_eq!(one["in_bytes"].as_array().unwrap().len(), steps);
        assert_eq!(sum(&one["in_bytes"]), one["in"]["bytes"].as_u64().unwrap());
        assert_eq!(sum(&one["out_bytes"]), one["out"]["bytes"].as_u64().unwrap());
    }
    assert_eq!(overview["ledger"]["begin"], "2026-11-10T12:55:00Z");
    assert_eq!(overview["ledger"]["zone"], "UTC");
    let all: Vec<_> = json(path, "containers").await["containers"].as_array().unwrap().to_vec();
    let all: Vec<_> = all.iter().map(|one| one["container"].as_str().unwrap()).collect();
    assert_eq!(all, ["101", "102", "<script>alert(1)</script>"]);
}

#[tokio::test]
async fn an_empty_ledger_has_all_documents() {
    let file = testing::ledger();
    for query in ["overview", "series", "months", "report", "top", "gaps", "containers", "classes"] {
        json(file.ledger.path(), query).await;
    }
}

#[tokio::test]
async fn a_tag_holds_until_the_next_drain() {
    let mut file = ledger();
    let path = file.ledger.path().to_owned();
    let tag = |head: &str| head.lines().find_map(|line| line.strip_prefix("etag: ")).map(str::to_owned);
    for query in ["report?by=day", "top", "gaps", "series?by=hour", "months", "overview", "containers"] {
        let request = format!("GET /api/v1/{query}");
        let (head, _) = ask(source(&path), &request).await;
        let first = tag(&head).unwrap_or_else(|| panic!("{query}: {head}"));
        let header = format!("Host: localhost\r\nIf-None-Match: W/\"x\", {first}\r\n");
        let (head, body) = ask_with(source(&path), &request, &header, Access::default()).await;
        assert!(head.starts_with("HTTP/1.1 304 ") && body.is_empty(), "{query}: {head}");
        let mut node = testing::Node::new(testing::NOON + 400_000);
        node.traffic("103", 1, [1, 2, 3, 4]).pass(60).drain(&mut file.ledger);
        let (head, _) = ask_with(source(&path), &request, &header, Access::default()).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{query}: {head}");
        assert_ne!(tag(&head), Some(first));
    }
}

#[tokio::test]
async fn bad_input_is_refused_with_a_sentence() {
    let file = ledger();
    let path = file.ledger.path();
    for (query, status, sentence) in [
        (
            "report?by=decade",
            400,
            "parameter by: \"decade\" is not accepted; write one of 5min, hour, day, week, month, year, total",
        ),
        ("report?last=7", 400, "cannot use last: \"7\" has no unit; write numbers with the units"),
        ("report?from=yesterday", 400, "\"yesterday\" is not a time; write 2026-11-01"),
        ("report?tz=Europe/Berlino", 400, "cannot use tz: "),
        ("report?tz=../../etc/passwd", 400, "cannot use tz: "),
        ("report?percentile=101", 400, "the percentile must be above 0 and at most 100"),
        ("report?percentile=NaN", 400, "the percentile must be above 0 and at most 100"),
        ("report?from=2026-11-12&to=2026-11-11", 400, "before it begins"),
        ("report?from=2031-01-01", 400, "after the last reading"),
        ("report?container=777", 404, "no container 777 is known: "),
        ("report?container=", 404, "no container  is known: "),
        ("report?container=a%00b", 404, "is known: "),
        ("series?by=5min&from=2020-01-01", 400, "more than 1500 steps"),
        ("series?points=0", 400, "parameter points: \"0\": "),
        ("series?points=1000000", 400, "parameter points: "),
        ("months?months=0", 400, "parameter months: "),
        ("overview?count=1000", 400, "parameter count: "),
        ("top?count=-1", 400, "parameter count: "),
        ("gaps?from=x&last=1d", 400, "exclude each other"),
        ("classes/explain", 400, "parameter address is missing"),
        ("classes/explain?address=x", 400, "parameter address: \"x\": "),
        ("containers?x=1", 400, "parameter \"x\" is unknown"),
        ("rates", 404, "without a daemon"),
        ("counters", 404, "without a daemon"),
        ("status", 404, "without a daemon"),
        ("interfaces", 404, "without a daemon"),
    ] {
        let (head, body) = get(path, query).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{query}: {head} {body}");
        let document: Value = serde_json::from_str(&body).unwrap();
        let error = document["error"].as_str().unwrap();
        assert!(error.contains(sentence), "{query}: {error}");
        assert!(!error.contains("--"), "{query}: {error}");
    }
}

#[tokio::test]
async fn more_rows_than_fit_in_memory_are_refused() {
    let mut file = testing::ledger();
    let mut node = testing::Node::new(testing::NOON);
    for _ in 0..9 {
        for id in 0..1000 {
            node.traffic(&id.to_string(), 1, [1, 100, 1, 100])
                .traffic(&id.to_string(), 2, [1, 100, 1, 100])
                .traffic(&id.to_string(), 3, [1, 100, 1, 100]);
        }
        node.pass(300).drain(&mut file.ledger);
    }
    let path = file.ledger.path();
    let (head, body) = get(path, "report?by=5min&split=class").await;
    assert!(head.starts_with("HTTP/1.1 400 ") && body.contains("more than 25000 rows"), "{head} {body}");
    let (head, _) = get(path, "report?by=5min").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[tokio::test]
async fn a_file_that_is_no_ledger_is_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ledger.sqlite");
    for (content, sentence) in [(None, "cannot open the ledger"), (Some("rubbish, and more of it"), "ledger")]
    {
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let (head, body) = get(&file, "report").await;
        assert!(head.starts_with("HTTP/1.1 503 ") && body.contains(sentence), "{head} {body}");
        assert!(!head.contains("etag") || content.is_some());
    }
}
