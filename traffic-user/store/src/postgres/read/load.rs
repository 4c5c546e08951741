//! What is small of the ledgers that a report is about: their calendar, containers and closed months.

use std::collections::HashMap;

use tokio_postgres::types::Type;
use traffic_ledger::{Ledger, LedgerError, StoredContainer, StoredLedger};
use traffic_model::calendar::Calendar;

use crate::{
    postgres::schema,
    read::drops::{self, DropsOf},
};

use super::{OneLedger, Period, Reader, Reported, shares};

/// A row of `trafctl.ledger`.
struct Extent {
    billing_day: u8,
    recorded: (i64, i64),
    last_bucket: Option<i64>,
    last_reading_ms: Option<i64>,
    has_cluster_ids: bool,
}

fn refuse<T>(reason: String) -> Result<T, LedgerError> {
    Err(LedgerError::Store(reason))
}

/// Reads what is small, and makes a ledger of it.
pub(super) fn open(mut reader: Reader, choice: &Reported<'_>) -> Result<Ledger, LedgerError> {
    let extents = ledgers(&mut reader, choice)?;
    let (calendar, is_common) = calendar(&reader, &extents, choice)?;
    let several_nodes = reader.ledgers.iter().any(|one| one.node != reader.ledgers[0].node);
    reader.has_prefixes = several_nodes && extents.iter().any(|extent| !extent.has_cluster_ids);
    let mut containers = containers(&mut reader)?;
    if choice.by_tenant {
        reader.containers.clear();
        reader.members.clear();
        reader.labels.clear();
        containers = shares::read(&mut reader)?;
    }
    let interfaces = if choice.with_interfaces { interfaces(&mut reader)? } else { Vec::new() };
    periods(&mut reader)?;
    let (days, months) = if is_common { borders(&reader, &calendar)? } else { (Vec::new(), Vec::new()) };
    let with_rows = || extents.iter().filter(|extent| extent.recorded.0 < extent.recorded.1);
    let begin = with_rows().map(|extent| extent.recorded.0).min();
    let begin = begin.into_iter().chain(first_unit(&reader)?).min().unwrap_or(0);
    let stored = StoredLedger {
        node: (!several_nodes).then(|| reader.ledgers[0].node.clone()),
        recorded: (begin, with_rows().map(|extent| extent.recorded.1).max().unwrap_or(begin)),
        last_bucket: extents.iter().filter_map(|extent| extent.last_bucket).max(),
        last_reading_ms: extents.iter().filter_map(|extent| extent.last_reading_ms).max(),
        drops_from: drops::recorded_from(&reader.drops),
        calendar,
        days,
        months,
        containers,
        interfaces,
    };
    Ledger::of_store(&stored, Box::new(reader))
}

/// The ledgers of the chosen nodes.
fn ledgers(reader: &mut Reader, choice: &Reported<'_>) -> Result<Vec<Extent>, LedgerError> {
    let sql = "SELECT number, node, zone, billing_day, begun, ended, last_bucket, last_reading, id_scope, drops_from,
               without_drops, drops_kept_from FROM trafctl.ledger WHERE node <> '' ORDER BY node, number";
    let mut extents = Vec::new();
    let mut others = Vec::new();
    for row in reader.rows(sql, &[])? {
        let node: String = row.get(1);
        if !choice.nodes.is_empty() && !choice.nodes.contains(&node) {
            others.push(node);
            continue;
        }
        let (Some(zone), Some(billing_day)) = (row.get::<_, Option<String>>(2), row.get::<_, Option<i32>>(3))
        else {
            return refuse(format!(
                "node {node} has not shipped since the store was updated; update trafctl there, and run `trafctl \
                 ship --once`"
            ));
        };
        let recorded = (row.get::<_, Option<i64>>(4).unwrap_or(0), row.get::<_, Option<i64>>(5).unwrap_or(0));
        reader.drops.push(DropsOf {
            ledger: row.get(0),
            node: node.clone(),
            recorded,
            from: row.get(9),
            are_all_here: row.get::<_, i64>(10) == 0,
            kept_from: row.get(11),
        });
        extents.push(Extent {
            billing_day: u8::try_from(billing_day).unwrap_or(1),
            recorded,
            last_bucket: row.get(6),
            last_reading_ms: row.get(7),
            has_cluster_ids: row.get::<_, Option<&str>>(8) == Some("cluster"),
        });
        reader.ledgers.push(OneLedger { number: row.get(0), node, zone });
    }
    others.dedup();
    if let Some(missing) =
        choice.nodes.iter().find(|name| !reader.ledgers.iter().any(|one| one.node == **name))
    {
        let known: Vec<&str> = others
            .iter()
            .map(String::as_str)
            .chain(reader.ledgers.iter().map(|one| one.node.as_str()))
            .collect();
        return refuse(match known[..] {
            [] => "the store has no rows yet; run `trafctl ship` on the nodes".to_owned(),
            _ => format!("the store has no node {missing:?}; it has {}", known.join(", ")),
        });
    }
    if extents.is_empty() {
        return refuse("the store has no rows yet; run `trafctl ship` on the nodes".to_owned());
    }
    Ok(extents)
}

