//! Part 2: real packets from 100 containers through the node; the influence of one container on the others;
//! and a TCP connection with segmentation offload.

mod node;
mod rivals;
mod sender;
mod ways;

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{LinkOrder, TcAttachType, tc::TcAttachOptions};
use traffic_common::{Family, bench::Address};
use traffic_tests::{Counters, traffic::tcp_transfer};

pub use self::{
    node::{CONTAINERS, Node, interface},
    sender::Sender,
};
use self::{
    node::{WORLD, id},
    sender::Sent,
    ways::Way,
};
use crate::{
    geo,
    program::{Kernel, Loaded, Variant, ZIPF_PEERS, fill_trie},
    progress::Progress,
    random::{Random, Zipf},
    results::Results,
    statistics::{differences, ratios},
    table::{CLASSES, Nesting, Reference, Table, words},
};

/// The name of the packet rate.
const RATE: &str = "packets";
/// The name of the CPU time per packet.
const CPU: &str = "packets, CPU";
/// The name of the throughput.
const TCP: &str = "tcp";
/// The name of the CPU time per packet of other containers, after one of them has sent.
const NEIGHBOUR: &str = "a neighbour's packet, CPU";
/// What that container has sent.
const FRIENDLY: &str = "after as many to one peer";
const HOSTILE: &str = "after as many to peers at random";
/// Zipf peers, and a random table.
pub const RANDOM: &str = "zipf/100000";
/// Zipf peers, and all countries in this many classes.
pub const REAL: &str = "zipf/geo:16";
const REAL_CLASSES: u8 = 16;
/// Room for class 0 beside these.
const CONFIG: &str = "class_order = \"longest-prefix\"\n[limits]\nclasses = 17\n";
const PREFIXES: usize = 100_000;
const TCP_BYTES: u64 = 1 << 30;

/// Packets sent in a row through one node: about 50 ms, of which little is spent to fill the caches.
const SLICE: usize = 12_800;

/// Packets sent by the one container and then by the others: more than enough to evict their data from the
/// nearest caches.
const BURST: usize = 640;

/// The extent of the measurement.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds.
    pub rounds: usize,
    /// Slices of packets in each sample, each of which is sent twice.
    pub slices: usize,
}

/// The name for the same packets, alternating, through a node without a program.
fn base(case: &str) -> String {
    format!("{case}, nothing attached")
}

/// The part of the packet rate that a way of counting leaves, in each round. The sender does nothing but send, so
/// packets for the same CPU time are the rate of a machine that has nothing else to do.
pub fn kept(results: &Results, case: &str, variant: &str) -> Option<Vec<f64>> {
    let (with, without) = (results.get(CPU, case, variant)?, results.get(CPU, &base(case), variant)?);
    Some(ratios(without, with, f64::MIN_POSITIVE))
}

/// The CPU time that a way of counting adds to a packet, in nanoseconds, in each round.
pub fn added(results: &Results, variant: &str) -> Option<Vec<f64>> {
    Some(differences(results.get(CPU, RANDOM, variant)?, results.get(CPU, &base(RANDOM), variant)?))
}

/// The growth of the CPU time per packet of others after hostile traffic, relative to friendly traffic, in
/// each round.
pub fn slowed(results: &Results, variant: &str) -> Option<Vec<f64>> {
    let (hostile, friendly) =
        (results.get(NEIGHBOUR, HOSTILE, variant)?, results.get(NEIGHBOUR, FRIENDLY, variant)?);
    Some(ratios(hostile, friendly, f64::MIN_POSITIVE))
}

/// Runs the measurement.
pub fn run(plan: &Plan, results: &mut Results, progress: &Progress) -> Result<()> {
    let table = geo::table(Family::Ipv4, REAL_CLASSES)?;
    progress.note("packets, real table: making 100 containers");
    Bench::new(REAL, &table)?.rounds(&[Way::Null, Way::Trafctl], plan, results, progress)?;
    progress.note("packets: making 100 containers");
    let table = Table::new(Family::Ipv4, PREFIXES, Nesting::Avoided, 11);
    let mut bench = Bench::new(RANDOM, &table)?;
    bench.load_rivals(&table)?;
    bench.rounds(&Way::ALL, plan, results, progress)?;
    for round in 0..plan.rounds {
        progress.note(&format!("neighbours: round {} of {}", round + 1, plan.rounds));
        for way in [Way::Nothing, Way::Trafctl] {
            bench
                .neighbours(&table, way, plan.slices * SLICE / BURST, results)
                .with_context(|| format!("neighbours with {}", way.name()))?;
        }
    }
    for round in 0..plan.rounds {
        progress.note(&format!("tcp: round {} of {}", round + 1, plan.rounds));
        for way in [Way::Nothing, Way::Null, Way::Trafctl] {
            bench.tcp(way, results).with_context(|| format!("TCP with {}", way.name()))?;
        }
    }
    Ok(())
}

/// The first of these addresses that a node routes.
pub fn routed(mut address: impl FnMut() -> u128) -> u128 {
    loop {
        let address = address();
        if !matches!(address >> 120, 0 | 10 | 127 | 224..) {
            return address;
        }
    }
}

