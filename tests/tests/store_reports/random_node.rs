//! A node with a ledger of random traffic, and the way from it to a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use traffic_common::DropGroup;
use traffic_ledger::{AdjustmentRequest, Ledger, LedgerConfig, LedgerError, testing};
use traffic_model::calendar::{Calendar, Retention};
use traffic_store::{AnyStore as Store, Node, Reported, Shipper, Target, open_ledger};

use crate::{BEGIN, CONTAINERS, block_on};

/// A node with a ledger of random traffic.
pub struct RandomNode {
    _directory: tempfile::TempDir,
    pub ledger: Ledger,
    pub node: testing::Node,
    pub about: Node,
    pub calendar: Calendar,
}

/// What a history may do to a node.
#[derive(Clone, Copy)]
pub struct Habits {
    /// Readings may be hours apart.
    pub is_late: bool,
    pub drains: usize,
}

impl RandomNode {
    pub fn new(name: &str, calendar: Calendar, random: &mut fastrand::Rng) -> Result<Self> {
        let directory = tempfile::tempdir_in("/dev/shm")?;
        let config = LedgerConfig {
            calendar: calendar.clone(),
            retention: Retention { five_minutes_days: 1000, hours_months: 60 },
            ..LedgerConfig::default()
        };
        let ledger = Ledger::open(&directory.path().join("ledger.sqlite"), config)?;
        let mut node = testing::Node::balanced(BEGIN + random.i64(0..100_000));
        node.name = name.to_owned();
        node.count_drops();
        node.ipv6.insert("7".to_owned());
        let about = Node {
            name: name.to_owned(),
            version: "0.2.0".to_owned(),
            kernel: "6.1.0".to_owned(),
            has_cluster_ids: false,
        };
        Ok(Self { _directory: directory, ledger, node, about, calendar })
    }

    /// Drops five minutes that are older than some days.
    pub fn keep_days(&mut self, days: u16) -> Result<()> {
        let path = self._directory.path().join("shorter.sqlite");
        self.ledger.backup(&path)?;
        let config = LedgerConfig {
            calendar: self.calendar.clone(),
            retention: Retention { five_minutes_days: days, hours_months: 60 },
            ..LedgerConfig::default()
        };
        self.ledger = Ledger::open(&path, config)?;
        self.node.pass(300).drain(&mut self.ledger);
        self.ledger.maintain(self.node.wall)?;
        Ok(())
    }

    pub fn live(&mut self, habits: Habits, random: &mut fastrand::Rng) -> Result<()> {
        for _ in 0..habits.drains {
            for _ in 0..random.usize(0..4) {
                let sums = [0; 4].map(|_: u64| random.u64(1..1_000_000));
                let (container, class) = (CONTAINERS[random.usize(..CONTAINERS.len())], random.u8(0..4));
                self.node.traffic(container, class, sums);
                if random.bool() {
                    let group = DropGroup::ALL[random.usize(..DropGroup::ALL.len())];
                    self.node.dropped(container, class, group, sums.map(|value| value / 3));
                }
            }
            let seconds = match (random.u8(..10), habits.is_late) {
                (0, true) => random.u64(600..200_000),
                (1..4, true) => random.u64(30..900),
                (0, false) => 300,
                _ => 300,
            };
            self.node.pass(seconds).drain(&mut self.ledger);
            match random.u8(..40) {
                0 => drop(self.ledger.maintain(self.node.wall)?),
                1 if habits.is_late => self.close(random)?,
                2 if habits.is_late => self.node.table = random.u8(1..4),
                3 if habits.is_late => {
                    let name = format!("shop-{}", random.u8(..9));
                    self.ledger.note_names(BTreeMap::from([("101".to_owned(), name)]));
                }
                4 if habits.is_late => drop(self.node.reboot(random.i64(60..5000))),
                _ => {}
            }
        }
        Ok(())
    }

    /// Closes the first open month that is over, and corrects something of it.
    fn close(&mut self, random: &mut fastrand::Rng) -> Result<()> {
        for month in ["2026-09", "2026-10", "2026-11"] {
            match self.ledger.close_anyway(month, self.node.wall) {
                Ok(_) => {}
                Err(LedgerError::NotClosable { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            for container in [0, 1].map(|_| CONTAINERS[random.usize(..CONTAINERS.len())]) {
                let request = AdjustmentRequest {
                    period: month.to_owned(),
                    container: container.to_owned(),
                    class: random.u8(0..3),
                    family: None,
                    packets: [random.i64(1..9), 0],
                    bytes: [random.i64(1..999), random.i64(-5..0)],
                    reason: format!("credit {}", random.u16(..)),
                    made: self.node.wall,
                };
                match self.ledger.adjust(&request) {
                    Ok(_) | Err(LedgerError::Query(_) | LedgerError::NoSuchContainer(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    pub fn ship(&self, target: &Target) -> Result<()> {
        block_on(async {
            let mut store = Store::connect(target).await?;
            let shipper =
                Shipper { ledger: &self.ledger, machine: None, node: &self.about, size: Arc::default() };
            shipper.ship(&mut store, &mut |_, _| {}).await?;
            anyhow::Ok(())
        })?
    }

    pub fn stored(&self, target: &Target) -> Result<Ledger> {
        Ok(open_ledger(
            target,
            &Reported {
                nodes: std::slice::from_ref(&self.about.name),
                with_interfaces: true,
                ..Reported::default()
            },
        )?)
    }
}
