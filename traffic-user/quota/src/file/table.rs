//! One `[[quota]]`: its keys, and how they fit each other.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use traffic_model::ContainerId;

use super::{Mistakes, position, start};
use crate::{
    period::{self, Period, PeriodKind},
    quota::{Direction, FirstPeriod, Limit, Quota},
    scope::Scope,
    values,
};

/// All keys of a quota, in the order of the documentation.
pub const KEYS: [&str; 17] = [
    "name",
    "container",
    "tenant",
    "pattern",
    "default",
    "allowance",
    "commit",
    "percentile",
    "unlimited",
    "direction",
    "classes",
    "period",
    "billing_day",
    "time_zone",
    "first_period",
    "thresholds",
    "actions",
];

/// The highest class.
const HIGHEST_CLASS: u8 = 254;
/// The percentile of a commit that names none.
const USUAL_PERCENTILE: f64 = 95.0;
/// The thresholds of a quota that names none, in percent.
const USUAL_THRESHOLDS: [u16; 2] = [80, 100];

/// A quota as written.
pub(super) struct Table<'a, 't> {
    pub(super) fields: &'a DeTable<'a>,
    pub(super) at: usize,
    pub(super) mistakes: &'a mut Mistakes<'t>,
}

/// A message about an unknown key, with the known one that it is most like.
pub(super) fn unknown(key: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|known| (strsim::damerau_levenshtein(key, known), known)).min();
    match nearest.filter(|&(distance, _)| distance <= 1 + key.len() / 4) {
        Some((_, known)) => format!("unknown key `{key}`; write `{known}`"),
        None => format!("unknown key `{key}`; known are {}", known.join(", ")),
    }
}

impl<'a, 't> Table<'a, 't> {
    pub fn new(fields: &'a DeTable<'a>, at: usize, mistakes: &'a mut Mistakes<'t>) -> Self {
        Self { fields, at, mistakes }
    }

    /// The quota; `None` after any mistake.
    pub fn quota(mut self) -> Option<Quota> {
        let before = self.mistakes.found.len();
        let fields = self.fields;
        for key in fields.keys().filter(|key| !KEYS.contains(&key.get_ref().as_ref())) {
            self.mistakes.add(key.span().start, unknown(key.get_ref(), &KEYS));
        }
        let name = self.text("name", values::name);
        if name.is_none() && !self.has("name") {
            self.mistakes.add(self.at, "the quota has no name; add name = \"traffic\"".to_owned());
        }
        let scope = self.scope();
        let limit = self.limit();
        let is_rate = matches!(limit, Some(Limit::Rate { .. }));
        let usual = if is_rate { Direction::Larger } else { Direction::Sum };
        let direction = self.text("direction", values::direction).unwrap_or(usual);
        let classes = self.classes();
        if is_rate && classes.len() > 1 && classes.contains(&0) {
            let at = self.place("classes");
            let message = "class 0 is ranked by itself; write a commit of its own for it";
            self.mistakes.add(at, message.to_owned());
        }
        let period = self.period();
        let first_period = self.first_period(is_rate, period.kind);
        if matches!(scope, Some(Scope::Tenant(_))) {
            self.refuse_of_tenant(is_rate, first_period);
        }
        let thresholds = self.thresholds();
        let actions = self.actions(&thresholds);
        if self.mistakes.found.len() > before {
            return None;
        }
        let (line, _) = position(self.mistakes.text, self.at);
        Some(Quota {
            name: name?,
            line,
            scope: scope?,
            limit: limit?,
            direction,
            classes,
            period,
            first_period,
            thresholds,
            actions,
        })
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.fields.get(key)
    }

    /// Where a key's value is, or else the table.
    pub(super) fn place(&self, key: &str) -> usize {
        self.get(key).map_or(self.at, start)
    }

