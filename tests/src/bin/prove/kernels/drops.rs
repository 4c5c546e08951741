//! What the kernel drops behind the hooks: a rule of nft and a shaper, against what arrived.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use traffic_tests::check::eventually;
use traffic_tests::process::{run_ok, run_with_input};
use traffic_tests::traffic::{UdpCount, udp_send};
use traffic_tests::witness::{Side, WireWitness};
use traffic_tests::{Container, Daemon, Lab, Resync};

use crate::evidence::Row;

/// The module besides those of the scenario.
pub const MODULE: &str = "sch_tbf";

/// How long the daemon may take to load the drop program: emulated, the verifier is a hundred times slower.
const LOADING: Duration = Duration::from_mins(6);

/// A datagram's payload in bytes.
const PAYLOAD: usize = 707;

/// Has the daemon load the program, which stays.
pub fn load(lab: &Lab) -> Result<Row> {
    let daemon = Daemon::start_with(lab, Resync::AsShipped)?;
    let deadline = Instant::now() + LOADING;
    let drops = loop {
        let drops = lab.run_json(&["status", "--format", "json"])?["drops"].take();
        if drops["in_force"] == true {
            break drops;
        }
        ensure!(drops["loading"] == true && Instant::now() < deadline, "drops are not counted: {drops}");
        std::thread::sleep(Duration::from_millis(500));
    };
    daemon.stop()?;
    let links = std::fs::read_dir(lab.bpffs().join("drops"))?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().starts_with("link-")))
        .filter(|is_link| *is_link)
        .count();
    let lacks = drops["lacks"].as_array().map_or(0, Vec::len);
    let mut row = Row::new("loads the drop program", "nothing", "the pinned link; what `status` states")
        .fact("one link is pinned", links == 1);
    if lacks > 0 {
        row = row.fact(&format!("{lacks} lacks of this kernel are stated"), true);
    }
    Ok(row)
}

/// A rule on the ingress hook of netfilter, which comes after that of tc.
pub fn by_rule(lab: &Lab, ours: &Container, peer: &Container) -> Result<Row> {
    let rules = format!(
        "table netdev drops {{\n chain c {{\n type filter hook ingress device \"{}\" priority 0;\n \
         meta l4proto udp drop\n }}\n}}\n",
        ours.interface()
    );
    run_with_input(lab.host().command("nft").args(["-f", "-"]), &rules)?;
    let mut row = Row::new("drops: a rule of nft", "150 datagrams each of IPv4 and IPv6", "the sender");
    for to in [peer.v4(), peer.v6()] {
        let before = Figures::read(lab, to, "out")?;
        let sent = udp_send(ours.namespace(), peer.namespace(), SocketAddr::new(to, 0), 150, PAYLOAD)?;
        ensure!(sent.packets_received == 0, "the rule let pass what it should drop: {sent:?}");
        row = Figures::settle(lab, to, "out", (before, sent.packets))?.row(row, to, (&sent, 0));
    }
    run_ok(lab.host().command("nft").args(["delete", "table", "netdev", "drops"]))?;
    row = row.fact("in a group that this kernel's reasons allow", groups(lab)?.contains_only("firewall"));
    Ok(row)
}

/// A shaper that has room for few of them.
pub fn by_shaper(lab: &Lab, ours: &Container, peer: &Container) -> Result<Row> {
    let tc = |words: &str| run_ok(lab.host().command("tc").args(words.split_whitespace()));
    let interface = ours.interface();
    tc(&format!("qdisc add dev {interface} root tbf rate 2mbit burst 5000 limit 12000"))?;
    let mut row = Row::new(
        "drops: a shaper",
        "600 datagrams each of IPv4 and IPv6",
        "packet socket on eth0 inside the container",
    );
    for to in [ours.v4(), ours.v6()] {
        let witness = WireWitness::start(&ours.namespace().path(), "eth0", Side::Container)?;
        let before = Figures::read(lab, to, "in")?;
        let sent = udp_send(peer.namespace(), ours.namespace(), SocketAddr::new(to, 0), 600, PAYLOAD)?;
        let arrived = || anyhow::Ok(witness.read()?.of(|from| from.is_ipv4() == to.is_ipv4()).in_packets);
        // What is still in the queue is neither dropped nor delivered.
        eventually("the queue is empty", || {
            let dropped = Figures::read(lab, to, "in")?.dropped.0 - before.dropped.0;
            Ok(dropped + arrived()? >= sent.packets)
        })
        .with_context(|| format!("{sent:?}: {} arrived", arrived().unwrap_or_default()))?;
        let arrived = arrived()?;
        ensure!(arrived > 0 && arrived < sent.packets, "no partial loss: {arrived} of {sent:?}");
        row = Figures::settle(lab, to, "in", (before, sent.packets))?.row(row, to, (&sent, arrived));
    }
    tc(&format!("qdisc del dev {interface} root"))?;
    Ok(row)
}

