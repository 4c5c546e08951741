//! A systemd that runs as the first process of its own namespaces and starts the shipped unit with all its
//! restrictions.
//!
//! It knows only the units it is given. `/proc/sys` is read-only, because systemd would raise limits there. A
//! control group of its own keeps its changes away from the machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::Lab;
use crate::check::{PATIENCE, eventually};
use crate::lab::trafctl_program;
use crate::namespace::PREFIX;
use crate::process::{Process, children, run_ok};

/// The name of the service.
pub const SERVICE: &str = "trafctl.service";

/// Targets that every unit refers to implicitly, and the one that is reached.
const TARGETS: [&str; 5] =
    ["sysinit.target", "basic.target", "shutdown.target", "machines.target", "multi-user.target"];

/// What differs from a machine: the program, the pins, no resync (see [`crate::daemon`]), and a log file
/// instead of the journal.
const DROP_IN: &str = "[Service]
ExecStart=
ExecStart=/trafctl run
Environment=TRAFCTL_BPFFS=/sys/fs/bpf TRAFCTL_TEST_RESYNC=off
StandardOutput=append:/log
StandardError=append:/log
";

/// Enters a control group of its own, then namespaces. `$1` root, `$2` group, `$3` the next script.
const ENTER: &str = r#"mount --make-rprivate /
mount -t cgroup2 cgroup2 "$1/sys"
mkdir "$1/sys/$2"
echo 0 >"$1/sys/$2/cgroup.procs"
umount "$1/sys"
next=$3
shift 3
exec unshare --cgroup --pid --ipc --uts --fork --kill-child=KILL sh -ec "$next" sh "$@""#;

/// Mounts the file systems that every node has. `$1` root, `$2` bpffs.
const MOUNT: &str = r#"cd "$1"
mount --bind . .
cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --bind "$2" sys/fs/bpf
mount -t tmpfs tmpfs run
# As on a machine: systemd mounts credentials in a process of its own.
mount --make-shared run
mount -t tmpfs tmpfs dev
mkdir dev/shm dev/pts
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
"#;

/// Starts systemd with the programs of the machine. `$3` state, `$4` configuration, `$5` program.
const START: &str = r#"mount --rbind /usr usr
mount --bind "$3" var/lib/trafctl
mount --bind "$4" etc/trafctl/trafctl.toml
mount --bind "$5" trafctl
exec env -i PATH=/usr/sbin:/usr/bin container=lab SYSTEMD_UNIT_PATH=/etc/systemd/system \
    chroot . /usr/lib/systemd/systemd --system --log-target=null --show-status=no"#;

/// Starts the systemd of a distribution whose root this is. Programs that ask whether they are in a chroot, such
/// as Debian's package scripts, learn that they are not.
const START_TREE: &str = r#"mount -t tmpfs tmpfs tmp
pivot_root . mnt
exec chroot . /bin/sh -ec 'umount --lazy /mnt
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=lab \
    /lib/systemd/systemd --system --log-target=null --show-status=no'"#;

/// The shipped unit of another name, such as `trafctl-ship.service`.
#[must_use]
pub fn unit_named(name: &str) -> PathBuf {
    unit().with_file_name(name)
}

/// Removes a control group and those below it. `$1` a directory to mount on, `$2` the group.
const REMOVE_GROUP: &str = r#"mount --make-rprivate /
mount -t cgroup2 cgroup2 "$1"
find "$1/$2" -depth -type d -exec rmdir {} +"#;

/// A running systemd. Its drop kills it and everything it started.
#[derive(Debug)]
pub struct Systemd {
    root: PathBuf,
    /// What it writes before it has a log.
    console: PathBuf,
    group: String,
    process: Process,
    init: u32,
}

impl Systemd {
    /// Boots the lab's node with these classes in Virtuozzo's file. The unit is enabled, so the boot starts
    /// it.
    ///
    /// # Errors
    ///
    /// When systemd does not start. The state of the service is not checked.
    pub fn boot(lab: &Lab, classes: &str) -> Result<Self> {
        let root = lab.path("systemd");
        prepare(&root)?;
        write_classes(&root, classes)?;
        Self::boot_prepared(lab, root)
    }

