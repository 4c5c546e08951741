//! What a shadow class table has counted, as `trafctl classes shadow --report` prints it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use traffic_classes::ChangedLines;
use traffic_common::{ShadowRecord, Tally};
use traffic_model::{ByDirection, ContainerId, hex, units::format_bytes};

use super::{
    Amounts, ClassNames,
    class_names::{self, cell},
    columns,
    ledger::Format,
    seconds,
};
use crate::{class_source::shadow::Kept, kernel::shadow::ShadowCounter, time};

/// The lines that make the difference, by class in force and class in the shadow.
pub type Changes = BTreeMap<(u8, u8), ChangedLines>;

/// Lines of one pair that are shown to people. Documents have [`LISTED_LINES`].
const SHOWN_LINES: usize = 5;
/// Lines of one pair in a document.
const LISTED_LINES: usize = 1000;

/// A reading of a shadow.
#[derive(Debug)]
pub struct Report {
    /// The node.
    pub node: String,
    /// When it was read.
    pub time: Timestamp,
    /// What the shadow is.
    pub record: ShadowRecord,
    /// Its file, unless that is not known any more.
    pub kept: Option<Kept>,
    /// Whether the file holds something else by now.
    pub file_changed: Option<bool>,
    /// What was counted.
    pub counters: Vec<ShadowCounter>,
    /// The lines that make the difference.
    pub changes: Changes,
}

/// The report in a format.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn report(report: &Report, format: Format, names: &ClassNames) -> anyhow::Result<String> {
    match format {
        Format::Json => json(report, names),
        Format::Csv => csv(&report.counters),
        Format::Table => Ok(table(report, names)),
    }
}

/// What one class of a container is and would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Class {
    in_force: ByDirection<Tally>,
    shadow: ByDirection<Tally>,
}

fn classes(counters: &[ShadowCounter]) -> Vec<(&ContainerId, u8, Class)> {
    let mut all: Vec<(&ContainerId, BTreeMap<u8, Class>)> = Vec::new();
    for counter in counters {
        if all.last().is_none_or(|(container, _)| **container != counter.container) {
            all.push((&counter.container, BTreeMap::new()));
        }
        if let Some((_, of_container)) = all.last_mut() {
            of_container.entry(counter.from).or_default().in_force += counter.tally;
            of_container.entry(counter.to).or_default().shadow += counter.tally;
        }
    }
    all.into_iter()
        .flat_map(|(id, found)| found.into_iter().map(move |(class, sums)| (id, class, sums)))
        .collect()
}

fn since(record: &ShadowRecord) -> String {
    seconds(time::timestamp(record.since_unix_s))
}

fn difference(now: u64, would_be: u64) -> String {
    match would_be.cmp(&now) {
        std::cmp::Ordering::Less => format!("-{}", now - would_be),
        std::cmp::Ordering::Equal => "0".to_owned(),
        std::cmp::Ordering::Greater => format!("+{}", would_be - now),
    }
}

fn table(report: &Report, names: &ClassNames) -> String {
    let name =
        report.kept.as_ref().map_or_else(|| "a file that is not known any more".to_owned(), Kept::name);
    let mut text = format!(
        "node {}  {}  layer-3 bytes as on the wire\nshadow class table of {name}, since {}; nothing of it is billed\n",
        report.node,
        seconds(report.time),
        since(&report.record)
    );
    if let Some(reason) = report.kept.as_ref().and_then(|kept| kept.begun_anew.as_ref()) {
        text += &format!("note: it has begun anew: {reason}\n");
    }
    if report.file_changed == Some(true) {
        text += "note: the file has changed since; the figures are of the content that was given then\n";
    }
    if report.counters.is_empty() {
        return text + "\nnothing was counted yet\n";
    }
    let header = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = classes(&report.counters)
        .into_iter()
        .map(|(container, class, Class { in_force, shadow })| {
            let mut line = vec![container.to_string(), cell(class, names)];
            for (now, would_be) in
                [(in_force.incoming, shadow.incoming), (in_force.outgoing, shadow.outgoing)]
            {
                line.extend([now.bytes.to_string(), would_be.bytes.to_string()]);
                line.push(difference(now.bytes, would_be.bytes));
            }
            line
        })
        .collect();
    text += "\n";
    text += &columns(
        &header(&[
            "CONTAINER",
            "CLASS",
            "IN BYTES",
            "SHADOW",
            "DIFFERENCE",
            "OUT BYTES",
            "SHADOW",
            "DIFFERENCE",
        ]),
        &(2..8),
        &lines,
    );
    let moved: Vec<Vec<String>> = by_pair(&report.counters)
        .into_iter()
        .filter(|((_, from, to), _)| from != to)
        .map(|((container, from, to), tally)| {
            let ByDirection { incoming, outgoing } = tally;
            let amounts = [incoming.bytes, incoming.packets, outgoing.bytes, outgoing.packets];
            let mut line = vec![container.to_string(), cell(from, names), cell(to, names)];
            line.extend(amounts.map(|amount| amount.to_string()));
            line
        })
        .collect();
    if moved.is_empty() {
        text += "\nno packet had another class\n";
    } else {
        text += "\n";
        text += &columns(
            &header(&["CONTAINER", "FROM CLASS", "TO CLASS", "IN BYTES", "PACKETS", "OUT BYTES", "PACKETS"]),
            &(3..7),
            &moved,
        );
    }
    text + &changed(&report.changes)
}

