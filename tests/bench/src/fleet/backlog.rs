//! A node whose store has nothing yet.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use traffic_tests::Lab;

use super::{
    BACKLOG, CPU, MEMORY, ROW, ROWS, SIZE, Scale, TIME,
    server::{Kind, Server},
    trafctl,
};
use crate::{
    process::{Watched, watched},
    progress::Progress,
    results::Results,
};

/// Ships the whole ledger of a state directory to an empty store.
pub fn run(
    kind: Kind,
    scale: Scale,
    state: &Path,
    (results, progress): (&mut Results, &Progress),
) -> Result<()> {
    let lab = Lab::new("fleet")?;
    lab.configure("node = 'node1'\n")?;
    let server = Server::start(kind, lab.host())?;
    server.empty_store(&lab)?;
    let name = kind.name();
    progress.note(&format!("fleet: shipping {} days to {name}", scale.days()));
    let mut command = trafctl(&lab, state, &["ship", "--once", "--format", "json", "--to", &server.url()])?;
    let Watched { taken, peak_mb, stdout } = watched(&mut command)?;
    let shipped: serde_json::Value = serde_json::from_str(&stdout)?;
    let rows = shipped["stores"][0]["rows"].as_u64().context("the number of rows")?;
    let case = case(scale);
    results.push(TIME, &case, name, (taken.wall, "s"));
    results.push(CPU, &case, name, (taken.cpu, "s"));
    results.push(MEMORY, BACKLOG, name, (peak_mb, "MB"));
    progress.note(&format!("fleet: counting what {name} has"));
    if kind == Kind::ClickHouse {
        server.run("OPTIMIZE TABLE traffic.units FINAL")?;
    }
    let of_five_minutes = server.rows()?;
    // Every container, class and family has a row in every five minutes; the first reading has none.
    let series = u64::from(scale.containers()) * u64::from(super::CLASSES) * 2;
    let buckets = u64::try_from(scale.days())? * 288;
    ensure!(
        of_five_minutes % series == 0 && (buckets - 1..=buckets).contains(&(of_five_minutes / series)),
        "{of_five_minutes} rows of {series} series arrived"
    );
    ensure!(rows > of_five_minutes, "only {rows} rows were shipped");
    results.push(ROWS, &case, name, (of_five_minutes as f64, "rows"));
    let bytes = match kind {
        Kind::ClickHouse => server.number(
            "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'traffic' AND table = 'units'",
        )?,
        Kind::Postgres => server.number(
            "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = \
             c.relnamespace WHERE n.nspname = 'trafctl' AND c.relkind = 'r'",
        )?,
    };
    results.push(SIZE, ROW, name, (bytes as f64 / of_five_minutes as f64, "bytes"));
    Ok(())
}

/// What the backlog is called in the results.
pub fn case(scale: Scale) -> String {
    format!("{BACKLOG}, {} days, {} containers x 8 rows", scale.days(), scale.containers())
}
