//! Our own tables without statements: rows are found by index, locked, inserted and updated by the calls
//! that logical replication applies changes with, so indexes, triggers and constraints all hold.
//!
//! A statement costs 5 to 10 microseconds before it touches a row; these calls cost what the row costs.

use std::ffi::CStr;
use std::rc::Rc;

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::{self, Datum};
use pgrx::{FromDatum, IntoDatum, PgMemoryContexts, direct_function_call, varlena_to_byte_slice};

use crate::error;

mod column;
mod index_scan;
mod scan;
mod session;
mod shape;
pub(crate) use column::{
    Assignment, Bool, Int2, Int4, Int8, Jsonb, JsonbDatum, SqlType, Text, TextArray, Timestamp,
    Typed, Xid8,
};
pub(crate) use index_scan::IndexScan;
pub(crate) use scan::{Field, KeyValue, Row, read_rows};
pub(crate) use session::{IndexExpressions, WriteSession};
pub(crate) use shape::{Column, Difference, Examination, Key, Nulls, Shape};

/// A table as the catalog describes it: what need not be looked up for each call.
#[derive(Clone)]
pub(crate) struct Layout {
    pub(crate) table: pg_sys::Oid,
    name: &'static CStr,
    /// Our columns' places in a row, in the order of the names that they were asked for by.
    places: Rc<[usize]>,
    sequence: pg_sys::Oid,
    /// Columns that get a value although we write none.
    defaults: Rc<[pg_sys::AttrNumber]>,
}

impl Layout {
    /// Looks a table of schema `twilio` up.
    pub(crate) fn of(
        name: &'static CStr,
        columns: &[&CStr],
        sequence: &CStr,
    ) -> Result<Self, ErrorReport> {
        let table = relation(name);
        let place = |column: &&CStr| {
            // SAFETY: get_attnum reads a terminated string, and returns 0 for a column that is not there.
            let number = unsafe { pg_sys::get_attnum(table, column.as_ptr()) };
            // System columns have negative numbers, and none of our names.
            let place = usize::try_from(number)
                .ok()
                .and_then(|number| number.checked_sub(1));
            place.ok_or_else(|| {
                error::missing_column(&name.to_string_lossy(), &column.to_string_lossy())
            })
        };
        Ok(Self {
            table,
            name,
            places: columns.iter().map(place).collect::<Result<_, _>>()?,
            sequence: relation(sequence),
            defaults: Rc::default(),
        })
    }

    /// Gives these columns their defaults in rows that are inserted.
    pub(crate) fn with_defaults(self, defaults: Vec<pg_sys::AttrNumber>) -> Self {
        Self {
            defaults: defaults.into(),
            ..self
        }
    }

    /// Whether the current role may insert and change rows.
    pub(crate) fn may_be_written(&self) -> bool {
        let rights = pg_sys::ACL_INSERT | pg_sys::ACL_UPDATE;
        // SAFETY: takes two Oids by value, and returns no rights for a table that is gone.
        let result = unsafe {
            pg_sys::pg_class_aclmask(
                self.table,
                pg_sys::GetUserId(),
                rights,
                pg_sys::AclMaskHow::ACLMASK_ALL,
            )
        };
        result == rights
    }
}

/// A relation of the extension; the invalid Oid if there is none.
pub(crate) fn relation(name: &CStr) -> pg_sys::Oid {
    let schema = match INTERNAL.contains(&name) {
        true => c"twilio_internal",
        false => c"twilio",
    };
    // SAFETY: the catalog functions read terminated strings.
    unsafe {
        let schema = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    }
}

/// The relations of schema `twilio_internal` that are read here; all others are in schema `twilio`.
const INTERNAL: [&CStr; 4] = [
    c"purged_message",
    c"purged_message_pkey",
    c"rejected_callback",
    c"smsgate_key",
];

/// A table that is open for writing, the row that was found in it last, and the image of the next one.
pub(crate) struct HeapTable {
    estate: *mut pg_sys::EState,
    relation: pg_sys::Relation,
    info: *mut pg_sys::ResultRelInfo,
    /// Whether triggers have work to do only in updates that change a key.
    triggers_need_key_change: bool,
    found: *mut pg_sys::TupleTableSlot,
    image: *mut pg_sys::TupleTableSlot,
    entry: *mut pg_sys::RangeTblEntry,
    layout: Layout,
    /// The places of columns that we do not write, and their defaults.
    defaults: Vec<(usize, DefaultValue)>,
}

