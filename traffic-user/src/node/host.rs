//! The real node: configuration, pinned state and netlink. Each change under the lock ([`Session`]) begins
//! here.

use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
    time::Instant,
};

use ipnet::IpNet;
use traffic_common::Direction;

use super::{
    locked_kernel::{LockedKernel, MapsAndInterfaces},
    missed,
    pass::end_of_batch,
    policy::{Policy, Selection, named},
    registry::Registry,
    session::Session,
    slot_reclaim::FinalReading,
};
use crate::{
    class_source,
    config::{Chosen, Config, Mistake, Origin},
    drain::Drainer,
    kernel::{
        bpffs::Bpffs,
        change_lock::ChangeLock,
        drops,
        expedite::Expedite,
        hooks::{AttachKind, KernelHooks},
        load::{self, Held, LoadOutcome, ProgramChoice, Restored},
        maps::Maps,
        tables,
    },
    net::{interface::NetInterface, netlink::Netlink},
    ownership::{address_file::AddressFile, identity_command},
    platform::survey::{Survey, Surveyor},
};

/// The advice when a map has no room for more addresses.
pub const MORE_ADDRESSES: &str =
    "raise `addresses` under [limits], then run `trafctl attach` or reload the daemon";

/// What should be attached on this node, and the connections to the kernel.
#[derive(Debug)]
pub struct Host {
    /// What should be attached and whose it is.
    pub policy: Policy,
    /// The directory of the pinned state.
    pub bpffs: Bpffs,
    /// The connection that lists interfaces.
    pub netlink: Netlink,
    state_dir: PathBuf,
    kind: AttachKind,
    /// What a daemon holds open, so that it can pin it again; commands hold nothing.
    pub held: Option<Held>,
    /// Which containers have no counter slot, as last reported.
    reported_without_slot: RefCell<Option<String>>,
    /// How many addresses had no room, as last reported.
    reported_full: Cell<usize>,
    /// Where the configuration comes from.
    origin: Origin,
    /// Why the class file is not used, if the class table had to be made without it.
    unused_class_file: RefCell<Option<String>>,
}

impl Host {
    /// Creates the host and reads who owns which interface and address.
    ///
    /// # Errors
    /// As [`Policy::read`].
    pub fn new(chosen: Chosen, bpffs: Bpffs, netlink: Netlink, state_dir: &Path) -> anyhow::Result<Self> {
        let Chosen { config, origin } = chosen;
        Ok(Self::with_policy((Policy::read(config, state_dir)?, origin), bpffs, netlink, state_dir))
    }

    /// The same without messages in the log: see [`Policy::read_silently`].
    ///
    /// # Errors
    /// As [`Policy::read`].
    pub fn silent(chosen: Chosen, bpffs: Bpffs, netlink: Netlink, state_dir: &Path) -> anyhow::Result<Self> {
        let Chosen { config, origin } = chosen;
        Ok(Self::with_policy((Policy::read_silently(config, state_dir)?, origin), bpffs, netlink, state_dir))
    }

    fn with_policy(
        (policy, origin): (Policy, Origin),
        bpffs: Bpffs,
        netlink: Netlink,
        state_dir: &Path,
    ) -> Self {
        Self {
            kind: AttachKind::choose(policy.config.attach),
            policy,
            bpffs,
            netlink,
            state_dir: state_dir.to_owned(),
            held: None,
            reported_without_slot: RefCell::new(None),
            reported_full: Cell::new(0),
            origin,
            unused_class_file: RefCell::default(),
        }
    }

    /// The mistake in the configuration file, if another configuration than that had to be used.
    pub const fn config_mistake(&self) -> Option<&Mistake> {
        self.origin.mistake.as_ref()
    }

    /// Keeps configuration and address list for the time when their files have a mistake or are gone. A
    /// failure is logged: nothing is lost as long as they have none.
    pub fn keep_good_files(&self) {
        if let Err(error) = self.origin.keep(&self.state_dir) {
            tracing::warn!("cannot keep a copy of the configuration in force: {error:#}");
        }
        if let Err(error) = AddressFile::new(&self.state_dir).keep() {
            tracing::warn!("cannot keep a copy of the list of addresses: {error:#}");
        }
    }

    /// Why the class file was not used when the counters were created, if so. Answers once.
    pub fn take_unused_class_file(&self) -> Option<String> {
        self.unused_class_file.take()
    }

    /// The configuration.
    pub const fn config(&self) -> &Config {
        &self.policy.config
    }

