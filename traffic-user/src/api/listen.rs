//! Binds the socket of the API: a loopback port or a Unix socket, so that no other host can reach it.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with},
};

use crate::config::Listen;

/// Mode of a Unix socket: for its owner and its group.
const SOCKET_MODE: u32 = 0o660;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// A listening socket. Connections wait until they are served.
#[derive(Debug)]
pub enum Bound {
    /// A loopback port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener, SocketFile),
}

/// Binds the configured socket.
///
/// # Errors
/// When another process uses it, or this one may not bind it.
pub fn bind_to(listen: &Listen) -> anyhow::Result<Bound> {
    match listen {
        Listen::Tcp(address) => bind_port(*address),
        Listen::Unix(path) => bind_file(path),
    }
    .with_context(|| format!("cannot serve metrics on {listen} ([api] listen)"))
}

/// The file of a Unix socket. It is removed when this is dropped, unless it was replaced by another file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Whether the file is still at its path.
    pub(super) fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity)
    }

    /// Leaves alone what may be at its path from now on.
    pub(super) fn disown(&mut self) {
        self.path.clear();
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

fn bind_port(address: SocketAddr) -> anyhow::Result<Bound> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(Bound::Tcp(listener))
}

fn bind_file(path: &Path) -> anyhow::Result<Bound> {
    if let Some(directory) = path.parent()
        && let Err(error) = fs::create_dir(directory)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error).with_context(|| format!("cannot create {}", directory.display()));
    }
    remove_stale(path)?;
    let socket = new_socket()?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Nothing can connect before `listen`, so the socket is never open to others.
    let file = SocketFile { path: path.to_owned(), identity: identity(&fs::symlink_metadata(path)?) };
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    listen(&socket, BACKLOG)?;
    Ok(Bound::Unix(socket.into(), file))
}

fn new_socket() -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// Removes the socket that a killed process left. Never removes another kind of file, or a socket with a
/// listener.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let file = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !file.file_type().is_socket() {
        bail!("the file there is not a socket; remove it or choose another path");
    }
    match connect(&new_socket()?, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => Ok(fs::remove_file(path)?),
        // Connected, or a queue that is full.
        Ok(()) | Err(Errno::AGAIN) => bail!("another process listens there; stop it or choose another path"),
        Err(error) => Err(error).context("cannot find out whether another process listens there"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_is_for_owner_and_group_and_is_removed_when_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/api.sock");
        let listen = Listen::Unix(path.clone());
        let bound = bind_to(&listen).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, SOCKET_MODE);
        UnixStream::connect(&path).unwrap();
        let error = format!("{:#}", bind_to(&listen).unwrap_err());
        assert!(error.contains("([api] listen): another process listens there"), "{error}");
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn only_a_socket_without_a_listener_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let listen = Listen::Unix(path.clone());
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a killed process leaves its socket");
        let ours = bind_to(&listen).unwrap();
        UnixStream::connect(&path).unwrap();

        // A file that was replaced is not ours to remove.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "kept").unwrap();
        drop(ours);
        let error = format!("{:#}", bind_to(&listen).unwrap_err());
        assert!(error.contains("is not a socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    }

    #[test]
    fn a_port_in_use_is_reported() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = Listen::Tcp(taken.local_addr().unwrap());
        let error = format!("{:#}", bind_to(&listen).unwrap_err());
        assert!(error.starts_with(&format!("cannot serve metrics on {listen} ([api] listen): ")), "{error}");
        assert!(error.contains("in use"), "{error}");
    }
}
