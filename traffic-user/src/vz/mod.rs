//! Virtuozzo's commands: what they take, and their output byte for byte. Pure; `cli` reads the maps and prints.
//!
//! Where Virtuozzo's own programs have a fault, these do what its manual says; each place says so.

use std::collections::{BTreeSet, HashMap};

use traffic_model::ContainerId;

pub mod netstat;
pub mod reset_baseline;
pub mod sums;
pub mod tactl;
pub mod venetstat;

pub use sums::{ContainerSums, containers};

/// Classes that Virtuozzo has: 0 to 15.
pub const CLASSES: u8 = 16;
/// The id of the node itself.
pub const NODE: &str = "0";

/// The ids under which a container is counted that was asked for by any of its ids, that one first: more than one where it
/// was not known at first that they are of one container. The one asked for where nothing is counted. Each of the `aliases`
/// leads from one id to the other.
pub fn counted_ids(
    wanted: &ContainerId,
    counted: &BTreeSet<&ContainerId>,
    aliases: &HashMap<ContainerId, ContainerId>,
) -> Vec<ContainerId> {
    let main = aliases.get(wanted).unwrap_or(wanted);
    let mut others: Vec<_> = aliases.iter().filter(|(_, of)| *of == main).map(|(alias, _)| alias).collect();
    others.sort();
    let mut ids: Vec<ContainerId> = Vec::new();
    for id in [wanted, main].into_iter().chain(others) {
        if counted.contains(id) && !ids.contains(id) {
            ids.push(id.clone());
        }
    }
    if ids.is_empty() { vec![wanted.clone()] } else { ids }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_id_finds_what_is_counted_under_the_other() {
        let id = |text: &str| ContainerId::new(text).unwrap();
        let (number, uuid) = (id("101"), id("6d1e1c39-63e6-4a2b-8ef4-1b7a1d2f3c4d"));
        let (other, stranger) = (id("102"), id("999"));
        let aliases = HashMap::from([(uuid.clone(), number.clone()), (stranger.clone(), id("7"))]);
        let find = |wanted: &ContainerId, counted: &[&ContainerId]| {
            let ids = counted_ids(wanted, &counted.iter().copied().collect(), &aliases);
            ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(find(&uuid, &[&number, &other]), number.as_str());
        assert_eq!(find(&number, &[&uuid, &other]), uuid.as_str());
        assert_eq!(find(&number, &[&number, &uuid]), format!("{number} {uuid}"));
        assert_eq!(find(&uuid, &[&number, &uuid]), format!("{uuid} {number}"));
        assert_eq!(find(&stranger, &[&number, &other]), "999", "an id that nobody has stays what it is");
    }
}
