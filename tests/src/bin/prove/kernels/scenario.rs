//! The scenario that each kernel runs: load, attach, count, reload, drain, mark, drop, detach. It is the same on
//! this machine and in an emulated one.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use traffic_tests::container::introduce;
use traffic_tests::process::run_ok;
use traffic_tests::traffic::{tcp_exchange, udp_send};
use traffic_tests::witness::{Filter, HtbWitness, Side, WireCount, WireWitness};
use traffic_tests::{Amounts, Container, Counters, Daemon, Lab, Resync, check};

use super::drops;
use super::hooks::tcx_programs;
use crate::bench;
use crate::classes;
use crate::evidence::{Evidence, Row};

const MEGABYTE: u64 = 1 << 20;
const ETHERNET_HEADER: u64 = 14;

/// The first kernel with TCX links.
const TCX_SINCE: (u32, u32) = (6, 6);

/// Runs the scenario on the running kernel. `amount` is the approximate size of each step in megabytes.
pub fn run(evidence: &mut Evidence, amount: u64) -> Result<()> {
    let release = bench::kernel_release()?;
    evidence.note(format!("kernel {release}"));
    let lab = Lab::new("prove-kernel")?;
    let file = lab.write("networks_classes", classes::FILE)?;
    // An emulated machine is slow with large maps.
    let configuration = format!(
        "node = \"proof\"\nclass_file = {file:?}\n\
         [limits]\ncontainers = 64\ninterfaces = 64\naddresses = 64\n\
         [[interfaces.rule]]\npattern = 'peer0'\nkind = \"ignore\"\n"
    );
    lab.configure(&configuration)?;
    let ours = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let mut peer = lab.bridged_as("peer0", [203, 0, 113, 2].into(), "2001:db8:1::2".parse()?)?;
    peer.add_address("203.0.113.200".parse()?)?;
    peer.add_address("2001:db8:3::3".parse()?)?;
    peer.add_address("198.51.100.7".parse()?)?;
    introduce(&[&ours, &peer])?;

    let has_tcx = version(&release)? >= TCX_SINCE;
    lab.run_ok(&["attach"])?;
    evidence.row(hooks(&lab, &ours, has_tcx)?);

    let scene = Scene { lab: &lab, ours: &ours, peer: &peer, amount };
    let mut booked = WireCount::default();
    for offload in [true, false] {
        ours.offload(offload)?;
        peer.offload(offload)?;
        let name = if offload { "counts, offloads on" } else { "counts, offloads off" };
        booked = booked.plus(&scene.round(evidence, name, classes::class_of)?);
    }
    ours.offload(true)?;
    peer.offload(true)?;

    std::fs::write(&file, classes::FILE_CHANGED).context("cannot change the class file")?;
    // Two of the eight networks vanish.
    lab.run_ok(&["classes", "load", "--yes"])?;
    booked = booked.plus(&scene.round(evidence, "counts after a reload of classes", changed_class_of)?);

    evidence.row(drain(&lab, &booked)?);
    lab.configure(&format!("{configuration}[shaping]\nenabled = true\n"))?;
    lab.run_ok(&["attach"])?;
    evidence.row(mark(&scene)?);
    evidence.row(drops::load(&lab)?);
    evidence.row(drops::by_rule(&lab, &ours, &peer)?);
    evidence.row(drops::by_shaper(&lab, &ours, &peer)?);
    check::is_well(&lab)?;
    evidence.row(detach(&scene, has_tcx)?);
    Ok(())
}

/// Major and minor version of a release such as `6.12.117+deb12-cloud-amd64`.
pub fn version(release: &str) -> Result<(u32, u32)> {
    let mut numbers = release.split(['.', '-', '+']);
    let mut next = || -> Result<u32> {
        numbers
            .next()
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("cannot parse the release {release}"))
    };
    Ok((next()?, next()?))
}

/// The class of a peer under the changed table, written by hand.
fn changed_class_of(peer: IpAddr) -> u8 {
    match classes::class_of(peer) {
        0 => 0,
        1 => 4,
        _ => 5,
    }
}

/// The programs on the two hooks, read without trafctl.
fn hooks(lab: &Lab, container: &Container, has_tcx: bool) -> Result<Row> {
    let status = lab.run_json(&["status", "--format", "json"])?;
    let kind = if has_tcx { "tcx" } else { "clsact" };
    ensure!(status["attach_kind"] == kind, "attached with {} instead of {kind}", status["attach_kind"]);
    let mut row = Row::new(
        format!("loads, attaches by {kind}"),
        "nothing",
        if has_tcx { "the kernel's own list of programs" } else { "tc filter show" },
    );
    for (hook, program) in [("ingress", "trafctl_ingress"), ("egress", "trafctl_egress")] {
        row = row.fact(&format!("{program} on {hook}"), is_attached(lab, container, hook, has_tcx)?);
    }
    Ok(row)
}

/// Whether a program of ours is on a hook, read without trafctl.
fn is_attached(lab: &Lab, container: &Container, hook: &str, has_tcx: bool) -> Result<bool> {
    if has_tcx {
        return Ok(tcx_programs(lab.host(), container.interface(), hook == "ingress")? == 1);
    }
    let text = run_ok(lab.host().command("tc").args(["filter", "show", "dev", container.interface(), hook]))?;
    Ok(text.contains(&format!("trafctl_{hook}")))
}

/// The endpoints and the size of the traffic.
struct Scene<'a> {
    lab: &'a Lab,
    ours: &'a Container,
    peer: &'a Container,
    amount: u64,
}

