//! Sends one prepared HTTP request under a deadline and says what happened.
