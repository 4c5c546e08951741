//! The names that people have for containers, beside the ids that these are counted under. Pure.
//!
//! A name is that of one moment, and two containers can have the same. So whoever asks by a name gets the only
//! container that has it now, or learns which ones do. What is billed is always the id.

use std::collections::BTreeMap;

use traffic_model::ContainerId;

use super::vz_conf::VzConf;
use crate::config::Config;

/// A name that several containers have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is the name of {} containers: {}; write the id of the one you mean", ids.len(), listed(ids))]
pub struct AmbiguousName {
    /// The name as it was typed.
    pub name: String,
    /// The containers.
    pub ids: Vec<String>,
}

fn listed(ids: &[String]) -> String {
    ids.join(", ")
}

/// Longest name in bytes, as in most platforms.
const LONGEST: usize = 255;

/// The names of containers at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerNames(BTreeMap<ContainerId, String>);

impl ContainerNames {
    /// Merges all sources. The configuration overrides Virtuozzo's files, and these override the other platforms.
    /// A name that is the id itself is none, and so is one that cannot be printed in one line.
    pub fn merge(
        config: &Config,
        vz: &VzConf,
        of_platforms: &BTreeMap<ContainerId, String>,
        main_id: impl Fn(ContainerId) -> ContainerId,
    ) -> Self {
        let of_vz =
            vz.containers.iter().filter_map(|container| Some((&container.id, container.name.as_ref()?)));
        let configured =
            config.containers.iter().filter_map(|container| Some((&container.id, container.name.as_ref()?)));
        let all = of_platforms.iter().chain(of_vz).chain(configured);
        let all = all.map(|(id, name)| (main_id(id.clone()), name.clone()));
        let is_usable = |(id, name): &(ContainerId, String)| {
            id.as_str() != name && name.len() <= LONGEST && !name.chars().any(char::is_control)
        };
        Self(all.filter(is_usable).collect())
    }

    /// The name of a container.
    pub fn of(&self, id: &ContainerId) -> Option<&str> {
        self.0.get(id).map(String::as_str)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&ContainerId, &str)> {
        self.0.iter().map(|(id, name)| (id, name.as_str()))
    }

    /// The containers of this name.
    pub fn ids(&self, name: &str) -> Vec<ContainerId> {
        self.0.iter().filter(|(_, of)| *of == name).map(|(id, _)| id.clone()).collect()
    }
}

/// The only one of the containers that have a name; `None` if there is none.
///
/// # Errors
/// [`AmbiguousName`] if several have it.
pub fn only<I: ToString>(name: &str, mut ids: Vec<I>) -> Result<Option<I>, AmbiguousName> {
    match ids.len() {
        0 | 1 => Ok(ids.pop()),
        _ => {
            let ids = ids.iter().map(ToString::to_string).collect();
            Err(AmbiguousName { name: name.to_owned(), ids })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn id(text: &str) -> ContainerId {
        ContainerId::new(text).unwrap()
    }

    #[test]
    fn the_configuration_overrides_other_names_and_two_containers_of_a_name_are_listed() {
        let config = "[[container]]\nid = '101'\nname = 'shop of Meier'\n[[container]]\nid = '102'\n";
        let config = Config::parse(config, Path::new("t.toml")).unwrap();
        let vz = super::super::vz_conf::parse(Path::new("/x/101.conf"), "NAME=\"old\"\n");
        let mut vz = vz.settled();
        let more = super::super::vz_conf::parse(Path::new("/x/103.conf"), "NAME='web'\n");
        vz.containers.extend(more.containers);
        let platforms =
            [("3f2a", "web"), ("102", "db"), ("103", "of another"), ("same", "same"), ("odd", "a\u{1b}[2J")];
        let platforms = platforms.map(|(of, name)| (id(of), name.to_owned())).into();
        let names = ContainerNames::merge(&config, &vz, &platforms, |id| id);
        let all: Vec<_> = names.iter().map(|(id, name)| (id.as_str(), name)).collect();
        assert_eq!(all, [("101", "shop of Meier"), ("102", "db"), ("103", "web"), ("3f2a", "web")]);
        assert_eq!(names.of(&id("102")), Some("db"));
        assert_eq!(only("db", names.ids("db")), Ok(Some(id("102"))));
        assert_eq!(only("old", names.ids("old")), Ok(None));
        let error = only("web", names.ids("web")).unwrap_err().to_string();
        assert_eq!(error, "web is the name of 2 containers: 103, 3f2a; write the id of the one you mean");
    }
}