/// The default of a column that we do not write.
enum DefaultValue {
    /// A value, and whether it is null.
    Constant(Datum, bool),
    Computed(*mut pg_sys::ExprState),
}

/// The outcome of an insertion.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Insertion {
    Done,
    /// Its key is there already.
    Taken,
    /// A user's trigger would not have it.
    Dropped,
}

/// The bits of `tgtype` of a row trigger before insert.
const BEFORE_INSERT: u16 =
    (pg_sys::TRIGGER_TYPE_ROW | pg_sys::TRIGGER_TYPE_BEFORE | pg_sys::TRIGGER_TYPE_INSERT) as u16;

/// A value for a column; none is null.
pub(crate) type Value = Option<Datum>;

impl HeapTable {
    /// The next number of the table's own sequence.
    pub(crate) fn next_number(&self) -> i64 {
        // SAFETY: a call of PostgreSQL's own function with the argument that it takes.
        let number = unsafe {
            direct_function_call::<i64>(pg_sys::nextval_oid, &[self.layout.sequence.into_datum()])
        };
        number.unwrap_or_default()
    }

    /// Where a column's value is in a row.
    fn place(&self, table: &CStr, place: usize) -> usize {
        assert!(
            std::ptr::eq(table, self.layout.name) || table == self.layout.name,
            "a column of another table"
        );
        self.layout.places[place]
    }

    /// A column of the row that was found last.
    pub(crate) fn get<T: SqlType>(&self, column: Typed<T>) -> Option<T::Read> {
        let place = self.place(column.table, column.place);
        // SAFETY: the slot holds a row of this table, and the catalog was found to have the types of our columns.
        unsafe {
            if usize::try_from((*self.found).tts_nvalid).unwrap_or(0) <= place {
                // All at once, since who reads one column reads others.
                let width = (*(*self.relation).rd_att).natts;
                pg_sys::slot_getsomeattrs_int(self.found, width);
            }
            let value = *(*self.found).tts_values.add(place);
            T::Read::from_datum(value, *(*self.found).tts_isnull.add(place))
        }
    }

    /// The payload of a `jsonb` of the row that was found last.
    pub(crate) fn bytes(&self, column: Typed<Jsonb>) -> Option<&[u8]> {
        let value = self.get(column)?;
        // SAFETY: a jsonb is of variable length. The value lies in the row's page, which stays pinned until another
        // row is found, or in memory of the calling function.
        unsafe {
            let value = pg_sys::pg_detoast_datum_packed(value.cast_mut_ptr());
            Some(varlena_to_byte_slice(value))
        }
    }

    /// Makes the image of a row that has these columns, the others having their defaults.
    pub(crate) fn fill(&mut self, columns: &[Assignment]) {
        // SAFETY: the slot has room for all columns of the table.
        unsafe {
            pg_sys::ExecStoreAllNullTuple(self.image);
            self.set_defaults();
            self.set(columns);
        }
    }

    /// Inserts the image. No other session can be inserting its keys.
    pub(crate) fn insert(&mut self) -> Insertion {
        // SAFETY: the image is whole; the table and its indexes are open.
        unsafe {
            // Only a row that is written gets a place.
            (*self.image).tts_tid.ip_posid = 0;
            self.in_session(|| {
                pg_sys::ExecSimpleRelationInsert(self.info, self.estate, self.image);
            });
            pg_sys::MemoryContextReset((*self.tuple_context()).ecxt_per_tuple_memory);
            match (*self.image).tts_tid.ip_posid {
                0 => Insertion::Dropped,
                _ => Insertion::Done,
            }
        }
    }

    /// Inserts the image unless the key of these indexes is taken, also by a session that is just inserting it.
    /// The steps are those of "insert … on conflict".
    pub(crate) fn insert_unless_taken(&mut self, indexes: &[pg_sys::Oid]) -> Insertion {
        self.in_session(|| self.speculate(indexes))
    }

