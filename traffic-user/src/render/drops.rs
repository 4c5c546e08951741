//! What was counted, dropped and delivered, as `trafctl dump --drops` prints it.

use std::collections::BTreeMap;

use serde::Serialize;
use traffic_common::{Direction, DropFault, DropGroup, Family, Tally};
use traffic_model::{ByDirection, ContainerId, Snapshot, Wanted, units::format_bytes};

use crate::{
    kernel::drops::{Drops, lacks_text},
    render::{
        Amounts, ClassNames,
        class_names::{self, NAME_COLUMN},
        finish, plain_table, seconds,
    },
};

/// One container, class and family: what was counted, and what of that was dropped.
#[derive(Debug)]
struct Line {
    container: ContainerId,
    class: u8,
    family: Family,
    generation: u32,
    counted: ByDirection<Tally>,
    /// By group. Only groups with drops.
    dropped: BTreeMap<DropGroup, ByDirection<Tally>>,
}

impl Line {
    fn all_dropped(&self) -> ByDirection<Tally> {
        self.dropped.values().fold(ByDirection::default(), |mut sum: ByDirection<Tally>, one| {
            sum += *one;
            sum
        })
    }

    fn delivered(&self) -> ByDirection<Tally> {
        let dropped = self.all_dropped();
        ByDirection {
            incoming: self.counted.incoming.saturating_sub(dropped.incoming),
            outgoing: self.counted.outgoing.saturating_sub(dropped.outgoing),
        }
    }
}

/// The lines to show: those of the snapshot, which is filtered already, and those that only have drops. Without
/// `all`, only lines with drops.
fn lines(snapshot: &Snapshot, drops: &Drops, wanted: &Wanted, all: bool) -> Vec<Line> {
    let mut lines: Vec<Line> = snapshot
        .counters
        .iter()
        .map(|counter| Line {
            container: counter.container.clone(),
            class: counter.class,
            family: counter.family,
            generation: counter.generation,
            counted: counter.tally,
            dropped: BTreeMap::new(),
        })
        .collect();
    let places: BTreeMap<_, usize> = lines
        .iter()
        .enumerate()
        .map(|(at, line)| ((line.container.clone(), line.generation, line.class, line.family), at))
        .collect();
    for row in &drops.rows {
        let is_wanted = wanted.takes_container(&row.container)
            && wanted.family.is_none_or(|family| family == row.family)
            && (wanted.classes.is_empty() || wanted.classes.contains(&row.class));
        // What was dropped was counted before, and the counters are read later: a line without counters is one
        // whose counters were reset or hidden.
        let key = (row.container.clone(), row.generation, row.class, row.family);
        if is_wanted && let Some(line) = places.get(&key).and_then(|&at| lines.get_mut(at)) {
            line.dropped.insert(row.group, row.tally);
        }
    }
    lines.retain(|line| all || !line.dropped.is_empty());
    lines
}

