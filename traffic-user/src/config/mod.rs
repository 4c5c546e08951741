//! The configuration file, read and checked as a whole: what comes out of here is usable.

mod file;
mod listen;
mod rules;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use serde::Deserialize;
use traffic_model::{
    ContainerId,
    calendar::{Calendar, Retention},
};

use file::{Complaint, File};

pub use listen::Listen;
pub use rules::{Pattern, Preset, Rule, RuleKind};
pub use traffic_classes::ClassOrder;

/// Where the configuration is, unless told otherwise; it may be absent.
pub const DEFAULT_PATH: &str = "/etc/trafctl/trafctl.toml";
/// Where class files are looked for, in this order.
pub const CLASS_FILES: [&str; 3] = [
    "/etc/vz/conf/networks_classes",
    "/etc/sysconfig/vz-scripts/networks_classes",
    "/etc/trafctl/networks_classes",
];
/// Where Virtuozzo keeps a file for each container.
const VZ_CONF_DIR: &str = "/etc/vz/conf";

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It can't be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{path}:{line}:{column}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What, and what to write instead.
        message: String,
    },
}

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The class file, if one is named.
    pub class_file: Option<PathBuf>,
    /// Which of several matching lines of the class file decides.
    pub class_order: ClassOrder,
    /// This node's name in output.
    pub node: String,
    /// Interfaces where the node's own traffic is counted, as container 0.
    pub uplinks: Vec<String>,
    /// How programs are attached.
    pub attach: AttachSetting,
    /// Whether what containers send gets a mark for a shaper.
    pub shaping_mark: bool,
    /// Where Virtuozzo's container files are.
    pub vz_conf_dir: PathBuf,
    /// Capacities.
    pub limits: Limits,
    /// Names that tell a container, tried in this order.
    pub rules: Vec<Rule>,
    /// Rules tried after them.
    pub preset: Preset,
    /// What tells whose interface it is where neither name nor file does.
    pub identity_command: Option<IdentityCommand>,
    /// What no name tells.
    pub containers: Vec<ContainerConfig>,
    /// How often counters are drained into the ledger.
    pub drain_interval: Duration,
    /// Whether `trafctl run` keeps a ledger.
    pub ledger_enabled: bool,
    /// Time zone and billing day of the ledger's days and months.
    pub calendar: Calendar,
    /// How long the ledger keeps its finer rows.
    pub retention: Retention,
    /// Where metrics are served; nowhere unless said.
    pub api: Option<Listen>,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachSetting {
    /// TCX where the kernel has it, else clsact.
    #[default]
    Auto,
    /// TCX links; kernel 6.6 and later.
    Tcx,
    /// A filter under the clsact qdisc.
    Clsact,
}

/// Capacities of the maps. They are fixed when the counters are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Containers with counters.
    pub containers: u32,
    /// Interfaces with totals of their own.
    pub interfaces: u32,
    /// Classes in use, class 0 included.
    pub classes: u32,
    /// Local prefixes on shared interfaces, each family.
    pub addresses: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { containers: 2048, interfaces: 4096, classes: 16, addresses: 65_536 }
    }
}

/// A command that says whose interface is whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityCommand {
    /// The program's path and its arguments.
    pub words: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// What the configuration says of one container.
#[derive(Clone, Debug)]
pub struct ContainerConfig {
    /// Its id.
    pub id: ContainerId,
    /// Host-side interfaces that are its own.
    pub interfaces: Vec<String>,
    /// Hardware addresses of such interfaces.
    pub macs: Vec<[u8; 6]>,
    /// Local addresses and prefixes on shared interfaces.
    pub addresses: Vec<IpNet>,
}

