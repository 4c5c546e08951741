//! Output formats and the parser of classes: the same for every command. Amounts and intervals are parsed by
//! `traffic_model::units`.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _};

use clap::{
    ValueEnum,
    builder::{OsStringValueParser, TypedValueParser},
};
use traffic_classes::MAX_CLASS;
use traffic_model::notation::name_text;

/// Output format of a command that prints a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people
    #[default]
    Table,
    /// One document for programs
    Json,
}

/// Output format of a command that prints rows of figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SheetFormat {
    /// Text for people
    #[default]
    Table,
    /// One document for programs
    Json,
    /// The rows alone, for spreadsheets
    Csv,
}

/// Accepts the name of an interface, which may be of any bytes. A name in the form in which it is printed
/// (`\xNN` for bytes that are not UTF-8) is accepted too.
pub(super) fn interface_name() -> impl TypedValueParser<Value = String> {
    let text = |name: OsString| name.into_string().unwrap_or_else(|bytes| name_text(bytes.as_bytes()));
    OsStringValueParser::new().map(text)
}

/// Parses a class: 0 to 254.
pub(super) fn parse_class(text: &str) -> Result<u8, String> {
    match text.parse::<u64>() {
        Ok(number) => match u8::try_from(number) {
            Ok(class) if class <= MAX_CLASS => Ok(class),
            _ => Err(format!("class {number} is out of range; write 0 to {MAX_CLASS}")),
        },
        Err(_) => Err(format!("{text:?} is not a class; write 0 to {MAX_CLASS}")),
    }
}
