//! The naive reference: what a ledger must hold, in plain sums.

use std::{collections::BTreeMap, time::Duration};

use traffic_model::is_pending;

use super::drops::DropBook;
use crate::testing::{Node, Sums, add};

/// A reading less than this behind the last one of its boot is refused. A node that went back by more was
/// reverted.
const REVERTED: Duration = Duration::from_secs(10);
/// A reading so long after a border still belongs to the bucket before it, in seconds.
const GRACE_S: i64 = 2;

/// Sums by container and class.
pub type Totals = BTreeMap<(String, u8), Sums>;

/// A life of a counter: boot, epoch, container, generation, class.
type Life = (String, u64, String, u32, u8);

/// The last reading of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reading {
    boot_id: String,
    epoch: u64,
    boottime: Duration,
    wall_s: i64,
}

/// What a ledger must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    counters: BTreeMap<Life, Sums>,
    last: Option<Reading>,
    boots: Vec<String>,
    /// The label of each life of a container's slot. It stays, even if the container was retired.
    labels: BTreeMap<(String, u64, String, u32), String>,
    /// By start of the bucket, label and class.
    booked: BTreeMap<(i64, String, u8), Sums>,
    /// Spans of time of which some traffic is lost, in seconds.
    pub lost: Vec<(i64, i64)>,
    /// Whether the clock is never wrong.
    pub calm: bool,
    /// Frozen sums of the closed months.
    pub closed: BTreeMap<String, Totals>,
    /// Start and end of these.
    pub closed_spans: Vec<(i64, i64)>,
    pub imported: bool,
    /// Slots were given away since, with what they counted after this state.
    pub misses_slots: bool,
    /// The container that each pending owner turned out to be.
    pub known: BTreeMap<String, String>,
    pub drops: DropBook,
    /// Number of corrections and the sum of their incoming bytes.
    pub adjustments: (usize, i64),
    /// Number of changes of the key of statements.
    pub key_changes: usize,
}

impl Book {
    pub fn new(calm: bool) -> Self {
        Self { calm, ..Self::default() }
    }

    /// How many entries of the chain are no months.
    pub const fn chained(&self) -> usize {
        self.adjustments.0 + self.key_changes
    }

    /// After a drain.
    pub fn drained(&self, node: &Node) -> Self {
        let mut after = self.clone();
        let wall_s = node.wall.as_second();
        let now =
            Reading { boot_id: node.boot_id.clone(), epoch: node.epoch, boottime: node.boottime, wall_s };
        let went_back = self.last.as_ref().is_some_and(|last| {
            if last.boot_id == now.boot_id {
                last.boottime > now.boottime + REVERTED
            } else {
                self.boots.contains(&now.boot_id)
            }
        });
        if self.last.as_ref().is_some_and(|last| last.boot_id != now.boot_id) {
            after.labels.clear();
        }
        let counters = self.counters_of(node);
        if went_back {
            let is_there = |container: &String, generation: u32| {
                counters.keys().any(|(name, number, _)| name == container && *number == generation)
            };
            after.labels.retain(|(_, _, container, generation), _| is_there(container, *generation));
            after.counters.clear();
        }
        after = after.follow(&counters, node);
        let bucket = self.bucket(node);
        for ((container, generation, class), &sums) in &counters {
            let (boot_id, container) = (node.boot_id.clone(), container.clone());
            let label = (boot_id.clone(), node.epoch, container.clone(), *generation);
            let label = after.labels.entry(label).or_insert_with(|| container.clone()).clone();
            let life = (boot_id, node.epoch, container, *generation, *class);
            let before = after.counters.insert(life, sums).unwrap_or_default();
            if !went_back {
                let passed = std::array::from_fn(|at| sums[at] - before[at]);
                after.add(bucket, &label, *class, passed);
            }
        }
        let (boot_id, labels) = (&node.boot_id, &after.labels);
        let label = |container: &str, generation: u32| {
            labels.get(&(boot_id.clone(), node.epoch, container.to_owned(), generation)).cloned()
        };
        after.drops.drained(node, bucket, went_back, label);
        let is_other =
            |last: &&Reading| went_back || (&last.boot_id, last.epoch) != (&now.boot_id, now.epoch);
        if let Some(last) = self.last.as_ref().filter(is_other) {
            let until = if went_back { wall_s } else { last.wall_s.max(node.epoch_created.as_second()) };
            after.lost.push((last.wall_s, until));
        }
        if !after.boots.contains(&now.boot_id) {
            after.boots.push(now.boot_id.clone());
        }
        after.last = Some(now);
        after
    }

    /// The bucket that a reading is booked into, if the clock is right.
    fn bucket(&self, node: &Node) -> i64 {
        let now_s = node.wall.as_second();
        let own = now_s.div_euclid(300) * 300;
        let same_boot = self.last.as_ref().filter(|last| last.boot_id == node.boot_id);
        let from = same_boot.map_or(node.epoch_created.as_second(), |last| last.wall_s);
        let is_of_before = now_s - own <= GRACE_S && own - from > now_s - own;
        if is_of_before { own - 300 } else { own }
    }

    pub fn add(&mut self, bucket: i64, label: &str, class: u8, sums: Sums) {
        if sums != [0; 4] {
            add(self.booked.entry((bucket, label.to_owned(), class)).or_default(), sums);
        }
    }

