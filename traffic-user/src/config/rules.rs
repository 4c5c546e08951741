//! Rules that decide from an interface's name what it is, and presets of such rules.
//!
//! [`crate::ownership::interface_rules`] applies them.

use anyhow::Context as _;
use regex::Regex;
use serde::Deserialize;

/// A pattern that matches whole interface names.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// The group of a pattern that captures the container's id.
const CONTAINER_GROUP: &str = "container";

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl Pattern {
    /// Compiles a regular expression, anchored at both ends.
    ///
    /// # Errors
    /// One line that says what is wrong with the expression.
    pub fn new(text: &str) -> Result<Self, String> {
        // Without the anchors first, so that a message quotes the expression as written.
        let compiled = Regex::new(text).and_then(|_| Regex::new(&format!("^(?:{text})$")));
        compiled.map(Self).map_err(|error| {
            // The library's message draws the expression with a marker below it; the last line has the
            // reason.
            let text = error.to_string();
            format!(
                "this is not a valid pattern: {}; write a regular expression",
                text.lines().last().unwrap_or(&text).trim_start_matches("error: ")
            )
        })
    }

    /// Compiles the expression of a preset's rule, which is written with its anchors.
    ///
    /// # Errors
    /// When it is not valid, which would be a bug.
    pub fn of_preset(rule: &PresetRule) -> anyhow::Result<Self> {
        let compiled = Regex::new(rule.pattern);
        compiled.map(Self).with_context(|| format!("the pattern {} of a preset is not valid", rule.pattern))
    }

    /// `Some` if the name matches, with the container's id if the pattern's group captured one.
    pub fn matches<'n>(&self, name: &'n str) -> Option<Option<&'n str>> {
        let found = self.0.captures(name)?;
        Some(found.name(CONTAINER_GROUP).map(|id| id.as_str()))
    }

    /// The expression as it was written.
    pub fn as_written(&self) -> &str {
        let anchored = self.0.as_str();
        anchored.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$")).unwrap_or(anchored)
    }

    /// Whether the pattern has the group that captures a container's id.
    pub fn names_container(&self) -> bool {
        self.0.capture_names().flatten().any(|name| name == CONTAINER_GROUP)
    }
}

/// The rules of one kind of host, tried after the configuration's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Whatever platforms are found on the host, and the names of Virtuozzo's interfaces.
    #[default]
    Auto,
    /// `vethCTID.N`, `vmeN.M`, `venet0`; `veth` + 8 hex and `vme` + 12 hex by a mapping.
    Virtuozzo,
    /// `veth100i0` and `tap100i0`; the firewall's own interfaces are ignored.
    Proxmox,
    /// `vnetN` by a mapping.
    Libvirt,
    /// `vethID` and `vethID.N`, as set by `lxc.net.N.veth.pair`; random names by a mapping.
    Lxc,
    /// `ve-NAME` and `vb-NAME`.
    Nspawn,
    /// No rules.
    Custom,
}

/// A rule of a preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresetRule {
    /// The pattern of the interface's name.
    pub pattern: &'static str,
    /// What such an interface is.
    pub kind: RuleKind,
    /// Where the rule applies.
    pub applies: Applies,
}

/// When a rule of a preset applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// Always: nothing else has such names.
    Always,
    /// To a veth only.
    ToVeth,
    /// Where Proxmox is on the host.
    OnProxmox,
    /// To a veth that does not lead to a container of another platform than LXC: a random name may look like it.
    UnlessOthers,
}

const fn rule(pattern: &'static str, kind: RuleKind) -> PresetRule {
    PresetRule { pattern, kind, applies: Applies::Always }
}

const fn limited(pattern: &'static str, kind: RuleKind, applies: Applies) -> PresetRule {
    PresetRule { pattern, kind, applies }
}

const VIRTUOZZO: [PresetRule; 5] = [
    rule(r"^venet0$", RuleKind::Shared),
    rule(r"^veth(?<container>[0-9]+)\.[0-9]+$", RuleKind::Container),
    rule(r"^vme(?<container>[0-9]+)\.[0-9]+$", RuleKind::Container),
    rule(r"^veth[0-9A-Fa-f]{8}$", RuleKind::Mapped),
    rule(r"^vme[0-9A-Fa-f]{12}$", RuleKind::Mapped),
];

