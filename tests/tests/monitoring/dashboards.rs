//! The dashboards as files: Grafana's own types, data sources that are chosen, panels that do not overlap, links
//! that lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::schema;

const NAMES: [&str; 3] = ["trafctl-overview", "trafctl-container", "trafctl-node"];

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// One query of a panel.
pub struct Query {
    /// Dashboard, panel and query, for messages and for the expected values.
    pub name: String,
    pub expression: String,
    /// Whether it is drawn over time.
    pub is_range: bool,
}

/// A dashboard by its name.
pub fn dashboard(name: &str) -> Result<Value> {
    let text = fs::read_to_string(repository(&format!("contrib/grafana/{name}.json")))?;
    Ok(serde_json::from_str(&text)?)
}

/// All dashboards.
pub fn all() -> Result<Vec<(&'static str, Value)>> {
    let found = fs::read_dir(repository("contrib/grafana"))?;
    let json = found.filter(|entry| {
        entry
            .as_ref()
            .is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
    });
    ensure!(json.count() == NAMES.len(), "contrib/grafana has other dashboards than {NAMES:?}");
    NAMES.into_iter().map(|name| Ok((name, dashboard(name)?))).collect()
}

fn list<'v>(value: &'v Value, path: &str) -> Result<&'v Vec<Value>> {
    value.pointer(path).and_then(Value::as_array).with_context(|| format!("no list {path}"))
}

fn text<'v>(value: &'v Value, field: &str) -> Result<&'v str> {
    value[field].as_str().with_context(|| format!("no text {field} in {value}"))
}

/// The queries of all panels of a dashboard.
pub fn queries(name: &str, dashboard: &Value) -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for panel in list(dashboard, "/panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push(Query {
                name: format!("{name}: {}/{}", text(panel, "title")?, text(target, "refId")?),
                expression: text(target, "expr")?.to_owned(),
                is_range: target["range"] == true,
            });
        }
    }
    ensure!(!queries.is_empty(), "{name} has no queries");
    Ok(queries)
}

#[test]
fn dashboards_have_the_form_that_grafana_publishes() -> Result<()> {
    let rules = fs::read_to_string(repository("tests/vendor/grafana/dashboard.schema.json"))?;
    let rules: Value = serde_json::from_str(&rules)?;
    for (name, dashboard) in all()? {
        schema::check(&rules, &dashboard).with_context(|| name.to_owned())?;
        ensure!(
            dashboard["uid"] == name && dashboard["id"].is_null(),
            "{name}: its own id, and none of a server"
        );
        // The check does refuse what is wrong.
        for (place, wrong) in [
            ("/panels/0/type", json!("graph")),
            ("/panels/0/options/textMode", json!("loud")),
            ("/panels/0/fieldConfig/defaults/colour", json!("red")),
            ("/templating/list/0/type", json!("source")),
            ("/panels/0/gridPos/w", json!("wide")),
        ] {
            let mut broken = dashboard.clone();
            let (parent, field) = place.rsplit_once('/').context("a place")?;
            broken.pointer_mut(parent).context("its parent")?[field] = wrong;
            ensure!(schema::check(&rules, &broken).is_err(), "{place} of {name} can be wrong");
        }
    }
    Ok(())
}

#[test]
fn data_sources_are_chosen_and_variables_exist() -> Result<()> {
    for (name, dashboard) in all()? {
        let variables = list(&dashboard, "/templating/list")?;
        let names: BTreeSet<_> =
            variables.iter().map(|variable| text(variable, "name")).collect::<Result<_>>()?;
        let first = variables.first().context("no variables")?;
        ensure!(first["type"] == "datasource" && first["query"] == "prometheus", "{name}: {first}");
        let chosen = json!({"type": "prometheus", "uid": "${datasource}"});
        let mut ids = BTreeSet::new();
        for panel in list(&dashboard, "/panels")? {
            let title = text(panel, "title")?;
            ensure!(ids.insert(panel["id"].to_string()), "{name}: {title} has the id of another panel");
            if panel["type"] == "row" {
                continue;
            }
            ensure!(panel["datasource"] == chosen, "{name}: {title}: {}", panel["datasource"]);
            ensure!(!text(panel, "description")?.is_empty(), "{name}: {title} is not described");
            let mut refs = BTreeSet::new();
            for target in list(panel, "/targets")? {
                ensure!(target["datasource"] == chosen, "{name}: {title}: {target}");
                ensure!(refs.insert(text(target, "refId")?), "{name}: {title}: two queries of one name");
                ensure!(target["instant"] != target["range"], "{name}: {title}: {target}");
            }
            // A changed field of a query that is no longer there changes nothing.
            for changed in list(panel, "/fieldConfig/overrides")? {
                let matcher = &changed["matcher"];
                if matcher["id"] == "byFrameRefID" {
                    let of = text(matcher, "options")?;
                    ensure!(refs.contains(of), "{name}: {title}: an override of {of}");
                }
            }
        }
        let whole = dashboard.to_string();
        for part in whole.split("=~\\\"$").skip(1).chain(whole.split("=\\\"$").skip(1)) {
            let (used, _) = part.split_once('\\').context("its end")?;
            ensure!(names.contains(used), "{name}: there is no variable {used}");
        }
        for variable in variables.iter().skip(1) {
            ensure!(variable["datasource"] == chosen, "{name}: {variable}");
            let used = format!("${}", text(variable, "name")?);
            ensure!(whole.contains(&used), "{name}: nothing uses {used}");
        }
        ensure!(
            !whole.contains("${DS_") && !whole.contains("__inputs"),
            "{name} was exported for a person to import"
        );
    }
    Ok(())
}

#[test]
fn panels_lie_beside_each_other() -> Result<()> {
    for (name, dashboard) in all()? {
        let mut taken = BTreeSet::new();
        for panel in list(&dashboard, "/panels")? {
            let side = |side: &str| {
                panel["gridPos"][side]
                    .as_u64()
                    .with_context(|| format!("{name}: {side} of {}", panel["title"]))
            };
            let (x, y, w, h) = (side("x")?, side("y")?, side("w")?, side("h")?);
            ensure!(x + w <= 24 && w > 0 && h > 0, "{name}: {} is wider than the page", panel["title"]);
            for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                ensure!(taken.insert(place), "{name}: {} lies over another panel", panel["title"]);
            }
        }
    }
    Ok(())
}

#[test]
fn links_lead_to_dashboards_and_their_variables() -> Result<()> {
    let dashboards = all()?;
    let mut links = 0;
    for (name, dashboard) in &dashboards {
        for part in dashboard.to_string().split("/d/").skip(1) {
            let (target, rest) = part.split_once('?').context("a link without variables")?;
            let (_, to) = dashboards
                .iter()
                .find(|(name, _)| *name == target)
                .with_context(|| format!("{name}: {target}"))?;
            let (variable, _) =
                rest.strip_prefix("var-").and_then(|rest| rest.split_once('=')).context("var-")?;
            let variables = list(to, "/templating/list")?;
            ensure!(variables.iter().any(|known| known["name"] == variable), "{target} has no {variable}");
            links += 1;
        }
    }
    ensure!(links > 0, "no dashboard leads to another");
    Ok(())
}
