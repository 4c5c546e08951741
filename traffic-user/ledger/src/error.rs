//! What can go wrong with the ledger, told apart where a caller acts differently.

use std::path::PathBuf;

use rusqlite::ErrorCode;
use traffic_model::calendar::CalendarError;

/// Why something with the ledger failed. Nothing was written when a drain returns one of these; the kernel goes on
/// counting and the next drain takes up everything since the last good one.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be opened or made.
    #[error("cannot open the ledger {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        #[source]
        source: rusqlite::Error,
    },
    /// The file is a database of something else.
    #[error("{path} is a database, but not a ledger of trafctl")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A later version of trafctl wrote the file. It is left untouched.
    #[error(
        "the ledger {path} has schema version {found}, this trafctl knows versions up to {known}: use the newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The latest version that this build knows.
        known: i64,
    },
    /// The copy that is made before a migration could not be written; the ledger is unchanged.
    #[error("cannot write the backup {path} that precedes a migration")]
    Backup {
        /// The copy.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// Another file was put in place of a ledger in use, whose log is still beside it.
    #[error(
        "{path} was put in place of another ledger, whose log {log} is still beside it: a running daemon takes the new file up \
         with its next drain, without one `trafctl run` does when it starts"
    )]
    LogOfAnother {
        /// The ledger.
        path: PathBuf,
        /// The log.
        log: PathBuf,
    },
    /// What tells whose the log is can't be read or written.
    #[error("cannot tend to {path} beside the ledger")]
    Log {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// No room on the file system.
    #[error("no room left for the ledger")]
    Full(#[source] rusqlite::Error),
    /// Another process holds the file's write lock.
    #[error("the ledger is locked by another process")]
    Busy(#[source] rusqlite::Error),
    /// The file is damaged or the disk fails.
    #[error("the ledger is damaged or its disk fails")]
    Damaged(#[source] rusqlite::Error),
    /// Any other refusal of SQLite.
    #[error("the ledger refused a statement")]
    Sql(#[source] rusqlite::Error),
    /// The reading is older than one that is already in the ledger.
    #[error(
        "this reading is older than the last one in the ledger ({boottime_ns} ns after boot, last {last_ns} ns)"
    )]
    StaleReading {
        /// Time of the reading since boot.
        boottime_ns: u64,
        /// Time of the last reading in the ledger since boot.
        last_ns: u64,
    },
    /// Days and months in the file follow another calendar than the configuration.
    #[error(
        "the ledger's days are those of {stored_zone} and its months begin on day {stored_day}, but {zone} and day {day} are configured"
    )]
    CalendarChanged {
        /// Time zone in the file.
        stored_zone: String,
        /// Billing day in the file.
        stored_day: u8,
        /// Configured time zone.
        zone: String,
        /// Configured billing day.
        day: u8,
    },
    /// The calendar's zone, its billing day or a time cannot be used.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    /// A period cannot be closed yet.
    #[error("period {period} cannot be closed: {reason}")]
    NotClosable {
        /// The period's name.
        period: String,
        /// What is missing.
        reason: String,
    },
    /// No period of this name is closed.
    #[error("period {0} is not closed")]
    NotClosed(String),
    /// The ledger has never seen this container, or it is retired already.
    #[error("the ledger knows no active container {0}")]
    UnknownContainer(String),
    /// A query asks for something that makes no sense.
    #[error("{0}")]
    Query(String),
    /// Rows could not be turned into output.
    #[error("cannot write the output")]
    Output(#[source] std::io::Error),
}

impl From<jiff::Error> for LedgerError {
    fn from(error: jiff::Error) -> Self {
        Self::Calendar(error.into())
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(error),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(error),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SystemIoFailure) => {
                Self::Damaged(error)
            }
            _ => Self::Sql(error),
        }
    }
}
