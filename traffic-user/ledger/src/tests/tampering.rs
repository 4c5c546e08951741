//! The audit finds every change of a ledger that alters what is in any table.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, types::Value};
use traffic_common::{DropGroup, Fault};

use crate::{Ledger, LedgerConfig, LedgerError, PvaImport, testing::*};

/// A ledger in which every table has rows.
fn full() -> (File, Node) {
    let (mut file, mut node) = (ledger(), Node::balanced(NOON));
    node.interface("veth9", Some("102"), 0, 3).count_drops();
    file.ledger.note_names([("101".to_owned(), "shop".to_owned())].into());
    for day in 0..22 {
        node.traffic("101", 1, [1, 100, 1, 10]).traffic("102", 0, [1, 7, 1, 7]);
        node.dropped("101", 1, DropGroup::Firewall, [1, 90, 1, 10]);
        node.fault(&format!("veth{}", day % 3), Fault::NotIp, 4 + day).pass(86_400);
        node.drain(&mut file.ledger);
    }
    // The hours of the last day are still rows.
    node.dropped("101", 1, DropGroup::Firewall, [1, 3, 1, 5]);
    node.traffic("101", 1, [1, 3, 1, 5]).fault("veth1", Fault::NotIp, 3).pass(7200).drain(&mut file.ledger);
    node.interface("veth9", Some("101"), 0, 3).pass(60).drain(&mut file.ledger);
    file.ledger.note_names([("101".to_owned(), "shop-2".to_owned())].into());
    node.reboot(300).traffic("101", 1, [1, 100, 1, 100]);
    node.dropped("101", 1, DropGroup::Shaper, [1, 100, 1, 100]);
    node.interface("veth9", Some("102"), 0, 5).fault("veth1", Fault::NotIp, 2);
    node.traffic_in("pending:veth7:7:x", 7, 1, [0; 4]).pass(90).drain(&mut file.ledger);
    file.ledger.attribute("pending:veth7:7:x", &id("101"), "found", node.wall).unwrap().unwrap();
    file.ledger.maintain(node.wall).unwrap();
    super::quotas::follow_all(&mut file.ledger);
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    file.ledger.adjust(&adjustment(node.wall)).unwrap();
    file.ledger.append_key_change("a note\n", node.wall, 2).unwrap();
    file.ledger.record_calibration(&calibration(node.wall)).unwrap();
    file.ledger.store_class_table(&node.snapshot().class_table, b"1 10.0.0.0/8\n").unwrap();
    file.ledger.retire("102", node.wall).unwrap();
    assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
    (file, node)
}

