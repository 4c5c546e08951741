//! The client against servers that misbehave.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const LONG: Duration = Duration::from_mins(1);
/// A certificate that nothing is verified by.
const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\n\
    MIIBczCCARmgAwIBAgIUPQHia3BEMRNBTDhG7shtZHx+fdYwCgYIKoZIzj0EAwIw\n\
    DzENMAsGA1UEAwwEdGVzdDAeFw0yNjExMjkxMjMwMDdaFw0yNjEyMDExMjMwMDda\n\
    MA8xDTALBgNVBAMMBHRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATtb8z4\n\
    TFL8YqHAa3GIe9VskW/YQATSVMsnHuIc8pGvdpu6CDR6g+WJHxh1ND9wC7IIuGGN\n\
    OL/ImFh3S+7t/I18o1MwUTAdBgNVHQ4EFgQUDQrGro7LkXBBA0b8oYYmG64N64Qw\n\
    HwYDVR0jBBgwFoAUDQrGro7LkXBBA0b8oYYmG64N64QwDwYDVR0TAQH/BAUwAwEB\n\
    /zAKBggqhkjOPQQDAgNIADBFAiB5CmwRR2JQFBLvpxTDwFAnFXwII50956e5AQ7M\n\
    sgyb2wIhANel5zB3SpWcfQgrb62/4i1TgElKTycyRIzc+9fyDv29\n\
    -----END CERTIFICATE-----\n";
const SHORT: Duration = Duration::from_millis(300);

fn request() -> Request {
    Request {
        target: "/hooks/s3cret?x=1".to_owned(),
        headers: vec![("content-type", "text/plain".to_owned())],
        body: b"hello".to_vec(),
    }
}

/// Answers one connection with some bytes after the request, and keeps it open. The request is returned.
async fn server(answer: Vec<u8>) -> (Server, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server { host: "127.0.0.1".to_owned(), port, is_encrypted: false, ca_file: None };
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"hello") {
            let mut byte = [0];
            if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                break;
            }
            seen.push(byte[0]);
        }
        let _refused = stream.write_all(&answer).await;
        // Until the client has gone.
        let mut rest = Vec::new();
        let _end = stream.read_to_end(&mut rest).await;
        String::from_utf8_lossy(&seen).into_owned()
    });
    (server, task)
}

async fn answer_to(text: &[u8], timeout: Duration) -> (Result<Answer, String>, String) {
    let (server, task) = server(text.to_vec()).await;
    let answer = Client::default().post(&server, request(), timeout).await;
    (answer, task.await.unwrap())
}

#[tokio::test]
async fn a_request_is_sent_once_and_its_answer_read() {
    // Its body never ends, and nobody waits for it.
    let (answer, seen) = answer_to(b"HTTP/1.1 204 No Content\r\nContent-Length: 99\r\n\r\n", LONG).await;
    assert_eq!(answer, Ok(Answer { status: 204, text: None }));
    assert!(seen.starts_with("POST /hooks/s3cret?x=1 HTTP/1.1\r\nhost: 127.0.0.1:"), "{seen}");
    assert!(seen.contains("\r\ncontent-length: 5\r\n") && seen.ends_with("\r\n\r\nhello"), "{seen}");
}

#[tokio::test]
async fn a_refusal_has_the_first_line_of_its_text() {
    let text =
        b"HTTP/1.1 422 No\r\nContent-Type: text/plain\r\nContent-Length: 17\r\n\r\n\n bad\x1b[1mkey\nmore";
    assert_eq!(answer_to(text, LONG).await.0, Ok(Answer { status: 422, text: Some("bad[1mkey".to_owned()) }));
    let page = b"HTTP/1.1 500 No\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>";
    assert_eq!(answer_to(page, LONG).await.0, Ok(Answer { status: 500, text: None }));
    // A redirect is an answer like any other.
    let moved = b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(answer_to(moved, LONG).await.0, Ok(Answer { status: 307, text: None }));
}

