//! A machine that boots systemd with the shipped unit, three times on one disk. The first boot ends with a
//! shutdown, the second with a power cut.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use traffic_tests::check::reported;
use traffic_tests::lab::trafctl_program;
use traffic_tests::process::run_ok;
use traffic_tests::{Amounts, Counters, systemd};

use crate::bench::{self, Bench};
use crate::classes;
use crate::evidence::{Evidence, Row};
use crate::kernels::{Kernel, Launch, Machine, Root, Source, copy_modules, preamble};

/// The summary of this part.
pub const ABOUT: &str = "a machine that boots systemd with the shipped unit: a container that the boot \
    starts, a shutdown, a power cut, and one ledger over all of them";

const SERIES: &str = "6.12";
const MODULES: [&str; 15] = [
    "veth",
    "virtio_blk",
    "virtio_pci",
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "ext4",
    "jbd2",
    "mbcache",
    "crc16",
    "crc32c_generic",
    "crc32c_cryptoapi",
    "libcrc32c",
    "af_packet",
];

/// The prefix of the machine's lines that this part reads.
const MARK: &str = "BOOT:";
const LIMIT: Duration = Duration::from_secs(600);

/// Short enough to wait for a drain, and long enough that no drain follows before the end.
const CONFIGURATION: &str = "node = \"proof\"\n[drain]\ninterval = \"15s\"\n";

/// Sends the output of the service to a file that the machine can print.
const DROP_IN: &str =
    "[Service]\nStandardOutput=append:/run/service.log\nStandardError=append:/run/service.log\n";

/// A unit that starts containers. The shipped unit orders itself before this name.
const CONTAINERS: &str = "[Unit]
Description=Starts a container
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/containers
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
";

/// The script of that unit: a container with its start hook, echo requests from the node, and the figures of
/// all parties. The full paths are needed because busybox would run its own version of some programs.
const NODE: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/bin:/sbin
print() { echo; echo "BOOT:$1 $(busybox tr '\n' ' ')"; }
boot=$(cat /var/boots)
systemctl show --property=ActiveState --value trafctl | print service
if [ $boot -gt 1 ]; then
    trafctl report --split class --format json | print found
    trafctl gaps --format json | print gaps
    before=$(trafctl report --by total --format csv)
fi
for scope in all default; do echo 1 >/proc/sys/net/ipv6/conf/$scope/disable_ipv6; done
/bin/ip netns add c101
/bin/ip netns exec c101 busybox sh -c 'for scope in all default; do echo 1 >/proc/sys/net/ipv6/conf/$scope/disable_ipv6; done'
/bin/ip link add veth101.0 type veth peer name eth0 netns c101
trafctl attach veth101.0
/bin/ip address add 203.0.113.1/24 dev veth101.0
/bin/ip link set veth101.0 up
/bin/ip route add 10.1.0.1/32 dev veth101.0
/bin/ip -n c101 address add 10.1.0.1/32 dev eth0
/bin/ip -n c101 link set eth0 up
/bin/ip -n c101 route add default dev eth0
busybox ping -A -q -c $((30 + 10 * boot)) -s $((100 * boot)) 10.1.0.1 | busybox grep transmitted | print ping
cd /sys/class/net/veth101.0/statistics
cat tx_packets tx_bytes rx_packets rx_bytes | print interface
trafctl dump --format json | print counters
[ $boot = 1 ] && exec systemctl poweroff
# The next drain, and one more for what it may have cut in two.
while [ "$(trafctl report --by total --format csv)" = "$before" ]; do sleep 0.2; done
sleep 16
trafctl report --split class --format json | print booked
trafctl audit | print audit
busybox ping -A -q -c 7 -s 400 10.1.0.1 >/dev/null
cat /run/service.log | print log
echo | print end
sleep 1000
"#;