/// Both orders, so that neither is always second.
fn alternately(
    number: usize,
    one: impl FnOnce() -> Result<Sent>,
    other: impl FnOnce() -> Result<Sent>,
) -> Result<(Sent, Sent)> {
    if number.is_multiple_of(2) {
        let one = one()?;
        Ok((one, other()?))
    } else {
        let other = other()?;
        Ok((one()?, other))
    }
}

/// The sums of the middle half of some pairs, by their difference, so that a disturbance of one does not
/// count.
fn middle(mut pairs: Vec<(Sent, Sent)>) -> (Sent, Sent) {
    let difference = |(with, base): &(Sent, Sent)| with.cost() - base.cost();
    pairs.sort_by(|a, b| difference(a).total_cmp(&difference(b)));
    let quarter = pairs.len() / 4;
    let middle = &pairs[quarter..pairs.len() - quarter];
    middle.iter().fold((Sent::default(), Sent::default()), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1))
}

struct Bench {
    case: &'static str,
    node: Node,
    sender: Sender,
    /// The node without a program.
    _idle: Node,
    idle_sender: Sender,
    null: Loaded,
    trie: Loaded,
    peers: Vec<u128>,
    zipf: Zipf,
    random: Random,
    reference: Reference,
}

impl Bench {
    fn new(case: &'static str, table: &Table) -> Result<Self> {
        let node = Node::new(CONFIG)?;
        let host = node.lab.host();
        let classes = node.lab.write("classes", &table.class_file())?;
        node.lab.configure(&format!("class_file = {classes:?}\n{CONFIG}"))?;
        node.lab.run_ok(&["attach"])?;
        let index = host.ip(&format!("-o link show {}", interface(0)))?;
        let ifindex = index.split(':').next().context("no index")?.trim().parse()?;
        let kernel = Kernel::open(node.lab.bpffs(), ifindex)?;
        fill_trie(&kernel, table)?;
        let load = |variant| kernel.load(variant, Family::Ipv4, false);
        let (null, trie) = (load(Variant::Null)?, load(Variant::Trie)?);
        node.lab.run_ok(&["detach"])?;
        let _idle = Node::new("")?;
        let (sender, idle_sender) = (Sender::new(&node)?, Sender::new(&_idle)?);
        let mut random = Random::new(0x5eed);
        let peers = (0..ZIPF_PEERS).map(|_| routed(|| table.address(&mut random))).collect();
        let (zipf, reference) = (Zipf::new(ZIPF_PEERS), table.reference());
        Ok(Self { case, node, sender, _idle, idle_sender, null, trie, peers, zipf, random, reference })
    }

    /// Prepares the other methods.
    fn load_rivals(&self, table: &Table) -> Result<()> {
        let host = self.node.lab.host();
        rivals::load_nft_map(host, table)?;
        rivals::load_nft_tables(host, table)?;
        rivals::load_ipset(host, table)
    }

    fn rounds(
        &mut self,
        ways: &[Way],
        plan: &Plan,
        results: &mut Results,
        progress: &Progress,
    ) -> Result<()> {
        for round in 0..plan.rounds {
            progress.note(&format!("packets, {}: round {} of {}", self.case, round + 1, plan.rounds));
            for number in 0..ways.len() {
                let way = ways[(number + round) % ways.len()];
                self.sample(way, plan.slices * SLICE, results)
                    .with_context(|| format!("{} with {}", self.case, way.name()))?;
            }
        }
        Ok(())
    }

