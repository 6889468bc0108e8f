//! From a request to the room that answers it.

use hyper::Request;
use hyper::body::Incoming;

use super::Api;
use super::body;
use super::guard::Guard;
use super::problem::Problem;
use super::reply::Reply;
use super::routes::{self, Do};
use super::server::Face;
use super::{gate, jobs, probes};

/// The API behind its guard.
pub(crate) struct Served {
    pub(crate) api: Api,
    pub(crate) guard: Guard,
}

impl Face for Served {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        self.route(request).await.unwrap_or_else(Problem::reply)
    }
}

impl Served {
    async fn route(&self, request: Request<Incoming>) -> Result<Reply, Problem> {
        let (parts, sent) = request.into_parts();
        self.guard.check(&parts)?;
        let (what, segment) = routes::find(&routes::API, &parts.method, parts.uri.path())?;
        let (client, headers, query) = (&self.api.client, &parts.headers, parts.uri.query());
        let read = |limit| body::read(headers, sent, limit, self.api.limits.body_timeout);
        match what {
            Do::Version => Ok(jobs::version(client)),
            Do::ListJobs => jobs::list(client, query).await,
            Do::ShowJob => jobs::show(client, segment).await,
            Do::Enqueue => jobs::enqueue(client, headers, read(jobs::MAX_ONE).await?).await,
            Do::EnqueueBatch => jobs::enqueue_batch(client, headers, read(jobs::MAX_BATCH_BODY).await?).await,
            Do::Gate => gate::verdict(client, &self.api.slos, query).await,
            Do::Inbox | Do::InboxJson | Do::InboxStyle => self.inbox(what, query).await,
            Do::Healthz | Do::ProbesAreElsewhere => Ok(probes::healthz("<health.listen>")),
        }
    }

    #[cfg(feature = "handlers")]
    async fn inbox(&self, what: Do, query: Option<&str>) -> Result<Reply, Problem> {
        super::inbox_page::answer(self.api.inbox.as_ref(), what, query).await
    }

    #[cfg(not(feature = "handlers"))]
    async fn inbox(&self, _: Do, _: Option<&str>) -> Result<Reply, Problem> {
        let detail = "built without the feature `handlers`: there is no inbox";
        Err(Problem::new(hyper::StatusCode::NOT_FOUND, "NO_INBOX", detail))
    }
}
