//! Debian's kernels of other releases, unpacked into the cache. Nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use traffic_tests::process::run_ok;

/// The package sources, signed by keys that the machine trusts.
const SOURCES: &str = "\
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bullseye main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie-backports main
";

/// An unpacked kernel with its modules.
#[derive(Debug)]
pub struct Kernel {
    /// Its release, as `uname -r` prints it.
    pub release: String,
    /// The compressed kernel.
    pub image: PathBuf,
    /// The directory of its modules.
    pub modules: PathBuf,
}

/// Package sources in a directory of their own: the machine's lists and packages do not change.
pub struct Source {
    directory: PathBuf,
}

impl Source {
    /// Creates the sources in a directory, and fetches the lists if there are none.
    ///
    /// # Errors
    ///
    /// When the lists cannot be fetched.
    pub fn new(directory: PathBuf) -> Result<Self> {
        for name in ["lists/partial", "cache/archives/partial", "parts"] {
            fs::create_dir_all(directory.join(name)).context("cannot create the directories for apt")?;
        }
        let lists = directory.join("complete");
        fs::write(directory.join("sources.list"), SOURCES).context("cannot write the package sources")?;
        let source = Self { directory };
        if !lists.exists() {
            run_ok(source.command("apt-get").args(["-q", "update"]))
                .context("cannot fetch the lists of packages")?;
            fs::write(lists, "").context("cannot mark the lists as complete")?;
        }
        Ok(source)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, path) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::Etc::sourceparts", "parts"),
            ("Dir::Etc::preferencesparts", "parts"),
            ("Dir::State::lists", "lists"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{option}={}", self.directory.join(path).display()));
        }
        command.args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none"]);
        command
    }

    /// The newest cloud kernel of a series such as `6.12`, or real-time kernel of one such as `7.3-rt`. It is
    /// fetched unless the cache has it.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be fetched or unpacked.
    pub fn kernel(&self, series: &str) -> Result<Kernel> {
        let target = self.directory.join(series);
        if !target.join("complete").exists() {
            if target.exists() {
                fs::remove_dir_all(&target).context("cannot remove the files of an interrupted run")?;
            }
            fs::create_dir_all(&target).context("cannot create a directory for the kernel")?;
            let image = self.newest(series)?;
            for package in self.with_parts(&image)? {
                run_ok(self.command("apt-get").args(["-q", "download", &package]).current_dir(&target))?;
            }
            for entry in fs::read_dir(&target)? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "deb") {
                    run_ok(Command::new("dpkg").arg("-x").arg(&path).arg(&target))?;
                    fs::remove_file(&path)?;
                }
            }
            fs::write(target.join("complete"), "").context("cannot mark the kernel as complete")?;
        }
        unpacked(&target)
    }

    fn newest(&self, series: &str) -> Result<String> {
        let (version, flavour) =
            series.strip_suffix("-rt").map_or((series, "cloud"), |version| (version, "rt"));
        let pattern = format!("^linux-image-{}\\.[0-9].*-{flavour}-amd64$", version.replace('.', "\\."));
        let text = run_ok(self.command("apt-cache").args(["search", "--names-only", &pattern]))?;
        let mut names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
        names.sort_by_key(|name| {
            name.split(|c: char| !c.is_ascii_digit())
                .filter_map(|number| number.parse::<u64>().ok())
                .collect::<Vec<_>>()
        });
        names
            .last()
            .map(|&name| name.to_owned())
            .with_context(|| format!("there is no kernel of the series {series}"))
    }

    /// The package and those of the same kernel that it depends on: newer kernels consist of several.
    fn with_parts(&self, image: &str) -> Result<Vec<String>> {
        let text = run_ok(self.command("apt-cache").args(["show", "--no-all-versions", image]))?;
        let release = image.trim_start_matches("linux-image-");
        let mut packages = vec![image.to_owned()];
        for word in text.lines().filter(|line| line.starts_with("Depends:")).flat_map(str::split_whitespace) {
            if word.starts_with("linux-") && word.ends_with(release) {
                packages.push(word.to_owned());
            }
        }
        Ok(packages)
    }
}

fn unpacked(target: &Path) -> Result<Kernel> {
    for modules in ["lib/modules", "usr/lib/modules"] {
        let Ok(mut entries) = fs::read_dir(target.join(modules)) else { continue };
        let Some(entry) = entries.next() else { continue };
        let modules = entry?.path();
        let release =
            modules.file_name().context("the modules have no release")?.to_string_lossy().into_owned();
        let images = [target.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
        let image = images.into_iter().find(|image| image.is_file());
        let image = image.with_context(|| format!("no kernel in {}", target.display()))?;
        return Ok(Kernel { release, image, modules });
    }
    bail!("no modules in {}", target.display())
}

/// Copies the named modules and their dependencies, decompressed, into a root directory.
///
/// # Errors
///
/// When none of them exists, or a helper fails.
pub fn copy_modules(kernel: &Kernel, names: &[&str], root: &Path) -> Result<()> {
    let target = root.join("lib/modules").join(&kernel.release);
    fs::create_dir_all(&target).context("cannot create a directory for modules")?;
    let mut copied = 0;
    let mut directories = vec![kernel.modules.join("kernel")];
    while let Some(directory) = directories.pop() {
        for entry in
            fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?
        {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((stem, compression)) = file.split_once(".ko") else { continue };
            if !names.contains(&stem.replace('-', "_").as_str()) {
                continue;
            }
            copied += 1;
            let to = target.join(format!("{stem}.ko"));
            match compression {
                "" => drop(fs::copy(&path, &to)?),
                ".xz" => decompress("xz", &path, &to)?,
                ".zst" => decompress("zstd", &path, &to)?,
                other => bail!("{} has an unknown compression ({other})", path.display()),
            }
        }
    }
    ensure!(copied > 0, "none of the modules is in {}", kernel.modules.display());
    for name in ["modules.builtin", "modules.order"] {
        let from = kernel.modules.join(name);
        if from.is_file() {
            fs::copy(from, target.join(name))?;
        }
    }
    run_ok(Command::new("depmod").arg("-b").arg(root).arg(&kernel.release)).map(drop)
}

fn decompress(program: &str, from: &Path, to: &Path) -> Result<()> {
    let output = fs::File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
    let status = Command::new(program)
        .args(["-d", "-c"])
        .arg(from)
        .stdout(output)
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    ensure!(status.success(), "{program} could not decompress {}", from.display());
    Ok(())
}
