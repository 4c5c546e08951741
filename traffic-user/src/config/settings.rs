//! The settings in force with the place each comes from, and every mistake of a file at once: what `trafctl
//! config` prints.

use std::{collections::BTreeMap, ops::Range, path::Path};

use serde_json::{Value, json};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use traffic_model::{hex, units::format_duration};

use super::{AttachSetting, Config, ConfigError, ContainerConfig, IdentityCommand, Limits, Rule, RuleKind};

/// A setting in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Its key, such as `limits.classes` or `container[0].id`.
    pub key: String,
    /// Its value; null for a setting that is off or that the file does not name.
    pub value: Value,
    /// The line of the file that sets it; `None` for a default.
    pub line: Option<usize>,
}

/// A mistake and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMistake {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong; what to write instead.
    pub message: String,
}

/// Most mistakes that are listed. A file of something else has one in each line.
const MOST_MISTAKES: usize = 100;

impl Config {
    /// Every setting, in the order of the documentation. `text` is the file that this configuration was read
    /// from; empty for the defaults.
    pub fn settings(&self, text: &str) -> Vec<Setting> {
        let lines = lines_of(text);
        let values = self.values();
        let settings = values.into_iter().map(|(key, value)| {
            let line = lines.get(&key).copied();
            Setting { key, value, line }
        });
        settings.collect()
    }

    fn values(&self) -> Vec<(String, Value)> {
        // Taken apart, so that a new setting cannot be left out.
        let Self {
            class_file,
            class_order,
            hold_limit,
            class_names,
            delivered_classes,
            node,
            uplinks,
            id_scope,
            attach,
            expedite,
            skb_mark,
            uses_old_mark_key: _,
            drops_enabled,
            vz_conf_dir,
            limits: Limits { containers: most_containers, interfaces, classes, addresses },
            rules,
            preset,
            identity_command,
            containers,
            drain_interval,
            ledger_enabled,
            calendar,
            retention,
            api,
            api_token_file,
            ship,
            calibration_at,
        } = self;
        let method = match attach {
            AttachSetting::Auto => "auto",
            AttachSetting::Tcx => "tcx",
            AttachSetting::Clsact => "clsact",
        };
        let mut values = vec![
            ("class_file".to_owned(), json!(class_file)),
            ("class_order".to_owned(), json!(class_order.to_string())),
            ("classes.hold_if_removed".to_owned(), json!(format!("{}%", hold_limit.percent))),
        ];
        values
            .extend(class_names.iter().map(|(class, name)| (format!("classes.names.{class}"), json!(name))));
        let bill = |class: &u8| (format!("classes.bill.{class}"), json!("delivered"));
        values.extend(delivered_classes.iter().map(bill));
        let IdentityCommand { words, timeout } = identity_command
            .clone()
            .unwrap_or_else(|| IdentityCommand { words: Vec::new(), ..DEFAULT_COMMAND });
        let command = (!words.is_empty()).then_some(words);
        let single: [(&str, Value); 21] = [
            ("node.name", json!(node)),
            ("node.uplinks", json!(uplinks)),
            ("node.id_scope", json!(id_scope.name())),
            ("attach.method", json!(method)),
            ("attach.expedite", json!(expedite)),
            ("shaping.enabled", json!(skb_mark)),
            ("drops.enabled", json!(drops_enabled)),
            ("vz_conf_dir", json!(vz_conf_dir)),
            ("limits.containers", json!(most_containers)),
            ("limits.interfaces", json!(interfaces)),
            ("limits.classes", json!(classes)),
            ("limits.addresses", json!(addresses)),
            ("host.preset", json!(preset.name())),
            ("identities.command", json!(command)),
            ("identities.timeout", json!(format_duration(timeout))),
            ("drain.interval", json!(format_duration(*drain_interval))),
            ("ledger.enabled", json!(ledger_enabled)),
            ("ledger.time_zone", json!(calendar.zone_name())),
            ("ledger.billing_day", json!(calendar.billing_day())),
            ("retention.five_minutes", json!(format!("{}d", retention.five_minutes_days))),
            ("retention.hours", json!(format!("{} months", retention.hours_months))),
        ];
        values.extend(single.map(|(key, value)| (key.to_owned(), value)));
        values.push(("api.listen".to_owned(), json!(api.as_ref().map(ToString::to_string))));
        values.push(("api.token_file".to_owned(), json!(api_token_file)));
        values.extend(ship.values());
        let at = calibration_at.map(|at| at.strftime("%H:%M").to_string());
        values.push(("calibration.at".to_owned(), json!(at)));
        values.extend(rules.iter().enumerate().flat_map(rule));
        values.extend(containers.iter().enumerate().flat_map(container));
        values
    }
}

