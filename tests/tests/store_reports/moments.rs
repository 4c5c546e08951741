//! Reports by statements that read the rows of days at one moment and their versions at another.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use traffic_store::Target;
use traffic_tests::{Namespace, clickhouse::ClickHouse};

use super::days::{Days, columns_of_units};

/// Which reading of a statement is of the earlier moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Earlier {
    Rows,
    Versions,
}

/// What happens to statements that add up days: so many from now on read the earlier table.
struct Moments {
    earlier: Earlier,
    left: AtomicUsize,
}

impl Moments {
    /// The statement that the server gets.
    fn changed(&self, statement: &str) -> String {
        const TABLE: &str = "`traffic`.units";
        let places: Vec<usize> = statement.match_indices(TABLE).map(|(at, _)| at).collect();
        let is_left =
            || self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let place = usize::from(self.earlier == Earlier::Versions);
        match places.get(place) {
            Some(at) if statement.contains("AS is_part") && is_left() => {
                format!("{}{TABLE}_earlier{}", &statement[..*at], &statement[at + TABLE.len()..])
            }
            _ => statement.to_owned(),
        }
    }

    /// Hands one request on to the server, and its answer back.
    fn pass(&self, mut client: TcpStream) -> Result<()> {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        let (head, body) = loop {
            let count = client.read(&mut buffer)?;
            ensure!(count > 0, "half a request");
            bytes.extend_from_slice(&buffer[..count]);
            let text = std::str::from_utf8(&bytes)?;
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.context("a request without length")?.parse()? {
                break (head.to_owned(), self.changed(body));
            }
        };
        let headers = head.lines().filter(|line| !line.starts_with("content-length")).collect::<Vec<_>>();
        let mut server = TcpStream::connect("127.0.0.1:8123")?;
        write!(
            server,
            "{}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            headers.join("\r\n"),
            body.len()
        )?;
        std::io::copy(&mut server, &mut client)?;
        Ok(())
    }
}

#[test]
fn a_day_that_is_replaced_during_a_statement_is_not_left_out() -> Result<()> {
    let namespace = Namespace::new("ch-moments")?;
    let server = ClickHouse::start(&namespace, None)?;
    namespace.enter(|| {
        let Days { node, of, report, .. } = Days::shipped(&server)?;
        let columns = columns_of_units(&server)?;
        server.query("CREATE TABLE traffic.units_earlier AS traffic.units")?;
        server.query(&format!(
            "INSERT INTO traffic.units_earlier ({columns}, version) SELECT {columns}, version - 1 FROM traffic.units FINAL"
        ))?;
        for (earlier, count) in
            [(Earlier::Rows, 1), (Earlier::Versions, 1), (Earlier::Rows, 3), (Earlier::Versions, 3)]
        {
            let (moments, port) = listen(Moments { earlier, left: AtomicUsize::new(count) })?;
            let between = Target::parse(&format!("clickhouse+http://default@127.0.0.1:{port}/traffic"))
                .map_err(anyhow::Error::msg)?;
            let stored = node.stored(&between)?.report(&of)?;
            ensure!(moments.left.load(Ordering::SeqCst) == 0, "no statement was changed");
            ensure!(stored == report, "{earlier:?} of {count} statements: {stored:?}, not {report:?}");
            // However long it goes on: no figures rather than wrong ones.
            moments.left.store(usize::MAX, Ordering::SeqCst);
            let error = node.stored(&between)?.report(&of).err().map(|error| error.to_string());
            ensure!(error.as_ref().is_some_and(|error| error.contains("being replaced")), "{error:?}");
        }
        Ok(())
    })
}

/// Passes on requests until the test ends.
fn listen(moments: Moments) -> Result<(&'static Moments, u16)> {
    let moments: &'static Moments = Box::leak(Box::new(moments));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // Whoever asked finds out by the end of the connection.
            let _failed = moments.pass(client);
        }
    });
    Ok((moments, port))
}
