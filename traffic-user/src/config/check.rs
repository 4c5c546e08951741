//! Checks the values of a configuration [`File`] and turns it into a [`Config`]. The first problem found is
//! reported.

use std::{
    collections::HashMap,
    ops::{Range, RangeInclusive},
    path::PathBuf,
    time::Duration,
};

use toml::Spanned;
use traffic_model::{
    ContainerId,
    calendar::{Calendar, Retention},
    notation::{name_bytes, parse_mac, parse_prefix},
    units::{self, DurationRange, InvalidAmount},
};

use crate::config::{
    Config, ContainerConfig, IdScope, IdentityCommand, Limits, Listen, Pattern, Rule, RuleKind, VZ_CONF_DIR,
    classes::Classes,
    file::{
        File, FileApi, FileContainer, FileDrain, FileIdentities, FileLedger, FileLimits, FileNode,
        FileRetention, FileRule,
    },
};

/// What is wrong at a place in the text.
pub(super) struct Problem {
    pub(super) span: Range<usize>,
    pub(super) message: String,
}

pub(super) fn problem<T>(at: &Spanned<T>, message: impl Into<String>) -> Problem {
    Problem { span: at.span(), message: message.into() }
}

impl File {
    /// Checks every value.
    pub(super) fn check(self) -> Result<Config, Problem> {
        refuse_second_owner(&self.container)?;
        let (skb_mark, uses_old_mark_key) = match (self.shaping, self.mark) {
            (Some(_), Some(mark)) => {
                return Err(problem(
                    &mark,
                    "[mark] is the former name of [shaping], and the file has both; remove [mark]",
                ));
            }
            (Some(shaping), None) => (shaping.enabled, false),
            (None, Some(mark)) => (mark.get_ref().enabled, true),
            (None, None) => (false, false),
        };
        let (node, uplinks, id_scope) =
            self.node.map_or_else(|| Ok((host_name(), Vec::new(), IdScope::default())), node)?;
        refuse_missing_uplink(&self.container, &uplinks)?;
        let Classes { hold_limit, names: class_names, delivered: delivered_classes } =
            self.classes.check()?;
        let (api, api_token_file) = self.api.check()?;
        Ok(Config {
            class_file: self.class_file,
            class_order: self.class_order,
            hold_limit,
            class_names,
            delivered_classes,
            node,
            uplinks,
            id_scope,
            attach: self.attach.0.method,
            expedite: self.attach.0.expedite.unwrap_or(true),
            skb_mark,
            uses_old_mark_key,
            drops_enabled: self.drops.enabled.unwrap_or(true),
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
            api,
            api_token_file,
            ship: self.ship.check()?,
            calibration_at: self.calibration.check()?,
        })
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The node's name, its uplinks, and where its containers' ids are unique.
fn node(node: Spanned<FileNode>) -> Result<(String, Vec<String>, IdScope), Problem> {
    let span = node.span();
    let (name, uplinks, id_scope) = match node.into_inner() {
        FileNode::Name(name) => (Some((span, name)), Vec::new(), IdScope::default()),
        FileNode::Table(table) => {
            let name = table.name.map(|name| (name.span(), name.into_inner()));
            (name, table.uplinks, table.id_scope)
        }
    };
    let name = match name {
        Some((span, name)) if name.is_empty() => {
            let message = "the node's name is empty; write a name, or remove the key to use the host name";
            return Err(Problem { span, message: message.to_owned() });
        }
        Some((_, name)) => name,
        None => host_name(),
    };
    Ok((name, uplinks.into_iter().map(interface_name).collect::<Result<_, _>>()?, id_scope))
}

/// Bytes of a container's name for people, as in most platforms.
const LONGEST_CONTAINER_NAME: usize = 255;

fn interface_name(name: Spanned<String>) -> Result<String, Problem> {
    let len = name_bytes(name.get_ref()).len();
    if len == 0 || len >= traffic_common::INTERFACE_NAME_BYTES {
        let message = format!("{:?} is not an interface name; write 1 to 15 characters", name.get_ref());
        return Err(problem(&name, message));
    }
    Ok(name.into_inner())
}

/// A name for people. It is printed in one line.
fn container_name(name: Spanned<String>) -> Result<String, Problem> {
    let text = name.get_ref();
    if text.is_empty() || text.len() > LONGEST_CONTAINER_NAME || text.chars().any(char::is_control) {
        let message =
            format!("{text:?} is not a name; write 1 to {LONGEST_CONTAINER_NAME} bytes in one line");
        return Err(problem(&name, message));
    }
    Ok(name.into_inner())
}

/// A value with a unit, parsed by one of the parsers of `units`.
pub(super) fn amount<T>(
    text: &Spanned<String>,
    parse: impl FnOnce(&str) -> Result<T, InvalidAmount>,
) -> Result<T, Problem> {
    parse(text.get_ref()).map_err(|error| problem(text, error.to_string()))
}

/// Devices on an uplink are counted only where an uplink is counted.
fn refuse_missing_uplink(containers: &[FileContainer], uplinks: &[String]) -> Result<(), Problem> {
    let mut set = containers.iter().filter_map(|container| container.on_uplink.as_ref());
    match set.find(|set| *set.get_ref()).filter(|_| uplinks.is_empty()) {
        None => Ok(()),
        Some(set) => Err(problem(
            set,
            "on_uplink = true, but no uplink is named; name the interface below the container's device in `uplinks` \
             under [node]",
        )),
    }
}

/// An interface name or a hardware address belongs to one container.
fn refuse_second_owner(containers: &[FileContainer]) -> Result<(), Problem> {
    let mut owners = HashMap::new();
    for container in containers {
        for text in container.interfaces.iter().chain(&container.macs) {
            let owner = container.id.get_ref();
            // The same address in different notations is one key. An interface name of twelve hexadecimal
            // digits is taken for an address too, which does no harm.
            let key = match parse_mac(text.get_ref()) {
                Some(mac) => traffic_model::hex(&mac),
                None => text.get_ref().clone(),
            };
            if let Some(other) = owners.insert(key, owner).filter(|&other| other != owner) {
                let message = format!(
                    "{} already belongs to container {other}; name it under one container only",
                    text.get_ref()
                );
                return Err(problem(text, message));
            }
        }
    }
    Ok(())
}

impl FileIdentities {
    fn check(self) -> Result<Option<IdentityCommand>, Problem> {
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
            _ => Err(problem(
                &command,
                "the command has no absolute path; write [\"/path/to/program\", \"argument\", ...]",
            )),
        }
    }
}

impl FileLimits {
    fn check(self) -> Result<Limits, Problem> {
        let default = Limits::default();
        Ok(Limits {
            containers: limit(self.containers, default.containers, 1..=1_000_000, "containers")?,
            // One slot is reserved for interfaces without a slot of their own.
            interfaces: limit(self.interfaces, default.interfaces, 2..=1_000_000, "interfaces")?,
            classes: limit(self.classes, default.classes, 1..=traffic_common::MAX_COLUMNS, "classes")?,
            addresses: limit(self.addresses, default.addresses, 1..=16_000_000, "addresses")?,
        })
    }
}

fn limit(
    value: Option<Spanned<i128>>,
    default: u32,
    range: RangeInclusive<u32>,
    key: &str,
) -> Result<u32, Problem> {
    match value {
        None => Ok(default),
        Some(value) => match u32::try_from(*value.get_ref()) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(problem(
                &value,
                format!(
                    "{key} = {} is out of range; write {} to {}",
                    value.get_ref(),
                    range.start(),
                    range.end()
                ),
            )),
        },
    }
}

