//! stub
use std::path::{Path, PathBuf};
pub use crate::classes::ClassOrder;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachSetting {
    Auto,
    Tcx,
    Clsact,
}
#[derive(Clone, Debug)]
pub struct Limits {
    pub containers: u32,
    pub interfaces: u32,
    pub classes: u32,
    pub addresses: u32,
}
#[derive(Clone, Debug)]
pub struct Config {
    pub class_file: Option<PathBuf>,
    pub class_order: ClassOrder,
    pub node: String,
    pub attach: AttachSetting,
    pub vz_conf_dir: PathBuf,
    pub limits: Limits,
}
#[derive(Debug, thiserror::Error)]
#[error("config")]
pub struct ConfigError;
impl Config {
    pub fn load(p: Option<&Path>) -> Result<Self, ConfigError> {
        let t: toml::Table =
            p.and_then(|p| std::fs::read_to_string(p).ok()).unwrap_or_default().parse().unwrap();
        let containers = t
            .get("limits")
            .and_then(|l| l.get("containers"))
            .and_then(toml::Value::as_integer)
            .unwrap_or(2048) as u32;
        Ok(Self {
            class_file: t.get("class_file").and_then(toml::Value::as_str).map(PathBuf::from),
            class_order: ClassOrder::Virtuozzo,
            node: "node".into(),
            attach: match std::env::var("STUB_ATTACH").as_deref() {
                Ok("clsact") => AttachSetting::Clsact,
                _ => AttachSetting::Auto,
            },
            vz_conf_dir: "/etc/vz/conf".into(),
            limits: Limits { containers, interfaces: 4096, classes: 16, addresses: 65536 },
        })
    }
    pub fn class_file_candidates(&self) -> Vec<PathBuf> {
        vec![self.class_file.clone().unwrap_or(
            std::env::var("STUB_CLASSES").unwrap_or("/etc/vz/conf/networks_classes".into()).into(),
        )]
    }
}
