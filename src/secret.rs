//! Secrets as they are stored, and those that stand in a file: read by the server, kept until the file changes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use sender::Authorization;

use crate::setting;

/// A secret as it stands in a table: the secret itself, or `file:name`. It has no `Display`, and its `Debug` is
/// redacted.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl Secret {
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    /// The bytes that sign or are shown.
    pub(crate) fn resolve(&self) -> Result<Vec<u8>, SecretError> {
        resolve(&self.0)
    }

    /// The basic authorization of a user, or the reason why there is none.
    pub(crate) fn basic(&self, user: &str) -> Result<Authorization, String> {
        let secret = self.resolve().map_err(|error| error.to_string())?;
        Ok(Authorization::basic(
            user,
            &String::from_utf8_lossy(&secret),
        ))
    }
}

/// Why a secret cannot be had. No variant holds a part of one.
#[derive(Debug)]
pub(crate) enum SecretError {
    /// None was given.
    Null,
    /// It has no characters.
    Empty,
    /// The name after `file:` is no plain file name.
    Name,
    /// `twilio_callback.secret_directory` is not set.
    Directory,
    /// The file cannot be read.
    File { name: String, reason: String },
}

impl std::fmt::Display for SecretError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => write!(f, "secret is null"),
            Self::Empty => write!(f, "secret is empty"),
            Self::Name => write!(f, "secret file's name is not a plain file name"),
            Self::Directory => write!(f, "twilio_callback.secret_directory is not set"),
            Self::File { name, reason } => {
                write!(f, "secret file \"{name}\" cannot be read: {reason}")
            }
        }
    }
}

/// The content of a file when it was last read, and the signs by which a change is noticed.
struct Cached {
    stamp: Stamp,
    secret: Vec<u8>,
}

#[derive(PartialEq, Eq, Clone, Copy)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

thread_local! {
    static CACHE: RefCell<HashMap<String, Cached>> = RefCell::default();
}

/// The bytes of a secret as stored: the secret itself, or `file:name`.
pub(crate) fn resolve(stored: &str) -> Result<Vec<u8>, SecretError> {
    match stored.strip_prefix("file:") {
        None if stored.is_empty() => Err(SecretError::Empty),
        None => Ok(stored.as_bytes().to_vec()),
        Some(name) => read_cached(name),
    }
}

fn read_cached(name: &str) -> Result<Vec<u8>, SecretError> {
    let is_plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if name.is_empty() || name.starts_with('.') || !is_plain {
        return Err(SecretError::Name);
    }
    let directory = setting::secret_directory().ok_or(SecretError::Directory)?;
    let failed = |reason: String| SecretError::File {
        name: name.to_owned(),
        reason,
    };
    let path = directory.join(name);
    // The whole path is the key: the directory is a setting that may change.
    let key = path.to_string_lossy().into_owned();
    let stamp = stamp(&path).map_err(|e| failed(e.kind().to_string()))?;
    let cached = CACHE.with_borrow(|cache| {
        let entry = cache.get(&key).filter(|entry| entry.stamp == stamp);
        entry.map(|entry| entry.secret.clone())
    });
    if let Some(secret) = cached {
        return Ok(secret);
    }
    let (stamp, secret) = read(&path).map_err(failed)?;
    CACHE.with_borrow_mut(|cache| {
        let entry = Cached {
            stamp,
            secret: secret.clone(),
        };
        cache.insert(key, entry)
    });
    Ok(secret)
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    Ok(Stamp::from(&std::fs::symlink_metadata(path)?))
}

impl From<&std::fs::Metadata> for Stamp {
    fn from(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn read(path: &Path) -> Result<(Stamp, Vec<u8>), String> {
    // A link could name any file of the server's; a pipe could hang the caller: neither is opened.
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|e| match e.raw_os_error() {
            Some(libc::ELOOP) => "it is a link".to_owned(),
            _ => e.kind().to_string(),
        })?;
    let metadata = file.metadata().map_err(|e| e.kind().to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    if metadata.size() > MAX_BYTES {
        return Err(format!("longer than {MAX_BYTES} bytes"));
    }
    let mut secret = Vec::new();
    file.take(MAX_BYTES)
        .read_to_end(&mut secret)
        .map_err(|e| e.kind().to_string())?;
    // Editors end a file with a line break, which no secret has.
    while secret.last().is_some_and(|b| b"\r\n".contains(b)) {
        secret.pop();
    }
    if secret.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok((Stamp::from(&metadata), secret))
}

const MAX_BYTES: u64 = 4096;
