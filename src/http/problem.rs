//! The one shape of every refusal: `application/problem+json` (RFC 9457) with a stable `code` and a way out.

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::reply::{self, Reply};
use crate::client::EnqueueError;
use crate::job::InvalidJob;
use crate::job::args::InvalidArgs;
use crate::store::{ErrorKind, StoreError};

/// A refusal.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    code: &'static str,
    detail: String,
    hint: Option<String>,
    more: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), hint: None, more: Map::new(), headers: Vec::new() }
    }

    pub(crate) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// A parameter of the query that cannot be used.
    pub(crate) fn bad_parameter(detail: impl std::fmt::Display) -> Self {
        Self::bad_request("BAD_PARAMETER", detail.to_string())
    }

    /// A bug of ours.
    pub(crate) fn internal(detail: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", detail.to_string())
    }

    /// The way out.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// One more member.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// After this the connection is closed: what follows on it cannot be trusted, or is not wanted.
    pub(crate) fn close(self) -> Self {
        self.header(hyper::header::CONNECTION, HeaderValue::from_static("close"))
    }

    fn retry_after(self, seconds: &'static str) -> Self {
        self.header(hyper::header::RETRY_AFTER, HeaderValue::from_static(seconds))
    }

    /// The JSON object.
    pub(crate) fn to_value(&self) -> Value {
        let kebab = self.code.to_ascii_lowercase().replace('_', "-");
        let mut value = json!({
            "type": format!("https://sluicegate.dev/problems/{kebab}"),
            "title": self.code.to_ascii_lowercase().replace('_', " "),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
        });
        if let Value::Object(map) = &mut value {
            map.extend(self.hint.iter().map(|hint| ("hint".to_owned(), json!(hint))));
            map.extend(self.more.clone());
        }
        value
    }

    /// The response.
    pub(crate) fn reply(self) -> Reply {
        let mut reply = reply::json(self.status, &self.to_value());
        reply
            .headers_mut()
            .insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in self.headers {
            reply.headers_mut().insert(name, value);
        }
        reply
    }
}

impl From<InvalidJob> for Problem {
    /// 400, so that 422 keeps its one meaning: an idempotency key that was used for other content.
    fn from(error: InvalidJob) -> Self {
        match &error {
            InvalidJob::Args(InvalidArgs::TooLarge { .. }) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "ARGS_TOO_LARGE", error.to_string())
            }
            InvalidJob::Args(InvalidArgs::Json { .. }) => Self::bad_request("BAD_JSON", error.to_string()),
            InvalidJob::Body(_) => Self::bad_request("BAD_BODY", error.to_string()),
            InvalidJob::Name(_) => Self::bad_request("BAD_NAME", error.to_string()),
            InvalidJob::Range { .. } => Self::bad_request("OUT_OF_RANGE", error.to_string()),
            InvalidJob::Clash(_) => Self::bad_request("FIELDS_CLASH", error.to_string()),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        let problem = match error.kind {
            ErrorKind::Refused => Self::bad_request("REFUSED", detail),
            ErrorKind::Full => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "STORE_FULL", detail).retry_after("30")
            }
            _ if error.is_transient() => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "STORE_UNAVAILABLE", detail).retry_after("5")
            }
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "STORE_BROKEN", detail),
        };
        match error.hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

impl Problem {
    /// `by_key` when the id was derived from an idempotency key: the Idempotency-Key draft wants 422 then, and an id
    /// of the caller's is a plain 409.
    pub(crate) fn from_enqueue(error: EnqueueError, by_key: bool) -> Self {
        let detail = error.to_string();
        match error {
            EnqueueError::Invalid(invalid) => invalid.into(),
            EnqueueError::Conflict(id) if by_key => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED", detail)
                    .hint(format!("see GET /v1/jobs/{id}, or use another key"))
                    .with("id", id.to_string())
            }
            EnqueueError::Conflict(id) => Self::new(StatusCode::CONFLICT, "ID_CONFLICT", detail)
                .hint(format!("see GET /v1/jobs/{id}, or use another id"))
                .with("id", id.to_string()),
            EnqueueError::Held { holder, state } => {
                Self::new(StatusCode::CONFLICT, "UNIQUE_KEY_HELD", detail)
                    .hint(format!("see GET /v1/jobs/{holder}"))
                    .with("holder", holder.to_string())
                    .with("holder_state", state.as_str())
            }
            EnqueueError::Unknown { id, .. } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "OUTCOME_UNKNOWN", detail)
                    .hint(if by_key {
                        "send the same request with the same idempotency key again: it cannot be stored twice"
                            .to_owned()
                    } else {
                        format!(
                            "send the same request again with \"id\": \"{id}\": it cannot be stored twice"
                        )
                    })
                    .with("id", id.to_string())
                    .retry_after("1")
            }
            EnqueueError::Failed { id, error, source } => {
                let (status, code) = if source.kind == ErrorKind::Timeout {
                    (StatusCode::GATEWAY_TIMEOUT, "OUTCOME_UNKNOWN")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "NEITHER_DONE_NOR_KEPT")
                };
                Self::new(status, code, detail)
                    .hint(format!("send the same request again with \"id\": \"{id}\""))
                    .with("id", id.to_string())
                    .with("error", error)
                    .retry_after("5")
            }
            EnqueueError::Store(error) => error.into(),
        }
    }
}
