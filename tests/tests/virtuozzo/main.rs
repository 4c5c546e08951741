//! Virtuozzo's commands as scripts use them: the real binary under their names, read by shell, awk and Perl.
//!
//! The columns are compared with the senders' counts, never with `trafctl dump` alone.

mod compare;
mod netstat;
mod node;
mod scripts;
mod tactl;
