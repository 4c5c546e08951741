//! What should be attached on this host, and making it so.
//!
//! Interfaces come from `netlink`, their roles from `naming`, and everything in the kernel is done by `kernel`. All
//! commands that attach or detach, and the daemon, go through here, under one lock.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use traffic_common::{Direction, InterfaceEntry, UNKNOWN_INTERFACE_SLOT, interface_flags};
use traffic_model::{ContainerId, skb_mark};

use super::{local_addresses::SaidFull, missed};
use crate::{
    class_source,
    config::Config,
    kernel::{
        attach::{self, AttachKind, Change},
        bpffs::{Bpffs, ChangeLock},
        entries,
        load::{self, LoadOutcome, Loaded, ProgramChoice},
        records::read_text,
        registry::{CountedSoFar, Registry},
        tables,
    },
    net::{interface::NetInterface, netlink::Netlink},
    node::slot_reclaim,
    ownership::{
        Ownership,
        identity_command::{self, Answers},
        interface_rules::{InterfaceFacts, NameRules, Role},
    },
};

const BOTH: [Direction; 2] = [Direction::In, Direction::Out];

/// Which interfaces a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All that a rule makes a container's or shared.
    Matching,
    /// Those named.
    Named(Vec<String>),
}

/// What an attach did, for the operator.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AttachReport {
    /// Interfaces with what was done on them.
    pub attached: Vec<(String, Change)>,
    /// Interfaces that a rule matches but that no container could be found for, with the reason.
    pub unresolved: Vec<(String, String)>,
    /// Interfaces that could not be attached, with the reason.
    pub failed: Vec<(String, String)>,
}

/// The host's configuration and its connections to the kernel.
#[derive(Debug)]
pub struct Host {
    /// The configuration.
    pub config: Config,
    /// Where things are pinned.
    pub bpffs: Bpffs,
    /// The connection that lists interfaces.
    pub netlink: Netlink,
    state_dir: PathBuf,
    pub(super) identities: Ownership,
    answers: Answers,
    kind: AttachKind,
    pub(super) said_full: SaidFull,
    pub(super) said_full_for_node: SaidFull,
}

/// A change under way: the lock, and everything that was read under it.
#[derive(Debug)]
pub struct Session {
    /// Program and maps.
    pub loaded: Loaded,
    /// Who has which slot.
    pub registry: Registry,
    _lock: ChangeLock,
}

impl Host {
    /// Puts the parts together and reads whose interface and whose address is what.
    ///
    /// # Errors
    /// As [`Ownership::read`].
    pub fn new(config: Config, bpffs: Bpffs, netlink: Netlink, state_dir: &Path) -> anyhow::Result<Self> {
        let kind = AttachKind::choose(config.attach);
        let identities = Ownership::read(&config, state_dir, None)?;
        identities.log_warnings(None);
        let (state_dir, answers) = (state_dir.to_owned(), Answers::default());
        Ok(Self {
            config,
            bpffs,
            netlink,
            state_dir,
            identities,
            answers,
            kind,
            said_full: SaidFull::default(),
            said_full_for_node: SaidFull::default(),
        })
    }

    /// Reads anew whose interface and whose address is what.
    ///
    /// # Errors
    /// As [`Ownership::read`]; what was known stays.
    pub fn refresh(&mut self) -> anyhow::Result<()> {
        let fresh = Ownership::read(&self.config, &self.state_dir, Some(&self.identities))?;
        fresh.log_warnings(Some(&self.identities));
        self.identities = fresh;
        Ok(())
    }

    /// The way programs are attached here.
    pub fn kind(&self) -> AttachKind {
        self.kind
    }

    /// Which container an interface belongs to.
    pub fn role(&self, interface: &NetInterface) -> Role {
        let facts = InterfaceFacts { index: interface.index, name: &interface.name, mac: interface.mac };
        self.identities.rules.role(&facts, &self.answers)
    }

    /// Names, and whose they are.
    pub fn naming(&self) -> &NameRules {
        &self.identities.rules
    }

