//! Columns: ours have the types that values are made and read as; others can do without a value of ours.

use std::ffi::CStr;

use pgrx::pg_sys::{self, AttrNumber, FormData_pg_attribute, Node};

use super::{Column, Examiner, quoted, string};
use crate::heap::relation;

impl Examiner<'_> {
    pub(super) fn examine_columns(&mut self) {
        let shape = self.shape;
        for column in shape.columns {
            self.examine_column(column);
        }
        for attribute in self.attributes() {
            let is_ours = shape
                .columns
                .iter()
                .any(|ours| ours.name == name(attribute));
            if !is_ours && attribute.attgenerated == 0 {
                self.examine_other(attribute);
            }
        }
    }

    /// The number of one of our columns; 0 if it is missing.
    pub(super) fn number(&self, column: &CStr) -> AttrNumber {
        let mut attributes = self.attributes();
        let found = attributes.find(|attribute| name(attribute) == column);
        found.map_or(0, |attribute| attribute.attnum)
    }

    /// The columns that are there.
    pub(super) fn attributes<'a>(
        &self,
    ) -> impl Iterator<Item = &'a FormData_pg_attribute> + use<'a> {
        // SAFETY: the relation stays open, and its descriptor with it, while it is examined.
        let attributes = unsafe {
            let descriptor = (*self.table).rd_att;
            let count = usize::try_from((*descriptor).natts).unwrap_or(0);
            (*descriptor).attrs.as_slice(count)
        };
        attributes.iter().filter(|column| !column.attisdropped)
    }

    fn examine_column(&mut self, column: &Column) {
        let table = self.name();
        let quoted = quoted(column.name);
        let subject = format!("column {quoted} of {table}");
        let expected = described(column.data_type, -1);
        let mut attributes = self.attributes();
        let Some(found) = attributes.find(|attribute| name(attribute) == column.name) else {
            let remedy = format!("alter table {table} add column {quoted} {expected};");
            return self.fatal(subject, &expected, "none", remedy);
        };
        if (found.atttypid, found.atttypmod) != (column.data_type, -1) {
            let type_found = described(found.atttypid, found.atttypmod);
            let remedy =
                format!("alter table {table} alter column {quoted} type {expected} using …;");
            self.fatal(subject, &expected, &type_found, remedy);
        } else if found.attgenerated != 0 {
            let remedy = format!("alter table {table} alter column {quoted} drop expression;");
            self.fatal(subject, "an ordinary column", "a generated one", remedy);
        } else if (found.attidentity != 0) != (column.name == self.shape.identity) {
            let (expected, found, change) = match found.attidentity {
                0 => ("an identity", "none", "add generated always as identity"),
                _ => ("an ordinary column", "an identity", "drop identity"),
            };
            let remedy = format!("alter table {table} alter column {quoted} {change};");
            self.fatal(subject, expected, found, remedy);
        } else if column.name == self.shape.identity {
            self.examine_sequence(found, subject);
        } else if column.may_be_null && found.attnotnull && !self.may_be_filled() {
            let remedy = format!("alter table {table} alter column {quoted} drop not null;");
            self.fatal(subject, "a nullable column", "a not-null column", remedy);
        }
    }

    /// Numbers are taken by the sequence's name, here and by functions.
    fn examine_sequence(&mut self, identity: &FormData_pg_attribute, subject: String) {
        // SAFETY: a catalog look-up; an identity has a sequence.
        let found =
            unsafe { pg_sys::getIdentitySequence(identity.attrelid, identity.attnum, true) };
        if found == relation(self.shape.sequence) {
            return;
        }
        let expected = format!("sequence twilio.{}", self.shape.sequence.to_string_lossy());
        // SAFETY: takes an Oid by value, and returns null or a C string in memory of the calling function.
        let name = unsafe { string(pg_sys::get_rel_name(found)) };
        self.fatal(
            subject,
            &expected,
            &format!("sequence {name}"),
            format!(
                "Give the column's sequence the name {} again.",
                &expected[9..]
            ),
        );
    }

    /// Whether a trigger may fill a column that is null.
    fn may_be_filled(&self) -> bool {
        // SAFETY: null or the descriptor of the open relation.
        let triggers = unsafe { (*self.table).trigdesc.as_ref() };
        triggers.is_some_and(|all| all.trig_insert_before_row)
    }

    /// A column that we write no value to.
    fn examine_other(&mut self, column: &FormData_pg_attribute) {
        if !default_of(self.table, column).is_null() {
            self.found.defaults.push(column.attnum);
            return;
        }
        // A domain is checked before triggers are fired.
        if column.attnotnull && !self.may_be_filled() || has_domain_not_null(column.atttypid) {
            let (table, column) = (self.name(), quoted(name(column)));
            self.fatal(
                format!("column {column} of {table}"),
                "a nullable column or a default",
                "a not-null column without default",
                format!("alter table {table} alter column {column} set default …;"),
            );
        }
    }
}

/// The expression for a column that is left out; null for null.
pub(in crate::heap) fn default_of(
    table: pg_sys::Relation,
    column: &FormData_pg_attribute,
) -> *mut Node {
    // SAFETY: the table is open; as the planner does it for an insert that leaves the column out.
    unsafe {
        let default = pg_sys::build_column_default(table, column.attnum.into());
        let kind = pg_sys::get_typtype(column.atttypid).cast_unsigned();
        if !default.is_null()
            || kind != pg_sys::TYPTYPE_DOMAIN
            || has_domain_not_null(column.atttypid)
        {
            return default;
        }
        // A domain may refuse null.
        let null = pg_sys::makeConst(
            column.atttypid,
            -1,
            column.attcollation,
            column.attlen.into(),
            pg_sys::Datum::from(0),
            true,
            column.attbyval,
        );
        pg_sys::coerce_to_domain(
            null.cast(),
            pg_sys::InvalidOid,
            -1,
            column.atttypid,
            pg_sys::CoercionContext::COERCION_IMPLICIT,
            pg_sys::CoercionForm::COERCE_IMPLICIT_CAST,
            -1,
            false,
        )
    }
}

/// Whether a type is a domain, or a domain over one, that is not null.
fn has_domain_not_null(mut data_type: pg_sys::Oid) -> bool {
    loop {
        let id = i32::try_from(pg_sys::SysCacheIdentifier::TYPEOID).unwrap_or(0);
        // SAFETY: a catalog look-up; the row is copied before it is released.
        let (base, is_not_null) = unsafe {
            let tuple = pg_sys::SearchSysCache1(id, data_type.into());
            if tuple.is_null() {
                return false;
            }
            let row: *mut pg_sys::FormData_pg_type = pg_sys::GETSTRUCT(tuple).cast();
            let found = ((*row).typbasetype, (*row).typnotnull);
            pg_sys::ReleaseSysCache(tuple);
            found
        };
        match (is_not_null, base) {
            (true, _) => return true,
            (false, pg_sys::InvalidOid) => return false,
            (false, base) => data_type = base,
        }
    }
}

fn name(column: &FormData_pg_attribute) -> &CStr {
    // SAFETY: a name is a terminated string.
    unsafe { CStr::from_ptr(column.attname.data.as_ptr()) }
}

/// A type as it stands in statements.
fn described(data_type: pg_sys::Oid, modifier: i32) -> String {
    // SAFETY: takes values, and returns a C string in memory of the calling function.
    unsafe { string(pg_sys::format_type_with_typemod(data_type, modifier)) }
}
