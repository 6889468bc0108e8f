//! Who advances a deploy dies, stands still or does not hear the store: the tier ends with one release or the other, never
//! between, and whoever goes on comes to an end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluicegate::activation::Mode;
use sluicegate::health::tier::TierFacts;
use sluicegate::release::deploy::advance;
use sluicegate::release::deploy::lead::{Halt, Lead};
use sluicegate::release::deploy::plan::plan;
use sluicegate::release::deploy::record::{self, Begun, Deploy, Outcome, Pace, Step, Wishes};
use sluicegate::store::{Flip, Flipped, LedgerEntry, Store};

use super::doomed::{Doomed, Fate, WRITES};
use super::kit::{ada, events, release, tier};
use super::shop::Shop;
use crate::both::Engine;
use crate::chaos::kit::until;
use crate::cli::sandbox::{Run, Running};
use crate::redis::proxy::Proxy;

/// Everything that a deploy asks for, so that it is over soon.
fn wishes(verify: Duration) -> Wishes {
    Wishes {
        workers: Some(1),
        verify,
        timeout: Duration::from_secs(60),
        first: false,
        waived: BTreeMap::new(),
        again: true,
        hold_undecided: false,
    }
}

/// Begins a deploy that this process leads.
async fn begun<'s>(store: &'s dyn Store, to: &str, verify: Duration) -> Lead<'s> {
    let facts = TierFacts::gather(store, &tier(), Some(&release(to))).await.unwrap();
    let latest = record::latest(store, &tier()).await.unwrap();
    let planned = plan(&release(to), wishes(verify), &facts, latest.as_ref(), None, &ada()).unwrap();
    let pace = Pace { lease: Duration::from_millis(200), confirm: Duration::from_secs(30) };
    match record::begin(store, planned.deploy(&facts, &ada(), Some("first")).at(pace)).await.unwrap() {
        Begun::Now(read) => Lead::of(store, read).unwrap(),
        Begun::Busy(other) => panic!("{other:?}"),
    }
}

/// The same, and leads it to its end.
async fn deploy(store: &dyn Store, to: &str, verify: Duration) -> Deploy {
    advance(begun(store, to, verify).await).await.unwrap()
}

/// Another process takes over as soon as it may; `None` when the deploy has ended.
async fn takes_over(store: &dyn Store) -> Option<Lead<'_>> {
    loop {
        if let Some(lead) = Lead::take(store, &tier(), "second").await.unwrap() {
            return Some(lead);
        }
        if record::latest(store, &tier()).await.unwrap()?.deploy.outcome.is_some() {
            return None;
        }
        tokio::task::yield_now().await;
    }
}

/// The same, and goes on to the end.
async fn goes_on(store: &dyn Store) -> Deploy {
    match takes_over(store).await {
        Some(lead) => advance(lead).await.unwrap(),
        None => record::latest(store, &tier()).await.unwrap().unwrap().deploy,
    }
}

/// Nothing is between: what is active is what the deploy ended with, and everything is written down.
async fn is_settled(shop: &Shop, deploy: &Deploy, expected: Outcome) {
    assert_eq!(deploy.outcome, Some(expected), "{deploy:#?}");
    let active = shop.activation().await;
    assert_eq!(active.mode, Mode::Committed, "{deploy:#?}");
    let should = if expected == Outcome::Committed { Some(&deploy.to) } else { deploy.replaced() };
    assert_eq!(Some(&active.release), should, "{deploy:#?}");
    shop.has_one_flip_a_generation().await;
}

