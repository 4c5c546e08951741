//! Reports from the store.
//!
//! Everything of one report is read in one transaction, so that it is of one moment. The server adds up the rows: what
//! comes here has the size of the report, and not of its span.
//!
//! - `load`: what is small: calendars, containers, closed months.
//! - `pieces`: which rows answer for which time: closed months, whole days, or five minutes.
//! - `shares`, `by_tenant`: whose a container is, in a report by tenant.
//! - `sums`, `rates`, `records`: the questions of [`StoredRows`].

mod by_tenant;
mod load;
mod pieces;
mod rates;
mod records;
mod shares;
mod sums;

use std::collections::HashMap;

use tokio::runtime::Runtime;
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};
use traffic_ledger::{
    ClosedPeriod, CountedOrDropped, Gap, InterfaceSums, Ledger, LedgerError, LineKey, PeriodAdjustment,
    Ranking, Rates, Signed, StoredQuery, StoredRows,
};

use super::{LIMITS, Postgres, Target, of, text};
use crate::{
    read::{
        Reported,
        drops::{self, DropsOf},
        pieces::LedgerSpan,
        shares::Shares,
        time_limit::TimeLimit,
    },
    store::StoreError,
};
use pieces::Piece;

/// A parameter of a statement.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// One ledger of the store.
#[derive(Clone, Debug)]
struct OneLedger {
    number: i32,
    node: String,
    zone: String,
}

/// A closed month of a ledger.
#[derive(Clone, Debug)]
struct Period {
    ledger: i32,
    number: i64,
    name: String,
    span: (i64, i64),
}

/// An open report.
#[derive(Debug)]
struct Reader {
    runtime: Runtime,
    client: Client,
    limit: TimeLimit,
    ledgers: Vec<OneLedger>,
    /// Whether containers are shown with their node.
    has_prefixes: bool,
    /// Number in the report of a container, by ledger and number in it.
    containers: HashMap<(i32, i64), i64>,
    /// The same the other way round.
    members: HashMap<i64, Vec<(i32, i64)>>,
    labels: HashMap<i64, String>,
    /// What the containers themselves are called, by ledger and number in it.
    own_labels: HashMap<(i32, i64), String>,
    /// Whose the containers are, in a report by tenant. Its containers are then the tenants.
    shares: Option<Shares>,
    interfaces: HashMap<(i32, i64), i64>,
    /// The drops of the ledgers, in their order.
    drops: Vec<DropsOf>,
    periods: Vec<Period>,
    /// Months (UTC) whose rows are there, as partitions are named.
    partitions: Vec<String>,
}

/// Opens what a store holds of some nodes, as a ledger that can only be read. Blocks; not to be called within an event
/// loop.
///
/// # Errors
/// When the store does not answer, does not know a node, or its ledgers do not go together.
pub fn open_ledger(target: &Target, reported: &Reported<'_>) -> Result<Ledger, StoreError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StoreError::Away(format!("cannot start the event loop: {error}")))?;
    let limit = TimeLimit::new(reported.until);
    let mut store = runtime.block_on(limit.within(Postgres::connect(target)))??;
    runtime.block_on(limit.within(super::setup::require_version(&mut store)))??;
    // The server gives up as well. 0 would be no limit.
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = '{}ms';
         SET LOCAL jit = off; SET LOCAL work_mem = '128MB'; SET LOCAL TimeZone = 'UTC'; {LIMITS}",
        limit.left().as_millis().max(1)
    );
    runtime.block_on(limit.within(store.client.batch_execute(&begin)))?.map_err(|error| of(&error))?;
    let reader = Reader {
        runtime,
        client: store.client,
        limit,
        ledgers: Vec::new(),
        has_prefixes: false,
        containers: HashMap::new(),
        members: HashMap::new(),
        labels: HashMap::new(),
        own_labels: HashMap::new(),
        shares: None,
        interfaces: HashMap::new(),
        drops: Vec::new(),
        periods: Vec::new(),
        partitions: Vec::new(),
    };
    load::open(reader, reported).map_err(|error| match error {
        LedgerError::Store(text) => StoreError::Refused(text),
        other => StoreError::Refused(other.to_string()),
    })
}

