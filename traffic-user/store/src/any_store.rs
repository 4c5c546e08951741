//! A store of either kind, by its URL.

use std::collections::BTreeSet;

use traffic_ledger::Ledger;

use crate::{
    clickhouse::{self, ClickHouse},
    passwords::PasswordFile,
    postgres::{self, Postgres},
    read::Reported,
    store::{Batch, Checked, Known, NodeState, PartDigest, Put, Store, StoreError, Takeover},
    tenants::{Assigned, Assignment},
};

/// Where a store is.
#[derive(Clone, Debug)]
pub enum Target {
    /// In PostgreSQL.
    Postgres(postgres::Target),
    /// In ClickHouse.
    ClickHouse(clickhouse::Target),
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// With what is wrong in it. The text never has a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        if clickhouse::Target::is_meant(url) {
            return Ok(Self::ClickHouse(clickhouse::Target::parse(url)?));
        }
        Ok(Self::Postgres(postgres::Target::parse(url)?))
    }

    /// Its URL without options, for people.
    pub fn name(&self) -> &str {
        match self {
            Self::Postgres(target) => target.name(),
            Self::ClickHouse(target) => target.name(),
        }
    }

    /// Takes the password for this store from the first file that has one.
    ///
    /// # Errors
    /// When a file cannot be read, or others than its owner may read it.
    pub fn with_password(self, files: &[PasswordFile]) -> Result<Self, String> {
        Ok(match self {
            Self::Postgres(target) => Self::Postgres(target.with_password(files)?),
            Self::ClickHouse(target) => Self::ClickHouse(target.with_password(files)?),
        })
    }

    /// Adds an assignment of a container to a tenant. Its number is not looked at, and its times are rounded down to five
    /// minutes.
    ///
    /// # Errors
    /// When another one is of the same container at the same time, the id alone does not say which container is meant, or
    /// this user may not.
    pub async fn assign(&self, new: &Assignment) -> Result<Assigned, StoreError> {
        match self {
            Self::Postgres(target) => postgres::assign(&mut Postgres::connect(target).await?, new).await,
            Self::ClickHouse(target) => clickhouse::assign(target, new).await,
        }
    }

    /// Ends an assignment. One that would end before it begins is removed.
    ///
    /// # Errors
    /// When there is none of this number, it ended before, or this user may not.
    pub async fn unassign(&self, number: i32, until: i64) -> Result<Option<Assignment>, StoreError> {
        match self {
            Self::Postgres(target) => {
                postgres::unassign(&mut Postgres::connect(target).await?, number, until).await
            }
            Self::ClickHouse(target) => clickhouse::unassign(target, number, until).await,
        }
    }

    /// All assignments, or those of one tenant, by tenant, container and time.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn assignments(&self, tenant: Option<&str>) -> Result<Vec<Assignment>, StoreError> {
        match self {
            Self::Postgres(target) => {
                postgres::assignments(&mut Postgres::connect(target).await?, tenant).await
            }
            Self::ClickHouse(target) => clickhouse::assignments(target, tenant).await,
        }
    }

    /// Creates the tables where there are none, in ClickHouse on all servers of a cluster if one is named. Returns whether
    /// it did.
    ///
    /// # Errors
    /// When the server cannot be reached, this user may not, or the tables are of another version.
    pub async fn init(&self, cluster: Option<&str>) -> Result<bool, StoreError> {
        match self {
            Self::Postgres(target) => {
                no_cluster(cluster)?;
                postgres::init(&mut Postgres::connect(target).await?).await
            }
            Self::ClickHouse(target) => clickhouse::init(target, cluster).await,
        }
    }

    /// The statements by which [`Self::init`] would create everything.
    ///
    /// # Errors
    /// When the server cannot be reached, or does not know the cluster.
    pub async fn statements(&self, cluster: Option<&str>) -> Result<Vec<String>, StoreError> {
        match self {
            Self::Postgres(_) => no_cluster(cluster).map(|()| postgres::statements()),
            Self::ClickHouse(target) => clickhouse::statements(target, cluster).await,
        }
    }

    /// Checks that everything is there, and what this user may do.
    ///
    /// # Errors
    /// When there is no store, or one of another version.
    pub async fn check(&self) -> Result<Checked, StoreError> {
        match self {
            Self::Postgres(target) => postgres::check(&mut Postgres::connect(target).await?).await,
            Self::ClickHouse(target) => clickhouse::check(target).await,
        }
    }

    /// Brings the tables to the present version.
    ///
    /// # Errors
    /// When there is no store, a newer trafctl made it, or this user is not its owner.
    pub async fn migrate(&self, cluster: Option<&str>) -> Result<postgres::Migrated, StoreError> {
        match self {
            Self::Postgres(target) => {
                no_cluster(cluster)?;
                postgres::migrate(&mut Postgres::connect(target).await?).await
            }
            Self::ClickHouse(target) => clickhouse::migrate(target, cluster).await,
        }
    }

    /// How far each node is, by name.
    ///
    /// # Errors
    /// When the store does not answer, or is of another version.
    pub async fn nodes(&self) -> Result<Vec<NodeState>, StoreError> {
        match self {
            Self::Postgres(target) => postgres::nodes(&mut Postgres::connect(target).await?).await,
            Self::ClickHouse(target) => clickhouse::nodes(&ClickHouse::connect(target).await?).await,
        }
    }
}

