//! Reads all counters from the maps into a [`Snapshot`]: the only way from the maps to output and ledger.
//!
//! | file | owns |
//! |---|---|
//! | this one | one consistent reading: who owns which slot, and in which order the parts are read |
//! | `classes` | the counters of containers and classes |
//! | `interfaces` | the totals and faults of interfaces |
//! | `arithmetic` | sums over CPUs, and differences |
//! | `bases` | the base of a slot: what it held before its present owner |
//! | `attached` | which slot counts for which interface |
//! | [`live`] | what some containers counted since a reading, from their slots alone |
//! | `missed` | the comparison with the kernel's statistics of an interface |
//! | [`bypass`] | what they show that passed an attached program unseen |
//! | [`excess`] | the opposite: more counted than the kernel shows |

mod arithmetic;
mod attached;
mod bases;
pub mod bypass;
mod classes;
pub mod excess;
mod interfaces;
pub mod live;
mod missed;

use arithmetic::sum;
pub(in crate::kernel) use arithmetic::{Counters, since, totals};
pub use attached::attached;
pub use bases::{
    all_interfaces_totals, interface_totals, interfaces_totals, rebase_container, rebase_interface,
};
pub(in crate::kernel) use classes::natural;
pub use missed::{Buffers, SinceAttach, is_missed, since_attach};

use aya::Pod;
use traffic_common::{ContainerRecord, FAULTS, InterfaceRecord, Meta, Tally};
use traffic_model::{ByDirection, ClassTableInfo, Snapshot};

use crate::{
    kernel::{
        maps::{Elements, Maps},
        records::{EMPTY_CONTAINER, EMPTY_INTERFACE},
    },
    time,
};

/// Reads all counters.
///
/// # Errors
/// When a map cannot be read.
pub fn read(maps: &Maps, node: &str) -> anyhow::Result<Snapshot> {
    read_with(maps, node, classes::read)
}

/// Reads all counters except what each container has in which class, for those who need only the balance:
/// `former` includes all classes, and `counters` is empty.
///
/// # Errors
/// When a map cannot be read.
pub fn read_without_containers(maps: &Maps, node: &str) -> anyhow::Result<Snapshot> {
    read_with(maps, node, classes::read_sums)
}

fn read_with(maps: &Maps, node: &str, classes: ReadClasses) -> anyhow::Result<Snapshot> {
    loop {
        let before = Owners::read(maps)?;
        let snapshot = read_once(maps, node, &before, classes)?;
        if !before.changed_hands(&before.read_again(maps)?) {
            return Ok(snapshot);
        }
    }
}

/// Who owns which slot.
struct Owners {
    containers: Vec<ContainerRecord>,
    interfaces: Vec<InterfaceRecord>,
}

impl Owners {
    fn read(maps: &Maps) -> anyhow::Result<Self> {
        Ok(Self {
            containers: head(&maps.containers, |record| record.generation)?,
            interfaces: used_interface_records(maps)?,
        })
    }

    /// Reads again the slots that had an owner.
    fn read_again(&self, maps: &Maps) -> anyhow::Result<Self> {
        Ok(Self {
            containers: maps.containers.range(0, self.container_slots_used()?)?,
            interfaces: maps.interfaces.range(0, self.interface_slots_used()?)?,
        })
    }

    /// Whether a slot that was read has another owner by now, or none, or its pending owner is known by now: its
    /// counters would be shown under the wrong name. A slot that never had an owner was not read. Its first owner may come at any time, and a
    /// thousand may come one after the other.
    fn changed_hands(&self, now: &Self) -> bool {
        let interface = |record: &InterfaceRecord| (record.state, record.generation, record.container);
        let mut interfaces = self.interfaces.iter().zip(&now.interfaces);
        containers_changed(&self.containers, &now.containers)
            || interfaces.any(|(before, now)| before.generation != 0 && interface(before) != interface(now))
    }

    /// Number of container slots up to the last one that ever had an owner. Slots are given out from the
    /// first on, so these are a short head of the map, which is read in one go.
    fn container_slots_used(&self) -> anyhow::Result<u32> {
        used(&self.containers, |record| record.generation)
    }

    /// The same for interface slots.
    fn interface_slots_used(&self) -> anyhow::Result<u32> {
        used(&self.interfaces, |record| record.generation)
    }
}

