//! The first readings of a comparison, stored in a file until the comparison is restarted.

use std::path::Path;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use traffic_common::Tally;
use traffic_model::{ByDirection, ContainerId};

use crate::{
    compare::{Figures, Readings},
    state_file,
};

/// Largest file, in bytes: 20,000 containers with 16 classes on both sides.
const MOST_BYTES: u64 = 64 << 20;
/// Version of the file's content.
const VERSION: u32 = 1;

/// Reads the first readings; `None` if there is no file yet.
///
/// # Errors
/// When the file cannot be read or holds something else.
pub fn read(path: &Path) -> anyhow::Result<Option<Readings>> {
    let Some(bytes) = state_file::read(path, MOST_BYTES)? else { return Ok(None) };
    let parsed = parse(&bytes).with_context(|| {
        format!("cannot use the first readings in {} (start over with --restart)", path.display())
    })?;
    Ok(Some(parsed))
}

/// Stores first readings and replaces earlier ones.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, readings: &Readings) -> anyhow::Result<()> {
    let file = File {
        version: VERSION,
        time: readings.time,
        boot_id: readings.boot_id.clone(),
        epoch: format!("{:016x}", readings.epoch),
        ours: entries(&readings.ours),
        theirs: entries(&readings.theirs),
    };
    state_file::replace(path, &serde_json::to_vec(&file)?, MOST_BYTES)
}

#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: u32,
    time: Timestamp,
    boot_id: String,
    epoch: String,
    ours: Vec<Entry>,
    theirs: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    container: String,
    class: u8,
    in_bytes: u64,
    in_packets: u64,
    out_bytes: u64,
    out_packets: u64,
}

fn parse(bytes: &[u8]) -> anyhow::Result<Readings> {
    let file: File = serde_json::from_slice(bytes)?;
    if file.version != VERSION {
        bail!("it has version {}, this trafctl reads version {VERSION}", file.version);
    }
    Ok(Readings {
        time: file.time,
        boot_id: file.boot_id,
        epoch: u64::from_str_radix(&file.epoch, 16).context("its epoch is not a number")?,
        ours: figures(file.ours)?,
        theirs: figures(file.theirs)?,
    })
}

fn entries(figures: &Figures) -> Vec<Entry> {
    let entry = |((container, class), tallies): (&(ContainerId, u8), &ByDirection<Tally>)| Entry {
        container: container.to_string(),
        class: *class,
        in_bytes: tallies.incoming.bytes,
        in_packets: tallies.incoming.packets,
        out_bytes: tallies.outgoing.bytes,
        out_packets: tallies.outgoing.packets,
    };
    figures.iter().map(entry).collect()
}

fn figures(entries: Vec<Entry>) -> anyhow::Result<Figures> {
    let figure = |entry: Entry| {
        let tallies = ByDirection {
            incoming: Tally { packets: entry.in_packets, bytes: entry.in_bytes },
            outgoing: Tally { packets: entry.out_packets, bytes: entry.out_bytes },
        };
        Ok(((ContainerId::new(&entry.container)?, entry.class), tallies))
    };
    entries.into_iter().map(figure).collect()
}