impl Config {
    /// Reads the file named, or the default one if it exists, or takes the defaults.
    ///
    /// # Errors
    /// When a named file does not exist, or anything in a file is not as it should be.
    pub fn load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        let path = explicit.unwrap_or(Path::new(DEFAULT_PATH));
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound && explicit.is_none() => {
                Self::parse("", path)
            }
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// Checks a text; `path` is for messages.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let place = |complaint: Complaint| {
            let before = text.get(..complaint.span.start).unwrap_or(text);
            ConfigError::Invalid {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.rsplit('\n').next().unwrap_or("").chars().count() + 1,
                message: complaint.message,
            }
        };
        let file: File = toml::from_str(text).map_err(|error| {
            let message = error.message().replace('\n', " ");
            place(Complaint { span: error.span().unwrap_or(0..0), message })
        })?;
        file.check().map_err(place)
    }

    /// Where the class file may be: the one named, or the usual places.
    pub fn class_file_candidates(&self) -> Vec<PathBuf> {
        match &self.class_file {
            Some(path) => vec![path.clone()],
            None => CLASS_FILES.iter().map(PathBuf::from).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("t.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_gives_the_defaults() {
        let config = parse("").unwrap();
        assert_eq!(
            config.limits,
            Limits { containers: 2048, interfaces: 4096, classes: 16, addresses: 65_536 }
        );
        assert_eq!(config.class_order, ClassOrder::Virtuozzo);
        assert_eq!(config.attach, AttachSetting::Auto);
        assert_eq!(config.preset, Preset::Virtuozzo);
        assert_eq!(config.drain_interval, Duration::from_secs(60));
        assert_eq!(config.class_file_candidates().len(), 3);
        assert!(!config.node.is_empty());
        assert_eq!(config.api, None);
        assert!(!config.shaping_mark);
    }

    #[test]
    fn every_key_arrives_where_it_belongs() {
        let config = parse(
            "class_file = '/c'\nclass_order = 'longest-prefix'\nnode = 'n1'\nattach = 'clsact'\nvz_conf_dir = '/v'\n\
             [limits]\ncontainers = 3\ninterfaces = 4\nclasses = 5\naddresses = 6\n\
             [host]\npreset = 'proxmox'\n[identities]\ncommand = ['/bin/ids', '-a']\ntimeout = '3s'\n[[interfaces.rule]]\npattern = '^x(?<container>.+)$'\nkind = 'container'\n\
             [[container]]\nid = '{ABCDEF01-2345-6789-abcd-ef0123456789}'\ninterfaces = ['a']\nmacs = ['00:18:51:AA:bb:cc']\n\
             addresses = ['10.0.0.5', '2001:db8:5::/64']\n[drain]\ninterval = '1m 30s'\n\
             [mark]\nenabled = true\n\
             [ledger]\nenabled = false\ntime_zone = 'Europe/Berlin'\nbilling_day = 15\n\
             [retention]\nfive_minutes = '40d'\nhours = '25 months'\n\
             [api]\nlisten = 'unix:/run/a.sock'\n",
        )
        .unwrap();
        assert_eq!(config.class_file_candidates(), [PathBuf::from("/c")]);
        assert_eq!((config.class_order, config.attach), (ClassOrder::LongestPrefix, AttachSetting::Clsact));
        assert_eq!((config.node.as_str(), config.vz_conf_dir.as_path()), ("n1", Path::new("/v")));
        assert_eq!(config.limits, Limits { containers: 3, interfaces: 4, classes: 5, addresses: 6 });
        assert_eq!((config.preset, config.rules.len()), (Preset::Proxmox, 1));
        let words = vec!["/bin/ids".to_owned(), "-a".to_owned()];
        assert_eq!(config.identity_command, Some(IdentityCommand { words, timeout: Duration::from_secs(3) }));
        let container = &config.containers[0];
        assert_eq!(container.id.as_str(), "abcdef01-2345-6789-abcd-ef0123456789");
        assert_eq!(container.macs, [[0, 0x18, 0x51, 0xaa, 0xbb, 0xcc]]);
        assert_eq!(
            container.addresses,
            ["10.0.0.5/32".parse().unwrap(), "2001:db8:5::/64".parse::<IpNet>().unwrap()]
        );
        assert_eq!(config.drain_interval, Duration::from_secs(90));
        assert!(config.shaping_mark);
        assert_eq!((config.ledger_enabled, config.calendar.billing_day()), (false, 15));
        assert_eq!(config.calendar.zone_name(), "Europe/Berlin");
        let retention = config.retention;
        assert_eq!((retention.five_minutes_days, retention.hours_months), (40, 25));
        assert_eq!(config.api, Some(Listen::Unix("/run/a.sock".into())));
    }

    #[test]
    fn the_node_is_a_name_or_a_table() {
        let config = parse("[node]\nuplinks = ['eth0', 'eth1']\nname = 'n2'\n").unwrap();
        assert_eq!(
            (config.node.as_str(), config.uplinks.as_slice()),
            ("n2", &["eth0", "eth1"].map(String::from)[..])
        );
        let config = parse("node = 'n1'\n").unwrap();
        assert_eq!((config.node.as_str(), config.uplinks.len()), ("n1", 0));
        assert!(!parse("[node]\nuplinks = ['eth0']\n").unwrap().node.is_empty());
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let cases = [
            ("\nnonsense = 1\n", "t.toml:2:1: unknown field `nonsense`"),
            ("attach = 'xdp'\n", "t.toml:1:10: unknown variant `xdp`"),
            ("[limits]\n\nclasses = 256\n", "t.toml:3:11: classes = 256 is out of range: write 1 to 255"),
            ("[limits]\ncontainers = -1\n", "t.toml:2:14: "),
            ("[[container]]\nid = 'a b'\n", "t.toml:2:6: container id \"a b\" is not usable"),
            ("[[container]]\nid = '1'\naddresses = ['10.0.0.1', '10.0.0.1/24']\n", "t.toml:3:26: "),
            ("[[container]]\nid = '1'\nmacs = ['00:11']\n", "t.toml:3:9: this is no hardware address"),
            (
                "[[container]]\nid = '1'\ninterfaces = ['far-too-long-for-a-name']\n",
                "t.toml:3:15: an interface name",
            ),
            (
                "[[container]]\nid = '1'\ninterfaces = ['a0']\n[[container]]\nid = '2'\ninterfaces = ['a0']\n",
                "t.toml:6:15: a0 is container 1's already",
            ),
            ("[[interfaces.rule]]\npattern = '^a$'\nkind = 'container'\n", "t.toml:2:11: a pattern of kind"),
            ("[[interfaces.rule]]\npattern = '('\nkind = 'ignore'\n", "t.toml:2:11: "),
            ("[drain]\ninterval = '50ms'\n", "t.toml:2:12: \"50ms\" is too short; write 100ms to 24h"),
            ("[drain]\ninterval = '25h'\n", "t.toml:2:12: \"25h\" is too long; write 100ms to 24h"),
            ("[drain]\ninterval = 'soon'\n", "t.toml:2:12: \"soon\" is not a duration; write "),
            ("[ledger]\nbilling_day = 32\n", "t.toml:2:15: a billing month begins"),
            ("[ledger]\ntime_zone = 'Europe/Nowhere'\n", "t.toml:2:13: "),
            (
                "[retention]\nfive_minutes = '0d'\n",
                "t.toml:2:16: \"0d\" is out of range; write a whole number of days from 1d to 65535d",
            ),
            (
                "[retention]\nfive_minutes = '35'\n",
                "t.toml:2:16: \"35\" is not a whole number of days; write ",
            ),
            ("[retention]\nhours = '2 years'\n", "t.toml:2:9: \"2 years\" is not a number of months; write "),
            ("[retention]\nhours = '70000 months'\n", "t.toml:2:9: \"70000 months\" is out of range; write "),
            ("[retention]\ndays = '1d'\n", "t.toml:2:1: unknown field `days`"),
            ("[api]\nlisten = '0.0.0.0:9177'\n", "t.toml:2:10: 0.0.0.0 is not loopback"),
            ("[api]\nport = 1\n", "t.toml:2:1: unknown field `port`"),
            ("[mark]\nenabled = 'yes'\n", "t.toml:2:11: invalid type: string \"yes\", expected a boolean"),
            ("[mark]\nshift = 5\n", "t.toml:2:1: unknown field `shift`"),
            ("node = ''\n", "t.toml:1:8: the node's name is empty"),
            ("[node]\nname = ''\n", "t.toml:2:8: the node's name is empty"),
            ("[node]\nuplinks = ['eth0', '']\n", "t.toml:2:20: an interface name"),
            ("[node]\nuplink = 'eth0'\n", "t.toml:2:1: unknown field `uplink`"),
            ("node = 3\n", "t.toml:1:8: invalid type: integer `3`, expected the node's name, or a table"),
            ("[identities]\ncommand = ['ids']\n", "t.toml:2:11: write the command as"),
            ("[identities]\ntimeout = '2m'\n", "t.toml:2:11: \"2m\" is too long; write 1ms to 1m"),
            ("[identities]\ntimeout = '0s'\n", "t.toml:2:11: \"0s\" is too short; write 1ms to 1m"),
            (
                "[[container]]\nid = '0'\n",
                "t.toml:2:6: container id \"0\" is not usable: it is the node itself",
            ),
            (
                "[[interfaces.rule]]\npattern = '^v(?<container>.)$'\nkind = 'mapped'\n",
                "t.toml:2:11: only a pattern",
            ),
            (
                "[[container]]\nid = '1'\nmacs = ['00-18-51-aa-bb-cc']\n[[container]]\nid = '2'\nmacs = ['001851AABBCC']\n",
                "t.toml:6:9: 001851AABBCC is container 1's already",
            ),
            ("a = \n", "t.toml:1:"),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{text:?} gave {error:?}");
            assert!(!error.contains('\n'), "{error:?} is one line");
        }
    }

    #[test]
    fn a_named_file_must_exist() {
        let error = Config::load(Some(Path::new("/nonexistent/t.toml"))).unwrap_err();
        assert!(error.to_string().starts_with("cannot read the configuration /nonexistent/t.toml: "));
    }
}
