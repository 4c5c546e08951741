//! Output formats and the parser of classes: the same for every command. Amounts and intervals are parsed by `traffic_model::units`.

use clap::ValueEnum;
use traffic_classes::MAX_CLASS;

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
