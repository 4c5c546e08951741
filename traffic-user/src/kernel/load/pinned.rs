//! Opens what is pinned, and says why it may not be usable.

use std::{fs, io, thread, time::Duration};

use anyhow::{Context as _, bail};
use aya::{
    maps::{Array, Map, MapData},
    programs::ProgramInfo,
};
use traffic_common::{EGRESS_PROGRAM, INGRESS_PROGRAM, LAYOUT_VERSION, Meta, OLDEST_LAYOUT, set_state};

use crate::kernel::{
    bpffs::Bpffs,
    maps::{Maps, PINNED},
};

/// How often maps are opened until all of them are of one set.
const OPEN_ATTEMPTS: u32 = 10;
/// The pause between two attempts.
const OPEN_PAUSE: Duration = Duration::from_millis(1);

/// Why pinned state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Nothing is loaded here.
    #[error("nothing is loaded under {0}; run `trafctl attach`, which loads it")]
    NotLoaded(String),
    /// Some maps were removed, and the rest is of no use without them.
    #[error(
        "the counters under {root} cannot be read: {missing} has been removed; run `trafctl attach` or the \
         daemon, which create new counters"
    )]
    Damaged {
        /// The directory.
        root: String,
        /// The first map that is missing.
        missing: &'static str,
    },
    /// The maps have another layout.
    #[error(
        "the maps under {root} have layout {found}, and this trafctl needs {LAYOUT_VERSION}; read them with \
         the version that created them, then start over with `trafctl detach --purge --yes`, which deletes the \
         counters"
    )]
    Layout {
        /// The directory.
        root: String,
        /// The layout version that was found.
        found: u32,
    },
    /// The maps have an older layout, from which the counters are carried over.
    #[error(
        "the maps under {root} have layout {found}, and this trafctl needs {LAYOUT_VERSION}; run `trafctl \
         attach` or start the daemon, which carry the counters over"
    )]
    OlderLayout {
        /// The directory.
        root: String,
        /// The layout version that was found.
        found: u32,
    },
}

/// Whether an error means that the counters no longer exist.
pub fn is_lost(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StateError::NotLoaded(_) | StateError::Damaged { .. }))
}

/// Opens the maps for commands that only read.
///
/// # Errors
/// [`StateError`] when nothing (usable) is loaded; others when the maps cannot be opened.
pub fn open(bpffs: &Bpffs) -> anyhow::Result<Maps> {
    // The maps may be exchanged for others while they are opened one by one ([`super::carry_over`]).
    for _ in 1..OPEN_ATTEMPTS {
        let before = map_id(bpffs, "META");
        match (before, open_once(bpffs)) {
            (Ok(before), Ok(maps)) if map_id(bpffs, "META").is_ok_and(|after| after == before) => {
                return Ok(maps);
            }
            (_, Err(error)) if !(is_lost(&error) && bpffs.next().maps().exists()) => return Err(error),
            _ => thread::sleep(OPEN_PAUSE),
        }
    }
    open_once(bpffs)
}

fn open_once(bpffs: &Bpffs) -> anyhow::Result<Maps> {
    let root = || bpffs.root().display().to_string();
    match fs::exists(bpffs.map("META")) {
        Ok(true) => {}
        Ok(false) => return Err(StateError::NotLoaded(root()).into()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!("cannot open {}: permission denied; run as root", root())
        }
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", root())),
    }
    // An interrupted creation need not have left all maps, so this comes before the search for missing ones.
    if !is_ready(bpffs)? {
        return Err(StateError::NotLoaded(root()).into());
    }
    if let Some(missing) = PINNED.into_iter().find(|name| !bpffs.map(name).exists()) {
        return Err(StateError::Damaged { root: root(), missing }.into());
    }
    Maps::open(bpffs)
}

/// The kernel's id of the map that is pinned under this name.
pub(in crate::kernel) fn map_id(bpffs: &Bpffs, name: &str) -> anyhow::Result<u32> {
    let path = bpffs.map(name);
    MapData::from_pin(&path)
        .and_then(|data| data.info())
        .map(|info| info.id())
        .with_context(|| format!("cannot inspect {}", path.display()))
}

/// Whether the creation of the maps was completed. Refuses maps of another layout: the layout version is the
/// first field of `META` in every version, whatever its size.
fn is_ready(bpffs: &Bpffs) -> anyhow::Result<bool> {
    let path = bpffs.map("META");
    let data = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let info = data.info().with_context(|| format!("cannot inspect {}", path.display()))?;
    let found = if info.value_size() as usize == size_of::<Meta>() {
        let map = Map::from_map_data(data)?;
        let meta = Array::<&MapData, Meta>::try_from(&map)?.get(&0, 0)?;
        // An interrupted creation has left no version yet.
        if meta.ready == set_state::CREATING {
            return Ok(false);
        }
        meta.layout_version
    } else {
        0
    };
    if found == LAYOUT_VERSION {
        return Ok(true);
    }
    let root = bpffs.root().display().to_string();
    if (OLDEST_LAYOUT..LAYOUT_VERSION).contains(&found) {
        return Err(StateError::OlderLayout { root, found }.into());
    }
    Err(StateError::Layout { root, found }.into())
}

/// Returns what the kernel reports about the pinned programs, ingress first.
///
/// # Errors
/// When they are not pinned or cannot be opened.
pub fn program_infos(bpffs: &Bpffs) -> anyhow::Result<[ProgramInfo; 2]> {
    let info = |name| {
        let path = bpffs.program(name);
        ProgramInfo::from_pin(&path)
            .with_context(|| format!("cannot open the pinned program {}", path.display()))
    };
    Ok([info(INGRESS_PROGRAM)?, info(EGRESS_PROGRAM)?])
}
