//! No free slots, no memory: what is counted where, and what is reported.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use traffic_tests::check::{agrees_with_kernel, eventually, is_well, output, problems, stderr};
use traffic_tests::container::introduce;
use traffic_tests::evidence::compare;
use traffic_tests::traffic::{Load, udp_send};
use traffic_tests::{Amounts, Counters, Daemon};

use crate::node::{at, booked, node, node_with, pair};

#[test]
fn containers_without_a_slot_are_counted_in_a_fault() -> Result<()> {
    let lab = node_with("slots", "[limits]\ncontainers = 2\ninterfaces = 3\n")?;
    let (a, b) = pair(&lab)?;
    let mut daemon = Daemon::start(&lab)?;
    daemon.settled()?;
    // The third container has neither a container slot nor an interface slot: one of the three is the shared
    // one.
    let c = lab.bridged(103, 0, [10, 1, 0, 3].into(), "fd00:1::3".parse()?)?;
    introduce(&[&a, &b, &c])?;
    daemon.logs("no counter slot is free")?;
    eventually("the interface is attached", || {
        Ok(problems(&lab)?.iter().all(|problem| !problem.contains("not attached")))
    })?;
    let known = udp_send(a.namespace(), b.namespace(), at(b.v4()), 40, 300)?;
    let unknown = udp_send(c.namespace(), b.namespace(), at(b.v4()), 30, 500)?;
    let counters = Counters::at_rest(&lab)?;
    let fault = counters.fault("(other)", "container_table_full");
    let all = Amounts::outgoing(unknown.packets, unknown.l3_bytes);
    compare("datagrams of a container without a slot", "the sender", all, fault)?;
    assert_eq!(counters.class("101", 2, "ipv4"), Amounts::outgoing(known.packets, known.l3_bytes));
    let received = Amounts::incoming(known.packets + unknown.packets, known.l3_bytes + unknown.l3_bytes);
    assert_eq!(counters.class("102", 2, "ipv4"), received, "its peer is counted as before");
    eventually("the ledger has the others", || Ok(booked(&lab, "102")? == received))?;
    // The ledger also has packets without a class.
    let query = "select sum(out_packets), sum(out_bytes) from fault_5min";
    eventually("the ledger has the fault", || {
        let text = output(Command::new("sqlite3").arg(lab.state_dir().join("ledger.sqlite")).arg(query))?;
        let text = String::from_utf8(text.stdout)?;
        Ok(text.trim() == format!("{}|{}", unknown.packets, unknown.l3_bytes))
    })?;
    agrees_with_kernel(&lab, &counters, a.interface())?;
    daemon.stop()
}

#[test]
fn a_retired_containers_successor_gets_a_slot_when_all_are_taken() -> Result<()> {
    let lab = node_with("retire-full", "[limits]\ncontainers = 2\n")?;
    let (a, b) = pair(&lab)?;
    Daemon::start(&lab)?.stop()?;
    let old = udp_send(a.namespace(), b.namespace(), at(b.v4()), 20, 300)?;
    lab.run_ok(&["container", "retire", "101", "--yes"])?;
    // The counts of the former owner belong to no container, so the sums of the interface do not balance.
    let new = udp_send(a.namespace(), b.namespace(), at(b.v4()), 31, 400)?;
    let counters = Counters::read(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), Amounts::outgoing(new.packets, new.l3_bytes));
    let full = counters.faults.iter().filter(|row| row.fault == "container_table_full");
    assert_eq!(full.count(), 0, "{counters:#?}");
    let rows = lab.run_json(&["report", "--format", "json"])?;
    let before = rows["rows"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|row| row["container"].as_str().is_some_and(|name| name.starts_with("101@")));
    assert_eq!(before.context("no row of the former owner")?["out"]["packets"].as_u64(), Some(old.packets));
    is_well(&lab)
}

