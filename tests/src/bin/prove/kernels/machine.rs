//! An initramfs with a few programs, and an emulated machine that starts from it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use traffic_tests::process::{Process, run_ok};

use super::fetch::Kernel;
use crate::bench::Bench;

/// A directory that becomes the initramfs.
pub struct Root {
    path: PathBuf,
}

impl Root {
    /// Creates it from scratch, with busybox as the shell.
    ///
    /// # Errors
    ///
    /// When a file cannot be copied.
    pub fn new(path: PathBuf) -> Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path).context("cannot remove the initramfs of an earlier run")?;
        }
        for name in ["bin", "sbin", "proc", "sys", "dev", "tmp", "run", "etc"] {
            fs::create_dir_all(path.join(name)).context("cannot create a directory of the initramfs")?;
        }
        let root = Self { path };
        root.program(Path::new("busybox"), "bin/busybox")?;
        for name in
            ["sh", "mount", "mkdir", "mknod", "cat", "poweroff", "ls", "dmesg", "sleep", "nc", "head", "yes"]
        {
            symlink("busybox", root.path.join("bin").join(name))?;
        }
        // The kernel runs this to load modules.
        symlink("/bin/busybox", root.path.join("sbin/modprobe"))?;
        Ok(root)
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies a program with its libraries, without debug information.
    ///
    /// # Errors
    ///
    /// When the program is not installed.
    pub fn program(&self, program: &Path, to: &str) -> Result<()> {
        let found = if program.is_absolute() {
            program.to_owned()
        } else {
            let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
            path.split(':')
                .map(|directory| Path::new(directory).join(program))
                .find(|path| path.is_file())
                .with_context(|| format!("{} is not installed", program.display()))?
        };
        let to = self.path.join(to);
        run_ok(Command::new("strip").arg("-o").arg(&to).arg(&found))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
        for library in libraries(&found)? {
            let target = self.path.join(library.strip_prefix("/").unwrap_or(&library));
            if !target.exists() {
                fs::create_dir_all(target.parent().context("a library has no directory")?)?;
                fs::copy(&library, &target).with_context(|| format!("cannot copy {}", library.display()))?;
            }
        }
        Ok(())
    }

    /// Writes an executable file.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn script(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// Packs the directory.
    ///
    /// # Errors
    ///
    /// When cpio fails.
    pub fn pack(&self, archive: &Path) -> Result<()> {
        let script = format!(
            "cd '{}' && find . | cpio --quiet -o -H newc | gzip -1 >'{}'",
            self.path.display(),
            archive.display()
        );
        run_ok(Command::new("sh").args(["-ec", &script])).map(drop)
    }
}

/// The libraries of a program, including the loader.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    // A static program has none, which ldd reports as an error.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect())
}

/// A running machine, and the lines of its serial port.
pub struct Machine {
    _qemu: Process,
    lines: mpsc::Receiver<String>,
    deadline: Instant,
    release: String,
}

impl Machine {
    /// Starts a machine. Every line is also written to `log`. `devices` are additional options of QEMU.
    ///
    /// # Errors
    ///
    /// When QEMU does not start.
    pub fn start(
        bench: &Bench,
        kernel: &Kernel,
        archive: &Path,
        log: &Path,
        launch: &Launch<'_>,
    ) -> Result<Self> {
        let mut command = launch.wrap.map_or_else(
            || Command::new(bench.program("qemu-system-x86_64")),
            |namespace| namespace.command(bench.program("qemu-system-x86_64")),
        );
        // Without cx16 some emulated kernels no longer crash at random early in the boot.
        command
            .args([
                "-M",
                "q35",
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max,cx16=off",
                "-smp",
                "2",
                "-m",
                "1024",
            ])
            .args(["-nographic", "-nodefaults", "-serial", "stdio", "-no-reboot"])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(archive)
            .args(["-append", "console=ttyS0 panic=-1 quiet mitigations=off"])
            .args(launch.devices)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut log = fs::File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        command.stderr(log.try_clone()?);
        let mut qemu = Process::spawn(&mut command)?;
        let output = qemu.child().stdout.take().context("the machine has no serial port")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                // The log is for people; the lines are read through the channel.
                let _ = writeln!(log, "{line}");
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            _qemu: qemu,
            lines,
            deadline: Instant::now() + launch.limit,
            release: kernel.release.clone(),
        })
    }

    /// The rest of the next line that begins with a word, or none when the machine has ended.
    ///
    /// # Errors
    ///
    /// When the time is over; the error contains the last line.
    pub fn next(&self, word: &str) -> Result<Option<String>> {
        let mut last = String::new();
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(at) = line.find(word) {
                        return Ok(Some(line[at + word.len()..].trim().to_owned()));
                    }
                    last = line;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(None),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("the machine with {} takes too long; its last line: {last}", self.release)
                }
            }
        }
    }
}

/// The options of a machine.
pub struct Launch<'a> {
    /// The namespace of its devices.
    pub wrap: Option<&'a traffic_tests::Namespace>,
    /// Additional options of QEMU.
    pub devices: &'a [String],
    /// The limit of its run. Emulation on a busy machine is slow.
    pub limit: Duration,
}

/// The first lines of every machine's script.
pub fn preamble(modules: &[&str]) -> Result<String> {
    ensure!(!modules.is_empty(), "a machine without modules has no network");
    Ok(format!(
        "#!/bin/sh
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
for module in {}; do busybox modprobe $module; done
mkdir -p /dev/net
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
/bin/ip link set lo up
",
        modules.join(" ")
    ))
}
