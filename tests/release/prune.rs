//! What may leave the shelf, and what never does.

use std::fs::File;
use std::process::{Command, Stdio};

use serde_json::json;
use sluicegate::activation::{Activation, Mode, WorkerState};
use sluicegate::clock::Timestamp;
use sluicegate::release::prune::{Facts, decide};
use sluicegate::release::records::{self, Listing, Mark, ReleaseRecord, ReleaseState};
use sluicegate::store::{Flip, Flipped};

use super::kit::{ada, description, events, names, register, release, shelf, source, store, tier, write};
use crate::both::Engine;
use crate::cli::hands::Hand;
use crate::cli::sandbox::Sandbox;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_ms(ms)
}

fn mark(ms: i64) -> Option<Mark> {
    Some(Mark { at: at(ms), by: ada() })
}

/// Registered in the order of their numbers.
fn record(n: i64) -> ReleaseRecord {
    let runs = serde_json::from_str(&description()).unwrap();
    let name = release(&format!("r{n}"));
    ReleaseRecord { registered: mark(n), ..ReleaseRecord::new(name, "0".repeat(64), runs) }
}

fn verified(n: i64, when: i64) -> ReleaseRecord {
    ReleaseRecord { verified_at: Some(at(when)), state: ReleaseState::Verified, ..record(n) }
}

#[test]
fn what_is_or_may_be_needed_stays() {
    let in_state = |n, state| ReleaseRecord { state, ..record(n) };
    let records = vec![
        record(1),
        verified(2, 100),
        verified(3, 400),
        verified(4, 300),
        verified(5, 200),
        ReleaseRecord { pinned: mark(1), ..record(6) },
        in_state(7, ReleaseState::Provisional),
        in_state(8, ReleaseState::Standby),
        in_state(9, ReleaseState::Rejected),
        record(10),
        record(11),
        ReleaseRecord { state: ReleaseState::RolledBack, ..verified(12, 999) },
        record(13),
        record(14),
    ];
    let here = (1..=16).map(|n| release(&format!("r{n}"))).collect();
    let activation = Activation {
        generation: 3,
        release: release("r10"),
        mode: Mode::Provisional,
        confirm_by: Some(at(5_000)),
        fallback: Some(release("r11")),
        deploy: None,
        since: at(4_000),
    };
    let facts = Facts {
        here,
        listing: Listing { records, unreadable: vec![("r15".into(), "newer".into())] },
        activation: Some(activation),
        workers: [(release("r13"), "w-1".to_owned())].into(),
        processes: [(release("r14"), 77)].into(),
    };
    let kept = |keep| -> Vec<(String, String)> {
        let fates = decide(&facts, keep).into_iter();
        fates.map(|fate| (fate.release.to_string(), fate.kept.join(", "))).collect()
    };
    let wanted = [
        ("r1", ""),
        ("r2", ""),
        ("r3", "stable"),
        ("r4", "one of the last three verified"),
        ("r5", "one of the last three verified"),
        ("r6", "pinned"),
        ("r7", "being deployed"),
        ("r8", "being deployed"),
        ("r9", ""),
        ("r10", "active"),
        ("r11", "the way back of what is active"),
        ("r12", ""),
        ("r13", "worker w-1 lives"),
        ("r14", "process 77 runs from it"),
        ("r15", "its record cannot be read"),
        ("r16", "not registered in this store"),
    ];
    assert_eq!(kept(0), wanted.map(|(name, why)| (name.to_owned(), why.to_owned())));
    let newest = kept(3);
    let among = |name: &str| newest.iter().any(|(of, why)| of == name && why.contains("among the newest"));
    assert!(among("r14") && among("r13") && among("r12") && !among("r11"), "{newest:?}");
}

