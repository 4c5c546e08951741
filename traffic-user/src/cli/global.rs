//! The options that every command takes, and what commands open by them.

use std::{
    path::{Path, PathBuf},
    sync::Once,
};

use anyhow::{Context as _, bail};
use clap::{ArgAction, Args};
use traffic_ledger::{Ledger, LedgerError};
use traffic_model::{ContainerId, Snapshot};

use crate::{
    class_source,
    cli::progress,
    config::{Chosen, Config, DEFAULT_PATH},
    drain::{ledger_config, ledger_path},
    kernel::bpffs::Bpffs,
    net::{interface::NetInterface, netlink::Netlink},
    node::Host,
    ownership::{
        Ownership,
        address_file::AddressFile,
        interface_rules::{Role, Sources},
        names,
    },
    platform::survey::Surveyor,
    queries::{FindContainers, IdsOf, QuotaFiles},
    render::ClassNames,
};

/// The name of the file with the quotas.
const QUOTA_FILE: &str = "quotas.toml";

/// Options that may stand before or after any command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Configuration file [default: /etc/trafctl/trafctl.toml, which need not exist]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "TRAFCTL_CONFIG",
        hide_env_values = true,
        display_order = 900
    )]
    pub(super) config: Option<PathBuf>,
    /// Directory on the BPF file system for the pinned program, maps and links
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "TRAFCTL_BPFFS",
        hide_env_values = true,
        default_value = "/sys/fs/bpf/trafctl",
        display_order = 901
    )]
    pub(super) bpffs: PathBuf,
    /// Directory for data that must survive a reboot
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "TRAFCTL_STATE_DIR",
        hide_env_values = true,
        default_value = "/var/lib/trafctl",
        display_order = 902
    )]
    pub(super) state_dir: PathBuf,
    /// Print more messages; twice for debugging
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = 903)]
    pub(super) verbose: u8,
    /// Print help; --help prints more than -h
    #[arg(short, long, global = true, action = ArgAction::Help, display_order = 904)]
    help: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, global = true, action = ArgAction::Version, display_order = 905)]
    version: Option<bool>,
}

impl Global {
    /// The configuration, for commands that must not work with another than the file has now.
    pub(super) fn config(&self) -> anyhow::Result<Config> {
        Ok(Config::load(self.config.as_deref())?)
    }

    /// The configuration, or the last good one while the file has a mistake, which is logged.
    pub(super) fn config_or_last_good(&self) -> anyhow::Result<Config> {
        Ok(self.logged(self.chosen()?).config)
    }

    /// The configuration for a command that only shows what is there. Returns whether the file is usable; if
    /// not, the mistake is logged.
    pub(super) fn config_to_show(&self) -> (Config, bool) {
        let chosen = self.logged(Config::load_to_show(self.config.as_deref(), &self.state_dir));
        (chosen.config, chosen.origin.mistake.is_none())
    }

    /// The file with the quotas: beside the configuration.
    pub(super) fn quota_file(&self) -> PathBuf {
        let config = self.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        config.with_file_name(QUOTA_FILE)
    }

    /// The quotas, and who the containers are that they name.
    pub(super) fn quota_files(&self) -> QuotaFiles {
        let global = self.clone();
        let ids = move || -> IdsOf {
            // Without the files that name owners, each container has one id.
            let ownership = global.identities(&global.config_to_show().0).ok();
            Box::new(move |container| {
                let of_files = ownership.as_ref().map(|ownership| ownership.ids_in_ledger(container));
                of_files.unwrap_or_else(|| vec![container.to_owned()])
            })
        };
        QuotaFiles { file: self.quota_file(), state_dir: self.state_dir.clone(), ids: Box::new(ids) }
    }

    /// The names of classes. They need neither a usable configuration nor a class file.
    pub(super) fn class_names(&self) -> ClassNames {
        class_source::class_names(&self.config_to_show().0, &self.state_dir)
    }

    fn chosen(&self) -> anyhow::Result<Chosen> {
        Ok(Config::load_or_last_good(self.config.as_deref(), &self.state_dir)?)
    }

    fn logged(&self, chosen: Chosen) -> Chosen {
        static ONCE: Once = Once::new();
        if let Some(mistake) = &chosen.origin.mistake {
            ONCE.call_once(|| tracing::error!("{mistake}"));
        }
        chosen
    }

    /// The pinned objects, for commands that only read.
    pub(super) fn pinned(&self) -> Bpffs {
        Bpffs::new(&self.bpffs)
    }

    pub(super) fn address_file(&self) -> AddressFile {
        AddressFile::new(&self.state_dir)
    }

    /// Which container an interface or an address belongs to, by all files that name one.
    pub(super) fn identities(&self, config: &Config) -> anyhow::Result<Ownership> {
        Ownership::read(config, &self.state_dir, None)
    }

    /// All ids that the containers asked for are known by: a number finds what is counted under a UUID, and
    /// vice versa.
    pub(super) fn all_ids(&self, config: &Config, typed: &[ContainerId]) -> anyhow::Result<Vec<ContainerId>> {
        if typed.is_empty() {
            return Ok(Vec::new());
        }
        let identities = self.identities(config)?;
        Ok(typed.iter().flat_map(|id| identities.rules.all_ids(id)).collect())
    }

