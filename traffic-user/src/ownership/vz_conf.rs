//! Virtuozzo's file for each container, `/etc/vz/conf/ID.conf`: its addresses and interfaces.
//!
//! The files are shell assignments, read without a shell: `KEY="value"`, `KEY='value'`, `KEY=value`, with comments. A
//! line that is something else is named and left out. `same` finds out which files and ids are of one container.

mod same;

use std::{
    collections::HashMap,
    fmt, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use traffic_model::{ContainerId, notation::parse_mac};

/// What the files say.
#[derive(Clone, Debug, Default)]
pub struct VzConf {
    /// One for each file.
    pub containers: Vec<VzContainer>,
    /// The same, before it was settled which are of one container.
    as_read: Vec<VzContainer>,
    /// What could not be read; the rest of the files is used.
    pub diagnostics: Vec<Diagnostic>,
}

impl VzConf {
    /// Settles which files and ids are of one container.
    #[must_use]
    pub fn settled(mut self) -> Self {
        self.as_read.clone_from(&self.containers);
        same::settle(&mut self);
        self
    }

    /// The file's id for each other id a container goes by.
    pub fn aliases(&self) -> HashMap<ContainerId, ContainerId> {
        let one = |container: &VzContainer| {
            let id = container.id.clone();
            container.aliases.clone().into_iter().map(move |alias| (alias, id.clone()))
        };
        self.containers.iter().flat_map(one).collect()
    }
}

/// One container's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VzContainer {
    /// The file.
    pub path: PathBuf,
    /// The id, from the file's name.
    pub id: ContainerId,
    /// Other ids it goes by (`VEID`, `UUID`).
    pub aliases: Vec<ContainerId>,
    /// Its own addresses (`IP_ADDRESS`); the mask written there is that of the network it is in.
    pub addresses: Vec<IpAddr>,
    /// Its interfaces (`NETIF`).
    pub interfaces: Vec<VzInterface>,
}

/// One entry of `NETIF`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VzInterface {
    /// Hardware address inside the container.
    pub mac: Option<[u8; 6]>,
    /// Name on the host.
    pub host_name: Option<String>,
    /// Hardware address on the host.
    pub host_mac: Option<[u8; 6]>,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path.display(), self.message),
            line => write!(f, "{}:{line}: {}", self.path.display(), self.message),
        }
    }
}

/// Reads all container files of a directory. A directory that is not there has none. What an `earlier` reading found in a
/// file that can't be read now still holds.
pub fn scan(directory: &Path, earlier: Option<&VzConf>) -> VzConf {
    let mut all = VzConf::default();
    let complain = |all: &mut VzConf, path: &Path, error: &io::Error| {
        let message = format!("cannot read it: {error}");
        all.diagnostics.push(Diagnostic { path: path.to_owned(), line: 0, message });
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                complain(&mut all, directory, &error);
            }
            return all;
        }
    };
    let mut paths: Vec<_> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_container(path)).collect();
    paths.sort();
    for path in paths {
        // Bytes that are no UTF-8 can stand in a description; no key of ours has any.
        match fs::read(&path) {
            Ok(bytes) => {
                let one = parse(&path, &String::from_utf8_lossy(&bytes));
                all.containers.extend(one.containers);
                all.diagnostics.extend(one.diagnostics);
            }
            // It went between the listing and now.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {}
            Err(error) => {
                complain(&mut all, &path, &error);
                let kept = earlier.and_then(|earlier| earlier.as_read.iter().find(|c| c.path == path));
                all.containers.extend(kept.cloned());
            }
        }
    }
    all.settled()
}

/// `ID.conf` with a number or a UUID for an id; `0.conf` is the node's own, and samples and backups have other names.
fn is_container(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
    let number =
        !stem.is_empty() && stem.bytes().all(|b| b.is_ascii_digit()) && stem.bytes().any(|b| b != b'0');
    let bare = stem.trim_start_matches('{').trim_end_matches('}');
    let uuid = bare.len() == 36 && bare.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    path.extension().is_some_and(|extension| extension == "conf") && (number || uuid)
}

