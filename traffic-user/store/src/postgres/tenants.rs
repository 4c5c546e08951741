//! Tenants: who had which container when. The store keeps that as a list of assignments, which no node knows.
//!
//! An assignment is of a container's id, on one node or on any, for a span of time on five-minute borders. No two are
//! of the same container at the same time.

use tokio_postgres::types::Type;
use traffic_model::calendar::five_minutes_of;

use super::{Postgres, of, setup};
use crate::store::StoreError;

/// An assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its number in the store.
    pub number: i32,
    /// The tenant.
    pub tenant: String,
    /// The container's id, as its node knows it.
    pub container: String,
    /// The node; `None` for the container of this id on any node.
    pub node: Option<String>,
    /// From when on, Unix seconds; 0 for ever before.
    pub from: i64,
    /// Until when; `None` while it goes on.
    pub until: Option<i64>,
}

/// What was assigned, and what the owner should know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The assignment.
    pub assignment: Assignment,
    /// Nodes that have such a container now.
    pub nodes: Vec<String>,
}

const COLUMNS: &str = "number, tenant, container, node, \"from\", until";

fn assignment(row: &tokio_postgres::Row) -> Assignment {
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
    let (from, until) = (five_minutes_of(new.from), new.until.map(five_minutes_of));
    if until.is_some_and(|until| until <= from) {
        return Err(StoreError::Refused(
            "it would end before it begins; exchange --from and --until".to_owned(),
        ));
    }
    if new.tenant.trim().is_empty() || new.tenant.chars().any(char::is_control) {
        return Err(StoreError::Refused("the tenant has no name in one line; give one".to_owned()));
    }
    let transaction = store.client.transaction().await.map_err(|error| of(&error))?;
    // Nobody else adds one between the look and the insertion.
    let lock = "LOCK TABLE trafctl.assignment IN SHARE ROW EXCLUSIVE MODE";
    transaction.batch_execute(lock).await.map_err(|error| of(&error))?;
    let sql = "SELECT DISTINCT l.node, coalesce(l.id_scope, 'node') FROM trafctl.container c
               JOIN trafctl.ledger l ON l.number = c.ledger
               WHERE c.name = $1 AND ($2::text IS NULL OR l.node = $2) ORDER BY 1";
    let known = [(&new.container as _, Type::TEXT), (&new.node as _, Type::TEXT)];
    let rows = Postgres::call(transaction.query_typed(sql, &known)).await?;
    let nodes: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let own_ids = rows.iter().any(|row| row.get::<_, &str>(1) == "node");
    if new.node.is_none() && nodes.len() > 1 && own_ids {
        return Err(StoreError::Refused(format!(
            "the nodes {} each have a container {} of their own; name one with --node",
            nodes.join(", "),
            new.container
        )));
    }
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
        return Err(StoreError::Refused(format!(
            "{} would have container {} while {} has it ({}); end that with `trafctl store unassign`, or choose other \
             times",
            new.tenant,
            new.container,
            other.tenant,
            other.text()
        )));
    }
    let sql = format!(
        "INSERT INTO trafctl.assignment (container, node, \"from\", until, tenant) VALUES ($1, $2, $3, $4, $5) RETURNING \
         {COLUMNS}"
    );
    let mut all = parameters.to_vec();
    all.push((&new.tenant, Type::TEXT));
    let rows = Postgres::call(transaction.query_typed(&sql, &all)).await?;
    let made = rows.first().map(assignment);
    transaction.commit().await.map_err(|error| of(&error))?;
    let assignment = made.ok_or_else(|| StoreError::Refused("the store added nothing".to_owned()))?;
    Ok(Assigned { assignment, nodes })
}

impl Assignment {
    /// Its number, node and times in UTC.
    pub fn text(&self) -> String {
        let time = |second: i64| {
            jiff::Timestamp::from_second(second).map_or_else(|_| second.to_string(), |time| time.to_string())
        };
        let from = if self.from == 0 { "the beginning".to_owned() } else { time(self.from) };
        let node = self.node.as_ref().map_or_else(|| "any node".to_owned(), |node| format!("node {node}"));
        let until = self.until.map_or_else(String::new, |until| format!(" until {}", time(until)));
        format!("assignment {}, {node}, from {from}{until}", self.number)
    }
}

/// Ends an assignment. One that would end before it begins is removed.
///
/// # Errors
/// When there is none of this number, it ended before, or this user may not.
pub async fn unassign(store: &Postgres, number: i32, until: i64) -> Result<Option<Assignment>, StoreError> {
    setup::require_version(store).await?;
    let until = five_minutes_of(until);
    let key = [(&number as _, Type::INT4), (&until as _, Type::INT8)];
    let sql = format!(
        "UPDATE trafctl.assignment SET until = $2 WHERE number = $1 AND \"from\" < $2 AND (until IS NULL OR until > $2) \
         RETURNING {COLUMNS}"
    );
    let rows = Postgres::call(store.client.query_typed(&sql, &key)).await?;
    if let Some(ended) = rows.first().map(assignment) {
        return Ok(Some(ended));
    }
    let sql = "DELETE FROM trafctl.assignment WHERE number = $1 AND \"from\" >= $2 RETURNING number";
    let removed = Postgres::call(store.client.query_typed(sql, &key)).await?;
    if !removed.is_empty() {
        return Ok(None);
    }
    Err(StoreError::Refused(format!(
        "there is no assignment {number} that goes on at this time; `trafctl store tenants` lists them"
    )))
}

/// All assignments, or those of one tenant, by tenant, container and time.
///
/// # Errors
/// When the store does not answer.
pub async fn assignments(store: &Postgres, tenant: Option<&str>) -> Result<Vec<Assignment>, StoreError> {
    setup::require_version(store).await?;
    let sql = format!(
        "SELECT {COLUMNS} FROM trafctl.assignment WHERE $1::text IS NULL OR tenant = $1
         ORDER BY tenant, container, node, \"from\""
    );
    let rows = Postgres::call(store.client.query_typed(&sql, &[(&tenant, Type::TEXT)])).await?;
    Ok(rows.iter().map(assignment).collect())
}
