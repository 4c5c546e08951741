//! Versions of the schema, and the way from one to the next.
//!
//! A new store is made as version 1 and brought to the present one by the same statements, so that both are the same.

use traffic_ledger::{DROPPED_TABLE, TABLES};

use super::{Postgres, begin, columns, schema, setup, text};
use crate::store::StoreError;

/// What leads to each version after the first.
pub(super) const MIGRATIONS: [(i32, fn() -> String); 3] =
    [(2, || VERSION_2.to_owned()), (3, || VERSION_3.to_owned()), (4, version_4)];

/// What a report needs of a ledger besides its rows. A shipper of before version 2 does not say it, and ships on.
const VERSION_2: &str = "
ALTER TABLE trafctl.ledger ADD COLUMN zone text, ADD COLUMN billing_day integer, ADD COLUMN begun bigint,
    ADD COLUMN ended bigint, ADD COLUMN last_bucket bigint, ADD COLUMN last_reading bigint, ADD COLUMN id_scope text;
CREATE FUNCTION trafctl.note_extent(ledger_number integer, now_zone text, now_day integer, now_begun bigint,
    now_ended bigint, now_bucket bigint, now_reading bigint, now_scope text)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = trafctl, pg_temp AS $$
    UPDATE ledger l SET zone = now_zone, billing_day = now_day, begun = now_begun, ended = now_ended,
        last_bucket = now_bucket, last_reading = now_reading, id_scope = now_scope
    WHERE l.number = ledger_number
$$;
CREATE OR REPLACE VIEW trafctl.nodes AS
    SELECT l.node, l.version, l.kernel, l.id AS ledger, l.changes, l.done,
        (SELECT to_timestamp(max(p.number)) FROM trafctl.part p WHERE p.ledger = l.number AND p.name = '5min')
            AS last_five_minutes,
        to_timestamp(l.last_reading / 1000.0) AS last_reading, l.zone, l.billing_day
    FROM trafctl.ledger l;
";