/// The calendar of the report's steps, and whether it is that of all ledgers.
fn calendar(
    reader: &Reader,
    extents: &[Extent],
    choice: &Reported<'_>,
) -> Result<(Calendar, bool), LedgerError> {
    let (first, day) = (&reader.ledgers[0], extents[0].billing_day);
    let other_zone = reader.ledgers.iter().find(|one| one.zone != first.zone);
    let other_day = extents.iter().position(|extent| extent.billing_day != day);
    if let Some(other) = other_zone.filter(|_| choice.zone.is_none()) {
        return refuse(format!(
            "the nodes have several time zones ({}: {}, {}: {}); choose one with --tz, or nodes with --node",
            first.node, first.zone, other.node, other.zone
        ));
    }
    if let Some(at) = other_day.filter(|_| choice.billing_day.is_none()) {
        return refuse(format!(
            "the months of the nodes begin on several days ({}: {day}, {}: {}); choose one with --billing-day, or \
             nodes with --node",
            first.node, reader.ledgers[at].node, extents[at].billing_day
        ));
    }
    let is_common = other_zone.is_none() && other_day.is_none();
    let zone = choice.zone.filter(|_| other_zone.is_some()).unwrap_or(&first.zone);
    let day = choice.billing_day.filter(|_| other_day.is_some()).unwrap_or(day);
    match (Calendar::new(zone, day), choice.zone) {
        (Ok(calendar), _) => Ok((calendar, is_common)),
        // This machine does not know the zone of the nodes, but another one is asked for.
        (Err(_), Some(asked)) => Ok((Calendar::new(asked, day)?, false)),
        (Err(error), None) => Err(error.into()),
    }
}

