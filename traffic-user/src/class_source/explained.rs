//! Why an address has its class: by the file that the table in force was compiled from, if that is known.

use std::{collections::BTreeMap, path::Path};

use ipnet::IpNet;
use serde::Serialize;
use traffic_classes::{ClassFile, ClassOrder, ExplainContext, Explanation, PrefixExplanation};

use super::{
    Known, TableDifference, Wanted, compiled, difference_from_table_in_force, locate, read, read_bytes,
    record_of,
};
use crate::{
    config::Config,
    kernel::{bpffs::Bpffs, load, tables},
};

/// What an explanation is based on.
#[derive(Debug)]
pub struct Basis {
    /// The lines, and the names of classes.
    pub file: ClassFile,
    bytes: Vec<u8>,
    order: ClassOrder,
    /// The file's name; `None` for lines that are in no file.
    name: Option<String>,
}

/// The table that packets are counted under.
#[derive(Debug)]
pub struct InForce {
    /// What explains it.
    pub basis: Basis,
    /// How the configured file differs.
    pub difference: Option<TableDifference>,
    /// Whether only the compiled prefixes are known, not the lines that were loaded.
    pub only_prefixes: bool,
}

/// Why an address or the parts of a prefix have their classes.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Explained {
    /// Of an address.
    Address(Explanation),
    /// Of a prefix.
    Prefix(PrefixExplanation),
}

impl std::fmt::Display for Explained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(explanation) => explanation.fmt(f),
            Self::Prefix(explanation) => explanation.fmt(f),
        }
    }
}

impl Basis {
    /// A class file.
    ///
    /// # Errors
    /// As [`read`].
    pub fn of_file(path: &Path, order: ClassOrder) -> anyhow::Result<Self> {
        let (file, bytes) = read(path)?;
        Ok(Self { file, bytes, order, name: Some(path.display().to_string()) })
    }

    /// The text of a class table. It is compiled: what an order decides was decided when it was loaded.
    pub fn of_table(text: Vec<u8>) -> Self {
        Self {
            file: traffic_classes::parse(&text),
            bytes: text,
            order: ClassOrder::LongestPrefix,
            name: None,
        }
    }

    /// The configured file, for a node without counters.
    ///
    /// # Errors
    /// As [`compiled`].
    pub fn configured(config: &Config) -> anyhow::Result<Self> {
        let loaded = compiled(config, Wanted::Configured)?;
        let name = loaded.origin.path.map(|path| path.display().to_string());
        Ok(Self { file: loaded.file, bytes: loaded.origin.bytes, order: loaded.origin.order, name })
    }

    /// Explains an address or a prefix. `names` go before those in the file.
    pub fn explain(&self, peer: IpNet, mut names: BTreeMap<u8, String>) -> Explained {
        for (class, name) in &self.file.names {
            names.entry(*class).or_insert_with(|| name.clone());
        }
        let context = ExplainContext { file: self.name.clone(), names };
        if peer.prefix_len() == peer.max_prefix_len() {
            let explanation = traffic_classes::explain(&self.file, self.order, peer.addr());
            return Explained::Address(explanation.with_context(&self.bytes, context));
        }
        Explained::Prefix(traffic_classes::explain_prefix(&self.file, self.order, peer).with_context(context))
    }
}

impl InForce {
    /// The table in force, by the file that it was compiled from if that is known, or else by its prefixes.
    /// `None` without counters.
    pub fn of_kernel(bpffs: &Bpffs, config: &Config, state_dir: &Path) -> Option<Self> {
        let maps = load::open(bpffs).ok()?;
        let known = Known::of_kernel(&maps, state_dir);
        let hash = known.hash()?;
        let difference = difference_from_table_in_force(config, state_dir, hash, || &known);
        let record = record_of(state_dir, hash);
        if let Some(record) = record
            && let (Some(bytes), Some(order)) = (record.bytes(state_dir), record.order)
        {
            let name = record.file.map(|file| file.display().to_string());
            // The table that Virtuozzo ships comes from no file.
            let files = [traffic_classes::parse(&bytes), ClassFile::shipped()];
            let decides = |file: &ClassFile| traffic_classes::compile(&file.entries, order).hash() == *hash;
            if let Some(file) = files.into_iter().find(decides) {
                let basis = Basis { file, bytes, order, name };
                return Some(Self { basis, difference, only_prefixes: false });
            }
        }
        if difference.is_none()
            && let Some(path) = locate(config)
            && let Ok(bytes) = read_bytes(&path)
        {
            let (file, name) = (traffic_classes::parse(&bytes), Some(path.display().to_string()));
            let basis = Basis { file, bytes, order: config.class_order, name };
            return Some(Self { basis, difference, only_prefixes: false });
        }
        let held = tables::in_force(&maps).ok()?;
        let text: String = held.into_iter().map(|(prefix, class)| format!("{class} {prefix}\n")).collect();
        Some(Self { basis: Basis::of_table(text.into_bytes()), difference, only_prefixes: true })
    }
}