/// Reads one file's text; `path` gives the id.
pub fn parse(path: &Path, text: &str) -> VzConf {
    let mut all = VzConf::default();
    let complain = |line: usize, message: String| Diagnostic { path: path.to_owned(), line, message };
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
    let id = match ContainerId::of_container(stem) {
        Ok(id) => id,
        Err(error) => {
            all.diagnostics.push(complain(0, error.to_string()));
            return all;
        }
    };
    let mut container = VzContainer {
        path: path.to_owned(),
        id,
        aliases: Vec::new(),
        addresses: Vec::new(),
        interfaces: Vec::new(),
    };
    let mut said: Vec<(&str, ContainerId)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let (key, value) = match assignment(line) {
            Ok(Some(assignment)) => assignment,
            Ok(None) => continue,
            Err(message) => {
                all.diagnostics.push(complain(at + 1, message.to_owned()));
                continue;
            }
        };
        // As in a shell, a later assignment takes the place of an earlier one.
        match key {
            "IP_ADDRESS" => {
                container.addresses.clear();
                for word in value.split_whitespace() {
                    match word.split('/').next().unwrap_or("").parse() {
                        Ok(address) => container.addresses.push(address),
                        Err(_) => {
                            all.diagnostics.push(complain(at + 1, format!("{word:?} is no IP address")));
                        }
                    }
                }
            }
            "NETIF" => {
                container.interfaces.clear();
                for entry in value.split(';').filter(|entry| !entry.trim().is_empty()) {
                    match interface(entry) {
                        Ok(interface) => container.interfaces.push(interface),
                        Err(message) => all.diagnostics.push(complain(at + 1, message)),
                    }
                }
            }
            "VEID" | "CTID" | "UUID" => match ContainerId::of_container(value) {
                Ok(id) => {
                    said.retain(|(said, _)| *said != key);
                    said.push((key, id));
                }
                Err(error) => all.diagnostics.push(complain(at + 1, error.to_string())),
            },
            _ => {}
        }
    }
    for (_, alias) in said {
        if alias != container.id && !container.aliases.contains(&alias) {
            container.aliases.push(alias);
        }
    }
    all.containers.push(container);
    all
}

/// Key and value of a line; nothing for a blank line or a comment.
fn assignment(line: &str) -> Result<Option<(&str, &str)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (key, value) = line.split_once('=').ok_or("it is no assignment KEY=\"value\", and is left out")?;
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err("what stands before = is no name of a setting; the line is left out");
    }
    let value = value.trim_start();
    let quoted = value.chars().next().filter(|first| matches!(first, '"' | '\''));
    let (value, rest) = match quoted {
        Some(quote) => {
            let closed = value[1..].split_once(quote);
            closed.ok_or("the quotation mark is not closed in this line, and the line is left out")?
        }
        None => value.split_once(char::is_whitespace).unwrap_or((value, "")),
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with(['#', ';']) {
        return Ok(Some((key, value)));
    }
    Err("more follows the value, and the line is left out: put a value with blanks in quotation marks")
}