    /// A text, parsed; `None` where the key is missing or wrong.
    pub(super) fn text<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.get(key)?;
        let parsed = match value.get_ref() {
            DeValue::String(text) => parse(text),
            _ => Err(format!("the value of `{key}` is not a text; put it in quotes")),
        };
        parsed.map_err(|message| self.mistakes.add(start(value), message)).ok()
    }

    /// A whole number within a range.
    fn number(&mut self, key: &str, range: std::ops::RangeInclusive<u8>) -> Option<u8> {
        let value = self.get(key)?;
        let found = number_of(value.get_ref()).filter(|number| range.contains(number));
        if found.is_none() {
            let message =
                format!("`{key}` is not a number within {} to {}; write one", range.start(), range.end());
            self.mistakes.add(start(value), message);
        }
        found
    }

    /// A key that can only be true.
    fn is_true(&mut self, key: &str) -> bool {
        let Some(value) = self.get(key) else { return false };
        let is_true = matches!(value.get_ref(), DeValue::Boolean(true));
        if !is_true {
            self.mistakes.add(start(value), format!("`{key}` can only be true; remove the key otherwise"));
        }
        is_true
    }

    /// Exactly one of some keys.
    fn only(&mut self, keys: &[&'static str], what: &str) -> Option<&'static str> {
        let present: Vec<&'static str> = keys.iter().copied().filter(|key| self.has(key)).collect();
        let all = keys.join(", ");
        match present[..] {
            [only] => return Some(only),
            [] => self.mistakes.add(self.at, format!("the quota has no {what}; write one of {all}")),
            [_, second, ..] => {
                let at = self.place(second);
                self.mistakes.add(
                    at,
                    format!("{what} is given twice, by {}; keep one of them", present.join(" and ")),
                );
            }
        }
        None
    }

    fn scope(&mut self) -> Option<Scope> {
        match self.only(&["container", "tenant", "pattern", "default"], "scope")? {
            "container" => {
                let parse = |text: &str| ContainerId::new(text).map_err(|error| error.to_string());
                self.text("container", parse).map(|id| Scope::Container(id.to_string()))
            }
            "tenant" => self.text("tenant", values::name).map(Scope::Tenant),
            "pattern" => self.text("pattern", values::pattern).map(Scope::Pattern),
            _ => self.is_true("default").then_some(Scope::Default),
        }
    }

    /// What several containers together cannot have.
    fn refuse_of_tenant(&mut self, is_rate: bool, first_period: FirstPeriod) {
        if is_rate {
            let at = self.place("commit");
            let message = "a tenant has an allowance; write a commit for each container";
            self.mistakes.add(at, message.to_owned());
        }
        if first_period == FirstPeriod::Share {
            let at = self.place("first_period");
            self.mistakes.add(at, "a tenant has no first period; remove `first_period`".to_owned());
        }
    }

    fn limit(&mut self) -> Option<Limit> {
        let kind = self.only(&["allowance", "commit", "unlimited"], "limit");
        let percentile = self.percentile();
        if kind.is_some_and(|kind| kind != "commit") && self.has("percentile") {
            let at = self.place("percentile");
            self.mistakes.add(at, "`percentile` belongs to a commit; remove it".to_owned());
        }
        match kind? {
            "allowance" => self.text("allowance", values::allowance),
            "commit" => {
                let bits_per_s = self.text("commit", values::rate)?;
                Some(Limit::Rate { bits_per_s, percentile: percentile? })
            }
            _ => self.is_true("unlimited").then_some(Limit::Unlimited),
        }
    }

    fn percentile(&mut self) -> Option<f64> {
        let Some(value) = self.get("percentile") else { return Some(USUAL_PERCENTILE) };
        let number = match value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse::<f64>().ok(),
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            _ => None,
        };
        let found = number.filter(|percent| *percent > 0.0 && *percent <= 100.0);
        if found.is_none() {
            let message = "`percentile` is not above 0 and at most 100; write a number such as 95";
            self.mistakes.add(start(value), message.to_owned());
        }
        found
    }

    fn classes(&mut self) -> Vec<u8> {
        let Some(value) = self.get("classes") else { return Vec::new() };
        let example = "write class numbers such as [1, 2], or remove the key for all that are billed";
        let DeValue::Array(rows) = value.get_ref() else {
            self.mistakes.add(start(value), format!("`classes` is no list; {example}"));
            return Vec::new();
        };
        if rows.is_empty() {
            self.mistakes.add(start(value), format!("`classes` is empty, so nothing would count; {example}"));
        }
        let mut classes = Vec::new();
        for row in rows {
            match number_of(row.get_ref()).filter(|class| *class <= HIGHEST_CLASS) {
                Some(class) if classes.contains(&class) => {
                    self.mistakes.add(start(row), format!("class {class} is listed twice; remove one"));
                }
                Some(class) => classes.push(class),
                None => {
                    self.mistakes.add(start(row), format!("not a class of 0 to {HIGHEST_CLASS}; {example}"));
                }
            }
        }
        classes.sort_unstable();
        classes
    }

    fn period(&mut self) -> Period {
        let mut kind = self.text("period", values::period).unwrap_or(PeriodKind::Month(None));
        let billing_day = self.number("billing_day", 1..=31);
        match &mut kind {
            PeriodKind::Month(day) => *day = billing_day,
            _ if self.has("billing_day") => {
                let at = self.place("billing_day");
                self.mistakes.add(at, "only a month has a billing day; remove `billing_day`".to_owned());
            }
            _ => {}
        }
        let zone = self.text("time_zone", |name| match period::zone_of(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(wrong) => Err(wrong.0),
        });
        Period { kind, zone }
    }

    fn first_period(&mut self, is_rate: bool, kind: PeriodKind) -> FirstPeriod {
        let parse = |text: &str| match text {
            "whole" => Ok(FirstPeriod::Whole),
            "share" => Ok(FirstPeriod::Share),
            _ => Err(format!("{text:?} is unknown; write \"whole\" or \"share\"")),
        };
        let first_period = self.text("first_period", parse).unwrap_or_default();
        if first_period == FirstPeriod::Share && (is_rate || matches!(kind, PeriodKind::Days(_))) {
            let at = self.place("first_period");
            let message = "only an allowance for a month, a week or a day has a share; write \"whole\"";
            self.mistakes.add(at, message.to_owned());
        }
        first_period
    }

    /// The names of actions by threshold, with their places.
    fn actions(&mut self, thresholds: &[u16]) -> Vec<(u16, Vec<String>)> {
        let Some(value) = self.get("actions") else { return Vec::new() };
        let example = "write the names of actions by threshold, such as { \"100%\" = [\"notify\"] }";
        let DeValue::Table(rows) = value.get_ref() else {
            self.mistakes.add(start(value), format!("`actions` is no table; {example}"));
            return Vec::new();
        };
        let mut actions = Vec::new();
        for (key, names) in rows {
            let percent = values::percent(key.get_ref()).and_then(|percent| {
                let message = format!("{percent}% is no threshold of this quota; add it to `thresholds`");
                thresholds.contains(&percent).then_some(percent).ok_or(message)
            });
            let percent = match percent {
                Ok(percent) => percent,
                Err(message) => {
                    self.mistakes.add(key.span().start, message);
                    continue;
                }
            };
            let of_percent = self.names_of(names);
            actions.push((percent, of_percent));
        }
        actions.sort_unstable();
        actions
    }

    fn thresholds(&mut self) -> Vec<u16> {
        let Some(value) = self.get("thresholds") else { return USUAL_THRESHOLDS.to_vec() };
        let example = "write percents such as [\"80%\", \"100%\"]";
        let DeValue::Array(rows) = value.get_ref() else {
            self.mistakes.add(start(value), format!("`thresholds` is no list; {example}"));
            return Vec::new();
        };
        let mut thresholds = Vec::new();
        for row in rows {
            let parsed = match row.get_ref() {
                DeValue::String(text) => values::percent(text),
                _ => Err(format!("a threshold is not a text; {example}")),
            };
            match parsed {
                Ok(percent) if thresholds.contains(&percent) => {
                    self.mistakes.add(start(row), format!("{percent}% is listed twice; remove one"));
                }
                Ok(percent) => thresholds.push(percent),
                Err(message) => self.mistakes.add(start(row), message),
            }
        }
        thresholds.sort_unstable();
        thresholds
    }
}

fn number_of(value: &DeValue<'_>) -> Option<u8> {
    let DeValue::Integer(number) = value else { return None };
    u8::from_str_radix(number.as_str(), number.radix()).ok()
}
