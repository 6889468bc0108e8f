//! Reading a JSON body within its limits: what is too large, too slow or encoded is refused before it is held.

use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap};

use super::problem::Problem;

/// Reads a whole JSON body of at most `limit` bytes.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Incoming,
    limit: usize,
    timeout: Duration,
) -> Result<Bytes, Problem> {
    is_json(headers)?;
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if declared.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    let collected = tokio::time::timeout(timeout, Limited::new(body, limit).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Ok(Err(_)) => {
            Err(Problem::bad_request("BODY_CUT_SHORT", "the body ended early or is malformed").close())
        }
        Err(_) => {
            let detail = format!("the body took longer than {} s", timeout.as_secs_f64());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "BODY_TOO_SLOW", detail).close())
        }
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "BODY_TOO_LARGE",
        format!("the body is over the limit of {limit} bytes"),
    )
    .hint("store large data elsewhere and pass a reference to it, or send fewer jobs at once")
    .close()
}

/// A form cannot be told from a cross-site one, and a compressed body may be a bomb.
fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = |detail: &str| {
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", detail)
            .hint("send `Content-Type: application/json` and no `Content-Encoding`")
    };
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let kind = kinds.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = kind.split(';').map(|part| part.trim().to_ascii_lowercase());
    let json = parts.next().as_deref() == Some("application/json");
    let utf8 = parts.all(|part| matches!(part.as_str(), "" | "charset=utf-8" | "charset=\"utf-8\""));
    if !json || !utf8 || kinds.next().is_some() {
        return Err(unsupported("the body must be `application/json` in UTF-8"));
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(unsupported("encoded bodies are refused"));
    }
    Ok(())
}
