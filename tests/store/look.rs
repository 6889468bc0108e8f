//! Looking: pages, filters and the census, which must equal a full recount after anything.

use std::collections::{BTreeMap, HashSet};

use sluicegate::activation::WorkerState;
use sluicegate::ids::JobId;
use sluicegate::job::{JobRecord, NewJob, Parked, State};
use sluicegate::names::{Kind, Queue};
use sluicegate::store::*;

use super::bench::*;

/// Every job that a filter finds, page by page.
async fn all_pages(rig: &Rig, mut ask: PageAsk) -> Vec<JobRecord> {
    let mut found = Vec::new();
    for _ in 0..10_000 {
        let page = rig.store.page(&rig.tier, ask.clone()).await.expect("a page");
        assert!(page.jobs.len() <= ask.limit);
        found.extend(page.jobs);
        match page.next {
            None => return found,
            token => ask.token = token,
        }
    }
    panic!("the pages never end");
}

fn every(limit: usize) -> PageAsk {
    PageAsk { limit, ..PageAsk::default() }
}

fn ids_of(records: &[JobRecord]) -> Vec<JobId> {
    records.iter().map(|record| record.id).collect()
}

pub(crate) async fn pages_are_newest_first_and_complete(rig: Rig) {
    let mut all = rig.add_many(25).await;
    all.reverse();
    for limit in [1, 4, 5, 25, 26, MAX_BATCH] {
        assert_eq!(ids_of(&all_pages(&rig, every(limit)).await), all, "pages of {limit}");
    }
    let first = rig.store.page(&rig.tier, every(4)).await.unwrap();
    // What is inserted between two pages moves nothing.
    rig.add_many(3).await;
    let rest = all_pages(&rig, PageAsk { token: first.next, ..every(4) }).await;
    assert_eq!(ids_of(&rest), all[4..]);
    assert!(rig.store.page(&rig.tier, every(100_000)).await.unwrap().jobs.len() <= MAX_BATCH);
}

pub(crate) async fn pages_refuse_a_token_that_is_none(rig: Rig) {
    let ask = PageAsk { token: Some("x'; --".into()), ..every(4) };
    let error = rig.store.page(&rig.tier, ask).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
}

pub(crate) async fn pages_are_filtered(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let failing = rig.add(raw("test.other", "{}").tag("team", "x").tag("env", "prod")).await;
    let done = rig.add(job(1).tag("team", "x")).await;
    let batch = rig.claim(&hand, 2).await;
    rig.settle(&batch, done, Verdict::Completed).await;
    let error = "connection to 10.0.0.7 refused: 100% 'quoted'".to_owned();
    rig.settle(&batch, failing, Verdict::Dead { error }).await;
    rig.pass(2).await;
    let waiting = rig.add(job(2).queue("mail").unwrap().tag("team", "y")).await;
    let running = rig.add(job(3)).await;
    let mut only = hand.clone();
    only.queues = Some(vec![Queue::default()]);
    assert_eq!(ids(&rig.claim(&only, 1).await), [running]);
    let later = rig.add(job(4).delay(rig.units(9))).await;

    let tags = |tags: &[(&str, &str)]| PageAsk {
        tags: tags.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        ..every(10)
    };
    let state = |state| PageAsk { state: Some(state), ..every(10) };
    let text = |text: &str| PageAsk { error: Some(text.into()), ..every(10) };
    let kind = |kind: &str| PageAsk { kind: Some(Kind::new(kind).unwrap()), ..every(10) };
    let queue = |queue: &str| PageAsk { queue: Some(Queue::new(queue).unwrap()), ..every(10) };
    for (ask, expected) in [
        (state(State::Available), vec![waiting]),
        (state(State::Running), vec![running]),
        (state(State::Scheduled), vec![later]),
        (state(State::Completed), vec![done]),
        (state(State::Dead), vec![failing]),
        (state(State::Parked), vec![]),
        (queue("mail"), vec![waiting]),
        (queue("none"), vec![]),
        (kind("test.other"), vec![failing]),
        (kind("test.none"), vec![]),
        (tags(&[("team", "x")]), vec![done, failing]),
        (tags(&[("team", "x"), ("env", "prod")]), vec![failing]),
        (tags(&[("team", "z")]), vec![]),
        (text("10.0.0.7"), vec![failing]),
        (text("100% 'quoted'"), vec![failing]),
        (text("1_0"), vec![]),
        (PageAsk { older_than: Some(rig.units(2)), ..every(10) }, vec![done, failing]),
        (PageAsk { kind: Some(job(1).kind), ..state(State::Completed) }, vec![done]),
        (PageAsk { queue: Some(Queue::new("mail").unwrap()), ..state(State::Running) }, vec![]),
    ] {
        assert_eq!(ids_of(&all_pages(&rig, ask.clone()).await), expected, "{ask:?}");
        let small = PageAsk { limit: 1, ..ask.clone() };
        assert_eq!(ids_of(&all_pages(&rig, small).await), expected, "one by one: {ask:?}");
    }
}

