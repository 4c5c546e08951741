//! Parses the output of `vznetstat`.

use anyhow::{Context as _, bail, ensure};
use traffic_common::Tally;
use traffic_model::{ByDirection, ContainerId};

use crate::compare::Figures;

/// Parses rows of six fields and skips headers, which begin with `UUID` or `CTID`.
///
/// `place` names the input in messages. `counted_as` gives the id that we count a container under.
///
/// # Errors
/// When a line is not a row, is rounded, or repeats a container and class; when there are no rows.
pub fn read(
    text: &str,
    place: &str,
    counted_as: impl Fn(&ContainerId) -> anyhow::Result<ContainerId>,
) -> anyhow::Result<Figures> {
    let mut figures = Figures::new();
    for (at, line) in text.lines().enumerate() {
        let first = line.split_whitespace().next();
        if matches!(first, None | Some("UUID" | "CTID")) {
            continue;
        }
        let place = || format!("{place}:{}", at + 1);
        let (container, class, tallies) = row(line).with_context(place)?;
        let key = (counted_as(&container)?, class);
        let before = figures.insert(key, tallies);
        ensure!(before.is_none(), "{}: container {container} and class {class} appear twice", place());
    }
    ensure!(!figures.is_empty(), "{place}: no rows of vznetstat output");
    Ok(figures)
}

fn row(line: &str) -> anyhow::Result<(ContainerId, u8, ByDirection<Tally>)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [container, class, in_bytes, in_packets, out_bytes, out_packets] = fields[..] else {
        bail!("a row of vznetstat has six fields, this line has {}", fields.len());
    };
    let number = |field: &str| match field.parse::<u64>() {
        Ok(number) => Ok(number),
        Err(_) if field.ends_with(['K', 'M', 'G']) => {
            bail!("{field} is rounded; run vznetstat without -r")
        }
        Err(_) => bail!("{field:?} is not a number"),
    };
    let tallies = ByDirection {
        incoming: Tally { bytes: number(in_bytes)?, packets: number(in_packets)? },
        outgoing: Tally { bytes: number(out_bytes)?, packets: number(out_packets)? },
    };
    let class = class.parse().with_context(|| format!("{class:?} is not a class"))?;
    Ok((ContainerId::new(container)?, class, tallies))
}
