//! What is on the hooks of each interface, and what is wrong there.

use std::collections::{HashMap, HashSet};

use traffic_common::{DIRECTIONS, Direction, InterfaceEntry, UNKNOWN_INTERFACE_SLOT, interface_flags};
use traffic_model::ContainerId;

use super::{
    excess,
    moment::{Counted, Moment},
    ports,
    report::{Attachment, CountedUnnamed, Hook, NotWatched},
    unnamed,
};
use crate::{
    kernel::{
        entries,
        hooks::{AttachedProgram, HookListing, HookState, Listed, OnHook, Recognition},
        maps::Maps,
    },
    net::interface::NetInterface,
    node::{
        Host,
        plan::{self, Seen, Step, Wanted, WithoutRoom},
        registry::Registry,
    },
    ownership::{
        ContainerNames,
        interface_rules::{Ignored, Role},
    },
};

/// All interfaces of the host, and what is wrong with them.
pub(super) struct Interfaces {
    pub attachments: Vec<Attachment>,
    pub counted_unnamed: Vec<CountedUnnamed>,
    pub not_watched: Vec<NotWatched>,
    pub problems: Vec<String>,
    /// Counters that contradict the kernel.
    pub figures: Vec<String>,
    /// By name of an interface that is counted for a pending owner: why its container is unknown.
    pub unresolved: HashMap<String, String>,
    /// What people call the containers.
    pub names: ContainerNames,
    /// Who has which slot.
    pub registry: Registry,
    /// The entries of all interfaces that exist or have left something behind.
    pub entries: HashMap<u32, InterfaceEntry>,
}

impl Interfaces {
    /// Looks at all of them. Everything that can be read for all at once is. `listed_hooks` returns what was asked
    /// about the hooks meanwhile.
    ///
    /// # Errors
    /// When a map or a hook cannot be read.
    pub(super) fn gather(
        host: &Host,
        maps: &Maps,
        moment: &Moment,
        listed_hooks: impl FnOnce() -> anyhow::Result<Listed>,
    ) -> anyhow::Result<Self> {
        let Moment { listed, counted_before, counted } = moment;
        let registry = Registry::read(maps)?;
        let hooks = host.hooks();
        let hooks = hooks.list_ahead(listed_hooks()?, Recognition::Program)?;
        let exist = listed.iter().map(|interface| interface.index);
        let indexes = exist.chain(registry.indexes()).chain(hooks.pinned_interfaces()).collect();
        let mut all = Self {
            attachments: Vec::new(),
            counted_unnamed: Vec::new(),
            not_watched: Vec::new(),
            problems: Vec::new(),
            figures: Vec::new(),
            unresolved: HashMap::new(),
            names: host.policy.names(),
            entries: entries::of(maps, &indexes)?.into_iter().collect(),
            registry,
        };
        for uplink in host.policy.missing_uplinks(listed) {
            all.problems.push(format!(
                "uplink {uplink}: no interface has this name, so the node's own traffic on it is not counted; correct \
                 `uplinks` under [node]"
            ));
        }
        let ours = (maps, counted_before.as_slice());
        all.figures.extend(excess::problems(&host.netlink, ours, &all.registry, listed, &hooks)?);
        let roles: Vec<Role> = listed.iter().map(|interface| host.policy.role(interface)).collect();
        all.problems.extend(unwatched_ports(listed, &roles, &all.registry));
        for (interface, role) in listed.iter().cloned().zip(roles) {
            match role {
                Role::Container(id) => all.add(&hooks, counted, interface, Some(id))?,
                Role::Uplink => {
                    let interface = host.policy.as_uplink(interface);
                    all.add(&hooks, counted, interface, Some(ContainerId::node()))?;
                }
                Role::Shared => all.add(&hooks, counted, interface, None)?,
                Role::Unresolved { reason } if all.registry.is_renamed(&interface) => {
                    all.add_unnamed(&hooks, interface, &reason)?;
                }
                Role::Unresolved { reason } => {
                    all.add_unresolved((&hooks, counted), interface, reason)?;
                }
                Role::Ignored(why) => {
                    let reason = host.policy.rules().why_ignored(why);
                    all.add_unnamed(&hooks, interface, &reason)?;
                }
            }
        }
        all.problems.extend(unnamed::problem(&all.counted_unnamed));
        let mut counted: HashSet<u32> = all.counted_unnamed.iter().map(|one| one.ifindex).collect();
        let is_counted = |interface: &NetInterface| counted.contains(&interface.index);
        let nothing_matches = host.policy.nothing_matches(listed, is_counted);
        if nothing_matches.is_none() {
            counted.extend(all.attachments.iter().map(|one| one.ifindex));
            let is_counted = |interface: &NetInterface| counted.contains(&interface.index);
            let more = all.unwatched(&host.policy.uncounted(listed, is_counted));
            all.problems.extend(more);
        }
        all.problems.extend(nothing_matches);
        Ok(all)
    }

