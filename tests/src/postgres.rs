//! A real PostgreSQL: a throwaway cluster with a Unix socket, and one in a node's namespace with TLS.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::Namespace;
use crate::check::eventually;
use crate::process::{Process, run_ok};

/// The limit of its end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Postgres<'n> {
    // Ends before its directory is removed.
    process: Option<Process>,
    directory: TempDir,
    namespace: &'n Namespace,
    options: Vec<String>,
}

/// The directory of the server's programs: the newest that is installed, or what `TRAFCTL_POSTGRES` names.
fn programs() -> Result<PathBuf> {
    let Some(chosen) = std::env::var_os("TRAFCTL_POSTGRES").map(PathBuf::from) else { return installed() };
    let shown = chosen.display();
    ensure!(
        chosen.join("postgres").is_file(),
        "there is no PostgreSQL in {shown}, which TRAFCTL_POSTGRES names"
    );
    Ok(chosen)
}

/// The directory of the newest server that is installed. Its client speaks to every server.
fn installed() -> Result<PathBuf> {
    let versions =
        fs::read_dir("/usr/lib/postgresql").context("there is no PostgreSQL; run `cargo xtask setup`")?;
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, path)| path.join("postgres").is_file())
        .collect();
    found.sort();
    Ok(found.pop().context("there is no PostgreSQL; run `cargo xtask setup`")?.1)
}

/// The options of a server with TLS on 127.0.0.1, by `server.pem` and `server.key` of a directory.
#[must_use]
pub fn with_tls(certificates: &Path) -> Vec<String> {
    let of = certificates.display();
    let options = ["listen_addresses=127.0.0.1", "ssl=on"].map(str::to_owned);
    let files = [format!("ssl_cert_file={of}/server.pem"), format!("ssl_key_file={of}/server.key")];
    options.into_iter().chain(files).flat_map(|option| ["-c".to_owned(), option]).collect()
}

/// A user that is not root, as the server demands: that of the package.
fn user() -> Result<(u32, u32)> {
    let id = |option: &str| -> Result<u32> {
        Ok(run_ok(Command::new("id").args([option, "postgres"]))?.trim().parse()?)
    };
    Ok((id("-u")?, id("-g")?))
}

impl<'n> Postgres<'n> {
    /// Creates a cluster and starts its server in a namespace. The superuser is `postgres`; on the socket, everybody
    /// is who they say, and on addresses, passwords are asked for.
    ///
    /// # Errors
    ///
    /// When there is no server, or it does not start.
    pub fn start(namespace: &'n Namespace, options: &[&str]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("trafctl-pg-").tempdir()?;
        let (uid, gid) = user()?;
        chown(directory.path(), Some(uid), Some(gid))?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let data = directory.path().join("data");
        let mut create = Command::new(programs()?.join("initdb"));
        create.uid(uid).gid(gid).current_dir(directory.path()).arg("-D").arg(&data);
        create.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        run_ok(&mut create)?;
        fs::write(data.join("pg_hba.conf"), "local all all trust\nhostssl all all all scram-sha-256\n")?;
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { process: None, directory, namespace, options };
        server.restart()?;
        Ok(server)
    }

    /// The directory of its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.directory.path()
    }

    /// The directory of its data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A URL on its socket.
    #[must_use]
    pub fn url(&self, user: &str) -> String {
        let path = self.socket().display().to_string().replace('/', "%2F");
        format!("postgresql://{user}@{path}/postgres")
    }

    /// The process id of the server, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Starts the server, and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn restart(&mut self) -> Result<()> {
        let (uid, gid) = user()?;
        let log = self.directory.path().join("log");
        let log = fs::File::options().create(true).append(true).open(log)?;
        let mut is_started = false;
        eventually("PostgreSQL answers", || {
            let has_ended = match &mut self.process {
                Some(process) => process.child().try_wait()?.is_some(),
                None => true,
            };
            // After a kill, the first attempts may find children of the former server.
            if has_ended {
                is_started = true;
                // Only root may enter the namespace, and the server refuses root.
                let mut command = self.namespace.command("setpriv");
                command.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "--"]);
                command.arg(programs()?.join("postgres")).current_dir(self.directory.path());
                command.arg("-D").arg(self.directory.path().join("data")).arg("-k").arg(self.socket());
                // Version 13 has another default.
                command.args(["-c", "password_encryption=scram-sha-256", "-c", "listen_addresses="]);
                command.args(&self.options);
                command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
                self.process = Some(Process::spawn(&mut command)?);
            }
            Ok(self.psql("postgres", "select 1")?.status.success())
        })
        .with_context(|| fs::read_to_string(self.directory.path().join("log")).unwrap_or_default())?;
        ensure!(is_started, "the server was running already");
        Ok(())
    }

    /// Ends the server at once, as a crash does.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the server is not running")?;
        process.signal(Signal::KILL)?;
        process.wait(PATIENCE)?;
        Ok(())
    }

    /// Stops the server, as its service does: connections end at once, and what was committed is on the disk.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the server is not running")?;
        process.signal(Signal::INT)?;
        process.wait(PATIENCE)?;
        Ok(())
    }

    /// Runs SQL as a user.
    ///
    /// # Errors
    ///
    /// When psql cannot be started.
    pub fn psql(&self, user: &str, sql: &str) -> Result<Output> {
        self.psql_by(5432, user, sql)
    }

    /// The same by the socket of another port, such as that of a pooler.
    ///
    /// # Errors
    ///
    /// When psql cannot be started.
    pub fn psql_by(&self, port: u16, user: &str, sql: &str) -> Result<Output> {
        let mut command = Command::new(installed()?.join("psql"));
        command.arg("-h").arg(self.socket()).args(["-p", &port.to_string()]).args([
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            user,
            "-d",
            "postgres",
        ]);
        Ok(command.args(["-c", sql]).stdin(Stdio::null()).output()?)
    }

    /// Runs SQL as the superuser, and returns its rows: columns between `|`.
    ///
    /// # Errors
    ///
    /// When it fails; the error has psql's message.
    pub fn query(&self, sql: &str) -> Result<String> {
        let output = self.psql("postgres", sql)?;
        ensure!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

impl Drop for Postgres<'_> {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Killed, the server would leave its shared memory behind. SIGQUIT has it end without a checkpoint. A drop
            // cannot report an error.
            let _ = process.signal(Signal::QUIT);
            let _ = process.wait(PATIENCE);
        }
    }
}
