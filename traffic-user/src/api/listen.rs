//! Where the API listens: on loopback or on a socket in the file system, so that nobody beyond this host asks.

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

/// Who may ask on a socket in the file system: its owner and its group.
const SOCKET_MODE: u32 = 0o660;
/// Connections that may wait to be taken.
const BACKLOG: i32 = 64;

/// A socket that listens. What connects to it waits until it is served.
#[derive(Debug)]
pub enum Bound {
    /// On loopback.
    Tcp(TcpListener),
    /// In the file system.
    Unix(UnixListener, SocketFile),
}

/// Binds the socket that the configuration names.
///
/// # Errors
/// When another process has it, or this one may not bind it.
pub fn bind_to(listen: &Listen) -> anyhow::Result<Bound> {
    match listen {
        Listen::Tcp(address) => bind_port(*address),
        Listen::Unix(path) => bind_file(path),
    }
    .with_context(|| format!("cannot serve metrics on {listen} ([api] listen)"))
}

/// A socket's file, removed when dropped, unless another one has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity)
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
    // Nobody can connect before it listens, so at no time is it open to others.
    let file = SocketFile { path: path.to_owned(), identity: identity(&fs::symlink_metadata(path)?) };
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    listen(&socket, BACKLOG)?;
    Ok(Bound::Unix(socket.into(), file))
}

fn new_socket() -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// Removes what a process that was killed has left; never what is no socket, or one that somebody listens on.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let file = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !file.file_type().is_socket() {
        bail!("something that is no socket is there, and is left alone");
    }
    match connect(&new_socket()?, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => Ok(fs::remove_file(path)?),
        // Connected, or a queue that is full.
        Ok(()) | Err(Errno::AGAIN) => bail!("another process listens there"),
        Err(error) => Err(error).context("cannot find out whether anybody listens there"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_is_closed_to_others_and_goes_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/api.sock");
        let listen = Listen::Unix(path.clone());
        let bound = bind_to(&listen).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, SOCKET_MODE);
        UnixStream::connect(&path).unwrap();
        let error = format!("{:#}", bind_to(&listen).unwrap_err());
        assert!(error.ends_with("([api] listen): another process listens there"), "{error}");
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn only_a_socket_without_a_listener_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let listen = Listen::Unix(path.clone());
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "what a killed process leaves");
        let ours = bind_to(&listen).unwrap();
        UnixStream::connect(&path).unwrap();

        // A file that is another one by now is not ours to remove.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "kept").unwrap();
        drop(ours);
        let error = format!("{:#}", bind_to(&listen).unwrap_err());
        assert!(error.contains("no socket is there"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    }

    #[test]
    fn a_port_that_is_taken_is_said() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = Listen::Tcp(taken.local_addr().unwrap());
        let error = format!("{:#}", bind_to(&listen).unwrap_err());
        assert!(error.starts_with(&format!("cannot serve metrics on {listen} ([api] listen): ")), "{error}");
        assert!(error.contains("in use"), "{error}");
    }
}
