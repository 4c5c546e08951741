//! Real containers with real servers: LXC bridged, routed and with two interfaces, and systemd-nspawn.
//!
//! `engine` runs a container, `under_load` freezes and stops it while it sends, and this file has the other
//! cases.

mod engine;
mod under_load;

use std::fs;

use anyhow::{Context, Result};
use traffic_tests::container::HOST_V4;
use traffic_tests::process::run_ok;
use traffic_tests::witness::{Side, WireCount, WireWitness};
use traffic_tests::{Amounts, Container, Counters, Daemon, Lab, Resync, check};

use crate::bench::{self, Bench};
use crate::classes;
use crate::evidence::{Evidence, Row};
use engine::{Engine, Mode, Real};

/// The summary of this part.
pub const ABOUT: &str =
    "LXC and systemd-nspawn with nginx and iperf3 inside, started, stopped, restarted and frozen under load";

/// The addresses of the peer: class 2 in both families.
const PEER: (&str, &str) = ("203.0.113.2", "2001:db8:1::2");

/// Runs the part.
pub fn run(bench: &Bench, evidence: &mut Evidence) -> Result<()> {
    evidence.note(format!("LXC {}", bench::version("lxc-start", "--version")));
    let stage = Stage::new("prove-lxc", "virtuozzo", bench)?;
    stage.bridged_by_hook(evidence)?;
    if bench.quick {
        return Ok(());
    }
    stage.bridged_by_daemon(evidence)?;
    stage.two_interfaces(evidence)?;
    stage.routed(evidence)?;
    drop(stage);
    evidence.note(bench::version(bench.program("systemd-nspawn"), "--version"));
    Stage::new("prove-nspawn", "nspawn", bench)?.nspawn(evidence)
}

/// The node, and a peer outside it.
struct Stage<'a> {
    bench: &'a Bench,
    lab: Lab,
    peer: Container,
}

impl<'a> Stage<'a> {
    fn new(name: &str, preset: &str, bench: &'a Bench) -> Result<Self> {
        let lab = Lab::new(name)?;
        let file = lab.write("networks_classes", classes::FILE)?;
        lab.configure(&format!("node = \"proof\"\nclass_file = {file:?}\n[host]\npreset = \"{preset}\"\n"))?;
        fs::create_dir_all(lab.path("lxc")).context("cannot create a directory for LXC")?;
        let peer = lab.bridged_as("peer0", PEER.0.parse()?, PEER.1.parse()?)?;
        Ok(Self { bench, lab, peer })
    }

    /// A witness at each interface of the container, from before its first packet.
    fn witnesses(real: &Real<'_>, interfaces: usize) -> Result<Vec<WireWitness>> {
        let network = real.network()?;
        (0..interfaces)
            .map(|number| WireWitness::start(&network, &real.inside(number), Side::Container))
            .collect()
    }

    /// Both counts at one moment: no packet passed between the two readings.
    fn snapshot(&self, witnesses: &[WireWitness]) -> Result<Snapshot> {
        loop {
            let wire = total(witnesses)?;
            let counters = Counters::at_rest(&self.lab)?;
            if total(witnesses)? == wire {
                return Ok(Snapshot { wire, counters });
            }
        }
    }

    fn bridged_by_hook(&self, evidence: &mut Evidence) -> Result<()> {
        let mut real = Real::new(self.bench, &self.lab, (Engine::Lxc, Mode::Bridged), "101", 1)?;
        real.attach_by_hook()?;
        self.bench.step("LXC bridged, attached by its start hook");
        real.start()?;
        let witness = Self::witnesses(&real, 1)?;
        let mut start = self.snapshot(&witness)?;
        real.order(&orders("eth0", "10.1.0.1", "fd00:1::1"))?;
        for offload in ["on", "off"] {
            run_ok(real.command("ethtool")?.args(["-K", "eth0", "tso", offload, "gso", offload]))?;
            let sent = self.traffic(&real, "10.1.0.1", Some("fd00:1::1"))?;
            let case = format!("LXC bridged, hook, offloads {offload}");
            let case = Case { name: &case, witness: &witness, start: &start };
            start = self.compare(evidence, &real, &case, &sent)?;
        }
        if !self.bench.quick {
            run_ok(real.command("ethtool")?.args(["-K", "eth0", "tso", "on", "gso", "on"]))?;
            self.frozen(evidence, &real, &witness, &start)?;
        }
        self.stopped(evidence, &mut real, witness)
    }

