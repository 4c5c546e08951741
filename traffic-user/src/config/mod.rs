//! The configuration file, read and checked as a whole. A [`Config`] that exists is usable.
//!
//! - `file`: the tables and keys as written.
//! - `check`: the checks of every value.
//! - `last_good`: the last configuration without a mistake, for when the file has one.
//! - `classes`: what is asked of class files, and the names of classes.
//! - `rules`: patterns of interface names, and the presets of them.
//! - `listen`: where the API listens.
//! - `ship`: the stores that the ledger is shipped to.
//! - `calibration`: when the counters are proved right.
//! - `settings`: every setting with the line it comes from, and every mistake of a file.
//!
//! Depends on pure types only. Which container an interface belongs to is decided in [`crate::ownership`].

mod calibration;
mod check;
mod classes;
mod file;
mod last_good;
mod listen;
mod rules;
mod settings;
mod ship;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use serde::Deserialize;
use traffic_model::{
    ContainerId,
    calendar::{Calendar, Retention},
};

use crate::files;
use check::Problem;
use file::File;

pub use last_good::{Chosen, Mistake, Origin, SourceText, problem as last_good_problem};
pub use listen::Listen;
pub use rules::{Applies, Pattern, Preset, PresetRule, Rule, RuleKind};
pub use settings::{FileMistake, Setting, mistakes};
pub use ship::{IdScope, ShipConfig};
pub use traffic_classes::{ClassOrder, HoldLimit};

/// The default path of the configuration. The file may be absent.
pub const DEFAULT_PATH: &str = "/etc/trafctl/trafctl.toml";
/// The default places of the class file, in the order in which they are tried.
pub const CLASS_FILES: [&str; 3] = [
    "/etc/vz/conf/networks_classes",
    "/etc/sysconfig/vz-scripts/networks_classes",
    "/etc/trafctl/networks_classes",
];
/// Where Virtuozzo keeps a file for each container.
const VZ_CONF_DIR: &str = "/etc/vz/conf";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The default file was in force, and is gone.
    #[error("{path}: the file is gone; put it back, or an empty file to use the defaults")]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// Something in the file is wrong.
    #[error("{path}:{line}:{column}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong; what to write instead.
        message: String,
    },
}

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The class file, if one is named.
    pub class_file: Option<PathBuf>,
    /// Which of several matching lines of the class file decides.
    pub class_order: ClassOrder,
    /// How many of the prefixes in force may vanish before a class file is held: `[classes] hold_if_removed`.
    pub hold_limit: HoldLimit,
    /// Names of classes: `[classes.names]`. They go before those in the class file.
    pub class_names: BTreeMap<u8, String>,
    /// Classes that are billed by what was delivered: `[classes.bill]`.
    pub delivered_classes: BTreeSet<u8>,
    /// This node's name in output.
    pub node: String,
    /// Interfaces on which the node's own traffic is counted, as container 0.
    pub uplinks: Vec<String>,
    /// Where the ids of its containers are unique: `[node] id_scope`.
    pub id_scope: IdScope,
    /// How programs are attached.
    pub attach: AttachSetting,
    /// Whether the kernel's grace periods may be expedited while hooks are changed.
    pub expedite: bool,
    /// Whether packets from containers get an `skb->mark` for a shaper: `[shaping] enabled`.
    pub skb_mark: bool,
    /// Whether the file uses `[mark]`, the former name of `[shaping]`.
    pub uses_old_mark_key: bool,
    /// Whether packets that the kernel drops behind the hooks are counted: `[drops] enabled`.
    pub drops_enabled: bool,
    /// Where Virtuozzo's container files are.
    pub vz_conf_dir: PathBuf,
    /// Capacities of the maps.
    pub limits: Limits,
    /// Rules for interface names, tried in this order.
    pub rules: Vec<Rule>,
    /// The preset whose rules are tried after them.
    pub preset: Preset,
    /// The command that maps interfaces to containers where neither name nor file does.
    pub identity_command: Option<IdentityCommand>,
    /// Containers whose interfaces or addresses are listed.
    pub containers: Vec<ContainerConfig>,
    /// How often counters are drained into the ledger.
    pub drain_interval: Duration,
    /// Whether `trafctl run` keeps a ledger.
    pub ledger_enabled: bool,
    /// Time zone and billing day of the ledger's days and months.
    pub calendar: Calendar,
    /// How long the ledger keeps its finer rows.
    pub retention: Retention,
    /// Where the API listens; `None` turns it off.
    pub api: Option<Listen>,
    /// The file with the token that requests for figures must carry: `[api] token_file`.
    pub api_token_file: Option<PathBuf>,
    /// The stores that the ledger is shipped to.
    pub ship: ShipConfig,
    /// When the counters are proved right each day, in local time: `[calibration] at`.
    pub calibration_at: Option<jiff::civil::Time>,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachSetting {
    /// TCX where the kernel supports it, else clsact.
    #[default]
    Auto,
    /// TCX links; kernel 6.6 and later.
    Tcx,
    /// A filter under the clsact qdisc.
    Clsact,
}

