//! A simulated node for tests: counters that grow, adjustable clocks, and the sums that the ledger must
//! reach.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::missing_errors_doc,
    reason = "test support, compiled into tests only"
)]

pub mod seeded;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use traffic_common::{DropGroup, FAULTS, Family, Fault, Tally};
use traffic_model::{
    Balance, ByDirection, ClassCounter, ClassTableInfo, ContainerId, DropCounter, DropReading, FaultCounter,
    InterfaceCounter, PassedCounter, Snapshot, calendar::Level,
};

use crate::{
    AdjustmentRequest, CalibrationRecord, DrainContext, DrainOutcome, DrainTrigger, Ledger, LedgerConfig,
    LedgerError, OnProgress,
    schema::{DROPPED, KINDS_BEFORE_12, PACKED_LEVELS, packed_levels},
};

/// 2026-11-10, noon UTC.
pub const NOON: i64 = 1_794_312_000;
pub const EVERY_MINUTE: DrainContext =
    DrainContext { interval: Duration::from_secs(60), trigger: DrainTrigger::Interval };
pub const STARTED: DrainContext = DrainContext { trigger: DrainTrigger::Started, ..EVERY_MINUTE };

/// SQL that removes what came with version 13. What is left of the chain takes more kinds of entries than it did.
pub const WITHOUT_KEYS: &str = "DROP TABLE key_change; DROP TABLE calibration;";

/// SQL that removes the tables of drops, which came with version 12, and what came later.
pub fn without_drops() -> String {
    let of_level = |level| {
        let (view, rows) = (DROPPED.table(level), DROPPED.rows_table(level));
        let packed = format!("DROP VIEW {view}; DROP VIEW {view}_bytes; DROP TABLE {view}_days;");
        format!("{} DROP TABLE {rows};", if PACKED_LEVELS.contains(&level) { packed.as_str() } else { "" })
    };
    WITHOUT_KEYS.to_owned()
        + "DROP TABLE drop_reading; DROP TABLE drop_set;"
        + &Level::ALL.map(of_level).concat()
}

/// SQL that makes a ledger one of schema version 5, in which all days are rows.
pub fn as_version_5() -> String {
    let mut sql = "DROP TABLE outbox; DROP TABLE changes; DROP TABLE lineage; DROP TABLE attribution;
                   DROP TABLE container_name; DROP TABLE interface_owner; DROP TABLE owner_change;
                   DROP TABLE quota_track; DROP TABLE quota_used; DROP TABLE quota_threshold;
                   DROP TABLE quota_crossing;
                   PRAGMA legacy_alter_table = ON; DROP VIEW log_data;"
        .to_owned();
    sql.push_str(&without_drops());
    for (kind, level) in packed_levels(&KINDS_BEFORE_12) {
        let (view, rows, days) = (kind.table(level), kind.rows_table(level), kind.days_table(level).unwrap());
        let keys = kind.keys.join(", ");
        let sums: Vec<String> = kind.values.iter().map(|value| format!("sum({value})")).collect();
        sql.push_str(&format!(
            "CREATE TEMP TABLE both AS SELECT start, {keys}, {} FROM {view} GROUP BY start, {keys};
             DROP VIEW {view}; DROP VIEW {view}_bytes; DROP TABLE {days}; DELETE FROM {rows}; INSERT INTO {rows} SELECT * FROM both;
             DROP TABLE both; ALTER TABLE {rows} RENAME TO {view};",
            sums.join(", "),
        ));
    }
    sql + "DROP VIEW byte_at; CREATE VIEW log_data AS SELECT 1; PRAGMA legacy_alter_table = OFF; PRAGMA user_version = 5;"
}

/// SQL that makes a ledger one of schema version 3.
pub fn as_version_3() -> String {
    as_version_5()
        + "DELETE FROM booked WHERE kind = 3; DROP TABLE border; DROP TABLE clock; DROP TABLE closed_rate; DROP TABLE digest;
           PRAGMA user_version = 3;"
}

