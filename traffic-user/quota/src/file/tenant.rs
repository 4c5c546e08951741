//! One `[[tenant]]`: its keys, and that no two tenants have a container at the same time.

use jiff::civil::Date;
use toml::de::DeValue;
use traffic_model::ContainerId;

use super::{
    FileMistake, Mistakes, Quotas, position, start,
    table::{Table, unknown},
};
use crate::{
    scope::Scope,
    tenant::{Assignment, meet},
    values,
};

/// All keys of a tenant, in the order of the documentation.
pub const TENANT_KEYS: [&str; 4] = ["name", "containers", "from", "until"];

impl Table<'_, '_> {
    /// The assignment of a `[[tenant]]`; `None` after any mistake.
    pub(super) fn tenant(mut self) -> Option<Assignment> {
        let before = self.mistakes.found.len();
        let fields = self.fields;
        for key in fields.keys().filter(|key| !TENANT_KEYS.contains(&key.get_ref().as_ref())) {
            self.mistakes.add(key.span().start, unknown(key.get_ref(), &TENANT_KEYS));
        }
        let tenant = self.text("name", values::name);
        if tenant.is_none() && !self.has("name") {
            self.mistakes.add(self.at, "the tenant has no name; add name = \"acme\"".to_owned());
        }
        let containers = self.containers();
        let from = self.text("from", date);
        let until = self.text("until", date);
        if let (Some(from), Some(until)) = (from, until)
            && from >= until
        {
            let at = self.place("until");
            let message =
                format!("`until` is not after `from`; write a day after {from}, the first one without");
            self.mistakes.add(at, message);
        }
        if self.mistakes.found.len() > before {
            return None;
        }
        let (line, _) = position(self.mistakes.text, self.at);
        Some(Assignment { tenant: tenant?, line, containers, from, until })
    }

    fn containers(&mut self) -> Vec<String> {
        let example = "write a list of ids, such as containers = [\"101\", \"102\"]";
        let Some(value) = self.get("containers") else {
            self.mistakes.add(self.at, format!("the tenant has no containers; {example}"));
            return Vec::new();
        };
        let DeValue::Array(rows) = value.get_ref() else {
            self.mistakes.add(start(value), format!("`containers` is no list; {example}"));
            return Vec::new();
        };
        if rows.is_empty() {
            self.mistakes.add(start(value), format!("`containers` is empty; {example}"));
        }
        let mut containers: Vec<String> = Vec::new();
        for row in rows {
            let id = match row.get_ref() {
                DeValue::String(text) => ContainerId::new(text.as_ref()).map_err(|error| error.to_string()),
                _ => Err(format!("an id is not a text; {example}")),
            };
            match id {
                Ok(id) if containers.iter().any(|known| known == id.as_str()) => {
                    self.mistakes.add(start(row), format!("container {id} is listed twice; remove one"));
                }
                Ok(id) => containers.push(id.to_string()),
                Err(message) => self.mistakes.add(start(row), message),
            }
        }
        containers
    }
}

fn date(text: &str) -> Result<Date, String> {
    text.parse().map_err(|_| format!("{text:?} is not a day; write one such as \"2026-11-20\""))
}

/// A container is of one tenant at a time, and a quota is for a tenant that the file has.
pub(super) fn refuse_unfit(file: &Quotas, mistakes: &mut Mistakes<'_>) {
    let all = &file.tenants;
    for (at, one) in all.iter().enumerate() {
        let others = all[..at].iter().filter(|other| meet(one, other));
        for other in others {
            for id in one.containers.iter().filter(|id| other.containers.contains(id)) {
                mistakes.found.push(FileMistake {
                    line: one.line,
                    column: 1,
                    message: format!(
                        "container {id} is of tenant {} at the same time, on line {}; give both a day, by `until` \
                         and `from`",
                        other.tenant, other.line
                    ),
                });
            }
        }
    }
    for quota in &file.quotas {
        if let Scope::Tenant(name) = &quota.scope
            && all.iter().all(|one| one.tenant != *name)
            && mistakes.found.is_empty()
        {
            let message = format!("no tenant is named {name:?}; add one that begins with [[tenant]]");
            mistakes.found.push(FileMistake { line: quota.line, column: 1, message });
        }
    }
}