/// [`Owners::changed_hands`] of container slots.
pub(in crate::kernel) fn containers_changed(before: &[ContainerRecord], now: &[ContainerRecord]) -> bool {
    let owner = |record: &ContainerRecord| (record.state, record.generation, record.id);
    before.iter().zip(now).any(|(before, now)| before.generation != 0 && owner(before) != owner(now))
}

/// The owners of all container slots.
///
/// # Errors
/// When the map cannot be read.
pub fn container_records(maps: &Maps) -> anyhow::Result<Vec<ContainerRecord>> {
    let mut records = head(&maps.containers, |record| record.generation)?;
    records.resize(maps.containers.len() as usize, EMPTY_CONTAINER);
    Ok(records)
}

/// The owners of all interface slots.
///
/// # Errors
/// When the map cannot be read.
pub fn interface_records(maps: &Maps) -> anyhow::Result<Vec<InterfaceRecord>> {
    let mut records = used_interface_records(maps)?;
    records.resize(maps.interfaces.len() as usize, EMPTY_INTERFACE);
    Ok(records)
}

/// The owners of the interface slots up to the last that ever had one, and a few more.
///
/// # Errors
/// When the map cannot be read.
pub fn used_interface_records(maps: &Maps) -> anyhow::Result<Vec<InterfaceRecord>> {
    head(&maps.interfaces, |record| record.generation)
}

/// Reads records up to a part of them that never had an owner. Slots are given out from the first on.
fn head<R: Pod>(records: &Elements<R>, generation: impl Fn(&R) -> u32) -> anyhow::Result<Vec<R>> {
    const PART: u32 = 512;
    let mut read = Vec::new();
    for first in (0..records.len()).step_by(PART as usize) {
        read.extend(records.range(first, PART.min(records.len() - first))?);
        if read.last().is_some_and(|record| generation(record) == 0) {
            break;
        }
    }
    Ok(read)
}

fn used<R>(records: &[R], generation: impl Fn(&R) -> u32) -> anyhow::Result<u32> {
    let last = records.iter().rposition(|record| generation(record) != 0);
    Ok(u32::try_from(last.map_or(0, |last| last + 1))?)
}

/// Adds the counters of classes to a snapshot.
type ReadClasses = fn(&Maps, &Meta, &Owners, &mut Snapshot) -> anyhow::Result<()>;

fn read_once(maps: &Maps, node: &str, owners: &Owners, classes: ReadClasses) -> anyhow::Result<Snapshot> {
    let meta = stable_meta(maps)?;
    let mut snapshot = Snapshot {
        node: node.to_owned(),
        boot_id: String::from_utf8_lossy(&meta.boot_id).into_owned(),
        epoch: meta.epoch,
        epoch_created: time::timestamp(meta.created_unix_s),
        time: time::now()?,
        boottime_ns: time::boottime_ns(),
        class_table: table_info(&meta),
        counters: Vec::new(),
        faults: Vec::new(),
        interfaces: Vec::new(),
        former: ByDirection::default(),
        former_faults: [Tally::default(); FAULTS],
        former_estimated: Tally::default(),
        former_small_segments: Tally::default(),
        former_copies: Tally::default(),
        drops: None,
    };
    // The parts are not read at one instant. Read before the classes, the interfaces' totals hold nothing
    // that the classes lack: whatever is reported as accounted for is in the sums.
    let earlier = interfaces::totals(maps, owners)?;
    classes(maps, &meta, owners, &mut snapshot)?;
    interfaces::read(maps, owners, &earlier, &mut snapshot)?;
    Ok(snapshot)
}

/// Describes the class table in force.
///
/// # Errors
/// When the map cannot be read.
pub fn class_table(maps: &Maps) -> anyhow::Result<ClassTableInfo> {
    stable_meta(maps).map(|meta| table_info(&meta))
}

fn table_info(meta: &Meta) -> ClassTableInfo {
    ClassTableInfo {
        hash: meta.table_hash,
        loaded: time::timestamp(meta.table_loaded_unix_s),
        prefixes: meta.table_prefixes,
    }
}

/// Reads the description of the maps until two readings agree, so that no writer changed it halfway.
fn stable_meta(maps: &Maps) -> anyhow::Result<Meta> {
    let mut meta = maps.meta.get(0)?;
    loop {
        let again = maps.meta.get(0)?;
        if again == meta {
            return Ok(meta);
        }
        meta = again;
    }
}
