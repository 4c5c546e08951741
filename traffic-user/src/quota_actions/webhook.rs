//! A document to a server: a CloudEvent in JSON, signed as Standard Webhooks describe it.

use std::{env, fs, io, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use traffic_https::{Answer, Client, Request, Server};
use traffic_model::hex;
use traffic_quota::{Secret, Url};

use crate::files;

/// The largest file of secrets, in bytes.
const MOST_SECRET_BYTES: u64 = 4096;
/// How long a secret is, in bytes, as Standard Webhooks recommend.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// The most secrets of one action: an old one and a new one, while they are exchanged.
const MOST_SECRETS: usize = 4;

/// What happened, as CloudEvents 1.0 describe it.
#[derive(Clone, Debug)]
pub struct Event {
    /// The same in each attempt.
    pub id: String,
    /// The node.
    pub node: String,
    /// The last part of its type, such as `quota.reached`.
    pub kind: String,
    /// Whom it is about.
    pub subject: String,
    /// When it was found, in RFC 3339.
    pub time: String,
    /// The document, as JSON.
    pub data: Vec<u8>,
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    r#type: String,
    subject: &'a str,
    time: &'a str,
    datacontenttype: &'static str,
}

/// Where a webhook goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server.
    pub url: Url,
    /// What it is signed with.
    pub secret: Option<Secret>,
    /// The authorities of its certificate.
    pub ca_file: Option<std::path::PathBuf>,
}

/// Sends an event. It has succeeded if the server answers with a status from 200 to 299.
///
/// # Errors
/// Why it did not succeed, as a sentence without the URL's path and without the secret.
pub async fn send(
    client: &Client,
    target: &Target,
    event: &Event,
    now_s: i64,
    timeout: Duration,
) -> Result<(), String> {
    let Url { is_encrypted, host, port, target: path } = target.url.clone();
    let server = Server { host, port, is_encrypted, ca_file: target.ca_file.clone() };
    let keys = target.secret.as_ref().map(keys).transpose()?.unwrap_or_default();
    let body = event.body()?;
    let headers = headers(&event.id, &body, &keys, now_s);
    let answer = client.post(&server, Request { target: path, headers, body }, timeout).await?;
    judge(&server.authority(), &answer)
}

impl Event {
    fn body(&self) -> Result<Vec<u8>, String> {
        let event = CloudEvent {
            specversion: "1.0",
            id: &self.id,
            source: format!("/trafctl/{}", percent_encoded(&self.node)),
            r#type: format!("trafctl.{}", self.kind),
            subject: &self.subject,
            time: &self.time,
            datacontenttype: "application/json",
        };
        let mut body =
            serde_json::to_vec(&event).map_err(|error| format!("the event cannot be written: {error}"))?;
        // The document as it is, in the place of the last brace.
        body.pop();
        body.extend_from_slice(b",\"data\":");
        body.extend_from_slice(self.data.trim_ascii());
        body.push(b'}');
        Ok(body)
    }
}

/// A name as a part of a path. A node has one.
fn percent_encoded(name: &str) -> String {
    let name = if name.is_empty() { "node" } else { name };
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

/// The headers of Standard Webhooks. Their id has no dot, so that the signed text can be split in one way
/// only.
fn headers(id: &str, body: &[u8], keys: &[hmac::Key], now_s: i64) -> Vec<(&'static str, String)> {
    let id = format!("msg_{}", &hex(&Sha256::digest(id))[..32]);
    let time = now_s.to_string();
    let mut headers = vec![
        ("content-type", "application/cloudevents+json; charset=utf-8".to_owned()),
        ("user-agent", format!("trafctl/{}", env!("CARGO_PKG_VERSION"))),
    ];
    if !keys.is_empty() {
        let mut signed = format!("{id}.{time}.").into_bytes();
        signed.extend_from_slice(body);
        let signatures = keys.iter().map(|key| format!("v1,{}", STANDARD.encode(hmac::sign(key, &signed))));
        headers.push(("webhook-signature", signatures.collect::<Vec<_>>().join(" ")));
    }
    headers.extend([("webhook-id", id), ("webhook-timestamp", time)]);
    headers
}

/// The keys of a secret, one a line.
fn keys(secret: &Secret) -> Result<Vec<hmac::Key>, String> {
    let (path, what) = match secret {
        Secret::File(path) => (path.clone(), format!("the secret {}", path.display())),
        Secret::Credential(name) => {
            let directory = env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                format!(
                    "the unit has no credential {name}; add LoadCredential={name}:FILE by `systemctl edit`"
                )
            })?;
            (Path::new(&directory).join(name), format!("the credential {name}"))
        }
    };
    // systemd itself decides who may read a credential.
    let is_private = matches!(secret, Secret::Credential(_)) || is_private(&path).unwrap_or(true);
    if !is_private {
        return Err(format!("others may read {what}; run `chmod 600` on it, and exchange the secret"));
    }
    let text =
        files::read_text(&path, MOST_SECRET_BYTES).map_err(|error| format!("cannot read {what}: {error}"))?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let keys: Option<Vec<hmac::Key>> = lines.iter().map(|line| key(line)).collect();
    keys.filter(|keys| (1..=MOST_SECRETS).contains(&keys.len())).ok_or_else(|| {
        format!(
            "{what} is not usable; write one line of whsec_ and {} to {} random bytes in base64, such as that of \
             echo whsec_$(openssl rand -base64 32)",
            SECRET_BYTES.start(),
            SECRET_BYTES.end()
        )
    })
}

