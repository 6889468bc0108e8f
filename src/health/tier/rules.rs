//! The rules of a tier: pure, from facts to a verdict.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};

use super::facts::{Change, TierFacts};
use super::verdict::{Decision, Mark, TierCheck, TierVerdict};
use crate::activation::{Activation, Mode, WorkerState};
use crate::clock::human;
use crate::job::State;
use crate::names::{DEFAULT_RELEASE, Kind, Queue, Release, shown};
use crate::store::{FaultCode, Presence, QueueCensus, STALE, Seen};

/// A worker of the active release may be inactive for so long after the flip, or after it came up: it learns of the
/// activation with its next poll, and runs its hook.
pub const SETTLING: Duration = Duration::from_secs(5);
/// A worker may be starting for so long.
pub const STARTING: Duration = Duration::from_secs(60);
/// A canary runs every ten seconds: three may be missed.
pub const CANARY: Duration = Duration::from_secs(35);
/// Free slots and no answered claim for so long is trouble.
pub const CLAIM: Duration = Duration::from_secs(15);
/// Jobs wait, slots are free, and nothing starts for so long.
pub const PROGRESS: Duration = Duration::from_secs(30);
/// A job runtime that does not tick for so long is blocked.
pub const RUNTIME: Duration = Duration::from_secs(5);
/// Jobs that wait for so long with no worker alive are hurt by it; a single worker that restarts takes less.
pub const UNATTENDED: Duration = Duration::from_secs(10);
/// A worker that vanished without goodbye counts as missing for so long, unless another one joined since.
pub const LOST: Duration = Duration::from_secs(600);
/// What `slo=1` means.
pub const SLO: Duration = Duration::from_secs(60);
/// How the names of workers begin that `doctor --simulate` makes up.
pub const SIMULATED: &str = "simulated-";

/// How many workers must be active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinActive {
    /// So many.
    Count(u32),
    /// So many of a hundred that are expected, rounded up.
    Percent(u8),
}

impl FromStr for MinActive {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().filter(|p| (1..=100).contains(p)).map(Self::Percent),
            None => text.parse().ok().filter(|n| (1..=100_000).contains(n)).map(Self::Count),
        };
        parsed.ok_or_else(|| {
            format!("`{}` is no number of workers: expected such as `6` or `80%` (1 to 100%)", shown(text))
        })
    }
}

impl fmt::Display for MinActive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n}"),
            Self::Percent(p) => write!(f, "{p}%"),
        }
    }
}

/// What a gate is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateAsk {
    /// Which release; never "the latest".
    pub release: Release,
    /// How many workers of it must be active.
    pub min_active: MinActive,
    /// How many workers of it there should be; without it, those that are there.
    pub expect: Option<u32>,
    /// Queues that must be served.
    pub queues: Vec<Queue>,
    /// Whether a provisional activation will do.
    pub allow_provisional: bool,
    /// The longest that the oldest job may wait; `None`: however long.
    pub slo: Option<Duration>,
    /// The generation that the asker knew: a replacement up to then is not news to it.
    pub known: u64,
}

impl GateAsk {
    /// The default question about a release: all of its workers.
    #[must_use]
    pub const fn new(release: Release) -> Self {
        Self {
            release,
            min_active: MinActive::Percent(100),
            expect: None,
            queues: Vec::new(),
            allow_provisional: false,
            slo: None,
            known: 0,
        }
    }
}

/// Judges.
#[must_use]
pub fn judge(ask: &GateAsk, facts: &TierFacts) -> TierVerdict {
    if let Some(verdict) = superseded(ask, facts).or_else(|| unknown(ask, facts)) {
        return verdict;
    }
    let crew = Crew::muster(ask, facts);
    let mut checks = vec![activation(&crew), active(&crew)];
    checks.extend(canaries(&crew));
    for (key, unit) in TROUBLES {
        checks.extend(troubles(&crew, key, unit));
    }
    checks.extend(some_stuck(&crew));
    checks.extend(progress(&crew));
    checks.extend(lost(&crew));
    checks.extend(forgotten(&crew));
    checks.extend(outcomes(&crew));
    checks.extend(queues_served(&crew));
    checks.extend(kinds_known(&crew));
    checks.extend(latency(&crew));
    checks.push(store(facts));
    checks.extend(way_back(&crew));
    conclude(&crew, checks)
}

// ---- the release's place in the tier

/// It was active, and another one replaced it since the asker looked last.
fn superseded(ask: &GateAsk, facts: &TierFacts) -> Option<TierVerdict> {
    let current = facts.activation.as_ref().filter(|current| current.release != ask.release)?;
    let change = replaced(facts, &ask.release).filter(|change| change.to.generation > ask.known)?;
    let how = if change.event == "activation.reverted" {
        "was not confirmed in time and reverted to"
    } else {
        "was replaced by"
    };
    let why = change.by.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let output = format!(
        "release `{}` {how} `{}` at generation {}, {} by {}{why}",
        ask.release, change.to.release, change.to.generation, change.at, change.by.who
    );
    let next = format!("sluicegate gate check --release {}", current.release);
    Some(bare(ask, facts, Decision::Superseded, output, next))
}