    /// The directory of the state that survives a reboot.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Reads again who owns which interface and address.
    ///
    /// # Errors
    /// As [`Policy::refresh`]; what was known stays.
    pub fn refresh(&mut self) -> anyhow::Result<()> {
        self.policy.refresh(&self.state_dir)
    }

    /// How programs are attached here.
    pub const fn kind(&self) -> AttachKind {
        self.kind
    }

    /// The hooks of this node's interfaces.
    pub fn hooks(&self) -> KernelHooks {
        KernelHooks::new(self.bpffs.clone(), self.netlink.clone(), self.kind)
    }

    /// The same, for a holder of the change lock.
    fn hooks_under_lock(&self) -> KernelHooks {
        let expedite = if self.config().expedite { self.bpffs.expedite() } else { Expedite::off() };
        self.hooks().expediting(expedite)
    }

    /// Looks for the platforms on this host, and for the owners of these interfaces. A failure is logged:
    /// interfaces that names and lists assign do not need it.
    pub fn survey(&mut self, interfaces: &[NetInterface]) {
        match Surveyor::with_addresses_if(self.policy.rules().asks_for_addresses())
            .survey(&self.netlink, interfaces)
        {
            Ok(survey) => self.adopt_survey(survey),
            Err(error) => tracing::warn!("{error:#}"),
        }
    }

    /// Takes over what another host of this process knows of the platforms.
    pub fn adopt_survey(&mut self, survey: Survey) {
        self.policy.take_survey(survey);
    }

    /// Asks the identity command, if there is one and any of these interfaces needs it. Its failure is
    /// logged, and everything that needs no answer continues.
    pub async fn ask_if_needed(&mut self, interfaces: &[NetInterface]) {
        let Some(command) = &self.policy.config.identity_command else { return };
        if !self.policy.needs_answers(interfaces) {
            return;
        }
        match identity_command::ask(command, &self.netlink).await {
            Ok(answers) => self.policy.take_answers(answers),
            Err(error) => tracing::warn!("{error:#}"),
        }
    }

    /// Waits for the lock, then opens or creates the program and the maps.
    ///
    /// # Errors
    /// As [`load::ensure`] and [`Bpffs::lock`].
    pub fn begin(&self, choice: ProgramChoice) -> anyhow::Result<Session<LockedKernel>> {
        self.bpffs.mend()?;
        let lock = self.bpffs.lock()?;
        self.restore(&lock)?;
        let config = self.config();
        let loaded = load::ensure(&self.bpffs, &lock, config, choice, || {
            let (table, unused) = class_source::table_for_new_counters(config, &self.state_dir);
            self.unused_class_file.replace(unused);
            table
        })?;
        if let Some(error) = &loaded.skb_layout_error {
            tracing::warn!("{error}: super-packets are counted by the plain rule, and reported as estimated");
        }
        let outcome = loaded.outcome;
        let registry = Registry::read(&loaded.maps)?;
        let kernel = LockedKernel {
            loaded,
            hooks: self.hooks_under_lock(),
            netlink: self.netlink.clone(),
            ledger: (config.clone(), self.state_dir.clone()),
            lock,
        };
        let mut session = Session { kernel, registry, outcome };
        if outcome == LoadOutcome::Replaced {
            session.move_hooks()?;
            let mark = if config.skb_mark { " and writes the skb mark" } else { "" };
            tracing::info!("replaced the program{mark}; the counters continue");
        }
        let (maps, lock) = (&session.kernel.loaded.maps, &session.kernel.lock);
        drops::tend(&self.bpffs, lock, maps, config.drops_enabled);
        if let Some(held) = &self.held {
            held.hold(&self.bpffs, &session.kernel.lock)?;
        }
        Ok(session)
    }

    /// Pins again what this process holds and what is no longer pinned. The caller holds the lock.
    ///
    /// # Errors
    /// When something cannot be pinned.
    pub fn restore(&self, lock: &ChangeLock) -> anyhow::Result<Restored> {
        self.held.as_ref().map_or(Ok(Restored::Nothing), |held| held.restore(&self.bpffs, lock))
    }

