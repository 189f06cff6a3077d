//! The bearer token, read from its file for each comparison, so that a changed file takes effect at once.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use subtle::ConstantTimeEq;

/// The token that a request must carry. It cannot be printed.
pub(crate) struct Token(Vec<u8>);

impl Token {
    /// Compares in a time that depends only on the length.
    pub(crate) fn is(&self, candidate: &[u8]) -> bool {
        self.0.ct_eq(candidate).into()
    }
}

/// Reads the token. The error says what is wrong without quoting the file.
pub(crate) fn read(path: &Path) -> Result<Token, String> {
    // Checked before opening: opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a regular file".into());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(format!("everybody may use it (its mode is {mode:o})"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 2)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    // Editors and echo add a line break at the end.
    let token = bytes.trim_ascii();
    if (token.len() as u64) < MIN_BYTES {
        return Err(format!("it has fewer than {MIN_BYTES} characters"));
    }
    if token.len() as u64 > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} characters"));
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err("it has characters that no header can carry".into());
    }
    Ok(Token(token.to_vec()))
}

const MIN_BYTES: u64 = 32;
const MAX_BYTES: u64 = 1024;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// A file of this test's own, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, content: &[u8], mode: u32) -> Self {
            let path = std::env::temp_dir().join(format!("token-{name}-{}", std::process::id()));
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_token_is_itself_and_nothing_else() {
        let text = "0123456789abcdef0123456789abcdef";
        let file = Scratch::new("good", format!("{text}\n").as_bytes(), 0o640);
        let token = read(&file.0).unwrap();
        assert!(token.is(text.as_bytes()));
        for other in ["", &text[1..], &format!("{text}0"), &text.to_uppercase()] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
        fs::write(&file.0, "x".repeat(40)).unwrap();
        assert!(read(&file.0).unwrap().is("x".repeat(40).as_bytes()));
    }

    #[test]
    fn unsafe_tokens_are_refused_without_being_repeated() {
        let good = "hush".repeat(10);
        for (name, content, mode, expected) in [
            ("open", good.as_str(), 0o604, "everybody may use it"),
            ("written", good.as_str(), 0o602, "everybody may use it"),
            ("short", "hush", 0o600, "fewer than 32"),
            ("blank", &"\n".repeat(40), 0o600, "fewer than 32"),
            ("long", &"hush".repeat(300), 0o600, "more than 1024"),
            ("two", &format!("{good}\n{good}"), 0o600, "no header"),
        ] {
            let file = Scratch::new(name, content.as_bytes(), mode);
            let why = read(&file.0).err().unwrap();
            assert!(why.contains(expected) && !why.contains("hush"), "{why}");
        }
        assert!(read(&std::env::temp_dir()).is_err());
        assert!(read(Path::new("/nowhere/token")).is_err());
    }
}