/// The newest change that took the activation from a release.
fn replaced<'f>(facts: &'f TierFacts, release: &Release) -> Option<&'f Change> {
    let left = |change: &&Change| {
        change.from.as_ref().is_some_and(|from| from.release == *release) && change.to.release != *release
    };
    facts.history.iter().find(left)
}

/// Nobody registered it, nothing of it lives, and it never was active.
fn unknown(ask: &GateAsk, facts: &TierFacts) -> Option<TierVerdict> {
    let release = &ask.release;
    let active = facts.activation.as_ref().is_some_and(|current| current.release == *release);
    let lives = facts.workers.iter().any(|seen| seen.presence.release == *release && !seen.is_stale());
    let was = facts.history.iter().any(|change| change.to.release == *release);
    // Every tier has the implicit one, until another is activated.
    let implicit = facts.activation.is_none() && release.as_str() == DEFAULT_RELEASE;
    if active || lives || was || implicit || facts.registered {
        return None;
    }
    let output = format!(
        "release `{release}` is unknown in tier `{}`: nobody registered it, no worker of it lives, it was never active",
        facts.tier
    );
    Some(bare(ask, facts, Decision::Unknown, output, format!("sluicegate work --release {release}")))
}

fn bare(ask: &GateAsk, facts: &TierFacts, decision: Decision, output: String, next: String) -> TierVerdict {
    TierVerdict {
        decision,
        terminal: decision == Decision::Superseded,
        unreachable: false,
        tier: facts.tier.clone(),
        release: ask.release.clone(),
        generation: facts.activation.as_ref().map(|current| current.generation),
        mode: None,
        confirm_by: None,
        deploy: None,
        output,
        next: Some(next),
        time: facts.now,
        deadline: None,
        checks: Vec::new(),
    }
}

// ---- the workers of the release

/// Where a worker of the release stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Living, and meant to work: starting, inactive or active.
    Here,
    /// Told not to claim: not counted.
    Quiet,
    /// On its way out: not counted.
    Leaving,
    /// Vanished without goodbye: counted as missing.
    Stale,
    /// The same, and others took its place, or it is too long ago: not counted.
    Lost,
}

/// What keeps a worker from counting.
struct Trouble {
    key: &'static str,
    code: Option<&'static str>,
    mark: Mark,
    /// Without ages: workers with the same reason are told of together, and a line is printed when it changes.
    reason: String,
    age: Duration,
}

struct Member<'a> {
    seen: &'a Seen,
    place: Place,
    trouble: Option<Trouble>,
    /// Active, by the store's answer to it under this activation.
    serving: bool,
    /// In its place, without trouble, and its canary came back.
    good: bool,
}

impl Member<'_> {
    fn presence(&self) -> &Presence {
        &self.seen.presence
    }

    /// Not good yet, and nothing says that it will not be.
    fn is_coming(&self) -> bool {
        self.place == Place::Here && self.trouble.is_none() && !self.good
    }

    fn free(&self) -> u32 {
        self.presence().slots.saturating_sub(self.presence().busy)
    }

    fn serves(&self, queue: &Queue) -> bool {
        self.presence().queues.as_ref().is_none_or(|queues| queues.contains(queue))
    }
}

struct Crew<'a> {
    ask: &'a GateAsk,
    facts: &'a TierFacts,
    /// The activation, if it is that of the release.
    current: Option<&'a Activation>,
    members: Vec<Member<'a>>,
    required: u64,
    /// Members that count.
    good: u64,
    /// Those that may count soon, and those that are expected and not there yet.
    coming: u64,
}

impl<'a> Crew<'a> {
    fn muster(ask: &'a GateAsk, facts: &'a TierFacts) -> Self {
        let current = facts.activation.as_ref().filter(|current| current.release == ask.release);
        let of_release: Vec<&Seen> =
            facts.workers.iter().filter(|seen| seen.presence.release == ask.release).collect();
        let members: Vec<Member<'_>> = of_release
            .iter()
            // Nothing of a simulation outlives it.
            .filter(|seen| !(is_simulated(seen) && seen.is_stale()))
            .map(|seen| enlist(seen, place(seen, &of_release), current, facts))
            .collect();
        let count =
            |wanted: &dyn Fn(&Member<'_>) -> bool| members.iter().filter(|m| wanted(m)).count() as u64;
        let there = count(&|m| matches!(m.place, Place::Here | Place::Stale));
        // A made-up worker shall be missed, so while there is one nobody makes up for it.
        let simulated = count(&|m| m.place == Place::Here && is_simulated(m.seen));
        let expected = ask.expect.map_or(there - simulated, u64::from);
        let required = match ask.min_active {
            MinActive::Count(n) => u64::from(n),
            MinActive::Percent(percent) => (expected * u64::from(percent)).div_ceil(100),
        };
        let required = match simulated {
            0 => required.max(1),
            n => required.max(there - simulated) + n,
        };
        let absent = ask.expect.map_or(required, |_| expected + simulated).saturating_sub(there);
        let (good, coming) = (count(&|m| m.good), count(&|m| m.is_coming()) + absent);
        Self { ask, facts, current, members, required, good, coming }
    }

    /// How heavy trouble of one worker weighs: others may make up for it, or may still come.
    fn weigh(&self, mark: Mark) -> Mark {
        if self.good >= self.required {
            Mark::Warn
        } else if self.good + self.coming >= self.required {
            Mark::Pending
        } else {
            mark
        }
    }

    /// What is missing as long as somebody may still bring it.
    fn unless_more_come(&self) -> Mark {
        if self.coming > 0 { Mark::Pending } else { Mark::Final }
    }

    fn here(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(|member| member.place == Place::Here)
    }

    /// Those who do the work, or would.
    fn hands(&self) -> impl Iterator<Item = &Member<'a>> {
        self.here().filter(|member| self.current.is_none() || member.serving)
    }

