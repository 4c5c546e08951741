//! Real tables: the networks of all countries, from Debian's `tor-geoipdb`, in a few classes.
//!
//! Random tables flatter an index: few of their prefixes are longer than /24, and these are spread evenly.

use std::{
    fs,
    net::Ipv6Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use traffic_common::Family;

use crate::table::{Line, Table, mask, width};

/// The directories in which `cargo xtask setup` and the package install the lists.
fn directory() -> Result<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/geoip/usr/share/tor");
    [unpacked, PathBuf::from("/usr/share/tor")]
        .into_iter()
        .find(|directory| directory.join("geoip6").is_file())
        .context("the lists of networks (Debian's tor-geoipdb) are missing; run `cargo xtask setup`")
}

/// The class of a country. With two classes, one country is told from all others, as for domestic traffic.
fn class(country: [u8; 2], classes: u8) -> u8 {
    match (country, classes) {
        ([b'?', b'?'], _) => 0,
        (country, 2) => {
            if country == *b"DE" {
                1
            } else {
                2
            }
        }
        ([a, b], _) => {
            let number = u32::from(a) * 31 + u32::from(b) * 7;
            1 + u8::try_from(number % u32::from(classes)).unwrap_or(0)
        }
    }
}

/// The table of one family with this many classes besides class 0.
pub fn table(family: Family, classes: u8) -> Result<Table> {
    let path = directory()?.join(match family {
        Family::Ipv4 => "geoip",
        Family::Ipv6 => "geoip6",
    });
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let bits = width(family);
    let number = |field: &str| -> Result<u128> {
        Ok(match family {
            Family::Ipv4 => field.parse::<u32>()?.into(),
            Family::Ipv6 => field.parse::<Ipv6Addr>()?.to_bits(),
        })
    };
    let mut lines = Vec::new();
    for row in text.lines().filter(|row| !row.starts_with('#')) {
        let mut fields = row.split(',');
        let mut next = || fields.next().with_context(|| format!("{row}: three fields expected"));
        let (first, last) = (number(next()?)?, number(next()?)?);
        let class = class(next()?.as_bytes().try_into()?, classes);
        add_range(&mut lines, bits, (first, last), class);
    }
    Ok(Table { family, lines })
}

/// The smallest set of prefixes that covers a range.
fn add_range(lines: &mut Vec<Line>, bits: u32, (mut at, last): (u128, u128), class: u8) {
    loop {
        let room = (last - at).checked_add(1).map_or(128, u128::ilog2);
        let free = at.trailing_zeros().min(room).min(bits);
        let len = bits - free;
        lines.push(Line { network: at << (128 - bits) & mask(len), len, class });
        let block_last = at + ((1 << free) - 1);
        if block_last >= last {
            return;
        }
        at = block_last + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_covered_by_the_fewest_prefixes() {
        let mut lines = Vec::new();
        add_range(&mut lines, 32, (0x0a00_0001, 0x0a00_0004), 3);
        let found: Vec<_> = lines.iter().map(|line| (line.network >> 96, line.len)).collect();
        assert_eq!(found, [(0x0a00_0001, 32), (0x0a00_0002, 31), (0x0a00_0004, 32)]);
    }
}
