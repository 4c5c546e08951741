//! Virtuozzo's commands as scripts meet them: the real binary under their names, read by shell, awk and Perl.
//!
//! What the columns hold is compared with what the senders counted, never with `trafctl dump` alone.

mod compare;
mod netstat;
mod node;
mod scripts;
mod tactl;