    fn serving(&self) -> u64 {
        self.members.iter().filter(|member| member.serving).count() as u64
    }

    fn waiting(&self) -> impl Iterator<Item = (&QueueCensus, u64, Duration)> {
        let facts = self.facts;
        facts
            .queues
            .iter()
            .filter(|queue| !facts.held.iter().any(|held| held.queue == queue.queue))
            .filter_map(|queue| {
                let waiting = queue.states.get(&State::Available).copied().unwrap_or(0);
                (waiting > 0).then(|| (queue, waiting, queue.oldest_wait.unwrap_or_default()))
            })
    }
}

/// Whether `doctor --simulate` made it up.
#[must_use]
pub fn is_simulated(seen: &Seen) -> bool {
    seen.presence.worker.as_str().starts_with(SIMULATED)
}

fn place(seen: &Seen, all: &[&Seen]) -> Place {
    match seen.presence.state {
        WorkerState::Stopping | WorkerState::Stopped => Place::Leaving,
        WorkerState::Quiet if seen.is_stale() => Place::Lost,
        WorkerState::Quiet => Place::Quiet,
        _ if !seen.is_stale() => Place::Here,
        _ if seen.age >= LOST || is_replaced(seen, all) => Place::Lost,
        _ => Place::Stale,
    }
}

/// Whether one that joined later takes the place of a stale worker. Each can take one place only, so there must be more
/// of them than workers that vanished since.
fn is_replaced(stale: &Seen, all: &[&Seen]) -> bool {
    let meant = |seen: &&&Seen| {
        !matches!(seen.presence.state, WorkerState::Stopping | WorkerState::Stopped | WorkerState::Quiet)
            && !is_simulated(seen)
    };
    let joined = all.iter().filter(meant).filter(|seen| !seen.is_stale() && seen.since > stale.at).count();
    let vanished_later = all
        .iter()
        .filter(meant)
        .filter(|seen| {
            seen.is_stale() && (seen.at, &seen.presence.worker) > (stale.at, &stale.presence.worker)
        })
        .count();
    joined > vanished_later
}

fn enlist<'a>(seen: &'a Seen, place: Place, current: Option<&Activation>, facts: &TierFacts) -> Member<'a> {
    let presence = &seen.presence;
    // It may have become active under an earlier activation of the same release, and will hear of this one.
    let serving = place == Place::Here
        && presence.state == WorkerState::Active
        && current.is_some_and(|current| presence.generation >= current.generation);
    let trouble = match place {
        Place::Here => trouble(seen, current, facts),
        Place::Stale => Some(Trouble {
            key: "worker:presence",
            code: None,
            mark: Mark::Fail,
            reason: format!("vanished while {} and did not say goodbye", presence.state),
            age: seen.age,
        }),
        Place::Quiet | Place::Leaving | Place::Lost => None,
    };
    let in_place = match current {
        Some(_) => serving,
        None => matches!(presence.state, WorkerState::Inactive | WorkerState::Active),
    };
    let good = place == Place::Here && trouble.is_none() && in_place && presence.canary_age.is_some();
    Member { seen, place, trouble, serving, good }
}

/// The first thing that is wrong with a living worker.
fn trouble(seen: &Seen, current: Option<&Activation>, facts: &TierFacts) -> Option<Trouble> {
    let presence = &seen.presence;
    let found = |key, reason: String, age| Some(Trouble { key, code: None, mark: Mark::Final, reason, age });
    if let Some(fault) = &presence.fault {
        let key = match fault.code {
            FaultCode::SelfTestFailed => "canary:roundTrip",
            FaultCode::ActivationHookFailed => "hooks:integrity",
            FaultCode::StoreWentBack | FaultCode::Other => "worker:fault",
        };
        let reason = format!("{}: {}", fault.code.as_str(), fault.detail);
        let age = facts.now.since(fault.at);
        return Some(Trouble { key, code: Some(fault.code.as_str()), mark: Mark::Final, reason, age });
    }
    if presence.runtime_age >= RUNTIME {
        return found(
            "runtime:tick",
            "its job runtime does not tick: something blocks it".into(),
            presence.runtime_age,
        );
    }
    if presence.stuck > 0 && presence.stuck >= presence.slots {
        let reason = "all of its slots hold jobs that ignore their cancellation".into();
        return found("slots:stuck", reason, Duration::ZERO);
    }
    if presence.state == WorkerState::Active {
        if let Some(age) = claim_overdue(presence) {
            return found("worker:claim", "it has free slots and no claim of it was answered".into(), age);
        }
        if let Some(age) = presence.stalled.filter(|age| *age >= PROGRESS) {
            let reason = "jobs wait for it, it has free slots, and it starts none".into();
            return found("tier:progress", reason, age);
        }
    }
    if let Some(error) = &presence.canary_error {
        let reason = format!("its canary failed: {error}");
        return found("canary:roundTrip", reason, presence.canary_age.unwrap_or_default());
    }
    if let Some(age) = presence.canary_age.filter(|age| *age > CANARY) {
        return found("canary:roundTrip", "its canaries do not return any more".into(), age);
    }
    idle(seen, current, facts)
}