/// A zone with a first offset and changes of it, at seconds since the Unix epoch, as compiled by zic.
pub fn zone(name: &str, first_s: i32, changes: &[(i64, i32)]) -> TimeZone {
    let header = |transitions: u32, types: u32| {
        let mut header = b"TZif2".to_vec();
        header.resize(20, 0);
        for count in [0, 0, 0, transitions, types, 4] {
            header.extend(count.to_be_bytes());
        }
        header
    };
    let of_type = |offset_s: i32| [offset_s.to_be_bytes().as_slice(), &[0, 0]].concat();
    let types = u32::try_from(changes.len()).unwrap() + 1;
    let mut data = [header(0, 1), of_type(first_s), b"XXX\0".to_vec(), header(types - 1, types)].concat();
    changes.iter().for_each(|(at, _)| data.extend(at.to_be_bytes()));
    (1..types).for_each(|number| data.push(u8::try_from(number).unwrap()));
    data.extend(of_type(first_s));
    changes.iter().for_each(|&(_, offset_s)| data.extend(of_type(offset_s)));
    data.extend(b"XXX\0\n");
    let last_s = changes.last().map_or(first_s, |change| change.1);
    // POSIX counts offsets to the west.
    let (sign, last_s) = if last_s > 0 { ("-", last_s) } else { ("", -last_s) };
    data.extend(
        format!("<X>{sign}{}:{:02}\n", last_s / 3600, last_s / 60 % 60).replace("<X>", "XXX").bytes(),
    );
    TimeZone::tzif(name, &data).unwrap()
}

/// Packets in, bytes in, packets out, bytes out.
pub type Sums = [u64; 4];

#[derive(Clone)]
pub struct Node {
    pub name: String,
    pub boot_id: String,
    pub epoch: u64,
    pub epoch_created: Timestamp,
    pub wall: Timestamp,
    pub boottime: Duration,
    pub table: u8,
    pub table_loaded: Timestamp,
    pub counters: BTreeMap<(String, u32, u8), Sums>,
    pub interfaces: Vec<InterfaceCounter>,
    pub faults: Vec<FaultCounter>,
    /// All traffic so far, by container and class.
    pub truth: BTreeMap<(String, u8), Sums>,
    /// What passed a shared interface: all classes and faults of the epoch. Most tests have no such
    /// interface.
    pub passed: Option<Sums>,
    /// What was counted in slots that were reassigned.
    pub former: Sums,
    /// Containers whose traffic is IPv6.
    pub ipv6: BTreeSet<String>,
    /// The set of drop counters, and when it began. Most tests have none.
    pub drop_set: Option<(u32, Timestamp)>,
    pub last_drop_set: u32,
    pub drops: BTreeMap<(String, u32, u8, DropGroup), Sums>,
    /// Whether the drop counters cannot be read.
    pub drops_hidden: bool,
}

/// Adds to sums.
pub fn add(total: &mut Sums, sums: Sums) {
    total.iter_mut().zip(sums).for_each(|(total, value)| *total += value);
}

/// Progress that nobody looks at.
pub fn quietly() -> OnProgress {
    std::sync::Arc::new(|_| {})
}

pub fn time(unix_s: i64) -> Timestamp {
    Timestamp::from_second(unix_s).unwrap()
}

pub fn id(name: &str) -> ContainerId {
    ContainerId::new(name).unwrap()
}

impl Node {
    pub fn new(unix_s: i64) -> Self {
        Self {
            name: "node1".to_owned(),
            boot_id: "boot-1".to_owned(),
            epoch: 0xfeed_0000_0000_0001,
            epoch_created: time(unix_s),
            wall: time(unix_s),
            boottime: Duration::from_secs(100),
            table: 1,
            table_loaded: time(unix_s),
            counters: BTreeMap::new(),
            interfaces: Vec::new(),
            faults: Vec::new(),
            truth: BTreeMap::new(),
            passed: None,
            former: [0; 4],
            ipv6: BTreeSet::new(),
            drop_set: None,
            last_drop_set: 0,
            drops: BTreeMap::new(),
            drops_hidden: false,
        }
    }

