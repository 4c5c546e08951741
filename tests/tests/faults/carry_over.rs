//! Counters that move to maps of another size or layout, under traffic: nothing is lost, nothing counts
//! twice.

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, IterableMap, Map, MapData, PerCpuArray, PerCpuValues};
use rustix::process::Signal;
use serde_json::Value;
use traffic_tests::check::{
    agrees_with_kernel, eventually, is_balanced, is_well, problems, rounds, stderr, trafctl,
};
use traffic_tests::evidence::compare;
use traffic_tests::process::run_ok;
use traffic_tests::traffic::{Load, udp_send};
use traffic_tests::{Amounts, Counters, Daemon, Lab};

use crate::kills::{instants, kill_after, length_of};
use crate::node::{CLASSES, at, booked, node_with, pair};

/// Containers, interfaces, classes and addresses.
type Limits = [u32; 4];

/// `BPF_F_NO_PREALLOC`: the kernel creates no trie without it.
const NO_PREALLOC: u32 = 1;

const SMALL: Limits = [2, 4, 3, 8];

fn limits([containers, interfaces, classes, addresses]: Limits) -> String {
    format!(
        "[limits]\ncontainers = {containers}\ninterfaces = {interfaces}\nclasses = {classes}\n\
         addresses = {addresses}\n"
    )
}

/// A node with these limits.
fn limited(name: &str, attach: &str, sizes: Limits) -> Result<Lab> {
    node_with(name, &format!("attach = \"{attach}\"\n{}", limits(sizes)))
}

/// Changes the limits in the configuration.
fn change_limits(lab: &Lab, attach: &str, sizes: Limits) -> Result<()> {
    let classes = lab.path("classes");
    lab.configure(&format!(
        "class_file = \"{}\"\nattach = \"{attach}\"\n{}[drain]\ninterval = \"100ms\"\n",
        classes.display(),
        limits(sizes)
    ))
}

fn max_entries(lab: &Lab, map: &str) -> Result<u64> {
    let path = lab.bpffs().join("maps").join(map);
    let text = run_ok(Command::new("bpftool").args(["-j", "map", "show", "pinned"]).arg(path))?;
    serde_json::from_str::<Value>(&text)?["max_entries"].as_u64().context("no size")
}

fn in_force(lab: &Lab) -> Result<Limits> {
    let [containers, interfaces, counters, addresses] =
        ["CONTAINERS", "INTERFACES", "CLASS_BASES", "ADDRESSES_V4"].map(|map| max_entries(lab, map));
    let (containers, counters) = (containers?, counters?);
    let all = [containers, interfaces?, counters / containers, addresses?];
    Ok(all.map(|entries| u32::try_from(entries).unwrap_or(u32::MAX)))
}

fn epoch(lab: &Lab) -> Result<Value> {
    let status = trafctl(lab, &["status", "--format", "json"])?.stdout;
    let epoch = serde_json::from_slice::<Value>(&status)?["epoch"].clone();
    ensure!(!epoch.is_null(), "no epoch");
    Ok(epoch)
}

/// The gaps in which something was lost. A daemon that was down, or late, for longer than an interval has a
/// gap as well, in which all traffic was counted.
fn losses(lab: &Lab) -> Result<Vec<Value>> {
    let all = lab.run_json(&["gaps", "--format", "json"])?["gaps"].as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().filter(|gap| gap["size"] != Value::Null).collect())
}

#[test]
fn limits_grow_by_reload_restart_and_attach_without_losing_a_packet() -> Result<()> {
    grow(&limited("grow", "tcx", SMALL)?, "tcx")
}

#[test]
fn limits_grow_with_filters_without_losing_a_packet() -> Result<()> {
    grow(&limited("grow-clsact", "clsact", SMALL)?, "clsact")
}