/// A worker of the active release that does not become active.
fn idle(seen: &Seen, current: Option<&Activation>, facts: &TierFacts) -> Option<Trouble> {
    let presence = &seen.presence;
    let age = presence.state_age;
    let (limit, age) = match presence.state {
        WorkerState::Starting => (STARTING, age),
        // Before the flip it was inactive rightly.
        WorkerState::Inactive if is_simulated(seen) => (SETTLING, age),
        WorkerState::Inactive => (SETTLING, age.min(facts.now.since(current?.since))),
        _ => return None,
    };
    let why = presence.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let reason = format!("{}{why}", presence.state);
    (age >= limit).then_some(Trouble { key: "tier:active", code: None, mark: Mark::Final, reason, age })
}

/// Where every slot is busy nothing is claimed, rightly, and where one just came free a job just ended.
fn claim_overdue(presence: &Presence) -> Option<Duration> {
    let never = Duration::MAX;
    let age =
        [presence.claim_age.unwrap_or(never), presence.progress_age.unwrap_or(never), presence.state_age]
            .into_iter()
            .min()?;
    (presence.busy < presence.slots && age >= CLAIM).then_some(age)
}

// ---- the checks

/// Whether the release is the active one, and stands.
fn activation(crew: &Crew<'_>) -> TierCheck {
    const KEY: &str = "tier:activation";
    let (facts, release) = (crew.facts, &crew.ask.release);
    let hint = format!("sluicegate activate {release}");
    let Some(current) = crew.current else {
        let (observed, output) = match &facts.activation {
            None => (Value::Null, format!("nothing is active in tier `{}` yet", facts.tier)),
            Some(other) => (
                json!(other.release),
                format!("release `{}` is active (generation {})", other.release, other.generation),
            ),
        };
        return TierCheck::pass(KEY, facts.now, observed).bad(Mark::Pending, output, hint);
    };
    let found =
        TierCheck { since: Some(current.since), ..TierCheck::pass(KEY, facts.now, json!(current.mode)) };
    if current.mode == Mode::Committed {
        return found;
    }
    let overdue = current.confirm_by.is_some_and(|by| facts.now > by.plus(SETTLING));
    let back = current.fallback.as_ref().map_or_else(|| "nothing".to_owned(), |to| format!("`{to}`"));
    let hint = format!("sluicegate activate {release} --confirm");
    if overdue {
        let output =
            format!("its provisional activation is overdue, and no living worker of {back} reverts it");
        return found.bad(Mark::Fail, output, hint);
    }
    if crew.ask.allow_provisional {
        return found;
    }
    let output =
        format!("provisional at generation {}, reverts to {back} unless it is committed", current.generation);
    found.bad(Mark::Pending, output, hint)
}

/// How many are active, of how many that must be.
fn active(crew: &Crew<'_>) -> TierCheck {
    let release = &crew.ask.release;
    let mut found = TierCheck::pass("tier:active", crew.facts.now, crew.serving()).unit("workers");
    found.required = Some(json!(crew.required));
    found.by_state = Some(by_state(crew));
    if crew.current.is_none() {
        let output = format!("{}/{} inactive and proven on {release}", crew.good, crew.required);
        // That it is not active yet is told by the check before this one.
        let mark = if crew.good >= crew.required { Mark::Pending } else { crew.weigh(worst(crew)) };
        return found.bad(mark, output, "sluicegate status");
    }
    if crew.serving() >= crew.required {
        return found;
    }
    let mut output = format!("{}/{} active on {release}", crew.serving(), crew.required);
    let groups = groups(crew, "tier:active");
    if let Some(alone) = unattended(crew) {
        return found.bad(Mark::Fail, format!("{output}: {alone}"), "sluicegate doctor");
    }
    if crew.good + crew.coming >= crew.required {
        let coming: Vec<String> = by_state(crew)
            .into_iter()
            .filter(|(state, n)| *n > 0 && matches!(*state, "starting" | "inactive"))
            .map(|(state, n)| format!("{n} {state}"))
            .collect();
        if !coming.is_empty() {
            output += &format!(", {}", coming.join(", "));
        }
        return found.bad(Mark::Pending, output, "sluicegate status");
    }
    for group in &groups {
        output += &format!("; {}", group.words());
    }
    found.since = groups.iter().map(|group| crew.facts.now.minus(group.age)).min();
    found.bad(worst(crew), output, "sluicegate doctor")
}

/// The worst that any worker tells: whether waiting heals it.
fn worst(crew: &Crew<'_>) -> Mark {
    crew.members
        .iter()
        .filter_map(|member| member.trouble.as_ref())
        .map(|t| t.mark)
        .max()
        .unwrap_or(Mark::Fail)
}

