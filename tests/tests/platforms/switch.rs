//! Open vSwitch with its own datapath, in a process, as where the kernel has none.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use traffic_tests::check::{agrees_with_kernel, eventually, is_well};
use traffic_tests::container::introduce;
use traffic_tests::daemon::Daemon;
use traffic_tests::evidence::compare;
use traffic_tests::process::{Process, run_ok};
use traffic_tests::traffic::udp_send;
use traffic_tests::{Amounts, Counters, Lab};

use crate::node;

/// The directory in which the switch keeps its files.
fn with_files(command: &mut Command, directory: &Path) {
    for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(name, directory);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
}

/// A switch on the host. Its processes end with it.
struct Switch {
    _daemon: Process,
    _database: Process,
}

impl Switch {
    fn start(lab: &Lab, ports: &[&str]) -> Result<Self> {
        let directory = lab.path("switch");
        std::fs::create_dir(&directory)?;
        let (file, socket) = (directory.join("conf.db"), directory.join("db.sock"));
        let of = format!("unix:{}", socket.display());
        run_ok(
            Command::new("ovsdb-tool")
                .arg("create")
                .arg(&file)
                .arg("/usr/share/openvswitch/vswitch.ovsschema"),
        )
        .context("cannot make a database of Open vSwitch")?;
        let start = |program: &str, arguments: &[&str]| {
            let mut command = lab.host().command(program);
            with_files(command.args(["-vconsole:emer", "-vsyslog:off"]).args(arguments), &directory);
            Process::spawn(&mut command)
        };
        let file = file.to_string_lossy().into_owned();
        let database = start("ovsdb-server", &[&file, &format!("--remote=p{of}")])?;
        eventually("the database answers", || Ok(socket.exists()))?;
        let daemon = start("ovs-vswitchd", &[&of])?;
        let mut make = lab.host().command("ovs-vsctl");
        with_files(&mut make, &directory);
        make.args([&format!("--db={of}"), "--timeout=30", "add-br", "ovs0"]);
        make.args(["--", "set", "bridge", "ovs0", "datapath_type=netdev"]);
        for port in ports {
            make.args(["--", "add-port", "ovs0", port]);
        }
        run_ok(&mut make)?;
        Ok(Self { _daemon: daemon, _database: database })
    }
}

#[test]
fn ports_of_a_switch_in_a_process_are_counted_like_any_other() -> Result<()> {
    let lab = node("switch")?;
    let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    introduce(&[&a, &b])?;
    for container in [&a, &b] {
        lab.host().ip(&format!("link set {} nomaster", container.interface()))?;
        // The process reads frames whose checksums must be complete.
        run_ok(container.namespace().command("ethtool").args(["-K", "eth0", "tx", "off"]))?;
    }
    let _switch = Switch::start(&lab, &[a.interface(), b.interface()])?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    // Both families and directions. The switch has learned both addresses by the first.
    let to = |of: std::net::IpAddr| std::net::SocketAddr::new(of, 0);
    udp_send(a.namespace(), b.namespace(), to(b.v4()), 3, 100)?;
    udp_send(b.namespace(), a.namespace(), to(a.v4()), 3, 100)?;
    let counted = |family: &str| anyhow::Ok(Counters::at_rest(&lab)?.class_or_zero("101", 1, family));
    for (family, [own, its]) in [("ipv4", [a.v4(), b.v4()]), ("ipv6", [a.v6(), b.v6()])] {
        let before = counted(family)?;
        let out = udp_send(a.namespace(), b.namespace(), to(its), 61, 300)?;
        let back = udp_send(b.namespace(), a.namespace(), to(own), 47, 900)?;
        assert_eq!((out.packets_received, back.packets_received), (61, 47), "the switch works");
        let sent = Amounts::both((back.packets, back.l3_bytes), (out.packets, out.l3_bytes));
        compare("108 datagrams through a switch", "the sender", sent, counted(family)?.since(before))?;
    }
    let counters = Counters::at_rest(&lab)?;
    for port in [a.interface(), b.interface()] {
        agrees_with_kernel(&lab, &counters, port)?;
    }
    is_well(&lab)?;
    daemon.stop()
}
