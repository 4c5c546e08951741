//! The values of the pinned maps, with sizes and offsets asserted at compile time.
//!
//! Any change of a size, an offset or a meaning here must raise [`LAYOUT_VERSION`]. Pinned maps outlive the
//! program that created them, and a reader must never take one layout for another.
//!
//! - `entries`: interface entries and addresses, which lead to a container.
//! - `class_table`: the lines of a class table, which lead to a class.
//! - `counters`: what the program adds to.
//! - `drops`: what the drop program adds to, a set of its own.
//! - `paths`: which way packets took, not pinned.
//! - `records`: owners of slots, and the description of the set.
//! - `shadow`: the shadow class table, which has a version of its own.

mod class_table;
mod counters;
mod drops;
mod entries;
mod paths;
mod records;
mod shadow;

pub use class_table::*;
pub use counters::*;
pub use drops::*;
pub use entries::*;
pub use paths::*;
pub use records::*;
pub use shadow::*;

/// Version of everything in this module. Kept in [`Meta::layout_version`]. Maps of an older version from
/// [`OLDEST_LAYOUT`] on are carried over, all others are refused.
pub const LAYOUT_VERSION: u32 = 5;
/// The oldest version whose counters this one can carry over.
pub const OLDEST_LAYOUT: u32 = 2;

/// Name of the classifier on the host-side ingress hook: packets *from* the container.
pub const INGRESS_PROGRAM: &str = "trafctl_ingress";
/// Name of the classifier on the host-side egress hook: packets *to* the container.
pub const EGRESS_PROGRAM: &str = "trafctl_egress";
/// Name of the classifier that replaces [`INGRESS_PROGRAM`] where `[shaping]` is enabled. The kernel cuts
/// names after 15 bytes, so both have the same name there.
pub const INGRESS_MARK_PROGRAM: &str = "trafctl_ingress_mark";

/// A skb mark is the container's id times this, plus the class. Classes from this number on have no mark.
pub const MARK_CLASSES: u32 = 32;

#[cfg(feature = "user")]
mod pod {
    use super::{
        ClassBlock, ClassCounters, ContainerRecord, Control, DropControl, DropKey, DropLayout, DropReasons,
        FaultCounters, InterfaceCounters, InterfaceEntry, InterfaceRecord, InterfaceRecordV2, Meta,
        PathControl, PathKey, PathTally, ShadowControl, ShadowRecord,
    };

    // SAFETY (all of them): `repr(C)`, every field an integer or an array of integers, no padding (the
    // asserted sizes are the sums of the fields). So any byte pattern is a valid value and every byte is
    // initialised.
    macro_rules! pod {
        ($($t:ty),*) => { $(
            // SAFETY: see above the macro.
            unsafe impl aya::Pod for $t {}
        )* };
    }
    pod!(
        ClassBlock,
        ClassCounters,
        InterfaceCounters,
        FaultCounters,
        InterfaceEntry,
        Control,
        ContainerRecord,
        InterfaceRecord,
        InterfaceRecordV2,
        Meta,
        DropKey,
        DropControl,
        DropLayout,
        DropReasons,
        ShadowControl,
        ShadowRecord,
        PathControl,
        PathKey,
        PathTally,
        crate::Tally
    );
}
