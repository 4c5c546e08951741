//! Containers whose interfaces have names that say nothing: whose they are, comes from the platforms.
//!
//! - `cgroups`: the kernel's part, with cgroups and processes as the platforms make them.
//! - `devices`: devices in containers that have no end on the host.
//! - `names`: names of containers in commands, in `status` and in the ledger.
//! - `podman`: real containers and a pod.
//! - `switch`: Open vSwitch.

mod cgroups;
mod devices;
mod names;
mod podman;
mod switch;

use anyhow::{Context, Result};
use serde_json::Value;
use traffic_tests::Lab;
use traffic_tests::check::{hooks, stderr, trafctl};

/// Everything is in class 1.
const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n";

/// A node without any setting but its classes.
fn node(name: &str) -> Result<Lab> {
    let lab = Lab::new(name)?;
    let classes = lab.write("classes", CLASSES)?;
    lab.configure(&format!("class_file = {classes:?}\n"))?;
    Ok(lab)
}

/// What `trafctl host` reports, whatever its exit status.
fn host(lab: &Lab) -> Result<Value> {
    let output = trafctl(lab, &["host", "--format", "json"])?;
    serde_json::from_slice(&output.stdout).with_context(|| stderr(&output))
}

/// The container of an interface, as `trafctl host` reports it.
fn owner(lab: &Lab, interface: &str) -> Result<Option<String>> {
    let report = host(lab)?;
    let all = report["interfaces"].as_array().context("interfaces")?;
    let found = all.iter().find(|row| row["interface"] == interface);
    Ok(found.and_then(|row| row["container"].as_str()).map(str::to_owned))
}

/// Whether both hooks of an interface have a program. Its name may be that of an earlier one.
fn is_attached(lab: &Lab, interface: &str) -> Result<bool> {
    Ok(hooks(lab, interface)?.len() == 2)
}