    fn speculate(&self, indexes: &[pg_sys::Oid]) -> Insertion {
        // SAFETY: the image is whole; the table and its indexes are open, prepared for speculation.
        unsafe {
            let triggers = (*self.info).ri_TrigDesc;
            if !triggers.is_null()
                && (*triggers).trig_insert_before_row
                && !pg_sys::ExecBRInsertTriggers(self.estate, self.info, self.image)
            {
                return Insertion::Dropped;
            }
            self.complete();
            let methods = (*self.relation).rd_tableam;
            let (Some(insert), Some(complete)) = (
                (*methods).tuple_insert_speculative,
                (*methods).tuple_complete_speculative,
            ) else {
                pgrx::error!("rows of this table cannot be inserted on conflict");
            };
            let transaction = pg_sys::GetCurrentTransactionId();
            let token = pg_sys::SpeculativeInsertionLockAcquire(transaction);
            let command = pg_sys::GetCurrentCommandId(true);
            (*self.estate).es_output_cid = command;
            let none = std::ptr::null_mut();
            pg_guard_ffi_boundary(|| insert(self.relation, self.image, command, 0, none, token));
            let mut is_taken = false;
            let arbiters = (indexes.iter()).fold(std::ptr::null_mut(), |list, index| {
                pg_sys::lappend_oid(list, *index)
            });
            let recheck = pg_sys::ExecInsertIndexTuples(
                self.info,
                self.image,
                self.estate,
                false,
                true,
                &raw mut is_taken,
                arbiters,
            );
            pg_guard_ffi_boundary(|| complete(self.relation, self.image, token, !is_taken));
            pg_sys::SpeculativeInsertionLockRelease(transaction);
            if !is_taken {
                let none = std::ptr::null_mut();
                pg_sys::ExecARInsertTriggers(self.estate, self.info, self.image, recheck, none);
            }
            pg_sys::MemoryContextReset((*self.tuple_context()).ecxt_per_tuple_memory);
            match is_taken {
                true => Insertion::Taken,
                false => Insertion::Done,
            }
        }
    }

    /// Says which triggers may have dropped a row that was to be inserted.
    pub(crate) fn dropped_by(&self) -> String {
        // SAFETY: the relation is open, its descriptor counts its triggers, and names are terminated.
        let (table, triggers) = unsafe {
            let name = CStr::from_ptr((*(*self.relation).rd_rel).relname.data.as_ptr());
            let triggers: Vec<_> = ((*self.info).ri_TrigDesc.as_ref().into_iter())
                .flat_map(|all| {
                    let count = usize::try_from(all.numtriggers).unwrap_or(0);
                    std::slice::from_raw_parts(all.triggers, count)
                })
                .filter(|trigger| {
                    trigger.tgtype.cast_unsigned() & BEFORE_INSERT == BEFORE_INSERT
                        && trigger.tgenabled.cast_unsigned() != pg_sys::TRIGGER_DISABLED
                })
                .map(|trigger| {
                    CStr::from_ptr(trigger.tgname)
                        .to_string_lossy()
                        .into_owned()
                })
                .collect();
            (name.to_string_lossy().into_owned(), triggers)
        };
        format!(
            "row of twilio.{table} was dropped by trigger {}",
            triggers.join(" or ")
        )
    }

    /// Changes these columns of the row that was found and locked. Raises 27000 for a row that a trigger of
    /// this update changed before.
    pub(crate) fn update(&mut self, columns: &[Assignment]) -> Result<(), ErrorReport> {
        // SAFETY: found holds the locked row, from which all that is not changed is taken; the values
        // that lie in its page stay pinned by it.
        unsafe {
            let width = self.width();
            if usize::try_from((*self.found).tts_nvalid).unwrap_or(0) < width {
                pg_sys::slot_getsomeattrs_int(self.found, i32::try_from(width).unwrap_or(0));
            }
            pg_sys::ExecStoreAllNullTuple(self.image);
            let (from, to) = (&*self.found, &*self.image);
            std::ptr::copy_nonoverlapping(from.tts_values, to.tts_values, width);
            std::ptr::copy_nonoverlapping(from.tts_isnull, to.tts_isnull, width);
            self.set(columns);
            // Triggers "update of" a column, and how strictly before-triggers lock, go by these.
            let first = pg_sys::FirstLowInvalidHeapAttributeNumber;
            (*self.entry).updatedCols =
                (columns.iter()).fold(std::ptr::null_mut(), |set, column| {
                    let place = self.place(column.table, column.place);
                    pg_sys::bms_add_member(set, i32::from(scan::attribute(place)) - first)
                });
            // Before-triggers lock the row as of this command.
            (*self.estate).es_output_cid = pg_sys::GetCurrentCommandId(true);
            let result = self.in_session(|| {
                let triggers = (*self.info).ri_TrigDesc;
                if self.triggers_need_key_change && !self.changes_a_key() {
                    // The triggers would fetch the old row, only to find that its key is still the same.
                    (*self.info).ri_TrigDesc = std::ptr::null_mut();
                }
                let result = self.replace();
                (*self.info).ri_TrigDesc = triggers;
                result
            });
            (*self.entry).updatedCols = std::ptr::null_mut();
            pg_sys::MemoryContextReset((*self.tuple_context()).ecxt_per_tuple_memory);
            match result {
                pg_sys::TM_Result::TM_Ok => Ok(()),
                _ => Err(error::changed_by_trigger()),
            }
        }
    }

