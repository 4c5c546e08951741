//! One request by HTTP/1.1: connect, handshake, send, and read the begin of the answer.

use std::{
    collections::HashMap,
    error::Error as _,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Response,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::{self, Instant},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

/// How long one of a server's addresses may keep the others waiting.
const ONE_ADDRESS: Duration = Duration::from_secs(5);
/// How long authorities are remembered: reading them takes some milliseconds.
const REMEMBERED: Duration = Duration::from_mins(5);
/// Largest head of an answer, in bytes.
const MOST_HEAD: usize = 32 << 10;
/// How much of an answer's text is read, in bytes.
const MOST_TEXT: usize = 1000;
/// The end of an error about a step that took too long.
const LATE: &str = "took too long";
/// How long that text is waited for.
const TEXT_WAIT: Duration = Duration::from_secs(1);

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name, or its address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether by TLS. Without it, only this machine itself is asked, unless the client was told otherwise.
    pub is_encrypted: bool,
    /// The file with the authorities that its certificate may be from; the system's without one.
    pub ca_file: Option<PathBuf>,
}

impl Server {
    /// What follows the scheme in its URL. Nothing in it is secret.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.port, self.is_encrypted) {
            (443, true) | (80, false) => host,
            (port, _) => format!("{host}:{port}"),
        }
    }
}

/// A POST request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Path and query.
    pub target: String,
    /// Headers besides `Host` and `Content-Length`.
    pub headers: Vec<(&'static str, String)>,
    /// What is sent.
    pub body: Vec<u8>,
}

/// The begin of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status, such as 204.
    pub status: u16,
    /// The first line of its text if that is meant for people or programs, without control characters. Not
    /// read after a success.
    pub text: Option<String>,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status, such as 200.
    pub status: u16,
    /// Its text, whatever it is.
    pub body: Vec<u8>,
}

/// How long an answer may take, and how large it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until the last byte of the answer.
    pub timeout: Duration,
    /// Bytes of the answer's text.
    pub most_bytes: usize,
}

/// What is offered to servers, by the file of authorities, and when that was read.
type Configs = HashMap<Option<PathBuf>, (Instant, Arc<ClientConfig>)>;

/// Asks servers.
#[derive(Debug, Default)]
pub struct Client {
    configs: Mutex<Configs>,
    /// Whether other machines are asked without TLS, where a server has none.
    asks_in_clear: bool,
}

impl Client {
    /// One that asks other machines without TLS as well: passwords and figures can be read on the way.
    pub fn in_clear() -> Self {
        Self { asks_in_clear: true, ..Self::default() }
    }

    /// Sends a request, and waits for the answer until a deadline.
    ///
    /// # Errors As a sentence: which step failed or took too long, at which server. It has neither the path
    /// nor a header of the request, which may be secret.
    pub async fn post(&self, server: &Server, request: Request, timeout: Duration) -> Result<Answer, String> {
        let asked = self.send(server, request, (timeout, &FirstLine)).await;
        asked.map_err(|error| if error.ends_with(LATE) { format!("{error}; raise `timeout`") } else { error })
    }

    /// Sends a request, and reads the whole answer.
    ///
    /// # Errors
    /// As [`Self::post`], and when the answer is too large or breaks off.
    pub async fn ask(&self, server: &Server, request: Request, limits: Limits) -> Result<Reply, String> {
        let Limits { timeout, most_bytes } = limits;
        self.send(server, request, (timeout, &WholeBody { most_bytes })).await
    }

    async fn send<W: Wanted>(
        &self,
        server: &Server,
        request: Request,
        (timeout, wanted): (Duration, &W),
    ) -> Result<W::Got, String> {
        let end = Instant::now() + timeout;
        let name = server.authority();
        let connecting = connect(server, end, self.asks_in_clear);
        let stream = before(end, &format!("the connection to {name}"), connecting).await?;
        if !server.is_encrypted {
            return exchange(stream, &name, request, (end, wanted)).await;
        }
        let config = self.config(server.ca_file.as_deref())?;
        let host = ServerName::try_from(server.host.clone())
            .map_err(|_| format!("{name} is no name that a certificate can have"))?;
        let handshake = async {
            TlsConnector::from(config).connect(host, stream).await.map_err(|error| distrust(&name, &error))
        };
        let stream = before(end, &format!("the TLS handshake with {name}"), handshake).await?;
        exchange(stream, &name, request, (end, wanted)).await
    }

    fn config(&self, file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
        let mut known = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        let file = file.map(Path::to_owned);
        if let Some((_, config)) = known.get(&file).filter(|(read, _)| read.elapsed() < REMEMBERED) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(super::tls::config(file.as_deref())?);
        known.insert(file, (Instant::now(), Arc::clone(&config)));
        Ok(config)
    }
}

