//! `vznetstat` and `pnetstat`: one program, told apart by its name.
//!
//! Virtuozzo's takes only the last of several `-v`, and its `-t` changes the header alone; here every id is shown, and
//! `-t` filters, as the manual says.

use std::{collections::BTreeSet, ffi::OsString, fmt::Write as _};

use lexopt::{Arg, Parser};
use traffic_common::{Family, Tally};
use traffic_model::{ByDirection, ContainerId, Snapshot};

use crate::vz::{CLASSES, sums::containers};

/// What both names head their rows with.
const HEADER: &str = "UUID                                 Net.Class     Input(bytes) Input(pkts)        Output(bytes) Output(pkts)\n";
/// What stands there instead when only containers are asked for. The rows are the same.
const HEADER_OF_CONTAINERS: &str =
    "CTID    Net.Class     Input(bytes) Input(pkts)        Output(bytes) Output(pkts)\n";
/// Interfaces of virtual machines begin so: Virtuozzo's, Proxmox VE's, libvirt's.
const MACHINE_INTERFACES: [&str; 3] = ["vme", "tap", "vnet"];

/// Under which name the program was called.
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

/// What is to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `-4` or `-6`; both families added up without.
    pub family: Option<Family>,
    /// `-v`: these only; empty for all.
    pub containers: Vec<ContainerId>,
    /// `-c`: these only, as far as they are configured; empty for all that are.
    pub classes: BTreeSet<u8>,
    /// `-a`: every class, configured or not.
    pub all_classes: bool,
    /// `-r`: bytes in K, M and G.
    pub rounded: bool,
    /// `-t`
    pub kind: Kind,
}

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Rows. Words that are no options come with them: getopt lets them pass, and so nothing is done about them.
    Show(Request, Vec<String>),
    /// `-h`
    Help,
}

/// Why a command line can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// No such option, or its value is missing: status 1, and the usage is shown.
    #[error("{0}")]
    Usage(String),
    /// A value is not what it should be: status 250.
    #[error("{0}")]
    Value(String),
}

/// Reads the options, which are getopt's `v:c:arht:64`: one letter each, `-4a`, `-v101` and `-c1` as one word too.
///
/// # Errors
/// [`Misuse`] says what is wrong with them.
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

/// The first letter tells, as in Virtuozzo's.
fn kind(value: &OsString) -> Result<Kind, Misuse> {
    let text = value.to_string_lossy();
    match text.chars().next() {
        Some('a') => Ok(Kind::All),
        Some('c') => Ok(Kind::Containers),
        Some('v') => Ok(Kind::Machines),
        _ => Err(Misuse::Value(format!("An invalid type {text} specified: write ct, vm or all"))),
    }
}

/// The short usage of the program.
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
    /// Refuses a class that Virtuozzo does not have, unless it is one of those in use here.
    ///
    /// # Errors
    /// [`Misuse::Value`], as Virtuozzo's own.
    pub fn check_classes(&self, in_use: &BTreeSet<u8>) -> Result<(), Misuse> {
        // Virtuozzo lets 16 pass, which is no class of its either.
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

/// Header and rows. `configured` are the classes of the table in force in the family asked for. The node itself has its
/// rows always, zero where its traffic is not counted: readers look for them.
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

/// The ids that have a virtual machine's interface.
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

/// Bytes with their suffix: a blank, or a letter for each ten bits cut off.
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
