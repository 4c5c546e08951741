//! What calibrations showed: known traffic, and what was counted of it.

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, TransactionBehavior, params};
use traffic_common::Tally;
use traffic_model::ByDirection;

use crate::{digest, error::LedgerError, store::Ledger};

/// What came of a calibration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalibrationRecord {
    /// When the packets were sent, to the second.
    pub time: Timestamp,
    /// SHA-256 of the class table that decided, in hexadecimal.
    pub class_table: String,
    /// SHA-256 of the kernel program, in hexadecimal.
    pub program: String,
    /// Wire packets and layer-3 bytes that were sent.
    pub sent: ByDirection<Tally>,
    /// Wire packets and layer-3 bytes that were counted.
    pub counted: ByDirection<Tally>,
    /// Classes and families whose figures differ. Only with none of them was everything counted exactly.
    pub differing: u32,
}

impl Ledger {
    /// Records what came of a calibration.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn record_calibration(&mut self, record: &CalibrationRecord) -> Result<(), LedgerError> {
        self.check_files()?;
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let CalibrationRecord { time, class_table, program, sent, counted, differing } = record;
        let [sent, counted] = [sent, counted].map(|both| [both.incoming, both.outgoing].map(stored));
        transaction
            .prepare_cached(
                "INSERT INTO calibration (time, class_table, program, sent_in_packets, sent_in_bytes, sent_out_packets,
                     sent_out_bytes, in_packets, in_bytes, out_packets, out_bytes, differing)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                time.as_second(),
                class_table,
                program,
                sent[0].0,
                sent[0].1,
                sent[1].0,
                sent[1].1,
                counted[0].0,
                counted[0].1,
                counted[1].0,
                counted[1].1,
                differing
            ])?;
        digest::commit(transaction)?;
        Ok(())
    }

    /// The latest calibration that was recorded, or the latest one since a time in which something differed: no later
    /// one hides it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_calibration(&self, since: Timestamp) -> Result<Option<CalibrationRecord>, LedgerError> {
        let find = "SELECT time, class_table, program, sent_in_packets, sent_in_bytes, sent_out_packets, sent_out_bytes,
             in_packets, in_bytes, out_packets, out_bytes, differing FROM calibration
             ORDER BY differing > 0 AND time >= ?1 DESC, id DESC LIMIT 1";
        let found = self.conn.prepare_cached(find)?.query_row([since.as_second()], |row| {
            let tally = |at| {
                Ok::<_, rusqlite::Error>(Tally {
                    packets: row.get::<_, i64>(at)?.cast_unsigned(),
                    bytes: row.get::<_, i64>(at + 1)?.cast_unsigned(),
                })
            };
            Ok(CalibrationRecord {
                time: Timestamp::from_second(row.get(0)?).unwrap_or(Timestamp::UNIX_EPOCH),
                class_table: row.get(1)?,
                program: row.get(2)?,
                sent: ByDirection { incoming: tally(3)?, outgoing: tally(5)? },
                counted: ByDirection { incoming: tally(7)?, outgoing: tally(9)? },
                differing: row.get(11)?,
            })
        });
        Ok(found.optional()?)
    }
}

/// Packets and bytes as the file has them. A fault may count anything; no more than fits is recorded.
fn stored(tally: Tally) -> (i64, i64) {
    let one = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    (one(tally.packets), one(tally.bytes))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use crate::testing::*;

    #[test]
    fn the_latest_one_is_found_as_it_was_recorded() {
        let (mut file, node) = (ledger(), Node::balanced(NOON));
        let last = |file: &File, since| {
            file.ledger.last_calibration(Timestamp::from_second(since).unwrap()).unwrap()
        };
        assert_eq!(last(&file, 0), None);
        let first = calibration(node.wall);
        file.ledger.record_calibration(&first).unwrap();
        assert_eq!(last(&file, 0), Some(first.clone()));
        // The clock was set back: what came last is the latest all the same.
        let mut next = calibration(first.time - jiff::SignedDuration::from_hours(5));
        next.differing = 0;
        next.counted = next.sent;
        next.counted.outgoing.bytes = u64::MAX;
        file.ledger.record_calibration(&next).unwrap();
        next.counted.outgoing.bytes = i64::MAX.cast_unsigned();
        // The first one differs. A month that begins after it does not concern it.
        assert_eq!(last(&file, 0), Some(first.clone()));
        assert_eq!(last(&file, first.time.as_second()), Some(first.clone()));
        assert_eq!(last(&file, first.time.as_second() + 1), Some(next));
        assert_eq!(file.ledger.audit().unwrap().problems, [""; 0]);
    }
}
