//! A test's own database, with an account whose callbacks the tests sign.

use postgres::Client;
use postgres::types::ToSql;

use crate::server::cluster::Cluster;

/// The account that every prepared database knows.
pub const ACCOUNT_SID: &str = "AC00000000000000000000000000000e2e";
/// Its auth token.
pub const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// The URL under which Twilio calls.
pub const PUBLIC_URL: &str = "https://hooks.example.com";
/// Name of a SharedKey of the account.
pub const SHARED_KEY_ID: &str = "webhooks_sharedkey_00000000000000000000000001";
/// Its secret.
pub const SHARED_KEY_SECRET: &str = "a shared secret, not the auth token";

/// The role of fronts, which can do nothing but deliver requests.
pub const FRONT_ROLE: &str = "front";

/// A database that is dropped after use.
pub struct Database<'c> {
    cluster: &'c Cluster,
    name: String,
}

impl<'c> Database<'c> {
    pub(crate) fn new(cluster: &'c Cluster, name: String) -> Self {
        Self { cluster, name }
    }

    /// The cluster.
    pub fn cluster(&self) -> &'c Cluster {
        self.cluster
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A superuser's connection.
    pub fn connect(&self) -> Client {
        self.cluster.connect(&self.name)
    }

    /// A connection string of the role `user`.
    pub fn url(&self, user: &str) -> String {
        let directory = self.cluster.socket_directory().display();
        format!("host={directory} user={user} dbname={}", self.name)
    }

    /// How often a callback was logged, and how many messages there are.
    pub fn counts(&self) -> (i64, i64) {
        let sql = "select (select count(*) from twilio.message_event), (select count(*) from twilio.message)";
        let row = self.connect().query_one(sql, &[]).unwrap();
        (row.get(0), row.get(1))
    }

    /// The only column of the only row of `sql`.
    pub fn value<T: for<'a> postgres::types::FromSql<'a>>(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> T {
        let row = self.connect().query_one(sql, parameters);
        row.unwrap_or_else(|error| panic!("{sql}: {error}")).get(0)
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        // Where a test leaves the server stopped, the database goes with the cluster.
        let mut config = postgres::Config::new();
        config
            .host_path(self.cluster.socket_directory())
            .user("postgres")
            .dbname("postgres");
        if let Ok(mut client) = config.connect(postgres::NoTls) {
            let _ = client.batch_execute(&format!("drop database {} with (force)", self.name));
        }
    }
}

/// Installs the extension, sets up the account and lets the front in.
pub fn prepare(client: &mut Client) {
    client
        .batch_execute(&format!(
            "create extension twilio_callback; create role {FRONT_ROLE} login; \
             select twilio.grant_front('{FRONT_ROLE}')"
        ))
        .unwrap();
    client
        .execute(
            "select twilio.add_account($1, auth_token => $2, public_url => $3)",
            &[&ACCOUNT_SID, &AUTH_TOKEN, &PUBLIC_URL],
        )
        .unwrap();
    client
        .execute(
            "select twilio.add_shared_key($1, $2, $3)",
            &[&ACCOUNT_SID, &SHARED_KEY_ID, &SHARED_KEY_SECRET],
        )
        .unwrap();
}

/// Sets a setting of the extension for the whole server.
pub fn set_setting(database: &Database<'_>, name: &str, value: &str) {
    // A call that loads the library makes the setting known; a reload wakes the worker.
    let mut client = database.connect();
    for statement in [
        "select twilio.parse_form('')",
        &format!("alter system set twilio_callback.{name} = '{value}'"),
        "select pg_reload_conf()",
    ] {
        client.batch_execute(statement).unwrap();
    }
}
