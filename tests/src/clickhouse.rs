//! A real ClickHouse: a throwaway server in a node's namespace, with and without TLS.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::Namespace;
use crate::check::eventually;
use crate::process::{Process, run_ok};

/// The limit of its end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Debian's server, the oldest that is supported. `TRAFCTL_CLICKHOUSE` names another program with the same options.
const PROGRAM: &str = "/usr/sbin/clickhouse-server";

pub(crate) fn program() -> OsString {
    std::env::var_os("TRAFCTL_CLICKHOUSE").unwrap_or_else(|| PROGRAM.into())
}

/// A server that runs until it is dropped. It listens on 127.0.0.1 of its namespace: 8123, and 8443 with TLS.
#[derive(Debug)]
pub struct ClickHouse<'n> {
    // Ends before its directory is removed.
    process: Option<Process>,
    directory: TempDir,
    namespace: &'n Namespace,
}

/// Users: `default` owns everything, `ship` has a password.
pub(crate) const USERS: &str = "<yandex>
<profiles><default><max_memory_usage>2000000000</max_memory_usage><max_threads>2</max_threads></default></profiles>
<quotas><default/></quotas>
<users>
<default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default>
<ship><password>hunter2</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></ship>
</users>
</yandex>
";

impl<'n> ClickHouse<'n> {
    /// Starts a server in a namespace. `certificates` has `server.pem` and `server.key` for TLS.
    ///
    /// # Errors
    ///
    /// When there is no server, or it does not start.
    pub fn start(namespace: &'n Namespace, certificates: Option<&Path>) -> Result<Self> {
        ensure!(Path::new(&program()).exists(), "there is no ClickHouse; run `cargo xtask setup`");
        let directory = tempfile::Builder::new().prefix("trafctl-ch-").tempdir()?;
        let path = directory.path().display();
        let tls = certificates.map_or_else(String::new, |of| {
            let of = of.display();
            format!(
                "<https_port>8443</https_port><openSSL><server><certificateFile>{of}/server.pem</certificateFile>\
                 <privateKeyFile>{of}/server.key</privateKeyFile><verificationMode>none</verificationMode>\
                 <cacheSessions>true</cacheSessions><disableProtocols>sslv2,sslv3</disableProtocols></server></openSSL>"
            )
        });
        fs::write(
            directory.path().join("config.xml"),
            format!(
                "<yandex><logger><level>warning</level><log>{path}/log</log><errorlog>{path}/errors</errorlog></logger>\
                 <http_port>8123</http_port>{tls}<listen_host>127.0.0.1</listen_host><path>{path}/data/</path>\
                 <tmp_path>{path}/tmp/</tmp_path><user_files_path>{path}/files/</user_files_path>\
                 <format_schema_path>{path}/schemas/</format_schema_path><users_config>users.xml</users_config>\
                 <default_profile>default</default_profile><default_database>default</default_database>\
                 <mark_cache_size>67108864</mark_cache_size></yandex>"
            ),
        )?;
        fs::write(directory.path().join("users.xml"), USERS)?;
        let mut server = Self { process: None, directory, namespace };
        server.restart()?;
        Ok(server)
    }

    /// The directory of its data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A URL of its database for a user, without TLS.
    #[must_use]
    pub fn url(&self, user: &str) -> String {
        format!("clickhouse+http://{user}@127.0.0.1/traffic")
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
        ensure!(self.process.is_none(), "the server was running already");
        let output =
            fs::File::options().create(true).append(true).open(self.directory.path().join("output"))?;
        let mut command = self.namespace.command(program());
        command.arg(format!("--config-file={}", self.directory.path().join("config.xml").display()));
        command.current_dir(self.directory.path());
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        self.process = Some(Process::spawn(&mut command)?);
        eventually("ClickHouse answers", || Ok(self.query("SELECT 1").is_ok_and(|answer| answer == "1")))
            .with_context(|| fs::read_to_string(self.directory.path().join("errors")).unwrap_or_default())
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

    /// Runs a statement as the owner, and returns its rows: columns between tabulators.
    ///
    /// # Errors
    ///
    /// When it fails; the error has the server's message.
    pub fn query(&self, sql: &str) -> Result<String> {
        self.query_within(sql, Duration::from_mins(1))
    }

    /// The same for a statement that may take longer.
    ///
    /// # Errors
    ///
    /// When it fails, or takes longer than `limit`.
    pub fn query_within(&self, sql: &str, limit: Duration) -> Result<String> {
        ask(self.namespace.command("curl"), (8123, limit), sql)
    }
}

/// Runs a statement as the owner, by a command `curl` at the server's place.
pub(crate) fn ask(mut curl: Command, (port, limit): (usize, Duration), sql: &str) -> Result<String> {
    let url = format!("http://127.0.0.1:{port}/?wait_end_of_query=1");
    let answer =
        run_ok(curl.args(["-sS", "--max-time", &limit.as_secs().to_string(), &url, "--data-binary", sql]))?;
    ensure!(!answer.starts_with("Code: "), "{sql}: {answer}");
    Ok(answer.trim().to_owned())
}