    /// Boots the lab's node with a host name and without a class file. The service is installed, but neither
    /// enabled nor started.
    ///
    /// # Errors
    ///
    /// See [`Systemd::boot`].
    pub fn boot_idle(lab: &Lab, host_name: &str) -> Result<Self> {
        let root = lab.path("systemd");
        prepare(&root)?;
        fs::write(root.join("etc/hostname"), format!("{host_name}\n"))
            .context("cannot write the host name")?;
        run_ok(Command::new("systemctl").arg("--root").arg(&root).args(["disable", SERVICE]))?;
        Self::boot_prepared(lab, root)
    }

    /// Boots the system of a distribution, such as Debian's, whose files are below `root`. Nothing of trafctl is
    /// installed. Waits until all units have started.
    ///
    /// # Errors
    ///
    /// When systemd does not start, or one of its units fails.
    pub fn boot_tree(lab: &Lab, root: PathBuf) -> Result<Self> {
        let systemd = Self::start(lab, root, START_TREE, &[])?;
        // It fails until the message bus answers.
        eventually("all units have started", || {
            let state = systemd.command("systemctl").args(["is-system-running", "--wait"]).output()?;
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            ensure!(state != "degraded", "{}", systemd.systemctl(&["--failed", "--no-legend"])?);
            Ok(state == "running")
        })?;
        Ok(systemd)
    }

    fn boot_prepared(lab: &Lab, root: PathBuf) -> Result<Self> {
        Self::start(lab, root, START, &[lab.state_dir(), lab.config(), trafctl_program()?])
    }

    /// Starts systemd in namespaces of its own, with a script that follows [`MOUNT`] and its further arguments.
    fn start(lab: &Lab, root: PathBuf, script: &str, arguments: &[PathBuf]) -> Result<Self> {
        let group = format!("{PREFIX}-{}", lab.host().name());
        // It ends when the thread that started it ends.
        let mut command = lab.host().command("setpriv");
        command.args(["--pdeathsig=KILL", "unshare", "--mount", "sh", "-ec", ENTER, "sh"]);
        command.arg(&root).arg(&group).arg([MOUNT, script].concat());
        command.arg(&root).arg(lab.bpffs()).args(arguments);
        let console = lab.path("console");
        let output = fs::File::create(&console).context("cannot create a file for the output of systemd")?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let process = Process::spawn(&mut command)?;
        let mut systemd = Self { root, console, group, process, init: 0 };
        eventually("systemd answers", || {
            systemd.init = children(systemd.process.id()).first().copied().unwrap_or_default();
            Ok(systemd.init != 0 && systemd.systemctl(&["show", "--property=Version"]).is_ok())
        })
        .with_context(|| fs::read_to_string(&systemd.console).unwrap_or_default())?;
        Ok(systemd)
    }