    /// Takes over what the configured command answered; what an earlier run answered holds no more.
    pub fn take_answers(&mut self, answers: Answers) {
        for complaint in answers.problems().iter().filter(|new| !self.answers.problems().contains(new)) {
            tracing::warn!("the command under [identities]: {complaint}");
        }
        self.answers = answers;
    }

    /// What the configured command answered last.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Asks the configured command, if there is one and any of these interfaces needs it. Its failure is said, and what
    /// needs no answer goes on.
    ///
    /// # Errors
    /// When the interfaces can't be listed anew.
    pub async fn ask_if_needed(&mut self, interfaces: &[NetInterface]) -> anyhow::Result<()> {
        let Some(command) = &self.config.identity_command else { return Ok(()) };
        if !interfaces.iter().any(|interface| matches!(self.role(interface), Role::Unresolved { .. })) {
            return Ok(());
        }
        match identity_command::ask(command, &self.netlink).await {
            Ok(answers) => self.take_answers(answers),
            Err(error) => tracing::warn!("{error:#}"),
        }
        Ok(())
    }

    /// Waits for the lock, then finds or makes program and maps.
    ///
    /// # Errors
    /// As [`load::ensure`] and [`Bpffs::lock`].
    pub async fn begin(&self, want: ProgramChoice) -> anyhow::Result<Session> {
        self.bpffs.mend()?;
        let lock = self.bpffs.lock()?;
        let loaded = load::ensure(&self.bpffs, &lock, &self.config, want, || {
            class_source::table_for_new_counters(&self.config, &self.state_dir)
        })?;
        if let Some(error) = &loaded.skb_layout_error {
            tracing::warn!(
                "segmentation types can't be read ({error}): super-packets are counted by the plain rule, and counted as \
                 estimated"
            );
        }
        let registry = Registry::read(&loaded.maps)?;
        let mut session = Session { loaded, registry, _lock: lock };
        if session.loaded.outcome == LoadOutcome::Replaced {
            // Before a program hangs that asks for them.
            session.registry.sync_shaping_marks(&mut session.loaded.maps)?;
            self.move_links(&mut session).await?;
            let mark = if self.config.skb_mark { " and writes the shaping mark" } else { "" };
            tracing::info!("another program took the old one's place{mark}; the counters go on");
        }
        Ok(session)
    }

    /// Moves every hook to the program just loaded, one atomic replacement each, then makes it the pinned one.
    async fn move_links(&self, session: &mut Session) -> anyhow::Result<()> {
        for interface in self.netlink.interfaces().await? {
            let interface =
                if session.registry.is_uplink(interface.index) { interface.as_uplink() } else { interface };
            for direction in BOTH {
                for kind in [AttachKind::Tcx, AttachKind::Clsact] {
                    if !attach::is_attached(&self.bpffs, &self.netlink, &interface, kind, direction).await? {
                        continue;
                    }
                    let programs = &mut session.loaded.programs;
                    let moved =
                        attach::ensure(&self.bpffs, &self.netlink, programs, &interface, kind, direction)
                            .await;
                    // One that went meanwhile takes its hooks along.
                    if moved.is_err() && self.netlink.interface(interface.index).await?.is_none() {
                        continue;
                    }
                    moved?;
                }
            }
        }
        load::finish_replacement(&self.bpffs, &mut session.loaded)
    }

    /// Attaches to the selected interfaces of `interfaces` and forgets those that are gone. One interface that fails does
    /// not keep others from being attached.
    ///
    /// # Errors
    /// When a named interface does not exist or no rule knows it (then nothing is attached), or the maps can't be
    /// written.
    pub async fn attach(
        &self,
        session: &mut Session,
        interfaces: &[NetInterface],
        selection: &Selection,
    ) -> anyhow::Result<AttachReport> {
        let mut report = AttachReport::default();
        // Before the hooks: the first packet on an uplink must find whose it is.
        self.sync_node_addresses(session).await?;
        for (interface, role) in self.select(interfaces, selection)? {
            match role {
                Role::Ignored(_) => self.let_go_of_uplink(session, interface).await?,
                Role::Uplink => {
                    let interface = interface.clone().as_uplink();
                    self.attach_reported(session, &interface, Some(&ContainerId::node()), &mut report).await;
                }
                Role::Unresolved { reason } => report.unresolved.push((interface.name.clone(), reason)),
                Role::Container(id) => self.attach_reported(session, interface, Some(&id), &mut report).await,
                Role::Shared => self.attach_reported(session, interface, None, &mut report).await,
            }
        }
        Ok(report)
    }