impl Reader {
    /// The rows of a statement.
    fn rows(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, LedgerError> {
        let work = async { self.limit.within(self.client.query_typed(sql, parameters)).await };
        let found = match self.runtime.block_on(work) {
            Ok(Ok(rows)) => Ok(rows),
            // The server gave up. Somebody may also have cancelled it.
            Ok(Err(error)) if text(&error).contains("statement timeout") => Err(self.limit.too_long()),
            Ok(Err(error)) => Err(of(&error)),
            Err(late) => Err(late),
        };
        found.map_err(|error| LedgerError::Store(format!("the store cannot answer: {error}")))
    }

    /// Whether a ledger has five minutes in a span.
    fn has_five_minutes(&self, (ledger, (start, end)): LedgerSpan) -> Result<bool, LedgerError> {
        let sql = "SELECT FROM trafctl.part p WHERE p.ledger = $1 AND p.name = '5min' AND p.number >= $2 AND p.number < $3
                   LIMIT 1";
        let parameters = [(&ledger as _, Type::INT4), (&start as _, Type::INT8), (&end as _, Type::INT8)];
        Ok(!self.rows(sql, &parameters)?.is_empty())
    }

    fn ledger_numbers(&self) -> Vec<i32> {
        self.ledgers.iter().map(|ledger| ledger.number).collect()
    }

    fn node(&self, ledger: i32) -> &str {
        self.ledgers.iter().find(|one| one.number == ledger).map_or("?", |one| &one.node)
    }

    /// The node of a ledger, where the report is about several.
    fn named_node(&self, ledger: i32) -> Option<String> {
        let first = self.ledgers.first()?;
        let has_several = self.ledgers.iter().any(|one| one.node != first.node);
        has_several.then(|| self.node(ledger).to_owned())
    }

    /// What a container of a ledger is called in reports.
    fn shown(&self, ledger: i32, label: &str) -> String {
        if self.has_prefixes { format!("{}/{label}", self.node(ledger)) } else { label.to_owned() }
    }

    /// The containers of the ledgers that make up some containers of the report.
    fn members_of(&self, containers: &[i64]) -> (Vec<i32>, Vec<i64>) {
        containers.iter().filter_map(|number| self.members.get(number)).flatten().copied().unzip()
    }

    /// The number in the report of a ledger's container; 0 for one that the store does not have.
    fn container(&self, ledger: i32, number: i64) -> i64 {
        self.containers.get(&(ledger, number)).copied().unwrap_or(0)
    }
}

impl StoredRows for Reader {
    fn traffic(&self, query: &StoredQuery<'_>) -> Result<Vec<(LineKey, [u64; 4])>, LedgerError> {
        sums::traffic(self, query)
    }

    fn drops(&self, query: &StoredQuery<'_>) -> Result<Vec<CountedOrDropped>, LedgerError> {
        sums::drops(self, query)
    }

    fn nodes_without_drops(&self, query: &StoredQuery<'_>) -> Result<Vec<String>, LedgerError> {
        let pieces = || {
            let rows = pieces::pieces(self, query, false)?.rows.into_iter();
            let of = |piece: Piece| piece.ledgers.into_iter().map(move |of| (piece.level, (of, piece.span)));
            Ok(rows.flat_map(of).collect())
        };
        let lacking =
            drops::with_lacking_rows(&self.drops, query.range, pieces, |of| self.has_five_minutes(of))?;
        Ok(drops::nodes_without(&self.drops, query.range, &lacking))
    }

    fn faults(&self, query: &StoredQuery<'_>) -> Result<[u64; 4], LedgerError> {
        sums::faults(self, query)
    }

    fn interfaces(&self, query: &StoredQuery<'_>) -> Result<InterfaceSums, LedgerError> {
        sums::interfaces(self, query)
    }

    fn rates(
        &self,
        query: &StoredQuery<'_>,
        ranking: &Ranking<'_>,
    ) -> Result<Vec<(LineKey, Rates)>, LedgerError> {
        rates::rates(self, query, ranking)
    }

    fn mixed_buckets(&self, range: (i64, i64)) -> Result<u64, LedgerError> {
        records::mixed_buckets(self, range)
    }

    fn gaps(&self, range: (i64, i64), containers: Option<&[i64]>) -> Result<Vec<Gap>, LedgerError> {
        records::gaps(self, range, containers)
    }

    fn closed(&self, range: (i64, i64)) -> Result<Vec<ClosedPeriod>, LedgerError> {
        records::closed(self, range)
    }

    fn adjustments(&self, range: (i64, i64)) -> Result<Vec<PeriodAdjustment>, LedgerError> {
        records::adjustments(self, range)
    }

    fn frozen(&self, period: &str, container: i64, class: u8) -> Result<Signed, LedgerError> {
        records::frozen(self, period, container, class)
    }
}
