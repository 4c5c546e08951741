//! One `[[action]]`: its keys, and how they fit each other.

use std::{path::PathBuf, time::Duration};

use toml::de::DeValue;

use super::{
    position, start,
    table::{Table, unknown},
};
use crate::{
    action::{Action, Means, Secret},
    crossing::Change,
    url::Url,
    values,
};

/// All keys of an action, in the order of the documentation.
pub const ACTION_KEYS: [&str; 13] = [
    "name",
    "command",
    "lift",
    "again",
    "webhook",
    "secret_file",
    "secret_credential",
    "ca_file",
    "mail",
    "from",
    "sendmail",
    "events",
    "timeout",
];

/// The keys that only one kind of action has.
const OF_KIND: [(&str, &[&str]); 3] = [
    ("command", &["lift", "again"]),
    ("webhook", &["secret_file", "secret_credential", "ca_file"]),
    ("mail", &["from", "sendmail"]),
];

/// How long an action may take that names no time.
const USUAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Where mail systems have their program.
const SENDMAIL: &str = "/usr/sbin/sendmail";
/// The most recipients of a mail.
const MOST_RECIPIENTS: usize = 20;

impl Table<'_, '_> {
    /// The action of an `[[action]]`; `None` after any mistake.
    pub(super) fn action(mut self) -> Option<Action> {
        let before = self.mistakes.found.len();
        let fields = self.fields;
        for key in fields.keys().filter(|key| !ACTION_KEYS.contains(&key.get_ref().as_ref())) {
            self.mistakes.add(key.span().start, unknown(key.get_ref(), &ACTION_KEYS));
        }
        let name = self.text("name", values::name);
        if name.is_none() && !self.has("name") {
            self.mistakes.add(self.at, "the action has no name; add name = \"notify\"".to_owned());
        }
        let kind = self.kind();
        let means = kind.and_then(|kind| match kind {
            "command" => self.command(),
            "webhook" => self.webhook(),
            _ => self.mail(),
        });
        let timeout = self.text("timeout", values::timeout).unwrap_or(USUAL_TIMEOUT);
        if self.mistakes.found.len() > before {
            return None;
        }
        let (line, _) = position(self.mistakes.text, self.at);
        Some(Action { name: name?, line, means: means?, timeout })
    }

