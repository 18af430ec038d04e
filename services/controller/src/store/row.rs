//! Rows with a checksum over their key and what they say. The database has one of each page, and looks at it after a crash alone:
//! what a disk has changed since would be taken for an entry, or for a vote.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};

use super::DbError;

/// Entries by index, as [`weir_proto::internal::v1::LogRow`].
pub(super) const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("entries");
/// Single rows by name.
pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("facts");

/// The same without checksums, as older versions wrote them.
const LOG_PLAIN: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
const META_PLAIN: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");

/// The checksum in front of a row.
const CRC_BYTES: usize = 4;

/// A row as it is stored.
pub(super) fn sealed(key: &[u8], row: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(CRC_BYTES + row.len());
    stored.extend_from_slice(&crc(key, row).to_le_bytes());
    stored.extend_from_slice(row);
    stored
}

/// What it says.
pub(super) fn opened<'a>(key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], DbError> {
    match stored.split_first_chunk::<CRC_BYTES>() {
        Some((said, row)) if u32::from_le_bytes(*said) == crc(key, row) => Ok(row),
        _ => Err(DbError::Changed { row: String::from_utf8_lossy(key).into_owned() }),
    }
}

/// The key of an entry, as its checksum and its errors have it.
pub(super) fn index(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

fn crc(key: &[u8], row: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(row);
    crc.finalize()
}

/// Looks at every row, and whether one is missing between two others.
pub(super) fn check(db: &Database) -> Result<(), DbError> {
    let txn = db.begin_read()?;
    let mut next = None;
    for row in txn.open_table(LOG)?.iter()? {
        let (at, row) = row?;
        let at = at.value();
        opened(&index(at), row.value())?;
        if let Some(missing) = next.filter(|next| *next != at) {
            return Err(DbError::Changed { row: String::from_utf8_lossy(&index(missing)).into_owned() });
        }
        next = Some(at + 1);
    }
    for row in txn.open_table(META)?.iter()? {
        let (name, row) = row?;
        opened(name.value().as_bytes(), row.value())?;
    }
    Ok(())
}

/// Gives the rows of an older version their checksums: all of them, or none.
pub(super) fn bring_over(db: &Database) -> Result<(), DbError> {
    let txn = db.begin_write()?;
    if !txn.list_tables()?.any(|table| table.name() == META_PLAIN.name()) {
        return Ok(txn.abort()?);
    }
    {
        let (plain, mut log) = (txn.open_table(LOG_PLAIN)?, txn.open_table(LOG)?);
        for row in plain.iter()? {
            let (at, row) = row?;
            log.insert(at.value(), sealed(&index(at.value()), row.value()).as_slice())?;
        }
        let (plain, mut meta) = (txn.open_table(META_PLAIN)?, txn.open_table(META)?);
        for row in plain.iter()? {
            let (name, row) = row?;
            meta.insert(name.value(), sealed(name.value().as_bytes(), row.value()).as_slice())?;
        }
    }
    txn.delete_table(LOG_PLAIN)?;
    txn.delete_table(META_PLAIN)?;
    Ok(txn.commit()?)
}
