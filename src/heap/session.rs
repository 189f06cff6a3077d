//! Opening tables for the time of one call, as an executor opens those that a statement changes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pgrx::{PgMemoryContexts, pg_sys};

use super::{DefaultValue, HeapTable, Layout, shape};

/// Tables opened together, for the time of one call.
pub(crate) struct WriteSession {
    estate: *mut pg_sys::EState,
    range_table: *mut pg_sys::List,
    count: u32,
    expressions: Rc<IndexExpressions>,
}

impl WriteSession {
    /// Every session that is opened must be closed, or its transaction must end.
    pub(crate) fn open(expressions: Rc<IndexExpressions>) -> Self {
        // SAFETY: called inside a transaction, as every SQL function is.
        let estate = unsafe {
            pg_sys::PreventCommandIfReadOnly(c"twilio_internal.record()".as_ptr());
            // Rows that this transaction wrote before are visible and can be changed.
            pg_sys::CommandCounterIncrement();
            pg_sys::AfterTriggerBeginQuery();
            let estate = pg_sys::CreateExecutorState();
            (*estate).es_snapshot = pg_sys::GetActiveSnapshot();
            estate
        };
        Self {
            estate,
            range_table: std::ptr::null_mut(),
            count: 0,
            expressions,
        }
    }

    /// Opens a table for writing.
    pub(crate) fn table(&mut self, layout: &Layout) -> HeapTable {
        // SAFETY: the relation exists, or table_open raises; all that is made here lives in memory of
        // the executor state or of the calling function, and is released by close.
        unsafe {
            let lock = pg_sys::RowExclusiveLock.cast_signed();
            let relation = pg_sys::table_open(layout.table, lock);
            let entry = pg_sys::palloc0(size_of::<pg_sys::RangeTblEntry>());
            let entry: *mut pg_sys::RangeTblEntry = entry.cast();
            (*entry).type_ = pg_sys::NodeTag::T_RangeTblEntry;
            (*entry).rtekind = pg_sys::RTEKind::RTE_RELATION;
            (*entry).relid = layout.table;
            (*entry).relkind = (*(*relation).rd_rel).relkind;
            (*entry).rellockmode = lock;
            self.range_table = pg_sys::lappend(self.range_table, entry.cast());
            pg_sys::ExecInitRangeTable(self.estate, self.range_table);

            // With room to spare: minor releases of November 2024 enlarged it, and wrote past what others had allocated.
            let info = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>() + 256);
            let info: *mut pg_sys::ResultRelInfo = info.cast();
            (*info).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            let none = std::ptr::null_mut();
            pg_sys::InitResultRelInfo(info, relation, self.count + 1, none, 0);
            // Even where a key may come from two sides at once: what a speculating executor has prepared here
            // serves to look for the key before, which we do by a scan.
            pg_sys::ExecOpenIndices(info, false);
            self.expressions.attach(info);
            // Where triggers that wait find it, instead of opening it once more.
            let open = (*self.estate).es_opened_result_relations;
            (*self.estate).es_opened_result_relations = pg_sys::lappend(open, info.cast());
            self.count += 1;
            let defaults = self.defaults(relation, layout);
            HeapTable {
                estate: self.estate,
                relation,
                info,
                triggers_need_key_change: triggers_need_key_change((*info).ri_TrigDesc),
                found: pg_sys::table_slot_create(relation, std::ptr::null_mut()),
                image: pg_sys::MakeSingleTupleTableSlot(
                    (*relation).rd_att,
                    &raw const pg_sys::TTSOpsVirtual,
                ),
                entry,
                layout: layout.clone(),
                defaults,
            }
        }
    }

    /// Prepares the defaults of columns that we do not write.
    ///
    /// # Safety
    /// The relation must be open.
    unsafe fn defaults(
        &self,
        relation: pg_sys::Relation,
        layout: &Layout,
    ) -> Vec<(usize, DefaultValue)> {
        let prepare = |number: &pg_sys::AttrNumber| {
            let place = usize::try_from(*number).ok()?.checked_sub(1)?;
            // SAFETY: the number is that of a column; the expression lives as long as the executor state.
            unsafe {
                let count = usize::try_from((*(*relation).rd_att).natts).unwrap_or(0);
                let column = (*(*relation).rd_att).attrs.as_slice(count).get(place)?;
                let default = shape::default_of(relation, column);
                if default.is_null() {
                    return None;
                }
                let mut memory = PgMemoryContexts::For((*self.estate).es_query_cxt);
                let planned = memory.switch_to(|_| pg_sys::expression_planner(default.cast()));
                let default = match (*planned).type_ {
                    pg_sys::NodeTag::T_Const => {
                        let constant = planned.cast::<pg_sys::Const>();
                        DefaultValue::Constant((*constant).constvalue, (*constant).constisnull)
                    }
                    _ => {
                        DefaultValue::Computed(pg_sys::ExecPrepareExpr(default.cast(), self.estate))
                    }
                };
                Some((place, default))
            }
        };
        layout.defaults.iter().filter_map(prepare).collect()
    }

    /// Fires what triggers wait and closes everything. The locks stay until the transaction ends.
    ///
    /// # Safety
    /// The tables are all those that the session opened, and their scans have ended.
    pub(crate) unsafe fn close<const N: usize>(self, tables: [HeapTable; N]) {
        // SAFETY: the caller vouches for the tables, and nothing of the session is left to use them.
        unsafe {
            pg_sys::AfterTriggerEndQuery(self.estate);
            for table in &tables {
                close_indexes(table.info);
            }
            // The tables whose triggers our triggers set off.
            pg_sys::ExecCloseResultRelations(self.estate);
            for table in tables {
                pg_sys::ExecDropSingleTupleTableSlot(table.found);
                pg_sys::ExecDropSingleTupleTableSlot(table.image);
                pg_sys::table_close(table.relation, pg_sys::NoLock.cast_signed());
            }
            pg_sys::ExecResetTupleTable((*self.estate).es_tupleTable, false);
            pg_sys::FreeExecutorState(self.estate);
        }
    }
}

