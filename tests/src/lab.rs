//! The lab's node: a host namespace, a bpffs and a state directory, and the real `trafctl` in it. Removed on
//! drop.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::container::{Bridge, Container, introduce};
use crate::namespace::{DIRECTORY, Namespace, PREFIX};
use crate::process::run_ok;
use crate::tap::Tap;
use crate::venet::Venet;
use crate::witness::init::INSTANCES;

/// A hosting node in network namespaces. It creates containers, taps and `venet0`, each of which ends with
/// its guard or with the node.
#[derive(Debug)]
pub struct Lab {
    // The order of the fields is that of their drop: the mount must be gone before its directory.
    host: Namespace,
    bridge: OnceLock<Bridge>,
    bpffs: BpfMount,
    directory: TempDir,
}

impl Lab {
    /// Creates a node with the loopback as its only interface, and without a default route.
    ///
    /// # Errors
    ///
    /// Without root, or when a namespace or the bpffs cannot be created.
    pub fn new(name: &str) -> Result<Self> {
        crate::require_root()?;
        let directory = tempfile::Builder::new()
            .prefix("trafctl-lab-")
            .tempdir()
            .context("cannot create a directory for the lab")?;
        for name in ["bpffs", "state"] {
            fs::create_dir(directory.path().join(name))?;
        }
        fs::write(directory.path().join("trafctl.toml"), "")?;
        let bpffs = BpfMount::new(directory.path().join("bpffs"))?;
        let host = Namespace::new(name)?;
        Ok(Self { host, bridge: OnceLock::new(), bpffs, directory })
    }

    /// The namespace of the node, which contains the host side of every interface.
    #[must_use]
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// The bpffs of the node, which no other lab uses.
    #[must_use]
    pub fn bpffs(&self) -> &Path {
        &self.bpffs.path
    }

    /// The directory in which `trafctl` keeps its ledger.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The configuration file. It is empty until [`Lab::configure`].
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("trafctl.toml")
    }

    /// A path in the directory of the node, for class tables, captures and the like.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Replaces the contents of the configuration file.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn configure(&self, toml: &str) -> Result<()> {
        replace(&self.config(), toml)
    }

    /// Writes a file in the directory of the node, or replaces it as a whole. Returns its path.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        replace(&path, text)?;
        Ok(path)
    }

    /// The real `trafctl` with the node's network, bpffs, state directory and configuration.
    ///
    /// # Errors
    ///
    /// When the program has not been built.
    pub fn trafctl<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Command> {
        let mut command = self.host.command(trafctl_program()?);
        command.arg("--bpffs").arg(self.bpffs());
        command.arg("--state-dir").arg(self.state_dir());
        command.arg("--config").arg(self.config());
        command.args(arguments);
        Ok(command)
    }

    /// The same with another boot id in place of the kernel's: always the same one.
    ///
    /// # Errors
    ///
    /// When the program has not been built.
    pub fn in_another_boot<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Command> {
        let id = self.write("boot_id", "3d0c1a52-8a53-4d4e-9a3b-5f6e7a8b9c0d\n")?;
        let trafctl = self.trafctl(arguments)?;
        let mut command = self.host.command("unshare");
        let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script]).arg(id);
        command.arg(trafctl.get_program()).args(trafctl.get_args());
        Ok(command)
    }

    /// Stops these containers, removes what the kernel holds, as a power loss does, and starts them again. Start the
    /// daemon afterwards [in another boot](Self::in_another_boot).
    ///
    /// # Errors
    ///
    /// When a directory cannot be removed, or a container does not start.
    pub fn lose_power(&self, mut containers: [&mut Container; 2]) -> Result<()> {
        containers.iter_mut().try_for_each(|container| container.stop())?;
        for directory in ["links", "programs", "maps"] {
            fs::remove_dir_all(self.bpffs().join(directory))?;
        }
        containers.iter_mut().try_for_each(|container| container.start())?;
        introduce(&[&*containers[0], &*containers[1]])
    }

    /// Runs `trafctl` and returns its stdout.
    ///
    /// # Errors
    ///
    /// When it fails; the error contains its output.
    pub fn run_ok<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        run_ok(&mut self.trafctl(arguments)?)
    }

    /// Runs `trafctl` and parses its stdout as JSON.
    ///
    /// # Errors
    ///
    /// When it fails, or its output is not JSON.
    pub fn run_json<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<serde_json::Value> {
        let text = self.run_ok(arguments)?;
        serde_json::from_str(&text).with_context(|| format!("this output of trafctl is not JSON: {text}"))
    }

    /// The bridge `br0`, created by the first call.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn bridge(&self) -> Result<&Bridge> {
        if self.bridge.get().is_none() {
            let bridge = Bridge::new(&self.host)?;
            // The cell is empty and not shared between threads.
            let _ = self.bridge.set(bridge);
        }
        self.bridge.get().context("the bridge was not created")
    }

    /// Creates a container on the bridge, with `veth{ctid}.{number}` on the host as Virtuozzo names it.
    ///
    /// # Errors
    ///
    /// When an interface cannot be created, for example because the name is in use.
    pub fn bridged(&self, ctid: u32, number: u32, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Container> {
        self.bridged_as(&format!("veth{ctid}.{number}"), v4, v6)
    }

    /// A node with containers 101 and 102 on the bridge, which know each other. `config` follows the class file in the
    /// configuration.
    ///
    /// # Errors
    ///
    /// See [`Lab::new`] and [`Lab::bridged`].
    pub fn with_two(name: &str, classes: &str, config: &str) -> Result<(Self, Container, Container)> {
        let lab = Self::new(name)?;
        let classes = lab.write("networks_classes", classes)?;
        lab.configure(&format!("class_file = {classes:?}\n{config}"))?;
        let a = lab.bridged(101, 0, [10, 1, 0, 1].into(), "fd00:1::1".parse()?)?;
        let b = lab.bridged(102, 0, [10, 1, 0, 2].into(), "fd00:1::2".parse()?)?;
        introduce(&[&a, &b])?;
        Ok((lab, a, b))
    }

    /// Creates a container on the bridge with this interface name. A name that no rule knows makes it a peer
    /// outside the node.
    ///
    /// # Errors
    ///
    /// See [`Lab::bridged`].
    pub fn bridged_as(&self, interface: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Container> {
        Container::new(&self.host, self.bridge()?, interface, v4, v6)
    }

    /// Creates the layer-3 interface of routed containers, with the host as their router.
    ///
    /// # Errors
    ///
    /// When it exists, or there is no `/dev/net/tun`.
    pub fn venet(&self) -> Result<Venet<'_>> {
        Venet::new(&self.host)
    }

    /// Creates the interface of a virtual machine, such as `vme201.0`.
    ///
    /// # Errors
    ///
    /// When the name is in use, or there is no `/dev/net/tun`.
    pub fn tap(&self, name: &str) -> Result<Tap<'_>> {
        Tap::new(&self.host, name)
    }
}

