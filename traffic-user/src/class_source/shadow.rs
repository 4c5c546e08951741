//! The shadow class table: which file it is of, and when it begins anew.
//!
//! [`crate::kernel::shadow`] has what counts. Here is what outlives it: the content of the file and where that came
//! from, in the state directory. As long as it is there, a shadow is wanted. Where none counts then, it begins anew:
//! another table was put in force, the counters moved to other maps, or the machine was started again. The figures
//! begin at 0, and the reason is kept, because a sum over two different comparisons would say nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use traffic_classes::ClassOrder;
use traffic_model::hex;

use super::gate::{Loaded, Origin};
use crate::{
    files,
    kernel::{
        bpffs::Bpffs,
        load,
        maps::Maps,
        shadow::{self, Shadow},
        tables::{LoadLock, Progress},
    },
    state_file::{self, StateLock},
};

/// Name of the record in the state directory.
const RECORD_FILE: &str = "shadow.json";
/// Name of the copy of the class file there.
const COPY_FILE: &str = "shadow-class-file";
/// Largest record, in bytes: a path and two sentences.
const MOST_RECORD_BYTES: u64 = 64 << 10;
/// The version of the record.
const VERSION: u32 = 1;

/// The shadow that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Kept {
    version: u32,
    /// The class file; `None` for standard input.
    pub file: Option<PathBuf>,
    /// The order under which it is compiled.
    pub order: ClassOrder,
    /// SHA-256 of the content.
    pub file_hash: String,
    /// Why it has begun anew, if it has.
    pub begun_anew: Option<String>,
    /// Why it does not count, if the last attempt failed.
    pub failed: Option<String>,
}

impl Kept {
    /// The content of the file, compiled. It is what was shadowed, whatever the file holds by now.
    ///
    /// # Errors
    /// When the copy is not there any more, or is another one.
    pub fn loaded(&self, state_dir: &Path) -> anyhow::Result<Loaded> {
        let path = state_dir.join(COPY_FILE);
        let bytes = state_file::read(&path, files::MOST_CLASS_FILE_BYTES)?.unwrap_or_default();
        if hex(&Sha256::digest(&bytes)) != self.file_hash {
            bail!(
                "{} is not the content of the shadow class table any more; `trafctl classes shadow FILE` begins another \
                 one",
                path.display()
            );
        }
        let file = traffic_classes::parse(&bytes);
        let table = traffic_classes::compile(&file.entries, self.order);
        let origin = Origin { path: self.file.clone(), by_name: true, order: self.order, bytes };
        Ok(Loaded { table, origin, file })
    }

    /// The file, for messages.
    pub fn name(&self) -> String {
        self.file.as_ref().map_or_else(|| "standard input".to_owned(), |path| path.display().to_string())
    }

    /// Whether the file holds something else by now; `None` if it cannot be read.
    pub fn file_changed(&self) -> Option<bool> {
        let bytes = files::read(self.file.as_ref()?, files::MOST_CLASS_FILE_BYTES).ok()?;
        Some(hex(&Sha256::digest(bytes)) != self.file_hash)
    }
}

/// The shadow that is wanted, if any.
pub fn kept(state_dir: &Path) -> Option<Kept> {
    let bytes = state_file::read(&state_dir.join(RECORD_FILE), MOST_RECORD_BYTES).ok()??;
    let kept: Kept = serde_json::from_slice(&bytes).ok()?;
    (kept.version <= VERSION).then_some(kept)
}

/// Counts under this file from now on, beside the table in force. A shadow that counts already ends.
///
/// # Errors
/// When it cannot be built or kept. Before it is built, nothing was changed.
pub fn begin(
    (bpffs, state_dir): (&Bpffs, &Path),
    loading: &LoadLock,
    loaded: &Loaded,
    progress: Progress<'_>,
) -> anyhow::Result<()> {
    let path = &loaded.origin.path;
    let kept = Kept {
        version: VERSION,
        file: path.as_ref().map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.clone())),
        order: loaded.origin.order,
        file_hash: hex(&Sha256::digest(&loaded.origin.bytes)),
        begun_anew: None,
        failed: None,
    };
    let prepared = prepare(bpffs, loading, loaded, progress)?;
    keep(state_dir, &kept, Some(&loaded.origin.bytes)).context("cannot keep the class file of the shadow")?;
    start(bpffs, prepared).inspect_err(|_| forget(state_dir))
}

/// Begins the shadow anew that is wanted and does not count. Returns whether it did.
///
/// # Errors
/// When it cannot be built. The reason is kept for `trafctl status`.
pub fn renew(bpffs: &Bpffs, state_dir: &Path) -> anyhow::Result<bool> {
    if !is_due(bpffs, state_dir)? {
        return Ok(false);
    }
    let loading = LoadLock::take(bpffs)?;
    renew_under(bpffs, state_dir, &loading)
}

