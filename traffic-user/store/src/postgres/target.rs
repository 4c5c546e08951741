//! Where a store is: its URL, with the TLS that it asks for, and the password from a file.
//!
//! The URL is PostgreSQL's own form. `sslmode` and `sslrootcert` mean what they mean there, but verification is the
//! default. A password in a URL is refused: it would be in a list of processes or in a file that many may read.

use std::path::PathBuf;

use tokio_postgres::config::{Config, Host, SslMode};

use crate::passwords::{self, PASSWORD_IN_URL, PasswordFile, fits};

/// How a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    /// TLS, with a certificate for the host's name: `verify-full`, the default.
    Verified,
    /// TLS with any certificate: `require`.
    Unverified,
    /// None: `disable`, and on Unix sockets.
    Off,
}

/// A store in PostgreSQL.
#[derive(Clone, Debug)]
pub struct Target {
    pub(super) config: Config,
    /// The same without a password.
    without_password: Box<Config>,
    pub(super) encryption: Encryption,
    pub(super) root_file: Option<PathBuf>,
    /// Where its password was looked for.
    files: Vec<PathBuf>,
    name: String,
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// With what is wrong in it. The text never has a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, _) =
            url.split_once("://").ok_or("it is no URL; write postgresql://USER@HOST/DATABASE")?;
        if !matches!(scheme, "postgresql" | "postgres") {
            return Err(format!(
                "stores at {scheme}:// are not known; write postgresql://USER@HOST/DATABASE"
            ));
        }
        let (place, query) = url.split_once('?').map_or((url, ""), |(place, query)| (place, query));
        let mut encryption = None;
        let mut root_file = None;
        let mut left = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", mode)) => encryption = Some(encryption_of(mode)?),
                Some(("sslrootcert", file)) => root_file = Some(PathBuf::from(file)),
                Some(("password" | "sslpassword", _)) => return Err(PASSWORD_IN_URL.to_owned()),
                _ => left.push(pair),
            }
        }
        let plain = format!("{place}?{}", left.join("&"));
        let mut config: Config =
            plain.parse().map_err(|_| "it is not a valid URL; write postgresql://USER@HOST/DATABASE")?;
        if config.get_password().is_some() {
            return Err(PASSWORD_IN_URL.to_owned());
        }
        if config.get_hosts().is_empty() || config.get_user().is_none() {
            return Err("it has no user or no host; write postgresql://USER@HOST/DATABASE".to_owned());
        }
        let is_remote = config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(_)));
        let encryption = encryption.unwrap_or(if is_remote { Encryption::Verified } else { Encryption::Off });
        if encryption != Encryption::Off && !is_remote {
            return Err("a Unix socket has no TLS; remove `sslmode`".to_owned());
        }
        config.ssl_mode(if encryption == Encryption::Off { SslMode::Disable } else { SslMode::Require });
        config.application_name("trafctl");
        let without_password = Box::new(config.clone());
        Ok(Self {
            config,
            without_password,
            encryption,
            root_file,
            files: Vec::new(),
            name: place.to_owned(),
        })
    }

    /// Its URL without options, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes the password for this store from the first file that has one. Without any, it has none.
    ///
    /// # Errors
    /// When a file cannot be read, or others than its owner may read it.
    pub fn with_password(mut self, files: &[PasswordFile]) -> Result<Self, String> {
        let found = passwords::find(files, |[host, port, database, user]| {
            let user_is = self.config.get_user().unwrap_or_default();
            let is_host = self.config.get_hosts().iter().any(|own| match own {
                Host::Tcp(name) => fits(host, name),
                // As libpq does: a socket in its own directory is localhost.
                Host::Unix(path) => fits(host, &path.to_string_lossy()) || host == "localhost",
            });
            let ports = self.config.get_ports();
            let is_port = fits(port, "5432") && ports.is_empty()
                || ports.iter().any(|own| fits(port, &own.to_string()));
            let is_database = fits(database, self.config.get_dbname().unwrap_or(user_is));
            is_host && is_port && is_database && fits(user, user_is)
        });
        self.config = (*self.without_password).clone();
        if let Some(password) = found? {
            self.config.password(password);
        }
        self.files = files.iter().map(|file| file.path.clone()).collect();
        Ok(self)
    }

    /// What is said when the server asks for a password, and there is none.
    pub(super) fn without_line(&self) -> String {
        let files: Vec<String> = self.files.iter().map(|path| path.display().to_string()).collect();
        let looked = if files.is_empty() { "there is none".to_owned() } else { files.join(", ") };
        format!(
            "the server asks for a password, and no password file has a line for this store ({looked}); add a line \
             HOST:PORT:DATABASE:USER:PASSWORD to one, or name another file by `password_file` under `[ship]`"
        )
    }
}

