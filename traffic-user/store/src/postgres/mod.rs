//! The store in PostgreSQL.
//!
//! - `target`: URLs and passwords. `tls`: encryption.
//! - `schema`: tables, functions and roles, with `views.sql`.
//! - `setup`, `migrate`: creates, checks and updates them. `columns`: whether somebody altered them.
//! - `read`: reports.
//! - `errors`: what the server refuses, and what to do.
//! - `nodes`: how far each node is. `tenants`: who has which container.
//!
//! Here is the connection. Every call has an end: a server that does not answer is away.

mod columns;
mod errors;
mod migrate;
mod nodes;
mod read;
mod schema;
mod setup;
mod target;
mod tenants;
mod tls;

use std::{collections::BTreeSet, time::Duration};

use tokio::time::timeout;
use tokio_postgres::{
    Client, Error, NoTls, Row, Transaction,
    error::SqlState,
    types::{ToSql, Type},
};
use traffic_ledger::{Cell, Content, Kept, TABLES};

use crate::{
    digests::storable,
    store::{Batch, Known, PartDigest, Put, Store, StoreError, Takeover},
};
use errors::{of, of_connecting, text, within};
use target::Encryption;
use tls::Tls;

pub use migrate::{Migrated, migrate};
pub use nodes::nodes;
pub use read::open_ledger;
pub use setup::{check, init, statements};
pub use target::Target;
pub use tenants::{assign, assignments, unassign};

/// The longest wait for a connection.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// The longest wait for one call. A batch takes a second; digests of a large day take some.
const CALL_TIME: Duration = Duration::from_secs(120);
/// The longest wait until a ledger has taken the place of another, whose rows are removed. It happens when somebody adopts
/// a ledger.
const TAKEOVER_TIME: Duration = Duration::from_hours(1);
/// How often another node may make the partitions of a month first.
const MOST_TRIES: u32 = 20;
/// Bounds of a transaction, and not of the session, which a pooler in between gives to others. A lock that somebody holds
/// must not keep it waiting for longer than a call, and its own locks must not stay when nothing is heard of it.
const LIMITS: &str = "SET LOCAL lock_timeout = '60s'; SET LOCAL idle_in_transaction_session_timeout = '120s'";

/// A connection to a store.
#[derive(Debug)]
pub struct Postgres {
    client: Client,
}

impl Postgres {
    /// Connects. The connection ends with the value, or when the server closes it.
    ///
    /// # Errors
    /// When the server cannot be reached, is not who it should be, or does not let this user in.
    pub async fn connect(target: &Target) -> Result<Self, StoreError> {
        let client = timeout(CONNECT_TIME, connect(target))
            .await
            .unwrap_or_else(|_| Err(StoreError::Away(format!("no answer within {CONNECT_TIME:?}"))));
        let client =
            client.map_err(|error| within(&error, &format!("cannot connect to {}", target.name())))?;
        Ok(Self { client })
    }

    async fn call<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
        Self::call_within(CALL_TIME, work).await
    }

    async fn call_within<T>(
        limit: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, StoreError> {
        match timeout(limit, work).await {
            Ok(done) => done.map_err(|error| of(&error)),
            Err(_) => Err(StoreError::Away(format!("the store gave no answer within {limit:?}"))),
        }
    }
}

/// Begins a transaction with its bounds.
async fn begin(client: &mut Client) -> Result<Transaction<'_>, Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(LIMITS).await?;
    Ok(transaction)
}

/// The rows of one statement.
async fn ask(
    client: &mut Client,
    sql: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Row>, Error> {
    let transaction = begin(client).await?;
    let rows = transaction.query_typed(sql, parameters).await?;
    transaction.commit().await?;
    Ok(rows)
}

async fn connect(target: &Target) -> Result<Client, StoreError> {
    let mut config = target.config.clone();
    config.connect_timeout(CONNECT_TIME).keepalives_idle(Duration::from_secs(30));
    let client = if target.encryption == Encryption::Off {
        let (client, connection) =
            config.connect(NoTls).await.map_err(|error| of_connecting(&error, target))?;
        follow(connection);
        client
    } else {
        let tls = Tls::of(target).map_err(StoreError::Unusable)?;
        let (client, connection) =
            config.connect(tls).await.map_err(|error| of_connecting(&error, target))?;
        follow(connection);
        client
    };
    Ok(client)
}

/// Drives a connection until it ends. Its error is that of the calls that wait for it.
fn follow(connection: impl Future<Output = Result<(), Error>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("the connection to the store ended: {}", text(&error));
        }
    });
}

/// One column of many rows.
enum Column {
    Integers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

impl Column {
    const fn new(kept: Kept) -> Self {
        match kept {
            Kept::Integer => Self::Integers(Vec::new()),
            Kept::Text => Self::Texts(Vec::new()),
            Kept::Bytes => Self::Bytes(Vec::new()),
        }
    }

