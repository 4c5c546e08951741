//! Output formats and the parser of classes: the same for every command. Those that queries to the ledger use
//! are in [`crate::queries`]. Amounts and intervals are parsed by `traffic_model::units`.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _};

use clap::{
    ValueEnum,
    builder::{OsStringValueParser, TypedValueParser},
};
use traffic_model::notation::name_text;

pub use crate::queries::SheetFormat;
pub(super) use crate::queries::parse_class;

/// Output format of a command that prints a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people
    #[default]
    Table,
    /// One document for programs
    Json,
}

/// Accepts the name of an interface, which may be of any bytes. A name in the form in which it is printed
/// (`\xNN` for bytes that are not UTF-8) is accepted too.
pub(super) fn interface_name() -> impl TypedValueParser<Value = String> {
    let text = |name: OsString| name.into_string().unwrap_or_else(|bytes| name_text(bytes.as_bytes()));
    OsStringValueParser::new().map(text)
}
