//! Previews of what cannot be undone: they show it, and change nothing.

use rusqlite::Connection;

use crate::{Ledger, LedgerError, testing::*};

/// Everything in the file.
fn dump(file: &File) -> Vec<String> {
    let conn = Connection::open(file.ledger.path()).unwrap();
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
    let tables: Vec<String> =
        conn.prepare(tables).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut lines = Vec::new();
    for table in tables {
        let mut statement = conn.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let cells: Vec<_> = (0..columns).map(|at| row.get_ref(at).unwrap()).collect();
            lines.push(format!("{table} {cells:?}"));
        }
    }
    lines
}

#[test]
fn closing_and_retiring_are_previewed_without_a_change() {
    let mut file = ledger();
    let mut node = Node::balanced(NOON);
    for _ in 0..60 {
        node.traffic("101", 1, [1, 100, 2, 10]).traffic("102", 0, [1, 7, 1, 7]);
        node.pass(86_400).drain(&mut file.ledger);
    }
    let before = dump(&file);
    let reader = Ledger::open_read_only(file.ledger.path()).unwrap();
    let preview = reader.preview_close("2026-11", node.wall, true).unwrap();
    assert_eq!((preview.name.as_str(), preview.containers), ("2026-11", 2));
    assert_eq!((preview.total.total.bytes, preview.total.total.packets), (20 * 110, 60));
    assert!(preview.doubt.is_some());
    let refused = reader.preview_close("2026-11", node.wall, false).unwrap_err().to_string();
    let early = reader.preview_close("2026-12", node.wall, true).unwrap_err().to_string();
    assert!(early.contains("run `trafctl close 2026-11` first"), "{early}");
    let retire = reader.preview_retire("101").unwrap();
    assert_eq!((retire.container.as_str(), retire.total.total.bytes), ("101", 60 * 110));
    assert!(matches!(reader.preview_retire("103"), Err(LedgerError::UnknownContainer(_))));
    assert_eq!(dump(&file), before);
    // What is refused is refused with the same words.
    assert_eq!(file.ledger.close("2026-11", node.wall).unwrap_err().to_string(), refused);
    assert_eq!(file.ledger.close_anyway("2026-12", node.wall).unwrap_err().to_string(), early);
    file.ledger.close_anyway("2026-11", node.wall).unwrap();
    let twice = file.ledger.preview_close("2026-11", node.wall, true).unwrap_err().to_string();
    assert!(twice.contains("already closed"), "{twice}");
}
