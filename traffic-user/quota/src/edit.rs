//! Changes a file with quotas as a person would: comments, order and all other quotas stay as they are.
//!
//! The changed text is read again, and must have the same quotas but for the one that was asked for.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::{
    action::Action,
    alert::Alert,
    file::{FileMistake, KEYS, Quotas, line_of},
    quota::Quota,
    scope::Scope,
};

/// What to set: the quota by its name and scope, and the values of keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The quota's name.
    pub name: String,
    /// Whom it is for.
    pub scope: Scope,
    /// Keys of [`KEYS`] with values as the file has them, such as `"1TB"` in quotes or `[1, 2]`.
    pub values: Vec<(&'static str, String)>,
}

/// Why a text was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotChanged {
    /// The file has mistakes already.
    Mistakes(Vec<FileMistake>),
    /// What was asked for would be a mistake.
    Refused(String),
    /// The file has no such quota.
    Missing,
    /// The quota is written in a form that is not changed here.
    Form,
}

/// Keys of which a quota has one.
const LIMITS: [&str; 3] = ["allowance", "commit", "unlimited"];

/// A text as a value of the file, in quotes.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Sets values of a quota, which is added at the end if the file has none of this name and scope. Returns the
/// new text.
///
/// # Errors
/// See [`NotChanged`]. The old text is still good then.
pub fn set(text: &str, change: &Change) -> Result<String, NotChanged> {
    let old = Quotas::parse(text).map_err(NotChanged::Mistakes)?;
    let found = old.quotas.iter().position(|quota| quota.name == change.name && quota.scope == change.scope);
    let new_text = match found {
        Some(at) => changed(text, &old.quotas[at], &change.values)?,
        None => added(text, change),
    };
    let new = Quotas::parse(&new_text).map_err(|mistakes| NotChanged::Refused(first(&mistakes)))?;
    let number = old.quotas.len() + usize::from(found.is_none());
    let is_whole = new.quotas.len() == number
        && same_but(&old.quotas, &new.quotas, found)
        && same_others((&old.actions, &old.alerts), (&new.actions, &new.alerts));
    if is_whole { Ok(new_text) } else { Err(NotChanged::Form) }
}

/// Removes a quota. Returns the new text, and what was removed.
///
/// # Errors
/// See [`NotChanged`].
pub fn remove(text: &str, name: &str, scope: &Scope) -> Result<(String, String), NotChanged> {
    let old = Quotas::parse(text).map_err(NotChanged::Mistakes)?;
    let found = old.quotas.iter().position(|quota| quota.name == name && quota.scope == *scope);
    let at = found.ok_or(NotChanged::Missing)?;
    let table = Places::of(text, &old.quotas[at])?.table;
    let removed = text[table.clone()].to_owned();
    let mut new_text = text.to_owned();
    new_text.replace_range(table, "");
    let new = Quotas::parse(&new_text).map_err(|_| NotChanged::Form)?;
    let mut expected = old.quotas;
    expected.remove(at);
    let is_whole = new.quotas.len() == expected.len()
        && same_but(&expected, &new.quotas, None)
        && same_others((&old.actions, &old.alerts), (&new.actions, &new.alerts));
    if is_whole { Ok((new_text, removed)) } else { Err(NotChanged::Form) }
}

fn first(mistakes: &[FileMistake]) -> String {
    mistakes.first().map(|mistake| mistake.message.clone()).unwrap_or_default()
}

/// Whether two lists have the same quotas, whatever their lines, except for one.
fn same_but(old: &[Quota], new: &[Quota], except: Option<usize>) -> bool {
    let without_line = |quota: &Quota| Quota { line: 0, ..quota.clone() };
    let mut pairs = old.iter().zip(new).enumerate();
    pairs.all(|(at, (old, new))| except == Some(at) || without_line(old) == without_line(new))
}

/// What a file has besides quotas.
type Others<'o> = (&'o [Action], &'o [Alert]);

/// Whether two files have the same actions and alerts, whatever their lines.
fn same_others(old: Others<'_>, new: Others<'_>) -> bool {
    let action = |action: &Action| Action { line: 0, ..action.clone() };
    let alert = |alert: &Alert| Alert { line: 0, ..alert.clone() };
    old.0.iter().map(action).eq(new.0.iter().map(action))
        && old.1.iter().map(alert).eq(new.1.iter().map(alert))
}

