//! Loads the drop program, and lets it take over from another between two packets.
//!
//! Each program has a number, and only the one whose number is in `DROP_CONTROL` counts. So a new program is
//! attached beside the old one, one word is written, and the old one is detached: no drop is lost, and none counts
//! twice. A new one is needed after an upgrade, and when counters moved to other maps, which the old one does not
//! read.

use std::fs;

use anyhow::{Context as _, bail};
use aya::{
    Btf, EbpfLoader,
    maps::{HashMap, MapData},
    programs::{BtfTracePoint, ProgramError, links::FdLink},
};
use sha2::{Digest as _, Sha256};
use traffic_common::{
    DROP_PROGRAM, DROPS_VERSION, DropControl, DropFault, DropKey, DropLayout, DropReasons, Tally,
};

use super::{
    DropState, MAPS, attached, control, layout, link_pin, open_map, record_refusal, refusal, remove, state,
};
use crate::{
    kernel::{
        bpffs::Bpffs,
        change_lock::ChangeLock,
        counters,
        load::{ProgramChoice, map_id},
        maps::{Elements, Maps},
        memory,
    },
    time,
};

/// The drop program, as the build script compiled it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/trafctl-drops"));

/// The maps of the counters that the program reads. They must exist: the loader would create others.
const READ: [&str; 8] = [
    "INTERFACE_BY_INDEX",
    "INTERFACE_BY_HIGH_INDEX",
    "ADDRESSES_V4",
    "ADDRESSES_V6",
    "NODE_ADDRESSES",
    "CLASS_LINES",
    "CLASS_CONTROL",
    "CONTAINERS",
];

/// What names this build's program: the first bytes of the SHA-256 of its object file.
fn program_name() -> String {
    format!("{:016x}", program_hash())
}

/// The same as a number.
fn program_hash() -> u64 {
    let hash: [u8; 32] = Sha256::digest(OBJECT).into();
    let (words, _) = hash.as_chunks::<8>();
    u64::from_be_bytes(words[0])
}

/// Makes sure that drops are counted, or that they are not. Whether the kernel refuses is recorded for `status`,
/// and reported once for each build: nothing here stops counting.
///
/// `choice` is that of the classifiers: a long-running process keeps a program of another version.
pub fn ensure(bpffs: &Bpffs, lock: &ChangeLock, maps: &Maps, enabled: bool, choice: ProgramChoice) {
    let done = if enabled { begin(bpffs, lock, maps, choice) } else { end(bpffs) };
    if let Err(error) = done {
        let reason = format!("{error:#}");
        tracing::warn!("drops are not counted: {reason}");
        // Any other failure may be over by the next attempt.
        let program = if error.is::<Refused>() { program_name() } else { "-".to_owned() };
        if let Err(error) = record_refusal(bpffs, &program, &reason) {
            tracing::debug!("cannot record why drops are not counted: {error:#}");
        }
    }
}

