//! A real table of more than a million prefixes: the country of every address, from `tor-geoipdb`.
//!
//! The list has ranges. The class file has the prefixes of these ranges, and the expected answers come from
//! the ranges, so that nothing under test decides what is right.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{Counters, traffic::RawSocket};

use crate::question::{Columns, Family, Kernel, lab, load, packet};

/// The addresses from `first` to `last`, in the upper bits, and their country.
struct Range {
    first: u128,
    last: u128,
    country: [u8; 2],
}

/// The directories in which `cargo xtask setup` and the package install the lists.
fn directory() -> Result<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/geoip/usr/share/tor");
    [unpacked, PathBuf::from("/usr/share/tor")]
        .into_iter()
        .find(|directory| directory.join("geoip6").is_file())
        .context("the lists of networks (Debian's tor-geoipdb) are missing; run `cargo xtask setup`")
}

fn ranges(family: Family) -> Result<Vec<Range>> {
    let path = directory()?.join(match family {
        Family::V4 => "geoip",
        Family::V6 => "geoip6",
    });
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let spare = 128 - family.width();
    let number = |field: &str| -> Result<u128> {
        Ok(match family {
            Family::V4 => field.parse::<u32>()?.into(),
            Family::V6 => field.parse::<Ipv6Addr>()?.to_bits(),
        })
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut fields = line.split(',');
            let mut next = || fields.next().with_context(|| format!("{line}: three fields expected"));
            let (first, last) = (number(next()?)? << spare, number(next()?)? << spare);
            let country = next()?.as_bytes().try_into()?;
            Ok(Range { first, last, country })
        })
        .collect()
}

/// One of `classes` classes from `base` on. Addresses without a country are in class 0.
fn class(country: [u8; 2], base: u8, classes: u8) -> u8 {
    match country {
        [b'?', b'?'] => 0,
        [a, b] => base + (a % classes + b % classes * 3) % classes,
    }
}

/// The smallest set of prefixes that covers a range, as lines of a class file.
fn write_prefixes(file: &mut String, family: Family, range: &Range, class: u8) -> Result<usize> {
    let spare = 128 - family.width();
    let (mut at, last) = (range.first >> spare, range.last >> spare);
    let mut written = 0;
    loop {
        let room = (last - at).checked_add(1).map_or(128, u128::ilog2);
        let bits = at.trailing_zeros().min(room).min(family.width());
        let address = match family {
            Family::V4 => IpAddr::from(Ipv4Addr::from_bits(u32::try_from(at)?)),
            Family::V6 => IpAddr::from(Ipv6Addr::from_bits(at)),
        };
        writeln!(file, "{class} {address}/{}", family.width() - bits)?;
        written += 1;
        let block_last = at + ((1 << bits) - 1);
        if block_last >= last {
            return Ok(written);
        }
        at = block_last + 1;
    }
}

#[test]
fn every_edge_of_a_million_prefixes_has_the_right_class() -> Result<()> {
    let (lab, container) = lab("lookup-real")?;
    let kernel = Kernel::new(&lab, &container)?;
    let (mut file, mut prefixes) = (String::new(), 0);
    let mut questions = Vec::new();
    for family in [Family::V4, Family::V6] {
        let ranges = ranges(family)?;
        let unit = 1_u128 << (128 - family.width());
        let mut by_class: BTreeMap<u8, Vec<u128>> = BTreeMap::new();
        let mut free = 0;
        for range in &ranges {
            let class = class(range.country, 1, 15);
            prefixes += write_prefixes(&mut file, family, range, class)?;
            by_class.entry(class).or_default().extend([range.first, range.last]);
            // There may be addresses without a country between two ranges.
            if range.first > free {
                by_class.entry(0).or_default().extend([free, range.first - unit]);
            }
            free = range.last.saturating_add(unit);
        }
        questions.push((family, by_class));
    }
    ensure!(prefixes > 1_000_000, "the lists have only {prefixes} prefixes");
    load(&lab, &file)?;
    let columns = Columns::read(&lab)?;
    let mut asked = 0;
    for (family, by_class) in &questions {
        for (&class, addresses) in by_class {
            lab.host().enter(|| kernel.expect(&columns, *family, class, addresses))?;
            asked += addresses.len() as u64;
        }
    }
    ensure!(asked > 1_000_000, "only {asked} addresses were tested");
    assert_eq!(Counters::at_rest(&lab)?.container("101").out_packets, asked);
    Ok(())
}

/// Two tables of the same prefixes with different classes for all of them. A packet that saw a mixture, or no
/// table, would be counted where its peer never belongs.
#[test]
fn a_reload_of_a_million_prefixes_misclassifies_no_packet() -> Result<()> {
    // The first table has 10 columns, for an index of 4 bits, and the second has 9 more, for one of 8 bits.
    const CLASSES: u8 = 9;
    const PEERS_PER_FAMILY: usize = 64;
    let (lab, container) = lab("lookup-reload")?;
    let (mut before, mut after) = (String::new(), String::new());
    // The frame for each peer, and its class in the first table.
    let mut peers = Vec::new();
    for family in [Family::V4, Family::V6] {
        let ranges = ranges(family)?;
        let step = ranges.len() / PEERS_PER_FAMILY;
        for (n, range) in ranges.iter().enumerate() {
            let (first, second) =
                (class(range.country, 1, CLASSES), class(range.country, 1 + CLASSES, CLASSES));
            write_prefixes(&mut before, family, range, first)?;
            write_prefixes(&mut after, family, range, second)?;
            if n % step == 0 && first != 0 {
                peers.push((packet(family, range.last), family, first));
            }
        }
    }
    load(&lab, &before)?;
    let socket = RawSocket::open(container.namespace(), "eth0")?;
    let (stop, mut sent) = (AtomicBool::new(false), BTreeMap::<(bool, u8), u64>::new());
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                for (frame, family, class) in &peers {
                    socket.send(frame)?;
                    *sent.entry((*family == Family::V6, *class)).or_default() += 1;
                }
            }
            Ok(())
        });
        let loaded = [&after, &before].iter().try_for_each(|file| load(&lab, file));
        stop.store(true, Ordering::Relaxed);
        loaded.and(sender.join().map_err(|_| anyhow::anyhow!("the sender ended early"))?)
    })?;
    let counters = Counters::at_rest(&lab)?;
    let mut under_second = 0;
    for class in 1..=CLASSES {
        for (v6, family) in [(false, "ipv4"), (true, "ipv6")] {
            // Peers are drawn at random, and the table changes at any moment, so a class may have no packet
            // under one of them.
            let first = counters.class_or_zero("101", class, family).out_packets;
            let second = counters.class_or_zero("101", class + CLASSES, family).out_packets;
            assert_eq!(
                first + second,
                sent.get(&(v6, class)).copied().unwrap_or(0),
                "class {class} {family}"
            );
            under_second += second;
        }
    }
    assert!(under_second > 0 && under_second < sent.values().sum());
    Ok(())
}