    fn push(&mut self, cell: &Cell) {
        match (self, cell) {
            (Self::Integers(all), Cell::Integer(number)) => all.push(Some(*number)),
            (Self::Texts(all), Cell::Text(text)) => all.push(Some(storable(text).into_owned())),
            (Self::Bytes(all), Cell::Bytes(bytes)) => all.push(Some(bytes.clone())),
            (Self::Integers(all), _) => all.push(None),
            (Self::Texts(all), _) => all.push(None),
            (Self::Bytes(all), _) => all.push(None),
        }
    }

    fn push_number(&mut self, number: i64) {
        if let Self::Integers(all) = self {
            all.push(Some(number));
        }
    }

    fn parameter(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Integers(all) => (all, Type::INT8_ARRAY),
            Self::Texts(all) => (all, Type::TEXT_ARRAY),
            Self::Bytes(all) => (all, Type::BYTEA_ARRAY),
        }
    }
}

/// Adds the rows of one table. Not prepared by name, so that a pooler in between does no harm.
async fn put_table(
    transaction: &Transaction<'_>,
    (ledger, at): (i32, usize),
    contents: &[&Content],
) -> Result<(), Error> {
    let table = &TABLES[at];
    let mut revs = Vec::new();
    let mut columns: Vec<Column> = schema::columns(table).map(|(_, kept)| Column::new(kept)).collect();
    for content in contents {
        for (_, row) in content.rows.iter().filter(|row| row.0 == at) {
            revs.push(content.rev);
            columns.iter_mut().zip(row).for_each(|(column, cell)| column.push(cell));
        }
        for (_, row) in content.counted_rows().filter(|row| row.0 == at) {
            revs.push(content.rev);
            columns.iter_mut().zip(row).for_each(|(column, number)| column.push_number(*number));
        }
    }
    if revs.is_empty() {
        return Ok(());
    }
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> =
        vec![(&ledger, Type::INT4), (&revs, Type::INT8_ARRAY)];
    parameters.extend(columns.iter().map(Column::parameter));
    let places: Vec<String> = (1..=parameters.len()).map(|at| format!("${at}")).collect();
    let sql = format!("SELECT trafctl.{}({})", schema::put_function(table), places.join(", "));
    transaction.query_typed(&sql, &parameters).await.map(drop)
}

async fn put(client: &mut Client, batch: &Batch) -> Result<Put, Error> {
    let transaction = begin(client).await?;
    let starts: BTreeSet<i64> = batch
        .contents
        .iter()
        .filter(|content| matches!(content.name, "5min" | "day"))
        .map(|content| content.number)
        .collect();
    let starts: Vec<i64> = starts.into_iter().collect();
    transaction.query_typed("SELECT trafctl.add_months($1)", &[(&starts, Type::INT8_ARRAY)]).await?;
    let before = batch.before.as_ref();
    let (machine, token) =
        (before.and_then(|known| known.machine.as_deref()), before.and_then(|known| known.token.as_deref()));
    let (changes, done) = (before.map(|known| known.changes), before.map(|known| known.done));
    let begun = transaction
        .query_typed(
            "SELECT trafctl.begin_put($1, $2, $3, $4, $5)",
            &[
                (&batch.ledger, Type::TEXT),
                (&machine, Type::TEXT),
                (&changes, Type::INT8),
                (&token, Type::TEXT),
                (&done, Type::INT8),
            ],
        )
        .await?;
    let number: Option<i32> = begun.first().and_then(|row| row.get(0));
    let Some(number) = number else {
        transaction.rollback().await?;
        return Ok(Put::Moved);
    };
    let newer = take(&transaction, number, batch).await?;
    let contents: Vec<&Content> = batch
        .contents
        .iter()
        .filter(|content| newer.contains(&(content.name.to_owned(), content.number)))
        .collect();
    for at in 0..TABLES.len() {
        put_table(&transaction, (number, at), &contents).await?;
    }
    let Known { machine, changes, token, done, .. } = &batch.after;
    let node = &batch.node;
    transaction
        .query_typed(
            "SELECT trafctl.end_put($1, $2, $3, $4, $5, $6, $7, $8)",
            &[
                (&number, Type::INT4),
                (machine, Type::TEXT),
                (changes, Type::INT8),
                (token, Type::TEXT),
                (done, Type::INT8),
                (&node.name, Type::TEXT),
                (&node.version, Type::TEXT),
                (&node.kernel, Type::TEXT),
            ],
        )
        .await?;
    let extent = &batch.extent;
    let scope = if node.has_cluster_ids { "cluster" } else { "node" };
    transaction
        .query_typed(
            "SELECT trafctl.note_extent($1, $2, $3, $4, $5, $6, $7, $8)",
            &[
                (&number, Type::INT4),
                (&extent.zone, Type::TEXT),
                (&i32::from(extent.billing_day), Type::INT4),
                (&extent.recorded.0, Type::INT8),
                (&extent.recorded.1, Type::INT8),
                (&extent.last_bucket, Type::INT8),
                (&extent.last_reading_ms, Type::INT8),
                (&scope, Type::TEXT),
            ],
        )
        .await?;
    let missing = batch.before.as_ref().map_or(0, |before| before.without_drops);
    let completes = (batch.after.without_drops == 0).then_some(missing);
    transaction
        .query_typed(
            "SELECT trafctl.note_drops($1, $2, $3, $4)",
            &[
                (&number, Type::INT4),
                (&extent.drops_from, Type::INT8),
                (&completes, Type::INT8),
                (&batch.after.drops_kept_from, Type::INT8),
            ],
        )
        .await?;
    transaction.commit().await?;
    Ok(Put::Taken(newer.len()))
}

