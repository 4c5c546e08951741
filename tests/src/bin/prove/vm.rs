//! A real virtual machine on a tap: Linux under QEMU with virtio-net, with super-packets in both directions.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use traffic_tests::process::run_ok;
use traffic_tests::witness::{Side, WireWitness};
use traffic_tests::{Amounts, Counters, Lab, check};

use crate::bench::{self, Bench};
use crate::classes;
use crate::evidence::{Evidence, Row};
use crate::kernels::{Launch, Machine, Root, Source, copy_modules, preamble};

/// The summary of this part.
pub const ABOUT: &str = "a machine under QEMU on vme201.0, virtio-net with and without offloads, its \
    super-packets counted as segments";

const SERIES: &str = "6.12";
const TAP: &str = "vme201.0";
const MODULES: [&str; 11] = [
    "virtio_net",
    "virtio_pci",
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "net_failover",
    "failover",
    "dimlib",
    "af_packet",
    "libdim",
];
/// The addresses of the machine, and of the peer on the host. For the machine these are classes 0 and 3.
const MACHINE: &str = "10.2.0.1";
const MACHINE_V6: &str = "fd00:2::1";
const PEER: &str = "203.0.113.140";
const PEER_V6: &str = "2001:db8:3::9";
const LIMIT: Duration = Duration::from_secs(600);

/// Device features that a guest without offloads lacks.
const PLAIN: &str = ",csum=off,gso=off,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,\
    host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off,mrg_rxbuf=off";

/// Runs the part.
pub fn run(bench: &Bench, evidence: &mut Evidence) -> Result<()> {
    evidence.note(bench::version(bench.program("qemu-system-x86_64"), "--version"));
    let directory = bench.cache_directory("kernels")?;
    let kernel = Source::new(directory.clone())?.kernel(SERIES)?;
    evidence.note(format!("the machine's kernel is {}", kernel.release));
    let root = Root::new(directory.join("vm-root"))?;
    for program in ["ip", "ethtool", "iperf3"] {
        root.program(Path::new(program), &format!("bin/{program}"))?;
    }
    copy_modules(&kernel, &MODULES, root.path())?;
    root.script(
        "init",
        &format!(
            "{}/bin/ip link set eth0 up
/bin/ip address add {MACHINE}/32 dev eth0
/bin/ip address add {MACHINE_V6}/128 dev eth0 nodad
/bin/ip route add default dev eth0
/bin/ip -6 route add default dev eth0
/bin/ethtool -k eth0 | busybox grep -E '^(tcp-segmentation|generic-segmentation)'
/bin/iperf3 -s -D
echo VM: ready
while :; do sleep 1000; done
",
            preamble(&["virtio_pci", "virtio_net"])?
        ),
    )?;
    let archive = directory.join("vm.img");
    root.pack(&archive)?;
    for offload in [true, false] {
        let name = if offload { "with offloads" } else { "without offloads" };
        bench.step(&format!("a machine {name}"));
        let log = directory.join(format!("vm-{}.log", if offload { "offloads" } else { "plain" }));
        let device = format!(
            "virtio-net-pci,netdev=n0,romfile=,mac=02:00:00:00:02:01{}",
            if offload { "" } else { PLAIN }
        );
        let devices = [
            "-netdev".to_owned(),
            format!(
                "tap,id=n0,ifname={TAP},script=no,downscript=no,vnet_hdr={}",
                if offload { "on" } else { "off" }
            ),
            "-device".to_owned(),
            device,
        ];
        let lab = Lab::new("prove-vm")?;
        let boot = |launch: &Launch<'_>| Machine::start(bench, &kernel, &archive, &log, launch);
        session(&lab, evidence, name, &devices, boot)?;
    }
    Ok(())
}

fn session(
    lab: &Lab,
    evidence: &mut Evidence,
    name: &str,
    devices: &[String],
    boot: impl Fn(&Launch<'_>) -> Result<Machine>,
) -> Result<()> {
    let file = lab.write("networks_classes", classes::FILE)?;
    lab.configure(&format!("node = \"proof\"\nclass_file = {file:?}\n"))?;
    let host = lab.host();
    let header = if name == "with offloads" { " vnet_hdr" } else { "" };
    host.ip(&format!("tuntap add {TAP} mode tap{header}"))?;
    host.ip(&format!("address add {PEER}/32 dev {TAP}"))?;
    host.ip(&format!("address add {PEER_V6}/128 dev {TAP} nodad"))?;
    host.ip(&format!("link set {TAP} txqueuelen 10000 up"))?;
    host.ip(&format!("route add {MACHINE}/32 dev {TAP}"))?;
    host.ip(&format!("route add {MACHINE_V6}/128 dev {TAP}"))?;
    lab.run_ok(&["attach"])?;
    // From before the first packet of the machine.
    let witness = WireWitness::start(&host.path(), TAP, Side::Host)?;
    let before = Counters::at_rest(lab)?;
    let machine = boot(&Launch { wrap: Some(host), devices, limit: LIMIT })?;
    ensure!(machine.next("VM: ready")?.is_some(), "the machine ended before it was ready");
    let mut retries = 0;
    for (address, source) in [(MACHINE, PEER), (MACHINE_V6, PEER_V6)] {
        for way in [["-n", "9M"].as_slice(), &["-R", "-n", "14M"]] {
            // The emulated server takes a while to end a connection.
            let mut last = None;
            let done = (0..20).any(|_| {
                let tried = run_ok(host.command("iperf3").args(["-c", address, "-B", source]).args(way));
                retries += u32::from(tried.is_err());
                match tried {
                    Ok(_) => true,
                    Err(error) => {
                        last = Some(error);
                        std::thread::sleep(Duration::from_millis(500));
                        false
                    }
                }
            });
            if !done {
                match last {
                    Some(error) => return Err(error).context("iperf3 with the machine"),
                    None => bail!("iperf3 did not run"),
                }
            }
        }
    }
    let (wire, after) = loop {
        let wire = witness.at_rest()?;
        let after = Counters::at_rest(lab)?;
        if witness.at_rest()? == wire {
            break (wire, after);
        }
    };
    let sent = format!(
        "9 MB to it and 14 MB from it by iperf3 over each family ({} buffers, {} of them super-packets, {retries} \
         attempts while its server was busy)",
        wire.buffers, wire.large_buffers
    );
    let row = Row::new(format!("machine {name}"), sent, "packet socket on the tap, expanded");
    let row = classes::compare(row, "201", &wire, [&before, &after]);
    // The machine may know every hardware address, and ask for none.
    let not_ip = |counters: &Counters| counters.fault_or_zero(TAP, "not_ip");
    let (other, ours) = (wire.other(), not_ip(&after).since(not_ip(&before)));
    let row = row
        .count("not IP (ARP) in packets", other.in_packets, ours.in_packets)
        .count("not IP (ARP) out packets", other.out_packets, ours.out_packets)
        .count("estimated packets", 0, {
            let interface = after.interface(TAP);
            interface.in_estimated_packets + interface.out_estimated_packets
        });
    // Without these the case would not test what it is for.
    ensure!(wire.of(|_| true) != Amounts::default(), "there was no traffic");
    ensure!(
        (wire.large_buffers > 100) == (name == "with offloads"),
        "{} super-packets {name}",
        wire.large_buffers
    );
    evidence.row(row);
    check::is_well(lab)
}