/// What insertions evaluate for partial indexes and for those on expressions. PostgreSQL prepares it for each statement
/// anew, which for a single callback takes as long as writing a row does.
pub(crate) struct IndexExpressions {
    /// Null until the first index needs it.
    estate: Cell<*mut pg_sys::EState>,
    prepared: RefCell<Vec<Prepared>>,
}

#[derive(Clone, Copy)]
struct Prepared {
    index: pg_sys::Oid,
    predicate: *mut pg_sys::ExprState,
    expressions: *mut pg_sys::List,
}

impl IndexExpressions {
    pub(crate) fn new() -> Self {
        Self {
            estate: Cell::new(std::ptr::null_mut()),
            prepared: RefCell::default(),
        }
    }

    /// Hands the prepared expressions to the indexes of a table.
    ///
    /// # Safety
    /// The indexes were opened by `ExecOpenIndices`.
    unsafe fn attach(&self, info: *mut pg_sys::ResultRelInfo) {
        // SAFETY: the table counts its open indexes.
        unsafe {
            for place in 0..usize::try_from((*info).ri_NumIndices).unwrap_or(0) {
                let index = *(*info).ri_IndexRelationInfo.add(place);
                if (*index).ii_Predicate.is_null() && (*index).ii_Expressions.is_null() {
                    continue;
                }
                let relation = *(*info).ri_IndexRelationDescs.add(place);
                let prepared = self.of((*relation).rd_id, index);
                (*index).ii_PredicateState = prepared.predicate;
                (*index).ii_ExpressionsState = prepared.expressions;
            }
        }
    }

    /// # Safety
    /// The description must be that of the open index.
    unsafe fn of(&self, index: pg_sys::Oid, info: *mut pg_sys::IndexInfo) -> Prepared {
        let found =
            |prepared: &Vec<Prepared>| prepared.iter().find(|one| one.index == index).copied();
        if let Some(prepared) = found(&self.prepared.borrow()) {
            return prepared;
        }
        // SAFETY: the executor state lives as long as self, in memory that outlives transactions, and so do the copies of the
        // expressions and what is prepared of them. Evaluation takes its context from each session.
        let prepared = unsafe {
            if self.estate.get().is_null() {
                let create = |_: &mut PgMemoryContexts| pg_sys::CreateExecutorState();
                self.estate
                    .set(PgMemoryContexts::CacheMemoryContext.switch_to(create));
            }
            let estate = self.estate.get();
            PgMemoryContexts::For((*estate).es_query_cxt).switch_to(|_| {
                let copy = |list: *mut pg_sys::List| pg_sys::copyObjectImpl(list.cast()).cast();
                Prepared {
                    index,
                    predicate: pg_sys::ExecPrepareQual(copy((*info).ii_Predicate), estate),
                    expressions: pg_sys::ExecPrepareExprList(copy((*info).ii_Expressions), estate),
                }
            })
        };
        self.prepared.borrow_mut().push(prepared);
        prepared
    }
}

impl Drop for IndexExpressions {
    fn drop(&mut self) {
        // SAFETY: PostgreSQL's code sets it on this thread. A process that ends leaves its memory as it is.
        if self.estate.get().is_null() || unsafe { pg_sys::proc_exit_inprogress } {
            return;
        }
        // SAFETY: created above; no session uses it any more, since each holds it. It only frees memory,
        // so the callback of changes in the catalog may drop it too.
        unsafe { pg_sys::FreeExecutorState(self.estate.get()) };
    }
}

/// Closes a table's indexes. Their locks stay like the table's: a transaction that comes again has them, and one
/// that does not gives all back at once.
///
/// # Safety
/// The indexes were opened by `ExecOpenIndices`.
unsafe fn close_indexes(info: *mut pg_sys::ResultRelInfo) {
    // SAFETY: the table counts its open indexes, and has none afterwards.
    unsafe {
        let count = usize::try_from((*info).ri_NumIndices).unwrap_or(0);
        for place in 0..count {
            let index = *(*info).ri_IndexRelationDescs.add(place);
            pg_sys::index_close(index, pg_sys::NoLock.cast_signed());
        }
        (*info).ri_NumIndices = 0;
    }
}

/// Whether triggers have work to do only in updates that change a key: all triggers for updates are those of foreign keys
/// that refer to the table.
///
/// # Safety
/// Null or the descriptor of an open relation.
unsafe fn triggers_need_key_change(triggers: *mut pg_sys::TriggerDesc) -> bool {
    // By number, since it is looked at in every call.
    let referrers = pg_sys::F_RI_FKEY_CASCADE_DEL..=pg_sys::F_RI_FKEY_NOACTION_UPD;
    let is_passive = |place| {
        // SAFETY: the descriptor counts its triggers.
        let trigger = unsafe { &*(*triggers).triggers.add(place) };
        let events = u32::from(trigger.tgtype.cast_unsigned());
        events & pg_sys::TRIGGER_TYPE_UPDATE == 0 || referrers.contains(&trigger.tgfoid.to_u32())
    };
    // SAFETY: null or the descriptor of the open relation, as the caller vouches.
    let count = unsafe { triggers.as_ref() }.map_or(0, |all| all.numtriggers);
    (0..usize::try_from(count).unwrap_or(0)).all(is_passive)
}
