//! Opens the pinned program and maps, creates them, or replaces an older program with a newer one.
//!
//! | file | owns |
//! |---|---|
//! | this one | which of these to do, and the steps of creation and replacement |
//! | `carry_over` | carrying the counters over to maps of another size or layout |
//! | `former_classes` | reading the class table of an older layout |
//! | `former_counters` | reading the counters of the set before, also of an older layout |
//! | `held` | the maps and programs that a daemon holds open, to pin them again |
//! | `pinned` | opening what is pinned, and why it may not be usable |
//! | `program` | loading this build's program on the pinned maps, and its version |

mod carry_over;
mod former_classes;
mod former_counters;
mod held;
mod pinned;
mod program;

pub use carry_over::limits_in_force;
pub use held::{Held, Restored};
pub(in crate::kernel) use pinned::map_id;
pub use pinned::{StateError, is_lost, open, program_infos};
pub use program::{program_hash, version_number, version_text, writes_skb_mark};

use anyhow::Context as _;
use aya::{Ebpf, programs::SchedClassifier};
use traffic_classes::ClassTable;
use traffic_common::{
    Control, EGRESS_PROGRAM, INGRESS_PROGRAM, InterfaceRecord, LAYOUT_VERSION, Meta, set_state, slot_state,
};

use self::carry_over::Former;
use self::program::{Build, Fresh, load_program, open_programs, publish_programs};
use crate::{
    config::{Config, Limits},
    kernel::{
        bpffs::Bpffs, change_lock::ChangeLock, maps::Maps, memory, records, shadow, skb_layout, tables,
    },
    time,
};

/// The name shown for the slot of interfaces that have no slot of their own.
pub const UNKNOWN_INTERFACE: &str = "(other)";

/// Which program the caller wants in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramChoice {
    /// This build's, in the variant that the configuration asks for (with or without the skb mark),
    /// unless a newer one is pinned.
    Current,
    /// Whatever is pinned. A long-running process asks for this, so that it does not undo an upgrade.
    Pinned,
    /// This build's, with a log line for each fault.
    Logging,
}

/// What [`ensure`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadOutcome {
    /// Everything was there.
    Found,
    /// The maps were created and the class table loaded.
    Created,
    /// Another version of the program is to replace the pinned one. The links still run the old program.
    Replaced,
}

/// The two classifiers, loaded.
#[derive(Debug)]
pub struct Programs {
    /// Host-side ingress.
    pub ingress: SchedClassifier,
    /// Host-side egress.
    pub egress: SchedClassifier,
}

/// Program and maps, ready for attaching.
#[derive(Debug)]
pub struct Loaded {
    /// The maps.
    pub maps: Maps,
    /// The programs to attach.
    pub programs: Programs,
    /// Whether they were found, created or replaced.
    pub outcome: LoadOutcome,
    /// The object that sends the log lines of faults, if these were asked for.
    pub log: Option<Ebpf>,
    /// Why the program was loaded without access to segmentation types, if it was.
    pub skb_layout_error: Option<skb_layout::LayoutError>,
    /// The hash of the program, to be recorded by [`finish_replacement`].
    hash: [u8; 32],
    /// The maps whose counters [`finish_replacement`] carries over.
    former: Option<Former>,
}

impl Loaded {
    fn from_fresh(fresh: Fresh, maps: Maps, outcome: LoadOutcome) -> Self {
        let Fresh { hash, programs, log, skb_layout_error } = fresh;
        Self { maps, programs, outcome, log, skb_layout_error, hash, former: None }
    }
}

/// Opens the pinned program and maps, or creates them. `table` provides the class table for new maps; it is
/// not called otherwise.
///
/// # Errors
/// When the kernel refuses the program or the maps, or the pinned maps have another layout. Pinned state is
/// unchanged then.
pub fn ensure(
    bpffs: &Bpffs,
    _lock: &ChangeLock,
    config: &Config,
    want: ProgramChoice,
    table: impl FnOnce() -> ClassTable,
) -> anyhow::Result<Loaded> {
    let build = Build {
        limits: &config.limits,
        log_faults: want == ProgramChoice::Logging,
        skb_mark: config.skb_mark,
    };
    if carry_over::settle(bpffs)? {
        tracing::info!("completing the interrupted change of the maps; the counters continue");
        return carry_over::begin(bpffs, build);
    }
    match open(bpffs) {
        Err(error) if carry_over::is_older(&error) => {
            tracing::info!("the maps have an older layout; their counters are carried over");
            carry_over::begin(bpffs, build)
        }
        Ok(maps) => with_pinned_maps(bpffs, maps, build, want),
        Err(error) if is_lost(&error) => {
            if matches!(error.downcast_ref(), Some(StateError::Damaged { .. })) {
                tracing::warn!("{error:#}");
            }
            let table = table();
            tables::check_capacity(&table, build.limits.classes)?;
            // Leftovers of an interrupted creation were never ready, so nothing was counted in them.
            bpffs.clear()?;
            create(bpffs, build, &table).inspect_err(|_| {
                // Leave nothing half created. A failure to clean up explains less than the error that led
                // here.
                if let Err(error) = bpffs.clear() {
                    tracing::warn!("cannot clean up: {error:#}");
                }
            })
        }
        Err(error) => Err(error),
    }
}

