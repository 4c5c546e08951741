//! The part of the store with a few containers, in both kinds of stores. It checks that all rows arrive and that the
//! report has every byte. Times are ignored.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context as _, Result};
use traffic_tests::{lab::trafctl_program, process::run_ok};

#[test]
fn a_few_containers_are_shipped_and_reported() -> Result<()> {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_traffic-bench"));
    bench.env("TRAFCTL_BIN", trafctl_program()?);
    bench.args(["--part=fleet", "--rounds=1", "--scale=tiny", "--format=json"]);
    let value: serde_json::Value = serde_json::from_str(&run_ok(&mut bench)?)?;
    let mut found = BTreeSet::new();
    for series in value["series"].as_array().context("the series")? {
        let text = |name: &str| series[name].as_str().unwrap_or_default().to_owned();
        found.insert((text("part"), text("variant")));
        let figure = series["rounds"][0].as_f64().context("a figure")?;
        assert!(figure >= 0.0, "{series}");
    }
    for part in
        ["fleet", "fleet, CPU of the shipper", "fleet, memory of the shipper", "fleet, size", "fleet, drains"]
    {
        for kind in ["ClickHouse", "PostgreSQL"] {
            assert!(found.contains(&(part.to_owned(), kind.to_owned())), "{part}, {kind}: {found:?}");
        }
    }
    let bars = value["bars"].as_array().context("the bars")?;
    assert!(bars.iter().any(|bar| bar["name"] == "a row in ClickHouse after merging, bytes"), "{bars:?}");
    Ok(())
}
