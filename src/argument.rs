//! Arguments of SQL functions whose size is checked before memory is allocated for them.
//!
//! A caller may pass up to 1 GB, and a compressed value grows a hundredfold when it is read. Rust aborts the server
//! where PostgreSQL would raise an error, so the bound comes first.

use std::ops::Deref;

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::{self, Datum};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{Array, FromDatum, JsonB, PgLogLevel, varlena};
use protocol::form::MAX_PARAMETERS;

use crate::{error, setting};

/// A value of at most `twilio_callback.max_request_size`: a text, a `bytea` or an array of few elements.
#[derive(Clone, Copy)]
pub(crate) struct Bounded<T>(T);

impl<T> Bounded<T> {
    pub(crate) fn value(self) -> T {
        self.0
    }
}

impl<T> Deref for Bounded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

// SAFETY: SqlTranslatable gives the argument T's SQL type, so T reads the datum as what it is.
unsafe impl<'fcx, T: FromDatum> ArgAbi<'fcx> for Bounded<T> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the wrapper passes an argument of this type that is not null.
        unsafe { Self(read(arg, setting::max_request_size())) }
    }
}

/// An array with one element a request: of at most [`MAX_BATCH`] elements, and of as many bytes as
/// [`setting::max_batch_size`] says. The elements are checked one by one by who answers them.
pub(crate) struct Batch<'a, T>(Array<'a, T>);

impl<'a, T> Deref for Batch<'a, T> {
    type Target = Array<'a, T>;

    fn deref(&self) -> &Array<'a, T> {
        &self.0
    }
}

// SAFETY: SqlTranslatable gives the argument the array's SQL type, so the array reads the datum as what it is.
unsafe impl<'fcx, T> ArgAbi<'fcx> for Batch<'fcx, T>
where
    Array<'fcx, T>: FromDatum,
{
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the wrapper passes an argument of this type that is not null.
        let array: Array<'fcx, T> = unsafe { read(arg, setting::max_batch_size()) };
        if array.len() > MAX_BATCH {
            error::batch_too_long(array.len(), MAX_BATCH).report(PgLogLevel::ERROR);
        }
        Self(array)
    }
}

/// The sizes of the requests of a batch, added up.
#[derive(Default)]
pub(crate) struct Total {
    bytes: usize,
}

impl Total {
    /// Counts these parts of a request; whether one is larger than any part may be. Raises 54000 once all together are
    /// larger than a batch may be.
    pub(crate) fn exceeds(&mut self, parts: &[usize]) -> Result<bool, ErrorReport> {
        self.bytes += parts.iter().sum::<usize>();
        let limit = setting::max_batch_size();
        if self.bytes > limit {
            return Err(error::batch_too_large(self.bytes, limit));
        }
        let most = setting::max_request_size();
        Ok(parts.iter().any(|part| *part > most))
    }
}

/// At most so many requests are received by one call. The shim sends up to 256.
pub(crate) const MAX_BATCH: usize = 4096;

/// At most so many parameters are in all of them: what the shim's largest batch can have. One takes up to 112 bytes.
pub(crate) const MAX_BATCH_PARAMETERS: usize = 256 * MAX_PARAMETERS;

/// A `jsonb` of at most `twilio_callback.max_request_size`, as PostgreSQL has it.
#[derive(Clone, Copy)]
pub(crate) struct Json(Datum);

impl Json {
    /// Its text.
    pub(crate) fn text(self) -> String {
        // SAFETY: PostgreSQL's own output function with a value of its type.
        unsafe {
            let text =
                pgrx::direct_function_call::<&std::ffi::CStr>(pg_sys::jsonb_out, &[Some(self.0)]);
            text.map(|text| text.to_string_lossy().into_owned())
                .unwrap_or_default()
        }
    }
}

impl FromDatum for Json {
    unsafe fn from_polymorphic_datum(datum: Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        (!is_null).then_some(Self(datum))
    }
}

/// A `jsonb` that is only handed on.
#[derive(Clone, Copy)]
pub(crate) struct OpaqueJson(Datum);