    /// A node whose classes and faults equal what passed.
    pub fn balanced(unix_s: i64) -> Self {
        Self { passed: Some([0; 4]), ..Self::new(unix_s) }
    }

    pub fn pass(&mut self, seconds: u64) -> &mut Self {
        self.wall += SignedDuration::from_secs(seconds.cast_signed());
        self.boottime += Duration::from_secs(seconds);
        self
    }

    pub fn set_clock(&mut self, by_s: i64) -> &mut Self {
        self.wall += SignedDuration::from_secs(by_s);
        self
    }

    /// Adds traffic to the container's slot of generation 1.
    pub fn traffic(&mut self, container: &str, class: u8, sums: Sums) -> &mut Self {
        self.traffic_in(container, 1, class, sums)
    }

    pub fn traffic_in(&mut self, container: &str, generation: u32, class: u8, sums: Sums) -> &mut Self {
        let live = self.counters.entry((container.to_owned(), generation, class)).or_default();
        let truth = self.truth.entry((container.to_owned(), class)).or_default();
        for total in [Some(live), Some(truth), self.passed.as_mut()].into_iter().flatten() {
            add(total, sums);
        }
        self
    }

    /// Begins a new set of drop counters.
    pub fn count_drops(&mut self) -> &mut Self {
        self.last_drop_set += 1;
        self.drop_set = Some((self.last_drop_set, self.wall));
        self.drops.clear();
        self
    }

    /// Removes the drop counters.
    pub fn stop_drops(&mut self) -> &mut Self {
        self.drop_set = None;
        self.drops.clear();
        self
    }

    /// Drops traffic of the container's slot of generation 1.
    pub fn dropped(&mut self, container: &str, class: u8, group: DropGroup, sums: Sums) -> &mut Self {
        self.dropped_in((container, 1), class, group, sums)
    }

    pub fn dropped_in(
        &mut self,
        (container, generation): (&str, u32),
        class: u8,
        group: DropGroup,
        sums: Sums,
    ) -> &mut Self {
        if self.drop_set.is_some() {
            add(self.drops.entry((container.to_owned(), generation, class, group)).or_default(), sums);
        }
        self
    }

    fn drop_reading(&self) -> Option<DropReading> {
        let (set, since) = self.drop_set.filter(|_| !self.drops_hidden)?;
        let counters = self.drops.iter().map(|((container, generation, class, group), sums)| DropCounter {
            container: id(container),
            generation: *generation,
            class: *class,
            family: if self.ipv6.contains(container) { Family::Ipv6 } else { Family::Ipv4 },
            group: *group,
            tally: ByDirection {
                incoming: Tally { packets: sums[0], bytes: sums[1] },
                outgoing: Tally { packets: sums[2], bytes: sums[3] },
            },
        });
        Some(DropReading { set, since, counters: counters.collect() })
    }

    /// Reassigns the container's slots.
    pub fn give_away(&mut self, container: &str) -> &mut Self {
        let former = &mut self.former;
        self.counters.retain(|(owner, ..), sums| {
            let goes = owner == container;
            if goes {
                add(former, *sums);
            }
            !goes
        });
        self.drops.retain(|(owner, ..), _| owner != container);
        self
    }

    /// Reboots: new boot id and new maps, `down_s` seconds later.
    pub fn reboot(&mut self, down_s: i64) -> &mut Self {
        self.wall += SignedDuration::from_secs(down_s);
        self.boottime = Duration::from_secs(30);
        self.boot_id.push('+');
        self.renew_maps()
    }

    pub fn renew_maps(&mut self) -> &mut Self {
        self.epoch += 1;
        self.epoch_created = self.wall;
        self.counters.clear();
        self.interfaces.clear();
        self.faults.clear();
        self.passed = self.passed.map(|_| [0; 4]);
        self.former = [0; 4];
        if self.drop_set.is_some() {
            self.count_drops();
        }
        self
    }

