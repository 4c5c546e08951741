//! The drop program: what the kernel drops behind the hooks, per container, class, direction and group of reasons.
//!
//! | file | owns |
//! |---|---|
//! | this one | whether a program counts drops, and why not |
//! | `layout` | offsets in the kernel's structures, and what the kernel lacks |
//! | `program` | loading the program, and one taking over from another |
//! | `read` | reading the counters |
//! | `reasons` | the group of each reason |
//!
//! All of it is optional: a failure here is recorded and reported, and never stops counting. Everything is pinned
//! in [`Bpffs::drops`], so drops are counted without the daemon too:
//!
//! | pin | contents |
//! |---|---|
//! | `DROP_COUNTERS`, `DROP_FAULT_COUNTERS`, `DROP_CONTROL`, `DROP_PLACES` | the maps of `traffic-ebpf/src/drops/maps.rs` |
//! | `link-NUMBER` | the attachment of the program with this number |
//! | `refused` | a symbolic link that holds the reason why no program could be loaded |

mod layout;
mod program;
mod read;
mod reasons;

pub use layout::lacks_text;
pub use program::ensure;
pub use read::{DropRow, Drops, read};

use std::{fs, io, os::unix::fs::symlink, path::PathBuf};

use traffic_common::{DROPS_VERSION, DropControl};

use super::{bpffs::Bpffs, maps::Elements, sys::pins};

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
    /// The kernel refused the program, or lacks what it needs.
    Refused(String),
    /// No program is attached.
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

fn open_map(bpffs: &Bpffs, name: &str) -> anyhow::Result<Option<aya::maps::Map>> {
    match pins::open(&bpffs.drops().join(name))? {
        Some(object) => Ok(Some(aya::maps::Map::from_map_data(aya::maps::MapData::from_fd(object)?)?)),
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
    for entry in fs::read_dir(bpffs.drops())? {
        let name = entry?.file_name();
        let number: Option<u32> = name.to_str().and_then(|name| name.strip_prefix(LINK)?.parse().ok());
        numbers.extend(number);
    }
    Ok(numbers)
}

/// Records why there is no program, for `status`, and which program that is about.
fn record_refusal(bpffs: &Bpffs, program: &str, reason: &str) -> io::Result<()> {
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