fn grow(lab: &Lab, attach: &str) -> Result<()> {
    let (a, b) = pair(lab)?;
    // Before the first attach, so that the clsact qdisc is there before the traffic.
    let daemon = Daemon::start(lab)?;
    assert_eq!(in_force(lab)?, SMALL);
    let first = epoch(lab)?;
    let load = Load::start(a.namespace(), b.namespace(), at(b.v6()), 300)?;
    load.passes(200)?;
    // Each by itself, then all together. A reload of the daemon makes them larger.
    for sizes in [[5, 4, 3, 8], [5, 9, 3, 8], [5, 9, 7, 8], [5, 9, 7, 50], [11, 12, 13, 60]] {
        change_limits(lab, attach, sizes)?;
        daemon.signal(Signal::HUP)?;
        eventually("the limits are in force", || Ok(in_force(lab)? == sizes))?;
        is_well(lab)?;
        load.passes(200)?;
        ensure!(booked(lab, "101")?.out_packets <= load.packets());
    }
    // A restart does.
    daemon.stop()?;
    change_limits(lab, attach, [20, 21, 22, 70])?;
    let mut daemon = Daemon::start(lab)?;
    assert_eq!(in_force(lab)?, [20, 21, 22, 70]);
    load.passes(200)?;
    // And so does `attach`, beside a daemon with the former configuration.
    change_limits(lab, attach, [30, 31, 32, 80])?;
    lab.run_ok(&["attach"])?;
    assert_eq!(in_force(lab)?, [30, 31, 32, 80]);
    daemon.settled()?;
    load.passes(200)?;

    let sent = load.stop()?;
    let sent = Amounts::outgoing(sent.packets, sent.bytes);
    let counters = Counters::at_rest(lab)?;
    compare("datagrams while the maps grew", "the sender", sent, counters.class("101", 2, "ipv6"))?;
    is_balanced(lab)?;
    eventually("the ledger has them", || Ok(booked(lab, "101")? == sent))?;
    for interface in [a.interface(), b.interface()] {
        agrees_with_kernel(lab, &counters, interface)?;
    }
    assert_eq!(epoch(lab)?, first, "the counters are the same");
    assert_eq!(losses(lab)?, [Value::Null; 0], "nothing was lost");
    // The new room is used.
    let c = lab.bridged(103, 0, [10, 1, 0, 3].into(), "fd00:1::3".parse()?)?;
    eventually("the third container has slots", || Ok(is_well(lab).is_ok()))?;
    c.knows(&b)?;
    let third = udp_send(c.namespace(), b.namespace(), at(b.v4()), 12, 200)?;
    let counters = Counters::at_rest(lab)?;
    assert_eq!(counters.class("103", 2, "ipv4"), Amounts::outgoing(third.packets, third.l3_bytes));
    ensure!(!lab.bpffs().join("maps_next").exists(), "nothing is left over");
    daemon.stop()
}

#[test]
fn smaller_limits_are_reported_and_change_nothing() -> Result<()> {
    let lab = limited("shrink", "tcx", [8, 9, 4, 10])?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let sent = udp_send(a.namespace(), b.namespace(), at(b.v4()), 9, 100)?;
    change_limits(&lab, "tcx", [7, 9, 4, 10])?;
    lab.run_ok(&["attach"])?;
    assert_eq!(in_force(&lab)?, [8, 9, 4, 10]);
    let problems = problems(&lab)?;
    ensure!(problems.iter().any(|problem| problem.contains("containers = 7 (8 in force)")), "{problems:?}");
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 2, "ipv4"), Amounts::outgoing(sent.packets, sent.l3_bytes));
    Ok(())
}

