//! What a container was called, and which of its interfaces changed hands.

use jiff::Timestamp;
use serde::Serialize;
use traffic_ledger::{ContainerName, OwnerChange};
use traffic_model::local_time::LocalTime;

use crate::render::{json, ledger::Format, rows};

/// The history of a container.
#[derive(Debug, Serialize)]
pub struct History {
    /// Its label.
    pub container: String,
    /// When it was first seen.
    pub since: Timestamp,
    /// When it was retired.
    pub retired: Option<Timestamp>,
    /// Its names, the oldest first.
    pub names: Vec<ContainerName>,
    /// The changes of owners that concern it, the oldest first.
    pub owner_changes: Vec<OwnerChange>,
}

/// The histories of the containers that were asked for.
///
/// # Errors
/// When the output cannot be formatted.
pub fn histories(histories: &[History], format: Format, local_time: &LocalTime) -> anyhow::Result<String> {
    if format == Format::Json {
        return json::list("containers", histories);
    }
    let texts: Vec<String> = histories.iter().map(|history| text(history, local_time)).collect();
    Ok(texts.join("\n"))
}

fn text(history: &History, local_time: &LocalTime) -> String {
    let mut text = format!("container {} since {}", history.container, local_time.text(history.since));
    if let Some(retired) = history.retired {
        text += &format!(", retired {}", local_time.text(retired));
    }
    text.push('\n');
    if history.names.is_empty() {
        text += "no other name than its id is known\n";
    } else {
        let until =
            |name: &ContainerName| name.until.map_or_else(|| "-".to_owned(), |until| local_time.text(until));
        let names = history.names.iter();
        let names = names.map(|name| vec![name.name.clone(), local_time.text(name.since), until(name)]);
        text += &format!("\n{}", rows(&["NAME", "SINCE", "UNTIL"], names));
    }
    if !history.owner_changes.is_empty() {
        let of = |label: &Option<String>| label.clone().unwrap_or_else(|| "(shared)".to_owned());
        let changes = history.owner_changes.iter().map(|change| {
            let made = local_time.text(change.made);
            vec![change.interface.clone(), made, of(&change.former), of(&change.owner)]
        });
        text += &format!("\n{}", rows(&["INTERFACE", "CHANGED", "FROM", "TO"], changes));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_changes_have_their_times() {
        let at = |second| Timestamp::from_second(1_794_312_000 + second).unwrap();
        let name = |name: &str, since, until: Option<i64>| ContainerName {
            name: name.to_owned(),
            since: at(since),
            until: until.map(at),
        };
        let history = History {
            container: "4a6e1f0b2c3d".to_owned(),
            since: at(0),
            retired: None,
            names: vec![name("shop", 60, Some(3600)), name("shop-2", 3600, None)],
            owner_changes: vec![OwnerChange {
                made: at(120),
                interface: "veth7".to_owned(),
                former: Some("101".to_owned()),
                owner: Some("4a6e1f0b2c3d".to_owned()),
            }],
        };
        let utc = LocalTime::named("UTC");
        let text = histories(std::slice::from_ref(&history), Format::Table, &utc).unwrap();
        assert!(text.starts_with("container 4a6e1f0b2c3d since 2026-11-10"), "{text}");
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!((lines[3][0], lines[3].last()), ("shop", lines[4].get(lines[4].len() - 2)), "{text}");
        assert_eq!((lines[4][0], *lines[4].last().unwrap()), ("shop-2", "-"), "{text}");
        assert!(text.contains("veth7") && text.trim_end().ends_with("101   4a6e1f0b2c3d"), "{text}");
        let json: serde_json::Value =
            serde_json::from_str(&histories(&[history], Format::Json, &utc).unwrap()).unwrap();
        assert_eq!(json["containers"][0]["names"][1]["until"], serde_json::Value::Null);
    }
}
