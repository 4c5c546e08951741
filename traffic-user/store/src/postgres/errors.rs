//! Errors of the server, and what to do about them.

use tokio_postgres::Error;

use super::target::Target;
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
        // No memory, and what took too long.
        Some("53200" | "57014") => StoreError::Away(text(error)),
        // Connection exceptions, operator intervention, resources, and what a repetition may solve.
        Some(code) if ["08", "57", "53", "40", "55"].iter().any(|class| code.starts_with(class)) => {
            StoreError::NotNow(text(error))
        }
        Some("25006") => StoreError::NotNow(format!(
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

/// Of a connection that was not made.
pub(super) fn of_connecting(error: &Error, target: &Target) -> StoreError {
    // The library says it before the server does, as an error without a code.
    if error.code().is_none() && text(error).contains("password missing") {
        return StoreError::Refused(target.without_line());
    }
    of(error)
}

pub(super) fn within(error: &StoreError, what: &str) -> StoreError {
    match error {
        StoreError::Away(text) => StoreError::Away(format!("{what}: {text}")),
        StoreError::NotNow(text) => StoreError::NotNow(format!("{what}: {text}")),
        StoreError::Refused(text) => StoreError::Refused(format!("{what}: {text}")),
        StoreError::Unusable(text) => StoreError::Unusable(format!("{what}: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use super::*;
    use crate::{
        passwords::PasswordFile,
        postgres::{Postgres, check, init, migrate, nodes},
    };

    /// The error of work with a server that answers the start of a connection with this, and nothing else.
    fn error_of(answer: Vec<u8>, work: impl AsyncFnOnce(&Target) -> StoreError) -> StoreError {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut startup = [0; 256];
            assert!(connection.read(&mut startup).unwrap() > 0);
            connection.write_all(&answer).unwrap();
            while connection.read(&mut startup).is_ok_and(|read| read > 0) {}
        });
        let target = Target::parse(&format!("postgresql://ship@127.0.0.1:{port}/traffic?sslmode=disable"));
        let target = target.unwrap().with_password(&[PasswordFile::usual("/nowhere/pgpass")]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(work(&target));
        drop(runtime);
        server.join().unwrap();
        error
    }

    /// The error of a connection to such a server.
    fn error_after(answer: Vec<u8>) -> StoreError {
        error_of(answer, async |target| Postgres::connect(target).await.unwrap_err())
    }

    #[test]
    fn a_server_that_falls_silent_after_the_login_is_away() {
        async fn logged_in(target: &Target) -> Postgres {
            let store = Postgres::connect(target).await.unwrap();
            // Waits end at once, those for the server as well.
            tokio::time::pause();
            store
        }
        let login = || [&b"R\0\0\0\x08\0\0\0\0"[..], b"Z\0\0\0\x05I"].concat();
        for error in [
            error_of(login(), async |target| check(&mut logged_in(target).await).await.unwrap_err()),
            error_of(login(), async |target| init(&mut logged_in(target).await).await.unwrap_err()),
            error_of(login(), async |target| migrate(&mut logged_in(target).await).await.unwrap_err()),
            error_of(login(), async |target| nodes(&mut logged_in(target).await).await.unwrap_err()),
        ] {
            assert!(matches!(&error, StoreError::Away(text) if text.contains("no answer within")), "{error}");
        }
    }

    #[test]
    fn a_password_that_no_file_has_is_named_with_the_files() {
        let asks_for_a_password = vec![b'R', 0, 0, 0, 8, 0, 0, 0, 3];
        let StoreError::Refused(text) = error_after(asks_for_a_password) else { panic!("not refused") };
        for part in
            ["cannot connect to postgresql://ship@", "/nowhere/pgpass", "HOST:PORT:DATABASE:USER:PASSWORD"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn errors_that_a_smaller_batch_may_solve_are_told_apart() {
        let coded = |code: &str| {
            let fields = format!("SERROR\0C{code}\0Mno\0\0");
            let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
            error_after([&b"E"[..], &length, fields.as_bytes()].concat())
        };
        for code in ["53200", "57014"] {
            assert!(matches!(coded(code), StoreError::Away(_)), "{code}");
        }
        // A full disk, a standby, a locked table, too many connections, an end that somebody asked for.
        for code in ["53100", "25006", "55P03", "53300", "57P01"] {
            assert!(matches!(coded(code), StoreError::NotNow(_)), "{code}");
        }
        assert!(matches!(error_after(Vec::new()), StoreError::Away(_)));
    }
}
