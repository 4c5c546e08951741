//! `vznetstat` and `pnetstat`: one program that distinguishes them by its name.
//!
//! Two differences from Virtuozzo's program follow its manual. Every id of several `-v` is shown, not only
//! the last one. `-t` filters rows, and does not only change the header.

use std::{collections::BTreeSet, ffi::OsString, fmt::Write as _};

use lexopt::{Arg, Parser};
use traffic_common::{Family, Tally};
use traffic_model::{ByDirection, ContainerId, Snapshot};

use crate::vz::{CLASSES, sums::containers};

/// The header line of both programs.
const HEADER: &str = "UUID                                 Net.Class     Input(bytes) Input(pkts)        Output(bytes) Output(pkts)\n";
/// The header line with `-t ct`. The rows have the same format.
const HEADER_OF_CONTAINERS: &str =
    "CTID    Net.Class     Input(bytes) Input(pkts)        Output(bytes) Output(pkts)\n";
/// Prefixes of virtual machines' interfaces: Virtuozzo, Proxmox VE, libvirt.
const MACHINE_INTERFACES: [&str; 3] = ["vme", "tap", "vnet"];

/// The name under which the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// `vznetstat`
    Vznetstat,
    /// `pnetstat`
    Pnetstat,
}

/// `-t`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// `all`
    #[default]
    All,
    /// `ct`
    Containers,
    /// `vm`
    Machines,
}

/// Which rows to print, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `-4` or `-6`; without, both families are added up.
    pub family: Option<Family>,
    /// `-v`: only these; empty for all.
    pub containers: Vec<ContainerId>,
    /// `-c`: only these, if they are configured; empty for all that are.
    pub classes: BTreeSet<u8>,
    /// `-a`: every class, configured or not.
    pub all_classes: bool,
    /// `-r`: bytes in K, M and G.
    pub rounded: bool,
    /// `-t`
    pub kind: Kind,
}

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Print rows. The strings are words that are not options: getopt accepts them, so they are only
    /// reported.
    Show(Request, Vec<String>),
    /// `-h`
    Help,
}

/// Why a command line is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// Unknown option, or its value is missing: status 1 with the usage.
    #[error("{0}")]
    Usage(String),
    /// Invalid value: status 250.
    #[error("{0}")]
    Value(String),
}

/// Parses the options, which are getopt's `v:c:arht:64`. Letters can be combined: `-4a`, `-v101`, `-c1`.
///
/// # Errors
/// [`Misuse`] states what is wrong.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, Misuse> {
    let usage = |error: lexopt::Error| Misuse::Usage(error.to_string());
    let mut request = Request::default();
    let mut words = Vec::new();
    let mut parser = Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Short('4') => request.family = Some(Family::Ipv4),
            Arg::Short('6') => request.family = Some(Family::Ipv6),
            Arg::Short('a') => request.all_classes = true,
            Arg::Short('r') => request.rounded = true,
            Arg::Short('h') => return Ok(Asked::Help),
            Arg::Short('v') => request.containers.push(container(&parser.value().map_err(usage)?)?),
            Arg::Short('c') => _ = request.classes.insert(class(&parser.value().map_err(usage)?)?),
            Arg::Short('t') => request.kind = kind(&parser.value().map_err(usage)?)?,
            Arg::Value(word) => words.push(word.to_string_lossy().into_owned()),
            other => return Err(usage(other.unexpected())),
        }
    }
    Ok(Asked::Show(request, words))
}

fn container(value: &OsString) -> Result<ContainerId, Misuse> {
    let text = value.to_string_lossy();
    ContainerId::new(text.trim()).map_err(|_| Misuse::Value(format!("Invalid veid: {text}")))
}

fn class(value: &OsString) -> Result<u8, Misuse> {
    let text = value.to_string_lossy();
    let number = text.trim().parse().ok().filter(|class| *class <= traffic_classes::MAX_CLASS);
    number.ok_or_else(|| invalid_class(&text))
}

fn invalid_class(text: &str) -> Misuse {
    Misuse::Value(format!("Invalid classid: {text}"))
}

/// Only the first letter counts, as in Virtuozzo's program.
fn kind(value: &OsString) -> Result<Kind, Misuse> {
    let text = value.to_string_lossy();
    match text.chars().next() {
        Some('a') => Ok(Kind::All),
        Some('c') => Ok(Kind::Containers),
        Some('v') => Ok(Kind::Machines),
        _ => Err(Misuse::Value(format!("An invalid type {text} specified: write ct, vm or all"))),
    }
}

