//! Rules that decide from an interface's name what it is, and presets of such rules.
//!
//! [`crate::ownership::interface_rules`] applies them.

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

    /// `Some` if the name matches, with the container's id if the pattern's group captured one.
    pub fn matches<'n>(&self, name: &'n str) -> Option<Option<&'n str>> {
        let found = self.0.captures(name)?;
        Some(found.name(CONTAINER_GROUP).map(|id| id.as_str()))
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
    /// `vethCTID.N`, `vmeN.M`, `venet0`; `veth` + 8 hex and `vme` + 12 hex by a mapping.
    #[default]
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

impl Preset {
    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Virtuozzo => "virtuozzo",
            Self::Proxmox => "proxmox",
            Self::Libvirt => "libvirt",
            Self::Lxc => "lxc",
            Self::Nspawn => "nspawn",
            Self::Custom => "custom",
        }
    }

    /// The preset's patterns, in the order in which they are tried.
    pub const fn rules(self) -> &'static [(&'static str, RuleKind)] {
        use RuleKind::{Container, Ignore, Mapped, Shared};
        match self {
            Self::Virtuozzo => &[
                (r"^venet0$", Shared),
                (r"^veth(?<container>[0-9]+)\.[0-9]+$", Container),
                (r"^vme(?<container>[0-9]+)\.[0-9]+$", Container),
                (r"^veth[0-9A-Fa-f]{8}$", Mapped),
                (r"^vme[0-9A-Fa-f]{12}$", Mapped),
            ],
            Self::Proxmox => &[
                (r"^fw(pr|ln|br)[0-9]+(p|o|i)[0-9]+$", Ignore),
                (r"^veth(?<container>[0-9]+)i[0-9]+$", Container),
                (r"^tap(?<container>[0-9]+)i[0-9]+$", Container),
            ],
            Self::Libvirt => &[(r"^vnet[0-9]+$", Mapped)],
            Self::Lxc => &[
                (r"^veth(?<container>[0-9]+)(\.[0-9]+)?$", Container),
                // Without a configured name, LXC chooses one: veth and six random letters or digits.
                (r"^veth[0-9A-Za-z]+$", Mapped),
            ],
            Self::Nspawn => &[(r"^v[eb]-(?<container>.+)$", Container)],
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
