//! The rules and alerts of `contrib/prometheus`, by promtool.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use traffic_tests::process::run_ok;
use traffic_tests::prometheus::promtool;

const FILES: [&str; 2] = ["trafctl.rules.yml", "trafctl.alerts.yml"];
const CASES: &str = "trafctl.alerts.test.yml";

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../contrib/prometheus")
}

fn in_directory(arguments: &[&str]) -> Command {
    let mut command = promtool();
    command.current_dir(directory()).args(arguments);
    command
}

/// What follows a word on its lines.
fn after<'t>(text: &'t str, word: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix(word)).collect()
}

#[test]
fn promtool_takes_the_configuration_and_the_rules() -> Result<()> {
    run_ok(&mut in_directory(&["check", "config", "prometheus.yml"]))?;
    for file in FILES {
        run_ok(&mut in_directory(&["check", "rules", "--lint-fatal", file]))?;
    }
    Ok(())
}

#[test]
fn every_alert_fires_in_its_case_and_only_there() -> Result<()> {
    run_ok(&mut in_directory(&["test", "rules", CASES]))?;
    let [rules, alerts, cases] =
        [FILES[0], FILES[1], CASES].map(|file| fs::read_to_string(directory().join(file)));
    let (rules, alerts, cases) = (rules?, alerts?, cases?);
    let (with_cases, documented) = (after(&cases, "alertname: "), documented()?);
    for alert in after(&alerts, "alert: ") {
        ensure!(with_cases.contains(&alert), "{alert} has no case");
        ensure!(documented.contains(&format!("| `{alert}` |")), "docs/monitoring.md does not have {alert}");
        // A case whose rule is broken fails.
        let broken = alerts.replace(&format!("alert: {alert}\n"), &format!("alert: {alert}Not\n"));
        let other = tempfile::tempdir()?;
        for (file, text) in [(FILES[0], &rules), (FILES[1], &broken), (CASES, &cases)] {
            fs::write(other.path().join(file), text)?;
        }
        let output = promtool().current_dir(other.path()).args(["test", "rules", CASES]).output()?;
        ensure!(!output.status.success(), "the cases do not notice that {alert} is missing");
    }
    Ok(())
}

fn documented() -> Result<String> {
    let path = directory().join("../../docs/monitoring.md");
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}
