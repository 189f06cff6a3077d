//! Posts distinct, correctly signed callbacks over many connections and prints one line of JSON: how many
//! were answered a second, and how long the answers took.

mod callback;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Loads a callback URL on loopback with callbacks of distinct messages.
#[derive(Parser)]
struct Options {
    /// Address of the server, host:port on loopback
    #[arg(long)]
    connect: std::net::SocketAddr,
    /// URL that the callbacks are signed for; its path is what is posted to
    #[arg(long)]
    url: String,
    /// Account SID
    #[arg(long, env = "TWILIO_ACCOUNT_SID")]
    account_sid: String,
    /// Auth token that signs
    #[arg(long, env = "TWILIO_AUTH_TOKEN", hide_env_values = true)]
    auth_token: String,
    /// Connections, each with one request at a time
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Stop after so many seconds
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Stop after so many callbacks
    #[arg(long, default_value_t = 300_000)]
    count: usize,
    /// Post so many callbacks a second, however long their answers take: one that finds all connections busy has waited
    /// since it was due. Without it, each connection posts as fast as it is answered
    #[arg(long)]
    rate: Option<f64>,
    /// Percentage of callbacks that are repeats of earlier ones
    #[arg(long, default_value_t = 5)]
    duplicates: usize,
    /// First message's number: runs with different numbers share no message
    #[arg(long, default_value_t = 0)]
    first: u64,
}

#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    statuses: BTreeMap<u16, usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let options = Options::parse();
    if !options.connect.ip().is_loopback() {
        return Err(std::io::Error::other(
            "only addresses of this machine are loaded",
        ));
    }
    let requests = Arc::new(callback::requests(&options));
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(options.seconds);
    let tasks: Vec<_> = (0..options.connections)
        .map(|_| {
            let (requests, next, address) = (requests.clone(), next.clone(), options.connect);
            let pace = Pace {
                start,
                end,
                rate: options.rate,
            };
            tokio::spawn(async move { drive(address, &requests, &next, pace).await })
        })
        .collect();
    let mut total = Tally::default();
    for task in tasks {
        let tally = task.await.map_err(std::io::Error::other)??;
        total.latencies.extend(tally.latencies);
        for (status, count) in tally.statuses {
            *total.statuses.entry(status).or_default() += count;
        }
    }
    report(&total, start.elapsed())
}

/// When requests are posted.
struct Pace {
    start: Instant,
    end: Instant,
    /// Requests a second, of all connections; none for as many as are answered.
    rate: Option<f64>,
}

impl Pace {
    /// Waits until a request is due. Returns the time that its latency counts from.
    async fn wait(&self, place: usize) -> Instant {
        let Some(rate) = self.rate else {
            return Instant::now();
        };
        let due = self.start + Duration::from_secs_f64(place as f64 / rate);
        if Instant::now() >= due {
            return due;
        }
        // The timer may be a millisecond late, which does not count as latency of the server.
        tokio::time::sleep_until(due.into()).await;
        Instant::now()
    }
}

/// One connection: a request, its answer, the next request.
async fn drive(
    address: std::net::SocketAddr,
    requests: &[Vec<u8>],
    next: &AtomicUsize,
    pace: Pace,
) -> std::io::Result<Tally> {
    let mut tally = Tally::default();
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4096);
    while Instant::now() < pace.end {
        let place = next.fetch_add(1, Ordering::Relaxed);
        let Some(request) = requests.get(place) else {
            break;
        };
        let sent = pace.wait(place).await;
        stream.write_all(request).await?;
        let (status, closes) = read_answer(&mut stream, &mut buffer).await?;
        tally.latencies.push(sent.elapsed());
        *tally.statuses.entry(status).or_default() += 1;
        if closes {
            stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
        }
    }
    Ok(tally)
}

/// The status of an answer, and whether the server closes the connection after it.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<(u16, bool)> {
    buffer.clear();
    loop {
        if let Some(head) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
            let length = field("content-length:").and_then(|v| v.trim().parse::<usize>().ok());
            while buffer.len() < head + 4 + length.unwrap_or(0) {
                read_more(stream, buffer).await?;
            }
            let status = text.get(9..12).and_then(|code| code.parse().ok());
            let closes = field("connection:").is_some_and(|value| value.trim() == "close");
            return Ok((status.unwrap_or(0), closes));
        }
        read_more(stream, buffer).await?;
    }
}

async fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn report(total: &Tally, elapsed: Duration) -> std::io::Result<()> {
    let mut latencies = total.latencies.clone();
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len().saturating_sub(1) as f64 * share) as usize;
        latencies
            .get(index)
            .map_or(0.0, |l| l.as_secs_f64() * 1000.0)
    };
    let statuses: Vec<_> = (total.statuses.iter())
        .map(|(status, count)| format!("\"{status}\": {count}"))
        .collect();
    let accepted: usize = (total.statuses.range(200..300))
        .map(|(_, count)| count)
        .sum();
    writeln!(
        std::io::stdout(),
        "{{\"per_s\": {:.0}, \"p50_ms\": {:.3}, \"p99_ms\": {:.3}, \"p999_ms\": {:.3}, \"seconds\": {:.2}, \"statuses\": {{{}}}}}",
        accepted as f64 / elapsed.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        elapsed.as_secs_f64(),
        statuses.join(", ")
    )
}
