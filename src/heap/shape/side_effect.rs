//! Side effects of a statement that direct writes do not have.

use std::ffi::CStr;

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::pg_sys::{self, CmdType};

use super::{Examiner, quoted};

impl Examiner<'_> {
    pub(super) fn examine_side_effects(&mut self) {
        self.examine_rules();
        self.examine_policies();
        self.examine_relatives();
        self.examine_triggers();
    }

    fn examine_rules(&mut self) {
        // SAFETY: the relation is open; null or an array that it counts.
        let rules = unsafe {
            match (*self.table).rd_rules.as_ref() {
                Some(all) => std::slice::from_raw_parts(
                    all.rules,
                    usize::try_from(all.numLocks).unwrap_or(0),
                ),
                None => &[],
            }
        };
        let is_passed_over = |rule: &&*mut pg_sys::RewriteRule| {
            // SAFETY: an element of the array above.
            let rule = unsafe { &***rule };
            let is_disabled = rule.enabled.cast_unsigned() == RULE_DISABLED;
            !is_disabled && [CmdType::CMD_INSERT, CmdType::CMD_UPDATE].contains(&rule.event)
        };
        if rules.iter().any(|rule| is_passed_over(&rule)) {
            let name = self.name();
            self.fatal(
                format!("table {name}"),
                "a table without rules",
                "a rule on insert or update, which callbacks would pass over",
                "Drop the rule, or make it a trigger for each row.".to_owned(),
            );
        }
    }

    fn examine_policies(&mut self) {
        let class = self.class();
        let is_forced = class.relrowsecurity && class.relforcerowsecurity;
        // SAFETY: takes an Oid by value; a role that is gone has no such right.
        if is_forced && !unsafe { pg_sys::has_bypassrls_privilege(class.relowner) } {
            let name = self.name();
            self.fatal(
                format!("table {name}"),
                "row-level security that does not bind the owner",
                "forced row-level security",
                format!("alter table {name} no force row level security;"),
            );
        }
    }

    fn examine_relatives(&mut self) {
        let class = self.class();
        let (id, is_partition) = (class.oid, class.relispartition);
        let has_children = class.relhassubclass && {
            let lock = pg_sys::NoLock.cast_signed();
            // SAFETY: a catalog look-up; an empty list is null.
            unsafe { !pg_guard_ffi_boundary(|| find_inheritance_children(id, lock)).is_null() }
        };
        let name = self.name();
        if has_children {
            self.fatal(
                format!("table {name}"),
                "a table without children",
                "tables that inherit from it, whose rows no key of it covers",
                format!("alter table … no inherit {name};"),
            );
        }
        if is_partition {
            self.fatal(
                format!("table {name}"),
                "a table of its own",
                "a partition",
                format!("alter table … detach partition {name};"),
            );
        }
    }

    fn examine_triggers(&mut self) {
        // SAFETY: the relation is open; null or an array that it counts.
        let triggers = unsafe {
            match (*self.table).trigdesc.as_ref() {
                Some(all) => std::slice::from_raw_parts(
                    all.triggers,
                    usize::try_from(all.numtriggers).unwrap_or(0),
                ),
                None => &[],
            }
        };
        for trigger in triggers {
            let events = u32::from(trigger.tgtype.cast_unsigned());
            let concerns_us =
                events & (pg_sys::TRIGGER_TYPE_INSERT | pg_sys::TRIGGER_TYPE_UPDATE) != 0;
            let is_disabled = trigger.tgenabled.cast_unsigned() == pg_sys::TRIGGER_DISABLED;
            if !concerns_us || is_disabled || trigger.tgisinternal {
                continue;
            }
            // SAFETY: a C string.
            let name = quoted(unsafe { CStr::from_ptr(trigger.tgname) });
            let subject = format!("trigger {name} of {}", self.name());
            let is_for_rows = events & pg_sys::TRIGGER_TYPE_ROW != 0;
            let has_tables = !trigger.tgoldtable.is_null() || !trigger.tgnewtable.is_null();
            if !is_for_rows {
                self.differs(
                    subject,
                    "a row trigger",
                    "a statement trigger, which callbacks do not fire",
                    "Recreate the trigger for each row.".to_owned(),
                    false,
                );
            } else if has_tables {
                self.fatal(
                    subject,
                    "a trigger without transition tables",
                    "a trigger with transition tables, which callbacks do not fill",
                    "Recreate the trigger for each row, using new and old.".to_owned(),
                );
            }
        }
    }
}

/// Of rewrite/rewriteDefine.h, which pgrx does not bind.
const RULE_DISABLED: u8 = b'D';

unsafe extern "C-unwind" {
    /// Of catalog/pg_inherits.h, which pgrx does not bind.
    fn find_inheritance_children(parent: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> *mut pg_sys::List;
}
