//! A small disk for the state of a node, to be filled.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Result, bail};

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
    /// # Errors
    ///
    /// When the file does not fit twice.
    pub fn fill(&self) -> Result<PathBuf> {
        let file = self.0.join("filler");
        let mut size = 1 << 20;
        let mut written = Vec::new();
        while size >= 512 {
            written.resize(written.len() + size, 7);
            if fs::write(&file, &written).is_err() {
                written.truncate(written.len() - size);
                size /= 2;
            }
        }
        // The size found is smaller than what fits by less than a block.
        if fs::write(&file, &written).is_err() {
            bail!("the filler does not fit twice");
        }
        Ok(file)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = run_ok(Command::new("umount").arg("--lazy").arg(&self.0)) {
            eprintln!("{error:#}");
        }
    }
}
