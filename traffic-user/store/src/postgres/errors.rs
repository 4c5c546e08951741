//! Errors of the server, and what to do about them.

use tokio_postgres::Error;

use crate::store::StoreError;

/// The whole text of an error. The library names a password in none.
pub(super) fn text(error: &Error) -> String {
    if let Some(error) = error.as_db_error() {
        let detail = error.detail().map_or_else(String::new, |detail| format!(" ({detail})"));
        return format!("{}{detail}", error.message());
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

pub(super) fn of(error: &Error) -> StoreError {
    match error.code().map(tokio_postgres::error::SqlState::code) {
        // Connection exceptions, operator intervention, resources, and what a repetition may solve.
        Some(code) if ["08", "57", "53", "40", "55"].iter().any(|class| code.starts_with(class)) => {
            StoreError::Away(text(error))
        }
        Some("25006") => StoreError::Away(format!(
            "{}; the database takes no writes: name the primary server in the URL, or end its read-only mode",
            text(error)
        )),
        Some("28P01" | "28000") => StoreError::Refused(format!(
            "{}; correct the user in the URL, its password in the password file, or the server's pg_hba.conf",
            text(error)
        )),
        Some("3D000") => StoreError::Refused(format!(
            "{}; correct the URL, or create the database and run `trafctl store init`",
            text(error)
        )),
        // No schema, no function, no table, no column.
        Some("3F000" | "42883" | "42P01" | "42703") => StoreError::Unusable(format!(
            "there is no store of this version ({}); run `trafctl store init` as the owner of the \
             database, or `trafctl store migrate` if it is older",
            text(error)
        )),
        Some("42501") => StoreError::Refused(format!(
            "{}; `GRANT trafctl_ship TO` the user that ships, and use the schema's owner for `store init` and `ship \
             adopt`",
            text(error)
        )),
        Some(_) => StoreError::Refused(text(error)),
        None => StoreError::Away(text(error)),
    }
}

pub(super) fn within(error: &StoreError, what: &str) -> StoreError {
    match error {
        StoreError::Away(text) => StoreError::Away(format!("{what}: {text}")),
        StoreError::Refused(text) => StoreError::Refused(format!("{what}: {text}")),
        StoreError::Unusable(text) => StoreError::Unusable(format!("{what}: {text}")),
    }
}