/// The program under test: `TRAFCTL_BIN`, or `trafctl` in the directory of the test executable, or in its
/// parent if that directory is `deps`.
///
/// # Errors
///
/// When the file does not exist.
pub fn trafctl_program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TRAFCTL_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "TRAFCTL_BIN is {}, which does not exist", path.display());
        return Ok(path);
    }
    let executable = std::env::current_exe().context("cannot find the path of this executable")?;
    let mut directory = executable.parent().context("this executable has no directory")?;
    if directory.ends_with("deps") {
        directory = directory.parent().context("the directory deps has no parent")?;
    }
    let path = directory.join("trafctl");
    ensure!(
        path.is_file(),
        "{} does not exist; run `cargo build -p traffic-user` or set TRAFCTL_BIN",
        path.display()
    );
    Ok(path)
}

/// Removes namespaces, mounts, directories and traces that killed test processes left behind.
///
/// # Errors
///
/// When one of them cannot be removed.
pub fn sweep() -> Result<()> {
    crate::require_root()?;
    for name in leftovers(Path::new(DIRECTORY))? {
        run_ok(Command::new("ip").args(["netns", "delete", &name]))?;
    }
    for name in leftovers(Path::new(INSTANCES))? {
        let instance = Path::new(INSTANCES).join(name);
        fs::remove_dir(&instance).with_context(|| format!("cannot remove {}", instance.display()))?;
    }
    let parent = std::env::temp_dir();
    for name in leftovers(&parent)? {
        let directory = parent.join(name);
        match unmount(directory.join("bpffs"), UnmountFlags::DETACH) {
            // Not mounted, or not yet created.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot unmount the bpffs in {}", directory.display()));
            }
        }
        fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}

/// Names of labs in a directory whose process has ended.
fn leftovers(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // No namespace was ever created.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", directory.display())),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')?.split('-').next());
        if process
            .and_then(|id| id.parse::<u32>().ok())
            .is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists())
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// Writes a file beside and renames it, so that whoever follows the file never reads a part of it. A script
/// stays executable.
fn replace(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension("draft");
    let write = || {
        fs::write(&draft, text)?;
        if let Ok(replaced) = fs::metadata(path) {
            fs::set_permissions(&draft, replaced.permissions())?;
        }
        fs::rename(&draft, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// A bpffs of its own. It is unmounted on drop, which releases everything pinned in it.
#[derive(Debug)]
struct BpfMount {
    path: PathBuf,
}

impl BpfMount {
    fn new(path: PathBuf) -> Result<Self> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("bpf", &path, "bpf", flags, None)
            .with_context(|| format!("cannot mount a bpffs on {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for BpfMount {
    fn drop(&mut self) {
        // Detached, so that a program that still uses it does not keep it mounted. A drop cannot report an
        // error.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}
