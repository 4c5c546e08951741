//! One `[[alert]]`: its keys.

use std::time::Duration;

use toml::{Spanned, de::DeValue};

use super::{
    position, start,
    table::{Table, unknown},
};
use crate::{
    alert::{Alert, ProblemKind},
    values,
};

/// All keys of an alert, in the order of the documentation.
pub const ALERT_KEYS: [&str; 3] = ["problems", "actions", "after"];

/// How long a problem lasts before it counts: longer than a restart takes.
const USUAL_AFTER: Duration = Duration::from_mins(1);

impl Table<'_, '_> {
    /// The alert of an `[[alert]]`; `None` after any mistake.
    pub(super) fn alert(mut self) -> Option<Alert> {
        let before = self.mistakes.found.len();
        let fields = self.fields;
        for key in fields.keys().filter(|key| !ALERT_KEYS.contains(&key.get_ref().as_ref())) {
            self.mistakes.add(key.span().start, unknown(key.get_ref(), &ALERT_KEYS));
        }
        let problems = self.problems();
        let actions = self.get("actions").map(|names| self.names_of(names)).unwrap_or_default();
        if actions.is_empty() && self.mistakes.found.len() == before {
            self.mistakes.add(self.at, "the alert has no actions; add actions = [\"notify\"]".to_owned());
        }
        let after = self.text("after", values::lasting).unwrap_or(USUAL_AFTER);
        if self.mistakes.found.len() > before {
            return None;
        }
        let (line, _) = position(self.mistakes.text, self.at);
        Some(Alert { line, problems, actions, after })
    }

    /// The kinds of problems; all without the key.
    fn problems(&mut self) -> Vec<ProblemKind> {
        let all = || ProblemKind::ALL.map(|(kind, _)| kind).to_vec();
        let Some(value) = self.get("problems") else { return all() };
        let example = "write a list of kinds such as [\"drains\", \"disk\"], or remove the key for all";
        let DeValue::Array(rows) = value.get_ref() else {
            self.mistakes.add(start(value), format!("`problems` is no list; {example}"));
            return Vec::new();
        };
        if rows.is_empty() {
            self.mistakes.add(start(value), format!("`problems` is empty; {example}"));
        }
        let mut kinds = Vec::new();
        for row in rows {
            let found = match row.get_ref() {
                DeValue::String(text) => ProblemKind::of(text),
                _ => None,
            };
            match found {
                Some(kind) => kinds.push(kind),
                None => {
                    let known = ProblemKind::ALL.map(|(_, name)| name).join(", ");
                    self.mistakes.add(start(row), format!("not a kind of problems; known are {known}"));
                }
            }
        }
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// A list of names of actions, which must exist.
    pub(super) fn names_of(&mut self, names: &Spanned<DeValue<'_>>) -> Vec<String> {
        let example = "write a list of names, such as [\"notify\"]";
        let DeValue::Array(rows) = names.get_ref() else {
            self.mistakes.add(start(names), format!("these are no names of actions; {example}"));
            return Vec::new();
        };
        let mut found: Vec<String> = Vec::new();
        for row in rows {
            match row.get_ref() {
                DeValue::String(text) if found.iter().any(|known| known == text.as_ref()) => {
                    self.mistakes.add(start(row), format!("{text:?} is listed twice; remove one"));
                }
                DeValue::String(text) => {
                    self.mistakes.named_actions.push((text.to_string(), start(row)));
                    found.push(text.to_string());
                }
                _ => self.mistakes.add(start(row), format!("not the name of an action; {example}")),
            }
        }
        found
    }
}
