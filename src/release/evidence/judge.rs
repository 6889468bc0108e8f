//! Judges a release by its first attempts. Pure: it remembers what it has seen, and is told everything else.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::exact;
use super::observed::{Hands, Observed, Outcomes, Terms};
use super::sprt::{Count, FALSE_FAIL, News, Rates, Sprt, Step};
use super::verdict::Stream;
use crate::names::{Kind, WorkerName};

/// A kind and a worker need so many first attempts: without a failure fewer than 14 leave a share of 20 % possible.
pub const ENOUGH: u64 = 15;
/// The budget is divided by levels first, so that a kind does not pay for the many pairs: everything, kinds, workers,
/// kinds on workers.
const LEVELS: f64 = 4.0;
/// The stable release fails as well when its ratio reaches this, Wald's limit at 0.1 %: three failures in a row.
const FAILS_TOO: f64 = 6.86;
/// This release is to blame although both fail when chance makes such a difference less often than this: ten kinds are
/// compared at many looks.
const WORSE: f64 = 0.000_1;
/// Going back to a release that is ill itself needs this much to speak for it: the share that it failed before was less.
const WORSE_THAN_ILL: f64 = 0.05;
/// So many fresh canaries that all pass tell that the stable release does not fail as well: one that fails half of them
/// passes five in 3 % of cases…
pub(super) const SECOND_OPINION: u64 = 5;
/// …and when some fail, so many are waited for until that is enough, or not.
const LAST_OPINION: u64 = 15;
/// Pairs that differ decide for themselves from here on: seven, all to one side, are the first below 1 %.
const DISCORDANT: u64 = 7;

/// The judge of one release. It can be written down between looks; one that forgot what it saw judges by what the
/// workers tell from the start, and knows less of changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    pub(super) terms: Terms,
    rates: BTreeMap<Kind, Rates>,
    pub(super) all: Judged,
    pub(super) kinds: BTreeMap<Kind, Judged>,
    pub(super) workers: BTreeMap<WorkerName, Judged>,
    pub(super) pairs: BTreeMap<WorkerName, BTreeMap<Kind, Judged>>,
    pub(super) stable: Stable,
    seen: Seen,
}

/// A stream with its test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Judged {
    pub(super) test: Sprt,
    /// What speaks against it, by kind: for streams of several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    run: BTreeMap<Kind, Count>,
    /// The last error.
    #[serde(default)]
    pub(super) error: String,
    /// Since it failed: of which kinds the stable release is asked, and the canaries that had ended there by then.
    #[serde(default)]
    asked: BTreeMap<Kind, Count>,
    /// It failed together with the stable release, and has not passed since.
    #[serde(default)]
    pub(super) held: bool,
}

/// How the stable release does lately.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Stable {
    kinds: BTreeMap<Kind, Lately>,
    seen: Seen,
}

/// A CUSUM without an end: what was long ago and is over does not count.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Lately {
    score: f64,
    run: Count,
    /// From the limit on, until its score is zero again.
    fails: bool,
    /// Canaries that have ended, ever.
    canaries: Count,
}

impl Lately {
    fn take(&mut self, news: News) {
        self.run += news.count();
        // Bounded, so that a long outage does not take as long to heal.
        self.score = (self.score + news.ratio()).min(FAILS_TOO);
        self.fails |= self.score >= FAILS_TOO;
        if self.score <= 0.0 {
            (self.score, self.run, self.fails) = (0.0, Count::default(), false);
        }
    }
}

/// What workers had told at the last look.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Seen(BTreeMap<WorkerName, SeenOne>);

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct SeenOne {
    life: i64,
    jobs: BTreeMap<Kind, Count>,
    canaries: BTreeMap<Kind, Count>,
}

impl Seen {
    /// What is new of a worker, by kind: jobs and canaries, with the last error.
    fn news<'h>(&mut self, name: &WorkerName, hands: &'h Hands) -> Vec<(&'h Kind, Count, Count, &'h str)> {
        let seen = self.0.entry(name.clone()).or_default();
        if seen.life != hands.life {
            (seen.life, seen.jobs) = (hands.life, BTreeMap::new());
        }
        let mut news: BTreeMap<&Kind, (Count, Count, &str)> = BTreeMap::new();
        for (kind, told) in &hands.jobs {
            let entry = news.entry(kind).or_default();
            (entry.0, entry.2) =
                (since(&mut seen.jobs, kind, told), told.error.as_deref().unwrap_or_default());
        }
        for (kind, told) in &hands.canaries {
            let entry = news.entry(kind).or_default();
            entry.1 = since(&mut seen.canaries, kind, &told.ended);
            if entry.2.is_empty() || entry.1.failed > 0 {
                entry.2 = told.ended.error.as_deref().unwrap_or_default();
            }
        }
        news.into_iter().map(|(kind, (jobs, canaries, error))| (kind, jobs, canaries, error)).collect()
    }
}