/// What `[identities]` means without a command.
const DEFAULT_COMMAND: IdentityCommand =
    IdentityCommand { words: Vec::new(), timeout: std::time::Duration::from_secs(5) };

fn rule((at, Rule { pattern, kind }): (usize, &Rule)) -> [(String, Value); 2] {
    let kind = match kind {
        RuleKind::Container => "container",
        RuleKind::Mapped => "mapped",
        RuleKind::Shared => "shared",
        RuleKind::Ignore => "ignore",
    };
    let key = |name: &str| format!("interfaces.rule[{at}].{name}");
    [(key("pattern"), json!(pattern.as_written())), (key("kind"), json!(kind))]
}

fn container((at, container): (usize, &ContainerConfig)) -> Vec<(String, Value)> {
    let ContainerConfig { id, name, interfaces, macs, addresses, on_uplink } = container;
    let macs: Vec<String> =
        macs.iter().map(|mac| mac.iter().map(|byte| hex(&[*byte])).collect::<Vec<_>>().join(":")).collect();
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let lists = [("interfaces", json!(interfaces)), ("macs", json!(macs)), ("addresses", json!(addresses))];
    let key = |name: &str| format!("container[{at}].{name}");
    let mut values = vec![(key("id"), json!(id.as_str()))];
    values.extend(name.iter().map(|name| (key("name"), json!(name))));
    values.extend(
        lists
            .into_iter()
            .filter(|(_, list)| list.as_array().is_some_and(|list| !list.is_empty()))
            .map(|(name, list)| (key(name), list)),
    );
    values.extend(on_uplink.then(|| (key("on_uplink"), json!(true))));
    values
}

/// The line of each key of a text, under the names that [`Config::values`] gives them.
fn lines_of(text: &str) -> BTreeMap<String, usize> {
    let mut places = Vec::new();
    if let Ok(document) = DeTable::parse(text) {
        walk(document.get_ref(), "", &mut places);
    }
    places
        .into_iter()
        .map(|place| {
            let key = match place.key.as_str() {
                // The short forms, and the former name.
                "node" => "node.name".to_owned(),
                "attach" => "attach.method".to_owned(),
                "mark.enabled" => "shaping.enabled".to_owned(),
                _ => place.key,
            };
            (key, position(text, place.span.start).0)
        })
        .collect()
}

/// A key with a value, and where both are.
struct Place {
    key: String,
    span: Range<usize>,
}

fn walk(table: &DeTable<'_>, prefix: &str, places: &mut Vec<Place>) {
    for (key, value) in table {
        let path = match prefix {
            "" => key.get_ref().to_string(),
            _ => format!("{prefix}.{}", key.get_ref()),
        };
        match value.get_ref() {
            DeValue::Table(inner) => walk(inner, &path, places),
            DeValue::Array(rows) if !rows.is_empty() && rows.iter().all(|row| row.get_ref().is_table()) => {
                for (at, row) in rows.iter().map(Spanned::get_ref).enumerate() {
                    if let DeValue::Table(inner) = row {
                        walk(inner, &format!("{path}[{at}]"), places);
                    }
                }
            }
            _ => places.push(Place { key: path, span: key.span().start..value.span().end }),
        }
    }
}