    /// What the kernel counted on the interface added last, and the attached program did not.
    pub fn bypassed(&mut self, missed: u64) -> &mut Self {
        if let Some(interface) = self.interfaces.last_mut() {
            let incoming = &mut interface.passed.incoming;
            incoming.missed_skbs += missed;
            incoming.missed_skb_bytes += missed * 114;
            incoming.bypassed = Tally { packets: missed, bytes: missed * 114 };
        }
        self
    }

    pub fn interface(&mut self, name: &str, container: Option<&str>, passed: u64, before: u64) -> &mut Self {
        let counter = PassedCounter {
            wire: Tally { packets: passed, bytes: passed * 100 },
            skbs: passed,
            skb_bytes: passed * 114,
            estimated: Tally::default(),
            small_segments: Tally::default(),
            copies: Tally::default(),
            missed_skbs: before,
            missed_skb_bytes: before * 114,
            bypassed: Tally::default(),
            excess: Tally::default(),
        };
        self.interfaces.retain(|interface| interface.interface != name);
        self.interfaces.push(InterfaceCounter {
            interface: name.to_owned(),
            generation: 1,
            container: container.map(id),
            ifindex: Some(7),
            // Whatever changes about it shows when it is attached again.
            attached: self.wall,
            passed: ByDirection { incoming: counter, outgoing: PassedCounter::default() },
            accounted: ByDirection {
                incoming: Tally { packets: before + passed, bytes: (before + passed) * 114 },
                outgoing: Tally::default(),
            },
        });
        self
    }

    pub fn fault(&mut self, interface: &str, fault: Fault, packets: u64) -> &mut Self {
        let tally = Tally { packets, bytes: packets * 60 };
        if let Some(passed) = &mut self.passed {
            add(passed, [0, 0, packets, packets * 60]);
        }
        self.faults.push(FaultCounter {
            interface: interface.to_owned(),
            generation: 1,
            fault,
            tally: ByDirection { incoming: Tally::default(), outgoing: tally },
        });
        self
    }

    /// The shared interface that all traffic passed.
    fn all_passed(&self) -> Option<InterfaceCounter> {
        let passed = |packets, bytes| PassedCounter {
            wire: Tally { packets, bytes },
            skbs: packets,
            skb_bytes: bytes + packets * 14,
            ..PassedCounter::default()
        };
        self.passed.map(|[in_packets, in_bytes, out_packets, out_bytes]| InterfaceCounter {
            interface: "venet0".to_owned(),
            generation: 1,
            container: None,
            ifindex: None,
            attached: self.epoch_created,
            passed: ByDirection {
                incoming: passed(in_packets, in_bytes),
                outgoing: passed(out_packets, out_bytes),
            },
            accounted: ByDirection::default(),
        })
    }

    pub fn snapshot(&self) -> Snapshot {
        let counters = self.counters.iter().map(|((container, generation, class), sums)| ClassCounter {
            container: id(container),
            generation: *generation,
            is_retired: false,
            class: *class,
            family: if self.ipv6.contains(container) { Family::Ipv6 } else { Family::Ipv4 },
            tally: ByDirection {
                incoming: Tally { packets: sums[0], bytes: sums[1] },
                outgoing: Tally { packets: sums[2], bytes: sums[3] },
            },
        });
        Snapshot {
            node: self.name.clone(),
            boot_id: self.boot_id.clone(),
            epoch: self.epoch,
            epoch_created: self.epoch_created,
            time: self.wall,
            boottime_ns: u64::try_from(self.boottime.as_nanos()).unwrap(),
            class_table: ClassTableInfo { hash: [self.table; 32], loaded: self.table_loaded, prefixes: 2 },
            counters: counters.collect(),
            faults: self.faults.clone(),
            interfaces: self.interfaces.iter().cloned().chain(self.all_passed()).collect(),
            former: self.former_balance(),
            former_faults: [Tally::default(); FAULTS],
            former_estimated: Tally::default(),
            former_small_segments: Tally::default(),
            former_copies: Tally::default(),
            drops: self.drop_reading(),
        }
    }

