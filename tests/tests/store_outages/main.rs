//! The table of outages in docs/store.md, row by row, with a real PostgreSQL and a real ClickHouse: what `trafctl ship`
//! says, and that everything is in the store afterwards, once.

mod clickhouse;
mod postgresql;

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::{PermissionsExt as _, chown},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use traffic_tests::{
    Container, Counters, Daemon, Lab,
    check::{booked, eventually, stderr},
    process::{Process, run_ok},
    small_disk::SmallDisk,
    traffic::udp_send,
};

const CLASSES: &str = "1 0.0.0.0/0\n1 ::/0\n2 10.1.0.2/32\n";
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of the store that can end, and its data.
trait Server {
    /// Ends it in the way that is harder on it and still loses nothing.
    fn end(&mut self) -> Result<()>;
    fn restart(&mut self) -> Result<()>;
    fn data(&self) -> PathBuf;
    /// What the store has of container 101.
    fn stored_bytes(&self) -> Result<String>;
}

/// A node that counts, and its password file.
struct Site<'l> {
    lab: &'l Lab,
    containers: [&'l Container; 2],
    passwords: PathBuf,
    _daemon: Daemon,
}

fn node(name: &str) -> Result<(Lab, Container, Container)> {
    Lab::with_two(name, CLASSES, "node = 'n7'\n[drain]\ninterval = '100ms'\n[ship]\ninterval = '1s'\n")
}

impl<'l> Site<'l> {
    fn new(lab: &'l Lab, containers: [&'l Container; 2]) -> Result<Self> {
        let site = Self { lab, containers, passwords: lab.path("pgpass"), _daemon: Daemon::start(lab)? };
        site.set_password("hunter2")?;
        Ok(site)
    }

    fn set_password(&self, password: &str) -> Result<()> {
        self.lab.write("pgpass", &format!("*:*:*:ship:{password}\n"))?;
        Ok(fs::set_permissions(&self.passwords, fs::Permissions::from_mode(0o600))?)
    }

    /// Counts more, so that there is something to ship.
    fn count(&self) -> Result<()> {
        let [a, b] = self.containers;
        udp_send(a.namespace(), b.namespace(), SocketAddr::new(b.v4(), 0), 10, 333)?;
        let counted = Counters::at_rest(self.lab)?.container("101");
        eventually("it is in the ledger", || Ok(booked(self.lab, "101")? == counted))
    }

    /// Runs a command that reads the password file: its status, and all it says.
    fn run(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let file = self.passwords.to_str().context("path")?;
        let output = self.lab.trafctl(&[arguments, &["--password-file", file]].concat())?.output()?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
        ensure!(!text.contains("hunter"), "a password: {text}");
        Ok((output.status.success(), text))
    }

    /// Cannot ship what it counts, and says all of this in one line.
    fn fails(&self, url: &str, says: &[&str]) -> Result<()> {
        self.count()?;
        let (is_shipped, text) = self.run(&["ship", "--once", "--to", url])?;
        ensure!(!is_shipped && text.lines().count() == 1, "{says:?}: {text}");
        says.iter().try_for_each(|part| {
            ensure!(text.contains(part), "not {part:?}: {text}");
            Ok(())
        })
    }

    /// Ships everything, after which the store is equal to the ledger.
    fn ships(&self, url: &str) -> Result<()> {
        self.count()?;
        for arguments in [&["ship", "--once", "--to", url][..], &["ship", "verify", "--to", url]] {
            let (is_well, text) = self.run(arguments)?;
            ensure!(is_well, "{text}");
        }
        Ok(())
    }

    /// The server is away, silent, or somebody else's name, and a running shipper goes on when it is back. `at`: the URL
    /// of a place.
    fn outlives_absence(
        &self,
        server: &mut impl Server,
        (at, own, silent): (impl Fn(&str) -> String, &str, u16),
        says: [&[&str]; 3],
    ) -> Result<()> {
        let [gone, no_name, no_answer] = says;
        let url = at(own);
        self.ships(&url)?;
        server.end()?;
        let running = self.shipper(&url, "away")?;
        self.fails(&url, gone)?;
        self.logs("away", "refused")?;
        self.fails(&at(&own.replace("127.0.0.1", "db.invalid")), no_name)?;
        let _silent = self.silent(silent)?;
        self.fails(&at(&own.replace("127.0.0.1", &format!("127.0.0.1:{silent}"))), no_answer)?;
        server.restart()?;
        self.logs("away", "shipping again")?;
        ensure!(running.terminate(PATIENCE)?.success());
        self.ships(&url)
    }

    /// A running shipper is refused after a change, until the file has the right password.
    fn takes_password(
        &self,
        url: &str,
        change: impl FnOnce() -> Result<()>,
        right: &str,
        says: &[&str],
    ) -> Result<()> {
        let running = self.shipper(url, "password")?;
        change()?;
        self.fails(url, says)?;
        self.logs("password", says[0])?;
        self.set_password(right)?;
        self.logs("password", "shipping again")?;
        ensure!(running.terminate(PATIENCE)?.success());
        self.ships(url)
    }

    /// The disk of the server is full before anything came, and has room again. `owner`: that of its data.
    fn outlives_full_disk(
        &self,
        server: &mut impl Server,
        url: &str,
        (mebibytes, owner): (u32, Option<u32>),
    ) -> Result<()> {
        server.end()?;
        let disk = SmallDisk::replace(server.data(), mebibytes)?;
        chown(server.data(), owner, None)?;
        server.restart()?;
        let filler = disk.fill()?;
        self.fails(url, &["No space left on device"])?;
        fs::remove_file(filler)?;
        self.ships(url)?;
        // Its directory is a mount as long as the server runs.
        server.end()
    }

    /// The server goes back to a backup, and gets what it lacks.
    fn outlives_restore(&self, server: &mut impl Server, url: &str) -> Result<()> {
        self.ships(url)?;
        server.end()?;
        let backup = self.lab.path("backup");
        run_ok(Command::new("cp").arg("-aT").arg(server.data()).arg(&backup))?;
        server.restart()?;
        let before = server.stored_bytes()?;
        self.ships(url)?;
        self.ships(url)?;
        ensure!(server.stored_bytes()? != before);
        server.end()?;
        fs::remove_dir_all(server.data())?;
        run_ok(Command::new("cp").arg("-aT").arg(&backup).arg(server.data()))?;
        server.restart()?;
        ensure!(server.stored_bytes()? == before);
        self.ships(url)
    }

    /// A running shipper, whose log is in a file of this name.
    fn shipper(&self, url: &str, log: &str) -> Result<Process> {
        let file = self.passwords.to_str().context("path")?;
        let mut command = self.lab.trafctl(&["ship", "--to", url, "--password-file", file])?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(self.lab.path(log))?);
        Process::spawn(&mut command)
    }

    /// Waits until the log of a shipper has a text.
    fn logs(&self, log: &str, text: &str) -> Result<()> {
        let log = self.lab.path(log);
        eventually(text, || Ok(fs::read_to_string(&log)?.contains(text)))
            .with_context(|| fs::read_to_string(&log).unwrap_or_default())
    }

    /// Something on a port that takes connections, and says nothing.
    fn silent(&self, port: u16) -> Result<TcpListener> {
        self.lab.host().enter(move || Ok(TcpListener::bind(("127.0.0.1", port))?))
    }
}
