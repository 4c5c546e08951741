//! `[ship]`: the stores that the ledger is shipped to.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};
use toml::Spanned;
use traffic_model::units::{DurationRange, format_duration};
use traffic_store::Target;

use super::check::{Problem, amount, problem};

/// Where the ids of a node's containers are unique: `[node] id_scope`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdScope {
    /// On the node: another node's container of the same id is another container.
    #[default]
    Node,
    /// In the cluster: the same id on two nodes is the same container, which moved.
    Cluster,
}

impl IdScope {
    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Cluster => "cluster",
        }
    }
}

/// What `trafctl ship` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShipConfig {
    /// URLs of the stores: `[ship] to`.
    pub to: Vec<String>,
    /// Passwords for them, in PostgreSQL's format for both kinds: `[ship] password_file`.
    pub password_file: Option<PathBuf>,
    /// How often it ships: `[ship] interval`.
    pub interval: Duration,
    /// Whether five-minute rows stay in the ledger until every store has verified them: `[ship] required`.
    pub required: bool,
}

impl Default for ShipConfig {
    /// Nothing is shipped.
    fn default() -> Self {
        Self { to: Vec::new(), password_file: None, interval: DEFAULT_INTERVAL, required: false }
    }
}

const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
const RANGE: DurationRange =
    DurationRange { shortest: Duration::from_secs(1), longest: Duration::from_hours(24) };

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileShip {
    to: Vec<Spanned<String>>,
    password_file: Option<Spanned<PathBuf>>,
    interval: Option<Spanned<String>>,
    required: Option<Spanned<bool>>,
}

impl FileShip {
    pub(super) fn check(self) -> Result<ShipConfig, Problem> {
        let mut to: Vec<String> = Vec::new();
        for url in self.to {
            // Not repeated in the message: it may have a password.
            if let Err(reason) = Target::parse(url.get_ref()) {
                return Err(problem(&url, format!("this store cannot be shipped to: {reason}")));
            }
            if to.contains(url.get_ref()) {
                return Err(problem(&url, "this store is named twice; remove one"));
            }
            to.push(url.into_inner());
        }
        let password_file = match self.password_file {
            Some(file) if !file.get_ref().is_absolute() => {
                return Err(problem(
                    &file,
                    "the path is not absolute; write one such as \"/etc/trafctl/pgpass\"",
                ));
            }
            file => file.map(Spanned::into_inner),
        };
        let interval = match &self.interval {
            Some(text) => amount(text, |text| RANGE.parse(text))?,
            None => DEFAULT_INTERVAL,
        };
        let required = match self.required {
            Some(required) if to.is_empty() && *required.get_ref() => {
                return Err(problem(
                    &required,
                    "no store could verify the rows, so they would stay for ever; name one in `to`, or write false",
                ));
            }
            required => required.is_some_and(Spanned::into_inner),
        };
        Ok(ShipConfig { to, password_file, interval, required })
    }
}

impl ShipConfig {
    pub(super) fn values(&self) -> [(String, Value); 4] {
        let Self { to, password_file, interval, required } = self;
        [
            ("ship.to".to_owned(), json!(to)),
            ("ship.password_file".to_owned(), json!(password_file)),
            ("ship.interval".to_owned(), json!(format_duration(*interval))),
            ("ship.required".to_owned(), json!(required)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Result<ShipConfig, String> {
        let parsed = Config::parse(text, Path::new("t.toml"));
        parsed.map(|config| config.ship).map_err(|error| error.to_string())
    }

    #[test]
    fn stores_are_checked_with_the_configuration() {
        assert_eq!(parse("").unwrap().to, [""; 0]);
        let all = parse(
            "[ship]\nto = ['postgresql://ship@db/traffic']\npassword_file = '/etc/trafctl/pgpass'\ninterval = '5m'\n",
        )
        .unwrap();
        assert_eq!((all.to.len(), all.interval, all.required), (1, Duration::from_secs(300), false));
        assert!(parse("[ship]\nto = ['postgresql://ship@db/traffic']\nrequired = true\n").unwrap().required);
        assert_eq!(parse("[ship]\nrequired = false\n").unwrap(), ShipConfig::default());
        for (text, place, reason) in [
            ("to = ['postgresql://ship:hunter2@db/traffic']", "t.toml:2:7", "with a password"),
            ("to = ['mysql://db']", "t.toml:2:7", "mysql"),
            ("to = ['clickhouse://ship@db/traffic']", "t.toml:2:7", "clickhouse+https"),
            ("to = ['clickhouse+https://ship:hunter2@db/traffic']", "t.toml:2:7", "with a password"),
            ("to = ['postgresql://a@db/t', 'postgresql://a@db/t']", "t.toml:2:30", "twice"),
            ("password_file = 'pgpass'", "t.toml:2:17", "not absolute"),
            ("interval = '0s'", "t.toml:2:12", ""),
            ("required = true", "t.toml:2:12", "name one in `to`"),
        ] {
            let error = parse(&format!("[ship]\n{text}\n")).unwrap_err();
            assert!(error.starts_with(place) && error.contains(reason), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
