//! Routed containers behind a layer-3 `venet0`.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use traffic_tests::traffic::{tcp_exchange, udp_send};
use traffic_tests::witness::{Side, WireWitness};
use traffic_tests::{Counters, Lab, RoutedContainer, check};

use crate::bench::Bench;
use crate::classes;
use crate::evidence::{Evidence, Row};

/// The summary of this part.
pub const ABOUT: &str =
    "three containers behind one layer-3 venet0, TCP and UDP through it, per container and class";

const MEGABYTE: u64 = 1 << 20;
/// Ids and addresses. All classes differ.
const CONTAINERS: [(&str, &str, &str); 3] = [
    ("301", "10.3.0.1", "fd00:3::1"),
    ("302", "203.0.113.2", "2001:db8:1::2"),
    ("303", "203.0.113.133", "2001:db8:3::3"),
];

/// Runs the part.
pub fn run(bench: &Bench, evidence: &mut Evidence) -> Result<()> {
    let lab = Lab::new("prove-venet")?;
    let file = lab.write("networks_classes", classes::FILE)?;
    lab.configure(&format!("node = \"proof\"\nclass_file = {file:?}\n"))?;
    let venet = lab.venet()?;
    let mut containers = Vec::new();
    for (id, v4, v6) in CONTAINERS {
        containers.push(venet.container(id, v4.parse()?, v6.parse()?)?);
        lab.run_ok(&["address", "add", id, v4])?;
        lab.run_ok(&["address", "add", id, v6])?;
    }
    lab.run_ok(&["attach"])?;

    let amount = if bench.quick { 4 } else { 40 };
    for offload in ["on", "off"] {
        bench.step(&format!("segmentation offloads {offload}"));
        let features = ["tso", offload, "gso", offload, "tx-udp-segmentation", offload];
        check::output(lab.host().command("ethtool").args(["-K", venet.interface()]).args(features))?;
        for container in &containers {
            let mut command = container.namespace().command("ethtool");
            check::output(command.args(["-K", container.interface()]).args(features))?;
        }
        round(&lab, &containers, amount, offload, evidence)?;
    }
    ensure!(venet.lost() == 0, "the lab lost {} packets", venet.lost());
    check::is_well(&lab)
}

fn round(
    lab: &Lab,
    containers: &[RoutedContainer<'_>],
    amount: u64,
    offload: &str,
    evidence: &mut Evidence,
) -> Result<()> {
    let witnesses = containers
        .iter()
        .map(|container| {
            WireWitness::start(&container.namespace().path(), container.interface(), Side::Container)
        })
        .collect::<Result<Vec<_>>>()?;
    let before = Counters::at_rest(lab)?;
    for (index, from) in containers.iter().enumerate() {
        let to = &containers[(index + 1) % containers.len()];
        // Each pair and family has a different size.
        let size = amount * MEGABYTE + index as u64 * 100_001;
        tcp_exchange(from.namespace(), to.namespace(), at(to.v4()), size, size / 3)?;
        tcp_exchange(from.namespace(), to.namespace(), at(to.v6()), size / 2, size / 5)?;
        let datagrams = 100 + 10 * u32::try_from(index)?;
        udp_send(from.namespace(), to.namespace(), at(to.v4()), datagrams.into(), 700)?;
    }
    let after = Counters::at_rest(lab)?;
    for (container, witness) in containers.iter().zip(witnesses) {
        let wire = witness.at_rest()?;
        let row = Row::new(
            format!("{}, offloads {offload}", container.id()),
            format!(
                "{amount} MB and more TCP over IPv4 and IPv6, UDP, to and from the next ({} buffers)",
                wire.buffers
            ),
            "packet socket on venet0 inside it, expanded",
        );
        evidence.row(classes::compare(row, container.id(), &wire, [&before, &after]));
    }
    Ok(())
}

fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}
