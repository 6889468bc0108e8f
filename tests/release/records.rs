//! What the store knows of releases.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use sluicegate::clock::Timestamp;
use sluicegate::names::Release;
use sluicegate::release::description::Description;
use sluicegate::release::records::{self, RecordError, ReleaseRecord, ReleaseState};
use sluicegate::store::{Put, Space, Store};

use super::kit::{ada, description, events, release, tier};
use crate::both::{Engine, Place};

fn record(name: &str) -> ReleaseRecord {
    let runs: Description = serde_json::from_str(&description()).unwrap();
    ReleaseRecord::new(release(name), name.repeat(20), runs)
}

async fn put(store: &dyn Store, name: &str, value: &str) {
    let put = store.put(&tier(), Space::Release, name, 0, value, None).await.unwrap();
    assert!(matches!(put, Put::Done(_)));
}

async fn a_name_has_one_content_and_one_line_in_the_ledger(engine: Engine) {
    let place = Place::new(engine);
    let store = place.open().await;
    let first = records::register(&*store, &tier(), record("r1"), &ada()).await.unwrap();
    assert!(first.is_new && first.record.registered.is_some());
    let again = records::register(&*store, &tier(), record("r1"), &ada()).await.unwrap();
    assert!(!again.is_new);
    assert_eq!(again.record, first.record);
    let other = ReleaseRecord { digest: "other".into(), ..record("r1") };
    let error = records::register(&*store, &tier(), other, &ada()).await.unwrap_err();
    assert!(matches!(&error, RecordError::Conflict { there, .. } if **there == first.record), "{error}");
    assert_eq!(events(&*store, "release.").await, ["release.registered"]);
    assert_eq!(records::read(&*store, &tier(), &release("r2")).await.unwrap(), None);
}

/// Its process died between the record and its line.
async fn a_line_that_is_missing_is_made_up_for(engine: Engine) {
    let place = Place::new(engine);
    let store = place.open().await;
    put(&*store, "r1", &serde_json::to_string(&record("r1")).unwrap()).await;
    let made_up = records::register(&*store, &tier(), record("r1"), &ada()).await.unwrap();
    assert!(!made_up.is_new && made_up.record.registered.is_some());
    records::register(&*store, &tier(), record("r1"), &ada()).await.unwrap();
    assert_eq!(events(&*store, "release.").await, ["release.registered"]);
}

async fn changes_of_many_at_once_are_all_there(engine: Engine) {
    let place = Place::new(engine);
    let store = place.open().await;
    records::register(&*store, &tier(), record("r1"), &ada()).await.unwrap();
    let changes = (0..4).map(|n| {
        let store: Arc<dyn Store> = Arc::clone(&store);
        tokio::spawn(async move {
            let key = format!("of-{n}");
            let change = |record: &mut ReleaseRecord| drop(record.more.insert(key.clone(), json!(n)));
            records::update(&*store, &tier(), &release("r1"), change).await.unwrap();
        })
    });
    for change in changes.collect::<Vec<_>>() {
        change.await.unwrap();
    }
    let there = records::read(&*store, &tier(), &release("r1")).await.unwrap().unwrap();
    assert_eq!(there.more.len(), 4, "{there:?}");
    let version = async || store.record(&tier(), Space::Release, "r1").await.unwrap().unwrap().version;
    let before = version().await;
    records::update(&*store, &tier(), &release("r1"), |_| {}).await.unwrap();
    assert_eq!(version().await, before, "what changes nothing writes nothing");
    let unknown = records::update(&*store, &tier(), &release("r2"), |_| {}).await.unwrap_err();
    assert!(matches!(unknown, RecordError::Unknown { .. }), "{unknown}");
}

/// The store's schema only grows: an older version shares it.
async fn what_a_newer_version_wrote_survives_or_is_left_alone(engine: Engine) {
    let place = Place::new(engine);
    let store = place.open().await;
    let mut newer = json!(record("r1"));
    newer["ramp"] = json!([1, 2]);
    put(&*store, "r1", &newer.to_string()).await;
    put(&*store, "r2", "{\"format\":2,\"release\":\"r2\"}").await;
    put(&*store, "r3", "not JSON").await;
    let change = |record: &mut ReleaseRecord| record.state = ReleaseState::Standby;
    records::update(&*store, &tier(), &release("r1"), change).await.unwrap();
    let there = store.record(&tier(), Space::Release, "r1").await.unwrap().unwrap().value;
    let there: serde_json::Value = serde_json::from_str(&there).unwrap();
    assert_eq!((&there["ramp"], &there["state"]), (&json!([1, 2]), &json!("standby")));
    let error = records::update(&*store, &tier(), &release("r2"), change).await.unwrap_err().to_string();
    assert!(error.contains("`r2` cannot be read: its format is 2"), "{error}");
    let listing = records::list(&*store, &tier()).await.unwrap();
    assert_eq!(listing.records.len(), 1);
    let unreadable: BTreeSet<&str> = listing.unreadable.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(unreadable, BTreeSet::from(["r2", "r3"]));
}

async fn a_pin_is_set_and_lifted_once(engine: Engine) {
    let place = Place::new(engine);
    let store = place.open().await;
    records::register(&*store, &tier(), record("r1"), &ada()).await.unwrap();
    for (pinned, changed) in [(true, true), (true, false), (false, true), (false, false)] {
        let did = records::pin(&*store, &tier(), &release("r1"), pinned, &ada()).await.unwrap();
        assert_eq!(did, changed, "{pinned}");
        let there = records::read(&*store, &tier(), &release("r1")).await.unwrap().unwrap();
        assert_eq!(there.pinned.is_some(), pinned);
    }
    let told = events(&*store, "release.").await;
    assert_eq!(told, ["release.registered", "release.pinned", "release.unpinned"]);
    assert!(records::pin(&*store, &tier(), &release("r2"), true, &ada()).await.is_err());
}

on_both! {
    #[tokio::test] async:
        a_name_has_one_content_and_one_line_in_the_ledger
        a_line_that_is_missing_is_made_up_for
        changes_of_many_at_once_are_all_there
        what_a_newer_version_wrote_survives_or_is_left_alone
        a_pin_is_set_and_lifted_once;
}

#[test]
fn what_can_be_gone_back_to_is_verified_and_has_not_failed_since() {
    let at = |name: &str, ms: i64, state: ReleaseState| ReleaseRecord {
        verified_at: Some(Timestamp::from_ms(ms)),
        state,
        ..record(name)
    };
    let records = [
        at("r1", 10, ReleaseState::Verified),
        at("r2", 30, ReleaseState::RolledBack),
        at("r3", 20, ReleaseState::Provisional),
        record("r4"),
    ];
    let found: Vec<&Release> =
        records::verified(&records).into_iter().map(|record| &record.release).collect();
    assert_eq!(
        found,
        [&release("r3"), &release("r1")],
        "newest first; one that is deployed again still counts"
    );
}