/// Its leader dies at each write, and another goes on.
async fn whoever_goes_on_comes_to_the_end_of_a_good_deploy(engine: Engine) {
    let mut shop = Shop::open(engine).await;
    shop.starts("r2", "").await;
    for nth in 1.. {
        let to = if shop.active().await == "r1" { "r2" } else { "r1" };
        let store = Doomed::around(&shop.store, Fate::Dies, WRITES, nth);
        tokio::select! {
            biased;
            () = store.dead.notified() => {}
            ended = deploy(&store, to, Duration::ZERO) => {
                is_settled(&shop, &ended, Outcome::Committed).await;
                println!("{engine:?}: died at each of {} writes", nth - 1);
                assert!(nth > 12, "a deploy of {nth} writes");
                break;
            }
        }
        let ended = goes_on(&*shop.store).await;
        is_settled(&shop, &ended, Outcome::Committed).await;
    }
    // Each made up for the line of the one before it, if that had died after its last word.
    let deploys = record::list(&*shop.store, &tier(), 500).await.unwrap();
    assert!(deploys.iter().all(|deploy| deploy.outcome == Some(Outcome::Committed)));
    assert_eq!(events(&*shop.store, "deploy.ended").await.len(), deploys.len());
}

/// The same with one that must be rolled back: whoever goes on finds that, or does not think it over any more.
async fn whoever_goes_on_comes_to_the_end_of_a_bad_deploy(engine: Engine) {
    // After the switch, while it is watched, after the way back, and when only the ledger does not know.
    let points: [(&[&str], u64); 4] = [(&["flip"], 1), (&["extend"], 1), (&["flip"], 2), (&["append"], 1)];
    let mut shop = Shop::open(engine).await;
    shop.starts("r2", "label=fail").await;
    let flow = shop.flow(&["shop.label"]);
    for (of, nth) in points {
        let store = Doomed::around(&shop.store, Fate::Dies, of, nth);
        tokio::select! {
            biased;
            () = store.dead.notified() => {}
            ended = deploy(&store, "r2", Duration::from_secs(20)) => panic!("{of:?} {nth} did not come: {ended:#?}"),
        }
        let ended = goes_on(&*shop.store).await;
        is_settled(&shop, &ended, Outcome::RolledBack).await;
        assert!(ended.why.as_ref().is_some_and(|why| why.contains("the label desk is closed")), "{ended:#?}");
        assert!(shop.record("r2").await.quarantine.is_some(), "after {of:?} {nth}");
    }
    flow.lost_nothing(&shop).await;
}

/// The answer to each write is lost once: the same process goes on as if nothing had happened.
async fn a_lost_answer_changes_nothing(engine: Engine) {
    let mut shop = Shop::open(engine).await;
    shop.starts("r2", "").await;
    for (nth, to) in (1..).zip(["r2", "r1"].into_iter().cycle()) {
        let store = Doomed::around(&shop.store, Fate::Unheard, WRITES, nth);
        let ended = deploy(&store, to, Duration::ZERO).await;
        is_settled(&shop, &ended, Outcome::Committed).await;
        assert_eq!(ended.epoch, 1, "nobody else led it: {ended:#?}");
        if !store.met_its_fate() {
            println!("{engine:?}: lost each of {} answers", nth - 1);
            assert!(nth > 12, "a deploy of {nth} writes");
            return;
        }
    }
}

// ---- real processes

const SHORT: [(&str, &str); 2] =
    [("SLUICEGATE__DEPLOY__LEASE", "1s"), ("SLUICEGATE__DEPLOY__CONFIRM_WITHIN", "2s")];

fn deploying(shop: &Shop, to: &str, verify: &str, env: &[(&str, &str)]) -> Running {
    let args = ["deploy", to, "-o", "jsonl", "--workers", "1", "--verify", verify, "--timeout", "60s"];
    shop.sandbox.start_with(&crate::cli::sandbox::binary(), &args, env)
}

/// Goes on with the last deploy as soon as that is allowed.
fn resume(shop: &Shop) -> Run {
    let tries = std::iter::repeat_with(|| shop.sandbox.run(&["deploy", "resume"]));
    tries.into_iter().find(|run| !run.err.contains("is led by")).unwrap()
}

