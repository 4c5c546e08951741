//! `trafctl config`: every mistake of a file, what does not fit the node, and where each setting comes from.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use traffic_tests::Lab;

use crate::daemon::Daemon;
use crate::node::{node, stderr, trafctl};

/// The status of `config check`, mistakes as line and message, and problems.
type Checked = (Option<i32>, Vec<(u64, String)>, Vec<String>);

/// Runs `config check`.
fn check(lab: &Lab, more: &[&str]) -> Result<Checked> {
    let output = trafctl(lab, &[&["config", "check", "--format", "json"], more].concat())?;
    let document: Value = serde_json::from_slice(&output.stdout).with_context(|| stderr(&output))?;
    ensure!(document["version"] == 1, "{document:#}");
    let mistakes = document["mistakes"].as_array().context("mistakes")?.iter().map(|mistake| {
        (
            mistake["line"].as_u64().unwrap_or_default(),
            mistake["message"].as_str().unwrap_or_default().to_owned(),
        )
    });
    let problems = serde_json::from_value(document["problems"].clone())?;
    // People get the same lines.
    let text = trafctl(lab, &[&["config", "check"], more].concat())?;
    ensure!(text.status == output.status, "{text:?}");
    Ok((output.status.code(), mistakes.collect(), problems))
}

/// A configuration without a mistake has this one problem, and no other.
fn does_not_fit(lab: &Lab, configuration: &str, problem: &str) -> Result<()> {
    lab.configure(configuration)?;
    let (status, mistakes, problems) = check(lab, &[])?;
    ensure!(status == Some(1) && mistakes.is_empty(), "{problem}: {status:?} {mistakes:?}");
    ensure!(problems.len() == 1 && problems[0].contains(problem), "{problem}: {problems:#?}");
    let text = trafctl(lab, &["config", "check"])?;
    ensure!(String::from_utf8(text.stdout)?.starts_with("problem: "), "{problem}");
    Ok(())
}

#[test]
fn a_check_finds_every_mistake_and_what_does_not_fit() -> Result<()> {
    let lab = node("config-check")?;
    let class_file = format!("class_file = {:?}\n", lab.path("classes"));
    lab.configure(&class_file)?;
    assert_eq!(check(&lab, &[])?, (Some(0), Vec::new(), Vec::new()), "before anything is counted");
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    daemon.stop()?;
    assert_eq!(check(&lab, &[])?, (Some(0), Vec::new(), Vec::new()));
    let text = lab.run_ok(&["config", "check"])?;
    ensure!(text.ends_with(": no mistakes, and it fits this node\n"), "{text}");

    // All mistakes at once, also in a file that is not in force yet.
    let wrong = lab.write(
        "wrong.toml",
        "clas_file = 'x'\n[limits]\nclasses = 0\n[node]\nuplink = ['eth0']\n[drain]\ninterval = '1 parsec'\n",
    )?;
    let path = wrong.to_str().context("the path is not UTF-8")?;
    let (status, mistakes, problems) = check(&lab, &[path])?;
    let lines: Vec<u64> = mistakes.iter().map(|(line, _)| *line).collect();
    assert_eq!((status, lines, problems), (Some(2), vec![1, 3, 5, 7], Vec::new()));
    assert_eq!(mistakes[0].1, "unknown key `clas_file`; write `class_file`");
    assert_eq!(mistakes[2].1, "unknown key `uplink`; write `uplinks`");
    let text = trafctl(&lab, &["config", "check", path])?;
    ensure!(String::from_utf8(text.stdout)?.starts_with(&format!("{path}:1:1: unknown key")));
    assert_eq!(check(&lab, &[])?.0, Some(0), "the configuration in force is another file");
    for place in ["/nonexistent/trafctl.toml", "/"] {
        let (status, mistakes, problems) = check(&lab, &[place])?;
        ensure!(status == Some(2) && mistakes.is_empty() && problems.len() == 1, "{place}: {problems:?}");
    }

    let owners = "[[container]]\nid = '101'\naddresses = ['10.3.0.1']\n[[container]]\nid = '102'\n\
                  addresses = ['10.3.0.1']\n";
    for (more, problem) in [
        (owners, "10.3.0.1"),
        ("[node]\nuplinks = ['lo', 'eth9']\n", "no interface is called eth9; correct the name"),
        ("[limits]\ncontainers = 10\n", "[limits] has containers = 10 (2048 in force)"),
        ("[ledger]\ntime_zone = 'Europe/Berlin'\n", "but the ledger was created with \"UTC\" and 1"),
        ("[ledger]\nbilling_day = 15\n", "billing_day = 15, but the ledger was created with"),
        ("[identities]\ncommand = ['/etc/passwd']\n", "/etc/passwd cannot be run: it is no program"),
        ("[identities]\ncommand = ['/nonexistent/x', 'y']\n", "/nonexistent/x cannot be run: No such file"),
        ("[mark]\nenabled = false\n", "[mark] in the configuration is the former name of [shaping]"),
    ] {
        does_not_fit(&lab, &format!("{class_file}{more}"), problem)?;
    }
    does_not_fit(&lab, "class_file = '/nonexistent/classes'\n", "/nonexistent/classes")?;
    let cut = lab.write("cut", "1 0.0.0.0/0\n2 10.100.0.0/1")?;
    does_not_fit(&lab, &format!("class_file = {cut:?}\n"), "is held: it looks cut short")
}

