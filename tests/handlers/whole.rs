//! From the client to the receiver and back: a real worker on a real store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sluicegate::Client;
use sluicegate::handlers::{self, Delivery};
use sluicegate::ids::JobId;
use sluicegate::job::{Args, JobRecord, NewJob, Parked, State};
use sluicegate::names::{Kind, Tier};
use sluicegate::store::Store;
use sluicegate::store::sqlite::SqliteStore;
use sluicegate::worker::{Options, Registry, Worker};
use tempfile::TempDir;

use super::peer::{Peer, SECRET};

async fn worker(store: &Arc<dyn Store>, settings: BTreeMap<String, serde_json::Value>) -> Worker {
    let mut registry = Registry::new();
    handlers::register(&mut registry, Delivery::Real).expect("registered");
    Worker::start(Arc::clone(store), registry, Options { settings, ..Options::default() })
        .await
        .expect("a worker")
}

fn job(kind: &str, args: &serde_json::Value) -> NewJob {
    NewJob::raw(Kind::new(kind).expect("a kind"), Args::of(args).expect("args"))
}

async fn until(store: &Arc<dyn Store>, id: JobId, state: State) -> JobRecord {
    let mut wake = store.subscribe(&Tier::default()).await.expect("a subscription");
    let look = async {
        loop {
            let job = store.get(&Tier::default(), id).await.expect("an answer").expect("the job");
            if job.state == state {
                return job;
            }
            wake.woken(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), look).await.expect("in time")
}

#[tokio::test]
async fn a_webhook_and_a_mail_arrive_and_their_jobs_say_so() {
    let dir = TempDir::new().expect("a folder");
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open(&dir.path().join("jobs.db")).await.expect("a store"));
    let (mut hooks, mut mails) = (Peer::start("receiver.py", SECRET), Peer::start("mailbox.py", "take"));
    let settings = BTreeMap::from([
        (
            "notify.webhook".to_owned(),
            json!({ "secret": SECRET, "allow": [format!("127.0.0.1:{}", hooks.port)] }),
        ),
        (
            "notify.email".to_owned(),
            json!({ "smtp": format!("smtp://127.0.0.1:{}", mails.port), "from": "a@example.com" }),
        ),
    ]);
    let worker = worker(&store, settings).await;
    let client = Client::new(Arc::clone(&store), Tier::default());
    let hook =
        job("notify.webhook", &json!({ "url": format!("http://127.0.0.1:{}/ok", hooks.port), "data": 1 }));
    let mail = job("notify.email", &json!({ "to": "ada@example.org", "subject": "s", "text": "t" }));
    for new in [hook, mail] {
        let id = client.insert(new).await.expect("enqueued").id;
        let done = until(&store, id, State::Completed).await;
        assert!(done.ran.is_some() && done.worker.is_some() && done.history.is_empty());
    }
    assert_eq!(hooks.received()["verified"], true);
    assert_eq!(mails.received()["to"], json!(["ada@example.org"]));
    worker.stop();
    worker.ended().await;
}

#[tokio::test]
async fn an_uncertain_mail_is_parked_and_not_sent_again_by_the_next_worker_either() {
    let dir = TempDir::new().expect("a folder");
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open(&dir.path().join("jobs.db")).await.expect("a store"));
    let mut mails = Peer::start("mailbox.py", "drop");
    let settings = BTreeMap::from([(
        "notify.email".to_owned(),
        json!({ "smtp": format!("smtp://127.0.0.1:{}", mails.port), "from": "a@example.com" }),
    )]);
    let client = Client::new(Arc::clone(&store), Tier::default());
    let id = client
        .insert(job("notify.email", &json!({ "to": "ada@example.org", "subject": "s", "text": "t" })))
        .await
        .expect("enqueued")
        .id;
    let first = worker(&store, settings.clone()).await;
    let parked = until(&store, id, State::Parked).await;
    assert_eq!((parked.parked, parked.failures), (Some(Parked::Uncertain), 0));
    mails.received();
    first.stop();
    first.ended().await;
    let second = worker(&store, settings).await;
    let by = sluicegate::store::Actor { who: "test".into(), reason: None };
    store.bulk(&Tier::default(), vec![id], sluicegate::store::Action::Retry, &by).await.expect("an answer");
    let again = until(&store, id, State::Parked).await;
    assert_eq!(again.parked, Some(Parked::Uncertain));
    second.stop();
    second.ended().await;
    assert_eq!(mails.rest(), 0, "the server has it once");
}
