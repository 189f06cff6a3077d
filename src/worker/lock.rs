//! The lock that makes a process the worker of its database. SQL has no function that takes such a lock,
//! so that only a worker can hold it.

use pgrx::prelude::*;

/// Makes this process the only one that holds the lock, until it ends; false if another process does.
#[pg_extern]
fn lock_worker() -> bool {
    let tag = tag();
    // SAFETY: the tag is copied. A lock of a session of this method outlives transactions, also those that fail.
    let result = unsafe {
        let mode = pg_sys::ExclusiveLock.cast_signed();
        pg_sys::LockAcquire(&raw const tag, mode, true, true)
    };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// The process that holds the lock of this database, if one does.
#[pg_extern]
fn worker_lock_holder() -> Option<i32> {
    let tag = tag();
    let is_ours = |held: &pg_sys::LockInstanceData| {
        let other = held.locktag;
        held.holdMask != 0
            && other.locktag_type == tag.locktag_type
            && other.locktag_lockmethodid == tag.locktag_lockmethodid
            && other.locktag_field1 == tag.locktag_field1
            && other.locktag_field2 == tag.locktag_field2
            && other.locktag_field3 == tag.locktag_field3
            && other.locktag_field4 == tag.locktag_field4
    };
    // SAFETY: the server allocates a copy of its locks in the current memory context, nelements of them.
    unsafe {
        let data = pg_sys::GetLockStatusData();
        let count = usize::try_from((*data).nelements).unwrap_or(0);
        (0..count)
            .map(|place| &*(*data).locks.add(place))
            .find(|held| is_ours(held))
            .map(|held| held.pid)
    }
}

fn tag() -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // SAFETY: PostgreSQL sets it before our code runs in the session, and changes it no more.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: CLASS,
        locktag_field3: 1,
        locktag_field4: KIND,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

/// "twil", as other extensions may do the same.
const CLASS: u32 = 0x7477_696c;
/// Advisory locks that SQL takes are of kind 1, one bigint, or 2, two ints.
const KIND: u16 = 3;
