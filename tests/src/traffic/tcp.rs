//! One TCP connection, with the figures of both its ends.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::ip_header_bytes;
use super::sockopt::TcpInfo;
use crate::namespace::Namespace;

/// How long a peer may be silent before the connection counts as broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// `TCP_CLOSE` of the kernel's `tcp_states.h`.
const CLOSED: u8 = 7;

/// What one end sent, according to its `TCP_INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSide {
    /// Segments sent, from the first SYN to the last ACK: packets on the wire, not buffers.
    pub segments: u64,
    /// Segments with payload.
    pub data_segments: u64,
    /// Segments received by this end (a server does not count the SYN).
    pub segments_received: u64,
    /// Payload sent in bytes, including retransmissions.
    pub bytes_sent: u64,
    /// Payload sent more than once, in bytes.
    pub bytes_retransmitted: u64,
    /// Segments sent more than once.
    pub retransmissions: u64,
    /// Layer-3 bytes of these segments, computed: each segment has an IP header and 32 bytes of TCP header
    /// (timestamps), the SYN 40. This also holds with losses as long as `tcp_sack` is off, as it is here.
    pub l3_bytes: u64,
}

/// The figures of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpCount {
    /// Payload that arrived at the server, in bytes.
    pub payload_bytes: u64,
    /// Payload that arrived at the client, in bytes.
    pub payload_bytes_back: u64,
    /// Sent by the client.
    pub client: TcpSide,
    /// Sent by the server.
    pub server: TcpSide,
}

impl TcpCount {
    /// Whether nothing was sent twice.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.client.retransmissions + self.server.retransmissions == 0
    }
}

/// Sends bytes from one namespace to an address in another over its own connection; see [`tcp_exchange`].
///
/// # Errors
///
/// See [`tcp_exchange`].
pub fn tcp_transfer(from: &Namespace, to: &Namespace, address: SocketAddr, bytes: u64) -> Result<TcpCount> {
    tcp_exchange(from, to, address, bytes, 0)
}

/// Sends bytes to a server and others back. Returns after the last ACK has been received, when no packet of
/// the connection is under way. For port 0 the kernel chooses one.
///
/// # Errors
///
/// When the connection fails, or other bytes arrive than were sent.
pub fn tcp_exchange(
    from: &Namespace,
    to: &Namespace,
    address: SocketAddr,
    forward: u64,
    back: u64,
) -> Result<TcpCount> {
    let listener =
        to.enter(|| TcpListener::bind(address).with_context(|| format!("cannot listen on {address}")))?;
    let address = listener.local_addr()?;
    let mut client = from.enter(|| {
        TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("cannot connect to {address}"))
    })?;
    let (mut server, _) = listener.accept().context("accept")?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
    }
    let (received, received_back) = std::thread::scope(|scope| {
        let serve = scope.spawn(|| {
            let received = read_to_end(&mut server)?;
            write(&mut server, back)?;
            server.shutdown(Shutdown::Write).context("cannot shut down the server's side")?;
            anyhow::Ok(received)
        });
        let mut ask = || {
            write(&mut client, forward)?;
            client.shutdown(Shutdown::Write).context("cannot shut down the client's side")?;
            read_to_end(&mut client)
        };
        let back = ask();
        let received = serve.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        anyhow::Ok((received.context("the server failed")?, back.context("the client failed")?))
    })?;
    ensure!(received == forward, "sent {forward} bytes to {address}, of which {received} arrived");
    ensure!(received_back == back, "{back} bytes were sent back, of which {received_back} arrived");
    let (client, server) = (closed(&client)?, closed(&server)?);
    // The kernel answers a SYN before there is a socket that could count the answer.
    Ok(TcpCount {
        payload_bytes: received,
        payload_bytes_back: received_back,
        client: side(&client, address, 0),
        server: side(&server, address, 1),
    })
}

fn side(info: &TcpInfo, address: SocketAddr, uncounted: u64) -> TcpSide {
    let segments = info.segments_out() + uncounted;
    let header = ip_header_bytes(address.ip()) + if info.timestamps() { 32 } else { 20 };
    // A SYN also has the options MSS and window scale, four bytes each.
    let syn = header + 8;
    TcpSide {
        segments,
        data_segments: info.data_segments_out(),
        segments_received: info.segments_in(),
        bytes_sent: info.bytes_sent(),
        bytes_retransmitted: info.bytes_retransmitted(),
        retransmissions: info.retransmissions(),
        l3_bytes: info.bytes_sent() + (segments - 1) * header + syn,
    }
}

/// Waits until an end is closed. Its descriptor then still has all counters.
fn closed(stream: &TcpStream) -> Result<TcpInfo> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let info = TcpInfo::read(stream)?;
        if info.state() == CLOSED {
            return Ok(info);
        }
        if Instant::now() > deadline {
            bail!("a connection is still in state {} after {PATIENCE:?}", info.state());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn write(stream: &mut TcpStream, bytes: u64) -> Result<()> {
    let buffer = vec![0x5a; 256 * 1024];
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        stream.write_all(&buffer[..part]).context("cannot write")?;
        left -= part as u64;
    }
    Ok(())
}

fn read_to_end(stream: &mut TcpStream) -> Result<u64> {
    let mut buffer = vec![0; 256 * 1024];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer).context("cannot read")? {
            0 => return Ok(received),
            part => received += part as u64,
        }
    }
}
