//! Who may ask: the `Host`, the origin and the token of a request, checked before it is routed. Deny by default; there
//! are no exemptions by path.

use std::fmt;
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};

use super::problem::Problem;

/// Shortest token, in characters.
const MIN_TOKEN: usize = 16;
/// Names of query parameters that look like a token: they would end up in logs and histories.
const TOKEN_PARAMETERS: [&str; 5] = ["token", "access_token", "api_key", "apikey", "authorization"];

/// A token. Never printed.
#[derive(Clone)]
pub(crate) struct Token(Arc<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A token that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "bad API token: {0}; make one with `openssl rand -hex 32 > token` and name that file in `api.token_file`"
)]
pub struct BadToken(&'static str);

impl Token {
    pub(crate) fn new(text: &str) -> Result<Self, BadToken> {
        let text = text.trim();
        if text.len() < MIN_TOKEN {
            return Err(BadToken("it is shorter than 16 characters"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadToken("it has characters that a header cannot carry"));
        }
        Ok(Self(Arc::from(text)))
    }

    /// Takes as long for a wrong token as for the right one.
    fn is(&self, given: &[u8]) -> bool {
        let ours = self.0.as_bytes();
        let mut difference = usize::from(ours.len() != given.len());
        for (byte, own) in given.iter().zip(ours.iter().cycle()) {
            difference |= usize::from(black_box(byte ^ own));
        }
        black_box(difference) == 0
    }
}

/// What one listener asks of every request.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// The token, if one is needed.
    pub(crate) token: Option<Token>,
    /// More values of `Host` that are accepted, in lower case.
    pub(crate) hosts: Vec<String>,
    /// Whether probes may come as HTTP/1.0 without a `Host` (some balancers do; no browser does).
    pub(crate) probes: bool,
}

impl Guard {
    /// Lets a request pass, or says why not.
    pub(crate) fn check(&self, request: &Parts) -> Result<(), Problem> {
        let host = self.host(request)?;
        same_origin(request, host.as_deref())?;
        not_a_socket(&request.headers)?;
        no_token_in_query(request.uri.query().unwrap_or_default())?;
        self.authorized(&request.headers)
    }

    /// Without a token, whoever can reach us is trusted, and a web page that resolves its own name to 127.0.0.1 could
    /// reach us through a browser: so the name must be one of ours.
    fn host(&self, request: &Parts) -> Result<Option<String>, Problem> {
        let Some(host) = one(&request.headers, header::HOST, "BAD_HOST")? else {
            if self.probes && request.version == Version::HTTP_10 {
                return Ok(None);
            }
            return Err(Problem::bad_request("BAD_HOST", "the request has no `Host` header").close());
        };
        let host = host.to_str().unwrap_or_default().to_ascii_lowercase();
        let in_target = request.uri.authority().map(|authority| authority.as_str().to_ascii_lowercase());
        if in_target.is_some_and(|target| target != host) {
            return Err(
                Problem::bad_request("BAD_HOST", "the target and `Host` name different hosts").close()
            );
        }
        if self.is_expected(&host) {
            return Ok(Some(host));
        }
        let given = crate::names::shown(&host);
        let detail = format!("host `{given}` is not served here");
        Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "HOST_NOT_ALLOWED", detail)
            .hint("ask by `127.0.0.1` or `localhost`, or set a token")
            .close())
    }

    fn is_expected(&self, host: &str) -> bool {
        let open = self.token.is_some() || self.probes && !self.listen.ip().is_loopback();
        let name = without_port(host);
        if self.hosts.iter().any(|allowed| allowed == host || allowed == name) {
            return true;
        }
        if open {
            return self.hosts.is_empty() && !name.is_empty();
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        name == "localhost" || address(name).is_some_and(|ip| ip.is_loopback() || ip == self.listen.ip())
    }

    fn authorized(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let given = one(headers, header::AUTHORIZATION, "BAD_AUTHORIZATION")?;
        let Some(token) = &self.token else { return Ok(()) };
        let bearer = given.map(HeaderValue::as_bytes).and_then(|value| {
            let (scheme, rest) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest.trim_ascii())
        });
        // One answer, whatever is wrong, and the comparison is made in any case.
        if token.is(bearer.unwrap_or(b"")) {
            return Ok(());
        }
        let challenge = HeaderValue::from_static("Bearer realm=\"sluicegate\"");
        Err(Problem::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "this needs a valid token")
            .hint("send `Authorization: Bearer TOKEN` with the content of `api.token_file`")
            .header(header::WWW_AUTHENTICATE, challenge))
    }
}

fn one<'a>(
    headers: &'a HeaderMap,
    name: HeaderName,
    code: &'static str,
) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(&name).iter();
    let first = values.next();
    if values.next().is_some() {
        let detail = format!("the request has more than one `{name}` header");
        return Err(Problem::bad_request(code, detail).close());
    }
    Ok(first)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn address(name: &str) -> Option<IpAddr> {
    name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name).parse().ok()
}

/// What changes state must come from our own page or from no page at all.
fn same_origin(request: &Parts, host: Option<&str>) -> Result<(), Problem> {
    if matches!(request.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let headers = &request.headers;
    let fetched_here = headers
        .get_all("sec-fetch-site")
        .iter()
        .all(|value| matches!(value.as_bytes(), b"same-origin" | b"none"));
    let from_here = headers.get_all(header::ORIGIN).iter().all(|origin| {
        let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        let name = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        name.is_some() && name == host
    });
    if fetched_here && from_here {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "CROSS_SITE", "requests from other sites are refused")
        .hint("call the API from a server or a program, not from a page of another site"))
}

/// Nothing here streams; an upgrade that is ignored could be mistaken for one that is not.
fn not_a_socket(headers: &HeaderMap) -> Result<(), Problem> {
    let asks = headers.get_all(header::UPGRADE).iter().any(|value| {
        value
            .as_bytes()
            .split(|&byte| byte == b',')
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(b"websocket"))
    });
    if asks {
        let detail = "there is no WebSocket here: send a plain HTTP/1.1 request";
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "NO_UPGRADE", detail)
            .header(header::UPGRADE, HeaderValue::from_static("HTTP/1.1"))
            .close());
    }
    Ok(())
}

fn no_token_in_query(query: &str) -> Result<(), Problem> {
    let found = query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        TOKEN_PARAMETERS.iter().any(|token| name.eq_ignore_ascii_case(token))
    });
    if found {
        let detail = "a token in the query is refused: it would end up in logs and histories";
        return Err(Problem::bad_request("TOKEN_IN_QUERY", detail)
            .hint("send `Authorization: Bearer TOKEN`, and replace this token"));
    }
    Ok(())
}
