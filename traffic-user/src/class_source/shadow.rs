//! The shadow class table: which file it is of, and when it begins anew.
//!
//! [`crate::kernel::shadow`] has what counts. Here is what outlives it: the content of the file and where that came
//! from, in the state directory. As long as it is there, a shadow is wanted. Where none counts then, it begins anew:
//! another table was put in force, the counters moved to other maps, or the machine was started again. The figures
//! begin at 0, and the reason is kept, because a sum over two different comparisons would say nothing.
//!
//! Whoever begins or ends a shadow, or forgets that one is wanted, holds the [`LoadLock`]. The record follows what
//! counts: a command that was interrupted between the two leaves a shadow that is not the one of the record, which the
//! hash of the file shows.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use traffic_classes::ClassOrder;
use traffic_common::{SHADOW_VERSION, ShadowRecord};
use traffic_model::hex;

use super::gate::{Loaded, Origin};
use crate::{
    files,
    kernel::{
        bpffs::Bpffs,
        load,
        maps::Maps,
        shadow::{self, Shadow, ShadowCounter},
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
    /// Whether it has yet to begin anew for that reason. Its maps are removed before, and the reason with them.
    #[serde(default)]
    is_pending: bool,
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

    /// Whether this is what counts.
    pub fn is_of(&self, record: &ShadowRecord) -> bool {
        self.file_hash == hex(&record.file_hash)
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
///
/// # Errors
/// When there is a record that cannot be read, or was written by a later version.
pub fn kept(state_dir: &Path) -> anyhow::Result<Option<Kept>> {
    let path = state_dir.join(RECORD_FILE);
    let read = || -> anyhow::Result<Option<Kept>> {
        let Some(bytes) = state_file::read(&path, MOST_RECORD_BYTES)? else { return Ok(None) };
        let kept: Kept = serde_json::from_slice(&bytes)?;
        if kept.version > VERSION {
            bail!("it has version {}, and this trafctl reads {VERSION}", kept.version);
        }
        Ok(Some(kept))
    };
    read().with_context(|| {
        format!(
            "cannot read {}, which names the shadow class table that is wanted; `trafctl classes shadow FILE` begins \
             another one, and `trafctl classes shadow --drop` ends it",
            path.display()
        )
    })
}

/// What a failed start leaves behind, as long as no other shadow was ended for it.
pub const UNCHANGED: &str = "no shadow was begun, and what counts stays as it is";
/// And from then on.
const ENDED: &str = "the former shadow class table has ended, and no other one was begun; the daemon, or `trafctl \
                     classes load`, begins the former one anew";

/// Counts under this file from now on, beside the table in force. A shadow that counts already ends.
///
/// # Errors
/// When it cannot be built or kept. The error says whether another shadow has ended for it.
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
        is_pending: false,
        failed: None,
    };
    let prepared = prepare(bpffs, loading, loaded, progress).context(UNCHANGED)?;
    let left = {
        let _lock = bpffs.lock().context(UNCHANGED)?;
        let mut maps = load::open(bpffs).context(UNCHANGED)?;
        prepared.check(&maps).context(UNCHANGED)?;
        let left = if shadow::is_on(&maps).context(UNCHANGED)? { ENDED } else { UNCHANGED };
        shadow::end(&mut maps).and_then(|()| prepared.start(&mut maps)).context(left)?;
        left
    };
    let is_kept = keep(state_dir, &kept, Some(&loaded.origin.bytes));
    is_kept.context("cannot keep the class file of the shadow").context(left).inspect_err(|_| {
        // What led here explains more than a failure to clean up.
        if let Err(error) = end_maps(bpffs) {
            tracing::warn!("cannot end the shadow class table: {error:#}");
        }
    })
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
    // Again under the lock: it may have been ended, or begun, meanwhile.
    if !is_due(bpffs, state_dir)? {
        return Ok(false);
    }
    let Some(kept) = kept(state_dir)? else { return Ok(false) };
    let reason = reason(bpffs, &kept)?;
    let kept = Kept { begun_anew: Some(reason.clone()), is_pending: true, ..kept };
    keep(state_dir, &kept, None)?;
    // First, so that there is no memory for two of them.
    let prepared = end_maps(bpffs)
        .and_then(|()| kept.loaded(state_dir))
        .and_then(|loaded| prepare(bpffs, loading, &loaded, &|_, _| {}));
    // Files may be removed without the lock.
    if self::kept(state_dir)?.is_none_or(|now| now.file_hash != kept.file_hash) {
        return Ok(false);
    }
    let renewed = prepared.and_then(|prepared| {
        let _lock = bpffs.lock()?;
        let mut maps = load::open(bpffs)?;
        prepared.check(&maps)?;
        prepared.start(&mut maps)
    });
    let failed = renewed.as_ref().err().map(|error| format!("{error:#}"));
    let kept = Kept { is_pending: failed.is_some(), failed, ..kept };
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
    if kept(state_dir)?.is_none() {
        return Ok(false);
    }
    match load::open(bpffs) {
        // One that is not described, because its pins were removed, says nothing either.
        Ok(maps) => Ok(!shadow::is_on(&maps)?
            || shadow::last_record(bpffs)?.is_none_or(|record| record.version != SHADOW_VERSION)),
        Err(error) if load::is_lost(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Why the shadow that counted before counts no more.
fn reason(bpffs: &Bpffs, kept: &Kept) -> anyhow::Result<String> {
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
        // An attempt before this one has removed the maps.
        None if kept.is_pending => kept.begun_anew.as_deref().unwrap_or("it was interrupted"),
        _ => "the counters were created anew, as after a reboot",
    }
    .to_owned())
}

/// Ends the shadow, whether it counts or not, and forgets that one is wanted.
///
/// # Errors
/// When the kernel refuses, or a file cannot be removed.
pub fn end(bpffs: &Bpffs, state_dir: &Path, _loading: &LoadLock) -> anyhow::Result<()> {
    // First, so that a daemon does not begin it anew.
    remove_files(state_dir)?;
    match end_maps(bpffs) {
        // Nothing reads what is pinned beside counters that are gone.
        Err(error) if load::is_lost(&error) => bpffs.clear_shadow(),
        other => other,
    }
}

/// The same for a caller without the lock.
///
/// # Errors
/// As [`end`], and when the lock is not released in time.
pub fn end_waiting(bpffs: &Bpffs, state_dir: &Path) -> anyhow::Result<()> {
    if !bpffs.root().exists() {
        // There is no place for the lock, and nothing that others could begin.
        return remove_files(state_dir);
    }
    end(bpffs, state_dir, &LoadLock::take(bpffs)?)
}

/// Forgets that a shadow is wanted. A failure is logged.
pub fn forget(state_dir: &Path, _loading: &LoadLock) {
    if let Err(error) = remove_files(state_dir) {
        tracing::warn!("{error:#}");
    }
}

fn remove_files(state_dir: &Path) -> anyhow::Result<()> {
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

fn end_maps(bpffs: &Bpffs) -> anyhow::Result<()> {
    let _lock = bpffs.lock()?;
    shadow::end(&mut load::open(bpffs)?)
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

fn keep(state_dir: &Path, kept: &Kept, bytes: Option<&[u8]>) -> anyhow::Result<()> {
    let json = serde_json::to_vec_pretty(kept)?;
    let lock = StateLock::take(state_dir)?;
    if let Some(bytes) = bytes {
        lock.replace(COPY_FILE, bytes, files::MOST_CLASS_FILE_BYTES)?;
    }
    lock.replace(RECORD_FILE, &json, MOST_RECORD_BYTES)
}

/// The shadow that counts, and the record of its file. The two belong together by the hash of the file.
///
/// # Errors
/// When no shadow counts, or what it is cannot be read.
pub fn open(maps: &Maps, state_dir: &Path) -> anyhow::Result<(Shadow, Option<Kept>)> {
    let shadow = Shadow::open(maps)?.ok_or_else(|| not_counting(state_dir))?;
    let kept = kept_of(&shadow, state_dir);
    Ok((shadow, kept))
}

/// The same with what it has counted.
///
/// # Errors
/// As [`open`], and when a map cannot be read.
pub fn read(maps: &Maps, state_dir: &Path) -> anyhow::Result<(Shadow, Vec<ShadowCounter>, Option<Kept>)> {
    let (shadow, counters) = shadow::read(maps)?.ok_or_else(|| not_counting(state_dir))?;
    let kept = kept_of(&shadow, state_dir);
    Ok((shadow, counters, kept))
}

/// The record of the file of this shadow. One that cannot be read is logged.
fn kept_of(shadow: &Shadow, state_dir: &Path) -> Option<Kept> {
    let kept = kept(state_dir).unwrap_or_else(|error| {
        tracing::warn!("{error:#}");
        None
    });
    kept.filter(|kept| kept.is_of(shadow.record()))
}

fn not_counting(state_dir: &Path) -> anyhow::Error {
    match kept(state_dir) {
        Err(error) => error,
        Ok(None) => anyhow!("there is no shadow class table; `trafctl classes shadow FILE` begins one"),
        Ok(Some(kept)) => {
            let why = kept.failed.as_deref().unwrap_or("it is about to begin anew");
            anyhow!("the shadow class table of {} does not count now: {why}", kept.name())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_read_is_an_error_that_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = directory.path();
        assert_eq!(kept(state_dir).unwrap(), None);
        let good = Kept {
            version: VERSION,
            file: None,
            order: ClassOrder::default(),
            file_hash: "03".to_owned(),
            begun_anew: Some("[limits] was raised".to_owned()),
            is_pending: true,
            failed: None,
        };
        keep(state_dir, &good, None).unwrap();
        assert_eq!(kept(state_dir).unwrap(), Some(good.clone()));
        let later = serde_json::to_vec(&Kept { version: VERSION + 1, ..good }).unwrap();
        for (bytes, why) in
            [(&b"{"[..], "EOF"), (b"", "EOF"), (b"[]", "invalid"), (&later, "it has version 2")]
        {
            fs::write(state_dir.join(RECORD_FILE), bytes).unwrap();
            let error = format!("{:#}", kept(state_dir).unwrap_err());
            assert!(error.contains("which names the shadow class table that is wanted"), "{error}");
            assert!(error.contains("--drop` ends it: ") && error.contains(why), "{error}");
        }
    }
}
