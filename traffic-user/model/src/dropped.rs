//! One reading of the counters of drops, as plain data.

use jiff::Timestamp;
use traffic_common::{DropGroup, Family, Tally};

use crate::{ByDirection, ContainerId};

/// What was dropped of one container, class and family, for one group of reasons. Only grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropCounter {
    /// The container.
    pub container: ContainerId,
    /// Generation of the container's slot, as in [`ClassCounter`](crate::ClassCounter).
    pub generation: u32,
    /// The class.
    pub class: u8,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Why.
    pub group: DropGroup,
    /// Wire packets and layer-3 bytes.
    pub tally: ByDirection<Tally>,
}

/// All counters of drops at one reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropReading {
    /// Names this set of counters within the boot. A later one has a higher number, and all its
    /// counters began at zero.
    pub set: u32,
    /// When the set was created, by the wall clock.
    pub since: Timestamp,
    /// The counters that are not zero.
    pub counters: Vec<DropCounter>,
}
