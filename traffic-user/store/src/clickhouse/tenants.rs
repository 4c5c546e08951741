//! The assignments of containers to tenants, as rows that are only added.
//!
//! A row says that an assignment was made, that it ends, or that it was removed. An assignment only ever becomes shorter:
//! of several ends the earliest counts, and what was removed stays so. So the order of rows does not matter.
//!
//! There are no locks. Whoever adds an assignment looks again afterwards, and withdraws it if another one is of the same
//! container at the same time, or has its number. Of two that are added at the same moment, the later look finds both, so
//! at least one goes. Whoever cannot look or withdraw is told, and reports refuse assignments that overlap.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

use traffic_model::calendar::five_minutes_of;

use super::{
    Http,
    http::{number, text},
    setup,
    sql::{self, quoted, string},
    target::Target,
};
use crate::{
    store::StoreError,
    tenants::{self, Assigned, Assignment},
};

/// How often another one may be added at the same moment.
const MOST_TRIES: usize = 10;
/// How often an assignment is withdrawn if the server does not take that.
const MOST_WITHDRAWALS: usize = 3;

/// What a row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub assignment: Assignment,
    /// Tells two apart that were added with the same number.
    pub id: u64,
    pub is_removed: bool,
}

/// The table of assignments. Tests have one in memory.
trait Table {
    /// All rows.
    async fn rows(&self) -> Result<Vec<Entry>, StoreError>;

    /// Adds a row.
    async fn add(&self, entry: &Entry) -> Result<(), StoreError>;

    /// Lets others go first, for a random time.
    async fn pause(&self);
}

impl Table for Http {
    async fn rows(&self) -> Result<Vec<Entry>, StoreError> {
        let sql = format!(
            "SELECT number, id, removed, tenant, container, node, begun, ended FROM {}.assignment",
            quoted(self.database())
        );
        let entry = |row: &Vec<Option<String>>| {
            let node = text(row, 5);
            Ok(Entry {
                assignment: Assignment {
                    number: number(row, 0)?,
                    tenant: text(row, 3).to_owned(),
                    container: text(row, 4).to_owned(),
                    node: (!node.is_empty()).then(|| node.to_owned()),
                    from: number(row, 6)?,
                    until: row.get(7).and_then(Option::as_ref).map(|_| number(row, 7)).transpose()?,
                },
                id: number(row, 1)?,
                is_removed: text(row, 2) != "0",
            })
        };
        self.ask(&sql).await?.iter().map(entry).collect()
    }

    async fn add(&self, entry: &Entry) -> Result<(), StoreError> {
        self.insert("assignment", sql::assignment_row(entry), false).await
    }

    async fn pause(&self) {
        tokio::time::sleep(Duration::from_millis(20 + random() % 200)).await;
    }
}

/// A number that no other process chooses at the same time: the standard library's keys of hash tables are random.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What was ever assigned, by number.
async fn all(table: &impl Table) -> Result<Vec<Entry>, StoreError> {
    let mut all: BTreeMap<(i32, u64), Entry> = BTreeMap::new();
    for row in table.rows().await? {
        let one = all.entry((row.assignment.number, row.id)).or_insert_with(|| row.clone());
        let ends = [one.assignment.until, row.assignment.until];
        one.assignment.until = ends.into_iter().flatten().min();
        one.is_removed |= row.is_removed;
    }
    Ok(all.into_values().collect())
}

/// Who has what.
pub(super) async fn read(server: &Http) -> Result<Vec<Assignment>, StoreError> {
    setup::require_tenants(server).await?;
    let all = all(server).await?;
    Ok(all.into_iter().filter(|one| !one.is_removed).map(|one| one.assignment).collect())
}

/// Nodes that have such a container, by name, and whether the ids of one of them are its own.
async fn nodes(server: &Http, of: &Assignment) -> Result<(Vec<String>, bool), StoreError> {
    let db = quoted(server.database());
    let container = string(&of.container);
    let sql = format!("SELECT DISTINCT place FROM {db}.container WHERE ifNull(name, '') = {container}");
    let places: Vec<String> = server.ask(&sql).await?.iter().map(|row| text(row, 0).to_owned()).collect();
    let sql = format!("SELECT place, node, id_scope FROM {db}.nodes WHERE node != '' ORDER BY node, place");
    let (mut names, mut has_own_ids) = (Vec::new(), false);
    for row in server.ask(&sql).await? {
        let is_asked = of.node.as_deref().is_none_or(|node| node == text(&row, 1));
        if is_asked && places.iter().any(|place| place == text(&row, 0)) {
            names.push(text(&row, 1).to_owned());
            has_own_ids |= text(&row, 2) != "cluster";
        }
    }
    names.dedup();
    Ok((names, has_own_ids))
}

/// The first of some that is of the same container at the same time.
fn overlapping<'a>(new: &Assignment, all: &'a [Entry]) -> Option<&'a Assignment> {
    all.iter().filter(|one| !one.is_removed).map(|one| &one.assignment).find(|other| new.overlaps(other))
}

