//! Rule 1 against a model: random steps of two clients, time that passes, workers that are lost. After every step each job
//! is in the state that the model says, and counters equal sums.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use fastrand::Rng;
use sluicegate::ids::JobId;
use sluicegate::job::state::{Event, next};
use sluicegate::job::{Parked, State};
use sluicegate::names::Queue;
use sluicegate::store::*;

use super::bench::*;

const STEPS: usize = 300;

/// What the model knows of a job.
struct Known {
    kind: &'static str,
    queue: &'static str,
    state: State,
    failures: u32,
    asked: bool,
}

#[derive(Default)]
struct Model {
    jobs: HashMap<JobId, Known>,
    completed: u64,
    failed: u64,
}

impl Model {
    /// A move that a caller caused: it must be in the table of states.
    fn to(&mut self, id: JobId, event: Event) {
        let job = self.jobs.get_mut(&id).expect("a known job");
        job.state = next(job.state, event).unwrap_or_else(|error| panic!("{id}: {error}"));
        self.completed += u64::from(matches!(event, Event::Complete | Event::RanInline));
        let failed = matches!(event, Event::FailRetry | Event::FailDead);
        job.failures += u32::from(failed);
        self.failed += u64::from(failed);
    }

    /// A move that time caused: whichever is legal, and only such.
    fn follow(&mut self, id: JobId, now: State) {
        let job = self.jobs.get_mut(&id).expect("a known job");
        let may = [Event::Promote, Event::Rescue, Event::Quarantine, Event::Expire]
            .into_iter()
            .chain(job.asked.then_some(Event::Cancel));
        // A sweep may promote and expire, or rescue and expire, in one go.
        let once: HashSet<State> = may.filter_map(|event| next(job.state, event).ok()).collect();
        let twice = once.iter().filter_map(|state| next(*state, Event::Expire).ok());
        let legal = now == job.state || once.contains(&now) || twice.into_iter().any(|state| state == now);
        assert!(legal, "{id} went from {} to {now} by itself", job.state);
        job.state = now;
        job.asked &= now == State::Running;
    }
}

async fn insert(rig: &Rig, model: &mut Model, random: &mut Rng) {
    let (kind, queue) = (["test.a", "test.b"][random.usize(..2)], ["mail", "web"][random.usize(..2)]);
    let mut new = raw(kind, "{}");
    new.queue = Queue::new(queue).expect("a queue");
    new.priority = random.i8(-1..2);
    if random.u8(..4) == 0 {
        new = new.delay(rig.units(random.u32(1..4)));
    }
    if random.u8(..5) == 0 {
        new = new.expires_in(rig.units(random.u32(1..6)));
    }
    let id = rig.add(new).await;
    let state = rig.state(id).await;
    assert!(matches!(state, State::Available | State::Scheduled));
    model.jobs.insert(id, Known { kind, queue, state, failures: 0, asked: false });
}

async fn settle(rig: &Rig, model: &mut Model, random: &mut Rng, batch: &Batch) {
    for job in &batch.jobs {
        let (verdict, event) = match random.u8(..9) {
            0 => (Verdict::Retry { delay: rig.units(1), error: "x".into() }, Event::FailRetry),
            1 => (Verdict::Dead { error: "x".into() }, Event::FailDead),
            2 => (Verdict::Snooze { delay: rig.units(1) }, Event::Snooze),
            3 => (Verdict::Park { why: Parked::Asked, reason: "x".into() }, Event::Park),
            4 => (Verdict::Return, Event::Return),
            5 => (Verdict::Expired, Event::Expire),
            _ => (Verdict::Completed, Event::Complete),
        };
        let known = &model.jobs[&job.id];
        let event = if known.asked && event != Event::Complete { Event::Cancel } else { event };
        match rig.settle(batch, job.id, verdict).await {
            Settled::Ok => model.to(job.id, event),
            Settled::Lost => {} // its lease was over: `check` sees that nothing changed
            Settled::Already => panic!("{} was settled once", job.id),
        }
        model.jobs.get_mut(&job.id).expect("a known job").asked &= rig.state(job.id).await == State::Running;
    }
}

