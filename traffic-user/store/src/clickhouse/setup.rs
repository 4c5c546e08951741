//! Creates the tables, and checks them.

use traffic_ledger::{DROPPED_TABLE, TABLES};

use super::{
    Http, cluster, columns,
    http::{number, text},
    schema::{self, Features, OWN_TABLES, OWN_VIEWS},
    sql::{quoted, string},
    target::Target,
};
use crate::{
    postgres::Migrated,
    store::{Checked, StoreError},
};

/// Creates the tables where there are none, on all servers of a cluster if one is named. Returns whether it did; those of
/// this version are left as they are.
///
/// # Errors
/// When the server cannot be reached, this user may not, or there are tables of another version or elsewhere.
pub async fn init(target: &Target, cluster: Option<&str>) -> Result<bool, StoreError> {
    let server = Http::connect(target).await?;
    match version(&server).await? {
        Some(schema::VERSION) => return require_cluster(&server, cluster).map(|()| false),
        Some(older @ schema::OLDEST..schema::VERSION) => {
            return Err(StoreError::Unusable(format!(
                "there is a store of schema version {older}; run `trafctl store migrate` as the owner of the database"
            )));
        }
        Some(other) => return Err(other_version(other)),
        None => {}
    }
    let features = features(&server).await?;
    let made = made(&server, cluster, features).await?;
    for sql in schema::create(made) {
        // Insertions into a distributed table have to know it.
        let server = if sql.starts_with("INSERT") { &Http::connect(target).await? } else { &server };
        server.run(&sql).await.map_err(|error| match error {
            StoreError::Refused(text) | StoreError::Unusable(text) => {
                StoreError::Refused(format!("cannot create the tables: {text}"))
            }
            other => other,
        })?;
    }
    if features.has_roles {
        create_roles(&server, made).await?;
    }
    Ok(true)
}

/// The statements by which [`init`] creates everything.
///
/// # Errors
/// When the server cannot be reached, or does not know the cluster.
pub async fn statements(target: &Target, cluster: Option<&str>) -> Result<Vec<String>, StoreError> {
    let server = Http::connect(target).await?;
    let features = features(&server).await?;
    let made = made(&server, cluster, features).await?;
    let mut all = schema::create(made);
    if features.has_roles {
        all.extend(schema::create_roles(made));
    }
    Ok(all)
}

async fn made<'a>(
    server: &'a Http,
    cluster: Option<&'a str>,
    features: Features,
) -> Result<schema::Made<'a>, StoreError> {
    if let Some(name) = cluster
        && cluster::find(server, name).await?.is_none()
    {
        return Err(StoreError::Refused(format!(
            "this server knows no cluster {name}; `SELECT DISTINCT cluster FROM system.clusters` lists those it knows"
        )));
    }
    Ok(schema::Made { database: server.database(), cluster, features })
}

/// Refuses a store that is elsewhere than somebody thinks.
fn require_cluster(server: &Http, cluster: Option<&str>) -> Result<(), StoreError> {
    let is_on = server.cluster.as_ref().map(|found| found.name.as_str());
    if cluster.is_none() || is_on == cluster {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "there is a store {} in this database already; choose another database",
        is_on.map_or_else(|| "on this server alone".to_owned(), |name| format!("on the cluster {name}"))
    )))
}

/// Creates the roles. Whoever owns a database need not be allowed to.
async fn create_roles(server: &Http, made: schema::Made<'_>) -> Result<(), StoreError> {
    for sql in schema::create_roles(made) {
        match server.run(&sql).await {
            Err(StoreError::Refused(text)) => {
                tracing::warn!(
                    "the roles {} and {} were not created: {text}; give users access to the database in another way",
                    schema::SHIP_ROLE,
                    schema::READ_ROLE
                );
                return Ok(());
            }
            done => done?,
        }
    }
    Ok(())
}

/// Which of the later features a server has.
async fn features(server: &Http) -> Result<Features, StoreError> {
    let count =
        |table: &str, condition: &str| format!("SELECT count() FROM system.{table} WHERE {condition}");
    let counted = async |sql: String| -> Result<u64, StoreError> {
        server.ask(&sql).await?.first().map_or(Ok(0), |row| number(row, 0))
    };
    let syncs = count("merge_tree_settings", "name IN ('fsync_after_insert', 'fsync_part_directory')");
    let roles = count("tables", "database = 'system' AND name = 'roles'");
    let year: u32 = server.version.split('.').next().and_then(|year| year.parse().ok()).unwrap_or(0);
    Ok(Features {
        has_codecs: year >= 20,
        syncs: counted(syncs).await? == 2,
        has_roles: counted(roles).await? == 1,
    })
}

fn other_version(found: u64) -> StoreError {
    StoreError::Unusable(format!(
        "the store has schema version {found}, but this trafctl knows version {}; use the trafctl that made it, or a newer \
         one",
        schema::VERSION
    ))
}

