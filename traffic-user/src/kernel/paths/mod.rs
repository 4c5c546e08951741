//! The path programs: which way packets take through the node, for as long as somebody measures.
//!
//! | file | owns |
//! |---|---|
//! | this one | a measurement: loading, counting, reading |
//! | `local` | seeing what is delivered to the node itself |
//!
//! Nothing is pinned. Whatever ends the process ends the measurement, and counting goes on as before.

mod local;

use anyhow::{Context as _, bail};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{HashMap, MapData},
    programs::BtfTracePoint,
};
use traffic_common::{
    PATH_BEGIN_PROGRAM, PATH_DROPPED_PROGRAM, PATH_RECEIVED_PROGRAM, PATH_SENT_PROGRAM, PathControl, PathKey,
    PathTally,
};

use super::{bpffs::Bpffs, drops::layout, maps::Elements, memory, verdict::verdict};

/// The path programs, as the build script compiled them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/trafctl-paths"));

/// The pinned maps by which they know an interface.
const READ: [&str; 2] = ["INTERFACE_BY_INDEX", "INTERFACE_BY_HIGH_INDEX"];
/// Programs and their tracepoints. The one that ends a packet's way before the one that begins it: what was begun
/// before the first measurement is not waited for.
const TRACEPOINTS: [(&str, &str); 4] = [
    (PATH_DROPPED_PROGRAM, "kfree_skb"),
    (PATH_SENT_PROGRAM, "net_dev_xmit"),
    (PATH_BEGIN_PROGRAM, "net_dev_start_xmit"),
    (PATH_RECEIVED_PROGRAM, "netif_receive_skb"),
];
/// A running measurement.
#[derive(Debug)]
pub struct Paths {
    /// Holds the programs and their attachments.
    _object: Ebpf,
    /// The same of what is delivered to the node.
    _local: Option<local::Attached>,
    control: Elements<PathControl>,
    ways: HashMap<MapData, PathKey, PathTally>,
    shown_as: HashMap<MapData, u32, u32>,
    /// Why it cannot be seen what is delivered to the node itself, if so.
    pub without_local: Option<String>,
}

/// What took which way while it was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Each way once, in no order.
    pub ways: Vec<(PathKey, PathTally)>,
    /// Packets that found no room, or whose way was not seen from its beginning.
    pub lost: u32,
}

impl Paths {
    /// Loads and attaches the programs. They count nothing yet.
    ///
    /// # Errors
    /// When there are no counters, or the kernel lacks BTF or refuses a program.
    pub fn load(bpffs: &Bpffs) -> anyhow::Result<Self> {
        let (facts, _) = layout::of_running_kernel()
            .context("the way of packets cannot be measured without the types of the running kernel")?;
        let types = Btf::from_sys_fs()?;
        let mut loader = EbpfLoader::new();
        loader.override_global("DROP_LAYOUT", &facts, true);
        for name in READ {
            let pin = bpffs.map(name);
            if !pin.exists() {
                bail!("map {name} has been removed");
            }
            loader.map_pin_path(name, pin);
        }
        memory::lift_limit();
        let mut object = loader.load(OBJECT).context("the kernel refused the maps of the path programs")?;
        for (name, tracepoint) in TRACEPOINTS {
            let program: &mut BtfTracePoint = program(&mut object, name)?.try_into()?;
            program.load(tracepoint, &types).map_err(|error| refused(name, &error))?;
            program.attach().with_context(|| format!("cannot attach {name} to {tracepoint}"))?;
        }
        let (local, without_local) = match local::attach(&mut object, &types) {
            Ok(attached) => (Some(attached), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let mut map =
            |name: &str| object.take_map(name).with_context(|| format!("the object file has no map {name}"));
        let (control, ways, shown_as) = (map("PATH_CONTROL")?, map("PATHS")?, map("SHOWN_AS")?);
        Ok(Self {
            control: Elements::new("PATH_CONTROL", control)?,
            ways: HashMap::try_from(ways)?,
            shown_as: HashMap::try_from(shown_as)?,
            _object: object,
            _local: local,
            without_local,
        })
    }

    /// Tells under which interface the kernel shows what comes in on another one. Before anything is counted.
    ///
    /// # Errors
    /// When the map cannot be written, or has no room.
    pub fn show_as(&mut self, interfaces: impl IntoIterator<Item = (u32, u32)>) -> anyhow::Result<()> {
        for (interface, shown) in interfaces {
            self.shown_as.insert(interface, shown, 0).context("cannot write the map SHOWN_AS")?;
        }
        Ok(())
    }

    /// Starts or ends the counting.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn count(&mut self, is_active: bool) -> anyhow::Result<()> {
        let before = self.control.get(0)?;
        self.control.set(0, PathControl { is_active: is_active.into(), ..before })
    }

    /// Reads what was counted.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn read(&self) -> anyhow::Result<Ways> {
        let lost = self.control.get(0)?.lost;
        Ok(Ways { ways: self.ways.iter().collect::<Result<_, _>>()?, lost })
    }
}

fn program<'o>(object: &'o mut Ebpf, name: &str) -> anyhow::Result<&'o mut aya::programs::Program> {
    object.program_mut(name).with_context(|| format!("the object file has no program {name}"))
}

fn refused(name: &str, error: &aya::programs::ProgramError) -> anyhow::Error {
    anyhow::anyhow!("the kernel refused {name}: {}", verdict(name, error))
}