/// The tables for people. `all` includes lines without drops; `human` writes bytes in KiB, MiB and so on.
pub fn table(
    snapshot: &Snapshot,
    drops: &Drops,
    (wanted, all, human): (&Wanted, bool, bool),
    names: &ClassNames,
) -> String {
    let mut text = format!(
        "node {}  {}  layer-3 bytes as on the wire\ndrops counted since {}; earlier ones are \
         not, and show as delivered\n",
        snapshot.node,
        seconds(snapshot.time),
        seconds(drops.since)
    );
    for note in notes(drops) {
        text += &format!("note: {note}\n");
    }
    text.push('\n');
    let mut table = plain_table(
        &[
            "CONTAINER",
            "CLASS",
            "FAMILY",
            "DIRECTION",
            "COUNTED BYTES",
            "PACKETS",
            "DROPPED BYTES",
            "PACKETS",
            "DELIVERED BYTES",
            "PACKETS",
            "PACKETS BY REASON",
        ],
        &(4..10),
    );
    let lines = lines(snapshot, drops, wanted, all);
    for line in &lines {
        for (direction, name) in [(Direction::In, "in"), (Direction::Out, "out")] {
            let of = |tally: &ByDirection<Tally>| *tally.of(direction);
            let dropped = of(&line.all_dropped());
            if dropped.is_zero() && !all {
                continue;
            }
            let mut row = vec![
                line.container.to_string(),
                class_names::cell(line.class, names),
                line.family.name().to_owned(),
                name.to_owned(),
            ];
            for tally in [of(&line.counted), dropped, of(&line.delivered())] {
                row.extend([format_bytes(tally.bytes, human), tally.packets.to_string()]);
            }
            let reasons: Vec<String> = line
                .dropped
                .iter()
                .filter(|(_, tally)| !of(tally).is_zero())
                .map(|(group, tally)| format!("{} {}", group.name(), of(tally).packets))
                .collect();
            row.push(reasons.join(", "));
            table.add_row(row);
        }
    }
    if lines.is_empty() {
        text += "nothing was dropped\n";
    } else {
        text += finish(&table).trim_end();
        text.push('\n');
    }
    let faults: Vec<DropFault> = faults(drops).collect();
    if !faults.is_empty() {
        let mut table = plain_table(&["NOT ATTRIBUTED", "BYTES", "PACKETS"], &(1..3));
        for fault in faults {
            let tally = drops.fault(fault);
            table.add_row([
                fault.name().to_owned(),
                format_bytes(tally.bytes, human),
                tally.packets.to_string(),
            ]);
        }
        text.push('\n');
        text += finish(&table).trim_end();
        text.push('\n');
    }
    text
}

fn faults(drops: &Drops) -> impl Iterator<Item = DropFault> + '_ {
    DropFault::ALL.into_iter().filter(|fault| !drops.fault(*fault).is_zero())
}

/// What the figures lack.
fn notes(drops: &Drops) -> Vec<&'static str> {
    let mut notes = lacks_text(drops.lacks);
    if drops.is_outdated {
        notes.push(
            "the counters moved to other maps, which the drop program does not read yet: drops on new interfaces \
             are missing until the daemon replaces it",
        );
    }
    notes
}

/// One document, indented or on one line.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn json(
    snapshot: &Snapshot,
    drops: &Drops,
    (wanted, all, on_one_line): (&Wanted, bool, bool),
    names: &ClassNames,
) -> anyhow::Result<String> {
    let lines = lines(snapshot, drops, wanted, all);
    let document = Document {
        node: &snapshot.node,
        time: snapshot.time.to_string(),
        since: drops.since.to_string(),
        basis: "l3-wire",
        lacks: notes(drops),
        drops: lines.iter().map(Row::from).collect(),
        former_owners: Amounts::from(&drops.former),
        not_attributed: DropFault::ALL
            .into_iter()
            .map(|fault| {
                let Tally { packets, bytes } = drops.fault(fault);
                NotAttributed { fault: fault.name(), bytes, packets }
            })
            .collect(),
    };
    if on_one_line { class_names::line(&document, names) } else { class_names::document(&document, names) }
}

/// The drops as CSV with a header, one line for each reason.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn csv(
    snapshot: &Snapshot,
    drops: &Drops,
    wanted: &Wanted,
    names: &ClassNames,
) -> anyhow::Result<String> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record([
        "container",
        "class",
        "family",
        "reason",
        "in_bytes",
        "in_packets",
        "out_bytes",
        "out_packets",
        "generation",
        NAME_COLUMN,
    ])?;
    for line in lines(snapshot, drops, wanted, false) {
        for (group, tally) in &line.dropped {
            let ByDirection { incoming, outgoing } = tally;
            writer.serialize((
                line.container.as_str(),
                line.class,
                line.family.name(),
                group.name(),
                (incoming.bytes, incoming.packets, outgoing.bytes, outgoing.packets),
                line.generation,
                class_names::name(Some(line.class), names),
            ))?;
        }
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    node: &'a str,
    time: String,
    /// Since when drops are counted. Counters may be older.
    since: String,
    basis: &'static str,
    /// What the kernel does not offer, or the program does not read, in words.
    lacks: Vec<&'static str>,
    drops: Vec<Row<'a>>,
    former_owners: Amounts,
    not_attributed: Vec<NotAttributed>,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    container: &'a str,
    class: u8,
    family: &'static str,
    counted: Amounts,
    dropped: Amounts,
    delivered: Amounts,
    reasons: Vec<Reason>,
    generation: u32,
}

