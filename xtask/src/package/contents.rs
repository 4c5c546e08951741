//! What is in each package, and its copy below a staging directory.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{Program, Release, notices};
use crate::{
    command::{run, workspace},
    install::NAMES,
};

/// A package of the same name in every format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Package {
    /// The program, its unit and its documents.
    Trafctl,
    /// The names of Virtuozzo's commands.
    Virtuozzo,
}

impl Package {
    pub(super) const ALL: [Self; 2] = [Self::Trafctl, Self::Virtuozzo];

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Trafctl => "trafctl",
            Self::Virtuozzo => "trafctl-virtuozzo",
        }
    }
}

/// Files that are copied as they are: `(source in the workspace, path on the node)`.
const FILES: [(&str, &str); 9] = [
    ("traffic-user/systemd/trafctl.service", "usr/lib/systemd/system/trafctl.service"),
    ("traffic-user/systemd/trafctl-ship.service", "usr/lib/systemd/system/trafctl-ship.service"),
    ("traffic-user/systemd/trafctl-quota.service", "usr/lib/systemd/system/trafctl-quota.service"),
    ("traffic-user/systemd/trafctl-watch.service", "usr/lib/systemd/system/trafctl-watch.service"),
    ("traffic-user/systemd/trafctl-calibrate.service", "usr/lib/systemd/system/trafctl-calibrate.service"),
    ("traffic-user/conf/trafctl.toml", CONFIGURATION),
    ("traffic-user/conf/trafctl.toml", "usr/share/trafctl/trafctl.toml"),
    ("README.md", "usr/share/doc/trafctl/README.md"),
    ("SECURITY.md", "usr/share/doc/trafctl/SECURITY.md"),
];

/// The configuration on the node. The packages for Debian have only a copy below /usr/share, which is put in
/// place where there is none. It is not among the documents, which some hosts exclude.
const CONFIGURATION: &str = "etc/trafctl/trafctl.toml";

/// Pages of the manual: `docs/`, as they are.
const PAGES: &str = "docs";

/// Examples for other programs.
const EXAMPLES: &str = "contrib";

/// What the names of examples end with. Python leaves others beside its own.
const KINDS_OF_EXAMPLES: [&str; 4] = ["json", "py", "sh", "yml"];

/// Completions: `(name, directory below /usr/share)`.
const COMPLETIONS: [(&str, &str); 3] = [
    ("trafctl", "bash-completion/completions"),
    ("_trafctl", "zsh/vendor-completions"),
    ("trafctl.fish", "fish/vendor_completions.d"),
];

/// The directory in which packages are put together.
pub(super) struct Staging<'a> {
    directory: PathBuf,
    /// The man pages and completions.
    pages: PathBuf,
    pub(super) release: &'a Release,
}

impl<'a> Staging<'a> {
    pub(super) fn new(directory: &Path, pages: &Path, release: &'a Release) -> Self {
        Self { directory: directory.to_owned(), pages: pages.to_owned(), release }
    }

