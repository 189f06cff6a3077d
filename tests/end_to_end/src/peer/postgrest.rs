//! The statements of PostgREST v16.2 for a request, without PostgREST.
//!
//! The statements are those of its source (`PreQuery.hs`, `MainTx.hs`, `Statements.hs`,
//! `QueryBuilder.hs`), sent as it sends them: prepared, parameters of type unknown in text format but for
//! the body, which is `bytea` in binary, all in one transaction.

use bytes::BytesMut;
use postgres::types::{Format, FromSql, IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Statement};
use serde_json::{Map, Value};

/// A pooled connection of PostgREST.
pub struct Replay {
    client: Client,
    schema: &'static str,
    role: &'static str,
}

/// PostgREST's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status: that of `response.status`, else 204 for void and 200 for the rest.
    pub status: u16,
    /// Headers that the function set.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// A function's kind of result, on which the statement depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returns {
    /// Nothing.
    Void,
    /// The domain `*/*`, of any media type.
    Anything,
}

impl Replay {
    /// Takes over a connection of the authenticator.
    pub fn new(client: Client, schema: &'static str, role: &'static str) -> Self {
        Self {
            client,
            schema,
            role,
        }
    }

    /// The connection.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// A POST of `application/octet-stream` to `/rpc/<function>`; the error is the SQLSTATE.
    pub fn post(
        &mut self,
        function: &str,
        returns: Returns,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Answer, String> {
        self.run("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE");
        let result = self.call(function, returns, headers, body);
        self.run(if result.is_ok() { "COMMIT" } else { "ABORT" });
        result
    }

    fn call(
        &mut self,
        function: &str,
        returns: Returns,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Answer, String> {
        let path = format!("/rpc/{function}");
        let settings = [
            format!("\"{}\"", self.schema),
            self.role.to_owned(),
            format!("{{\"role\":\"{}\"}}", self.role),
            "POST".to_owned(),
            path,
            as_json(headers),
            "{}".to_owned(),
        ];
        let settings: Vec<_> = settings.iter().map(|text| Unknown(text)).collect();
        let parameters: Vec<_> = settings.iter().map(|s| s as &(dyn ToSql + Sync)).collect();
        let statement = self.prepare(SET_CONFIG, &[Type::UNKNOWN; 7])?;
        self.client
            .query(&statement, &parameters)
            .map_err(|error| sqlstate(&error))?;

        let statement = self.prepare(&self.statement(function, returns), &[Type::BYTEA])?;
        let row = self
            .client
            .query_one(&statement, &[&body])
            .map_err(|error| sqlstate(&error))?;
        let body: Option<Raw> = row.get("body");
        let status: Option<&str> = row.get("response_status");
        let default = if returns == Returns::Void { 204 } else { 200 };
        let status = status.map_or(default, |text| text.parse().expect("PGRST112 otherwise"));
        Ok(Answer {
            status,
            headers: row
                .get::<_, Option<&str>>("response_headers")
                .map_or_else(Vec::new, read_headers),
            body: match returns {
                Returns::Void => Vec::new(),
                Returns::Anything => body.map(|raw| raw.0).unwrap_or_default(),
            },
        })
    }

    fn statement(&self, function: &str, returns: Returns) -> String {
        let schema = self.schema;
        let body = match returns {
            Returns::Void => "coalesce(json_agg(_postgrest_t.pgrst_scalar)->0, 'null')".to_owned(),
            Returns::Anything => format!("\"{schema}\".\"*/*\"(_postgrest_t.pgrst_scalar)"),
        };
        format!(
            "WITH pgrst_source AS (SELECT pgrst_call.pgrst_scalar FROM (SELECT \"{schema}\".\"{function}\"($1) \
             pgrst_scalar) pgrst_call) SELECT null::bigint AS total_result_set, 1 AS page_total, {body} AS body, \
             nullif(current_setting('response.headers', true), '') AS response_headers, \
             nullif(current_setting('response.status', true), '') AS response_status, \
             '' AS response_inserted FROM (SELECT \"{function}\".* FROM \"pgrst_source\" AS \"{function}\"   ) \
             _postgrest_t"
        )
    }

    fn prepare(&mut self, sql: &str, types: &[Type]) -> Result<Statement, String> {
        self.client
            .prepare_typed(sql, types)
            .map_err(|error| sqlstate(&error))
    }

    fn run(&mut self, sql: &str) {
        let statement = self.client.prepare(sql).unwrap();
        self.client.execute(&statement, &[]).unwrap();
    }
}

impl Answer {
    /// The value of a header, its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// A parameter as hasql sends it: type unknown, text format.
#[derive(Debug)]
struct Unknown<'a>(&'a str);

impl ToSql for Unknown<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// The bytes of a value, whatever its type.
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Header names in lower case; of a repeated one the last counts.
fn as_json(headers: &[(&str, &str)]) -> String {
    let members = headers
        .iter()
        .map(|(name, value)| (name.to_lowercase(), Value::from(*value)));
    Value::Object(members.collect::<Map<_, _>>()).to_string()
}

fn read_headers(text: &str) -> Vec<(String, String)> {
    let list: Vec<Map<String, Value>> = serde_json::from_str(text).expect("PGRST111 otherwise");
    let pairs = list.into_iter().map(|object| {
        assert_eq!(object.len(), 1, "PostgREST wants single-key objects");
        let (name, value) = object.into_iter().next().unwrap();
        (name, value.as_str().unwrap().to_owned())
    });
    pairs.collect()
}

fn sqlstate(error: &postgres::Error) -> String {
    error
        .code()
        .unwrap_or_else(|| panic!("not an answer of the server: {error}"))
        .code()
        .to_owned()
}

const SET_CONFIG: &str = "select set_config('search_path', $1, true), set_config('role', $2, true), \
    set_config('request.jwt.claims', $3, true), set_config('request.method', $4, true), \
    set_config('request.path', $5, true), set_config('request.headers', $6, true), \
    set_config('request.cookies', $7, true)";