/// Where the parts of a quota are in the text.
struct Places {
    /// From its header to its last key, with the rest of that line.
    table: Range<usize>,
    /// Each key with its place, from the key to the end of the value, and that of the value.
    keys: Vec<(String, Range<usize>, Range<usize>)>,
}

impl Places {
    fn of(text: &str, quota: &Quota) -> Result<Self, NotChanged> {
        let document = DeTable::parse(text).map_err(|_| NotChanged::Form)?;
        let Some(DeValue::Array(rows)) = document.get_ref().get("quota").map(toml::Spanned::get_ref) else {
            return Err(NotChanged::Form);
        };
        let row = rows.iter().find(|row| line_of(text, row.span().start) == quota.line);
        let row = row.ok_or(NotChanged::Form)?;
        let DeValue::Table(fields) = row.get_ref() else { return Err(NotChanged::Form) };
        let start = row.span().start;
        if !text[start..].starts_with("[[") {
            return Err(NotChanged::Form);
        }
        let keys: Vec<_> = fields
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), key.span().start..value.span().end, value.span()))
            .collect();
        let last = keys.iter().map(|(_, place, _)| place.end).max().unwrap_or(start);
        Ok(Self { table: start..end_of_line(text, last), keys })
    }
}

/// The begin of the line after a place.
fn end_of_line(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}

fn start_of_line(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

fn changed(text: &str, quota: &Quota, values: &[(&'static str, String)]) -> Result<String, NotChanged> {
    let places = Places::of(text, quota)?;
    let find = |wanted: &str| places.keys.iter().find(|(key, ..)| key == wanted);
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut lines = String::new();
    for (key, value) in values {
        match find(key) {
            Some((_, _, place)) => edits.push((place.clone(), value.clone())),
            None => lines += &format!("{key} = {value}\n"),
        }
    }
    for key in out_of_place(values) {
        if let Some((_, place, _)) = find(key) {
            edits.push((start_of_line(text, place.start)..end_of_line(text, place.end), String::new()));
        }
    }
    if !lines.is_empty() {
        let end = places.table.end;
        let newline = if text[..end].ends_with('\n') { "" } else { "\n" };
        edits.push((end..end, format!("{newline}{lines}")));
    }
    // From the end, so that no edit moves another. Nothing is inserted into what is removed.
    edits.sort_by_key(|(place, _)| (place.start, place.end));
    let mut new_text = text.to_owned();
    for (place, value) in edits.into_iter().rev() {
        new_text.replace_range(place, &value);
    }
    Ok(new_text)
}

/// Keys that cannot stay beside what is set.
fn out_of_place(values: &[(&'static str, String)]) -> Vec<&'static str> {
    let is_set = |key: &str| values.iter().any(|(set, _)| *set == key);
    let mut out = Vec::new();
    if LIMITS.iter().any(|key| is_set(key)) {
        out.extend(LIMITS.iter().filter(|key| !is_set(key)));
        if !is_set("commit") {
            out.push("percentile");
        }
    }
    if values.iter().any(|(key, value)| *key == "period" && value != "\"month\"") {
        out.push("billing_day");
    }
    out.retain(|key| !is_set(key));
    out
}

fn added(text: &str, change: &Change) -> String {
    let mut new_text = text.to_owned();
    if !new_text.is_empty() {
        if !new_text.ends_with('\n') {
            new_text.push('\n');
        }
        new_text.push('\n');
    }
    let scope = match &change.scope {
        Scope::Container(id) => format!("container = {}", quoted(id)),
        Scope::Tenant(name) => format!("tenant = {}", quoted(name)),
        Scope::Pattern(pattern) => format!("pattern = {}", quoted(&pattern.0)),
        Scope::Default => "default = true".to_owned(),
    };
    new_text += &format!("[[quota]]\nname = {}\n{scope}\n", quoted(&change.name));
    for key in KEYS {
        let of_key = change.values.iter().filter(|(set, _)| *set == key);
        of_key.for_each(|(_, value)| new_text += &format!("{key} = {value}\n"));
    }
    new_text
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