#[test]
fn an_address_without_room_is_reported_and_does_not_affect_others() -> Result<()> {
    let lab = node_with("addresses", "[limits]\naddresses = 2\n")?;
    let venet = lab.venet()?;
    let a = venet.container("301", [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    let b = venet.container("302", [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
    for (id, address) in [
        ("301", "10.1.0.1"),
        ("301", "fd00:1::1"),
        ("302", "fd00:1::2"),
        ("302", "10.1.0.2"),
        ("303", "10.1.0.3"),
    ] {
        lab.run_ok(&["address", "add", id, address])?;
    }
    let mut daemon = Daemon::start(&lab)?;
    daemon.logs("no room for 1 of the containers' addresses (10.1.0.3/32, ...)")?;
    let reported = problems(&lab)?;
    ensure!(reported.len() == 1 && reported[0].contains("10.1.0.3/32"), "{reported:#?}");
    let v4 = udp_send(a.namespace(), b.namespace(), at(b.v4()), 20, 300)?;
    let v6 = udp_send(b.namespace(), a.namespace(), at(a.v6()), 30, 400)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("301", 2, "ipv4"), Amounts::outgoing(v4.packets, v4.l3_bytes));
    assert_eq!(counters.class("302", 2, "ipv6"), Amounts::outgoing(v6.packets, v6.l3_bytes));
    eventually("drains continue", || Ok(booked(&lab, "302")?.out_packets == v6.packets))?;

    // A removed address makes room, also for the one that had none.
    lab.run_ok(&["address", "remove", "10.1.0.1"])?;
    is_well(&lab)?;
    assert_eq!(daemon.log().matches("no room for").count(), 1, "{}", daemon.log());
    daemon.stop_after_errors()
}

/// A memory control group with a limit. Its drop removes it.
struct SmallGroup(PathBuf);

impl SmallGroup {
    fn new(bytes: u64) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("trafctl-lab-{}-{number}", std::process::id());
        // Mounted as version 1 with a tree of its own, or as version 2.
        let (parent, limit) =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
                .into_iter()
                .find(|(parent, _)| PathBuf::from(parent).join("cgroup.procs").exists())
                .context("the test needs memory control groups, which this kernel lacks")?;
        let group = Self(PathBuf::from(parent).join(name));
        fs::create_dir(&group.0).with_context(|| format!("make {}", group.0.display()))?;
        fs::write(group.0.join(limit), bytes.to_string())
            .with_context(|| format!("limit the memory of {}", group.0.display()))?;
        Ok(group)
    }

    /// The same command in the group from its first instruction.
    fn run(&self, command: &Command) -> Command {
        let mut inside = Command::new("sh");
        inside.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.0.join("cgroup.procs"));
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }
}

impl Drop for SmallGroup {
    fn drop(&mut self) {
        // The group is empty by now. If it is not, it stays.
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_process_without_memory_for_maps_leaves_no_usable_state() -> Result<()> {
    // The counters take 205 MB on two CPUs; the group allows 24.
    let lab = node_with("memory", "[limits]\ncontainers = 100000\n")?;
    let (a, b) = pair(&lab)?;
    let group = SmallGroup::new(24 << 20)?;
    for command in [["attach"], ["run"]] {
        let output = output(&mut group.run(&lab.trafctl(&command)?))?;
        let reported = stderr(&output);
        // The kernel either refuses the map or kills the process. Neither is a success.
        match output.status.code() {
            None => {}
            Some(1) => {
                ensure!(
                    reported.contains("[limits]") && reported.matches("trafctl: ").count() == 1,
                    "{reported}"
                );
                let left = fs::read_dir(lab.bpffs().join("maps"))?.count();
                assert_eq!(left, 0, "{command:?} left maps");
            }
            Some(code) => anyhow::bail!("status {code}: {reported}"),
        }
        assert_eq!(lab.trafctl(&["dump"])?.output()?.status.code(), Some(1), "incomplete state is not read");
    }
    // With limits that fit, it works.
    let text = fs::read_to_string(lab.config())?;
    lab.configure(&text.replace("100000", "100"))?;
    lab.run_ok(&["attach"])?;
    let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), 25, 300)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), Amounts::outgoing(sent.packets, sent.l3_bytes));
    agrees_with_kernel(&lab, &counters, a.interface())?;
    // A daemon that the kernel killed did not end by itself, unless it was killed before it said that it runs.
    let problems = problems(&lab)?;
    ensure!(problems.iter().all(|problem| problem.contains("ended at some time after")), "{problems:#?}");
    Ok(())
}

#[test]
fn a_class_table_without_memory_leaves_the_old_one_in_force() -> Result<()> {
    let lab = node("memcg")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let load = Load::start(a.namespace(), b.namespace(), at(b.v6()), 300)?;
    let table = lab.write("other", "9 0.0.0.0/0\n9 ::/0\n")?;
    let before = lab.run_ok(&["classes", "list"])?;
    // The index of a table takes 16 MiB.
    let group = SmallGroup::new(12 << 20)?;
    let load_it =
        lab.trafctl(&["classes", "load", "--yes", table.to_str().context("the path is not UTF-8")?])?;
    let output = output(&mut group.run(&load_it))?;
    let reported = stderr(&output);
    ensure!(!output.status.success(), "the table was loaded: {reported}");
    ensure!(
        output.status.code().is_none() || reported.contains("the table in force stays in force"),
        "{}: {reported}",
        output.status
    );
    assert_eq!(lab.run_ok(&["classes", "list"])?, before);
    is_well(&lab)?;
    // With memory it works at once, under the same traffic.
    lab.run_ok(&["classes", "load", "--yes", table.to_str().context("the path is not UTF-8")?])?;
    let sent = load.stop()?;
    let counters = Counters::at_rest(&lab)?;
    let both = counters.class("101", 2, "ipv6").plus(counters.class("101", 9, "ipv6"));
    let row = counters.interface("veth101.0");
    assert_eq!(both.out_packets + row.out_unseen_skbs, sent.packets);
    assert_eq!(both.out_packets, counters.container("101").out_packets);
    agrees_with_kernel(&lab, &counters, a.interface())?;
    is_well(&lab)
}