#[test]
fn a_killed_carry_over_is_completed_by_the_next_command() -> Result<()> {
    let lab = limited("kill-grow", "tcx", [100, 100, 8, 100])?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach"])?;
    let first = epoch(&lab)?;
    let load = Load::start(a.namespace(), b.namespace(), at(b.v6()), 300)?;
    change_limits(&lab, "tcx", [101, 101, 8, 101])?;
    let length = length_of(&lab, &["attach"])?;
    let count = rounds(12, 200);
    let mut cut_short = 0;
    for (round, delay) in (102..).zip(instants(length, count)) {
        change_limits(&lab, "tcx", [round, round, 8 + round % 3 * 4, round])?;
        cut_short += u32::from(kill_after(&lab, &["attach"], delay)?);
        // Readers never see less than before.
        let before = Counters::read(&lab)?.class("101", 2, "ipv6").out_packets;
        let next = trafctl(&lab, &["attach"])?;
        ensure!(next.status.success(), "after {delay:?}: {}", stderr(&next));
        let after = Counters::read(&lab)?.class("101", 2, "ipv6").out_packets;
        ensure!(after >= before, "after {delay:?}: {after} after {before}");
        assert_eq!(in_force(&lab)?[0], round, "after {delay:?}");
        ensure!(!lab.bpffs().join("maps_next").exists(), "after {delay:?}");
    }
    ensure!(cut_short >= 3, "only {cut_short} were killed before their end");
    let sent = load.stop()?;
    let counters = Counters::at_rest(&lab)?;
    let counted = counters.class("101", 2, "ipv6");
    compare(
        "datagrams, carry-overs killed",
        "the sender",
        Amounts::outgoing(sent.packets, sent.bytes),
        counted,
    )?;
    for interface in [a.interface(), b.interface()] {
        agrees_with_kernel(&lab, &counters, interface)?;
    }
    assert_eq!(epoch(&lab)?, first);
    Ok(())
}

/// Turns the pinned maps into those of layout 2: without carried counts, and with shorter records.
fn as_layout_2(lab: &Lab) -> Result<()> {
    const META_BYTES: usize = 416;
    const RECORD: usize = 224;
    const FORMER_RECORD: usize = 216;
    let maps = lab.bpffs().join("maps");
    let mut map = Map::from_map_data(MapData::from_pin(maps.join("META"))?)?;
    let mut meta = Array::<&mut MapData, [u8; META_BYTES]>::try_from(&mut map)?;
    let mut value = meta.get(&0, 0)?;
    value[..4].copy_from_slice(&2_u32.to_ne_bytes());
    meta.set(0, value, 0)?;
    let described = value;
    for name in ["CLASS_CARRIED", "INTERFACE_CARRIED", "FAULT_CARRIED"] {
        fs::remove_file(maps.join(name))?;
    }
    let path = maps.join("INTERFACES");
    let records = Map::from_map_data(MapData::from_pin(&path)?)?;
    let records = Array::<&MapData, [u8; RECORD]>::try_from(&records)?;
    fs::remove_file(&path)?;
    let entries = records.len().to_string();
    let value_size = FORMER_RECORD.to_string();
    run_ok(Command::new("bpftool").args(["map", "create"]).arg(&path).args([
        "type",
        "array",
        "key",
        "4",
        "value",
        &value_size,
        "entries",
        &entries,
        "name",
        "INTERFACES",
    ]))?;
    let mut former = Map::from_map_data(MapData::from_pin(&path)?)?;
    let mut former = Array::<&mut MapData, [u8; FORMER_RECORD]>::try_from(&mut former)?;
    for slot in 0..records.len() {
        let record = records.get(&slot, 0)?;
        former.set(slot, *record.first_chunk().context("a record")?, 0)?;
    }
    former_class_table(lab, &described)
}