impl FileRule {
    fn check(self) -> Result<Rule, Problem> {
        let pattern = Pattern::new(self.pattern.get_ref()).map_err(|error| problem(&self.pattern, error))?;
        if self.kind == RuleKind::Container && !pattern.names_container() {
            return Err(problem(
                &self.pattern,
                "a pattern of kind \"container\" has no group `container`; add one, such as \
                 (?<container>[0-9]+), or use the kind \"mapped\" if the name does not contain the id",
            ));
        }
        if self.kind != RuleKind::Container && pattern.names_container() {
            return Err(problem(
                &self.pattern,
                "only a pattern of kind \"container\" may have a group `container`; remove the group or \
                 change the kind",
            ));
        }
        Ok(Rule { pattern, kind: self.kind })
    }
}

impl FileContainer {
    fn check(self) -> Result<ContainerConfig, Problem> {
        let id = ContainerId::of_container(self.id.get_ref())
            .map_err(|error| problem(&self.id, error.to_string()))?;
        let interfaces = self.interfaces.into_iter().map(interface_name);
        let macs = self.macs.into_iter().map(|text| {
            parse_mac(text.get_ref()).ok_or_else(|| {
                let message =
                    format!("{:?} is not a hardware address; write 00:18:51:aa:bb:cc", text.get_ref());
                problem(&text, message)
            })
        });
        let addresses = self
            .addresses
            .into_iter()
            .map(|text| parse_prefix(text.get_ref()).map_err(|error| problem(&text, error)));
        Ok(ContainerConfig {
            id,
            name: self.name.map(container_name).transpose()?,
            interfaces: interfaces.collect::<Result<_, _>>()?,
            macs: macs.collect::<Result<_, _>>()?,
            addresses: addresses.collect::<Result<_, _>>()?,
            on_uplink: self.on_uplink.is_some_and(Spanned::into_inner),
        })
    }
}