    /// The problems of interfaces that look like a container's and are not counted, except of those that have
    /// one already.
    fn unwatched(&self, left_out: &[&NetInterface]) -> Vec<String> {
        if left_out.is_empty() {
            return Vec::new();
        }
        let of = |problem: &'_ String| problem.split_once(": ").map(|(name, _)| name.to_owned());
        let have_one: HashSet<String> = self.problems.iter().chain(&self.figures).filter_map(of).collect();
        let reasons: HashMap<&str, &str> =
            self.not_watched.iter().map(|one| (one.interface.as_str(), one.reason.as_str())).collect();
        let names = left_out.iter().map(|interface| interface.name.as_str());
        let problem = |name| {
            let why = reasons.get(name)?;
            Some(format!(
                "{name}: it looks like a container's, and is not counted: {why}; assign it under [[container]], or add \
                 a rule of kind \"ignore\" for it under [interfaces]"
            ))
        };
        names.filter(|name| !have_one.contains(*name)).filter_map(problem).collect()
    }

    /// Adds an interface whose container nothing names. It should be attached all the same.
    fn add_unresolved(
        &mut self,
        (hooks, counted): (&HookListing<'_>, &Counted),
        interface: NetInterface,
        reason: String,
    ) -> anyhow::Result<()> {
        let name = interface.name.clone();
        let entry = self.entries.get(&interface.index).copied().unwrap_or_default();
        let owner = self.registry.recorded_owner(interface.index, &entry);
        if let Some(pending) = owner.filter(ContainerId::is_pending) {
            self.add(hooks, counted, interface, Some(pending))?;
        } else if interface.has_both_ends_here() {
            self.add_unnamed(hooks, interface, "both its ends are in this network namespace")?;
        } else {
            let doing = match self.add_unnamed(hooks, interface, &reason)? {
                true => "counted as before, but nothing names its container any more",
                false => "not attached",
            };
            self.problems.push(format!("{name}: {doing}: {reason}"));
            return Ok(());
        }
        self.unresolved.insert(name, reason);
        Ok(())
    }

    /// Adds an interface that need not be attached; returns whether it is.
    fn add_unnamed(
        &mut self,
        hooks: &HookListing<'_>,
        interface: NetInterface,
        reason: &str,
    ) -> anyhow::Result<bool> {
        if let Some(counted) = unnamed::describe(&self.registry, &interface, reason.to_owned())
            && hooks.state(&interface, Direction::In)?.ours()
                + hooks.state(&interface, Direction::Out)?.ours()
                > 0
        {
            self.counted_unnamed.push(counted);
            return Ok(true);
        }
        self.not_watched.push(NotWatched { interface: interface.name, reason: reason.to_owned() });
        Ok(false)
    }

    /// Adds an interface that should be attached.
    fn add(
        &mut self,
        hooks: &HookListing<'_>,
        counted: &Counted,
        interface: NetInterface,
        container: Option<ContainerId>,
    ) -> anyhow::Result<()> {
        let states = [hooks.state(&interface, Direction::In)?, hooks.state(&interface, Direction::Out)?];
        let entry = self.entries.get(&interface.index).copied().unwrap_or_default();
        let seen = Seen {
            wanted: container.clone().map_or(Wanted::Shared, Wanted::Container),
            hooks: hooks.compared(&interface, &states)?,
            starved: [false; DIRECTIONS],
            entry,
            // An entry without a slot shows that none was free.
            without_room: WithoutRoom {
                container: entry.flags & interface_flags::NO_SLOT != 0,
                interface: entry.flags != 0 && entry.interface_slot == UNKNOWN_INTERFACE_SLOT,
            },
            interface,
        };
        self.problems.extend(plan_problems(&seen, &states, &self.registry));
        let Seen { interface, .. } = seen;
        let sides = Direction::BOTH.map(|direction| {
            let state = &states[direction as usize];
            let obstacle = if state.ours() == 0 { hooks.obstacle(&interface, direction) } else { None };
            (hook(state), obstacle)
        });
        // On an uplink, traffic into the node comes in where a container's traffic goes out.
        let [mut incoming, mut outgoing] = sides;
        if interface.is_reversed() {
            std::mem::swap(&mut incoming, &mut outgoing);
        }
        self.problems.extend(hook_problems(&interface, "in", &incoming.0, incoming.1));
        self.problems.extend(hook_problems(&interface, "out", &outgoing.0, outgoing.1));
        let (incoming, outgoing) = (incoming.0, outgoing.0);
        for (direction, kernel, passed) in counted.missed_buffers(&interface) {
            let (hook, name) = match direction {
                Direction::In => (&incoming, "in"),
                Direction::Out => (&outgoing, "out"),
            };
            // A hook without our program is a problem of its own, and explains this one.
            if hook.ours > 0 {
                self.problems.push(format!(
                    "{}: of {} {name} since it was attached, {passed} reached the program: {}",
                    interface.name,
                    traffic_model::counted(kernel, "buffer"),
                    path_around(&interface, direction)
                ));
            }
        }
        self.attachments.push(Attachment {
            interface: interface.name,
            ifindex: interface.index,
            name: container.as_ref().and_then(|id| self.names.of(id)).map(str::to_owned),
            container: container.map(|id| id.to_string()),
            incoming,
            outgoing,
        });
        Ok(())
    }
}

/// How packets may have passed the program of a direction.
fn path_around(interface: &NetInterface, direction: Direction) -> String {
    let receives = if interface.is_reversed() { Direction::In } else { Direction::Out };
    match interface.xdp {
        Some(xdp) if direction == receives => {
            format!("{xdp} on it sees them first, and what it drops, answers or redirects is not counted")
        }
        _ if direction == receives => {
            "another program runs before it, or packets take a path around the hook".to_owned()
        }
        _ => "packets take a path around the hook, such as bpf_redirect_peer, a redirect by XDP, or a packet socket \
              that bypasses the queues"
            .to_owned(),
    }
}

/// One that was renamed to a name that no rule matches is still attached.
fn unwatched_ports(listed: &[NetInterface], roles: &[Role], registry: &Registry) -> Vec<String> {
    let ports = listed.iter().zip(roles).map(|(interface, role)| ports::Port {
        interface,
        is_watched: !matches!(role, Role::Ignored(_))
            || registry.interface_of_index(interface.index).is_some(),
        is_ignored: *role == Role::Ignored(Ignored::ByRule),
    });
    ports::problems(&ports.collect::<Vec<_>>())
}

/// What `attach` would change on an interface although programs of trafctl's are on its hooks.
fn plan_problems(seen: &Seen, states: &[HookState; DIRECTIONS], registry: &Registry) -> Vec<String> {
    let name = &seen.interface.name;
    let mut problems = Vec::new();
    for direction in Direction::BOTH {
        let at = direction as usize;
        let label = match seen.interface.side(direction) {
            Direction::In => "in",
            Direction::Out => "out",
        };
        match seen.hooks[at].ours {
            OnHook::Other => problems.push(format!(
                "{name}: another version of the program is attached ({label}); `trafctl attach {name}` replaces it"
            )),
            OnHook::Nothing if seen.hooks[at].other_kind => problems.push(format!(
                "{name}: attached by another method than [attach] names ({label}), and counted; \
                 `trafctl attach {name}` changes the method"
            )),
            OnHook::Nothing if states[at].ours() > 0 => problems.push(format!(
                "{name}: the trafctl program on its hook ({label}) is not this installation's; \
                 `trafctl attach {name}` attaches its own"
            )),
            OnHook::Nothing | OnHook::Current => {}
        }
    }
    let is_attached = seen.hooks.iter().all(|hook| hook.ours == OnHook::Current);
    let is_recorded =
        |step: &Step| !matches!(step, Step::AssignSlots | Step::RecordAttach { .. } | Step::SetEntry(_));
    if is_attached && !plan::steps(seen, registry).iter().all(is_recorded) {
        let owner = seen.wanted.container().map_or("those who share it".to_owned(), ToString::to_string);
        problems.push(format!(
            "{name}: attached, but not recorded for {owner}, so that its packets are counted elsewhere; \
             `trafctl attach {name}` corrects it"
        ));
    }
    problems
}

fn hook(state: &HookState) -> Hook {
    let first_of_ours = state.programs.iter().find(|program| program.is_ours());
    Hook {
        kind: first_of_ours.map(|program| program.kind.name()),
        ours: state.ours(),
        before_ours: state.before_ours().iter().map(AttachedProgram::label).collect(),
        unnamed: state.programs.iter().filter(|program| program.name.is_none()).count(),
    }
}

/// `obstacle`: what keeps the program from the hook.
fn hook_problems(
    interface: &NetInterface,
    direction: &str,
    hook: &Hook,
    obstacle: Option<String>,
) -> Vec<String> {
    let name = &interface.name;
    let mut problems = Vec::new();
    match hook.ours {
        0 => problems.push(match obstacle {
            Some(reason) => format!("{name}: not attached ({direction}): {reason}"),
            None => format!("{name}: not attached ({direction}); `trafctl attach {name}` attaches it"),
        }),
        1 => {}
        n => problems.push(format!(
            "{name}: {n} trafctl programs are attached to one hook ({direction}) and count everything {n} \
             times: another bpffs directory is in use besides this one; detach one of them with its --bpffs"
        )),
    }
    if !hook.before_ours.is_empty() {
        problems.push(format!(
            "{name}: {} runs before trafctl ({direction}) and may keep packets from it; `trafctl detach \
             {name}`, then `trafctl attach {name}` puts trafctl first",
            hook.before_ours.join(", ")
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernel::hooks::{AttachKind, HookSeen},
        node::tests::fake::FakeKernel,
    };

    #[test]
    fn each_problem_of_a_hook_is_reported() {
        let interface = NetInterface { index: 7, name: "veth101.0".to_owned(), ..NetInterface::default() };
        let hook = |ours, before: &[&str]| Hook {
            kind: Some("tcx"),
            ours,
            before_ours: before.iter().map(|&name| name.to_owned()).collect(),
            unnamed: 0,
        };
        assert_eq!(hook_problems(&interface, "in", &hook(1, &[]), None), [""; 0]);
        let problems = hook_problems(&interface, "out", &hook(2, &["foreign"]), None);
        assert!(problems[0].starts_with("veth101.0: 2 trafctl programs are attached to one hook (out)"));
        assert!(problems[1].starts_with("veth101.0: foreign runs before trafctl (out)"));
        assert!(
            hook_problems(&interface, "in", &hook(0, &[]), None)[0]
                .ends_with("`trafctl attach veth101.0` attaches it")
        );
        assert_eq!(
            hook_problems(&interface, "in", &hook(0, &[]), Some("it is taken".to_owned())),
            ["veth101.0: not attached (in): it is taken"]
        );
    }

    #[test]
    fn what_attach_would_change_is_a_problem() {
        let mut kernel = FakeKernel::new(3, 4);
        let mut registry = Registry::read(&kernel).unwrap();
        let id = ContainerId::new("101").unwrap();
        let interface = NetInterface { index: 7, name: "veth101.0".to_owned(), ..NetInterface::default() };
        let program = AttachedProgram {
            id: 3,
            name: Some("trafctl_ingress".to_owned()),
            kind: AttachKind::Tcx,
            is_this_installations: true,
        };
        let states = [(); 2].map(|()| HookState { programs: vec![program.clone()], is_pinned: true });
        let seen = |ours| Seen {
            interface: interface.clone(),
            wanted: Wanted::Container(id.clone()),
            hooks: [(); 2].map(|()| HookSeen { ours, ..HookSeen::default() }),
            starved: [false; 2],
            entry: InterfaceEntry::default(),
            without_room: WithoutRoom::default(),
        };
        let start = |ours, registry: &Registry| plan_problems(&seen(ours), &states, registry);
        assert!(
            start(OnHook::Other, &registry)[0].contains("another version of the program is attached (in)")
        );
        assert!(start(OnHook::Nothing, &registry)[1].contains("(out) is not this installation's"));
        let unrecorded = start(OnHook::Current, &registry);
        assert!(
            unrecorded[0].starts_with("veth101.0: attached, but not recorded for 101, so"),
            "{unrecorded:?}"
        );
        // As attach records it.
        let slot = registry.assign_container(&mut kernel, &id).unwrap();
        registry.assign_interface(&mut kernel, &interface, Some(&id), slot).unwrap();
        assert_eq!(start(OnHook::Current, &registry).len(), 1, "the record lacks the index");
    }
}