    /// Replaces the contents of the class file.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn classes(&self, text: &str) -> Result<()> {
        write_classes(&self.root, text)
    }

    /// The directory that is the node's root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The id of the first process of the node, for `nsenter --target`.
    #[must_use]
    pub fn init(&self) -> u32 {
        self.init
    }

    /// A command on the node, with the file systems and processes of systemd.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init));
        command.args(["--mount", "--pid", "--net", "--root", "--wd=/", "--", program]);
        command
    }

    /// A command with the file systems of the service.
    ///
    /// # Errors
    ///
    /// When the service is not running.
    pub fn in_service(&self, program: &str) -> Result<Command> {
        let mut command = self.command("nsenter");
        command.arg(format!("--target={}", self.property("MainPID")?));
        command.args(["--mount", "--root", "--wd=/", "--", program]);
        Ok(command)
    }

    /// Runs `systemctl` and returns its stdout.
    ///
    /// # Errors
    ///
    /// When it fails; the error contains its output.
    pub fn systemctl(&self, arguments: &[&str]) -> Result<String> {
        run_ok(self.command("systemctl").args(arguments))
    }

    /// A property of the service.
    ///
    /// # Errors
    ///
    /// When systemd does not answer.
    pub fn property(&self, name: &str) -> Result<String> {
        Ok(self.systemctl(&["show", "--value", "--property", name, SERVICE])?.trim().to_owned())
    }

    /// Waits until the service is active, which means that it has reported readiness.
    ///
    /// # Errors
    ///
    /// When it is not active in time; the error contains its log.
    pub fn active(&self) -> Result<()> {
        eventually("the service is active", || Ok(self.property("ActiveState")? == "active"))
            .with_context(|| self.described())
    }

    /// Waits until the log of the service contains a text this many times.
    ///
    /// # Errors
    ///
    /// When it does not in time; the error contains the log.
    pub fn logs(&self, text: &str, times: usize) -> Result<()> {
        eventually(text, || Ok(self.log().matches(text).count() == times)).with_context(|| self.described())
    }

    /// The log of the service so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.root.join("log")).unwrap_or_default()
    }

    /// Status and log of the service, for error messages.
    fn described(&self) -> String {
        let status = self.command("systemctl").args(["status", "--no-pager", SERVICE]).output();
        let status = status.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        format!("{}\n{}", status.unwrap_or_default(), self.log())
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // A drop cannot report an error. The first process ends when all others have ended.
        if let Some(init) = i32::try_from(self.init).ok().and_then(Pid::from_raw) {
            let _ = kill_process(init, Signal::KILL);
            let _ = self.process.wait(PATIENCE);
        }
        let _ = Command::new("unshare")
            .args(["--mount", "sh", "-ec", REMOVE_GROUP, "sh"])
            .arg(self.root.join("sys"))
            .arg(&self.group)
            .output();
    }
}

fn write_classes(root: &Path, text: &str) -> Result<()> {
    fs::write(root.join("etc/vz/conf/networks_classes"), text).context("cannot write the classes")
}

/// Creates the root directory for systemd in namespaces.
fn prepare(root: &Path) -> Result<()> {
    for directory in ["usr", "proc", "sys", "dev", "tmp", "run", "home", "root", "var/tmp", "var/lib/trafctl"]
    {
        fs::create_dir_all(root.join(directory)).context("cannot create the root of systemd")?;
    }
    for directory in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{directory}"), root.join(directory))?;
    }
    for (name, text) in [("trafctl", ""), ("log", "")] {
        fs::write(root.join(name), text).with_context(|| name.to_owned())?;
    }
    install(root, DROP_IN)
}

/// Writes below `etc` what systemd and the service need: the enabled unit with a drop-in, and the targets
/// that it refers to. A systemd with `SYSTEMD_UNIT_PATH=/etc/systemd/system` knows no other units.
///
/// # Errors
///
/// When a file cannot be written or the unit cannot be enabled.
pub fn install(root: &Path, drop_in: &str) -> Result<()> {
    let units = root.join("etc/systemd/system");
    for directory in [root.join("etc/vz/conf"), root.join("etc/trafctl"), units.join(format!("{SERVICE}.d"))]
    {
        fs::create_dir_all(directory).context("cannot create directories for units")?;
    }
    for target in TARGETS {
        fs::write(units.join(target), "[Unit]\nDefaultDependencies=no\n")?;
    }
    symlink("multi-user.target", units.join("default.target"))?;
    fs::copy(unit(), units.join(SERVICE)).context("cannot copy the unit")?;
    fs::write(units.join(format!("{SERVICE}.d/lab.conf")), drop_in)?;
    for (name, text) in [
        ("machine-id", "00000000000000000000000000000001\n"),
        ("os-release", "ID=lab\n"),
        ("passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("group", "root:x:0:\n"),
        ("trafctl/trafctl.toml", ""),
    ] {
        fs::write(root.join("etc").join(name), text).with_context(|| name.to_owned())?;
    }
    run_ok(Command::new("systemctl").arg("--root").arg(root).args(["enable", SERVICE])).map(drop)
}

/// The path of the shipped unit.
#[must_use]
pub fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../traffic-user/systemd").join(SERVICE)
}
