//! A cluster of real ClickHouse servers in a node's namespace, with the ZooKeeper that it needs.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    Namespace,
    check::eventually,
    clickhouse::{USERS, ask, program},
    process::Process,
};

/// The name of the cluster.
pub const CLUSTER: &str = "fleet";
/// The limit of an end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where Debian has ZooKeeper and what it needs.
const ZOOKEEPER: &str = "/usr/share/java/zookeeper.jar";

/// How many servers a cluster has.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Parts of the rows.
    pub shards: usize,
    /// Servers with the same rows.
    pub replicas: usize,
}

/// Servers that run until this is dropped. They listen on 127.0.0.1 of their namespace: the first on 8123, the next on
/// 8124, and so on. The replicas of a shard are next to each other.
#[derive(Debug)]
pub struct ClickHouseCluster<'n> {
    // They end before their directory is removed.
    servers: Vec<Option<Process>>,
    _zookeeper: Process,
    directory: TempDir,
    namespace: &'n Namespace,
}

impl<'n> ClickHouseCluster<'n> {
    /// Starts a cluster in a namespace.
    ///
    /// # Errors
    ///
    /// When a program is missing or does not start.
    pub fn start(namespace: &'n Namespace, shape: Shape) -> Result<Self> {
        ensure!(
            Path::new(&program()).exists() && Path::new(ZOOKEEPER).exists(),
            "there is no ClickHouse or no ZooKeeper; run `cargo xtask setup`"
        );
        let directory = tempfile::Builder::new().prefix("trafctl-ch-").tempdir()?;
        let path = directory.path().display();
        fs::write(
            directory.path().join("zoo.cfg"),
            format!(
                "tickTime=500\ndataDir={path}/zookeeper\nclientPort=2181\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
            ),
        )?;
        let mut command = namespace.command("java");
        command.args([
            "-Xmx128m",
            "-cp",
            "/usr/share/java/*",
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        ]);
        command.arg(directory.path().join("zoo.cfg")).current_dir(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let zookeeper = Process::spawn(&mut command)?;
        eventually("ZooKeeper answers", || {
            namespace.enter(|| Ok(TcpStream::connect("127.0.0.1:2181").is_ok()))
        })?;
        let count = shape.shards * shape.replicas;
        for at in 0..count {
            let home = directory.path().join(at.to_string());
            fs::create_dir(&home)?;
            fs::write(home.join("config.xml"), config(&home, at, shape))?;
            fs::write(home.join("users.xml"), USERS)?;
        }
        let servers = (0..count).map(|_| None).collect();
        let mut cluster = Self { servers, _zookeeper: zookeeper, directory, namespace };
        (0..count).try_for_each(|at| cluster.restart(at))?;
        Ok(cluster)
    }

    fn home(&self, at: usize) -> PathBuf {
        self.directory.path().join(at.to_string())
    }

    /// A URL of its database at a server, for a user.
    #[must_use]
    pub fn url(&self, at: usize, user: &str) -> String {
        format!("clickhouse+http://{user}@127.0.0.1:{}/traffic", http_port(at))
    }

    /// Starts a server, and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn restart(&mut self, at: usize) -> Result<()> {
        ensure!(self.servers[at].is_none(), "the server was running already");
        let home = self.home(at);
        let output = fs::File::options().create(true).append(true).open(home.join("output"))?;
        let log = home.join("log");
        if log.exists() {
            fs::remove_file(&log)?;
        }
        let mut command = self.namespace.command(program());
        command.arg(format!("--config-file={}", home.join("config.xml").display())).current_dir(&home);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        self.servers[at] = Some(Process::spawn(&mut command)?);
        eventually("ClickHouse answers", || Ok(self.query(at, "SELECT 1").is_ok_and(|answer| answer == "1")))
            .with_context(|| fs::read_to_string(home.join("errors")).unwrap_or_default())?;
        // An old server crashes when it gets a statement for the cluster before its worker has ZooKeeper.
        eventually("the server is in its cluster", || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            Ok(["Processing tasks", "Scheduling tasks"].iter().any(|worker| log.contains(worker)))
        })
    }

    /// Ends a server at once, as a crash does.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn kill(&mut self, at: usize) -> Result<()> {
        let mut process = self.servers[at].take().context("the server is not running")?;
        process.signal(Signal::KILL)?;
        process.wait(PATIENCE)?;
        Ok(())
    }

    /// Runs a statement at a server as the owner, and returns its rows: columns between tabulators.
    ///
    /// # Errors
    ///
    /// When it fails; the error has the server's message.
    pub fn query(&self, at: usize, sql: &str) -> Result<String> {
        let command: Command = self.namespace.command("curl");
        ask(command, (http_port(at), Duration::from_mins(1)), sql)
    }
}

const fn http_port(at: usize) -> usize {
    8123 + at
}

fn config(home: &Path, at: usize, Shape { shards, replicas }: Shape) -> String {
    let path = home.display();
    let tcp_port = |at: usize| 9000 + at;
    let servers: String = (0..shards)
        .map(|shard| {
            let of: String = (0..replicas)
                .map(|replica| {
                    let port = tcp_port(shard * replicas + replica);
                    format!("<replica><host>127.0.0.1</host><port>{port}</port></replica>")
                })
                .collect();
            format!("<shard><internal_replication>true</internal_replication>{of}</shard>")
        })
        .collect();
    format!(
        "<yandex><logger><level>debug</level><log>{path}/log</log><errorlog>{path}/errors</errorlog></logger>\
         <http_port>{}</http_port><tcp_port>{}</tcp_port><interserver_http_port>{}</interserver_http_port>\
         <interserver_http_host>127.0.0.1</interserver_http_host><listen_host>127.0.0.1</listen_host>\
         <path>{path}/data/</path><tmp_path>{path}/tmp/</tmp_path><user_files_path>{path}/files/</user_files_path>\
         <format_schema_path>{path}/schemas/</format_schema_path><users_config>users.xml</users_config>\
         <default_profile>default</default_profile><default_database>default</default_database>\
         <mark_cache_size>67108864</mark_cache_size>\
         <zookeeper><node><host>127.0.0.1</host><port>2181</port></node></zookeeper>\
         <distributed_ddl><path>/clickhouse/task_queue/ddl</path></distributed_ddl>\
         <macros><shard>{}</shard><replica>{}</replica></macros>\
         <remote_servers><{CLUSTER}>{servers}</{CLUSTER}></remote_servers></yandex>",
        http_port(at),
        tcp_port(at),
        9100 + at,
        at / replicas,
        at % replicas,
    )
}