/// `fwpr`, `fwln` and `fwbr` see the same packets as the interface that they protect.
const PROXMOX: [(&str, RuleKind); 3] = [
    (r"^fw(pr|ln|br)[0-9]+(p|o|i)[0-9]+$", RuleKind::Ignore),
    (r"^veth(?<container>[0-9]+)i[0-9]+$", RuleKind::Container),
    (r"^tap(?<container>[0-9]+)i[0-9]+$", RuleKind::Container),
];

/// A name has at most 15 bytes. systemd replaces the end of a longer one by a hash, and keeps the whole one as an
/// alternative name. So of 15 bytes, nothing tells whether they are the whole name. It is a host name and so has
/// ASCII only. To compile `.` instead, which is any of Unicode, would take longer than all other rules.
const NSPAWN: [(&str, RuleKind); 2] = [
    (r"^v[eb]-(?<container>[!-~]{1,11}|[!-~]{13,})$", RuleKind::Container),
    (r"^v[eb]-[!-~]{12}$", RuleKind::Mapped),
];

impl Preset {
    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Virtuozzo => "virtuozzo",
            Self::Proxmox => "proxmox",
            Self::Libvirt => "libvirt",
            Self::Lxc => "lxc",
            Self::Nspawn => "nspawn",
            Self::Custom => "custom",
        }
    }

    /// The preset's rules, in the order in which they are tried.
    pub const fn rules(self) -> &'static [PresetRule] {
        use RuleKind::{Container, Mapped};
        match self {
            Self::Auto => {
                const {
                    &[
                        VIRTUOZZO[0],
                        VIRTUOZZO[1],
                        VIRTUOZZO[2],
                        VIRTUOZZO[3],
                        VIRTUOZZO[4],
                        limited(NSPAWN[0].0, NSPAWN[0].1, Applies::ToVeth),
                        limited(NSPAWN[1].0, NSPAWN[1].1, Applies::ToVeth),
                        limited(PROXMOX[0].0, PROXMOX[0].1, Applies::OnProxmox),
                        limited(PROXMOX[1].0, PROXMOX[1].1, Applies::OnProxmox),
                        limited(PROXMOX[2].0, PROXMOX[2].1, Applies::OnProxmox),
                    ]
                }
            }
            Self::Virtuozzo => &VIRTUOZZO,
            Self::Proxmox => {
                const {
                    &[
                        rule(PROXMOX[0].0, PROXMOX[0].1),
                        rule(PROXMOX[1].0, PROXMOX[1].1),
                        rule(PROXMOX[2].0, PROXMOX[2].1),
                    ]
                }
            }
            Self::Libvirt => const { &[rule(r"^vnet[0-9]+$", Mapped)] },
            Self::Lxc => {
                const {
                    &[
                        rule(r"^veth(?<container>[0-9]+)\.[0-9]+$", Container),
                        // Random names that happen to have digits only: those of LXC have 6 letters or digits,
                        // those of Docker 7, and those of LXD and Incus 8.
                        rule(r"^veth[0-9]{6,8}$", Mapped),
                        // Podman's are `veth0`, `veth1` and so on.
                        limited(r"^veth(?<container>[0-9]+)$", Container, Applies::UnlessOthers),
                        rule(r"^veth[0-9A-Za-z]+$", Mapped),
                    ]
                }
            }
            Self::Nspawn => const { &[rule(NSPAWN[0].0, NSPAWN[0].1), rule(NSPAWN[1].0, NSPAWN[1].1)] },
            Self::Custom => &[],
        }
    }
}

/// A rule: what an interface with a matching name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The pattern of its name.
    pub pattern: Pattern,
    /// What it is.
    pub kind: RuleKind,
}

/// What an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleKind {
    /// It belongs to the container whose id is the pattern's group `container`.
    Container,
    /// It belongs to one container, found by `NETIF=`, `[[container]]` or the command under `[identities]`.
    Mapped,
    /// Several containers share it; the local address decides.
    Shared,
    /// It is not counted.
    Ignore,
}