    fn bridged_by_daemon(&self, evidence: &mut Evidence) -> Result<()> {
        self.bench.step("LXC bridged, attached by the daemon");
        let daemon = Daemon::start_with(&self.lab, Resync::AsShipped)?;
        let mut real = Real::new(self.bench, &self.lab, (Engine::Lxc, Mode::Bridged), "102", 1)?;
        real.start()?;
        self.attached(&real.interface(0))?;
        let witness = Self::witnesses(&real, 1)?;
        let start = self.snapshot(&witness)?;
        real.order(&orders("eth0", "203.0.113.130", "2001:db8:3::2"))?;
        let sent = self.traffic(&real, "203.0.113.130", Some("2001:db8:3::2"))?;
        let case = Case { name: "LXC bridged, daemon", witness: &witness, start: &start };
        self.compare(evidence, &real, &case, &sent)?;
        real.stop()?;
        daemon.stop()
    }

    /// Incoming by one interface, outgoing by the other.
    fn two_interfaces(&self, evidence: &mut Evidence) -> Result<()> {
        self.bench.step("LXC with two interfaces, in by one and out by the other");
        let mut real = Real::new(self.bench, &self.lab, (Engine::Lxc, Mode::Bridged), "103", 2)?;
        real.attach_by_hook()?;
        real.start()?;
        let witness = Self::witnesses(&real, 2)?;
        let start = self.snapshot(&witness)?;
        // Only eth0 answers requests for the address; the default route is eth1.
        real.order(&format!(
            "for i in all default eth0 eth1; do echo 0 >/proc/sys/net/ipv4/conf/$i/rp_filter; done
ip link set lo up; ip link set eth0 up; ip link set eth1 up
echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore; echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce
ip address add 10.1.0.3/32 dev eth0; ip address add 10.1.1.3/32 dev eth1
ip route add default dev eth1 src 10.1.0.3\n{SERVERS}"
        ))?;
        let sent = self.traffic(&real, "10.1.0.3", None)?;
        let after = self.snapshot(&witness)?.counters;
        let by_interface = witness.iter().map(WireWitness::read).collect::<Result<Vec<_>>>()?;
        let mut row = Row::new("LXC, each interface of two", &sent, "packet sockets on eth0 and eth1 inside");
        for (number, wire) in by_interface.iter().enumerate() {
            let passed = after.interface(&real.interface(number)).amounts;
            // Registered by the start of the container, which comes before the first reading.
            let earlier = start.counters.interface(&real.interface(number)).amounts;
            let (witness, ours) = (wire.total(), passed.since(earlier));
            row = row.count(&format!("eth{number} in bytes"), witness.in_bytes, ours.in_bytes).count(
                &format!("eth{number} out bytes"),
                witness.out_bytes,
                ours.out_bytes,
            );
        }
        evidence.row(row);
        let case = Case { name: "LXC, two interfaces together", witness: &witness, start: &start };
        self.compare(evidence, &real, &case, &sent)?;
        real.stop()
    }

    fn routed(&self, evidence: &mut Evidence) -> Result<()> {
        self.bench.step("LXC routed");
        let mut real = Real::new(self.bench, &self.lab, (Engine::Lxc, Mode::Routed), "104", 1)?;
        real.attach_by_hook()?;
        real.start()?;
        let witness = Self::witnesses(&real, 1)?;
        let start = self.snapshot(&witness)?;
        let host = self.lab.host();
        host.sysctl("ipv4/ip_forward", "1")?;
        let interface = real.interface(0);
        host.ip(&format!("link set {interface} up"))?;
        host.ip(&format!("address replace {HOST_V4}/32 dev {interface}"))?;
        host.ip(&format!("route replace 10.1.0.4/32 dev {interface}"))?;
        // The peer reaches the container through the host.
        self.peer.namespace().ip(&format!("route replace 10.1.0.4/32 via {HOST_V4} dev eth0 onlink"))?;
        real.order(&format!(
            "ip link set lo up; ip link set eth0 up\nip address add 10.1.0.4/32 dev eth0
ip route add {HOST_V4} dev eth0; ip route add default via {HOST_V4} dev eth0\n{SERVERS}"
        ))?;
        let sent = self.traffic(&real, "10.1.0.4", None)?;
        let case = Case { name: "LXC routed, hook", witness: &witness, start: &start };
        self.compare(evidence, &real, &case, &sent)?;
        real.stop()
    }

