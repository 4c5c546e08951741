//! The kernel's answer for single addresses against one that is found without any of its structures.

mod question;
mod random_tables;
mod real_table;
