//! `cargo xtask install`: copies the program and its unit into place, and links the names of Virtuozzo's
//! commands.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    build,
    command::{release_directory, workspace},
};

/// Under these names trafctl behaves as Virtuozzo's commands.
pub const NAMES: [&str; 3] = ["vznetstat", "pnetstat", "vztactl"];
/// Where the program is installed, below the root.
const PROGRAM: &str = "usr/sbin/trafctl";
/// Where the units are installed, below the root.
const UNITS: &str = "etc/systemd/system";
/// The units: of the daemon, and of the processes that ship its ledger, run the actions of quotas, look for
/// what is wrong, and prove the counters right.
const UNIT_NAMES: [&str; 5] = [
    "trafctl.service",
    "trafctl-ship.service",
    "trafctl-quota.service",
    "trafctl-watch.service",
    "trafctl-calibrate.service",
];

/// Install trafctl and its systemd units
///
/// Builds a release first, unless --program names a file. Starts and enables nothing. --virtuozzo adds
/// vznetstat, pnetstat and vztactl as symbolic links to trafctl. A name that another program has is reported
/// with status 1 and left as it is: remove Virtuozzo's program first, or choose another directory with
/// --names-in.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask install                                     the program and its unit
  cargo xtask install --virtuozzo                         also the names of Virtuozzo's commands
  cargo xtask install --virtuozzo --names-in /usr/local/sbin
  cargo xtask install --root /tmp/image                   into a directory that becomes a package")]
pub struct Options {
    /// Directory to install into as if it were /
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Also install the names of Virtuozzo's commands
    #[arg(long)]
    virtuozzo: bool,
    /// Directory of these names, below the root
    #[arg(long, value_name = "DIR", default_value = "/usr/sbin", requires = "virtuozzo")]
    names_in: PathBuf,
    /// Program to install instead of building one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    let paths = Paths::of(options)?;
    // All of the input, before anything is built or created.
    paths.check()?;
    if options.program.is_none() {
        build::run(&build::Options::optimised())?;
        require_file(&paths.program)?;
    }
    put(&paths.program, &paths.installed_program, 0o755)?;
    for (unit, installed) in &paths.units {
        put(unit, installed, 0o644)?;
    }
    let Some(names) = &paths.names else { return Ok(()) };
    let taken = link_names(names)?;
    if !taken.is_empty() {
        bail!("another program has the name {}; remove that program or use --names-in", taken.join(", "));
    }
    Ok(())
}

/// What is copied, and to where.
struct Paths {
    program: PathBuf,
    /// Whether the program is there before the task builds anything.
    program_is_given: bool,
    installed_program: PathBuf,
    /// Each unit, and where it is installed.
    units: Vec<(PathBuf, PathBuf)>,
    /// The directory of Virtuozzo's names.
    names: Option<PathBuf>,
}

impl Paths {
    fn of(options: &Options) -> Result<Self> {
        let below_root = |path: &Path| options.root.join(path.strip_prefix("/").unwrap_or(path));
        Ok(Self {
            program: match &options.program {
                Some(program) => program.clone(),
                None => release_directory()?.join("trafctl"),
            },
            program_is_given: options.program.is_some(),
            installed_program: options.root.join(PROGRAM),
            units: UNIT_NAMES
                .iter()
                .map(|name| {
                    (workspace().join("traffic-user/systemd").join(name), options.root.join(UNITS).join(name))
                })
                .collect(),
            names: options.virtuozzo.then(|| below_root(&options.names_in)),
        })
    }

    fn check(&self) -> Result<()> {
        if self.program_is_given {
            require_file(&self.program)?;
        }
        self.units.iter().try_for_each(|(unit, _)| require_file(unit))?;
        let installed = self.units.iter().map(|(_, installed)| installed);
        for file in installed.chain([&self.installed_program]) {
            if file.is_dir() {
                bail!("cannot install {}: it is a directory", file.display());
            }
            require_room_for_directory(file.parent().unwrap_or(Path::new("/")))?;
        }
        if let Some(names) = &self.names {
            require_room_for_directory(names)?;
        }
        Ok(())
    }
}

fn require_file(path: &Path) -> Result<()> {
    let file = fs::File::open(path).and_then(|file| file.metadata());
    let file = file.with_context(|| format!("cannot install {}", path.display()))?;
    if !file.is_file() {
        bail!("cannot install {}: it is not a regular file", path.display());
    }
    Ok(())
}

/// Checks that a directory exists, or that the first part of its path that exists is a directory.
fn require_room_for_directory(path: &Path) -> Result<()> {
    match path.ancestors().find(|above| above.symlink_metadata().is_ok()) {
        Some(above) if !above.is_dir() => {
            bail!("cannot install into {}: {} is not a directory", path.display(), above.display())
        }
        _ => Ok(()),
    }
}

