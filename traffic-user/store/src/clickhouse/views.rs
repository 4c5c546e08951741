//! The views for people who write SQL: one for each table of the ledger, with the rows that count, and some with plain
//! names. They are understood by old and new servers: each has one join a level, with an alias for each side, and no join
//! whose meaning has changed since (`ANY INNER JOIN`).

use traffic_ledger::TABLES;

use super::{
    schema::{PART, columns_of_part, own_columns, stored_name},
    sql::{Tables, counted, part_column, quoted},
};

/// The ledgers, each where its rows are now: place and the newest notes.
const NODES: &str = "SELECT place, ledger, node, trafctl AS version, kernel, zone, billing_day, id_scope, number AS changes, \
                     begun, ended, last_bucket, last_reading FROM (SELECT * FROM (SELECT * FROM {db}.progress FINAL WHERE what = \
                     'seen' AND (ledger {not_in} (SELECT ledger FROM {db}.adoption) OR (ledger, place) {in} (SELECT ledger, \
                     place FROM (SELECT * FROM (SELECT * FROM {db}.adoption) ORDER BY turn DESC, place DESC LIMIT 1 BY \
                     ledger) WHERE replaced_by = ''))) ORDER BY number DESC, machine DESC LIMIT 1 BY place)";

/// The places that are read.
fn places(database: &str) -> String {
    format!("SELECT place FROM {}.nodes", quoted(database))
}

const FIGURES: &str = "in_packets, in_bytes, out_packets, out_bytes";

/// Joins what names a row to it: node, ledger, and the container's label and kind. `rows` has `place`, the container's
/// `number`, the `columns`, and the figures; `shown` is what becomes of the columns. One join for each: old servers know
/// no more.
fn named(rows: &str, columns: &str, shown: &str) -> String {
    format!(
        "SELECT node, if(label = '', toString(number), label) AS container, container_kind AS kind, {shown}, {FIGURES}, ledger, \
         number AS container_number FROM (SELECT place, number, {columns}, {FIGURES}, node, ledger FROM ({rows}) AS r ALL INNER \
         JOIN (SELECT place, node, ledger FROM {{db}}.nodes) AS n USING place) AS m ANY LEFT JOIN (SELECT place, number, \
         ifNull(label, '') AS label, ifNull(kind, '') AS container_kind FROM {{db}}.container) AS c USING place, number"
    )
}

/// Figures under other names, and their sums under their own. An old server takes a sum's name for the column in it.
fn renamed() -> (String, String) {
    let of = |text: fn(&str) -> String| FIGURES.split(", ").map(text).collect::<Vec<_>>().join(", ");
    (of(|figure| format!("{figure} AS f_{figure}")), of(|figure| format!("sum(f_{figure}) AS {figure}")))
}

/// Days that are over come as days. Of the others, there are only five minutes.
fn days() -> String {
    let (figures, sums) = renamed();
    format!(
        "SELECT place, number, class, address_family, unit_day AS day, unit_month AS month, {sums} FROM (SELECT place, level, \
         start, container AS number, class, if(family = 0, 'ipv4', 'ipv6') AS address_family, {figures} FROM {{db}}.traffic) \
         AS f ALL INNER JOIN (SELECT place, level, start, ifNull(day, '') AS unit_day, substring(ifNull(month, ''), 1, 7) AS \
         unit_month FROM {{db}}.unit WHERE level = 2 OR (place, ifNull(day, '')) {{not_in}} (SELECT place, ifNull(day, '') FROM \
         {{db}}.unit WHERE level = 2)) AS u USING place, level, start GROUP BY place, number, class, address_family, unit_day, \
         unit_month"
    )
}