fn is_private(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o077 == 0)
}

fn key(line: &str) -> Option<hmac::Key> {
    let bytes = STANDARD.decode(line.strip_prefix("whsec_")?).ok()?;
    SECRET_BYTES.contains(&bytes.len()).then(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

/// What a status means.
fn judge(name: &str, answer: &Answer) -> Result<(), String> {
    let meaning = match answer.status {
        200..=299 => return Ok(()),
        300..=399 => ", a redirect, which is not followed; write the URL that it leads to",
        401 | 403 => ": it does not accept the signature or the sender",
        404 => ": it has nothing at this path; correct the URL",
        408 | 429 => ": it has no time now",
        410 => ": the hook is gone for good; correct the URL or remove the action",
        413 => ": the document is too large for it",
        400..=499 => ": it refuses the document",
        500..=599 => ": it has failed itself",
        _ => "",
    };
    let text = answer.text.as_ref().map_or_else(String::new, |text| format!(" ({text})"));
    Err(format!("{name} answered {}{meaning}{text}", answer.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            id: "l1/traffic/101/7/1793491200/100/reached/1/hook".to_owned(),
            node: "node 7/\u{e4}".to_owned(),
            kind: "quota.reached".to_owned(),
            subject: "101".to_owned(),
            time: "2026-11-12T09:13:00Z".to_owned(),
            data: b"{\"used\":18446744073709551615,\"name\":\"a\\\"b\"}".to_vec(),
        }
    }

    #[test]
    fn the_body_is_a_cloud_event_with_the_document_as_it_is() {
        assert_eq!(
            String::from_utf8(event().body().unwrap()).unwrap(),
            "{\"specversion\":\"1.0\",\"id\":\"l1/traffic/101/7/1793491200/100/reached/1/hook\",\
             \"source\":\"/trafctl/node%207%2F%C3%A4\",\"type\":\"trafctl.quota.reached\",\"subject\":\"101\",\
             \"time\":\"2026-11-12T09:13:00Z\",\"datacontenttype\":\"application/json\",\
             \"data\":{\"used\":18446744073709551615,\"name\":\"a\\\"b\"}}"
        );
    }

    /// The example of the specification of Standard Webhooks.
    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}";
        let signature = STANDARD.encode(hmac::sign(&key, signed));
        assert_eq!(signature, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let of = |keys: &[hmac::Key], now_s| headers("a.b", b"{}", keys, now_s);
        let value = |headers: &[(&str, String)], name: &str| {
            headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
        };
        let twice = of(&[key.clone(), key], 7);
        let signature = value(&twice, "webhook-signature").unwrap();
        let (one, two) = signature.split_once(' ').unwrap();
        assert!(one == two && one.starts_with("v1,") && one.len() == 47, "{signature}");
        assert_eq!(value(&twice, "webhook-timestamp").unwrap(), "7");
        assert_eq!(value(&twice, "webhook-id"), value(&of(&[], 9), "webhook-id"), "it stays");
        assert!(!value(&twice, "webhook-id").unwrap().contains('.'));
        assert_eq!(value(&of(&[], 9), "webhook-signature"), None);
    }

    #[test]
    fn a_secret_is_private_and_whole_and_in_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let secret = Secret::File(path.clone());
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(keys(&secret).unwrap_err().contains("No such file"));
        let good = format!("whsec_{}", STANDARD.encode([b's'; 32]));
        fs::write(&path, format!("{good}\n\n{good}\n")).unwrap();
        for open in [0o640, 0o604, 0o620, 0o666] {
            mode(open);
            assert!(keys(&secret).unwrap_err().contains("chmod 600"), "{open:o}");
        }
        mode(0o600);
        assert_eq!(keys(&secret).unwrap().len(), 2);
        for bad in [
            "",
            "\n",
            "s3cret-s3cret-s3cret-s3cret-s3cret",
            "whsec_s3cret",
            "whsec_czNjcmV0",
            &good[..40],
            &format!("v1,{good}"),
        ] {
            fs::write(&path, bad).unwrap();
            let error = keys(&secret).unwrap_err();
            assert!(error.contains("openssl rand") && !error.contains("s3cret"), "{bad}: {error}");
        }
        fs::write(&path, "x".repeat(5000)).unwrap();
        assert!(keys(&secret).unwrap_err().contains("larger than"));
        let unknown = keys(&Secret::Credential("hook".to_owned())).unwrap_err();
        assert!(unknown.contains("LoadCredential=hook"), "{unknown}");
    }

    #[test]
    fn every_status_but_success_has_its_meaning() {
        let of = |status, text: Option<&str>| judge("h", &Answer { status, text: text.map(str::to_owned) });
        for status in [200, 202, 204, 299] {
            assert_eq!(of(status, None), Ok(()));
        }
        for (status, meaning) in [
            (101, "h answered 101"),
            (302, "not followed"),
            (403, "signature"),
            (404, "correct the URL"),
            (410, "gone for good"),
            (422, "refuses the document"),
            (429, "no time now"),
            (503, "failed itself"),
        ] {
            let error = of(status, None).unwrap_err();
            assert!(error.contains(meaning), "{error}");
        }
        assert_eq!(
            of(400, Some("no such hook")).unwrap_err(),
            "h answered 400: it refuses the document (no such hook)"
        );
    }
}
