//! Rows that a function returns all at once.

use std::marker::PhantomData;

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::htup::IntoHeapTuple;
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};

/// The rows of a function, returned by one call; pgrx's type of this name returns them one by one. PostgreSQL enters a function that
/// has settings of its own anew for each row, which was a twentieth of a callback. The name has to be the same:
/// by it the columns are read off a function's signature.
pub(crate) struct TableIterator<'a, Row> {
    rows: Vec<Row>,
    lifetime: PhantomData<&'a ()>,
}

impl<Row> TableIterator<'_, Row> {
    pub(crate) fn new(rows: Vec<Row>) -> Self {
        Self {
            rows,
            lifetime: PhantomData,
        }
    }
}

// SAFETY: the datum is none, and the rows lie where the call's caller looks for them.
unsafe impl<Row: IntoHeapTuple> BoxRet for TableIterator<'_, Row> {
    unsafe fn box_into<'fcx>(self, call: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: within the call; the descriptor is that of the declared columns, which are the row's.
        unsafe {
            let call = call.as_mut_ptr();
            // The columns as the caller expects them are at hand; the catalog's cost a thirtieth of a callback.
            pg_sys::InitMaterializedSRF(call, pg_sys::MAT_SRF_USE_EXPECTED_DESC);
            let result = (*call).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            for row in self.rows {
                let tuple = row.into_heap_tuple((*result).setDesc);
                pg_sys::tuplestore_puttuple((*result).setResult, tuple);
            }
        }
        call.return_null()
    }
}

// SAFETY: it returns the same rows as pgrx's iterator, so its SQL type is the same.
unsafe impl<'a, Row> SqlTranslatable for TableIterator<'a, Row>
where
    pgrx::iter::TableIterator<'a, Row>: SqlTranslatable,
{
    const TYPE_IDENT: &'static str = pgrx::iter::TableIterator::<'a, Row>::TYPE_IDENT;
    const TYPE_ORIGIN: TypeOrigin = pgrx::iter::TableIterator::<'a, Row>::TYPE_ORIGIN;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> =
        pgrx::iter::TableIterator::<'a, Row>::ARGUMENT_SQL;
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        pgrx::iter::TableIterator::<'a, Row>::RETURN_SQL;
}
