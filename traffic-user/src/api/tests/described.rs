//! The OpenAPI document against what the server answers. `validator` knows the part of JSON Schema that the
//! document uses, and refuses anything else in it.

use serde_json::{Value, json};
use traffic_ledger::testing;

use super::{validator, *};
use crate::api::{LedgerClasses, Reader};

pub(super) fn description() -> Value {
    serde_json::from_str(include_str!("../openapi.json")).unwrap()
}

/// Checks a document against a place in the description.
pub(super) fn check(description: &Value, place: &str, document: &Value) {
    let schema = description.pointer(place).unwrap_or_else(|| panic!("nothing is described at {place}"));
    if let Err(error) = validator::check(description, schema, document) {
        panic!("{place}: {error}\n{document:#}");
    }
}

/// The place of the schema of an answer.
fn answer_at(path: &str, status: &str) -> String {
    let path = path.replace('/', "~1");
    format!("/paths/{path}/get/responses/{status}/content/application~1json/schema")
}

fn a_ledger() -> testing::File {
    let mut file = testing::ledger();
    let mut node = testing::Node::new(testing::NOON);
    file.ledger.note_names([("101".to_owned(), "shop".to_owned())].into());
    for _ in 0..40 {
        node.traffic("101", 1, [1, 100, 2, 200]).traffic("102", 0, [1, 50, 1, 60]).pass(3600);
        node.drain(&mut file.ledger);
    }
    file
}

/// Quotas of every kind.
fn quota_files(file: &testing::File) -> Arc<QuotaFiles> {
    let text = "[[quota]]\nname = 'traffic'\ndefault = true\nallowance = '10kB'\nclasses = [0, 1]\n\
                [[quota]]\nname = 'rate'\npattern = 'shop'\ncommit = '1kbit/s'\nperiod = 'week'\n\
                [[quota]]\nname = 'free'\ncontainer = '102'\nunlimited = true\n";
    let quotas = file.dir.path().join("quotas.toml");
    std::fs::write(&quotas, text).unwrap();
    let state_dir = file.dir.path().to_owned();
    Arc::new(QuotaFiles { file: quotas, state_dir, ids: Box::new(|| Box::new(|id| vec![id.to_owned()])) })
}

#[tokio::test]
async fn every_document_is_as_it_is_described() {
    let file = a_ledger();
    let whole = description();
    let names: Arc<ReadNames> = Arc::new(|| [(1, "world".to_owned())].into());
    let reader = Reader::of_file(file.ledger.path()).naming(Arc::clone(&names));
    let classes = LedgerClasses { reader: reader.clone(), names };
    let source = good_source()
        .with_components(components())
        .with_ledger(Some(reader))
        .with_classes(classes)
        .with_quota_files(quota_files(&file));
    for (path, queries) in [
        ("/api/v1/overview", &["", "count=1&basis=l1"][..]),
        (
            "/api/v1/series",
            &["", "container=101&percentile=95", "from=2026-11-01&to=2026-12-31&percentile=95"],
        ),
        ("/api/v1/months", &["", "container=101&months=2"]),
        (
            "/api/v1/report",
            &[
                "",
                "by=day&split=class,direction,family&percentile=95",
                "by=month",
                "by=week",
                "by=year&tz=Asia/Kolkata&billing_day=5",
                "show=balance",
                "show=drops&split=class,direction",
                "from=2026-11-10T13:07",
            ],
        ),
        ("/api/v1/top", &["", "by_class=true&count=3"]),
        ("/api/v1/gaps", &["", "container=101"]),
        ("/api/v1/containers", &[""]),
        ("/api/v1/quotas", &["", "container=101", "over=80%25", "at=2026-11-11"]),
        ("/api/v1/classes", &[""]),
        ("/api/v1/counters", &["", "container=20"]),
        ("/api/v1/status", &[""]),
    ] {
        for query in queries {
            let (head, body) = ask(source.clone(), &format!("GET {path}?{query}")).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{path}?{query}: {head} {body}");
            check(&whole, &answer_at(path, "200"), &serde_json::from_str(&body).unwrap());
        }
        let (head, body) = ask(source.clone(), &format!("GET {path}?no_such=1")).await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{path}: {head}");
        check(&whole, &answer_at(path, "400"), &serde_json::from_str(&body).unwrap());
    }
}

