//! Keys: each has an index that finds its rows and keeps them apart, whatever the name of the index is.

use pgrx::PgRelation;
use pgrx::pg_sys::{self, AttrNumber, Oid};

use super::{Examiner, Key, Nulls, quoted, string};
use crate::heap::relation;

/// How far an index serves a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Service {
    /// All of it.
    Full,
    /// It keeps rows apart, but does not have all of them yet.
    Unfinished,
    None,
}

impl Examiner<'_> {
    pub(super) fn examine_keys(&mut self) {
        let indexes = self.indexes();
        for key in self.shape.keys {
            let services: Vec<_> = (indexes.iter())
                .map(|index| (*index, self.service(*index, key)))
                .collect();
            let of = |wanted| {
                (services.iter())
                    .filter(move |(_, service)| *service == wanted)
                    .map(|(index, _)| *index)
            };
            let serving: Vec<_> = of(Service::Full).chain(of(Service::Unfinished)).collect();
            if of(Service::Full).next().is_none() {
                self.lacks(key, &indexes, &serving);
            }
            self.found.indexes.push(serving);
        }
    }

    fn indexes(&self) -> Vec<Oid> {
        // SAFETY: the relation is open; null or a list that counts its elements.
        unsafe {
            let Some(list) = pg_sys::RelationGetIndexList(self.table).as_ref() else {
                return Vec::new();
            };
            let count = usize::try_from(list.length).unwrap_or(0);
            let cells = std::slice::from_raw_parts(list.elements, count);
            cells.iter().map(|cell| cell.oid_value).collect()
        }
    }

    fn service(&self, index: Oid, key: &Key) -> Service {
        // SAFETY: the table is locked and lists the index; dropping the value closes it.
        let opened = unsafe {
            let lock = pg_sys::AccessShareLock.cast_signed();
            PgRelation::from_pg_owned(pg_sys::index_open(index, lock))
        };
        // SAFETY: the index is open, and its arrays have an element a key column.
        unsafe {
            let relation = &*opened.as_ptr();
            let form = &*relation.rd_index;
            let count = key.columns.len();
            let is_unique = form.indisunique
                && form.indimmediate
                && (*relation.rd_rel).relam == pg_sys::BTREE_AM_OID
                && usize::try_from(form.indnkeyatts) == Ok(count)
                && match key.nulls {
                    Nulls::Absent => true,
                    nulls => form.indnullsnotdistinct == (nulls == Nulls::Equal),
                };
            let has_columns = is_unique
                && (form
                    .indkey
                    .values
                    .as_slice(count)
                    .iter()
                    .zip(key.columns)
                    .enumerate())
                .all(|(place, (number, column))| {
                    *number > 0
                        && *number == self.number(column)
                        && *relation.rd_opfamily.add(place) == self.family(*number)
                        && is_exact(*relation.rd_indcollation.add(place))
                });
            if !has_columns || !pg_sys::RelationGetIndexPredicate(opened.as_ptr()).is_null() {
                return Service::None;
            }
            match (form.indisvalid, form.indisready) {
                (true, true) => Service::Full,
                (_, true) => Service::Unfinished,
                (_, false) => Service::None,
            }
        }
    }

    /// The operators by which a column is compared in its own index.
    fn family(&self, number: AttrNumber) -> Oid {
        let mut attributes = self.attributes();
        let column = attributes.find(|column| column.attnum == number);
        match column.map(|column| column.atttypid) {
            Some(pg_sys::TEXTOID) => pg_sys::TEXT_BTREE_FAM_OID,
            _ => pg_sys::INTEGER_BTREE_FAM_OID,
        }
    }

    fn lacks(&mut self, key: &Key, indexes: &[Oid], serving: &[Oid]) {
        let table = self.name();
        let columns: Vec<_> = key.columns.iter().map(|column| quoted(column)).collect();
        let columns = columns.join(", ");
        let nulls = match key.nulls {
            Nulls::Equal => "nulls not distinct ",
            Nulls::Absent | Nulls::Distinct => "",
        };
        let named = relation(key.name);
        let name = quoted(key.name);
        let is_here = indexes.contains(&named);
        let found = match is_here {
            true => found(named),
            false => "none".to_owned(),
        };
        let remedy = if let Some(unfinished) = serving.first() {
            // SAFETY: takes an Oid by value, and returns null or a C string in memory of the calling function.
            let name =
                unsafe { string(pg_sys::quote_identifier(pg_sys::get_rel_name(*unfinished))) };
            format!("reindex index twilio.{name};")
        } else {
            // SAFETY: both take Oids by value, and return the invalid Oid for what is gone.
            let (constraint, primary) = unsafe {
                (
                    pg_sys::get_index_constraint(named),
                    pg_sys::RelationGetPrimaryKeyIndex(self.table),
                )
            };
            let removal = match (is_here, constraint) {
                (false, _) => String::new(),
                (true, pg_sys::InvalidOid) => format!("drop index twilio.{name}; "),
                (true, _) => format!("alter table {table} drop constraint {name}; "),
            };
            let is_primary = key.is_primary && [pg_sys::InvalidOid, named].contains(&primary);
            let kind = if is_primary { "primary key" } else { "unique" };
            let name = match is_here || named == pg_sys::InvalidOid {
                true => format!("constraint {name} "),
                false => String::new(),
            };
            format!("{removal}alter table {table} add {name}{kind} {nulls}({columns});")
        };
        self.fatal(
            format!("key of {table}"),
            &format!("a valid, immediate unique index {nulls}on ({columns}) of all rows"),
            &found,
            remedy,
        );
    }
}

/// Whether texts that are equal have the same bytes.
fn is_exact(collation: Oid) -> bool {
    // SAFETY: takes an Oid by value, and raises for a collation that is gone.
    collation == pg_sys::InvalidOid || unsafe { pg_sys::get_collation_isdeterministic(collation) }
}

/// An index as it is, with what its definition does not show.
fn found(index: Oid) -> String {
    // SAFETY: a catalog look-up of an index that is there; opened and closed as above.
    unsafe {
        let definition = string(pg_sys::pg_get_indexdef_string(index));
        let lock = pg_sys::AccessShareLock.cast_signed();
        let opened = PgRelation::from_pg_owned(pg_sys::index_open(index, lock));
        let form = &*(*opened.as_ptr()).rd_index;
        let state = match (form.indisvalid && form.indisready, form.indimmediate) {
            (false, _) => ", not valid",
            (true, false) => ", deferrable",
            (true, true) => "",
        };
        definition + state
    }
}
