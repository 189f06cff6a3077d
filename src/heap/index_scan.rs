//! Finding single rows by their key, as they are now, and locking them.

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::{self, Datum};
use pgrx::{FromDatum, PgMemoryContexts};

use super::{Assignment, HeapTable};
use crate::error;

impl HeapTable {
    /// A scan of one of the table's indexes.
    pub(crate) fn index_scan(&self, index: pg_sys::Oid) -> Result<IndexScan, ErrorReport> {
        // SAFETY: the table's indexes are open; called in memory that outlives the scan.
        let begin = |_: &mut PgMemoryContexts| unsafe {
            let snapshot: *mut pg_sys::SnapshotData =
                pg_sys::palloc0(size_of::<pg_sys::SnapshotData>()).cast();
            (*snapshot).snapshot_type = pg_sys::SnapshotType::SNAPSHOT_DIRTY;
            let count = usize::try_from((*self.info).ri_NumIndices).unwrap_or(0);
            let indexes = std::slice::from_raw_parts((*self.info).ri_IndexRelationDescs, count);
            let index = indexes.iter().find(|open| (***open).rd_id == index);
            let index = *index.ok_or_else(error::missing_index)?;
            // Columns that it includes are no keys.
            let width = i32::from((*(*index).rd_index).indnkeyatts);
            Ok(IndexScan {
                table: self.layout.table,
                scan: pg_sys::index_beginscan(self.relation, index, snapshot, width, 0),
                index,
                snapshot,
            })
        };
        // SAFETY: the executor state lives as long as the session.
        unsafe { PgMemoryContexts::For((*self.estate).es_query_cxt).switch_to(begin) }
    }

    /// Finds the current row of a key. Waits for a session that is inserting it to commit or abort.
    pub(crate) fn find(&mut self, lookup: &mut IndexScan, key: &[Assignment]) -> bool {
        assert!(
            lookup.table == self.layout.table,
            "an index of another table"
        );
        let mut keys = [pg_sys::ScanKeyData::default(); 3];
        for (place, column) in key.iter().enumerate() {
            let is_null = pg_sys::SK_ISNULL | pg_sys::SK_SEARCHNULL;
            let number = self.place(column.table, column.place) + 1;
            // SAFETY: the assertions show that the index has this column at this place, so equality is that of its type.
            unsafe {
                let index = &*(*lookup.index).rd_index;
                assert!(
                    place < usize::try_from(index.indnkeyatts).unwrap_or(0),
                    "a longer key than the index has"
                );
                let indexed = *index.indkey.values.as_ptr().add(place);
                assert!(
                    usize::try_from(indexed) == Ok(number),
                    "a key of other columns than the index has"
                );
                pg_sys::ScanKeyEntryInitialize(
                    &raw mut keys[place],
                    column.value.map_or(is_null, |_| 0).cast_signed(),
                    i16::try_from(place + 1).unwrap_or(i16::MAX),
                    pg_sys::BTEqualStrategyNumber as u16,
                    pg_sys::InvalidOid,
                    *(*lookup.index).rd_indcollation.add(place),
                    column.value.map_or(0, |_| column.equals).into(),
                    column.value.unwrap_or(Datum::from(0)),
                );
            }
        }
        let count = i32::try_from(key.len()).unwrap_or(0);
        loop {
            // SAFETY: the scan was begun by lookup and is not ended yet.
            let is_found = self.in_session(|| unsafe {
                let none = std::ptr::null_mut();
                pg_sys::index_rescan(lookup.scan, keys.as_mut_ptr(), count, none, 0);
                let direction = pg_sys::ScanDirection::ForwardScanDirection;
                pg_sys::index_getnext_slot(lookup.scan, direction, self.found)
            });
            // SAFETY: the snapshot lives as long as the scan; each row that the scan examines leaves here who is inserting it.
            let (inserting, token) =
                unsafe { ((*lookup.snapshot).xmin, (*lookup.snapshot).speculativeToken) };
            if !is_found || inserting == pg_sys::InvalidTransactionId {
                return is_found;
            }
            pgrx::check_for_interrupts!();
            // SAFETY: waiting for a transaction that runs, as an insert of the same key would.
            unsafe {
                match token {
                    0 => {
                        let what = pg_sys::XLTW_Oper::XLTW_InsertIndex;
                        let tid = &raw mut (*self.found).tts_tid;
                        pg_sys::XactLockTableWait(inserting, self.relation, tid, what);
                    }
                    token => pg_sys::SpeculativeInsertionWait(inserting, token),
                }
            }
        }
    }