/// Start of the first five minutes that the store has. A ledger may have dropped them since.
fn first_unit(reader: &Reader) -> Result<Option<i64>, LedgerError> {
    let sql = "SELECT min((SELECT min(u.start) FROM trafctl.unit u WHERE u.ledger = l AND u.level = 0))
               FROM unnest($1::int[]) l";
    let rows = reader.rows(sql, &[(&reader.ledger_numbers(), Type::INT4_ARRAY)])?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

/// The containers of the report. Those with the same label are one.
fn containers(reader: &mut Reader) -> Result<Vec<StoredContainer>, LedgerError> {
    let ledgers = reader.ledger_numbers();
    let sql = "SELECT ledger, number, name, label, kind, since, retired FROM trafctl.container
               WHERE ledger = ANY($1) ORDER BY ledger, number";
    let mut all: Vec<StoredContainer> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for row in reader.rows(sql, &[(&ledgers, Type::INT4_ARRAY)])? {
        let (ledger, number): (i32, i64) = (row.get(0), row.get(1));
        let label = reader.shown(ledger, row.get(3));
        let (since, retired): (i64, Option<i64>) = (row.get(5), row.get(6));
        let place = *places.entry(label.clone()).or_insert(all.len());
        match all.get_mut(place) {
            Some(same) => {
                same.since = same.since.min(since);
                same.retired = same.retired.zip(retired).map(|(a, b)| a.max(b));
            }
            None => all.push(StoredContainer {
                number: i64::try_from(place).unwrap_or(i64::MAX) + 1,
                id: row.get(2),
                label: label.clone(),
                kind: row.get(4),
                since,
                retired,
                names: Vec::new(),
            }),
        }
        let shown = all[place].number;
        reader.containers.insert((ledger, number), shown);
        reader.members.entry(shown).or_default().push((ledger, number));
        reader.own_labels.insert((ledger, number), label.clone());
        reader.labels.insert(shown, label);
    }
    let sql = "SELECT ledger, container, since, until, name FROM trafctl.container_name
               WHERE ledger = ANY($1) ORDER BY since, ledger, number";
    for row in reader.rows(sql, &[(&ledgers, Type::INT4_ARRAY)])? {
        let place = usize::try_from(reader.container(row.get(0), row.get(1)) - 1);
        if let Some(container) = place.ok().and_then(|place| all.get_mut(place)) {
            container.names.push((row.get(2), row.get(3), row.get(4)));
        }
    }
    Ok(all)
}

fn interfaces(reader: &mut Reader) -> Result<Vec<(i64, String, i64)>, LedgerError> {
    let sql = "SELECT ledger, number, name, container FROM trafctl.interface
               WHERE ledger = ANY($1) ORDER BY ledger, number";
    let mut all = Vec::new();
    for row in reader.rows(sql, &[(&reader.ledger_numbers(), Type::INT4_ARRAY)])? {
        let (ledger, number): (i32, i64) = (row.get(0), row.get(1));
        let name: String = row.get(2);
        let name = reader.named_node(ledger).map_or_else(|| name.clone(), |node| format!("{node}/{name}"));
        let shown = i64::try_from(all.len()).unwrap_or(i64::MAX) + 1;
        let container: i64 = row.get(3);
        let container = if container == 0 { 0 } else { reader.container(ledger, container) };
        all.push((shown, name, container));
        reader.interfaces.insert((ledger, number), shown);
    }
    Ok(all)
}

fn periods(reader: &mut Reader) -> Result<(), LedgerError> {
    let sql = "SELECT ledger, number, name, start, \"end\" FROM trafctl.period WHERE ledger = ANY($1)
               ORDER BY ledger, start";
    let rows = reader.rows(sql, &[(&reader.ledger_numbers(), Type::INT4_ARRAY)])?;
    let period = |row: &tokio_postgres::Row| Period {
        ledger: row.get(0),
        number: row.get(1),
        name: row.get(2),
        span: (row.get(3), row.get(4)),
    };
    reader.periods = rows.iter().map(period).collect();
    reader.partitions = reader.rows(schema::MONTHS_WITH_ROWS, &[])?.iter().map(|row| row.get(0)).collect();
    Ok(())
}

type Named = (i64, i64, String);

/// Days and months that were booked under other borders than the rules of the zone give them now.
fn borders(reader: &Reader, calendar: &Calendar) -> Result<(Vec<Named>, Vec<Named>), LedgerError> {
    let sql = "SELECT DISTINCT start, \"end\", day, month FROM trafctl.unit
               WHERE level = 2 AND ledger = ANY($1) AND day IS NOT NULL AND month IS NOT NULL ORDER BY start";
    let rows = reader.rows(sql, &[(&reader.ledger_numbers(), Type::INT4_ARRAY)])?;
    let all: Vec<(i64, i64, String, String)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
    if let Some(pair) = all.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        return refuse(format!(
            "the nodes booked {} under different borders; ask for each of them with --node, or in another zone with \
             --tz",
            pair[1].2
        ));
    }
    let (mut days, mut months) = (Vec::new(), Vec::new());
    for (start, end, day, _) in &all {
        if Ledger::differs_from_rules(calendar, false, (*start, *end, day))? {
            days.push((*start, *end, day.clone()));
        }
    }
    // A month whose first or last day is not known keeps what the rules say.
    for of_month in all.chunk_by(|a, b| a.3 == b.3 && a.1 == b.0) {
        let (Some(first), Some(last)) = (of_month.first(), of_month.last()) else { continue };
        let is_known = all.iter().any(|day| day.1 == first.0) && all.iter().any(|day| day.0 == last.1);
        if is_known && Ledger::differs_from_rules(calendar, true, (first.0, last.1, &first.3))? {
            months.push((first.0, last.1, first.3.clone()));
        }
    }
    Ok((days, months))
}