    fn former_balance(&self) -> ByDirection<Balance> {
        let [in_packets, in_bytes, out_packets, out_bytes] = self.former;
        let classes = |packets, bytes| Balance { classes: Tally { packets, bytes }, ..Balance::default() };
        ByDirection { incoming: classes(in_packets, in_bytes), outgoing: classes(out_packets, out_bytes) }
    }

    pub fn drain(&self, ledger: &mut Ledger) -> DrainOutcome {
        ledger.drain(&self.snapshot(), EVERY_MINUTE).unwrap()
    }

    pub fn try_drain(&self, ledger: &mut Ledger) -> Result<DrainOutcome, LedgerError> {
        ledger.drain(&self.snapshot(), EVERY_MINUTE)
    }
}

pub struct File {
    pub dir: tempfile::TempDir,
    pub ledger: Ledger,
}

pub fn ledger() -> File {
    ledger_with(LedgerConfig::default())
}

/// Without syncing to disk, which only a power loss would show.
pub fn ledger_with(config: LedgerConfig) -> File {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&dir.path().join("ledger.sqlite"), config).unwrap();
    ledger.conn.execute_batch("PRAGMA synchronous = OFF").unwrap();
    File { dir, ledger }
}

/// Changes a ledger as somebody does who opens the file with another program.
pub fn from_outside(ledger: &Ledger, sql: &str) {
    rusqlite::Connection::open(ledger.path()).unwrap().execute_batch(sql).unwrap();
}

/// Sums of a traffic table, by container and class.
pub fn sums(ledger: &Ledger, table: &str) -> BTreeMap<(String, u8), Sums> {
    let sql = format!(
        "SELECT c.label, t.class, sum(in_packets), sum(in_bytes), sum(out_packets), sum(out_bytes)
         FROM {table} t JOIN container c ON c.id = t.container GROUP BY 1, 2"
    );
    let mut statement = ledger.conn.prepare(&sql).unwrap();
    let rows = statement.query_map([], |row| {
        let value = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        Ok(((row.get(0)?, row.get(1)?), [value(2)?, value(3)?, value(4)?, value(5)?]))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// Starts of the five-minute buckets with traffic, with their incoming bytes.
pub fn buckets(ledger: &Ledger) -> Vec<(i64, i64)> {
    let mut statement = ledger
        .conn
        .prepare("SELECT start, sum(in_bytes) FROM traffic_5min GROUP BY start ORDER BY start")
        .unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// A container with an interface of its own, one on a shared interface, and faults on both.
pub fn node_with_faults() -> (File, Node) {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [20, 2000, 0, 0]).traffic("101", 0, [7, 700, 0, 0]);
    node.traffic("201", 1, [5, 500, 0, 0]);
    node.interface("veth101.0", Some("101"), 30, 4).interface("venet0", None, 5, 0);
    node.fault("veth101.0", Fault::NotIp, 2).fault("venet0", Fault::NoContainer, 3);
    node.pass(60).drain(&mut file.ledger);
    (file, node)
}

/// A correction of container 101 in November 2026.
/// What a calibration showed, each figure another one.
pub fn calibration(time: Timestamp) -> CalibrationRecord {
    let both = |a, b, c, d| ByDirection {
        incoming: Tally { packets: a, bytes: b },
        outgoing: Tally { packets: c, bytes: d },
    };
    CalibrationRecord {
        time,
        class_table: "a1".repeat(32),
        program: "b2".repeat(32),
        sent: both(20, 13_305, 21, 14_229),
        counted: both(22, 13_307, 23, 14_231),
        differing: 3,
    }
}

pub fn adjustment(made: Timestamp) -> AdjustmentRequest {
    AdjustmentRequest {
        period: "2026-11".to_owned(),
        container: "101".to_owned(),
        class: 1,
        family: None,
        packets: [-1, 0],
        bytes: [-100, 0],
        reason: "attack, credited".to_owned(),
        made,
    }
}
