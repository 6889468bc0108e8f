//! The truth table, row by row.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Ask, Facts, Memory, Past, Probe, SlowQueue, Status, Thresholds, Verdict, judge};
use crate::activation::{Activation, Mode, WorkerState};
use crate::clock::Timestamp;
use crate::job::State;
use crate::names::{Kind, Queue, Release};
use crate::store::{Census, Failing, Fault, FaultCode, QueueCensus, Quiet};

const fn s(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// An idle active worker that was last busy an hour ago.
fn idle() -> Facts {
    Facts {
        now: Timestamp::from_ms(1_768_036_445_000),
        tier: None,
        worker: "w-1".into(),
        release: "r-2031".into(),
        state: WorkerState::Active,
        state_age: s(7_200),
        reason: None,
        managed: true,
        other: None,
        fault: None,
        quiet: None,
        started: true,
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
        canary_age: Some(s(3)),
        canary_error: None,
        failing: Vec::new(),
        slow_queues: Vec::new(),
        eligible: None,
    }
}

fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = idle();
    change(&mut facts);
    facts
}

/// Standing by while another release is active.
fn standby(change: impl FnOnce(&mut Facts)) -> Facts {
    with(|f| {
        f.state = WorkerState::Inactive;
        f.reason = Some("release `r-2030` is active".to_owned());
        f.other = Some(activation("r-2030"));
        change(f);
    })
}

fn activation(release: &str) -> Activation {
    Activation {
        generation: 7,
        release: Release::new(release).unwrap_or_default(),
        mode: Mode::Committed,
        confirm_by: None,
        fallback: None,
        deploy: Some("d-118".to_owned()),
        since: Timestamp::default(),
    }
}

fn broken(code: FaultCode) -> Option<Fault> {
    let detail = "hook post-activate: /opt/app/bin/register: not found".to_owned();
    Some(Fault { code, detail, at: Timestamp::from_ms(1_768_036_444_000) })
}

fn told(until: Option<u64>) -> Option<Quiet> {
    Some(Quiet {
        owner: "ada@ops".to_owned(),
        reason: "INC-1".to_owned(),
        until: until.map(|secs| idle().now.plus(s(secs))),
    })
}

fn failing(kind: &str) -> Failing {
    Failing {
        kind: Kind::new(kind).unwrap_or_else(|_| unreachable!()),
        since: Timestamp::from_ms(1_768_036_400_000),
        attempts: 12,
        failed: 11,
        baseline: 0.004,
        error: "connection refused\u{1b}[2J".to_owned(),
    }
}

fn slow() -> SlowQueue {
    SlowQueue { queue: Queue::new("mail").unwrap_or_default(), wait: s(78), slo: s(60) }
}

