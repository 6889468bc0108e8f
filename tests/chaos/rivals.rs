//! The rules that are about several processes, with several processes. They start when all of them are ready.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use sluicegate::activation::Mode;
use sluicegate::job::{Args, NewJob};
use sluicegate::names::{Kind, Release, Tier};
use sluicegate::store::{Actor, Flip, MAX_BATCH};

use super::kit::{Ground, program};
use crate::both::Engine;

const RIVALS: usize = 4;

/// A process that waits for the word to go on.
struct Rival {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Rival {
    /// Starts it, and waits until it is ready.
    fn start(ground: &Ground, what: &str, name: &str) -> Self {
        let mut command = Command::new(program("rivals"));
        command.args([what, &ground.place.url(), name]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("started");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut rival = Self { child, input, output: BufReader::new(output) };
        rival.says("ready");
        rival
    }

    /// Its next line.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    #[track_caller]
    fn says(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    fn go(&mut self) {
        self.input.write_all(b"\n").expect("it reads");
    }

    /// What it said until it ended well.
    fn ended(mut self) -> String {
        let mut text = String::new();
        self.output.read_to_string(&mut text).expect("text");
        assert!(self.child.wait().expect("ended").success(), "a rival failed after: {text}");
        text
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Several that do the same at once: how often each line was said by all of them together.
fn all_at_once(ground: &Ground, what: &str) -> HashMap<String, usize> {
    let start = |n: usize| Rival::start(ground, what, &format!("w-{n}"));
    let mut rivals: Vec<Rival> = (0..RIVALS).map(start).collect();
    rivals.iter_mut().for_each(Rival::go);
    // Each has a thread that reads, so that none waits for a full pipe.
    let readers: Vec<_> = rivals.into_iter().map(|rival| std::thread::spawn(move || rival.ended())).collect();
    let mut lines = HashMap::new();
    for text in readers.into_iter().map(|reader| reader.join().expect("it ended well")) {
        for line in text.lines() {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
    }
    lines
}

/// How many of the lines begin so, and that each was said so often.
#[track_caller]
fn each_said(lines: &HashMap<String, usize>, word: &str, times: usize) -> usize {
    let of: Vec<_> = lines.iter().filter(|(line, _)| line.starts_with(word)).collect();
    let wrong: Vec<_> = of.iter().filter(|(_, said)| **said != times).take(5).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    of.len()
}

async fn active(engine: Engine) -> Ground {
    let ground = Ground::new(engine).await;
    let next = Flip {
        release: Release::default(),
        mode: Mode::Committed,
        confirm_within: None,
        fallback: None,
        deploy: None,
        guard: None,
        least: 0,
    };
    let by = Actor { who: "ada".into(), reason: None };
    ground.store.flip(&Tier::default(), None, next, &by).await.expect("a flip");
    ground
}

async fn enqueue(ground: &Ground, jobs: usize) {
    let job = |_| NewJob::raw(Kind::new("test.job").unwrap(), Args::default());
    for _ in 0..jobs / MAX_BATCH.min(jobs) {
        let batch = (0..MAX_BATCH.min(jobs)).map(job).collect();
        ground.store.insert(&Tier::default(), batch).await.expect("an insert");
    }
}

async fn rule_02_of_processes_that_flip_at_once_one_wins_each_generation(engine: Engine) {
    let ground = active(engine).await;
    let lines = all_at_once(&ground, "flip");
    let last = ground.store.activation(&Tier::default()).await.unwrap().expect("an activation").generation;
    assert!(last > 100);
    assert_eq!(each_said(&lines, "flipped ", 1) as u64, last - 1);
    let ledger = ground.store.ledger(&Tier::default(), 0, MAX_BATCH).await.unwrap();
    assert_eq!(ledger.len() as u64, last, "every flip is recorded, and no other");
}

async fn rule_03_processes_that_claim_at_once_never_get_the_same_job(engine: Engine) {
    let ground = active(engine).await;
    enqueue(&ground, 4 * MAX_BATCH).await;
    let lines = all_at_once(&ground, "claim");
    assert_eq!(each_said(&lines, "claimed ", 1), 4 * MAX_BATCH);
    assert_eq!(lines["settled Ok"], 4 * MAX_BATCH);
    assert_eq!(each_said(&lines, "settled ", 4 * MAX_BATCH), 1, "nothing else was answered");
}

/// The fence must tell two processes apart that know nothing of each other, whatever both have counted so far.
async fn rule_03_a_process_that_lost_its_lease_cannot_settle_what_another_holds(engine: Engine) {
    let ground = active(engine).await;
    enqueue(&ground, 1).await;
    let hold = || {
        let mut rival = Rival::start(&ground, "hold", "w-1");
        rival.go();
        let claimed = rival.line();
        assert!(claimed.starts_with("claimed "), "{claimed}");
        rival.says("held");
        (rival, claimed)
    };
    let (mut old, lost) = hold();
    let (mut new, held) = hold();
    assert_eq!(lost, held);
    old.go();
    old.says("settled [Lost]");
    new.go();
    new.says("settled [Ok]");
}

async fn rule_06_processes_that_insert_the_same_ids_at_once_store_each_once(engine: Engine) {
    let ground = active(engine).await;
    let lines = all_at_once(&ground, "insert");
    assert_eq!(each_said(&lines, "stored ", 1), 2_000);
    let existing: usize =
        lines.iter().filter(|(line, _)| line.starts_with("existing ")).map(|(_, said)| said).sum();
    assert_eq!(existing, RIVALS * 2_200 - 2_000);
    let census = ground.store.census(&Tier::default()).await.unwrap();
    assert_eq!(census.queues[0].inserted_total, 2_000);
}

on_both! {
    #[tokio::test] async:
        rule_02_of_processes_that_flip_at_once_one_wins_each_generation
        rule_03_processes_that_claim_at_once_never_get_the_same_job
        rule_03_a_process_that_lost_its_lease_cannot_settle_what_another_holds
        rule_06_processes_that_insert_the_same_ids_at_once_store_each_once;
}
