//! Queries the kernel: sends a packet to an address, and reads the class in which it was counted.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result, bail};
use aya::{
    maps::{Array, Map, MapData, PerCpuArray},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use traffic_tests::{Container, Lab};

/// Words of an element of `CLASS_COUNTERS`.
const BLOCK_WORDS: usize = 128;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// Number of bits of an address.
    pub const fn width(self) -> u32 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The address in the upper bits.
    pub fn address(self, bits: u128) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from(((bits >> 96) as u32).to_be_bytes()),
            Self::V6 => IpAddr::from(bits.to_be_bytes()),
        }
    }
}

/// A UDP datagram without payload from the container to a peer.
pub fn packet(family: Family, peer: u128) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    match family {
        Family::V4 => {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, 1]);
            frame.extend(((peer >> 96) as u32).to_be_bytes());
        }
        Family::V6 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
            frame.extend([0xfd; 16]);
            frame.extend(peer.to_be_bytes());
        }
    }
    frame.extend([0; 8]);
    frame
}

/// The program on the interface of a lab's only container, queried with packets out of it.
pub struct Kernel {
    program: SchedClassifier,
    /// A `__sk_buff` with the interface of the packet.
    context: [u8; 192],
    counters: Map,
}

impl Kernel {
    /// Opens the pinned program of the lab.
    pub fn new(lab: &Lab, container: &Container) -> Result<Self> {
        let text = lab.host().ip(&format!("-o link show {}", container.interface()))?;
        let ifindex: u32 = text.split(':').next().context("no index")?.trim().parse()?;
        let mut context = [0_u8; 192];
        context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
        Ok(Self {
            program: SchedClassifier::from_pin(lab.bpffs().join("programs/trafctl_ingress"))?,
            context,
            counters: open(lab, "CLASS_COUNTERS")?,
        })
    }

    /// Sends a packet to each address, all of one class. Checks that all are counted in that class and
    /// nowhere else, and names the first that is not. Must be called inside the host of the lab.
    pub fn expect(&self, columns: &Columns, family: Family, class: u8, addresses: &[u128]) -> Result<()> {
        let before = self.read(columns, family)?;
        let mut frame = packet(family, 0);
        let at = frame.len() - 8 - family.width() as usize / 8;
        for address in addresses {
            frame[at..at + family.width() as usize / 8]
                .copy_from_slice(&address.to_be_bytes()[..family.width() as usize / 8]);
            let mut options = TestRunOptions::new();
            options.data_in = Some(&frame);
            options.ctx_in = Some(&self.context);
            self.program.test_run(options)?;
        }
        let mut expected = before;
        *expected.entry(class).or_default() += addresses.len() as u64;
        let after = self.read(columns, family)?;
        if after == expected {
            return Ok(());
        }
        match addresses {
            [] => bail!("class {class}: packets were counted that were not sent"),
            [only] => bail!("{} was not counted in class {class}: {after:?}", family.address(*only)),
            _ => {
                let (first, second) = addresses.split_at(addresses.len() / 2);
                self.expect(columns, family, class, first)?;
                self.expect(columns, family, class, second)?;
                bail!("class {class}: {} packets are wrong together, but each half is right", addresses.len())
            }
        }
    }

    /// Packets out of the container by class, summed over all CPUs.
    pub fn read(&self, columns: &Columns, family: Family) -> Result<BTreeMap<u8, u64>> {
        let counters = PerCpuArray::<&MapData, [u64; BLOCK_WORDS]>::try_from(&self.counters)?;
        // Packets and bytes of 16 columns, for in and out of IPv4, then of IPv6.
        let out = match family {
            Family::V4 => 32,
            Family::V6 => 96,
        };
        columns
            .0
            .iter()
            .map(|(&class, &column)| {
                let (block, at) = (column / 16, out + column as usize % 16 * 2);
                Ok((class, counters.get(&block, 0)?.iter().map(|values| values[at]).sum()))
            })
            .collect()
    }
}

/// The column of each class in the table in force.
pub struct Columns(BTreeMap<u8, u32>);

impl Columns {
    /// Reads the columns from the pinned maps.
    pub fn read(lab: &Lab) -> Result<Self> {
        let meta = open(lab, "META")?;
        let meta = Array::<&MapData, [u8; 416]>::try_from(&meta)?.get(&0, 0)?;
        let used = u32::from_ne_bytes(meta[72..76].try_into()?);
        Ok(Self((0..used).map(|column| (meta[160 + column as usize], column)).collect()))
    }
}

fn open(lab: &Lab, name: &str) -> Result<Map> {
    Ok(Map::from_map_data(MapData::from_pin(lab.bpffs().join("maps").join(name))?)?)
}

/// Creates the lab with its only container, and with the class order in which the longest prefix decides.
pub fn lab(name: &str) -> Result<(Lab, Container)> {
    let lab = Lab::new(name)?;
    lab.configure("class_order = \"longest-prefix\"\n[limits]\nclasses = 32\n")?;
    let container = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
    lab.run_ok(&["attach"])?;
    Ok((lab, container))
}

/// Loads a class file, also one without prefixes.
pub fn load(lab: &Lab, text: &str) -> Result<()> {
    let path = lab.write("classes", text)?;
    lab.run_ok(&["classes", "load", "--force", path.to_str().context("the path is not UTF-8")?])?;
    Ok(())
}
