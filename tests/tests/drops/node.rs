//! A node with two bridged containers in classes of their own, and the comparison of a transfer with what
//! `trafctl dump --drops` shows.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use traffic_tests::check::eventually;
use traffic_tests::process::run_ok;
use traffic_tests::traffic::UdpCount;
use traffic_tests::{Container, Daemon, Lab, container};

/// The class of a packet is that of its peer.
pub const CLASSES: &str =
    "1 10.1.0.0/16\n1 fd00:1::/32\n2 10.2.0.0/16\n2 fd00:2::/32\n3 10.3.0.0/16\n3 fd00:3::/32\n";

/// A datagram's payload in bytes: no multiple of anything.
pub const PAYLOAD: usize = 707;

/// Packets and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub packets: u64,
    pub bytes: u64,
}

impl Amount {
    pub const fn less(self, other: Self) -> Self {
        Self { packets: self.packets - other.packets, bytes: self.bytes - other.bytes }
    }
}

/// What a sender counted.
pub const fn sent(count: &UdpCount) -> Amount {
    Amount { packets: count.packets, bytes: count.l3_bytes }
}

/// What the receiver's socket got, with the headers.
pub const fn received(count: &UdpCount, address: IpAddr) -> Amount {
    let header = if address.is_ipv4() { 28 } else { 48 };
    Amount {
        packets: count.packets_received,
        bytes: count.payload_bytes_received + count.packets_received * header,
    }
}

/// A node with a class file. `more` is added to its configuration.
pub fn node(name: &str, more: &str) -> Result<Lab> {
    let lab = Lab::new(name)?;
    let classes = lab.write("classes", CLASSES)?;
    lab.configure(&format!("class_file = {classes:?}\n{more}"))?;
    Ok(lab)
}

/// Containers 101 and 102, which know each other, with offloads off.
pub fn bridged(lab: &Lab) -> Result<[Container; 2]> {
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 2, 0, 1].into(), "fd00:2::1".parse()?)?;
    container::introduce(&[&a, &b])?;
    for one in [&a, &b] {
        one.offload(false)?;
    }
    lab.run_ok(&["attach"])?;
    load_program(lab)?;
    Ok([a, b])
}

/// Has the daemon load the drop program, which stays after the daemon's end.
pub fn load_program(lab: &Lab) -> Result<()> {
    let daemon = Daemon::start(lab)?;
    eventually("the daemon loads the drop program", || counts(lab))?;
    daemon.stop()
}

/// Whether drops are counted, for all that is counted now.
pub fn counts(lab: &Lab) -> Result<bool> {
    let status = lab.run_json(&["status", "--format", "json"])?;
    let drops = &status["drops"];
    ensure!(drops["in_force"] != true || drops["loading"] == false, "{drops}");
    Ok(drops["in_force"] == true && drops["reason"].is_null())
}

/// A command in the node's namespace, such as `tc`.
pub fn host(lab: &Lab, command: &str) -> Result<String> {
    let mut words = command.split_whitespace();
    let program = words.next().context("no command")?;
    run_ok(lab.host().command(program).args(words))
}

/// An nft ruleset in the node's namespace.
pub fn nft(lab: &Lab, rules: &str) -> Result<String> {
    traffic_tests::process::run_with_input(lab.host().command("nft").args(["-f", "-"]), rules)
}

pub const fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}

pub const fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}

/// All figures of drops.
pub fn dump(lab: &Lab) -> Result<Value> {
    lab.run_json(&["dump", "--drops", "--all", "--format", "json"])
}

/// A line of figures: container, class, address and direction.
pub type Line = (&'static str, u8, IpAddr, &'static str);

/// A figure of a line: `counted`, `dropped` or `delivered`. Zero where there is no such line.
pub fn figure(dump: &Value, line: Line, what: &str) -> Amount {
    let (container, class, address, direction) = line;
    let row = rows(dump).find(|row| {
        row["container"] == container && row["class"] == class && row["family"] == family(address)
    });
    row.map_or_else(Amount::default, |row| amount(&row[what], direction))
}

fn rows(dump: &Value) -> impl Iterator<Item = &Value> {
    dump["drops"].as_array().into_iter().flatten()
}

fn amount(value: &Value, direction: &str) -> Amount {
    let of = |unit: &str| value[format!("{direction}_{unit}")].as_u64().unwrap_or_default();
    Amount { packets: of("packets"), bytes: of("bytes") }
}

/// What was dropped for one reason, in one direction, over all containers and classes.
pub fn by_reason(dump: &Value, direction: &str, reason: &str) -> Amount {
    rows(dump)
        .flat_map(|row| row["reasons"].as_array().into_iter().flatten())
        .filter(|row| row["reason"] == reason)
        .map(|row| amount(row, direction))
        .fold(Amount::default(), |sum, one| Amount {
            packets: sum.packets + one.packets,
            bytes: sum.bytes + one.bytes,
        })
}

/// Everything that was dropped in one direction.
pub fn all_dropped(dump: &Value, direction: &str) -> Amount {
    rows(dump).map(|row| amount(&row["dropped"], direction)).fold(Amount::default(), |sum, one| Amount {
        packets: sum.packets + one.packets,
        bytes: sum.bytes + one.bytes,
    })
}

/// Waits until a line has counted this much, and less what was dropped it is what was delivered. Nothing is in a
/// queue then. Fails at once where more was dropped than lost.
pub fn settles(lab: &Lab, line: Line, counted: Amount, delivered: Amount) -> Result<()> {
    let mut last = Value::Null;
    let settled = eventually("counted = dropped + delivered", || {
        last = dump(lab)?;
        let dropped = figure(&last, line, "dropped");
        ensure!(
            dropped.packets <= counted.packets - delivered.packets,
            "{line:?}: {dropped:?} dropped of {counted:?}, and {delivered:?} delivered: {last:#}"
        );
        Ok(figure(&last, line, "counted") == counted && dropped == counted.less(delivered))
    });
    settled.with_context(|| format!("{line:?}: {counted:?} counted, {delivered:?} delivered: {last:#}"))?;
    ensure!(figure(&last, line, "delivered") == delivered, "{line:?}: {last:#}");
    Ok(())
}

/// Nothing was left without an owner.
pub fn all_attributed(dump: &Value) -> Result<()> {
    let faults = dump["not_attributed"].as_array().context("no faults")?;
    ensure!(!faults.is_empty() && faults.iter().all(|fault| fault["packets"] == 0), "{faults:#?}");
    Ok(())
}

/// A chain with one rule.
pub fn chain(family: &str, hook: &str, rule: &str) -> String {
    format!("table {family} t {{\n chain c {{\n type filter hook {hook} priority 0;\n {rule}\n }}\n}}\n")
}
