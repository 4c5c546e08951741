//! Virtuozzo's commands: their options, and their output byte for byte.
//!
//! Where Virtuozzo's own programs have a fault, these follow its manual; each such place has a comment. Pure
//! except for the file of [`reset_baseline`]; `cli/netstat` and `cli/tactl` read the maps and print.

use std::collections::{BTreeSet, HashMap};

use traffic_model::ContainerId;

pub mod netstat;
pub mod reset_baseline;
pub mod sums;
pub mod tactl;
pub mod venetstat;

pub use sums::{ContainerSums, containers};

/// The number of classes in Virtuozzo: 0 to 15.
pub const CLASSES: u8 = 16;
/// The id of the node itself.
pub const NODE: &str = "0";

/// The ids that a container is counted under, whichever of its ids was typed; the typed one comes first.
///
/// There are several if the container was counted before its other id was known. If nothing is counted, the
/// result is the typed id. `aliases` maps each other id to the main id.
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
    fn each_id_finds_what_is_counted_under_the_other() {
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
        assert_eq!(find(&stranger, &[&number, &other]), "999", "an unknown id stays as typed");
    }
}