/// Packets and bytes of one family and direction of container 101, over all classes.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    counted: (u64, u64),
    dropped: (u64, u64),
}

fn dump(lab: &Lab) -> Result<Value> {
    lab.run_json(&["dump", "--drops", "--all", "--container", "101", "--format", "json"])
}

impl Figures {
    fn read(lab: &Lab, of: IpAddr, direction: &str) -> Result<Self> {
        let dump = dump(lab)?;
        let family = if of.is_ipv4() { "ipv4" } else { "ipv6" };
        let mut sum = Self::default();
        for row in dump["drops"].as_array().context("no figures")? {
            if row["family"] != family {
                continue;
            }
            let of = |what: &str, unit: &str| {
                row[what][format!("{direction}_{unit}")].as_u64().unwrap_or_default()
            };
            sum.counted.0 += of("counted", "packets");
            sum.counted.1 += of("counted", "bytes");
            sum.dropped.0 += of("dropped", "packets");
            sum.dropped.1 += of("dropped", "bytes");
        }
        Ok(sum)
    }

    /// What was added since `before`, when all that was sent is counted.
    fn settle(lab: &Lab, of: IpAddr, direction: &str, (before, sent): (Self, u64)) -> Result<Self> {
        let less = |now: (u64, u64), was: (u64, u64)| (now.0 - was.0, now.1 - was.1);
        let mut added = Self::default();
        eventually("all that was sent is counted", || {
            let now = Self::read(lab, of, direction)?;
            added = Self {
                counted: less(now.counted, before.counted),
                dropped: less(now.dropped, before.dropped),
            };
            Ok(added.counted.0 >= sent)
        })?;
        Ok(added)
    }

    fn row(self, row: Row, of: IpAddr, (sent, arrived): (&UdpCount, u64)) -> Row {
        let (family, header) = if of.is_ipv4() { ("IPv4", 28) } else { ("IPv6", 48) };
        let lost = sent.packets - arrived;
        row.count(&format!("{family} counted packets"), sent.packets, self.counted.0)
            .count(&format!("{family} dropped packets"), lost, self.dropped.0)
            .count(&format!("{family} dropped bytes"), lost * (PAYLOAD as u64 + header), self.dropped.1)
    }
}

/// The groups of all drops so far.
struct Groups {
    names: Vec<String>,
    has_reasons: bool,
}

fn groups(lab: &Lab) -> Result<Groups> {
    let dump = dump(lab)?;
    let reasons = dump["drops"].as_array().into_iter().flatten();
    let reasons = reasons.flat_map(|row| row["reasons"].as_array().into_iter().flatten());
    let names = reasons.filter_map(|reason| reason["reason"].as_str().map(str::to_owned)).collect();
    let lacks: Vec<&str> =
        dump["lacks"].as_array().context("no lacks")?.iter().filter_map(Value::as_str).collect();
    if lacks.iter().any(|lack| lack.contains("other maps")) {
        bail!("the program does not read the counters: {lacks:?}");
    }
    Ok(Groups { names, has_reasons: !lacks.iter().any(|lack| lack.contains("states no reasons")) })
}

impl Groups {
    fn contains_only(&self, group: &str) -> bool {
        let expected = if self.has_reasons { group } else { "other" };
        !self.names.is_empty() && self.names.iter().all(|name| name == expected)
    }
}
