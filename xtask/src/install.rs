//! `cargo xtask install`: the program, its unit, and the names of Virtuozzo's commands.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    build,
    command::{debug_directory, workspace},
};

/// Names under which trafctl answers as Virtuozzo's commands do.
const NAMES: [&str; 3] = ["vznetstat", "pnetstat", "vztactl"];
/// Where the program goes.
const PROGRAM: &str = "usr/sbin/trafctl";
/// Where its unit goes.
const UNIT: &str = "etc/systemd/system/trafctl.service";

/// Install trafctl and its systemd unit
///
/// Builds it optimised first. Nothing is started or enabled. With --virtuozzo also the names vznetstat, pnetstat and
/// vztactl, as symbolic links to it. A name that belongs to another program is left alone and told, with status 1: take
/// Virtuozzo's own away first, or put the links into another directory.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask install                                     program and unit
  cargo xtask install --virtuozzo                         and Virtuozzo's names beside it
  cargo xtask install --virtuozzo --names-in /usr/local/sbin
  cargo xtask install --root /tmp/image                   into a tree that becomes a package")]
pub struct Options {
    /// Directory that stands for /
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Also install the names of Virtuozzo's commands
    #[arg(long)]
    virtuozzo: bool,
    /// Directory of these names, under the root
    #[arg(long, value_name = "DIR", default_value = "/usr/sbin", requires = "virtuozzo")]
    names_in: PathBuf,
    /// Install this program instead of building one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    let program = match &options.program {
        Some(program) => program.clone(),
        None => {
            build::run(&build::Options::optimised())?;
            debug_directory()?.with_file_name("release").join("trafctl")
        }
    };
    put(&program, &options.root.join(PROGRAM), 0o755)?;
    put(&workspace().join("traffic-user/systemd/trafctl.service"), &options.root.join(UNIT), 0o644)?;
    if !options.virtuozzo {
        return Ok(());
    }
    let taken = link_names(&options.root, &options.names_in)?;
    if !taken.is_empty() {
        bail!(
            "left alone, because another program has the name: {}; take it away first, or choose another directory with \
             --names-in",
            taken.join(", ")
        );
    }
    Ok(())
}

/// Puts a copy in place at once: a program that runs keeps the old file.
fn put(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let attempt = || -> io::Result<()> {
        if let Some(directory) = to.parent() {
            fs::create_dir_all(directory)?;
        }
        let fresh = to.with_extension("new");
        fs::copy(from, &fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))?;
        fs::rename(&fresh, to)
    };
    attempt().with_context(|| format!("installing {} as {}", from.display(), to.display()))?;
    eprintln!("installed {}", to.display());
    Ok(())
}

/// Links the names to the program; gives those that another program has.
fn link_names(root: &Path, names_in: &Path) -> Result<Vec<String>> {
    let directory = root.join(names_in.strip_prefix("/").unwrap_or(names_in));
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    // As it will be found on the node, wherever the tree is now.
    let target = Path::new("/").join(PROGRAM);
    let mut taken = Vec::new();
    for name in NAMES {
        let path = directory.join(name);
        match symlink(&target, &path) {
            Ok(()) => eprintln!("linked {} to {}", path.display(), target.display()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::read_link(&path).is_ok_and(|held| is_ours(&held, &directory, &target)) {
                    eprintln!("{} is linked already", path.display());
                } else {
                    taken.push(path.display().to_string());
                }
            }
            Err(error) => return Err(error).with_context(|| format!("linking {}", path.display())),
        }
    }
    Ok(taken)
}

/// Whether a link leads to the program, written in full or, beside it, by its name.
fn is_ours(held: &Path, directory: &Path, target: &Path) -> bool {
    held == target || (held == Path::new("trafctl") && directory.ends_with("usr/sbin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(root: &Path, names_in: &str) -> Options {
        let program = root.join("built");
        fs::write(&program, "program").unwrap();
        Options { root: root.to_owned(), virtuozzo: true, names_in: names_in.into(), program: Some(program) }
    }

    #[test]
    fn program_unit_and_names_are_there_and_stay_so() {
        let root = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            run(&options(root.path(), "/usr/sbin")).unwrap();
            let program = root.path().join("usr/sbin/trafctl");
            assert_eq!(fs::read(&program).unwrap(), b"program");
            assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
            assert!(root.path().join(UNIT).is_file());
            for name in NAMES {
                let link = fs::read_link(root.path().join("usr/sbin").join(name)).unwrap();
                assert_eq!(link, Path::new("/usr/sbin/trafctl"));
            }
        }
        // Nothing but these.
        assert_eq!(fs::read_dir(root.path().join("usr/sbin")).unwrap().count(), 4);
    }

    #[test]
    fn virtuozzos_own_programs_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("usr/sbin");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("vznetstat"), "theirs").unwrap();
        // A link to elsewhere is theirs, too, also when it leads nowhere.
        symlink("/usr/sbin/vznetstat-7", directory.join("pnetstat")).unwrap();
        symlink("trafctl", directory.join("vztactl")).unwrap();
        let error = run(&options(root.path(), "/usr/sbin")).unwrap_err().to_string();
        assert!(error.contains("usr/sbin/vznetstat, ") && error.contains("usr/sbin/pnetstat; "), "{error}");
        assert!(!error.contains("vztactl"), "{error}");
        assert_eq!(fs::read(directory.join("vznetstat")).unwrap(), b"theirs");
        assert_eq!(fs::read_link(directory.join("pnetstat")).unwrap(), Path::new("/usr/sbin/vznetstat-7"));
        assert!(directory.join("trafctl").is_file(), "all else is done");
        run(&options(root.path(), "/usr/local/sbin")).unwrap();
        assert!(root.path().join("usr/local/sbin/vznetstat").is_symlink());
    }
}
