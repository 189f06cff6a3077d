//! How large a test is: short in `make test-end-to-end`, full in `make chaos`, with the same code.

/// `full` if the variable `SCALE` says so, else `short`.
pub fn sized<T>(short: T, full: T) -> T {
    match std::env::var("SCALE").as_deref() {
        Ok("full") => full,
        Ok("short") | Err(_) => short,
        Ok(other) => panic!("SCALE is short or full, not {other}"),
    }
}
