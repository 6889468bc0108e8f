//! The one table of paths. Paths are matched exactly, a segment at a time and as sent: a name is data and never decides
//! where a request goes.

use hyper::header::{self, HeaderValue};
use hyper::{Method, StatusCode};

use super::problem::Problem;
use crate::health::Probe as Question;

/// What a route of the API does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Do {
    Version,
    ListJobs,
    Enqueue,
    EnqueueBatch,
    ShowJob,
    Gate,
    Inbox,
    InboxJson,
    InboxStyle,
    Healthz,
    ProbesAreElsewhere,
}

/// What a route of the probes does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// A question, or with a segment one check of it.
    Ask(Question),
    /// The same as a whole document.
    Health,
    Metrics,
    Healthz,
}

/// A method and a path; `{}` stands for one segment. `HEAD` is `GET` without the body.
pub(crate) type Route<D> = (&'static str, &'static str, D);

/// Everything the API answers.
pub(crate) const API: [Route<Do>; 12] = [
    ("GET", "/v1/version", Do::Version),
    ("GET", "/v1/jobs", Do::ListJobs),
    ("POST", "/v1/jobs", Do::Enqueue),
    ("POST", "/v1/jobs/batch", Do::EnqueueBatch),
    ("GET", "/v1/jobs/{}", Do::ShowJob),
    ("GET", "/v1/gate", Do::Gate),
    ("GET", "/dev/inbox", Do::Inbox),
    ("GET", "/dev/inbox.json", Do::InboxJson),
    ("GET", "/dev/inbox.css", Do::InboxStyle),
    ("GET", "/healthz", Do::Healthz),
    ("GET", "/livez", Do::ProbesAreElsewhere),
    ("GET", "/readyz", Do::ProbesAreElsewhere),
];

/// Everything the probes answer.
pub(crate) const PROBES: [Route<Probe>; 11] = [
    ("GET", "/livez", Probe::Ask(Question::Live)),
    ("GET", "/livez/{}", Probe::Ask(Question::Live)),
    ("GET", "/readyz", Probe::Ask(Question::Ready)),
    ("GET", "/readyz/{}", Probe::Ask(Question::Ready)),
    ("GET", "/readyz/staged", Probe::Ask(Question::Staged)),
    ("GET", "/startupz", Probe::Ask(Question::Startup)),
    ("GET", "/startupz/{}", Probe::Ask(Question::Startup)),
    ("GET", "/health", Probe::Health),
    ("GET", "/health/{}", Probe::Health),
    ("GET", "/metrics", Probe::Metrics),
    ("GET", "/healthz", Probe::Healthz),
];

/// Finds what to do, and the text of the segment that `{}` stands for (empty without one).
pub(crate) fn find<'p, D: Copy>(
    table: &[Route<D>],
    method: &Method,
    path: &'p str,
) -> Result<(D, &'p str), Problem> {
    // A path that is written out goes before one with a `{}`, wherever it stands in the table.
    let written_out = |pattern: &str| pattern == path;
    let matches = |pattern: &str| match table.iter().any(|(_, other, _)| written_out(other)) {
        true => written_out(pattern).then_some(""),
        false => segment(pattern, path),
    };
    let here: Vec<_> =
        table.iter().filter_map(|(m, pattern, what)| Some((*m, matches(pattern)?, *what))).collect();
    let wanted = if method == Method::HEAD { "GET" } else { method.as_str() };
    if let Some((_, segment, what)) = here.iter().find(|(method, ..)| *method == wanted) {
        return Ok((*what, segment));
    }
    if here.is_empty() {
        let detail = format!("there is nothing at `{}`", crate::names::shown(path));
        return Err(Problem::new(StatusCode::NOT_FOUND, "NO_SUCH_PATH", detail)
            .hint("paths are exact: no trailing slash, no other case"));
    }
    let mut allowed: Vec<&str> = here.iter().map(|(method, ..)| *method).collect();
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    let allowed = allowed.join(", ");
    let detail = format!("`{}` takes {allowed}", crate::names::shown(path));
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail);
    Err(match HeaderValue::from_str(&allowed) {
        Ok(allowed) => problem.header(header::ALLOW, allowed),
        Err(_) => problem,
    })
}

fn segment<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let (before, after) = pattern.split_once("{}")?;
    let segment = path.strip_prefix(before)?.strip_suffix(after)?;
    (!segment.is_empty() && !segment.contains('/')).then_some(segment)
}

/// The parameters of a query, each at most once and each known.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query.
    pub(crate) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let shown = crate::names::shown(name);
            if !known.contains(&name) {
                let detail = format!("unknown parameter `{shown}`: this path takes {}", known.join(", "));
                return Err(Problem::bad_request("UNKNOWN_PARAMETER", detail));
            }
            if pairs.iter().any(|(other, _)| other == name) {
                let detail = format!("parameter `{shown}` is given twice");
                return Err(Problem::bad_parameter(detail));
            }
            let value = decoded(value).ok_or_else(|| {
                Problem::bad_parameter(format!("parameter `{shown}` is not percent-encoded UTF-8"))
            })?;
            pairs.push((name.to_owned(), value));
        }
        Ok(Self(pairs))
    }

    /// The text of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// A parameter as its type.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Problem>
    where
        T::Err: std::fmt::Display,
    {
        let bad = |text: &str, error: T::Err| {
            Problem::bad_parameter(format!("{name} `{}`: {error}", crate::names::shown(text)))
        };
        self.get(name).map(|text| text.parse().map_err(|error| bad(text, error))).transpose()
    }

    /// A number within `1..=most`, if there is one.
    pub(crate) fn number(&self, name: &str, most: u32) -> Result<Option<u32>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        number.map(Some).ok_or_else(|| {
            let given = crate::names::shown(text);
            Problem::bad_parameter(format!("{name} `{given}` is no number from 1 to {most}"))
        })
    }

    /// A number within `1..=most`.
    pub(crate) fn limit(&self, default: usize, most: usize) -> Result<usize, Problem> {
        let Some(text) = self.get("limit") else { return Ok(default) };
        text.parse().ok().filter(|limit| (1..=most).contains(limit)).ok_or_else(|| {
            let given = crate::names::shown(text);
            Problem::bad_parameter(format!("limit `{given}` is out of range: 1 to {most}"))
        })
    }
}

/// A percent-encoded text; `None` when it is none.
pub(crate) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}
