//! Carries the counters over to another set of maps, under traffic: where `[limits]` have grown, or the layout
//! is an older one.
//!
//! The contract: no packet is lost and none counts twice; slots, generations and the epoch stay; a reader sees
//! figures that only grow; and an interruption at any instant is completed by the next session.
//!
//! 1. The next set is made in `maps_next`. A map that stays as it is, counters included, is pinned there as
//!    well: both sets share it. All others are created, and what userspace wrote is copied ([`fill`]).
//! 2. The next set is marked `MOVING`. From here on it is never given up. This build's programs are loaded on
//!    it, and the session moves every hook to them ([`crate::node::Session::move_hooks`]). Each hook counts in
//!    the former set before its own exchange, and in the next one after it.
//! 3. When every program run that saw the former set has ended, that set holds its final counts. They are
//!    written to the `*_CARRIED` maps of the next set, which readers add to what it counts itself.
//! 4. The two directories are exchanged. Until then, readers use the former set, whose figures stand still.
//!
//! Sessions hold the change lock all the time, so nothing else is attached or drained in between.
//!
//! A change of the layout needs three things: a higher `LAYOUT_VERSION`, the maps whose values changed in
//! [`CHANGED_IN`], and in [`Former`] and [`fill`] how their former values are read.

use std::{fs, os::fd::AsFd as _};

use anyhow::Context as _;
use aya::{
    Pod,
    maps::{LpmTrie, MapData},
};
use traffic_common::{
    ContainerRecord, Control, Direction, FaultCounters, InterfaceCounters, InterfaceRecord,
    InterfaceRecordV2, LAYOUT_VERSION, Meta, TableWord, set_state,
};

use super::{
    Loaded, Programs, former_classes,
    former_counters::{Classes, Counted},
    pinned::{self, StateError},
    program::{Build, entries_of, load_program, publish_programs, version_number},
};
use crate::{
    config::Limits,
    kernel::{
        bpffs::Bpffs,
        maps::{Elements, Maps, OPTIONAL, PINNED, typed},
        memory,
        sys::tcx::TcxLink,
        tables,
    },
};

/// By layout version: the maps whose values differ from those of the version before.
const CHANGED_IN: [(u32, &[&str]); 2] = [(3, &["INTERFACES"]), (5, &["CLASS_COUNTERS"])];

/// What the next session must do first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfinished {
    /// Nothing: there is no other set.
    No,
    /// The next set was being created: it can be removed.
    Created,
    /// Hooks may run on the next set.
    Moving,
    /// The next set is complete, and must come into use.
    Complete,
    /// The other set is the former one.
    Exchanged,
}

/// What the states of the maps in use and of the others mean; `None` where `META` is missing.
const fn unfinished(in_use: Option<u32>, other: Option<u32>) -> Unfinished {
    match (in_use, other) {
        // The former set was removed meanwhile. What the next one has is all there is.
        (None, Some(set_state::MOVING | set_state::READY)) => Unfinished::Complete,
        (_, Some(set_state::MOVING)) => Unfinished::Moving,
        (_, Some(set_state::REPLACED)) => Unfinished::Exchanged,
        (Some(set_state::READY | set_state::REPLACED), Some(set_state::READY)) => Unfinished::Complete,
        (_, Some(_)) => Unfinished::Created,
        (_, None) => Unfinished::No,
    }
}

/// The set that the counters are carried over from.
#[derive(Debug)]
pub(super) struct Former {
    bpffs: Bpffs,
    meta: Elements<Meta>,
    control: Elements<Control>,
    containers: Elements<ContainerRecord>,
    classes: Classes,
    interfaces: Counted<InterfaceCounters>,
    faults: Counted<FaultCounters>,
}

impl Former {
    fn open(bpffs: &Bpffs) -> anyhow::Result<Self> {
        let meta = Elements::<Meta>::open(bpffs, "META")?;
        Ok(Self {
            bpffs: bpffs.clone(),
            control: Elements::open(bpffs, former_classes::control(meta.get(0)?.layout_version))?,
            containers: Elements::open(bpffs, "CONTAINERS")?,
            classes: Classes::open(bpffs)?,
            interfaces: Counted::open(bpffs, ["INTERFACE_COUNTERS", "INTERFACE_CARRIED", "INTERFACE_BASES"])?,
            faults: Counted::open(bpffs, ["FAULT_COUNTERS", "FAULT_CARRIED", "FAULT_BASES"])?,
            meta,
        })
    }

