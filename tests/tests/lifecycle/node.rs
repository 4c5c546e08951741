//! What these tests share: a node with two containers, and questions to the program and to the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::Value;
use traffic_tests::container::introduce;
use traffic_tests::process::run_ok;
use traffic_tests::witness::InterfaceStatistics;
use traffic_tests::{Amounts, Container, Counters, Lab};

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Everything in class 1 but what the containers of [`pair`] have, which is class 2.
pub const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n2 10.1.0.0/16\n2 fd00:1::/32\n";

/// A node whose class file is [`CLASSES`].
pub fn node(name: &str) -> Result<Lab> {
    let lab = Lab::new(name)?;
    let classes = lab.write("classes", CLASSES)?;
    lab.configure(&format!("class_file = \"{}\"\n", classes.display()))?;
    Ok(lab)
}

/// Containers 101 and 102 on the bridge, known to each other.
pub fn pair(lab: &Lab) -> Result<(Container, Container)> {
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    Ok((a, b))
}

/// An address with a port of the kernel's choice.
pub fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}

/// Runs a command to its end, whatever that is.
pub fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))
}

/// Runs `trafctl` to its end, whatever that is.
pub fn trafctl(lab: &Lab, arguments: &[&str]) -> Result<Output> {
    output(&mut lab.trafctl(arguments)?)
}

/// What a command said on stderr.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks that a command refused: status 1, and one message in one line, which is given.
pub fn refused(output: &Output) -> Result<String> {
    let said = said(output);
    ensure!(output.status.code() == Some(1), "{} and not status 1: {said}", output.status);
    let errors: Vec<&str> = said.lines().filter(|line| line.trim_start().starts_with("ERROR")).collect();
    ensure!(errors.len() == 1, "not one message but {}: {said}", errors.len());
    ensure!(!said.contains("panicked"), "{said}");
    Ok(errors[0].to_owned())
}

/// What `trafctl status` says is wrong; it must say so with its exit status too.
pub fn problems(lab: &Lab) -> Result<Vec<String>> {
    let output = trafctl(lab, &["status", "--format", "json"])?;
    let status: Value = serde_json::from_slice(&output.stdout).with_context(|| said(&output))?;
    let problems: Vec<String> = serde_json::from_value(status["problems"].clone())?;
    let expected = i32::from(!problems.is_empty());
    ensure!(output.status.code() == Some(expected), "{} with the problems {problems:?}", output.status);
    Ok(problems)
}

/// Checks that `trafctl status` finds nothing wrong.
pub fn is_well(lab: &Lab) -> Result<()> {
    let problems = problems(lab)?;
    ensure!(problems.is_empty(), "{problems:#?}");
    Ok(())
}

/// Ids of the pinned links by the name of their pin, as the kernel gives them.
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

/// All files below a directory, to see that nothing has been left or touched; those not that every BPF file system has.
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

/// Names of the programs on an interface's TCX hooks, to the container first, as the kernel lists them.
pub fn hooks(lab: &Lab, interface: &str) -> Result<Vec<String>> {
    let interface = interface.to_owned();
    lab.host().enter(move || {
        let mut names = Vec::new();
        for hook in [TcAttachType::Egress, TcAttachType::Ingress] {
            let (_revision, programs) = SchedClassifier::query_tcx(&interface, hook)?;
            names.extend(programs.iter().map(|program| program.name_as_str().unwrap_or_default().to_owned()));
        }
        Ok(names)
    })
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        if Instant::now() > deadline {
            bail!("{what}: not after {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Checks an interface against the kernel's own statistics of it since it was made: a buffer was either counted or is
/// in the gap that is written down.
pub fn agrees_with_kernel(lab: &Lab, counters: &Counters, interface: &str) -> Result<()> {
    let row = counters.interface(interface);
    let kernel = InterfaceStatistics::read(lab.host(), interface)?;
    // The host receives what the container sends.
    let expected = [kernel.tx_packets, kernel.tx_bytes, kernel.rx_packets, kernel.rx_bytes];
    let ours = [
        row.in_skbs + row.in_unseen_skbs,
        row.in_skb_bytes + row.in_unseen_skb_bytes,
        row.out_skbs + row.out_unseen_skbs,
        row.out_skb_bytes + row.out_unseen_skb_bytes,
    ];
    ensure!(ours == expected, "{interface}: {ours:?}, and by the kernel {expected:?}: {row:?}");
    Ok(())
}

/// What the client's container sent and received over a connection, as both ends say.
pub fn exchanged(count: &traffic_tests::traffic::TcpCount) -> Amounts {
    Amounts::both(
        (count.server.segments, count.server.l3_bytes),
        (count.client.segments, count.client.l3_bytes),
    )
}

/// What the server's container sent and received over it.
pub fn exchanged_by_server(count: &traffic_tests::traffic::TcpCount) -> Amounts {
    Amounts::both(
        (count.client.segments, count.client.l3_bytes),
        (count.server.segments, count.server.l3_bytes),
    )
}
