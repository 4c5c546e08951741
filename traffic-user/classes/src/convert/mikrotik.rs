//! Address lists of RouterOS: what `/ip firewall address-list export` prints, and scripts in its form.

use super::collector::Collector;
use crate::parse::network::quote;

/// Reads the address lists, or the named one. Other sections of an export are left out.
pub(super) fn read(text: &str, wanted: Option<&str>, collector: &mut Collector) {
    // An export of address lists alone may come without its section's line.
    let mut is_address_list = true;
    let mut has_entries = false;
    for (number, line) in joined_lines(text) {
        let mut command = line.as_str();
        if let Some(path) = command.strip_prefix('/') {
            let end = [" add ", " remove ", " set "].iter().filter_map(|word| path.find(word)).min();
            let section = path[..end.unwrap_or(path.len())].trim();
            is_address_list = section.ends_with("address-list") && section.contains("firewall");
            let Some(end) = end else { continue };
            command = path[end..].trim();
        }
        // Scripts wrap each command so that one that fails does not end them.
        if let Some(wrapped) = command.strip_prefix(":do") {
            command =
                wrapped.trim_start().trim_start_matches('{').split('}').next().unwrap_or_default().trim();
        }
        if !is_address_list {
            collector.leave_out("of other sections");
        } else if let Some(properties) = command.strip_prefix("add ") {
            has_entries = true;
            entry(number, properties, wanted, collector);
        } else if has_entries && command.starts_with("remove ") {
            let message = "the command removes entries that were added above; remove it and them";
            collector.refuse(number, message);
        } else if ["remove ", ":global ", ":local ", ":log ", ":delay "]
            .iter()
            .any(|word| command.starts_with(word))
        {
            collector.leave_out("commands");
        } else {
            let message = format!("{} is not an entry of an address list; remove the line", quote(command));
            collector.refuse(number, message);
        }
    }
}

fn entry(number: usize, properties: &str, wanted: Option<&str>, collector: &mut Collector) {
    let (mut address, mut list, mut is_disabled) = (None, None, false);
    for (key, value) in self::properties(properties) {
        match key {
            "address" if address.is_some() => {
                return collector
                    .refuse(number, "the line has two addresses; write one command on each line");
            }
            "address" => address = Some(value),
            "list" => list = Some(value),
            "disabled" => is_disabled = value == "yes" || value == "true",
            _ => {}
        }
    }
    match (address, list) {
        _ if is_disabled => collector.leave_out("disabled entries"),
        (Some(address), Some(list)) => {
            if let Some(range) = collector.read(number, &[address]) {
                collector.take_of_set(list, wanted, range);
            }
        }
        _ => collector.refuse(number, "the entry has no address or no list; remove the line"),
    }
}

/// The pairs of `key=value key="a value"`.
fn properties(text: &str) -> Vec<(&str, &str)> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while let Some((key, after)) = rest.split_once('=') {
        // A word without a value stands in front of the next key.
        let key = key.split_whitespace().next_back().unwrap_or_default();
        let (value, end) = match after.strip_prefix('"') {
            Some(quoted) => {
                let end = closing_quote(quoted);
                (&quoted[..end], (end + 2).min(after.len()))
            }
            None => {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                (&after[..end], end)
            }
        };
        pairs.push((key, value));
        rest = after[end..].trim_start();
    }
    pairs
}

/// Where a quoted text ends; a backslash takes the meaning from the next character.
fn closing_quote(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    text.len()
}

/// The lines with their first numbers. An export continues long lines behind a backslash.
fn joined_lines(text: &str) -> Vec<(usize, String)> {
    let mut joined: Vec<(usize, String)> = Vec::new();
    let mut continues = false;
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if !continues && (trimmed.is_empty() || trimmed.starts_with('#')) {
            continue;
        }
        let (part, goes_on) = match trimmed.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (trimmed, false),
        };
        match joined.last_mut().filter(|_| continues) {
            Some((_, before)) => before.push_str(part),
            None => joined.push((at + 1, part.to_owned())),
        }
        continues = goes_on;
    }
    joined
}
