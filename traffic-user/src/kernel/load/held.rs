//! The pinned maps and programs that the daemon holds open, so that it can pin them again.
//!
//! Pins can vanish under a running daemon: another file system is mounted over them, or the directory is
//! renamed or removed. The maps live on, and so do hooks whose links are still pinned out of sight. If the
//! daemon then made new maps, both sets would count the same packets, and the first would be recorded in full
//! when its directory came back. So it pins what it holds where the pins should be, and counting goes on in
//! the same maps, under the same epoch.
//!
//! A purge marks its maps ([`super::purge`]), so that nothing comes back that an operator deleted.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::DirEntryExt as _,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use aya::maps::{Map, MapData};
use traffic_common::{EGRESS_PROGRAM, INGRESS_PROGRAM, Meta, set_state};

use super::pinned::map_id;
use crate::kernel::{
    bpffs::Bpffs,
    change_lock::ChangeLock,
    drops,
    maps::{CLASS_ROWS, OPTIONAL, PINNED},
    sys::pins,
};

/// What this process holds open. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Mutex<BTreeMap<PathBuf, Object>>>);

/// A map or program, and the inode of the pin it was opened from.
#[derive(Debug)]
struct Object {
    inode: u64,
    object: OwnedFd,
}

/// What [`Held::restore`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// All pins are where they should be, or nothing is held.
    Nothing,
    /// Pins were missing.
    Pins,
    /// Another set of maps is there.
    Other,
}

impl Held {
    /// Opens what is pinned now, unless it is held already. The caller has opened the maps, and holds the
    /// lock.
    ///
    /// # Errors
    /// When a pin cannot be opened.
    pub fn hold(&self, bpffs: &Bpffs, _lock: &ChangeLock) -> anyhow::Result<()> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inodes = BTreeMap::new();
        for directory in [bpffs.maps(), bpffs.programs(), bpffs.drops()] {
            let entries = match fs::read_dir(&directory) {
                // Drops are optional.
                Err(error) if error.kind() == io::ErrorKind::NotFound && directory == bpffs.drops() => {
                    continue;
                }
                other => other.with_context(|| format!("cannot list {}", directory.display()))?,
            };
            for entry in entries {
                let entry = entry?;
                if is_held(&entry.file_name().to_string_lossy()) {
                    inodes.insert(entry.path(), entry.ino());
                }
            }
        }
        held.retain(|path, object| inodes.get(path) == Some(&object.inode));
        for (path, inode) in inodes {
            if held.contains_key(&path) {
                continue;
            }
            let object = pins::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            if let Some(object) = object {
                held.insert(path, Object { inode, object });
            }
        }
        Ok(())
    }

    /// Pins what is held and no longer pinned. Does nothing where another set of maps is pinned, or the set
    /// was purged.
    ///
    /// # Errors
    /// When an object cannot be pinned.
    pub fn restore(&self, bpffs: &Bpffs, _lock: &ChangeLock) -> anyhow::Result<Restored> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let meta_path = bpffs.map("META");
        let Some(meta) = held.get(&meta_path) else { return Ok(Restored::Nothing) };
        let meta = open_meta(&meta.object)?;
        if meta.state != set_state::READY {
            held.clear();
            return Ok(Restored::Nothing);
        }
        if fs::exists(&meta_path)? && map_id(bpffs, "META")? != meta.id {
            if pinned_state(bpffs)? != set_state::CREATING {
                held.clear();
                return Ok(Restored::Other);
            }
            // Nothing was ever counted in it.
            bpffs.clear()?;
        }
        let is_missing = !fs::exists(&meta_path)?;
        let mut restored = if is_missing { Restored::Pins } else { Restored::Nothing };
        // Another process may have replaced the drop program, whose link goes with it.
        let are_drops_hidden = !fs::exists(bpffs.drops().join(drops::CONTROL))?;
        // `META` goes last: until then, nothing seems to be loaded.
        let places = held.iter().filter(|(path, _)| is_place(path));
        let others = held.iter().filter(|(path, _)| {
            !is_place(path) && **path != meta_path && (are_drops_hidden || !path.starts_with(bpffs.drops()))
        });
        for (path, object) in others.chain(held.get_key_value(&meta_path)) {
            if !fs::exists(path)? {
                pin(path, object)?;
                restored = Restored::Pins;
            }
        }
        for (path, object) in places {
            restore_place(path, object, is_missing)?;
        }
        if restored == Restored::Pins {
            tracing::warn!(
                "the pins under {} were removed or hidden; they are in place again, and the counters continue",
                bpffs.root().display()
            );
        }
        Ok(restored)
    }
}

/// Whether a pin of this name belongs to the set.
fn is_held(name: &str) -> bool {
    PINNED.contains(&name)
        || OPTIONAL.contains(&name)
        || [INGRESS_PROGRAM, EGRESS_PROGRAM].contains(&name)
        || is_place(Path::new(name))
        || drops::is_kept(name)
}

/// Whether this is the pin of the prefixes in one of the two places.
fn is_place(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| CLASS_ROWS.contains(&name))
}

fn pin(path: &Path, object: &Object) -> anyhow::Result<()> {
    pins::pin(object.object.as_fd(), path).with_context(|| format!("cannot pin {}", path.display()))
}

/// Pins the prefixes of a class table again, unless another command has loaded a later one: a later map has a
/// higher id. A place without prefixes has no table, unless everything is missing.
fn restore_place(path: &Path, object: &Object, is_missing: bool) -> anyhow::Result<()> {
    if fs::exists(path)? {
        let pinned = MapData::from_pin(path)?.info()?.id();
        if MapData::from_fd(object.object.try_clone()?)?.info()?.id() <= pinned {
            return Ok(());
        }
        fs::remove_file(path).with_context(|| format!("cannot unpin {}", path.display()))?;
    } else if !is_missing {
        return Ok(());
    }
    pin(path, object)
}

struct MetaOfSet {
    id: u32,
    state: u32,
}

fn open_meta(object: &OwnedFd) -> anyhow::Result<MetaOfSet> {
    let data = MapData::from_fd(object.try_clone()?)?;
    let id = data.info()?.id();
    let map = Map::from_map_data(data)?;
    let meta = aya::maps::Array::<&MapData, Meta>::try_from(&map)?.get(&0, 0)?;
    Ok(MetaOfSet { id, state: meta.ready })
}

fn pinned_state(bpffs: &Bpffs) -> anyhow::Result<u32> {
    let path = bpffs.map("META");
    match pins::open(&path)? {
        // Another layout has another size: it is somebody's.
        Some(object) => Ok(open_meta(&object).map_or(set_state::READY, |meta| meta.state)),
        None => Err(io::Error::from(io::ErrorKind::NotFound))
            .with_context(|| format!("cannot open {}", path.display())),
    }
}