/// The difference to what was seen. Counts that went back belong to another count, which begins at zero.
fn since(seen: &mut BTreeMap<Kind, Count>, kind: &Kind, told: &Outcomes) -> Count {
    let before = seen.insert(kind.clone(), told.count).unwrap_or_default();
    let now = told.count;
    now.since(before).unwrap_or(now)
}

/// What is new of several kinds or workers, with the last error.
#[derive(Debug, Clone, Default)]
struct Sum<'e> {
    news: News,
    error: &'e str,
    kinds: BTreeMap<&'e Kind, Count>,
}

impl<'e> Sum<'e> {
    fn add(&mut self, kind: &'e Kind, news: News, error: &'e str) {
        self.news += news;
        *self.kinds.entry(kind).or_default() += news.count();
        if news.count().failed > 0 {
            self.error = error;
        }
    }
}

/// Whose fault a failure is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Blame {
    /// The release's.
    Release,
    /// Not the release's: this is how the stable one does.
    Environment(Count),
    /// Not the release's alone: the stable one failed as often before.
    IllBefore(Count),
    /// The stable one is being asked.
    Unknown,
}

impl Judged {
    fn new(budget: f64) -> Self {
        Self {
            test: Sprt::new(budget),
            run: BTreeMap::new(),
            error: String::new(),
            asked: BTreeMap::new(),
            held: false,
        }
    }

    fn take(&mut self, news: News, error: &str) {
        self.test.look(news, ENOUGH);
        if news.count().failed > 0 {
            error.clone_into(&mut self.error);
        }
    }

    fn take_all(&mut self, sum: Sum<'_>) {
        self.take(sum.news, sum.error);
        for (kind, count) in sum.kinds {
            *self.run.entry(kind.clone()).or_default() += count;
        }
        if self.test.run().all() == 0 {
            self.run.clear();
        }
    }

    fn forget(&mut self) {
        self.test.forget();
        if self.test.run().all() == 0 {
            self.run.clear();
        }
    }

    fn restart(&mut self) {
        self.test.restart();
        self.run.clear();
        self.asked.clear();
    }

    pub(super) fn failed(&self) -> bool {
        self.test.step() == Step::Failed
    }

    /// The kinds of which the stable release is asked, while it is.
    pub(super) fn asks(&self) -> impl Iterator<Item = &Kind> {
        self.asked.keys()
    }
}

