//! The throwaway node: a host namespace, a bpffs and a state directory of its own, and the real `trafctl` in it.

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

use crate::container::{Bridge, Container};
use crate::namespace::{DIRECTORY, Namespace, PREFIX};
use crate::process::run_ok;
use crate::tap::Tap;
use crate::venet::Venet;

/// A hosting node in network namespaces. Containers, taps and `venet0` are made from it and end with their own
/// guards, or with the node.
#[derive(Debug)]
pub struct Lab {
    // Fields are dropped in this order: the mount must be gone before the directory that holds it.
    host: Namespace,
    bridge: OnceLock<Bridge>,
    bpffs: BpfMount,
    directory: TempDir,
}

impl Lab {
    /// Makes a node without a single interface but the loopback, and without a default route.
    ///
    /// # Errors
    ///
    /// Without root, or when a namespace or the bpffs can't be made.
    pub fn new(name: &str) -> Result<Self> {
        crate::require_root()?;
        let directory =
            tempfile::Builder::new().prefix("trafctl-lab-").tempdir().context("a directory for the lab")?;
        for name in ["bpffs", "state"] {
            fs::create_dir(directory.path().join(name))?;
        }
        fs::write(directory.path().join("trafctl.toml"), "")?;
        let bpffs = BpfMount::new(directory.path().join("bpffs"))?;
        let host = Namespace::new(name)?;
        Ok(Self { host, bridge: OnceLock::new(), bpffs, directory })
    }

    /// The node's own namespace, where the host side of every interface is.
    #[must_use]
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// The node's bpffs: mounted for it alone, unmounted with it.
    #[must_use]
    pub fn bpffs(&self) -> &Path {
        &self.bpffs.path
    }

    /// The directory where `trafctl` keeps its ledger.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The configuration file; it is there and empty until [`Lab::configure`].
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("trafctl.toml")
    }

    /// A path in the node's directory, for class tables, captures and the like.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the configuration file anew.
    ///
    /// # Errors
    ///
    /// When it can't be written.
    pub fn configure(&self, toml: &str) -> Result<()> {
        fs::write(self.config(), toml).context("write the lab's configuration")
    }

    /// Writes a file into the node's directory and gives its path.
    ///
    /// # Errors
    ///
    /// When it can't be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// The real `trafctl`, to be run in the host's network with this node's bpffs, state and configuration.
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

    /// Runs `trafctl` and gives its standard output.
    ///
    /// # Errors
    ///
    /// When it fails, with all it said.
    pub fn run_ok<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        run_ok(&mut self.trafctl(arguments)?)
    }

    /// Runs `trafctl` and reads its standard output as JSON.
    ///
    /// # Errors
    ///
    /// When it fails, or what it prints is not JSON.
    pub fn run_json<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<serde_json::Value> {
        let text = self.run_ok(arguments)?;
        serde_json::from_str(&text).with_context(|| format!("trafctl printed no JSON but: {text}"))
    }

    /// The node's bridge `br0`, made when first asked for.
    ///
    /// # Errors
    ///
    /// When it can't be made.
    pub fn bridge(&self) -> Result<&Bridge> {
        if self.bridge.get().is_none() {
            let bridge = Bridge::new(&self.host)?;
            // The cell was empty a line ago and is not shared between threads.
            let _ = self.bridge.set(bridge);
        }
        self.bridge.get().context("the bridge that was just made")
    }

    /// A container on the bridge, its host side `veth{ctid}.{number}` as Virtuozzo names it.
    ///
    /// # Errors
    ///
    /// When an interface can't be made, such as for a name already in use.
    pub fn bridged(&self, ctid: u32, number: u32, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Container> {
        self.bridged_as(&format!("veth{ctid}.{number}"), v4, v6)
    }

    /// A container, or with a name that is no container's a peer beyond the node, on the bridge.
    ///
    /// # Errors
    ///
    /// As [`Lab::bridged`].
    pub fn bridged_as(&self, interface: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Container> {
        Container::new(&self.host, self.bridge()?, interface, v4, v6)
    }

    /// The layer-3 interface of routed containers, and the host as their router.
    ///
    /// # Errors
    ///
    /// When there is one already, or no `/dev/net/tun`.
    pub fn venet(&self) -> Result<Venet<'_>> {
        Venet::new(&self.host)
    }

    /// The interface of a virtual machine, such as `vme201.0`.
    ///
    /// # Errors
    ///
    /// When the name is in use, or there is no `/dev/net/tun`.
    pub fn tap(&self, name: &str) -> Result<Tap<'_>> {
        Tap::new(&self.host, name)
    }
}

/// The program under test: `TRAFCTL_BIN`, or `trafctl` beside the test executable, or one directory up when that
/// is in `deps`.
///
/// # Errors
///
/// When there is no such file.
pub fn trafctl_program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TRAFCTL_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "TRAFCTL_BIN is {}, which is not there", path.display());
        return Ok(path);
    }
    let executable = std::env::current_exe().context("the path of this executable")?;
    let mut directory = executable.parent().context("the directory of this executable")?;
    if directory.ends_with("deps") {
        directory = directory.parent().context("the directory above deps")?;
    }
    let path = directory.join("trafctl");
    ensure!(
        path.is_file(),
        "{} is not there: build it first (cargo build -p traffic-user) or name one in TRAFCTL_BIN",
        path.display()
    );
    Ok(path)
}

/// Removes what labs of processes that were killed have left: namespaces, mounts and directories.
///
/// # Errors
///
/// When something of theirs can't be removed.
pub fn sweep() -> Result<()> {
    crate::require_root()?;
    for name in leftovers(Path::new(DIRECTORY))? {
        run_ok(Command::new("ip").args(["netns", "delete", &name]))?;
    }
    let parent = std::env::temp_dir();
    for name in leftovers(&parent)? {
        let directory = parent.join(name);
        match unmount(directory.join("bpffs"), UnmountFlags::DETACH) {
            // Not mounted, or not even made yet.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("unmount the bpffs in {}", directory.display()));
            }
        }
        fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    Ok(())
}

/// Names of labs in a directory whose process is no more.
fn leftovers(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // No namespace has ever been made.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("list {}", directory.display())),
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

/// A bpffs of one's own: what is pinned in it goes with it.
#[derive(Debug)]
struct BpfMount {
    path: PathBuf,
}

impl BpfMount {
    fn new(path: PathBuf) -> Result<Self> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("bpf", &path, "bpf", flags, None)
            .with_context(|| format!("mount a bpffs on {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for BpfMount {
    fn drop(&mut self) {
        // Detached, so that a program still looking into it can't keep it; the guard has nobody to tell.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}
