//! Clients that hold connections open: each test has real sockets and short limits.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    time::Instant,
};

use axum::routing::get;
use tokio::task::spawn_blocking;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const LARGE: usize = 64 << 20;

const LIMITS: ConnectionLimits = ConnectionLimits {
    connections: 8,
    request: Duration::from_millis(400),
    answer: Duration::from_millis(400),
    unread: Duration::from_millis(400),
};

/// Limits that only a failing test reaches.
const PATIENT: ConnectionLimits = ConnectionLimits {
    connections: 8,
    request: Duration::from_secs(600),
    answer: Duration::from_secs(600),
    unread: Duration::from_secs(600),
};

fn routes() -> Router {
    Router::new()
        .route("/", get(|| async { "answer" }))
        .route("/large", get(|| async { "x".repeat(LARGE) }))
        .route("/never", get(std::future::pending::<&'static str>))
}

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Running {
    async fn start(limits: ConnectionLimits) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let server = tokio::spawn(serve_within(listener, routes(), stopped, limits));
        Self { address, stop, server }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    async fn stop(self) {
        drop(self.stop);
        time::timeout(PATIENCE, self.server).await.unwrap().unwrap();
    }
}

/// Sends a request and reads until the server closes the connection.
fn ask(mut stream: impl io::Read + io::Write, path: &str) -> io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

async fn is_served(stream: TcpStream) {
    let answer = spawn_blocking(move || ask(stream, "/")).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("answer"), "{answer}");
}

/// Reads what comes until the server closes the connection; also after a reset.
async fn read_to_end(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let work = spawn_blocking(move || {
        let result = stream.read_to_end(&mut bytes);
        assert!(!matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock), "it is open");
        bytes
    });
    work.await.unwrap()
}

#[tokio::test]
async fn half_sent_requests_do_not_keep_others_out() {
    let running = Running::start(PATIENT).await;
    for head in [
        "",
        "G",
        "GET / HTTP/1.1\r\nHost: local",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab",
    ] {
        let mut held: Vec<_> = (0..3 * PATIENT.connections).map(|_| running.connect()).collect();
        // The server has closed the oldest ones, so that writing to them may fail.
        held.iter_mut().for_each(|stream| drop(stream.write_all(head.as_bytes())));
        for _ in 0..5 {
            is_served(running.connect()).await;
        }
    }
    running.stop_with_open_connections().await;
}

impl Running {
    /// As the daemon does it: whoever sends half a request does not delay the end.
    async fn stop_with_open_connections(self) {
        let server = Server {
            task: tokio::spawn(async {
                self.server.await.unwrap();
                Ok(())
            }),
            shutdown: self.stop,
            file: None,
            _warmth: JoinSet::new(),
        };
        let begun = Instant::now();
        server.stop().await;
        assert!(begun.elapsed() < 2 * END_PATIENCE + Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn unread_answers_do_not_keep_others_out() {
    let running = Running::start(PATIENT).await;
    let mut held: Vec<_> = (0..PATIENT.connections).map(|_| running.connect()).collect();
    for stream in &mut held {
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    }
    for _ in 0..5 {
        is_served(running.connect()).await;
    }
}

#[tokio::test]
async fn half_sent_on_a_unix_socket_does_not_keep_others_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(serve_within(listener, routes(), std::future::pending(), PATIENT));
    let held: Vec<_> = (0..PATIENT.connections)
        .map(|_| {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.write_all(b"GET /").unwrap();
            stream
        })
        .collect();
    let stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let answer = spawn_blocking(move || ask(stream, "/")).await.unwrap().unwrap();
    assert!(answer.ends_with("answer"), "{answer}");
    drop(held);
    server.abort();
}

#[tokio::test]
async fn a_client_that_sends_no_whole_header_in_time_is_disconnected() {
    let running = Running::start(LIMITS).await;
    let silent = running.connect();
    let mut half = running.connect();
    half.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
    let mut drips = running.connect();
    let dripping = spawn_blocking(move || {
        let begun = Instant::now();
        // One byte at a time does not extend the time.
        while drips.write_all(b"x").is_ok() {
            assert!(begun.elapsed() < PATIENCE, "the server keeps reading");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let mut idle = running.connect();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(read_to_end(silent).await, b"");
    read_to_end(half).await;
    dripping.await.unwrap();
    let answered = String::from_utf8(read_to_end(idle).await).unwrap();
    assert!(answered.ends_with("answer"), "closed only after the answer: {answered}");
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected() {
    let running = Running::start(LIMITS).await;
    let mut stream = running.connect();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    time::sleep(4 * LIMITS.unread).await;
    let received = read_to_end(stream).await.len();
    assert!(received < LARGE, "{received} bytes although nothing was read for longer than the limit");
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_the_whole_answer() {
    let running = Running::start(LIMITS).await;
    let mut stream = running.connect();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let received = spawn_blocking(move || {
        let (mut buffer, mut received) = (vec![0; 8 << 20], 0);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return received,
                bytes => received += bytes,
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    assert!(received.await.unwrap() > LARGE);
    running.stop().await;
}

#[tokio::test]
async fn an_answer_that_takes_too_long_becomes_an_error() {
    let running = Running::start(LIMITS).await;
    let stream = running.connect();
    let answer = spawn_blocking(move || ask(stream, "/never")).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("takes longer than"), "{answer}");
    running.stop().await;
}

#[tokio::test]
async fn one_connection_serves_several_requests() {
    let running = Running::start(PATIENT).await;
    let mut stream = running.connect();
    // Sent at once, and the second with a body that nobody needs.
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: \
              3\r\n\r\nabcGET /absent HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    let answers = String::from_utf8(read_to_end(stream).await).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 404 ").count(), 1, "{answers}");
    running.stop().await;
}
