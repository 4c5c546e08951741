//! A small disk for the state of a node, to be filled.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::process::run_ok;

/// A file system of eight MiB, to be filled. `status` finds that enough as long as it is empty.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted.
    pub fn mount(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path)?;
        run_ok(Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(&path))?;
        Ok(Self(path))
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
