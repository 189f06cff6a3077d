//! Whether the extension is installed in this database.

use pgrx::pg_sys::panic::ErrorReport;

use crate::spi::{log_once_a_minute, rows};

/// Whether the extension is here, at the version of this library and in the schema of its name.
pub(crate) fn is_installed() -> Result<bool, ErrorReport> {
    let Some(installed) = installed()? else {
        return Ok(false);
    };
    if installed.schema != SCHEMA {
        let schema = installed.schema;
        log_once_a_minute(&format!(
            "twilio_callback worker is waiting: the schema is named \"{schema}\" instead of \"{SCHEMA}\"; run: \
             alter schema \"{schema}\" rename to {SCHEMA}"
        ));
        return Ok(false);
    }
    Ok(installed.version == env!("CARGO_PKG_VERSION"))
}

/// The extension as it is installed.
struct Installed {
    version: String,
    schema: String,
}

/// The extension, if it is installed.
fn installed() -> Result<Option<Installed>, ErrorReport> {
    let query = "select e.extversion::text, n.nspname::text from pg_catalog.pg_extension e \
                 join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'twilio_callback'";
    let found = rows(query, &[], |row| {
        Ok(Installed {
            version: row.get(1)?.unwrap_or_default(),
            schema: row.get(2)?.unwrap_or_default(),
        })
    });
    found.map(|found| found.into_iter().next())
}

/// The schema of everything that the extension documents.
const SCHEMA: &str = "twilio";