pub(crate) async fn pages_find_a_needle_behind_many(rig: Rig) {
    let needle = rig.add(job(1).tag("needle", "yes")).await;
    rig.add_many(12_000).await;
    let ask = PageAsk { tags: vec![("needle".into(), "yes".into())], ..every(10) };
    assert_eq!(ids_of(&all_pages(&rig, ask).await), [needle]);
}

pub(crate) async fn census_tells_the_oldest_wait(rig: Rig) {
    let oldest = async || rig.census().await.queues[0].oldest_wait;
    let hand = Hand::new("w-1", "r1");
    let first = rig.add(job(1)).await;
    rig.pass(2).await;
    rig.add(job(2)).await;
    rig.pass(1).await;
    let waited = oldest().await.expect("one waits");
    assert!(waited >= rig.units(3) && waited < rig.units(5), "{waited:?}");
    let batch = rig.claim(&hand, 1).await;
    assert_eq!(ids(&batch), [first]);
    let waited = oldest().await.expect("one waits");
    assert!(waited < rig.units(2), "{waited:?}");
    rig.settle_all(&batch, &Verdict::Completed).await;
    let batch = rig.claim(&hand, 1).await;
    rig.settle_all(&batch, &Verdict::Completed).await;
    assert_eq!(oldest().await, None);
    // What was scheduled waits since it was due.
    rig.add(job(3).delay(rig.units(5))).await;
    rig.pass(6).await;
    rig.sweep().await;
    let waited = oldest().await.expect("one waits");
    assert!(waited < rig.units(3), "{waited:?}");
}

/// Nobody sweeps: whoever counts must see that jobs are due.
pub(crate) async fn census_tells_what_is_due(rig: Rig) {
    assert_eq!((rig.census().await.overdue, rig.census().await.next_due), (0, None));
    let hand = Hand::new("w-1", "r1");
    let failing = rig.add(job(1)).await;
    let batch = rig.claim(&hand, 1).await;
    let retry = Verdict::Retry { error: "once".into(), delay: rig.units(9) };
    rig.settle(&batch, failing, retry).await;
    rig.add(job(2).delay(rig.units(4))).await;
    rig.add(job(3).queue("mail").unwrap().delay(rig.units(5))).await;
    rig.add(job(4)).await;
    let census = rig.census().await;
    let ahead = census.next_due.expect("one is scheduled").since(census.now);
    assert!(census.overdue == 0 && ahead > rig.units(2) && ahead <= rig.units(4), "{census:?}");
    rig.pass(6).await;
    let census = rig.census().await;
    let late = census.now.since(census.next_due.expect("it is still there"));
    assert!(census.overdue == 2 && late >= rig.units(2) && late < rig.units(4), "{census:?}");
    rig.sweep().await;
    let census = rig.census().await;
    assert_eq!((census.overdue, census.queues[0].states[&State::Available]), (0, 2));
    assert!(census.next_due.is_some_and(|at| at > census.now), "the retry: {census:?}");
}

