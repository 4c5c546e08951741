//! Reads what is small, and makes a ledger of it.

use traffic_ledger::{Ledger, LedgerError};

use super::{Reader, Row, failed, optional, text, value};
use crate::{
    clickhouse::{sql::quoted, tenants},
    read::{
        Reported,
        book::{Book, ContainerRow, DayRow, InterfaceRow, LedgerRow, NameRow, Period},
        shares,
    },
};

pub(super) fn open(mut reader: Reader, choice: &Reported<'_>) -> Result<Ledger, LedgerError> {
    let ledgers = ledgers(&mut reader)?;
    reader.book = Book::new(ledgers, choice)?;
    let (calendar, is_common) = reader.book.calendar(choice)?;
    let containers = containers(&reader)?;
    let names = names(&reader)?;
    let known = containers.iter().map(|one| (one.ledger, one.number, one.name.clone(), one.since)).collect();
    let mut containers = reader.book.take_containers(containers, names);
    if choice.by_tenant {
        let assigned = reader.runtime.block_on(reader.limit.within(tenants::read(&reader.server)));
        let assigned = assigned.and_then(|read| read).map_err(|error| failed(&error))?;
        let found = shares::tenants(&assigned, known, |ledger| reader.book.node(ledger))?;
        containers = reader.book.take_tenants(found);
        reader.tenants = containers.iter().map(|one| (one.number, one.label.clone())).collect();
    }
    let interfaces = if choice.with_interfaces { interfaces(&reader)? } else { Vec::new() };
    let interfaces = reader.book.take_interfaces(interfaces);
    reader.book.periods = periods(&reader)?;
    let days = if is_common { days(&reader)? } else { Vec::new() };
    let first = first_unit(&reader)?;
    let stored = reader.book.stored((calendar, &days), first, (containers, interfaces))?;
    Ledger::of_store(&stored, Box::new(reader))
}

fn ledgers(reader: &mut Reader) -> Result<Vec<LedgerRow>, LedgerError> {
    let sql = format!(
        "SELECT place, node, zone, billing_day, begun, ended, last_bucket, last_reading, id_scope FROM {}.nodes WHERE node \
         != '' ORDER BY node, place",
        quoted(reader.server.database())
    );
    let mut all = Vec::new();
    for row in reader.ask(&sql)? {
        reader.places.push(value(&row, 0)?);
        all.push(LedgerRow {
            number: i32::try_from(reader.places.len()).unwrap_or(i32::MAX),
            node: text(&row, 1).to_owned(),
            zone: Some(text(&row, 2).to_owned()),
            billing_day: Some(value(&row, 3)?),
            recorded: (value(&row, 4)?, value(&row, 5)?),
            last_bucket: optional(&row, 6)?,
            last_reading_ms: optional(&row, 7)?,
            has_cluster_ids: text(&row, 8) == "cluster",
            ..LedgerRow::default()
        });
    }
    if reader.server.has_drops {
        drops(reader, &mut all)?;
    }
    Ok(all)
}

/// Since when the ledgers record drops, and whether all of these are here.
fn drops(reader: &Reader, all: &mut [LedgerRow]) -> Result<(), LedgerError> {
    let sql = format!(
        "SELECT place, begun, ended FROM {}.progress FINAL WHERE what = 'drops'",
        quoted(reader.server.database())
    );
    for row in reader.ask(&sql)? {
        let ledger = reader.ledger(&row, 0)?;
        let Some(of) = all.iter_mut().find(|one| one.number == ledger) else { continue };
        of.has_all_drops = true;
        of.drops_from = Some(value(&row, 1)?).filter(|from| *from != 0);
        of.drops_kept_from = Some(value(&row, 2)?).filter(|from| *from != 0);
    }
    Ok(())
}

