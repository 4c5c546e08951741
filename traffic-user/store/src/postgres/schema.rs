//! The tables and functions of the store in PostgreSQL, made from the ledger's list of shipped tables.
//!
//! Whoever ships may call these functions and nothing else: it can add parts and newer versions of them, and cannot
//! remove, empty or alter anything otherwise. The functions run with the rights of the schema's owner.

use std::fmt::Write as _;

use traffic_ledger::{DROPPED_TABLE, Kept, ShippedTable, TABLES};

use super::migrate::MIGRATIONS;

/// The schema that holds everything.
pub(super) const SCHEMA: &str = "trafctl";
/// Its version, in `trafctl.store_version`.
pub(super) const VERSION: i32 = 4;
/// The role that may ship.
pub(super) const SHIP_ROLE: &str = "trafctl_ship";
/// The role that may read.
pub(super) const READ_ROLE: &str = "trafctl_read";
/// The views for people.
pub(super) const VIEWS: [&str; 4] = ["traffic_5min", "traffic_day", "bill_month", "nodes"];

/// Tables beside those of the rows.
const TABLES_OF_ITS_OWN: &str = "
CREATE TABLE trafctl.store_version (version integer NOT NULL);
CREATE TABLE trafctl.ledger (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    node text NOT NULL, version text NOT NULL, kernel text NOT NULL,
    machine text, changes bigint NOT NULL, token text, done bigint NOT NULL);
CREATE TABLE trafctl.replaced (id text PRIMARY KEY, by text NOT NULL);
CREATE TABLE trafctl.part (
    ledger integer NOT NULL, name text NOT NULL, number bigint NOT NULL, rev bigint NOT NULL,
    PRIMARY KEY (ledger, name, number));
";

