//! The text of one container file: `KEY="value"`, `KEY='value'`, `KEY=value` and comments.
//!
//! A line that is anything else is reported and ignored.

use std::path::Path;

use traffic_model::{
    ContainerId,
    notation::{name_bytes, parse_mac},
};

use crate::ownership::vz_conf::{Diagnostic, VzConf, VzContainer, VzInterface};

/// Parses the text of one file. The id comes from `path`.
pub fn parse(path: &Path, text: &str) -> VzConf {
    let mut all = VzConf::default();
    let diagnostic = |line: usize, message: String| Diagnostic { path: path.to_owned(), line, message };
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
    let id = match ContainerId::of_container(stem) {
        Ok(id) => id,
        Err(error) => {
            all.diagnostics.push(diagnostic(0, error.to_string()));
            return all;
        }
    };
    let mut container = VzContainer {
        path: path.to_owned(),
        id,
        aliases: Vec::new(),
        name: None,
        addresses: Vec::new(),
        interfaces: Vec::new(),
    };
    let mut ids: Vec<(&str, ContainerId)> = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let (key, value) = match assignment(text) {
            Ok(Some(assignment)) => assignment,
            Ok(None) => continue,
            Err(message) => {
                all.diagnostics.push(diagnostic(line, message.to_owned()));
                continue;
            }
        };
        // As in a shell, a later assignment of the same key replaces an earlier one.
        let problems = match key {
            "IP_ADDRESS" => {
                let words = value.split_whitespace();
                collect(words, address, &mut container.addresses)
            }
            "NAME" => {
                container.name = usable_name(value);
                Vec::new()
            }
            "NETIF" => {
                let entries = value.split(';').filter(|entry| !entry.trim().is_empty());
                collect(entries, interface, &mut container.interfaces)
            }
            "VEID" | "CTID" | "UUID" => match ContainerId::of_container(value) {
                Ok(id) => {
                    ids.retain(|(earlier, _)| *earlier != key);
                    ids.push((key, id));
                    Vec::new()
                }
                Err(error) => vec![error.to_string()],
            },
            _ => Vec::new(),
        };
        all.diagnostics.extend(problems.into_iter().map(|message| diagnostic(line, message)));
    }
    for (_, alias) in ids {
        if alias != container.id && !container.aliases.contains(&alias) {
            container.aliases.push(alias);
        }
    }
    all.containers.push(container);
    all
}

/// Replaces `values` by the items that can be parsed, and returns the problems of the others.
fn collect<'t, T>(
    items: impl Iterator<Item = &'t str>,
    parse: impl Fn(&'t str) -> Result<T, String>,
    values: &mut Vec<T>,
) -> Vec<String> {
    values.clear();
    let mut problems = Vec::new();
    for item in items {
        match parse(item) {
            Ok(value) => values.push(value),
            Err(problem) => problems.push(problem),
        }
    }
    problems
}

/// A name for people. One that cannot be printed in one line costs only itself.
fn usable_name(text: &str) -> Option<String> {
    const LONGEST: usize = 255;
    let is_usable = !text.is_empty() && text.len() <= LONGEST && !text.chars().any(char::is_control);
    is_usable.then(|| text.to_owned())
}

/// An address, with or without a mask behind it.
fn address(word: &str) -> Result<std::net::IpAddr, String> {
    let address = word.split('/').next().unwrap_or("");
    address.parse().map_err(|_| format!("{} is not an IP address", quoted(word)))
}

/// The beginning of a text in quotation marks, because a file may contain anything.
fn quoted(text: &str) -> String {
    const MOST_CHARS: usize = 60;
    let shown: String = text.chars().take(MOST_CHARS).collect();
    if shown.len() < text.len() { format!("{:?}", shown + "...") } else { format!("{shown:?}") }
}

/// Key and value of a line; `None` for a blank line or a comment.
fn assignment(line: &str) -> Result<Option<(&str, &str)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (key, value) =
        line.split_once('=').ok_or("the line is not an assignment KEY=\"value\" and is ignored")?;
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err("the text before = is not the name of a setting; the line is ignored");
    }
    let value = value.trim_start();
    let quoted = value.chars().next().filter(|first| matches!(first, '"' | '\''));
    let (value, rest) = match quoted {
        Some(quote) => {
            let closed = value[1..].split_once(quote);
            closed.ok_or("the quotation mark is not closed on this line, and the line is ignored")?
        }
        None => value.split_once(char::is_whitespace).unwrap_or((value, "")),
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with(['#', ';']) {
        return Ok(Some((key, value)));
    }
    Err("text follows the value, and the line is ignored; quote a value that contains blanks")
}

/// One entry of `NETIF`: `KEY=VALUE` pairs separated by commas.
fn interface(entry: &str) -> Result<VzInterface, String> {
    let mut interface = VzInterface::default();
    for pair in entry.split(',') {
        let (key, value) = pair
            .trim()
            .split_once('=')
            .ok_or_else(|| format!("{} is not a KEY=VALUE pair of an interface", quoted(pair)))?;
        let mac = || {
            parse_mac(value).map(Some).ok_or_else(|| format!("{} is not a hardware address", quoted(value)))
        };
        match key {
            "mac" => interface.mac = mac()?,
            "host_mac" => interface.host_mac = mac()?,
            "host_ifname"
                if value.is_empty() || name_bytes(value).len() >= traffic_common::INTERFACE_NAME_BYTES =>
            {
                return Err(format!(
                    "{} is not an interface name, which has 1 to 15 characters",
                    quoted(value)
                ));
            }
            "host_ifname" => interface.host_name = Some(value.to_owned()),
            _ => {}
        }
    }
    Ok(interface)
}
