//! The maintainer scripts of the Debian package, run as dpkg runs them, in a mount namespace of their own. Whole lives of
//! the packages are in `prove --part packages`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// What there is outside: a ledger, and counters in the kernel.
const NODE: &str = "mount -t tmpfs tmpfs /var/lib; mount -t tmpfs tmpfs /sys/fs/bpf
    mkdir -p /var/lib/trafctl/inner /sys/fs/bpf/trafctl/maps; touch /var/lib/trafctl/ledger.sqlite /sys/fs/bpf/trafctl/maps/META\n";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/packaging").join(format!("deb.{name}"))
}

/// Runs lines of a shell; what they mount is gone afterwards. `$postrm` and the like are the scripts.
fn run(lines: &str) -> Result<Output> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", lines]);
    for name in ["postinst", "prerm", "postrm"] {
        command.env(name, script(name));
    }
    let output = command.output().context("cannot run unshare")?;
    ensure!(output.status.success(), "{lines}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

/// The files of another system.
fn other_system() -> Result<TempDir> {
    let root = TempDir::new()?;
    for directory in ["var/lib/trafctl", "etc/trafctl", "usr/share/trafctl"] {
        fs::create_dir_all(root.path().join(directory))?;
    }
    fs::write(root.path().join("var/lib/trafctl/ledger.sqlite"), "its own")?;
    fs::write(root.path().join("usr/share/trafctl/trafctl.toml"), "# a line\n".repeat(5000))?;
    Ok(root)
}

#[test]
fn another_system_is_purged_without_a_change_to_this_one() -> Result<()> {
    let root = other_system()?;
    let path = root.path().display();
    run(&format!(
        "{NODE} export DPKG_ROOT={path}; sh \"$prerm\" remove; sh \"$postrm\" remove; sh \"$postrm\" purge
        test -e /var/lib/trafctl/ledger.sqlite; test -e /sys/fs/bpf/trafctl/maps/META"
    ))?;
    ensure!(!root.path().join("var/lib/trafctl").exists() && !root.path().join("etc/trafctl").exists());
    Ok(())
}

#[test]
fn a_purge_removes_all_but_what_is_mounted_in_it() -> Result<()> {
    let output = run(&format!(
        "{NODE} mount -t tmpfs tmpfs /var/lib/trafctl/inner; touch /var/lib/trafctl/inner/kept
        sh \"$postrm\" purge; test -e /var/lib/trafctl/inner/kept; ! test -e /var/lib/trafctl/ledger.sqlite
        ! test -e /sys/fs/bpf/trafctl; umount /var/lib/trafctl/inner; sh \"$postrm\" purge; ! test -e /var/lib/trafctl"
    ))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(said.contains("trafctl: not all of /var/lib/trafctl could be removed"), "{said}");
    Ok(())
}

#[test]
fn a_configuration_is_installed_as_a_whole() -> Result<()> {
    let root = other_system()?;
    let path = root.path().display();
    run(&format!(
        "export DPKG_ROOT={path}; mount -t tmpfs -o size=4k tmpfs {path}/etc/trafctl
        ! sh \"$postinst\" configure ''; ! test -e {path}/etc/trafctl/trafctl.toml
        mount -o remount,size=1m {path}/etc/trafctl; sh \"$postinst\" configure ''
        cmp {path}/usr/share/trafctl/trafctl.toml {path}/etc/trafctl/trafctl.toml
        echo mine > {path}/etc/trafctl/trafctl.toml; sh \"$postinst\" configure ''
        grep -q mine {path}/etc/trafctl/trafctl.toml"
    ))?;
    Ok(())
}
