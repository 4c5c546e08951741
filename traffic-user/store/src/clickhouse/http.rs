//! ClickHouse by its HTTP interface: one request for each statement.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use traffic_https::{Client, Limits, Request};

use super::{
    binary,
    cluster::{self, Cluster},
    engine::{Adoption, Engine, Notes, PartVersion, Progress, Seen, Versioned, Versions},
    schema, setup,
    sql::{self, Tables},
    target::Target,
};
use crate::store::{PartDigest, StoreError};

/// The longest wait for the first answer of a server.
const CONNECT_TIME: Duration = Duration::from_secs(20);
/// The longest wait for one statement.
const CALL_TIME: Duration = Duration::from_secs(120);
/// The longest wait for a copy of five minutes. It happens when somebody adopts a ledger.
const COPY_TIME: Duration = Duration::from_hours(1);
/// Largest answer, in bytes. The largest one has the digests of one day.
const MOST_BYTES: usize = 256 << 20;
/// Rows from which on an insertion is written at once. The server collects smaller ones where it can.
const MANY_ROWS: usize = 1000;
/// Bytes of a statement that every server takes.
const SHORT_STATEMENT: usize = 200_000;
/// Rows of one insertion that the server must not divide.
const UNDIVIDED: &str = "max_insert_block_size=16777216&min_insert_block_size_rows=16777216";

/// Settings that only later servers know. The rows of an insertion are read in one piece.
const PARALLEL: &str = "input_format_parallel_parsing";
/// Small insertions of many shippers are written together.
const COLLECTS: &str = "async_insert";
/// A function that finds the start of a step.
const ROUNDS: &str = "roundDown";
/// Blocks that were inserted before are dropped otherwise, also where somebody removed them since.
const REPEATS: &str = "insert_deduplicate";

/// A server.
#[derive(Debug)]
pub struct Http {
    target: Target,
    client: Client,
    /// Its version.
    pub(super) version: String,
    /// Which of the later settings it knows.
    knows: Vec<String>,
    /// Whether the last parts were so many rows that notes about them are not collected with those of others.
    is_busy: bool,
    /// The servers of the store, if it has several.
    pub(super) cluster: Option<Cluster>,
    /// Whether its tables have drops.
    pub(super) has_drops: bool,
}

/// A statement and what goes with it.
#[derive(Clone, Copy, Debug)]
struct Call<'a> {
    sql: &'a str,
    /// Settings, as in a URL.
    settings: &'a str,
    timeout: Duration,
}

impl Http {
    /// Connects, and asks what the server can do.
    ///
    /// # Errors
    /// When the server cannot be reached, is not who it should be, or does not let this user in.
    pub async fn connect(target: &Target) -> Result<Self, StoreError> {
        let client = if target.is_in_clear { Client::in_clear() } else { Client::default() };
        let target = target.clone();
        let mut server = Self {
            target,
            client,
            version: String::new(),
            knows: Vec::new(),
            is_busy: false,
            cluster: None,
            has_drops: false,
        };
        let ask = format!(
            "SELECT 'version' AS n, version() AS v UNION ALL SELECT name AS n, value AS v FROM system.settings WHERE name \
             IN ('{PARALLEL}', '{COLLECTS}', '{REPEATS}') UNION ALL SELECT name AS n, '' AS v FROM system.functions WHERE name = '{ROUNDS}' UNION \
             ALL {}",
            cluster::definition(server.database())
        );
        let answer = match server.ask_within(&ask, CONNECT_TIME).await {
            // A user who may not ask what the server knows ships all the same.
            Err(StoreError::Refused(_)) => {
                // Without knowing whether the store is on a cluster, nothing may be written.
                let least = cluster::definition(server.database());
                let least = format!("SELECT 'version' AS n, version() AS v UNION ALL {least}");
                server.ask_within(&least, CONNECT_TIME).await
            }
            answer => answer,
        };
        let answer = answer.map_err(|error| match error {
            StoreError::Away(text) => {
                StoreError::Away(format!("cannot connect to {}: {text}", server.target.name()))
            }
            StoreError::NotNow(text) => {
                StoreError::NotNow(format!("cannot connect to {}: {text}", server.target.name()))
            }
            other => other,
        })?;
        let mut sharded = None;
        for row in answer {
            match (text(&row, 0), text(&row, 1)) {
                ("version", version) => server.version = version.to_owned(),
                ("cluster", definition) => sharded = cluster::name_in(definition).map(str::to_owned),
                (name, _) => server.knows.push(name.to_owned()),
            }
        }
        if let Some(name) = sharded {
            server.cluster = cluster::find(&server, &name).await?;
            if server.cluster.is_none() {
                return Err(StoreError::Unusable(format!(
                    "the store is on the cluster {name}, which this server does not know; name a server of the cluster"
                )));
            }
        }
        Ok(server)
    }