#[tokio::test]
async fn endless_answers_end() {
    let mut endless =
        b"HTTP/1.1 500 No\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    endless.extend(b"4000\r\n".iter().copied().chain(std::iter::repeat_n(b'x', 0x4000)));
    let (answer, _) = answer_to(&endless, LONG).await;
    assert_eq!(answer.unwrap().text, Some("x".repeat(200)));
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    (0..9000).for_each(|at| head.extend(format!("x-{at}: {at}\r\n").bytes()));
    let error = answer_to(&head, LONG).await.0.unwrap_err();
    assert!(error.starts_with("no answer from 127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn every_wait_has_an_end_and_no_error_has_the_path() {
    let mut errors = Vec::new();
    for (text, what, timeout) in [
        ("", "took too long", SHORT),
        ("HTTP/1.1 200 OK\r\n", "took too long", SHORT),
        ("SSH-2.0\r\n", "no answer", LONG),
    ] {
        let error = answer_to(text.as_bytes(), timeout).await.0.unwrap_err();
        assert!(error.contains(what), "{error}");
        errors.push(error);
    }
    // TLS with a server that sends nothing, and with one that speaks none.
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, AUTHORITY).unwrap();
    for (text, what, timeout) in
        [("", "took too long", SHORT), ("HTTP/1.1 400 Bad\r\n\r\nhello", "no TLS with", LONG)]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (host, ca_file) = ("127.0.0.1".to_owned(), Some(ca_file.clone()));
        let server = Server { host, port, is_encrypted: true, ca_file };
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            let _end = stream.read_to_end(&mut Vec::new()).await;
        });
        let error = Client::default().post(&server, request(), timeout).await.unwrap_err();
        assert!(error.contains(what), "{error}");
        task.await.unwrap();
        errors.push(error);
    }
    // Nobody listens.
    let nobody = Server { host: "localhost".to_owned(), port: 1, is_encrypted: false, ca_file: None };
    errors.push(Client::default().post(&nobody, request(), LONG).await.unwrap_err());
    assert!(errors.last().unwrap().starts_with("cannot connect to localhost:1 at "), "{errors:?}");
    let remote = Server { host: "192.0.2.7".to_owned(), ..nobody.clone() };
    errors.push(Client::default().post(&remote, request(), LONG).await.unwrap_err());
    assert!(errors.last().unwrap().contains("only this machine is asked without TLS"), "{errors:?}");
    let unknown = Server { host: "nowhere.invalid".to_owned(), ..nobody };
    errors.push(Client::default().post(&unknown, request(), LONG).await.unwrap_err());
    assert!(errors.last().unwrap().starts_with("cannot find the address of nowhere.invalid"), "{errors:?}");
    assert!(errors.iter().all(|error| !error.contains("s3cret")), "{errors:?}");
}

#[tokio::test]
async fn a_whole_answer_is_read_up_to_its_limit() {
    let ask = |text: &'static [u8], most_bytes| async move {
        let (server, task) = server(text.to_vec()).await;
        let limits = Limits { timeout: LONG, most_bytes };
        let reply = Client::default().ask(&server, request(), limits).await;
        drop(task);
        reply
    };
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1\t2\n\0";
    assert_eq!(ask(text, 5).await, Ok(Reply { status: 200, body: b"1\t2\n\0".to_vec() }));
    let error = ask(text, 4).await.unwrap_err();
    assert!(error.ends_with("it has more than 4 bytes"), "{error}");
    let text = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n";
    assert_eq!(ask(text, 5).await, Ok(Reply { status: 404, body: b"no".to_vec() }));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server { host: "127.0.0.1".to_owned(), port, is_encrypted: false, ca_file: None };
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"hello") {
            seen.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n1\t").await.unwrap();
    });
    let limits = Limits { timeout: LONG, most_bytes: 99 };
    let error = Client::default().ask(&server, request(), limits).await.unwrap_err();
    assert!(error.contains("it broke off"), "{error}");
    task.await.unwrap();
}
