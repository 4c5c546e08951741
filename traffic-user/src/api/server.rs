//! Serves the routes on a bound socket, as a task beside the daemon's loop.

use std::{fmt, future::Future, io, time::Duration};

use axum::{Router, middleware, serve::Listener};
use tokio::{sync::oneshot, task::JoinHandle, time};

use crate::api::{
    Source,
    host_check::refuse_foreign_hosts,
    limit,
    listen::{Bound, SocketFile},
    router,
};

/// Most connections at a time.
const CONNECTIONS: usize = 64;
/// How long requests in progress may take when the daemon ends.
const END_PATIENCE: Duration = Duration::from_secs(1);

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
    let listener = limit::Limited::new(listener, CONNECTIONS);
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

/// The routes for a TCP port, which a browser can reach.
pub(super) fn router_for_port(source: Source) -> Router {
    router(source).layer(middleware::from_fn(refuse_foreign_hosts))
}

/// The running server.
#[derive(Debug)]
pub struct Server {
    task: JoinHandle<io::Result<()>>,
    shutdown: oneshot::Sender<()>,
    _file: Option<SocketFile>,
}

impl Server {
    /// Starts to answer requests.
    ///
    /// # Errors
    /// When the event loop cannot take the socket.
    pub fn start(bound: Bound, source: Source) -> io::Result<Self> {
        let (shutdown, stopped) = oneshot::channel();
        // Dropping the sender completes this too.
        let stopped = async move { drop(stopped.await) };
        let (task, file) = match bound {
            Bound::Tcp(listener) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                (tokio::spawn(serve(listener, router_for_port(source), stopped)), None)
            }
            Bound::Unix(listener, file) => {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                (tokio::spawn(serve(listener, router(source), stopped)), Some(file))
            }
        };
        Ok(Self { task, shutdown, _file: file })
    }

    /// Stops: requests in progress are answered, but one that never ends is aborted.
    pub async fn stop(mut self) {
        drop(self.shutdown);
        if time::timeout(END_PATIENCE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}
