//! Serves the routes on a bound socket, as a task beside the daemon's loop.
//!
//! Every wait for a client ends: for a whole request header, for the next request, and for the client to read
//! the answer. `places` bounds the connections, `patience` the writes.

use std::{fmt, future::Future, io, pin::pin, time::Duration};

use axum::{Router, http::StatusCode, middleware, response::Response, serve::Listener};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
    time,
};

use crate::api::{
    Source,
    answers::error_answer,
    headers::secured,
    host_check::refuse_foreign_hosts,
    listen::{Bound, SocketFile},
    patience::Patient,
    places::{Place, Places},
    routes::router,
    token::Access,
};

/// How long requests in progress may take when the daemon ends.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// Memory for the header of a request, in bytes.
const MOST_HEADER: usize = 16 << 10;

/// The limits on connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionLimits {
    /// Most connections at a time.
    pub connections: usize,
    /// How long a client may take to send a whole header, from the connection or the last answer on.
    pub request: Duration,
    /// How long an answer may take to compute.
    pub answer: Duration,
    /// How long a client may read nothing of an answer.
    pub unread: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            request: Duration::from_secs(30),
            answer: Duration::from_secs(20),
            unread: Duration::from_secs(10),
        }
    }
}

/// Answers requests until `shutdown`, then finishes those in progress.
///
/// # Errors
/// None in practice: a connection that fails affects only itself.
pub async fn serve<L>(
    listener: L,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()>
where
    L: Listener,
    L::Addr: fmt::Debug,
{
    serve_within(listener, router, shutdown, ConnectionLimits::default()).await;
    Ok(())
}

/// As [`serve`], with other limits.
pub(super) async fn serve_within<L: Listener>(
    mut listener: L,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
    limits: ConnectionLimits,
) {
    let places = Places::new(limits.connections);
    let (end, ending) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            places.available().await;
            listener.accept().await.0
        };
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            io = next => {
                let place = places.take();
                let id = place.id();
                let served = serve_connection(io, router.clone(), place, ending.clone(), limits);
                places.set_task(id, connections.spawn(served));
            }
        }
    }
    // Dropping the sender has the same effect.
    drop(end);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    place: Place,
    mut ending: watch::Receiver<()>,
    limits: ConnectionLimits,
) {
    let routes = TowerToHyperService::new(router);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (answering, answer) = (place.answering(), routes.call(request));
        async move {
            let _answering = answering;
            let answer = time::timeout(limits.answer, answer).await;
            answer.unwrap_or_else(|_| Ok(took_too_long(limits.answer))).map(secured)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request)
        .max_buf_size(MOST_HEADER)
        .serve_connection(TokioIo::new(Patient::new(io, limits.unread)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = ending.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection to the API ended: {error}");
    }
}

fn took_too_long(limit: Duration) -> Response {
    let error = format!("the answer takes longer than {} s; try again later", limit.as_secs());
    error_answer(StatusCode::SERVICE_UNAVAILABLE, &error)
}

/// The routes for a TCP port, which a browser can reach.
pub(super) fn router_for_port(source: Source, access: Access) -> Router {
    router(source, access).layer(middleware::from_fn(refuse_foreign_hosts))
}

/// The running server.
#[derive(Debug)]
pub struct Server {
    task: JoinHandle<io::Result<()>>,
    shutdown: oneshot::Sender<()>,
    file: Option<SocketFile>,
    /// Keeps what views need. It ends with the server.
    _warmth: JoinSet<()>,
}

impl Server {
    /// Whether clients can still find it: the file of a Unix socket may have been removed.
    pub fn is_reachable(&self) -> bool {
        self.file.as_ref().is_none_or(SocketFile::is_there)
    }

    /// Leaves the path of its socket to another one.
    pub fn give_up_path(&mut self) {
        if let Some(file) = &mut self.file {
            file.disown();
        }
    }

    /// Starts to answer requests.
    ///
    /// # Errors
    /// When the event loop cannot take the socket.
    pub fn start(bound: Bound, source: Source, access: Access) -> io::Result<Self> {
        let mut warmth = JoinSet::new();
        warmth.spawn(source.clone().keep_warm());
        let (shutdown, stopped) = oneshot::channel();
        // Dropping the sender completes this too.
        let stopped = async move { drop(stopped.await) };
        let (task, file) = match bound {
            Bound::Tcp(listener) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                (tokio::spawn(serve(listener, router_for_port(source, access), stopped)), None)
            }
            Bound::Unix(listener, file) => {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                (tokio::spawn(serve(listener, router(source, access), stopped)), Some(file))
            }
        };
        Ok(Self { task, shutdown, file, _warmth: warmth })
    }

    /// Stops: requests in progress are answered, but one that never ends is aborted.
    pub async fn stop(mut self) {
        drop(self.shutdown);
        if time::timeout(END_PATIENCE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

#[cfg(test)]
mod tests;
