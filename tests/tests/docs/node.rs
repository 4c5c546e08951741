//! The node on which the pages are tried: systemd, the shipped unit, two containers, and the paths of a real host.
//!
//! Paths are those that the pages name: `/usr/sbin/trafctl`, `/etc/trafctl`, `/var/lib/trafctl`. The working
//! directory looks like a clone with a finished build. Programs that no test may run are replaced by small scripts:
//! `curl` of other hosts takes samples, `virsh` lists one machine, and Virtuozzo's `vznetstat` prints two rows.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use traffic_tests::check::eventually;
use traffic_tests::container::introduce;
use traffic_tests::namespace::Namespace;
use traffic_tests::process::run_ok;
use traffic_tests::systemd::{SERVICE, Systemd};
use traffic_tests::traffic::udp_send;
use traffic_tests::{Container, Lab};

use crate::history;
use crate::markdown::repository;
use crate::shell::Shell;

/// The class file of the README.
const CLASSES: &str = "# name 1 = \"World\"\n# name 2 = \"Domestic\"\n\
    0 10.0.0.0/8          # our own network: counted, not billed\n1 0.0.0.0/0\n1 ::/0\n\
    2 203.0.113.0/24      # the exchange\n";

const CONFIGURATION: &str = "[drain]\ninterval = \"1s\"\n[api]\nlisten = \"127.0.0.1:9177\"\n";

/// Peers that stand for the exchange and for the rest of the world. The host itself has these addresses.
const EXCHANGE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));
const WORLD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 9));

/// Takes what the last part of another host's URL names, and writes it to the file after `-o`. Answers as billing
/// systems do, if the request has what they need.
const CURL: &str = r#"#!/bin/sh -e
for word; do last=$word; done
case "$* " in
*http://127.0.0.1:* | *http://localhost/*) exec /usr/bin/curl "$@" ;;
*"-K whmcs.curl "*)
    grep -q '^action=AddBillableItem&clientid=[0-9]*&description=.*&amount=[0-9.]*&unit=quantity&' "${last#@}"
    echo '{"result":"success","billableid":1}' ;;
*"-K fossbilling.curl "*)
    for key in '"client_id": [1-9]' '"title": "' '"price": "[0-9]' '"quantity": 1'; do grep -q "$key" "${last#@}"; done
    echo '{"result":1,"error":null}' ;;
*) cp "/samples/${last##*/}" "$3" ;;
esac
"#;

/// What the package does where the program and its unit are in place already: it has no dpkg to ask.
const APT: &str = "#!/bin/sh -e
[ \"$1\" = install ] && [ \"${2%_amd64.deb}\" != \"$2\" ]
systemctl enable trafctl
systemctl restart trafctl
";

const VIRSH: &str = "#!/bin/sh
case $1 in
list) echo web1; echo ;;
domiflist)
    echo ' Interface   Type     Source   Model    MAC'
    echo '-----------------------------------------------------'
    echo ' vnet0       bridge   br0      virtio   52:54:00:aa:bb:cc'
    ;;
esac
";

/// Virtuozzo's own command, which counts a buffer as one packet.
const VZNETSTAT: &str = "#!/bin/sh
echo 'UUID                                 Net.Class Input(bytes) Input(pkts) Output(bytes) Output(pkts)'
echo '101                                  0                    0           0             0            0'
echo '101                                  2                 1000          10          2000           20'
";

/// The registry's and the exchange's lists of docs/classes.md.
const SAMPLES: [(&str, &str); 2] = [
    (
        "delegated-ripencc-extended-latest",
        "2|ripencc|1700000000|2|19830705|20260131|+0100\n\
         ripencc|UA|ipv4|203.0.113.0|256|20100101|allocated|a\n\
         ripencc|DE|ipv4|198.51.100.0|256|20100101|allocated|b\n",
    ),
    ("networks.txt", "# members\n203.0.113.0/25\n203.0.113.128/25\n2001:db8::/32\n"),
];

