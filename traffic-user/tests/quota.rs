//! `trafctl quota` with a ledger of a simulated node: needs neither root nor a kernel.
#![expect(clippy::unwrap_used, reason = "a test; clippy does not count helpers as such")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use traffic_ledger::{
    AdjustmentRequest,
    testing::{File, NOON, Node, adjustment, ledger},
};

const QUOTAS: &str = "\
[[quota]]
name = \"traffic\"
default = true
allowance = \"30MB\"

[[quota]]
name = \"traffic\"
container = \"102\"
allowance = \"100MB\"
direction = \"out\"
billing_day = 15
time_zone = \"Asia/Kathmandu\"

[[quota]]
name = \"daily\"
pattern = \"10?\"
allowance = \"3MB\"
direction = \"larger\"
classes = [1]
period = \"day\"
thresholds = [\"50%\", \"66%\", \"90%\"]

[[quota]]
name = \"rate\"
container = \"101\"
commit = \"200bit/s\"
period = \"week\"

[[quota]]
name = \"traffic\"
container = \"103\"
unlimited = true
";

/// A state directory with a ledger from noon of 10 November 2026, with a reading of each day's traffic at noon
/// until the 28th.
fn state_dir() -> File {
    node().0
}

fn node() -> (File, Node) {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for _ in 0..18 {
        node.traffic("101", 1, [1, 1_000_000, 2, 2_000_000]).traffic("101", 0, [1, 7_000_000, 1, 7]);
        node.traffic("102", 2, [1, 3_000_000, 2, 4_000_000]);
        node.traffic("103", 1, [1, 5_000, 2, 6_000]).pass(86_400).drain(&mut file.ledger);
    }
    fs::write(file.dir.path().join("trafctl.toml"), "").unwrap();
    write(&file, QUOTAS);
    (file, node)
}

fn write(file: &File, text: &str) {
    fs::write(file.dir.path().join("quotas.toml"), text).unwrap();
}

fn command(file: &File, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trafctl"));
    command
        .args(arguments)
        .env("TRAFCTL_CONFIG", file.dir.path().join("trafctl.toml"))
        .env("TRAFCTL_STATE_DIR", file.dir.path());
    command
}

fn trafctl(file: &File, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command(file, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn document(file: &File, arguments: &[&str]) -> Value {
    let (_, stdout, stderr) = trafctl(file, &[arguments, &["--format", "json"]].concat());
    assert_eq!(stderr, "", "{arguments:?}");
    serde_json::from_str(&stdout).unwrap()
}

/// One field of each standing, with its container and quota.
fn field(document: &Value, name: &str) -> Vec<Value> {
    let standings = document["standings"].as_array().unwrap();
    standings.iter().map(|row| json!([row["container"], row["quota"], row[name]])).collect()
}

#[test]
fn each_quota_has_the_figures_of_the_report() {
    let file = state_dir();
    let shown = document(&file, &["quota", "show"]);
    assert_eq!((&shown["version"], &shown["last_reading"]), (&json!(1), &json!("2026-11-28T12:00:00Z")));
    assert_eq!(
        field(&shown, "used_bytes"),
        [
            json!(["101", "traffic", 54_000_000]),
            // Readings at noon are booked in the bucket that ends there, so the 28th has one of them.
            json!(["101", "daily", 2_000_000]),
            json!(["101", "rate", null]),
            // From the 15th in Nepal: the readings of the 15th to the 28th, of which the 15th's came at noon.
            json!(["102", "traffic", 14 * 4_000_000]),
            json!(["102", "daily", 0]),
            json!(["103", "traffic", 18 * 11_000]),
            json!(["103", "daily", 6_000]),
        ],
        "{shown:#}"
    );
    assert_eq!(
        field(&shown, "reached_percent"),
        [
            json!(["101", "traffic", [80, 100]]),
            json!(["101", "daily", [50, 66]]),
            json!(["101", "rate", [80]]),
            json!(["102", "traffic", []]),
            json!(["102", "daily", []]),
            json!(["103", "traffic", []]),
            json!(["103", "daily", []]),
        ],
        "{shown:#}"
    );
    let row = &shown["standings"][3];
    assert_eq!(
        [&row["period"], &row["start"], &row["end"]],
        [&json!("2026-11"), &json!("2026-11-14T18:15:00Z"), &json!("2026-12-14T18:15:00Z")]
    );
    // Since the begin of the 21st: eight readings of 4 MB in seven days and a half.
    let (recent_s, rest_s): (u64, u64) = (7 * 86_400 + 43_200, 16 * 86_400 + 6 * 3600 + 15 * 60);
    assert_eq!(row["expected_bytes"], json!(56_000_000 + 32_000_000 * rest_s / recent_s), "{row:#}");
    assert_eq!(row["runs_out"], json!("2026-12-08T19:30:00Z"), "44 MB take 891,000 s");
    let report =
        document(&file, &["report", "--from", "2026-11-01", "--to", "2026-12-01", "--container", "101"]);
    assert_eq!(report["rows"][0]["total"]["bytes"], json!(54_000_000));
}

#[test]
fn monitoring_needs_only_the_status() {
    let file = state_dir();
    assert_eq!(trafctl(&file, &["quota", "show"]).0, Some(0));
    let (status, table, _) = trafctl(&file, &["quota", "show", "--over", "100%"]);
    assert_eq!(status, Some(1), "{table}");
    assert!(table.lines().nth(1).unwrap().starts_with("101        traffic  2026-11"), "{table}");
    let (status, text, _) = trafctl(&file, &["quota", "show", "102", "--over", "90%"]);
    assert_eq!((status, text.as_str()), (Some(0), "no quota is used to 90 %\n"));
    let (status, text, stderr) = trafctl(&file, &["quota", "show", "999"]);
    assert_eq!((status, text.as_str()), (Some(1), ""));
    assert!(stderr.contains("the ledger has no container \"999\""), "{stderr}");
}

#[test]
fn a_file_with_a_mistake_is_refused_as_a_whole() {
    let file = state_dir();
    write(&file, &QUOTAS.replace("\"30MB\"", "\"30Mb\"").replace("\"week\"", "\"weekly\""));
    let (status, text, _) = trafctl(&file, &["quota", "check"]);
    assert_eq!(status, Some(2), "{text}");
    let places: Vec<_> = text.lines().map(|line| line.split("quotas.toml:").nth(1).unwrap()).collect();
    assert!(places[0].starts_with("4:13: ") && places[1].starts_with("27:10: "), "{text}");
    for command in ["list", "show"] {
        let (status, text, stderr) = trafctl(&file, &["quota", command]);
        assert_eq!((status, text.as_str()), (Some(2), ""), "{command}");
        assert!(stderr.contains("quotas.toml:4:13: \"30Mb\"") && stderr.contains("1 more"), "{stderr}");
    }
    let checked = document(&file, &["quota", "check"]);
    assert_eq!(checked["mistakes"][1]["line"], json!(27));
}

#[test]
fn what_does_not_fit_the_node_is_a_problem() {
    let file = state_dir();
    let (status, text, _) = trafctl(&file, &["quota", "check"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.ends_with("quotas.toml: 5 quotas, no mistakes\n"), "{text}");
    write(
        &file,
        "[[quota]]\nname = 'a'\ncontainer = '1O1'\nallowance = '1GB'\n\
         [[quota]]\nname = 'b'\ndefault = true\ncommit = '1Gbit/s'\nperiod = '90 days'\n",
    );
    let (status, text, _) = trafctl(&file, &["quota", "check"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("line 1: the ledger has nothing of container 1O1"), "{text}");
    assert!(text.contains("line 5: the commit \"b\" ranks the rates of 90 days"), "{text}");
}

#[test]
fn a_list_says_for_how_many_containers_each_quota_decides() {
    let file = state_dir();
    let listed = document(&file, &["quota", "list"]);
    let rows = listed["quotas"].as_array().unwrap();
    let counts: Vec<_> =
        rows.iter().map(|row| json!([row["name"], row["line"], row["containers"]])).collect();
    let expected =
        [("traffic", 1, 1), ("traffic", 6, 1), ("daily", 14, 3), ("rate", 23, 1), ("traffic", 29, 1)];
    assert_eq!(counts, expected.map(|row| json!(row)), "{listed:#}");
    let (_, table, _) = trafctl(&file, &["quota", "list"]);
    assert!(table.contains("traffic  container 102  100 MB"), "{table}");
    assert!(table.contains("month from day 15, Asia/Kathmandu"), "{table}");
}

#[test]
fn without_a_file_there_are_no_quotas() {
    let file = state_dir();
    fs::remove_file(file.dir.path().join("quotas.toml")).unwrap();
    for command in ["check", "list", "show"] {
        let (status, text, stderr) = trafctl(&file, &["quota", command]);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{text}");
        assert!(text.contains("quotas.toml") && text.contains("quota"), "{text}");
    }
    let (status, _, stderr) = trafctl(&file, &["quota", "check", "/nonexistent/quotas.toml"]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("does not exist"), "{stderr}");
}

#[test]
fn another_time_shows_the_periods_that_contain_it() {
    let file = state_dir();
    let october = document(&file, &["quota", "show", "101", "--at", "2026-10-31"]);
    assert_eq!(field(&october, "used_bytes")[0], json!(["101", "traffic", 0]));
    assert_eq!(field(&october, "expected_bytes")[0], json!(["101", "traffic", null]));
    let day = document(&file, &["quota", "show", "101", "--at", "2026-11-20"]);
    assert_eq!(field(&day, "period")[1], json!(["101", "daily", "2026-11-20"]));
    assert_eq!(field(&day, "used_bytes")[1], json!(["101", "daily", 2_000_000]));
    let (status, _, stderr) = trafctl(&file, &["quota", "show", "--at", "yesterday"]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("--at") && stderr.contains("2026-11-01T12:00"), "{stderr}");
}

#[test]
fn a_correction_of_a_closed_month_counts() {
    let (mut file, mut node) = node();
    for _ in 0..4 {
        node.traffic("101", 1, [1, 1_000_000, 2, 2_000_000]).pass(86_400).drain(&mut file.ledger);
    }
    let november = |file: &File| {
        let shown = document(file, &["quota", "show", "101", "--at", "2026-11-30"]);
        shown["standings"][0]["used_bytes"].clone()
    };
    assert_eq!(november(&file), json!(60_000_000));
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    file.ledger
        .adjust(&AdjustmentRequest { bytes: [-500_000, -40_000_000], ..adjustment(node.wall) })
        .unwrap();
    assert_eq!(november(&file), json!(60_000_000 - 40_500_000), "the quota is no longer used up");
    assert_eq!(trafctl(&file, &["quota", "show", "101", "--at", "2026-11-30", "--over", "100%"]).0, Some(0));
}

/// The id passes to another customer: the former one keeps its figures, and has no quota.
#[test]
fn a_retired_id_starts_with_nothing() {
    let (mut file, mut node) = node();
    file.ledger.retire("101", node.wall).unwrap();
    node.traffic_in("101", 2, 1, [1, 700, 1, 80]).pass(60).drain(&mut file.ledger);
    let shown = document(&file, &["quota", "show", "101"]);
    assert_eq!(field(&shown, "used_bytes")[0], json!(["101", "traffic", 780]), "{shown:#}");
    assert_eq!(field(&shown, "expected_bytes")[0], json!(["101", "traffic", null]), "a minute is no month");
    // It was first seen on the 28th, a minute after noon.
    write(&file, &QUOTAS.replacen("\"30MB\"", "\"30MB\"\nfirst_period = \"share\"", 1));
    let shown = document(&file, &["quota", "show", "101"]);
    let since_s: u64 = 2 * 86_400 + 43_200 - 60;
    assert_eq!(
        shown["standings"][0]["limit"]["bytes"],
        json!(30_000_000 * since_s / (30 * 86_400)),
        "{shown:#}"
    );
}

#[test]
fn a_quota_is_set_and_removed_and_the_rest_of_the_file_stays() {
    let file = state_dir();
    let path = file.dir.path().join("quotas.toml");
    write(&file, &format!("# Kept by hand.\n{QUOTAS}"));
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let set =
        ["quota", "set", "traffic", "--container", "102", "--allowance", "200MB", "--thresholds", "75%,100%"];
    assert_eq!(
        trafctl(&file, &set),
        (Some(0), "quota traffic for container 102 is set\n".to_owned(), String::new())
    );
    let expected = format!("# Kept by hand.\n{QUOTAS}")
        .replace("\"100MB\"", "\"200MB\"")
        .replace("Kathmandu\"\n", "Kathmandu\"\nthresholds = [\"75%\", \"100%\"]\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(trafctl(&file, &set).1, "quota traffic for container 102 is already so\n");
    let (status, text, stderr) =
        trafctl(&file, &["quota", "set", "traffic", "--default", "--allowance", "5Gb"]);
    assert_eq!((status, text.as_str()), (Some(2), ""));
    assert!(stderr.contains("\"5Gb\" has an unknown unit"), "{stderr}");
    let (status, text, _) = trafctl(&file, &["quota", "remove", "daily", "--pattern", "10?"]);
    assert_eq!(status, Some(0));
    assert!(text.starts_with("removed:\n[[quota]]\nname = \"daily\"\n"), "{text}");
    let (status, _, stderr) = trafctl(&file, &["quota", "remove", "daily", "--pattern", "10?"]);
    assert_eq!(status, Some(2));
    assert!(stderr.contains("it has no such quota"), "{stderr}");
    assert_eq!(trafctl(&file, &["quota", "set", "traffic", "--allowance", "1GB"]).0, Some(2), "for whom?");
}

/// Whoever manages the file by a link keeps the link, and two writers lose nothing.
#[test]
fn many_writers_lose_nothing() {
    let file = state_dir();
    let (path, target) = (file.dir.path().join("quotas.toml"), file.dir.path().join("managed.toml"));
    fs::rename(&path, &target).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let writers: Vec<_> = (0..6)
        .map(|number| {
            let id = format!("20{number}");
            let set = ["quota", "set", "traffic", "--container", &id, "--allowance", "7GB"];
            command(&file, &set).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    assert!(path.is_symlink());
    let text = fs::read_to_string(&target).unwrap();
    assert!((0..6).all(|number| text.contains(&format!("container = \"20{number}\""))), "{text}");
    // A file that does not exist is created.
    fs::remove_file(&path).unwrap();
    assert_eq!(trafctl(&file, &["quota", "set", "traffic", "--default", "--unlimited"]).0, Some(0));
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "[[quota]]\nname = \"traffic\"\ndefault = true\nunlimited = true\n"
    );
}

/// The words of the lines of a text that begin with one.
fn line_of<'t>(text: &'t str, first: &str) -> Vec<&'t str> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(first));
    line.unwrap_or_else(|| panic!("no line of {first}: {text}")).split_whitespace().collect()
}

#[test]
fn a_report_says_what_the_quotas_of_its_containers_come_to() {
    let file = state_dir();
    let standings = document(&file, &["quota", "show"])["standings"].as_array().unwrap().clone();
    let of = |arguments: &[&str]| document(&file, &[&["report"], arguments].concat())["quotas"].clone();
    let limited: Vec<Value> =
        standings.iter().filter(|row| row["limit"]["kind"] != "unlimited").cloned().collect();
    assert!(limited.len() + 1 == standings.len() && limited[1]["expected_bytes"].is_u64(), "{standings:#?}");
    let all = of(&[]);
    assert_eq!(all["standings"], Value::from(limited.clone()));
    assert!(all["forecast_method"].as_str().unwrap().contains("last seven days"), "{all}");
    assert_eq!(all.get("problem"), None);
    // Steps, classes and a span until now change the report, and no quota.
    assert_eq!(of(&["--by", "day", "--class", "2", "--from", "2026-11-20", "--percentile", "95"]), all);
    let one: Vec<_> = limited.iter().filter(|row| row["container"] == "102").cloned().collect();
    assert_eq!((one.len(), of(&["--container", "102"])["standings"].clone()), (2, Value::from(one)));
    // What is over, and what is about interfaces, has nothing to be expected.
    for arguments in [&["--to", "2026-11-28"][..], &["--show", "balance"]] {
        assert_eq!(of(arguments), Value::Null, "{arguments:?}");
    }
    assert!(!trafctl(&file, &["report", "--format", "csv"]).1.contains("traffic"));

    // For people: in a pipe and on a narrow page, what runs out first is first.
    let (_, pipe, _) = trafctl(&file, &["report"]);
    let quotas = pipe.split("\nquotas in their present periods:\n").nth(1).unwrap();
    let expected = limited[3]["expected_bytes"].to_string();
    assert_eq!(limited[3]["quota"], "traffic");
    let row = quotas.lines().find(|line| line.starts_with("102 ") && line.contains(" traffic ")).unwrap();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>(),
        [
            "102",
            "traffic",
            "2026-11",
            "56000000",
            "100000000",
            "56.0",
            "%",
            &expected,
            "bytes",
            "2026-12-09",
            "-"
        ]
    );
    assert!(quotas.lines().nth(1).unwrap().starts_with("101 ") && quotas.contains(" used up "), "{quotas}");
    assert!(
        quotas.contains("\nexpected of quotas: used until the last reading, and for the rest"),
        "{quotas}"
    );
    let (_, people, _) = trafctl(&file, &["report", "--human"]);
    assert!(people.lines().all(|line| line.chars().count() <= 80), "{people}");
    let heading = people.lines().position(|line| line.contains("EXPECTED")).unwrap();
    assert!(people.lines().skip(heading).any(|line| line.starts_with("102") && line.contains("2026-12-09")));
    assert!(people.contains("trafctl quota show has everything"), "{people}");
    assert!(line_of(&people, "2026-11").contains(&"101"), "the figures are there: {people}");
}

#[test]
fn no_report_fails_because_of_quotas() {
    let file = state_dir();
    write(&file, "[[quota]]\nname = 'traffic'\n");
    let with_mistake = document(&file, &["report"]);
    assert_eq!(with_mistake["rows"].as_array().unwrap().len(), 4, "{with_mistake:#}");
    let problem = with_mistake["quotas"]["problem"].as_str().unwrap();
    assert!(problem.contains("quotas.toml:1:1: "), "{problem}");
    assert_eq!(with_mistake["quotas"]["standings"], json!([]));
    let (status, text, _) = trafctl(&file, &["report"]);
    assert!(status == Some(0) && text.contains("\nproblem: quotas are not shown: "), "{text}");
    // A directory, a file that is endless, and none.
    let path = file.dir.path().join("quotas.toml");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let problem = document(&file, &["report"])["quotas"]["problem"].to_string();
    assert!(problem.contains("cannot read the quotas"), "{problem}");
    fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    let problem = document(&file, &["report"])["quotas"]["problem"].to_string();
    assert!(problem.contains("cannot read the quotas"), "{problem}");
    fs::remove_file(&path).unwrap();
    assert_eq!(document(&file, &["report"]).get("quotas"), None);
    // With many, those of which most is expected.
    let many: String = (1..=40)
        .map(|n| format!("[[quota]]\nname = 'q{n}'\ncontainer = '101'\nallowance = '{n}GB'\n"))
        .collect();
    write(&file, &many);
    let (_, text, _) = trafctl(&file, &["report"]);
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("101 ")).collect();
    let has = |name: &str| names.iter().any(|line| line.split_whitespace().next() == Some(name));
    assert!(has("q1") && has("q20") && !has("q21"), "{text}");
    assert!(text.contains("\n20 quotas more, of which less is expected; "), "{text}");
    assert_eq!(document(&file, &["report"])["quotas"]["standings"].as_array().unwrap().len(), 40);
}
