//! Webhooks and mails of quotas, against a server and a reader of mails that are not ours. Needs neither root
//! nor a kernel.
#![expect(clippy::unwrap_used, reason = "a test; clippy does not count helpers as such")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use serde_json::Value;
use traffic_ledger::{
    QuotaLook,
    testing::{EVERY_MINUTE, File, NOON, Node, ledger},
};
use traffic_quota::{Direction, Span, Used};

const SECRET: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";

fn look(container: &str, used: u64) -> QuotaLook {
    QuotaLook {
        quota: "traffic".to_owned(),
        container: container.to_owned(),
        span: Span { start_s: NOON - 43_200, end_s: NOON + 43_200 },
        label: "2026-11-10".to_owned(),
        moves: false,
        direction: Direction::Sum,
        classes: Vec::new(),
        is_rate: false,
        is_shared: false,
        allowance: Some(1000),
        thresholds: vec![(80, vec!["act".to_owned()])],
        used: Some(Used { incoming: used, outgoing: 0, together: None }),
    }
}

/// A state directory whose container has used so much, after each of some looks.
fn crossed(name: &str, used: &[u64]) -> File {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    file.ledger.note_names(BTreeMap::from([("101".to_owned(), name.to_owned())]));
    for used in used {
        node.traffic("101", 1, [1, 10, 1, 10]).pass(60);
        file.ledger.drain(&node.snapshot(), EVERY_MINUTE).unwrap();
        let state = file.ledger.quota_state().unwrap();
        assert!(file.ledger.follow_quotas(&state, &[look("101", *used)], &[]).unwrap());
    }
    fs::write(file.dir.path().join("trafctl.toml"), "").unwrap();
    file
}

fn write(directory: &Path, action: &str) {
    let text = format!(
        "[[action]]\nname = 'act'\n{action}\n[[quota]]\nname = 'traffic'\ndefault = true\nallowance = '1000B'\n"
    );
    fs::write(directory.join("quotas.toml"), text).unwrap();
}

fn trafctl(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trafctl"));
    command.args(arguments).env("TRAFCTL_CONFIG", directory.join("trafctl.toml"));
    command.env("TRAFCTL_STATE_DIR", directory).env_remove("CREDENTIALS_DIRECTORY").output().unwrap()
}