    /// Whether it has the function `roundDown`.
    pub(super) fn rounds(&self) -> bool {
        self.knows.iter().any(|known| known == ROUNDS)
    }

    /// The database of the store.
    pub(super) fn database(&self) -> &str {
        &self.target.database
    }

    /// The tables of the store.
    pub(super) fn tables(&self) -> Tables<'_> {
        Tables { database: self.database(), is_sharded: self.cluster.is_some() }
    }

    /// The rows of a statement.
    pub(super) async fn ask(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, StoreError> {
        self.ask_within(sql, CALL_TIME).await
    }

    /// The same, with another limit.
    pub(super) async fn ask_within(
        &self,
        sql: &str,
        timeout: Duration,
    ) -> Result<Vec<Vec<Option<String>>>, StoreError> {
        let sql = format!("{sql} FORMAT TabSeparated");
        // A user who may only read may also not change settings: only where it must be.
        let settings = if sql.len() > SHORT_STATEMENT { "max_query_size=268435456" } else { "" };
        let call = Call { sql: &sql, settings, timeout };
        Ok(sql::rows(&self.call(call, None).await?))
    }

    /// Runs a statement that returns nothing.
    pub(super) async fn run(&self, sql: &str) -> Result<(), StoreError> {
        let settings = if sql.starts_with("INSERT") {
            self.cluster.as_ref().map(Cluster::settings).unwrap_or_default()
        } else {
            String::new()
        };
        self.call(Call { sql, settings: &settings, timeout: CALL_TIME }, None).await.map(drop)
    }

    /// Adds rows to a table, as JSON.
    pub(super) async fn insert(&self, table: &str, rows: Vec<u8>, is_small: bool) -> Result<(), StoreError> {
        self.insert_as(&format!("{table} FORMAT JSONEachRow"), rows, is_small).await
    }

    /// Adds rows. `into`: the table, its columns, and how the rows are written.
    async fn insert_as(&self, into: &str, rows: Vec<u8>, is_small: bool) -> Result<(), StoreError> {
        let sql = format!("INSERT INTO {}.{into}", sql::quoted(self.database()));
        let mut settings = UNDIVIDED.to_owned();
        let knows = |name: &str| self.knows.iter().any(|known| known == name);
        for off in [PARALLEL, REPEATS].into_iter().filter(|name| knows(name)) {
            settings.push_str(&format!("&{off}=0"));
        }
        // What is collected for several servers would be acknowledged before they have it.
        let is_collected = is_small && self.cluster.is_none();
        if knows(COLLECTS) {
            settings.push_str(&format!("&{COLLECTS}={}&wait_for_async_insert=1", u8::from(is_collected)));
        }
        if let Some(cluster) = &self.cluster {
            settings.push('&');
            settings.push_str(&cluster.settings());
        }
        let call = Call { sql: &sql, settings: &settings, timeout: CALL_TIME };
        self.call(call, Some(rows)).await.map(drop)
    }

    /// Runs a statement, with the rows of an insertion.
    async fn call(&self, call: Call<'_>, rows: Option<Vec<u8>>) -> Result<Vec<u8>, StoreError> {
        let Call { sql, settings, timeout } = call;
        // The server answers when it is done, so that an error comes as one.
        let mut target = "/?wait_end_of_query=1".to_owned();
        if !settings.is_empty() {
            target.push('&');
            target.push_str(settings);
        }
        let body = match rows {
            Some(rows) => {
                target.push_str(&format!("&query={}", percent_encoded(sql)));
                rows
            }
            None => sql.as_bytes().to_vec(),
        };
        let mut headers = vec![("x-clickhouse-user", self.target.user.clone())];
        headers.extend(self.target.password.as_ref().map(|secret| ("x-clickhouse-key", secret.0.clone())));
        let request = Request { target, headers, body };
        let limits = Limits { timeout, most_bytes: MOST_BYTES };
        let reply = self.client.ask(&self.target.server, request, limits).await.map_err(StoreError::Away)?;
        if reply.status == 200 { Ok(reply.body) } else { Err(refusal(reply.status, &reply.body)) }
    }
}