async fn act(rig: &Rig, model: &mut Model, random: &mut Rng) {
    let ids: Vec<JobId> = model.jobs.keys().copied().collect();
    let Some(&id) = ids.get(random.usize(..ids.len().max(1))) else { return };
    let state = model.jobs[&id].state;
    let after = if random.bool() { Duration::ZERO } else { rig.units(1) };
    let (action, event) = match random.u8(..4) {
        0 => (Action::Retry, Event::RunNow),
        1 => (Action::Cancel, Event::Cancel),
        2 => (Action::RanInline { ran: Duration::from_millis(1) }, Event::RanInline),
        _ => (Action::HandOver { after }, Event::Promote),
    };
    let answer = rig.store.bulk(&rig.tier, vec![id], action, &actor()).await.expect("an answer")[0];
    match answer {
        Acted::Done(State::Scheduled) => {
            assert_eq!((action, state), (Action::HandOver { after }, State::Scheduled))
        }
        Acted::Done(to) => {
            model.to(id, event);
            let known = model.jobs.get_mut(&id).expect("a known job");
            assert_eq!(known.state, to);
            if action == Action::Retry && state.is_final() {
                known.failures = 0;
            }
        }
        Acted::Asked => {
            assert_eq!((action, state), (Action::Cancel, State::Running));
            model.jobs.get_mut(&id).expect("a known job").asked = true;
        }
        Acted::Unchanged(same) => assert_eq!(same, state),
        Acted::Refused(from) => {
            assert_eq!(from, state);
            assert!(next(state, event).is_err(), "{action:?} of {state} was refused");
        }
        Acted::NotFound => panic!("{id} is lost"),
    }
}

/// The store says what the model says, in every way of asking.
async fn check(rig: &Rig, model: &mut Model, by_itself: bool) {
    let (mut listed, mut token) = (HashMap::new(), None);
    loop {
        let ask = PageAsk { limit: 50, token, ..PageAsk::default() };
        let page = rig.store.page(&rig.tier, ask).await.expect("a page");
        for job in page.jobs {
            assert!(listed.insert(job.id, (job.state, job.failures)).is_none(), "{} twice", job.id);
        }
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(listed.len(), model.jobs.len(), "every job is listed, and no other");
    let ids: Vec<JobId> = model.jobs.keys().copied().collect();
    let mut counted: BTreeMap<(&str, &str, State), u64> = BTreeMap::new();
    for id in ids {
        let (state, failures) = listed[&id];
        if by_itself {
            model.follow(id, state);
        }
        let known = &model.jobs[&id];
        assert_eq!((state, failures), (known.state, known.failures), "{id}");
        *counted.entry((known.queue, known.kind, state)).or_default() += 1;
    }
    let census = rig.store.census(&rig.tier).await.expect("an answer");
    let mut told = BTreeMap::new();
    for queue in &census.queues {
        let mut sums: BTreeMap<State, u64> = State::ALL.into_iter().map(|state| (state, 0)).collect();
        for (kind, states) in &queue.kinds {
            for (state, n) in states {
                told.insert((queue.queue.as_str(), kind.as_str(), *state), *n);
                *sums.entry(*state).or_default() += n;
            }
        }
        assert_eq!(queue.states, sums, "a queue is the sum of its kinds");
    }
    assert_eq!(told, counted, "counters equal sums");
    let total = |of: fn(&sluicegate::store::QueueCensus) -> u64| census.queues.iter().map(of).sum::<u64>();
    assert_eq!(total(|queue| queue.inserted_total), model.jobs.len() as u64);
    assert_eq!((total(|q| q.completed_total), total(|q| q.failed_total)), (model.completed, model.failed));
}

pub(crate) async fn rule_01_conservation_a_model_agrees_after_every_random_step(rig: Rig) {
    let given = std::env::var("SLUICEGATE_TEST_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a seed"));
    println!("seed {seed}: again with SLUICEGATE_TEST_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let other = rig.harness.client().await;
    let (hand, mut rig) = (Hand::new("w-1", "r1"), rig);
    let mut second = other;
    let (mut model, mut batches) = (Model::default(), Vec::<Batch>::new());
    for _ in 0..STEPS {
        std::mem::swap(&mut rig.store, &mut second); // as another process would
        let mut by_itself = false;
        match random.u8(..12) {
            0..=3 => insert(&rig, &mut model, &mut random).await,
            4..=6 => {
                let batch = rig.claim(&hand, random.usize(1..6)).await;
                for job in &batch.jobs {
                    model.to(job.id, Event::Claim);
                }
                by_itself = true; // what is too late expires on the way
                batches.extend((!batch.jobs.is_empty()).then_some(batch));
            }
            7 | 8 if !batches.is_empty() => {
                let batch = batches.swap_remove(random.usize(..batches.len()));
                settle(&rig, &mut model, &mut random, &batch).await;
            }
            9 => act(&rig, &mut model, &mut random).await,
            _ => {
                rig.pass(random.u32(..2)).await;
                rig.sweep().await;
                by_itself = true;
            }
        }
        check(&rig, &mut model, by_itself).await;
    }
}