#[tokio::test]
async fn a_report_has_another_tag_after_its_quotas_have_changed() {
    let file = a_ledger();
    let files = quota_files(&file);
    let reader = Reader::of_file(file.ledger.path());
    let source = good_source().with_ledger(Some(reader)).with_quota_files(Arc::clone(&files));
    let get = async |query: &str| {
        let (head, body) = ask(source.clone(), &format!("GET /api/v1/report?{query}")).await;
        let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
        (tag, serde_json::from_str::<Value>(&body).unwrap_or_default())
    };
    let (first, document) = get("").await;
    let standings = document["quotas"]["standings"].as_array().unwrap();
    assert_eq!(
        standings.len(),
        3,
        "traffic of both and the rate of one, not what is unlimited: {document:#}"
    );
    assert!(standings.iter().any(|row| row["expected_bytes"].is_u64()), "{document:#}");
    let (of_csv, of_one) = (get("format=csv").await.0, get("container=102").await);
    assert_eq!(of_one.1["quotas"]["standings"].as_array().unwrap().len(), 1);
    std::fs::write(&files.file, "[[quota]]\nname = 'a'\ndefault = true\nallowance = '2kB'\n").unwrap();
    let (second, document) = get("").await;
    assert!(second != first && get("container=102").await.0 != of_one.0);
    assert_eq!(document["quotas"]["standings"].as_array().unwrap().len(), 2);
    assert_eq!(get("format=csv").await.0, of_csv, "CSV has no quotas");
    assert_eq!(get("show=balance").await.1.get("quotas"), None);
}

#[tokio::test]
async fn every_path_and_parameter_exists() {
    let file = a_ledger();
    let source = good_source()
        .with_ledger(Some(Reader::of_file(file.ledger.path())))
        .with_quota_files(quota_files(&file));
    let description = description();
    for (path, item) in description["paths"].as_object().unwrap() {
        let (head, _) = ask(source.clone(), &format!("GET {path}?no_such=1")).await;
        let exists = !head.starts_with("HTTP/1.1 404 ")
            || path.starts_with("/api/v1/classes")
            || path.ends_with("interfaces");
        assert!(exists, "{path}: {head}");
        for parameter in item["get"]["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            let schema = &parameter["schema"];
            let schema = if schema["type"] == "array" { &schema["items"] } else { schema };
            let allowed = schema["enum"].as_array().cloned().unwrap_or_default();
            for value in allowed.iter().filter_map(Value::as_str) {
                let (head, body) = ask_head(source.clone(), &format!("{path}?{name}={value}")).await;
                assert!(!head.starts_with("HTTP/1.1 400 "), "{path}?{name}={value}: {body}");
            }
            // A parameter that nobody knows is refused as such.
            let (_, body) = ask_head(source.clone(), &format!("{path}?{name}=%01")).await;
            let unknown = format!("parameter \\\"{name}\\\" is unknown");
            assert!(!body.contains(&unknown), "{path}?{name}: {body}");
        }
    }
}

/// The answer, except of a stream that never ends.
async fn ask_head(source: Source, request: &str) -> (String, String) {
    match request.starts_with("/api/v1/rates") {
        true => ask(source, &format!("HEAD {request}")).await,
        false => ask(source, &format!("GET {request}")).await,
    }
}

#[tokio::test]
async fn the_description_is_served_with_the_version() {
    let (_, body) = ask(good_source(), "GET /api/v1/openapi.json").await;
    let served: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(served["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(served["paths"], description()["paths"]);
    assert_eq!(served["openapi"], json!("3.1.0"));
}