/// The last deploy, as soon as it is so.
async fn seen(shop: &Shop, id: &str, so: impl Fn(&Deploy) -> bool) {
    until("the deploy has come so far", async || {
        let latest = record::latest(&*shop.store, &tier()).await.unwrap();
        latest.is_some_and(|read| read.deploy.id == id && so(&read.deploy))
    })
    .await;
}

async fn a_killed_deployer_leaves_one_release_or_the_other_and_a_resume_ends_it(engine: Engine) {
    type So = fn(&Deploy) -> bool;
    let mut shop = Shop::open(engine).await;
    shop.starts("r2", "").await;
    let flow = shop.flow(&["shop.order", "shop.mail"]);
    let points: [(&str, So); 7] = [
        ("stage", |deploy| deploy.step >= Step::Stage),
        ("preflight", |deploy| deploy.step >= Step::Preflight),
        ("canary", |deploy| deploy.step >= Step::Canary),
        ("activate", |deploy| deploy.step >= Step::Activate),
        ("switched", |deploy| deploy.installed.is_some()),
        ("verify", |deploy| deploy.step >= Step::Verify && deploy.journal.len() > 8),
        ("commit", |deploy| deploy.step >= Step::Commit),
    ];
    for (n, (point, so)) in points.into_iter().enumerate() {
        let (from, to) = if shop.active().await == "r1" { ("r1", "r2") } else { ("r2", "r1") };
        let verify = if point == "commit" { "0s" } else { "600ms" };
        let deployer = deploying(&shop, to, verify, &SHORT);
        seen(&shop, &format!("d-{}", n + 2), so).await;
        deployer.signal("KILL");
        drop(deployer);
        // Nobody comes: it stands, or reverts by itself.
        until("nothing is provisional", async || shop.activation().await.mode == Mode::Committed).await;
        let lines = shop.store.ledger(&tier(), 0, 500).await.unwrap();
        let reverted = lines.last().filter(|line| line.event == "activation.reverted");
        let after = reverted.map(|line| {
            let detail: serde_json::Value = serde_json::from_str(&line.detail).unwrap();
            let by: sluicegate::clock::Timestamp =
                serde_json::from_value(detail["from"]["confirm_by"].clone()).unwrap();
            line.at.since(by)
        });
        let active = shop.active().await;
        let run = resume(&shop);
        println!(
            "{engine:?}: killed at {point}: {active}, reverted {after:?} after the deadline; resumed: exit {}",
            run.code
        );
        // Reverted stays reverted; before the switch and after the commit the next one goes on.
        let expected = if after.is_some() { (5, from) } else { (0, to) };
        assert_eq!((run.code, shop.active().await.as_str()), expected, "{point}: {run:?}");
        assert!(after.is_none_or(|after| after < Duration::from_secs(2)), "{point}: {after:?}");
        assert!(after.is_none() || active == from);
        shop.works().await;
        shop.has_one_flip_a_generation().await;
    }
    flow.lost_nothing(&shop).await;
}

/// The worst moments to stand still: all was looked at, and the change is about to be made. Another takes over meanwhile, and has
/// changed nothing yet; what the first one then tries is refused by its guard, in the same step of the store.
async fn a_change_that_comes_late_is_refused(engine: Engine) {
    let mut shop = Shop::open(engine).await;
    shop.starts("r2", "").await;
    let moments: [&[&str]; 3] = [&["flip"], &["extend"], &["commit"]];
    for of in moments {
        let to = if shop.active().await == "r1" { "r2" } else { "r1" };
        let store = Doomed::around(&shop.store, Fate::Late, of, 1);
        let first = begun(&store, to, Duration::ZERO).await;
        let mut leading = Box::pin(advance(first));
        tokio::select! {
            biased;
            () = store.still.notified() => {}
            ended = &mut leading => panic!("{of:?} did not come: {ended:?}"),
        }
        let second = takes_over(&*shop.store).await.expect("it has not ended");
        let before = (shop.store.activation(&tier()).await.unwrap(), ended_at(&shop).await);
        store.go.notify_one();
        assert!(matches!(leading.await, Err(Halt::Fenced(_))), "{of:?}");
        assert_eq!((shop.store.activation(&tier()).await.unwrap(), ended_at(&shop).await), before, "{of:?}");
        is_settled(&shop, &advance(second).await.unwrap(), Outcome::Committed).await;
    }
}