    /// All ids that the containers asked for are known by, and those of the containers with these names. A container
    /// that is configured, or that has an interface, is known even if it has no traffic yet.
    ///
    /// # Errors
    /// [`UnknownContainer`](crate::ownership::UnknownContainer) for the first that nothing on this node knows,
    /// [`AmbiguousName`](crate::ownership::AmbiguousName) for a name of several containers.
    pub(super) fn find(
        &self,
        config: &Config,
        typed: &[ContainerId],
        snapshot: &Snapshot,
    ) -> anyhow::Result<Vec<ContainerId>> {
        if typed.is_empty() {
            return Ok(Vec::new());
        }
        let ownership = self.identities(config)?;
        let mut host = None;
        let mut found = Vec::new();
        for id in typed {
            let ids = ownership.rules.all_ids(id);
            if ownership.knows(&ids, config, snapshot) {
                found.extend(ids);
                continue;
            }
            let (interfaces, sources) = match &mut host {
                Some(host) => host,
                none => none.insert(look_at_host()?),
            };
            if owns_interface(&ownership, (interfaces, sources), &ids) {
                found.extend(ids);
                continue;
            }
            let names = ownership.names(config, sources.survey.names());
            found.extend(ownership.all_ids_of_named(&names, id)?);
        }
        Ok(found)
    }

    /// The only container of a name; `None` if none has it now.
    ///
    /// # Errors
    /// [`AmbiguousName`](crate::ownership::AmbiguousName) if several have it.
    pub(super) fn named(&self, config: &Config, name: &str) -> anyhow::Result<Option<ContainerId>> {
        let names = self.identities(config)?.names(config, &Surveyor::default().names());
        Ok(names::only(name, names.ids(name))?)
    }

    /// The ledger, for reading.
    pub(super) fn ledger(&self) -> anyhow::Result<Ledger> {
        let ledger = self.open_ledger(Ledger::open_read_only)?;
        // The figures do not depend on it, but whoever reads them should know.
        self.config_to_show();
        Ok(ledger)
    }

    pub(super) fn ledger_for_writing(&self) -> anyhow::Result<Ledger> {
        let config = ledger_config(&self.config()?);
        self.open_ledger(|path| Ledger::open_with_progress(path, config, &progress::of_migration()))
    }

    /// Migrates an older ledger, with its progress, before the caller takes the lock on the pinned state. What
    /// fails here fails again where the ledger is needed.
    pub(super) fn migrate_ledger(&self) {
        let older = Ledger::open_read_only(&ledger_path(&self.state_dir));
        if matches!(older, Err(LedgerError::Older { .. })) {
            drop(self.ledger_for_writing());
        }
    }

    fn open_ledger(&self, open: impl FnOnce(&Path) -> Result<Ledger, LedgerError>) -> anyhow::Result<Ledger> {
        let path = ledger_path(&self.state_dir);
        let what = || format!("cannot open the ledger {}", path.display());
        match path.try_exists() {
            Ok(true) => open(&path).with_context(what),
            Ok(false) => bail!("{}: it does not exist; start `trafctl run`, which creates it", what()),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                bail!("{}: permission denied; run as root", what())
            }
            Err(error) => Err(error).with_context(what),
        }
    }

    /// Everything a command that changes the kernel needs. While the configuration file has a mistake, the
    /// last good one is used; the caller reports it.
    pub(super) fn host(&self, bpffs: Bpffs) -> anyhow::Result<Host> {
        Host::new(self.chosen()?, bpffs, Netlink::connect()?, &self.state_dir)
    }

    /// The same for a look beside the daemon, which logs everything that is wrong.
    pub(super) fn host_silently(&self, bpffs: Bpffs) -> anyhow::Result<Host> {
        let chosen = Config::load_to_show(self.config.as_deref(), &self.state_dir);
        Host::silent(chosen, bpffs, Netlink::connect()?, &self.state_dir)
    }

    /// The same for a command that only shows what is there, and that reports a mistake by itself.
    pub(super) fn host_to_show(&self, bpffs: Bpffs) -> anyhow::Result<Host> {
        let chosen = Config::load_to_show(self.config.as_deref(), &self.state_dir);
        Host::new(chosen, bpffs, Netlink::connect()?, &self.state_dir)
    }
}

/// The interfaces that exist now, and what the platforms know of them.
fn look_at_host() -> anyhow::Result<(Vec<NetInterface>, Sources)> {
    let netlink = Netlink::connect()?;
    let interfaces = netlink.interfaces()?;
    let survey = Surveyor::default().survey(&netlink, &interfaces)?;
    Ok((interfaces, Sources { survey, ..Sources::default() }))
}

/// Whether an interface belongs to a container with one of these ids, attached or not.
fn owns_interface(
    ownership: &Ownership,
    (interfaces, sources): (&[NetInterface], &Sources),
    ids: &[ContainerId],
) -> bool {
    interfaces.iter().any(|interface| {
        let role = ownership.rules.role(interface, &interface.name, sources);
        matches!(role, Role::Container(id) if ids.contains(&id))
    })
}

/// Finds the containers of a query to the ledger, by the files and platforms of this node.
#[derive(Debug)]
pub(super) struct OnThisNode<'g> {
    global: &'g Global,
    config: Config,
}

impl<'g> OnThisNode<'g> {
    pub(super) fn new(global: &'g Global) -> Self {
        Self { global, config: global.config_to_show().0 }
    }
}

impl FindContainers for OnThisNode<'_> {
    fn all_ids(&self, id: &ContainerId) -> anyhow::Result<Vec<ContainerId>> {
        self.global.all_ids(&self.config, std::slice::from_ref(id))
    }

    fn named(&self, name: &str) -> anyhow::Result<Vec<ContainerId>> {
        let names = self.global.identities(&self.config)?.names(&self.config, &Surveyor::default().names());
        Ok(names.ids(name))
    }
}
