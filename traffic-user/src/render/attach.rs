//! What `trafctl attach` and `trafctl detach` did.

use serde::Serialize;

use crate::render::{json, rows};
use traffic_model::counted;

/// The result of an attach.
#[derive(Debug, Serialize)]
pub struct Attached {
    /// What happened to the program: `created` (with new counters), `replaced` or `found`.
    pub program: &'static str,
    /// How the program is attached on this host: `tcx` or `clsact`.
    pub attach_kind: &'static str,
    /// Interfaces that the program is attached to now.
    pub interfaces: Vec<AttachedInterface>,
    /// Interfaces that match a rule but whose container is not known.
    pub unresolved: Vec<Refused>,
    /// Interfaces that the program could not be attached to.
    pub failed: Vec<Refused>,
}

/// One attached interface.
#[derive(Debug, Serialize)]
pub struct AttachedInterface {
    /// Its name.
    pub interface: String,
    /// Its container; `null` if containers share it.
    pub container: Option<String>,
    /// `attached`, `replaced` (another version of the program) or `kept` (nothing changed).
    pub change: &'static str,
}

/// An interface that is not attached, with the reason.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// Its name.
    pub interface: String,
    /// Why it is not attached.
    pub reason: String,
}

/// The result of a detach.
#[derive(Debug, Default, Serialize)]
pub struct Detached {
    /// Interfaces that the program was taken off. Their counters stay, unless they were purged.
    pub detached: Vec<String>,
    /// The counters that were deleted; `null` if none were.
    pub purged: Option<Purged>,
    /// What a purge would delete. Given only in its preview, when nothing was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_purge: Option<PurgePreview>,
}

/// What a purge would delete.
#[derive(Debug, Serialize)]
pub struct PurgePreview {
    /// The counters; `null` if they cannot be read.
    pub counters: Option<Purged>,
    /// Interfaces that are counted.
    pub interfaces: Vec<String>,
}

/// Counters that were deleted.
#[derive(Debug, Serialize)]
pub struct Purged {
    /// How many containers they were of.
    pub containers: usize,
    /// When they began.
    pub since: String,
    /// Bytes to containers.
    pub in_bytes: u64,
    /// Bytes from containers.
    pub out_bytes: u64,
}

/// Text for people: what changed, and with `all` also what did not. Empty if there is nothing to show, so
/// that a repeated attach in a start hook or a cron job prints nothing.
pub fn attached_table(attached: &Attached, all: bool) -> String {
    let mut text = String::new();
    let shown: Vec<_> =
        attached.interfaces.iter().filter(|interface| all || interface.change != "kept").collect();
    match attached.program {
        "created" => text += "program loaded, counters created\n",
        "replaced" => text += "program replaced, counters kept\n",
        _ => {}
    }
    if attached.interfaces.is_empty() && attached.unresolved.is_empty() && attached.failed.is_empty() {
        if !text.is_empty() || all {
            text += "no interface matches a rule yet\n";
        }
        return text;
    }
    if !shown.is_empty() {
        text += &rows(
            &["INTERFACE", "CONTAINER", "CHANGE"],
            shown.into_iter().map(|interface| {
                let container = interface.container.clone().unwrap_or_else(|| "(shared)".to_owned());
                vec![interface.interface.clone(), container, interface.change.to_owned()]
            }),
        );
    }
    text
}

/// One document.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn attached_json(attached: &Attached) -> anyhow::Result<String> {
    json::document(attached)
}

/// Text for people; empty if nothing was attached.
pub fn detached_table(detached: &Detached) -> String {
    let counters = if detached.purged.is_some() { "deleted" } else { "kept" };
    let mut text = String::new();
    for interface in &detached.detached {
        text += &format!("{interface}: detached, counters {counters}\n");
    }
    if let Some(purged) = &detached.purged {
        text += &(self::purged(purged) + "\n");
    }
    if let Some(preview) = &detached.would_purge {
        let counters = preview.counters.as_ref().map_or_else(
            || "counters that cannot be read".to_owned(),
            |purged| format!("the counters of {}", kept(purged)),
        );
        text += &format!(
            "would detach from {} and delete the program and {counters}\nnothing was changed; repeat the command \
             with --yes to do it\n",
            counted(preview.interfaces.len(), "interface"),
        );
    }
    text
}

/// What a purge deleted, as one line.
pub fn purged(purged: &Purged) -> String {
    format!("deleted the counters of {}", kept(purged))
}

fn kept(purged: &Purged) -> String {
    format!(
        "{}, kept since {}: {} in, {} out",
        counted(purged.containers, "container"),
        purged.since,
        counted(purged.in_bytes, "byte"),
        counted(purged.out_bytes, "byte")
    )
}

/// One document.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn detached_json(detached: &Detached) -> anyhow::Result<String> {
    json::document(detached)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn sample(program: &'static str) -> Attached {
        let interface = |name: &str, container: Option<&str>, change| AttachedInterface {
            interface: name.to_owned(),
            container: container.map(str::to_owned),
            change,
        };
        let refused =
            |name: &str, reason: &str| Refused { interface: name.to_owned(), reason: reason.to_owned() };
        Attached {
            program,
            attach_kind: "tcx",
            interfaces: vec![
                interface("venet0", None, "attached"),
                interface("veth101.0", Some("101"), "kept"),
                interface("veth102.0", Some("102"), "replaced"),
            ],
            unresolved: vec![refused("veth42001122", "no file names it")],
            failed: vec![refused("veth103.0", "cannot attach: no such device")],
        }
    }

    #[test]
    fn what_changed_is_shown_and_the_rest_on_request() {
        assert_snapshot!("attached_table", attached_table(&sample("created"), false));
        assert_snapshot!("attached_table_all", attached_table(&sample("found"), true));
    }

    #[test]
    fn a_repeated_attach_prints_nothing() {
        let mut attached = sample("found");
        attached.interfaces.iter_mut().for_each(|interface| interface.change = "kept");
        assert_eq!(attached_table(&attached, false), "");
        attached.interfaces.clear();
        attached.unresolved.clear();
        attached.failed.clear();
        assert_eq!(attached_table(&attached, false), "");
        attached.program = "created";
        assert!(attached_table(&attached, false).ends_with("no interface matches a rule yet\n"));
    }

    #[test]
    fn documents() {
        assert_snapshot!("attached_json", attached_json(&sample("replaced")).unwrap());
        let purged =
            Purged { containers: 2, since: "2026-11-23T12:00:00Z".to_owned(), in_bytes: 3, out_bytes: 4 };
        let detached =
            Detached { detached: vec!["veth101.0".to_owned()], purged: Some(purged), would_purge: None };
        assert_snapshot!("detached_json", detached_json(&detached).unwrap());
        assert_snapshot!("detached_table", detached_table(&detached));
        let preview = PurgePreview { counters: detached.purged, interfaces: vec!["veth101.0".to_owned()] };
        let detached = Detached { would_purge: Some(preview), ..Detached::default() };
        assert_snapshot!("purge_preview_json", detached_json(&detached).unwrap());
        assert_snapshot!("purge_preview_table", detached_table(&detached));
    }
}