fn tables(conn: &Connection) -> Vec<String> {
    let mut statement = conn
        .prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name",
        )
        .unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn columns(conn: &Connection, table: &str) -> Vec<String> {
    let mut statement = conn.prepare("SELECT name FROM pragma_table_info(?1)").unwrap();
    statement.query_map([table], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Everything that a report could show.
fn content(conn: &Connection) -> rusqlite::Result<Vec<Vec<Value>>> {
    let mut all = Vec::new();
    for table in tables(conn) {
        let mut statement = conn.prepare(&format!("SELECT * FROM {table}"))?;
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| (0..columns).map(|at| row.get(at)).collect())?;
        let mut rows = rows.collect::<rusqlite::Result<Vec<Vec<Value>>>>()?;
        rows.sort_by_key(|row| format!("{row:?}"));
        all.extend(rows);
    }
    Ok(all)
}

/// Applies SQL to a copy, and audits it. `None` where SQLite refuses the change or it changes nothing.
fn problems_after(original: &Path, copy: &Path, sql: &str) -> Option<Vec<String>> {
    fs::copy(original, copy).unwrap();
    let conn = Connection::open(copy).unwrap();
    conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = DELETE").unwrap();
    conn.execute_batch(sql).ok()?;
    let is_schema = ["CREATE", "DROP", "ALTER"].iter().any(|verb| sql.starts_with(verb));
    if conn.total_changes() == 0 && !is_schema {
        return None;
    }
    drop(conn);
    Some(Ledger::open_read_only(copy).unwrap().audit().unwrap().problems)
}

fn copied(file: &File) -> (PathBuf, PathBuf) {
    let original = file.dir.path().join("original");
    file.ledger.backup(&original).unwrap();
    (original, file.dir.path().join("copy"))
}

#[test]
fn a_change_of_any_column_of_any_table_is_found() {
    let (file, _) = full();
    let (original, copy) = copied(&file);
    let conn = Connection::open(&original).unwrap();
    let (mut changed, mut without_rows, mut constant) = (0, Vec::new(), Vec::new());
    for table in tables(&conn) {
        let rows: i64 =
            conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        if rows == 0 {
            without_rows.push(table);
            continue;
        }
        for column in columns(&conn, &table) {
            let mut found = false;
            // Numbers, text, and the columns that may only hold certain words.
            for (kind, new) in [
                ("'integer', 'null'", "coalesce(COL, 0) + 1000"),
                ("'integer'", "COL - 1"),
                ("'text', 'null'", "coalesce(COL, '') || hex(randomblob(4))"),
                (
                    "'text'",
                    "CASE COL WHEN 'ct' THEN 'vm' WHEN 'hand' THEN 'counters' WHEN 'undone' THEN 'ended'
                              WHEN 'reached' THEN 'undone' ELSE 'adjustment' END",
                ),
                ("'blob'", "CAST(COL || x'00' AS BLOB)"),
            ] {
                let sql = format!(
                    "UPDATE \"{table}\" SET COL = {new} WHERE typeof(COL) IN ({kind})
                     AND COL IS (SELECT max(COL) FROM \"{table}\")"
                );
                let sql = sql.replace("COL", &format!("\"{column}\""));
                let Some(problems) = problems_after(&original, &copy, &sql) else { continue };
                assert!(!problems.is_empty(), "{sql}");
                found = true;
                changed += 1;
            }
            if !found {
                constant.push(format!("{table}.{column}"));
            }
        }
        let delete = format!("DELETE FROM \"{table}\"");
        assert!(!problems_after(&original, &copy, &delete).unwrap().is_empty(), "{delete}");
    }
    assert!(changed > 150, "{changed}");
    let expected = ["changes.id", "clock.id", "drop_set.id"];
    assert_eq!(constant, expected, "no other value is allowed there");
    assert_eq!(without_rows, ["pva_range"], "without rows, nothing was tried");
}

#[test]
fn rows_that_change_places_and_a_changed_schema_are_found() {
    let (file, _) = full();
    let (original, copy) = copied(&file);
    for (sql, finding) in [
        // Two customers change places, with all rows as they were.
        (
            "UPDATE container SET label = 'x' WHERE id = 1;
             UPDATE container SET label = '101' WHERE id = 2;
             UPDATE container SET label = '102@2026-12-02T12:06:30Z' WHERE id = 1",
            "container: rows were changed by something else than trafctl",
        ),
        ("UPDATE epoch SET boot_id = 'other' WHERE id = 1", "epoch: rows were changed"),
        ("UPDATE traffic_5min_days SET class = 3 WHERE class = 1", "traffic_5min_days of "),
        ("UPDATE fault_5min_rows SET fault = 3", "fault_5min_rows of "),
        ("DELETE FROM class_reading", "class_reading: "),
        ("DELETE FROM gap", "gap: "),
        ("UPDATE meta SET value = 2 WHERE key = 'billing_day'", "meta: rows were changed"),
        ("UPDATE class_table SET content = x'00'", "class_table: rows were changed"),
        (
            "CREATE TRIGGER t AFTER INSERT ON gap BEGIN DELETE FROM gap; END",
            "sqlite_schema: 1 rows were added by something else than trafctl",
        ),
        ("DROP VIEW log_data", "sqlite_schema: 1 rows were removed"),
        (
            "DROP VIEW traffic_5min; CREATE VIEW traffic_5min AS SELECT * FROM traffic_5min_rows",
            "sqlite_schema: rows were changed",
        ),
        (
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, 'in_bytes', 'out_bytes') WHERE name = 'traffic_hour'",
            "sqlite_schema: rows were changed",
        ),
        // Under a name that SQLite keeps for itself.
        (
            "PRAGMA writable_schema = ON;
             INSERT INTO sqlite_schema VALUES ('trigger', 'sqlite_stat9', 'gap', 0,
                 'CREATE TRIGGER sqlite_stat9 AFTER INSERT ON gap BEGIN DELETE FROM gap; END')",
            "sqlite_schema: 1 rows were added",
        ),
        // Two series of one day change places, with all sums as they were.
        (
            "CREATE TEMP TABLE two AS SELECT * FROM traffic_5min_days WHERE class = 1 AND container = 1
                 ORDER BY start LIMIT 1;
             UPDATE traffic_5min_days SET container = 99 WHERE start = (SELECT start FROM two) AND class = 1;
             UPDATE traffic_5min_days SET container = 1, class = 1
                 WHERE start = (SELECT start FROM two) AND class = 0;
             UPDATE traffic_5min_days SET container = 2, class = 0
                 WHERE start = (SELECT start FROM two) AND container = 99",
            "traffic_5min_days of ",
        ),
        // Two directions of all series change places.
        (
            "UPDATE passed_hour_days SET in_bytes = out_bytes, out_bytes = in_bytes",
            "passed_hour_days of ",
        ),
        // Rows that maintenance would take for not read yet.
        (
            "INSERT INTO meta VALUES ('digests_left_from', 'traffic_5min_rows -1');
             UPDATE traffic_5min_rows SET in_bytes = in_bytes + 1",
            "meta: 1 rows were added",
        ),
        ("DROP INDEX gap_end", "sqlite_schema: 1 rows were removed"),
        ("ALTER TABLE node ADD COLUMN place TEXT", "sqlite_schema: rows were changed"),
        ("CREATE TABLE extra (a)", "sqlite_schema: 1 rows were added"),
    ] {
        let problems = problems_after(&original, &copy, sql).unwrap_or_default();
        assert!(problems.iter().any(|problem| problem.starts_with(finding)), "{sql}: {problems:?}");
    }
}

/// What the audit looks at is what a report shows, so whoever changes a number of the header gets neither.
#[test]
fn a_changed_header_is_refused() {
    let (file, _) = full();
    let (original, copy) = copied(&file);
    for (pragma, numbers) in
        [("user_version", [0, 1, 3, 6, 9, 12, 14, -6]), ("application_id", [0, 1, -1, 5, 7, 9, 11, 12])]
    {
        for number in numbers {
            fs::copy(&original, &copy).unwrap();
            let change = format!("PRAGMA {pragma} = {number}");
            Connection::open(&copy).unwrap().execute_batch(&change).unwrap();
            let read = Ledger::open_read_only(&copy).map(drop);
            assert!(read.is_err(), "{change}");
            assert!(Ledger::open(&copy, LedgerConfig::default()).is_err(), "{change}");
            assert_eq!(
                content(&Connection::open(&copy).unwrap()),
                content(&Connection::open(&original).unwrap())
            );
        }
    }
}

#[test]
fn every_bit_of_packed_values_counts() {
    let (file, _) = full();
    let (original, copy) = copied(&file);
    let conn = Connection::open(&original).unwrap();
    let mut tried = 0;
    for table in tables(&conn).into_iter().filter(|table| table.ends_with("_days")) {
        for column in columns(&conn, &table) {
            let sql = format!(
                "SELECT rowid_of, {column} FROM (SELECT start AS rowid_of, {column} FROM {table}
                 WHERE typeof({column}) = 'blob' AND length({column}) > 0 LIMIT 1)"
            );
            let found =
                conn.query_row(&sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)));
            let Ok((start, bytes)) = found else { continue };
            for bit in 0..bytes.len().min(3) * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                let sql = format!(
                    "UPDATE {table} SET {column} = x'{}' WHERE start = {start} AND {column} = x'{}'",
                    hex(&changed),
                    hex(&bytes)
                );
                let problems = problems_after(&original, &copy, &sql).unwrap();
                let named = format!("{table} of ");
                assert!(problems.iter().any(|problem| problem.starts_with(&named)), "{sql}: {problems:?}");
                tried += 1;
            }
        }
    }
    assert!(tried > 200, "{tried}");
}

