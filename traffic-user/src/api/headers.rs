//! The headers that every answer has, so that a browser does nothing with it but what the page needs.

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::Response,
};

/// Own scripts, styles, images and requests; nothing inline, nothing from elsewhere, in no frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const ALL: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // Figures may be kept, but are never shown without asking whether they changed.
    (header::CACHE_CONTROL, "private, no-cache"),
];

/// Adds the headers. One that is there already stays.
pub(super) fn secured(mut answer: Response) -> Response {
    for (name, value) in ALL {
        answer.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    answer
}
