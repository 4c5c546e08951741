//! The only modules that know BPF: loading, attaching, tables in, counters out.
//!
//! | module | owns |
//! |---|---|
//! | [`bpffs`] | the directory of pinned things and the lock on changing them |
//! | [`load`] | finding, making and replacing program and maps |
//! | [`skb_layout`] | offsets in the kernel's `sk_buff`, from BTF |
//! | [`maps`] | typed handles on the pinned maps |
//! | [`memory`] | whether there is enough for the maps |
//! | [`entries`] | in which slots the program counts an interface |
//! | [`records`] | the fields of a slot's record |
//! | [`registry`] | which container and interface has which slot |
//! | [`tables`] | class tables and addresses, into the kernel |
//! | [`attach`] | the hooks of an interface |
//! | [`counters`] | all counters, out of the kernel |
//! | [`sys`] | the system calls that aya lacks |

pub mod attach;
pub mod bpffs;
pub mod counters;
pub mod entries;
pub mod load;
pub mod maps;
pub mod memory;
pub mod records;
pub mod registry;
pub mod skb_layout;
pub mod sys;
pub mod tables;
