//! A body of server-sent events that ends with its sender, or when the client goes.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use hyper::body::{Body as HttpBody, Bytes, Frame};
use tokio::sync::mpsc;

/// Events that may wait for a slow client. It misses those in between.
const WAITING: usize = 1;

struct Events(mpsc::Receiver<String>);

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|event| event.map(|text| Ok(Frame::data(text.into()))))
    }
}

/// An answer without an end, and the sender of its events.
pub(super) fn open() -> (mpsc::Sender<String>, Response) {
    let (sender, events) = mpsc::channel(WAITING);
    let mut answer = Body::new(Events(events)).into_response();
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "private, no-store"),
        // nginx collects answers otherwise.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    answer.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    (sender, answer)
}

/// One event. A document on one line ends with its line break.
pub(super) fn event(name: &str, document: &str) -> String {
    format!("event: {name}\ndata: {}\n\n", document.trim_end())
}
