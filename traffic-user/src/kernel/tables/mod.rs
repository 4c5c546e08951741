//! Class tables and addresses in the kernel.
//!
//! | file | owns |
//! |---|---|
//! | `install` | a class table is built beside the one in force, and switched to between two packets |
//! | `load_lock` | one loader of class tables at a time |
//! | `columns` | which class has which column of the counters |
//! | `read` | the prefixes and classes of the table in force, read from the kernel |
//! | `addresses` | addresses of containers and of the node, changed one by one |

mod addresses;
mod columns;
mod install;
mod load_lock;
mod read;

pub use addresses::{OtherAddresses, addresses_in_force, sync_addresses, sync_node_addresses};
pub(super) use columns::check_columns;
pub use columns::{check_capacity, columns};
pub(super) use install::Tables;
pub use install::{Prepared, Progress, prepare};
pub use load_lock::LoadLock;
pub use read::{classes_in_force, in_force};
