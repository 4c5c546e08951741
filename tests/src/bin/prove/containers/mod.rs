//! Real containers with real servers in them: LXC bridged, routed and with two interfaces, and systemd-nspawn.

mod engine;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use traffic_tests::container::HOST_V4;
use traffic_tests::process::{Process, run_ok};
use traffic_tests::witness::{InterfaceStatistics, NftWitness, Side, WireCount, WireWitness};
use traffic_tests::{Amounts, Container, Counters, Daemon, Lab, Resync, check};

use crate::bench::{self, Bench};
use crate::classes;
use crate::evidence::{Evidence, Row};
use engine::{Engine, Mode, Real};

/// What this part shows.
pub const ABOUT: &str =
    "LXC and systemd-nspawn with nginx and iperf3 inside, started, stopped, restarted and frozen under load";

/// The peer's addresses: class 2 of each family.
const PEER: (&str, &str) = ("203.0.113.2", "2001:db8:1::2");
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs it.
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

/// The node and a peer beyond it.
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
        fs::create_dir_all(lab.path("lxc")).context("a directory for LXC")?;
        let peer = lab.bridged_as("peer0", PEER.0.parse()?, PEER.1.parse()?)?;
        Ok(Self { bench, lab, peer })
    }

    /// A count of everything at the container's interfaces, from before its first packet.
    fn witnesses(real: &Real<'_>, interfaces: usize) -> Result<Vec<WireWitness>> {
        let network = real.network()?;
        (0..interfaces)
            .map(|number| WireWitness::start(&network, &real.inside(number), Side::Container))
            .collect()
    }

    /// Both counts at one moment: nothing passed between the readings.
    fn mark(&self, witnesses: &[WireWitness]) -> Result<Mark> {
        loop {
            let wire = total(witnesses)?;
            let counters = Counters::at_rest(&self.lab)?;
            if total(witnesses)? == wire {
                return Ok(Mark { wire, counters });
            }
        }
    }

    fn bridged_by_hook(&self, evidence: &mut Evidence) -> Result<()> {
        let mut real = Real::new(self.bench, &self.lab, Engine::Lxc, Mode::Bridged, "101", 1)?;
        real.attach_by_hook()?;
        self.bench.say("LXC bridged, attached by its start hook");
        real.start()?;
        let witness = Self::witnesses(&real, 1)?;
        let mut start = self.mark(&witness)?;
        real.order(&orders("eth0", "10.1.0.1", "fd00:1::1"))?;
        for offload in ["on", "off"] {
            run_ok(real.command("ethtool")?.args(["-K", "eth0", "tso", offload, "gso", offload]))?;
            let sent = self.traffic(&real, "10.1.0.1", Some("fd00:1::1"))?;
            let case = format!("LXC bridged, hook, offloads {offload}");
            start = self.compare(evidence, &real, &case, &sent, &witness, &start)?;
        }
        if !self.bench.quick {
            run_ok(real.command("ethtool")?.args(["-K", "eth0", "tso", "on", "gso", "on"]))?;
            self.frozen(evidence, &real, &witness, &start)?;
        }
        self.stopped(evidence, &mut real, witness)
    }

    /// Frozen while a transfer runs, and thawed.
    fn frozen(
        &self,
        evidence: &mut Evidence,
        real: &Real<'_>,
        witness: &[WireWitness],
        start: &Mark,
    ) -> Result<()> {
        self.bench.say("frozen under load");
        let mut transfer = self.background("10.1.0.1", "30M")?;
        self.flows(real)?;
        real.freeze(true)?;
        // A frozen server reads nothing: its window closes, and the sender waits for it.
        let middle = self.mark(witness)?;
        real.freeze(false)?;
        ensure!(transfer.wait(PATIENCE)?.success(), "the transfer did not outlive the freezing");
        let frozen = middle.wire.since(&start.wire);
        let case = "LXC frozen under load, and thawed";
        let sent = format!("30 MB by iperf3, {} buffers of it until it froze", frozen.buffers);
        self.compare(evidence, real, case, &sent, witness, start).map(drop)
    }

    /// Killed while it sends, started again under the same names, killed again.
    fn stopped(&self, evidence: &mut Evidence, real: &mut Real<'_>, witness: Vec<WireWitness>) -> Result<()> {
        self.bench.say("stopped and restarted under load");
        let mut running = Some(witness);
        for case in ["LXC stopped under load", "LXC started again, stopped under load"] {
            let mut attempts = 0;
            loop {
                attempts += 1;
                ensure!(attempts <= 10, "{case}: each time something was on its way when the interface went");
                let orders = running.is_none().then(|| orders("eth0", "10.1.0.1", "fd00:1::1"));
                let witness = match running.take() {
                    Some(witness) => witness,
                    None => {
                        real.start()?;
                        Self::witnesses(real, 1)?
                    }
                };
                if self.stopped_once(evidence, real, case, &witness, orders.as_deref())? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Kills it while it sends. A packet that is on its way between the two ends when LXC removes the interface has been
    /// at one of them only. Whether there was one is told by counters of nftables at the host's end, beside the program;
    /// with them trafctl has to agree in any case, and with the witness inside when there was none.
    fn stopped_once(
        &self,
        evidence: &mut Evidence,
        real: &mut Real<'_>,
        case: &str,
        witness: &[WireWitness],
        orders: Option<&str>,
    ) -> Result<bool> {
        let name = real.interface(0);
        let here = NftWitness::attach(self.lab.host(), &name)?;
        let (before, start) = loop {
            let before = here.read()?;
            let start = self.mark(witness)?;
            if here.read()? == before {
                break (before, start);
            }
        };
        if let Some(orders) = orders {
            real.order(orders)?;
        }
        self.killed(real)?;
        let end = self.mark(witness)?;
        let after = here.read()?;
        let passed = [
            after.egress.buffers() - before.egress.buffers(),
            after.ingress.buffers() - before.ingress.buffers(),
        ];
        let skbs = |counters: &Counters| {
            let row = counters.interface(&name);
            [row.in_skbs, row.out_skbs]
        };
        let (first, last) = (skbs(&start.counters), skbs(&end.counters));
        let ours = [last[0] - first[0], last[1] - first[1]];
        ensure!(ours == passed, "{case}: {ours:?} buffers in and out, by nftables {passed:?}");
        let inside = end.wire.clone().since(&start.wire);
        let inside = [inside.in_buffers, inside.buffers - inside.in_buffers];
        if inside != passed {
            self.bench.say(&format!("{passed:?} buffers in and out here, {inside:?} inside: once more"));
            return Ok(false);
        }
        self.compare(evidence, real, case, "iperf3 from it until it is killed", witness, &start)?;
        Ok(true)
    }

    fn killed(&self, real: &mut Real<'_>) -> Result<()> {
        let transfer = self.background_from("10.1.0.1")?;
        self.flows(real)?;
        real.stop()?;
        drop(transfer);
        Ok(())
    }

    fn bridged_by_daemon(&self, evidence: &mut Evidence) -> Result<()> {
        self.bench.say("LXC bridged, attached by the daemon");
        let daemon = Daemon::start_with(&self.lab, Resync::AsShipped)?;
        let mut real = Real::new(self.bench, &self.lab, Engine::Lxc, Mode::Bridged, "102", 1)?;
        real.start()?;
        self.attached(&real.interface(0))?;
        let witness = Self::witnesses(&real, 1)?;
        let start = self.mark(&witness)?;
        real.order(&orders("eth0", "203.0.113.130", "2001:db8:3::2"))?;
        let sent = self.traffic(&real, "203.0.113.130", Some("2001:db8:3::2"))?;
        self.compare(evidence, &real, "LXC bridged, daemon", &sent, &witness, &start)?;
        real.stop()?;
        daemon.stop()
    }

    /// In by one interface, out by the other.
    fn two_interfaces(&self, evidence: &mut Evidence) -> Result<()> {
        self.bench.say("LXC with two interfaces, in by one and out by the other");
        let mut real = Real::new(self.bench, &self.lab, Engine::Lxc, Mode::Bridged, "103", 2)?;
        real.attach_by_hook()?;
        real.start()?;
        let witness = Self::witnesses(&real, 2)?;
        let start = self.mark(&witness)?;
        // Who asks for the address is answered by eth0 alone; the way out is eth1.
        real.order(&format!(
            "for i in all default eth0 eth1; do echo 0 >/proc/sys/net/ipv4/conf/$i/rp_filter; done
ip link set lo up; ip link set eth0 up; ip link set eth1 up
echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore; echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce
ip address add 10.1.0.3/32 dev eth0; ip address add 10.1.1.3/32 dev eth1
ip route add default dev eth1 src 10.1.0.3\n{SERVERS}"
        ))?;
        let sent = self.traffic(&real, "10.1.0.3", None)?;
        let after = self.mark(&witness)?.counters;
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
        self.compare(evidence, &real, "LXC, two interfaces together", &sent, &witness, &start)?;
        real.stop()
    }

    fn routed(&self, evidence: &mut Evidence) -> Result<()> {
        self.bench.say("LXC routed");
        let mut real = Real::new(self.bench, &self.lab, Engine::Lxc, Mode::Routed, "104", 1)?;
        real.attach_by_hook()?;
        real.start()?;
        let witness = Self::witnesses(&real, 1)?;
        let start = self.mark(&witness)?;
        let host = self.lab.host();
        host.sysctl("ipv4/ip_forward", "1")?;
        let interface = real.interface(0);
        host.ip(&format!("link set {interface} up"))?;
        host.ip(&format!("address replace {HOST_V4}/32 dev {interface}"))?;
        host.ip(&format!("route replace 10.1.0.4/32 dev {interface}"))?;
        // The peer reaches it by the host.
        self.peer.namespace().ip(&format!("route replace 10.1.0.4/32 via {HOST_V4} dev eth0 onlink"))?;
        real.order(&format!(
            "ip link set lo up; ip link set eth0 up\nip address add 10.1.0.4/32 dev eth0
ip route add {HOST_V4} dev eth0; ip route add default via {HOST_V4} dev eth0\n{SERVERS}"
        ))?;
        let sent = self.traffic(&real, "10.1.0.4", None)?;
        self.compare(evidence, &real, "LXC routed, hook", &sent, &witness, &start)?;
        real.stop()
    }

    fn nspawn(&self, evidence: &mut Evidence) -> Result<()> {
        self.bench.say("systemd-nspawn, attached by the daemon");
        let daemon = Daemon::start_with(&self.lab, Resync::AsShipped)?;
        let mut real = Real::new(self.bench, &self.lab, Engine::Nspawn, Mode::Bridged, "c105", 1)?;
        real.start()?;
        self.attached(&real.interface(0))?;
        let witness = Self::witnesses(&real, 1)?;
        let start = self.mark(&witness)?;
        let interface = real.interface(0);
        self.lab.host().ip(&format!("link set {interface} master {} up", self.lab.bridge()?.name()))?;
        real.order(&orders("host0", "10.1.0.5", "fd00:1::5"))?;
        let sent = self.traffic(&real, "10.1.0.5", Some("fd00:1::5"))?;
        self.compare(evidence, &real, "systemd-nspawn, daemon", &sent, &witness, &start)?;
        real.stop()?;
        daemon.stop()
    }

    /// Waits until a daemon has attached to an interface.
    fn attached(&self, interface: &str) -> Result<()> {
        check::eventually("the daemon attaches", || {
            // Until then the status has a problem, and says so by its exit status.
            let Ok(status) = self.lab.run_json(&["status", "--format", "json"]) else { return Ok(false) };
            let all = status["attachments"].as_array().context("attachments")?;
            Ok(all.iter().any(|one| {
                one["interface"] == interface && one["in"]["ours"] == 1 && one["out"]["ours"] == 1
            }))
        })
    }

    /// Both ways with iperf3 and curl, over one family or two.
    fn traffic(&self, real: &Real<'_>, v4: &str, v6: Option<&str>) -> Result<String> {
        let (forward, back) = if self.bench.quick { ("4M", "3M") } else { ("40M", "25M") };
        let peer = self.peer.namespace();
        for address in std::iter::once(v4).chain(v6) {
            check::eventually("the container answers", || {
                Ok(run_ok(peer.command("ping").args(["-c", "1", "-W", "1", address])).is_ok())
            })
            .with_context(|| format!("{} at {address}", real.id))?;
            for way in [["-n", forward].as_slice(), &["-R", "-n", back]] {
                // The server may still be busy saying goodbye to the one before.
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

    /// A transfer to the container that goes on meanwhile.
    fn background(&self, address: &str, amount: &str) -> Result<Process> {
        let mut command = self.peer.namespace().command("iperf3");
        command.args(["-p", "5202", "-c", address, "-n", amount, "-b", "40M"]);
        Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))
    }

    /// A transfer from the container that goes on until something ends.
    fn background_from(&self, address: &str) -> Result<Process> {
        let peer = self.peer.namespace();
        check::eventually("the container answers", || {
            Ok(run_ok(peer.command("ping").args(["-c", "1", "-W", "1", address])).is_ok())
        })?;
        let mut command = peer.command("iperf3");
        command.args(["-p", "5202", "-R", "-c", address, "-t", "600", "-b", "100M"]);
        Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Waits until something passes.
    fn flows(&self, real: &Real<'_>) -> Result<()> {
        let read = || InterfaceStatistics::read(self.lab.host(), &real.interface(0));
        let start = read()?;
        check::eventually("a transfer flows", || {
            let now = read()?;
            Ok(now.rx_bytes + now.tx_bytes > start.rx_bytes + start.tx_bytes + 1_000_000)
        })
    }

    /// The classes of the container, and what is no IP.
    fn compare(
        &self,
        evidence: &mut Evidence,
        real: &Real<'_>,
        case: &str,
        sent: &str,
        witness: &[WireWitness],
        start: &Mark,
    ) -> Result<Mark> {
        let end = self.mark(witness)?;
        let (before, after) = (&start.counters, &end.counters);
        let wire = &end.wire.clone().since(&start.wire);
        let sent = format!("{sent} ({} buffers, {} of them super-packets)", wire.buffers, wire.large_buffers);
        let row = Row::new(case, sent, "packet socket inside the container, expanded");
        let row = classes::compare(row, &real.id, wire, before, after);
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

/// Both counts at one moment.
struct Mark {
    wire: WireCount,
    counters: Counters,
}

/// The servers inside.
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