    fn nspawn(&self, evidence: &mut Evidence) -> Result<()> {
        self.bench.step("systemd-nspawn, attached by the daemon");
        let daemon = Daemon::start_with(&self.lab, Resync::AsShipped)?;
        let mut real = Real::new(self.bench, &self.lab, (Engine::Nspawn, Mode::Bridged), "c105", 1)?;
        real.start()?;
        self.attached(&real.interface(0))?;
        let witness = Self::witnesses(&real, 1)?;
        let start = self.snapshot(&witness)?;
        let interface = real.interface(0);
        self.lab.host().ip(&format!("link set {interface} master {} up", self.lab.bridge()?.name()))?;
        real.order(&orders("host0", "10.1.0.5", "fd00:1::5"))?;
        let sent = self.traffic(&real, "10.1.0.5", Some("fd00:1::5"))?;
        let case = Case { name: "systemd-nspawn, daemon", witness: &witness, start: &start };
        self.compare(evidence, &real, &case, &sent)?;
        real.stop()?;
        daemon.stop()
    }

    /// Waits until the daemon has attached to an interface.
    fn attached(&self, interface: &str) -> Result<()> {
        check::eventually("the daemon attaches", || {
            // Until then the status reports a problem with its exit status.
            let Ok(status) = self.lab.run_json(&["status", "--format", "json"]) else { return Ok(false) };
            let all = status["attachments"].as_array().context("attachments")?;
            Ok(all.iter().any(|one| {
                one["interface"] == interface && one["in"]["ours"] == 1 && one["out"]["ours"] == 1
            }))
        })
    }

    /// Traffic in both directions with iperf3 and curl, over one family or both.
    fn traffic(&self, real: &Real<'_>, v4: &str, v6: Option<&str>) -> Result<String> {
        let (forward, back) = if self.bench.quick { ("4M", "3M") } else { ("40M", "25M") };
        let peer = self.peer.namespace();
        for address in std::iter::once(v4).chain(v6) {
            check::eventually("the container answers", || {
                Ok(run_ok(peer.command("ping").args(["-c", "1", "-W", "1", address])).is_ok())
            })
            .with_context(|| format!("{} at {address}", real.id))?;
            for way in [["-n", forward].as_slice(), &["-R", "-n", back]] {
                // The server may still be closing the previous connection.
                check::eventually("iperf3", || {
                    Ok(run_ok(peer.command("iperf3").args(["-c", address]).args(way)).is_ok())
                })?;
            }
            let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            run_ok(peer.command("curl").args(["-sSf", "-o", "/dev/null", &format!("http://{host}/file")]))?;
        }
        Ok(format!(
            "by iperf3 {forward} to it and {back} from it, 3 MB from its nginx by curl, over each family"
        ))
    }

    /// Compares the classes of the container, and frames that are not IP.
    fn compare(
        &self,
        evidence: &mut Evidence,
        real: &Real<'_>,
        case: &Case<'_>,
        sent: &str,
    ) -> Result<Snapshot> {
        let end = self.snapshot(case.witness)?;
        let (before, after) = (&case.start.counters, &end.counters);
        let wire = &end.wire.clone().since(&case.start.wire);
        let sent = format!("{sent} ({} buffers, {} of them super-packets)", wire.buffers, wire.large_buffers);
        let row = Row::new(case.name, sent, "packet socket inside the container, expanded");
        let row = classes::compare(row, &real.id, wire, [before, after]);
        let faults = |counters: &Counters| {
            (0..2).fold(Amounts::default(), |sum, number| {
                let name = real.interface(number);
                if number > 0 && name == real.interface(0) {
                    sum
                } else {
                    // A container on venet0 sends no ARP.
                    sum.plus(counters.fault_or_zero(&name, "not_ip"))
                }
            })
        };
        let (other, ours) = (wire.other(), faults(after).since(faults(before)));
        evidence.row(row.count("not IP (ARP) in packets", other.in_packets, ours.in_packets).count(
            "not IP (ARP) out packets",
            other.out_packets,
            ours.out_packets,
        ));
        Ok(end)
    }
}

/// A case: its name, the witnesses, and the counts before it.
struct Case<'a> {
    name: &'a str,
    witness: &'a [WireWitness],
    start: &'a Snapshot,
}

/// Both counts at one moment.
struct Snapshot {
    wire: WireCount,
    counters: Counters,
}

/// The servers inside the container.
const SERVERS: &str = "nginx -e /tmp/nginx.log -c /etc/nginx.conf; iperf3 -s -D; iperf3 -s -D -p 5202\n";

/// Sets up the network inside, and starts the servers.
fn orders(interface: &str, v4: &str, v6: &str) -> String {
    format!(
        "ip link set lo up; ip link set {interface} up
ip address add {v4}/32 dev {interface}; ip address add {v6}/128 dev {interface} nodad
ip route add default dev {interface}; ip -6 route add default dev {interface}\n{SERVERS}"
    )
}

fn total(witnesses: &[WireWitness]) -> Result<WireCount> {
    let mut sum = WireCount::default();
    for witness in witnesses {
        sum = sum.plus(&witness.at_rest()?);
    }
    Ok(sum)
}
