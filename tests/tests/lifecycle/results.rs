//! What commands print on stdout: `attach` and `detach`, `status`, and the error for an unknown container.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::node::{node, pair, refused, stderr, trafctl};

#[test]
fn an_unknown_container_is_an_error_and_an_idle_one_is_not() -> Result<()> {
    let lab = node("unknown")?;
    let _pair = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let sentence = "trafctl: no container 777 is known: it has no counters, no interface on this node and \
                    no entry in the configuration; ";
    let commands: [&[&str]; 4] =
        [&["dump"], &["dump", "--format", "json"], &["dump", "--format", "csv"], &["top", "--times", "1"]];
    for command in commands {
        let run = |id: &str| trafctl(&lab, &[command, &["--container", id]].concat());
        let unknown = run("777")?;
        ensure!(refused(&unknown)?.starts_with(sentence), "{command:?}: {}", stderr(&unknown));
        ensure!(unknown.stdout.is_empty(), "{command:?}");
        ensure!(run("101")?.status.success(), "{command:?}: 101 has no traffic yet");
        ensure!(run("0")?.status.success(), "{command:?}: the node itself");
    }
    // An interface that is not attached yet, and an address, make an id known.
    let _third = lab.bridged(103, 0, [10, 1, 0, 3].into(), "fd00:1::3".parse()?)?;
    lab.run_ok(&["dump", "--container", "103"])?;
    lab.run_ok(&["address", "add", "104", "10.1.0.4"])?;
    lab.run_ok(&["dump", "--container", "104"])?;
    // One unknown id among known ones is an error too.
    refused(&trafctl(&lab, &["dump", "--container", "101", "--container", "777"])?)?;
    Ok(())
}

#[test]
fn attach_prints_what_changed_and_detach_what_it_removed() -> Result<()> {
    let lab = node("results")?;
    let _pair = pair(&lab)?;
    let first = trafctl(&lab, &["attach"])?;
    let text = String::from_utf8(first.stdout)?;
    ensure!(text.starts_with("program loaded, counters created\nINTERFACE  CONTAINER  CHANGE\n"), "{text}");
    ensure!(text.contains("\nveth102.0  102        attached\n"), "{text}");
    // In a cron job, every line would be a mail.
    let again = trafctl(&lab, &["attach"])?;
    ensure!(again.status.success() && again.stdout.is_empty() && again.stderr.is_empty(), "{again:?}");
    let document = lab.run_json(&["attach", "veth101.0", "--format", "json"])?;
    assert_eq!(document["version"], 1);
    assert_eq!(document["program"], "found");
    let interface = serde_json::json!({ "interface": "veth101.0", "container": "101", "change": "kept" });
    assert_eq!(document["interfaces"], serde_json::json!([interface]));

    assert_eq!(lab.run_ok(&["detach", "veth101.0"])?, "veth101.0: detached, counters kept\n");
    let document = lab.run_json(&["detach", "--purge", "--yes", "--format", "json"])?;
    assert_eq!(document["detached"], serde_json::json!(["veth102.0"]));
    assert_eq!(document["purged"]["containers"], 2);
    assert_eq!(document["version"], 1);
    Ok(())
}

#[test]
fn status_counts_owned_slots_and_compares_the_class_file_with_the_table() -> Result<()> {
    let lab = node("status")?;
    let _pair = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let status = || lab.run_json(&["status", "--format", "json"]);
    let first = status()?;
    for (at, table) in ["containers", "interfaces"].iter().enumerate() {
        assert_eq!(first["tables"][at]["table"], *table);
        assert_eq!(first["tables"][at]["used"], 2, "{first:#}");
    }
    assert_eq!(first["version"], 1);
    let difference = || anyhow::Ok(status()?["class_table"]["difference"].clone());
    assert_eq!(difference()?, Value::Null);
    ensure!(!lab.run_ok(&["status"])?.contains("table in force"));

    let other = lab.write("other", "1 0.0.0.0/0\n")?;
    lab.run_ok(&["classes", "load", "--yes", other.to_str().context("a path")?])?;
    let other = std::fs::canonicalize(other)?;
    assert_eq!(difference()?["loaded_from"], Value::from(other.to_str()));
    let sentence = format!("the class table in force was loaded from {}, not from ", other.display());
    ensure!(lab.run_ok(&["status"])?.contains(&sentence));
    lab.write("classes", "1 nonsense\n")?;
    let unusable = lab.trafctl(&["status", "--format", "json"])?.output()?;
    assert_eq!(unusable.status.code(), Some(1), "a file that cannot be used is a problem");
    let unusable: Value = serde_json::from_slice(&unusable.stdout)?;
    ensure!(unusable["class_table"]["difference"]["refused"].is_string(), "{unusable:#}");
    lab.write("classes", crate::node::CLASSES)?;
    lab.run_ok(&["classes", "load"])?;
    assert_eq!(difference()?, Value::Null);
    Ok(())
}