/// Nobody is there who would work, and that hurts.
fn unattended(crew: &Crew<'_>) -> Option<String> {
    if crew.members.iter().any(|member| matches!(member.place, Place::Here | Place::Stale)) {
        return None;
    }
    let quiet: Vec<&Member<'_>> = crew.members.iter().filter(|m| m.place == Place::Quiet).collect();
    if let Some(one) = quiet.first() {
        let names = names(quiet.iter().map(|member| member.presence().worker.as_str()));
        return Some(format!("{names} told to be quiet {}", quiet_words(one.presence())));
    }
    let (waiting, oldest) = crew
        .waiting()
        .map(|(_, waiting, oldest)| (waiting, oldest))
        .fold((0, Duration::ZERO), |(n, worst), (waiting, oldest)| (n + waiting, worst.max(oldest)));
    (oldest >= UNATTENDED).then(|| format!("no worker of it lives, and {waiting} jobs wait"))
}

/// By whom a worker was told to be quiet, why, and until when.
pub(super) fn quiet_words(presence: &Presence) -> String {
    match &presence.quiet {
        None => presence.reason.clone().unwrap_or_default(),
        Some(quiet) => {
            let until = quiet.until.map_or_else(|| "until resumed".to_owned(), |at| format!("until {at}"));
            format!("by {} ({}), {until}", quiet.owner, quiet.reason)
        }
    }
}

fn by_state(crew: &Crew<'_>) -> BTreeMap<&'static str, u64> {
    let mut counts: BTreeMap<&'static str, u64> =
        ["starting", "inactive", "active", "quiet", "stopping", "stale"]
            .into_iter()
            .map(|s| (s, 0))
            .collect();
    for member in &crew.members {
        let state = if member.seen.is_stale() { "stale" } else { member.presence().state.as_str() };
        *counts.entry(state).or_default() += 1;
    }
    counts
}

/// Checks of which each is one trouble that a worker can have.
const TROUBLES: [(&str, &str); 6] = [
    ("hooks:integrity", "faults"),
    ("worker:fault", "faults"),
    ("worker:claim", "workers"),
    ("runtime:tick", "workers"),
    ("slots:stuck", "workers"),
    ("worker:presence", "workers"),
];

/// Workers with the same trouble.
struct Group<'a> {
    reason: &'a str,
    code: Option<&'static str>,
    mark: Mark,
    names: Vec<&'a str>,
    age: Duration,
}

impl Group<'_> {
    fn words(&self) -> String {
        format!("{}: {}", names(self.names.iter().copied()), self.reason)
    }
}

/// `w-1, w-2 and 4 more`.
pub(super) fn names<'n>(names: impl Iterator<Item = &'n str>) -> String {
    const SHOWN: usize = 3;
    let all: Vec<&str> = names.collect();
    let more = all.len().saturating_sub(SHOWN);
    let first: Vec<&str> = all.into_iter().take(SHOWN).collect();
    if more == 0 { first.join(", ") } else { format!("{} and {more} more", first.join(", ")) }
}

fn groups<'a>(crew: &'a Crew<'_>, key: &str) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for member in &crew.members {
        let Some(trouble) = member.trouble.as_ref().filter(|trouble| trouble.key == key) else { continue };
        let name = member.presence().worker.as_str();
        match groups.iter_mut().find(|group| group.reason == trouble.reason) {
            Some(group) => {
                group.names.push(name);
                group.age = group.age.max(trouble.age);
            }
            None => groups.push(Group {
                reason: &trouble.reason,
                code: trouble.code,
                mark: trouble.mark,
                names: vec![name],
                age: trouble.age,
            }),
        }
    }
    groups
}

fn troubles(crew: &Crew<'_>, key: &'static str, unit: &'static str) -> Vec<TierCheck> {
    let now = crew.facts.now;
    let groups = groups(crew, key);
    if groups.is_empty() {
        return vec![TierCheck::pass(key, now, 0).unit(unit)];
    }
    let check = |group: &Group<'_>| {
        let mut check = TierCheck::pass(key, now, group.names.len()).unit(unit);
        if let [name] = group.names.as_slice() {
            check = check.of(format!("worker/{name}"));
        }
        check.code = group.code;
        check.since = Some(now.minus(group.age));
        check.bad(crew.weigh(group.mark), group.words(), "sluicegate doctor")
    };
    groups.iter().map(check).collect()
}

/// Each worker that counts proved itself with a job of its own.
fn canaries(crew: &Crew<'_>) -> Vec<TierCheck> {
    const KEY: &str = "canary:roundTrip";
    let now = crew.facts.now;
    let mut checks: Vec<TierCheck> =
        if groups(crew, KEY).is_empty() { Vec::new() } else { troubles(crew, KEY, "workers") };
    let waiting = crew
        .hands()
        .filter(|member| member.trouble.is_none() && member.presence().canary_age.is_none())
        .map(|member| member.presence().worker.as_str());
    let waiting: Vec<&str> = waiting.collect();
    if !waiting.is_empty() && crew.good < crew.required {
        let output = format!("{}: the first canary has not returned yet", names(waiting.iter().copied()));
        let check = TierCheck::pass(KEY, now, waiting.len()).unit("workers");
        checks.push(check.bad(Mark::Pending, output, "sluicegate status"));
    }
    if checks.is_empty() && crew.good > 0 {
        let oldest =
            crew.members.iter().filter(|member| member.good).filter_map(|m| m.presence().canary_age).max();
        let oldest = oldest.unwrap_or_default();
        let mut check = TierCheck::pass(KEY, now, secs(oldest)).unit("s");
        (check.limit, check.verified_at) = (Some(secs(CANARY)), Some(now.minus(oldest)));
        checks.push(check);
    }
    checks
}