pub(crate) async fn census_counts_per_queue_and_kind(rig: Rig) {
    rig.inserts(vec![job(1), job(2), raw("test.other", "{}"), job(3).queue("mail").unwrap()]).await;
    let census = rig.census().await;
    let queues: Vec<_> = census.queues.iter().map(|queue| queue.queue.as_str()).collect();
    assert_eq!(queues, ["default", "mail"]);
    assert_eq!(census.queues[0].states.len(), State::ALL.len(), "every state is there");
    assert_eq!(census.queues[0].states[&State::Available], 3);
    assert_eq!(census.queues[0].kinds[&Kind::new("test.job").unwrap()][&State::Available], 2);
    assert_eq!((census.queues[0].inserted_total, census.queues[1].inserted_total), (3, 1));
}

type Counts = BTreeMap<(Queue, Kind, State), u64>;

/// What a walk through every job counts.
async fn recount(rig: &Rig) -> (Counts, HashSet<JobId>) {
    let (mut counts, mut seen) = (Counts::new(), HashSet::new());
    for record in all_pages(rig, every(97)).await {
        assert!(seen.insert(record.id), "{} is there twice", record.id);
        *counts.entry((record.queue, record.kind, record.state)).or_default() += 1;
    }
    (counts, seen)
}

fn counted(census: &Census) -> Counts {
    let mut counts = Counts::new();
    for queue in &census.queues {
        let mut sums: BTreeMap<State, u64> = State::ALL.into_iter().map(|state| (state, 0)).collect();
        for (kind, states) in &queue.kinds {
            for (state, n) in states {
                assert!(*n > 0, "only those above zero");
                counts.insert((queue.queue.clone(), kind.clone(), *state), *n);
                *sums.entry(*state).or_default() += n;
            }
        }
        assert_eq!(sums, queue.states, "the kinds of {} add up", queue.queue);
    }
    counts
}

/// What the random walk remembers.
#[derive(Default)]
struct Walk {
    known: Vec<NewJob>,
    held: Vec<(Hand, Batch)>,
    inserted: u64,
    completed: u64,
    failed: u64,
}

impl Walk {
    async fn insert(&mut self, rig: &Rig, rng: &mut fastrand::Rng) {
        let mut jobs = Vec::new();
        for _ in 0..rng.usize(1..8) {
            let mut new = raw(["test.a", "test.b"][rng.usize(..2)], &format!("{{\"n\":{}}}", rng.u32(..)));
            new.queue = Queue::new(["mail", "web", "bulk"][rng.usize(..3)]).unwrap();
            new.priority = rng.i8(-1..=1);
            new = match rng.u8(..8) {
                0 => new.delay(rig.units(rng.u32(1..6))),
                1 => new.expires_in(rig.units(rng.u32(1..6))),
                2 => new.delay(rig.units(3)).expires_in(rig.units(rng.u32(1..6))),
                3 => new.unique(sluicegate::job::Unique {
                    key: format!("u{}", rng.u8(..3)),
                    window: None,
                    states: None,
                }),
                4 if !self.known.is_empty() => self.known[rng.usize(..self.known.len())].clone(),
                _ => new,
            };
            jobs.push(new);
        }
        for (answer, new) in rig.inserts(jobs.clone()).await.into_iter().zip(jobs) {
            if matches!(answer, Insert::Stored { .. }) {
                self.inserted += 1;
                self.known.push(new);
            }
        }
    }

    async fn claim(&mut self, rig: &Rig, rng: &mut fastrand::Rng, hands: &[Hand]) {
        let mut hand = hands[rng.usize(..hands.len())].clone();
        hand.suspects = rng.bool();
        if let Claim::Active(batch) = rig.try_claim(&hand, rng.usize(0..10)).await
            && !batch.jobs.is_empty()
        {
            self.held.push((hand, batch));
        }
    }