    fn sample(&mut self, way: Way, packets: usize, results: &mut Results) -> Result<()> {
        let drawn: Vec<u128> = (0..packets).map(|_| self.peers[self.zipf.draw(&mut self.random)]).collect();
        let before = self.counted(way)?;
        let addresses: Vec<Address> = drawn.iter().map(|&address| words(address)).collect();
        let mut pair = (Sent::default(), Sent::default());
        self.attached(way, |bench| {
            pair = bench.in_turn(&addresses, way.containers())?;
            Ok(())
        })?;
        let (with, without) = pair;
        for (part, unit, figure) in [
            (RATE, "packets/s", Sent::rate as fn(&Sent) -> f64),
            (CPU, "ns/packet", Sent::cost as fn(&Sent) -> f64),
        ] {
            results.push(part, self.case, way.name(), (figure(&with), unit));
            results.push(part, &base(self.case), way.name(), (figure(&without), unit));
        }
        let after = self.counted(way)?;
        let counted: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        let mut expected = vec![0; usize::from(CLASSES.max(REAL_CLASSES)) + 1];
        for &address in &drawn {
            expected[usize::from(self.reference.class(address))] += 1;
        }
        match way {
            Way::Trafctl | Way::Trie => {
                ensure!(counted == expected, "counted {counted:?} by class instead of {expected:?}");
            }
            // The counters are complete before the chain is deleted. This does not distinguish classes.
            Way::NftMap => {
                ensure!(counted.iter().sum::<u64>() == expected.iter().sum::<u64>(), "nftables lost packets");
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends the same packets alternately, one slice through the node and one through the node without a
    /// program: a virtual machine may be a quarter slower for seconds. The first pair meets cold caches and
    /// does not count. Of the others the middle half counts, by their difference, so that a disturbance of
    /// one slice does not.
    fn in_turn(&self, addresses: &[Address], containers: usize) -> Result<(Sent, Sent)> {
        let mut pairs = Vec::new();
        for (number, slice) in addresses.chunks(SLICE).enumerate() {
            let with = |bench: &Self| bench.sender.send(slice, containers);
            let base = |bench: &Self| bench.idle_sender.send(slice, containers);
            pairs.push(alternately(number, || with(self), || base(self))?);
        }
        pairs.remove(0);
        Ok(middle(pairs))
    }

    /// One container sends to ever new peers, which no cache holds, or to a single peer. Then the others send
    /// their usual packets.
    fn neighbours(&mut self, table: &Table, way: Way, bursts: usize, results: &mut Results) -> Result<()> {
        let friendly = vec![words(self.peers[0]); BURST];
        let bursts: Vec<[Vec<Address>; 2]> = (0..bursts)
            .map(|_| {
                let hostile = (0..BURST).map(|_| words(table.address(&mut self.random))).collect();
                let others =
                    (0..BURST).map(|_| words(self.peers[self.zipf.draw(&mut self.random)])).collect();
                [hostile, others]
            })
            .collect();
        let before: u64 = self.counted(way)?.iter().sum();
        let mut pair = (Sent::default(), Sent::default());
        self.attached(way, |bench| {
            let mut pairs = Vec::new();
            for (number, [hostile, others]) in bursts.iter().enumerate() {
                let after = |first: &[Address]| bench.sender.send_after(first, others);
                pairs.push(alternately(number, || after(hostile), || after(&friendly))?);
            }
            pair = middle(pairs);
            Ok(())
        })?;
        let counted = self.counted(way)?.iter().sum::<u64>() - before;
        let sent = u64::try_from(4 * BURST * bursts.len())?;
        ensure!(way == Way::Nothing || counted == sent, "counted {counted} of {sent}");
        results.push(NEIGHBOUR, HOSTILE, way.name(), (pair.0.cost(), "ns/packet"));
        results.push(NEIGHBOUR, FRIENDLY, way.name(), (pair.1.cost(), "ns/packet"));
        Ok(())
    }

    /// Runs a closure while a way of counting is attached.
    fn attached(&mut self, way: Way, work: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let program = match way {
            Way::Null => Some(&mut self.null),
            Way::Trie => Some(&mut self.trie),
            _ => None,
        };
        let mut links = Vec::new();
        if let Some(loaded) = program {
            let program = loaded.program()?;
            self.node.lab.host().enter(|| {
                for number in 0..CONTAINERS.into() {
                    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
                    let link =
                        program.attach_with_options(&interface(number), TcAttachType::Ingress, order)?;
                    links.push(program.take_link(link)?);
                }
                Ok(())
            })?;
        }
        let lab = &self.node.lab;
        match way {
            Way::Nothing | Way::Null | Way::Trie => {}
            Way::Trafctl => drop(lab.run_ok(&["attach"])?),
            Way::NftMap => rivals::attach_nft_map(lab.host())?,
            Way::Ipset => rivals::attach_ipset(lab.host())?,
            Way::NftTables => rivals::attach_nft_tables(lab.host())?,
        }
        work(self)?;
        match way {
            Way::Nothing | Way::Null | Way::Trie => drop(links),
            Way::Trafctl => drop(lab.run_ok(&["detach"])?),
            Way::NftMap => rivals::detach_nft_map(lab.host())?,
            Way::Ipset => rivals::detach_ipset(lab.host())?,
            Way::NftTables => rivals::detach_nft_tables(lab.host())?,
        }
        Ok(())
    }

    /// Packets by class, by the way's own counters. nftables has only their sum.
    fn counted(&self, way: Way) -> Result<Vec<u64>> {
        match way {
            Way::Trafctl | Way::Trie => {
                let counters = Counters::read(&self.node.lab)?;
                let of_class = |class| {
                    // Peers are drawn at random, so a container may have met no peer of a class.
                    (0..CONTAINERS.into())
                        .map(|number| {
                            counters.class_or_zero(&id(number).to_string(), class, "ipv4").out_packets
                        })
                        .sum()
                };
                Ok((0..=CLASSES.max(REAL_CLASSES)).map(of_class).collect())
            }
            Way::NftMap => Ok(vec![rivals::nft_map_packets(self.node.lab.host())?]),
            _ => Ok(Vec::new()),
        }
    }

    fn tcp(&mut self, way: Way, results: &mut Results) -> Result<()> {
        self.attached(way, |bench| {
            let start = Instant::now();
            let address = (WORLD, 0).into();
            let count = tcp_transfer(&bench.node.containers[0], &bench.node.world, address, TCP_BYTES)?;
            let gigabits = count.payload_bytes as f64 * 8.0 / 1e9;
            results.push(TCP, "1 GiB", way.name(), (gigabits / start.elapsed().as_secs_f64(), "Gbit/s"));
            Ok(())
        })
    }
}
