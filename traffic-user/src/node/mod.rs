//! What should be attached on this node, and making it so.

mod hook_order;
mod host;
mod local_addresses;
mod missed;
pub mod slot_reclaim;
pub mod status;

pub use host::{AttachReport, Host, Selection, Session};
pub use local_addresses::MORE_ADDRESSES;