    /// Puts the image in the place of the row that was found. The steps are those of an update that logical
    /// replication applies, but a row that a before-trigger changed is reported as such, as by a statement.
    ///
    /// # Safety
    /// The image must be whole, and the row locked.
    unsafe fn replace(&self) -> pg_sys::TM_Result::Type {
        // SAFETY: the table and its indexes are open.
        unsafe {
            let none = std::ptr::null_mut();
            let old = &raw mut (*self.found).tts_tid;
            pg_sys::CheckCmdReplicaIdentity(self.relation, pg_sys::CmdType::CMD_UPDATE);
            let triggers = (*self.info).ri_TrigDesc;
            if !triggers.is_null() && (*triggers).trig_update_before_row {
                let mut recheck = pg_sys::EPQState::default();
                let recheck = &raw mut recheck;
                let no_rows = std::ptr::null_mut();
                pg_sys::EvalPlanQualInit(recheck, self.estate, std::ptr::null_mut(), no_rows, -1);
                let (estate, info, image) = (self.estate, self.info, self.image);
                let nothing = std::ptr::null_mut();
                let failure = std::ptr::null_mut();
                let is_wanted = pg_sys::ExecBRUpdateTriggers(
                    estate, recheck, info, old, nothing, image, failure,
                );
                pg_sys::EvalPlanQualEnd(recheck);
                if !is_wanted {
                    return pg_sys::TM_Result::TM_Ok;
                }
            }
            self.complete();
            let Some(update) = (*(*self.relation).rd_tableam).tuple_update else {
                pgrx::error!("rows of this table cannot be updated");
            };
            let mut failure = pg_sys::TM_FailureData::default();
            let mut lock = pg_sys::LockTupleMode::LockTupleNoKeyExclusive;
            let mut touches_indexes = false;
            let result = pg_guard_ffi_boundary(|| {
                update(
                    self.relation,
                    old,
                    self.image,
                    (*self.estate).es_output_cid,
                    (*self.estate).es_snapshot,
                    std::ptr::null_mut(),
                    true,
                    &raw mut failure,
                    &raw mut lock,
                    &raw mut touches_indexes,
                )
            });
            if result != pg_sys::TM_Result::TM_Ok {
                return result;
            }
            let mut recheck = std::ptr::null_mut();
            if touches_indexes && (*self.info).ri_NumIndices > 0 {
                recheck = pg_sys::ExecInsertIndexTuples(
                    self.info,
                    self.image,
                    self.estate,
                    true,
                    false,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                );
            }
            let (nothing, no_capture) = (std::ptr::null_mut(), std::ptr::null_mut());
            pg_sys::ExecARUpdateTriggers(
                self.estate,
                self.info,
                none,
                none,
                old,
                nothing,
                self.image,
                recheck,
                no_capture,
                false,
            );
            result
        }
    }

