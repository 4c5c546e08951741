//! Containers of LXC and systemd-nspawn. Each has its own root with the machine's programs, and an init that
//! does nothing on the network before its orders.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use traffic_tests::process::{Process, children, run_ok};
use traffic_tests::{Lab, check};

use crate::bench::Bench;

/// The limit for a container to start and to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for its orders, so that the witness is in place before the first packet. Then it reports that it is
/// ready.
const INIT: &str = "#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
: >/waiting
while [ ! -e /orders ]; do sleep 0.02; done
. /orders
: >/ready
while :; do sleep 1000; done
";

/// One web server with a file to fetch.
const NGINX: &str = "user root; worker_processes 1; daemon on; pid /tmp/nginx.pid; error_log /tmp/nginx.log;
events { worker_connections 64; }
http { access_log off; sendfile on; client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c;
  uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;
  server { listen 80; listen [::]:80; root /www; } }
";

/// LXC looks for the bridge below `/sys`, which shows the network namespace in which it was mounted.
const SYSFS: &str = "mount --make-rprivate /
mount -t tmpfs none /mnt; mkdir /mnt/sys; mount -t sysfs none /mnt/sys
mount --bind /mnt/sys/class /sys/class
mount --bind /mnt/sys/devices/virtual /sys/devices/virtual
exec \"$@\"";

/// The program that runs the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// LXC.
    Lxc,
    /// systemd-nspawn.
    Nspawn,
}

/// How the host connects an interface of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// On the lab's bridge.
    Bridged,
    /// By routing on the host.
    Routed,
}

/// A container. Its drop stops it.
pub struct Real<'a> {
    bench: &'a Bench,
    lab: &'a Lab,
    engine: Engine,
    mode: Mode,
    /// Its id in trafctl.
    pub id: String,
    name: String,
    root: PathBuf,
    interfaces: usize,
    hook: Option<PathBuf>,
    running: Option<Process>,
}

