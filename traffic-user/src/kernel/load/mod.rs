//! Finding the pinned program and maps, making them, or putting a newer program in place of an older one.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramInfo, SchedClassifier},
};
use sha2::{Digest as _, Sha256};
use traffic_classes::ClassTable;
use traffic_common::{
    Control, EGRESS_PROGRAM, INGRESS_MARK_PROGRAM, INGRESS_PROGRAM, InterfaceRecord, LAYOUT_VERSION, Meta,
    gso::SkbLayout, slot_state,
};

use crate::{
    config::{Config, Limits},
    kernel::{
        bpffs::{Bpffs, ChangeLock},
        maps::{Maps, PINNED, SHAPING_MARKS},
        memory, records, skb_layout, tables,
    },
    time,
};

/// The kernel program, as the build script compiled it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/trafctl-ebpf"));

/// Name under which the interface slot for strangers is shown.
pub const UNKNOWN_INTERFACE: &str = "(other)";

/// The two classifiers, loaded.
#[derive(Debug)]
pub struct Programs {
    /// Host-side ingress.
    pub ingress: SchedClassifier,
    /// Host-side egress.
    pub egress: SchedClassifier,
}

/// Why pinned state can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Nothing is loaded here.
    #[error("nothing is loaded under {0}; `trafctl attach` loads it")]
    NotLoaded(String),
    /// Some pins have been removed, and without them the rest is of no use.
    #[error(
        "{missing} has been removed under {root}: the counters can't be read any more; `trafctl attach` or the daemon makes new \
         ones"
    )]
    Damaged {
        /// The directory.
        root: String,
        /// The first map that is missing.
        missing: &'static str,
    },
    /// The maps are of another layout.
    #[error(
        "the maps under {root} have layout {found}, and this trafctl needs {LAYOUT_VERSION}: read them with the version that \
         made them, then start anew with `trafctl detach --purge`, which forgets the counters"
    )]
    Layout {
        /// The directory.
        root: String,
        /// Layout version found.
        found: u32,
    },
}

/// Whether an error means that the counters are no longer where they were.
pub fn is_lost(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StateError::NotLoaded(_) | StateError::Damaged { .. }))
}

/// The set of maps, for commands that only read.
///
/// # Errors
/// [`StateError`] when nothing (usable) is loaded; others when the maps may not be opened.
pub fn open(bpffs: &Bpffs) -> anyhow::Result<Maps> {
    let not_loaded = || StateError::NotLoaded(bpffs.root().display().to_string());
    match fs::exists(bpffs.map("META")) {
        Ok(true) => {}
        Ok(false) => return Err(not_loaded().into()),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot look into {} (are you root?)", bpffs.root().display()));
        }
    }
    // A set whose making was interrupted need not have all its maps.
    if !check_layout(bpffs)? {
        return Err(not_loaded().into());
    }
    if let Some(missing) = PINNED.into_iter().find(|name| !bpffs.map(name).exists()) {
        return Err(StateError::Damaged { root: bpffs.root().display().to_string(), missing }.into());
    }
    Maps::open(bpffs)
}

/// The layout version stands first in every version's `META`, whatever its size. Gives whether the set is ready.
fn check_layout(bpffs: &Bpffs) -> anyhow::Result<bool> {
    let path = bpffs.map("META");
    let data =
        aya::maps::MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let size =
        data.info().with_context(|| format!("cannot inspect {}", path.display()))?.value_size() as usize;
    let found = if size == size_of::<Meta>() {
        let map = aya::maps::Map::from_map_data(data)?;
        let meta = aya::maps::Array::<&aya::maps::MapData, Meta>::try_from(&map)?.get(&0, 0)?;
        // A set whose making was interrupted has no version yet.
        if meta.ready == 0 {
            return Ok(false);
        }
        meta.layout_version
    } else {
        0
    };
    if found == LAYOUT_VERSION {
        return Ok(true);
    }
    Err(StateError::Layout { root: bpffs.root().display().to_string(), found }.into())
}

/// Which program is wanted in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramChoice {
    /// This build's, and that of the two which the configuration asks for (with or without the shaping mark), unless a newer
    /// one is there.
    Current,
    /// Whatever is pinned: what a long-running process asks for, so that it does not undo an upgrade.
    Pinned,
    /// This build's, with a log line for each fault.
    Logging,
}