    /// Updates the kernel's local addresses to match the configuration and the list of `trafctl address`,
    /// which is read again under the session's lock. Addresses without room are reported once; the others
    /// take effect.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn sync_addresses(&mut self, session: &mut Session<LockedKernel>) -> anyhow::Result<()> {
        self.policy.read_list_again(&self.state_dir);
        let without_room = session.sync_addresses(&self.policy)?;
        self.report_without_slot(session);
        if self.reported_full.replace(without_room.len()) != without_room.len()
            && let Some(first) = without_room.first()
        {
            tracing::error!(
                "no room for {} of the containers' addresses ({first}, ...): on shared interfaces their \
                 packets are counted as no_container; {MORE_ADDRESSES}",
                without_room.len()
            );
        }
        Ok(())
    }

    /// Reports once which containers have no counter slot.
    fn report_without_slot(&self, session: &Session<LockedKernel>) {
        let without = self.policy.without_slot(|id| session.registry.container_slot(id).is_some());
        if *self.reported_without_slot.borrow() != without {
            if let Some(problem) = &without {
                tracing::error!("{problem}");
            }
            self.reported_without_slot.replace(without);
        }
    }

    /// The configured addresses that the program does not know, and those that it counts for another container or
    /// in another place.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn addresses_not_in_force(
        &self,
        maps: &Maps,
        registry: &Registry,
    ) -> anyhow::Result<(Vec<IpNet>, Vec<IpNet>)> {
        let in_force = tables::addresses_in_force(maps)?;
        let wanted = self.policy.addresses(|id| Ok(registry.container_slot(id)))?;
        let differing = wanted.into_iter().map(|(prefix, slot)| (prefix.trunc(), slot));
        let differing = differing.filter(|(prefix, slot)| in_force.get(prefix) != Some(slot));
        let prefixes = differing.map(|(prefix, _)| prefix);
        Ok(prefixes.partition(|prefix| !in_force.contains_key(prefix)))
    }

    /// Detaches from the selected interfaces, in batches between which the lock is free. Returns the names of
    /// those it was attached to. The counters stay.
    ///
    /// # Errors
    /// When a named interface does not exist, or the kernel refuses.
    pub fn detach(&self, selection: &Selection) -> anyhow::Result<Vec<String>> {
        let interfaces = self.netlink.interfaces()?;
        let chosen: Vec<&NetInterface> = match selection {
            Selection::Matching => interfaces.iter().collect(),
            Selection::Named(names) => {
                names.iter().map(|name| named(&interfaces, name)).collect::<anyhow::Result<_>>()?
            }
        };
        let mut detached = Vec::new();
        let mut left = chosen.into_iter().peekable();
        while left.peek().is_some() {
            let lock = self.bpffs.lock()?;
            detached.extend(self.detach_batch(&lock, &mut left, Some(end_of_batch()))?);
        }
        Ok(detached)
    }

    /// Detaches from all interfaces. For a caller that deletes everything under the same lock.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn detach_everywhere(&self, lock: &ChangeLock) -> anyhow::Result<Vec<String>> {
        let interfaces = self.netlink.interfaces()?;
        self.detach_batch(lock, &mut interfaces.iter(), None)
    }

    /// Detaches from interfaces until the given moment.
    fn detach_batch<'i>(
        &self,
        _lock: &ChangeLock,
        interfaces: &mut impl Iterator<Item = &'i NetInterface>,
        until: Option<Instant>,
    ) -> anyhow::Result<Vec<String>> {
        let hooks = self.hooks_under_lock();
        // Without maps there is nothing to compare, but the program must still be detached.
        let mut maps = load::open(&self.bpffs).ok();
        let mut registry = maps.as_ref().map(Registry::read).transpose()?;
        let mut detached = Vec::new();
        for interface in interfaces {
            if let (Some(maps), Some(registry)) = (&mut maps, &mut registry)
                && let Some(slot) = registry.interface_of_index(interface.index)
            {
                let mut kernel = MapsAndInterfaces { netlink: &self.netlink, maps };
                missed::rebase_statistics(&mut kernel, registry, slot, interface)?;
            }
            let mut was_attached = false;
            for direction in Direction::BOTH {
                was_attached |= hooks.detach(interface, direction)?;
            }
            if was_attached {
                detached.push(interface.name.clone());
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
        }
        Ok(detached)
    }
}

impl FinalReading for LockedKernel {
    fn write_final_reading(&mut self) -> anyhow::Result<bool> {
        let (config, state_dir) = &self.ledger;
        let Some(mut drainer) = Drainer::open_before_change(config, state_dir, &self.loaded.maps)? else {
            return Ok(false);
        };
        drainer.drain(&self.loaded.maps, traffic_ledger::DrainTrigger::Event)?;
        Ok(true)
    }
}
