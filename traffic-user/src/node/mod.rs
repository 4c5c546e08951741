//! What should be attached on this node, and attaching it.
//!
//! | module | owns |
//! |---|---|
//! | [`policy`] | which interface should be attached, and for whom; no kernel |
//! | [`kernel_access`] | what the logic needs of the kernel, as traits |
//! | [`locked_kernel`] | the real kernel behind those traits |
//! | [`plan`] | the steps from what was seen of an interface to what is wanted; pure |
//! | `carry_out` | the loop: observe, plan, act, observe again |
//! | [`session`] | one change under the lock: attach, replace the program |
//! | [`pass`] | all interfaces in batches, between which the lock is free |
//! | `release` | releasing interfaces that are gone |
//! | [`registry`] | who has which slot |
//! | [`slot_reclaim`] | freeing slots when they run short |
//! | `missed` | traffic that passed uncounted |
//! | [`status`] | what is attached, what is missing, what is wrong |
//! | [`host_report`] | which platforms are here, and whose each interface is |
//! | `host` | the real node, where a change begins |

mod carry_out;
mod host;
pub mod host_report;
pub mod kernel_access;
pub mod locked_kernel;
mod missed;
pub mod pass;
pub mod plan;
pub mod policy;
pub mod registry;
mod release;
pub mod session;
pub mod slot_reclaim;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;

pub use host::{Host, MORE_ADDRESSES};
pub use locked_kernel::LockedKernel;
pub use pass::Pass;
pub use policy::{Policy, Selection};
pub use session::{AttachReport, OwnerChange, PendingInterface, Session};
