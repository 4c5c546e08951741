//! The counters themselves: beyond 32 bits, and on any CPU.

use anyhow::{Context, Result, ensure};
use aya::Pod;
use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use traffic_tests::check::{agrees_with_kernel, eventually, is_well};
use traffic_tests::evidence::compare;
use traffic_tests::traffic::{tcp_exchange, udp_send};
use traffic_tests::{Amounts, Counters, Daemon, Lab};

use crate::node::{at, booked, node, pair};

/// An element of `CLASS_COUNTERS`: packets and bytes of 16 columns, for in and out of IPv4, then of IPv6.
type Block = [u64; 128];
/// An element of `INTERFACE_COUNTERS`.
type Totals = [u64; 8];

/// Positions of the packets of column 0 in `CLASS_COUNTERS`, by family, in and out. Bytes follow.
const CLASS: [usize; 4] = [0, 32, 64, 96];
/// Positions of wire packets, wire bytes, buffers and buffer bytes in `INTERFACE_COUNTERS`, in and out.
const INTERFACE: [[usize; 4]; 2] = [[0, 1, 2, 3], [4, 5, 6, 7]];

/// Changes an element of a pinned per-CPU map, on each CPU.
fn change<E: Pod>(lab: &Lab, map: &str, index: u32, change: impl Fn(usize, &mut E)) -> Result<()> {
    let mut map = Map::from_map_data(MapData::from_pin(lab.bpffs().join("maps").join(map))?)?;
    let mut array = PerCpuArray::<&mut MapData, E>::try_from(&mut map)?;
    let mut copies: Vec<E> = array.get(&index, 0)?.iter().copied().collect();
    copies.iter_mut().enumerate().for_each(|(cpu, copy)| change(cpu, copy));
    Ok(array.set(index, PerCpuValues::try_from(copies)?, 0)?)
}

/// An element of a map, on each CPU.
fn copies<E: Pod>(lab: &Lab, map: &str, index: u32) -> Result<Vec<E>> {
    let map = Map::from_map_data(MapData::from_pin(lab.bpffs().join("maps").join(map))?)?;
    let array = PerCpuArray::<&MapData, E>::try_from(&map)?;
    Ok(array.get(&index, 0)?.iter().copied().collect())
}

/// The first element of a map that is not zero.
fn element_in_use<const WORDS: usize>(lab: &Lab, map: &str, elements: u32) -> Result<u32>
where
    [u64; WORDS]: Pod,
{
    for index in 0..elements {
        if copies::<[u64; WORDS]>(lab, map, index)?.iter().flatten().any(|&value| value != 0) {
            return Ok(index);
        }
    }
    anyhow::bail!("no element of {map} is in use")
}

