//! `trafctl report` as a command: what a pipe gets, what people get, and pictures.
#![expect(clippy::unwrap_used, reason = "a test; clippy does not count helpers as such")]

use std::{fs, process::Command};

use traffic_ledger::testing::{File, NOON, Node, ledger};

/// A state directory with a ledger of 40 days from 10 November 2026.
fn state_dir() -> File {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for _ in 0..40 {
        node.traffic("101", 1, [1, 1_000_000, 2, 2_000_000]).pass(86_400).drain(&mut file.ledger);
    }
    fs::write(file.dir.path().join("trafctl.toml"), "").unwrap();
    file
}

fn trafctl(file: &File, arguments: &[&str]) -> (Option<i32>, Vec<u8>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_trafctl"))
        .arg("report")
        .args(arguments)
        .env("TRAFCTL_CONFIG", file.dir.path().join("trafctl.toml"))
        .env("TRAFCTL_STATE_DIR", file.dir.path())
        .output()
        .unwrap();
    (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
}

fn text(file: &File, arguments: &[&str]) -> String {
    let (status, stdout, stderr) = trafctl(file, arguments);
    assert_eq!((status, stderr.as_str()), (Some(0), ""), "{arguments:?}");
    String::from_utf8(stdout).unwrap()
}

#[test]
fn without_options_a_table_has_two_months_and_programs_get_everything() {
    let file = state_dir();
    let table = text(&file, &[]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("PERIOD   CONTAINER  IN PACKETS"), "{table}");
    assert!(lines[1].starts_with("2026-11  101 ") && lines[2].starts_with("2026-12  101 "), "{table}");
    // Exact, and without any sum between the rows.
    assert!(lines[1].contains(" 20000000 ") && lines[3].is_empty(), "{table}");
    let json: serde_json::Value = serde_json::from_str(&text(&file, &["--format", "json"])).unwrap();
    assert_eq!((&json["by"], &json["rows"][0]["total"]["bytes"]), (&"total".into(), &120_000_000.into()));
    assert!(text(&file, &["--format", "csv"]).lines().nth(1).unwrap().starts_with("total,"));
    assert!(text(&file, &["--from", "2026-11-01"]).lines().nth(1).unwrap().starts_with("total "));
    assert!(text(&file, &["--by", "year"]).lines().nth(1).unwrap().starts_with("2026 "));
    assert!(text(&file, &["--show", "balance"]).lines().nth(1).unwrap().starts_with("total "));
}

#[test]
fn people_get_units_also_in_a_pipe_that_asks() {
    let file = state_dir();
    let shown = text(&file, &["--human"]);
    assert!(shown.contains("estimate") && shown.contains("60.0 MB"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    let bars = text(&file, &["--plot", "--by", "week"]);
    assert!(bars.contains("2026-W47") && bars.contains('\u{2588}'), "{bars}");
}

#[test]
fn pictures_go_to_files_and_to_standard_output() {
    let file = state_dir();
    let path = file.dir.path().join("a.png");
    let name = path.to_str().unwrap();
    assert_eq!(text(&file, &["--png", name]), "");
    let written = fs::read(&path).unwrap();
    let (status, printed, _) = trafctl(&file, &["--png", "-"]);
    assert_eq!((status, &printed), (Some(0), &written));
    let (_, dark, _) = trafctl(&file, &["--png", "-", "--theme", "dark"]);
    assert_ne!(dark, written);
    assert!(text(&file, &["--svg", "-", "--by", "total"]).starts_with("<svg "));
    let nowhere = file.dir.path().join("none/a.svg");
    let (status, _, stderr) = trafctl(&file, &["--svg", nowhere.to_str().unwrap()]);
    assert_eq!(status, Some(1));
    assert!(stderr.starts_with("trafctl: cannot write ") && stderr.contains("none/a.svg"), "{stderr}");
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    let file = state_dir();
    for arguments in [
        &["--plot", "--format", "json"][..],
        &["--plot", "--show", "faults"],
        &["--svg", "-", "--plot"],
        &["--human", "--bytes"],
        &["--by", "fortnight"],
        &["--theme", "blue"],
    ] {
        let (status, stdout, stderr) = trafctl(&file, arguments);
        assert_eq!((status, stdout.len()), (Some(2), 0), "{arguments:?}: {stderr}");
    }
}
