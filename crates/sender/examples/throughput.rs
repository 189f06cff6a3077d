//! Measures requests per second and memory of a sender against a slow server on this machine.
//!
//! `cargo run --release -p sender --example throughput -- [in flight] [requests] [latency ms] [tls]`

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use protocol::trust::{Api, Trusted};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sender::{Authorization, Config, Method, Outcome, Proxies, Request, Roots, Sender};

type Outcomes<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcomes<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: usize| -> Outcomes<usize> {
        Ok(arguments
            .get(index)
            .map_or(Ok(default), |text| text.parse())?)
    };
    if arguments.first().is_some_and(|first| first == "serve") {
        return serve(number(1, 50)? as u64, arguments.iter().any(|a| a == "tls"));
    }
    let is_tls = arguments.iter().any(|argument| argument == "tls");
    measure(number(0, 200)?, number(1, 40_000)?, number(2, 50)?, is_tls)
}

fn measure(in_flight: usize, requests: usize, latency: usize, is_tls: bool) -> Outcomes<()> {
    let (mut server, port) = start_server(latency, is_tls)?;
    let authority = CertificateDer::from_pem_slice(include_bytes!("../tests/data/authority.pem"))?;
    let sender = Sender::start(Config {
        in_flight,
        proxies: Proxies::none(),
        roots: Roots::Only(vec![authority.to_vec()]),
        thread_idle: Duration::from_secs(1),
        ..Config::default()
    })?;
    let before = anonymous_kib()?;
    let scheme = if is_tls { "https" } else { "http" };
    let api = Api::parse(&format!("{scheme}://127.0.0.1:{port}"))?;
    let to = api.at("/2010-04-01/Accounts/AC/Messages.json")?;
    let cpu_before = cpu_ticks()?;
    let started = Instant::now();
    let (mut pushed, mut answered, mut failed, mut peak, mut slowest_push) =
        (0, 0, 0, 0, Duration::ZERO);
    while answered + failed < requests {
        while pushed < requests && sender.room() > 0 {
            let request = message(pushed as i64, to.clone());
            let push_started = Instant::now();
            sender.push(request)?;
            slowest_push = slowest_push.max(push_started.elapsed());
            pushed += 1;
        }
        for report in sender.receive() {
            match report.outcome {
                Outcome::Response(response) if response.status == 201 => answered += 1,
                _ => failed += 1,
            }
        }
        peak = peak.max(anonymous_kib()?);
        thread::park_timeout(Duration::from_millis(1));
    }
    let elapsed = started.elapsed().as_secs_f64();
    let cpu = (cpu_ticks()? - cpu_before) as f64 / 100.0;
    // Idle threads and their connections end within a second or two.
    let idle = Instant::now();
    while idle.elapsed() < Duration::from_secs(4) {
        thread::park_timeout(Duration::from_millis(100));
    }
    writeln!(
        io::stdout(),
        "{answered} answered, {failed} failed, {:.0} requests/s, {:.1} s of CPU; \
         RssAnon {before} KiB idle, {peak} KiB at most, {} KiB afterwards; slowest push {slowest_push:?}",
        answered as f64 / elapsed,
        cpu,
        anonymous_kib()?,
    )?;
    server.kill()?;
    server.wait()?;
    Ok(())
}

fn message(id: i64, to: Trusted) -> Request {
    let credentials = Authorization::basic("AC", "token");
    let mut request = Request::authorized(id, Method::Post, to, credentials);
    request.headers = vec![(
        "content-type".into(),
        "application/x-www-form-urlencoded".into(),
    )];
    request.body = b"To=%2B12025550123&From=%2B12025550100&Body=Your+table+is+ready".to_vec();
    request
}

fn start_server(latency: usize, is_tls: bool) -> Outcomes<(Child, u16)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("serve").arg(latency.to_string());
    if is_tls {
        command.arg("tls");
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.as_mut().ok_or("the server prints nothing")?;
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((child, line.trim().parse()?))
}

/// Answers each request after the latency, until its standard input ends.
fn serve(latency: u64, is_tls: bool) -> Outcomes<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    let certificate =
        CertificateDer::from_pem_slice(include_bytes!("../tests/data/localhost.pem"))?;
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../tests/data/localhost-key.pem"))?;
    let tls = Arc::new(
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?,
    );
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let tls = Arc::clone(&tls);
            thread::spawn(move || {
                // The client ending the connection is the normal end.
                let _ = if is_tls {
                    ServerConnection::new(tls)
                        .map_err(io::Error::other)
                        .and_then(|connection| {
                            answer(StreamOwned::new(connection, stream), latency)
                        })
                } else {
                    answer::<TcpStream>(stream, latency)
                };
            });
        }
    });
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn answer<S: Read + Write>(mut stream: S, latency: u64) -> io::Result<()> {
    let body = format!(r#"{{"sid":"SM{}","status":"queued"}}"#, "0".repeat(32));
    let response = format!(
        "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut buffer = [0; 4096];
    let mut read = 0;
    loop {
        let length = stream.read(&mut buffer[read..])?;
        if length == 0 {
            return Ok(());
        }
        read += length;
        // The sample's body ends in this word.
        if buffer[..read].ends_with(b"ready") {
            read = 0;
            thread::park_timeout(Duration::from_millis(latency));
            stream.write_all(response.as_bytes())?;
            stream.flush()?;
        }
    }
}

fn anonymous_kib() -> Outcomes<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let word = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(word.ok_or("no RssAnon")?.parse()?)
}

/// User and system time of this process, in hundredths of a second.
fn cpu_ticks() -> Outcomes<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}