type Row = (&'static str, Facts, [Status; 4]);

/// The truth table, as far as one worker can answer: live, ready, staged, deploy.
fn truth() -> Vec<Row> {
    use Status::{Fail, Pass, Warn};
    use WorkerState as W;
    let down = |secs| Some(("connection refused".to_owned(), s(secs)));
    let stalled = |f: &mut Facts| (f.backlog_age, f.progress_age) = (Some(s(94)), Some(s(94)));
    let starting = |f: &mut Facts| (f.state, f.started, f.canary_age) = (W::Starting, false, None);
    let busy = |f: &mut Facts| {
        (f.busy, f.free_age, f.backlog_age) = (8, None, Some(s(7_200)));
        (f.claim_age, f.progress_age) = (Some(s(7_200)), Some(s(7_200)));
    };
    vec![
        ("idle is healthy", idle(), [Pass; 4]),
        // runtime loop ticks
        ("runtime blocked", with(|f| f.runtime_age = s(5)), [Fail; 4]),
        ("runtime late, not yet blocked", with(|f| f.runtime_age = s(4)), [Pass; 4]),
        // stuck slots
        ("all slots stuck", with(|f| (f.busy, f.stuck, f.free_age) = (8, 8, None)), [Fail; 4]),
        ("some slots stuck", with(|f| (f.busy, f.stuck) = (8, 7)), [Warn; 4]),
        // activation
        ("starting", with(starting), [Pass, Fail, Fail, Fail]),
        ("starting, for long", with(|f| (starting(f), f.claim_age = None).0), [Pass, Fail, Fail, Fail]),
        ("standing by, proven", standby(|_| {}), [Pass, Fail, Pass, Fail]),
        ("standing by, no release is active yet", standby(|f| f.other = None), [Pass, Fail, Pass, Fail]),
        (
            "no release is active, and it names none",
            standby(|f| (f.other, f.managed) = (None, false)),
            [Pass, Fail, Fail, Fail],
        ),
        ("standing by, never proven", standby(|f| f.canary_age = None), [Pass, Fail, Fail, Fail]),
        (
            "standing by, and its canary is late",
            standby(|f| f.canary_age = Some(s(36))),
            [Pass, Fail, Warn, Fail],
        ),
        ("standing by, with a blocked runtime", standby(|f| f.runtime_age = s(5)), [Fail; 4]),
        (
            "standing by, and its claims are unanswered",
            standby(|f| f.claim_age = Some(s(15))),
            [Pass, Fail, Fail, Fail],
        ),
        (
            "inactive although its own release is active",
            standby(|f| f.other = Some(activation("r-2031"))),
            [Pass, Fail, Fail, Fail],
        ),
        // hook integrity, self-test
        (
            "the hook failed",
            standby(|f| f.fault = broken(FaultCode::ActivationHookFailed)),
            [Pass, Fail, Fail, Fail],
        ),
        (
            "the self-test failed",
            with(|f| (starting(f), f.fault = broken(FaultCode::SelfTestFailed)).0),
            [Pass, Fail, Fail, Fail],
        ),
        (
            "the store went back",
            standby(|f| f.fault = broken(FaultCode::StoreWentBack)),
            [Pass, Fail, Fail, Fail],
        ),
        // quiet and stopping
        (
            "quiet",
            with(|f| (f.state, f.claim_age, f.quiet) = (W::Quiet, Some(s(900)), told(Some(60)))),
            [Pass, Fail, Fail, Fail],
        ),
        (
            "quiet without a deadline",
            with(|f| (f.state, f.quiet) = (W::Quiet, told(None))),
            [Pass, Fail, Fail, Fail],
        ),
        ("stopping", with(|f| f.state = W::Stopping), [Pass, Fail, Fail, Fail]),
        ("stopped", with(|f| f.state = W::Stopped), [Pass, Fail, Fail, Fail]),
        // claim loop
        ("claims unanswered", with(|f| f.claim_age = Some(s(15))), [Pass, Fail, Fail, Fail]),
        ("never an answered claim", with(|f| f.claim_age = None), [Pass, Fail, Fail, Fail]),
        (
            "claim loop dead under full slots",
            with(|f| (f.busy, f.free_age, f.loop_age) = (8, None, s(60))),
            [Pass, Fail, Fail, Fail],
        ),
        ("resumed a second ago", with(|f| (f.state_age, f.claim_age) = (s(1), Some(s(900)))), [Pass; 4]),
        // long-running jobs: never
        ("busy for two hours", with(busy), [Pass; 4]),
        (
            "a slot came free a second ago",
            with(|f| {
                busy(f);
                (f.busy, f.free_age, f.progress_age) = (7, Some(s(1)), Some(s(1)));
            }),
            [Pass; 4],
        ),
        // progress
        ("no progress: the airflow case", with(stalled), [Warn, Fail, Fail, Fail]),
        ("first job after an idle hour", with(|f| f.backlog_age = Some(s(0))), [Pass; 4]),
        (
            "a backlog that is being worked",
            with(|f| (f.backlog_age, f.progress_age) = (Some(s(9_000)), Some(s(0)))),
            [Pass; 4],
        ),
        (
            "no progress, but became active just now",
            with(|f| {
                stalled(f);
                f.state_age = s(3)
            }),
            [Pass; 4],
        ),
        ("no progress, but standing by", standby(stalled), [Pass, Fail, Pass, Fail]),
        // store
        ("store away, within the grace", with(|f| f.store_down = down(4)), [Warn; 4]),
        ("store away", with(|f| f.store_down = down(41)), [Warn, Fail, Fail, Fail]),
        // canary: only a deploy fails for it
        ("canary in time", with(|f| f.canary_age = Some(s(35))), [Pass; 4]),
        ("canary late", with(|f| f.canary_age = Some(s(36))), [Pass, Warn, Warn, Fail]),
        ("canary failed", with(|f| f.canary_error = Some("timed out".into())), [Pass, Warn, Warn, Fail]),
        ("no canary yet", with(|f| f.canary_age = None), [Pass, Pass, Pass, Fail]),
        (
            "no canary yet, because it fails",
            with(|f| (f.canary_age, f.canary_error) = (None, Some("timed out".into()))),
            [Pass, Warn, Warn, Fail],
        ),
        // outcomes
        ("a kind fails", with(|f| f.failing = vec![failing("mail")]), [Pass, Warn, Warn, Fail]),
        // queue latency
        ("a queue over its limit", with(|f| f.slow_queues = vec![slow()]), [Pass, Warn, Warn, Warn]),
    ]
}

#[test]
fn the_truth_table() {
    for (name, facts, wanted) in truth() {
        let probes = [Probe::Live, Probe::Ready, Probe::Staged, Probe::Deploy];
        for (probe, wanted) in probes.into_iter().zip(wanted) {
            let verdict = judged(probe, &facts);
            assert_eq!(verdict.status, wanted, "{name}: {probe:?}: {verdict:?}");
            assert_eq!(verdict.output.is_empty(), wanted == Status::Pass, "{name}: {probe:?}: {verdict:?}");
            assert_eq!(verdict.is_yes(), wanted != Status::Fail);
            for check in verdict.checks.iter().filter(|check| check.status > Status::Pass) {
                assert!(
                    check.code.is_some() && check.output.is_some() && check.hint.is_some(),
                    "{name}: {check:?}"
                );
            }
        }
        assert_eq!(judged(Probe::Startup, &facts).is_yes(), facts.started, "{name}");
    }
}

fn judged(probe: Probe, facts: &Facts) -> Verdict {
    judge(&probe.into(), Some(facts), &Thresholds::default())
}

/// The check of this name.
fn check(verdict: &Verdict, name: &str) -> Value {
    let check = verdict.checks.iter().find(|check| check.name == name);
    check.map(|check| json!(check)).unwrap_or_default()
}

#[test]
fn a_hook_that_failed_is_told_once_with_code_time_and_a_way_out() {
    let facts = standby(|f| {
        f.fault = broken(FaultCode::ActivationHookFailed);
        f.reason =
            Some("activation hook failed: hook post-activate: /opt/app/bin/register: not found".into());
    });
    let verdict = judged(Probe::Ready, &facts);
    assert_eq!(
        verdict.output,
        "worker is inactive for 2h 00m: activation hook failed: hook post-activate: /opt/app/bin/register: not found"
    );
    for name in ["activation", "hook"] {
        let check = check(&verdict, name);
        assert_eq!((&check["code"], &check["status"]), (&json!("ACTIVATION_HOOK_FAILED"), &json!("fail")));
        assert_eq!(check["since"], "2026-01-10T09:14:04.000Z");
        assert_eq!(check["hint"], "sluicegate deploy show d-118");
    }
    assert_eq!(check(&verdict, "hook")["output"], "hook post-activate: /opt/app/bin/register: not found");
    let other = with(|f| f.fault = broken(FaultCode::SelfTestFailed));
    assert_eq!(check(&judged(Probe::Ready, &other), "hook")["status"], "pass", "another step is no hook");
}

#[test]
fn findings_say_what_a_person_must_know() {
    let output = |facts: &Facts, name: &str| {
        let check = check(&judged(Probe::Ready, facts), name);
        check["output"].as_str().unwrap_or_default().to_owned()
    };
    let endless = with(|f| (f.state, f.quiet) = (WorkerState::Quiet, told(None)));
    assert_eq!(output(&endless, "quiet"), "quiet without a deadline: ada@ops must resume it (INC-1)");
    assert_eq!(output(&with(|f| f.quiet = told(Some(60))), "quiet"), "");
    let kinds = with(|f| f.failing = vec![failing("mail"), failing("sms")]);
    let wanted = "mail: 11 of 12 first attempts failed since 2026-01-10T09:13:20.000Z (usually 0.4 %): connection refused\\x1b[2J";
    assert_eq!(output(&kinds, "outcomes"), wanted);
    assert_eq!(judged(Probe::Ready, &kinds).checks.iter().filter(|c| c.name == "outcomes").count(), 2);
    let late = with(|f| f.slow_queues = vec![slow()]);
    assert_eq!(output(&late, "queue-latency"), "mail 1m 18s > slo 1m 00s (does not affect readiness)");
    let stalled =
        with(|f| (f.backlog_age, f.progress_age, f.eligible) = (Some(s(94)), Some(s(94)), Some(812)));
    let verdict = judged(Probe::Ready, &stalled);
    assert_eq!(
        verdict.output,
        "no job started or ended for 1m 34s although 812 jobs are eligible and 8 of 8 slots are free"
    );
    let check = check(&verdict, "progress");
    assert_eq!(
        (&check["eligible"], &check["slotsFree"], &check["limit"]),
        (&json!(812), &json!(8), &json!(30.0))
    );
}

#[test]
fn one_check_alone_and_all_but_some() {
    let facts = with(|f| (f.state, f.store_down) = (WorkerState::Quiet, Some(("away".into(), s(41)))));
    let ask = |only, exclude: &[&str]| {
        let exclude = exclude.iter().map(|name| (*name).to_owned()).collect();
        judge(&Ask { only, exclude, ..Probe::Ready.into() }, Some(&facts), &Thresholds::default())
    };
    assert_eq!(ask(Some("runtime"), &[]).to_text(false), "ok\n");
    assert!(ask(Some("store"), &[]).to_text(false).ends_with("readyz/store check failed\n"));
    assert_eq!(ask(None, &["store"]).output, "worker is quiet for 2h 00m");
    assert_eq!(ask(None, &["store", "activation", "no-such"]).status, Status::Pass);
    assert_eq!(
        Probe::Live.checks().collect::<Vec<_>>(),
        ["runtime", "slots", "utilization", "progress", "store"]
    );
    assert_eq!(Probe::Startup.checks().collect::<Vec<_>>(), ["startup"]);
}

#[test]
fn no_facts_are_no_evidence() {
    let judged = |probe: Probe| judge(&probe.into(), None, &Thresholds::default());
    assert_eq!(judged(Probe::Live).status, Status::Warn);
    for probe in [Probe::Ready, Probe::Staged, Probe::Startup, Probe::Deploy] {
        assert_eq!(judged(probe).status, Status::Fail, "{probe:?}");
    }
    assert!(judged(Probe::Ready).to_text(false).contains("not started"));
}

#[test]
fn another_release_than_the_expected_one_is_not_ready() {
    let ask = |release: &str| Ask { release: Some(release.to_owned()), ..Probe::Ready.into() };
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
    Ok(crate::worker::Facts { backlog, ..crate::worker::Facts::new(presence) })
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
        started: true,
        ..Past::default()
    };
    assert_eq!(look(0, 0, true, 5)?, past(0, Some(0), Some(0)), "the first look has no past");
    assert_eq!(look(10, 7, true, 6)?, past(0, Some(10), Some(10)));
    assert_eq!(look(20, 8, true, 6)?, past(10, None, Some(20)), "full");
    assert_eq!(look(30, 7, false, 6)?, past(20, Some(0), None), "a slot came free, and the backlog is gone");
    assert_eq!(look(31, 7, true, 7)?, past(0, Some(1), Some(0)));
    Ok(())
}

