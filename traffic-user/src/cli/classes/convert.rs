//! `trafctl classes convert`: a filter from lists in other formats to lines of a class file.

use std::{io, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use traffic_classes::convert::{Input, Source, convert};

use crate::{
    class_source::STDIN,
    cli::{
        Done,
        format::parse_class,
        output::{print, print_message},
    },
    files,
};

/// Convert lists of networks into lines of a class file
///
/// Writes the networks to stdout, as few as cover the addresses exactly, and counts to stderr. A file is
/// converted whole or not at all: what is not understood is refused with its line. Comments announce the
/// size, so that a copy that is cut short is refused when it is loaded.
#[derive(Args, Debug)]
#[command(after_long_help = "Formats:\n  \
    plain           a network, address or range on each line (ipdeny, exchanges)\n  \
    ipset[:SET]     `ipset save`\n  \
    nft[:SET]       `nft list set`, `nft list ruleset`\n  \
    mikrotik[:LIST] `/ip firewall address-list export`\n  \
    ripe:UA         a registry's delegated list, one country\n  \
    pmacct          pmacct's networks_file\n  \
    bgp             `bgpdump -m` of a table, BIRD's `show route`\n  \
    geoip:UA        MaxMind's CSV files, DB-IP, IP2Location; one country\n  \
    csv:COLUMN      one column of a table, by name or number\n  \
    pbas            traffic classes of PBA-S in XML, with their own classes\n\n\
    Examples:\n  \
    trafctl classes convert --class 2 --from plain ua-ix.txt > ua-ix\n  \
    ipset save ua | trafctl classes convert --class 2 --from ipset\n  \
    trafctl classes convert --class 2 --from ripe:UA delegated-ripencc-latest")]
pub(super) struct ConvertOptions {
    /// The class of the networks
    #[arg(long, value_name = "N", value_parser = parse_class)]
    class: Option<u8>,
    /// The format of the files
    #[arg(long, value_name = "FORMAT", value_parser = |text: &str| text.parse::<Source>())]
    from: Source,
    /// Files to convert; - is standard input
    #[arg(value_name = "FILE", default_value = STDIN)]
    files: Vec<PathBuf>,
}

pub(super) fn run(options: &ConvertOptions) -> anyhow::Result<Done> {
    let mut inputs = Vec::with_capacity(options.files.len());
    for path in &options.files {
        inputs.push((path.display().to_string(), read(path)?));
    }
    let inputs: Vec<Input<'_>> = inputs.iter().map(|(name, bytes)| Input { name, bytes }).collect();
    match convert(&options.from, options.class, &inputs) {
        Ok(converted) => {
            print(&converted.to_string())?;
            converted.counts.iter().for_each(|count| print_message(count));
            Ok(Done::Success)
        }
        Err(refused) => {
            let lines: String = refused.iter().map(|one| format!("\n  {one}")).collect();
            bail!("nothing is converted:{lines}")
        }
    }
}

/// The bytes of a file, or of standard input.
fn read(path: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    if path.as_os_str() == STDIN {
        return files::read_bounded(io::stdin().lock(), files::MOST_LIST_BYTES)
            .context("cannot read standard input");
    }
    files::read(path, files::MOST_LIST_BYTES).with_context(|| format!("cannot read {}", path.display()))
}
