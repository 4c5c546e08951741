//! The statements that create the tables.

use super::*;

#[test]
fn every_table_and_part_has_its_number() {
    let mut entities = ENTITIES.to_vec();
    let mut parts = PARTS.to_vec();
    entities.sort_unstable();
    parts.sort_unstable();
    let mut names: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
    names.sort_unstable();
    assert_eq!(names, entities);
    let mut of_tables: Vec<&str> = TABLES.iter().flat_map(|table| table.parts).copied().collect();
    of_tables.sort_unstable();
    of_tables.dedup();
    assert_eq!(of_tables, parts);
}

#[test]
fn a_name_that_two_tables_have_for_different_things_is_told_apart() {
    let of = |name: &str| TABLES.iter().find(|table| table.name == name).unwrap();
    assert_eq!(stored_name(of("gap"), ("container", Kept::Integer)), "container");
    assert_eq!(stored_name(of("closed_row"), ("container", Kept::Text)), "container_text");
    assert_eq!(stored_name(of("gap"), ("interface", Kept::Text)), "interface");
    for units in [true, false] {
        let columns = columns(units);
        for table in tables(units) {
            let mut names: Vec<String> =
                own_columns(table).map(|column| stored_name(table, column)).collect();
            let all = names.len();
            for (name, column) in names.iter().zip(own_columns(table)) {
                let stored = columns.iter().find(|stored| stored.name == *name).unwrap();
                assert_eq!(stored.kept, column.1, "{name}");
                // Counters of a table whose values may be null stay null.
                assert!(table.is_counted || stored.is_key || stored.is_nullable(), "{name}");
            }
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "{}", table.name);
            let own = ["place", "entity", "part", "part_number", "version"];
            assert!(!names.iter().any(|name| own.contains(&name.as_str())), "{}", table.name);
        }
    }
}

fn made(cluster: Option<&'static str>, features: Features) -> Made<'static> {
    Made { database: "t", cluster, features }
}

const NEW: Features = Features { has_codecs: true, syncs: true, has_roles: true };

#[test]
fn an_old_server_gets_nothing_that_it_does_not_know() {
    for cluster in [None, Some("fleet")] {
        let all = create(made(cluster, Features::default())).join("\n");
        for new in ["CODEC", "fsync", "ROLE", "GRANT", "LowCardinality", " WITH "] {
            assert!(!all.contains(new), "{new}");
        }
    }
    let all = create(made(None, NEW)).join("\n");
    let roles = create_roles(made(None, NEW)).join("\n");
    assert!(all.contains("CODEC(DoubleDelta") && all.contains("fsync_after_insert"));
    assert!(!all.contains("GLOBAL") && !all.contains("CLUSTER") && !all.contains("Replicated"));
    assert!(migrate(made(None, NEW))[0].starts_with("CREATE TABLE IF NOT EXISTS `t`.assignment"));
    assert!(!migrate(made(None, Features::default())).join("\n").contains("fsync"));
    assert!(roles.contains("GRANT INSERT ON `t`.units") && !roles.contains("GRANT INSERT ON `t`.adoption"));
}

#[test]
fn all_of_a_cluster_is_made_on_all_of_its_servers() {
    let of = made(Some("fleet"), NEW);
    let made = create(of).into_iter().chain(migrate(of));
    for sql in made.filter(|sql| !sql.starts_with("INSERT")).chain(create_roles(of)) {
        assert!(sql.contains(" ON CLUSTER `fleet`"), "{sql}");
    }
    let all = create(of);
    for (table, engine, shard) in [
        ("units", "ReplicatedReplacingMergeTree", "place"),
        ("records", "ReplicatedReplacingMergeTree", "place"),
        ("progress", "ReplicatedReplacingMergeTree", "place"),
        ("adoption", "ReplicatedMergeTree", "0"),
        ("store_version", "ReplicatedMergeTree", "0"),
        ("assignment", "ReplicatedMergeTree", "0"),
    ] {
        let path = format!("ENGINE = {engine}('/clickhouse/tables/{{shard}}/t/{table}', '{{replica}}'");
        assert!(all.iter().any(|sql| sql.contains(&path)), "{table}");
        let front = format!(
            "`t`.{table} ON CLUSTER `fleet` AS `t`.{table}_local ENGINE = Distributed(`fleet`, `t`, {table}_local, {shard})"
        );
        assert!(all.iter().any(|sql| sql.contains(&front)), "{table}");
    }
    // A query within a condition would otherwise be asked by each server of each.
    for sql in &all {
        assert_eq!(sql.matches(" IN (SELECT").count(), sql.matches("GLOBAL").count(), "{sql}");
    }
}