    /// After a container was retired.
    pub fn retired(&self, container: &str, label: &str) -> Self {
        let rename = |name: String| if name == container { label.to_owned() } else { name };
        let booked = self.booked.clone().into_iter();
        let booked = booked.map(|((bucket, name, class), sums)| ((bucket, rename(name), class), sums));
        let labels = self.labels.clone().into_iter().map(|(life, name)| (life, rename(name)));
        let mut after = Self { booked: booked.collect(), labels: labels.collect(), ..self.clone() };
        after.drops.rename(rename);
        after
    }

    /// After a pending owner became a container, except for what is in closed months: there, corrections say so.
    pub fn attributed(&self, pending: &str, owner: &str) -> Self {
        let mut after = self.clone();
        let rename = |name: String| if name == pending { owner.to_owned() } else { name };
        after.booked.clear();
        let mut frozen = Totals::new();
        for (key, sums) in self.closed.values().flatten().filter(|((label, _), _)| label == pending) {
            after.adjustments.0 += if *sums == [0; 4] { 0 } else { 2 };
            add(frozen.entry(key.clone()).or_default(), *sums);
        }
        for ((bucket, label, class), sums) in self.booked.clone() {
            let is_closed = self.closed_spans.iter().any(|span| span.0 <= bucket && bucket < span.1);
            let left = frozen.entry((label.clone(), class)).or_default();
            // A history with a wrong clock knows only how much is in closed months.
            let stays: Sums = match (self.calm, is_closed) {
                (true, true) => sums,
                (true, false) => [0; 4],
                (false, _) => std::array::from_fn(|at| left[at].min(sums[at])),
            };
            (0..4).for_each(|at| left[at] = left[at].saturating_sub(stays[at]));
            after.add(bucket, &label, class, stays);
            after.add(bucket, &rename(label), class, std::array::from_fn(|at| sums[at] - stays[at]));
        }
        let labels = self.labels.clone().into_iter();
        after.labels = labels
            .map(|((boot, epoch, name, generation), label)| {
                ((boot, epoch, rename(name), generation), rename(label))
            })
            .collect();
        let counters = self.counters.clone().into_iter();
        after.counters = counters
            .map(|((boot, epoch, name, generation, class), sums)| {
                ((boot, epoch, rename(name), generation, class), sums)
            })
            .collect();
        after.known.insert(pending.to_owned(), owner.to_owned());
        after
    }

    /// The counters of a node, under the names of containers where pending owners were attributed.
    fn counters_of(&self, node: &Node) -> BTreeMap<(String, u32, u8), Sums> {
        let name = |name: &String| self.known.get(name).unwrap_or(name).clone();
        let counters = node.counters.iter();
        counters
            .map(|((container, number, class), sums)| ((name(container), *number, *class), *sums))
            .collect()
    }

    /// What the counters of a node show of owners that this book has as pending.
    fn follow(&self, counters: &BTreeMap<(String, u32, u8), Sums>, node: &Node) -> Self {
        let mut after = self.clone();
        for ((boot_id, epoch, pending, generation), _) in self.labels.clone() {
            let is_of_node = boot_id == node.boot_id && epoch == node.epoch && is_pending(&pending);
            let owner = counters.keys().find(|(name, number, _)| *number == generation && !is_pending(name));
            if let Some((owner, _, _)) = owner.filter(|_| is_of_node) {
                after = after.attributed(&pending, owner);
            }
        }
        after
    }

    /// The pending owners that are recorded and not attributed.
    pub fn pending(&self) -> Vec<String> {
        let labels = self.booked.keys().map(|(_, label, _)| label.clone());
        let mut pending: Vec<String> = labels.filter(|label| is_pending(label)).collect();
        pending.sort_unstable();
        pending.dedup();
        pending.retain(|pending| !self.known.contains_key(pending));
        pending
    }

    /// Boot and time since boot of the last reading.
    pub fn last_reading(&self) -> Option<(String, u128)> {
        self.last.as_ref().map(|last| (last.boot_id.clone(), last.boottime.as_nanos()))
    }

    /// Time of the last reading on the boot clock, if there is one of this boot.
    pub fn last_boottime(&self, boot_id: &str) -> Option<Duration> {
        self.last.as_ref().filter(|last| last.boot_id == boot_id).map(|last| last.boottime)
    }

    pub fn has_retired(&self) -> bool {
        self.booked.keys().any(|(_, label, _)| label.contains('@'))
    }

    pub fn knows(&self, container: &str) -> bool {
        self.booked.keys().any(|(_, label, _)| label == container)
    }

    /// Sums of the steps that a function names.
    pub fn by(&self, name: impl Fn(i64) -> String) -> BTreeMap<String, Totals> {
        let mut sums: BTreeMap<String, Totals> = BTreeMap::new();
        for ((bucket, label, class), values) in &self.booked {
            let step = sums.entry(name(*bucket)).or_default();
            add(step.entry((label.clone(), *class)).or_default(), *values);
        }
        sums
    }

    pub fn totals(&self) -> Totals {
        self.by(|_| String::new()).remove("").unwrap_or_default()
    }
}