/// Partitions are made apart and attached: to create them in place would wait for every reader. A month whose partitions
/// the owner dropped or detached gets no new ones: parts of it are noted, which come in one transaction with partitions.
const MONTHS: &str = "
CREATE OR REPLACE FUNCTION trafctl.add_months(starts bigint[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, trafctl, pg_temp AS $$
DECLARE
    month timestamp; parent text; child text; low bigint; high bigint;
BEGIN
    FOR month IN SELECT DISTINCT date_trunc('month', to_timestamp(s) AT TIME ZONE 'UTC') FROM unnest(starts) s LOOP
        low := extract(epoch FROM month AT TIME ZONE 'UTC')::bigint;
        high := extract(epoch FROM (month + interval '1 month') AT TIME ZONE 'UTC')::bigint;
        CONTINUE WHEN to_char(month, 'YYYY_MM') NOT IN ({months_with_rows})
            AND EXISTS (SELECT FROM ledger l CROSS JOIN unnest(ARRAY['5min', 'day']) u(name)
                CROSS JOIN LATERAL (SELECT 1 FROM part p WHERE p.ledger = l.number AND p.name = u.name
                    AND p.number >= low AND p.number < high LIMIT 1) p);
        FOREACH parent IN ARRAY ARRAY[{partitioned}] LOOP
            child := parent || '_' || to_char(month, 'YYYY_MM');
            CONTINUE WHEN to_regclass('trafctl.' || quote_ident(child)) IS NOT NULL;
            PERFORM pg_advisory_xact_lock(1953654371);
            CONTINUE WHEN to_regclass('trafctl.' || quote_ident(child)) IS NOT NULL;
            EXECUTE format('CREATE TABLE trafctl.%I (LIKE trafctl.%I INCLUDING ALL)', child, parent);
            EXECUTE format('GRANT SELECT ON trafctl.%I TO trafctl_read', child);
            EXECUTE format('ALTER TABLE trafctl.%I ATTACH PARTITION trafctl.%I FOR VALUES FROM (%s) TO (%s)',
                parent, child, low, high);
        END LOOP;
    END LOOP;
END $$;
";

/// The months of UTC whose rows are there, as partitions are named.
pub(super) const MONTHS_WITH_ROWS: &str =
    "SELECT right(c.relname, 7) FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = 'trafctl.traffic'::regclass";

/// What the store knows of a ledger, and the begin and end of a transaction that changes it.
const LEDGERS: &str = "
CREATE FUNCTION trafctl.known(ledger_id text)
RETURNS TABLE (machine text, changes bigint, token text, done bigint, replaced_by text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = trafctl, pg_temp AS $$
    SELECT l.machine, l.changes, l.token, l.done, NULL FROM ledger l WHERE l.id = ledger_id
    UNION ALL SELECT NULL, 0, NULL, 0, r.by FROM replaced r WHERE r.id = ledger_id
$$;
CREATE FUNCTION trafctl.begin_put(ledger_id text, before_machine text, before_changes bigint, before_token text,
    before_done bigint) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = trafctl, pg_temp AS $$
DECLARE
    present ledger;
BEGIN
    IF before_changes IS NULL THEN
        INSERT INTO ledger (id, node, version, kernel, changes, done) VALUES (ledger_id, '', '', '', 0, 0)
            ON CONFLICT (id) DO NOTHING RETURNING * INTO present;
        RETURN present.number;
    END IF;
    SELECT * INTO present FROM ledger l WHERE l.id = ledger_id FOR UPDATE;
    IF (present.machine, present.changes, present.token, present.done)
        IS DISTINCT FROM (before_machine, before_changes, before_token, before_done) THEN
        RETURN NULL;
    END IF;
    RETURN present.number;
END $$;
CREATE FUNCTION trafctl.end_put(ledger_number integer, now_machine text, now_changes bigint, now_token text,
    now_done bigint, now_node text, now_version text, now_kernel text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = trafctl, pg_temp AS $$
BEGIN
    UPDATE ledger l SET machine = now_machine, changes = now_changes, token = now_token, done = now_done,
        node = now_node, version = now_version, kernel = now_kernel
        WHERE l.number = ledger_number AND l.changes <= now_changes AND l.done <= now_done;
    IF NOT FOUND THEN RAISE EXCEPTION 'the change number of a ledger only grows'; END IF;
END $$;
";

/// The tables of version 1. Later ones come with the migrations.
pub(super) fn first_tables() -> &'static [ShippedTable] {
    TABLES.split_at(DROPPED_TABLE).0
}

/// A column's name in SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// A column's type: smaller than the numbers of the ledger where its values are.
pub(super) fn sql_type(name: &str, kept: Kept, table: &ShippedTable) -> &'static str {
    match (kept, name) {
        (Kept::Text, _) => "text",
        (Kept::Bytes, _) => "bytea",
        (Kept::Integer, "level" | "class" | "family" | "fault" | "reason") if table.is_of_units() => {
            "smallint"
        }
        (Kept::Integer, "container" | "interface" | "series") if table.is_of_units() => "integer",
        (Kept::Integer, _) => "bigint",
    }
}

/// All columns of a table, without `ledger` and `rev`.
pub(super) fn columns(table: &ShippedTable) -> impl Iterator<Item = (&'static str, Kept)> {
    table.keys.iter().chain(table.values).copied()
}

pub(super) fn create_table(table: &ShippedTable) -> String {
    let key = |(name, kept): &(&'static str, Kept)| {
        format!("{} {} NOT NULL, ", quoted(name), sql_type(name, *kept, table))
    };
    let keys: String = table.keys.iter().map(key).collect();
    let value = |(name, kept): &(&'static str, Kept)| {
        let not_null = if table.is_counted { " NOT NULL" } else { "" };
        format!("{} {}{not_null}, ", quoted(name), sql_type(name, *kept, table))
    };
    let values: String = table.values.iter().map(value).collect();
    let names: Vec<String> = table.keys.iter().map(|(name, _)| quoted(name)).collect();
    let partition = if table.is_of_units() { " PARTITION BY RANGE (start)" } else { "" };
    format!(
        "CREATE TABLE trafctl.{} (ledger integer NOT NULL, {keys}{values}rev bigint NOT NULL,\n    PRIMARY KEY \
         (ledger, {})){partition};\n",
        quoted(table.name),
        names.join(", ")
    )
}

/// The name of the function that adds rows to a table.
pub(super) fn put_function(table: &ShippedTable) -> String {
    format!("put_{}", table.name)
}

pub(super) fn create_put(table: &ShippedTable) -> String {
    let array = |kept| match kept {
        Kept::Integer => "bigint[]",
        Kept::Text => "text[]",
        Kept::Bytes => "bytea[]",
    };
    let parameters: String =
        columns(table).map(|(name, kept)| format!(", p_{name} {}", array(kept))).collect();
    let names: Vec<String> = columns(table).map(|(name, _)| quoted(name)).collect();
    let casts: Vec<String> = columns(table)
        .map(|(name, kept)| format!("u.{}::{}", quoted(name), sql_type(name, kept, table)))
        .collect();
    let arrays: String = columns(table).map(|(name, _)| format!(", p_{name}")).collect();
    format!(
        "CREATE FUNCTION trafctl.{}(p_ledger integer, p_rev bigint[]{parameters}) RETURNS void LANGUAGE sql
SECURITY DEFINER SET search_path = trafctl, pg_temp AS $$
    INSERT INTO {} (ledger, rev, {}) SELECT p_ledger, u.rev, {}
    FROM unnest(p_rev{arrays}) AS u(rev, {})
$$;\n",
        put_function(table),
        quoted(table.name),
        names.join(", "),
        casts.join(", "),
        names.join(", "),
    )
}

/// The function that adds partitions, for some tables.
pub(super) fn create_months(tables: &[ShippedTable]) -> String {
    let of_units = tables.iter().filter(|table| table.is_of_units());
    let partitioned: Vec<String> = of_units.map(|table| format!("'{}'", table.name)).collect();
    MONTHS.replace("{partitioned}", &partitioned.join(", ")).replace("{months_with_rows}", MONTHS_WITH_ROWS)
}

/// Decides which parts are newer than those in the store, and removes their former rows. Of a month that the owner
/// dropped, parts are noted and no rows are asked for: a few of them would look like the whole month.
pub(super) fn create_take(function: &str, tables: &[ShippedTable]) -> String {
    let mut removals = String::new();
    for table in tables {
        let name = quoted(table.name);
        // Writing to a string cannot fail.
        let _done = if table.is_of_units() {
            write!(
                removals,
                "        DELETE FROM {name} t USING unnest(old_names, old_numbers) u(name, number)
            WHERE t.ledger = p_ledger AND t.level = CASE u.name WHEN '5min' THEN 0 WHEN 'day' THEN 2 END
            AND t.start = u.number AND t.start BETWEEN low AND high;\n"
            )
        } else {
            let parts: Vec<String> = table.parts.iter().map(|part| format!("'{part}'")).collect();
            write!(
                removals,
                "        DELETE FROM {name} t USING unnest(old_names, old_numbers) u(name, number)
            WHERE t.ledger = p_ledger AND t.{} = u.number AND u.name IN ({});\n",
                quoted(table.keys[0].0),
                parts.join(", ")
            )
        };
    }
    format!(
        "CREATE FUNCTION trafctl.{function}(p_ledger integer, p_names text[], p_numbers bigint[], p_revs bigint[],
    p_repairs boolean) RETURNS TABLE (name text, number bigint) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = trafctl, pg_temp AS $$
#variable_conflict use_column
DECLARE
    new_names text[]; new_numbers bigint[]; new_revs bigint[]; old_names text[]; old_numbers bigint[];
    low bigint; high bigint;
BEGIN
    SELECT array_agg(u.name), array_agg(u.number), array_agg(u.rev),
        array_agg(u.name) FILTER (WHERE p.rev IS NOT NULL), array_agg(u.number) FILTER (WHERE p.rev IS NOT NULL)
        INTO new_names, new_numbers, new_revs, old_names, old_numbers
        FROM unnest(p_names, p_numbers, p_revs) u(name, number, rev)
        LEFT JOIN part p ON p.ledger = p_ledger AND p.name = u.name AND p.number = u.number
        WHERE p.rev IS NULL OR u.rev > p.rev OR (p_repairs AND u.rev = p.rev);
    IF old_names IS NOT NULL THEN
        SELECT min(n), max(n) INTO low, high FROM unnest(old_numbers) n;
{removals}    END IF;
    INSERT INTO part AS p SELECT p_ledger, u.name, u.number, u.rev
        FROM unnest(new_names, new_numbers, new_revs) u(name, number, rev)
        ON CONFLICT (ledger, name, number) DO UPDATE SET rev = excluded.rev;
    RETURN QUERY SELECT u.name, u.number FROM unnest(new_names, new_numbers) u(name, number)
        WHERE u.name NOT IN ('5min', 'day')
            OR to_char(to_timestamp(u.number) AT TIME ZONE 'UTC', 'YYYY_MM') IN ({MONTHS_WITH_ROWS});
END $$;\n"
    )
}

/// A row as the line of which digests are made; the node writes the same.
fn line(table: &ShippedTable) -> String {
    let fields: Vec<String> = columns(table)
        .map(|(name, kept)| {
            let name = format!("t.{}", quoted(name));
            match kept {
                Kept::Integer => format!("coalesce({name}::text, '-')"),
                Kept::Text => format!("coalesce(octet_length({name}) || ':' || {name}, '-')"),
                Kept::Bytes => format!("coalesce(encode({name}, 'hex'), '-')"),
            }
        })
        .collect();
    fields.join(" || ' ' || ")
}

/// The digests of the parts of a ledger: of units from `p_from` to `p_until`, or of records if these are null.
pub(super) fn create_digests(function: &str, tables: &[ShippedTable]) -> String {
    let selects: Vec<String> = tables
        .iter()
        .enumerate()
        .map(|(at, table)| {
            let (name, number, filter) = if table.is_of_units() {
                let name = "CASE t.level WHEN 0 THEN '5min' WHEN 2 THEN 'day' END";
                (name.to_owned(), "t.start".to_owned(), "t.start >= p_from AND t.start < p_until")
            } else {
                (format!("'{}'", table.parts[0]), format!("t.{}", quoted(table.keys[0].0)), "p_from IS NULL")
            };
            format!(
                "    SELECT {at}, d.name, d.number, count(*), encode(sha256(convert_to(string_agg(d.line, E'\\n' ORDER \
                 BY d.line COLLATE \"C\"), 'UTF8')), 'hex')
    FROM (SELECT {name} AS name, {number} AS number, {} AS line FROM {} t, ledger l
        WHERE l.id = ledger_id AND t.ledger = l.number AND {filter}) d GROUP BY d.name, d.number",
                line(table),
                quoted(table.name)
            )
        })
        .collect();
    format!(
        "CREATE FUNCTION trafctl.{function}(ledger_id text, p_from bigint, p_until bigint)
RETURNS TABLE (at integer, name text, number bigint, rows bigint, hash text) LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = trafctl, pg_temp AS $$
{}
$$;\n",
        selects.join("\n    UNION ALL\n")
    )
}

/// Only the owner may call this: it removes rows.
pub(super) fn create_take_over(tables: &[ShippedTable], also_set: &str) -> String {
    let mut removals = String::new();
    for table in tables {
        let keeps = if table.is_of_units() {
            " AND NOT (t.level = 0 AND t.start < coalesce(kept_from, t.start))"
        } else {
            ""
        };
        let _done = writeln!(
            removals,
            "    DELETE FROM {} t WHERE t.ledger = place.number{keeps};",
            quoted(table.name)
        );
    }
    format!(
        "CREATE OR REPLACE FUNCTION trafctl.take_over(ledger_id text, place_id text, now_machine text, now_changes bigint,
    now_token text, kept_from bigint) RETURNS void LANGUAGE plpgsql SET search_path = trafctl, pg_temp AS $$
DECLARE
    place ledger;
BEGIN
    SELECT * INTO place FROM ledger l WHERE l.id = place_id FOR UPDATE;
    IF place.number IS NULL THEN
        INSERT INTO ledger (id, node, version, kernel, machine, changes, token, done)
            VALUES (ledger_id, '', '', '', now_machine, now_changes, now_token, 0);
        RETURN;
    END IF;
{removals}    DELETE FROM part t WHERE t.ledger = place.number
        AND NOT (t.name = '5min' AND t.number < coalesce(kept_from, t.number));
    DELETE FROM replaced r WHERE r.id = ledger_id;
    IF place_id <> ledger_id THEN INSERT INTO replaced VALUES (place_id, ledger_id); END IF;
    UPDATE ledger l SET id = ledger_id, machine = now_machine, changes = now_changes, token = now_token, done = 0{also_set}
        WHERE l.number = place.number;
END $$;\n"
    )
}

