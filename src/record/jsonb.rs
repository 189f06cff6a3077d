//! PostgreSQL's `jsonb`: from a text by its own parser, from a form written as it lies in a table.
//!
//! A form is an object of texts and of arrays of texts. Written straight away it costs an eighth of what the
//! detour over JSON text does, which was a seventh of a callback. The layout is that of `utils/jsonb.h`; it is the
//! one on disk, so it cannot change before a dump and restore.

use pgrx::IntoDatum;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::{self, Datum};
use protocol::form::{Form, storable};

use crate::error;

/// A JSON text as `jsonb`; raises 22P02 for what is no JSON.
pub(crate) fn of_text(json: &str) -> Option<Datum> {
    // U+0000 ends a C string; in JSON it can stand as an escape only, so what follows was no JSON.
    let json = std::ffi::CString::new(json.split('\0').next().unwrap_or_default()).ok()?;
    // SAFETY: PostgreSQL's own input function with the argument that it takes.
    unsafe { pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(json.as_ptr().into())]) }
}

/// A form's parameters as an object: a repeated name holds an array in order of arrival, U+0000, which
/// `jsonb` cannot hold, becomes U+FFFD. Raises 54000 beyond `jsonb`'s own limit of 256 MiB.
pub(crate) fn of_form(form: &Form<'_>) -> Result<Option<Datum>, ErrorReport> {
    // The payload of a variable-length value; the header before it has no influence on its alignment.
    let bytes = payload(form).ok_or_else(error::too_many_parameters)?;
    Ok(bytes.into_datum())
}

/// The names in a stored object, and whether they have a value: an empty text and null count as none.
pub(crate) struct Names<'a>(Vec<(&'a [u8], bool)>);

impl<'a> Names<'a> {
    /// Reads the payload of an object; another value has no names.
    pub(crate) fn of(object: &'a [u8]) -> Self {
        Self(read_names(object).unwrap_or_default())
    }

    /// Whether there is a value of this name.
    pub(crate) fn is_filled(&self, name: &str) -> bool {
        let name = name.as_bytes();
        (self.0)
            .binary_search_by(|(other, _)| (other.len(), *other).cmp(&(name.len(), name)))
            .is_ok_and(|place| self.0[place].1)
    }
}

/// An object's names stand before its values, in the order that [`Names::is_filled`] searches by.
fn read_names(object: &[u8]) -> Option<Vec<(&[u8], bool)>> {
    let word = |at: usize| Some(u32::from_ne_bytes(object.get(at..at + 4)?.try_into().ok()?));
    let header = word(0)?;
    if header & OBJECT == 0 {
        return None;
    }
    let count = (header & MASK) as usize;
    let elements = 4 + 8 * count;
    let mut end = elements;
    let mut next = |place: usize| {
        let entry = word(4 + 4 * place)?;
        let start = end;
        let base = if entry & HAS_OFFSET == 0 {
            start
        } else {
            elements
        };
        end = base + (entry & MASK) as usize;
        Some((entry & TYPE, object.get(start..end)?))
    };
    let mut names = Vec::with_capacity(count);
    for place in 0..count {
        names.push((next(place)?.1, false));
    }
    for (place, name) in names.iter_mut().enumerate() {
        let (kind, value) = next(count + place)?;
        name.1 = kind != NULL && !(kind == TEXT && value.is_empty());
    }
    Some(names)
}

/// Both objects in one; where both have a name, the second one's value counts.
pub(crate) fn merged(first: Datum, second: Datum) -> Option<Datum> {
    // SAFETY: PostgreSQL's own function with arguments of its types.
    unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::jsonb_concat, &[Some(first), Some(second)])
    }
}

fn payload(form: &Form<'_>) -> Option<Vec<u8>> {
    let mut pairs: Vec<_> = (form.iter())
        .map(|(name, value)| (storable(name), storable(value)))
        .collect();
    // The order that jsonb has; stable, so that repeats stay as they came.
    pairs.sort_by(|(one, _), (other, _)| (one.len(), one).cmp(&(other.len(), other)));
    let mut members = Vec::with_capacity(pairs.len());
    members.extend(pairs.chunk_by(|one, other| one.0 == other.0));
    let texts = pairs.iter().map(|(name, value)| name.len() + value.len());
    let mut bytes = Vec::with_capacity(16 + 16 * pairs.len() + texts.sum::<usize>());
    let mut object = Container::begin(&mut bytes, OBJECT, members.len(), 2 * members.len())?;
    for member in &members {
        object.text(&mut bytes, &member[0].0)?;
    }
    for member in &members {
        match member {
            [(_, value)] => object.text(&mut bytes, value)?,
            repeats => {
                let mut array = Container::begin(&mut bytes, ARRAY, repeats.len(), repeats.len())?;
                for (_, value) in *repeats {
                    array.text(&mut bytes, value)?;
                }
                object.end_entry(&mut bytes, CONTAINER)?;
            }
        }
    }
    Some(bytes)
}

/// An array or object that is being written: a header, an entry for each element, the elements.
struct Container {
    entries: usize,
    elements: usize,
    /// Number of the element that comes next.
    next: usize,
    /// Where the last element ended.
    end: usize,
}

impl Container {
    fn begin(bytes: &mut Vec<u8>, kind: u32, count: usize, entries: usize) -> Option<Self> {
        let count = u32::try_from(count).ok().filter(|count| *count <= MASK)?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend((kind | count).to_ne_bytes());
        let elements = bytes.len() + 4 * entries;
        let this = Self {
            entries: bytes.len(),
            elements,
            next: 0,
            end: elements,
        };
        bytes.resize(elements, 0);
        Some(this)
    }

    fn text(&mut self, bytes: &mut Vec<u8>, text: &str) -> Option<()> {
        bytes.extend(text.as_bytes());
        self.end_entry(bytes, TEXT)
    }

    /// Fills the entry of an element that was just written: its length or, in every 32nd, where it ends.
    fn end_entry(&mut self, bytes: &mut [u8], kind: u32) -> Option<()> {
        let is_offset = self.next.is_multiple_of(STRIDE);
        let start = if is_offset { self.elements } else { self.end };
        let within =
            (bytes.len() - self.elements <= MASK as usize).then_some(bytes.len() - start)?;
        let flag = if is_offset { HAS_OFFSET } else { 0 };
        let entry = kind | flag | u32::try_from(within).ok()?;
        let place = self.entries + 4 * self.next;
        bytes[place..place + 4].copy_from_slice(&entry.to_ne_bytes());
        self.next += 1;
        self.end = bytes.len();
        Some(())
    }
}

const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;
const TEXT: u32 = pg_sys::JENTRY_ISSTRING;
const NULL: u32 = pg_sys::JENTRY_ISNULL;
const TYPE: u32 = pg_sys::JENTRY_TYPEMASK;
const CONTAINER: u32 = pg_sys::JENTRY_ISCONTAINER;
const HAS_OFFSET: u32 = pg_sys::JENTRY_HAS_OFF;
/// Bits of a count, a length or an offset.
const MASK: u32 = pg_sys::JENTRY_OFFLENMASK;
const STRIDE: usize = pg_sys::JB_OFFSET_STRIDE as usize;
