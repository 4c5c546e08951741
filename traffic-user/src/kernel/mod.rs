//! The only code that knows BPF: it loads the program, attaches it, writes class tables and reads counters.
//!
//! | module | owns |
//! |---|---|
//! | [`bpffs`] | the directory of pinned objects |
//! | `btf` | the types of the running kernel |
//! | [`change_lock`] | the lock on changing them |
//! | [`drops`] | the drop program and its counters |
//! | [`load`] | opening, creating and replacing program and maps |
//! | [`skb_layout`] | offsets in the kernel's `sk_buff`, from BTF |
//! | [`maps`] | typed handles on the pinned maps |
//! | [`memory`] | whether there is enough memory for the maps |
//! | [`expedite`] | short grace periods while hooks are changed |
//! | [`entries`] | into which slots the program counts the packets of an interface |
//! | [`paths`] | which way packets take, while somebody measures |
//! | [`records`] | the fields of a slot's record |
//! | [`shadow`] | the shadow class table |
//! | [`tables`] | class tables and addresses in the kernel |
//! | [`hooks`] | the TC hooks of an interface |
//! | [`counters`] | reading all counters |
//! | `verdict` | why the kernel refused a program |
//! | [`sys`] | the system calls that aya does not offer; all unsafe code of this folder |

pub mod bpffs;
mod btf;
pub mod change_lock;
pub mod counters;
pub mod drops;
pub mod entries;
pub mod expedite;
pub mod hooks;
pub mod load;
pub mod maps;
pub mod memory;
pub mod paths;
pub mod records;
pub mod shadow;
pub mod skb_layout;
pub mod sys;
pub mod tables;
mod verdict;
