//! Documents about the class table: of the kernel, or of a ledger's last reading.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use ipnet::IpNet;
use serde::Serialize;
use traffic_classes::ClassFile;

use crate::{
    api::{ReadNames, reader::Reader},
    class_source::{self, Basis, InForce, Known},
    config::Config,
    kernel::{bpffs::Bpffs, counters, load, tables},
    node::status::TableDifference,
    render::{ClassNames, json},
};

/// What is known of a class table.
pub trait Classes: Send + Sync {
    /// The table and the names of classes.
    ///
    /// # Errors
    /// When it cannot be read.
    fn document(&self) -> anyhow::Result<String>;

    /// Why an address or a prefix has its class.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn explain(&self, peer: IpNet) -> anyhow::Result<String>;
}

#[derive(Serialize)]
struct Document {
    table: Option<Table>,
    classes: Vec<Class>,
}

/// The table in force.
#[derive(Serialize)]
struct Table {
    hash: String,
    loaded: String,
    prefixes: u64,
    /// The order under which it was compiled; `null` if that is not known.
    order: Option<String>,
    /// The file that it was loaded from; `null` if it came from none, or none is known.
    file: Option<PathBuf>,
    /// Whether a command named the file.
    by_name: bool,
    /// How the configured file differs; `null` if it does not.
    difference: Option<TableDifference>,
}

/// A class in the table, or with a name.
#[derive(Serialize)]
struct Class {
    class: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    billed: bool,
    prefixes: u64,
}

/// All classes that have prefixes, or names; and class 0, to which everything else belongs.
fn classes(prefixes: impl IntoIterator<Item = u8>, mut names: ClassNames) -> Vec<Class> {
    let mut counts = BTreeMap::from([(0, 0)]);
    prefixes.into_iter().for_each(|class| *counts.entry(class).or_default() += 1);
    names.keys().for_each(|class| {
        counts.entry(*class).or_default();
    });
    let class = |(class, prefixes)| Class { class, name: names.remove(&class), billed: class != 0, prefixes };
    counts.into_iter().map(class).collect()
}

/// The classes of a node.
pub struct NodeClasses {
    /// Where the counters are pinned.
    pub bpffs: Bpffs,
    /// The configuration in force.
    pub config: Box<dyn Fn() -> Arc<Config> + Send + Sync>,
    /// The directory of the state that survives a reboot.
    pub state_dir: PathBuf,
}

impl Classes for NodeClasses {
    fn document(&self) -> anyhow::Result<String> {
        let (config, maps) = ((self.config)(), load::open(&self.bpffs)?);
        let info = counters::class_table(&maps)?;
        let known = || Known::of_kernel(&maps, &self.state_dir);
        let difference =
            class_source::difference_from_table_in_force(&config, &self.state_dir, &info.hash, known);
        let record = class_source::record_of(&self.state_dir, &info.hash);
        let order = record.as_ref().and_then(|record| record.order).map(|order| order.to_string());
        let (file, by_name) = record.map_or((None, false), |record| (record.file, record.by_name));
        let table = Table {
            hash: info.hash_hex(),
            loaded: info.loaded.to_string(),
            prefixes: info.prefixes,
            order,
            file,
            by_name,
            difference: difference.map(TableDifference::from),
        };
        let held = tables::in_force(&maps)?.into_iter().map(|(_, class)| class);
        let names = class_source::class_names(&config, &self.state_dir);
        json::document(&Document { table: Some(table), classes: classes(held, names) })
    }

    fn explain(&self, peer: IpNet) -> anyhow::Result<String> {
        let config = (self.config)();
        let basis = match InForce::of_kernel(&self.bpffs, &config, &self.state_dir) {
            Some(in_force) => in_force.basis,
            None => Basis::configured(&config)?,
        };
        json::document(&basis.explain(peer, class_source::class_names(&config, &self.state_dir)))
    }
}

/// The classes of a ledger: the table of its last reading.
pub struct LedgerClasses {
    /// The ledger.
    pub reader: Reader,
    /// Names of classes.
    pub names: Arc<ReadNames>,
}

impl LedgerClasses {
    fn stored(&self) -> anyhow::Result<Option<traffic_ledger::KnownClassTable>> {
        let ledger = self.reader.open().map_err(|error| self.reader.cannot_open(error))?;
        Ok(ledger.class_table_of_last_reading()?)
    }
}

impl Classes for LedgerClasses {
    fn document(&self) -> anyhow::Result<String> {
        let (mut table, mut held) = (None, ClassFile::default());
        if let Some(stored) = self.stored()? {
            held = traffic_classes::parse(stored.content.as_deref().unwrap_or_default());
            table = Some(Table {
                hash: stored.hash,
                loaded: stored.loaded.to_string(),
                prefixes: stored.prefixes,
                order: None,
                file: None,
                by_name: false,
                difference: None,
            });
        }
        let held = held.entries.into_iter().map(|entry| entry.class);
        json::document(&Document { table, classes: classes(held, (self.names)()) })
    }

    fn explain(&self, peer: IpNet) -> anyhow::Result<String> {
        let text = self.stored()?.and_then(|stored| stored.content);
        let text = text.ok_or_else(|| {
            anyhow::anyhow!(
                "the ledger holds no class table of its last reading, so that no class can be explained; `trafctl \
                 classes explain` on the node can"
            )
        })?;
        json::document(&Basis::of_table(text).explain(peer, (self.names)()))
    }
}
