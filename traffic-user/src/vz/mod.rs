//! Virtuozzo's commands: what they take, and their output byte for byte. Pure; `cli` reads the maps and prints.
//!
//! Where Virtuozzo's own programs have a fault, these do what its manual says; each place says so.

use std::collections::{BTreeSet, HashMap};

use crate::snapshot::ContainerId;

pub mod netstat;
#[cfg(test)]
pub mod sample;
mod sums;
pub mod tactl;
pub mod venetstat;

pub use sums::{ContainerSums, containers};

/// Classes that Virtuozzo has: 0 to 15.
pub const CLASSES: u8 = 16;
/// The id of the node itself.
pub const NODE: &str = "0";

/// The id under which a container is counted that was asked for by either of its ids. `aliases` are asked for only when
/// nothing is counted under the id itself; each leads from one id to the other.
///
/// # Errors
/// Those of `aliases`.
pub fn counted_id(
    wanted: &ContainerId,
    counted: &BTreeSet<&ContainerId>,
    aliases: impl FnOnce() -> anyhow::Result<HashMap<ContainerId, ContainerId>>,
) -> anyhow::Result<ContainerId> {
    if counted.contains(wanted) {
        return Ok(wanted.clone());
    }
    let aliases = aliases()?;
    let main = aliases.get(wanted).unwrap_or(wanted);
    let others = aliases.iter().filter(|(_, of)| *of == main).map(|(alias, _)| alias);
    let found = std::iter::once(main).chain(others).find(|id| counted.contains(id));
    Ok(found.unwrap_or(wanted).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_id_finds_what_is_counted_under_the_other() {
        let id = |text: &str| ContainerId::new(text).unwrap();
        let (number, uuid) = (id("101"), id("6d1e1c39-63e6-4a2b-8ef4-1b7a1d2f3c4d"));
        let (other, stranger) = (id("102"), id("999"));
        let aliases = || Ok(HashMap::from([(uuid.clone(), number.clone()), (stranger.clone(), id("7"))]));
        let find = |wanted: &ContainerId, counted: &[&ContainerId]| {
            counted_id(wanted, &counted.iter().copied().collect(), aliases).unwrap()
        };
        assert_eq!(find(&uuid, &[&number, &other]), number);
        assert_eq!(find(&number, &[&uuid, &other]), uuid);
        assert_eq!(find(&number, &[&number, &uuid]), number);
        assert_eq!(find(&stranger, &[&number, &other]), stranger, "an id that nobody has stays what it is");
        // The files are not looked at for an id that is counted.
        let counted = BTreeSet::from([&number]);
        assert_eq!(counted_id(&number, &counted, || anyhow::bail!("not asked for")).unwrap(), number);
    }
}