#[test]
fn started_once_is_started_for_good() -> Result<(), crate::names::BadName> {
    let (memory, now) = (Memory::default(), crate::clock::instant());
    let look = |state| {
        let mut worker = snapshot(0, false, 1)?;
        worker.presence.state = state;
        Ok::<_, crate::names::BadName>(memory.remember(&worker, now).started)
    };
    use WorkerState as W;
    for (state, started) in
        [(W::Starting, false), (W::Stopping, false), (W::Inactive, true), (W::Stopped, true)]
    {
        assert_eq!(look(state)?, started, "{state}");
    }
    Ok(())
}

#[test]
fn only_queues_that_it_serves_are_slow_and_only_while_the_count_holds() -> Result<(), crate::names::BadName> {
    let queue = |name: &str| Queue::new(name);
    let count = |name: &str, wait: u64| {
        Ok::<_, crate::names::BadName>(QueueCensus {
            queue: queue(name)?,
            states: [(State::Available, 3)].into(),
            kinds: BTreeMap::new(),
            oldest_wait: Some(s(wait)),
            inserted_total: 0,
            completed_total: 0,
            failed_total: 0,
        })
    };
    let census = Census {
        queues: vec![count("fast", 5)?, count("mail", 78)?, count("none", 900)?, count("other", 900)?],
        ..Census::default()
    };
    let slos = [(queue("fast")?, s(60)), (queue("mail")?, s(60)), (queue("other")?, s(60))];
    let (memory, at) = (Memory::new(None, slos.into()), crate::clock::instant());
    memory.counted(at, std::sync::Arc::new(census));
    let mut worker = snapshot(0, false, 1)?;
    worker.presence.queues = Some(vec![queue("fast")?, queue("mail")?, queue("none")?]);
    let past = memory.remember(&worker, at + s(10));
    assert_eq!((past.slow_queues, past.eligible), (vec![slow()], Some(9)));
    let past = memory.remember(&worker, at + s(60));
    assert_eq!((past.slow_queues, past.eligible), (vec![], None), "an old count says nothing");
    Ok(())
}
