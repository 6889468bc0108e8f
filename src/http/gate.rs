//! `/v1/gate`: the verdict on a tier and a release. Plain curl is a correct client of it: pending is a 503 with
//! `Retry-After`, which `--retry` obeys; what is decided is not retried.

use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};

use super::problem::Problem;
use super::reply::{self, Reply};
use super::routes::Query;
use crate::client::Client;
use crate::clock::parse_duration;
use crate::health::tier::rules::SLO;
use crate::health::tier::{Decision, GateAsk, MinActive, implied, look};
use crate::names::{Queue, Release, Tier};

/// When to ask again, in seconds.
const AGAIN: HeaderValue = HeaderValue::from_static("5");

/// `GET /v1/gate`
pub(crate) async fn verdict(client: &Client, query: Option<&str>) -> Result<Reply, Problem> {
    let known =
        ["release", "min_active", "expect", "queues", "tier", "allow_provisional", "slo", "generation"];
    let query = Query::read(query, &known)?;
    let tier: Tier = query.parsed("tier")?.unwrap_or_else(|| client.tier().clone());
    let release = match query.parsed("release")? {
        Some(release) => release,
        None => unnamed(client, &tier).await?,
    };
    let ask = GateAsk {
        min_active: query.parsed("min_active")?.unwrap_or(MinActive::Percent(100)),
        expect: query.parsed("expect")?,
        queues: queues(&query)?,
        allow_provisional: switch(&query, "allow_provisional")?,
        slo: slo(&query)?,
        known: query.parsed("generation")?.unwrap_or(0),
        ..GateAsk::new(release)
    };
    let verdict = look(&**client.store(), &tier, &ask).await;
    let status = match verdict.decision {
        Decision::Pass => StatusCode::OK,
        Decision::Pending => StatusCode::SERVICE_UNAVAILABLE,
        Decision::Fail => StatusCode::PRECONDITION_FAILED,
        Decision::Superseded => StatusCode::CONFLICT,
        Decision::Unknown => StatusCode::NOT_FOUND,
    };
    let body = verdict.to_value().map_err(Problem::internal)?;
    let mut reply = reply::json(status, &body);
    if verdict.decision == Decision::Pending {
        reply.headers_mut().insert(RETRY_AFTER, AGAIN);
    }
    Ok(reply)
}

/// Without a name only an unmanaged tier can be judged.
async fn unnamed(client: &Client, tier: &Tier) -> Result<Release, Problem> {
    let current = client.store().activation(tier).await?;
    implied(current.as_ref()).ok_or_else(|| {
        let active = current.map(|current| current.release.to_string()).unwrap_or_default();
        let detail = format!("`release` is needed: tier `{tier}` is managed, `{active}` is active in it");
        Problem::bad_request("RELEASE_NEEDED", detail)
            .hint(format!("?release={active}"))
            .with("active", active)
    })
}

fn queues(query: &Query) -> Result<Vec<Queue>, Problem> {
    let names = query.get("queues").unwrap_or_default().split(',').filter(|name| !name.is_empty());
    names.map(|name| Queue::new(name).map_err(Problem::bad_parameter)).collect()
}

fn switch(query: &Query, name: &str) -> Result<bool, Problem> {
    match query.get(name) {
        None | Some("0" | "false") => Ok(false),
        Some("" | "1" | "true") => Ok(true),
        Some(other) => {
            let detail = format!("{name} `{}` is neither `1` nor `0`", crate::names::shown(other));
            Err(Problem::bad_parameter(detail))
        }
    }
}

/// `slo=1` is the usual objective, `slo=30s` another one.
fn slo(query: &Query) -> Result<Option<std::time::Duration>, Problem> {
    match query.get("slo") {
        None | Some("0" | "false") => Ok(None),
        Some("" | "1" | "true") => Ok(Some(SLO)),
        Some(text) => parse_duration(text).map(Some).map_err(Problem::bad_parameter),
    }
}