/// Puts the tries of layout 2 in place of the lines. The running program keeps its own maps.
fn former_class_table(lab: &Lab, meta: &[u8]) -> Result<()> {
    const COLUMNS_USED_AT: usize = 72;
    const COLUMN_CLASS_AT: usize = 160;
    let maps = lab.bpffs().join("maps");
    let used = u32::from_ne_bytes(meta[COLUMNS_USED_AT..][..4].try_into()?) as usize;
    let classes = &meta[COLUMN_CLASS_AT..][..used];
    let mut v4 = LpmTrie::<MapData, [u8; 4], u32>::create(100, NO_PREALLOC)?;
    let mut v6 = LpmTrie::<MapData, [u8; 16], u32>::create(100, NO_PREALLOC)?;
    for line in fs::read_to_string(lab.path("classes"))?.lines() {
        let (class, prefix) = line.split_once(' ').context("a class and a prefix")?;
        let (address, len) = prefix.split_once('/').context("a prefix")?;
        let (class, len): (u8, u32) = (class.parse()?, len.parse()?);
        let column = u32::try_from(classes.iter().position(|known| *known == class).context("a column")?)?;
        match address.parse()? {
            IpAddr::V4(address) => v4.insert(&Key::new(len, address.octets()), column, 0)?,
            IpAddr::V6(address) => v6.insert(&Key::new(len, address.octets()), column, 0)?,
        }
    }
    // The second place is the active one.
    IterableMap::map(&v4).pin(maps.join("CLASSES_V4_1"))?;
    IterableMap::map(&v6).pin(maps.join("CLASSES_V6_1"))?;
    let mut control = Array::<MapData, [u32; 2]>::create(1, 0)?;
    control.set(0, [1, SMALL[2]], 0)?;
    IterableMap::map(&control).pin(maps.join("CONTROL"))?;
    for name in ["CLASS_LINES", "CLASS_CONTROL"] {
        fs::remove_file(maps.join(name))?;
    }
    for place in 0..2 {
        let rows = maps.join(format!("CLASS_ROWS_{place}"));
        if rows.exists() {
            fs::remove_file(rows)?;
        }
    }
    Ok(())
}

/// Turns the counters of classes into those of layout 4, which has an element for each container and class.
/// The running program keeps its own map, so nothing may pass meanwhile.
fn as_layout_4(lab: &Lab) -> Result<()> {
    const COLUMNS: u32 = 16;
    let maps = lab.bpffs().join("maps");
    let mut map = Map::from_map_data(MapData::from_pin(maps.join("META"))?)?;
    let mut meta = Array::<&mut MapData, [u8; 416]>::try_from(&mut map)?;
    let mut value = meta.get(&0, 0)?;
    value[..4].copy_from_slice(&4_u32.to_ne_bytes());
    meta.set(0, value, 0)?;
    let [containers, _, columns, _] = in_force(lab)?;
    let path = maps.join("CLASS_COUNTERS");
    let blocks = Map::from_map_data(MapData::from_pin(&path)?)?;
    let blocks = PerCpuArray::<&MapData, [[[u64; 2]; COLUMNS as usize]; 4]>::try_from(&blocks)?;
    fs::remove_file(&path)?;
    let mut single = PerCpuArray::<MapData, [[u64; 2]; 4]>::create(containers * columns, 0)?;
    let of_container = columns.div_ceil(COLUMNS);
    for (slot, column) in (0..containers).flat_map(|slot| (0..columns).map(move |column| (slot, column))) {
        let block = blocks.get(&(slot * of_container + column / COLUMNS), 0)?;
        let copies: Vec<_> =
            block.iter().map(|copy| copy.map(|columns| columns[(column % COLUMNS) as usize])).collect();
        single.set(slot * columns + column, PerCpuValues::try_from(copies)?, 0)?;
    }
    IterableMap::map(&single).pin(path)?;
    Ok(())
}