/// While one slot of a worker is good, its loss would cost more than the stuck ones do.
fn some_stuck(crew: &Crew<'_>) -> Option<TierCheck> {
    let some = |member: &&Member<'_>| member.presence().stuck > 0 && member.trouble.is_none();
    let with: Vec<&Member<'_>> = crew.here().filter(some).collect();
    let stuck: u32 = with.iter().map(|member| member.presence().stuck).sum();
    (stuck > 0).then(|| {
        let names = names(with.iter().map(|member| member.presence().worker.as_str()));
        let output = format!("{names}: {stuck} jobs ignore their cancellation");
        TierCheck::pass("slots:stuck", crew.facts.now, stuck).unit("slots").bad(
            Mark::Warn,
            output,
            "sluicegate job list --state running",
        )
    })
}

/// Jobs wait and nothing happens: as a worker tells it, or as nobody does.
fn progress(crew: &Crew<'_>) -> Vec<TierCheck> {
    const KEY: &str = "tier:progress";
    let now = crew.facts.now;
    let mut checks: Vec<TierCheck> =
        if groups(crew, KEY).is_empty() { Vec::new() } else { troubles(crew, KEY, "workers") };
    if crew.current.is_some() && crew.serving() > 0 {
        for (queue, waiting, oldest) in crew.waiting().filter(|(.., oldest)| *oldest >= PROGRESS) {
            let mut check =
                TierCheck::pass(KEY, now, secs(oldest)).unit("s").of(format!("queue/{}", queue.queue));
            check.limit = Some(secs(PROGRESS));
            if let Some((mark, output)) = standstill(crew, queue) {
                let output = format!("{waiting} jobs wait in queue `{}`, {output}", queue.queue);
                checks.push(check.bad(mark, output, "sluicegate doctor"));
            }
        }
    }
    if checks.is_empty() {
        let oldest = crew.waiting().map(|(.., oldest)| oldest).max().unwrap_or_default();
        checks.push(TierCheck::pass(KEY, now, secs(oldest)).unit("s"));
    }
    checks
}

/// Why jobs that have long waited in a queue do not start, if nothing good explains it.
fn standstill(crew: &Crew<'_>, queue: &QueueCensus) -> Option<(Mark, String)> {
    let serving: Vec<&Member<'_>> =
        crew.hands().filter(|member| member.serves(&queue.queue) && member.trouble.is_none()).collect();
    if serving.is_empty() {
        let any = crew.hands().any(|member| member.serves(&queue.queue));
        // One that serves it and is in trouble is told of already.
        return (!any).then(|| (crew.unless_more_come(), "and no active worker serves it".to_owned()));
    }
    // A suspect waits for another one to end, so while anything of the queue runs only its worker can tell.
    if queue.states.get(&State::Running).copied().unwrap_or(0) > 0 {
        return None;
    }
    let free: u32 = serving.iter().map(|member| member.free()).sum();
    let idle = |member: &&Member<'_>| {
        let presence = member.presence();
        presence.progress_age.unwrap_or(Duration::MAX).min(presence.state_age) >= PROGRESS
    };
    (free > 0 && serving.iter().all(idle))
        .then(|| (Mark::Final, format!("{free} slots are free, and none of them starts")))
}

/// Workers that vanished and are not missed any more.
fn lost(crew: &Crew<'_>) -> Option<TierCheck> {
    let lost: Vec<&Member<'_>> = crew.members.iter().filter(|member| member.place == Place::Lost).collect();
    (!lost.is_empty()).then(|| {
        let names = names(lost.iter().map(|member| member.presence().worker.as_str()));
        let output = format!("{names} vanished without goodbye; not counted any more");
        TierCheck::pass("worker:presence", crew.facts.now, lost.len()).unit("workers").bad(
            Mark::Warn,
            output,
            "sluicegate status",
        )
    })
}

/// Quiet without an end is how workers are forgotten.
fn forgotten(crew: &Crew<'_>) -> Option<TierCheck> {
    let endless = |member: &&Member<'_>| {
        member.place == Place::Quiet
            && member.presence().quiet.as_ref().is_some_and(|quiet| quiet.until.is_none())
    };
    let endless: Vec<&Member<'_>> = crew.members.iter().filter(endless).collect();
    endless.first().map(|one| {
        let names = names(endless.iter().map(|member| member.presence().worker.as_str()));
        let output = format!("{names} told to be quiet {}", quiet_words(one.presence()));
        let check = TierCheck::pass("worker:quiet", crew.facts.now, endless.len()).unit("workers");
        check.bad(Mark::Warn, output, "sluicegate worker resume --all")
    })
}