/// What [`ensure`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadOutcome {
    /// Everything was there.
    Found,
    /// The maps were made and the class table loaded.
    Created,
    /// Another version of the program took the pinned one's place; the links are still to be moved to it.
    Replaced,
}

/// Program and maps, ready for attaching.
#[derive(Debug)]
pub struct Loaded {
    /// The maps.
    pub maps: Maps,
    /// The programs to attach.
    pub programs: Programs,
    /// How they came about.
    pub outcome: LoadOutcome,
    /// The object that log lines of faults come from, when they were asked for.
    pub log: Option<Ebpf>,
    /// Why segmentation types can't be read, when the program had to be loaded without.
    pub skb_layout_error: Option<skb_layout::LayoutError>,
    /// The hash to be noted for a program just loaded.
    hash: [u8; 32],
}

/// What a program is loaded with.
#[derive(Clone, Copy)]
struct Build<'l> {
    limits: &'l Limits,
    log_faults: bool,
    shaping_mark: bool,
}

impl Build<'_> {
    /// The name in the object of the program for a container's ingress hook.
    const fn ingress(self) -> &'static str {
        if self.shaping_mark { INGRESS_MARK_PROGRAM } else { INGRESS_PROGRAM }
    }

    fn hash(self) -> [u8; 32] {
        // A program that writes log lines is never taken for the one everybody shares.
        if self.log_faults { [0; 32] } else { program_hash(self.shaping_mark) }
    }
}

/// A program just loaded, pinned beside the one in use.
struct Fresh {
    hash: [u8; 32],
    programs: Programs,
    log: Option<Ebpf>,
    skb_layout_error: Option<skb_layout::LayoutError>,
}

impl Fresh {
    fn loaded(self, maps: Maps, outcome: LoadOutcome) -> Loaded {
        let Self { hash, programs, log, skb_layout_error } = self;
        Loaded { maps, programs, outcome, log, skb_layout_error, hash }
    }
}

/// Finds or makes program and maps. `table` is asked for the class table only when the maps are made.
///
/// # Errors
/// When the kernel refuses program or maps, or pinned maps are of another layout. Nothing that was there is changed
/// then.
pub fn ensure(
    bpffs: &Bpffs,
    _lock: &ChangeLock,
    config: &Config,
    want: ProgramChoice,
    table: impl FnOnce() -> anyhow::Result<ClassTable>,
) -> anyhow::Result<Loaded> {
    let build = Build {
        limits: &config.limits,
        log_faults: want == ProgramChoice::Logging,
        shaping_mark: config.skb_mark,
    };
    let existing = match open(bpffs) {
        Ok(maps) => Some(maps),
        Err(error) if is_lost(&error) => {
            if matches!(error.downcast_ref(), Some(StateError::Damaged { .. })) {
                tracing::warn!("{error:#}");
            }
            None
        }
        Err(error) => return Err(error),
    };
    let Some(maps) = existing else {
        let table = table()?;
        tables::check_capacity(&table, build.limits.classes)?;
        // Leftovers of a making that was interrupted: never ready, so nothing was ever counted in them.
        bpffs.clear()?;
        return create(bpffs, build, &table).inspect_err(|_| {
            // Nothing half made is left; the error that led here says more than a failure of this would.
            if let Err(error) = bpffs.clear() {
                tracing::warn!("cleaning up: {error:#}");
            }
        });
    };
    let meta = maps.meta.get(0)?;
    let same = meta.program_hash == program_hash(build.shaping_mark);
    let newer = meta.program_version > version_number();
    if want == ProgramChoice::Current && newer {
        tracing::warn!("a newer trafctl has loaded its program here; it is left in place");
    }
    let whole = [INGRESS_PROGRAM, EGRESS_PROGRAM].into_iter().all(|name| bpffs.program(name).exists());
    if !whole {
        tracing::warn!(
            "a program has been removed under {}: this trafctl's takes its place; the counters go on",
            bpffs.root().display()
        );
    } else if maps.shaping_marks.is_some()
        && (want == ProgramChoice::Pinned || want == ProgramChoice::Current && (same || newer))
    {
        let programs = open_programs(|name| bpffs.program(name))?;
        let (outcome, hash) = (LoadOutcome::Found, meta.program_hash);
        return Ok(Loaded { maps, programs, outcome, log: None, skb_layout_error: None, hash });
    }
    // The pinned maps have their sizes; of those asked for here only that of a map which is missing is looked at.
    let limits = Limits { containers: meta.container_slots, ..*build.limits };
    let fresh = load_program(bpffs, Build { limits: &limits, ..build })?;
    Ok(fresh.loaded(Maps::open(bpffs)?, LoadOutcome::Replaced))
}