#[derive(Debug, Serialize)]
struct Reason {
    reason: &'static str,
    #[serde(flatten)]
    dropped: Amounts,
}

#[derive(Debug, Serialize)]
struct NotAttributed {
    fault: &'static str,
    bytes: u64,
    packets: u64,
}

impl<'a> From<&'a Line> for Row<'a> {
    fn from(line: &'a Line) -> Self {
        Self {
            container: line.container.as_str(),
            class: line.class,
            family: line.family.name(),
            counted: Amounts::from(&line.counted),
            dropped: Amounts::from(&line.all_dropped()),
            delivered: Amounts::from(&line.delivered()),
            reasons: line
                .dropped
                .iter()
                .map(|(group, tally)| Reason { reason: group.name(), dropped: Amounts::from(tally) })
                .collect(),
            generation: line.generation,
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use traffic_common::{DROP_FAULTS, drop_lacks};
    use traffic_model::{DropCounter, sample};

    use super::*;

    fn tally(packets: u64, bytes: u64) -> Tally {
        Tally { packets, bytes }
    }

    fn drops(snapshot: &Snapshot) -> Drops {
        let counter = &snapshot.counters[0];
        let row = |group, incoming, outgoing| DropCounter {
            container: counter.container.clone(),
            generation: counter.generation,
            class: counter.class,
            family: counter.family,
            group,
            tally: ByDirection { incoming, outgoing },
        };
        let mut faults = [Tally::default(); DROP_FAULTS];
        faults[DropFault::NoSender as usize] = tally(6, 606);
        Drops {
            set: 1,
            since: snapshot.epoch_created,
            lacks: 0,
            is_outdated: false,
            rows: vec![
                row(DropGroup::Shaper, tally(1, 101), tally(0, 0)),
                row(DropGroup::Firewall, tally(0, 0), tally(2, 202)),
                row(DropGroup::Other, tally(3, 303), tally(0, 0)),
            ],
            former: ByDirection { incoming: tally(4, 404), outgoing: tally(5, 505) },
            faults,
        }
    }

    #[test]
    fn counted_less_dropped_is_delivered() {
        let mut snapshot = sample::snapshot();
        snapshot.counters[0].tally = ByDirection { incoming: tally(10, 1000), outgoing: tally(20, 2001) };
        let drops = drops(&snapshot);
        let names = ClassNames::from([(1, "UA-IX".to_owned())]);
        let wanted = Wanted::default();
        assert_snapshot!("drops_table", table(&snapshot, &drops, (&wanted, false, false), &names));
        assert_snapshot!("drops_json", json(&snapshot, &drops, (&wanted, false, false), &names).unwrap());
        assert_snapshot!("drops_csv", csv(&snapshot, &drops, &wanted, &names).unwrap());
        let lacking = Drops { lacks: drop_lacks::REASONS, rows: Vec::new(), ..drops };
        let text = table(&snapshot, &lacking, (&wanted, false, false), &names);
        assert!(text.contains("note: this kernel states no reasons") && text.contains("nothing was dropped"));
        let all = lines(&snapshot, &lacking, &wanted, true);
        assert_eq!(all.len(), snapshot.counters.len());
    }
}
