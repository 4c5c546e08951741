//! The lab: a hosting node that can be thrown away, and what it takes to check a count made on it.
//!
//! - [`namespace`]: network namespaces that come and go with a guard, and stay silent unless told to speak.
//! - [`lab`]: the node itself: host namespace, private bpffs, state directory, the real `trafctl`.
//! - [`container`]: bridged containers, and peers beyond the node (`veth101.0`, `br0`).
//! - [`venet`]: routed containers behind a layer-3 `venet0`, carried by [`tun`] devices.
//! - [`tap`]: the interface of a virtual machine, with the test in the role of the machine.
//! - [`traffic`]: senders and receivers that count for themselves.
//! - [`witness`]: counts by parts of the kernel that know nothing of trafctl.
//! - [`counters`]: what `trafctl dump` says, parsed from its documented JSON.
//! - [`daemon`]: `trafctl run`, started, awaited, killed.
//! - [`evidence`]: comparisons, also as lines of a report.
//! - [`foreign`]: programs of others on the hooks.
//! - [`fuzz`]: frames of every shape through the program, beside a parser of its own.
//! - [`check`]: does `trafctl` find anything wrong, and does the kernel agree with it?
//! - [`soak`]: a long run of everything at once.
//! - [`systemd`]: a first process of its own, for the unit that is shipped.
//! - [`process`]: commands whose failure is an error, and children that do not outlive their guard.
//!
//! Nothing here uses the code under test: what the lab says of a packet is an independent statement. All of it
//! needs root, and nothing leaves the namespaces it makes.

pub mod check;
pub mod container;
pub mod counters;
pub mod daemon;
pub mod evidence;
pub mod foreign;
pub mod fuzz;
pub mod lab;
pub mod namespace;
mod netlink;
pub mod process;
pub mod soak;
pub mod systemd;
pub mod tap;
pub mod traffic;
pub mod tun;
pub mod venet;
pub mod witness;

pub use container::Container;
pub use counters::{Amounts, Counters};
pub use daemon::{Daemon, Resync};
pub use lab::Lab;
pub use namespace::Namespace;
pub use tap::Tap;
pub use tun::VnetHeader;
pub use venet::{RoutedContainer, Venet};

/// Says in one line that root is needed, where it is not there.
///
/// # Errors
///
/// When the effective user is not root.
pub fn require_root() -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "this needs root: it makes network namespaces and mounts a bpffs (run it with sudo)"
    );
    Ok(())
}