/// Puts a replaced program in the pinned one's place and notes its version: the last step of a replacement, after all
/// links run it, so that an interrupted one is taken up again.
///
/// # Errors
/// When renaming or writing fails.
pub fn finish_replacement(bpffs: &Bpffs, loaded: &mut Loaded) -> anyhow::Result<()> {
    publish_programs(bpffs)?;
    let mut meta = loaded.maps.meta.get(0)?;
    meta.program_hash = loaded.hash;
    meta.program_version = version_number();
    loaded.maps.meta.set(0, meta)
}

fn create(bpffs: &Bpffs, build: Build<'_>, table: &ClassTable) -> anyhow::Result<Loaded> {
    let limits = build.limits;
    memory::check(limits)?;
    let fresh = load_program(bpffs, build)?;
    let mut maps = Maps::open(bpffs)?;
    maps.control.set(0, Control { active_table: 0, columns: limits.classes })?;
    let now = time::unix_seconds();
    let mut unknown = InterfaceRecord {
        state: slot_state::IN_USE,
        generation: 1,
        container_slot: u32::MAX,
        shared: 1,
        attached_unix_s: now,
        ..records::EMPTY_INTERFACE
    };
    records::write_text(&mut unknown.name, UNKNOWN_INTERFACE);
    maps.interfaces.set(traffic_common::UNKNOWN_INTERFACE_SLOT, unknown)?;
    let mut meta = Meta {
        layout_version: LAYOUT_VERSION,
        ready: 0,
        epoch: time::random_number()?,
        created_unix_s: now,
        boot_id: time::boot_id()?,
        container_slots: limits.containers,
        interface_slots: limits.interfaces,
        columns: limits.classes,
        columns_used: 1,
        program_version: version_number(),
        program_hash: build.hash(),
        table_hash: [0; 32],
        table_loaded_unix_s: now,
        table_prefixes: 0,
        column_class: [0; 256],
    };
    maps.meta.set(0, meta)?;
    tables::prepare(&maps, table, &|_, _| {})?.switch(&mut maps)?;
    publish_programs(bpffs)?;
    meta = maps.meta.get(0)?;
    meta.ready = 1;
    maps.meta.set(0, meta)?;
    Ok(fresh.loaded(maps, LoadOutcome::Created))
}

