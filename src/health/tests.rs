//! The truth table, row by row.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Ask, Facts, Memory, Past, Probe, Status, Thresholds, judge};
use crate::activation::WorkerState;
use crate::clock::Timestamp;

const fn s(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// An idle active worker that was last busy an hour ago.
fn idle() -> Facts {
    Facts {
        now: Timestamp::from_ms(1_768_036_445_000),
        worker: "w-1".into(),
        release: "r-2031".into(),
        state: WorkerState::Active,
        state_age: s(7_200),
        reason: None,
        slots: 8,
        busy: 0,
        stuck: 0,
        runtime_age: Duration::from_millis(2),
        claim_age: Some(s(1)),
        progress_age: Some(s(3_600)),
        loop_age: s(1),
        free_age: Some(s(3_600)),
        backlog_age: None,
        store_down: None,
    }
}

fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = idle();
    change(&mut facts);
    facts
}

/// The rows of the truth table that are judged so far, with the expected answer of each probe.
#[test]
fn the_truth_table() {
    use Status::{Fail, Pass, Warn};
    use WorkerState as W;
    let down = |secs| Some(("connection refused".to_owned(), s(secs)));
    let stalled = |f: &mut Facts| (f.backlog_age, f.progress_age) = (Some(s(94)), Some(s(94)));
    let rows: Vec<(&str, Facts, Status, Status)> = vec![
        ("idle is healthy", idle(), Pass, Pass),
        ("runtime blocked", with(|f| f.runtime_age = s(5)), Fail, Fail),
        ("runtime late, not yet blocked", with(|f| f.runtime_age = s(4)), Pass, Pass),
        ("all slots stuck", with(|f| (f.busy, f.stuck, f.free_age) = (8, 8, None)), Fail, Fail),
        ("some slots stuck", with(|f| (f.busy, f.stuck) = (8, 7)), Warn, Warn),
        ("starting", with(|f| (f.state, f.state_age, f.claim_age) = (W::Starting, s(1), None)), Pass, Fail),
        ("inactive", with(|f| f.state = W::Inactive), Pass, Fail),
        ("quiet", with(|f| (f.state, f.claim_age) = (W::Quiet, Some(s(900)))), Pass, Fail),
        ("stopping", with(|f| f.state = W::Stopping), Pass, Fail),
        ("stopped", with(|f| f.state = W::Stopped), Pass, Fail),
        ("claims unanswered", with(|f| f.claim_age = Some(s(15))), Pass, Fail),
        ("never an answered claim", with(|f| f.claim_age = None), Pass, Fail),
        (
            "claim loop dead under full slots",
            with(|f| (f.busy, f.free_age, f.loop_age) = (8, None, s(60))),
            Pass,
            Fail,
        ),
        ("resumed a second ago", with(|f| (f.state_age, f.claim_age) = (s(1), Some(s(900)))), Pass, Pass),
        (
            "busy for two hours",
            with(|f| {
                (f.busy, f.free_age, f.backlog_age) = (8, None, Some(s(7_200)));
                (f.claim_age, f.progress_age) = (Some(s(7_200)), Some(s(7_200)));
            }),
            Pass,
            Pass,
        ),
        (
            "a slot came free a second ago",
            with(|f| {
                (f.busy, f.free_age, f.backlog_age) = (7, Some(s(1)), Some(s(7_200)));
                (f.claim_age, f.progress_age) = (Some(s(7_200)), Some(s(1)));
            }),
            Pass,
            Pass,
        ),
        ("no progress: the airflow case", with(stalled), Warn, Fail),
        ("first job after an idle hour", with(|f| f.backlog_age = Some(s(0))), Pass, Pass),
        (
            "a backlog that is being worked",
            with(|f| (f.backlog_age, f.progress_age) = (Some(s(9_000)), Some(s(0)))),
            Pass,
            Pass,
        ),
        (
            "no progress, but became active just now",
            with(|f| {
                stalled(f);
                f.state_age = s(3)
            }),
            Pass,
            Pass,
        ),
        (
            "no progress, but standing by",
            with(|f| {
                stalled(f);
                f.state = W::Inactive
            }),
            Pass,
            Fail,
        ),
        ("store away, within the grace", with(|f| f.store_down = down(4)), Warn, Warn),
        ("store away", with(|f| f.store_down = down(41)), Warn, Fail),
    ];
    for (name, facts, live, ready) in rows {
        for (probe, wanted) in [(Probe::Live, live), (Probe::Ready, ready)] {
            let verdict = judge(&probe.into(), Some(&facts), &Thresholds::default());
            assert_eq!(verdict.status, wanted, "{name}: {probe:?}: {verdict:?}");
            assert_eq!(verdict.output.is_empty(), wanted == Pass, "{name}: {probe:?}: {verdict:?}");
            assert_eq!(verdict.is_yes(), wanted != Fail);
        }
    }
}