impl FileDrain {
    fn check(self) -> Result<Duration, Problem> {
        const DEFAULT: Duration = Duration::from_secs(60);
        // A power loss costs up to one interval of traffic, so no node should wait for days.
        const RANGE: DurationRange =
            DurationRange { shortest: Duration::from_millis(100), longest: Duration::from_hours(24) };
        match &self.interval {
            None => Ok(DEFAULT),
            Some(text) => amount(text, |text| RANGE.parse(text)),
        }
    }
}

impl FileLedger {
    fn check(self) -> Result<Calendar, Problem> {
        let day = match &self.billing_day {
            None => 1,
            Some(day) => {
                u8::try_from(*day.get_ref()).ok().filter(|day| (1..=31).contains(day)).ok_or_else(|| {
                    let number = day.get_ref();
                    problem(day, format!("billing_day = {number} is not a day of a month; write 1 to 31"))
                })?
            }
        };
        match &self.time_zone {
            Some(zone) => {
                // A zone whose name is gone must not keep anything from being counted. The ledger reports it.
                Calendar::new_or_unknown(zone.get_ref(), day)
                    .map_err(|error| problem(zone, error.to_string()))
            }
            // UTC always exists and the day was checked above, so this cannot fail.
            None => {
                Calendar::new("UTC", day).map_err(|error| Problem { span: 0..0, message: error.to_string() })
            }
        }
    }
}

impl FileRetention {
    fn check(self) -> Result<Retention, Problem> {
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
    fn check(self) -> Result<(Option<Listen>, Option<PathBuf>), Problem> {
        let listen = match &self.listen {
            Some(text) => Some(text.get_ref().parse().map_err(|error: String| problem(text, error))?),
            None => None,
        };
        match self.token_file {
            Some(file) if listen.is_none() => {
                Err(problem(&file, "there is no API without `listen`; set it, or remove `token_file`"))
            }
            Some(file) if !file.get_ref().is_absolute() => {
                Err(problem(&file, "the path is not absolute; write one such as \"/etc/trafctl/token\""))
            }
            file => Ok((listen, file.map(Spanned::into_inner))),
        }
    }
}