async fn ended_at(shop: &Shop) -> u64 {
    shop.store.ledger_end(&tier()).await.unwrap()
}

/// It wakes up in the belief that it still leads.
async fn a_deployer_that_stood_still_changes_nothing_any_more(engine: Engine) {
    let mut shop = Shop::open(engine).await;
    shop.starts("r2", "").await;
    let lease = [("SLUICEGATE__DEPLOY__LEASE", "1s")];
    let mut first = deploying(&shop, "r2", "3s", &lease);
    first.line("\"step\":\"verify\"");
    // SQLite lets a process that is frozen within a transaction hold the file: it is let go and frozen again.
    loop {
        first.signal("STOP");
        if shop.store.probe(&tier()).await.is_ok() {
            break;
        }
        first.signal("CONT");
    }
    let second = resume(&shop).exits(0);
    assert!(second.out.contains("taken over by"), "{second:?}");
    let (active, lines) = (shop.activation().await, shop.store.ledger_end(&tier()).await.unwrap());
    assert_eq!((active.release.as_str(), active.mode), ("r2", Mode::Committed));
    first.signal("CONT");
    let run = first.ended().exits(9).says("was gone on with by");
    println!("{}", run.err);
    assert_eq!(shop.activation().await, active);
    assert_eq!(shop.store.ledger_end(&tier()).await.unwrap(), lines, "it did nothing");
}

/// The same on a real wire, and with everything that the program asks before it begins.
#[tokio::test]
async fn a_deploy_outlasts_lost_answers_of_a_server() {
    let mut shop = Shop::open(Engine::Redis).await;
    shop.starts("r2", "").await;
    let proxy = Proxy::before(shop.sandbox.server.as_ref().unwrap());
    // All of them by hand: `SLUICEGATE_LOST=1`, 1, 2, 3, … until a deploy needs no more.
    let step: u32 = std::env::var("SLUICEGATE_LOST").ok().and_then(|text| text.parse().ok()).unwrap_or(11);
    let mut refused = 0;
    for nth in (1..).step_by(step as usize) {
        let to = if shop.active().await == "r1" { "r2" } else { "r1" };
        let (before, deploys) = (proxy.counts().dropped, events(&*shop.store, "deploy.ended").await.len());
        proxy.drop_replies(nth);
        let args =
            ["deploy", to, "--workers", "1", "--verify", "0s", "--timeout", "60s", "--store", &proxy.url()];
        let deployer = shop.sandbox.start(&args);
        let mut ended = tokio::task::spawn_blocking(|| deployer.ended());
        let run = tokio::select! {
            _ = proxy.until(|now| now.dropped > before) => None,
            run = &mut ended => Some(run.unwrap()),
        };
        proxy.heal();
        let (lost, run) = match run {
            Some(run) => (false, run),
            None => (true, ended.await.unwrap()),
        };
        let latest = record::latest(&*shop.store, &tier()).await.unwrap().unwrap().deploy;
        if run.code == 13 {
            // Before it began: nothing was written, and it says so.
            assert_eq!(events(&*shop.store, "deploy.ended").await.len(), deploys, "{run:?}");
            assert!(latest.outcome.is_some() && shop.active().await != to, "{run:?} {latest:#?}");
            refused += 1;
            continue;
        }
        assert_eq!((run.code, latest.epoch), (0, 1), "reply {nth}: {run:?} {latest:#?}");
        is_settled(&shop, &latest, Outcome::Committed).await;
        if !lost {
            println!("a deploy of less than {nth} replies; {refused} of those lost came before it began");
            assert!(nth > 60, "a deploy of {nth} replies");
            return;
        }
    }
}

