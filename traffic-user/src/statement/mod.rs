//! Statements of closed months: from the ledger and the key file to a signed text. `traffic_statement` owns the
//! formats and all checks.
//!
//! | file | owns |
//! |---|---|
//! | `key_file` | the file with the secret key and the secret for salts |
//! | `changes` | rotation and revocation of the key, as entries of the ledger's chain |
//! | `cosigned` | the file with the last checkpoint that witnesses have seen |
//! | `from_ledger` | what a statement says, from the ledger |

pub mod changes;
pub mod cosigned;
mod from_ledger;
mod key_file;

pub use from_ledger::{log, make};
pub use key_file::{Keys, default_path};
