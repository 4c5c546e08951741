//! A small disk for the state of a node, to be filled.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::process::run_ok;

/// A file system, of eight MiB unless it is said: `status` finds that enough as long as it is empty.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted.
    pub fn mount(path: PathBuf) -> Result<Self> {
        Self::mount_of(path, 8)
    }

    /// Mounts one of another size, in MiB.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted.
    pub fn mount_of(path: PathBuf, size: u32) -> Result<Self> {
        fs::create_dir_all(&path)?;
        let size = format!("size={size}m");
        run_ok(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path))?;
        Ok(Self(path))
    }

    /// Mounts one over a directory, with its contents and owner.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted, or what is there does not fit.
    pub fn replace(path: PathBuf, size: u32) -> Result<Self> {
        let before = path.with_extension("before");
        fs::rename(&path, &before)?;
        let disk = Self::mount_of(path, size)?;
        run_ok(Command::new("cp").args(["-aT"]).arg(&before).arg(&disk.0))?;
        fs::remove_dir_all(before)?;
        Ok(disk)
    }

    /// Uses all remaining space. Returns the file that does.
    ///
    /// The file only grows: a daemon may write meanwhile, and takes space that a file written anew would need.
    ///
    /// # Errors
    ///
    /// When a write fails for another reason than a full disk.
    pub fn fill(&self) -> Result<PathBuf> {
        let path = self.0.join("filler");
        let mut file = File::create(&path)?;
        loop {
            match file.write(&[7; 4096]) {
                Ok(0) => bail!("a write to {} takes nothing", path.display()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(path),
                Err(error) => return Err(error).with_context(|| format!("write {}", path.display())),
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = run_ok(Command::new("umount").arg("--lazy").arg(&self.0)) {
            eprintln!("{error:#}");
        }
    }
}
