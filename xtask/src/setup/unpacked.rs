//! Programs that the proof needs and that are unpacked instead of installed. On some machines the QEMU
//! package would remove a newer part of QEMU, and systemd-nspawn would replace the running systemd.

use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use super::{State, Step};
use crate::{
    command::{run_watched, workspace},
    report::Progress,
};

/// `(program, package)`
const PROGRAMS: [(&str, &str); 3] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-system-aarch64", "qemu-system-arm"),
    ("systemd-nspawn", "systemd-container"),
];

/// Asks apt which packages an installation would add, then fetches and unpacks these.
/// `--no-install-recommends` excludes firmware of other machines.
///
/// QEMU consists of packages of one version: a program of one finds no module of another. So apt must not know
/// which of them are installed, perhaps in another version. Other libraries are used as they are installed.
const UNPACK: &str = r#"
set -e
apt-get -q update
status=$(apt-config shell status Dir::State::status/f)
eval "$status"
awk 'BEGIN { RS = ""; ORS = "\n\n" } !/^Package: (qemu|seabios|ipxe)/' "$status" >status
options="-q -o Dir::State::status=$PWD/status -o APT::Sandbox::User=root"
packages=$(apt-get $options -s --no-install-recommends install "$@" | sed -n 's/^Inst \([^ ]*\).*/\1/p')
mkdir -p packages root bin
cd packages
for package in $packages; do apt-get $options download "$package"; done
for file in *.deb; do dpkg -x "$file" ../root; done
cd ..
"#;

pub(super) struct Unpacked;

impl Unpacked {
    fn directory() -> PathBuf {
        workspace().join("target/prove/unpacked")
    }

    fn missing() -> Vec<(&'static str, &'static str)> {
        let there = |name: &str| Self::directory().join("bin").join(name).is_file();
        PROGRAMS.into_iter().filter(|(program, _)| !there(program)).collect()
    }
}

impl Step for Unpacked {
    fn name(&self) -> &'static str {
        "unpacked programs"
    }

    fn look(&self) -> State {
        let missing = Self::missing();
        if missing.is_empty() {
            return State::Present(format!("in {}", Self::directory().display()));
        }
        State::Missing(missing.iter().map(|(_, package)| *package).collect::<Vec<_>>().join(" "))
    }

    fn install(&self, progress: &Progress) -> Result<()> {
        let directory = Self::directory();
        // An interrupted run may have left a part of it.
        if directory.exists() {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("cannot remove {}", directory.display()))?;
        }
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let mut command = Command::new("sh");
        command.args(["-c", UNPACK, "unpack"]).args(PROGRAMS.map(|(_, package)| package));
        run_watched(command.current_dir(&directory), progress).context("cannot fetch packages")?;
        let root = directory.join("root");
        let root = root.display();
        for (program, _) in PROGRAMS {
            let path = directory.join("bin").join(program);
            if !directory.join("root/usr/bin").join(program).is_file() {
                let installed = PathBuf::from("/usr/bin").join(program);
                symlink(&installed, &path)
                    .with_context(|| format!("cannot link {} to {}", path.display(), installed.display()))?;
                ensure!(
                    path.is_file(),
                    "apt fetched no {program}, and {} does not exist",
                    installed.display()
                );
                continue;
            }
            // The script replaces the paths of libraries and data that are compiled in.
            let data = if program.starts_with("qemu") {
                format!("-L {root}/usr/share/seabios -L {root}/usr/share/qemu ")
            } else {
                String::new()
            };
            let libraries = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
            let script = format!(
                "#!/bin/sh
LD_LIBRARY_PATH={root}/usr/{libraries}:{root}/{libraries}:{root}/{libraries}/systemd:{root}/usr/{libraries}/systemd
export LD_LIBRARY_PATH
export QEMU_MODULE_DIR={root}/usr/{libraries}/qemu
exec {root}/usr/bin/{program} {data}\"$@\"
"
            );
            fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
            run_watched(Command::new("chmod").arg("755").arg(&path), progress)?;
        }
        Ok(())
    }
}