/// The usage text of the program.
pub fn usage(name: Name) -> String {
    let (synopsis, kind) = match name {
        Name::Vznetstat => ("vznetstat [-4|-6] [-v id] [-c netclassid] [-a] [-r]", ""),
        Name::Pnetstat => (
            "pnetstat [-4|-6] [-v id] [-c netclassid] [-a] [-r] [-t <ct|vm|all>]",
            "\t-t\tDisplay stats only for Containers, virtual machines or both.\n",
        ),
    };
    format!(
        "Usage: {synopsis}\n\
         \t-4\tDisplay ipv4 statistics.\n\
         \t-6\tDisplay ipv6 statistics.\n\
         \t-v\tDisplay stats only for server with given ID.\n\
         \t-c\tDisplay stats only for given network class.\n\
         \t-a\tDisplay all classes.\n\
         \t-r\tDisplay rounded number in K, M or G instead of bytes.\n\
         {kind}\
         \t-h\tPrints short usage information.\n"
    )
}

impl Request {
    /// Refuses a class that Virtuozzo does not have, unless it is in use here.
    ///
    /// # Errors
    /// [`Misuse::Value`], with Virtuozzo's text.
    pub fn check_classes(&self, in_use: &BTreeSet<u8>) -> Result<(), Misuse> {
        // Virtuozzo accepts 16, although that is not one of its classes.
        match self.classes.iter().find(|class| **class > CLASSES && !in_use.contains(class)) {
            Some(class) => Err(invalid_class(&class.to_string())),
            None => Ok(()),
        }
    }

    fn wants(&self, container: &ContainerId, machines: &BTreeSet<&ContainerId>) -> bool {
        let kind = match self.kind {
            Kind::All => true,
            Kind::Containers => !machines.contains(container),
            Kind::Machines => machines.contains(container),
        };
        kind && (self.containers.is_empty() || self.containers.contains(container))
    }
}

/// Header and rows. `configured` are the classes of the table in force in the requested family. The node
/// itself always has rows, zero if its traffic is not counted, because scripts look for them.
pub fn render(snapshot: &Snapshot, configured: &BTreeSet<u8>, request: &Request) -> String {
    let header = if request.kind == Kind::Containers { HEADER_OF_CONTAINERS } else { HEADER };
    let machines = machines(snapshot);
    let classes = shown_classes(snapshot, configured, request);
    let mut text = header.to_owned();
    for (container, sums) in containers(snapshot, request.family) {
        if !request.wants(&container, &machines) {
            continue;
        }
        for class in &classes {
            row(&mut text, (&container, *class), sums.get(class), request.rounded);
        }
    }
    text
}

fn shown_classes(snapshot: &Snapshot, configured: &BTreeSet<u8>, request: &Request) -> BTreeSet<u8> {
    if request.all_classes {
        let counted = snapshot.counters.iter().map(|counter| counter.class);
        return (0..CLASSES).chain(counted).chain(configured.iter().copied()).collect();
    }
    let shown = configured.iter().copied().chain([0]);
    shown.filter(|class| request.classes.is_empty() || request.classes.contains(class)).collect()
}

/// The ids that own a virtual machine's interface.
fn machines(snapshot: &Snapshot) -> BTreeSet<&ContainerId> {
    let of_machine = |name: &str| MACHINE_INTERFACES.iter().any(|prefix| name.starts_with(prefix));
    let interfaces = snapshot.interfaces.iter().filter(|interface| of_machine(&interface.interface));
    interfaces.filter_map(|interface| interface.container.as_ref()).collect()
}

fn row(
    text: &mut String,
    (container, class): (&ContainerId, u8),
    sum: Option<&ByDirection<Tally>>,
    rounded: bool,
) {
    let ByDirection { incoming, outgoing } = sum.copied().unwrap_or_default();
    let (in_bytes, in_suffix) = amount(incoming.bytes, rounded);
    let (out_bytes, out_suffix) = amount(outgoing.bytes, rounded);
    // Writing to a String cannot fail.
    let _infallible = writeln!(
        text,
        "{container:<36} {class:<2} {in_bytes:>20}{in_suffix} {:>10} {out_bytes:>20}{out_suffix} {:>10}",
        incoming.packets, outgoing.packets
    );
}

/// Bytes with their suffix: a blank, or the letter for the number of ten-bit shifts.
fn amount(bytes: u64, rounded: bool) -> (u64, char) {
    let mut amount = (bytes, ' ');
    if rounded {
        for suffix in ['K', 'M', 'G'] {
            if amount.0 >> 10 != 0 {
                amount = (amount.0 >> 10, suffix);
            }
        }
    }
    amount
}

#[cfg(test)]
mod tests;
