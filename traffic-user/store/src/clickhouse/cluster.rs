//! A store on the servers of a cluster.
//!
//! On each server, `units`, `records`, `progress`, `adoption`, `assignment` and the version are in a replicated table whose
//! name ends in `_local`. A distributed table of the plain name is in front of it, so that every server takes rows and
//! answers for all of them.
//!
//! A part must be there as a whole or not at all, so all of its rows are on one shard: rows are shared out by their place,
//! which is a hash of the ledger. So all rows of a container of a node are on one shard as well, and whatever is decided by
//! two rows of one table and place is decided there. Adoptions and assignments are of several ledgers: all are on
//! one shard.
//!
//! What a shipper has written, it reads again, whichever replica answers. So an insertion is done when all replicas of its
//! shard have it. While one of them is down, shipping waits, and the ledgers keep what is to come.

use super::{http::Http, sql::string};
use crate::store::StoreError;

/// The end of the names of tables that have the rows of one server.
pub(super) const LOCAL: &str = "_local";

/// The cluster of a store that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cluster {
    pub name: String,
    /// Servers that have the same rows.
    pub replicas: u64,
}

impl Cluster {
    /// The settings of an insertion that is done when it is done everywhere.
    pub fn settings(&self) -> String {
        let sync = "insert_distributed_sync=1";
        if self.replicas < 2 {
            return sync.to_owned();
        }
        format!("{sync}&insert_quorum={}&insert_quorum_timeout=20000", self.replicas)
    }
}

/// SQL for the definition of the store's table, if it is a distributed one. Two columns: a word and the definition.
pub(super) fn definition(database: &str) -> String {
    format!(
        "SELECT 'cluster' AS n, engine_full AS v FROM system.tables WHERE database = {} AND name = 'units' AND engine = \
         'Distributed'",
        string(database)
    )
}

/// The cluster in a definition such as `Distributed(fleet, traffic, units_local, place)`.
pub(super) fn name_in(definition: &str) -> Option<&str> {
    let name = definition.strip_prefix("Distributed(")?.split(',').next()?;
    Some(name.trim().trim_matches(|one| "'`\"\\".contains(one)))
}

/// The cluster of this name. `None` if the server knows no such cluster.
pub(super) async fn find(server: &Http, name: &str) -> Result<Option<Cluster>, StoreError> {
    let sql =
        format!("SELECT count(), max(replica_num) FROM system.clusters WHERE cluster = {}", string(name));
    let rows = server.ask(&sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let servers: u64 = super::http::number(row, 0)?;
    let replicas = super::http::number(row, 1)?;
    Ok((servers > 0).then(|| Cluster { name: name.to_owned(), replicas }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_known_by_its_tables() {
        for definition in
            ["Distributed(fleet, t, units_local, place)", "Distributed('fleet', 't', 'units_local', place)"]
        {
            assert_eq!(name_in(definition), Some("fleet"), "{definition}");
        }
        assert_eq!(name_in("ReplacingMergeTree(version)"), None);
    }

    #[test]
    fn an_insertion_is_done_when_all_replicas_have_it() {
        let of = |replicas| Cluster { name: "fleet".to_owned(), replicas }.settings();
        assert_eq!(of(1), "insert_distributed_sync=1");
        assert!(of(3).contains("&insert_quorum=3&"), "{}", of(3));
    }
}
