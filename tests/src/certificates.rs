//! Certificates of a server for tests of TLS, made by openssl.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use anyhow::Result;
use tempfile::TempDir;

use crate::process::run_ok;

/// A directory with an authority (`ca.pem`), a server's certificate from it for 127.0.0.1 (`server.pem`, `server.key`),
/// and another authority (`other.pem`).
///
/// # Errors
///
/// When openssl fails.
pub fn certificates() -> Result<TempDir> {
    let kept = tempfile::Builder::new().prefix("trafctl-tls-").tempdir()?;
    let directory = kept.path();
    for name in ["ca", "other"] {
        openssl(
            directory,
            "now",
            &format!("req -x509 {KEY} -keyout {name}.key -out {name}.pem -subj /CN={name} -days 2"),
        )?;
    }
    openssl(directory, "now", &format!("req {KEY} -keyout server.key -out server.csr -subj /CN=db"))?;
    fs::write(directory.join("names"), "subjectAltName=IP:127.0.0.1\n")?;
    sign(directory, "now")?;
    // PostgreSQL has a user of its own.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    let id: u32 = run_ok(Command::new("id").args(["-u", "postgres"]))?.trim().parse()?;
    chown(directory.join("server.key"), Some(id), None)?;
    Ok(kept)
}

/// Replaces the server's certificate by one that ended long ago.
///
/// # Errors
///
/// When openssl fails.
pub fn expire(directory: &Path) -> Result<()> {
    sign(directory, "2020-01-01")
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

fn sign(directory: &Path, day: &str) -> Result<()> {
    let sign = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names";
    openssl(directory, day, sign)
}

fn openssl(directory: &Path, day: &str, arguments: &str) -> Result<()> {
    let mut command = Command::new("faketime");
    run_ok(command.args([day, "openssl"]).args(arguments.split_whitespace()).current_dir(directory)).map(drop)
}