#[test]
fn the_counters_of_layout_4_are_carried_over() -> Result<()> {
    // Twice: with fewer columns than a block, and with more than one block a container.
    for (name, columns) in [("layout-4", 3), ("layout-4-wide", 20)] {
        let lab = limited(name, "tcx", [3, 4, columns, 8])?;
        let (a, b) = pair(&lab)?;
        lab.run_ok(&["attach"])?;
        let v4 = udp_send(a.namespace(), b.namespace(), at(b.v4()), 31, 110)?;
        let v6 = udp_send(b.namespace(), a.namespace(), at(a.v6()), 43, 130)?;
        let before = Counters::at_rest(&lab)?;
        let (first, sizes) = (epoch(&lab)?, in_force(&lab)?);
        as_layout_4(&lab)?;
        let refused = trafctl(&lab, &["dump"])?;
        ensure!(stderr(&refused).contains("carry the counters over"), "{}", stderr(&refused));
        lab.run_ok(&["attach"])?;
        assert_eq!((epoch(&lab)?, in_force(&lab)?), (first, sizes));
        let after = Counters::at_rest(&lab)?;
        for container in ["101", "102"] {
            for (family, sent) in [("ipv4", v4), ("ipv6", v6)] {
                let was = before.class(container, 2, family);
                ensure!(was.out_packets + was.in_packets == sent.packets, "{container} {family}: {was:?}");
                assert_eq!(after.class(container, 2, family), was, "{container} {family}, {columns} columns");
            }
        }
        // More columns than a block has in the first case: a block more for each container.
        change_limits(&lab, "tcx", [3, 4, columns + 2, 8])?;
        lab.run_ok(&["attach"])?;
        change_limits(&lab, "tcx", [3, 4, columns + 20, 8])?;
        lab.run_ok(&["attach"])?;
        let more = udp_send(a.namespace(), b.namespace(), at(b.v4()), 7, 90)?;
        let last = Counters::at_rest(&lab)?;
        let expected = before.class("101", 2, "ipv4").plus(Amounts::outgoing(more.packets, more.l3_bytes));
        assert_eq!(last.class("101", 2, "ipv4"), expected, "{columns} columns");
        assert_eq!(last.class("102", 2, "ipv6"), before.class("102", 2, "ipv6"), "{columns} columns");
        agrees_with_kernel(&lab, &last, a.interface())?;
        is_well(&lab)?;
    }
    Ok(())
}

#[test]
fn the_counters_of_the_former_layout_are_carried_over_under_traffic() -> Result<()> {
    let lab = limited("layout-2", "tcx", SMALL)?;
    let (a, b) = pair(&lab)?;
    let daemon = Daemon::start(&lab)?;
    let load = Load::start(a.namespace(), b.namespace(), at(b.v6()), 300)?;
    load.passes(500)?;
    daemon.stop()?;
    let first = epoch(&lab)?;
    as_layout_2(&lab)?;
    // Whoever only reads is told what to do.
    let refused = trafctl(&lab, &["dump"])?;
    ensure!(stderr(&refused).contains("carry the counters over"), "{}", stderr(&refused));
    load.passes(500)?;
    // The upgrade, and more room at the same time.
    change_limits(&lab, "tcx", [6, 7, 8, 9])?;
    let daemon = Daemon::start(&lab)?;
    load.passes(500)?;
    assert_eq!(in_force(&lab)?, [6, 7, 8, 9]);

    let sent = load.stop()?;
    let sent = Amounts::outgoing(sent.packets, sent.bytes);
    let counters = Counters::at_rest(&lab)?;
    compare("datagrams across an upgrade", "the sender", sent, counters.class("101", 2, "ipv6"))?;
    eventually("the ledger has them", || Ok(booked(&lab, "101")? == sent))?;
    agrees_with_kernel(&lab, &counters, a.interface())?;
    agrees_with_kernel(&lab, &counters, b.interface())?;
    assert_eq!(epoch(&lab)?, first);
    assert_eq!(losses(&lab)?, [Value::Null; 0], "nothing was lost");
    // Classes can be loaded on the maps that both sets shared.
    lab.write("classes", &CLASSES.replace("2 ", "3 "))?;
    lab.run_ok(&["classes", "load"])?;
    let more = udp_send(a.namespace(), b.namespace(), at(b.v4()), 21, 150)?;
    let counters = Counters::at_rest(&lab)?;
    assert_eq!(counters.class("101", 3, "ipv4"), Amounts::outgoing(more.packets, more.l3_bytes));
    is_well(&lab)?;
    daemon.stop()
}
