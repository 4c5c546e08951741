//! Part 2: real packets, out of 100 containers, through the node and away; and a TCP connection with segmentation left to
//! the device.

mod node;
mod rivals;
mod sender;

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{LinkOrder, TcAttachType, tc::TcAttachOptions};
use traffic_common::{Family, bench::Address};
use traffic_tests::{Counters, traffic::tcp_transfer};

use self::{
    node::{CONTAINERS, Node, WORLD, id, interface},
    sender::Sender,
};
use crate::{
    program::{Kernel, Loaded, Variant, ZIPF_PEERS},
    progress::Progress,
    random::{Random, Zipf},
    results::Results,
    table::{CLASSES, Nesting, Reference, Table, words},
};

/// Name of the packets a second.
pub const RATE: &str = "packets";
/// Name of the CPU time a packet.
pub const CPU: &str = "packets, CPU";
/// Name of the throughput.
const TCP: &str = "tcp";
/// What is drawn from.
pub const CASE: &str = "zipf/100000";
const PREFIXES: usize = 100_000;
const TCP_BYTES: u64 = 1 << 30;

/// How much of it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds.
    pub rounds: usize,
    /// Packets a sample.
    pub packets: usize,
}

/// What hangs on the containers' interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Nothing,
    Null,
    Trafctl,
    Trie,
    NftMap,
    Ipset,
    NothingOnFew,
    NftTables,
}

impl Way {
    const ALL: [Self; 8] = [
        Self::Nothing,
        Self::Null,
        Self::Trafctl,
        Self::Trie,
        Self::NftMap,
        Self::Ipset,
        Self::NothingOnFew,
        Self::NftTables,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Null => "null program",
            Self::Trafctl => "trafctl",
            Self::Trie => "trie",
            Self::NftMap => "nft map",
            Self::Ipset => "ipset",
            Self::NothingOnFew => "nothing, 4 containers",
            Self::NftTables => "nft table a container",
        }
    }

    /// How many containers send.
    const fn containers(self) -> usize {
        match self {
            Self::NothingOnFew | Self::NftTables => rivals::OWN_TABLES,
            _ => CONTAINERS as usize,
        }
    }
}

/// What a variant's added cost is measured from.
pub fn base(variant: &str) -> &'static str {
    if variant == Way::NftTables.name() { Way::NothingOnFew.name() } else { Way::Nothing.name() }
}

/// Measures.
pub fn run(plan: &Plan, results: &mut Results, progress: &Progress) -> Result<()> {
    progress.note("packets: making 100 containers");
    let table = Table::new(Family::Ipv4, PREFIXES, Nesting::Avoided, 11);
    let mut bench = Bench::new(&table)?;
    for round in 0..plan.rounds {
        progress.note(&format!("packets: round {} of {}", round + 1, plan.rounds));
        for number in 0..Way::ALL.len() {
            let way = Way::ALL[(number + round) % Way::ALL.len()];
            bench.sample(way, plan.packets, results).with_context(|| format!("with {}", way.name()))?;
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

struct Bench {
    node: Node,
    sender: Sender,
    null: Loaded,
    trie: Loaded,
    peers: Vec<u128>,
    zipf: Zipf,
    random: Random,
    reference: Reference,
}

impl Bench {
    fn new(table: &Table) -> Result<Self> {
        let file = "class_order = \"longest-prefix\"\n[limits]\nclasses = 16\n";
        let node = Node::new(file)?;
        let host = node.lab.host();
        let classes = node.lab.write("classes", &table.class_file())?;
        node.lab.configure(&format!("class_file = {classes:?}\n{file}"))?;
        rivals::load_nft_map(host, table)?;
        rivals::load_nft_tables(host, table)?;
        rivals::load_ipset(host, table)?;
        node.lab.run_ok(&["attach"])?;
        let index = host.ip(&format!("-o link show {}", interface(0)))?;
        let ifindex = index.split(':').next().context("an index")?.trim().parse()?;
        let kernel = Kernel::open(node.lab.bpffs(), ifindex)?;
        let load = |variant| kernel.load(variant, Family::Ipv4, false);
        let (null, trie) = (load(Variant::Null)?, load(Variant::Trie)?);
        node.lab.run_ok(&["detach"])?;
        let sender = Sender::new(&node)?;
        let mut random = Random::new(0x5eed);
        let peers = (0..ZIPF_PEERS).map(|_| table.address(&mut random)).collect();
        let (zipf, reference) = (Zipf::new(ZIPF_PEERS), table.reference());
        Ok(Self { node, sender, null, trie, peers, zipf, random, reference })
    }

    fn sample(&mut self, way: Way, packets: usize, results: &mut Results) -> Result<()> {
        let drawn: Vec<u128> = (0..packets).map(|_| self.peers[self.zipf.draw(&mut self.random)]).collect();
        let addresses: Vec<Address> = drawn.iter().map(|&address| words(address)).collect();
        let before = self.counted(way)?;
        self.attached(way, |bench| {
            // The caches are those of what was measured before.
            bench.sender.send(&addresses[..packets / 8], way.containers())?;
            let sent = bench.sender.send(&addresses, way.containers())?;
            results.push(RATE, CASE, way.name(), (sent.packets_per_second, "packets/s"));
            results.push(CPU, CASE, way.name(), (sent.cpu_ns_per_packet, "ns/packet"));
            Ok(())
        })?;
        let after = self.counted(way)?;
        let counted: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        let sent = drawn.iter().chain(&drawn[..packets / 8]);
        let mut expected = vec![0; usize::from(CLASSES) + 1];
        for &address in sent {
            expected[usize::from(self.reference.class(address))] += 1;
        }
        match way {
            Way::Trafctl | Way::Trie => {
                ensure!(counted == expected, "counted {counted:?} by class instead of {expected:?}");
            }
            // Before its chain is deleted a counter has them all; classes are not told apart here.
            Way::NftMap => {
                ensure!(counted.iter().sum::<u64>() == expected.iter().sum::<u64>(), "nftables lost packets");
            }
            _ => {}
        }
        Ok(())
    }

    /// Does something while a way of counting is in place.
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
            Way::Nothing | Way::NothingOnFew | Way::Null | Way::Trie => {}
            Way::Trafctl => drop(lab.run_ok(&["attach"])?),
            Way::NftMap => rivals::attach_nft_map(lab.host())?,
            Way::Ipset => rivals::attach_ipset(lab.host())?,
            Way::NftTables => rivals::attach_nft_tables(lab.host())?,
        }
        work(self)?;
        match way {
            Way::Nothing | Way::NothingOnFew | Way::Null | Way::Trie => drop(links),
            Way::Trafctl => drop(lab.run_ok(&["detach"])?),
            Way::NftMap => rivals::detach_nft_map(lab.host())?,
            Way::Ipset => rivals::detach_ipset(lab.host())?,
            Way::NftTables => rivals::detach_nft_tables(lab.host())?,
        }
        Ok(())
    }

    /// Packets by class, as the way of counting says; nftables tells only all of them.
    fn counted(&self, way: Way) -> Result<Vec<u64>> {
        match way {
            Way::Trafctl | Way::Trie => {
                let counters = Counters::read(&self.node.lab)?;
                let of_class = |class| {
                    (0..CONTAINERS.into())
                        .map(|number| counters.class(&id(number).to_string(), class, "ipv4").out_packets)
                        .sum()
                };
                Ok((0..=CLASSES).map(of_class).collect())
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
