//! The steps of loading the drop program, on the running kernel. `loading` has their order.

use std::fs;

use anyhow::{Context as _, bail};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::MapData,
    programs::{BtfTracePoint, ProgramError, links::FdLink},
};
use sha2::{Digest as _, Sha256};
use traffic_common::{DROP_PROGRAM, DROPS_VERSION, DropControl, DropLayout, DropReasons};

use super::{
    CONTROL, DropState, MAPS, attached, control, layout, link_pin,
    loading::{Refused, Steps},
    open_map, record_failure, refusal, remove, remove_all, state,
};
use crate::{
    kernel::{
        bpffs::Bpffs,
        change_lock::ChangeLock,
        load::{Held, map_id},
        maps::Elements,
        memory,
        verdict::verdict,
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
fn program_hash() -> u64 {
    let hash: [u8; 32] = Sha256::digest(OBJECT).into();
    let (words, _) = hash.as_chunks::<8>();
    u64::from_be_bytes(words[0])
}

/// The same as text.
fn program_name() -> String {
    format!("{:016x}", program_hash())
}

/// The running kernel and the pins.
pub(super) struct Kernel<'a> {
    pub bpffs: &'a Bpffs,
    pub held: &'a Held,
}

/// What the program must know of the kernel.
pub(super) struct Facts {
    layout: DropLayout,
    reasons: DropReasons,
    /// Made in advance: it reads all types of the kernel.
    loader: Option<EbpfLoader<'static>>,
}

/// A program, and what it was made for.
pub(super) struct Program {
    object: Ebpf,
    number: u32,
    /// The maps of the counters and of the drop counters.
    maps: (u32, u32),
    layout: DropLayout,
}

impl Kernel<'_> {
    /// The ids of the maps `META` and `DROP_CONTROL`.
    fn map_ids(&self) -> anyhow::Result<(u32, u32)> {
        let pin = self.bpffs.drops().join(CONTROL);
        let control = MapData::from_pin(&pin)
            .and_then(|data| data.info())
            .with_context(|| format!("cannot inspect {}", pin.display()))?;
        Ok((map_id(self.bpffs, "META")?, control.id()))
    }

    /// A number that no program has.
    fn next_number(&self) -> anyhow::Result<u32> {
        let active = control(self.bpffs)?.unwrap_or_default().active;
        Ok(attached(self.bpffs)?.into_iter().chain([active]).max().unwrap_or(0) + 1)
    }
}