/// Line and column of a byte of a text, from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

/// Every mistake in a text, in the order of lines. After each one the key that has it is left out, and the rest
/// is read again.
pub fn mistakes(text: &str) -> Vec<FileMistake> {
    let mut rest = text.to_owned();
    let mut found: Vec<FileMistake> = Vec::new();
    while found.len() < MOST_MISTAKES {
        let Err(ConfigError::Invalid { line, column, message, .. }) = Config::parse(&rest, Path::new(""))
        else {
            break;
        };
        // Of a table whose key was left out for its own mistake, it is not missing.
        let lines = |table: Range<usize>| position(text, table.start).0..=position(text, table.end).0;
        let is_own = message.starts_with("missing field")
            && table_at(text, line)
                .map(lines)
                .is_some_and(|lines| found.iter().any(|before| lines.contains(&before.line)));
        if !is_own {
            found.push(FileMistake { line, column, message: with_suggestion(message) });
        }
        let Some(next) = without(&rest, (line, column)) else { break };
        rest = next;
    }
    found.sort_by_key(|mistake| (mistake.line, mistake.column));
    found
}

/// The text without the key or the table at a place; `None` if that is not found, as in a text that is not
/// TOML. Lines keep their numbers.
fn without(text: &str, place: (usize, usize)) -> Option<String> {
    let document = DeTable::parse(text).ok()?;
    let mut places = Vec::new();
    walk(document.get_ref(), "", &mut places);
    let at = |span: &Range<usize>| (position(text, span.start), position(text, span.end));
    let holds = |(from, to): ((usize, usize), (usize, usize))| from <= place && place < to;
    let span = match places.iter().map(|place| &place.span).find(|span| holds(at(span))) {
        Some(span) => span.clone(),
        None => table_at(text, place.0)?,
    };
    let blanked = text[span.clone()].replace(|character| character != '\n', " ");
    Some(format!("{}{blanked}{}", &text[..span.start], &text[span.end..]))
}

/// The table whose header is on a line: up to the next header.
fn table_at(text: &str, line: usize) -> Option<Range<usize>> {
    let mut start = None;
    let mut offset = 0;
    for (at, content) in text.split_inclusive('\n').enumerate() {
        let is_header = content.trim_start().starts_with('[');
        match start {
            None if at + 1 == line && is_header => start = Some(offset),
            Some(start) if is_header => return Some(start..offset),
            _ => {}
        }
        offset += content.len();
    }
    start.map(|start| start..text.len())
}

