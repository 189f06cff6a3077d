//! Reads rows without a statement, so that they appear in no plan and no setting of a caller prints them.

use std::ffi::CStr;
use std::ops::ControlFlow;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::{self, Datum};
use pgrx::{FromDatum, IntoDatum};

use super::{relation, text};
use crate::error;

/// A column to be read: its name and its type.
pub(crate) type Field = (&'static CStr, pg_sys::Oid);

/// The value of the first column of the rows that are to be read.
#[derive(Clone, Copy)]
pub(crate) enum KeyValue<'a> {
    Text(&'a str),
    Int(i32),
    Bigint(i64),
}

/// A row that is being read; it is gone when the next one is.
pub(crate) struct Row<'a> {
    columns: &'a [Field],
    numbers: &'a [usize],
    values: &'a [Datum],
    nulls: &'a [bool],
}

impl Row<'_> {
    /// A column, by its place among those that are read.
    pub(crate) fn get<T: FromDatum + IntoDatum>(&self, column: usize) -> Option<T> {
        assert!(
            T::is_compatible_with(self.columns[column].1),
            "a column of another type"
        );
        let place = self.numbers[column];
        // SAFETY: the column was found to have the type that its reader names, and T is read from that type.
        unsafe { T::from_datum(self.values[place], self.nulls[place]) }
    }

    /// A text; empty if it is null.
    pub(crate) fn text(&self, column: usize) -> String {
        self.get(column).unwrap_or_default()
    }
}

/// Reads the rows of a table of ours whose first column is the key, or all rows, as they are committed now, until
/// `read` breaks; in the order of the primary key, if there is one. Raises 42501 for a role that may not select
/// these columns, and 42703 or 42804 for a table that was altered.
pub(crate) fn read_rows(
    table: &CStr,
    columns: &[Field],
    key: Option<KeyValue<'_>>,
    mut read: impl FnMut(&Row<'_>) -> ControlFlow<()>,
) -> Result<(), ErrorReport> {
    // SAFETY: called inside a transaction, as every SQL function is. The relation exists, or table_open raises; an
    // error leaves relation, scan and snapshot to the transaction's abort.
    unsafe {
        let lock = pg_sys::AccessShareLock.cast_signed();
        let open = pg_sys::table_open(relation(table), lock);
        let described = (*open).rd_att;
        let numbers = (columns.iter())
            .map(|column| number(open, table, column))
            .collect::<Result<Vec<_>, _>>()?;
        check_rights(open, table, &numbers);
        let first = attribute(numbers[0]);
        let mut scan_key = pg_sys::ScanKeyData::default();
        if let Some(key) = key {
            let (sql_type, equals, value) = match key {
                KeyValue::Text(value) => (pg_sys::TEXTOID, pg_sys::F_TEXTEQ, text(value)),
                KeyValue::Int(value) => (pg_sys::INT4OID, pg_sys::F_INT4EQ, Datum::from(value)),
                KeyValue::Bigint(value) => (pg_sys::INT8OID, pg_sys::F_INT8EQ, Datum::from(value)),
            };
            assert!(sql_type == columns[0].1, "a key of another type");
            let attribute = (*described).attrs.as_ptr().add(numbers[0]);
            pg_sys::ScanKeyEntryInitialize(
                &raw mut scan_key,
                0,
                first,
                pg_sys::BTEqualStrategyNumber as u16,
                pg_sys::InvalidOid,
                (*attribute).attcollation,
                equals.into(),
                value,
            );
        }
        let index = pg_sys::RelationGetPrimaryKeyIndex(open);
        let kind = pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_PRIMARY_KEY;
        // The key may have been dropped, or may have other columns now.
        let is_indexed = index != pg_sys::InvalidOid
            && pg_sys::bms_is_member(
                i32::from(first) - pg_sys::FirstLowInvalidHeapAttributeNumber,
                pg_sys::RelationGetIndexAttrBitmap(open, kind),
            );
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let scan = pg_sys::systable_beginscan(
            open,
            index,
            is_indexed,
            snapshot,
            i32::from(key.is_some()),
            &raw mut scan_key,
        );
        let width = usize::try_from((*described).natts).unwrap_or(0);
        let mut values = vec![Datum::from(0); width];
        let mut nulls = vec![true; width];
        loop {
            let row = pg_sys::systable_getnext(scan);
            if row.is_null() {
                break;
            }
            pg_sys::heap_deform_tuple(row, described, values.as_mut_ptr(), nulls.as_mut_ptr());
            let row = Row {
                columns,
                numbers: &numbers,
                values: &values,
                nulls: &nulls,
            };
            if read(&row).is_break() {
                break;
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::UnregisterSnapshot(snapshot);
        // The lock stays until the transaction ends, as a statement's would.
        pg_sys::table_close(open, pg_sys::NoLock.cast_signed());
    }
    Ok(())
}

/// The place of a column among those of the table.
///
/// # Safety
/// The relation is open.
unsafe fn number(
    open: pg_sys::Relation,
    table: &CStr,
    (name, wanted): &Field,
) -> Result<usize, ErrorReport> {
    let column = name.to_string_lossy();
    // SAFETY: catalog look-ups with terminated strings, and a column of the open relation.
    unsafe {
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace((*open).rd_id));
        let schema = CStr::from_ptr(schema).to_string_lossy();
        let table = format!("{schema}.{}", table.to_string_lossy());
        match usize::try_from(pg_sys::get_attnum((*open).rd_id, name.as_ptr())) {
            Ok(number @ 1..) => {
                let attribute = (*(*open).rd_att).attrs.as_ptr().add(number - 1);
                match (*attribute).atttypid == *wanted {
                    true => Ok(number - 1),
                    false => Err(error::altered_column(&table, &column)),
                }
            }
            _ => Err(error::missing_column(&table, &column)),
        }
    }
}

/// The number that PostgreSQL gives to the column at a place.
pub(super) fn attribute(place: usize) -> pg_sys::AttrNumber {
    match pg_sys::AttrNumber::try_from(place + 1) {
        Ok(number) => number,
        // A table has at most 1,600.
        Err(_) => pgrx::error!("a table with {place} columns"),
    }
}

/// Raises unless the current role may select these columns: no right of a statement's is passed over.
///
/// # Safety
/// The relation is open.
unsafe fn check_rights(open: pg_sys::Relation, table: &CStr, numbers: &[usize]) {
    // SAFETY: the relation is open; the other calls take Oids by value.
    unsafe {
        let (relation, role) = ((*open).rd_id, pg_sys::GetUserId());
        let right = pg_sys::ACL_SELECT;
        let may = pg_sys::AclResult::ACLCHECK_OK;
        if pg_sys::pg_class_aclcheck(relation, role, right) == may {
            return;
        }
        for number in numbers {
            let answer = pg_sys::pg_attribute_aclcheck(relation, attribute(*number), role, right);
            if answer != may {
                let kind = pg_sys::ObjectType::OBJECT_TABLE;
                pg_sys::aclcheck_error(answer, kind, table.as_ptr());
            }
        }
    }
}
