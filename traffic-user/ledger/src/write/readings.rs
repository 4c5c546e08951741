//! The last readings of all counters: loaded before a drain, stored within it.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension as _, params};
use traffic_common::{Family, Fault};
use traffic_model::Snapshot;

use crate::{
    error::LedgerError,
    ids,
    write::{
        difference::{Change, ClassKey, DroppedKey, FaultKey, InterfaceKey, PASSED_VALUES, TALLY_VALUES},
        gaps::GapSize,
    },
};

/// One life of a container's counters: a slot while it belongs to the container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContainerLife {
    /// Id of the life.
    pub id: i64,
    /// Id of the container.
    pub container: i64,
    /// Whether the last drain saw it.
    present: bool,
}

impl ContainerLife {
    /// A life that begins with this drain.
    pub const fn new(id: i64, container: i64) -> Self {
        Self { id, container, present: true }
    }
}

/// One life of an interface's counters.
#[derive(Clone, Copy, Debug)]
struct InterfaceLife {
    id: i64,
    /// Whether the last drain saw it.
    present: bool,
}

/// All last readings of one epoch.
#[derive(Debug, Default)]
pub(crate) struct LastReadings {
    /// By container and generation.
    pub lives: HashMap<(String, u32), ContainerLife>,
    /// Class counters.
    pub classes: HashMap<ClassKey, [u64; TALLY_VALUES]>,
    /// Counters of drops, of the set that was read last.
    pub drops: HashMap<DroppedKey, [u64; TALLY_VALUES]>,
    /// Fault counters.
    pub faults: HashMap<FaultKey, [u64; TALLY_VALUES]>,
    /// Interface totals.
    pub interfaces: HashMap<InterfaceKey, [u64; PASSED_VALUES]>,
    /// By interface and generation.
    interface_lives: HashMap<InterfaceKey, InterfaceLife>,
}

