//! The table of cases. Every row is one thing that happens to a tier, with the verdict that a pipeline must get.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::Duration;

use super::doctor::{diagnose, is_ill};
use super::simulate::{Illness, Simulation};
use super::verdict::Decision::{self, Fail, Pass, Pending, Superseded, Unknown};
use super::wait::{Patience, SETTLE};
use super::*;
use crate::activation::{Activation, Mode, WorkerState as W};
use crate::clock::Timestamp;
use crate::health::Status;
use crate::ids::Nonce;
use crate::job::State;
use crate::names::{Kind, Queue, WorkerName};
use crate::store::{
    About, Actor, Durability, ErrorKind, Failing, Fault, FaultCode, Paused, Presence, QueueCensus, Quiet,
    Seen, StoreError, Tallies, Tally, Trend,
};

const NOW: Timestamp = Timestamp::from_ms(1_768_036_445_000);
const HOUR: Duration = Duration::from_secs(3_600);

const fn s(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn release(name: &str) -> Release {
    Release::new(name).unwrap()
}

fn activation(name: &str, generation: u64) -> Activation {
    Activation {
        generation,
        release: release(name),
        mode: Mode::Committed,
        confirm_by: None,
        fallback: None,
        deploy: None,
        since: NOW.minus(HOUR),
    }
}

/// A worker that has been in its place for an hour, and is idle.
fn worker(name: &str, of: &str, state: W) -> Seen {
    let presence = Presence {
        state,
        state_age: HOUR,
        generation: 42,
        kinds: vec![(Kind::new("echo").unwrap(), 1)],
        slots: 8,
        claim_age: Some(s(1)),
        progress_age: Some(HOUR),
        canary_age: Some(s(4)),
        ..Presence::new(WorkerName::new(name).unwrap(), Nonce::new(), release(of))
    };
    Seen { presence, at: NOW.minus(s(1)), age: s(1), since: NOW.minus(HOUR) }
}

/// The same worker, silent for so long.
fn silent(mut seen: Seen, age: Duration) -> Seen {
    (seen.at, seen.age) = (NOW.minus(age), age);
    seen
}

fn joined(mut seen: Seen, ago: Duration) -> Seen {
    seen.since = NOW.minus(ago);
    seen
}

fn with(mut seen: Seen, change: impl FnOnce(&mut Presence)) -> Seen {
    change(&mut seen.presence);
    seen
}

fn queue(name: &str, kind: &str, jobs: &[(State, u64)], oldest: Option<Duration>) -> QueueCensus {
    QueueCensus {
        queue: Queue::new(name).unwrap(),
        states: jobs.iter().copied().collect(),
        kinds: [(Kind::new(kind).unwrap(), jobs.iter().copied().collect())].into(),
        oldest_wait: oldest,
        inserted_total: 0,
        completed_total: 0,
        failed_total: 0,
    }
}

fn backlog(oldest: Duration) -> QueueCensus {
    queue("default", "echo", &[(State::Available, 812)], Some(oldest))
}

/// Three idle workers of `r2`, active since an hour, with `r1` standing by.
fn tier() -> TierFacts {
    let change = |from: Option<Activation>, to: Activation| Change {
        from,
        to,
        by: Actor { who: "ada@here".into(), reason: Some("a release".into()) },
        at: NOW.minus(HOUR),
        event: "activation.flipped".into(),
    };
    let mut workers: Vec<Seen> = ["w-1", "w-2", "w-3"].map(|name| worker(name, "r2", W::Active)).into();
    workers.push(worker("old-1", "r1", W::Inactive));
    TierFacts {
        tier: Tier::default(),
        now: NOW,
        about: About {
            engine: "test",
            location: "here".into(),
            detail: String::new(),
            durability: Durability::Disk,
        },
        unwritable: None,
        activation: Some(activation("r2", 42)),
        workers,
        queues: Vec::new(),
        held: Vec::new(),
        unread: Vec::new(),
        overdue: 0,
        next_due: None,
        gone: None,
        history: vec![
            change(Some(activation("r1", 41)), activation("r2", 42)),
            change(None, activation("r1", 41)),
        ],
        registered: false,
    }
}

fn workers(of: Vec<Seen>) -> TierFacts {
    TierFacts { workers: of, ..tier() }
}

fn third(change: impl FnOnce(&mut Presence)) -> TierFacts {
    let mut facts = tier();
    change(&mut facts.workers[2].presence);
    facts
}

fn all(change: impl Fn(&mut Presence)) -> TierFacts {
    let mut facts = tier();
    facts.workers.iter_mut().take(3).for_each(|seen| change(&mut seen.presence));
    facts
}

fn jobs(mut facts: TierFacts, queues: Vec<QueueCensus>) -> TierFacts {
    facts.queues = queues;
    facts
}

fn mode(facts: TierFacts, mode: Mode, confirm_by: Timestamp) -> TierFacts {
    let current = activation("r2", 42);
    let current = Activation { mode, confirm_by: Some(confirm_by), fallback: Some(release("r1")), ..current };
    TierFacts { activation: Some(current), ..facts }
}

fn hook(presence: &mut Presence) {
    presence.state = W::Inactive;
    let detail = "bin/register: exit 127, not found".into();
    presence.fault = Some(Fault { code: FaultCode::ActivationHookFailed, detail, at: NOW.minus(s(2)) });
}

fn quiet(presence: &mut Presence) {
    presence.state = W::Quiet;
    presence.quiet = Some(Quiet { owner: "ada@here".into(), reason: "INC-4711".into(), until: None });
}

fn failing(presence: &mut Presence) {
    presence.failing = vec![Failing {
        kind: Kind::new("echo").unwrap(),
        since: NOW.minus(s(60)),
        attempts: 10,
        failed: 9,
        baseline: 0.01,
        error: "SMTP 535 authentication failed".into(),
    }];
}

/// The same tier, with a worker that `doctor --simulate` made up.
fn made_up() -> TierFacts {
    let mut facts = tier();
    facts.workers.push(worker("simulated-inactive", "r2", W::Inactive));
    facts
}

fn full_disk() -> TierFacts {
    let error = StoreError::new("probe", "sqlite:/jobs.db", ErrorKind::Full, "disk full");
    TierFacts { unwritable: Some(error), ..tier() }
}

/// Each of the three has seen so much of one kind, and none of them enough to call it failing alone.
fn spread(trends: [Trend; 3]) -> TierFacts {
    let mut facts = tier();
    for (seen, trend) in facts.workers.iter_mut().zip(trends) {
        let kind = Kind::new("echo").unwrap();
        seen.presence.tallies = Some(Tallies {
            kinds: [(kind.clone(), Tally { ok: 7, failed: 1, trend, ..Tally::default() })].into(),
            errors: [(kind, "no route".into())].into(),
            ..Tallies::default()
        });
    }
    facts
}

const FAILED: Trend = Trend { score: 203, in_a_row: 0, recent: 1, attempts: 1, failed: 1 };
const WELL: Trend = Trend { score: 0, in_a_row: 10, recent: 1, attempts: 0, failed: 0 };

/// Nobody of the release is there; the last one said goodbye so long ago, by order or not.
fn left(ago: Duration, by: Option<&str>) -> TierFacts {
    let by = by.map(|who| Actor { who: who.into(), reason: Some("INC-4711".into()) });
    TierFacts { gone: Some(Gone { worker: "w-3".into(), at: NOW.minus(ago), by }), ..workers(Vec::new()) }
}

/// The release was activated so long ago.
fn activated(ago: Duration, mut facts: TierFacts) -> TierFacts {
    if let Some(current) = &mut facts.activation {
        current.since = NOW.minus(ago);
    }
    facts
}

/// Jobs are due since then, and nobody made them available.
fn due(ago: Duration, facts: TierFacts) -> TierFacts {
    TierFacts { overdue: 7, next_due: Some(NOW.minus(ago)), ..facts }
}

/// The process of the third one was replaced so long ago, and so long ago…
fn looping(ago: &[u64]) -> TierFacts {
    let mut facts = third(|f| f.restarted = ago.iter().map(|ago| NOW.minus(s(*ago))).collect());
    facts.workers[2].since = NOW.minus(s(ago.last().copied().unwrap_or(3_600)));
    facts
}

/// Jobs of a kind that all workers know, and that this release cannot read.
fn unread(of: &str, jobs: u64, completed: Option<Duration>) -> TierFacts {
    let unread = Unread {
        kind: Kind::new("echo").unwrap(),
        release: release(of),
        jobs,
        last: NOW.minus(s(60)),
        reason: "missing field `url`".into(),
        completed: completed.map(|ago| NOW.minus(ago)),
    };
    TierFacts { unread: vec![unread], ..tier() }
}

type Row = (&'static str, TierFacts, fn(&mut GateAsk), Decision, &'static str);

fn default(_: &mut GateAsk) {}

/// Enough are active, and none of them serves `mail` but the one that is starting.
fn starting_with_the_queue() -> TierFacts {
    let mut facts = third(|f| (f.state, f.state_age) = (W::Starting, s(2)));
    for seen in facts.workers.iter_mut().take(2) {
        seen.presence.queues = Some(vec![Queue::default()]);
    }
    facts
}

/// What must not be red, however busy or quiet the tier is.
fn green() -> Vec<Row> {
    let busy = |f: &mut Presence| {
        (f.busy, f.claim_age, f.progress_age) = (8, Some(2 * HOUR), Some(2 * HOUR));
    };
    let working = |f: &mut Presence| (f.busy, f.progress_age) = (5, Some(s(0)));
    let restarted = vec![
        worker("w-1", "r2", W::Stopping),
        joined(worker("w-4", "r2", W::Active), s(3)),
        worker("w-2", "r2", W::Active),
        worker("w-3", "r2", W::Active),
    ];
    let crashed = vec![
        silent(worker("w-1", "r2", W::Active), s(30)),
        joined(worker("w-4", "r2", W::Active), s(5)),
        worker("w-2", "r2", W::Active),
    ];
    let long_gone = vec![silent(worker("w-1", "r2", W::Active), HOUR), worker("w-2", "r2", W::Active)];
    vec![
        ("idle", tier(), default, Pass, "committed at generation 42 · 3/3 active on r2 · way back r1 warm"),
        (
            "a full backlog that moves",
            jobs(all(working), vec![backlog(s(9_000))]),
            default,
            Pass,
            "oldest job 2h 30m",
        ),
        (
            "two-hour jobs in every slot",
            jobs(all(busy), vec![backlog(2 * HOUR)]),
            default,
            Pass,
            "3/3 active",
        ),
        (
            "a slot came free a second ago",
            jobs(
                all(|f| (f.busy, f.claim_age, f.progress_age) = (7, Some(2 * HOUR), Some(s(1)))),
                vec![backlog(2 * HOUR)],
            ),
            default,
            Pass,
            "3/3 active",
        ),
        ("a job that has just arrived", jobs(tier(), vec![backlog(s(2))]), default, Pass, "oldest job 2.0 s"),
        (
            "a suspect waits for the one that runs",
            jobs(
                tier(),
                vec![queue("default", "echo", &[(State::Available, 1), (State::Running, 1)], Some(HOUR))],
            ),
            default,
            Pass,
            "3/3 active",
        ),
        (
            "a queue that is held back",
            TierFacts {
                held: vec![Paused {
                    queue: Queue::default(),
                    by: Actor { who: "ada@here".into(), reason: None },
                    at: NOW.minus(HOUR),
                    until: None,
                }],
                ..jobs(tier(), vec![backlog(HOUR)])
            },
            default,
            Pass,
            "3/3 active",
        ),
        ("a rolling restart", workers(restarted), default, Pass, "3/3 active"),
        ("a crashed one came back under another name", workers(crashed), default, Pass, "w-1 vanished"),
        ("one that vanished long ago is not missed", workers(long_gone), default, Pass, "1/1 active"),
        ("one of three is quiet", third(quiet), default, Pass, "2/2 active"),
        ("some slots are stuck", third(|f| (f.busy, f.stuck) = (8, 3)), default, Pass, "3 jobs ignore"),
        (
            "a bad one beyond the number",
            third(hook),
            |ask| ask.min_active = MinActive::Count(2),
            Pass,
            "warning: w-3",
        ),
        (
            "two thirds of the workers",
            third(hook),
            |ask| ask.min_active = MinActive::Percent(66),
            Pass,
            "2/2 active",
        ),
        (
            "a dead one beyond the number",
            workers(vec![
                worker("w-1", "r2", W::Active),
                worker("w-2", "r2", W::Active),
                silent(worker("w-3", "r2", W::Active), s(10)),
            ]),
            |ask| ask.expect = Some(2),
            Pass,
            "vanished",
        ),
        (
            "provisional, when that will do",
            mode(tier(), Mode::Provisional, NOW.plus(s(10))),
            |ask| ask.allow_provisional = true,
            Pass,
            "provisional at generation 42",
        ),
        ("a late queue, when nobody asks", jobs(all(working), vec![backlog(s(90))]), default, Pass, "3/3"),
        ("every queue is served", tier(), |ask| ask.queues = vec![Queue::default()], Pass, "3/3"),
        ("one crash", looping(&[30]), default, Pass, "way back r1 warm"),
        ("two crashes", looping(&[60, 30]), default, Pass, "warning: w-3: replaced 2 times lately"),
        ("crashes that are over", looping(&[280, 250, 220]), default, Pass, "warning: w-3: replaced 3 times"),
        ("crashes of long ago", looping(&[720, 660, 601]), default, Pass, "way back r1 warm"),
        ("a failure at two of three", spread([FAILED, FAILED, WELL]), default, Pass, "3/3 active"),
        (
            "some jobs that cannot be read, and others of the kind are done",
            unread("r2", 6, Some(s(30))),
            default,
            Pass,
            "warning: 6 jobs of kind `echo` are parked",
        ),
        (
            "one job that cannot be read",
            unread("r2", 1, None),
            default,
            Pass,
            "warning: 1 jobs of kind `echo`",
        ),
        ("jobs that another release could not read", unread("r1", 6, None), default, Pass, "3/3 active"),
        (
            "no way back",
            workers(vec![worker("w-1", "r2", W::Active)]),
            default,
            Pass,
            "way back `r1`: no living",
        ),
    ]
}

/// What is not decided: nothing of it is a pass, and nothing of it a failure.
fn open() -> Vec<Row> {
    let standing_by = || {
        let workers = ["n-1", "n-2"].map(|name| worker(name, "r3", W::Inactive)).into_iter();
        TierFacts { workers: tier().workers.into_iter().chain(workers).collect(), ..tier() }
    };
    let asks_r3: fn(&mut GateAsk) = |ask| ask.release = release("r3");
    let fresh = || {
        let mut facts = all(|f| (f.state, f.state_age) = (W::Inactive, HOUR));
        if let Some(current) = &mut facts.activation {
            current.since = NOW.minus(s(2));
        }
        facts
    };
    vec![
        (
            "standing by, not activated",
            standing_by(),
            asks_r3,
            Pending,
            "release `r2` is active (generation 42) · 2/2 inactive and proven on r3",
        ),
        (
            "standing by, not all there",
            standing_by(),
            |ask| (ask.release, ask.expect) = (release("r3"), Some(6)),
            Pending,
            "2/6 inactive",
        ),
        (
            "nothing was ever activated",
            TierFacts { activation: None, history: Vec::new(), ..tier() },
            default,
            Pending,
            "nothing is active in tier `default` yet",
        ),
        (
            "registered, and nobody is there",
            TierFacts { registered: true, ..tier() },
            asks_r3,
            Pending,
            "0/1 inactive",
        ),
        ("flipped two seconds ago", fresh(), default, Pending, "0/3 active on r2, 3 inactive"),
        (
            "one is starting",
            third(|f| (f.state, f.state_age) = (W::Starting, s(2))),
            default,
            Pending,
            "2/3 active on r2, 1 starting",
        ),
        (
            "one has just become inactive",
            third(|f| (f.state, f.state_age) = (W::Inactive, s(1))),
            default,
            Pending,
            "2/3 active on r2, 1 inactive",
        ),
        (
            "no canary has returned",
            third(|f| f.canary_age = None),
            default,
            Pending,
            "w-3: the first canary has not returned yet",
        ),
        ("none of them proved anything", all(|f| f.canary_age = None), default, Pending, "w-1, w-2, w-3"),
        ("more are expected", tier(), |ask| ask.expect = Some(4), Pending, "3/4 active"),
        ("more are asked for", tier(), |ask| ask.min_active = MinActive::Count(6), Pending, "3/6 active"),
        ("has not heard of this activation", all(|f| f.generation = 41), default, Pending, "0/3 active"),
        (
            "provisional",
            mode(tier(), Mode::Provisional, NOW.plus(s(10))),
            default,
            Pending,
            "provisional at generation 42, reverts to `r1`",
        ),
        ("all are restarting, nothing waits", left(s(9), None), default, Pending, "0/1 active on r2"),
        (
            "the last one is on its way out",
            workers(vec![worker("w-1", "r2", W::Stopping)]),
            default,
            Pending,
            "0/1 active on r2",
        ),
        (
            "activated ahead of its workers",
            activated(s(59), workers(Vec::new())),
            default,
            Pending,
            "0/1 active on r2",
        ),
        (
            "activated again, ahead of its workers",
            activated(s(59), left(HOUR, None)),
            default,
            Pending,
            "0/1 active on r2",
        ),
        ("jobs will be due", due(s(2), left(s(3), None)), default, Pending, "0/1 active"),
        (
            "the same, and a job has just come",
            jobs(left(s(3), None), vec![backlog(s(2))]),
            default,
            Pending,
            "0/1 active",
        ),
        (
            "the queue's worker is still starting",
            starting_with_the_queue(),
            |ask| {
                ask.min_active = MinActive::Count(2);
                ask.queues = vec![Queue::new("mail").unwrap()];
            },
            Pending,
            "no active worker of r2 serves queue `mail`",
        ),
    ]
}

/// What must be red, with its reason.
fn red() -> Vec<Row> {
    let narrow = |f: &mut Presence| f.queues = Some(vec![Queue::new("other").unwrap()]);
    let dead = || {
        let silent = |seen| silent(seen, s(10));
        workers(tier().workers.into_iter().map(silent).collect())
    };
    vec![
        (
            "StatusPage: all of them up and inactive",
            all(|f| (f.state, f.reason) = (W::Inactive, Some("the hook has not run".into()))),
            default,
            Fail,
            "0/3 active on r2; w-1, w-2, w-3: inactive: the hook has not run",
        ),
        (
            "one of three is inactive",
            third(|f| f.state = W::Inactive),
            default,
            Fail,
            "2/3 active on r2; w-3: inactive",
        ),
        (
            "one never comes up",
            third(|f| (f.state, f.state_age) = (W::Starting, s(61))),
            default,
            Fail,
            "w-3: starting",
        ),
        ("a hook failed", third(hook), default, Fail, "w-3: ACTIVATION_HOOK_FAILED: bin/register: exit 127"),
        (
            "a hook failed while standing by",
            workers(vec![with(worker("n-1", "r3", W::Inactive), hook)]),
            |ask| ask.release = release("r3"),
            Fail,
            "ACTIVATION_HOOK_FAILED",
        ),
        (
            "a canary failed",
            third(|f| f.canary_error = Some("timed out".into())),
            default,
            Fail,
            "its canary failed: timed out",
        ),
        ("canaries stopped", third(|f| f.canary_age = Some(s(36))), default, Fail, "do not return any more"),
        (
            "airflow: claims are not answered",
            third(|f| f.claim_age = Some(s(15))),
            default,
            Fail,
            "no claim of it was answered",
        ),
        (
            "a claim loop that is dead",
            third(|f| f.loop_age = s(7)),
            default,
            Fail,
            "its claim loop does not turn any more",
        ),
        (
            "never an answered claim",
            third(|f| f.claim_age = None),
            default,
            Fail,
            "no claim of it was answered",
        ),
        (
            "it tells of no progress itself",
            third(|f| f.stalled = Some(s(30))),
            default,
            Fail,
            "it starts none",
        ),
        (
            "jobs wait and nobody starts any",
            jobs(tier(), vec![backlog(s(31))]),
            default,
            Fail,
            "812 jobs wait in queue `default`, 24 slots are free",
        ),
        (
            "a queue that nobody serves",
            jobs(all(narrow), vec![backlog(s(7))]),
            default,
            Fail,
            "no active worker serves it",
        ),
        (
            "all slots of one are stuck",
            third(|f| (f.busy, f.stuck) = (8, 8)),
            default,
            Fail,
            "ignore their cancellation",
        ),
        ("a blocked runtime", third(|f| f.runtime_age = s(5)), default, Fail, "does not tick"),
        (
            "SupportBee: jobs run and all fail",
            third(failing),
            |ask| ask.min_active = MinActive::Count(1),
            Fail,
            "jobs of kind `echo` fail on r2 since 2026-01-10T09:13:05.000Z: SMTP 535",
        ),
        (
            "a kind that nobody knows",
            jobs(tier(), vec![queue("default", "digest_email", &[(State::Scheduled, 1)], None)]),
            default,
            Fail,
            "jobs of kind `digest_email` wait",
        ),
        (
            "a parked kind that nobody knows",
            jobs(tier(), vec![queue("default", "x", &[(State::Parked, 1)], None)]),
            default,
            Fail,
            "kind `x`",
        ),
        (
            "the first attempt at each of three workers failed",
            spread([FAILED, FAILED, FAILED]),
            default,
            Fail,
            "jobs of kind `echo` fail on r2, 3 of 3 first attempts at 3 workers: no route",
        ),
        (
            "no job of a kind can be read",
            unread("r2", 6, Some(s(90))),
            default,
            Fail,
            "6 jobs of kind `echo` are parked, r2 cannot read them, and none was done since: missing field `url`",
        ),
        (
            "a queue that was asked for",
            all(narrow),
            |ask| ask.queues = vec![Queue::new("mail").unwrap()],
            Fail,
            "serves queue `mail`",
        ),
        (
            "one was killed",
            TierFacts {
                workers: dead()
                    .workers
                    .into_iter()
                    .take(1)
                    .chain(tier().workers.into_iter().skip(1))
                    .collect(),
                ..tier()
            },
            default,
            Fail,
            "w-1: vanished while active",
        ),
        ("all of them were killed", dead(), default, Fail, "w-1, w-2, w-3: vanished while active"),
        (
            "two were killed, one came back",
            workers(vec![
                silent(worker("w-1", "r2", W::Active), s(30)),
                silent(worker("w-2", "r2", W::Active), s(30)),
                joined(worker("w-3", "r2", W::Active), s(5)),
            ]),
            default,
            Fail,
            "1/2 active",
        ),
        (
            "all of them are quiet",
            all(quiet),
            default,
            Fail,
            "w-1, w-2, w-3 told to be quiet by ada@here (INC-4711), until resumed",
        ),
        (
            "nobody is there and jobs wait",
            jobs(workers(Vec::new()), vec![backlog(s(10))]),
            default,
            Fail,
            "no worker of it lives, and 812 jobs wait",
        ),
        (
            "nobody is there, and nothing waits",
            left(s(10), None),
            default,
            Fail,
            "0/1 active on r2: no worker of it lives: w-3 stopped, and nobody took its place",
        ),
        (
            "the last one was ordered to stop",
            left(HOUR - s(1), Some("ada@here")),
            default,
            Fail,
            "w-3 stopped, told so by ada@here (INC-4711), and nobody",
        ),
        (
            "the last one was quiet, and died",
            workers(vec![silent(with(worker("w-1", "r2", W::Active), quiet), s(30))]),
            default,
            Fail,
            "w-1 was told to be quiet by ada@here (INC-4711), until resumed, and vanished",
        ),
        (
            "the last one vanished long ago",
            workers(vec![silent(worker("w-1", "r2", W::Active), s(700))]),
            default,
            Fail,
            "w-1 vanished while active and did not say goodbye, and nobody",
        ),
        (
            "the last one was killed while it stopped",
            workers(vec![silent(worker("w-1", "r2", W::Stopping), s(30))]),
            default,
            Fail,
            "w-1 vanished while it stopped",
        ),
        (
            "activated, and nobody came",
            activated(s(60), workers(Vec::new())),
            default,
            Fail,
            "none has come since it was activated",
        ),
        (
            "nobody is there and jobs are due",
            due(s(10), left(s(9), None)),
            default,
            Fail,
            "no worker of it lives, and 7 jobs wait",
        ),
        (
            "a crash loop",
            looping(&[90, 60, 30]),
            default,
            Fail,
            "w-3: its process was replaced 3 times or more within 10m 00s",
        ),
        (
            "an overdue provisional one",
            mode(tier(), Mode::Provisional, NOW.minus(s(6))),
            |ask| ask.allow_provisional = true,
            Fail,
            "overdue",
        ),
        ("a full disk", full_disk(), default, Fail, "disk full"),
        (
            "a late queue, when somebody asks",
            jobs(all(|f| (f.busy, f.progress_age) = (5, Some(s(0)))), vec![backlog(s(61))]),
            |ask| ask.slo = Some(rules::SLO),
            Fail,
            "waits longer than 1m 00s",
        ),
        (
            "a late queue that may be late",
            jobs(all(|f| (f.busy, f.progress_age) = (5, Some(s(0)))), vec![backlog(s(61))]),
            |ask| (ask.slo, ask.slos) = (Some(rules::SLO), [(Queue::new("default").unwrap(), s(90))].into()),
            Pass,
            "",
        ),
        (
            "a late queue that may not be as late as others",
            jobs(all(|f| (f.busy, f.progress_age) = (5, Some(s(0)))), vec![backlog(s(31))]),
            |ask| (ask.slo, ask.slos) = (Some(rules::SLO), [(Queue::new("default").unwrap(), s(30))].into()),
            Fail,
            "waits longer than 30.0 s",
        ),
        (
            "a made-up worker, in a share",
            made_up(),
            |ask| ask.min_active = MinActive::Percent(50),
            Fail,
            "3/4 active on r2; simulated-inactive",
        ),
        (
            "a made-up worker, beyond a number",
            made_up(),
            |ask| ask.min_active = MinActive::Count(3),
            Fail,
            "3/4 active on r2; simulated-inactive",
        ),
    ]
}

#[test]
fn the_table_of_cases() {
    for (name, facts, change, decision, words) in green().into_iter().chain(open()).chain(red()) {
        let mut ask = GateAsk::new(release("r2"));
        change(&mut ask);
        let verdict = judge(&ask, &facts);
        assert_eq!(verdict.decision, decision, "{name}: {verdict:#?}");
        assert!(verdict.output.contains(words), "{name}: {}", verdict.output);
        assert_eq!(verdict.next.is_some(), decision != Pass, "{name}: {:?}", verdict.next);
        let body = verdict.to_value().unwrap();
        assert_eq!(
            (&body["verdict"], &body["releaseId"]),
            (&decision.as_str().into(), &ask.release.as_str().into())
        );
    }
}

#[test]
fn a_release_that_was_replaced_is_superseded_and_one_that_nobody_knows_is_unknown() {
    let ask = |name: &str| GateAsk::new(release(name));
    let verdict = judge(&ask("r1"), &tier());
    assert_eq!((verdict.decision, verdict.terminal), (Superseded, true));
    assert!(verdict.output.contains("`r1` was replaced by `r2` at generation 42"), "{}", verdict.output);
    assert!(verdict.output.ends_with("by ada@here (a release)"), "{}", verdict.output);
    // Whoever knew that already asks about what comes next: it may be activated again.
    assert_eq!(judge(&GateAsk { known: 42, ..ask("r1") }, &tier()).decision, Pending);
    let verdict = judge(&ask("r9"), &tier());
    assert_eq!((verdict.decision, verdict.terminal), (Unknown, false));
}

#[test]
fn the_body_is_that_of_the_contract() {
    let mut facts = third(|f| f.state = W::Inactive);
    facts.workers.push(with(worker("w-4", "r2", W::Starting), |f| f.state_age = s(1)));
    let ask = GateAsk { expect: Some(6), ..GateAsk::new(release("r2")) };
    let body = judge(&ask, &facts).to_value().unwrap();
    assert_eq!((&body["verdict"], &body["terminal"]), (&"fail".into(), &true.into()));
    assert_eq!(
        (&body["gate"], &body["tier"], &body["generation"]),
        (&"default".into(), &"default".into(), &42.into())
    );
    let active = &body["checks"]["tier:active"][0];
    assert_eq!(
        (&active["observedValue"], &active["required"], &active["status"]),
        (&2.into(), &6.into(), &"fail".into())
    );
    let states =
        serde_json::json!({"starting": 1, "inactive": 1, "active": 2, "quiet": 0, "stopping": 0, "stale": 0});
    assert_eq!(active["byState"], states);
    let back = &body["checks"]["rollback:target"][0];
    assert_eq!((&back["observedValue"], &back["status"]), (&"r1".into(), &"pass".into()));
    assert_eq!(back["verifiedAt"], "2026-01-10T09:14:00.000Z");
}

/// What waits of kinds that nobody knows is up to whoever enqueues.
#[test]
fn a_verdict_stays_small_whatever_is_in_the_tier() {
    let many = |n: usize| {
        let one = |n| queue(&format!("q-{n}"), &format!("x-{n:04}"), &[(State::Available, 2)], Some(s(40)));
        jobs(tier(), (0..n).map(one).collect())
    };
    let verdict = judge(&GateAsk::new(release("r2")), &many(1_500));
    let words =
        "jobs of kind `x-0002` wait, and no living worker of r2 knows it · and 1497 more of kinds:known";
    assert!(verdict.output.contains(words) && verdict.output.len() < 1_000, "{}", verdict.output);
    let body = verdict.to_value().unwrap();
    assert_eq!(body["checks"]["kinds:known"].as_array().unwrap().len(), 20);
    assert_eq!(body["leftOut"]["kinds:known"], 1_480);
    assert!(body.to_string().len() < 20_000, "{} bytes", body.to_string().len());
    assert!(diagnose(&many(1_500)).len() < 60);
    let verdict = judge(&GateAsk::new(release("r2")), &many(3));
    assert!(!verdict.output.contains("more of kinds:known"), "{}", verdict.output);
    assert_eq!(verdict.to_value().unwrap().get("leftOut"), None);
}

#[test]
fn a_store_that_is_away_says_nothing_about_the_workers() {
    let look = |kind| {
        let error = StoreError::new("probe", "redis://db", kind, "connection refused");
        TierVerdict::unreadable(&Tier::default(), &release("r2"), &error)
    };
    let away = look(ErrorKind::Unavailable);
    assert_eq!((away.decision, away.unreachable, away.terminal), (Pending, true, false));
    let broken = look(ErrorKind::Unsafe);
    assert_eq!((broken.decision, broken.unreachable), (Fail, false));
}

#[test]
fn a_failure_ends_a_wait_only_when_it_stood_and_will_not_heal() {
    let verdict = |facts: &TierFacts| judge(&GateAsk::new(release("r2")), facts);
    let (hook, dead) =
        (verdict(&third(hook)), verdict(&workers(vec![silent(worker("w", "r2", W::Active), s(10))])));
    let (pass, begin) = (verdict(&tier()), crate::clock::instant());
    let mut patience = Patience::default();
    assert!(!patience.ends(&hook, begin), "the first look");
    assert!(!patience.ends(&hook, begin + SETTLE - Duration::from_millis(1)));
    assert!(!patience.ends(&verdict(&third(|f| f.canary_age = None)), begin + SETTLE), "it healed");
    assert!(!patience.ends(&hook, begin + SETTLE), "so it begins anew");
    assert!(patience.ends(&hook, begin + 2 * SETTLE));
    // A worker that vanished may be one that restarts.
    let mut patience = Patience::default();
    assert_eq!((dead.decision, dead.terminal), (Fail, false));
    assert!(!patience.ends(&dead, begin) && !patience.ends(&dead, begin + HOUR));
    assert!(patience.ends(&pass, begin + HOUR));
}

#[test]
fn numbers_of_workers_are_read_as_people_write_them() {
    assert_eq!("6".parse(), Ok(MinActive::Count(6)));
    assert_eq!("80%".parse(), Ok(MinActive::Percent(80)));
    for bad in ["", "0", "0%", "101%", "-1", "x", "6 %", "1e3", "100001"] {
        assert!(bad.parse::<MinActive>().unwrap_err().contains("80%"), "{bad}");
    }
}

#[test]
fn only_an_unmanaged_tier_has_a_release_that_goes_without_saying() {
    assert_eq!(implied(None), Some(Release::default()));
    assert_eq!(implied(Some(&activation("default", 1))), Some(Release::default()));
    assert_eq!(implied(Some(&activation("r2", 1))), None);
}

/// Why is nothing running? What blocks, and the command that helps.
#[test]
fn the_doctor_names_what_blocks_first_and_what_to_do() {
    let nobody = |facts: TierFacts| TierFacts { activation: None, history: Vec::new(), ..facts };
    let waits = || vec![backlog(s(40))];
    let held = |until| {
        let by = Actor { who: "ada@here".into(), reason: Some("INC-4711".into()) };
        let held = vec![Paused { queue: Queue::default(), by, at: NOW.minus(HOUR), until }];
        TierFacts { held, ..jobs(tier(), waits()) }
    };
    let busy = |f: &mut Presence| (f.busy, f.progress_age) = (8, Some(HOUR));
    let skewed = third(|f| (f.clock, f.host) = (NOW.plus(s(600)), "web-3".into()));
    let on_memory = || {
        let mut facts = tier();
        facts.about.durability = Durability::Memory;
        facts
    };
    type Case = (&'static str, TierFacts, bool, &'static str, &'static str, &'static str);
    let cases: Vec<Case> = vec![
        ("all is well", tier(), false, "", "", ""),
        (
            "nothing was activated",
            nobody(jobs(tier(), waits())),
            true,
            "activation",
            "812 jobs wait",
            "sluicegate activate r1",
        ),
        (
            "nobody ever came",
            nobody(jobs(workers(Vec::new()), waits())),
            true,
            "activation",
            "no worker without a release",
            "sluicegate work",
        ),
        (
            "an empty tier is not ill",
            nobody(workers(Vec::new())),
            false,
            "activation",
            "nothing is active",
            "sluicegate work",
        ),
        (
            "nobody of the active release lives",
            jobs(workers(vec![worker("o", "r1", W::Inactive)]), waits()),
            true,
            "workers",
            "workers of `r1` stand by",
            "sluicegate activate r1",
        ),
        (
            "the last one stopped, and nothing waits",
            left(s(40), Some("ada@here")),
            true,
            "workers",
            "no worker of the active release `r2` lives: w-3 stopped, told so by ada@here (INC-4711)",
            "sluicegate work --release r2",
        ),
        (
            "jobs are due",
            due(s(40), nobody(tier())),
            true,
            "activation",
            "7 jobs wait",
            "sluicegate activate",
        ),
        (
            "nobody lives at all",
            jobs(workers(Vec::new()), waits()),
            true,
            "workers",
            "no worker of the active release `r2`",
            "sluicegate work --release r2",
        ),
        (
            "all of them are quiet",
            jobs(all(quiet), waits()),
            true,
            "tier:active",
            "told to be quiet by ada@here",
            "",
        ),
        ("a hook failed", third(hook), true, "hooks:integrity", "bin/register: exit 127", ""),
        (
            "paused for good",
            held(None),
            true,
            "pauses",
            "paused by ada@here (INC-4711), until somebody resumes it; 812 jobs",
            "",
        ),
        (
            "paused for a while",
            held(Some(NOW.plus(s(60)))),
            false,
            "pauses",
            "until 2026-01-10T09:15:05.000Z",
            "",
        ),
        (
            "a full house",
            jobs(all(busy), waits()),
            false,
            "slots",
            "all 24 slots are busy, and 812 jobs wait",
            "sluicegate job list --state running",
        ),
        (
            "a kind that nobody knows",
            jobs(tier(), vec![queue("default", "x", &[(State::Available, 1)], Some(s(1)))]),
            true,
            "kinds:known",
            "kind `x`",
            "sluicegate job list --kind x",
        ),
        (
            "a clock that is off",
            skewed,
            false,
            "clocks",
            "w-3: the clock of web-3 is off by 10m 01s",
            "chronyc",
        ),
        ("a full disk", full_disk(), true, "store", "disk full", ""),
        ("a store in memory", on_memory(), false, "settings", "survives: memory", "redis-cli"),
        (
            "one was killed",
            workers(vec![worker("w-1", "r2", W::Active), silent(worker("w-2", "r2", W::Active), s(10))]),
            true,
            "worker:presence",
            "vanished",
            "",
        ),
    ];
    for (name, facts, ill, check, output, fix) in cases {
        let findings = diagnose(&facts);
        assert_eq!(is_ill(&findings), ill, "{name}: {findings:#?}");
        let first = findings.iter().find(|finding| check.is_empty() || finding.check == check).unwrap();
        assert!(first.output.contains(output), "{name}: {first:?}");
        assert!(first.fix.clone().unwrap_or_default().contains(fix), "{name}: {first:?}");
        assert_eq!(findings[0].status == Status::Fail, ill, "{name}: what blocks comes first: {findings:#?}");
        assert!(
            !ill || check
                == findings.iter().find(|f| f.check == check && f.status == Status::Fail).unwrap().check,
            "{name}"
        );
        if check.is_empty() {
            assert!(findings.iter().all(|finding| finding.status == Status::Pass), "{findings:#?}");
        }
    }
}

#[test]
fn every_simulated_illness_is_red_whatever_is_required_and_takes_no_job() {
    for illness in [Illness::Inactive, Illness::Stuck, Illness::NoClaims] {
        let simulation = Simulation::new(illness, &activation("r2", 42)).unwrap();
        let presence = simulation.presence();
        assert!(presence.kinds.is_empty() && presence.queues == Some(Vec::new()));
        let sick = Seen { presence: presence.clone(), at: NOW, age: s(0), since: NOW };
        let facts =
            TierFacts { workers: tier().workers.into_iter().chain([sick.clone()]).collect(), ..tier() };
        for least in [MinActive::Count(1), MinActive::Percent(10), MinActive::Percent(100)] {
            let verdict = judge(&GateAsk { min_active: least, ..GateAsk::new(release("r2")) }, &facts);
            assert_eq!(
                (verdict.decision, verdict.terminal),
                (Fail, true),
                "{illness} {least}: {}",
                verdict.output
            );
            assert!(verdict.output.contains(&format!("simulated-{illness}")), "{}", verdict.output);
        }
        // Killed, it leaves nothing behind; and it is nobody who could take over.
        let gone = TierFacts {
            workers: tier().workers.into_iter().chain([silent(sick, s(10))]).collect(),
            ..tier()
        };
        assert_eq!(judge(&GateAsk::new(release("r2")), &gone).decision, Pass);
        assert_eq!(rules::proven(&facts, &release("r2")).count(), 3);
    }
}