/// The same for whoever loads a class table.
///
/// # Errors
/// As [`renew`].
pub fn renew_under(bpffs: &Bpffs, state_dir: &Path, loading: &LoadLock) -> anyhow::Result<bool> {
    let Some(kept) = kept(state_dir).filter(|_| is_due(bpffs, state_dir).unwrap_or(true)) else {
        return Ok(false);
    };
    let reason = reason(bpffs)?;
    let renewed = kept
        .loaded(state_dir)
        .and_then(|loaded| prepare(bpffs, loading, &loaded, &|_, _| {}))
        .and_then(|prepared| start(bpffs, prepared));
    let failed = renewed.as_ref().err().map(|error| format!("{error:#}"));
    let kept = Kept { begun_anew: Some(reason.clone()), failed, ..kept };
    keep(state_dir, &kept, None)?;
    renewed.context("the shadow class table does not count")?;
    tracing::warn!("the shadow class table of {} has begun anew: {reason}", kept.name());
    Ok(true)
}

/// Begins the shadow anew if it has to. A failure is logged: nothing that counts for bills depends on it.
pub fn renew_or_log(bpffs: &Bpffs, state_dir: &Path, loading: &LoadLock) {
    if let Err(error) = renew_under(bpffs, state_dir, loading) {
        tracing::error!("{error:#}");
    }
}

/// Whether a shadow is wanted, and none counts although there are counters.
fn is_due(bpffs: &Bpffs, state_dir: &Path) -> anyhow::Result<bool> {
    if kept(state_dir).is_none() {
        return Ok(false);
    }
    match load::open(bpffs) {
        // One that is not described, because its pins were removed, says nothing either.
        Ok(maps) => Ok(!shadow::is_on(&maps)? || shadow::last_record(bpffs)?.is_none()),
        Err(error) if load::is_lost(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Why the shadow that counted before counts no more.
fn reason(bpffs: &Bpffs) -> anyhow::Result<String> {
    let meta = load::open(bpffs)?.meta.get(0)?;
    let last = shadow::last_record(bpffs).ok().flatten();
    Ok(match last {
        Some(last) if last.epoch == meta.epoch && last.table_hash != meta.table_hash => {
            "another class table was put in force"
        }
        Some(last) if last.epoch == meta.epoch && last.container_slots != meta.container_slots => {
            "[limits] was raised"
        }
        Some(last) if last.epoch == meta.epoch => {
            "the counters moved to other maps, or the shadow was interrupted"
        }
        _ => "the counters were created anew, as after a reboot",
    }
    .to_owned())
}

/// Ends the shadow. Without counters, only its record is removed.
///
/// # Errors
/// When the kernel refuses, or a file cannot be removed.
pub fn end(bpffs: &Bpffs, state_dir: &Path, _loading: &LoadLock) -> anyhow::Result<()> {
    // First, so that a daemon does not begin it anew.
    remove(state_dir)?;
    let _lock = bpffs.lock()?;
    shadow::end(&mut load::open(bpffs)?)
}

/// Forgets that a shadow is wanted. A failure is logged.
pub fn forget(state_dir: &Path) {
    if let Err(error) = remove(state_dir) {
        tracing::warn!("{error:#}");
    }
}

fn remove(state_dir: &Path) -> anyhow::Result<()> {
    for name in [RECORD_FILE, COPY_FILE] {
        let path = state_dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn prepare(
    bpffs: &Bpffs,
    loading: &LoadLock,
    loaded: &Loaded,
    progress: Progress<'_>,
) -> anyhow::Result<shadow::Prepared> {
    let file_hash = Sha256::digest(&loaded.origin.bytes).into();
    shadow::prepare(loading, &load::open(bpffs)?, (&loaded.table, file_hash), progress)
}

fn start(bpffs: &Bpffs, prepared: shadow::Prepared) -> anyhow::Result<()> {
    let _lock = bpffs.lock()?;
    prepared.start(&mut load::open(bpffs)?)
}

fn keep(state_dir: &Path, kept: &Kept, bytes: Option<&[u8]>) -> anyhow::Result<()> {
    let json = serde_json::to_vec_pretty(kept)?;
    let lock = StateLock::take(state_dir)?;
    if let Some(bytes) = bytes {
        lock.replace(COPY_FILE, bytes, files::MOST_CLASS_FILE_BYTES)?;
    }
    lock.replace(RECORD_FILE, &json, MOST_RECORD_BYTES)
}

/// The shadow that counts, and the content of its file. The two belong together by the hash of the file.
///
/// # Errors
/// When no shadow counts, or what it is cannot be read.
pub fn open(maps: &Maps, state_dir: &Path) -> anyhow::Result<(Shadow, Option<Kept>)> {
    let kept = kept(state_dir);
    let Some(shadow) = Shadow::open(maps)? else {
        let Some(kept) = kept else {
            bail!("there is no shadow class table; `trafctl classes shadow FILE` begins one");
        };
        let why = kept.failed.as_deref().unwrap_or("it is about to begin anew");
        bail!("the shadow class table of {} does not count now: {why}", kept.name());
    };
    let of_record = |kept: &Kept| kept.file_hash == hex(&shadow.record().file_hash);
    let kept = kept.filter(of_record);
    Ok((shadow, kept))
}