fn encryption_of(mode: &str) -> Result<Encryption, String> {
    match mode {
        "verify-full" => Ok(Encryption::Verified),
        "require" => Ok(Encryption::Unverified),
        "disable" => Ok(Encryption::Off),
        other => Err(format!(
            "sslmode={other} is not known; write verify-full (the default), require (any certificate) or disable"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_url_is_verified_unless_it_says_otherwise() {
        let of = |url: &str| Target::parse(url).map(|target| target.encryption);
        assert_eq!(of("postgresql://ship@db.example/traffic"), Ok(Encryption::Verified));
        assert_eq!(of("postgresql://ship@db.example/traffic?sslmode=require"), Ok(Encryption::Unverified));
        assert_eq!(of("postgresql://ship@db.example/traffic?sslmode=disable"), Ok(Encryption::Off));
        assert_eq!(of("postgres://ship@%2Frun%2Fpostgresql/traffic"), Ok(Encryption::Off));
        for (url, reason) in [
            ("db.example", "no URL"),
            ("clickhouse://ship@db.example/traffic", "clickhouse"),
            ("postgresql://db.example/traffic", "no user"),
            ("postgresql://ship@db.example/traffic?sslmode=prefer", "verify-full"),
            ("postgresql://ship@%2Frun%2Fpostgresql/traffic?sslmode=verify-full", "Unix socket"),
            ("postgresql://ship@db.example/traffic?nonsense=1", "not a valid URL"),
        ] {
            let error = of(url).unwrap_err();
            assert!(error.contains(reason), "{url}: {error}");
        }
        let target = Target::parse("postgresql://ship@db.example/traffic?sslrootcert=/etc/ca.pem").unwrap();
        assert_eq!(target.root_file, Some("/etc/ca.pem".into()));
        assert_eq!(target.name(), "postgresql://ship@db.example/traffic");
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        for url in ["postgresql://ship:hunter2@db/traffic", "postgresql://ship@db/traffic?password=hunter2"] {
            let error = Target::parse(url).unwrap_err();
            assert!(error.contains("remove it") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_password_is_that_of_the_first_line_that_fits() {
        let directory = tempfile::tempdir().unwrap();
        let file = PasswordFile::required(directory.path().join("pgpass"));
        let text = "# a comment\ndb:5432:other:ship:no\ndb:*:traffic:ship:a\\:b\\\\c:d\n*:*:*:*:last\n";
        fs::write(&file.path, text).unwrap();
        let allow = |mode| fs::set_permissions(&file.path, fs::Permissions::from_mode(mode)).unwrap();
        allow(0o600);
        let password = |url: &str| {
            let target = Target::parse(url).unwrap().with_password(std::slice::from_ref(&file))?;
            Ok::<_, String>(
                target.config.get_password().map(|text| String::from_utf8_lossy(text).into_owned()),
            )
        };
        assert_eq!(password("postgresql://ship@db/traffic"), Ok(Some("a:b\\c:d".to_owned())));
        assert_eq!(password("postgresql://ship@db2/traffic"), Ok(Some("last".to_owned())));
        allow(0o640);
        let error = password("postgresql://ship@db/traffic").unwrap_err();
        assert!(error.contains("chmod 600") && error.contains("pgpass"), "{error}");
        allow(0o600);
        fs::remove_file(&file.path).unwrap();
        assert!(password("postgresql://ship@db/traffic").is_err());
    }

    #[test]
    fn a_password_is_that_of_the_last_reading() {
        let directory = tempfile::tempdir().unwrap();
        let file = PasswordFile::usual(directory.path().join("pgpass"));
        let mut target = Target::parse("postgresql://ship@db/traffic").unwrap();
        let mut password = |text: Option<&str>| {
            match text {
                Some(text) => fs::write(&file.path, text).unwrap(),
                None => drop(fs::remove_file(&file.path)),
            }
            if text.is_some() {
                fs::set_permissions(&file.path, fs::Permissions::from_mode(0o600)).unwrap();
            }
            target = target.clone().with_password(std::slice::from_ref(&file)).unwrap();
            target.config.get_password().map(|text| String::from_utf8_lossy(text).into_owned())
        };
        assert_eq!(password(None), None);
        assert_eq!(password(Some("*:*:*:*:one\n")).as_deref(), Some("one"));
        assert_eq!(password(Some("*:*:*:*:two\n")).as_deref(), Some("two"));
        assert_eq!(password(Some("other:*:*:*:three\n")), None);
        assert_eq!(password(Some("*:*:*:*:four\n")).as_deref(), Some("four"));
        assert_eq!(password(None), None);
    }
}
