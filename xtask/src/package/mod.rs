//! `cargo xtask package`: builds the packages that people install.
//!
//! | file | owns |
//! |---|---|
//! | this one | the order of the steps, checksums |
//! | `program` | the optimised program, the same from every directory, and its debug file |
//! | `contents` | what is in each package, and its copy below a staging directory |
//! | `deb`, `rpm`, `archive` | the formats, each written by the distribution's own tool |
//! | `sbom` | the list of all crates in the program |
//!
//! The data of the packages (control files, scripts, examples) are in `xtask/packaging`.

mod archive;
mod contents;
mod deb;
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
use contents::Staging;
use program::Program;

/// Build packages for Debian and for rpm, and a tar archive
///
/// The packages need no compiler on the node. Two builds of one commit are the same to the bit, in whatever
/// directory they are made. Beside the packages are the debug symbols, a list of all crates in the program
/// (CycloneDX) and the SHA-256 sums of all files.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask package                          everything, into target/package
  cargo xtask package --format deb             only the packages for Debian
  apt install ./target/package/trafctl_*.deb   install one")]
pub struct Options {
    /// Formats to build [default: those whose tools are installed]
    #[arg(long, value_name = "FORMAT", value_delimiter = ',')]
    format: Vec<Format>,
    /// Directory for the packages
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Program to package instead of building one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
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
    if options.program.is_none() {
        setup::ensure(Purpose::Build)?;
    }
    let output = options.output.clone().unwrap_or_else(|| workspace().join("target/package"));
    fs::create_dir_all(&output).with_context(|| format!("cannot create {}", output.display()))?;
    let release = Release::of_commit(options.maintainer.as_deref())?;
    let work = workspace().join("target/package-build");
    let program = match &options.program {
        Some(given) => Program::given(given, &work)?,
        None => Program::build(&work)?,
    };
    program.check_size()?;
    let pages = work.join("pages");
    pages::write(&pages)?;
    let staging = Staging::new(&work.join("staging"), &pages, &release);
    let mut files = Vec::new();
    for format in formats {
        files.extend(match format {
            Format::Deb => deb::build(&staging, &program, &output)?,
            Format::Rpm => rpm::build(&staging, &program, &output)?,
            Format::Tar => vec![archive::build(&staging, &program, &output)?],
        });
    }
    files.push(program.copy_debug_file(&output, &release)?);
    files.push(sbom::write(&output, &release)?);
    files.push(write_sums(&output, &files)?);
    for file in &files {
        report::line('✓', "package", &file.display().to_string());
    }
    Ok(())
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
    version: &'static str,
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
    fn of_commit(maintainer: Option<&str>) -> Result<Self> {
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
        Ok(Self { version: env!("CARGO_PKG_VERSION"), epoch_s, maintainer })
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