impl<'a> Real<'a> {
    /// Prepares a container without starting it.
    ///
    /// # Errors
    ///
    /// When its root cannot be created.
    pub fn new(
        bench: &'a Bench,
        lab: &'a Lab,
        (engine, mode): (Engine, Mode),
        id: &str,
        interfaces: usize,
    ) -> Result<Self> {
        // Names of control groups are global on the machine. Names of interfaces are short.
        let name = match engine {
            Engine::Lxc => format!("prove-{}-{id}", std::process::id()),
            Engine::Nspawn => id.to_owned(),
        };
        let root = lab.path(&format!("{name}-root"));
        for directory in
            ["usr", "proc", "sys", "dev", "tmp", "run", "var/lib", "var/log/nginx", "etc", "www", "root"]
        {
            fs::create_dir_all(root.join(directory)).context("cannot create the root of a container")?;
        }
        for directory in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{directory}"), root.join(directory))?;
        }
        fs::write(root.join("init"), INIT)?;
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
        fs::write(root.join("etc/nginx.conf"), NGINX)?;
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        fs::write(root.join("etc/group"), "root:x:0:\n")?;
        fs::write(root.join("etc/os-release"), "ID=proof\n")?;
        fs::write(root.join("www/file"), vec![0x61; 3_000_017])?;
        Ok(Self {
            bench,
            lab,
            engine,
            mode,
            id: id.to_owned(),
            name,
            root,
            interfaces,
            hook: None,
            running: None,
        })
    }

    /// The name of an interface on the host.
    pub fn interface(&self, number: usize) -> String {
        match self.engine {
            Engine::Lxc => format!("veth{}.{number}", self.id),
            Engine::Nspawn => format!("ve-{}", self.name),
        }
    }

    /// The name of an interface inside.
    pub fn inside(&self, number: usize) -> String {
        match self.engine {
            Engine::Lxc => format!("eth{number}"),
            Engine::Nspawn => "host0".to_owned(),
        }
    }

    /// Makes LXC run `trafctl attach` for each interface before the first process of the container.
    ///
    /// # Errors
    ///
    /// When the script cannot be written.
    pub fn attach_by_hook(&mut self) -> Result<()> {
        // LXC hides the output of a hook. This writes it to the log that an error message shows.
        let mut script = format!("#!/bin/sh\nset -e\nexec >>'{}' 2>&1\n", self.log().display());
        for number in 0..self.interfaces {
            let command = self.lab.trafctl(&["attach", &self.interface(number)])?;
            let words = std::iter::once(command.get_program()).chain(command.get_args());
            let line: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
            // A write to a string cannot fail.
            let _ = writeln!(script, "{}", line.join(" "));
        }
        let path = self.lab.path(&format!("{}-hook", self.name));
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        self.hook = Some(path);
        Ok(())
    }

    /// Starts the container. Its interfaces exist and are down.
    ///
    /// # Errors
    ///
    /// When it does not start in time; the error contains the output of the engine.
    pub fn start(&mut self) -> Result<()> {
        for name in ["waiting", "ready", "orders"] {
            match fs::remove_file(self.root.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let log = self.log();
        // Append mode, so that the engine and the hook do not overwrite each other.
        let output = fs::File::options().create(true).append(true).open(&log)?;
        let mut command = match self.engine {
            Engine::Lxc => self.lxc(&log)?,
            Engine::Nspawn => self.nspawn(),
        };
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut process = Process::spawn(&mut command)?;
        let deadline = Instant::now() + PATIENCE;
        while !self.root.join("waiting").exists() {
            let ended = process.child().try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let text = fs::read_to_string(&log).unwrap_or_default();
                bail!("{} does not start ({ended:?}): {text}", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.running = Some(process);
        Ok(())
    }

    /// The log of the engine and its hooks.
    fn log(&self) -> PathBuf {
        self.lab.path(&format!("{}.log", self.name))
    }

    fn lxc(&self, log: &Path) -> Result<Command> {
        let mut text = format!(
            "lxc.uts.name = {}\nlxc.rootfs.path = dir:{}\nlxc.init.cmd = /init\nlxc.mount.auto = proc:rw sys:rw\n\
             lxc.mount.entry = /usr usr none bind,ro 0 0\nlxc.tty.max = 0\nlxc.pty.max = 4\nlxc.autodev = 1\n",
            self.name,
            self.root.display()
        );
        for number in 0..self.interfaces {
            let _ = write!(
                text,
                "lxc.net.{number}.type = veth\nlxc.net.{number}.name = {}\nlxc.net.{number}.veth.pair = {}\n",
                self.inside(number),
                self.interface(number)
            );
            // The same address over restarts, as for a real container, because neighbours remember it.
            let last = self.id.bytes().fold(0_u8, u8::wrapping_add);
            let _ = writeln!(text, "lxc.net.{number}.hwaddr = 02:00:00:00:{number:02x}:{last:02x}");
            if self.mode == Mode::Bridged {
                let _ = writeln!(text, "lxc.net.{number}.link = {}", self.lab.bridge()?.name());
            }
        }
        if let Some(hook) = &self.hook {
            let _ = writeln!(text, "lxc.hook.start-host = {}", hook.display());
        }
        let config = self.lab.write(&format!("{}.conf", self.name), &text)?;
        let mut command = self.lab.host().command("unshare");
        command
            .args(["--mount", "sh", "-ec", SYSFS, "lxc-start", "lxc-start", "-F"])
            .args(self.place())
            .arg("-f")
            .arg(config);
        command.arg("-l").arg("INFO").arg("-o").arg(log.with_extension("lxc"));
        Ok(command)
    }

    /// A command for a running container. The sockets of LXC belong to a network namespace.
    fn lxc_command(&self, program: &str) -> Command {
        let mut command = self.lab.host().command(program);
        command.args(self.place());
        command
    }

    /// The options that select the container, for every command of LXC.
    fn place(&self) -> [String; 4] {
        let place = self.lab.path("lxc").display().to_string();
        ["-n".to_owned(), self.name.clone(), "-P".to_owned(), place]
    }

    fn nspawn(&self) -> Command {
        let mut command = self.lab.host().command(self.bench.program("systemd-nspawn"));
        command
            .args([
                "--register=no",
                "--keep-unit",
                "--network-veth",
                "--bind-ro=/usr",
                "--quiet",
                "--timezone=off",
            ])
            .args(["--resolv-conf=off", "--console=pipe"])
            .arg(format!("--machine={}", self.name))
            .arg("-D")
            .arg(&self.root)
            .arg("/init");
        command
    }

    /// The process id of the container's first process.
    ///
    /// # Errors
    ///
    /// When the container is not running.
    pub fn pid(&self) -> Result<u32> {
        let id = self.running.as_ref().context("the container is not running")?.id();
        match self.engine {
            Engine::Lxc => {
                let text = run_ok(self.lxc_command("lxc-info").args(["-p", "-H"]))?;
                text.trim()
                    .parse()
                    .with_context(|| format!("cannot parse the process id of {}: {text}", self.name))
            }
            // The only child of nspawn is the first process.
            Engine::Nspawn => descendant(id, "init"),
        }
    }

    /// The file that represents the container's network.
    ///
    /// # Errors
    ///
    /// When the container is not running.
    pub fn network(&self) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/ns/net", self.pid()?)))
    }

    /// Passes the orders to the init and waits until it has executed them.
    ///
    /// # Errors
    ///
    /// When they are not executed in time.
    pub fn order(&self, orders: &str) -> Result<()> {
        // Renamed into place: a shell that reads a file while it is written would miss the end.
        let draft = self.root.join("draft");
        fs::write(&draft, orders)?;
        fs::rename(&draft, self.root.join("orders"))?;
        check::eventually("the container is ready", || Ok(self.root.join("ready").exists()))
    }

    /// A command inside the container.
    ///
    /// # Errors
    ///
    /// When the container is not running.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.pid()?))
            .args(["--net", "--mount", "--pid", "--uts", "--", program]);
        Ok(command)
    }

    /// Freezes or thaws all its processes.
    ///
    /// # Errors
    ///
    /// When the engine fails.
    pub fn freeze(&self, freeze: bool) -> Result<()> {
        ensure!(self.engine == Engine::Lxc, "only LXC freezes");
        // Where both versions of cgroups are mounted, LXC has a version 1 freezer but does not find it.
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", self.pid()?))
            .context("cannot read the control groups of the container")?;
        if let Some(group) =
            groups.lines().find_map(|line| line.split_once(":freezer:/").map(|(_, path)| path))
        {
            let directory = Path::new("/sys/fs/cgroup/freezer").join(group);
            let state = if freeze { "FROZEN" } else { "THAWED" };
            fs::write(directory.join("freezer.state"), state).context("cannot freeze the container")?;
            return check::eventually(state, || {
                Ok(fs::read_to_string(directory.join("freezer.state"))?.trim() == state)
            });
        }
        let program = if freeze { "lxc-freeze" } else { "lxc-unfreeze" };
        run_ok(&mut self.lxc_command(program)).map(drop)
    }

    /// Kills the container and waits until its interfaces are gone.
    ///
    /// # Errors
    ///
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.running.take() else { bail!("{} is not running", self.name) };
        match self.engine {
            Engine::Lxc => drop(run_ok(self.lxc_command("lxc-stop").arg("-k"))?),
            Engine::Nspawn => {
                let pid = descendant(process.id(), "init")?;
                run_ok(Command::new("kill").args(["-KILL", &pid.to_string()]))?;
            }
        }
        process.wait(PATIENCE)?;
        let interface = self.interface(0);
        check::eventually("its interface is gone", || {
            Ok(self.lab.host().ip(&format!("link show dev {interface}")).is_err())
        })
    }
}

impl Drop for Real<'_> {
    fn drop(&mut self) {
        if self.running.is_some() {
            // A drop cannot report an error.
            let _ = self.stop();
        }
    }
}

/// The process with this name below another.
fn descendant(parent: u32, name: &str) -> Result<u32> {
    let mut waiting = vec![parent];
    while let Some(id) = waiting.pop() {
        let called = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        if called.trim() == name {
            return Ok(id);
        }
        waiting.extend(children(id));
    }
    bail!("no process {name} below {parent}")
}
