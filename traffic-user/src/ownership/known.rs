//! Which container ids this node knows, and the one sentence for an id that it does not know.

use std::{collections::BTreeMap, path::Path};

use traffic_model::{ContainerId, NODE_ID, Snapshot};

use super::{ContainerNames, Ownership, names};
use crate::config::Config;

/// An id that was asked for and that nothing on this node knows.
///
/// Every command and the API report it in the same form: `no container NAME is known: WHY; WHAT TO DO`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no container {name} is known: {why}; {advice}")]
pub struct UnknownContainer {
    /// The id as it was typed.
    pub name: String,
    /// Where the id was looked up without success.
    pub why: &'static str,
    /// What the operator can do.
    pub advice: &'static str,
}

impl UnknownContainer {
    /// The error of a command that reads the live counters.
    pub fn without_counters(id: &ContainerId) -> Self {
        Self {
            name: id.to_string(),
            why: "it has no counters, no interface on this node and no entry in the configuration",
            advice: "`trafctl dump` lists the ids that are counted",
        }
    }
}

/// All ids that the containers asked for are known by, from the files as they are now. What is no id of a container
/// may be its name: `of_platforms` are those that platforms know.
///
/// # Errors
/// [`UnknownContainer`] for the first that is neither counted nor named in a file; [`AmbiguousName`] for a name
/// of several containers; others when a file cannot be read.
///
/// [`AmbiguousName`]: super::AmbiguousName
pub fn resolve(
    config: &Config,
    state_dir: &Path,
    typed: &[ContainerId],
    (snapshot, of_platforms): (&Snapshot, &BTreeMap<ContainerId, String>),
) -> anyhow::Result<Vec<ContainerId>> {
    if typed.is_empty() {
        return Ok(Vec::new());
    }
    let ownership = Ownership::read(config, state_dir, None)?;
    let names = ownership.names(config, of_platforms);
    let mut resolved = Vec::new();
    for id in typed {
        let ids = ownership.rules.all_ids(id);
        match ownership.knows(&ids, config, snapshot) {
            true => resolved.extend(ids),
            false => resolved.extend(ownership.all_ids_of_named(&names, id)?),
        }
    }
    Ok(resolved)
}

/// All ids of a container of the ledger as texts, the ledger's own first. `all_ids` finds those of an id.
pub fn ids_in_ledger(container: &str, all_ids: impl FnOnce(&ContainerId) -> Vec<ContainerId>) -> Vec<String> {
    let all = ContainerId::new(container).map_or_else(|_| Vec::new(), |id| all_ids(&id));
    let others = all.iter().map(ToString::to_string).filter(|id| id != container);
    std::iter::once(container.to_owned()).chain(others).collect()
}

impl Ownership {
    /// [`ids_in_ledger`] by the files that name owners.
    pub fn ids_in_ledger(&self, container: &str) -> Vec<String> {
        ids_in_ledger(container, |id| self.rules.all_ids(id))
    }

    /// All ids of the only container of a name.
    ///
    /// # Errors
    /// [`UnknownContainer`] if none has it, [`AmbiguousName`](super::AmbiguousName) if several have it.
    pub fn all_ids_of_named(
        &self,
        names: &ContainerNames,
        typed: &ContainerId,
    ) -> anyhow::Result<Vec<ContainerId>> {
        let found = names::only(typed.as_str(), names.ids(typed.as_str()))?;
        let id = found.ok_or_else(|| UnknownContainer::without_counters(typed))?;
        Ok(self.rules.all_ids(&id))
    }

    /// Whether a container with one of these ids is counted, owns a counted interface, or is named in a file.
    pub fn knows(&self, ids: &[ContainerId], config: &Config, snapshot: &Snapshot) -> bool {
        ids.iter().any(|id| {
            id.as_str() == NODE_ID
                || snapshot.counters.iter().any(|counter| counter.container == *id)
                || snapshot.interfaces.iter().any(|interface| interface.container.as_ref() == Some(id))
                || config.containers.iter().any(|container| container.id == *id)
                || self.addresses.entries.iter().any(|entry| entry.container == *id)
                || self.vz.containers.iter().any(|of_vz| of_vz.id == *id || of_vz.aliases.contains(id))
        })
    }
}

#[cfg(test)]
mod tests {
    use traffic_model::sample;

    use super::*;

    fn id(text: &str) -> ContainerId {
        ContainerId::new(text).unwrap()
    }

    #[test]
    fn a_container_without_traffic_is_known_and_a_mistyped_id_is_not() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("305.conf"), "IP_ADDRESS=\"10.0.3.5\"\n").unwrap();
        let vz = directory.path().display();
        let config = format!("vz_conf_dir = '{vz}'\n[[container]]\nid = 'db'\ninterfaces = ['odd0']\n");
        let config = Config::parse(&config, Path::new("t.toml")).unwrap();
        let ownership = Ownership::read(&config, directory.path(), None).unwrap();
        let mut snapshot = sample::snapshot();
        snapshot.counters.retain(|counter| counter.container == id("101"));
        let knows = |text: &str| ownership.knows(&[id(text)], &config, &snapshot);
        assert!(knows("101"), "it has counters");
        assert!(knows(sample::UUID), "it has an interface");
        assert!(knows("305"), "it has a file of Virtuozzo's");
        assert!(knows("db"), "it is configured");
        assert!(knows("0"), "the node itself");
        assert!(!knows("777"));
    }

    #[test]
    fn a_name_is_accepted_for_an_id_and_an_id_goes_before_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let config = "vz_conf_dir = '/nonexistent'\n[[container]]\nid = '3f2a'\nname = 'shop'\n[[container]]\nid = 'db'\n";
        let config = Config::parse(config, Path::new("t.toml")).unwrap();
        let of_platforms = [("305", "web"), ("306", "web"), ("307", "db"), ("308", "mail")];
        let of_platforms = of_platforms.map(|(of, name)| (id(of), name.to_owned())).into();
        let snapshot = sample::snapshot();
        let found = |text: &str| {
            let found = resolve(&config, directory.path(), &[id(text)], (&snapshot, &of_platforms));
            found.map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(found("shop").unwrap(), "3f2a");
        assert_eq!(found("mail").unwrap(), "308");
        assert_eq!(found("db").unwrap(), "db", "it is the id of one container and the name of another");
        let ambiguous = found("web").unwrap_err();
        assert!(ambiguous.is::<crate::ownership::AmbiguousName>(), "{ambiguous}");
        assert!(ambiguous.to_string().contains("305, 306"), "{ambiguous}");
        assert!(found("nobody").unwrap_err().is::<UnknownContainer>());
    }

    #[test]
    fn the_sentence_has_one_form() {
        assert_eq!(
            UnknownContainer::without_counters(&id("777")).to_string(),
            "no container 777 is known: it has no counters, no interface on this node and no entry in the \
             configuration; `trafctl dump` lists the ids that are counted"
        );
    }
}
