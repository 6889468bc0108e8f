//! `/v1/jobs`: enqueue one, enqueue many, look at one, look at many.

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, LOCATION};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::problem::Problem;
use super::reply::{self, Reply};
use super::routes::Query;
use crate::client::{Client, EnqueueError, Enqueued, Way};
use crate::ids::JobId;
use crate::job::EnqueueBody;
use crate::job::args::{InvalidArgs, MAX_ARGS, MAX_DEPTH, check_json};
use crate::job::{InvalidJob, NewJob};
use crate::names::Tier;
use crate::store::PageAsk;

/// Largest body of one job: its arguments, and everything around them.
pub(crate) const MAX_ONE: usize = MAX_ARGS + 64 * 1024;
/// Largest body of a batch.
pub(crate) const MAX_BATCH_BODY: usize = 8 * 1024 * 1024;
/// Most jobs of a batch.
pub(crate) const MAX_BATCH_JOBS: usize = 1_000;
const MAX_PAGE: usize = 100;
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// `POST /v1/jobs`
pub(crate) async fn enqueue(client: &Client, headers: &HeaderMap, body: Bytes) -> Result<Reply, Problem> {
    let key = key_header(headers)?;
    let job = read_job(&body, key, client.tier())?;
    let by_key = job.extras.idempotency_key.is_some();
    let enqueued = client.insert(job).await.map_err(|error| Problem::from_enqueue(error, by_key))?;
    // Nothing was created when the job ran here and the store was away.
    let recorded = !matches!(enqueued.way, Way::InlineUnrecorded { .. });
    let status = if recorded && !enqueued.replayed { StatusCode::CREATED } else { StatusCode::OK };
    let mut reply = reply::json(status, &shown(&enqueued));
    if recorded {
        reply = reply::set(reply, LOCATION, &format!("/v1/jobs/{}", enqueued.id));
    }
    if enqueued.replayed {
        reply = reply::set(reply, HeaderName::from_static("idempotent-replayed"), "true");
    }
    Ok(reply)
}

/// `POST /v1/jobs/batch`: one answer each, in order. What is refused does not keep the others out.
pub(crate) async fn enqueue_batch(
    client: &Client,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Reply, Problem> {
    if headers.contains_key(IDEMPOTENCY_KEY) {
        return Err(Problem::bad_request(
            "NOT_FOR_BATCHES",
            "a batch takes no `Idempotency-Key` of its own yet",
        )
        .hint("give each job its own `idempotency_key`"));
    }
    let tier = client.tier().clone();
    // Eight megabytes take long enough to read that other connections would notice.
    let read = tokio::task::spawn_blocking(move || read_batch(&body, &tier)).await;
    let read = read.map_err(|error| {
        tracing::error!(%error, "reading a batch died");
        Problem::internal("the batch could not be read because of a bug")
    })??;
    let jobs: Vec<NewJob> = read.iter().filter_map(|job| job.as_ref().ok()).cloned().collect();
    let stored = client.insert_many(jobs).await;
    // None was stored, and none ran here: the whole request can simply be sent again later.
    if let Some(Err(EnqueueError::Store(error))) = stored.first()
        && stored.iter().all(|answer| matches!(answer, Err(EnqueueError::Store(_))))
    {
        return Err(error.clone().into());
    }
    let mut stored = stored.into_iter();
    let results: Vec<Value> = read
        .into_iter()
        .map(|job| {
            let by_key = job?.extras.idempotency_key.is_some();
            let answer = stored.next().ok_or_else(|| Problem::internal("the store gave no answer"))?;
            answer.map_err(|error| Problem::from_enqueue(error, by_key))
        })
        .map(|answer: Result<Enqueued, Problem>| match answer {
            Ok(enqueued) => shown(&enqueued),
            Err(problem) => json!({ "error": problem.to_value() }),
        })
        .collect();
    Ok(reply::json(StatusCode::OK, &json!({ "results": results })))
}

/// `GET /v1/jobs/{id}`
pub(crate) async fn show(client: &Client, id: &str) -> Result<Reply, Problem> {
    let id: JobId =
        id.parse().map_err(|e: crate::ids::BadJobId| Problem::bad_request("BAD_JOB_ID", e.to_string()))?;
    match client.store().get(client.tier(), id).await? {
        Some(record) => Ok(reply::json(StatusCode::OK, &record)),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "NO_SUCH_JOB",
            format!("there is no job {id} in tier `{}`", client.tier()),
        )
        .hint("completed jobs are kept for an hour")),
    }
}

