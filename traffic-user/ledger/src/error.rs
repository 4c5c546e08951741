//! The errors of the ledger. Callers branch on the variants.

use std::path::PathBuf;

use rusqlite::ErrorCode;
use traffic_model::calendar::CalendarError;

/// Why an operation on the ledger failed.
///
/// When a drain returns one of these, nothing was written. The kernel keeps counting, and the next drain
/// catches up.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be opened or created.
    #[error("{reason}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The file is some other program's database.
    #[error("it is a database of another program; move it away")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A later version of trafctl wrote the file. It is left untouched.
    #[error(
        "it has schema version {found}, but this trafctl knows versions up to {known}; use the newer trafctl"
    )]
    Newer {
        /// The file.
        /// The file.
        /// The version of the file.
        found: i64,
        /// The newest version that this build knows.
        known: i64,
    },
    /// The file holds nothing, and it was opened for reading only.
    #[error(
        "it is empty: nothing has been written yet, or somebody emptied it; start `trafctl run`, which begins a new \
         one, or restore a backup"
    )]
    Empty,
    /// An earlier version of trafctl wrote the file, and it was opened for reading only.
    #[error("it has schema version {found}; start `trafctl run` once to migrate it to version {known}")]
    Older {
        /// The version of the file.
        found: i64,
        /// The version that this build reads.
        known: i64,
    },
    /// Another process migrates the file and needs more time.
    #[error(
        "another process migrates it to schema version {known}; try again when it has ended (`trafctl status` \
         shows how far the daemon is)"
    )]
    Migrating {
        /// The version that this build knows.
        known: i64,
    },
    /// The copy made before a migration cannot be written. The ledger is unchanged.
    #[error("cannot write the copy {path} of the ledger")]
    Backup {
        /// The copy.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// Another file replaced a ledger in use, and the old ledger's log is still next to it.
    #[error(
        "it replaced another file, whose log {log} is still there; wait for the next drain of the running \
         daemon, or start `trafctl run`"
    )]
    LogOfAnother {
        /// The ledger.
        path: PathBuf,
        /// The log.
        log: PathBuf,
    },
    /// Another process has the ledger open, but the log or its index was removed under it.
    #[error(
        "{path} was removed while another process uses it; wait for the next drain of the running daemon, \
         which opens the ledger again"
    )]
    LogRemoved {
        /// The file that was removed.
        path: PathBuf,
    },
    /// Another file took the place of the ledger, its log or the log's index after it was opened.
    #[error("{path} was removed or replaced while the ledger was open; nothing was written; try again")]
    Replaced {
        /// The file that is no longer the one that was opened.
        path: PathBuf,
    },
    /// The file is a copy that does not pass the audit. It may have been made while the ledger was written.
    #[error(
        "it is a copy that may be incomplete: the audit finds {problems} problems, first: {first}; restore a \
         copy made by `trafctl ledger backup`, or run `trafctl ledger adopt` to use it as it is"
    )]
    IncompleteCopy {
        /// How many problems the audit found.
        problems: usize,
        /// The first of them.
        first: String,
    },
    /// The ledger was kept by another machine, of which this one may be a clone.
    #[error(
        "another machine kept this ledger, and this one may be its clone; if the ledger shall continue here, \
         run `trafctl ledger adopt`; otherwise move it away"
    )]
    OtherMachine,
    /// The note about which log belongs to the ledger cannot be read or written.
    #[error("cannot update {path} beside the ledger")]
    Log {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// A store of many nodes did not answer, or cannot answer this.
    #[error("{0}")]
    Store(String),
    /// The file system is full.
    #[error("the file system of the ledger is full")]
    Full(#[source] rusqlite::Error),
    /// Another process holds the file's write lock.
    #[error("the ledger is locked by another process")]
    Busy(#[source] rusqlite::Error),
    /// The file is damaged or the disk fails.
    #[error("the ledger is damaged, or its disk fails")]
    Damaged(#[source] rusqlite::Error),
    /// SQLite rejected a statement for another reason.
    #[error("SQLite rejected a statement of the ledger")]
    Sql(#[source] rusqlite::Error),
    /// The reading is older than the last one in the ledger.
    #[error(
        "this reading was taken {boottime_ns} ns after boot, before the last one in the ledger ({last_ns} \
         ns); the next drain takes a new one"
    )]
    StaleReading {
        /// Time of the reading, in nanoseconds since boot.
        boottime_ns: u64,
        /// Time of the last reading in the ledger, in nanoseconds since boot.
        last_ns: u64,
    },
    /// Nobody knows the configured zone, and the file has no borders yet by which to go on.
    #[error(
        "neither this system nor trafctl knows the time zone {0:?}, so that days cannot be booked; correct \
         `time_zone` in [ledger], or install the system's time zone data"
    )]
    UnknownZone(String),
    /// The configured calendar is not the one of the file.
    #[error(
        "its days follow {stored_zone} and its months begin on day {stored_day}, but {zone} and day {day} \
         are configured; restore `time_zone` and `billing_day`, or move the ledger away"
    )]
    CalendarChanged {
        /// Time zone of the file.
        stored_zone: String,
        /// Billing day of the file.
        stored_day: u8,
        /// Configured time zone.
        zone: String,
        /// Configured billing day.
        day: u8,
    },
    /// The zone, the billing day or a time of the calendar is invalid.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    /// The period cannot be closed.
    #[error("cannot close {period}: {reason}")]
    NotClosable {
        /// The period's name.
        period: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The period is not closed.
    #[error("{0} is not closed; run `trafctl close {0}` first")]
    NotClosed(String),
    /// The ledger has no figures of this container, or only figures of retired ones.
    #[error("no container {0} is known: the ledger has no figures of it, or it is already retired")]
    UnknownContainer(String),
    /// The id was retired in the same second, so that the second label would equal the first.
    #[error("{label} exists already: {container} was retired within the last second; try again")]
    JustRetired {
        /// The container.
        container: String,
        /// The label that its former owner has.
        label: String,
    },
    /// No container has this id or label.
    #[error(
        "no container {0} is known: the ledger has no figures of it; `trafctl report --by total` lists all containers"
    )]
    NoSuchContainer(String),
    /// A query was given up when its time was over.
    #[error("the answer takes too long; ask for a shorter span, longer steps or fewer containers")]
    TooLong,
    /// The request cannot be answered as it stands.
    #[error("{0}")]
    Query(String),
}

impl From<jiff::Error> for LedgerError {
    fn from(error: jiff::Error) -> Self {
        Self::Calendar(error.into())
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::TooLong,
            Some(ErrorCode::DiskFull) => Self::Full(error),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(error),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SystemIoFailure) => {
                Self::Damaged(error)
            }
            _ => Self::Sql(error),
        }
    }
}
