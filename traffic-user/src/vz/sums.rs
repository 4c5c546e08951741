//! Counters as Virtuozzo's commands show them: by container and class.

use std::collections::BTreeMap;

use traffic_common::{Family, Tally};
use traffic_model::{ByDirection, ContainerId, Snapshot};

use crate::vz::NODE;

/// A container with its sum in each class.
pub type ContainerSums = (ContainerId, BTreeMap<u8, ByDirection<Tally>>);

/// The sums of each container and class, in one family or both, in the order of the snapshot.
///
/// Of an id that was retired and reused, only the present owner. The node itself comes first, even if nothing
/// is counted for it, because scripts look for its row.
pub fn containers(snapshot: &Snapshot, family: Option<Family>) -> Vec<ContainerSums> {
    let mut rows: Vec<ContainerSums> = Vec::new();
    if let Ok(node) = ContainerId::new(NODE) {
        rows.push((node, BTreeMap::new()));
    }
    // Virtuozzo's commands know no owner that is unknown. `trafctl status` names them.
    for counter in snapshot.present_counters().into_iter().filter(|counter| !counter.container.is_pending()) {
        if rows.last().is_none_or(|(last, _)| *last != counter.container) {
            rows.push((counter.container, BTreeMap::new()));
        }
        let Some((_, sums)) = rows.last_mut() else { continue };
        let sum = sums.entry(counter.class).or_default();
        if family.is_none_or(|family| family == counter.family) {
            *sum += counter.tally;
        }
    }
    rows
}