/// Detaches the program and removes its counters: without it they would seem to say that nothing is dropped.
fn end(bpffs: &Bpffs) -> anyhow::Result<()> {
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

fn begin(bpffs: &Bpffs, _lock: &ChangeLock, maps: &Maps, choice: ProgramChoice) -> anyhow::Result<()> {
    fs::create_dir_all(bpffs.drops())
        .with_context(|| format!("cannot create {}", bpffs.drops().display()))?;
    let meta_map_id = map_id(bpffs, "META")?;
    let keeps = choice == ProgramChoice::Pinned;
    match state(bpffs)? {
        DropState::Counting(control)
            if control.meta_map_id == meta_map_id && (keeps || control.program == program_hash()) =>
        {
            return make_room(bpffs, maps);
        }
        // Loading takes up to a second, and a hook attaches at each start of a container. So this program is tried
        // again only after an upgrade, `detach --purge`, a change of `[drops] enabled`, or a reboot.
        DropState::Refused(_)
            if keeps || refusal(bpffs).is_some_and(|(which, _)| which == program_name()) =>
        {
            return Ok(());
        }
        DropState::OtherVersion(_) if keeps => return Ok(()),
        DropState::OtherVersion(_) => end(bpffs)?,
        _ => {}
    }
    let (layout, reasons) = layout::of_running_kernel()?;
    load(bpffs, meta_map_id, layout, &reasons).or_else(|error| {
        // Kernels before 5.13 do not have the helper that names places.
        let without = DropLayout { has_places: 0, ..layout };
        load(bpffs, meta_map_id, without, &reasons).map_err(|_| error)
    })?;
    remove(&bpffs.drops().join(super::REFUSED))?;
    make_room(bpffs, maps)
}

/// Loads and attaches the program, and lets it take over.
fn load(bpffs: &Bpffs, meta_map_id: u32, layout: DropLayout, reasons: &DropReasons) -> anyhow::Result<()> {
    if let Some(missing) = READ.into_iter().find(|name| !bpffs.map(name).exists()) {
        bail!("map {missing} has been removed");
    }
    let before = control(bpffs)?.unwrap_or_default();
    let others = attached(bpffs)?;
    let number = others.iter().copied().chain([before.active]).max().unwrap_or(0) + 1;
    let layout = DropLayout { number, ..layout };

    let mut loader = EbpfLoader::new();
    loader.override_global("DROP_LAYOUT", &layout, true).override_global("DROP_REASONS", reasons, true);
    for name in READ {
        loader.map_pin_path(name, bpffs.map(name));
    }
    for name in MAPS {
        loader.map_pin_path(name, bpffs.drops().join(name));
    }
    memory::lift_limit();
    let mut object = loader.load(OBJECT).context("the kernel refused the maps of the drop program")?;
    let program: &mut BtfTracePoint = object
        .program_mut(DROP_PROGRAM)
        .with_context(|| format!("the object file has no program {DROP_PROGRAM}"))?
        .try_into()?;
    program.load("kfree_skb", &Btf::from_sys_fs()?).map_err(|error| refused(&error))?;
    let link = program.attach().context("cannot attach the drop program")?;
    let link: FdLink = program.take_link(link)?.into();

    let map = open_map(bpffs, "DROP_CONTROL")?.context("DROP_CONTROL has been removed")?;
    let is_new = before.version == 0;
    Elements::new("DROP_CONTROL", map)?.set(
        0,
        DropControl {
            version: DROPS_VERSION,
            active: number,
            created_unix_s: if is_new { time::unix_seconds() } else { before.created_unix_s },
            meta_map_id,
            namespace_inode: layout.namespace_inode,
            lacks: layout::lacks(&layout),
            reserved: 0,
            program: program_hash(),
        },
    )?;
    // Pinned last: a program with a pin is one that counts.
    let pin = link_pin(bpffs, number);
    link.pin(&pin).with_context(|| format!("cannot pin {}", pin.display()))?;
    for other in others {
        remove(&link_pin(bpffs, other)).context("cannot detach the former drop program")?;
    }
    Ok(())
}

/// The verifier does not accept the program, and will not later.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused the drop program: {0}")]
struct Refused(String);

/// Why the kernel refused the program, in one line: the verifier's log has hundreds.
fn refused(error: &ProgramError) -> anyhow::Error {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return anyhow::anyhow!("the kernel refused the drop program: {error}");
    };
    let log = verifier_log.to_string();
    tracing::debug!("the verifier's log of {DROP_PROGRAM}: {log}");
    let statistics = ["processed ", "verification time", "stack depth"];
    let line = log
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty() && !statistics.iter().any(|of| line.starts_with(of)));
    let reason = format!("{} ({io_error})", line.unwrap_or("no reason stated"));
    match io_error.raw_os_error() {
        Some(libc::ENOMEM | libc::EAGAIN | libc::EINTR) => {
            anyhow::anyhow!("the kernel refused the drop program: {reason}")
        }
        _ => Refused(reason).into(),
    }
}

/// Removes the counters of former owners of slots, once there was no room for one.
fn make_room(bpffs: &Bpffs, maps: &Maps) -> anyhow::Result<()> {
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