fn no_cluster(cluster: Option<&str>) -> Result<(), StoreError> {
    match cluster {
        Some(_) => Err(StoreError::Unusable(
            "PostgreSQL has no clusters; leave --cluster out, or name a store in ClickHouse".to_owned(),
        )),
        None => Ok(()),
    }
}

/// Opens what a store holds of some nodes, as a ledger that can only be read. Blocks; not to be called within an event
/// loop.
///
/// # Errors
/// When the store does not answer, does not know a node, or its ledgers do not go together.
pub fn open_ledger(target: &Target, reported: &Reported<'_>) -> Result<Ledger, StoreError> {
    match target {
        Target::Postgres(target) => postgres::open_ledger(target, reported),
        Target::ClickHouse(target) => clickhouse::open_ledger(target, reported),
    }
}

/// A connection to a store.
#[derive(Debug)]
pub enum AnyStore {
    /// In PostgreSQL.
    Postgres(Postgres),
    /// In ClickHouse.
    ClickHouse(Box<ClickHouse>),
}

impl AnyStore {
    /// Connects.
    ///
    /// # Errors
    /// When the server cannot be reached, is not who it should be, or does not let this user in.
    pub async fn connect(target: &Target) -> Result<Self, StoreError> {
        Ok(match target {
            Target::Postgres(target) => Self::Postgres(Postgres::connect(target).await?),
            Target::ClickHouse(target) => Self::ClickHouse(Box::new(ClickHouse::connect(target).await?)),
        })
    }
}

impl Store for AnyStore {
    fn takes_drops(&self) -> bool {
        match self {
            Self::Postgres(store) => store.takes_drops(),
            Self::ClickHouse(store) => store.takes_drops(),
        }
    }

    async fn known(&mut self, ledger: &str) -> Result<Option<Known>, StoreError> {
        match self {
            Self::Postgres(store) => store.known(ledger).await,
            Self::ClickHouse(store) => store.known(ledger).await,
        }
    }

    async fn arrived(
        &mut self,
        parts: &[(&'static str, i64, i64)],
    ) -> Result<BTreeSet<(String, i64)>, StoreError> {
        match self {
            Self::Postgres(store) => store.arrived(parts).await,
            Self::ClickHouse(store) => store.arrived(parts).await,
        }
    }

    async fn put(&mut self, batch: &Batch) -> Result<Put, StoreError> {
        match self {
            Self::Postgres(store) => store.put(batch).await,
            Self::ClickHouse(store) => store.put(batch).await,
        }
    }

    async fn take_over(&mut self, takeover: &Takeover) -> Result<(), StoreError> {
        match self {
            Self::Postgres(store) => store.take_over(takeover).await,
            Self::ClickHouse(store) => store.take_over(takeover).await,
        }
    }

    async fn dropped_spans(&mut self, ledger: &str) -> Result<Vec<(i64, i64)>, StoreError> {
        match self {
            Self::Postgres(store) => store.dropped_spans(ledger).await,
            Self::ClickHouse(store) => store.dropped_spans(ledger).await,
        }
    }

    async fn digests(
        &mut self,
        ledger: &str,
        units: Option<(i64, i64)>,
    ) -> Result<Vec<PartDigest>, StoreError> {
        match self {
            Self::Postgres(store) => store.digests(ledger, units).await,
            Self::ClickHouse(store) => store.digests(ledger, units).await,
        }
    }
}