#[test]
fn every_setting_is_shown_with_the_line_that_sets_it() -> Result<()> {
    let lab = node("config-show")?;
    let good = format!("class_file = {:?}\n# more\n[limits]\nclasses = 20\n", lab.path("classes"));
    lab.configure(&good)?;
    let show = || {
        let output = trafctl(&lab, &["config", "show", "--format", "json"])?;
        let document: Value = serde_json::from_slice(&output.stdout)?;
        anyhow::Ok((output.status.code(), document))
    };
    let of = |document: &Value, key: &str| {
        let settings = document["settings"].as_array().into_iter().flatten();
        settings.filter(|setting| setting["key"] == key).cloned().collect::<Vec<_>>()
    };
    let (status, shown) = show()?;
    assert_eq!((status, &shown["version"], &shown["source"]), (Some(0), &json!(1), &json!("file")));
    let from =
        |kind: &str, file: &std::path::Path, line: u64| json!({"kind": kind, "file": file, "line": line});
    assert_eq!(
        of(&shown, "limits.classes"),
        [json!({"key": "limits.classes", "value": 20, "from": from("file", &lab.config(), 4)})]
    );
    assert_eq!(
        of(&shown, "limits.containers"),
        [json!({"key": "limits.containers", "value": 2048, "from": {"kind": "default"}})]
    );
    let text = lab.run_ok(&["config", "show"])?;
    let line = format!("{}:4", lab.config().display());
    ensure!(text.lines().any(|row| row.starts_with("limits.classes ") && row.ends_with(&line)), "{text}");
    ensure!(text.lines().any(|row| row.starts_with("class_order ") && row.ends_with(" default")), "{text}");

    // A mistake after the configuration was in force: the copy counts, with its own lines.
    lab.run_ok(&["attach"])?;
    lab.configure("limts = 1\n")?;
    let (status, shown) = show()?;
    assert_eq!((status, &shown["source"]), (Some(1), &json!("last-good")));
    ensure!(
        shown["mistake"].as_str().is_some_and(|mistake| mistake.contains(":1:1: unknown field")),
        "{shown:#}"
    );
    let copy = lab.state_dir().join("last-good.toml");
    assert_eq!(of(&shown, "limits.classes")[0]["from"], from("last-good", &copy, 5));
    ensure!(fs::read_to_string(&copy)?.lines().nth(4) == Some("classes = 20"));
    // Without a copy, the defaults are shown.
    fs::remove_file(&copy)?;
    let (status, shown) = show()?;
    assert_eq!((status, &shown["source"]), (Some(1), &json!("default")));
    assert_eq!(of(&shown, "limits.classes")[0]["value"], 16);
    Ok(())
}