    /// Computes the image's generated columns and checks its constraints.
    ///
    /// # Safety
    /// The image must be whole.
    unsafe fn complete(&self) {
        // SAFETY: the session keeps the table open, and the caller vouches for the image.
        unsafe {
            let Some(constraints) = (*(*self.relation).rd_att).constr.as_ref() else {
                return;
            };
            if constraints.has_generated_stored {
                // For an update it would keep which columns that one changed, and the next may change others.
                let all = pg_sys::CmdType::CMD_INSERT;
                pg_guard_ffi_boundary(|| {
                    ExecComputeStoredGenerated(self.info, self.estate, self.image, all);
                });
            }
            pg_sys::ExecConstraints(self.info, self.image, self.estate);
        }
    }

    /// # Safety
    /// The slot of the image must hold a virtual tuple.
    unsafe fn set_defaults(&mut self) {
        for (place, default) in &self.defaults {
            // SAFETY: prepared for this table; the values live until the row is written.
            unsafe {
                let (value, is_null) = match default {
                    DefaultValue::Constant(value, is_null) => (*value, *is_null),
                    DefaultValue::Computed(state) => self.compute(*state),
                };
                *(*self.image).tts_values.add(*place) = value;
                *(*self.image).tts_isnull.add(*place) = is_null;
            }
        }
    }

    /// # Safety
    /// The expression must be prepared for this table.
    unsafe fn compute(&self, state: *mut pg_sys::ExprState) -> (Datum, bool) {
        let mut is_null = true;
        // SAFETY: the caller vouches for the expression; its value lies in memory that is reset once the row is written.
        unsafe {
            let Some(compute) = (*state).evalfunc else {
                return (Datum::from(0), is_null);
            };
            let context = self.tuple_context();
            let value = PgMemoryContexts::For((*context).ecxt_per_tuple_memory)
                .switch_to(|_| pg_guard_ffi_boundary(|| compute(state, context, &raw mut is_null)));
            (value, is_null)
        }
    }

    /// # Safety
    /// The slot of the image must hold a virtual tuple.
    unsafe fn set(&mut self, columns: &[Assignment]) {
        for column in columns {
            let place = self.place(column.table, column.place);
            // SAFETY: the layout's places are those of the table's columns, for which the slot has room.
            unsafe {
                *(*self.image).tts_values.add(place) = column.value.unwrap_or(Datum::from(0));
                *(*self.image).tts_isnull.add(place) = column.value.is_none();
            }
        }
    }

    /// Whether the columns that are being changed are part of a key that others can refer to.
    fn changes_a_key(&self) -> bool {
        // SAFETY: the relation is open; the sets number columns alike.
        unsafe {
            let kind = pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_KEY;
            let keys = pg_sys::RelationGetIndexAttrBitmap(self.relation, kind);
            pg_sys::bms_overlap(keys, (*self.entry).updatedCols)
        }
    }

    fn width(&self) -> usize {
        // SAFETY: the session keeps the relation, and with it the descriptor, open.
        usize::try_from(unsafe { (*(*self.relation).rd_att).natts }).unwrap_or(0)
    }

    /// Calls PostgreSQL in memory of the session's: scans and calls of triggers keep there what they need
    /// again, and would find it gone with an item's.
    fn in_session<T>(&self, call: impl FnOnce() -> T) -> T {
        // SAFETY: the executor state lives as long as the session.
        unsafe { PgMemoryContexts::For((*self.estate).es_query_cxt).switch_to(|_| call()) }
    }

    fn tuple_context(&self) -> *mut pg_sys::ExprContext {
        // SAFETY: the executor state lives as long as the session.
        unsafe {
            match (*self.estate).es_per_tuple_exprcontext {
                none if none.is_null() => pg_sys::MakePerTupleExprContext(self.estate),
                context => context,
            }
        }
    }
}

/// A text for a column, in memory of the calling function.
pub(crate) fn text(text: &str) -> Datum {
    let length = i32::try_from(text.len()).unwrap_or(i32::MAX);
    // SAFETY: that many bytes are there, and PostgreSQL copies them; callers give text without U+0000.
    unsafe {
        Datum::from(pg_sys::cstring_to_text_with_len(
            text.as_ptr().cast(),
            length,
        ))
    }
}

unsafe extern "C-unwind" {
    /// Of executor/nodeModifyTable.h, which pgrx does not bind.
    fn ExecComputeStoredGenerated(
        info: *mut pg_sys::ResultRelInfo,
        estate: *mut pg_sys::EState,
        slot: *mut pg_sys::TupleTableSlot,
        command: pg_sys::CmdType::Type,
    );
}
