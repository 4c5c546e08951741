//! The configuration file as it is written, and the checks that make a [`Config`] of it.

use std::{collections::HashMap, ops::Range, path::PathBuf, time::Duration};

use serde::Deserialize;
use toml::Spanned;

use super::{
    AttachSetting, ClassOrder, Config, ContainerConfig, Limits, Pattern, Preset, Rule, RuleKind, VZ_CONF_DIR,
};
use crate::{
    api::Listen,
    ledger::{Calendar, LedgerConfig},
    notation::{parse_mac, parse_prefix},
    snapshot::ContainerId,
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    class_file: Option<PathBuf>,
    class_order: ClassOrder,
    node: Option<Spanned<String>>,
    attach: AttachSetting,
    vz_conf_dir: Option<PathBuf>,
    limits: FileLimits,
    interfaces: FileInterfaces,
    container: Vec<FileContainer>,
    drain: FileDrain,
    ledger: FileLedger,
    api: FileApi,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileLimits {
    containers: Option<Spanned<u32>>,
    interfaces: Option<Spanned<u32>>,
    classes: Option<Spanned<u32>>,
    addresses: Option<Spanned<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileInterfaces {
    preset: Preset,
    rule: Vec<FileRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    pattern: Spanned<String>,
    kind: RuleKind,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileContainer {
    id: Spanned<String>,
    #[serde(default)]
    interfaces: Vec<Spanned<String>>,
    #[serde(default)]
    macs: Vec<Spanned<String>>,
    #[serde(default)]
    addresses: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileDrain {
    interval: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileLedger {
    enabled: Option<bool>,
    time_zone: Option<Spanned<String>>,
    billing_day: Option<Spanned<u8>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileApi {
    listen: Option<Spanned<String>>,
}

/// A complaint about a place in the text.
pub(super) struct Complaint {
    pub(super) span: Range<usize>,
    pub(super) message: String,
}

fn complain<T>(about: &Spanned<T>, message: impl Into<String>) -> Complaint {
    Complaint { span: about.span(), message: message.into() }
}

impl File {
    /// The configuration it amounts to.
    pub(super) fn check(self) -> Result<Config, Complaint> {
        no_owner_twice(&self.container)?;
        Ok(Config {
            class_file: self.class_file,
            class_order: self.class_order,
            node: node_name(self.node)?,
            attach: self.attach,
            vz_conf_dir: self.vz_conf_dir.unwrap_or_else(|| VZ_CONF_DIR.into()),
            limits: self.limits.check()?,
            rules: self.interfaces.rule.into_iter().map(FileRule::check).collect::<Result<_, _>>()?,
            preset: self.interfaces.preset,
            containers: self.container.into_iter().map(FileContainer::check).collect::<Result<_, _>>()?,
            drain_interval: self.drain.check()?,
            ledger_enabled: self.ledger.enabled.unwrap_or(true),
            ledger: self.ledger.check()?,
            api: self.api.check()?,
        })
    }
}

fn node_name(named: Option<Spanned<String>>) -> Result<String, Complaint> {
    match named {
        Some(name) if name.get_ref().is_empty() => Err(complain(&name, "the node's name is empty")),
        Some(name) => Ok(name.into_inner()),
        None => Ok(rustix::system::uname().nodename().to_string_lossy().into_owned()),
    }
}

/// An interface or a hardware address has one owner.
fn no_owner_twice(containers: &[FileContainer]) -> Result<(), Complaint> {
    let mut seen = HashMap::new();
    for container in containers {
        for text in container.interfaces.iter().chain(&container.macs) {
            let owner = container.id.get_ref();
            if let Some(other) =
                seen.insert(text.get_ref().to_ascii_lowercase(), owner).filter(|&other| other != owner)
            {
                let message = format!("{} is container {other}'s already", text.get_ref());
                return Err(complain(text, message));
            }
        }
    }
    Ok(())
}

impl FileLimits {
    fn check(self) -> Result<Limits, Complaint> {
        let default = Limits::default();
        let within =
            |value: Option<Spanned<u32>>, default: u32, range: std::ops::RangeInclusive<u32>, what: &str| {
                match value {
                    None => Ok(default),
                    Some(value) if range.contains(value.get_ref()) => Ok(value.into_inner()),
                    Some(value) => Err(complain(
                        &value,
                        format!(
                            "{what} = {} is out of range: write {} to {}",
                            value.get_ref(),
                            range.start(),
                            range.end()
                        ),
                    )),
                }
            };
        Ok(Limits {
            containers: within(self.containers, default.containers, 1..=1_000_000, "containers")?,
            // One slot is kept for interfaces without one.
            interfaces: within(self.interfaces, default.interfaces, 2..=1_000_000, "interfaces")?,
            classes: within(self.classes, default.classes, 1..=traffic_common::MAX_COLUMNS, "classes")?,
            addresses: within(self.addresses, default.addresses, 1..=16_000_000, "addresses")?,
        })
    }
}

impl FileRule {
    fn check(self) -> Result<Rule, Complaint> {
        let pattern = Pattern::new(self.pattern.get_ref()).map_err(|error| complain(&self.pattern, error))?;
        if self.kind == RuleKind::Container && !pattern.names_container() {
            return Err(complain(
                &self.pattern,
                "a pattern of kind \"container\" needs a group that gives its id, such as (?<container>[0-9]+)",
            ));
        }
        Ok(Rule { pattern, kind: self.kind })
    }
}

impl FileContainer {
    fn check(self) -> Result<ContainerConfig, Complaint> {
        let id =
            ContainerId::new(self.id.get_ref()).map_err(|error| complain(&self.id, error.to_string()))?;
        let interfaces = self.interfaces.into_iter().map(|name| {
            let len = name.get_ref().len();
            if len == 0 || len >= traffic_common::INTERFACE_NAME_BYTES {
                return Err(complain(&name, "an interface name has 1 to 15 characters"));
            }
            Ok(name.into_inner())
        });
        let macs = self.macs.into_iter().map(|text| {
            parse_mac(text.get_ref())
                .ok_or_else(|| complain(&text, "this is no hardware address: write it as 00:18:51:aa:bb:cc"))
        });
        let addresses = self
            .addresses
            .into_iter()
            .map(|text| parse_prefix(text.get_ref()).map_err(|error| complain(&text, error)));
        Ok(ContainerConfig {
            id,
            interfaces: interfaces.collect::<Result<_, _>>()?,
            macs: macs.collect::<Result<_, _>>()?,
            addresses: addresses.collect::<Result<_, _>>()?,
        })
    }
}

impl FileDrain {
    fn check(self) -> Result<Duration, Complaint> {
        const DEFAULT: Duration = Duration::from_secs(60);
        const LEAST: Duration = Duration::from_millis(100);
        let Some(text) = self.interval else { return Ok(DEFAULT) };
        let parsed = text
            .get_ref()
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|span| Duration::try_from(span).ok());
        match parsed {
            Some(interval) if interval >= LEAST => Ok(interval),
            Some(_) => Err(complain(&text, "the drain interval is at least 100ms")),
            None => Err(complain(&text, "this is no duration: write it as \"60s\", \"500ms\" or \"5m\"")),
        }
    }
}

impl FileLedger {
    fn check(self) -> Result<LedgerConfig, Complaint> {
        let day = match &self.billing_day {
            Some(day) if !(1..=31).contains(day.get_ref()) => {
                return Err(complain(day, "a billing month begins on a day from 1 to 31"));
            }
            Some(day) => *day.get_ref(),
            None => 1,
        };
        let calendar = match &self.time_zone {
            Some(zone) => {
                Calendar::new(zone.get_ref(), day).map_err(|error| complain(zone, error.to_string()))
            }
            // Always there, so that only the day could be refused, which has been looked at.
            None => Calendar::new("UTC", day)
                .map_err(|error| Complaint { span: 0..0, message: error.to_string() }),
        };
        Ok(LedgerConfig { calendar: calendar?, ..LedgerConfig::default() })
    }
}

impl FileApi {
    fn check(self) -> Result<Option<Listen>, Complaint> {
        let Some(text) = self.listen else { return Ok(None) };
        text.get_ref().parse().map(Some).map_err(|error: String| complain(&text, error))
    }
}
