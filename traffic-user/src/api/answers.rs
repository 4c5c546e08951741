//! Answers: documents, errors, and the tags by which a client finds out that nothing changed.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use traffic_model::hex;

use crate::{queries::parameters::Pairs, render::json};

/// The type of documents.
pub(super) const JSON: &str = "application/json";

/// An error as a document.
pub(super) fn error_answer(status: StatusCode, error: &str) -> Response {
    #[derive(Serialize)]
    struct Failure<'a> {
        error: &'a str,
    }
    match json::line(&Failure { error }) {
        Ok(text) => (status, [(header::CONTENT_TYPE, JSON)], text).into_response(),
        Err(_) => status.into_response(),
    }
}

/// A refusal that may be over soon.
pub(super) fn try_again(error: &str) -> Response {
    let mut answer = error_answer(StatusCode::SERVICE_UNAVAILABLE, error);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    answer
}

/// A document, with the tag of its state if that is known.
pub(super) fn document(content_type: &'static str, text: String, tag: Option<Tag>) -> Response {
    let mut answer = ([(header::CONTENT_TYPE, content_type)], text).into_response();
    if let Some(tag) = tag {
        tag.put_into(&mut answer);
    }
    answer
}

/// Identifies what a document shows: another state or another question has another tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag(String);

impl Tag {
    /// The tag of the answer to a question, in a state.
    pub(super) fn new(document: &str, pairs: &Pairs, state: &[&str]) -> Self {
        let mut hash = Sha256::new();
        // The length before each part: two parts are never taken for one.
        let mut part = |text: &str| {
            hash.update(text.len().to_be_bytes());
            hash.update(text);
        };
        part(env!("CARGO_PKG_VERSION"));
        part(document);
        pairs.iter().for_each(|(name, value)| {
            part(name);
            part(value);
        });
        part("");
        state.iter().for_each(|text| part(text));
        Self(format!("\"{}\"", &hex(&hash.finalize())[..32]))
    }

    /// A tag from the hash of some content.
    pub(super) fn of_content(hash: &[u8], form: &str) -> Self {
        Self(format!("\"{}{form}\"", hex(&hash[..hash.len().min(16)])))
    }

    /// Whether the client has the document in this state.
    pub(super) fn is_known(&self, headers: &HeaderMap) -> bool {
        headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| {
            // A proxy that compresses makes a tag weak.
            value.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == self.0)
        })
    }

    /// The answer to a client that has it.
    pub(super) fn not_modified(&self) -> Response {
        let mut answer = StatusCode::NOT_MODIFIED.into_response();
        self.put_into(&mut answer);
        answer
    }

    /// Puts the tag into an answer.
    pub(super) fn put_into(&self, answer: &mut Response) {
        if let Ok(value) = HeaderValue::from_str(&self.0) {
            answer.headers_mut().insert(header::ETAG, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &[(&str, &str)]) -> Pairs {
        query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_question_and_state_has_a_tag_of_its_own() {
        let tags = [
            Tag::new("report", &pairs(&[("by", "day")]), &["1"]),
            Tag::new("top", &pairs(&[("by", "day")]), &["1"]),
            Tag::new("report", &pairs(&[("by", "hour")]), &["1"]),
            Tag::new("report", &pairs(&[("by", "day")]), &["2"]),
            Tag::new("report", &pairs(&[("by", "d"), ("a", "y")]), &["1"]),
            Tag::new("report", &pairs(&[("byd", "ay")]), &["1"]),
            Tag::new("report", &pairs(&[("by", "day")]), &["1", ""]),
        ];
        for (at, tag) in tags.iter().enumerate() {
            assert_eq!(tags.iter().position(|other| other == tag), Some(at));
        }
    }

    #[test]
    fn a_client_may_know_several_tags() {
        let tag = Tag("\"abc\"".to_owned());
        for (value, known) in [
            ("\"abc\"", true),
            ("W/\"abc\"", true),
            ("\"x\", \"abc\"", true),
            ("*", true),
            ("\"ab\"", false),
            ("abc", false),
            ("", false),
        ] {
            let headers =
                HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_str(value).unwrap())]);
            assert_eq!(tag.is_known(&headers), known, "{value}");
        }
        assert!(!tag.is_known(&HeaderMap::new()));
    }
}