/// Jobs that all fail are no progress: whatever the number of workers, this is the release.
fn outcomes(crew: &Crew<'_>) -> Vec<TierCheck> {
    const KEY: &str = "outcomes:firstAttempts";
    let now = crew.facts.now;
    let mut kinds: BTreeMap<&Kind, (u64, u64, &crate::store::Failing)> = BTreeMap::new();
    for failing in crew.here().flat_map(|member| &member.presence().failing) {
        let entry = kinds.entry(&failing.kind).or_insert((0, 0, failing));
        (entry.0, entry.1) = (entry.0 + failing.failed, entry.1 + failing.attempts);
        if failing.since < entry.2.since {
            entry.2 = failing;
        }
    }
    if kinds.is_empty() {
        return vec![TierCheck::pass(KEY, now, 0).unit("kinds")];
    }
    let check = |(kind, (failed, attempts, first)): (&Kind, (u64, u64, &crate::store::Failing))| {
        let mut check =
            TierCheck::pass(KEY, now, share(failed, attempts)).unit("ratio").of(format!("kind/{kind}"));
        (check.limit, check.since) = (Some(json!(first.baseline)), Some(first.since));
        let output = format!(
            "jobs of kind `{kind}` fail on {} since {}: {}",
            crew.ask.release, first.since, first.error
        );
        check.bad(Mark::Final, output, format!("sluicegate job list --kind {kind} --state retryable"))
    };
    kinds.into_iter().map(check).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Each queue that was asked for is served.
fn queues_served(crew: &Crew<'_>) -> Vec<TierCheck> {
    const KEY: &str = "queues:served";
    let now = crew.facts.now;
    let check = |queue: &Queue| {
        let by = crew.hands().filter(|member| member.serves(queue)).count();
        let check = TierCheck::pass(KEY, now, by).unit("workers").of(format!("queue/{queue}"));
        if by > 0 {
            return check;
        }
        let output = format!("no active worker of {} serves queue `{queue}`", crew.ask.release);
        check.bad(crew.unless_more_come(), output, "sluicegate status")
    };
    crew.ask.queues.iter().map(check).collect()
}

/// Every kind that waits is one that a living worker of the release can run.
fn kinds_known(crew: &Crew<'_>) -> Vec<TierCheck> {
    const KEY: &str = "kinds:known";
    const WAITING: [State; 4] = [State::Available, State::Scheduled, State::Retryable, State::Parked];
    let now = crew.facts.now;
    let known = |kind: &Kind| {
        let living = crew.members.iter().filter(|member| matches!(member.place, Place::Here | Place::Quiet));
        living.flat_map(|member| &member.presence().kinds).any(|(other, _)| other == kind)
    };
    if crew.here().next().is_none() {
        return Vec::new(); // that nobody is there is told already
    }
    let mut waiting: BTreeMap<&Kind, u64> = BTreeMap::new();
    for (kind, states) in crew.facts.queues.iter().flat_map(|queue| &queue.kinds) {
        let n: u64 = WAITING.iter().filter_map(|state| states.get(state)).sum();
        if n > 0 && !known(kind) {
            *waiting.entry(kind).or_default() += n;
        }
    }
    if waiting.is_empty() {
        return vec![TierCheck::pass(KEY, now, 0).unit("kinds")];
    }
    let check = |(kind, n): (&Kind, u64)| {
        let output =
            format!("jobs of kind `{kind}` wait, and no living worker of {} knows it", crew.ask.release);
        TierCheck::pass(KEY, now, n).unit("jobs").of(format!("kind/{kind}")).bad(
            crew.unless_more_come(),
            output,
            format!("sluicegate job list --kind {kind}"),
        )
    };
    waiting.into_iter().map(check).collect()
}

/// A backlog is no fault of a worker, so it counts only for who asks.
fn latency(crew: &Crew<'_>) -> Vec<TierCheck> {
    let Some(slo) = crew.ask.slo else { return Vec::new() };
    let now = crew.facts.now;
    let asked = |queue: &Queue| crew.ask.queues.is_empty() || crew.ask.queues.contains(queue);
    let check = |(queue, _, oldest): (&QueueCensus, u64, Duration)| {
        let mut check = TierCheck::pass("queue:latency", now, secs(oldest))
            .unit("s")
            .of(format!("queue/{}", queue.queue));
        check.limit = Some(secs(slo));
        if oldest <= slo {
            return check;
        }
        let output = format!("the oldest job of queue `{}` waits longer than {}", queue.queue, human(slo));
        check.bad(Mark::Fail, output, format!("sluicegate queue show {}", queue.queue))
    };
    crew.waiting().filter(|(queue, ..)| asked(&queue.queue)).map(check).collect()
}

fn store(facts: &TierFacts) -> TierCheck {
    const KEY: &str = "store:probe";
    let survives = facts.about.durability.to_string();
    match &facts.unwritable {
        None => TierCheck::pass(KEY, facts.now, survives),
        Some(error) => {
            let hint = error.hint.clone().unwrap_or_else(|| "sluicegate doctor".to_owned());
            TierCheck::pass(KEY, facts.now, survives).bad(Mark::Fail, error.to_string(), hint)
        }
    }
}

/// Where a rollback would go. It informs: a first release has no way back, and must still pass.
fn way_back(crew: &Crew<'_>) -> Option<TierCheck> {
    const KEY: &str = "rollback:target";
    let (facts, release) = (crew.facts, &crew.ask.release);
    let target = match crew.current {
        None => facts.activation.as_ref().map(|other| &other.release),
        Some(current) => current.fallback.as_ref().or_else(|| {
            let before = facts.history.iter().filter_map(|change| change.from.as_ref());
            before.map(|from| &from.release).find(|from| *from != release)
        }),
    };
    let Some(target) = target else {
        let first = "there is no release to go back to yet";
        return (release.as_str() != DEFAULT_RELEASE)
            .then(|| TierCheck::pass(KEY, facts.now, Value::Null).bad(Mark::Warn, first, ""));
    };
    let check = TierCheck::pass(KEY, facts.now, json!(target));
    match proven(facts, target).map(|seen| seen.presence.canary_age.unwrap_or_default() + seen.age).min() {
        Some(age) => Some(TierCheck { verified_at: Some(facts.now.minus(age)), ..check }),
        None => {
            let output = format!("way back `{target}`: no living, proven worker of it");
            Some(check.bad(Mark::Warn, output, format!("sluicegate work --release {target}")))
        }
    }
}

/// The living workers of a release that could take over now, or have: no fault, and a canary that came back lately.
pub fn proven<'f>(facts: &'f TierFacts, release: &Release) -> impl Iterator<Item = &'f Seen> {
    let release = release.clone();
    facts.workers.iter().filter(move |seen| {
        let presence = &seen.presence;
        presence.release == release
            && !seen.is_stale()
            && !is_simulated(seen)
            && matches!(presence.state, WorkerState::Inactive | WorkerState::Active)
            && presence.fault.is_none()
            && presence.canary_error.is_none()
            && presence.canary_age.is_some_and(|age| age <= CANARY)
    })
}

