//! The drop program: what the kernel drops behind the hooks, per container, class, direction and group of reasons.
//!
//! | file | owns |
//! |---|---|
//! | this one | whether a program counts drops, and why not |
//! | `layout` | offsets in the kernel's structures, and what the kernel lacks |
//! | `loading` | when the program is loaded, and in which steps one takes over from another |
//! | `program` | these steps, on the running kernel |
//! | `read` | reading the counters |
//! | `reasons` | the group of each reason |
//!
//! All of it is optional: a failure here is recorded and reported, and never stops counting. Only the daemon loads
//! the program, because that takes long. Everything is pinned in [`Bpffs::drops`], so drops are counted after the
//! daemon's end too:
//!
//! | pin | contents |
//! |---|---|
//! | `DROP_COUNTERS`, `DROP_FAULT_COUNTERS`, `DROP_CONTROL`, `DROP_PLACES` | the maps of `traffic-ebpf/src/drops/maps.rs` |
//! | `link-NUMBER` | the attachment of the program with this number |
//! | `refused` | a symbolic link that holds the reason why no program could be loaded |

pub(in crate::kernel) mod layout;
mod loading;
mod program;
mod read;
mod reasons;

pub use layout::lacks_text;
pub use loading::Outcome;
pub use read::{Drops, read};

use std::{fs, io, os::unix::fs::symlink, path::PathBuf};

use anyhow::Context as _;
use aya::maps::{HashMap, Map, MapData};
use traffic_common::{DROPS_VERSION, DropControl, DropFault, DropKey, Tally};

use super::{
    bpffs::Bpffs,
    change_lock::ChangeLock,
    counters,
    load::{Held, map_id},
    maps::{Elements, Maps},
    sys::pins,
};

/// Names of the maps of the drop program.
const MAPS: [&str; 4] = ["DROP_COUNTERS", "DROP_FAULT_COUNTERS", "DROP_CONTROL", "DROP_PLACES"];
/// What the names of links begin with.
const LINK: &str = "link-";
/// Name of the map that says which program counts.
pub(in crate::kernel) const CONTROL: &str = MAPS[2];
/// Name of the pin that says why no program could be loaded.
const REFUSED: &str = "refused";
/// Most bytes of that reason. The kernel's limit on a symbolic link is higher.
const REASON_BYTES: usize = 1000;

/// Whether drops are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DropState {
    /// A program counts them.
    Counting(DropControl),
    /// A program of another version of trafctl counts them, in maps that this one cannot read.
    OtherVersion(u32),
    /// The kernel refused the program, or lacks what it needs, or the last attempt to load it failed.
    Refused(String),
    /// No program is attached, or not yet.
    Off,
}

/// Whether drops are counted under these pins.
///
/// # Errors
/// When a pin exists and cannot be read.
pub fn state(bpffs: &Bpffs) -> anyhow::Result<DropState> {
    if let Some(control) = control(bpffs)? {
        // Zeros are those of maps whose program was refused.
        if control.version != DROPS_VERSION && control.version != 0 {
            return Ok(DropState::OtherVersion(control.version));
        }
        if control.active != 0 && fs::exists(link_pin(bpffs, control.active))? {
            return Ok(DropState::Counting(control));
        }
    }
    Ok(match refusal(bpffs) {
        Some((_, reason)) => DropState::Refused(reason),
        None => DropState::Off,
    })
}

/// Makes sure that drops are counted. For a thread that may wait: the verifier takes up to a second, and minutes on
/// an emulated machine. `held` gets what is loaded. `replaces` says whether a program of another version is to be
/// replaced.
///
/// # Errors
/// When something failed that may work later. It is recorded for `status`.
pub fn load(bpffs: &Bpffs, held: &Held, replaces: bool) -> anyhow::Result<Outcome> {
    loading::ensure(&mut program::Kernel { bpffs, held }, replaces)
}

/// Removes program and counters where drops are not to be counted, and otherwise makes room for new counters. Loads
/// nothing, and takes little time. A failure is logged: nothing here stops counting.
pub fn tend(bpffs: &Bpffs, _lock: &ChangeLock, maps: &Maps, enabled: bool) {
    let done = if enabled { make_room(bpffs, maps) } else { remove_all(bpffs) };
    if let Err(error) = done {
        tracing::warn!("cannot tend the counters of drops: {error:#}");
    }
}

