//! A [`LiveRates`] as `trafctl top` prints it.

use std::collections::BTreeMap;

use serde::Serialize;
use traffic_common::Tally;
use traffic_model::{ByDirection, live_rates::LiveRates, units::rate};

use crate::render::{Amounts, ClassNames, class_names, finish, plain_table, screen::ContainerNames, seconds};

/// The table for people.
pub fn table(rates: &LiveRates, by_class: bool, names: &ClassNames) -> String {
    let cells = |passed: &ByDirection<Tally>| {
        [passed.incoming, passed.outgoing]
            .map(|one| [bits(one.bytes, rates.seconds), packets_per_second(one.packets, rates.seconds)])
            .concat()
    };
    let head = format!(
        "node {}  {}  over {:.2} s  layer 3, as on the wire\n\n",
        rates.node,
        seconds(rates.time),
        rates.seconds
    );
    let mut header = vec!["CONTAINER"];
    header.extend(by_class.then_some("CLASS"));
    let first = header.len();
    header.extend(["IN", "IN PACKETS/S", "OUT", "OUT PACKETS/S"]);
    header.extend(rates.dropped.is_some().then_some("DROPPED PACKETS/S"));
    let mut table = plain_table(&header, &(first..header.len()));
    let line = |name: String, class: Option<u8>, passed: &ByDirection<Tally>, dropped: Option<u64>| {
        let mut line = vec![name];
        line.extend(
            by_class.then(|| class.map_or_else(String::new, |class| class_names::cell(class, names))),
        );
        line.extend(cells(passed));
        if rates.dropped.is_some() {
            line.push(dropped.map(|packets| packets_per_second(packets, rates.seconds)).unwrap_or_default());
        }
        line
    };
    let of_all = rates.dropped.map(|dropped| dropped.total().packets);
    table.add_row(line("(all)".to_owned(), None, &rates.classes, of_all));
    table.add_row(line("(no class)".to_owned(), None, &rates.faults, None));
    for row in &rates.rows {
        let dropped = Some(row.dropped.total().packets);
        table.add_row(line(row.container.to_string(), row.class, &row.passed, dropped));
    }
    head + finish(&table).trim_end() + "\n"
}

fn bits(bytes: u64, seconds: f64) -> String {
    rate(bits_per_second(bytes, seconds))
}

/// Bits per second of bytes in a time.
pub(super) fn bits_per_second(bytes: u64, seconds: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let bits = bytes as f64 * 8.0;
    bits / seconds.max(f64::MIN_POSITIVE)
}

/// Packets per second, without decimals.
pub(super) fn packets_per_second(packets: u64, seconds: f64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "no decimals are shown")]
    let rate = packets as f64 / seconds.max(f64::MIN_POSITIVE);
    format!("{rate:.0}")
}

/// One document on one line, for a sequence of documents: what passed, and in how many seconds.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn json_line(rates: &LiveRates, names: &ClassNames) -> anyhow::Result<String> {
    class_names::line(&Document::from(rates), names)
}

/// One document on one line with only the first rows, with the names of their containers, and the sums of each class
/// over all of them.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn event(
    rates: &LiveRates,
    by_class: &LiveRates,
    count: usize,
    (classes, containers): (&ClassNames, &ContainerNames),
) -> anyhow::Result<String> {
    let mut sums = BTreeMap::<u8, ByDirection<Tally>>::new();
    for row in &by_class.rows {
        *sums.entry(row.class.unwrap_or_default()).or_default() += row.passed;
    }
    let of_classes = sums.iter().map(|(&class, passed)| ClassRow { class, passed: passed.into() });
    let mut document = Document::from(rates);
    let row_count = document.rows.len();
    document.rows.truncate(count);
    for (shown, row) in document.rows.iter_mut().zip(&rates.rows) {
        shown.name = containers.get(&row.container).map(String::as_str);
    }
    class_names::line(&Event { document, classes: of_classes.collect(), row_count }, classes)
}

/// The document with sums.
#[derive(Debug, Serialize)]
struct Event<'a> {
    #[serde(flatten)]
    document: Document<'a>,
    classes: Vec<ClassRow>,
    row_count: usize,
}

#[derive(Debug, Serialize)]
struct ClassRow {
    class: u8,
    #[serde(flatten)]
    passed: Amounts,
}

