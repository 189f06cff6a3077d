//! Messages that were purged and must not be taken for new ones: a request that was captured can be replayed
//! at any time, since its signature carries none.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};
use protocol::sid;

use crate::error;
use crate::heap::relation;

/// The key of a message in `twilio_internal.purged_message`.
#[pg_extern]
fn sid_digest(message_sid: &str) -> Uuid {
    Uuid::from_bytes(sid::digest(message_sid))
}

/// Whether a message of this SID was purged and is remembered. Looks at the table as it is now, not as of a
/// snapshot: a message that is not found because a purge removed it is found here.
#[pg_extern]
pub(crate) fn is_purged(message_sid: &str) -> Result<bool, ErrorReport> {
    let (table, index) = (
        relation(c"purged_message"),
        relation(c"purged_message_pkey"),
    );
    if table == pg_sys::InvalidOid || index == pg_sys::InvalidOid {
        return Err(error::missing_purged_key());
    }
    let key = sid_digest(message_sid).into_datum();
    let lock = pg_sys::AccessShareLock.cast_signed();
    let unlocked = pg_sys::NoLock.cast_signed();
    // SAFETY: inside a transaction. Everything opened is closed; after an error, the abort closes it. The locks stay
    // until the transaction ends, so the next look-up of a batch has them.
    unsafe {
        let table = pg_sys::table_open(table, lock);
        let index = pg_sys::index_open(index, lock);
        if !is_key(table, index) {
            return Err(error::missing_purged_key());
        }
        let slot = pg_sys::table_slot_create(table, std::ptr::null_mut());
        let mut snapshot = pg_sys::SnapshotData {
            snapshot_type: pg_sys::SnapshotType::SNAPSHOT_DIRTY,
            ..Default::default()
        };
        let mut wanted = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &raw mut wanted,
            1,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::F_UUID_EQ.into(),
            key.unwrap_or(pg_sys::Datum::from(0)),
        );
        let scan = pg_sys::index_beginscan(table, index, &raw mut snapshot, 1, 0);
        pg_sys::index_rescan(scan, &raw mut wanted, 1, std::ptr::null_mut(), 0);
        let direction = pg_sys::ScanDirection::ForwardScanDirection;
        let is_found = pg_sys::index_getnext_slot(scan, direction, slot);
        pg_sys::index_endscan(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::index_close(index, unlocked);
        pg_sys::table_close(table, unlocked);
        Ok(is_found)
    }
}

/// Whether an index is the valid primary key of this table over one uuid, as the scan takes it to be.
///
/// # Safety
/// Both are open.
unsafe fn is_key(table: pg_sys::Relation, index: pg_sys::Relation) -> bool {
    // SAFETY: an open index has a row of pg_index and of pg_class, and at least one column.
    unsafe {
        let row = &*(*index).rd_index;
        row.indrelid == (*table).rd_id
            && row.indisprimary
            && row.indisvalid
            && row.indnkeyatts == 1
            && *(*index).rd_opcintype == pg_sys::UUIDOID
            && (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID
    }
}