    fn interface_records(&self) -> anyhow::Result<Vec<InterfaceRecord>> {
        if self.meta.get(0)?.layout_version == 2 {
            let records = Elements::<InterfaceRecordV2>::open(&self.bpffs, "INTERFACES")?;
            let records = records.range(0, records.len())?;
            return Ok(records.into_iter().map(InterfaceRecord::from).collect());
        }
        let records = Elements::open(&self.bpffs, "INTERFACES")?;
        records.range(0, records.len())
    }
}

/// The limits that the pinned maps have, raised to those that are configured. They never shrink: slots that
/// are in use would be lost.
///
/// # Errors
/// When a map cannot be inspected.
pub fn grown(bpffs: &Bpffs, meta: &Meta, configured: &Limits) -> anyhow::Result<Limits> {
    let in_force = limits_in_force(bpffs, meta)?;
    Ok(Limits {
        containers: in_force.containers.max(configured.containers),
        interfaces: in_force.interfaces.max(configured.interfaces),
        classes: in_force.classes.max(configured.classes),
        addresses: in_force.addresses.max(configured.addresses),
    })
}

/// The limits that the pinned maps have.
///
/// # Errors
/// When a map cannot be inspected.
pub fn limits_in_force(bpffs: &Bpffs, meta: &Meta) -> anyhow::Result<Limits> {
    Ok(Limits {
        containers: meta.container_slots,
        interfaces: meta.interface_slots,
        classes: meta.columns,
        addresses: max_entries(bpffs, "ADDRESSES_V4")?,
    })
}

fn max_entries(bpffs: &Bpffs, name: &str) -> anyhow::Result<u32> {
    let path = bpffs.map(name);
    MapData::from_pin(&path)
        .and_then(|data| data.info())
        .map(|info| info.max_entries())
        .with_context(|| format!("cannot inspect {}", path.display()))
}

/// Completes what an interrupted session left, as far as that needs no hooks. Returns whether hooks are still
/// to be moved.
pub(super) fn settle(bpffs: &Bpffs) -> anyhow::Result<bool> {
    let next = bpffs.next();
    if !next.maps().exists() {
        return Ok(false);
    }
    let state = |bpffs: &Bpffs| -> anyhow::Result<Option<u32>> {
        if !fs::exists(bpffs.map("META"))? {
            return Ok(None);
        }
        Ok(Some(Elements::<Meta>::open(bpffs, "META")?.get(0)?.ready))
    };
    match unfinished(state(bpffs)?, state(&next)?) {
        Unfinished::Moving => return Ok(true),
        Unfinished::Complete => {
            set_ready(&next, set_state::READY)?;
            publish_programs(bpffs)?;
            exchange(bpffs)?;
        }
        Unfinished::Exchanged | Unfinished::Created | Unfinished::No => bpffs.remove_next()?,
    }
    Ok(false)
}

/// Makes the next set of maps and loads the programs on it. The caller moves the hooks, then calls [`finish`].
pub(super) fn begin(bpffs: &Bpffs, build: Build<'_>) -> anyhow::Result<Loaded> {
    let former = Former::open(bpffs)?;
    let meta = former.meta.get(0)?;
    let limits = grown(bpffs, &meta, build.limits)?;
    let build = Build { limits: &limits, ..build };
    let next = bpffs.next();
    let continues = settle(bpffs)?;
    if !continues {
        memory::check(&limits)?;
        fs::create_dir(next.maps()).with_context(|| format!("cannot create {}", next.maps().display()))?;
        share(&former, meta.layout_version, &limits)?;
    }
    let made = load_program(&next, build).and_then(|fresh| {
        let mut maps = Maps::open(&next)?;
        fill(&former, &mut maps, build)?;
        Ok((fresh, maps))
    });
    let (fresh, maps) = made.inspect_err(|_| {
        if !continues && let Err(error) = bpffs.remove_next() {
            tracing::warn!("cannot clean up: {error:#}");
        }
    })?;
    let outcome = super::LoadOutcome::Replaced;
    Ok(Loaded { former: Some(former), ..Loaded::from_fresh(fresh, maps, outcome) })
}

