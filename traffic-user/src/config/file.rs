//! The configuration file as written: its tables and keys, before any value is checked.
//!
//! [`check`](super::check) turns it into a [`Config`](super::Config). A [`Spanned`] value keeps its place in
//! the text, so that a message can name line and column.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use crate::config::{
    AttachSetting, ClassOrder, IdScope, Preset, RuleKind, calibration::FileCalibration, classes::FileClasses,
    ship::FileShip,
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) class_file: Option<PathBuf>,
    pub(super) class_order: ClassOrder,
    pub(super) classes: FileClasses,
    pub(super) node: Option<Spanned<FileNode>>,
    pub(super) attach: FileAttach,
    pub(super) shaping: Option<FileShaping>,
    /// The former name of `shaping`.
    pub(super) mark: Option<Spanned<FileShaping>>,
    pub(super) vz_conf_dir: Option<PathBuf>,
    pub(super) limits: FileLimits,
    pub(super) host: FileHost,
    pub(super) interfaces: FileInterfaces,
    pub(super) identities: FileIdentities,
    pub(super) container: Vec<FileContainer>,
    pub(super) drops: FileDrops,
    pub(super) drain: FileDrain,
    pub(super) ledger: FileLedger,
    pub(super) retention: FileRetention,
    pub(super) api: FileApi,
    pub(super) ship: FileShip,
    pub(super) calibration: FileCalibration,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileLimits {
    pub(super) containers: Option<Spanned<i128>>,
    pub(super) interfaces: Option<Spanned<i128>>,
    pub(super) classes: Option<Spanned<i128>>,
    pub(super) addresses: Option<Spanned<i128>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileShaping {
    pub(super) enabled: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileHost {
    pub(super) preset: Preset,
}

/// The node: its name alone, or a table.
#[derive(Debug)]
pub(super) enum FileNode {
    Name(String),
    Table(FileNodeTable),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileNodeTable {
    pub(super) name: Option<Spanned<String>>,
    pub(super) uplinks: Vec<Spanned<String>>,
    pub(super) id_scope: IdScope,
}

/// Not an untagged enum: its errors would name neither the wrong key nor the accepted ones.
impl<'de> Deserialize<'de> for FileNode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = FileNode;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the node's name, or a table with `name`, `uplinks` and `id_scope`")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<FileNode, E> {
                Ok(FileNode::Name(name.to_owned()))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<FileNode, A::Error> {
                let table = serde::de::value::MapAccessDeserializer::new(map);
                FileNodeTable::deserialize(table).map(FileNode::Table)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// How programs are attached: the method alone, or a table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileAttachTable {
    pub(super) method: AttachSetting,
    pub(super) expedite: Option<bool>,
}

/// [`FileAttachTable`], also from a text.
#[derive(Debug, Default)]
pub(super) struct FileAttach(pub(super) FileAttachTable);

impl<'de> Deserialize<'de> for FileAttach {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = FileAttach;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the method, or a table with `method` and `expedite`")
            }

            fn visit_str<E: serde::de::Error>(self, method: &str) -> Result<FileAttach, E> {
                let method = AttachSetting::deserialize(serde::de::value::StrDeserializer::new(method))?;
                Ok(FileAttach(FileAttachTable { method, expedite: None }))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<FileAttach, A::Error> {
                let table = serde::de::value::MapAccessDeserializer::new(map);
                FileAttachTable::deserialize(table).map(FileAttach)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileIdentities {
    pub(super) command: Option<Spanned<Vec<String>>>,
    pub(super) timeout: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileInterfaces {
    pub(super) rule: Vec<FileRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileRule {
    pub(super) pattern: Spanned<String>,
    pub(super) kind: RuleKind,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileContainer {
    pub(super) id: Spanned<String>,
    pub(super) name: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) interfaces: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) macs: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) addresses: Vec<Spanned<String>>,
    pub(super) on_uplink: Option<Spanned<bool>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileDrops {
    pub(super) enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileDrain {
    pub(super) interval: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileLedger {
    pub(super) enabled: Option<bool>,
    pub(super) time_zone: Option<Spanned<String>>,
    pub(super) billing_day: Option<Spanned<i128>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileRetention {
    pub(super) five_minutes: Option<Spanned<String>>,
    pub(super) hours: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileApi {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) token_file: Option<Spanned<PathBuf>>,
}