/// Waits for a step, and names it if it takes too long.
async fn before<T>(
    end: Instant,
    what: &str,
    step: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    time::timeout_at(end, step).await.unwrap_or_else(|_| Err(format!("{what} {LATE}")))
}

async fn connect(server: &Server, end: Instant, in_clear: bool) -> Result<TcpStream, String> {
    let name = server.authority();
    let addresses: Vec<SocketAddr> = match server.host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, server.port)],
        Err(_) => lookup_host((server.host.as_str(), server.port))
            .await
            .map_err(|error| format!("cannot find the address of {}: {error}", server.host))?
            .collect(),
    };
    let mut last = format!("{} has no address", server.host);
    for address in addresses {
        if !server.is_encrypted && !in_clear && !address.ip().is_loopback() {
            last = format!("{name} is at {}, and only this machine is asked without TLS", address.ip());
            continue;
        }
        let limit = end.min(Instant::now() + ONE_ADDRESS);
        match time::timeout_at(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = format!("cannot connect to {name} at {}: {error}", address.ip()),
            Err(_) => last = format!("cannot connect to {name} at {}: it does not answer", address.ip()),
        }
    }
    Err(last)
}

fn distrust(name: &str, error: &io::Error) -> String {
    let text = error.to_string();
    let advice = if text.contains("UnknownIssuer") { "; name its authority with `ca_file`" } else { "" };
    format!("no TLS with {name}: {text}{advice}")
}

/// What is read of an answer.
trait Wanted {
    type Got;

    /// Reads it. The error is what went wrong with the answer.
    fn read(&self, response: Response<Incoming>) -> impl Future<Output = Result<Self::Got, String>>;
}

/// The status, and of a refusal the first line.
struct FirstLine;

impl Wanted for FirstLine {
    type Got = Answer;

    async fn read(&self, response: Response<Incoming>) -> Result<Answer, String> {
        let status = response.status();
        let text = if status.is_success() { None } else { first_line(response).await };
        Ok(Answer { status: status.as_u16(), text })
    }
}

/// All of it.
struct WholeBody {
    most_bytes: usize,
}

impl Wanted for WholeBody {
    type Got = Reply;

    async fn read(&self, response: Response<Incoming>) -> Result<Reply, String> {
        let status = response.status().as_u16();
        let mut incoming = response.into_body();
        let mut body = Vec::new();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| format!("it broke off: {}", with_source(&error)))?;
            body.extend_from_slice(&frame.into_data().unwrap_or_default());
            if body.len() > self.most_bytes {
                return Err(format!("it has more than {} bytes", self.most_bytes));
            }
        }
        Ok(Reply { status, body })
    }
}

fn with_source(error: &hyper::Error) -> String {
    let why = error.source().map_or_else(String::new, |source| format!(": {source}"));
    format!("{error}{why}")
}

/// Sends a request on a connection, and reads what is wanted of the answer.
async fn exchange<W: Wanted>(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    name: &str,
    request: Request,
    (end, wanted): (Instant, &W),
) -> Result<W::Got, String> {
    let mut builder = hyper::Request::post(request.target.as_str()).header("host", name);
    for (key, value) in &request.headers {
        builder = builder.header(*key, value);
    }
    let message = builder
        .body(Full::new(Bytes::from(request.body)))
        .map_err(|error| format!("the request to {name} cannot be written: {error}"))?;
    let talk = async {
        let failed = |error: hyper::Error| format!("no answer from {name}: {}", with_source(&error));
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MOST_HEAD);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let answer = async {
            let response = sender.send_request(message).await.map_err(failed)?;
            wanted
                .read(response)
                .await
                .map_err(|reason| format!("the answer of {name} cannot be read: {reason}"))
        };
        // The connection moves only while somebody polls it.
        let (mut answer, mut connection) = (pin!(answer), pin!(connection));
        let mut is_open = true;
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                _ended = &mut connection, if is_open => is_open = false,
            }
        }
    };
    before(end, &format!("the answer of {name}"), talk).await
}

/// The first line of a text for people or programs, as far as it comes in time.
async fn first_line(response: Response<Incoming>) -> Option<String> {
    let kind = response.headers().get("content-type")?.to_str().ok()?.to_ascii_lowercase();
    if !kind.starts_with("text/plain") && !kind.starts_with("application/json") {
        return None;
    }
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            let data = frame.into_data().unwrap_or_default();
            let room = MOST_TEXT.saturating_sub(bytes.len()).min(data.len());
            bytes.extend_from_slice(&data[..room]);
            if bytes.len() >= MOST_TEXT {
                break;
            }
        }
    };
    let _partial = time::timeout(TEXT_WAIT, read).await;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().filter(|character| !character.is_control()).take(200).collect())
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