/// Pins all maps that stay as they are in the place of the next set.
fn share(former: &Former, layout: u32, limits: &Limits) -> anyhow::Result<()> {
    let (bpffs, next) = (&former.bpffs, former.bpffs.next());
    for name in PINNED.into_iter().chain(OPTIONAL) {
        let is_new = CHANGED_IN.iter().any(|(since, names)| *since > layout && names.contains(&name));
        // The state of a set, and the columns of a row, are its own.
        if is_new || ["META", "CLASS_CONTROL"].contains(&name) || !bpffs.map(name).exists() {
            continue;
        }
        if entries_of(name, limits)?
            .is_none_or(|wanted| max_entries(bpffs, name).is_ok_and(|has| has == wanted))
        {
            link(bpffs, &next, name)?;
        }
    }
    // The prefixes are pinned beside the table.
    for name in ["CLASS_ROWS_0", "CLASS_ROWS_1"] {
        if bpffs.map(name).exists() && next.map("CLASS_LINES").exists() {
            link(bpffs, &next, name)?;
        }
    }
    Ok(())
}

fn link(bpffs: &Bpffs, next: &Bpffs, name: &str) -> anyhow::Result<()> {
    let path = bpffs.map(name);
    MapData::from_pin(&path)
        .map_err(anyhow::Error::from)
        .and_then(|data| Ok(data.pin(next.map(name))?))
        .with_context(|| format!("cannot pin {} a second time", path.display()))
}

/// Copies everything that userspace wrote. Called again when an interrupted move continues: until the end,
/// the former set is the one that others may have changed.
fn fill(former: &Former, maps: &mut Maps, build: Build<'_>) -> anyhow::Result<()> {
    let meta = former.meta.get(0)?;
    let columns = build.limits.classes;
    let control = former.control.get(0)?;
    if former_classes::has_tries(meta.layout_version) {
        maps.control.set(0, Control { columns, ..maps.control.get(0)? })?;
        let (v4, v6) = former_classes::rows(&former.bpffs, control.active_table)?;
        tables::Tables::new(&v4, &v6, &|_, _| {})?.switch(maps)?;
    } else {
        // A shadow has counters for the former number of slots.
        let active_table = TableWord(control.active_table).with_shadow(false).0;
        maps.control.set(0, Control { active_table, columns })?;
    }
    if !is_shared(former, "CONTAINERS")? {
        let records = former.containers.range(0, former.containers.len())?;
        set_all(&mut maps.containers, (0..).zip(records))?;
    }
    if !is_shared(former, "INTERFACES")? {
        set_all(&mut maps.interfaces, (0..).zip(former.interface_records()?))?;
    }
    if !is_shared(former, "CLASS_BASES")? {
        let bases = former.classes.bases()?;
        set_all(&mut maps.class_bases, rows(bases, meta.columns, columns))?;
    }
    if !is_shared(former, "INTERFACE_BASES")? {
        let bases = former.interfaces.bases()?;
        set_all(&mut maps.interface_bases, (0..).zip(bases))?;
    }
    if !is_shared(former, "FAULT_BASES")? {
        let bases = former.faults.bases()?;
        set_all(&mut maps.fault_bases, (0..).zip(bases))?;
    }
    if !is_shared(former, "ADDRESSES_V4")? {
        copy_trie(&former.bpffs, "ADDRESSES_V4", &mut maps.addresses_v4)?;
        copy_trie(&former.bpffs, "ADDRESSES_V6", &mut maps.addresses_v6)?;
    }
    let next = Meta {
        layout_version: LAYOUT_VERSION,
        ready: set_state::MOVING,
        container_slots: build.limits.containers,
        interface_slots: build.limits.interfaces,
        columns,
        program_version: version_number(),
        program_hash: build.hash(),
        ..meta
    };
    maps.meta.set(0, next)
}

/// Completes a carry-over once the session has moved every hook.
pub(super) fn finish(bpffs: &Bpffs, loaded: &mut Loaded, former: &Former) -> anyhow::Result<()> {
    move_pinned_links(bpffs, &loaded.programs)?;
    loaded.maps.wait_for_packets()?;
    carry(former, &mut loaded.maps)?;
    set_ready(&bpffs.next(), set_state::READY)?;
    publish_programs(bpffs)?;
    exchange(bpffs)?;
    loaded.maps = Maps::open(bpffs)?;
    Ok(())
}

