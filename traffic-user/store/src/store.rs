//! What a store is to the shipper: a place that takes batches of parts, and remembers how far it is.

use std::collections::BTreeSet;

use traffic_ledger::{Content, DROPPED_TABLE, ShippedExtent};

/// Why a store did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, the connection was lost, or it came to a limit of time or memory: what was asked may or may not
    /// have been done. Less at once may pass.
    #[error("{0}")]
    Away(String),
    /// It answered that it cannot now, however little is asked: the disk is full, or it only reads. What was asked was not
    /// done, or not as a whole.
    #[error("{0}")]
    NotNow(String),
    /// It answered with an error: what was asked was not done.
    #[error("{0}")]
    Refused(String),
    /// It is no store, or one of another version.
    #[error("{0}")]
    Unusable(String),
}

/// What a store knows of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The machine whose ledger it is, if one is known.
    pub machine: Option<String>,
    /// The ledger's change number when its last rows were read.
    pub changes: i64,
    /// The token of that number; see [`traffic_ledger::Identity::token`].
    pub token: Option<String>,
    /// Everything up to this change number has arrived.
    pub done: i64,
    /// The id of the ledger that took its place, if one did.
    pub replaced_by: Option<String>,
    /// How often a shipper that knows no drops has brought units, since all drops were here. 0: none are missing.
    pub without_drops: i64,
    /// Five minutes before this time (Unix seconds) may lack their drops for good: the ledger had dropped their rows when it
    /// brought the drops that were missing. `None`: there are none of these.
    pub drops_kept_from: Option<i64>,
    /// Other change numbers that were noted, with their tokens. A ledger that goes on from here has them all.
    pub others: Vec<(i64, Option<String>)>,
}

/// What a store is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The server's version.
    pub server: String,
    /// The schema's version.
    pub version: i32,
    /// Whether this user may ship to it.
    pub may_ship: bool,
    /// Whether this user may read from it.
    pub may_read: bool,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// What the store has of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Its name.
    pub node: String,
    /// The id of its ledger.
    pub ledger: String,
    /// The version of trafctl.
    pub version: String,
    /// The release of its kernel.
    pub kernel: String,
    /// Start of the last five minutes that arrived, Unix seconds.
    pub last_bucket: Option<i64>,
    /// The last reading of its counters that the store knows of, Unix seconds.
    pub last_reading: Option<i64>,
    /// Gaps that lost traffic, in months that are not closed.
    pub open_gaps: i64,
}

/// The node of a ledger, as people know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The version of trafctl.
    pub version: String,
    /// The release of its kernel.
    pub kernel: String,
    /// Whether the ids of its containers are unique in the cluster, and not only on it.
    pub has_cluster_ids: bool,
}

/// Parts for a store, and what it then knows of their ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The ledger's id.
    pub ledger: String,
    /// What the store knew when the ledger was compared with it. If it knows something else now, it takes nothing.
    pub before: Option<Known>,
    /// What it knows afterwards.
    pub after: Known,
    /// The node of the ledger.
    pub node: Node,
    /// The ledger's calendar, and where it begins and ends.
    pub extent: ShippedExtent,
    /// The parts, each with all of its rows.
    pub contents: Vec<Content>,
    /// Whether a part also replaces one with the same change number, which only differs if somebody altered it.
    pub repairs: bool,
}

impl Batch {
    /// The same for a store that is older than the rows of drops.
    pub(crate) fn without_drops(&self) -> Self {
        let mut batch = self.clone();
        for content in &mut batch.contents {
            content.counted.retain(|rows| rows.0 != DROPPED_TABLE);
        }
        batch
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The store holds it, or something newer. So many of its parts were new to it.
    Taken(usize),
    /// The store has come to know something else of this ledger, and took nothing.
    Moved,
}

/// A ledger that takes over what the store holds, as somebody decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// The ledger's id.
    pub ledger: String,
    /// The ledger in the store whose place it takes: its own id, or that of its parent.
    pub place: String,
    /// What the store knows afterwards. Nothing is done: everything is shipped again.
    pub known: Known,
    /// Five minutes before this time (Unix seconds) stay as they are in the store, as the ledger has dropped them.
    pub kept_from: Option<i64>,
}

/// The digest of a part's rows in one table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartDigest {
    /// Its place in [`traffic_ledger::TABLES`].
    pub table: usize,
    /// Name of the part.
    pub name: String,
    /// Start of the unit, or number of the record.
    pub number: i64,
    /// How many rows it has there.
    pub rows: i64,
    /// SHA-256 over its sorted rows, hexadecimal.
    pub hash: String,
}

/// A part whose rows differ in store and ledger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Name of the part.
    pub name: String,
    /// Start of the unit, or number of the record.
    pub number: i64,
    /// The table with the first difference.
    pub table: &'static str,
    /// Rows of it in the ledger.
    pub in_ledger: i64,
    /// Rows of it in the store.
    pub in_store: i64,
}

/// A place that takes batches of parts. Of a call that fails, nobody knows whether it was done. It may be repeated, and
/// nothing that was done in part is ever seen as done.
pub trait Store {
    /// Whether it has a table for drops. One of an older version takes everything else.
    fn takes_drops(&self) -> bool {
        true
    }

    /// What it knows of a ledger; `None` if it has never heard of it.
    fn known(&mut self, ledger: &str) -> impl Future<Output = Result<Option<Known>, StoreError>>;

    /// Those of some parts that it holds since the ledger's change that is given with them, or since a later one. They need
    /// not be put again. A store that says nothing of a part gets it again.
    fn arrived(
        &mut self,
        _parts: &[(&'static str, i64, i64)],
    ) -> impl Future<Output = Result<BTreeSet<(String, i64)>, StoreError>> {
        std::future::ready(Ok(BTreeSet::new()))
    }

    /// Takes the parts that are newer than what it holds.
    fn put(&mut self, batch: &Batch) -> impl Future<Output = Result<Put, StoreError>>;

    /// Lets a ledger take over what the store holds of another, or of its own past.
    fn take_over(&mut self, takeover: &Takeover) -> impl Future<Output = Result<(), StoreError>>;

    /// Spans of Unix seconds whose units the owner of the store has dropped. It takes none of them again.
    fn dropped_spans(&mut self, _ledger: &str) -> impl Future<Output = Result<Vec<(i64, i64)>, StoreError>> {
        std::future::ready(Ok(Vec::new()))
    }

    /// The digests of all parts of a ledger: units that begin in a span of Unix seconds, or all records.
    fn digests(
        &mut self,
        ledger: &str,
        units: Option<(i64, i64)>,
    ) -> impl Future<Output = Result<Vec<PartDigest>, StoreError>>;
}
