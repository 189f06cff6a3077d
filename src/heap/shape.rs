//! Whether a table still is what the calls that write it below SQL take for granted. A statement is planned for
//! the table as it is; these calls are compiled for the table that the extension made.

use std::ffi::CStr;

use pgrx::PgRelation;
use pgrx::pg_sys::{self, AttrNumber, Oid};

use super::relation;

mod column;
mod index;
mod side_effect;
pub(super) use column::default_of;

/// The definition that a table of ours must have.
pub(crate) struct Shape {
    pub(crate) name: &'static CStr,
    /// The columns that are read and written.
    pub(crate) columns: &'static [Column],
    /// The column that takes its numbers from the sequence.
    pub(crate) identity: &'static CStr,
    pub(crate) sequence: &'static CStr,
    pub(crate) keys: &'static [Key],
}

/// A column and its type.
pub(crate) struct Column {
    pub(crate) name: &'static CStr,
    pub(crate) data_type: Oid,
    /// Whether rows are inserted in which it is null.
    pub(crate) may_be_null: bool,
}

/// Columns by which rows are found and kept apart: there must be a unique index on just these.
pub(crate) struct Key {
    /// The name that `create extension` gives to the index. An index of any name will do.
    pub(crate) name: &'static CStr,
    pub(crate) columns: &'static [&'static CStr],
    pub(crate) nulls: Nulls,
    pub(crate) is_primary: bool,
}

/// How a key treats nulls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nulls {
    /// There are none.
    Absent,
    Distinct,
    Equal,
}

/// Something that is not as it must be.
pub(crate) struct Difference {
    pub(crate) subject: String,
    pub(crate) expected: String,
    pub(crate) found: String,
    /// Statements that repair it, or advice.
    pub(crate) remedy: String,
    /// Whether rows cannot be written until it is repaired.
    pub(crate) is_fatal: bool,
}

impl Difference {
    pub(crate) fn describe(&self) -> String {
        format!(
            "{}: expected {}, found {}",
            self.subject, self.expected, self.found
        )
    }
}

/// The result of comparing a table with its shape.
#[derive(Default)]
pub(crate) struct Examination {
    pub(crate) differences: Vec<Difference>,
    /// For each key the indexes of its definition, the first of which is valid.
    pub(crate) indexes: Vec<Vec<Oid>>,
    /// Columns that get a value although we write none.
    pub(crate) defaults: Vec<AttrNumber>,
}

impl Examination {
    /// Whether rows cannot be written.
    pub(crate) fn is_unfit(&self) -> bool {
        self.differences
            .iter()
            .any(|difference| difference.is_fatal)
    }
}

impl Shape {
    /// Compares the table with its shape. The lock stays until the transaction ends.
    pub(crate) fn examine(&self, lock: u32) -> Examination {
        let id = relation(self.name);
        if id == pg_sys::InvalidOid {
            return self.replaced("none");
        }
        // SAFETY: raises if the table went away meanwhile; dropping the value closes it and keeps the lock.
        let table =
            unsafe { PgRelation::from_pg_owned(pg_sys::relation_open(id, lock.cast_signed())) };
        if !table.is_table() {
            return self.replaced("an object that is not a table");
        }
        if !is_member(id) {
            return self.replaced("a table that does not belong to the extension");
        }
        let mut examiner = Examiner {
            shape: self,
            table: table.as_ptr(),
            found: Examination::default(),
        };
        examiner.examine_storage();
        examiner.examine_columns();
        examiner.examine_keys();
        examiner.examine_side_effects();
        examiner.found
    }

    fn replaced(&self, found: &str) -> Examination {
        let name = self.name.to_string_lossy();
        let difference = Difference {
            subject: format!("table twilio.{name}"),
            expected: "the table that create extension made".to_owned(),
            found: found.to_owned(),
            remedy: format!(
                "Give that table its name again, or: alter extension twilio_callback add table twilio.{name};"
            ),
            is_fatal: true,
        };
        Examination {
            differences: vec![difference],
            ..Examination::default()
        }
    }
}

/// A table that is being compared with its shape.
struct Examiner<'a> {
    shape: &'a Shape,
    table: pg_sys::Relation,
    found: Examination,
}

impl Examiner<'_> {
    /// The table's name as it stands in statements.
    fn name(&self) -> String {
        format!("twilio.{}", self.shape.name.to_string_lossy())
    }

    fn class(&self) -> &pg_sys::FormData_pg_class {
        // SAFETY: the relation stays open while it is examined, and its row of pg_class with it.
        unsafe { &*(*self.table).rd_rel }
    }

    fn fatal(&mut self, subject: String, expected: &str, found: &str, remedy: String) {
        self.differs(subject, expected, found, remedy, true);
    }

    fn differs(
        &mut self,
        subject: String,
        expected: &str,
        found: &str,
        remedy: String,
        is_fatal: bool,
    ) {
        self.found.differences.push(Difference {
            subject,
            expected: expected.to_owned(),
            found: found.to_owned(),
            remedy,
            is_fatal,
        });
    }

    fn examine_storage(&mut self) {
        let name = self.name();
        let subject = format!("table {name}");
        let class = self.class();
        let (persistence, method) = (class.relpersistence.cast_unsigned(), class.relam);
        // SAFETY: the relation is open, and the methods of heap are there for the life of the process.
        let is_heap =
            unsafe { std::ptr::eq((*self.table).rd_tableam, pg_sys::GetHeapamTableAmRoutine()) };
        if !is_heap {
            // SAFETY: takes an Oid by value, and returns null or a C string in memory of the calling function.
            let found = unsafe { string(pg_sys::get_am_name(method)) };
            self.fatal(
                subject.clone(),
                "access method heap",
                &format!("access method {found}"),
                format!("alter table {name} set access method heap;"),
            );
        }
        if persistence == pg_sys::RELPERSISTENCE_UNLOGGED {
            self.differs(
                subject,
                "a logged table",
                "an unlogged one, which a crash empties",
                format!("alter table {name} set logged;"),
                false,
            );
        }
    }
}

/// Whether a table belongs to the extension.
fn is_member(table: Oid) -> bool {
    // SAFETY: takes a terminated string, and returns the invalid Oid for what is not there.
    unsafe {
        let extension = pg_sys::get_extension_oid(c"twilio_callback".as_ptr(), true);
        extension != pg_sys::InvalidOid
            && pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, table) == extension
    }
}

/// A text that PostgreSQL allocated; a question mark for null.
///
/// # Safety
/// Null or a C string.
unsafe fn string(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return "?".to_owned();
    }
    // SAFETY: the caller vouches for a C string, and it is not null.
    unsafe { CStr::from_ptr(text).to_string_lossy().into_owned() }
}

/// An identifier as it stands in statements.
fn quoted(name: &CStr) -> String {
    // SAFETY: takes a C string and returns one.
    unsafe { string(pg_sys::quote_identifier(name.as_ptr())) }
}