/// Mounts a writable copy of `/usr/sbin`, whose files are links to the machine's.
const OWN_SBIN: &str = "mkdir -p /machine /sbin-of-node
mount --bind /usr/sbin /machine
for file in /machine/*; do ln -s \"$file\" /sbin-of-node/; done
mount --bind /sbin-of-node /usr/sbin";

/// What a page begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begin {
    /// Nothing is configured, and the service has never run.
    pub fresh: bool,
    /// The ledger has months of history.
    pub history: bool,
    /// The commands run in container 101.
    pub inside: bool,
}

/// The node of a page.
pub struct Node {
    // Ends before the interfaces and the directories that it uses.
    systemd: Systemd,
    web: Container,
    shop: Container,
    lab: Lab,
}

impl Node {
    /// Creates the node, in the state that a page begins with.
    ///
    /// # Errors
    ///
    /// When a part of it cannot be created or does not start.
    pub fn new(page: &str, begin: Begin) -> Result<Self> {
        let label: String = page.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        let lab = Lab::new(&label)?;
        let web = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
        let shop = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
        introduce(&[&web, &shop])?;
        let bridge = lab.bridge()?;
        for peer in [EXCHANGE, WORLD] {
            lab.host().ip(&format!("address add {peer}/32 dev {}", bridge.name()))?;
            web.knows_at(&[peer], bridge.mac())?;
            shop.knows_at(&[peer], bridge.mac())?;
        }
        let systemd = Systemd::boot_idle(&lab, "host1")?;
        let node = Self { systemd, web, shop, lab };
        node.furnish()?;
        if !begin.fresh {
            node.write("etc/trafctl/networks_classes", CLASSES)?;
            // Its place below the root is covered by a mount of this file, so it stays the same file.
            fs::write(node.lab.config(), CONFIGURATION).context("cannot write the configuration")?;
            node.run("systemctl", &["start", SERVICE])?;
            node.counts_drops()?;
            node.send()?;
        }
        if begin.history {
            node.drained()?;
            history::import(&node)?;
        }
        Ok(node)
    }

    /// Puts programs and files where the pages expect them.
    fn furnish(&self) -> Result<()> {
        self.run("sh", &["-ec", OWN_SBIN])?;
        for (name, text) in [("apt", APT), ("curl", CURL), ("virsh", VIRSH), ("vznetstat", VZNETSTAT)] {
            self.script(name, text)?;
        }
        for name in ["trafctl", "pnetstat", "vztactl"] {
            symlink("/trafctl", self.sbin(name)).with_context(|| name.to_owned())?;
        }
        for (name, text) in SAMPLES {
            self.write(&format!("samples/{name}"), text)?;
        }
        let root = self.systemd.root();
        fs::remove_dir_all(root.join("etc/vz")).context("cannot remove Virtuozzo's directory")?;
        for directory in ["root/target/release", "root/traffic-user", "var/backups"] {
            fs::create_dir_all(root.join(directory)).context("cannot create the clone")?;
        }
        symlink("/trafctl", root.join("root/target/release/trafctl"))?;
        // Debian's choice among several programs of one name, such as awk.
        run_ok(Command::new("cp").args(["-a", "/etc/alternatives"]).arg(root.join("etc")))?;
        for directory in ["docs", "contrib", "traffic-user/systemd"] {
            let from = repository().join(directory);
            if from.exists() {
                let to = root.join("root").join(directory);
                run_ok(Command::new("cp").arg("-r").arg(from).arg(to))?;
            }
        }
        Ok(())
    }

    fn sbin(&self, name: &str) -> PathBuf {
        self.systemd.root().join("sbin-of-node").join(name)
    }

    fn script(&self, name: &str, text: &str) -> Result<()> {
        let path = self.sbin(name);
        // It may be a link to the machine's.
        let _ = fs::remove_file(&path);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context("cannot make it executable")
    }

    /// Writes a file of the node, by its path below the root.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.systemd.root().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).context("cannot create a directory")?;
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// Runs a program on the node and returns its stdout.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run_ok(self.command(self.lab.host(), program).args(arguments))
    }

    /// A file of the node, by its path below the root.
    pub fn path(&self, name: &str) -> PathBuf {
        self.systemd.root().join(name)
    }

    /// A program with the node's files and processes, and the network of a namespace.
    fn command(&self, network: &Namespace, program: &str) -> Command {
        let mut command = network.command("nsenter");
        command.arg(format!("--target={}", self.systemd.init()));
        command.args(["--mount", "--pid", "--uts", "--root", "--wdns=/root", "--", "env", "-i"]);
        command.args(["HOME=/root", "LC_ALL=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        // As in the drop-in of the lab's unit.
        command.args(["TRAFCTL_BPFFS=/sys/fs/bpf", program]);
        command
    }

    /// The shell for the commands of a page.
    pub fn shell(&self, begin: Begin) -> Result<Shell> {
        let network = if begin.inside { self.web.namespace() } else { self.lab.host() };
        let mut command = self.command(network, "bash");
        command.arg("--norc");
        Shell::start(&mut command, self.systemd.root().join("next-command"), "/next-command")
    }

    /// Does what happens on a real node before a command of a page.
    pub fn before(&self, page: &str, command: &str) -> Result<()> {
        match page {
            "README.md" if command.starts_with("trafctl dump") => self.send(),
            "README.md" if command.starts_with("trafctl report") => {
                self.drained()?;
                history::import(self)
            }
            "docs/faults-and-gaps.md" if command.starts_with("trafctl report") => self.drained(),
            "docs/operation.md" if command.starts_with("trafctl status") => {
                self.drained()?;
                self.says_so()
            }
            "docs/coming-from-virtuozzo.md" if command.starts_with("vztactl class_load") => {
                self.write("etc/vz/conf/networks_classes", CLASSES)
            }
            _ => Ok(()),
        }
    }

    /// Sends between the containers, and between 101 and each peer.
    fn send(&self) -> Result<()> {
        let (host, web, shop) = (self.lab.host(), self.web.namespace(), self.shop.namespace());
        let at = |address| SocketAddr::new(address, 0);
        for (from, to, address, datagrams, size) in [
            (web, host, EXCHANGE, 1200, 972),
            (web, host, WORLD, 300, 1172),
            (web, shop, self.shop.v4(), 500, 472),
        ] {
            let sent = udp_send(from, to, at(address), datagrams, size)?;
            ensure!(sent.packets == sent.packets_received, "datagrams to {address} were lost: {sent:?}");
        }
        for (peer, datagrams, size) in [(EXCHANGE, 4000, 1172), (WORLD, 900, 1372)] {
            let route = format!("route replace {}/32 dev br0 src {peer}", self.web.v4());
            host.ip(&route)?;
            let sent = udp_send(host, web, at(self.web.v4()), datagrams, size)?;
            ensure!(sent.packets == sent.packets_received, "datagrams from {peer} were lost: {sent:?}");
        }
        Ok(())
    }

    /// Waits until the daemon has loaded the drop program.
    fn counts_drops(&self) -> Result<()> {
        eventually("drops are counted", || {
            let status = self.run("trafctl", &["status", "--format", "json"])?;
            let status: serde_json::Value = serde_json::from_str(&status)?;
            Ok(status.pointer("/drops/in_force") == Some(&true.into()))
        })
    }

    /// Waits until a drain has recorded everything that was sent.
    pub fn drained(&self) -> Result<()> {
        self.run("systemctl", &["reload", SERVICE])?;
        eventually("the ledger has what was sent", || {
            let report = self.run("trafctl", &["report", "--container", "101", "--format", "json"])?;
            let report: serde_json::Value = serde_json::from_str(&report)?;
            Ok(report.pointer("/total/in/packets").and_then(serde_json::Value::as_u64) == Some(4900))
        })
    }

    /// Waits until the daemon, which publishes its state each second, shows a drain.
    fn says_so(&self) -> Result<()> {
        eventually("the daemon shows a drain", || {
            let status = self.run("trafctl", &["status", "--format", "json"])?;
            let status: serde_json::Value = serde_json::from_str(&status)?;
            Ok(status.pointer("/daemon/last_drain").is_some_and(serde_json::Value::is_string))
        })
    }
}
