//! `/v1/gate`: the verdict on a tier and a release, or with `all_tiers=1` on every tier. Plain curl is a correct client of it: pending is a 503 with
//! `Retry-After`, which `--retry` obeys; what is decided is not retried.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};

use super::problem::Problem;
use super::reply::{self, Reply};
use super::routes::Query;
use crate::client::Client;
use crate::clock::parse_duration;
use crate::health::tier::rules::SLO;
use crate::health::tier::{AllAsk, Decision, GateAsk, MinActive, implied, look, look_all};
use crate::names::{BadName, Queue, Release, Tier};

/// When to ask again, in seconds.
const AGAIN: HeaderValue = HeaderValue::from_static("5");

/// `GET /v1/gate`
pub(crate) async fn verdict(
    client: &Client,
    slos: &BTreeMap<Queue, Duration>,
    query: Option<&str>,
) -> Result<Reply, Problem> {
    let known = [
        "release",
        "min_active",
        "expect",
        "queues",
        "tier",
        "allow_provisional",
        "slo",
        "generation",
        "all_tiers",
        "exclude",
    ];
    let query = Query::read(query, &known)?;
    let mut each = GateAsk {
        min_active: query.parsed("min_active")?.unwrap_or(MinActive::Percent(100)),
        expect: query.number("expect", 100_000)?,
        queues: list(&query, "queues", Queue::new)?,
        allow_provisional: switch(&query, "allow_provisional")?,
        known: query.parsed("generation")?.unwrap_or(0),
        ..GateAsk::new(Release::default())
    };
    latency(&mut each, &query, slos)?;
    if switch(&query, "all_tiers")? {
        return over_all(client, &query, each).await;
    }
    if query.get("exclude").is_some() {
        return Err(Problem::bad_parameter("`exclude` leaves tiers out of `all_tiers=1`: give both or none"));
    }
    let tier: Tier = query.parsed("tier")?.unwrap_or_else(|| client.tier().clone());
    let release = match query.parsed("release")? {
        Some(release) => release,
        None => unnamed(client, &tier).await?,
    };
    let verdict = look(&**client.store(), &tier, &GateAsk { release, ..each }).await;
    Ok(answer(verdict.decision, &verdict.to_value().map_err(Problem::internal)?))
}

/// `?all_tiers=1`: every tier that the store knows, whichever this API serves.
async fn over_all(client: &Client, query: &Query, each: GateAsk) -> Result<Reply, Problem> {
    if let Some(name) = ["tier", "queues", "generation"].into_iter().find(|name| query.get(name).is_some()) {
        let detail = format!("`{name}` is about one tier, `all_tiers=1` about every one: give one of them");
        return Err(Problem::bad_parameter(detail));
    }
    let exclude = list(query, "exclude", Tier::new)?;
    let ask = AllAsk { each, release: query.parsed("release")?, exclude, known: BTreeMap::new() };
    let verdict = look_all(&**client.store(), &ask).await.map_err(|managed| {
        let active: serde_json::Map<String, serde_json::Value> =
            managed.0.iter().map(|(tier, active)| (tier.to_string(), active.as_str().into())).collect();
        Problem::bad_request("RELEASE_NEEDED", format!("`release` is needed: {managed}"))
            .hint("?all_tiers=1&release=RELEASE")
            .with("active", active)
    })?;
    Ok(answer(verdict.decision, &verdict.to_value().map_err(Problem::internal)?))
}

fn answer(decision: Decision, body: &serde_json::Value) -> Reply {
    let status = match decision {
        Decision::Pass => StatusCode::OK,
        Decision::Pending => StatusCode::SERVICE_UNAVAILABLE,
        Decision::Fail => StatusCode::PRECONDITION_FAILED,
        Decision::Superseded => StatusCode::CONFLICT,
        Decision::Unknown => StatusCode::NOT_FOUND,
    };
    let mut reply = reply::json(status, body);
    if decision == Decision::Pending {
        reply.headers_mut().insert(RETRY_AFTER, AGAIN);
    }
    reply
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

/// Names, separated by commas.
fn list<T>(query: &Query, name: &str, read: fn(&str) -> Result<T, BadName>) -> Result<Vec<T>, Problem> {
    let names = query.get(name).unwrap_or_default().split(',').filter(|name| !name.is_empty());
    names.map(|name| read(name).map_err(Problem::bad_parameter)).collect()
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

/// `slo=1` is what is configured for each queue, and the usual objective for the others; `slo=30s` is that for all.
fn latency(ask: &mut GateAsk, query: &Query, configured: &BTreeMap<Queue, Duration>) -> Result<(), Problem> {
    match query.get("slo") {
        None | Some("0" | "false") => {}
        Some("" | "1" | "true") => (ask.slo, ask.slos) = (Some(SLO), configured.clone()),
        Some(text) => ask.slo = Some(parse_duration(text).map_err(Problem::bad_parameter)?),
    }
    Ok(())
}