    /// Locks the row that was found, for changes that leave its keys alone, and takes it as it is
    /// then. False if it went away or was changed meanwhile: it is to be found anew. Raises 40001 where
    /// "for update" would, and 27000 for a row that a trigger changed before we did.
    pub(crate) fn lock(&mut self) -> Result<bool, ErrorReport> {
        let mut failure = pg_sys::TM_FailureData::default();
        // SAFETY: the slot holds a row of this table; the guard turns an error of PostgreSQL's into
        // one of Rust's, as for each function that is not called through a pointer.
        let result = unsafe {
            let Some(lock) = (*(*self.relation).rd_tableam).tuple_lock else {
                pgrx::error!("rows of this table cannot be locked");
            };
            let mut tid = (*self.found).tts_tid;
            let command = pg_sys::GetCurrentCommandId(false);
            let snapshot = (*self.estate).es_snapshot;
            pg_guard_ffi_boundary(|| {
                lock(
                    self.relation,
                    &raw mut tid,
                    snapshot,
                    self.found,
                    command,
                    pg_sys::LockTupleMode::LockTupleNoKeyExclusive,
                    pg_sys::LockWaitPolicy::LockWaitBlock,
                    pg_sys::TUPLE_LOCK_FLAG_FIND_LAST_VERSION as u8,
                    &raw mut failure,
                )
            })
        };
        // SAFETY: PostgreSQL's code and ours read and write it on this thread only.
        let has_one_snapshot =
            unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ.cast_signed() };
        match result {
            pg_sys::TM_Result::TM_Ok if has_one_snapshot && !self.is_visible() => {
                Err(error::serialization())
            }
            pg_sys::TM_Result::TM_Ok => Ok(true),
            pg_sys::TM_Result::TM_Updated | pg_sys::TM_Result::TM_Deleted => match has_one_snapshot
            {
                true => Err(error::serialization()),
                false => Ok(false),
            },
            _ => Err(error::changed_by_trigger()),
        }
    }

    /// Whether the transaction's own snapshot has the row that was found, or the transaction wrote it.
    fn is_visible(&self) -> bool {
        // SAFETY: the slot holds a row of this table in a buffer, whose method is called as PostgreSQL does.
        unsafe {
            let Some(satisfies) = (*(*self.relation).rd_tableam).tuple_satisfies_snapshot else {
                return false;
            };
            let mut is_null = false;
            let attribute = pg_sys::MinTransactionIdAttributeNumber;
            let writer = (*(*self.found).tts_ops)
                .getsysattr
                .map(|get| pg_guard_ffi_boundary(|| get(self.found, attribute, &raw mut is_null)));
            let writer =
                writer.and_then(|writer| pg_sys::TransactionId::from_datum(writer, is_null));
            writer.is_some_and(|writer| pg_sys::TransactionIdIsCurrentTransactionId(writer))
                || pg_guard_ffi_boundary(|| {
                    satisfies(self.relation, self.found, (*self.estate).es_snapshot)
                })
        }
    }
}

/// A scan that finds single rows by their key.
pub(crate) struct IndexScan {
    table: pg_sys::Oid,
    scan: pg_sys::IndexScanDesc,
    index: pg_sys::Relation,
    /// Sees what is committed now and what others have not committed yet.
    snapshot: *mut pg_sys::SnapshotData,
}

impl IndexScan {
    /// Ends the scan; before its table is closed.
    pub(crate) fn end(self) {
        // SAFETY: begun by HeapTable::lookup, and not used afterwards.
        unsafe { pg_sys::index_endscan(self.scan) };
    }
}