#[test]
fn flipped_bits_are_found_or_change_nothing() {
    const FLIPS: u64 = 200;
    let (file, _) = full();
    let (original, copy) = copied(&file);
    let bytes = fs::read(&original).unwrap();
    let expected = content(&Connection::open(&original).unwrap()).unwrap();
    let (mut found, mut harmless) = (0, 0);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..FLIPS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bit = (random >> 16) as usize % (bytes.len() * 8);
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        fs::write(&copy, changed).unwrap();
        let audited = Ledger::open_read_only(&copy).and_then(|ledger| Ok((ledger.audit()?.problems, ledger)));
        match audited {
            Err(_) => found += 1,
            Ok((problems, _)) if !problems.is_empty() => found += 1,
            Ok((_, ledger)) => {
                assert_eq!(content(&ledger.conn).unwrap(), expected, "bit {bit} of {}", bytes.len() * 8);
                harmless += 1;
            }
        }
    }
    assert!(found > FLIPS / 10, "{found} found, {harmless} in unused bytes");
}

#[test]
fn what_this_program_writes_is_never_taken_for_a_change() {
    let (mut file, mut node) = full();
    // A transaction that fails leaves nothing behind.
    node.epoch += 1;
    let error = node.set_clock(0).try_drain(&mut file.ledger);
    assert!(matches!(error, Ok(_) | Err(LedgerError::StaleReading { .. })));
    let missing = file.dir.path().join("missing");
    let import =
        PvaImport { node: "node1".to_owned(), class: 1, until: None, dry_run: false, now: node.wall };
    assert!(file.ledger.import_pva(&missing, &import, &mut |_| {}).is_err());
    assert!(file.ledger.close("2026-11", node.wall).is_err());
    node.pass(60).drain(&mut file.ledger);
    assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
}