    /// Which of the three an action is. Keys of another one are mistakes.
    fn kind(&mut self) -> Option<&'static str> {
        let present: Vec<_> = OF_KIND.iter().filter(|(kind, _)| self.has(kind)).collect();
        match present[..] {
            [] => {
                let message = "the action has no command, webhook or mail; add one, such as command = \
                               [\"/path/to/program\", \"argument\"]";
                self.mistakes.add(self.at, message.to_owned());
                None
            }
            [(kind, _)] => {
                let others = OF_KIND.iter().filter(|(other, _)| other != kind).flat_map(|(other, keys)| {
                    keys.iter().filter(|key| self.has(key)).map(move |key| (*other, *key))
                });
                for (other, key) in others.collect::<Vec<_>>() {
                    let at = self.place(key);
                    self.mistakes.add(at, format!("`{key}` belongs to a {other}; remove it"));
                }
                if *kind == "command" && self.has("events") {
                    let at = self.place("events");
                    let message =
                        "a command runs when a threshold is reached, and `lift` after that; remove `events`";
                    self.mistakes.add(at, message.to_owned());
                }
                Some(kind)
            }
            [_, (second, _), ..] => {
                let at = self.place(second);
                let message = "an action is a command, a webhook or a mail; make it two, and name both";
                self.mistakes.add(at, message.to_owned());
                None
            }
        }
    }

    fn command(&mut self) -> Option<Means> {
        let (command, lift) = (self.words("command"), self.words("lift"));
        let again = self.text("again", values::again);
        Some(Means::Command { command: command?, lift: lift.unwrap_or_default(), again })
    }

    fn webhook(&mut self) -> Option<Means> {
        let url = self.text("webhook", |text| Url::parse(text).map_err(|why| format!("`webhook`: {why}")));
        let file = self.text("secret_file", |text| secret_path(text).map(Secret::File));
        let credential = self.text("secret_credential", |text| credential(text).map(Secret::Credential));
        if self.has("secret_file") && self.has("secret_credential") {
            let at = self.place("secret_credential");
            let message = "a secret is given twice; keep `secret_file` or `secret_credential`";
            self.mistakes.add(at, message.to_owned());
        }
        let ca_file = self.text("ca_file", |text| absolute("ca_file", text));
        // A receiver can tell them apart.
        let events = self.events(&[Change::Reached, Change::Undone, Change::Ended]);
        Some(Means::Webhook { url: url?, secret: file.or(credential), ca_file, events })
    }

    fn mail(&mut self) -> Option<Means> {
        let to = self.addresses();
        let from = self.text("from", address);
        let sendmail = self.text("sendmail", |text| absolute("sendmail", text));
        // A mail for each container at each new month is for nobody.
        let events = self.events(&[Change::Reached, Change::Undone]);
        Some(Means::Mail {
            to: to?,
            from,
            sendmail: sendmail.unwrap_or_else(|| PathBuf::from(SENDMAIL)),
            events,
        })
    }

    /// The recipients: one, or a list.
    fn addresses(&mut self) -> Option<Vec<String>> {
        let value = self.get("mail")?;
        let example = "write an address such as \"noc@example.net\", or a list of addresses";
        let rows = match value.get_ref() {
            DeValue::String(text) => {
                return address(text)
                    .map_err(|why| self.mistakes.add(start(value), why))
                    .ok()
                    .map(|one| vec![one]);
            }
            DeValue::Array(rows) if (1..=MOST_RECIPIENTS).contains(&rows.len()) => rows,
            _ => {
                let message = format!("`mail` is not one to {MOST_RECIPIENTS} addresses; {example}");
                self.mistakes.add(start(value), message);
                return None;
            }
        };
        let mut all = Vec::new();
        for row in rows {
            let found = match row.get_ref() {
                DeValue::String(text) => address(text),
                _ => Err(format!("this is no address; {example}")),
            };
            match found {
                Ok(address) => all.push(address),
                Err(why) => self.mistakes.add(start(row), why),
            }
        }
        Some(all)
    }

    /// The events that are sent.
    fn events(&mut self, usual: &[Change]) -> Vec<Change> {
        let Some(value) = self.get("events") else { return usual.to_vec() };
        let known = [Change::Reached, Change::Undone, Change::Ended];
        let example = "write a list of \"reached\", \"undone\" and \"ended\"";
        let events = match value.get_ref() {
            DeValue::Array(rows) => rows
                .iter()
                .map(|row| match row.get_ref() {
                    DeValue::String(text) => known.into_iter().find(|event| event.name() == text.as_ref()),
                    _ => None,
                })
                .collect::<Option<Vec<_>>>(),
            _ => None,
        };
        let events = events.filter(|events| !events.is_empty());
        if events.is_none() {
            self.mistakes.add(start(value), format!("`events` has no events; {example}"));
        }
        events.unwrap_or_default()
    }

    /// A program with its arguments; `None` where the key is missing or wrong.
    fn words(&mut self, key: &str) -> Option<Vec<String>> {
        let value = self.get(key)?;
        let texts = match value.get_ref() {
            DeValue::Array(rows) => rows
                .iter()
                .map(|row| match row.get_ref() {
                    DeValue::String(text) if !text.contains('\0') => Some(text.to_string()),
                    _ => None,
                })
                .collect::<Option<Vec<_>>>(),
            _ => None,
        };
        let is_usable = |words: &Vec<String>| words.first().is_some_and(|first| first.starts_with('/'));
        let found = texts.filter(is_usable);
        if found.is_none() {
            let message = format!(
                "`{key}` is not a program and its arguments; write a list of texts that begins with an absolute \
                 path, such as [\"/usr/local/sbin/throttle\", \"on\"]"
            );
            self.mistakes.add(start(value), message);
        }
        found
    }
}

fn absolute(key: &str, text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(PathBuf::from(text));
    }
    Err(format!("`{key}` is no absolute path; write one that begins with /"))
}

/// The path of a secret. A text that is one itself is not repeated.
fn secret_path(text: &str) -> Result<PathBuf, String> {
    absolute("secret_file", text).map_err(|_| {
        "`secret_file` is no absolute path; put the secret into a file that only root can read, and write its path"
            .to_owned()
    })
}

/// The name of a credential of systemd.
fn credential(text: &str) -> Result<String, String> {
    let is_usable = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_name =
        !text.is_empty() && text.len() <= 255 && text.chars().all(is_usable) && !text.starts_with('.');
    if is_name && !text.starts_with("whsec_") {
        return Ok(text.to_owned());
    }
    Err("`secret_credential` is not the name of a credential; write the name that LoadCredential= of the unit has"
        .to_owned())
}

/// An address of a mail. It is part of a header and an argument of a program, so it is plain.
fn address(text: &str) -> Result<String, String> {
    let is_local = |c: char| c.is_ascii_alphanumeric() || ".!#$%&'*+/=?^_`{|}~-".contains(c);
    let is_domain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    let (local, domain) = text.split_once('@').unwrap_or((text, "localhost"));
    let is_usable = !local.is_empty()
        && !local.starts_with('-')
        && local.chars().all(is_local)
        && !domain.is_empty()
        && domain.chars().all(is_domain);
    if is_usable && text.len() <= 254 {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not an address for mail; write one such as \"noc@example.net\""))
}

#[cfg(test)]
#[path = "action_tests.rs"]
mod tests;