    /// Puts the files of a package together below a fresh directory `name`.
    ///
    /// # Errors
    /// When a file is missing or cannot be copied.
    pub(super) fn put(&self, package: Package, program: &Program, name: &str) -> Result<PathBuf> {
        let root = self.directory.join(name);
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
        }
        let documents = root.join("usr/share/doc").join(package.name());
        match package {
            Package::Trafctl => {
                copy(&program.stripped, &root.join("usr/sbin/trafctl"), 0o755)?;
                for (from, to) in FILES {
                    copy(&workspace().join(from), &root.join(to), 0o644)?;
                }
                let is_document = |name: &str| name.ends_with(".md") || name.ends_with(".svg");
                for (page, name) in files_of(&workspace().join(PAGES))? {
                    if is_document(&name) {
                        copy(&page, &documents.join("docs").join(name), 0o644)?;
                    }
                }
                put_examples(&documents)?;
                self.put_pages(&root)?;
                put(&documents.join("NOTICES.gz"), &compressed(notices::text()?.as_bytes())?, 0o644)?;
            }
            Package::Virtuozzo => {
                let directory = root.join("usr/sbin");
                fs::create_dir_all(&directory)
                    .with_context(|| format!("cannot create {}", directory.display()))?;
                for name in NAMES {
                    symlink("trafctl", directory.join(name))
                        .with_context(|| format!("cannot link {name}"))?;
                }
                let manual = root.join("usr/share/man/man1");
                fs::create_dir_all(&manual).with_context(|| format!("cannot create {}", manual.display()))?;
                for name in NAMES {
                    symlink(format!("trafctl-{name}.1.gz"), manual.join(format!("{name}.1.gz")))
                        .with_context(|| format!("cannot link the page of {name}"))?;
                }
            }
        }
        self.put_legal(package, &documents)?;
        self.fix_metadata(&root)?;
        Ok(root)
    }

    /// Puts the man pages and the completions where each program looks for them.
    fn put_pages(&self, root: &Path) -> Result<()> {
        for (page, name) in files_of(&self.pages.join("man"))? {
            let section = name.rsplit('.').next().unwrap_or_default();
            let text = fs::read(&page).with_context(|| format!("cannot read {}", page.display()))?;
            let to = root.join(format!("usr/share/man/man{section}/{name}.gz"));
            put(&to, &compressed(&text)?, 0o644)?;
        }
        for (name, directory) in COMPLETIONS {
            let to = root.join("usr/share").join(directory).join(name);
            copy(&self.pages.join("completions").join(name), &to, 0o644)?;
        }
        Ok(())
    }

    /// Puts licence and changes where Debian's policy asks for them.
    fn put_legal(&self, package: Package, documents: &Path) -> Result<()> {
        copy(&workspace().join("xtask/packaging/copyright"), &documents.join("copyright"), 0o644)?;
        let changes = fs::read(workspace().join("CHANGELOG.md")).context("cannot read CHANGELOG.md")?;
        put(&documents.join("CHANGELOG.md.gz"), &compressed(&changes)?, 0o644)?;
        let changelog = template("changelog", self.release)?.replace("@NAME@", package.name());
        put(&documents.join("changelog.gz"), &compressed(changelog.as_bytes())?, 0o644)
    }

    /// Gives directories a mode that does not depend on the umask, and everything the time of the release.
    pub(super) fn fix_metadata(&self, root: &Path) -> Result<()> {
        run(Command::new("find").arg(root).args(["-type", "d", "-exec", "chmod", "755", "{}", "+"]))?;
        let time = format!("@{}", self.release.epoch_s);
        let touch = ["-exec", "touch", "--no-dereference", "--date", &time, "{}", "+"];
        run(Command::new("find").arg(root).args(touch))
    }
}

/// Puts `contrib/` beside the pages, which refer to its files.
fn put_examples(documents: &Path) -> Result<()> {
    let root = workspace().join(EXAMPLES);
    let mut left = vec![root.clone()];
    while let Some(directory) = left.pop() {
        let cannot = || format!("cannot read {}", directory.display());
        for entry in fs::read_dir(&directory).with_context(cannot)? {
            let path = entry.with_context(cannot)?.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|end| KINDS_OF_EXAMPLES.iter().any(|kind| end == *kind)) {
                let name = path.strip_prefix(&root).context("a file is not below its directory")?;
                copy(&path, &documents.join(EXAMPLES).join(name), 0o644)?;
            }
        }
    }
    Ok(())
}

/// The files of a directory with their names, in the order of the names.
fn files_of(directory: &Path) -> Result<Vec<(PathBuf, String)>> {
    let read = || format!("cannot read {}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(read)? {
        let path = entry.with_context(read)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        if let Some(name) = name.filter(|_| path.is_file()) {
            files.push((path, name));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Compresses without a name and a time, so that the result depends on nothing else.
fn compressed(text: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("gzip")
        .args(["-9", "--no-name"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start gzip")?;
    let mut stdin = child.stdin.take().context("gzip has no input")?;
    let text = text.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&text));
    let output = child.wait_with_output().context("cannot read from gzip")?;
    let written = writer.join().map_err(|_| anyhow::anyhow!("the thread that writes to gzip ended"))?;
    written.context("cannot write to gzip")?;
    if !output.status.success() {
        bail!("gzip failed ({})", output.status);
    }
    Ok(output.stdout)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    put(to, &contents, mode)
}

/// Writes a file with a mode that does not depend on the umask, and the directories above it.
pub(super) fn put(path: &Path, contents: &[u8], mode: u32) -> Result<()> {
    let attempt = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, contents)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    attempt().with_context(|| format!("cannot write {}", path.display()))
}

/// A text of `xtask/packaging` with the version filled in.
pub(super) fn template(name: &str, release: &Release) -> Result<String> {
    let path = workspace().join("xtask/packaging").join(name);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text
        .replace("@VERSION@", &release.version)
        .replace("@MAINTAINER@", &release.maintainer)
        .replace("@DATE@", &release.date("+%a, %d %b %Y %H:%M:%S +0000")?)
        .replace("@RPM_DATE@", &release.date("+%a %b %d %Y")?))
}
