//! A link to a server that ends each connection after some bytes.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::namespace::{self, Namespace};

/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(5);

/// A port on 127.0.0.1 that leads to another one, until it is dropped.
#[derive(Debug)]
pub struct CutLink {
    ends: Arc<AtomicBool>,
    cut: Arc<AtomicU64>,
    accepts: Option<JoinHandle<()>>,
}

impl CutLink {
    /// Carries connections from the first port to the second one. Each ends when the client has sent more than `bytes`.
    ///
    /// # Errors
    ///
    /// When the port is in use.
    pub fn start(namespace: &Namespace, (from, to): (u16, u16), bytes: u64) -> Result<Self> {
        let listener = namespace.enter(|| {
            TcpListener::bind(("127.0.0.1", from)).with_context(|| format!("cannot listen on port {from}"))
        })?;
        listener.set_nonblocking(true)?;
        let (ends, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_over, cuts) = (Arc::clone(&ends), Arc::clone(&cut));
        let inside = namespace.path();
        let accepts = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let Ok((client, _)) = listener.accept() else {
                    thread::sleep(LOOK);
                    continue;
                };
                let (inside, cuts) = (inside.clone(), Arc::clone(&cuts));
                // Ends when the client or the server does.
                thread::spawn(move || {
                    let server = || Ok(TcpStream::connect(("127.0.0.1", to))?);
                    if let Ok(server) = namespace::enter(&inside, server) {
                        carry(&client, &server, bytes, &cuts);
                    }
                });
            }
        });
        Ok(Self { ends, cut, accepts: Some(accepts) })
    }

    /// How many connections it has ended.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }
}

impl Drop for CutLink {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(accepts) = self.accepts.take() {
            // A drop cannot report an error.
            let _ = accepts.join();
        }
    }
}

/// Carries bytes both ways, until one side ends or the client has sent too many.
fn carry(client: &TcpStream, server: &TcpStream, most: u64, cut: &AtomicU64) {
    thread::scope(|scope| {
        scope.spawn(|| {
            copy(server, client, u64::MAX);
            end(client, server);
        });
        if !copy(client, server, most) {
            cut.fetch_add(1, Ordering::Relaxed);
        }
        end(client, server);
    });
}

/// Copies until the end or an error. Whether no more came than `most` bytes.
fn copy(mut from: &TcpStream, mut to: &TcpStream, most: u64) -> bool {
    let (mut buffer, mut carried) = (vec![0; 1 << 16], 0);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        carried += read as u64;
        if carried > most {
            return false;
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    true
}

fn end(client: &TcpStream, server: &TcpStream) {
    for side in [client, server] {
        // It may have ended by itself.
        let _ = side.shutdown(Shutdown::Both);
    }
}