/// The JSON document.
#[derive(Debug, Serialize)]
struct Document<'a> {
    node: &'a str,
    time: String,
    seconds: f64,
    basis: &'static str,
    rows: Vec<Row<'a>>,
    all: Amounts,
    no_class: Amounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<Amounts>,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    container: &'a str,
    /// What people call the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<u8>,
    #[serde(flatten)]
    passed: Amounts,
    /// What was dropped of it behind the hooks, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<Amounts>,
}

impl<'a> From<&'a LiveRates> for Document<'a> {
    fn from(rates: &'a LiveRates) -> Self {
        let row = |row: &'a traffic_model::live_rates::Row| Row {
            container: row.container.as_str(),
            name: None,
            class: row.class,
            passed: (&row.passed).into(),
            dropped: rates.dropped.is_some().then(|| (&row.dropped).into()),
        };
        Self {
            node: &rates.node,
            time: rates.time.to_string(),
            seconds: rates.seconds,
            basis: "l3-wire",
            rows: rates.rows.iter().map(row).collect(),
            all: (&rates.classes).into(),
            no_class: (&rates.faults).into(),
            dropped: rates.dropped.as_ref().map(Amounts::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use traffic_model::{ContainerId, live_rates};

    use super::*;

    fn passed(bytes: u64, packets: u64) -> ByDirection<Tally> {
        ByDirection {
            incoming: Tally { packets, bytes },
            outgoing: Tally { packets: packets * 2, bytes: bytes * 3 },
        }
    }

    fn sample() -> LiveRates {
        let row = |id: &str, class, bytes, packets| live_rates::Row {
            container: ContainerId::new(id).unwrap(),
            class,
            passed: passed(bytes, packets),
            dropped: ByDirection::default(),
        };
        LiveRates {
            node: "n1".to_owned(),
            time: "2026-11-23T12:00:00Z".parse().unwrap(),
            seconds: 2.0,
            rows: vec![row("101", Some(2), 300_000_000, 20_000), row("102", Some(1), 500, 7)],
            classes: passed(300_000_500, 20_007),
            faults: passed(28, 1),
            dropped: None,
        }
    }

    #[test]
    fn a_table_of_rates() {
        assert_eq!(
            table(&sample(), true, &ClassNames::from([(2, "UA-IX".to_owned())])),
            "node n1  2026-11-23T12:00:00Z  over 2.00 s  layer 3, as on the wire\n\
             \n\
             CONTAINER   CLASS             IN  IN PACKETS/S          OUT  OUT PACKETS/S\n\
             (all)                1.20 Gbit/s         10004  3.60 Gbit/s          20007\n\
             (no class)             112 bit/s             0    336 bit/s              1\n\
             101         2 UA-IX  1.20 Gbit/s         10000  3.60 Gbit/s          20000\n\
             102         1        2.00 kbit/s             4  6.00 kbit/s              7\n"
        );
    }

    #[test]
    fn drops_have_a_column_where_they_are_counted() {
        let mut rates = sample();
        rates.rows[1].dropped = passed(100, 3);
        rates.dropped = Some(passed(100, 3));
        let table = table(&rates, false, &ClassNames::new());
        let ends: Vec<&str> =
            table.lines().skip(2).map(|line| line.rsplit("  ").next().unwrap().trim()).collect();
        assert_eq!(ends, ["DROPPED PACKETS/S", "4", "1", "0", "4"], "{table}");
        let value: serde_json::Value =
            serde_json::from_str(&json_line(&rates, &ClassNames::new()).unwrap()).unwrap();
        assert_eq!(value["dropped"]["out_packets"], 6);
        assert_eq!(value["rows"][1]["dropped"]["in_bytes"], 100);
    }

    #[test]
    fn rates_have_three_digits() {
        let shown = [0, 1, 124, 125, 12_499, 125_000_000, u64::MAX].map(|bytes| bits(bytes, 1.0));
        assert_eq!(
            shown,
            ["0", "8.00 bit/s", "992 bit/s", "1.00 kbit/s", "100 kbit/s", "1.00 Gbit/s", "147574 Pbit/s"]
        );
    }

    #[test]
    fn one_document_per_line() {
        let line = json_line(&sample(), &ClassNames::from([(2, "UA-IX".to_owned())])).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["rows"][1]["out_packets"], 14);
        assert_eq!(value["no_class"]["in_bytes"], 28);
        assert_eq!(value["seconds"], 2.0);
        assert_eq!(value["class_names"]["2"], "UA-IX");
        insta::assert_snapshot!("json", serde_json::to_string_pretty(&value).unwrap());
    }
}