/// The lines, of each pair the first ones.
fn changed(changes: &Changes) -> String {
    let mut text = String::new();
    for ((from, to), ChangedLines { added, removed }) in changes {
        text += &format!("\nfrom class {from} to {to}:\n");
        let lines = added.iter().map(|entry| format!("  line {}: {entry}\n", entry.line));
        let removed = removed
            .iter()
            .map(|(prefix, class)| format!("  in force, and not in the file: {class} {prefix}\n"));
        let all: Vec<String> = lines.chain(removed).collect();
        text.extend(all.iter().take(SHOWN_LINES).map(String::as_str));
        if all.len() > SHOWN_LINES {
            text += &format!("  ... and {} more; --format json lists them\n", all.len() - SHOWN_LINES);
        }
    }
    text
}

type PairKey<'r> = (&'r ContainerId, u8, u8);

/// Sums over families, in the order of the counters.
fn by_pair(counters: &[ShadowCounter]) -> Vec<(PairKey<'_>, ByDirection<Tally>)> {
    let mut all: Vec<(PairKey<'_>, ByDirection<Tally>)> = Vec::new();
    for counter in counters {
        let key = (&counter.container, counter.from, counter.to);
        match all.last_mut().filter(|(last, _)| *last == key) {
            Some((_, sum)) => *sum += counter.tally,
            None => all.push((key, counter.tally)),
        }
    }
    all
}

/// What would be lost with a shadow.
pub fn lost(name: &str, counted: Option<(&ShadowRecord, &[ShadowCounter])>) -> String {
    let Some((record, counters)) = counted else {
        return format!("  of {name}, which does not count now\n");
    };
    let (mut all, mut moved) = (Tally::default(), Tally::default());
    for counter in counters {
        let both = counter.tally.incoming.saturating_add(counter.tally.outgoing);
        all += both;
        if counter.from != counter.to {
            moved += both;
        }
    }
    format!(
        "  of {name}, since {}: {} in {} packets, of which {} would have another class\n",
        since(record),
        format_bytes(all.bytes, true),
        all.packets,
        format_bytes(moved.bytes, true)
    )
}

#[derive(Serialize)]
struct Document<'r> {
    node: &'r str,
    time: String,
    since: String,
    file: Option<String>,
    order: Option<&'static str>,
    begun_anew: Option<&'r str>,
    file_changed: Option<bool>,
    file_hash: String,
    table_in_force: String,
    table_in_shadow: String,
    classes: Vec<ClassRow<'r>>,
    pairs: Vec<PairRow<'r>>,
    changes: Vec<ChangeRow>,
}

#[derive(Serialize)]
struct ClassRow<'r> {
    container: &'r str,
    class: u8,
    in_force: Amounts,
    shadow: Amounts,
}

#[derive(Serialize)]
struct PairRow<'r> {
    container: &'r str,
    family: &'static str,
    from: u8,
    to: u8,
    #[serde(flatten)]
    amounts: Amounts,
}

/// The lines of one pair, of each kind at most [`LISTED_LINES`].
#[derive(Serialize)]
struct ChangeRow {
    from: u8,
    to: u8,
    lines: Vec<LineRow>,
    lines_total: usize,
    removed: Vec<PrefixRow>,
    removed_total: usize,
}

#[derive(Serialize)]
struct LineRow {
    line: u32,
    class: u8,
    prefix: String,
}

#[derive(Serialize)]
struct PrefixRow {
    class: u8,
    prefix: String,
}

fn json(report: &Report, names: &ClassNames) -> anyhow::Result<String> {
    let Report { node, time, record, kept, file_changed, counters, changes } = report;
    let kept = kept.as_ref();
    let document = Document {
        node,
        time: time.to_string(),
        since: since(record),
        file: kept.and_then(|kept| kept.file.as_ref()).map(|path| path.display().to_string()),
        order: kept.map(|kept| kept.order.as_str()),
        begun_anew: kept.and_then(|kept| kept.begun_anew.as_deref()),
        file_changed: *file_changed,
        file_hash: hex(&record.file_hash),
        table_in_force: hex(&record.table_hash),
        table_in_shadow: hex(&record.shadow_hash),
        classes: classes(counters)
            .into_iter()
            .map(|(container, class, sums)| ClassRow {
                container: container.as_str(),
                class,
                in_force: Amounts::from(&sums.in_force),
                shadow: Amounts::from(&sums.shadow),
            })
            .collect(),
        pairs: counters
            .iter()
            .map(|counter| PairRow {
                container: counter.container.as_str(),
                family: counter.family.name(),
                from: counter.from,
                to: counter.to,
                amounts: Amounts::from(&counter.tally),
            })
            .collect(),
        changes: changes.iter().map(change).collect(),
    };
    class_names::document(&document, names)
}

fn change((&(from, to), ChangedLines { added, removed }): (&(u8, u8), &ChangedLines)) -> ChangeRow {
    let line = |entry: &traffic_classes::Entry| LineRow {
        line: entry.line,
        class: entry.class,
        prefix: entry.prefix.to_string(),
    };
    let prefix =
        |(prefix, class): &(ipnet::IpNet, u8)| PrefixRow { class: *class, prefix: prefix.to_string() };
    ChangeRow {
        from,
        to,
        lines: added.iter().take(LISTED_LINES).map(line).collect(),
        lines_total: added.len(),
        removed: removed.iter().take(LISTED_LINES).map(prefix).collect(),
        removed_total: removed.len(),
    }
}

/// The pairs as CSV with a header, from which all else follows.
fn csv(counters: &[ShadowCounter]) -> anyhow::Result<String> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record([
        "container",
        "family",
        "from",
        "to",
        "in_bytes",
        "in_packets",
        "out_bytes",
        "out_packets",
    ])?;
    for ShadowCounter { container, from, to, family, tally: ByDirection { incoming, outgoing } } in counters {
        writer.serialize((
            container.as_str(),
            family.name(),
            from,
            to,
            (incoming.bytes, incoming.packets, outgoing.bytes, outgoing.packets),
        ))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

#[cfg(test)]
mod tests;
