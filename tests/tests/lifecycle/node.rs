//! What these tests share: a node with two containers, and queries to the program and the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
pub use traffic_tests::check::{
    PATIENCE, agrees_with_kernel, eventually, hooks, is_well, is_well_but, output, problems, stderr, trafctl,
};
use traffic_tests::container::introduce;
use traffic_tests::process::run_ok;
use traffic_tests::{Amounts, Container, Lab};

/// Everything is in class 1 except the containers of [`pair`], which are in class 2.
pub const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n2 10.1.0.0/16\n2 fd00:1::/32\n";

/// A node whose class file is [`CLASSES`].
pub fn node(name: &str) -> Result<Lab> {
    let lab = Lab::new(name)?;
    let classes = lab.write("classes", CLASSES)?;
    lab.configure(&format!("class_file = \"{}\"\n", classes.display()))?;
    Ok(lab)
}

/// Containers 101 and 102 on the bridge. They know each other.
pub fn pair(lab: &Lab) -> Result<(Container, Container)> {
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    Ok((a, b))
}

/// An address with port 0, for which the kernel chooses one.
pub fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}

/// Checks that a command failed with status 1 and one message in one line. Returns the message.
pub fn refused(output: &Output) -> Result<String> {
    let stderr = stderr(output);
    ensure!(output.status.code() == Some(1), "{} instead of status 1: {stderr}", output.status);
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("trafctl: ")).collect();
    ensure!(errors.len() == 1, "{} messages instead of one: {stderr}", errors.len());
    ensure!(!stderr.contains("panicked") && !stderr.contains("ERROR"), "{stderr}");
    Ok(errors[0].to_owned())
}

/// Ids of the pinned links by the name of their pin, read from the kernel.
pub fn links(lab: &Lab) -> Result<BTreeMap<String, u64>> {
    let mut ids = BTreeMap::new();
    for name in pins(lab)? {
        let path = lab.bpffs().join("links").join(&name);
        let text = run_ok(Command::new("bpftool").args(["-j", "link", "show", "pinned"]).arg(path))?;
        let link: Value = serde_json::from_str(&text)?;
        ids.insert(name, link["id"].as_u64().with_context(|| format!("no id in {text}"))?);
    }
    Ok(ids)
}

/// Names of the pinned links, sorted.
pub fn pins(lab: &Lab) -> Result<Vec<String>> {
    let entries = fs::read_dir(lab.bpffs().join("links"))?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<String>>>()?;
    names.sort();
    Ok(names)
}

/// All files below a directory, to check that nothing is left or changed. Excludes those that every BPF file
/// system has.
pub fn files(directory: &Path) -> Result<Vec<String>> {
    let text = run_ok(Command::new("find").arg(directory).args(["-type", "f", "-printf", "%P\\n"]))?;
    let mut files: Vec<String> = text
        .lines()
        .filter(|name| !["maps.debug", "progs.debug"].contains(name))
        .map(str::to_owned)
        .collect();
    files.sort();
    Ok(files)
}

/// What the container of the client sent and received over a connection, according to both ends.
pub fn exchanged(count: &traffic_tests::traffic::TcpCount) -> Amounts {
    Amounts::both(
        (count.server.segments, count.server.l3_bytes),
        (count.client.segments, count.client.l3_bytes),
    )
}

/// What the container of the server sent and received over it.
pub fn exchanged_by_server(count: &traffic_tests::traffic::TcpCount) -> Amounts {
    Amounts::both(
        (count.client.segments, count.client.l3_bytes),
        (count.server.segments, count.server.l3_bytes),
    )
}