/// Copies a file and renames the copy into place. A program that runs keeps the old file.
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
    attempt().with_context(|| format!("cannot install {} as {}", from.display(), to.display()))?;
    eprintln!("installed {}", to.display());
    Ok(())
}

/// Links the names to the program. Returns the paths that another program has.
fn link_names(directory: &Path) -> Result<Vec<String>> {
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    // The path on the node, whatever --root is now.
    let target = Path::new("/").join(PROGRAM);
    let mut taken = Vec::new();
    for name in NAMES {
        let path = directory.join(name);
        match symlink(&target, &path) {
            Ok(()) => eprintln!("linked {} to {}", path.display(), target.display()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::read_link(&path).is_ok_and(|held| is_ours(&held, directory, &target)) {
                    eprintln!("{} is already linked", path.display());
                } else {
                    taken.push(path.display().to_string());
                }
            }
            Err(error) => return Err(error).with_context(|| format!("cannot link {}", path.display())),
        }
    }
    Ok(taken)
}

/// Whether a link leads to the program: by its full path, or by its name in the same directory.
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
    fn a_second_install_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            run(&options(root.path(), "/usr/sbin")).unwrap();
            let program = root.path().join("usr/sbin/trafctl");
            assert_eq!(fs::read(&program).unwrap(), b"program");
            assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
            for unit in UNIT_NAMES {
                assert!(root.path().join(UNITS).join(unit).is_file());
            }
            for name in NAMES {
                let link = fs::read_link(root.path().join("usr/sbin").join(name)).unwrap();
                assert_eq!(link, Path::new("/usr/sbin/trafctl"));
            }
        }
        // The program and three names, and no temporary file.
        assert_eq!(fs::read_dir(root.path().join("usr/sbin")).unwrap().count(), 4);
    }

    #[test]
    fn programs_of_virtuozzo_are_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("usr/sbin");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("vznetstat"), "theirs").unwrap();
        // A link to another file is theirs, even when that file does not exist.
        symlink("/usr/sbin/vznetstat-7", directory.join("pnetstat")).unwrap();
        symlink("trafctl", directory.join("vztactl")).unwrap();
        let error = run(&options(root.path(), "/usr/sbin")).unwrap_err().to_string();
        assert!(error.contains("usr/sbin/vznetstat, ") && error.contains("usr/sbin/pnetstat; "), "{error}");
        assert!(!error.contains("vztactl"), "{error}");
        assert_eq!(fs::read(directory.join("vznetstat")).unwrap(), b"theirs");
        assert_eq!(fs::read_link(directory.join("pnetstat")).unwrap(), Path::new("/usr/sbin/vznetstat-7"));
        assert!(directory.join("trafctl").is_file(), "the program is installed");
        run(&options(root.path(), "/usr/local/sbin")).unwrap();
        assert!(root.path().join("usr/local/sbin/vznetstat").is_symlink());
    }

    #[test]
    fn wrong_input_is_refused_before_anything_is_created() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let target = root.path().join("target");
        let given = |program: &Path, root: &Path, names_in: &str| Options {
            root: root.to_owned(),
            virtuozzo: true,
            names_in: names_in.into(),
            program: Some(program.to_owned()),
        };
        for (options, reason) in [
            (given(Path::new("/nonexistent"), &target, "/usr/sbin"), "No such file"),
            (given(root.path(), &target, "/usr/sbin"), "it is not a regular file"),
            (given(&file, &file, "/usr/sbin"), "is not a directory"),
        ] {
            let error = format!("{:#}", run(&options).unwrap_err());
            assert!(error.contains(reason), "{error}");
            assert!(!target.exists(), "{reason}");
        }
        // The directory of the names is checked before the program is installed elsewhere.
        fs::create_dir(&target).unwrap();
        fs::write(target.join("names"), "").unwrap();
        let error = run(&given(&file, &target, "/names/sbin")).unwrap_err().to_string();
        assert!(error.contains("names is not a directory"), "{error}");
        // And so is what is in the way of the program.
        fs::create_dir_all(root.path().join("other/usr/sbin/trafctl")).unwrap();
        let error = run(&given(&file, &root.path().join("other"), "/usr/sbin")).unwrap_err().to_string();
        assert!(error.contains("it is a directory"), "{error}");
        for directory in [&target, &root.path().join("other")] {
            assert_eq!(fs::read_dir(directory).unwrap().count(), 1, "{}", directory.display());
        }
    }
}