async fn a_prune_takes_the_old_ones_and_says_why_the_others_stay(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    for n in 1..=7 {
        let id = format!("r{n}");
        let folder = source(&sandbox, "app", &id);
        // One that runs: its program is asked for something else than what it runs.
        let runs = format!(
            "#!/bin/sh\n[ \"$1\" = release ] && {{ echo '{}'; exit; }}\necho up; read x\n",
            description()
        );
        write(&folder.join("bin/app"), runs, 0o755);
        register(&sandbox, &folder, &id).exits(0);
    }
    let store = store(&sandbox).await;
    let flip = Flip {
        release: release("r1"),
        mode: Mode::Committed,
        confirm_within: None,
        fallback: None,
        deploy: None,
        guard: None,
        least: 0,
    };
    assert!(matches!(store.flip(&tier(), None, flip, &ada()).await.unwrap(), Flipped::Now(_)));
    sandbox.run(&["release", "pin", "r2", "--reason", "the last without bees"]).exits(0);
    let _worker = Hand::join(&store, "w-1", "r3", WorkerState::Inactive).await;
    let mut running = Command::new(shelf(&sandbox).join("r4/bin/app"));
    let mut running = running.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 3];
    std::io::Read::read_exact(running.stdout.as_mut().unwrap(), &mut said).unwrap();

    let before = names(&shelf(&sandbox));
    let would = sandbox.run(&["release", "prune", "--keep", "1", "--dry-run", "--json"]).exits(0).json();
    assert_eq!(names(&shelf(&sandbox)), before);
    let done = sandbox.run(&["release", "prune", "--keep", "1", "--json"]).exits(0).json();
    assert_eq!(would["fates"], done["fates"]);
    let gone: Vec<&str> = done["fates"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|fate| fate["kept"] == json!([]))
        .map(|fate| fate["release"].as_str().unwrap())
        .collect();
    assert_eq!(gone, ["r5", "r6"], "{done}");
    assert_eq!(names(&shelf(&sandbox)), ["r1", "r2", "r3", "r4", "r7"]);
    let told = done.to_string();
    for why in ["active", "pinned", "worker w-1 lives", "runs from it", "among the newest"] {
        assert!(told.contains(why), "{why}: {told}");
    }
    assert_eq!(events(&*store, "release.pruned").await.len(), 1);
    running.kill().unwrap();
    running.wait().unwrap();
    sandbox.run(&["release", "prune", "--keep", "1"]).exits(0).tells("r4       removed");
    // It is still known, and comes back as what it was.
    let list = sandbox.run(&["release", "list", "--json"]).exits(0).json();
    assert!(
        list.as_array().unwrap().iter().any(|row| row["release"] == "r5" && row["here"] == false),
        "{list}"
    );
}

/// Killed between its two phases, and in the second one.
async fn what_a_killed_prune_marked_is_decided_again(engine: Engine) {
    let sandbox = Sandbox::on(engine);
    for id in ["r1", "r2", "r3"] {
        register(&sandbox, &source(&sandbox, "app", id), id).exits(0);
    }
    let store = store(&sandbox).await;
    let on = shelf(&sandbox);
    std::fs::rename(on.join("r1"), on.join(".pruned-r1")).unwrap();
    std::fs::rename(on.join("r2"), on.join(".removing-r2")).unwrap();
    sandbox.run(&["release", "verify", "r1"]).exits(10);
    // Meanwhile somebody needs it.
    let verify = |record: &mut ReleaseRecord| {
        record.state = ReleaseState::Verified;
        record.verified_at = Some(at(1));
    };
    records::update(&*store, &tier(), &release("r1"), verify).await.unwrap();
    sandbox.run(&["release", "prune", "--keep", "0"]).exits(0).tells("stable");
    assert_eq!(names(&on), ["r1"]);
    sandbox.run(&["release", "verify", "r1"]).exits(0);
    // And somebody registers it again before the next prune.
    std::fs::rename(on.join("r1"), on.join(".pruned-r1")).unwrap();
    register(&sandbox, &source(&sandbox, "app", "r1"), "r1").exits(0);
    assert_eq!(names(&on), [".pruned-r1", "r1"]);
    sandbox.run(&["release", "prune", "--keep", "0"]).exits(0);
    assert_eq!(names(&on), ["r1"]);
    sandbox.run(&["release", "verify", "r1"]).exits(0);
}

on_both! {
    #[tokio::test] async:
        a_prune_takes_the_old_ones_and_says_why_the_others_stay
        what_a_killed_prune_marked_is_decided_again;
}

#[test]
fn one_prune_at_a_time() {
    let sandbox = Sandbox::new();
    register(&sandbox, &source(&sandbox, "app", "one"), "r1").exits(0);
    let held = File::open(shelf(&sandbox)).unwrap();
    held.lock().unwrap();
    sandbox.run(&["release", "prune", "--keep", "0"]).exits(9).says("another prune");
    sandbox.run(&["release", "prune", "--keep", "0", "--dry-run"]).exits(9);
    drop(held);
    sandbox.run(&["release", "prune", "--keep", "0"]).exits(0);
    assert!(names(&shelf(&sandbox)).is_empty());
    sandbox.run(&["release", "pin", "r2"]).exits(10).says("is not registered in tier `default`");
}
