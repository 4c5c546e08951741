//! Files that were imported before under another name of the node, and files that are no history of PVA.

use super::*;

fn as_node(name: &str) -> PvaImport {
    PvaImport { node: name.to_owned(), ..import() }
}

fn import_as(file: &mut File, pva: &Pva, node: &str) -> PvaImported {
    file.ledger.import_pva(&pva.path, &as_node(node), &mut |_| ()).unwrap()
}

/// Two containers with different samples, a month before the ledger.
fn history(file: &File, name: &str) -> (Pva, i64) {
    let mut pva = Pva::new(file, name);
    let id = pva.bytes_in("101");
    pva.minutes(id, NOON - 30 * DAY, &[500, 600, 700]);
    let other = pva.define("102", "counters_vz_net", "2", OUT_BYTES);
    pva.minutes(other, NOON - 30 * DAY, &[11, 12, 13]);
    (pva, id)
}

#[test]
fn the_same_file_under_another_host_name_is_refused() {
    let (mut file, _) = begun_at_noon();
    let (pva, _) = history(&file, "pva");
    assert_eq!(import_as(&mut file, &pva, "old-name").samples, 6);
    let before = sums(&file.ledger, "traffic_5min");
    // A copy at another path is the same file, and so is one that SQLite wrote anew.
    let copy = file.dir.path().join("copy");
    std::fs::copy(&pva.path, &copy).unwrap();
    let rewritten = file.dir.path().join("rewritten");
    pva.conn.execute("VACUUM INTO ?1", [rewritten.to_str().unwrap()]).unwrap();
    for path in [pva.path.clone(), copy, rewritten] {
        for dry_run in [true, false] {
            let import = PvaImport { dry_run, ..as_node("new-name") };
            let refused = file.ledger.import_pva(&path, &import, &mut |_| ()).unwrap_err().to_string();
            assert!(refused.contains("imported before, as the history of old-name"), "{refused}");
        }
    }
    assert_eq!(sums(&file.ledger, "traffic_5min"), before);
    // Under its own name it may be repeated.
    let again = import_as(&mut file, &pva, "old-name");
    assert_eq!((again.samples, again.samples_imported_before, again.conflicts.count), (0, 6, 0));
    assert_sound(&file);
}

#[test]
fn a_grown_copy_continues_under_another_host_name() {
    let (mut file, _) = begun_at_noon();
    let (pva, id) = history(&file, "pva");
    import_as(&mut file, &pva, "old-name");
    pva.sample(id, NOON - 29 * DAY, 4000);
    let grown = import_as(&mut file, &pva, "new-name");
    assert_eq!((grown.samples, grown.samples_imported_before, grown.conflicts.count), (1, 6, 0));
    assert_eq!(bytes(&file, "traffic_5min", "101", 1), [100 + 500 + 600 + 700 + 4000, 10]);
    assert_eq!(bytes(&file, "traffic_5min", "102", 2), [0, 36]);
    let again = import_as(&mut file, &pva, "new-name");
    assert_eq!((again.samples, again.samples_imported_before), (0, 7));
    let back = import_as(&mut file, &pva, "old-name");
    assert_eq!((back.samples, back.samples_imported_before), (0, 7));
    // Another file with other values of the same times is a conflict, whatever the name.
    let mut other = Pva::new(&file, "other");
    let id = other.bytes_in("101");
    other.minutes(id, NOON - 30 * DAY, &[501, 600, 700]).minutes(id, NOON - 28 * DAY, &[1, 2]);
    let conflict = import_as(&mut file, &other, "third-name");
    assert_eq!((conflict.samples, conflict.samples_imported_before, conflict.conflicts.count), (2, 3, 1));
    assert_sound(&file);
}

#[test]
fn a_ledger_of_trafctl_is_refused_as_history() {
    let (mut file, _) = begun_at_noon();
    let (mut other, mut node) = (ledger(), Node::balanced(NOON - 40 * DAY));
    node.traffic("101", 1, [1, 100, 1, 10]).pass(60).drain(&mut other.ledger);
    let backup = file.dir.path().join("backup");
    other.ledger.backup(&backup).unwrap();
    // By way of SQL, the copy loses what identifies the application.
    let dumped = file.dir.path().join("dumped");
    std::fs::copy(&backup, &dumped).unwrap();
    Connection::open(&dumped).unwrap().execute_batch("PRAGMA application_id = 0").unwrap();
    let own = file.ledger.path().to_owned();
    let before = sums(&file.ledger, "traffic_5min");
    for path in [backup, dumped, own] {
        let refused = file.ledger.import_pva(&path, &import(), &mut |_| ()).unwrap_err().to_string();
        assert!(
            refused.contains("not a PVA database but a ledger of trafctl"),
            "{}: {refused}",
            path.display()
        );
    }
    assert_eq!(sums(&file.ledger, "traffic_5min"), before);
}
