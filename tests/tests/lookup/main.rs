//! The kernel's class of single addresses, compared with answers that are computed without its data
//! structures.

mod question;
mod random_tables;
mod real_table;
