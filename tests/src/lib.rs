//! The lab: a disposable hosting node, and the witnesses to check counts made on it.
//!
//! - [`browser`]: headless Chromium, for tests of the web page.
//! - [`namespace`]: network namespaces as guards. They are silent by default.
//! - [`lab`]: the node: host namespace, bpffs, state directory, and the real `trafctl`.
//! - [`container`]: bridged containers and peers outside the node (`veth101.0`, `br0`).
//! - [`venet`]: routed containers behind a layer-3 `venet0`, built from [`tun`] devices.
//! - [`tap`]: the interface of a virtual machine; the test acts as the machine.
//! - [`traffic`]: senders and receivers with counts of their own.
//! - [`witness`]: counts by parts of the kernel that are independent of trafctl.
//! - [`counters`]: the output of `trafctl dump`, parsed from its documented JSON.
//! - [`daemon`]: `trafctl run`: start, wait, kill.
//! - [`evidence`]: comparisons that can become lines of a report.
//! - [`foreign`]: programs of others on the hooks.
//! - [`fuzz`]: generated frames through the program, compared with a second parser.
//! - [`check`]: checks that many tests share.
//! - [`small_disk`]: a file system for the state of a node, to be filled.
//! - [`soak`]: a long run of mixed traffic under disturbances.
//! - [`systemd`]: a systemd in namespaces that runs the shipped unit.
//! - [`postgres`], [`clickhouse`]: a real PostgreSQL and a real ClickHouse, which end with their guards.
//! - [`wall_clock`]: clocks of programs, which a test sets.
//! - [`cut_link`]: a link to a server that ends each connection after some bytes.
//! - [`process`]: commands whose failure is an error, and children that end with their guard.
//!
//! Nothing here uses the code under test, so the lab's figures are independent of it. Everything needs root,
//! and no packet leaves the namespaces.

pub mod browser;
pub mod certificates;
pub mod check;
pub mod clickhouse;
pub mod clickhouse_cluster;
pub mod container;
pub mod counters;
pub mod cut_link;
pub mod daemon;
pub mod evidence;
pub mod foreign;
pub mod fuzz;
pub mod interrupt;
pub mod lab;
pub mod namespace;
mod netlink;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod small_disk;
pub mod soak;
pub mod systemd;
pub mod tap;
pub mod traffic;
pub mod tun;
pub mod venet;
pub mod wall_clock;
pub mod witness;

pub use container::Container;
pub use counters::{Amounts, Counters};
pub use daemon::{Daemon, Resync};
pub use lab::Lab;
pub use namespace::Namespace;
pub use tap::Tap;
pub use tun::VnetHeader;
pub use venet::{RoutedContainer, Venet};

/// Checks for root, with a one-line error.
///
/// # Errors
///
/// When the effective user is not root.
pub fn require_root() -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "this needs root: it creates network namespaces and mounts a bpffs (run it with sudo)"
    );
    Ok(())
}