/// Capacities of the maps. They grow with the configuration, and shrink only when the counters start over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Containers with counters.
    pub containers: u32,
    /// Interfaces with totals of their own.
    pub interfaces: u32,
    /// Classes in use, class 0 included.
    pub classes: u32,
    /// Local prefixes on shared interfaces, for each family.
    pub addresses: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { containers: 2048, interfaces: 4096, classes: 16, addresses: 65_536 }
    }
}

impl Limits {
    /// Where these limits differ from those in force, in words; `None` where they do not.
    pub fn difference(&self, in_force: &Self) -> Option<String> {
        let pairs = [
            ("containers", self.containers, in_force.containers),
            ("interfaces", self.interfaces, in_force.interfaces),
            ("classes", self.classes, in_force.classes),
            ("addresses", self.addresses, in_force.addresses),
        ];
        let different = pairs.into_iter().filter(|(_, wanted, has)| wanted != has);
        let texts: Vec<_> =
            different.map(|(name, wanted, has)| format!("{name} = {wanted} ({has} in force)")).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

/// A command that prints which interface belongs to which container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityCommand {
    /// The program's path and its arguments.
    pub words: Vec<String>,
    /// The time after which it is killed.
    pub timeout: Duration,
}

/// A `[[container]]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerConfig {
    /// Its id.
    pub id: ContainerId,
    /// Its name for people, instead of what its platform calls it.
    pub name: Option<String>,
    /// Its host-side interfaces.
    pub interfaces: Vec<String>,
    /// Hardware addresses of its interfaces.
    pub macs: Vec<[u8; 6]>,
    /// Its local addresses and prefixes on shared interfaces.
    pub addresses: Vec<IpNet>,
    /// Whether these are the addresses of a device that it has on an uplink of the node (macvlan, ipvlan).
    pub on_uplink: bool,
}

impl Config {
    /// Reads the named file, or the default one if it exists, or else takes the defaults.
    ///
    /// # Errors
    /// When a named file does not exist, a file cannot be read, or anything in it is wrong.
    pub fn load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        let text = Self::read(explicit)?;
        Self::parse(text.as_deref().unwrap_or(""), explicit.unwrap_or(Path::new(DEFAULT_PATH)))
    }

    /// The text of the named file, or of the default one; `None` if that does not exist.
    fn read(explicit: Option<&Path>) -> Result<Option<String>, ConfigError> {
        let path = explicit.unwrap_or(Path::new(DEFAULT_PATH));
        match files::read_text(path, files::MOST_CONFIG_BYTES) {
            Ok(text) => Ok(Some(text)),
            // A dangling link is not a missing file: somebody put it there.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && explicit.is_none() && !path.is_symlink() =>
            {
                Ok(None)
            }
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// Parses and checks a text. `path` appears in messages.
    ///
    /// # Errors
    /// When anything in the text is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let place = |problem: Problem| {
            let before = text.get(..problem.span.start).unwrap_or(text);
            ConfigError::Invalid {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.rsplit('\n').next().unwrap_or("").chars().count() + 1,
                message: problem.message,
            }
        };
        let file: File = toml::from_str(text).map_err(|error| {
            // The former name of `shaping` is read, but not offered.
            let message = error.message().replace('\n', " ").replace("`mark`, ", "");
            place(Problem { span: error.span().unwrap_or(0..0), message })
        })?;
        file.check().map_err(place)
    }

    /// Where the class file may be: the configured path, or the default places.
    pub fn class_file_candidates(&self) -> Vec<PathBuf> {
        match &self.class_file {
            Some(path) => vec![path.clone()],
            None => CLASS_FILES.iter().map(PathBuf::from).collect(),
        }
    }

    /// A hint for `trafctl run` to log once, if the file uses a key that was renamed.
    pub fn renamed_key_hint(&self) -> Option<&'static str> {
        self.uses_old_mark_key
            .then_some("[mark] in the configuration is the former name of [shaping]; rename it")
    }
}
