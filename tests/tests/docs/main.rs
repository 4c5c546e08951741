//! README.md and docs/: every command of every page runs on a throwaway node, every shown output is compared with
//! the real one, every link leads somewhere, and every named command and option exists.
//!
//! A page is a script: its commands run in one shell, in their order. `commands` describes how a page writes them,
//! `expected` what may vary in an output. With `TRAFCTL_DOCS=write`, outputs that differ are written into the page:
//!
//!     TRAFCTL_DOCS=write cargo xtask test -- pages::

mod billing;
mod commands;
mod expected;
mod history;
mod links;
mod markdown;
mod mentions;
mod node;
mod not_run;
mod pages;
mod shell;
mod toml;
mod units;
