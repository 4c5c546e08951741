//! Creates the schema, and checks it.

use tokio_postgres::GenericClient;

use super::{Postgres, begin, columns, schema, text};
use crate::store::{Checked, StoreError};

/// Creates the schema where there is none. Returns whether it did; one of this version is left as it is.
///
/// # Errors
/// When this user may not, or the schema is of another version.
pub async fn init(store: &mut Postgres) -> Result<bool, StoreError> {
    match version(store).await? {
        Some(schema::VERSION) => return Ok(false),
        Some(other) => return Err(other_version(other)),
        None => {}
    }
    let transaction = Postgres::call(begin(&mut store.client)).await?;
    let created = transaction.batch_execute(&schema::create()).await;
    created.map_err(|error| StoreError::Refused(format!("cannot create the schema: {}", text(&error))))?;
    Postgres::call(transaction.commit()).await?;
    Ok(true)
}

/// The statements by which [`init`] creates everything.
pub fn statements() -> Vec<String> {
    vec![schema::create()]
}

/// Of another version than this program's.
pub(super) fn other_version(found: i32) -> StoreError {
    let todo = if found < schema::VERSION {
        "run `trafctl store migrate` as the owner of the database"
    } else {
        "use the newer trafctl that made it"
    };
    StoreError::Unusable(format!(
        "the store has schema version {found}, but this trafctl knows version {}; {todo}",
        schema::VERSION
    ))
}

pub(super) fn no_store() -> StoreError {
    StoreError::Unusable(
        "there is no store in this database; run `trafctl store init` as its owner".to_owned(),
    )
}

/// Refuses what is no store of this version.
pub(super) async fn require_version(store: &mut Postgres) -> Result<(), StoreError> {
    match version(store).await? {
        Some(schema::VERSION) => Ok(()),
        Some(other) => Err(other_version(other)),
        None => Err(no_store()),
    }
}

/// The version of the schema; `None` without one.
async fn version(store: &mut Postgres) -> Result<Option<i32>, StoreError> {
    let transaction = Postgres::call(begin(&mut store.client)).await?;
    let version = version_in(&transaction).await?;
    Postgres::call(transaction.commit()).await?;
    Ok(version)
}

/// The same, within a transaction.
pub(super) async fn version_in(client: &impl GenericClient) -> Result<Option<i32>, StoreError> {
    let sql =
        "SELECT to_regnamespace('trafctl') IS NOT NULL, to_regclass('trafctl.store_version') IS NOT NULL";
    let found = Postgres::call(client.query_typed(sql, &[])).await?;
    let has = |at: usize| found.first().is_some_and(|row| row.get::<_, bool>(at));
    match (has(0), has(1)) {
        (false, _) => Ok(None),
        (true, false) => Err(StoreError::Unusable(format!(
            "the database has a schema {} that is no store; use another database",
            schema::SCHEMA
        ))),
        (true, true) => {
            let sql = "SELECT version FROM trafctl.store_version";
            let rows = Postgres::call(client.query_typed(sql, &[])).await?;
            match rows.first() {
                Some(row) => Ok(Some(row.get(0))),
                None => Err(StoreError::Unusable("the schema of the store has no version".to_owned())),
            }
        }
    }
}

/// Checks that everything is there, and what this user may do.
///
/// # Errors
/// When there is no store, or one of another version.
pub async fn check(store: &mut Postgres) -> Result<Checked, StoreError> {
    require_version(store).await?;
    let sql = format!(
        "SELECT current_setting('server_version'), pg_has_role('{}', 'USAGE'), pg_has_role('{}', 'USAGE'),
         pg_has_role((SELECT nspowner FROM pg_namespace WHERE nspname = '{}'), 'USAGE')",
        schema::SHIP_ROLE,
        schema::READ_ROLE,
        schema::SCHEMA
    );
    let transaction = Postgres::call(begin(&mut store.client)).await?;
    let rows = Postgres::call(transaction.query_typed(&sql, &[])).await?;
    let Some(row) = rows.first() else {
        return Err(StoreError::Unusable("the server gave no answer about roles".to_owned()));
    };
    let is_owner: bool = row.get(3);
    let (may_ship, may_read) = (row.get::<_, bool>(1) || is_owner, row.get::<_, bool>(2) || is_owner);
    let mut problems = missing(&transaction).await?;
    problems.extend(columns::problems(&transaction).await?);
    Postgres::call(transaction.commit()).await?;
    if !may_ship && !may_read {
        problems.push(format!(
            "this user may neither ship nor read; `GRANT {}` or `GRANT {}` to it",
            schema::SHIP_ROLE,
            schema::READ_ROLE
        ));
    }
    Ok(Checked { server: row.get(0), version: schema::VERSION, may_ship, may_read, problems })
}

/// Tables, views and functions that are not there.
async fn missing(client: &impl GenericClient) -> Result<Vec<String>, StoreError> {
    let mut problems = Vec::new();
    let tables = traffic_ledger::TABLES.iter().map(|table| table.name);
    for relation in tables.chain(["ledger", "part", "assignment"]).chain(schema::VIEWS) {
        let sql = format!("SELECT to_regclass('trafctl.{}') IS NULL", schema::quoted(relation));
        let rows = Postgres::call(client.query_typed(&sql, &[])).await?;
        if rows.first().is_some_and(|row| row.get::<_, bool>(0)) {
            problems.push(format!("trafctl.{relation} is missing; restore it, or create the store anew"));
        }
    }
    let functions = traffic_ledger::TABLES.iter().map(schema::put_function);
    let own = ["known", "begin_put", "end_put", "take", "take_parts", "digests"]
        .into_iter()
        .chain(["part_digests", "take_over", "add_months", "note_extent", "note_drops"])
        .map(str::to_owned);
    for function in functions.chain(own) {
        let sql = "SELECT count(*) = 1 FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                   WHERE n.nspname = 'trafctl' AND p.proname = $1";
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), _); 1] =
            [(&function, tokio_postgres::types::Type::TEXT)];
        let rows = Postgres::call(client.query_typed(sql, &parameters)).await?;
        if !rows.first().is_some_and(|row| row.get::<_, bool>(0)) {
            problems.push(format!("the function trafctl.{function} is missing; create the store anew"));
        }
    }
    Ok(problems)
}
