//! Where a store in ClickHouse is: its URL, and the password from a file.
//!
//! `clickhouse+https://USER@HOST:PORT/DATABASE` is the server's HTTP interface by TLS, which is verified. By
//! `clickhouse+http://`, only this machine itself is asked, unless the URL says `?plaintext=allow`.

use std::path::PathBuf;

use traffic_https::Server;

use crate::passwords::{self, PASSWORD_IN_URL, PasswordFile, fits};

/// The port of the HTTP interface with TLS, and without.
const PORTS: (u16, u16) = (8443, 8123);
const FORM: &str = "write clickhouse+https://USER@HOST/DATABASE";

/// A store in ClickHouse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub(super) server: Server,
    pub(super) user: String,
    pub(super) database: String,
    /// Whether another machine is asked without TLS.
    pub(super) is_in_clear: bool,
    pub(super) password: Option<Secret>,
    name: String,
}

/// A password, which nothing prints.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}

impl Target {
    /// Whether a URL is meant for ClickHouse.
    pub fn is_meant(url: &str) -> bool {
        url.starts_with("clickhouse")
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// With what is wrong in it. The text never has a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("it is no URL; {FORM}"))?;
        let is_encrypted = match scheme {
            "clickhouse+https" => true,
            "clickhouse+http" => false,
            _ => return Err(format!("stores at {scheme}:// are not known; {FORM}")),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut ca_file, mut is_in_clear) = (None, false);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("ca_file", file)) if is_encrypted => ca_file = Some(PathBuf::from(file)),
                Some(("plaintext", "allow")) if !is_encrypted => is_in_clear = true,
                Some(("password", _)) => return Err(PASSWORD_IN_URL.to_owned()),
                _ => {
                    return Err("an option of the URL is not known; `ca_file=FILE` names an authority for \
                                clickhouse+https, and `plaintext=allow` lets clickhouse+http leave this machine"
                        .to_owned());
                }
            }
        }
        let (user, place) = place.rsplit_once('@').ok_or_else(|| format!("it has no user; {FORM}"))?;
        if user.contains(':') {
            return Err(PASSWORD_IN_URL.to_owned());
        }
        let (address, database) = place.split_once('/').unwrap_or((place, ""));
        let (host, port) = address_of(address)?;
        let port = port.unwrap_or(if is_encrypted { PORTS.0 } else { PORTS.1 });
        // It is written into statements and URLs as it is.
        let is_name = |text: &str| {
            !text.is_empty() && text.chars().all(|one| one.is_ascii_alphanumeric() || "_-.".contains(one))
        };
        if !is_name(user) || !is_name(database) || host.is_empty() {
            return Err(format!(
                "user and database consist of letters, digits, `_`, `-` and `.`, and it has a host; {FORM}"
            ));
        }
        Ok(Self {
            server: Server { host, port, is_encrypted, ca_file },
            user: user.to_owned(),
            database: database.to_owned(),
            is_in_clear,
            password: None,
            name: format!("{scheme}://{user}@{address}/{database}"),
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
            fits(host, &self.server.host)
                && fits(port, &self.server.port.to_string())
                && fits(database, &self.database)
                && fits(user, &self.user)
        });
        self.password = found?.map(Secret);
        Ok(self)
    }
}

/// The host, without brackets, and the port.
fn address_of(text: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let number = port.map(|port| port.parse().ok().filter(|&port| port > 0));
    match number {
        Some(None) => Err(format!("its port is no number from 1 to 65535; {FORM}")),
        number => Ok((host.to_owned(), number.flatten())),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_url_is_encrypted_or_stays_on_this_machine() {
        let target = Target::parse("clickhouse+https://ship@db.example/traffic?ca_file=/etc/ca.pem").unwrap();
        assert_eq!((target.server.port, target.server.is_encrypted), (8443, true));
        assert_eq!(target.server.ca_file, Some("/etc/ca.pem".into()));
        assert_eq!(target.name(), "clickhouse+https://ship@db.example/traffic");
        let target = Target::parse("clickhouse+http://ship@[::1]:18123/traffic").unwrap();
        assert_eq!((target.server.host.as_str(), target.server.port), ("::1", 18123));
        assert!(!target.server.is_encrypted && !target.is_in_clear);
        assert!(Target::parse("clickhouse+http://a@db/t?plaintext=allow").unwrap().is_in_clear);
        for (url, reason) in [
            ("clickhouse", "no URL"),
            ("clickhouse://ship@db/traffic", "clickhouse+https"),
            ("clickhouse+https://db/traffic", "no user"),
            ("clickhouse+https://ship@db", "database"),
            ("clickhouse+https://ship@db/a`b", "letters"),
            ("clickhouse+https://sh'ip@db/ab", "letters"),
            ("clickhouse+https://ship@db:0/t", "port"),
            ("clickhouse+https://ship@db/t?plaintext=allow", "option"),
            ("clickhouse+http://ship@db/t?ca_file=/x", "option"),
        ] {
            let error = Target::parse(url).unwrap_err();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }

    #[test]
    fn a_password_is_in_its_file_alone() {
        for url in ["clickhouse+https://ship:hunter2@db/t", "clickhouse+https://ship@db/t?password=hunter2"] {
            let error = Target::parse(url).unwrap_err();
            assert!(error.contains("remove it") && !error.contains("hunter2"), "{error}");
        }
        let directory = tempfile::tempdir().unwrap();
        let file = PasswordFile::required(directory.path().join("pgpass"));
        fs::write(&file.path, "db:5432:t:ship:no\ndb:8443:t:ship:hunter2\n").unwrap();
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o600)).unwrap();
        let of = |url| Target::parse(url).unwrap().with_password(std::slice::from_ref(&file)).unwrap();
        let target = of("clickhouse+https://ship@db/t");
        assert_eq!(target.password, Some(Secret("hunter2".to_owned())));
        assert!(!format!("{target:?}").contains("hunter2"));
        assert_eq!(of("clickhouse+https://ship@db/u").password, None);
        fs::write(&file.path, "").unwrap();
        assert_eq!(target.with_password(&[file]).unwrap().password, None);
    }
}