/// Deletes everything pinned. A daemon that holds the maps open learns from their state that they are not to
/// come back.
///
/// # Errors
/// When the state cannot be written or a file cannot be removed.
pub fn purge(bpffs: &Bpffs, _lock: &ChangeLock) -> anyhow::Result<()> {
    if let Ok(mut maps) = open(bpffs) {
        let meta = maps.meta.get(0)?;
        maps.meta.set(0, Meta { ready: set_state::CREATING, ..meta })?;
    }
    bpffs.clear()
}

/// Opens the pinned programs, or loads this build's in their place.
fn with_pinned_maps(
    bpffs: &Bpffs,
    maps: Maps,
    build: Build<'_>,
    want: ProgramChoice,
) -> anyhow::Result<Loaded> {
    let meta = maps.meta.get(0)?;
    let same = meta.program_hash == program_hash(build.skb_mark);
    let newer = meta.program_version > version_number();
    if want == ProgramChoice::Current && newer {
        tracing::warn!("a newer trafctl has loaded its program here; it stays in place");
    }
    if want != ProgramChoice::Pinned && !(newer && want == ProgramChoice::Current) {
        match grow(bpffs, &meta, build) {
            Ok(Some(loaded)) => return Ok(loaded),
            Ok(None) => {}
            // What is in force goes on counting, and `status` reports the difference.
            Err(error) => tracing::error!("cannot raise [limits]; what is in force stays: {error:#}"),
        }
    }
    let keep = match want {
        ProgramChoice::Pinned => true,
        ProgramChoice::Current => same || newer,
        ProgramChoice::Logging => false,
    };
    let complete = [INGRESS_PROGRAM, EGRESS_PROGRAM].into_iter().all(|name| bpffs.program(name).exists());
    if !complete {
        tracing::warn!(
            "a program has been removed under {}; this trafctl's program takes its place, and the counters \
             continue",
            bpffs.root().display()
        );
    } else if keep && maps.skb_marks.is_some() && shadow::is_known(bpffs) {
        let programs = open_programs(|name| bpffs.program(name))?;
        let (outcome, hash) = (LoadOutcome::Found, meta.program_hash);
        let (log, skb_layout_error, former) = (None, None, None);
        return Ok(Loaded { maps, programs, outcome, log, skb_layout_error, hash, former });
    }
    // These maps keep their sizes. The limits matter only for a map that is missing.
    let limits = Limits { containers: meta.container_slots, ..*build.limits };
    let fresh = load_program(bpffs, Build { limits: &limits, ..build })?;
    Ok(Loaded::from_fresh(fresh, Maps::open(bpffs)?, LoadOutcome::Replaced))
}

/// Begins to carry the counters over to larger maps, if the limits have grown.
fn grow(bpffs: &Bpffs, meta: &Meta, build: Build<'_>) -> anyhow::Result<Option<Loaded>> {
    let in_force = limits_in_force(bpffs, meta)?;
    let grown = carry_over::grown(bpffs, meta, build.limits)?;
    if grown == in_force {
        return Ok(None);
    }
    let loaded = carry_over::begin(bpffs, build)?;
    tracing::info!(
        "[limits] were raised: {} containers, {} interfaces, {} classes, {} addresses; the counters continue",
        grown.containers,
        grown.interfaces,
        grown.classes,
        grown.addresses
    );
    Ok(Some(loaded))
}

/// Pins the new program in place of the old one and records its version. This is the last step of a
/// replacement, after all links run the new program, so that the next attach resumes an interrupted one.
///
/// # Errors
/// When a file cannot be renamed or the map cannot be written.
pub fn finish_replacement(bpffs: &Bpffs, loaded: &mut Loaded) -> anyhow::Result<()> {
    if let Some(former) = loaded.former.take() {
        return carry_over::finish(bpffs, loaded, &former);
    }
    publish_programs(bpffs)?;
    let mut meta = loaded.maps.meta.get(0)?;
    meta.program_hash = loaded.hash;
    meta.program_version = version_number();
    loaded.maps.meta.set(0, meta)
}

/// Creates maps and program. The maps are marked ready last, so that an interrupted creation is recognised.
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
    maps.meta.set(0, new_meta(build, now)?)?;
    tables::prepare(&maps, table, &|_, _| {})?.switch(&mut maps)?;
    publish_programs(bpffs)?;
    let meta = maps.meta.get(0)?;
    maps.meta.set(0, Meta { ready: set_state::READY, ..meta })?;
    Ok(Loaded::from_fresh(fresh, maps, LoadOutcome::Created))
}

fn new_meta(build: Build<'_>, now_unix_s: u64) -> anyhow::Result<Meta> {
    Ok(Meta {
        layout_version: LAYOUT_VERSION,
        ready: set_state::CREATING,
        epoch: time::random_number().context("cannot choose a number for the new counters")?,
        created_unix_s: now_unix_s,
        boot_id: time::boot_id()?,
        container_slots: build.limits.containers,
        interface_slots: build.limits.interfaces,
        columns: build.limits.classes,
        columns_used: 1,
        program_version: version_number(),
        program_hash: build.hash(),
        table_hash: [0; 32],
        table_loaded_unix_s: now_unix_s,
        table_prefixes: 0,
        column_class: [0; 256],
    })
}
