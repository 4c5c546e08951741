//! `quotas.toml`: its tables and keys, every one of them checked. A file with any mistake yields no quota at
//! all, and all its mistakes with their lines.

mod action;
mod alert;
mod table;
mod tenant;

use std::collections::BTreeMap;

use serde::Serialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use self::table::Table;
pub use self::{action::ACTION_KEYS, alert::ALERT_KEYS, table::KEYS, tenant::TENANT_KEYS};
use crate::{action::Action, alert::Alert, quota::Quota, scope::Scope, tenant::Assignment};

/// All quotas of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quotas {
    /// In the order of the file.
    pub quotas: Vec<Quota>,
    /// In the order of the file.
    pub actions: Vec<Action>,
    /// In the order of the file.
    pub alerts: Vec<Alert>,
    /// In the order of the file.
    pub tenants: Vec<Assignment>,
}

/// A mistake and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

/// Where the mistakes of a text are collected.
struct Mistakes<'t> {
    text: &'t str,
    found: Vec<FileMistake>,
    /// The names of actions that quotas have, with their places.
    named_actions: Vec<(String, usize)>,
}

impl Mistakes<'_> {
    fn add(&mut self, at: usize, message: String) {
        let (line, column) = position(self.text, at);
        self.found.push(FileMistake { line, column, message });
    }
}

/// Line and column of a byte of a text, from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

/// The line of a byte of a text, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    position(text, at).0
}

impl Quotas {
    /// Reads a text.
    ///
    /// # Errors
    /// Every mistake in it, in the order of lines; at most a hundred.
    pub fn parse(text: &str) -> Result<Self, Vec<FileMistake>> {
        let mut mistakes = Mistakes { text, found: Vec::new(), named_actions: Vec::new() };
        let read = match DeTable::parse(text) {
            Ok(document) => read(document.get_ref(), &mut mistakes),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                mistakes.add(at, error.message().replace('\n', " "));
                Self::default()
            }
        };
        refuse_twice(&read, &mut mistakes);
        if mistakes.found.is_empty() {
            return Ok(read);
        }
        mistakes.found.sort_by_key(|mistake| (mistake.line, mistake.column));
        mistakes.found.truncate(MOST_MISTAKES);
        Err(mistakes.found)
    }
}

/// The tables of the file.
const TABLES: [&str; 4] = ["quota", "action", "alert", "tenant"];

fn read(document: &DeTable<'_>, mistakes: &mut Mistakes<'_>) -> Quotas {
    let mut found = Quotas::default();
    for (key, value) in document {
        let table = key.get_ref().as_ref();
        if !TABLES.contains(&table) {
            mistakes.add(key.span().start, table::unknown(table, &TABLES));
            continue;
        }
        let not_tables = format!("write each {table} as a table that begins with [[{table}]]");
        let DeValue::Array(rows) = value.get_ref() else {
            mistakes.add(key.span().start, format!("`{table}` is not a list of tables; {not_tables}"));
            continue;
        };
        for row in rows {
            match row.get_ref() {
                DeValue::Table(fields) => {
                    let row = Table::new(fields, row.span().start, mistakes);
                    match table {
                        "quota" => found.quotas.extend(row.quota()),
                        "action" => found.actions.extend(row.action()),
                        "alert" => found.alerts.extend(row.alert()),
                        _ => found.tenants.extend(row.tenant()),
                    }
                }
                _ => mistakes.add(row.span().start, format!("this {table} is no table; {not_tables}")),
            }
        }
    }
    found.quotas.sort_by_key(|quota| quota.line);
    found.actions.sort_by_key(|action| action.line);
    found.alerts.sort_by_key(|alert| alert.line);
    found.tenants.sort_by_key(|tenant| tenant.line);
    found
}

/// Two quotas of one name for the same containers: which one would count?
fn refuse_twice(file: &Quotas, mistakes: &mut Mistakes<'_>) {
    refuse_unknown_actions(&file.actions, mistakes);
    tenant::refuse_unfit(file, mistakes);
    let quotas = &file.quotas;
    let mut lines: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for quota in quotas {
        let key = (quota.name.as_str(), quota.scope.text());
        if let Some(first) = lines.get(&key) {
            mistakes.found.push(FileMistake {
                line: quota.line,
                column: 1,
                message: format!(
                    "quota {:?} for {} is on line {first} already; remove one of them, or give one \
                     another name",
                    quota.name,
                    match quota.scope {
                        Scope::Default => "all others".to_owned(),
                        _ => key.1.clone(),
                    }
                ),
            });
        } else {
            lines.insert(key, quota.line);
        }
    }
}

/// An action has one name, and a quota has only actions that the file has.
fn refuse_unknown_actions(actions: &[Action], mistakes: &mut Mistakes<'_>) {
    for (at, action) in actions.iter().enumerate() {
        if let Some(first) = actions[..at].iter().find(|first| first.name == action.name) {
            let message = format!(
                "action {:?} is on line {} already; remove one of them, or give one another name",
                action.name, first.line
            );
            mistakes.found.push(FileMistake { line: action.line, column: 1, message });
        }
    }
    for (name, at) in std::mem::take(&mut mistakes.named_actions) {
        // An action with a mistake is one, and its mistake is listed.
        if actions.iter().all(|action| action.name != name) && mistakes.found.is_empty() {
            let message = format!("no action is named {name:?}; add one that begins with [[action]]");
            mistakes.add(at, message);
        }
    }
}

/// The place of a value.
fn start<T>(value: &Spanned<T>) -> usize {
    value.span().start
}

#[cfg(test)]
#[path = "file_tests.rs"]
pub(crate) mod tests;
