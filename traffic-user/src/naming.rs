//! stub
use crate::{config::Config, snapshot::ContainerId, vz_conf::VzConf};
#[derive(Debug)]
pub struct Naming;
pub struct InterfaceFacts<'a> {
    pub name: &'a str,
    pub mac: Option<[u8; 6]>,
}
#[derive(Debug)]
pub enum Role {
    Container(ContainerId),
    Shared,
    Ignored,
    Unresolved { reason: String },
}
impl Naming {
    pub fn new(_c: &Config, _v: &VzConf) -> anyhow::Result<Self> {
        Ok(Self)
    }
    pub fn role(&self, f: &InterfaceFacts<'_>) -> Role {
        if f.name == "venet0" {
            return Role::Shared;
        }
        let r = f.name.strip_prefix("veth").or(f.name.strip_prefix("vme"));
        match r.and_then(|r| r.split_once('.')) {
            Some((id, _)) => Role::Container(ContainerId::new(id).unwrap()),
            None => Role::Ignored,
        }
    }
}
