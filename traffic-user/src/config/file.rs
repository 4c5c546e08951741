//! The configuration file as it is written, and the checks that make a [`Config`] of it.

use std::{collections::HashMap, ops::Range, path::PathBuf, time::Duration};

use serde::Deserialize;
use toml::Spanned;
use traffic_model::{
    ContainerId,
    calendar::{Calendar, Retention},
    notation::{parse_mac, parse_prefix},
    units::{self, DurationRange, InvalidAmount},
};

use crate::config::{
    AttachSetting, ClassOrder, Config, ContainerConfig, IdentityCommand, Limits, Listen, Pattern, Preset,
    Rule, RuleKind, VZ_CONF_DIR,
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    class_file: Option<PathBuf>,
    class_order: ClassOrder,
    node: Option<Spanned<FileNode>>,
    attach: AttachSetting,
    mark: FileMark,
    vz_conf_dir: Option<PathBuf>,
    limits: FileLimits,
    host: FileHost,
    interfaces: FileInterfaces,
    identities: FileIdentities,
    container: Vec<FileContainer>,
    drain: FileDrain,
    ledger: FileLedger,
    retention: FileRetention,
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
struct FileMark {
    enabled: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileHost {
    preset: Preset,
}

/// The node: its name alone, or a table.
#[derive(Debug)]
enum FileNode {
    Name(String),
    Table(FileNodeTable),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileNodeTable {
    name: Option<Spanned<String>>,
    uplinks: Vec<Spanned<String>>,
}

impl<'de> Deserialize<'de> for FileNode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = FileNode;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the node's name, or a table with `name` and `uplinks`")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<FileNode, E> {
                Ok(FileNode::Name(name.to_owned()))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<FileNode, A::Error> {
                let table = serde::de::value::MapAccessDeserializer::new(map);
                FileNodeTable::deserialize(table).map(FileNode::Table)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileIdentities {
    command: Option<Spanned<Vec<String>>>,
    timeout: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileInterfaces {
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
struct FileRetention {
    five_minutes: Option<Spanned<String>>,
    hours: Option<Spanned<String>>,
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
        let (node, uplinks) = self.node.map_or_else(|| Ok((host_name(), Vec::new())), node)?;
        Ok(Config {
            class_file: self.class_file,
            class_order: self.class_order,
            node,
            uplinks,
            attach: self.attach,
            shaping_mark: self.mark.enabled,
            vz_conf_dir: self.vz_conf_dir.unwrap_or_else(|| VZ_CONF_DIR.into()),
            limits: self.limits.check()?,
            rules: self.interfaces.rule.into_iter().map(FileRule::check).collect::<Result<_, _>>()?,
            preset: self.host.preset,
            identity_command: self.identities.check()?,
            containers: self.container.into_iter().map(FileContainer::check).collect::<Result<_, _>>()?,
            drain_interval: self.drain.check()?,
            ledger_enabled: self.ledger.enabled.unwrap_or(true),
            calendar: self.ledger.check()?,
            retention: self.retention.check()?,
            api: self.api.check()?,
        })
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The node's name and uplinks.
fn node(node: Spanned<FileNode>) -> Result<(String, Vec<String>), Complaint> {
    let span = node.span();
    let (name, uplinks) = match node.into_inner() {
        FileNode::Name(name) => (Some((span, name)), Vec::new()),
        FileNode::Table(table) => (table.name.map(|name| (name.span(), name.into_inner())), table.uplinks),
    };
    let name = match name {
        Some((span, name)) if name.is_empty() => {
            return Err(Complaint { span, message: "the node's name is empty".to_owned() });
        }
        Some((_, name)) => name,
        None => host_name(),
    };
    Ok((name, uplinks.into_iter().map(interface_name).collect::<Result<_, _>>()?))
}

fn interface_name(name: Spanned<String>) -> Result<String, Complaint> {
    let len = name.get_ref().len();
    if len == 0 || len >= traffic_common::INTERFACE_NAME_BYTES {
        return Err(complain(&name, "an interface name has 1 to 15 characters"));
    }
    Ok(name.into_inner())
}

/// A value of a unit, parsed by one of the parsers of `units`.
fn amount<T>(
    text: &Spanned<String>,
    parse: impl FnOnce(&str) -> Result<T, InvalidAmount>,
) -> Result<T, Complaint> {
    parse(text.get_ref()).map_err(|error| complain(text, error.to_string()))
}

impl FileIdentities {
    fn check(self) -> Result<Option<IdentityCommand>, Complaint> {
        const DEFAULT: Duration = Duration::from_secs(5);
        const RANGE: DurationRange =
            DurationRange { shortest: Duration::from_millis(1), longest: Duration::from_secs(60) };
        let timeout = match &self.timeout {
            None => DEFAULT,
            Some(text) => amount(text, |text| RANGE.parse(text))?,
        };
        let Some(command) = self.command else { return Ok(None) };
        match command.get_ref().first() {
            Some(program) if program.starts_with('/') => {
                Ok(Some(IdentityCommand { words: command.into_inner(), timeout }))
            }
            _ => Err(complain(&command, "write the command as [\"/path/to/program\", \"argument\", ...]")),
        }
    }
}

/// An interface or a hardware address has one owner.
fn no_owner_twice(containers: &[FileContainer]) -> Result<(), Complaint> {
    let mut seen = HashMap::new();
    for container in containers {
        for text in container.interfaces.iter().chain(&container.macs) {
            let owner = container.id.get_ref();
            let key = match parse_mac(text.get_ref()) {
                // One address, however it is written. A name of twelve hexadecimal digits is one too: no harm done.
                Some(mac) => traffic_model::hex(&mac),
                None => text.get_ref().clone(),
            };
            if let Some(other) = seen.insert(key, owner).filter(|&other| other != owner) {
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
                "a pattern of kind \"container\" needs a group that gives its id, such as (?<container>[0-9]+); where the \
                 name does not tell the id, the kind is \"mapped\"",
            ));
        }
        if self.kind != RuleKind::Container && pattern.names_container() {
            return Err(complain(
                &self.pattern,
                "only a pattern of kind \"container\" gives the id by a group",
            ));
        }
        Ok(Rule { pattern, kind: self.kind })
    }
}

impl FileContainer {
    fn check(self) -> Result<ContainerConfig, Complaint> {
        let id = ContainerId::of_container(self.id.get_ref())
            .map_err(|error| complain(&self.id, error.to_string()))?;
        let interfaces = self.interfaces.into_iter().map(interface_name);
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
        // A crash or power loss costs up to one interval, and readings are only checked when they are drained.
        const RANGE: DurationRange =
            DurationRange { shortest: Duration::from_millis(100), longest: Duration::from_hours(24) };
        match &self.interval {
            None => Ok(DEFAULT),
            Some(text) => amount(text, |text| RANGE.parse(text)),
        }
    }
}

impl FileLedger {
    fn check(self) -> Result<Calendar, Complaint> {
        let day = match &self.billing_day {
            Some(day) if !(1..=31).contains(day.get_ref()) => {
                return Err(complain(day, "a billing month begins on a day from 1 to 31"));
            }
            Some(day) => *day.get_ref(),
            None => 1,
        };
        match &self.time_zone {
            Some(zone) => {
                Calendar::new(zone.get_ref(), day).map_err(|error| complain(zone, error.to_string()))
            }
            // Always there, so that only the day could be refused, which has been looked at.
            None => Calendar::new("UTC", day)
                .map_err(|error| Complaint { span: 0..0, message: error.to_string() }),
        }
    }
}

impl FileRetention {
    fn check(self) -> Result<Retention, Complaint> {
        let default = Retention::default();
        let five_minutes_days = match self.five_minutes {
            Some(text) => amount(&text, units::parse_days)?,
            None => default.five_minutes_days,
        };
        let hours_months = match self.hours {
            Some(text) => amount(&text, units::parse_months)?,
            None => default.hours_months,
        };
        Ok(Retention { five_minutes_days, hours_months })
    }
}

impl FileApi {
    fn check(self) -> Result<Option<Listen>, Complaint> {
        let Some(text) = self.listen else { return Ok(None) };
        text.get_ref().parse().map(Some).map_err(|error: String| complain(&text, error))
    }
}
