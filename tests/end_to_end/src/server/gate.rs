//! A trigger that makes sessions wait until a test lets them go on.

use std::time::Duration;

use postgres::Client;

use crate::server::database::Database;
use crate::wait::wait_until;

/// A trigger's place; open unless it is held shut.
#[derive(Debug)]
pub struct Gate {
    number: i32,
}

impl Gate {
    /// Puts a gate before each row of which `condition` holds and that is inserted, updated or deleted,
    /// as `event` says, in `table`.
    pub fn before(
        database: &Database<'_>,
        (event, table): (&str, &str),
        condition: &str,
        number: i32,
    ) -> Self {
        let sql = format!(
            "create function public.gate_{number}() returns trigger language plpgsql as $$ begin \
                 if {condition} then \
                     perform pg_catalog.pg_advisory_xact_lock_shared({CLASS}, {number}); \
                 end if; \
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

    /// Waits until a session of `role` stands before it with a call of `function`; `meanwhile` is called
    /// again and again.
    pub fn wait_for(
        &self,
        database: &Database<'_>,
        (role, function): (&str, &str),
        mut meanwhile: impl FnMut(),
    ) {
        let (class, number) = (CLASS.cast_unsigned(), self.number.cast_unsigned());
        let sql = "select exists ( \
            select from pg_locks l join pg_stat_activity a using (pid) \
            where l.locktype = 'advisory' and l.classid = $1 and l.objid = $2 and not l.granted \
                and a.usename = $3 and strpos(a.query, $4) > 0)";
        let what = format!("{role} before the gate with {function}");
        wait_until(Duration::from_secs(60), &what, || {
            meanwhile();
            database.value(sql, &[&class, &number, &role, &function])
        });
    }
}

/// A gate that is shut.
pub struct Shut {
    _client: Client,
}

const CLASS: i32 = 4711;