/// Loads the program on the pinned maps, making those that are missing, and pins it beside the one in use.
fn load_program(bpffs: &Bpffs, build: Build<'_>) -> anyhow::Result<Fresh> {
    let Build { limits, log_faults, .. } = build;
    let (layout, skb_layout_error) = match skb_layout::of_running_kernel() {
        Ok(layout) => (layout, None),
        Err(error) => (SkbLayout::default(), Some(error)),
    };
    let counters =
        limits.containers.checked_mul(limits.classes).context("limits: containers * classes is too large")?;
    let log_level = if log_faults { u8::MAX } else { 0 };
    let paths: Vec<_> =
        PINNED.into_iter().chain([SHAPING_MARKS]).map(|name| (name, bpffs.map(name))).collect();
    let mut loader = EbpfLoader::new();
    loader
        .override_global("SKB_LAYOUT", &layout, true)
        .override_global("AYA_LOG_LEVEL", &log_level, true)
        .map_max_entries("ADDRESSES_V4", limits.addresses)
        .map_max_entries("ADDRESSES_V6", limits.addresses)
        .map_max_entries("CLASS_COUNTERS", counters)
        .map_max_entries("INTERFACE_COUNTERS", limits.interfaces)
        .map_max_entries("FAULT_COUNTERS", limits.interfaces)
        .map_max_entries("CLASS_BASES", counters)
        .map_max_entries("INTERFACE_BASES", limits.interfaces)
        .map_max_entries("FAULT_BASES", limits.interfaces)
        .map_max_entries("CONTAINERS", limits.containers)
        .map_max_entries(SHAPING_MARKS, limits.containers)
        .map_max_entries("INTERFACES", limits.interfaces);
    for (name, path) in &paths {
        loader.map_pin_path(name, path);
    }
    memory::lift_limit();
    let mut object = loader.load(OBJECT).context(
        "the kernel refused the maps; trafctl needs root (or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON), a kernel with BPF, \
         and memory for the counters (see [limits] in the configuration)",
    )?;
    for (name, in_object) in [(INGRESS_PROGRAM, build.ingress()), (EGRESS_PROGRAM, EGRESS_PROGRAM)] {
        let program =
            object.program_mut(in_object).with_context(|| format!("the object lacks program {in_object}"))?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load().with_context(|| format!("the kernel refused program {name}"))?;
        let path = fresh_program(bpffs, name);
        if fs::exists(&path)? {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        program.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
    }
    let programs = open_programs(|name| fresh_program(bpffs, name))?;
    Ok(Fresh { hash: build.hash(), programs, log: log_faults.then_some(object), skb_layout_error })
}

/// Where a program is pinned until it takes the pinned one's place.
fn fresh_program(bpffs: &Bpffs, name: &str) -> PathBuf {
    bpffs.program(&format!("{name}_fresh"))
}

/// Moves the fresh programs over the pinned ones, so that there is one at every instant.
fn publish_programs(bpffs: &Bpffs) -> anyhow::Result<()> {
    for name in [INGRESS_PROGRAM, EGRESS_PROGRAM] {
        let path = bpffs.program(name);
        fs::rename(fresh_program(bpffs, name), &path)
            .with_context(|| format!("cannot pin {}", path.display()))?;
    }
    Ok(())
}

fn open_programs(path: impl Fn(&str) -> PathBuf) -> anyhow::Result<Programs> {
    let open = |name| {
        let path = path(name);
        SchedClassifier::from_pin(&path)
            .with_context(|| format!("cannot open the pinned program {}", path.display()))
    };
    Ok(Programs { ingress: open(INGRESS_PROGRAM)?, egress: open(EGRESS_PROGRAM)? })
}

/// What the kernel says of the pinned programs, ingress first.
///
/// # Errors
/// When they are not pinned or may not be opened.
pub fn program_infos(bpffs: &Bpffs) -> anyhow::Result<[ProgramInfo; 2]> {
    let info = |name| {
        let path = bpffs.program(name);
        ProgramInfo::from_pin(&path)
            .with_context(|| format!("cannot open the pinned program {}", path.display()))
    };
    Ok([info(INGRESS_PROGRAM)?, info(EGRESS_PROGRAM)?])
}

/// SHA-256 that names this build's program: of the object built into this binary, and where the ingress program is the one
/// that writes the shaping mark, of that one's name after it.
pub fn program_hash(shaping_mark: bool) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(OBJECT);
    if shaping_mark {
        hash.update(INGRESS_MARK_PROGRAM);
    }
    hash.finalize().into()
}

/// Whether the program of this hash writes the shaping mark; `None` for one that is not this build's.
pub fn writes_shaping_mark(hash: &[u8; 32]) -> Option<bool> {
    [false, true].into_iter().find(|&shaping_mark| program_hash(shaping_mark) == *hash)
}

/// This build's version in one comparable number, as in [`Meta::program_version`].
pub fn version_number() -> u32 {
    let part = |text: &str| text.parse::<u32>().unwrap_or(0) & 0x3ff;
    part(env!("CARGO_PKG_VERSION_MAJOR")) << 20
        | part(env!("CARGO_PKG_VERSION_MINOR")) << 10
        | part(env!("CARGO_PKG_VERSION_PATCH"))
}

/// A version number as people write it.
pub fn version_text(number: u32) -> String {
    format!("{}.{}.{}", number >> 20, number >> 10 & 0x3ff, number & 0x3ff)
}
