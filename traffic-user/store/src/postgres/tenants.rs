//! The assignments of containers to tenants, in a table of their own.

use tokio_postgres::types::Type;
use traffic_model::calendar::five_minutes_of;

use super::{Postgres, ask, begin, setup};
use crate::{
    store::StoreError,
    tenants::{self, Assigned, Assignment},
};

/// The columns of [`assignment`].
pub(super) const COLUMNS: &str = "number, tenant, container, node, \"from\", until";

/// The assignment of a row.
pub(super) fn assignment(row: &tokio_postgres::Row) -> Assignment {
    Assignment {
        number: row.get(0),
        tenant: row.get(1),
        container: row.get(2),
        node: row.get(3),
        from: row.get(4),
        until: row.get(5),
    }
}

/// Adds an assignment. Its number is not looked at, and its times are rounded down to five minutes.
///
/// # Errors
/// When another one is of the same container at the same time, the id alone does not say which container is meant, or
/// this user may not.
pub async fn assign(store: &mut Postgres, new: &Assignment) -> Result<Assigned, StoreError> {
    setup::require_version(store).await?;
    let new = &new.checked()?;
    let (from, until) = (new.from, new.until);
    let transaction = Postgres::call(begin(&mut store.client)).await?;
    // Nobody else adds one between the look and the insertion.
    let lock = "LOCK TABLE trafctl.assignment IN SHARE ROW EXCLUSIVE MODE";
    Postgres::call(transaction.batch_execute(lock)).await?;
    let sql = "SELECT DISTINCT l.node, coalesce(l.id_scope, 'node') FROM trafctl.container c
               JOIN trafctl.ledger l ON l.number = c.ledger
               WHERE c.name = $1 AND ($2::text IS NULL OR l.node = $2) ORDER BY 1";
    let known = [(&new.container as _, Type::TEXT), (&new.node as _, Type::TEXT)];
    let rows = Postgres::call(transaction.query_typed(sql, &known)).await?;
    let nodes: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let own_ids = rows.iter().any(|row| row.get::<_, &str>(1) == "node");
    new.require_one(&nodes, own_ids)?;
    let sql = format!(
        "SELECT {COLUMNS} FROM trafctl.assignment WHERE container = $1 AND (node IS NULL OR $2::text IS NULL OR node = \
         $2) AND \"from\" < coalesce($4, 9223372036854775807) AND coalesce(until, 9223372036854775807) > $3
         ORDER BY number LIMIT 1"
    );
    let parameters = [
        (&new.container as _, Type::TEXT),
        (&new.node as _, Type::TEXT),
        (&from as _, Type::INT8),
        (&until as _, Type::INT8),
    ];
    let rows = Postgres::call(transaction.query_typed(&sql, &parameters)).await?;
    if let Some(other) = rows.first().map(assignment) {
        return Err(new.refused_by(&other));
    }
    let sql = format!(
        "INSERT INTO trafctl.assignment (container, node, \"from\", until, tenant) VALUES ($1, $2, $3, $4, $5) RETURNING \
         {COLUMNS}"
    );
    let mut all = parameters.to_vec();
    all.push((&new.tenant, Type::TEXT));
    let rows = Postgres::call(transaction.query_typed(&sql, &all)).await?;
    let made = rows.first().map(assignment);
    Postgres::call(transaction.commit()).await?;
    let assignment = made.ok_or_else(|| StoreError::Refused("the store added nothing".to_owned()))?;
    Ok(Assigned { assignment, nodes })
}

/// Ends an assignment. One that would end before it begins is removed.
///
/// # Errors
/// When there is none of this number, it ended before, or this user may not.
pub async fn unassign(
    store: &mut Postgres,
    number: i32,
    until: i64,
) -> Result<Option<Assignment>, StoreError> {
    setup::require_version(store).await?;
    let until = five_minutes_of(until);
    let key = [(&number as _, Type::INT4), (&until as _, Type::INT8)];
    let sql = format!(
        "UPDATE trafctl.assignment SET until = $2 WHERE number = $1 AND \"from\" < $2 AND (until IS NULL OR until > $2) \
         RETURNING {COLUMNS}"
    );
    let rows = Postgres::call(ask(&mut store.client, &sql, &key)).await?;
    if let Some(ended) = rows.first().map(assignment) {
        return Ok(Some(ended));
    }
    let sql = "DELETE FROM trafctl.assignment WHERE number = $1 AND \"from\" >= $2 RETURNING number";
    let removed = Postgres::call(ask(&mut store.client, sql, &key)).await?;
    if !removed.is_empty() {
        return Ok(None);
    }
    Err(tenants::nothing_to_end(number))
}

/// All assignments, or those of one tenant, by tenant, container and time.
///
/// # Errors
/// When the store does not answer.
pub async fn assignments(store: &mut Postgres, tenant: Option<&str>) -> Result<Vec<Assignment>, StoreError> {
    setup::require_version(store).await?;
    let sql = format!(
        "SELECT {COLUMNS} FROM trafctl.assignment WHERE $1::text IS NULL OR tenant = $1
         ORDER BY tenant, container, node, \"from\""
    );
    let rows = Postgres::call(ask(&mut store.client, &sql, &[(&tenant, Type::TEXT)])).await?;
    Ok(rows.iter().map(assignment).collect())
}