impl Steps for Kernel<'_> {
    type Lock = ChangeLock;
    type Facts = Facts;
    type Prepared = Program;
    type Verified = Program;

    fn program(&self) -> u64 {
        program_hash()
    }

    fn counters(&self) -> anyhow::Result<Option<u32>> {
        if !fs::exists(self.bpffs.map("META"))? {
            return Ok(None);
        }
        map_id(self.bpffs, "META").map(Some)
    }

    fn state(&self) -> anyhow::Result<DropState> {
        state(self.bpffs)
    }

    fn refusal(&self) -> Option<String> {
        refusal(self.bpffs).filter(|(program, _)| *program == program_name()).map(|(_, reason)| reason)
    }

    fn attached(&self) -> anyhow::Result<Vec<u32>> {
        Ok(attached(self.bpffs)?)
    }

    fn is_current(&self, verified: &Program) -> anyhow::Result<bool> {
        // Without pins there is nothing to count in.
        if [self.bpffs.map("META"), self.bpffs.drops().join(CONTROL)].iter().any(|pin| !pin.exists()) {
            return Ok(false);
        }
        Ok(self.map_ids()? == verified.maps && self.next_number()? == verified.number)
    }

    fn lock(&self) -> anyhow::Result<ChangeLock> {
        self.bpffs.lock()
    }

    fn facts(&self) -> anyhow::Result<Facts> {
        let (layout, reasons) = layout::of_running_kernel()?;
        Ok(Facts { layout, reasons, loader: Some(EbpfLoader::new()) })
    }

    fn has_places(facts: &Facts) -> bool {
        facts.layout.has_places != 0
    }

    fn remove(&mut self, _lock: &ChangeLock) -> anyhow::Result<()> {
        remove_all(self.bpffs)
    }

    fn prepare(
        &mut self,
        _lock: &ChangeLock,
        facts: &mut Facts,
        has_places: bool,
    ) -> anyhow::Result<Program> {
        fs::create_dir_all(self.bpffs.drops())
            .with_context(|| format!("cannot create {}", self.bpffs.drops().display()))?;
        if let Some(missing) = READ.into_iter().find(|name| !self.bpffs.map(name).exists()) {
            bail!("map {missing} has been removed");
        }
        let number = self.next_number()?;
        let layout = DropLayout { number, has_places: has_places.into(), ..facts.layout };
        let mut loader: EbpfLoader<'_> = facts.loader.take().unwrap_or_default();
        loader.override_global("DROP_LAYOUT", &layout, true).override_global(
            "DROP_REASONS",
            &facts.reasons,
            true,
        );
        for name in READ {
            loader.map_pin_path(name, self.bpffs.map(name));
        }
        for name in MAPS {
            loader.map_pin_path(name, self.bpffs.drops().join(name));
        }
        memory::lift_limit();
        let object = loader.load(OBJECT).context("the kernel refused the maps of the drop program")?;
        Ok(Program { object, number, maps: self.map_ids()?, layout })
    }

    fn verify(&mut self, mut prepared: Program) -> anyhow::Result<Program> {
        let types = Btf::from_sys_fs()?;
        let program = find(&mut prepared.object)?;
        program.load("kfree_skb", &types).map_err(|error| refused(&error))?;
        Ok(prepared)
    }

    fn attach(&mut self, _lock: &ChangeLock, verified: &mut Program) -> anyhow::Result<u32> {
        let program = find(&mut verified.object)?;
        let link = program.attach().context("cannot attach the drop program")?;
        let link: FdLink = program.take_link(link)?.into();
        let pin = link_pin(self.bpffs, verified.number);
        link.pin(&pin).with_context(|| format!("cannot pin {}", pin.display()))?;
        Ok(verified.number)
    }

    fn activate(&mut self, _lock: &ChangeLock, verified: &Program) -> anyhow::Result<()> {
        let map = open_map(self.bpffs, CONTROL)?.context("DROP_CONTROL has been removed")?;
        let before = control(self.bpffs)?.unwrap_or_default();
        let is_new = before.version == 0;
        Elements::new(CONTROL, map)?.set(
            0,
            DropControl {
                version: DROPS_VERSION,
                active: verified.number,
                created_unix_s: if is_new { time::unix_seconds() } else { before.created_unix_s },
                meta_map_id: verified.maps.0,
                namespace_inode: verified.layout.namespace_inode,
                lacks: layout::lacks(&verified.layout),
                reserved: 0,
                program: program_hash(),
            },
        )
    }

    fn detach(&mut self, _lock: &ChangeLock, number: u32) -> anyhow::Result<()> {
        remove(&link_pin(self.bpffs, number)).with_context(|| format!("cannot detach drop program {number}"))
    }

    fn hold(&mut self, lock: &ChangeLock) {
        if let Err(error) = self.held.hold(self.bpffs, lock) {
            tracing::debug!("cannot hold the pins of the drop program: {error:#}");
        }
    }

    fn record(&mut self, _lock: &ChangeLock, reason: &str, is_refusal: bool) -> anyhow::Result<()> {
        // Any other failure may be over by the next attempt.
        let program = if is_refusal { program_name() } else { "-".to_owned() };
        Ok(record_failure(self.bpffs, &program, reason)?)
    }

    fn forget(&mut self, _lock: &ChangeLock) -> anyhow::Result<()> {
        Ok(remove(&self.bpffs.drops().join(super::REFUSED))?)
    }
}

fn find(object: &mut Ebpf) -> anyhow::Result<&mut BtfTracePoint> {
    Ok(object
        .program_mut(DROP_PROGRAM)
        .with_context(|| format!("the object file has no program {DROP_PROGRAM}"))?
        .try_into()?)
}

/// Why the kernel refused the program, in one line: the verifier's log has hundreds.
fn refused(error: &ProgramError) -> anyhow::Error {
    let reason = verdict(DROP_PROGRAM, error);
    let ProgramError::LoadError { io_error, .. } = error else {
        return anyhow::anyhow!("the kernel refused the drop program: {reason}");
    };
    match io_error.raw_os_error() {
        Some(libc::ENOMEM | libc::EAGAIN | libc::EINTR) => {
            anyhow::anyhow!("the kernel refused the drop program: {reason}")
        }
        _ => Refused(reason).into(),
    }
}
