//! The library behind the `trafctl` command.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`] | the command line: each command reads its options and calls the rest |
//! | [`daemon`] | `trafctl run`: following interfaces and signals |
//! | [`host`] | what should be attached on this host, and making it so |
//! | `precedence` | keeping the program first on its hooks |
//! | [`kernel`] | everything BPF: loading, attaching, tables in, counters out |
//! | [`netlink`], [`links`] | interfaces, as the kernel tells of them |
//! | [`snapshot`] | one reading of everything: what flows from the kernel to output and ledger |
//! | [`throughput`] | what passed between two of them |
//! | [`classes`], [`class_source`] | class files: parsing, compiling, explaining; finding and reading them |
//! | [`config`] | the configuration |
//! | [`identities`], [`naming`], [`vz_conf`], [`addresses`] | whose interface and whose address is what |
//! | [`identity_command`] | the configured command that tells more of that |
//! | [`file_watch`] | news of the files that tell it, and of the class file |
//! | [`notation`] | how people write addresses |
//! | [`output`] | results as tables, JSON and CSV |
//! | [`shaping`] | the mark for a shaper: who has one |
//! | [`bookkeeper`] | from the counters into the ledger: when to drain, and what must wait for a drain |
//! | [`reclaim`] | slots of those that are gone, given to others when slots run short |
//! | [`ledger`] | last readings, differences, gaps and rollups in SQLite: what is billed from |
//! | [`api`], [`health`] | metrics and JSON over HTTP, for monitoring; how draining goes |
//! | [`privileges`] | the capabilities needed, and whom files are for |
//! | [`vz`] | the commands of Virtuozzo: their options and output |
//! | [`compare`] | another accounting of the same node set against ours |
//! | [`marks`], [`state_file`] | readings put aside by a reset; files that are replaced as a whole |
//! | [`clock`] | times, the boot's identity, random numbers |

pub mod api;
pub mod class_source;
pub mod cli;
pub mod compare;
pub mod config;
pub mod daemon;
pub mod drain;
pub mod kernel;
pub mod net;
pub mod node;
pub mod ownership;
pub mod privileges;
pub mod render;
pub mod state_file;
pub mod time;
pub mod vz;
