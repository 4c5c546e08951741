//! Cgroups under the names of the platforms, with real processes in real namespaces. No platform is installed for
//! this.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use traffic_tests::check::{eventually, is_well};
use traffic_tests::daemon::{Daemon, Resync};
use traffic_tests::namespace::Namespace;
use traffic_tests::process::Process;
use traffic_tests::traffic::udp_send;
use traffic_tests::{Amounts, Counters, Lab};

use crate::{host, is_attached, node, owner};

/// A cgroup with a process in a container's network namespace. Both end with the guard.
pub struct Running {
    process: Option<Process>,
    cgroup: PathBuf,
}

impl Running {
    /// Starts a process in a namespace and puts it into a cgroup.
    pub fn start(cgroup: &str, namespace: &Namespace) -> Result<Self> {
        let cgroup = mount()?.join(cgroup);
        fs::create_dir_all(&cgroup).with_context(|| format!("cannot create {}", cgroup.display()))?;
        let mut running = Self { process: None, cgroup };
        running.process = Some(running.run(namespace)?);
        Ok(running)
    }

    fn run(&self, namespace: &Namespace) -> Result<Process> {
        let process =
            Process::spawn(namespace.command("sleep").arg("600").stdin(Stdio::null()).stdout(Stdio::null()))?;
        fs::write(self.cgroup.join("cgroup.procs"), process.id().to_string())?;
        Ok(process)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.process = None;
        // What is left of it is empty, and the tests' names are unique.
        let _ = fs::remove_dir(&self.cgroup);
    }
}

/// Where a cgroup can be made that holds processes.
fn mount() -> Result<PathBuf> {
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
    let found = places.iter().map(Path::new).find(|place| place.join("cgroup.procs").exists());
    Ok(found.context("no cgroups are mounted below /sys/fs/cgroup")?.to_owned())
}

/// A name of LXC's that no other test has.
pub fn name(label: &str) -> String {
    format!("{label}-{}", std::process::id())
}

/// A lab with a container behind an interface of this name, and a silent one beside it.
fn behind(lab: &Lab, interface: &str, number: u8) -> Result<traffic_tests::Container> {
    lab.bridged_as(interface, [10, 1, 0, number].into(), format!("fd00:1::{number}").parse()?)
}

#[test]
fn a_container_is_counted_under_one_id_whatever_its_interface_is_called() -> Result<()> {
    let lab = node("random-names")?;
    let id = name("web");
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    let peer = lab.bridged(900, 0, [10, 1, 0, 9].into(), "fd00:1::9".parse()?)?;
    let mut expected = (0, 0);
    // All but the first look like ids.
    for (round, interface) in (1..).zip(["vethQ7x2Ab", "veth1234567", "veth12345678"]) {
        let container = behind(&lab, interface, 1)?;
        traffic_tests::container::introduce(&[&container, &peer])?;
        let begun = Instant::now();
        let running = Running::start(&format!("lxc.payload.{id}"), container.namespace())?;
        eventually(interface, || {
            Ok(is_attached(&lab, interface)? && owner(&lab, interface)?.as_deref() == Some(&id))
        })?;
        println!("{interface}: attached {:?} after its first process", begun.elapsed());
        eventually("the daemon knows it", || {
            let counters = Counters::read(&lab)?;
            Ok(counters
                .interfaces
                .iter()
                .any(|row| row.interface == interface && row.container.as_deref() == Some(&id)))
        })?;
        let to = std::net::SocketAddr::new(peer.v4(), 0);
        let sent = udp_send(container.namespace(), peer.namespace(), to, 10 + round, 300)?;
        expected = (expected.0 + sent.packets, expected.1 + sent.l3_bytes);
        let counters = Counters::at_rest(&lab)?;
        assert_eq!(counters.class(&id, 1, "ipv4"), Amounts::outgoing(expected.0, expected.1), "{interface}");
        is_well(&lab)?;
        drop((running, container));
    }
    let log = daemon.log();
    ensure!(!log.contains("not attached"), "an owner was missed before it could be known: {log}");
    daemon.stop()
}

#[test]
fn a_veth_whose_both_ends_are_on_the_host_for_a_moment_is_one_interface() -> Result<()> {
    let lab = node("both-ends")?;
    let id = name("db");
    let inside = Namespace::new("both-ends-in")?;
    let _running = Running::start(&format!("lxc.payload.{id}"), &inside)?;
    let mut daemon = Daemon::start_with(&lab, Resync::AsShipped)?;
    daemon.settled()?;
    lab.host().ip_batch("link add vethaaaaaaa type veth peer name vethbbbbbbb\nlink set vethaaaaaaa up")?;
    daemon.settled()?;
    is_well(&lab)?;
    assert_eq!(host(&lab)?["not_counted"], serde_json::json!([]));
    lab.host().ip(&format!("link set vethbbbbbbb netns {}", inside.name()))?;
    inside.ip("link set vethbbbbbbb up")?;
    eventually("the end on the host", || is_attached(&lab, "vethaaaaaaa"))?;
    eventually("its owner", || Ok(owner(&lab, "vethaaaaaaa")?.as_deref() == Some(&id)))?;
    let counters = Counters::read(&lab)?;
    assert_eq!(counters.interfaces.len(), 1, "{:?}", counters.interfaces);
    is_well(&lab)?;
    daemon.stop()
}

#[test]
fn two_containers_in_one_namespace_have_no_owner_by_guess() -> Result<()> {
    let lab = node("two-in-one")?;
    let container = behind(&lab, "vethabcdef0", 1)?;
    let hash = |digit: char| format!("{:0>8x}{}", std::process::id(), digit.to_string().repeat(56));
    let _one = Running::start(&format!("docker/{}", hash('a')), container.namespace())?;
    let two = Running::start(&format!("docker/{}", hash('b')), container.namespace())?;
    let report = host(&lab)?;
    let reason = report["not_counted"][0]["reason"].as_str().context("a reason")?;
    ensure!(reason.contains("share its network namespace, and none of them alone owns it"), "{reason}");
    drop(two);
    assert_eq!(owner(&lab, "vethabcdef0")?, Some(hash('a')[..12].to_owned()));
    Ok(())
}

#[test]
fn what_looks_like_a_containers_and_is_not_counted_is_a_problem() -> Result<()> {
    let lab = node("left-out")?;
    let classes = lab.path("classes");
    // A name that this preset does not know, beside one that it knows.
    lab.configure(&format!("class_file = {classes:?}\n[host]\npreset = \"virtuozzo\"\n"))?;
    let _known = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let outside = Namespace::new("left-out-in")?;
    lab.host().ip(&format!("link add odd0 type veth peer name eth0 netns {}", outside.name()))?;
    lab.run_ok(&["attach"])?;
    traffic_tests::check::is_well_but(
        &lab,
        &["odd0: it looks like a container's, and is not counted: no rule"],
    )?;
    let ignored = "[[interfaces.rule]]\npattern = \"odd.*\"\nkind = \"ignore\"\n";
    lab.configure(&format!("class_file = {classes:?}\n[host]\npreset = \"virtuozzo\"\n{ignored}"))?;
    is_well(&lab)
}
