//! LXD and Incus: the interfaces of containers and machines, from their sockets.
//!
//! Containers are known by their cgroups without this. Machines have taps with random names, which only the
//! socket explains.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{
    NamedInterface, Platform, Reading,
    root::{Reader, Root},
};

/// The sockets of LXD; the second one is the snap's.
const LXD: [&str; 2] = ["/var/lib/lxd/unix.socket", "/var/snap/lxd/common/lxd/unix.socket"];
/// Those of Incus.
const INCUS: [&str; 2] = ["/var/lib/incus/unix.socket", "/run/incus/unix.socket"];
/// How long the whole answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest answer, in bytes: a thousand instances with their whole configuration.
const MOST_BYTES: usize = 32 << 20;
/// HTTP/1.0, so that the answer ends with the connection.
const REQUEST: &[u8] =
    b"GET /1.0/instances?recursion=1&all-projects=true HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n";

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    metadata: Option<Vec<Instance>>,
}

#[derive(Deserialize)]
struct Instance {
    name: String,
    #[serde(default)]
    project: String,
    #[serde(default)]
    config: Option<BTreeMap<String, String>>,
}

impl Instance {
    /// As the cgroup is called: the name of the project is left out for the default one.
    fn id(&self) -> String {
        match self.project.as_str() {
            "" | "default" => self.name.clone(),
            project => format!("{project}_{}", self.name),
        }
    }
}

/// Asks LXD.
pub(super) fn read_lxd(root: &Root) -> Reading {
    read(root, Platform::Lxd, LXD, "/var/lib/lxd")
}

/// Asks Incus.
pub(super) fn read_incus(root: &Root) -> Reading {
    read(root, Platform::Incus, INCUS, "/var/lib/incus")
}

fn read(root: &Root, platform: Platform, sockets: [&'static str; 2], directory: &str) -> Reading {
    let mut reader = Reader::new(root);
    reader.note_evidence(&sockets);
    if reader.found.evidence.is_empty() {
        reader.note_evidence(&[directory]);
        return reader.found;
    }
    let socket = reader.found.evidence[0].clone();
    match ask(&root.at(&socket)) {
        Ok(instances) => {
            for instance in instances {
                let id = instance.id();
                let config = instance.config.unwrap_or_default();
                let hosts = config.iter().filter(|(key, _)| {
                    key.strip_prefix("volatile.").is_some_and(|rest| rest.ends_with(".host_name"))
                });
                reader.found.interfaces.extend(hosts.map(|(_, interface)| NamedInterface {
                    platform,
                    id: id.clone(),
                    interface: interface.clone(),
                    source: socket.clone(),
                }));
            }
        }
        // The containers are known without it.
        Err(error) => reader.problem(&socket, &error),
    }
    reader.found
}

fn ask(socket: &Path) -> Result<Vec<Instance>, String> {
    let deadline = Instant::now() + PATIENCE;
    let text = exchange(socket, deadline).map_err(|error| format!("it does not answer: {error}"))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("its answer has no end of the header")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("it refuses to list the instances: {status}"));
    }
    let answer: Answer = serde_json::from_str(body).map_err(|error| format!("its answer: {error}"))?;
    Ok(answer.metadata.unwrap_or_default())
}

fn exchange(socket: &Path, deadline: Instant) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(REQUEST)?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 64 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || bytes.len() > MOST_BYTES {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => break,
            length => bytes.extend_from_slice(&buffer[..length]),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
