//! The first part of the benchmark on a tiny table. Each variant is loaded and run, and the benchmark checks
//! the counts of each run. Times are ignored.

use std::process::Command;

use anyhow::{Context as _, Result};
use traffic_tests::{lab::trafctl_program, process::run_ok};

#[test]
fn every_variant_counts_exactly() -> Result<()> {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_traffic-bench"));
    bench.env("TRAFCTL_BIN", trafctl_program()?);
    bench.args(["--part=program", "--rounds=1", "--sizes=300", "--repeat=500", "--format=json"]);
    let value: serde_json::Value = serde_json::from_str(&run_ok(&mut bench)?)?;
    let series = value["series"].as_array().context("the series")?;
    let mut seen: Vec<_> = series
        .iter()
        .map(|series| {
            format!("{} {}", series["case"].as_str().unwrap_or(""), series["variant"].as_str().unwrap_or(""))
        })
        .collect();
    let mut expected = Vec::new();
    for family in ["ipv4", "ipv6"] {
        for peers in ["hot", "zipf", "uniform"] {
            for variant in ["null", "generator", "floor", "trafctl", "trie", "floor by hash", "linear"] {
                expected.push(format!("{family}/300/{peers} {variant}"));
            }
        }
    }
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
    assert!(series.iter().all(|series| series["rounds"].as_array().is_some_and(|rounds| rounds.len() == 1)));
    Ok(())
}