pub(super) fn values<const N: usize>(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<[u64; N]> {
    let mut values = [0; N];
    for (at, value) in values.iter_mut().enumerate() {
        // A counter may use all 64 bits; only differences must fit into 63.
        *value = row.get::<_, i64>(first + at)?.cast_unsigned();
    }
    Ok(values)
}

pub(super) fn family(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Family> {
    Ok(if row.get::<_, u32>(at)? == 0 { Family::Ipv4 } else { Family::Ipv6 })
}

impl LastReadings {
    /// Loads the last readings of an epoch.
    pub fn load(conn: &Connection, epoch: i64) -> Result<Self, LedgerError> {
        let mut readings = Self::default();
        let mut names: HashMap<i64, (String, u32)> = HashMap::new();
        let mut statement = conn.prepare_cached(
            "SELECT l.id, l.container, l.generation, l.gone IS NULL, c.name
             FROM container_life l JOIN container c ON c.id = l.container WHERE l.epoch = ?1",
        )?;
        let mut rows = statement.query([epoch])?;
        while let Some(row) = rows.next()? {
            let key: (String, u32) = (row.get(4)?, row.get(2)?);
            let life = ContainerLife { id: row.get(0)?, container: row.get(1)?, present: row.get(3)? };
            names.insert(life.id, key.clone());
            readings.lives.insert(key, life);
        }
        let mut statement = conn.prepare_cached(
            "SELECT r.life, r.class, r.family, r.in_packets, r.in_bytes, r.out_packets, r.out_bytes
             FROM container_life l CROSS JOIN class_reading r ON r.life = l.id WHERE l.epoch = ?1",
        )?;
        let mut rows = statement.query([epoch])?;
        while let Some(row) = rows.next()? {
            if let Some((container, generation)) = names.get(&row.get(0)?) {
                let key = ClassKey {
                    container: container.clone(),
                    generation: *generation,
                    class: row.get(1)?,
                    family: family(row, 2)?,
                };
                readings.classes.insert(key, values(row, 3)?);
            }
        }
        readings.load_drops(conn, epoch, &names)?;
        readings.load_interfaces(conn, epoch)?;
        Ok(readings)
    }

    fn load_interfaces(&mut self, conn: &Connection, epoch: i64) -> Result<(), LedgerError> {
        let mut statement = conn.prepare_cached(
            "SELECT id, name, generation, gone IS NULL FROM interface_life WHERE epoch = ?1",
        )?;
        let mut rows = statement.query([epoch])?;
        while let Some(row) = rows.next()? {
            let key = InterfaceKey { interface: row.get(1)?, generation: row.get(2)? };
            self.interface_lives.insert(key, InterfaceLife { id: row.get(0)?, present: row.get(3)? });
        }
        let mut statement = conn.prepare_cached(
            "SELECT l.name, l.generation, r.in_packets, r.in_bytes, r.in_skbs, r.in_skb_bytes,
             r.in_estimated_packets,
                 r.in_estimated_bytes, r.out_packets, r.out_bytes, r.out_skbs, r.out_skb_bytes,
                 r.out_estimated_packets, r.out_estimated_bytes
             FROM interface_life l CROSS JOIN passed_reading r ON r.life = l.id WHERE l.epoch = ?1",
        )?;
        let mut rows = statement.query([epoch])?;
        while let Some(row) = rows.next()? {
            let key = InterfaceKey { interface: row.get(0)?, generation: row.get(1)? };
            self.interfaces.insert(key, values(row, 2)?);
        }
        let mut statement = conn.prepare_cached(
            "SELECT l.name, l.generation, r.fault, r.in_packets, r.in_bytes, r.out_packets, r.out_bytes
             FROM interface_life l CROSS JOIN fault_reading r ON r.life = l.id WHERE l.epoch = ?1",
        )?;
        let mut rows = statement.query([epoch])?;
        while let Some(row) = rows.next()? {
            let number: u8 = row.get(2)?;
            // A newer program counts a fault that this build does not know; its reading stays as it is.
            if let Some(&fault) = Fault::ALL.get(usize::from(number)) {
                let key = FaultKey { interface: row.get(0)?, generation: row.get(1)?, fault };
                self.faults.insert(key, values(row, 3)?);
            }
        }
        Ok(())
    }
}

/// Stores the reading of a class counter.
pub(crate) fn store_class(
    conn: &Connection,
    life: i64,
    key: &ClassKey,
    change: &Change<TALLY_VALUES>,
) -> Result<(), LedgerError> {
    let [in_packets, in_bytes, out_packets, out_bytes] = change.reading.map(u64::cast_signed);
    conn.prepare_cached("INSERT OR REPLACE INTO class_reading VALUES (?, ?, ?, ?, ?, ?, ?)")?
        .execute(params![life, key.class, key.family as u32, in_packets, in_bytes, out_packets, out_bytes])?;
    Ok(())
}

/// Stores the reading of a fault counter.
pub(crate) fn store_fault(
    conn: &Connection,
    epoch: i64,
    key: &FaultKey,
    change: &Change<TALLY_VALUES>,
) -> Result<(), LedgerError> {
    let life = ids::interface_life(conn, epoch, &key.interface, key.generation)?;
    let [in_packets, in_bytes, out_packets, out_bytes] = change.reading.map(u64::cast_signed);
    conn.prepare_cached("INSERT OR REPLACE INTO fault_reading VALUES (?, ?, ?, ?, ?, ?)")?
        .execute(params![life, key.fault as u32, in_packets, in_bytes, out_packets, out_bytes])?;
    Ok(())
}

/// Stores the reading of an interface counter.
pub(crate) fn store_interface(
    conn: &Connection,
    epoch: i64,
    key: &InterfaceKey,
    change: &Change<PASSED_VALUES>,
) -> Result<(), LedgerError> {
    let life = ids::interface_life(conn, epoch, &key.interface, key.generation)?;
    let all = std::iter::once(life).chain(change.reading.map(u64::cast_signed));
    conn.prepare_cached(
        "INSERT OR REPLACE INTO passed_reading VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(rusqlite::params_from_iter(all))?;
    Ok(())
}

/// Readings of lives that no snapshot has shown for this long are deleted, in seconds.
const EXPIRE_AFTER_S: i64 = 7 * 86_400;

/// Records which containers this drain did not see, and deletes the readings of those absent for long.
///
/// A slot is freed only after its last reading is in the ledger, and its generation never comes back. Its
/// reading is then no longer needed.
pub(crate) fn expire_absent_containers(
    conn: &Connection,
    lives: &HashMap<(String, u32), ContainerLife>,
    seen: &HashSet<i64>,
    now_s: i64,
) -> Result<(), LedgerError> {
    for life in lives.values() {
        let present = seen.contains(&life.id);
        if present != life.present {
            conn.prepare_cached("UPDATE container_life SET gone = ?2 WHERE id = ?1")?
                .execute(params![life.id, (!present).then_some(now_s)])?;
        }
        if !present && !life.present {
            let deleted = conn
                .prepare_cached("DELETE FROM container_life WHERE id = ?1 AND gone < ?2")?
                .execute(params![life.id, now_s - EXPIRE_AFTER_S])?;
            if deleted == 1 {
                for readings in ["class_reading", "drop_reading"] {
                    conn.prepare_cached(&format!("DELETE FROM {readings} WHERE life = ?1"))?
                        .execute([life.id])?;
                }
            }
        }
    }
    Ok(())
}

/// Does the same for interfaces. All readings of an interface life are deleted together. If the slot still
/// belonged to the interface, everything it holds would be counted again, so a life that `snapshot` shows is
/// never deleted.
pub(crate) fn expire_absent_interfaces(
    conn: &Connection,
    (epoch, now_s): (i64, i64),
    last: &LastReadings,
    snapshot: &Snapshot,
) -> Result<(), LedgerError> {
    let interfaces = snapshot.interfaces.iter().map(|counter| (&counter.interface, counter.generation));
    let faults = snapshot.faults.iter().map(|counter| (&counter.interface, counter.generation));
    let seen: HashSet<(&String, u32)> = interfaces.chain(faults).collect();
    for (key, life) in &last.interface_lives {
        let present = seen.contains(&(&key.interface, key.generation));
        if present != life.present {
            conn.prepare_cached("UPDATE interface_life SET gone = ?2 WHERE id = ?1")?
                .execute(params![life.id, (!present).then_some(now_s)])?;
        }
        if !present && !life.present {
            let deleted = conn
                .prepare_cached("DELETE FROM interface_life WHERE id = ?1 AND gone < ?2")?
                .execute(params![life.id, now_s - EXPIRE_AFTER_S])?;
            if deleted == 1 {
                for readings in ["fault_reading", "passed_reading"] {
                    conn.prepare_cached(&format!("DELETE FROM {readings} WHERE life = ?1"))?
                        .execute([life.id])?;
                }
                conn.prepare_cached(
                    "DELETE FROM unseen_reading WHERE epoch = ?1 AND name = ?2 AND generation = ?3",
                )?
                .execute(params![epoch, key.interface, key.generation])?;
            }
        }
    }
    // An interface with only missed traffic has a reading but no life. With a life, it expires like the
    // others.
    conn.prepare_cached(
        "INSERT INTO interface_life (epoch, name, generation)
         SELECT u.epoch, u.name, u.generation FROM unseen_reading u WHERE u.epoch = ?1 AND NOT EXISTS (
             SELECT 1 FROM interface_life l
             WHERE l.epoch = u.epoch AND l.name = u.name AND l.generation = u.generation)",
    )?
    .execute([epoch])?;
    Ok(())
}

/// The missed traffic of an interface at its last reading.
pub(crate) fn missed(
    conn: &Connection,
    epoch: i64,
    interface: &str,
    generation: u32,
) -> Result<GapSize, LedgerError> {
    let found = conn
        .prepare_cached(
            "SELECT in_skbs, in_skb_bytes, out_skbs, out_skb_bytes FROM unseen_reading
             WHERE epoch = ?1 AND name = ?2 AND generation = ?3",
        )?
        .query_row(params![epoch, interface, generation], size_of_row)
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Stores the missed traffic of an interface.
pub(crate) fn store_missed(
    conn: &Connection,
    epoch: i64,
    interface: &str,
    generation: u32,
    total: &GapSize,
) -> Result<(), LedgerError> {
    conn.prepare_cached("INSERT OR REPLACE INTO unseen_reading VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            epoch,
            interface,
            generation,
            total.in_skbs.cast_signed(),
            total.in_skb_bytes.cast_signed(),
            total.out_skbs.cast_signed(),
            total.out_skb_bytes.cast_signed(),
        ])?;
    Ok(())
}

/// How much of the kernel's statistics of an interface the earlier epochs of this boot accounted for.
pub(crate) fn accounted_before(
    conn: &Connection,
    boot_id: &str,
    epoch: i64,
    ifindex: u32,
) -> Result<Option<GapSize>, LedgerError> {
    let found = conn
        .prepare_cached(
            "SELECT in_skbs, in_skb_bytes, out_skbs, out_skb_bytes FROM accounted_reading
             WHERE boot_id = ?1 AND ifindex = ?2 AND epoch <> ?3",
        )?
        .query_row(params![boot_id, ifindex, epoch], size_of_row)
        .optional()?;
    Ok(found)
}

/// Stores how much of the kernel's statistics of an interface is accounted for.
pub(crate) fn store_accounted(
    conn: &Connection,
    boot_id: &str,
    epoch: i64,
    ifindex: u32,
    total: &GapSize,
) -> Result<(), LedgerError> {
    // An idle interface causes no write.
    conn.prepare_cached(
        "INSERT INTO accounted_reading VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE
         SET epoch = ?3, in_skbs = ?4, in_skb_bytes = ?5, out_skbs = ?6, out_skb_bytes = ?7
         WHERE epoch <> ?3 OR in_skbs <> ?4 OR out_skbs <> ?6",
    )?
    .execute(params![
        boot_id,
        ifindex,
        epoch,
        total.in_skbs.cast_signed(),
        total.in_skb_bytes.cast_signed(),
        total.out_skbs.cast_signed(),
        total.out_skb_bytes.cast_signed(),
    ])?;
    Ok(())
}

/// Deletes the accounted statistics of interfaces that this epoch no longer has.
pub(crate) fn delete_accounted(
    conn: &Connection,
    epoch: i64,
    present: &HashSet<u32>,
) -> Result<(), LedgerError> {
    let mut statement = conn.prepare_cached("SELECT ifindex FROM accounted_reading WHERE epoch = ?1")?;
    let known: Vec<u32> = statement.query_map([epoch], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for ifindex in known.into_iter().filter(|ifindex| !present.contains(ifindex)) {
        conn.prepare_cached("DELETE FROM accounted_reading WHERE epoch = ?1 AND ifindex = ?2")?
            .execute(params![epoch, ifindex])?;
    }
    Ok(())
}

fn size_of_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<GapSize> {
    let value = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
    Ok(GapSize { in_skbs: value(0)?, in_skb_bytes: value(1)?, out_skbs: value(2)?, out_skb_bytes: value(3)? })
}

/// Deletes the readings of earlier boots, whose counters no longer exist.
pub(crate) fn delete_other_boots(conn: &Connection, boot_id: &str) -> Result<(), LedgerError> {
    conn.prepare_cached("DELETE FROM accounted_reading WHERE boot_id <> ?1")?.execute([boot_id])?;
    let epochs = "(SELECT id FROM epoch WHERE boot_id <> ?1)";
    for (readings, lives) in [
        ("class_reading", "container_life"),
        ("fault_reading", "interface_life"),
        ("passed_reading", "interface_life"),
        ("drop_reading", "container_life"),
    ] {
        let sql =
            format!("DELETE FROM {readings} WHERE life IN (SELECT id FROM {lives} WHERE epoch IN {epochs})");
        conn.prepare_cached(&sql)?.execute([boot_id])?;
    }
    for lives in ["container_life", "interface_life", "unseen_reading"] {
        conn.prepare_cached(&format!("DELETE FROM {lives} WHERE epoch IN {epochs}"))?.execute([boot_id])?;
    }
    Ok(())
}
