//! The programs under test: `make test-end-to-end` builds them and passes their places in variables.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::server::process::Reaper;

/// A program of the private PostgreSQL installation that the extension is installed in.
pub fn postgres_program(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let output = command(variable("PG_CONFIG")).arg("--bindir").output();
        let output = output.expect("PG_CONFIG can be run");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    });
    directory.join(name)
}

/// One of the project's programs.
pub fn program(name: &str) -> PathBuf {
    variable("TWILIO_CALLBACK_BIN").join(name)
}

/// The directory with Twilio's own libraries, which sign independently of us.
pub fn signers() -> PathBuf {
    variable("SIGNERS")
}

/// The top of the checkout.
pub fn checkout() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).expect("the crate lies two below")
}

/// A command whose child has no backtraces switched on: they would end up in errors' DETAIL.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_remove("RUST_BACKTRACE");
    command
}

/// Python with Twilio's libraries and others at hand.
pub fn python() -> Command {
    let mut python = command("python3");
    python
        .env("PYTHONPATH", signers().join("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUTF8", "1");
    python
}

/// A command run by the account that PostgreSQL's servers run under, since they refuse root.
pub fn as_postgres(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if !is_root() {
        return command(program);
    }
    let mut runuser = command("runuser");
    runuser.args(["-u", "postgres", "--"]).arg(program.as_ref());
    runuser
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A fresh directory with a path short enough for sockets, which every account may enter.
pub fn fresh_directory() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    static ALL: OnceLock<(PathBuf, Reaper)> = OnceLock::new();
    let (all, _) = ALL.get_or_init(|| {
        let all = own_directory();
        // Files that servers leave behind are removed once the servers have had time to end.
        let remove = r#"sleep 5; rm -rf "$1""#;
        let reaper = Reaper::new(remove, &[all.to_str().expect("it is ASCII")]);
        (all, reaper)
    });
    let directory = all.join(COUNT.fetch_add(1, Ordering::Relaxed).to_string());
    create_open(&directory).expect("nobody else writes there");
    directory
}

/// A directory of this program alone.
fn own_directory() -> PathBuf {
    for attempt in 0.. {
        let path = PathBuf::from(format!("/var/tmp/tw-{}-{attempt}", std::process::id()));
        match create_open(&path) {
            Ok(()) => return path,
            // Left by an earlier program with the same process id.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => panic!("cannot create {}: {error}", path.display()),
        }
    }
    unreachable!("there is always a next name")
}

fn create_open(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    // Not by the mode at creation, which the umask cuts down.
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// A loopback port without a listener, which no other call gives while this program runs, here or in another
/// test program. It lies below the range from which the kernel takes the ports of outgoing connections, so none of
/// these can occupy it before its server does.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let start = u16::try_from(std::process::id() % 18_000).unwrap();
    for _ in 0..18_000 {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(start) % 18_000;
        let port = 12_000 + offset;
        // An abstract socket has one owner, and goes with that.
        let name = format!("twilio_callback-port-{port}");
        let name = SocketAddr::from_abstract_name(name).unwrap();
        let Ok(reservation) = UnixListener::bind_addr(&name) else {
            continue;
        };
        // Not by listening: a child that another test starts at this moment would keep the port for a while.
        if TcpStream::connect(("127.0.0.1", port)).is_err() {
            RESERVED.lock().unwrap().push(reservation);
            return port;
        }
    }
    panic!("no loopback port is free");
}

fn variable(name: &str) -> PathBuf {
    let value = std::env::var_os(name);
    PathBuf::from(value.unwrap_or_else(|| panic!("{name} is not set; use `make test-end-to-end`")))
}