impl OpaqueJson {
    pub(crate) fn datum(self) -> Datum {
        self.0
    }
}

// SAFETY: the datum is kept as it is, and no type is assumed of what it points to.
unsafe impl<'fcx> ArgAbi<'fcx> for OpaqueJson {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller's argument is one of this call, which is what raw needs.
        Self(unsafe { raw(arg) })
    }
}

/// Raises 54000 for an argument of more than `limit` bytes, before it is read.
///
/// # Safety
/// The argument must be of a type of variable length that T reads, and not null.
unsafe fn read<T: FromDatum>(arg: Arg<'_, '_>, limit: usize) -> T {
    let number = arg.index() + 1;
    // SAFETY: the caller vouches for type and value.
    let value = unsafe {
        let datum = raw(arg);
        let size = size(datum);
        if size > limit {
            error::argument_too_long(number, size, limit).report(PgLogLevel::ERROR);
        }
        T::from_datum(datum, false)
    };
    match value {
        Some(value) => value,
        None => pgrx::error!("argument {number} is null"),
    }
}

/// The argument as PostgreSQL passes it.
///
/// # Safety
/// None of its own.
unsafe fn raw(arg: Arg<'_, '_>) -> Datum {
    struct Raw(Datum);
    impl FromDatum for Raw {
        unsafe fn from_polymorphic_datum(datum: Datum, _: bool, _: pg_sys::Oid) -> Option<Self> {
            Some(Self(datum))
        }
    }
    // SAFETY: Raw takes the datum as it is, whatever its type.
    let raw = unsafe { arg.unbox_arg_using_from_datum::<Raw>() };
    raw.map_or(Datum::from(0), |raw| raw.0)
}

/// The bytes of a value once it is read, without its header.
///
/// # Safety
/// The datum must be a value of variable length.
unsafe fn size(datum: Datum) -> usize {
    let value = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: the caller vouches for the value; compressed, external and expanded ones say how large they are.
    unsafe {
        let is_plain = varlena::varatt_is_4b_u(value)
            || (varlena::varatt_is_1b(value) && !varlena::varatt_is_1b_e(value));
        if is_plain {
            varlena::varsize_any_exhdr(value)
        } else {
            pg_sys::toast_raw_datum_size(datum).saturating_sub(pg_sys::VARHDRSZ)
        }
    }
}

// SAFETY: an argument is read as the value is, so its SQL type is the value's.
unsafe impl<T: SqlTranslatable> SqlTranslatable for Bounded<T> {
    const TYPE_IDENT: &'static str = T::TYPE_IDENT;
    const TYPE_ORIGIN: TypeOrigin = T::TYPE_ORIGIN;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = T::ARGUMENT_SQL;
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = T::RETURN_SQL;
}

// SAFETY: an argument is read as the array is, so its SQL type is the array's.
unsafe impl<'a, T> SqlTranslatable for Batch<'a, T>
where
    Array<'a, T>: SqlTranslatable,
{
    const TYPE_IDENT: &'static str = Array::<'a, T>::TYPE_IDENT;
    const TYPE_ORIGIN: TypeOrigin = Array::<'a, T>::TYPE_ORIGIN;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Array::<'a, T>::ARGUMENT_SQL;
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Array::<'a, T>::RETURN_SQL;
}

// SAFETY: it is read from and written as the datum of a jsonb.
unsafe impl SqlTranslatable for Json {
    const TYPE_IDENT: &'static str = JsonB::TYPE_IDENT;
    const TYPE_ORIGIN: TypeOrigin = JsonB::TYPE_ORIGIN;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = JsonB::ARGUMENT_SQL;
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = JsonB::RETURN_SQL;
}

// SAFETY: it is read from and written as the datum of a jsonb.
unsafe impl SqlTranslatable for OpaqueJson {
    const TYPE_IDENT: &'static str = JsonB::TYPE_IDENT;
    const TYPE_ORIGIN: TypeOrigin = JsonB::TYPE_ORIGIN;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = JsonB::ARGUMENT_SQL;
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = JsonB::RETURN_SQL;
}
