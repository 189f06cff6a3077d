//! A tiny HTTP server that keeps what it is sent, where a proxy's upstream or a worker is looked at.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::{ServerConnection, StreamOwned};

use crate::client::http::Stream;
use crate::client::request::Request;
use crate::server::environment::fresh_directory;
use crate::server::tls::Certificate;

/// A running server.
pub struct Recorder {
    directory: PathBuf,
    port: u16,
    received: Arc<Mutex<Vec<Request>>>,
    answer: Arc<Answer>,
}

/// The bytes that a request is answered with; none close the connection.
type Answer = dyn Fn(&Request) -> String + Send + Sync;

impl Recorder {
    /// Starts to listen on a socket and on a free port, and answers everything with 204 and a header of
    /// PostgREST's.
    pub fn start() -> Self {
        Self::answering(|_| "HTTP/1.1 204 No Content\r\nContent-Range: 0-0/*\r\n\r\n".to_owned())
    }

    /// The same with answers of the test's own.
    pub fn answering(answer: impl Fn(&Request) -> String + Send + Sync + 'static) -> Self {
        let directory = fresh_directory();
        let listener = UnixListener::bind(directory.join("http")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = Self {
            directory,
            port: port.local_addr().unwrap().port(),
            received: Arc::default(),
            answer: Arc::new(answer),
        };
        own.listen(move || Ok(Box::new(listener.accept()?.0)));
        own.listen(move || Ok(Box::new(port.accept()?.0)));
        own
    }

    /// Listens with TLS as well, and gives the port.
    pub fn serve_tls(&self, certificate: &Certificate) -> u16 {
        let config = Arc::new(certificate.server_config());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        self.listen(move || {
            let session = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
            Ok(Box::new(StreamOwned::new(session, listener.accept()?.0)))
        });
        port
    }

    fn listen(&self, accept: impl Fn() -> io::Result<Box<dyn Stream>> + Send + 'static) {
        let (received, answer) = (self.received.clone(), self.answer.clone());
        thread::spawn(move || {
            while let Ok(stream) = accept() {
                let (received, answer) = (received.clone(), answer.clone());
                thread::spawn(move || serve(stream, &received, &*answer));
            }
        });
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket's path.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("http")
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
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

fn serve(stream: Box<dyn Stream>, received: &Mutex<Vec<Request>>, answer: &Answer) {
    let mut stream = BufReader::new(stream);
    while let Ok(Some(request)) = read(&mut stream) {
        received.lock().unwrap().push(request.clone());
        let answer = answer(&request);
        if answer.is_empty() || stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// One request, or `None` at the end of the connection.
fn read(stream: &mut BufReader<Box<dyn Stream>>) -> io::Result<Option<Request>> {
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

fn read_line(stream: &mut BufReader<Box<dyn Stream>>) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