/// The version of the tables; `None` without any.
async fn version(server: &Http) -> Result<Option<u64>, StoreError> {
    // Not by the error of a missing table: an old server has another one for a missing database.
    let sql = format!(
        "SELECT count() FROM system.tables WHERE database = {} AND name = 'store_version'",
        string(server.database())
    );
    let found: u64 = server.ask(&sql).await?.first().map_or(Ok(0), |row| number(row, 0))?;
    if found == 0 {
        return Ok(None);
    }
    let sql = format!("SELECT count(), max(version) FROM {}.store_version", quoted(server.database()));
    let rows = server.ask(&sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    // Without a row, its creation did not come to its end.
    if number::<u64>(row, 0)? == 0 { Ok(None) } else { number(row, 1).map(Some) }
}

/// Refuses what is no store that can be shipped to and reported from.
pub(super) async fn require_version(server: &Http) -> Result<u64, StoreError> {
    match version(server).await? {
        Some(known @ schema::OLDEST..=schema::VERSION) => Ok(known),
        Some(other) => Err(other_version(other)),
        None => Err(StoreError::Unusable(
            "there is no store in this database; run `trafctl store init` as its owner".to_owned(),
        )),
    }
}

/// Refuses a store without tenants.
pub(super) async fn require_tenants(server: &Http) -> Result<(), StoreError> {
    match require_version(server).await? {
        schema::WITH_TENANTS.. => Ok(()),
        older => Err(StoreError::Unusable(format!(
            "the store has schema version {older}, which has no tenants; run `trafctl store migrate` as the owner of the \
             database"
        ))),
    }
}

/// Brings the tables to the present version, on all servers of their cluster.
///
/// # Errors
/// When there is no store, it is elsewhere than on a named cluster, a newer trafctl made it, this user may not, or somebody
/// altered a column.
pub async fn migrate(target: &Target, cluster: Option<&str>) -> Result<Migrated, StoreError> {
    let server = Http::connect(target).await?;
    let from = require_version(&server).await?;
    require_cluster(&server, cluster)?;
    require_columns(&server, from).await?;
    if from < schema::VERSION {
        let cluster = server.cluster.as_ref().map(|found| found.name.as_str());
        let features = features(&server).await?;
        for sql in schema::migrate(schema::Made { database: server.database(), cluster, features }) {
            server.run(&sql).await?;
        }
        require_columns(&server, schema::VERSION).await?;
    }
    let of = |version: u64| i32::try_from(version).unwrap_or(i32::MAX);
    Ok(Migrated { from: of(from), to: of(schema::VERSION) })
}

/// Refuses tables of which somebody altered a column.
async fn require_columns(server: &Http, version: u64) -> Result<(), StoreError> {
    let problem = columns::problems(server, version).await?.into_iter().next();
    problem.map_or(Ok(()), |problem| Err(StoreError::Unusable(problem)))
}

/// Checks that everything is there, and what this user may do.
///
/// # Errors
/// When there is no store, or one of another version.
pub async fn check(target: &Target) -> Result<Checked, StoreError> {
    let server = Http::connect(target).await?;
    let version = require_version(&server).await?;
    let sql = format!("SELECT name FROM system.tables WHERE database = {}", string(server.database()));
    let found = server.ask(&sql).await?;
    let is_there = |name: &str| found.iter().any(|row| text(row, 0) == name);
    let mut problems = Vec::new();
    if version < schema::VERSION {
        problems.push(format!(
            "the schema has version {version}, which has no {}; run `trafctl store migrate` as the owner of the database",
            if version < schema::WITH_TENANTS { "tenants and no drops" } else { "drops" }
        ));
    }
    let count = if version < schema::WITH_DROPS { DROPPED_TABLE } else { TABLES.len() };
    let tables = TABLES.iter().take(count).map(|table| table.name);
    let tenants = (version >= schema::WITH_TENANTS).then_some(schema::TENANTS);
    let all = OWN_TABLES.into_iter().chain(tenants).chain(OWN_VIEWS).chain(tables);
    for name in all.filter(|name| !is_there(name)) {
        problems.push(format!(
            "{}.{name} is missing, or this user may not see it; run `trafctl store init` in a new database",
            server.database()
        ));
    }
    problems.extend(columns::problems(&server, version).await?);
    let of = quoted(server.database());
    let may_read = may(&server, &format!("SELECT count() FROM {of}.units WHERE place = 0")).await?;
    // Nothing is written: the rows are those of no place at all.
    let may_ship = may(
        &server,
        &format!(
            "INSERT INTO {of}.progress (place) SELECT place FROM {of}.progress WHERE place = 0 AND place = 1"
        ),
    )
    .await?;
    if !may_read && !may_ship {
        problems.push(format!(
            "this user may neither ship nor read; `GRANT {}` or `GRANT {}` to it",
            schema::SHIP_ROLE,
            schema::READ_ROLE
        ));
    }
    let version = i32::try_from(version).unwrap_or(i32::MAX);
    Ok(Checked { server: format!("ClickHouse {}", server.version), version, may_ship, may_read, problems })
}

/// Whether a statement is allowed. It is run.
async fn may(server: &Http, sql: &str) -> Result<bool, StoreError> {
    match server.run(sql).await {
        Ok(()) => Ok(true),
        Err(StoreError::Refused(_)) => Ok(false),
        Err(other) => Err(other),
    }
}
