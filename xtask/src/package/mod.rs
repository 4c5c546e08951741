//! `cargo xtask package`: builds the packages that people install.
//!
//! | file | owns |
//! |---|---|
//! | this one | the order of the steps, checksums |
//! | `architecture` | the machines that packages are built for |
//! | `program` | the optimised program, the same from every directory, and its debug file |
//! | `crates` | the crates of others that are linked into the program |
//! | `notices` | their notices and licences, and those of what is embedded |
//! | `contents` | what is in each package, and its copy below a staging directory |
//! | `deb`, `rpm`, `archive` | the formats, each written by the distribution's own tool |
//! | `sbom` | the list of all crates in the program |
//!
//! The data of the packages (control files, scripts, examples) are in `xtask/packaging`.

mod architecture;
mod archive;
mod contents;
mod crates;
mod deb;
mod notices;
mod program;
mod rpm;
mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    command::{ask, is_installed, workspace},
    pages, report,
    setup::{self, Purpose},
};
pub use architecture::Architecture;
use contents::Staging;
use program::Program;

/// Build packages for Debian and for rpm, and a tar archive
///
/// The packages need no compiler on the node. Packages of one program are the same to the bit, in whatever
/// directory they are made. Beside the packages are the debug symbols, a list of all crates in the program
/// (CycloneDX) and the SHA-256 sums of all files.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask package                          everything, into target/package
  cargo xtask package --format deb             only the packages for Debian
  cargo xtask package --architecture arm64     for arm64, with Debian's cross compiler
  apt install ./target/package/trafctl_*.deb   install one")]
pub struct Options {
    /// Formats to build [default: those whose tools are installed]
    #[arg(long, value_name = "FORMAT", value_delimiter = ',')]
    format: Vec<Format>,
    /// Directory for the packages
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Machine that the packages are for [default: this one]
    #[arg(long, value_name = "NAME", conflicts_with = "program")]
    architecture: Option<Architecture>,
    /// Program to package instead of building one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Version of the packages, such as 0.2.0~rc1 [default: the program's]
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    package_version: Option<String>,
    /// Who answers for the packages [default: the author of the commit]
    #[arg(long, value_name = "NAME <MAIL>")]
    maintainer: Option<String>,
}

/// A format of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For Debian and its derivatives.
    Deb,
    /// For distributions with rpm.
    Rpm,
    /// A tar archive of the same files.
    Tar,
}

impl Format {
    const ALL: [Self; 3] = [Self::Deb, Self::Rpm, Self::Tar];

    /// The program that writes this format, and the Debian package that has it.
    const fn tool(self) -> (&'static str, &'static str) {
        match self {
            Self::Deb => ("dpkg-deb", "dpkg"),
            Self::Rpm => ("rpmbuild", "rpm"),
            Self::Tar => ("tar", "tar"),
        }
    }
}

/// Runs the task.
pub fn run(options: &Options) -> Result<()> {
    let formats = formats(&options.format)?;
    let output = options.output.clone().unwrap_or_else(|| workspace().join("target/package"));
    let release = Release::of_commit(options.maintainer.as_deref(), options.package_version.as_deref())?;
    let work = workspace().join("target/package-build");
    let program = match &options.program {
        Some(given) => Program::given(given, &work)?,
        None => {
            let architecture = options.architecture.map_or_else(Architecture::of_machine, Ok)?;
            setup::ensure(Purpose::BuildFor(architecture))?;
            Program::build(&work, architecture)?
        }
    };
    let size = program.check_size()?;
    let pages = work.join("pages");
    pages::write(&pages)?;
    let staging = Staging::new(&work.join("staging"), &pages, &release);
    let mut files = assemble(&formats, &staging, &program, &output)?;
    files.push(program.copy_debug_file(&output, &release)?);
    files.push(sbom::write(&output, &release)?);
    files.push(write_sums(&output, &files)?);
    report::line('✓', "program", &format!("{size} bytes, without symbols"));
    for file in &files {
        report::line('✓', "package", &file.display().to_string());
    }
    Ok(())
}

/// Builds the packages of one program under two versions, for the proof of an upgrade: in the directories `previous`
/// and `current`.
///
/// # Errors
/// When a package cannot be built.
pub fn for_proof(program: &Path, directory: &Path) -> Result<()> {
    let work = directory.join("work");
    let program = Program::given(program, &work)?;
    let pages = work.join("pages");
    pages::write(&pages)?;
    let current = env!("CARGO_PKG_VERSION");
    for (name, version) in [("previous", format!("{current}~previous")), ("current", current.to_owned())] {
        let release = Release::of_commit(Some("trafctl <root@localhost>"), Some(&version))?;
        let output = directory.join(name);
        if output.exists() {
            fs::remove_dir_all(&output).with_context(|| format!("cannot remove {}", output.display()))?;
        }
        assemble(
            &[Format::Deb, Format::Rpm],
            &Staging::new(&work.join("staging"), &pages, &release),
            &program,
            &output,
        )?;
    }
    Ok(())
}

