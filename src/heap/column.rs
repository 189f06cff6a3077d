//! Columns with the types of their definitions, so that no value is read or written as one of another type.

use std::ffi::CStr;
use std::marker::PhantomData;

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{FromDatum, IntoDatum};

use super::Column;

/// A type of SQL, with what its values are read as and written from.
pub(crate) trait SqlType {
    const OID: Oid;
    /// The function that compares two values.
    const EQUALS: u32;
    type Read: FromDatum;
    type Written<'a>: IntoDatum;
}

macro_rules! sql_types {
    ($($name:ident $oid:ident $equals:ident $read:ty, $written:ty;)*) => {
        $(
            pub(crate) enum $name {}

            impl SqlType for $name {
                const OID: Oid = pg_sys::$oid;
                const EQUALS: u32 = pg_sys::$equals;
                type Read = $read;
                type Written<'a> = $written;
            }
        )*
    };
}

sql_types! {
    Int8 INT8OID F_INT8EQ i64, i64;
    Int4 INT4OID F_INT4EQ i32, i32;
    Int2 INT2OID F_INT2EQ i16, i16;
    Bool BOOLOID F_BOOLEQ bool, bool;
    Text TEXTOID F_TEXTEQ String, &'a str;
    TextArray TEXTARRAYOID F_ARRAY_EQ Vec<String>, Vec<&'a str>;
    // In microseconds, as PostgreSQL counts them.
    Timestamp TIMESTAMPTZOID F_TIMESTAMPTZ_EQ i64, i64;
    Jsonb JSONBOID F_JSONB_EQ Datum, JsonbDatum;
    Xid8 XID8OID F_XID8EQ i64, i64;
}

/// A `jsonb`, in memory of the calling function.
pub(crate) struct JsonbDatum(Datum);

impl JsonbDatum {
    /// # Safety
    /// The datum must be a `jsonb`.
    pub(crate) unsafe fn new(datum: Datum) -> Self {
        Self(datum)
    }
}

impl IntoDatum for JsonbDatum {
    fn into_datum(self) -> Option<Datum> {
        Some(self.0)
    }

    fn type_oid() -> Oid {
        pg_sys::JSONBOID
    }
}

/// A column of the table of a [`super::Shape`]: the place of its name in the shape, and its type.
pub(crate) struct Typed<T> {
    /// The table's name: columns of two tables have the same places.
    pub(super) table: &'static CStr,
    pub(super) place: usize,
    sql_type: PhantomData<T>,
}

impl<T> Clone for Typed<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Typed<T> {}

impl<T: SqlType> Typed<T> {
    pub(crate) const fn new(table: &'static CStr, place: usize) -> Self {
        Self {
            table,
            place,
            sql_type: PhantomData,
        }
    }

    /// The column with a value, to be written or looked for. The value lies in memory of the calling function.
    pub(crate) fn to<'a>(self, value: impl Into<Option<T::Written<'a>>>) -> Assignment {
        Assignment {
            table: self.table,
            place: self.place,
            equals: T::EQUALS,
            value: value.into().and_then(IntoDatum::into_datum),
        }
    }

    /// How the catalog describes it.
    pub(crate) const fn described(name: &'static CStr, may_be_null: bool) -> Column {
        Column {
            name,
            data_type: T::OID,
            may_be_null,
        }
    }
}

/// A column with a value of its type. It is used before the memory of its value is reset.
#[derive(Clone, Copy)]
pub(crate) struct Assignment {
    pub(super) table: &'static CStr,
    pub(super) place: usize,
    pub(super) equals: u32,
    pub(super) value: Option<Datum>,
}
