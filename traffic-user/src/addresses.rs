//! stub
use crate::{config::Config, snapshot::ContainerId, vz_conf::VzConf};
use ipnet::IpNet;
use std::path::Path;
#[derive(Debug, Default)]
pub struct AddressBook {
    pub entries: Vec<AddressEntry>,
    pub conflicts: Vec<String>,
}
#[derive(Debug)]
pub struct AddressEntry {
    pub prefix: IpNet,
    pub container: ContainerId,
    pub source: String,
}
pub struct AddressFile(std::path::PathBuf);
impl AddressFile {
    pub fn new(p: &Path) -> Self {
        Self(p.to_owned())
    }
    pub fn read(&self) -> anyhow::Result<Vec<(IpNet, ContainerId)>> {
        Ok(std::fs::read_to_string(self.0.join("addresses"))
            .unwrap_or_default()
            .lines()
            .filter_map(|l| {
                let (p, c) = l.split_once(' ')?;
                Some((p.parse().ok()?, ContainerId::new(c).ok()?))
            })
            .collect())
    }
    pub fn add(&self, p: IpNet, c: &ContainerId) -> anyhow::Result<()> {
        use std::io::Write;
        std::fs::create_dir_all(&self.0)?;
        writeln!(
            std::fs::File::options().append(true).create(true).open(self.0.join("addresses"))?,
            "{p} {c}"
        )?;
        Ok(())
    }
    pub fn remove(&self, _p: IpNet) -> anyhow::Result<()> {
        Ok(())
    }
}
impl AddressBook {
    pub fn merge(_v: &VzConf, _c: &Config, f: &[(IpNet, ContainerId)]) -> Self {
        Self {
            entries: f
                .iter()
                .map(|(p, c)| AddressEntry {
                    prefix: *p,
                    container: c.clone(),
                    source: "command line".into(),
                })
                .collect(),
            conflicts: vec![],
        }
    }
}
pub fn parse_prefix(s: &str) -> Result<IpNet, String> {
    s.parse().or_else(|_| s.parse::<std::net::IpAddr>().map(IpNet::from)).map_err(|e| e.to_string())
}