/// Builds the packages of a program in these formats. Returns their paths.
fn assemble(
    formats: &[Format],
    staging: &Staging<'_>,
    program: &Program,
    output: &Path,
) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(output).with_context(|| format!("cannot create {}", output.display()))?;
    let mut files = Vec::new();
    for format in formats {
        files.extend(match format {
            Format::Deb => deb::build(staging, program, output)?,
            Format::Rpm => rpm::build(staging, program, output)?,
            Format::Tar => vec![archive::build(staging, program, output)?],
        });
    }
    Ok(files)
}

/// A version that Debian and rpm accept and compare alike.
fn parse_version(text: &str) -> Result<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || ".~+".contains(letter);
    if !text.starts_with(|first: char| first.is_ascii_digit()) || !text.chars().all(is_part) {
        bail!("a version begins with a digit and has only letters, digits, `.`, `~` and `+`");
    }
    Ok(text.to_owned())
}

/// The formats asked for, or all whose tools are installed.
fn formats(asked: &[Format]) -> Result<Vec<Format>> {
    let is_possible = |format: &Format| is_installed(format.tool().0);
    if asked.is_empty() {
        return Ok(Format::ALL.into_iter().filter(is_possible).collect());
    }
    match asked.iter().find(|format| !is_possible(format)) {
        Some(format) => {
            let (program, package) = format.tool();
            bail!("{program} is not installed, which writes this format; install the package {package}")
        }
        None => Ok(asked.to_vec()),
    }
}

/// What a package is a release of.
struct Release {
    version: String,
    /// The time of the commit, in seconds since the Unix epoch. All times in the packages are this one, so that
    /// they do not depend on when they were built.
    epoch_s: u64,
    /// Who answers for the packages.
    maintainer: String,
}

impl Release {
    /// The release that is checked out.
    ///
    /// # Errors
    /// When git does not answer, and `SOURCE_DATE_EPOCH` or the maintainer is not given.
    fn of_commit(maintainer: Option<&str>, version: Option<&str>) -> Result<Self> {
        let of_commit = |format: &str| {
            ask(Command::new("git").current_dir(workspace()).args([
                "log",
                "-1",
                &format!("--format={format}"),
            ]))
        };
        let text = std::env::var("SOURCE_DATE_EPOCH").ok().or_else(|| of_commit("%ct")).context(
            "cannot find the time of the commit: there is no git repository here; set SOURCE_DATE_EPOCH to seconds \
             since 1970",
        )?;
        let epoch_s = text.trim().parse().with_context(|| format!("the time of the commit is {text:?}"))?;
        let maintainer = maintainer.map(str::to_owned).or_else(|| of_commit("%an <%ae>"));
        let maintainer = maintainer.context("cannot find the author of the commit; give --maintainer")?;
        let version = version.unwrap_or(env!("CARGO_PKG_VERSION")).to_owned();
        Ok(Self { version, epoch_s, maintainer })
    }

    /// The time of the commit in UTC, in a format of `date`.
    fn date(&self, format: &str) -> Result<String> {
        let time = format!("--date=@{}", self.epoch_s);
        let mut date = Command::new("date");
        date.env("LC_ALL", "C").args(["--utc", &time, format]);
        ask(&mut date).context("cannot run date")
    }
}

/// Writes the SHA-256 sums of the files in one directory, as `sha256sum --check` reads them.
fn write_sums(output: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
    let mut command = Command::new("sha256sum");
    command.current_dir(output).args(&names).stdin(Stdio::null());
    let sums = ask(&mut command).context("cannot run sha256sum on the packages")?;
    let path = output.join("SHA256SUMS");
    fs::write(&path, sums + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::*;

    /// The packages of a program of this machine, by their names, built below a directory.
    fn packages_built_in(directory: &Path) -> BTreeMap<String, Vec<u8>> {
        let pages = directory.join("pages");
        for name in [
            "man/trafctl.1",
            "man/trafctl.toml.5",
            "completions/trafctl",
            "completions/_trafctl",
            "completions/trafctl.fish",
        ] {
            contents::put(&pages.join(name), name.as_bytes(), 0o600).unwrap();
        }
        let release = Release {
            version: "1.2.3~rc4".to_owned(),
            epoch_s: 1_790_000_000,
            maintainer: "Somebody <somebody@example.org>".to_owned(),
        };
        let program = Program::given(Path::new("/usr/bin/true"), &directory.join("program")).unwrap();
        let staging = Staging::new(&directory.join("staging"), &pages, &release);
        let files =
            assemble(&formats(&Format::ALL).unwrap(), &staging, &program, &directory.join("out")).unwrap();
        let named = |file: PathBuf| {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(file).unwrap())
        };
        files.into_iter().map(named).collect()
    }

    #[test]
    fn packages_of_one_program_are_the_same_from_every_directory() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = packages_built_in(here.path());
        let second = packages_built_in(&there.path().join("further/down"));
        assert_eq!(first.len(), 5, "{:?}", first.keys());
        assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
        for (name, package) in first {
            assert!(package == second[&name], "{name} differs");
        }
    }

    #[test]
    fn a_version_is_one_that_debian_and_rpm_compare_alike() {
        for version in ["0.2.0", "0.2.0~rc1", "1.0+git2"] {
            assert_eq!(parse_version(version).unwrap(), version);
        }
        for version in ["", "v1", "1-2", "1:2", "1 2", "1_2", "~1"] {
            assert!(parse_version(version).is_err(), "{version}");
        }
    }
}