/// Runs the part.
pub fn run(bench: &Bench, evidence: &mut Evidence) -> Result<()> {
    evidence.note(bench::version("/usr/lib/systemd/systemd", "--version"));
    let directory = bench.cache_directory("kernels")?;
    let kernel = Source::new(directory.clone())?.kernel(SERIES)?;
    evidence.note(format!("the machine's kernel is {}", kernel.release));
    let archive = pack(&directory, &kernel)?;
    let disk = directory.join("boot.disk");
    // The disk must be empty.
    fs::File::create(&disk).and_then(|disk| disk.set_len(64 << 20)).context("make the disk")?;
    run_ok(Command::new("/sbin/mkfs.ext4").args(["-q", "-F"]).arg(&disk))?;
    let boot = |number: u32| {
        bench.step(&format!("boot {number}"));
        let devices = [
            "-drive".to_owned(),
            format!("file={},format=raw,if=none,id=d0", disk.display()),
            "-device".to_owned(),
            "virtio-blk-pci,drive=d0".to_owned(),
        ];
        let log = directory.join(format!("boot-{number}.log"));
        let launch = Launch { wrap: None, devices: &devices, limit: LIMIT };
        let machine = Machine::start(bench, &kernel, &archive, &log, &launch)?;
        Boot::read(&machine, number).with_context(|| format!("boot {number}; its log is {}", log.display()))
    };

    let first = boot(1)?;
    evidence.row(first.counted()?);
    let second = boot(2)?;
    evidence.row(second.counted()?);
    let counted = first.counters()?.container("101");
    let row = Row::new(
        "a shutdown",
        "the container's traffic of the first boot, and a shutdown right after it",
        "the counters at the start of the shutdown; the ledger in the second boot",
    );
    evidence.row(row.amounts(counted, second.ledger("found")?));
    let third = boot(3)?;
    evidence.row(third.counted()?);
    let row = Row::new(
        "the power cut",
        "7 echo requests and their answers after the last drain, then the machine was killed",
        "the ledger after the last drain of the second boot; the ledger in the third",
    );
    evidence.row(row.amounts(second.ledger("booked")?, third.ledger("found")?).count(
        "recorded gaps, one for each reboot",
        2,
        third.reboots()?,
    ));
    let sum = [&first, &second, &third]
        .into_iter()
        .try_fold(Amounts::default(), |sum, boot| Ok::<_, anyhow::Error>(sum.plus(boot.pinged()?)))?;
    let row = Row::new(
        "one ledger over three boots",
        "the echo requests of all three, except those of the power cut",
        "ping's own count",
    );
    evidence.row(row.amounts(sum, third.ledger("booked")?));
    Ok(())
}

/// The initramfs: systemd of this machine, and the service as it is installed.
fn pack(directory: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let root = Root::new(directory.join("boot-root"))?;
    for name in ["usr/sbin", "usr/bin", "usr/lib/systemd", "var", "home", "root", "run"] {
        fs::create_dir_all(root.path().join(name)).context("a directory of the first file system")?;
    }
    root.program(Path::new("ip"), "bin/ip")?;
    root.program(Path::new("systemctl"), "bin/systemctl")?;
    root.program(&trafctl_program()?, "usr/sbin/trafctl")?;
    for helper in ["systemd", "systemd-shutdown", "systemd-executor"] {
        let name = format!("usr/lib/systemd/{helper}");
        let path = Path::new("/").join(&name);
        // Later releases start services through a helper.
        if helper != "systemd-executor" || path.exists() {
            root.program(&path, &name)?;
        }
    }
    // Its path is compiled in and depends on the release.
    symlink("../usr/lib/systemd", root.path().join("lib/systemd"))?;
    for name in ["kill", "umount"] {
        symlink("busybox", root.path().join("bin").join(name))?;
    }
    systemd::install(root.path(), DROP_IN)?;
    fs::write(root.path().join("etc/trafctl/trafctl.toml"), CONFIGURATION)?;
    fs::write(root.path().join("etc/vz/conf/networks_classes"), classes::FILE)?;
    let units = root.path().join("etc/systemd/system");
    for unit in ["poweroff.target", "systemd-poweroff.service", "umount.target", "final.target"] {
        fs::copy(Path::new("/usr/lib/systemd/system").join(unit), units.join(unit))
            .with_context(|| format!("copy {unit}"))?;
    }
    fs::write(units.join("lxc.service"), CONTAINERS)?;
    symlink("../lxc.service", units.join("multi-user.target.wants/lxc.service"))?;
    root.script("containers", NODE)?;
    copy_modules(kernel, &MODULES, root.path())?;
    root.script(
        "init",
        &format!(
            "{}mount -t ext4 /dev/vda /var
mkdir -p /var/tmp /var/lib
echo $(($(cat /var/boots 2>/dev/null) + 1)) >/var/boots
exec busybox env -i PATH=/usr/sbin:/bin:/sbin SYSTEMD_UNIT_PATH=/etc/systemd/system \
/usr/lib/systemd/systemd --log-target=console --log-level=notice --show-status=no
",
            preamble(&["virtio_pci", "virtio_blk", "ext4", "veth"])?
        ),
    )?;
    let archive = directory.join("boot.img");
    root.pack(&archive)?;
    Ok(archive)
}

