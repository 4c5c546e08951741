//! The library behind the `trafctl` command. ARCHITECTURE.md shows how the modules work together.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`] | the command line: each command parses its options and calls the rest |
//! | [`render`] | results as tables, JSON and CSV |
//! | [`daemon`] | `trafctl run`: the event loop, drains, reloads, file watching |
//! | [`node`] | what should be attached on this node, and attaching it; slots, uplinks, missed traffic |
//! | [`ownership`] | which container an interface or address belongs to |
//! | [`platform`] | which container platforms are on this host, and to whose container an interface leads |
//! | [`kernel`] | everything BPF: loading, attaching, class tables, counters |
//! | [`net`] | netlink and network interfaces |
//! | [`drain`] | the transfer from counters to the ledger, and what must wait for it |
//! | [`health`] | the state of the daemon and its optional parts, and how others read it |
//! | [`class_source`] | which class file is used, and reading it |
//! | [`config`] | the configuration |
//! | [`queries`] | queries to the ledger, from a command line or a URL, and their answers |
//! | [`quota_actions`] | running the actions of quotas (`trafctl quota run`) |
//! | [`shipping`] | the rounds of `trafctl ship` |
//! | [`api`] | metrics, JSON and the web page over HTTP |
//! | [`vz`] | Virtuozzo's commands: their options and output |
//! | [`compare`] | comparing another accounting of the node with ours |
//! | [`reconcile`] | comparing what containers sent and received with what the uplinks carried |
//! | [`statement`] | signed statements of closed months, from the ledger |
//! | [`privileges`] | the capabilities that a command needs |
//! | [`files`] | opening and reading files that others put there |
//! | [`state_file`] | files that are replaced as a whole |
//! | [`time`] | clocks, the boot id, random numbers |
//!
//! Six crates of their own hold what needs neither a kernel nor root: `traffic-model` (snapshots, ids, units,
//! calendar), `traffic-classes` (class files), `traffic-ledger` (SQLite), `traffic-quota` (quotas),
//! `traffic-statement` (signed statements) and `traffic-store` (PostgreSQL).

pub mod api;
pub mod calibration;
pub mod class_source;
pub mod cli;
pub mod compare;
pub mod config;
pub mod daemon;
pub mod drain;
pub mod files;
pub mod health;
pub mod heap;
pub mod inherited;
pub mod kernel;
pub mod log;
pub mod net;
pub mod node;
pub mod ownership;
pub mod platform;
pub mod privileges;
pub mod queries;
pub mod quota_actions;
pub mod reconcile;
pub mod render;
pub mod shipping;
pub mod state_file;
pub mod statement;
pub mod time;
pub mod vz;