/// `GET /v1/jobs`
pub(crate) async fn list(client: &Client, query: Option<&str>) -> Result<Reply, Problem> {
    let query = Query::read(query, &["state", "queue", "kind", "limit", "page_token"])?;
    let ask = PageAsk {
        state: query.parsed("state")?,
        queue: query.parsed("queue")?,
        kind: query.parsed("kind")?,
        limit: query.limit(50, MAX_PAGE)?,
        token: query.get("page_token").map(str::to_owned),
        ..PageAsk::default()
    };
    let page = client.store().page(client.tier(), ask).await?;
    Ok(reply::json(StatusCode::OK, &json!({ "jobs": page.jobs, "next_page_token": page.next })))
}

/// `GET /v1/version`
pub(crate) fn version(client: &Client) -> Reply {
    let about = client.store().about();
    let body = json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "api": "v1",
        "tier": client.tier(),
        "store": { "engine": about.engine, "durability": about.durability },
    });
    reply::json(StatusCode::OK, &body)
}

fn shown(enqueued: &Enqueued) -> Value {
    serde_json::to_value(enqueued).unwrap_or_default()
}

/// The Idempotency-Key draft quotes the key (a structured-field string); most clients do not. Both are the same key.
fn key_header(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bad = |detail: &str| Problem::bad_request("BAD_IDEMPOTENCY_KEY", detail);
    if values.next().is_some() {
        return Err(bad("the request has more than one `Idempotency-Key` header"));
    }
    let key = value.to_str().map_err(|_| bad("`Idempotency-Key` must be printable ASCII"))?.trim();
    let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
    Ok(Some(key.to_owned()))
}

fn read_job(text: &[u8], key: Option<String>, tier: &Tier) -> Result<NewJob, Problem> {
    if let Some(given) = oversized_args(text) {
        return Err(InvalidJob::from(InvalidArgs::TooLarge { given }).into());
    }
    let mut body = EnqueueBody::read(text)?;
    if let Some(key) = key {
        if body.idempotency_key.as_ref().is_some_and(|other| *other != key) {
            let detail = "`Idempotency-Key` and `idempotency_key` in the body differ";
            return Err(Problem::bad_request("BAD_IDEMPOTENCY_KEY", detail).hint("send one of them"));
        }
        body.idempotency_key = Some(key);
    }
    Ok(body.into_job(tier)?)
}

/// How long the arguments are, when they are too long: that is a 413, and not merely a bad body.
fn oversized_args(text: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    struct Peek<'a> {
        #[serde(borrow)]
        args: Option<&'a RawValue>,
    }
    if text.len() <= MAX_ARGS {
        return None;
    }
    let peek: Peek<'_> = serde_json::from_slice(text).ok()?;
    peek.args.map(|args| args.get().len()).filter(|&given| given > MAX_ARGS)
}

type ReadBatch = Vec<Result<NewJob, Problem>>;

fn read_batch(text: &[u8], tier: &Tier) -> Result<ReadBatch, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Batch<'a> {
        #[serde(borrow)]
        jobs: Vec<&'a RawValue>,
    }
    check_json(text, MAX_DEPTH + 3).map_err(InvalidJob::from)?;
    let batch: Batch<'_> =
        serde_json::from_slice(text).map_err(|e| InvalidJob::Body(crate::names::escaped(&e.to_string())))?;
    if batch.jobs.is_empty() || batch.jobs.len() > MAX_BATCH_JOBS {
        let detail = format!("`jobs` has {} entries: 1 to {MAX_BATCH_JOBS} are accepted", batch.jobs.len());
        return Err(Problem::bad_request("OUT_OF_RANGE", detail));
    }
    Ok(batch.jobs.into_iter().map(|job| read_job(job.get().as_bytes(), None, tier)).collect())
}
