//! The machines that packages are built for, and what each tool calls them.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::command::is_installed;

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Architecture {
    /// 64-bit x86.
    #[value(name = "amd64", alias = "x86_64")]
    X86,
    /// 64-bit Arm.
    #[value(name = "arm64", alias = "aarch64")]
    Arm,
}

impl Architecture {
    /// That of this machine.
    ///
    /// # Errors
    /// When it is neither of them.
    pub fn of_machine() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::X86),
            "aarch64" => Ok(Self::Arm),
            other => bail!("packages are built for amd64 and arm64, and this machine is {other}"),
        }
    }

    /// That of a program.
    ///
    /// # Errors
    /// When the file is no program of one of them.
    pub fn of_program(program: &Path) -> Result<Self> {
        let mut header = [0; 20];
        let read = File::open(program).and_then(|mut file| file.read_exact(&mut header));
        read.with_context(|| format!("cannot read {}", program.display()))?;
        // 64 bits, little-endian, and the number of the machine.
        match (&header[..6], u16::from_le_bytes([header[18], header[19]])) {
            (b"\x7fELF\x02\x01", 62) => Ok(Self::X86),
            (b"\x7fELF\x02\x01", 183) => Ok(Self::Arm),
            _ => bail!("cannot package {}: it is no program for amd64 or arm64", program.display()),
        }
    }

    /// The compiler's name of the target.
    pub const fn target(self) -> &'static str {
        match self {
            Self::X86 => "x86_64-unknown-linux-gnu",
            Self::Arm => "aarch64-unknown-linux-gnu",
        }
    }

    /// The name in packages for Debian.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X86 => "amd64",
            Self::Arm => "arm64",
        }
    }

    /// The name in packages for rpm, and of the kernel.
    pub const fn rpm(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }

    /// A tool such as `objcopy`. For another machine than this one, Debian's cross tools have a prefix.
    pub fn tool(self, name: &str) -> PathBuf {
        let crossing = format!("{}-linux-gnu-{name}", self.rpm());
        let is_native = Self::of_machine().is_ok_and(|machine| machine == self);
        PathBuf::from(if !is_native && is_installed(&crossing) { &crossing } else { name })
    }
}