    fn select<'l>(
        &self,
        interfaces: &'l [NetInterface],
        selection: &Selection,
    ) -> anyhow::Result<Vec<(&'l NetInterface, Role)>> {
        let Selection::Named(names) = selection else {
            return Ok(interfaces.iter().map(|interface| (interface, self.role(interface))).collect());
        };
        names
            .iter()
            .map(|name| {
                let interface = interfaces
                    .iter()
                    .find(|interface| interface.name == *name)
                    .with_context(|| format!("there is no interface {name} here"))?;
                match self.role(interface) {
                    Role::Ignored(_) => bail!(
                        "no rule tells whose interface {name} is: name it under [[container]] interfaces, or add a rule \
                         under [interfaces], in the configuration"
                    ),
                    Role::Unresolved { reason } => bail!("it is not known whose interface {name} is: {reason}"),
                    role => Ok((interface, role)),
                }
            })
            .collect()
    }

    async fn attach_reported(
        &self,
        session: &mut Session,
        interface: &NetInterface,
        container: Option<&ContainerId>,
        report: &mut AttachReport,
    ) {
        match self.attach_one(session, interface, container).await {
            Ok(change) => report.attached.push((interface.name.clone(), change)),
            Err(error) => report.failed.push((interface.name.clone(), format!("{error:#}"))),
        }
    }

    async fn attach_one(
        &self,
        session: &mut Session,
        interface: &NetInterface,
        container: Option<&ContainerId>,
    ) -> anyhow::Result<Change> {
        let slot = match container {
            Some(id) => self.container_slot(session, id)?,
            None => None,
        };
        let Session { loaded, registry, .. } = &mut *session;
        if container.is_some() && slot.is_none() {
            tracing::warn!(
                "{}: no counter slot is free ({} containers): its packets are counted as container_table_full",
                interface.name,
                registry.containers().len()
            );
        }
        let before = registry.interface_of_index(interface.index);
        let mut interface_slot = registry.assign_interface(&mut loaded.maps, interface, container, slot)?;
        if interface_slot == UNKNOWN_INTERFACE_SLOT && self.make_room(session, slot) {
            let Session { loaded, registry, .. } = &mut *session;
            interface_slot = registry.assign_interface(&mut loaded.maps, interface, container, slot)?;
        }
        let Session { loaded, registry, .. } = &mut *session;
        let moved = before.filter(|&old| old != interface_slot);

        let mut hanging = true;
        for direction in BOTH {
            let programs = &mut loaded.programs;
            hanging &=
                attach::is_current(&self.bpffs, &self.netlink, programs, interface, self.kind, direction)
                    .await?;
        }
        // Without a slot of its own until now it was counted in the one that strangers share, and no record has its index:
        // it would look gone, and its slots be given away while it counts in them.
        let was_stranger = hanging
            && interface_slot != UNKNOWN_INTERFACE_SLOT
            && registry.interfaces()[interface_slot as usize].ifindex != interface.index;
        let begins = moved.is_some() || was_stranger || !hanging;
        let counted_so_far = match moved {
            None if was_stranger => CountedSoFar::Elsewhere,
            None => CountedSoFar::Here,
            Some(_) if hanging => CountedSoFar::Elsewhere,
            Some(slot) => CountedSoFar::ElsewhereWithGap { slot },
        };
        if begins {
            // Written before the hooks, so that an attach that is cut short is made good by the next one.
            let now = self.netlink.interface(interface.index).await?.unwrap_or_else(|| interface.clone());
            let now = if interface.is_uplink { now.as_uplink() } else { now };
            registry.note_attach(&mut loaded.maps, interface_slot, &now, counted_so_far)?;
        }
        let entry = InterfaceEntry {
            flags: if interface.is_uplink { interface_flags::UPLINK } else { interface_flags::PRESENT }
                | if container.is_none() { interface_flags::SHARED } else { 0 }
                | if container.is_some() && slot.is_none() { interface_flags::NO_SLOT } else { 0 },
            interface_slot,
            // No slot at all: a packet may meet the flags of before beside it.
            container_slot: slot.unwrap_or(u32::MAX),
            link_header_len: interface.link_header_len(),
        };
        // Before the hooks: a packet must find its interface from the first one on.
        entries::write(&mut loaded.maps, interface.index, entry)?;
        // Not before: what is gone may be given away. An attach that was cut short here has left more than one.
        for old in registry.others_of_index(interface.index, interface_slot) {
            registry.note_gone(&mut loaded.maps, old)?;
        }
        let mut change = Change::Kept;
        for direction in BOTH {
            if begins {
                attach::detach_other_kind(&self.bpffs, &self.netlink, interface, self.kind, direction)
                    .await?;
            }
            let done = attach::ensure(
                &self.bpffs,
                &self.netlink,
                &mut loaded.programs,
                interface,
                self.kind,
                direction,
            )
            .await?;
            change = change.max(done);
        }
        match (interface.is_uplink, begins) {
            (true, _) => {}
            (false, true) => {
                missed::settle(&self.netlink, session, interface_slot, interface.index, counted_so_far)
                    .await?;
            }
            (false, false) => {
                let Session { loaded, registry, .. } = session;
                missed::compare_anew(&self.netlink, &mut loaded.maps, registry, interface_slot, interface)
                    .await?;
            }
        }
        Ok(change)
    }

    /// The slot of a container, if need be one whose owner is gone; `None` when all are taken.
    pub(super) fn container_slot(
        &self,
        session: &mut Session,
        id: &ContainerId,
    ) -> anyhow::Result<Option<u32>> {
        if let Some(slot) = session.registry.container_slot(id) {
            return Ok(Some(slot));
        }
        if self.config.skb_mark && !id.is_node() && skb_mark::base(id.as_str()).is_none() {
            tracing::warn!(
                "what container {id} sends gets no shaping mark: {}",
                skb_mark::why_unmarked(id.as_str())
            );
        }
        let slot = session.registry.assign_container(&mut session.loaded.maps, id)?;
        if slot.is_some() || !self.make_room(session, None) {
            return Ok(slot);
        }
        session.registry.assign_container(&mut session.loaded.maps, id)
    }

    /// Whether there was anything to free. That it failed keeps nothing from being counted, in a fault at the least.
    /// `taken` is the container's slot of the interface at hand, which nothing else tells of yet.
    fn make_room(&self, session: &mut Session, taken: Option<u32>) -> bool {
        let Session { loaded, registry, .. } = session;
        // An address that is nobody's any more must not lead to a slot that is about to go to another.
        let addresses = self.addresses(|id| Ok(registry.container_slot(id)));
        addresses
            .and_then(|addresses| tables::sync_addresses(&mut loaded.maps, &addresses))
            .and_then(|_| {
                let maps_and_registry = (&mut loaded.maps, registry);
                slot_reclaim::make_room(&self.config, &self.state_dir, maps_and_registry, taken, |id| {
                    self.owns_address(id)
                })
            })
            .unwrap_or_else(|error| {
                tracing::error!("slots run short, and none can be freed: {error:#}");
                false
            })
    }

    /// Takes what is ours off an interface that is named as an uplink no more. Its counters stay.
    async fn let_go_of_uplink(&self, session: &mut Session, interface: &NetInterface) -> anyhow::Result<()> {
        let Some(slot) = session.registry.interface_of_index(interface.index) else { return Ok(()) };
        if read_text(&session.registry.interfaces()[slot as usize].container) != ContainerId::node().as_str()
        {
            return Ok(());
        }
        for direction in BOTH {
            attach::detach(&self.bpffs, &self.netlink, interface, direction).await?;
        }
        session.registry.note_gone(&mut session.loaded.maps, slot)?;
        entries::write(&mut session.loaded.maps, interface.index, InterfaceEntry::default())?;
        tracing::info!("{} is no uplink any more; its counters stay", interface.name);
        Ok(())
    }

    /// Lets go of interfaces that exist no more: their entries and pinned interfaces. Their counters stay.
    ///
    /// # Errors
    /// When an interface can't be unpinned or a map not be written.
    pub fn release_gone(&self, session: &mut Session, interfaces: &[NetInterface]) -> anyhow::Result<()> {
        let exists = |index: u32| interfaces.iter().any(|interface| interface.index == index);
        let registered =
            session.registry.interfaces().iter().map(|record| record.ifindex).filter(|&index| index != 0);
        // One without a slot of its own has only its entry, which keeps its container's slot. New interfaces get higher indexes,
        // so that an entry above the highest is looked at soon enough.
        let highest = interfaces.iter().map(|interface| interface.index).max().unwrap_or(0);
        let entered = entries::up_to(&session.loaded.maps, highest)?.into_iter().map(|(index, _)| index);
        let mut gone: Vec<u32> = registered
            .chain(entered)
            .chain(self.bpffs.linked_interfaces()?)
            .filter(|&index| !exists(index))
            .collect();
        gone.sort_unstable();
        gone.dedup();
        gone.into_iter().try_for_each(|index| self.release(session, index))
    }

    /// Lets go of one interface that exists no more.
    ///
    /// # Errors
    /// As [`Self::release_gone`].
    pub fn release(&self, session: &mut Session, ifindex: u32) -> anyhow::Result<()> {
        for direction in BOTH {
            attach::unpin(&self.bpffs, ifindex, direction)?;
        }
        if let Some(slot) = session.registry.interface_of_index(ifindex) {
            let name = read_text(&session.registry.interfaces()[slot as usize].name).to_owned();
            session.registry.note_gone(&mut session.loaded.maps, slot)?;
            tracing::info!("{name} is gone; its counters stay");
        }
        entries::write(&mut session.loaded.maps, ifindex, InterfaceEntry::default())
    }

    /// Takes what is ours off the selected interfaces; gives the names of those it hung on. The counters stay.
    ///
    /// # Errors
    /// When a named interface does not exist, or the kernel refuses.
    pub async fn detach(&self, _lock: &ChangeLock, selection: &Selection) -> anyhow::Result<Vec<String>> {
        let interfaces = self.netlink.interfaces().await?;
        let chosen: Vec<&NetInterface> = match selection {
            Selection::Matching => interfaces.iter().collect(),
            Selection::Named(names) => names
                .iter()
                .map(|name| {
                    let found = interfaces.iter().find(|interface| interface.name == *name);
                    found.with_context(|| format!("there is no interface {name} here"))
                })
                .collect::<anyhow::Result<_>>()?,
        };
        let mut detached = Vec::new();
        // Without maps there is nothing to compare, and all the more to take off.
        let mut maps = load::open(&self.bpffs).ok();
        let mut registry = maps.as_ref().map(Registry::read).transpose()?;
        for interface in chosen {
            if let (Some(maps), Some(registry)) = (&mut maps, &mut registry)
                && let Some(slot) = registry.interface_of_index(interface.index)
            {
                missed::compare_anew(&self.netlink, maps, registry, slot, interface).await?;
            }
            let mut was_attached = false;
            for direction in BOTH {
                was_attached |= attach::detach(&self.bpffs, &self.netlink, interface, direction).await?;
            }
            if was_attached {
                detached.push(interface.name.clone());
            }
        }
        Ok(detached)
    }
}
