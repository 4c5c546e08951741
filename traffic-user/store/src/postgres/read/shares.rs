//! Shares as parameters of statements, and who has what in PostgreSQL.

use tokio_postgres::types::Type;
use traffic_ledger::{LedgerError, StoredContainer};

use super::Reader;
use crate::{
    postgres::tenants::{COLUMNS, assignment},
    read::shares::{Known, Share, Tenants, tenants},
    tenants::Assignment,
};

/// Some shares as parameters: ledgers, numbers, tenants, starts, ends.
pub(super) type Columns = (Vec<i32>, Vec<i64>, Vec<i64>, Vec<i64>, Vec<i64>);

/// Shares as parameters of a statement.
pub(super) fn columns<'a>(shares: impl Iterator<Item = &'a Share>) -> Columns {
    let mut columns = Columns::default();
    for share in shares {
        columns.0.push(share.ledger);
        columns.1.push(share.number);
        columns.2.push(share.shown);
        columns.3.push(share.span.0);
        columns.4.push(share.span.1);
    }
    columns
}

/// Reads who has what. Returns the tenants as containers of the report.
pub(super) fn read(reader: &mut Reader) -> Result<Vec<StoredContainer>, LedgerError> {
    let sql = format!("SELECT {COLUMNS} FROM trafctl.assignment");
    let assigned: Vec<Assignment> = reader.rows(&sql, &[])?.iter().map(assignment).collect();
    let sql =
        "SELECT ledger, number, name, since FROM trafctl.container WHERE ledger = ANY($1) ORDER BY 1, 2";
    let rows = reader.rows(sql, &[(&reader.ledger_numbers(), Type::INT4_ARRAY)])?;
    let known = |row: &tokio_postgres::Row| -> Known { (row.get(0), row.get(1), row.get(2), row.get(3)) };
    let Tenants { shares, all, members } =
        tenants(&assigned, rows.iter().map(known).collect(), |ledger| reader.node(ledger))?;
    reader.labels.extend(all.iter().map(|tenant| (tenant.number, tenant.label.clone())));
    reader.members.extend(members);
    reader.shares = Some(shares);
    Ok(all)
}