impl Scene<'_> {
    fn send(&self) -> Result<String> {
        let (ours, peer) = (self.ours.namespace(), self.peer.namespace());
        let size = self.amount * MEGABYTE;
        let mut sent = String::new();
        for (index, address) in
            ["203.0.113.2", "203.0.113.200", "198.51.100.7", "2001:db8:1::2", "2001:db8:3::3"]
                .iter()
                .enumerate()
        {
            let address = SocketAddr::new(address.parse()?, 0);
            // Each has a different size.
            let size = size + 30_011 * index as u64;
            tcp_exchange(ours, peer, address, size, size / 3)?;
            // A write to a string cannot fail.
            let _ = write!(sent, "{size} and {} bytes TCP with {}, ", size / 3, address.ip());
        }
        udp_send(peer, ours, SocketAddr::new(self.ours.v4(), 0), 120, 700)?;
        udp_send(ours, peer, SocketAddr::new(self.peer.v6(), 0), 90, 333)?;
        Ok(sent + "120 and 90 datagrams")
    }

    /// Sends, and compares by class.
    fn round(&self, evidence: &mut Evidence, name: &str, class_of: fn(IpAddr) -> u8) -> Result<WireCount> {
        let witness = WireWitness::start(&self.ours.namespace().path(), "eth0", Side::Container)?;
        let before = Counters::at_rest(self.lab)?;
        let sent = self.send()?;
        let after = Counters::at_rest(self.lab)?;
        let wire = witness.at_rest()?;
        let sent = format!("{sent} ({} buffers, {} of them super-packets)", wire.buffers, wire.large_buffers);
        let row = Row::new(name, sent, "packet socket on eth0 inside the container, expanded");
        let row = classes::compare_by(row, "101", &wire, [&before, &after], class_of);
        let estimated = after.interface(self.ours.interface());
        // Sizes are estimated where the offsets in the kernel's buffers are unknown. They must be known.
        evidence.row(row.count(
            "estimated packets",
            0,
            estimated.in_estimated_packets + estimated.out_estimated_packets,
        ));
        Ok(wire)
    }
}

/// Drains as the daemon does at its start and end, and reads the sums of the ledger.
fn drain(lab: &Lab, wire: &WireCount) -> Result<Row> {
    Daemon::start_with(lab, Resync::AsShipped)?.stop()?;
    let report = lab.run_json(&["report", "--split", "class", "--format", "json"])?;
    let rows = report["rows"].as_array().context("no rows in the report")?;
    let mut booked = Amounts::default();
    for row in rows.iter().filter(|row| row["container"] == "101") {
        let value = |way: &str, what: &str| {
            row[way][what].as_u64().with_context(|| format!("no {way} {what} in {row}"))
        };
        booked = booked.plus(Amounts {
            in_bytes: value("in", "bytes")?,
            in_packets: value("in", "packets")?,
            out_bytes: value("out", "bytes")?,
            out_packets: value("out", "packets")?,
        });
    }
    Ok(Row::new("drains into the ledger", "all of the above", "the sum of the packet sockets")
        .amounts(wire.of(|_| true), booked))
}

/// Fills the classes of a shaper by the marks.
fn mark(scene: &Scene<'_>) -> Result<Row> {
    let classes = [4_u8, 5];
    let marks = classes.map(|class| 101 * 32 + u32::from(class));
    let shaper = HtbWitness::attach(scene.lab.host(), scene.peer.interface(), &marks)?;
    let before = Counters::at_rest(scene.lab)?;
    for (address, datagrams, size) in
        [("198.51.100.7", 41, 400), ("203.0.113.2", 43, 500), ("2001:db8:3::3", 47, 600)]
    {
        let address = SocketAddr::new(address.parse()?, 0);
        udp_send(scene.ours.namespace(), scene.peer.namespace(), address, datagrams, size)?;
    }
    let after = Counters::at_rest(scene.lab)?;
    let (marked, _) = shaper.read()?;
    let filter = match shaper.filter() {
        Filter::Fw => "tc fw",
        Filter::ClassicBpf => "cls_bpf, as this kernel lacks fw",
    };
    let mut row = Row::new(
        "marks for a shaper",
        "41, 43 and 47 datagrams",
        format!("the HTB class of each mark at the peer's interface, filled by {filter}"),
    );
    for (class, counted) in classes.into_iter().zip(marked) {
        let of = |counters: &Counters| {
            // Each class has traffic of one family only.
            counters.class_or_zero("101", class, "ipv4").plus(counters.class_or_zero("101", class, "ipv6"))
        };
        let ours = of(&after).since(of(&before));
        row = row.count(&format!("class {class} packets out"), counted.packets, ours.out_packets).count(
            &format!("class {class} bytes out"),
            counted.l3_bytes(ETHERNET_HEADER),
            ours.out_bytes,
        );
    }
    Ok(row)
}

/// Detaches and sends once more.
fn detach(scene: &Scene<'_>, has_tcx: bool) -> Result<Row> {
    let before = Counters::at_rest(scene.lab)?;
    scene.lab.run_ok(&["detach"])?;
    udp_send(scene.ours.namespace(), scene.peer.namespace(), SocketAddr::new(scene.peer.v4(), 0), 50, 100)?;
    let after = Counters::at_rest(scene.lab)?;
    let mut row =
        Row::new("detaches", "50 datagrams afterwards", "the kernel's own list; nothing may be counted")
            .amounts(Amounts::default(), after.container("101").since(before.container_or_zero("101")));
    for hook in ["ingress", "egress"] {
        row = row.fact(&format!("{hook} is free"), !is_attached(scene.lab, scene.ours, hook, has_tcx)?);
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_its_version() {
        assert_eq!(version("6.12.117+deb12-cloud-amd64").unwrap(), (6, 12));
        assert_eq!(version("5.10.0-32-cloud-amd64").unwrap(), (5, 10));
        assert!(version("next").is_err());
    }
}