/// Writes the final counts of the former set to the next one.
fn carry(former: &Former, maps: &mut Maps) -> anyhow::Result<()> {
    let meta = former.meta.get(0)?;
    let (from, to) = (meta.columns, maps.meta.get(0)?.columns);
    if !is_shared(former, "CLASS_COUNTERS")? {
        let counts = former.classes.final_counts(meta.container_slots, from)?;
        set_all(&mut maps.class_carried, rows(counts, from, to))?;
    } else if !is_shared(former, "CLASS_CARRIED")? {
        // More columns, for which the blocks have room.
        set_all(
            &mut maps.class_carried,
            rows(former.classes.carried(meta.container_slots * from)?, from, to),
        )?;
    }
    if !is_shared(former, "INTERFACE_COUNTERS")? {
        set_all(&mut maps.interface_carried, (0..).zip(former.interfaces.final_counts()?))?;
    }
    if !is_shared(former, "FAULT_COUNTERS")? {
        set_all(&mut maps.fault_carried, (0..).zip(former.faults.final_counts()?))?;
    }
    Ok(())
}

/// Moves the links that no listed interface has: one that moved to another network namespace still counts.
fn move_pinned_links(bpffs: &Bpffs, programs: &Programs) -> anyhow::Result<()> {
    for ifindex in bpffs.linked_interfaces()? {
        for direction in Direction::BOTH {
            let path = bpffs.link(ifindex, direction);
            let Some(link) = TcxLink::open(&path)? else { continue };
            let info = link.info()?;
            let [ingress, egress] = [programs.ingress.info()?.id(), programs.egress.info()?.id()];
            if info.ifindex == 0 || info.program_id == ingress || info.program_id == egress {
                continue;
            }
            let program = if info.is_egress { &programs.egress } else { &programs.ingress };
            match link.replace_program(program.fd()?.as_fd()) {
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
                other => {
                    other.with_context(|| format!("cannot replace the program of {}", path.display()))?;
                }
            }
        }
    }
    Ok(())
}

fn exchange(bpffs: &Bpffs) -> anyhow::Result<()> {
    if fs::exists(bpffs.map("META"))? {
        set_ready(bpffs, set_state::REPLACED)?;
    }
    bpffs.exchange_next()?;
    bpffs.remove_next()
}

fn set_ready(bpffs: &Bpffs, ready: u32) -> anyhow::Result<()> {
    let mut meta = Elements::<Meta>::open(bpffs, "META")?;
    let value = meta.get(0)?;
    meta.set(0, Meta { ready, ..value })
}

/// Whether both sets have the same map of this name.
fn is_shared(former: &Former, name: &str) -> anyhow::Result<bool> {
    Ok(pinned::map_id(&former.bpffs, name)? == pinned::map_id(&former.bpffs.next(), name)?)
}

/// Elements by slot and column, in rows of another length.
fn rows<V>(values: Vec<V>, from: u32, to: u32) -> impl Iterator<Item = (u32, V)> {
    (0..).zip(values).map(move |(at, value): (u32, V)| (at / from * to + at % from, value))
}

/// Writes elements that are not zero already.
fn set_all<V: Pod + PartialEq>(
    map: &mut Elements<V>,
    values: impl Iterator<Item = (u32, V)>,
) -> anyhow::Result<()> {
    let present = map.range(0, map.len())?;
    for (at, value) in values {
        if present.get(at as usize) != Some(&value) {
            map.set(at, value)?;
        }
    }
    Ok(())
}

fn copy_trie<K: Pod>(bpffs: &Bpffs, name: &str, to: &mut LpmTrie<MapData, K, u32>) -> anyhow::Result<()> {
    let from: LpmTrie<MapData, K, u32> = typed(bpffs, name)?;
    for element in from.iter() {
        let (key, value) = element.with_context(|| format!("cannot read {name}"))?;
        to.insert(&key, value, 0).with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(())
}

/// Whether these maps are older, so that they must be carried over.
pub(super) fn is_older(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StateError::OlderLayout { .. }))
}

#[cfg(test)]
mod tests;