#[test]
fn both_counters_cross_their_32_bit_boundaries() -> Result<()> {
    // The distance to the boundary on each CPU, less than what will be sent.
    const PACKETS_BELOW: u64 = 20;
    const BYTES_BELOW: u64 = 9000;
    let lab = node("boundary")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach", "veth101.0"])?;
    // One packet shows which elements belong to the container.
    udp_send(a.namespace(), b.namespace(), at(b.v4()), 1, 100)?;
    let block = element_in_use::<128>(&lab, "CLASS_COUNTERS", 4)?;
    let column = copies::<Block>(&lab, "CLASS_COUNTERS", block)?
        .iter()
        .find_map(|copy| (0..16).find(|column| copy[CLASS[1] + column * 2] != 0))
        .context("no column is in use")?;
    let positions = CLASS.map(|at| at + column * 2);
    let interface = element_in_use::<8>(&lab, "INTERFACE_COUNTERS", 8)?;
    let cpus = copies::<Block>(&lab, "CLASS_COUNTERS", block)?.len() as u64;
    let (packets, bytes) = ((1 << 32) - PACKETS_BELOW, (1 << 32) - BYTES_BELOW);
    change(&lab, "CLASS_COUNTERS", block, |_, copy: &mut Block| {
        for at in positions {
            (copy[at], copy[at + 1]) = (packets, bytes);
        }
    })?;
    change(&lab, "INTERFACE_COUNTERS", interface, |_, copy: &mut Totals| {
        for [wire_packets, wire_bytes, skbs, skb_bytes] in INTERFACE {
            // Both families pass this interface.
            (copy[wire_packets], copy[wire_bytes]) = (2 * packets, 2 * bytes);
            (copy[skbs], copy[skb_bytes]) = (packets, bytes);
        }
    })?;
    let seeded = Counters::at_rest(&lab)?;
    let whole = Amounts::both((cpus * packets, cpus * bytes), (cpus * packets, cpus * bytes));
    assert_eq!(seeded.class("101", 2, "ipv4"), whole, "the CPUs' copies are summed as 64 bits");

    let daemon = Daemon::start(&lab)?;
    let mut expected = [whole, whole];
    // On each CPU, until each of its values has crossed.
    let before = sched_getaffinity(None)?;
    for cpu in 0..usize::try_from(cpus)? {
        pin_to(cpu)?;
        for (family, (to, from)) in [(b.v4(), a.v4()), (b.v6(), a.v6())].into_iter().enumerate() {
            let out = udp_send(a.namespace(), b.namespace(), at(to), 50, 700)?;
            let back = udp_send(b.namespace(), a.namespace(), at(from), 40, 600)?;
            expected[family] = expected[family]
                .plus(Amounts::both((back.packets, back.l3_bytes), (out.packets, out.l3_bytes)));
        }
    }
    sched_setaffinity(None, &before)?;
    let counters = Counters::at_rest(&lab)?;
    let what = "IPv4 across 2^32 on every CPU, from a seed";
    compare(what, "the seed and the senders", expected[0], counters.class("101", 2, "ipv4"))?;
    let what = "IPv6 across 2^32 on every CPU, from a seed";
    compare(what, "the seed and the senders", expected[1], counters.class("101", 2, "ipv6"))?;
    for copy in copies::<Block>(&lab, "CLASS_COUNTERS", block)? {
        let values = positions.map(|at| (copy[at], copy[at + 1]));
        let crossed = values.iter().all(|&(packets, bytes)| packets > (1 << 32) && bytes > (1 << 32));
        ensure!(crossed, "{values:?}");
    }
    // The ledger has all of it.
    let total = expected[0].plus(expected[1]);
    eventually("the ledger has it", || Ok(booked(&lab, "101")? == total))?;
    let passed = counters.interface("veth101.0").amounts;
    assert_eq!(passed, total);
    daemon.stop()
}

fn pin_to(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("run on CPU {cpu} alone"))
}

#[test]
fn a_sender_that_moves_between_cpus_is_counted_exactly() -> Result<()> {
    let lab = node("affinity")?;
    let (a, b) = pair(&lab)?;
    lab.run_ok(&["attach", "veth101.0"])?;
    let before = sched_getaffinity(None)?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| before.is_set(cpu)).collect();
    let mut sent = Amounts::default();
    for round in 0..6 {
        pin_to(cpus[round % cpus.len()])?;
        let count = udp_send(a.namespace(), b.namespace(), at(b.v4()), 100 + round as u64, 300)?;
        sent = sent.plus(Amounts::outgoing(count.packets, count.l3_bytes));
        let count = tcp_exchange(a.namespace(), b.namespace(), at(b.v4()), 400_000, 30_000)?;
        sent = sent.plus(Amounts::both(
            (count.server.segments, count.server.l3_bytes),
            (count.client.segments, count.client.l3_bytes),
        ));
    }
    sched_setaffinity(None, &before)?;
    let counters = Counters::at_rest(&lab)?;
    let what = "UDP and TCP from each CPU in turn";
    compare(what, "sender and sockets", sent, counters.class("101", 2, "ipv4"))?;
    agrees_with_kernel(&lab, &counters, a.interface())?;
    // Every CPU has counted, and there is an element for every possible CPU.
    let index = element_in_use::<8>(&lab, "INTERFACE_COUNTERS", 8)?;
    let by_cpu: Vec<u64> = copies::<Totals>(&lab, "INTERFACE_COUNTERS", index)?
        .iter()
        .map(|copy| copy[INTERFACE[1][2]])
        .collect();
    ensure!(cpus.iter().all(|&cpu| by_cpu[cpu] > 0), "{by_cpu:?}");
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last: usize = possible.trim().rsplit(['-', ',']).next().context("a range")?.parse()?;
    assert_eq!(by_cpu.len(), last + 1);
    is_well_but_for_the_other(&lab)
}

/// Only one of the two interfaces is attached, so that its elements are easy to find.
fn is_well_but_for_the_other(lab: &Lab) -> Result<()> {
    lab.run_ok(&["attach"])?;
    is_well(lab)
}
