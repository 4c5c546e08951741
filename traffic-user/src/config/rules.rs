//! Rules that tell from an interface's name what it is.

use regex::Regex;
use serde::Deserialize;

/// A pattern of interface names.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// The group of a pattern that gives the container's id.
const CONTAINER_GROUP: &str = "container";

impl Pattern {
    /// Compiles a regular expression, which has to match whole names.
    ///
    /// # Errors
    /// One line saying what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        // By itself first, so that a message speaks of what was written.
        let compiled = Regex::new(text).and_then(|_| Regex::new(&format!("^(?:{text})$")));
        compiled.map(Self).map_err(|error| {
            // The library draws the expression with a marker below; the last line has the reason.
            let text = error.to_string();
            format!(
                "this is no usable pattern: {}",
                text.lines().last().unwrap_or(&text).trim_start_matches("error: ")
            )
        })
    }

    /// Whether the name matches, and the container's id if the pattern's group gives one.
    pub fn matches<'n>(&self, name: &'n str) -> Option<Option<&'n str>> {
        let found = self.0.captures(name)?;
        Some(found.name(CONTAINER_GROUP).map(|id| id.as_str()))
    }

    /// Whether it has the group that gives a container's id.
    pub fn names_container(&self) -> bool {
        self.0.capture_names().flatten().any(|name| name == CONTAINER_GROUP)
    }
}

/// Rules for hosts of a kind, tried after the configuration's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// `vethCTID.N`, `vmeN.M`, `venet0`; `veth` + 8 hex and `vme` + 12 hex through what is written down.
    #[default]
    Virtuozzo,
    /// `veth100i0` and `tap100i0`; the firewall's own interfaces are ignored.
    Proxmox,
    /// `vnetN` through what is written down.
    Libvirt,
    /// `vethID` and `vethID.N`, as `lxc.net.N.veth.pair` names them; names made at random through what is written down.
    Lxc,
    /// `ve-NAME` and `vb-NAME`.
    Nspawn,
    /// None at all.
    Custom,
}

impl Preset {
    /// The name the configuration has for it.
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

    /// Rules by pattern.
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
                // Where no name is configured, LXC makes one up: veth and six letters or digits.
                (r"^veth[0-9A-Za-z]+$", Mapped),
            ],
            Self::Nspawn => &[(r"^v[eb]-(?<container>.+)$", Container)],
            Self::Custom => &[],
        }
    }
}

/// What an interface with a certain name is.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The name.
    pub pattern: Pattern,
    /// What it is.
    pub kind: RuleKind,
}

/// What a rule makes of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleKind {
    /// One container's; the pattern's group `container` is its id.
    Container,
    /// One container's; whose tells `NETIF=`, `[[container]]` or the command under `[identities]`.
    Mapped,
    /// Shared by containers, told apart by address.
    Shared,
    /// Not ours.
    Ignore,
}