/// What to bill: closed months as they were closed, with their corrections, and the others as counted so far. Class 0 is
/// not billed.
fn months() -> String {
    let (figures, sums) = renamed();
    let nulls = |text: &str| {
        text.split(", ")
            .map(|figure| {
                let (column, name) = figure.split_once(" AS ").unwrap_or((figure, figure));
                format!("ifNull({column}, 0) AS {name}")
            })
            .collect::<Vec<_>>()
            .join(", ")
    };
    let nulls = nulls(&figures);
    let closed = |table: &str, number: &str| {
        format!(
            "SELECT place, c_number AS number, c_class AS class, name AS month, toUInt8(1) AS closed, f_in_packets, f_in_bytes, \
             f_out_packets, f_out_bytes FROM (SELECT place, toInt64(ifNull(period, 0)) AS of_period, toInt64(ifNull({number}, \
             0)) AS c_number, toInt64(ifNull(class, 0)) AS c_class, {nulls} FROM {{db}}.{table}) AS f ALL INNER JOIN (SELECT \
             place, number AS of_period, ifNull(name, '') AS name FROM {{db}}.period) AS p USING place, of_period"
        )
    };
    let days = days();
    format!(
        "SELECT place, number, class, month, closed, {sums} FROM ({} UNION ALL {} UNION ALL SELECT place, number, class, month, \
         toUInt8(0) AS closed, {figures} FROM ({days}) WHERE (place, month) {{not_in}} (SELECT place, ifNull(name, '') FROM \
         {{db}}.period)) WHERE class != 0 GROUP BY place, number, class, month, closed",
        closed("closed_row", "number"),
        closed("adjustment", "container_number"),
    )
}

/// The statement that creates the view of a table of the ledger.
pub(super) fn view_of(of: Tables<'_>, cluster: &str, table: &str) -> Option<String> {
    views(of, cluster).into_iter().find(|(name, _)| name == table).map(|(_, sql)| sql)
}

/// The views, by name.
pub(super) fn views(of: Tables<'_>, cluster: &str) -> Vec<(String, String)> {
    let (database, db, is_in) = (of.database, quoted(of.database), of.is_in());
    let mut all = vec![("nodes".to_owned(), NODES.to_owned())];
    for table in &TABLES {
        let mut columns: Vec<String> = vec!["place".to_owned()];
        for (at, (name, _)) in table.keys.iter().take(columns_of_part(table)).enumerate() {
            columns.push(format!("{} AS {}", part_column(table, at), quoted(name)));
        }
        for column in own_columns(table) {
            let stored = stored_name(table, column);
            let same = stored == column.0;
            let name = quoted(column.0);
            columns.push(if same { name } else { format!("{} AS {name}", quoted(&stored)) });
        }
        let filter = format!("place {is_in} ({})", places(database));
        let rows = counted(of, table.is_of_units(), &filter);
        let rows = rows.replacen(
            &format!("WHERE entity != '{PART}'"),
            &format!("WHERE entity = '{}'", table.name),
            1,
        );
        all.push((table.name.to_owned(), format!("SELECT {} FROM {rows}", columns.join(", "))));
    }
    let five_minutes = format!(
        "SELECT place, container AS number, class, if(family = 0, 'ipv4', 'ipv6') AS address_family, toDateTime(start, 'UTC') \
         AS time, {FIGURES} FROM {{db}}.traffic WHERE level = 0"
    );
    let families = "class, address_family AS family";
    let of_days = "class, address_family, day, month";
    all.push((
        "traffic_5min".to_owned(),
        named(&five_minutes, "class, address_family, time", &format!("{families}, time")),
    ));
    all.push(("traffic_day".to_owned(), named(&days(), of_days, &format!("{families}, day, month"))));
    let of_months = "class, month, closed";
    all.push(("bill_month".to_owned(), named(&months(), of_months, of_months)));
    all.into_iter()
        .map(|(name, select)| {
            let not_in = if of.is_sharded { "GLOBAL NOT IN" } else { "NOT IN" };
            let select = select.replace("{db}", &db).replace("{in}", is_in).replace("{not_in}", not_in);
            let sql = format!("CREATE VIEW IF NOT EXISTS {db}.{}{cluster} AS {select}", quoted(&name));
            (name, sql)
        })
        .collect()
}