/// The same error, with what may have happened all the same.
fn with_doubt(error: StoreError, doubt: &str) -> StoreError {
    match error {
        StoreError::Away(text) => StoreError::Away(format!("{text}; {doubt}: see `trafctl store tenants`")),
        StoreError::NotNow(text) => {
            StoreError::NotNow(format!("{text}; {doubt}: see `trafctl store tenants`"))
        }
        other => other,
    }
}

/// Adds an assignment whose times are on borders.
async fn assign_in(table: &impl Table, new: &Assignment) -> Result<Assignment, StoreError> {
    for _ in 0..MOST_TRIES {
        let before = all(table).await?;
        if let Some(other) = overlapping(new, &before) {
            return Err(new.refused_by(other));
        }
        let last = before.iter().map(|one| one.assignment.number).max().unwrap_or(0);
        let assignment = Assignment { number: last.saturating_add(1), ..new.clone() };
        let added = Entry { assignment, id: random(), is_removed: false };
        table.add(&added).await.map_err(|error| with_doubt(error, "it may have been assigned"))?;
        let mut others =
            all(table).await.map_err(|error| with_doubt(error, "it was assigned, maybe not alone"))?;
        others.retain(|one| one.id != added.id);
        let is_taken = others.iter().any(|one| one.assignment.number == added.assignment.number);
        if !is_taken && overlapping(new, &others).is_none() {
            return Ok(added.assignment);
        }
        withdraw(table, &added).await?;
        table.pause().await;
    }
    Err(StoreError::NotNow("others assign containers at the same time; repeat the command".to_owned()))
}

async fn withdraw(table: &impl Table, added: &Entry) -> Result<(), StoreError> {
    let removed = Entry { is_removed: true, ..added.clone() };
    let mut reason = String::new();
    for _ in 0..MOST_WITHDRAWALS {
        match table.add(&removed).await {
            Ok(()) => return Ok(()),
            Err(error) => reason = error.to_string(),
        }
        table.pause().await;
    }
    let number = added.assignment.number;
    Err(StoreError::Refused(format!(
        "another one was made at the same moment, and assignment {number} could not be withdrawn: {reason}; remove it with \
         `trafctl store unassign`"
    )))
}

/// Ends an assignment at a border, or removes it. Returns what is left.
async fn unassign_in(table: &impl Table, number: i32, until: i64) -> Result<Option<Assignment>, StoreError> {
    let goes_on = |one: &Entry| {
        let of = &one.assignment;
        let ends_later = of.from >= until || of.until.is_none_or(|end| end > until);
        of.number == number && !one.is_removed && ends_later
    };
    let Some(mut found) = all(table).await?.into_iter().find(goes_on) else {
        return Err(tenants::nothing_to_end(number));
    };
    if found.assignment.from >= until {
        found.is_removed = true;
    } else {
        found.assignment.until = Some(until);
    }
    table.add(&found).await?;
    // Somebody else may have ended it before that at the same moment.
    let now = all(table).await?.into_iter().find(|one| one.id == found.id && !one.is_removed);
    Ok(now.map(|one| one.assignment))
}

/// Adds an assignment. Its number is not looked at, and its times are rounded down to five minutes.
///
/// # Errors
/// When another one is of the same container at the same time, the id alone does not say which container is meant, or
/// this user may not.
pub async fn assign(target: &Target, new: &Assignment) -> Result<Assigned, StoreError> {
    let server = Http::connect(target).await?;
    setup::require_tenants(&server).await?;
    let new = new.checked()?;
    let (nodes, has_own_ids) = nodes(&server, &new).await?;
    new.require_one(&nodes, has_own_ids)?;
    Ok(Assigned { assignment: assign_in(&server, &new).await?, nodes })
}

/// Ends an assignment. One that would end before it begins is removed.
///
/// # Errors
/// When there is none of this number, it ended before, or this user may not.
pub async fn unassign(target: &Target, number: i32, until: i64) -> Result<Option<Assignment>, StoreError> {
    let server = Http::connect(target).await?;
    setup::require_tenants(&server).await?;
    unassign_in(&server, number, five_minutes_of(until)).await
}

/// All assignments, or those of one tenant, by tenant, container and time.
///
/// # Errors
/// When the store does not answer.
pub async fn assignments(target: &Target, tenant: Option<&str>) -> Result<Vec<Assignment>, StoreError> {
    let server = Http::connect(target).await?;
    let mut all = read(&server).await?;
    all.retain(|one| tenant.is_none_or(|tenant| one.tenant == tenant));
    // A container of any node comes last, as in PostgreSQL.
    all.sort_by_key(|one| {
        (one.tenant.clone(), one.container.clone(), one.node.is_none(), one.node.clone(), one.from)
    });
    Ok(all)
}

#[cfg(test)]
#[path = "tenants_tests.rs"]
mod tests;