/// Start of the first five minutes that the store has.
fn first_unit(reader: &Reader) -> Result<Option<i64>, LedgerError> {
    let filter = format!("{} AND part = '5min'", reader.of_ledgers(&reader.book.numbers()));
    let sql = format!("SELECT count(), min(part_number) FROM {}", reader.rows_of("unit", &filter));
    match reader.ask(&sql)?.first() {
        Some(row) if value::<u64>(row, 0)? > 0 => value(row, 1).map(Some),
        _ => Ok(None),
    }
}

fn containers(reader: &Reader) -> Result<Vec<ContainerRow>, LedgerError> {
    let sql = format!(
        "SELECT place, part_number, name, label, kind, ifNull(since, 0), retired FROM {}",
        reader.all_of("container")
    );
    let mut all = Vec::new();
    for row in reader.ask(&sql)? {
        all.push(ContainerRow {
            ledger: reader.ledger(&row, 0)?,
            number: value(&row, 1)?,
            name: text(&row, 2).to_owned(),
            label: text(&row, 3).to_owned(),
            kind: text(&row, 4).to_owned(),
            since: value(&row, 5)?,
            retired: optional(&row, 6)?,
        });
    }
    all.sort_by_key(|one| (one.ledger, one.number));
    Ok(all)
}

fn names(reader: &Reader) -> Result<Vec<NameRow>, LedgerError> {
    let sql = format!(
        "SELECT place, part_number, ifNull(container, 0), ifNull(since, 0), until, name FROM {}",
        reader.all_of("container_name")
    );
    let mut all = Vec::new();
    for row in reader.ask(&sql)? {
        let (ledger, since) = (reader.ledger(&row, 0)?, value::<i64>(&row, 3)?);
        let name = (ledger, value(&row, 2)?, since, optional(&row, 4)?, text(&row, 5).to_owned());
        all.push(((since, ledger, value::<i64>(&row, 1)?), name));
    }
    all.sort_by_key(|one| one.0);
    Ok(all.into_iter().map(|one| one.1).collect())
}

fn interfaces(reader: &Reader) -> Result<Vec<InterfaceRow>, LedgerError> {
    let sql =
        format!("SELECT place, part_number, name, ifNull(container, 0) FROM {}", reader.all_of("interface"));
    let of =
        |row: &Row| Ok((reader.ledger(row, 0)?, value(row, 1)?, text(row, 2).to_owned(), value(row, 3)?));
    let mut all: Vec<InterfaceRow> = reader.ask(&sql)?.iter().map(of).collect::<Result<_, LedgerError>>()?;
    all.sort_by_key(|one| (one.0, one.1));
    Ok(all)
}

fn periods(reader: &Reader) -> Result<Vec<Period>, LedgerError> {
    let sql = format!(
        "SELECT place, part_number, name, ifNull(start, 0), ifNull(`end`, 0) FROM {}",
        reader.all_of("period")
    );
    let of = |row: &Row| {
        Ok(Period {
            ledger: reader.ledger(row, 0)?,
            number: value(row, 1)?,
            name: text(row, 2).to_owned(),
            span: (value(row, 3)?, value(row, 4)?),
        })
    };
    let mut all: Vec<Period> = reader.ask(&sql)?.iter().map(of).collect::<Result<_, LedgerError>>()?;
    all.sort_by_key(|one| (one.ledger, one.span.0));
    Ok(all)
}

/// The days that were booked, by start.
fn days(reader: &Reader) -> Result<Vec<DayRow>, LedgerError> {
    let filter = format!("{} AND part = 'day'", reader.of_ledgers(&reader.book.numbers()));
    let sql = format!(
        "SELECT DISTINCT part_number, ifNull(`end`, 0), ifNull(day, ''), ifNull(month, '') FROM {}",
        reader.rows_of("unit", &filter)
    );
    let of =
        |row: &Row| Ok((value(row, 0)?, value(row, 1)?, text(row, 2).to_owned(), text(row, 3).to_owned()));
    let mut all: Vec<DayRow> = reader.ask(&sql)?.iter().map(of).collect::<Result<_, LedgerError>>()?;
    all.retain(|day| !day.2.is_empty() && !day.3.is_empty());
    all.sort();
    Ok(all)
}
