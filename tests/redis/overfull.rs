//! What makes room in a full store beyond settling: jobs whose keys are remembered longer than they are.

use std::time::Duration;

use sluicegate::job::State;
use sluicegate::store::*;

use super::resp::{Reply, Wire};
use crate::store::bench::*;

const JOBS: u64 = 50;

#[tokio::test]
async fn a_full_store_forgets_completed_jobs_and_remembers_their_keys() {
    let rig = Rig::active::<Redis>().await;
    let keyed = |n: u64| job(n).idempotency_key(&rig.tier, &n.to_string());
    let answers = rig.inserts((0..JOBS).map(keyed).collect()).await;
    let batch = rig.claim(&Hand::new("w-1", "r1"), 100).await;
    rig.settle_all(&batch, &Verdict::Completed).await;

    let url = rig.store.about().location;
    let port = url.rsplit_once(':').expect("a port").1.parse().expect("a port");
    let mut wire = Wire::to(port).await.unwrap();
    wire.ask(&["CONFIG", "SET", "maxmemory", "1"]).await.unwrap();
    let refused = wire.ask(&["SET", "somebody", "else"]).await.unwrap();
    assert!(matches!(&refused, Reply::Error(text) if text.starts_with("OOM")), "{refused:?}");

    rig.harness.pass(KEEP_COMPLETED + Duration::from_secs(1)).await;
    assert_eq!(rig.sweep().await.trimmed, JOBS);
    let Insert::Stored { id, .. } = answers[0] else { panic!("{answers:?}") };
    assert_eq!(rig.store.get(&rig.tier, id).await.unwrap().map(|job| job.state), None);
    wire.ask(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
    assert_eq!(rig.insert(keyed(0)).await, Insert::Existing { id, state: State::Completed });
}