/// Adds the known key that an unknown one is most like.
fn with_suggestion(message: String) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (true, Some(wrong)) = (message.starts_with("unknown field"), quoted.next()) else { return message };
    let nearest = quoted.map(|known| (strsim::damerau_levenshtein(wrong, known), known)).min();
    match nearest.filter(|&(distance, _)| distance <= 1 + wrong.len() / 4) {
        Some((_, known)) => format!("unknown key `{wrong}`; write `{known}`"),
        None => message.replacen("unknown field", "unknown key", 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "\
node = { name = 'n7', uplinks = ['eno1'] }
attach = 'tcx'
class_order = 'longest-prefix'
[classes.names]
2 = 'UA-IX'
[mark]
enabled = true
[limits]
classes = 20   # more
[[interfaces.rule]]
pattern = 'x.*'
kind = 'ignore'
[[interfaces.rule]]
kind = 'mapped'
pattern = 'y.*'
[[container]]
id = '101'
name = 'shop of Meier'
macs = ['00:18:51:aa:bb:cc']
addresses = [
  '10.0.0.1',
]
on_uplink = true
[drain]
interval = '90s'
[api]
listen = '127.0.0.1:9177'
token_file = '/etc/trafctl/token'
";

    #[test]
    fn each_setting_has_its_value_and_its_line() {
        let config = Config::parse(FULL, Path::new("t.toml")).unwrap();
        let settings = config.settings(FULL);
        let of = |key: &str| {
            let setting =
                settings.iter().find(|setting| setting.key == key).unwrap_or_else(|| panic!("{key}"));
            (setting.value.clone(), setting.line)
        };
        for (key, value, line) in [
            ("node.name", json!("n7"), Some(1)),
            ("attach.method", json!("tcx"), Some(2)),
            ("class_order", json!("longest-prefix"), Some(3)),
            ("classes.names.2", json!("UA-IX"), Some(5)),
            ("shaping.enabled", json!(true), Some(7)),
            ("limits.classes", json!(20), Some(9)),
            ("limits.containers", json!(2048), None),
            ("interfaces.rule[0].kind", json!("ignore"), Some(12)),
            ("interfaces.rule[1].kind", json!("mapped"), Some(14)),
            ("interfaces.rule[1].pattern", json!("y.*"), Some(15)),
            ("container[0].id", json!("101"), Some(17)),
            ("container[0].name", json!("shop of Meier"), Some(18)),
            ("container[0].macs", json!(["00:18:51:aa:bb:cc"]), Some(19)),
            ("container[0].addresses", json!(["10.0.0.1/32"]), Some(20)),
            ("container[0].on_uplink", json!(true), Some(23)),
            ("drain.interval", json!("1m 30s"), Some(25)),
            ("api.listen", json!("127.0.0.1:9177"), Some(27)),
            ("api.token_file", json!("/etc/trafctl/token"), Some(28)),
            ("identities.command", Value::Null, None),
            ("identities.timeout", json!("5s"), None),
            ("classes.hold_if_removed", json!("20%"), None),
            ("retention.hours", json!("13 months"), None),
        ] {
            assert_eq!(of(key), (value, line), "{key}");
        }
        // Every key of the file has a setting.
        let keys = lines_of(FULL);
        assert!(keys.len() >= 15, "{keys:?}");
        for key in keys.keys() {
            of(key);
        }
    }

    #[test]
    fn the_values_are_those_that_the_file_would_have() {
        // What is printed for the defaults, written into a file, changes nothing.
        let defaults = Config::parse("", Path::new("t.toml")).unwrap();
        let settings = defaults.settings("");
        assert!(settings.iter().all(|setting| setting.line.is_none()));
        let text: String = settings
            .iter()
            .filter(|setting| !setting.value.is_null())
            .map(|setting| format!("{} = {}\n", setting.key, setting.value))
            .collect();
        assert_eq!(Config::parse(&text, Path::new("t.toml")).unwrap(), defaults, "{text}");
    }

    #[test]
    fn every_mistake_is_found_at_once() {
        let text = "\
clas_file = '/x'
class_order = 'longest'
[limits]
classes = 0
clases = 7
[nonsense]
a = 1
b = 2
[drain]
interval = '1 parsec'
[[container]]
id = '101'
[[interfaces.rule]]
pattern = '('
kind = 'ignore'
";
        let found = mistakes(text);
        let places: Vec<_> = found.iter().map(|mistake| (mistake.line, mistake.column)).collect();
        assert_eq!(places, [(1, 1), (2, 15), (4, 11), (5, 1), (6, 2), (10, 12), (14, 11)], "{found:#?}");
        assert_eq!(found[0].message, "unknown key `clas_file`; write `class_file`");
        assert_eq!(found[3].message, "unknown key `clases`; write `classes`");
        assert!(found[4].message.starts_with("unknown key `nonsense`, expected one of "), "{found:#?}");
        assert_eq!(mistakes(FULL), []);
        assert_eq!(mistakes(""), []);
        // What is no TOML has one mistake.
        assert_eq!(mistakes("[a\nb = 1\nc c\n").len(), 1);
        assert_eq!(mistakes(&"x1 = 1\n".repeat(2)).len(), 1, "a key twice");
        let many: String = (0..500).map(|n| format!("x{n} = 1\n")).collect();
        assert_eq!(mistakes(&many).len(), MOST_MISTAKES);
    }
}
