//! Responses, and the headers that each of them carries.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// A whole response.
pub(crate) type Reply = Response<Full<Bytes>>;

/// A response of this type.
pub(crate) fn body(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// Plain text.
pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Reply {
    body(status, "text/plain; charset=utf-8", text)
}

/// JSON, with a line end for people who use curl.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            body(status, "application/json", bytes)
        }
        Err(error) => {
            tracing::error!(%error, "a response could not be written as JSON");
            body(StatusCode::INTERNAL_SERVER_ERROR, "application/problem+json", UNWRITABLE)
        }
    }
}

const UNWRITABLE: &str = r#"{"type":"https://sluicegate.dev/problems/internal","title":"internal","status":500,"detail":"the answer could not be written as JSON","code":"INTERNAL"}"#;

/// Adds a header whose value is ours.
pub(crate) fn set(mut reply: Reply, name: HeaderName, value: &str) -> Reply {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
    reply
}

/// What every response says, whatever it is: not to be guessed at, kept, framed or read by other sites. There is no
/// `Access-Control-Allow-Origin`, ever.
pub(crate) fn seal(reply: &mut Reply) {
    let headers = reply.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ));
}
