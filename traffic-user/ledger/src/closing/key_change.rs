//! Changes of the key of statements as entries of the chain. What a note says, and who signed it, is the business of
//! whoever writes and reads it: to the ledger it is a text.

use jiff::Timestamp;
use rusqlite::{TransactionBehavior, params};

use crate::{
    closing::{chain::extend_chain, correction::ChainEntry},
    digest,
    error::LedgerError,
    store::Ledger,
};

impl Ledger {
    /// Appends a change of the key of statements to the chain, if the chain has still `entries` entries: the change was
    /// decided by what these are.
    ///
    /// # Errors
    /// When something was appended meanwhile, or the file cannot be written.
    pub fn append_key_change(
        &mut self,
        note: &str,
        made: Timestamp,
        entries: u64,
    ) -> Result<ChainEntry, LedgerError> {
        self.check_files()?;
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found: i64 = transaction.query_row("SELECT count(*) FROM chain", [], |row| row.get(0))?;
        if found.cast_unsigned() != entries {
            return Err(LedgerError::Query(
                "another command changed the chain of closed months meanwhile; try again".to_owned(),
            ));
        }
        let insert = "INSERT INTO key_change (made, note) VALUES (?, ?)";
        let id = transaction.prepare_cached(insert)?.insert(params![made.as_second(), note])?;
        let (seq, hash) = extend_chain(&transaction, "key", id)?;
        digest::commit(transaction)?;
        self.keep_for_good()?;
        Ok(ChainEntry { seq, hash })
    }
}