// ---- races

/// 1,000 races are run by hand: `SLUICEGATE_RACES=1000 cargo nextest run release::deployers`.
fn races() -> u64 {
    std::env::var("SLUICEGATE_RACES").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

async fn of_many_who_begin_at_once_one_does_and_one_flips(engine: Engine) {
    const RIVALS: usize = 6;
    let place = crate::both::Place::new(engine);
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    for _ in 0..RIVALS {
        stores.push(place.open().await);
    }
    let (races, mut begun) = (races(), 0);
    for race in 0..races {
        let rivals = stores.iter().enumerate().map(|(n, store)| Box::pin(rival(&**store, race, n)));
        let (mut of_race, mut flipped) = (0, 0);
        for rival in futures_util::future::join_all(rivals).await {
            let (began, flips) = rival;
            (of_race, flipped) = (of_race + u64::from(began), flipped + u64::from(flips));
        }
        assert!(of_race >= 1 && flipped == 1, "race {race}: {of_race} began, {flipped} flipped");
        begun += of_race;
    }
    // Each that began has a number of its own, and its end is told once.
    assert_eq!(record::list(&*stores[0], &tier(), usize::MAX).await.unwrap().len() as u64, begun);
    let lines = sluicegate::health::tier::ledger_tail(&*stores[0], &tier(), 10_000).await.unwrap();
    let flips = lines.iter().filter(|line| line.event == "activation.flipped");
    let generation = |line: &LedgerEntry| {
        let detail: serde_json::Value = serde_json::from_str(&line.detail).unwrap();
        detail["to"]["generation"].as_u64().unwrap()
    };
    let generations: Vec<u64> = flips.map(generation).collect();
    assert_eq!(generations, (1..=races).collect::<Vec<_>>(), "one flip a generation");
    let ends = lines.iter().filter(|line| line.event == "deploy.ended").count() as u64;
    assert_eq!(ends, begun, "one end a deploy");
    println!("{engine:?}: {races} races of {RIVALS}, {} flips, {begun} deploys", generations.len());
}

/// Begins a deploy that comes to nothing, and switches by hand; tells whether each was its own.
async fn rival(store: &dyn Store, race: u64, n: usize) -> (bool, bool) {
    let facts = TierFacts::gather(store, &tier(), None).await.unwrap();
    let latest = record::latest(store, &tier()).await.unwrap();
    let to = release(&format!("r{n}"));
    let first = Wishes { first: true, timeout: Duration::ZERO, ..wishes(Duration::ZERO) };
    let begun = match plan(&to, first, &facts, latest.as_ref(), None, &ada()) {
        Ok(planned) => {
            match record::begin(store, planned.deploy(&facts, &ada(), Some("rival"))).await.unwrap() {
                Begun::Now(read) => {
                    let ended = advance(Lead::of(store, read).unwrap()).await.unwrap();
                    assert_eq!(ended.outcome, Some(Outcome::Rejected), "{ended:#?}");
                    true
                }
                Begun::Busy(_) => false,
            }
        }
        Err(_) => false,
    };
    let flip = Flip {
        release: to,
        mode: Mode::Committed,
        confirm_within: None,
        fallback: None,
        deploy: None,
        guard: None,
        least: 0,
    };
    let expect = (race > 0).then_some(race);
    (begun, matches!(store.flip(&tier(), expect, flip, &ada()).await.unwrap(), Flipped::Now(_)))
}

on_both! {
    #[tokio::test] async:
        whoever_goes_on_comes_to_the_end_of_a_good_deploy
        whoever_goes_on_comes_to_the_end_of_a_bad_deploy
        a_lost_answer_changes_nothing
        a_change_that_comes_late_is_refused
        a_killed_deployer_leaves_one_release_or_the_other_and_a_resume_ends_it
        a_deployer_that_stood_still_changes_nothing_any_more
        of_many_who_begin_at_once_one_does_and_one_flips;
}