/// The parts that are newer than what the store had.
async fn take(
    transaction: &Transaction<'_>,
    ledger: i32,
    batch: &Batch,
) -> Result<BTreeSet<(String, i64)>, Error> {
    let names: Vec<&str> = batch.contents.iter().map(|content| content.name).collect();
    let numbers: Vec<i64> = batch.contents.iter().map(|content| content.number).collect();
    let revs: Vec<i64> = batch.contents.iter().map(|content| content.rev).collect();
    let rows = transaction
        .query_typed(
            "SELECT name, number FROM trafctl.take_parts($1, $2, $3, $4, $5)",
            &[
                (&ledger, Type::INT4),
                (&names, Type::TEXT_ARRAY),
                (&numbers, Type::INT8_ARRAY),
                (&revs, Type::INT8_ARRAY),
                (&batch.repairs, Type::BOOL),
            ],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

impl Store for Postgres {
    async fn known(&mut self, ledger: &str) -> Result<Option<Known>, StoreError> {
        let sql = "SELECT machine, changes, token, done, replaced_by, without_drops, drops_kept_from
                   FROM trafctl.known($1)";
        let rows = Self::call(ask(&mut self.client, sql, &[(&ledger, Type::TEXT)])).await?;
        Ok(rows.first().map(|row| Known {
            machine: row.get(0),
            changes: row.get(1),
            token: row.get(2),
            done: row.get(3),
            replaced_by: row.get(4),
            without_drops: row.get(5),
            drops_kept_from: row.get(6),
            others: Vec::new(),
        }))
    }

    async fn put(&mut self, batch: &Batch) -> Result<Put, StoreError> {
        let client = &mut self.client;
        Self::call(async {
            // Another node made the partitions of a new month at the same time. The server sees them from the next
            // transaction on, in which it may be another month and another node.
            for _ in 1..MOST_TRIES {
                match put(client, batch).await {
                    Err(error) if error.code() == Some(&SqlState::DUPLICATE_TABLE) => {}
                    done => return done,
                }
            }
            put(client, batch).await
        })
        .await
    }

    async fn take_over(&mut self, takeover: &Takeover) -> Result<(), StoreError> {
        let Known { machine, changes, token, .. } = &takeover.known;
        let parameters: [(&(dyn ToSql + Sync), Type); 6] = [
            (&takeover.ledger, Type::TEXT),
            (&takeover.place, Type::TEXT),
            (machine, Type::TEXT),
            (changes, Type::INT8),
            (token, Type::TEXT),
            (&takeover.kept_from, Type::INT8),
        ];
        let sql = "SELECT trafctl.take_over($1, $2, $3, $4, $5, $6)";
        Self::call_within(TAKEOVER_TIME, ask(&mut self.client, sql, &parameters)).await.map(drop)
    }

    async fn dropped_spans(&mut self, ledger: &str) -> Result<Vec<(i64, i64)>, StoreError> {
        let sql = "SELECT begun, ended FROM trafctl.dropped_months($1)";
        let rows = Self::call(ask(&mut self.client, sql, &[(&ledger, Type::TEXT)])).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn digests(
        &mut self,
        ledger: &str,
        units: Option<(i64, i64)>,
    ) -> Result<Vec<PartDigest>, StoreError> {
        let (from, until) = (units.map(|units| units.0), units.map(|units| units.1));
        let sql = "SELECT at, name, number, rows, hash FROM trafctl.part_digests($1, $2, $3)";
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&ledger, Type::TEXT), (&from, Type::INT8), (&until, Type::INT8)];
        let rows = Self::call(ask(&mut self.client, sql, &parameters)).await?;
        let digest = |row: &Row| PartDigest {
            table: usize::try_from(row.get::<_, i32>(0)).unwrap_or(usize::MAX),
            name: row.get(1),
            number: row.get(2),
            rows: row.get(3),
            hash: row.get(4),
        };
        Ok(rows.iter().map(digest).collect())
    }
}