/// What an error of the server means.
fn refusal(status: u16, body: &[u8]) -> StoreError {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line: String = line.chars().filter(|character| !character.is_control()).take(500).collect();
    let code = line.strip_prefix("Code: ").and_then(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    // Old servers write more around the text itself.
    let kinds = ["DB::Exception", "DB::ErrnoException"];
    let begun = kinds.iter().find_map(|kind| line.split_once(&format!("{kind}: ")));
    let line = begun.map_or(line.as_str(), |(_, text)| text);
    let line = line.split_once(", e.what() = DB::").map_or(line, |(text, _)| text);
    match code {
        // No database, no table, no column: no store, or an older one.
        Some(60 | 81 | 16 | 47) => StoreError::Unusable(format!(
            "there is no store of this version ({line}); run `trafctl store init` as the owner of the database"
        )),
        Some(192 | 193 | 194 | 516) => {
            StoreError::Refused(format!("the server does not let this user in: {line}"))
        }
        Some(497 | 164) => StoreError::Refused(format!(
            "{line}; `GRANT {} TO` the user that ships, and use the owner of the database for `ship adopt` and what changes the store",
            schema::SHIP_ROLE
        )),
        // It took too long, or too much memory.
        Some(159 | 241) => StoreError::Away(line.to_owned()),
        // Quotas, too many parts, network, files that cannot be written, a full disk, read-only replicas: a repetition may
        // succeed.
        Some(
            3 | 32 | 33 | 74 | 75 | 76 | 173 | 198 | 201 | 202 | 203 | 209 | 210 | 236 | 242 | 243 | 252
            | 279 | 285 | 286 | 319 | 364 | 394 | 425 | 439 | 692 | 999,
        ) => StoreError::NotNow(line.to_owned()),
        Some(_) => StoreError::Refused(line.to_owned()),
        // A proxy that lost the server, or waited too long for it.
        None if matches!(status, 502 | 504) => {
            StoreError::Away(format!("the server answered with status {status}"))
        }
        None if status >= 500 || status == 429 => {
            StoreError::NotNow(format!("the server answered with status {status}"))
        }
        None => StoreError::Refused(format!(
            "the server answered with status {status}; is it the HTTP interface of ClickHouse?"
        )),
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A field of a row. What is not there is empty.
pub(super) fn text(row: &[Option<String>], at: usize) -> &str {
    row.get(at).and_then(Option::as_deref).unwrap_or_default()
}

/// A number of a row.
pub(super) fn number<N: std::str::FromStr>(row: &[Option<String>], at: usize) -> Result<N, StoreError> {
    text(row, at).parse().map_err(|_| {
        StoreError::Refused(format!("the server answered {:?} where a number is expected", text(row, at)))
    })
}

/// A text that is not there if it is empty.
fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl Engine for Http {
    fn takes_drops(&self) -> bool {
        self.has_drops
    }

    async fn was_migrated(&mut self) -> Result<bool, StoreError> {
        Ok(!self.has_drops && setup::require_version(self).await? >= schema::WITH_DROPS)
    }

    async fn adoptions(&mut self, ledger: &str) -> Result<Vec<Adoption>, StoreError> {
        let rows = self.ask(&sql::adoptions(self.database(), ledger)).await?;
        let adoption = |row: &Vec<Option<String>>| {
            Ok(Adoption {
                ledger: text(row, 0).to_owned(),
                turn: number(row, 1)?,
                place: number(row, 2)?,
                replaced_by: some(text(row, 3)),
            })
        };
        rows.iter().map(adoption).collect()
    }

    async fn progress(&mut self, place: u64) -> Result<Progress, StoreError> {
        let rows = self.ask(&sql::progress(self.database(), place)).await?;
        let mut progress = Progress::default();
        for row in &rows {
            let value: i64 = number(row, 3)?;
            match text(row, 0) {
                "done" => progress.done = progress.done.max(value),
                "drops" => {
                    progress.has_drops = true;
                    progress.drops_kept_from = Some(number(row, 4)?).filter(|from| *from != 0);
                }
                _ => {
                    let (machine, token) = (some(text(row, 1)), some(text(row, 2)));
                    progress.seen.push(Seen { changes: value, token, machine });
                }
            }
        }
        Ok(progress)
    }

    async fn note(&mut self, notes: Notes<'_>) -> Result<(), StoreError> {
        self.insert("progress", sql::note_rows(notes), !self.is_busy).await
    }

    async fn add(&mut self, place: u64, parts: &Versioned<'_>) -> Result<(), StoreError> {
        self.is_busy = sql::rows_of(parts) >= MANY_ROWS;
        let units = parts.iter().all(|(content, _)| super::is_unit(content));
        let into = format!("{} ({}) FORMAT RowBinary", schema::table_of(units), binary::columns(units));
        self.insert_as(&into, binary::part_rows(place, parts, units)?, !self.is_busy).await
    }

    async fn versions(&mut self, place: u64, parts: &[(&str, i64)]) -> Result<Vec<PartVersion>, StoreError> {
        let rows = self.ask(&sql::versions(self.database(), place, parts)).await?;
        let version = |row: &Vec<Option<String>>| {
            let of_part: u64 = number(row, 2)?;
            Ok(PartVersion {
                part: text(row, 0).to_owned(),
                number: number(row, 1)?,
                of_part: (of_part > 0).then_some(of_part),
                highest: number(row, 3)?,
            })
        };
        rows.iter().map(version).collect()
    }

    async fn arrived(
        &mut self,
        place: u64,
        parts: &Versions<'_>,
    ) -> Result<BTreeSet<(String, i64)>, StoreError> {
        // One replica may have what others still lack. Added once more, it is acknowledged when all have it.
        if self.cluster.as_ref().is_some_and(|cluster| cluster.replicas > 1) {
            return Ok(BTreeSet::new());
        }
        let rows = self.ask(&sql::part_versions(self.database(), place, parts)).await?;
        let mut there = BTreeMap::new();
        for row in &rows {
            there.insert((text(row, 0).to_owned(), number::<i64>(row, 1)?), number::<u64>(row, 2)?);
        }
        let has = |(name, number, version): &(&str, i64, u64)| {
            let part = ((*name).to_owned(), *number);
            there.get(&part).is_some_and(|found| found >= version).then_some(part)
        };
        Ok(parts.iter().filter_map(has).collect())
    }

    async fn copy(&mut self, from: u64, to: u64, before: i64) -> Result<(), StoreError> {
        let sql = sql::copy(self.tables(), (from, to), before);
        let settings = self.cluster.as_ref().map(Cluster::settings).unwrap_or_default();
        self.call(Call { sql: &sql, settings: &settings, timeout: COPY_TIME }, None).await.map(drop)
    }

    async fn adopt(&mut self, adoptions: &[Adoption]) -> Result<(), StoreError> {
        self.insert("adoption", sql::adoption_rows(adoptions), false).await
    }

    async fn digests(
        &mut self,
        place: u64,
        units: Option<(i64, i64)>,
    ) -> Result<Vec<PartDigest>, StoreError> {
        let rows = self.ask(&sql::digests(self.tables(), place, units, self.has_drops)).await?;
        let digest = |row: &Vec<Option<String>>| {
            let table = traffic_ledger::TABLES.iter().position(|table| table.name == text(row, 0));
            Ok(PartDigest {
                table: table.unwrap_or(usize::MAX),
                name: text(row, 1).to_owned(),
                number: number(row, 2)?,
                rows: number(row, 3)?,
                hash: text(row, 4).to_owned(),
            })
        };
        rows.iter().map(digest).collect()
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
