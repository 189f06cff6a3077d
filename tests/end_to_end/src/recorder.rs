//! A tiny HTTP server that keeps what it is sent, where a proxy's upstream is looked at.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::environment::fresh_directory;
use crate::request::Request;

/// A running server; it answers everything with 204 and a header of PostgREST's.
pub struct Recorder {
    directory: PathBuf,
    received: Arc<Mutex<Vec<Request>>>,
}

impl Recorder {
    /// Starts to listen on a socket.
    pub fn start() -> Self {
        let directory = fresh_directory();
        let listener = UnixListener::bind(directory.join("http")).unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let own = Self {
            directory,
            received: received.clone(),
        };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let received = received.clone();
                thread::spawn(move || serve(stream, &received));
            }
        });
        own
    }

    /// The socket's path.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("http")
    }

    /// Takes what was received so far.
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *self.received.lock().unwrap())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn serve(stream: UnixStream, received: &Mutex<Vec<Request>>) {
    let mut stream = BufReader::new(stream);
    while let Ok(Some(request)) = read(&mut stream) {
        received.lock().unwrap().push(request);
        let answer = b"HTTP/1.1 204 No Content\r\nContent-Range: 0-0/*\r\n\r\n";
        if stream.get_mut().write_all(answer).is_err() {
            return;
        }
    }
}

/// One request, or `None` at the end of the connection.
fn read(stream: &mut BufReader<UnixStream>) -> io::Result<Option<Request>> {
    let line = read_line(stream)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let mut request = Request::new(method, target);
    loop {
        let line = read_line(stream)?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        request = request.header(name, value);
    }
    let length = request.value_of("content-length").unwrap_or("0");
    request.body.resize(length.parse().unwrap(), 0);
    stream.read_exact(&mut request.body)?;
    Ok(Some(request))
}

fn read_line(stream: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
