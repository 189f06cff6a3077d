//! Clients that hold connections without using them do not delay others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use end_to_end::client::callback::{self, sid};
use end_to_end::peer::shim::Shim;
use end_to_end::random::Random;
use end_to_end::scale::sized;
use end_to_end::server::cluster::{Cluster, Options};
use end_to_end::server::database::Database;
use end_to_end::wait::wait_until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

const CALLERS: usize = 8;
const CALLS: usize = 250;
/// The promise to clients that behave.
const MOST: Duration = Duration::from_millis(100);

#[test]
fn a_few_addresses_with_many_connections_do_not_hold_up_another() {
    let (database, shim) = start(&[]);
    let slow = (2..=9).map(|host| Ipv4Addr::new(127, 0, 0, host).into());
    check(
        &database,
        &shim,
        slow.collect(),
        Ipv4Addr::new(127, 0, 0, 100).into(),
    );
}

#[test]
fn slow_clients_behind_a_trusted_proxy_do_not_hold_up_others_behind_it() {
    let proxy = [
        "--proxy-header",
        "X-Forwarded-For",
        "--trusted-proxy",
        "127.0.0.1",
    ];
    let (database, shim) = start(&proxy);
    let proxy = IpAddr::V4(Ipv4Addr::LOCALHOST);
    check(&database, &shim, vec![proxy], proxy);
}

fn start(flags: &[&str]) -> (Database<'static>, Shim) {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let database = CLUSTER
        .get_or_init(|| Cluster::start(&Options::default()))
        .database();
    let common = [
        "--listen",
        "127.0.0.1:0",
        "--log-callbacks",
        "off",
        "--max-connections",
        most(),
    ];
    let shim = Shim::start(&database, &[&common[..], flags].concat());
    (database, shim)
}

fn most() -> &'static str {
    sized("128", "1024")
}

/// Holds connections from the `slow` addresses, more than the shim takes, while `good` calls and measures.
fn check(database: &Database<'_>, shim: &Shim, slow: Vec<IpAddr>, good: IpAddr) {
    // One flood at a time: each is to have the machine for itself.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let log = shim.read_log();
    let (_, rest) = log.split_once("callbacks on 127.0.0.1:").unwrap();
    let port: u16 = rest.split('"').next().unwrap().parse().unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (idle, deaf) = sized((300, 150), (2_000, 1_000));
    let runtime = runtime();
    let mut random = Random::new();
    let sources = slow.into_iter().cycle();
    for (number, source) in sources.take(idle + deaf).enumerate() {
        if number < idle {
            runtime.spawn(hold(source, address, random.fork()));
        } else {
            runtime.spawn(never_read(source, address, random.fork()));
        }
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let holding = thread::spawn(move || runtime.block_on(stopped));
    wait_until(
        Duration::from_secs(120),
        "all connections to be taken",
        || {
            let page = shim.ask("/metrics").text();
            let (_, rest) = page
                .split_once("\ntwilio_callback_shim_connections ")
                .unwrap();
            let open: usize = rest.lines().next().unwrap().parse().unwrap();
            open * 10 >= most().parse::<usize>().unwrap() * 9
        },
    );
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| thread::spawn(move || call(caller, good, address)))
        .collect();
    let mut times: Vec<_> = callers
        .into_iter()
        .flat_map(|caller| caller.join().unwrap())
        .collect();
    drop(stop);
    assert!(holding.join().unwrap().is_err());
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    eprintln!(
        "p50 {:?}, p99 {p99:?}, most {:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    assert!(p99 <= MOST, "{p99:?}");
    assert_eq!(database.counts().0, i64::try_from(CALLERS * CALLS).unwrap());
}

/// Sends callbacks one after another, each second one on a connection of its own, and gives how long each took.
fn call(caller: usize, source: IpAddr, address: SocketAddr) -> Vec<Duration> {
    let one = async |number: usize, kept: &mut Option<TcpStream>| {
        let request =
            callback::signed_status(&sid(caller * CALLS + number), "sent", None).to_bytes();
        let started = Instant::now();
        let mut stream = match kept.take().filter(|_| number.is_multiple_of(2)) {
            Some(stream) => stream,
            None => connect(source, address).await.unwrap(),
        };
        stream.write_all(&request).await.unwrap();
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer).await.unwrap();
        assert!(
            answer[..length].starts_with(b"HTTP/1.1 204"),
            "{:?}",
            &answer[..length]
        );
        *kept = Some(stream);
        started.elapsed()
    };
    runtime().block_on(async {
        let mut kept = None;
        let mut times = Vec::new();
        for number in 0..CALLS {
            times.push(
                timeout(Duration::from_secs(30), one(number, &mut kept))
                    .await
                    .unwrap(),
            );
            sleep(Duration::from_millis(5)).await;
        }
        times
    })
}

/// Opens a connection and sends nothing, again and again.
async fn hold(source: IpAddr, address: SocketAddr, mut random: Random) {
    sleep(pause(&mut random)).await;
    loop {
        if let Ok(mut stream) = connect(source, address).await {
            let _ = stream.read(&mut [0]).await;
        }
        sleep(pause(&mut random)).await;
    }
}

/// Sends one request after another and reads no answer, again and again.
async fn never_read(source: IpAddr, address: SocketAddr, mut random: Random) {
    sleep(pause(&mut random)).await;
    let requests = "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
    loop {
        if let Ok(mut stream) = connect(source, address).await {
            while stream.write_all(requests.as_bytes()).await.is_ok() {}
        }
        sleep(pause(&mut random)).await;
    }
}

async fn connect(source: IpAddr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source, 0))?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Up to two seconds, after which a connection that was closed is opened again.
fn pause(random: &mut Random) -> Duration {
    Duration::from_millis(u64::try_from(random.below(2_000)).unwrap())
}