fn interface(entry: &str) -> Result<VzInterface, String> {
    let mut interface = VzInterface::default();
    for pair in entry.split(',') {
        let (key, value) =
            pair.trim().split_once('=').ok_or_else(|| format!("{pair:?} is no KEY=VALUE of an interface"))?;
        let mac = || parse_mac(value).map(Some).ok_or_else(|| format!("{value:?} is no hardware address"));
        match key {
            "mac" => interface.mac = mac()?,
            "host_mac" => interface.host_mac = mac()?,
            "host_ifname" if value.is_empty() || value.len() >= traffic_common::INTERFACE_NAME_BYTES => {
                return Err(format!("{value:?} is no interface name: that has 1 to 15 characters"));
            }
            "host_ifname" => interface.host_name = Some(value.to_owned()),
            _ => {}
        }
    }
    Ok(interface)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &str = r#"# Configuration of container 101
ONBOOT="yes"
DESCRIPTION="Zoë's web server; IP_ADDRESS=no"

 VE_ROOT='/vz/root/$VEID'
export VEID="101"
UUID="{2B2A3D9C-6F2E-4A77-9C15-0A1B2C3D4E5F}"
IP_ADDRESS="10.0.0.5/255.255.255.0 10.0.0.6/24 192.0.2.7 2001:db8::5/64"   # four of them
NETIF="ifname=eth0,mac=00:18:51:AA:BB:CC,host_ifname=veth101.0,host_mac=FE:FF:FF:AA:BB:CC,bridge=br0;ifname=eth1,mac=00:18:51:AA:BB:CD,host_ifname=veth101.1"
DISTRIBUTION=debian-12
"#;

    #[test]
    fn a_file_as_virtuozzo_writes_it() {
        let all = parse(Path::new("/etc/vz/conf/101.conf"), SAMPLE);
        assert_eq!(all.diagnostics, []);
        let container = &all.containers[0];
        assert_eq!(container.id.as_str(), "101");
        let aliases: Vec<_> = container.aliases.iter().map(ContainerId::as_str).collect();
        assert_eq!(aliases, ["2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f"]);
        let addresses: Vec<_> = container.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.5", "10.0.0.6", "192.0.2.7", "2001:db8::5"]);
        assert_eq!(container.interfaces.len(), 2);
        assert_eq!(container.interfaces[0].host_name.as_deref(), Some("veth101.0"));
        assert_eq!(container.interfaces[0].mac, Some([0, 0x18, 0x51, 0xaa, 0xbb, 0xcc]));
        assert_eq!(container.interfaces[0].host_mac, Some([0xfe, 0xff, 0xff, 0xaa, 0xbb, 0xcc]));
        assert_eq!(container.interfaces[1].host_mac, None);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_the_rest_is_used() {
        let text = "IP_ADDRESS=\"10.0.0.5 10.0.0.999\"\nNETIF=\"mac=zz;host_ifname=veth7.0\"\nVEID='a b'\n";
        let all = parse(Path::new("7.conf"), text);
        let said: Vec<_> = all.diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(said[0], "7.conf:1: \"10.0.0.999\" is no IP address");
        assert_eq!(said[1], "7.conf:2: \"zz\" is no hardware address");
        assert!(said[2].starts_with("7.conf:3: container id"));
        assert_eq!(all.containers[0].addresses.len(), 1);
        assert_eq!(all.containers[0].interfaces[0].host_name.as_deref(), Some("veth7.0"));
    }

    #[test]
    fn odd_lines_are_named() {
        let text = "IP_ADDRESS=\"10.0.0.5\nnonsense\nA B=\"x\"\nIP_ADDRESS=10.0.0.6 10.0.0.7\nOFFLINE=\"no\" # fine\n\
                    NETIF=\"ifname\"\nNETIF=\"host_ifname=far-too-long-for-linux\"\nVEID=0\nNAME=\"\"; export NAME\n";
        let all = parse(Path::new("7.conf"), text);
        let said: Vec<_> = all.diagnostics.iter().map(ToString::to_string).collect();
        let expected = [
            "7.conf:1: the quotation mark",
            "7.conf:2: it is no assignment",
            "7.conf:3: what stands before =",
            "7.conf:4: more follows the value",
            "7.conf:6: \"ifname\" is no KEY=VALUE",
            "7.conf:7: \"far-too-long-for-linux\" is no interface name",
            "7.conf:8: container id \"0\" is not usable",
        ];
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.starts_with(expected), "{said}");
        }
        assert_eq!(all.containers[0].addresses, [] as [IpAddr; 0]);
    }

    #[test]
    fn a_file_that_cannot_be_read_now_keeps_its_meaning() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("7.conf");
        fs::write(&path, "IP_ADDRESS=10.0.0.5\n").unwrap();
        let first = scan(directory.path(), None);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let second = scan(directory.path(), Some(&first));
        assert_eq!(second.containers, first.containers);
        assert_eq!(second.diagnostics.len(), 1);
        fs::remove_dir(&path).unwrap();
        assert_eq!(scan(directory.path(), Some(&second)).containers, []);
    }

    #[test]
    fn only_files_of_containers_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let names = [
            "101.conf",
            "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f.conf",
            "0.conf",
            "vz.conf",
            "ve-basic.conf-sample",
            "102.conf.bak",
            "networks_classes",
        ];
        for name in names {
            fs::write(directory.path().join(name), "IP_ADDRESS=10.0.0.1\n").unwrap();
        }
        let all = scan(directory.path(), None);
        let ids: Vec<_> = all.containers.iter().map(|container| container.id.to_string()).collect();
        assert_eq!(ids, ["101", "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f"]);
        assert!(scan(Path::new("/nonexistent"), None).containers.is_empty());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "\\PC*", value in "[a-z=,;\"' 0-9:./]*") {
            parse(Path::new("1.conf"), &text);
            parse(Path::new("1.conf"), &format!("NETIF={value}\nIP_ADDRESS=\"{value}\n"));
        }
    }
}