/// Runs what is due; the status, and what it says on its standard error.
fn run(directory: &Path) -> (Option<i32>, String) {
    let output = trafctl(directory, &["quota", "run", "--once"]);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Whoever runs actions next finds the last attempt long ago.
fn long_ago(directory: &Path) {
    let path = directory.join("quota-actions.jsonl");
    let mut lines = String::new();
    for line in fs::read_to_string(&path).unwrap().lines() {
        let mut run: Value = serde_json::from_str(line).unwrap();
        run["begun_s"] = 1000.into();
        lines += &format!("{run}\n");
    }
    fs::write(&path, lines).unwrap();
}

/// A server for webhooks, which ends with it.
struct Receiver {
    child: Child,
    lines: BufReader<ChildStdout>,
    port: String,
}

impl Receiver {
    fn start(directory: &Path) -> Self {
        let openssl = |arguments: &str| {
            let mut command = Command::new("openssl");
            let output = command.args(arguments.split_whitespace()).current_dir(directory).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let ec = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        for name in ["ca", "other"] {
            openssl(&format!("req -x509 {ec} -keyout {name}.key -out {name}.pem -subj /CN={name} -days 2"));
        }
        openssl(&format!("req {ec} -keyout server.key -out server.csr -subj /CN=hook"));
        fs::write(directory.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names",
        );
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/notify_receiver.py");
        let mut command = Command::new("python3");
        command.arg(script).args(["server.pem", "server.key", SECRET]).current_dir(directory);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        lines.read_line(&mut port).unwrap();
        Self { child, lines, port: port.trim().to_owned() }
    }

    /// The next request that it was sent.
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn action(&self, directory: &Path, path: &str, more: &str) {
        let of = directory.display();
        let url = format!("https://127.0.0.1:{}{path}", self.port);
        write(directory, &format!("webhook = '{url}'\nsecret_file = '{of}/hook.key'\n{more}"));
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn with_secret(directory: &Path) {
    let path = directory.join("hook.key");
    fs::write(&path, format!("{SECRET}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_webhook_is_a_signed_event_that_is_sent_until_it_is_taken() {
    let file = crossed("Sch\u{f6}n \"&\" Co", &[10, 850]);
    let directory = file.dir.path();
    with_secret(directory);
    let mut receiver = Receiver::start(directory);
    let ca = format!("ca_file = '{}/ca.pem'", directory.display());
    receiver.action(directory, "/once", &ca);
    let (status, stderr) = run(directory);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("answered 503: it has failed itself"), "{stderr}");
    let first = receiver.next();
    long_ago(directory);
    assert_eq!(run(directory).0, Some(0));
    let second = receiver.next();
    assert_eq!(run(directory).0, Some(0), "it was taken");
    for (at, seen) in [(1, &first), (2, &second)] {
        assert_eq!((&seen["signed"], &seen["recent"]), (&true.into(), &true.into()), "{seen}");
        assert_eq!(seen["type"], "application/cloudevents+json; charset=utf-8");
        assert_eq!(seen["host"], format!("127.0.0.1:{}", receiver.port));
        let event = &seen["event"];
        assert_eq!((&event["specversion"], &event["type"]), (&"1.0".into(), &"trafctl.quota.reached".into()));
        assert_eq!(
            (&event["subject"], &event["datacontenttype"]),
            (&"101".into(), &"application/json".into())
        );
        assert_eq!(event["data"]["container_name"], "Sch\u{f6}n \"&\" Co");
        assert_eq!((&event["data"]["used"], &event["data"]["attempt"]), (&850.into(), &at.into()), "{event}");
        assert_eq!(event["id"], event["data"]["id"]);
    }
    assert_eq!((&first["id"], &first["event"]["id"]), (&second["id"], &second["event"]["id"]));
}

#[test]
fn what_is_not_taken_has_its_reason_and_no_secret() {
    let file = crossed("shop", &[10, 850]);
    let directory = file.dir.path();
    with_secret(directory);
    let receiver = Receiver::start(directory);
    let (ca, other) = ("ca_file = 'DIR/ca.pem'", "ca_file = 'DIR/other.pem'");
    let mut said = String::new();
    for (path, more, why) in [
        ("/t0ken", other, "invalid peer certificate: UnknownIssuer; name its authority with `ca_file`"),
        ("/moved", ca, "answered 307, a redirect, which is not followed"),
        ("/gone", ca, "answered 410: the hook is gone for good"),
        ("/slow", &format!("{ca}\ntimeout = '1s'"), "took too long; raise `timeout`"),
        ("/t0ken", "", "no TLS with 127.0.0.1:"),
        ("/t0ken", "ca_file = 'DIR/nothing.pem'", "nothing.pem: No such file"),
    ] {
        receiver.action(directory, path, &more.replace("DIR", &directory.display().to_string()));
        let (status, stderr) = run(directory);
        assert_eq!(status, Some(1), "{stderr}");
        assert!(stderr.contains(why), "{why}: {stderr}");
        said += &stderr;
        long_ago(directory);
    }
    fs::set_permissions(directory.join("hook.key"), fs::Permissions::from_mode(0o644)).unwrap();
    said += &run(directory).1;
    assert!(said.contains("hook.key; run `chmod 600` on it"), "{said}");
    said += &fs::read_to_string(directory.join("quota-actions.jsonl")).unwrap();
    let listed = trafctl(directory, &["quota", "crossings", "--failed"]);
    said += &String::from_utf8(listed.stdout).unwrap();
    assert!(!said.contains("t0ken") && !said.contains(&SECRET[6..]), "{said}");
}

#[test]
fn a_mail_is_read_by_others_as_it_was_meant() {
    // One name has all that makes trouble.
    let name = "Sch\u{f6}n\r\nBcc: x@example.net\n\n.\n=?UTF-8?Q?a?= \u{1f4a7} and a name so long that it is on no line";
    let file = crossed(name, &[10, 850, 5]);
    let directory = file.dir.path();
    let of = directory.display();
    let sendmail = directory.join("sendmail");
    fs::write(
        &sendmail,
        format!("#!/bin/sh\necho \"$@\" >>{of}/arguments\ncat >{of}/mail.$(wc -l <{of}/arguments)\n"),
    )
    .unwrap();
    fs::set_permissions(&sendmail, fs::Permissions::from_mode(0o755)).unwrap();
    write(
        directory,
        &format!("mail = ['noc@example.net', 'root']\nfrom = 't@n7'\nsendmail = '{of}/sendmail'"),
    );
    let (status, stderr) = run(directory);
    assert_eq!(status, Some(0), "{stderr}");
    let arguments = fs::read_to_string(directory.join("arguments")).unwrap_or_default();
    // The second look is undone, so both are over; with a journal from before, both are sent.
    assert_eq!(arguments, "", "what was over before actions ran here first is not sent");
    fs::write(
        directory.join("quota-actions.jsonl"),
        "{\"id\":\"x\",\"state\":\"done\",\"attempts\":1,\"begun_s\":7}\n",
    )
    .unwrap();
    let (status, stderr) = run(directory);
    assert_eq!(status, Some(0), "{stderr}");
    let arguments = fs::read_to_string(directory.join("arguments")).unwrap();
    assert_eq!(arguments, "-t -oi -f t@n7\n-t -oi -f t@n7\n");
    let reader = "import email, email.policy, json, sys\n\
        m = email.message_from_bytes(open(sys.argv[1], 'rb').read(), policy=email.policy.default)\n\
        print(json.dumps({'keys': m.keys(), 'defects': [str(d) for d in m.defects], 'subject': str(m['subject']),\n\
        'to': [a.addr_spec for a in m['to'].addresses], 'from': m['from'].addresses[0].addr_spec,\n\
        'date': m['date'].datetime.timestamp(), 'text': m.get_content()}))";
    for (at, what) in [(1, "has reached 80 %"), (2, "is below 80 % again")] {
        let path = directory.join(format!("mail.{at}"));
        let output = Command::new("python3").args(["-c", reader]).arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mail: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(mail["defects"], Value::Array(Vec::new()), "{mail}");
        let known =
            ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"];
        let keys: Vec<&str> =
            mail["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
        assert_eq!(keys, [&known[..], &["Content-Transfer-Encoding"]].concat());
        assert_eq!(
            (&mail["to"][0], &mail["to"][1], &mail["from"]),
            (&"noc@example.net".into(), &"root".into(), &"t@n7".into())
        );
        let shown = "Sch\u{f6}n Bcc: x@example.net . =?UTF-8?Q?a?= \u{1f4a7} and a name so long that it is on no line";
        assert_eq!(
            mail["subject"],
            format!("[trafctl] node1: 101 ({shown}) {what} of quota traffic"),
            "{mail}"
        );
        let text = mail["text"].as_str().unwrap();
        assert!(text.starts_with(&format!("Container 101 ({shown}) on node node1 {what}")), "{text}");
        assert!(text.contains("\nAllowance: 1.00 kB (1000 bytes)\n"), "{text}");
    }
}

#[test]
fn a_mail_that_is_refused_is_tried_again() {
    let file = crossed("shop", &[10, 850]);
    let directory = file.dir.path();
    write(directory, "mail = 'noc@example.net'\nsendmail = '/nonexistent/sendmail'");
    let (status, stderr) = run(directory);
    assert!(status == Some(1) && stderr.contains("cannot start /nonexistent/sendmail"), "{stderr}");
    long_ago(directory);
    write(directory, "mail = 'noc@example.net'\nsendmail = '/bin/false'");
    let (status, stderr) = run(directory);
    assert!(status == Some(1) && stderr.contains("/bin/false failed (exit status: 1)"), "{stderr}");
    // An event that it is not for is not sent.
    long_ago(directory);
    write(directory, "mail = 'noc@example.net'\nsendmail = '/bin/false'\nevents = ['ended']");
    assert_eq!(run(directory).0, Some(0));
}
