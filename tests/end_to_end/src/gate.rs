//! A place in the database where whoever comes waits until a test lets it on.

use std::time::Duration;

use postgres::Client;

use crate::database::Database;
use crate::wait::wait_until;

/// A trigger's place; open unless it is held shut.
#[derive(Debug)]
pub struct Gate {
    number: i32,
}

impl Gate {
    /// Puts a gate before each row that is inserted, updated or deleted, as `event` says, in `table`.
    pub fn before(database: &Database<'_>, event: &str, table: &str, number: i32) -> Self {
        let sql = format!(
            "create function public.gate_{number}() returns trigger language plpgsql as $$ begin \
                 perform pg_catalog.pg_advisory_xact_lock_shared({CLASS}, {number}); \
                 return coalesce(new, old); \
             end $$; \
             create trigger gate_{number} before {event} on {table} \
                 for each row execute function public.gate_{number}()"
        );
        database.connect().batch_execute(&sql).unwrap();
        Self { number }
    }

    /// Holds it shut until what is returned is dropped.
    pub fn shut(&self, database: &Database<'_>) -> Shut {
        let mut client = database.connect();
        let sql = "select pg_advisory_lock($1, $2)";
        client.execute(sql, &[&CLASS, &self.number]).unwrap();
        Shut { _client: client }
    }

    /// Waits until somebody stands before it; `meanwhile` is called again and again.
    pub fn wait_for_somebody(&self, database: &Database<'_>, mut meanwhile: impl FnMut()) {
        let number = u32::try_from(self.number).unwrap();
        let sql = "select exists (select from pg_locks where locktype = 'advisory' and objid = $1 and not granted)";
        wait_until(Duration::from_secs(60), "somebody before the gate", || {
            meanwhile();
            database.value(sql, &[&number])
        });
    }
}

/// A gate that is shut.
pub struct Shut {
    _client: Client,
}

const CLASS: i32 = 4711;