// ---- the verdict

fn conclude(crew: &Crew<'_>, checks: Vec<TierCheck>) -> TierVerdict {
    let worst = checks.iter().map(|check| check.mark).max().unwrap_or(Mark::Pending);
    let (decision, terminal) = match worst {
        Mark::Pass | Mark::Warn => (Decision::Pass, true),
        Mark::Pending => (Decision::Pending, false),
        Mark::Fail => (Decision::Fail, false),
        Mark::Final => (Decision::Fail, true),
    };
    let output = match decision {
        Decision::Pass => carried(crew, &checks),
        _ => blocked(&checks, worst),
    };
    let next = checks.iter().filter(|check| decision != Decision::Pass && check.mark == worst);
    let next = next.filter_map(|check| check.hint.clone()).find(|hint| hint.starts_with("sluicegate "));
    let mut verdict = bare(crew.ask, crew.facts, decision, output, String::new());
    (verdict.terminal, verdict.next, verdict.checks) = (terminal, next, checks);
    if let Some(current) = crew.current {
        (verdict.mode, verdict.confirm_by) = (Some(current.mode), current.confirm_by);
        verdict.deploy.clone_from(&current.deploy);
    }
    verdict
}

/// What blocks it, as far as it is of the worst sort.
fn blocked(checks: &[TierCheck], worst: Mark) -> String {
    let of = |mark| {
        checks.iter().filter(move |check| check.mark == mark).filter_map(|check| check.output.as_deref())
    };
    // What will not heal explains; what may is its effect.
    let words: Vec<&str> = if worst == Mark::Final { of(Mark::Final).collect() } else { of(worst).collect() };
    words.join(" · ")
}

/// What carries it.
fn carried(crew: &Crew<'_>, checks: &[TierCheck]) -> String {
    let mut words = Vec::new();
    if let Some(current) = crew.current {
        let mode = if current.mode == Mode::Committed { "committed" } else { "provisional" };
        words.push(format!("{mode} at generation {}", current.generation));
    }
    words.push(format!("{}/{} active on {}", crew.serving(), crew.required, crew.ask.release));
    if let Some(oldest) = crew.waiting().map(|(.., oldest)| oldest).max() {
        words.push(format!("oldest job {}", human(oldest)));
    }
    let back = checks.iter().find(|check| check.key == "rollback:target" && check.mark == Mark::Pass);
    words.extend(
        back.and_then(|check| check.observed_value.as_str()).map(|back| format!("way back {back} warm")),
    );
    let warnings = checks.iter().filter(|check| check.mark == Mark::Warn);
    words.extend(
        warnings.filter_map(|check| check.output.as_ref()).map(|output| format!("warning: {output}")),
    );
    words.join(" · ")
}

fn secs(duration: Duration) -> Value {
    json!(duration.as_millis() as f64 / 1e3)
}

/// Every threshold, for `gate explain`: name, value, what it means.
pub const THRESHOLDS: [(&str, Duration, &str); 9] = [
    ("silence", STALE, "a worker that says nothing for so long is stale: three beats"),
    ("settling", SETTLING, "a worker of the active release may be inactive for so long"),
    ("starting", STARTING, "a worker may be starting for so long"),
    ("canary", CANARY, "the last canary of a worker came back within this"),
    ("claim", CLAIM, "with free slots, the last claim was answered within this"),
    ("progress", PROGRESS, "jobs wait, slots are free, and nothing starts for so long"),
    ("runtime", RUNTIME, "the job runtime ticks within this"),
    ("unattended", UNATTENDED, "jobs wait for so long and no worker lives"),
    ("lost", LOST, "a worker that vanished is missed for so long, unless another joined since"),
];