    async fn settle(&mut self, rig: &Rig, rng: &mut fastrand::Rng) {
        if self.held.is_empty() {
            return;
        }
        let at = rng.usize(..self.held.len());
        let batch = self.held[at].1.clone();
        if rng.u8(..4) > 0 {
            self.held.swap_remove(at);
        }
        let mut items = Vec::new();
        for job in &batch.jobs {
            if rng.u8(..5) == 0 {
                continue;
            }
            let delay = rig.units(rng.u32(..4));
            let verdict = match rng.u8(..12) {
                0 | 1 => Verdict::Retry { delay, error: "no".into() },
                2 => Verdict::Dead { error: "no".into() },
                3 => Verdict::Snooze { delay },
                4 => Verdict::Park { why: Parked::UnknownKind, reason: "?".into() },
                5 => Verdict::Cancelled,
                6 => Verdict::Expired,
                7 | 8 => Verdict::Return,
                _ => Verdict::Completed,
            };
            let ran = std::time::Duration::from_millis(1);
            items.push(Settle { nonce: batch.nonce, id: job.id, slot: job.slot, ran, verdict });
        }
        let before = self.states(rig, &items).await;
        let answers = rig.store.settle(&rig.tier, items.clone()).await.unwrap();
        for ((item, answer), before) in items.iter().zip(answers).zip(before) {
            let after = rig.store.get(&rig.tier, item.id).await.unwrap().map(|found| found.state);
            if answer != Settled::Ok {
                assert_eq!(before, after, "{item:?} {answer:?} changed something");
                continue;
            }
            assert_eq!(before, Some(State::Running));
            let done = matches!(item.verdict, Verdict::Completed);
            self.completed += u64::from(done);
            let fails = matches!(item.verdict, Verdict::Retry { .. } | Verdict::Dead { .. });
            // A wish to cancel that came first turns a failure into a cancellation.
            self.failed += u64::from(fails && after != Some(State::Cancelled));
        }
    }

    async fn states(&self, rig: &Rig, items: &[Settle]) -> Vec<Option<State>> {
        let mut states = Vec::new();
        for item in items {
            states.push(rig.store.get(&rig.tier, item.id).await.unwrap().map(|found| found.state));
        }
        states
    }

    async fn act(&mut self, rig: &Rig, rng: &mut fastrand::Rng) {
        let action = if rng.bool() { Action::Retry } else { Action::Cancel };
        let mut some = Vec::new();
        for _ in 0..rng.usize(1..6) {
            if let Some(one) = rng.choice(&self.known) {
                some.push(one.id);
            }
        }
        rig.store.bulk(&rig.tier, some, action, &actor()).await.unwrap();
    }
}

pub(crate) async fn census_equals_a_full_recount_after_random_operations(rig: Rig) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut walk = Walk::default();
    let mut hands: Vec<_> = (0..3).map(|n| Hand::new(&format!("w-{n}"), "r1")).collect();
    for step in 0..300 {
        match rng.u8(..20) {
            0..=4 => walk.insert(&rig, &mut rng).await,
            5..=9 => walk.claim(&rig, &mut rng, &hands).await,
            10..=13 => walk.settle(&rig, &mut rng).await,
            14 => walk.act(&rig, &mut rng).await,
            15 | 16 => rig.pass(rng.u32(1..3)).await,
            17 => {
                if let Some((_, batch)) = rng.choice(&walk.held) {
                    rig.renew(batch.nonce).await;
                }
            }
            18 => {
                let n = rng.usize(..3);
                hands[n] = Hand::new(&format!("w-{n}"), "r1");
                rig.beat(&hands[n], WorkerState::Starting).await;
            }
            _ => {
                let kinds = vec![Kind::new("test.a").unwrap()];
                rig.store.sweep(SweepAsk { kinds, ..rig.sweeper() }).await.unwrap();
            }
        }
        if step % 10 != 9 {
            continue;
        }
        let (counts, seen) = recount(&rig).await;
        let census = rig.census().await;
        assert_eq!(counted(&census), counts, "seed {seed}, step {step}");
        let known: HashSet<_> = walk.known.iter().map(|job| job.id).collect();
        assert_eq!(seen, known, "seed {seed}, step {step}: every stored job is there, and no other");
        let total = |of: fn(&QueueCensus) -> u64| census.queues.iter().map(of).sum::<u64>();
        assert_eq!(
            (
                total(|queue| queue.inserted_total),
                total(|queue| queue.completed_total),
                total(|queue| queue.failed_total)
            ),
            (walk.inserted, walk.completed, walk.failed),
            "seed {seed}, step {step}"
        );
    }
}

