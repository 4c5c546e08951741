//! The requests to a server that answers what it is told to, and ends connections at any call.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use traffic_ledger::{Content, ShippedExtent};

use super::*;
use crate::{
    clickhouse::Replacing,
    store::{Batch, Known, Node, Put, Store as _},
};

/// What a server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Answers(u16, &'static str),
    /// Ends the connection before it read anything, or afterwards.
    Ends,
    EndsLate,
}

type Seen = Arc<Mutex<Vec<String>>>;

/// Reads a request with its body.
async fn request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some(head) = text.split("\r\n\r\n").next().filter(|head| head.len() < text.len()) {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            // The body need not be text.
            if bytes.len() - head.len() - 4 >= length.and_then(|length| length.parse().ok()).unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return text,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// A server that does something with each request; after the last one, it goes on answering nothing.
async fn server(does: Vec<Does>) -> (Target, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut does = does.into_iter();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let what = does.next().unwrap_or(Does::Answers(200, ""));
            if what == Does::Ends {
                continue;
            }
            let text = request(&mut stream).await;
            log.lock().unwrap().push(text);
            if let Does::Answers(status, body) = what {
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _gone = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    (Target::parse(&format!("clickhouse+http://ship@127.0.0.1:{port}/t")).unwrap(), seen)
}

const OLD: Does = Does::Answers(200, "version\t18.16.1\n");
const NEW: Does = Does::Answers(200, "version\t26.9.1\nasync_insert\t0\ninput_format_parallel_parsing\t1\n");

#[tokio::test]
async fn a_server_gets_only_what_it_knows() {
    for (version, has_new) in [(OLD, false), (NEW, true)] {
        let (target, seen) = server(vec![version]).await;
        let mut target = target;
        target.password = Some(super::super::target::Secret("hunter2".to_owned()));
        let http = Http::connect(&target).await.unwrap();
        http.insert("units", b"{}\n".to_vec(), true).await.unwrap();
        let seen = seen.lock().unwrap();
        let insertion = &seen[1];
        assert!(
            insertion.contains("&query=INSERT%20INTO%20%60t%60%2Eunits%20FORMAT%20JSONEachRow HTTP/1.1"),
            "{insertion}"
        );
        assert!(
            insertion.contains("x-clickhouse-user: ship\r\n") && insertion.ends_with("\r\n\r\n{}\n"),
            "{insertion}"
        );
        assert!(insertion.contains("x-clickhouse-key: hunter2\r\n"), "{insertion}");
        assert!(!insertion.lines().next().unwrap().contains("hunter2"), "{insertion}");
        assert_eq!(insertion.contains("async_insert=1&wait_for_async_insert=1"), has_new, "{insertion}");
        assert_eq!(insertion.contains("parallel_parsing=0"), has_new, "{insertion}");
    }
}

#[tokio::test]
async fn errors_say_whether_a_repetition_may_help() {
    let unknown =
        "Code: 60, e.displayText() = DB::Exception: Table t.units doesn't exist., e.what() = DB::Exception";
    let disk = "Code: 75, e.displayText() = DB::ErrnoException: Cannot write to file x, errno: 28, e.what() = DB::ErrnoException";
    let password = "Code: 193, e.displayText() = DB::Exception: Wrong password for user ship";
    for (does, kind, part) in [
        (Does::Answers(404, unknown), "unusable", "(Table t.units doesn't exist.); run `trafctl store init`"),
        (Does::Answers(401, password), "refused", "let this user in: Wrong password for user ship"),
        (Does::Answers(500, "Code: 252. DB::Exception: Too many parts (300)."), "not now", "Too many parts"),
        (Does::Answers(500, "Code: 241. DB::Exception: Memory limit"), "away", "Memory limit"),
        (Does::Answers(500, "Code: 159. DB::Exception: Timeout"), "away", "Timeout"),
        (Does::Answers(403, "Code: 497. DB::Exception: ship: no"), "refused", "GRANT trafctl_ship"),
        (Does::Answers(500, disk), "not now", "errno: 28"),
        (Does::Answers(502, "<html>"), "away", "status 502"),
        (Does::Answers(503, "<html>"), "not now", "status 503"),
        (Does::Answers(404, "<html>"), "refused", "HTTP interface"),
        (Does::Ends, "away", "no answer from"),
    ] {
        let (target, _) = server(vec![OLD, does]).await;
        let http = Http::connect(&target).await.unwrap();
        let error = http.ask("SELECT 1").await.unwrap_err();
        let found = match &error {
            StoreError::Away(_) => "away",
            StoreError::NotNow(_) => "not now",
            StoreError::Refused(_) => "refused",
            StoreError::Unusable(_) => "unusable",
        };
        assert_eq!(found, kind, "{does:?}: {error}");
        assert!(error.to_string().contains(part), "{does:?}: {error}");
    }
}

/// A connection to a store that has drops.
async fn with_drops(target: &Target) -> Replacing<Http> {
    let mut server = Http::connect(target).await.unwrap();
    server.has_drops = true;
    Replacing::new(server)
}

#[tokio::test]
async fn a_connection_learns_of_a_migration_that_came_later() {
    let of = |rows| [Does::Answers(200, "1\n"), Does::Answers(200, rows)];
    let (target, seen) = server([vec![OLD], of("1\t2\n").into(), of("2\t3\n").into()].concat()).await;
    let mut store = Http::connect(&target).await.unwrap();
    assert_eq!(store.was_migrated().await, Ok(false));
    assert_eq!(store.was_migrated().await, Ok(true));
    store.has_drops = true;
    assert_eq!(store.was_migrated().await, Ok(false));
    assert_eq!(seen.lock().unwrap().len(), 5);
}

fn batch() -> Batch {
    let content = |name, number| Content::new(name, number, 3);
    Batch {
        ledger: "l".to_owned(),
        before: None,
        after: Known { changes: 3, token: Some("t".to_owned()), done: 3, ..Known::default() },
        node: Node::default(),
        extent: ShippedExtent::default(),
        contents: vec![content("gap", 1), content("5min", 300)],
        repairs: false,
    }
}

#[tokio::test]
async fn a_batch_is_announced_before_its_rows_and_done_after_them() {
    // Where the ledger is, what is noted, again, the announcement, and what is noted then.
    let noted = Does::Answers(200, "seen\t\tt\t3\n");
    let all = [
        OLD,
        NEW_NOTHING,
        NEW_NOTHING,
        NEW_NOTHING,
        NEW_NOTHING,
        noted,
        NEW_NOTHING,
        NEW_NOTHING,
        NEW_NOTHING,
    ];
    let (target, seen) = server(all.to_vec()).await;
    let mut store = with_drops(&target).await;
    assert_eq!(store.known("l").await, Ok(None));
    assert_eq!(store.put(&batch()).await, Ok(Put::Taken(2)));
    let kinds: Vec<&str> = seen.lock().unwrap()[1..].iter().map(|text| kind(text)).collect();
    assert_eq!(
        kinds,
        ["adoption?", "progress?", "progress?", "progress", "progress?", "records", "units", "progress"]
    );
    let seen = seen.lock().unwrap().clone();
    assert!(!seen[4].contains("done") && seen[8].contains("\"what\":\"done\",\"number\":3"), "{seen:?}");
    // Whatever fails, nobody hears that it was done.
    for at in 1..all.len() {
        for end in [Does::Ends, Does::EndsLate, Does::Answers(500, "Code: 241. DB::Exception: Memory limit")]
        {
            let mut does = all.to_vec();
            does[at] = end;
            does.truncate(at + 1);
            let (target, seen) = server(does).await;
            let mut store = with_drops(&target).await;
            let known = store.known("l").await;
            let result = match known {
                Ok(_) => store.put(&batch()).await.map(drop),
                Err(error) => Err(error),
            };
            assert!(matches!(result, Err(StoreError::Away(_))), "{at} {end:?}: {result:?}");
            assert!(seen.lock().unwrap().len() <= at + 1, "{at} {end:?}: it goes on");
        }
    }
}

const NEW_NOTHING: Does = Does::Answers(200, "");

/// The table of a request, with a question mark if it is read.
fn kind(text: &str) -> &'static str {
    let first = text.lines().next().unwrap_or_default();
    let of = |table: &str| first.contains(&format!("%2E{table}%20"));
    match (of("units"), of("records"), of("progress"), text.contains("`t`.adoption")) {
        (true, ..) => "units",
        (_, true, ..) => "records",
        (_, _, true, _) => "progress",
        (_, _, _, true) => "adoption?",
        _ => "progress?",
    }
}

#[tokio::test]
async fn somebody_elses_note_stops_a_batch_before_its_rows() {
    let theirs = Does::Answers(200, "seen\t\tt\t3\nseen\t\tother\t2\n");
    let (target, seen) = server(vec![OLD, NEW_NOTHING, NEW_NOTHING, NEW_NOTHING, NEW_NOTHING, theirs]).await;
    let mut store = with_drops(&target).await;
    store.known("l").await.unwrap();
    assert_eq!(store.put(&batch()).await, Ok(Put::Moved));
    assert!(seen.lock().unwrap().iter().all(|text| !matches!(kind(text), "units" | "records")));
    // What it then knows names both.
    let (target, _) = server(vec![OLD, NEW_NOTHING, theirs]).await;
    let mut store = with_drops(&target).await;
    let known = store.known("l").await.unwrap().unwrap();
    assert_eq!((known.changes, known.token.as_deref()), (3, Some("t")));
    assert_eq!(known.others, [(2, Some("other".to_owned()))]);
}
