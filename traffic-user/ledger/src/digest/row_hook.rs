//! SQLite's hook that shows each row before it is changed, and as it will be.
//!
//! rusqlite has a wrapper of it, but only with bindings that are generated during the build, which needs libclang.
//! The bundled bindings have the functions too, and `.cargo/config.toml` has SQLite built with them.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr, slice,
    sync::Arc,
};

use rusqlite::{Connection, Error, ffi, functions::FunctionFlags, types::ValueRef};

/// The columns of a row, in the order of the table.
type Columns<'a> = Vec<ValueRef<'a>>;

/// A change of one row, as it happens.
pub(super) struct Change {
    db: *mut ffi::sqlite3,
    operation: c_int,
}

impl Change {
    /// The row as it was; `None` for a new one.
    ///
    /// # Errors
    /// When SQLite cannot show it.
    pub fn before(&self) -> rusqlite::Result<Option<Columns<'_>>> {
        let is_there = self.operation != ffi::SQLITE_INSERT;
        is_there.then(|| self.columns(ffi::sqlite3_preupdate_old)).transpose()
    }

    /// The row as it will be; `None` for one that is removed.
    ///
    /// # Errors
    /// When SQLite cannot show it.
    pub fn after(&self) -> rusqlite::Result<Option<Columns<'_>>> {
        let is_there = self.operation != ffi::SQLITE_DELETE;
        is_there.then(|| self.columns(ffi::sqlite3_preupdate_new)).transpose()
    }

    fn columns(&self, read: ReadColumn) -> rusqlite::Result<Columns<'_>> {
        // SAFETY: a change exists only during the call of the hook, and `db` is its connection.
        let count = unsafe { ffi::sqlite3_preupdate_count(self.db) };
        (0..count)
            .map(|column| {
                let mut value = ptr::null_mut();
                // SAFETY: as above, and the column exists.
                match unsafe { read(self.db, column, &raw mut value) } {
                    // SAFETY: SQLite just returned this value, which lives as long as the call.
                    ffi::SQLITE_OK => unsafe { value_ref(value) },
                    code => Err(Error::SqliteFailure(ffi::Error::new(code), None)),
                }
            })
            .collect()
    }
}

/// Reads a column of the row that is being changed.
type ReadColumn = unsafe extern "C" fn(*mut ffi::sqlite3, c_int, *mut *mut ffi::sqlite3_value) -> c_int;

/// Who is shown the changes of a connection.
pub(super) trait Watcher: Send + Sync + 'static {
    /// A row of a table is being changed. It must not use the connection otherwise.
    fn sees(&self, database: &CStr, table: &CStr, change: &Change);
}

/// Shows a watcher all changes that a connection makes from now on.
///
/// # Errors
/// When SQLite refuses.
pub(super) fn install<W: Watcher>(conn: &Connection, watcher: Arc<W>) -> rusqlite::Result<()> {
    let context = Arc::as_ptr(&watcher).cast_mut().cast::<c_void>();
    // A function belongs to its connection until that is closed, and the watcher to the function.
    conn.create_scalar_function("row_watcher", 0, FunctionFlags::SQLITE_UTF8, move |_| {
        let _owned = &watcher;
        Ok(None::<i64>)
    })?;
    // SAFETY: the handle is that of an open connection. The context lives as long as the connection, because nothing
    // replaces that function.
    unsafe { ffi::sqlite3_preupdate_hook(conn.handle(), Some(call::<W>), context) };
    Ok(())
}

unsafe extern "C" fn call<W: Watcher>(
    context: *mut c_void,
    db: *mut ffi::sqlite3,
    operation: c_int,
    database: *const c_char,
    table: *const c_char,
    _: i64,
    _: i64,
) {
    // SAFETY: `install` passed this context, and SQLite the names.
    let (watcher, database, table) =
        unsafe { (&*context.cast::<W>(), CStr::from_ptr(database), CStr::from_ptr(table)) };
    // Unwinding must not reach SQLite. A watcher that panicked fails at the commit.
    let _panicked = catch_unwind(AssertUnwindSafe(|| {
        watcher.sees(database, table, &Change { db, operation });
    }));
}

/// The value in Rust's terms. It lives as long as SQLite's.
unsafe fn value_ref<'a>(value: *mut ffi::sqlite3_value) -> rusqlite::Result<ValueRef<'a>> {
    // SAFETY: the caller passes a value of SQLite. Its text or blob is as long as SQLite says; the length is asked for
    // after the content, which may convert it.
    unsafe {
        let bytes = |content: *const u8| match usize::try_from(ffi::sqlite3_value_bytes(value)) {
            Ok(0) => Ok(&[][..]),
            Ok(length) if !content.is_null() => Ok(slice::from_raw_parts(content, length)),
            _ => Err(Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_NOMEM), None)),
        };
        Ok(match ffi::sqlite3_value_type(value) {
            ffi::SQLITE_INTEGER => ValueRef::Integer(ffi::sqlite3_value_int64(value)),
            ffi::SQLITE_FLOAT => ValueRef::Real(ffi::sqlite3_value_double(value)),
            ffi::SQLITE_TEXT => ValueRef::Text(bytes(ffi::sqlite3_value_text(value))?),
            ffi::SQLITE_BLOB => ValueRef::Blob(bytes(ffi::sqlite3_value_blob(value).cast())?),
            _ => ValueRef::Null,
        })
    }
}