/// An engine may write what a large batch completed in one place, not in each job: nobody may see the difference.
pub(crate) async fn a_large_batch_completes_like_each_of_its_jobs(rig: Rig) {
    let hand = Hand::new("w-1", "r1");
    let jobs: Vec<NewJob> = (0..240)
        .map(|n| match n {
            60..65 => job(n).tag("team", "x"),
            120..180 => job(n).queue("other").unwrap(),
            _ => job(n),
        })
        .collect();
    rig.inserts(jobs.clone()).await;
    let first = rig.claim(&hand, 100).await;
    let batch = rig.claim(&hand, MAX_BATCH).await;
    assert_eq!((first.jobs.len(), batch.jobs.len()), (100, 140));
    rig.settle_all(&batch, &Verdict::Completed).await;
    let ended: HashSet<JobId> = batch.jobs.iter().map(|job| job.id).collect();
    let ids_in = async |state| {
        let found = all_pages(&rig, PageAsk { state: Some(state), ..every(70) }).await;
        assert!(found.iter().all(|job| job.state == state));
        found.iter().map(|job| job.id).collect::<HashSet<_>>()
    };
    assert_eq!(ids_in(State::Completed).await, ended);
    assert_eq!(ids_in(State::Running).await, first.jobs.iter().map(|job| job.id).collect());
    assert!(ids_in(State::Available).await.is_empty());
    let record = rig.get(batch.jobs[7].id).await;
    assert_eq!(
        (record.state, record.worker, record.release),
        (State::Completed, Some(hand.name.clone()), Some(hand.release.clone()))
    );
    assert_eq!((record.claimed_at, record.ran), (Some(batch.now), Some(std::time::Duration::from_millis(3))));
    assert!(record.finished_at.is_some_and(|at| at >= batch.now));
    // Told again, under its own nonce and under another.
    let settle = |nonce| {
        let items = batch.jobs.iter().map(|job| Settle {
            nonce,
            id: job.id,
            slot: job.slot,
            ran: rig.units(0),
            verdict: Verdict::Return,
        });
        rig.store.settle(&rig.tier, items.collect())
    };
    assert_eq!(settle(batch.nonce).await.unwrap(), vec![Settled::Already; 140]);
    assert_eq!(settle(first.nonce).await.unwrap(), vec![Settled::Lost; 140]);
    // Enqueued, retried and cancelled again.
    for (new, answer) in jobs.iter().zip(rig.inserts(jobs.clone()).await) {
        let state = if ended.contains(&new.id) { State::Completed } else { State::Running };
        assert_eq!(answer, Insert::Existing { id: new.id, state });
    }
    for action in [Action::Retry, Action::Cancel] {
        let ids = batch.jobs.iter().map(|job| job.id).collect();
        let answers = rig.store.bulk(&rig.tier, ids, action, &actor()).await.unwrap();
        assert_eq!(answers, vec![Acted::Refused(State::Completed); 140]);
    }
    rig.settle_all(&first, &Verdict::Completed).await;
    let census = rig.census().await;
    let completed: Vec<u64> = census.queues.iter().map(|queue| queue.states[&State::Completed]).collect();
    assert_eq!(completed, [180, 60]);
    if rig.can_wait(KEEP_COMPLETED * 2) {
        rig.harness.pass(KEEP_COMPLETED * 2).await;
        while rig.sweep().await.trimmed > 0 {}
        assert!(all_pages(&rig, every(70)).await.is_empty(), "retention ends for all of them");
        assert!(rig.census().await.queues.iter().all(|queue| queue.states.values().sum::<u64>() == 0));
    }
}