/// The output of one boot.
struct Boot {
    number: u32,
    values: BTreeMap<String, String>,
}

impl Boot {
    /// Reads until the machine has ended, or has printed everything and is to be killed.
    fn read(machine: &Machine, number: u32) -> Result<Self> {
        let mut values = BTreeMap::new();
        while let Some(line) = machine.next(MARK)? {
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            if word == "end" {
                break;
            }
            values.insert(word.to_owned(), rest.trim().to_owned());
        }
        let boot = Self { number, values };
        ensure!(
            boot.text("service")? == "active",
            "the service is not active when containers start: {:?}",
            boot.values
        );
        if let Some(audit) = boot.values.get("audit") {
            ensure!(audit.ends_with("no problems"), "{audit}");
        }
        Ok(boot)
    }

    fn text(&self, word: &str) -> Result<&str> {
        let text = self
            .values
            .get(word)
            .with_context(|| format!("the boot printed no {word}: {:?}", self.values))?;
        Ok(text)
    }

    fn json(&self, word: &str) -> Result<Value> {
        let text = self.text(word)?;
        serde_json::from_str(text).with_context(|| format!("read {text}"))
    }

    fn counters(&self) -> Result<Counters> {
        Ok(serde_json::from_value(self.json("counters")?)?)
    }

    /// The ledger's total of the container, in a report.
    fn ledger(&self, word: &str) -> Result<Amounts> {
        reported(&self.json(word)?, "101")
    }

    /// The number of gaps. All of them must be reboots.
    fn reboots(&self) -> Result<u64> {
        let gaps = self.json("gaps")?;
        let gaps = gaps["gaps"].as_array().with_context(|| format!("no list of gaps: {gaps}"))?;
        ensure!(gaps.iter().all(|gap| gap["reason"] == "reboot"), "{gaps:?}");
        Ok(u64::try_from(gaps.len())?)
    }

    /// The packets that ping sent and received, with the headers of IPv4 and ICMP.
    fn pinged(&self) -> Result<Amounts> {
        let words: Vec<&str> = self.text("ping")?.split_whitespace().collect();
        let [sent, "packets", "transmitted,", received, "packets", "received,", ..] = words[..] else {
            bail!("the output of ping is {words:?}");
        };
        let (sent, received): (u64, u64) = (sent.parse()?, received.parse()?);
        let bytes = u64::from(100 * self.number) + 28;
        Ok(Amounts {
            in_packets: sent,
            in_bytes: sent * bytes,
            out_packets: received,
            out_bytes: received * bytes,
        })
    }

    /// The counts of the service for a container, from its first packet on.
    fn counted(&self) -> Result<Row> {
        let counters = self.counters()?;
        let pinged = self.pinged()?;
        let kernel: Vec<u64> =
            self.text("interface")?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [in_skbs, in_skb_bytes, out_skbs, out_skb_bytes] = kernel[..] else {
            bail!("the interface's statistics are {kernel:?}");
        };
        let ours = counters.interface("veth101.0");
        let sent = format!(
            "{} echo requests of {} bytes from the node, by the unit that starts containers",
            pinged.in_packets,
            pinged.in_bytes.checked_div(pinged.in_packets).unwrap_or_default()
        );
        let witness = "ping's own count; the interface's statistics for buffers, which include ARP";
        Ok(Row::new(format!("boot {}, from a container's first packet", self.number), sent, witness)
            .amounts(pinged, counters.class("101", 2, "ipv4"))
            .count("buffers in", in_skbs, ours.in_skbs)
            .count("bytes of buffers in", in_skb_bytes, ours.in_skb_bytes)
            .count("buffers out", out_skbs, ours.out_skbs)
            .count("bytes of buffers out", out_skb_bytes, ours.out_skb_bytes))
    }
}
