//! Tables: one column of any table, and tables of countries.
//!
//! Countries come in two forms. MaxMind has one file with the countries' numbers and two with networks. All
//! are given together, in any order. The others have rows such as `1.0.0.0,1.0.0.255,AU` or
//! `"16777216","16777471","AU","Australia"`.

use std::{collections::BTreeSet, net::IpAddr};

use super::collector::Collector;
use crate::{notation::is_digits, parse::network::quote, ranges::Range};

/// The wanted country, and its numbers in MaxMind's tables.
#[derive(Debug, Default)]
pub(super) struct Countries {
    code: String,
    numbers: BTreeSet<String>,
}

/// A row with its line.
type Row = (usize, Vec<String>);

/// The rows, for the separator that the first one has. A row that is not readable is refused.
fn rows(text: &str, collector: &mut Collector) -> Vec<Row> {
    let first = text.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
    let separator = [b'\t', b';', b',']
        .into_iter()
        .max_by_key(|&separator| first.bytes().filter(|&byte| byte == separator).count());
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator.unwrap_or(b','))
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut rows = Vec::new();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                rows.push((usize::try_from(line).unwrap_or(0), record.iter().map(str::to_owned).collect()));
            }
            Err(error) => collector.refuse(0, format!("the table cannot be read: {error}; get it again")),
        }
    }
    rows
}

fn place(header: &[String], name: &str) -> Option<usize> {
    header.iter().position(|field| field.eq_ignore_ascii_case(name))
}

/// The networks in one column.
pub(super) fn csv(text: &str, column: &str, collector: &mut Collector) {
    let rows = rows(text, collector);
    let Some((_, header)) = rows.first() else { return };
    if header.iter().filter(|field| field.eq_ignore_ascii_case(column)).count() > 1 {
        return collector.refuse(1, format!("there are two columns {column}; give its number"));
    }
    let number = column.parse::<usize>().ok().filter(|&number| number >= 1 && is_digits(column));
    let (at, skipped) = match (place(header, column), number) {
        (Some(at), _) => (at, 1),
        // Without a header the first row has a network as well.
        (None, Some(number)) => {
            let is_header =
                header.get(number - 1).is_some_and(|field| crate::notation::read(&[field]).is_err());
            (number - 1, usize::from(is_header))
        }
        (None, None) => {
            let message = format!("there is no column {column}; the columns are {}", header.join(", "));
            return collector.refuse(1, message);
        }
    };
    for (line, row) in &rows[skipped..] {
        match row.get(at) {
            Some(field) => {
                let fields: Vec<&str> = field.split_whitespace().collect();
                if let Some(range) = collector.read(*line, &fields) {
                    collector.take(range);
                }
            }
            None => collector.refuse(*line, format!("the row has no column {column}; get the table again")),
        }
    }
}

/// Reads the numbers of the country from MaxMind's file of countries, if it is among the files.
pub(super) fn countries(texts: &[(&str, String)], code: &str, collector: &mut Collector) -> Countries {
    let mut numbers = BTreeSet::new();
    for (name, text) in texts {
        let header = text.lines().next().unwrap_or_default();
        if !header.contains("country_iso_code")
            || !header.contains("geoname_id")
            || header.contains("network")
        {
            continue;
        }
        collector.begin(name);
        let rows = rows(text, collector);
        let Some((_, header)) = rows.first() else { continue };
        let (Some(number), Some(iso)) = (place(header, "geoname_id"), place(header, "country_iso_code"))
        else {
            continue;
        };
        let of_country = rows.iter().skip(1).filter(|(_, row)| row.get(iso).is_some_and(|iso| iso == code));
        numbers.extend(of_country.filter_map(|(_, row)| row.get(number).cloned()));
    }
    Countries { code: code.to_owned(), numbers }
}

/// The networks of a country.
pub(super) fn geoip(text: &str, countries: &Countries, collector: &mut Collector) {
    let rows = rows(text, collector);
    let Some((_, header)) = rows.first() else { return };
    let network = place(header, "network");
    match (network, place(header, "geoname_id"), place(header, "country_iso_code")) {
        (None, Some(_), Some(_)) => {}
        (Some(network), _, Some(iso)) => {
            for (line, row) in &rows[1..] {
                if row.get(iso).is_some_and(|iso| *iso == countries.code) {
                    take(*line, row.get(network), collector);
                }
            }
        }
        (Some(network), Some(located), None) => {
            if countries.numbers.is_empty() {
                let message = format!(
                    "no number of country {} is known; give MaxMind's file Country-Locations as well",
                    countries.code
                );
                return collector.refuse(0, message);
            }
            let registered = place(header, "registered_country_geoname_id");
            for (line, row) in &rows[1..] {
                // Where a network is located counts; if that is not known, where it is registered.
                let number = [Some(located), registered]
                    .into_iter()
                    .flatten()
                    .filter_map(|at| row.get(at))
                    .find(|number| !number.is_empty());
                if number.is_some_and(|number| countries.numbers.contains(number)) {
                    take(*line, row.get(network), collector);
                }
            }
        }
        _ => ranges_of_country(&rows, &countries.code, collector),
    }
}

fn take(line: usize, field: Option<&String>, collector: &mut Collector) {
    let range = match field {
        Some(field) => collector.read(line, &[field]),
        None => return collector.refuse(line, "the row has no network; get the table again"),
    };
    if let Some(range) = range {
        collector.take(range);
    }
}

/// Rows of first address, last address and, in some column behind them, the country.
fn ranges_of_country(rows: &[Row], code: &str, collector: &mut Collector) {
    let is_code =
        |field: &String| field == "-" || field.len() == 2 && field.bytes().all(|b| b.is_ascii_uppercase());
    for (at, (line, row)) in rows.iter().enumerate() {
        let ends =
            row.first().and_then(|first| address(first)).zip(row.get(1).and_then(|last| address(last)));
        let country = row.iter().skip(2).find(|field| is_code(field));
        match (ends, country) {
            (Some((first, last)), Some(country)) => {
                if country == code {
                    match Range::new(first, last) {
                        Some(range) => {
                            if let Some(range) = collector.unmapped(*line, range) {
                                collector.take(range);
                            }
                        }
                        None => {
                            collector.refuse(*line, "the range ends before it begins; get the table again");
                        }
                    }
                }
            }
            // The first row may be a header.
            _ if at == 0 && ends.is_none() => {}
            _ => {
                let message =
                    format!("{} is not a range with a country; give another --from", quote(&row.join(",")));
                collector.refuse(*line, message);
            }
        }
    }
}

/// An address, or its number. Numbers above IPv4's are IPv6.
fn address(field: &str) -> Option<IpAddr> {
    if !is_digits(field) {
        return field.parse().ok();
    }
    let number: u128 = field.parse().ok()?;
    Some(u32::try_from(number).map_or_else(|_| IpAddr::V6(number.into()), |v4| IpAddr::V4(v4.into())))
}