impl Judge {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        let kinds = terms.kinds.iter().map(|kind| (kind.clone(), Judged::new(budget(terms.kinds.len()))));
        let rates = terms.past.iter().map(|(kind, past)| (kind.clone(), Rates::after(*past, terms.broken)));
        Self {
            rates: rates.collect(),
            all: Judged::new(budget(1)),
            kinds: kinds.collect(),
            workers: BTreeMap::new(),
            pairs: BTreeMap::new(),
            stable: Stable::default(),
            seen: Seen::default(),
            terms,
        }
    }

    /// By what it judges.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(super) fn past(&self, kind: &Kind) -> Count {
        self.terms.past.get(kind).copied().unwrap_or_default()
    }

    pub(super) fn rates(&self, kind: &Kind) -> Rates {
        // A kind that the release does not register has no history either.
        let unknown = || Rates::after(Count::default(), self.terms.broken);
        self.rates.get(kind).copied().unwrap_or_else(unknown)
    }

    /// Takes in what is new. [`Judge::look`] does it; alone it is for who only wants to know which canaries to send.
    pub(super) fn take_in(&mut self, observed: &Observed) {
        let turned = self.take_in_stable(observed);
        self.forget(&turned);
        let mut all = Sum::default();
        let mut kinds: BTreeMap<&Kind, Sum<'_>> = BTreeMap::new();
        for (name, hands) in &observed.workers {
            let mut of_worker = Sum::default();
            let workers = self.terms.workers.max(self.workers.len() + 1);
            let pair = budget(workers * self.terms.kinds.len().max(1));
            for (kind, jobs, canaries, error) in self.seen.news(name, hands) {
                let (mut count, rates) = (jobs, self.rates(kind));
                count += canaries;
                let news = News::of(count, &rates);
                kinds.entry(kind).or_default().add(kind, news, error);
                if self.stable_fails(kind) {
                    continue; // it says nothing of this worker
                }
                all.add(kind, news, error);
                of_worker.add(kind, news, error);
                let pairs = self.pairs.entry(name.clone()).or_default();
                pairs.entry(kind.clone()).or_insert_with(|| Judged::new(pair)).take(news, error);
            }
            // One that takes the place of another gets a share, too: that is a little more than was planned.
            let judged = self.workers.entry(name.clone()).or_insert_with(|| Judged::new(budget(workers)));
            judged.take_all(of_worker);
        }
        for (kind, sum) in kinds {
            if let Some(judged) = self.kinds.get_mut(kind) {
                judged.take(sum.news, sum.error);
            }
        }
        self.all.take_all(all);
        self.settle_blame(observed);
    }

    /// Takes in what the stable release does; the kinds that it began or ceased to fail.
    fn take_in_stable(&mut self, observed: &Observed) -> BTreeSet<Kind> {
        let mut turned = BTreeSet::new();
        for (name, hands) in &observed.stable {
            // What its workers did before this judge came is the past.
            let first = !self.stable.seen.0.contains_key(name);
            for (kind, jobs, canaries, _) in self.stable.seen.news(name, hands) {
                let rates = self.rates(kind);
                let mut count = if first { Count::default() } else { jobs };
                count += canaries;
                let news = News::of(count, &rates);
                let lately = self.stable.kinds.entry(kind.clone()).or_default();
                let before = lately.fails;
                lately.take(news);
                lately.canaries += canaries;
                if lately.fails != before {
                    turned.insert(kind.clone());
                }
            }
        }
        turned
    }

    /// What a kind that fails on both releases left behind must not add up with a failure that comes long after.
    fn forget(&mut self, turned: &BTreeSet<Kind>) {
        if turned.is_empty() {
            return;
        }
        let of_it = |stream: &Stream| match stream {
            Stream::Kind(kind) | Stream::Pair(kind, _) => turned.contains(kind),
            _ => true,
        };
        for stream in self.streams().iter().filter(|stream| of_it(stream)) {
            if let Some(judged) = self.judged_mut(stream) {
                judged.forget();
            }
        }
    }

    /// Asks the stable release about what has failed just now, and lets what healed begin anew.
    fn settle_blame(&mut self, observed: &Observed) {
        for stream in self.streams() {
            if !self.judged(&stream).is_some_and(Judged::failed) {
                if let Some(judged) = self.judged_mut(&stream)
                    && judged.test.step() == Step::Passed
                {
                    judged.held = false;
                }
                continue;
            }
            let culprits = self.culprits(&stream);
            let ended: Vec<(Kind, Count)> =
                culprits.into_iter().map(|(kind, _)| (kind.clone(), self.stable_canaries(&kind))).collect();
            let Some(judged) = self.judged_mut(&stream) else { continue };
            let (held, recovered) = (judged.held, judged.test.recovered());
            for (kind, ended) in ended {
                judged.asked.entry(kind).or_insert(ended);
            }
            let asked = self.judged(&stream).into_iter().flat_map(Judged::asks);
            let stable_fails = asked.into_iter().any(|kind| self.stable_fails(kind));
            let excused =
                matches!(self.blame(&stream, observed), Blame::Environment(_) | Blame::IllBefore(_));
            let Some(judged) = self.judged_mut(&stream) else { continue };
            judged.held |= excused;
            if (held || excused) && recovered || held && !excused && !stable_fails {
                judged.restart();
            }
        }
    }

    fn stable_fails(&self, kind: &Kind) -> bool {
        self.stable.kinds.get(kind).is_some_and(|lately| lately.fails)
    }

    fn stable_canaries(&self, kind: &Kind) -> Count {
        self.stable.kinds.get(kind).map(|lately| lately.canaries).unwrap_or_default()
    }

    /// The kinds with failures that speak against a stream now.
    pub(super) fn culprits(&self, stream: &Stream) -> Vec<(Kind, Count)> {
        let Some(judged) = self.judged(stream) else { return Vec::new() };
        let all = match stream {
            Stream::Kind(kind) | Stream::Pair(kind, _) => vec![(kind.clone(), judged.test.run())],
            _ => judged.run.iter().map(|(kind, count)| (kind.clone(), *count)).collect(),
        };
        all.into_iter().filter(|(_, count)| count.failed > 0).collect()
    }

    /// Whose fault it is that a stream failed. A rollback helps only against what is the release's.
    pub(super) fn blame(&self, stream: &Stream, observed: &Observed) -> Blame {
        let culprits = self.culprits(stream);
        let failures: u64 = culprits.iter().map(|(_, count)| count.failed).sum();
        let excuses =
            culprits.iter().filter_map(|(kind, count)| Some((count, self.excuse(kind, *count, observed)?)));
        let excuses: Vec<_> = excuses.collect();
        let excused: u64 = excuses.iter().map(|(count, _)| count.failed).sum();
        if let Some((_, excuse)) = excuses.into_iter().max_by_key(|(count, _)| count.failed)
            && excused * 2 >= failures
        {
            return excuse;
        }
        let asked =
            culprits.iter().filter(|(kind, count)| self.is_being_asked(stream, kind, *count, observed));
        let open: u64 = asked.map(|(_, count)| count.failed).sum();
        if (excused + open) * 2 >= failures && open > 0 { Blame::Unknown } else { Blame::Release }
    }

    /// What excuses the failures of a kind, if something does.
    fn excuse(&self, kind: &Kind, here: Count, observed: &Observed) -> Option<Blame> {
        let past = self.past(kind);
        if self.rates(kind).ill && fisher(here, past) >= WORSE_THAN_ILL {
            return Some(Blame::IllBefore(past));
        }
        let there = self.stable.kinds.get(kind).filter(|there| there.fails)?;
        let pairs = observed.pairs.get(kind).copied().unwrap_or_default();
        let p = if pairs.only_here + pairs.only_there >= DISCORDANT {
            exact::mcnemar(pairs.only_here, pairs.only_there)
        } else {
            fisher(here, there.run)
        };
        (p >= WORSE).then_some(Blame::Environment(there.run))
    }

    /// Whether too few canaries have come back from the stable release since a stream failed. Whoever sends them calls
    /// those failed that do not come back in time, so this ends.
    fn is_being_asked(&self, stream: &Stream, kind: &Kind, here: Count, observed: &Observed) -> bool {
        let able = observed.stable.values().any(|hands| hands.kinds.contains(kind));
        let before = self.judged(stream).and_then(|judged| judged.asked.get(kind));
        let (true, true, Some(before)) = (able, self.terms.with_canary.contains(kind), before) else {
            return false;
        };
        let fresh = self.stable_canaries(kind).since(*before).unwrap_or_default();
        let enough = if fresh.failed == 0 { SECOND_OPINION } else { LAST_OPINION };
        fresh.all() < enough && fisher(here, fresh) >= WORSE
    }

    // ---- streams

    /// All that have a test.
    pub(super) fn streams(&self) -> Vec<Stream> {
        let kinds = self.kinds.keys().cloned().map(Stream::Kind);
        let workers = self.workers.keys().cloned().map(Stream::Worker);
        let of_worker = |(worker, kinds): (&WorkerName, &BTreeMap<Kind, Judged>)| {
            let pair = |kind: &Kind| Stream::Pair(kind.clone(), worker.clone());
            kinds.keys().map(pair).collect::<Vec<_>>()
        };
        let pairs = self.pairs.iter().flat_map(of_worker);
        std::iter::once(Stream::All).chain(kinds).chain(workers).chain(pairs).collect()
    }

    pub(super) fn judged(&self, stream: &Stream) -> Option<&Judged> {
        match stream {
            Stream::All => Some(&self.all),
            Stream::Kind(kind) => self.kinds.get(kind),
            Stream::Worker(worker) => self.workers.get(worker),
            Stream::Pair(kind, worker) => self.pairs.get(worker)?.get(kind),
            Stream::Crew | Stream::Queue(_) => None,
        }
    }

    fn judged_mut(&mut self, stream: &Stream) -> Option<&mut Judged> {
        match stream {
            Stream::All => Some(&mut self.all),
            Stream::Kind(kind) => self.kinds.get_mut(kind),
            Stream::Worker(worker) => self.workers.get_mut(worker),
            Stream::Pair(kind, worker) => self.pairs.get_mut(worker)?.get_mut(kind),
            Stream::Crew | Stream::Queue(_) => None,
        }
    }
}

fn fisher(here: Count, there: Count) -> f64 {
    exact::fisher(here.failed, here.all(), there.failed, there.all())
}

/// One stream's share of the budget, at its level.
fn budget(streams: usize) -> f64 {
    FALSE_FAIL / LEVELS / streams.max(1) as f64
}