/// Everything, in one transaction. The roles are those of the whole server, so they may exist.
pub(super) fn create() -> String {
    let mut sql = String::from("CREATE SCHEMA trafctl;\n");
    for role in [SHIP_ROLE, READ_ROLE] {
        let _done = writeln!(
            sql,
            "DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role} \
             NOLOGIN; END IF; END $$;"
        );
    }
    sql.push_str(TABLES_OF_ITS_OWN);
    let tables = first_tables();
    tables.iter().for_each(|table| sql.push_str(&create_table(table)));
    sql.push_str(&create_months(tables));
    sql.push_str(LEDGERS);
    tables.iter().for_each(|table| sql.push_str(&create_put(table)));
    sql.push_str(&create_take("take", tables));
    sql.push_str(&create_digests("digests", tables));
    sql.push_str(&create_take_over(tables, ""));
    sql.push_str(include_str!("views.sql"));
    sql.push_str("INSERT INTO trafctl.store_version VALUES (1);\n");
    sql.push_str(&migrations_after(1));
    sql
}

/// What brings a store of a version to the present one.
pub(super) fn migrations_after(version: i32) -> String {
    let mut sql = String::new();
    MIGRATIONS.iter().filter(|step| step.0 > version).for_each(|step| sql.push_str(&step.1()));
    let _done = write!(
        sql,
        "UPDATE trafctl.store_version SET version = {VERSION};
         REVOKE ALL ON ALL FUNCTIONS IN SCHEMA trafctl FROM PUBLIC;
         REVOKE ALL ON ALL TABLES IN SCHEMA trafctl FROM PUBLIC;
         GRANT USAGE ON SCHEMA trafctl TO {SHIP_ROLE}, {READ_ROLE};
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA trafctl TO {SHIP_ROLE};
         REVOKE ALL ON FUNCTION trafctl.take_over FROM {SHIP_ROLE};
         GRANT SELECT ON trafctl.store_version TO {SHIP_ROLE};
         GRANT SELECT ON ALL TABLES IN SCHEMA trafctl TO {READ_ROLE};"
    );
    sql
}
