//! Output formats: the same for every command. Amounts and intervals are parsed by `traffic_model::units`.

use clap::ValueEnum;

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