/// Whether the program reads other counters than those in use, because these moved to other maps.
pub fn is_outdated(bpffs: &Bpffs, control: &DropControl) -> bool {
    map_id(bpffs, "META").is_ok_and(|id| id != control.meta_map_id)
}

/// Detaches the program and removes its counters: without it they would seem to say that nothing is dropped.
fn remove_all(bpffs: &Bpffs) -> anyhow::Result<()> {
    let directory = bpffs.drops();
    if !directory.exists() {
        return Ok(());
    }
    // The links first, then what they need.
    for number in attached(bpffs)? {
        remove(&link_pin(bpffs, number))?;
    }
    for entry in fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let path = entry?.path();
        remove(&path).with_context(|| format!("cannot unpin {}", path.display()))?;
    }
    Ok(())
}

/// Removes the counters of former owners of slots, once there was no room for one.
fn make_room(bpffs: &Bpffs, maps: &Maps) -> anyhow::Result<()> {
    if !matches!(state(bpffs)?, DropState::Counting(_)) {
        return Ok(());
    }
    let Some(faults) = open_map(bpffs, "DROP_FAULT_COUNTERS")? else { return Ok(()) };
    let faults = Elements::<Tally>::new("DROP_FAULT_COUNTERS", faults)?;
    if faults.get(DropFault::TableFull as u32)?.is_zero() {
        return Ok(());
    }
    let Some(map) = open_map(bpffs, "DROP_COUNTERS")? else { return Ok(()) };
    let mut map = HashMap::<MapData, DropKey, Tally>::try_from(map)?;
    let owners = counters::container_records(maps)?;
    let keys: Vec<DropKey> = map.keys().collect::<Result<_, _>>()?;
    for key in keys {
        let is_current =
            owners.get(key.slot as usize).is_some_and(|owner| owner.generation == key.generation);
        if !is_current {
            map.remove(&key).context("cannot remove a drop counter")?;
        }
    }
    Ok(())
}

/// Which program was refused, and why.
fn refusal(bpffs: &Bpffs) -> Option<(String, String)> {
    let recorded = fs::read_link(bpffs.drops().join(REFUSED)).ok()?;
    let (program, reason) = recorded.to_str()?.split_once(' ')?;
    Some((program.to_owned(), reason.to_owned()))
}

/// What is recorded of the program that counts; `None` without maps.
fn control(bpffs: &Bpffs) -> anyhow::Result<Option<DropControl>> {
    let Some(map) = open_map(bpffs, "DROP_CONTROL")? else { return Ok(None) };
    match Elements::<DropControl>::new("DROP_CONTROL", map) {
        Ok(elements) => elements.get(0).map(Some),
        // Another version has another size.
        Err(_) => Ok(Some(DropControl { version: u32::MAX, ..DropControl::default() })),
    }
}

fn open_map(bpffs: &Bpffs, name: &str) -> anyhow::Result<Option<Map>> {
    match pins::open(&bpffs.drops().join(name))? {
        Some(object) => Ok(Some(Map::from_map_data(MapData::from_fd(object)?)?)),
        None => Ok(None),
    }
}

/// Whether a pin of this name belongs to the drop program, and is worth keeping when it is hidden.
pub(in crate::kernel) fn is_kept(name: &str) -> bool {
    MAPS.contains(&name) || name.starts_with(LINK)
}

fn link_pin(bpffs: &Bpffs, number: u32) -> PathBuf {
    bpffs.drops().join(format!("{LINK}{number}"))
}

/// The numbers of all programs that are attached.
fn attached(bpffs: &Bpffs) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    let entries = match fs::read_dir(bpffs.drops()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(numbers),
        other => other?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let number: Option<u32> = name.to_str().and_then(|name| name.strip_prefix(LINK)?.parse().ok());
        numbers.extend(number);
    }
    Ok(numbers)
}

/// Records why there is no program, for `status`, and which program that is about.
fn record_failure(bpffs: &Bpffs, program: &str, reason: &str) -> io::Result<()> {
    let path = bpffs.drops().join(REFUSED);
    remove(&path)?;
    let end = reason.floor_char_boundary(REASON_BYTES);
    symlink(format!("{program} {}", &reason[..end]), path)
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