/// Who has which container when. Nodes know nothing of it.
const VERSION_3: &str = "
CREATE TABLE trafctl.assignment (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL, container text NOT NULL, node text,
    \"from\" bigint NOT NULL, until bigint CHECK (until > \"from\"));
";

/// Drops. A shipper of before calls `take` and `digests`, which do not have them: each time, the units that it brings have
/// lost theirs, and `without_drops` says so. A shipper that knows drops then ships them again.
const VERSION_4: &str = "
ALTER TABLE trafctl.ledger ADD COLUMN drops_from bigint, ADD COLUMN without_drops bigint NOT NULL DEFAULT 1,
    ADD COLUMN drops_kept_from bigint;
ALTER TABLE trafctl.ledger ALTER COLUMN without_drops SET DEFAULT 0;
DROP FUNCTION trafctl.known(text);
CREATE FUNCTION trafctl.known(ledger_id text)
RETURNS TABLE (machine text, changes bigint, token text, done bigint, replaced_by text, without_drops bigint,
    drops_kept_from bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = trafctl, pg_temp AS $$
    SELECT l.machine, l.changes, l.token, l.done, NULL, l.without_drops, l.drops_kept_from
        FROM ledger l WHERE l.id = ledger_id
    UNION ALL SELECT NULL, 0, NULL, 0, r.by, 0, NULL FROM replaced r WHERE r.id = ledger_id
$$;
CREATE OR REPLACE FUNCTION trafctl.take(p_ledger integer, p_names text[], p_numbers bigint[], p_revs bigint[],
    p_repairs boolean) RETURNS TABLE (name text, number bigint) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = trafctl, pg_temp AS $$
BEGIN
    UPDATE ledger l SET without_drops = l.without_drops + 1
        WHERE l.number = p_ledger AND p_names && ARRAY['5min', 'day'];
    RETURN QUERY SELECT * FROM take_parts(p_ledger, p_names, p_numbers, p_revs, p_repairs);
END $$;
CREATE FUNCTION trafctl.note_drops(ledger_number integer, now_from bigint, completes bigint, now_kept_from bigint)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = trafctl, pg_temp AS $$
    UPDATE ledger l SET drops_from = now_from, drops_kept_from = greatest(l.drops_kept_from, now_kept_from),
        without_drops = CASE WHEN l.without_drops = completes THEN 0 ELSE l.without_drops END
    WHERE l.number = ledger_number
$$;
";

/// Everything comes again, except for five minutes that the ledger has dropped.
const DROPS_OF_TAKEN_PLACE: &str = ", without_drops = 0,
        drops_kept_from = CASE WHEN l.without_drops > 0 OR kept_from IS NULL OR kept_from < l.drops_kept_from THEN kept_from
            ELSE l.drops_kept_from END";

/// The months of UTC, as spans of Unix seconds, that a ledger has parts of and the owner has dropped.
const DROPPED_MONTHS: &str = "
CREATE FUNCTION trafctl.dropped_months(ledger_id text) RETURNS TABLE (begun bigint, ended bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = trafctl, pg_temp AS $$
    SELECT extract(epoch FROM m.month AT TIME ZONE 'UTC')::bigint,
        extract(epoch FROM (m.month + interval '1 month') AT TIME ZONE 'UTC')::bigint
    FROM (SELECT DISTINCT date_trunc('month', to_timestamp(p.number) AT TIME ZONE 'UTC') AS month
        FROM ledger l JOIN part p ON p.ledger = l.number AND p.name IN ('5min', 'day') WHERE l.id = ledger_id) m
    WHERE to_char(m.month, 'YYYY_MM') NOT IN ({months_with_rows})
$$;
";

fn version_4() -> String {
    let mut sql = VERSION_4.to_owned();
    sql.push_str(&DROPPED_MONTHS.replace("{months_with_rows}", schema::MONTHS_WITH_ROWS));
    for table in TABLES.split_at(DROPPED_TABLE).1 {
        sql.push_str(&schema::create_table(table));
        sql.push_str(&schema::create_put(table));
    }
    sql.push_str(&schema::create_months(&TABLES));
    sql.push_str(&schema::create_take("take_parts", &TABLES));
    sql.push_str(&schema::create_digests("part_digests", &TABLES));
    sql.push_str(&schema::create_take_over(&TABLES, DROPS_OF_TAKEN_PLACE));
    sql
}

/// The key of the lock under which one process migrates.
const LOCK: &str = "SELECT pg_advisory_xact_lock(1953654372)";

/// What a migration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The version that was found.
    pub from: i32,
    /// The version that it is now.
    pub to: i32,
}

/// Brings the schema to the present version, in one transaction. One of this version is left as it is.
///
/// # Errors
/// When there is no store, a newer trafctl made it, this user is not its owner, another process holds the lock, or
/// somebody altered a column.
pub async fn migrate(store: &mut Postgres) -> Result<Migrated, StoreError> {
    let transaction = Postgres::call(begin(&mut store.client)).await?;
    Postgres::call(transaction.batch_execute(LOCK)).await?;
    // Under the lock: another process may have done it meanwhile.
    let found = setup::version_in(&transaction).await?;
    let from = found.ok_or_else(setup::no_store)?;
    if from > schema::VERSION {
        return Err(setup::other_version(from));
    }
    if from < schema::VERSION {
        let sql = schema::migrations_after(from);
        transaction.batch_execute(&sql).await.map_err(|error| {
            StoreError::Refused(format!(
                "cannot migrate the schema from version {from} to {}: {}; nothing was changed; run it as the owner of \
                 the schema",
                schema::VERSION,
                text(&error)
            ))
        })?;
    }
    if let [problem, ..] = &columns::problems(&transaction).await?[..] {
        return Err(StoreError::Unusable(format!("{problem}; nothing was changed")));
    }
    Postgres::call(transaction.commit()).await?;
    Ok(Migrated { from, to: schema::VERSION })
}