#[test]
fn no_facts_are_no_evidence() {
    let judged = |probe: Probe| judge(&probe.into(), None, &Thresholds::default());
    assert_eq!(judged(Probe::Live).status, Status::Warn);
    assert_eq!(judged(Probe::Ready).status, Status::Fail);
    assert!(judged(Probe::Ready).to_text(false).contains("not started"));
}

#[test]
fn another_release_than_the_expected_one_is_not_ready() {
    let ask = |release: &str| Ask { probe: Probe::Ready, release: Some(release.to_owned()) };
    let judged = |release: &str| judge(&ask(release), Some(&idle()), &Thresholds::default());
    assert_eq!(judged("r-2031").status, Status::Pass);
    assert_eq!(judged("r-2032").status, Status::Fail);
    assert!(judged("r-2032").output.contains("`r-2031`, not `r-2032`"));
}

#[test]
fn the_json_has_the_shape_of_health_json() -> serde_json::Result<()> {
    let facts = with(|f| {
        (f.state, f.state_age) = (WorkerState::Inactive, s(1));
        f.reason = Some("release `r-2030` is active".to_owned());
    });
    let verdict = judge(&Probe::Ready.into(), Some(&facts), &Thresholds::default());
    let body: Value = serde_json::from_str(&verdict.to_json()?)?;
    assert_eq!(body["status"], "fail");
    assert_eq!((&body["releaseId"], &body["serviceId"]), (&json!("r-2031"), &json!("worker/w-1")));
    assert_eq!(body["output"], "worker is inactive for 1.0 s: release `r-2030` is active");
    let check = &body["checks"]["worker:activation"][0];
    assert_eq!((&check["observedValue"], &check["status"]), (&json!("inactive"), &json!("fail")));
    assert_eq!(check["since"], "2026-01-10T09:14:04.000Z");
    assert_eq!(body["checks"]["runtime:tick"][0]["limit"], 5.0);
    Ok(())
}

#[test]
fn text_is_short_when_all_is_well() {
    let verdict = |facts: &Facts| judge(&Probe::Ready.into(), Some(facts), &Thresholds::default());
    assert_eq!(verdict(&idle()).to_text(false), "ok\n");
    let text = verdict(&idle()).to_text(true);
    assert!(text.starts_with("[+]runtime ok\n") && text.ends_with("readyz check passed\n"), "{text}");
    let text = verdict(&with(|f| f.state = WorkerState::Quiet)).to_text(false);
    assert!(text.contains("[-]activation failed: worker is quiet for 2h 00m"), "{text}");
    assert!(text.ends_with("readyz check failed\n"), "{text}");
}

fn snapshot(busy: u32, backlog: bool, ticks: u64) -> Result<crate::worker::Facts, crate::names::BadName> {
    let (name, release) = (crate::names::WorkerName::new("w-1")?, crate::names::Release::default());
    let presence = crate::store::Presence {
        state: WorkerState::Active,
        state_age: s(60),
        slots: 8,
        busy,
        ticks,
        ..crate::store::Presence::new(name, crate::ids::Nonce::new(), release)
    };
    Ok(crate::worker::Facts {
        presence,
        managed: true,
        activation: None,
        store_down: None,
        backlog,
        unsettled: 0,
        lost: 0,
    })
}

#[test]
fn what_was_seen_before_is_remembered_until_it_ends() -> Result<(), crate::names::BadName> {
    let (memory, begin) = (Memory::default(), crate::clock::instant());
    let look =
        |at, busy, backlog, ticks| Ok(memory.remember(&snapshot(busy, backlog, ticks)?, begin + s(at)));
    let past = |looped, free: Option<u64>, backlog: Option<u64>| Past {
        loop_age: s(looped),
        free_age: free.map(s),
        backlog_age: backlog.map(s),
    };
    assert_eq!(look(0, 0, true, 5)?, past(0, Some(0), Some(0)), "the first look has no past");
    assert_eq!(look(10, 7, true, 6)?, past(0, Some(10), Some(10)));
    assert_eq!(look(20, 8, true, 6)?, past(10, None, Some(20)), "full");
    assert_eq!(look(30, 7, false, 6)?, past(20, Some(0), None), "a slot came free, and the backlog is gone");
    assert_eq!(look(31, 7, true, 7)?, past(0, Some(1), Some(0)));
    Ok(())
}
