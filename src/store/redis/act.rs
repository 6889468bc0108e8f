//! What a person does to jobs.

use deadpool_redis::redis;

use super::link::Lane;
use super::moves::{Move, Sight, Source, Target, elsewhere, end_waiting};
use super::record::{Stored, Story};
use super::scripts::{Args, Script};
use super::sweep::make_available;
use super::value::{Values, set, strange};
use super::{RedisStore, prefix};
use crate::clock::Timestamp;
use crate::ids::JobId;
use crate::job::State;
use crate::job::record::Attempt;
use crate::job::state::{Event, next};
use crate::names::Tier;
use crate::store::digest::COMPLETED;
use crate::store::{Acted, Action, Actor, StoreError};

/// A job that others get in the way of so often is given up.
const TRIES: usize = 50;

/// What is to be done to one job.
enum Step {
    Answer(Acted),
    Move(Box<Move>, Acted),
    Ask,
}

/// Where a job that nobody holds is.
fn waiting(job: &Stored, state: State, story: &Story) -> Source {
    if state == State::Available { Source::Available } else { elsewhere(job.sid, story) }
}

fn moved(one: Option<Move>, to: State) -> Step {
    one.map_or(Step::Answer(Acted::NotFound), |one| Step::Move(Box::new(one), Acted::Done(to)))
}

impl RedisStore {
    pub(super) async fn act_on(
        &self,
        tier: &Tier,
        ids: &[JobId],
        action: Action,
        by: &Actor,
    ) -> Result<Vec<Acted>, StoreError> {
        let mut answers: Vec<Option<Acted>> = vec![None; ids.len()];
        let mut todo: Vec<usize> = (0..ids.len()).collect();
        while !todo.is_empty() {
            let mut seen = std::collections::HashSet::new();
            let (round, later): (Vec<usize>, Vec<usize>) =
                todo.into_iter().partition(|at| ids.get(*at).is_some_and(|id| seen.insert(*id)));
            self.act_round(tier, ids, round, (action, by), &mut answers).await?;
            todo = later;
        }
        let answers: Vec<Acted> = answers
            .into_iter()
            .map(|answer| answer.ok_or_else(|| strange("change jobs", self.link.place())))
            .collect::<Result<_, _>>()?;
        let done = answers.iter().filter(|answer| matches!(answer, Acted::Done(_) | Acted::Asked)).count();
        if done > 0
            && let Some(name) = action.entry()
        {
            let detail = serde_json::json!({ "jobs": done, "first": ids.first() }).to_string();
            self.append_entry(tier, name, by, &detail).await?;
        }
        Ok(answers)
    }

    async fn act_round(
        &self,
        tier: &Tier,
        ids: &[JobId],
        mut round: Vec<usize>,
        (action, by): (Action, &Actor),
        answers: &mut [Option<Acted>],
    ) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            if round.is_empty() {
                return Ok(());
            }
            let asked: Vec<JobId> = round.iter().filter_map(|at| ids.get(*at).copied()).collect();
            let looked = self.look(tier, None, &asked).await?;
            let (mut moves, mut moving, mut wishes) = (Vec::new(), Vec::new(), Vec::new());
            for (at, sight) in std::mem::take(&mut round).into_iter().zip(&looked.sights) {
                match self.step(tier, sight, (action, by), looked.now).await? {
                    Step::Answer(answer) => set(answers, at, answer),
                    Step::Move(one, answer) => {
                        moves.push(*one);
                        moving.push((at, answer));
                    }
                    Step::Ask => wishes.push((at, sight.id)),
                }
            }
            for ((at, answer), done) in moving.into_iter().zip(self.commit(tier, moves).await?) {
                if done { set(answers, at, answer) } else { round.push(at) }
            }
            if matches!(action, Action::RanInline { .. }) {
                self.keep_within_bounds(tier, &looked.sights).await?;
            }
            if !wishes.is_empty() {
                let mut args = Args::new();
                wishes.iter().for_each(|(_, id)| args.push(*id.as_bytes()));
                let answer = self.link.script(Script::Wish, &prefix(tier), Lane::Rest, args).await?;
                let mut values = Values::of(answer, Script::Wish.op(), self.link.place())?;
                for (at, _) in wishes {
                    if values.int()? == 1 { set(answers, at, Acted::Asked) } else { round.push(at) }
                }
            }
        }
        Err(self.contended("change jobs"))
    }

    async fn step(
        &self,
        tier: &Tier,
        sight: &Sight,
        (action, by): (Action, &Actor),
        now: Timestamp,
    ) -> Result<Step, StoreError> {
        let (Some(job), Some(state)) = (sight.job(), sight.state()) else {
            return Ok(Step::Answer(Acted::NotFound));
        };
        let refused = Ok(Step::Answer(Acted::Refused(state)));
        match action {
            Action::Retry => self.retry(tier, sight, job, state, now).await,
            Action::Cancel if state == State::Running => Ok(Step::Ask),
            Action::Cancel if state == State::Cancelled => Ok(Step::Answer(Acted::Unchanged(state))),
            Action::Cancel => {
                let Ok(to) = next(state, Event::Cancel) else { return refused };
                let mut story = job.story();
                let source = waiting(job, state, &story);
                end_waiting(&mut story, to, now);
                Ok(moved(Move::new(sight, &story, source, Target::Final, state, None, now), to))
            }
            Action::RanInline { .. } if state == State::Completed => {
                Ok(Step::Answer(Acted::Unchanged(state)))
            }
            // Nobody but its worker can run a canary.
            Action::RanInline { .. } if job.is_canary() => refused,
            Action::RanInline { ran } => {
                let Ok(to) = next(state, Event::RanInline) else { return refused };
                let mut story = job.story();
                let source = waiting(job, state, &story);
                story.tell(Attempt { ran: Some(ran), ..Attempt::outside(now, "inline", None) });
                make_available(&mut story); // a completed job's record says no more: its line in `completed` does
                let target = Target::Completed { ran, keyed: job.is_keyed() };
                Ok(moved(Move::new(sight, &story, source, target, state, Some(COMPLETED), now), to))
            }
            Action::HandOver { .. } if state != State::Scheduled => Ok(Step::Answer(Acted::Unchanged(state))),
            Action::HandOver { after } => {
                let mut story = job.story();
                let (source, due) = (elsewhere(job.sid, &story), now.plus(after));
                story.tell(Attempt::outside(now, "inline", by.reason.clone()));
                story.run_at = Some(due.ms());
                let (to, target) = if after.is_zero() {
                    make_available(&mut story);
                    (State::Available, Target::Tail)
                } else {
                    (State::Scheduled, Target::Due(due))
                };
                Ok(moved(Move::new(sight, &story, source, target, state, None, now), to))
            }
        }
    }

    /// A script trims one completed job for each that comes, but leaves those with keys to the client.
    async fn keep_within_bounds(&self, tier: &Tier, sights: &[Sight]) -> Result<(), StoreError> {
        let mut queues = std::collections::BTreeSet::new();
        for job in sights.iter().filter_map(Sight::job) {
            queues.insert(self.stream(tier, job.sid).await?.0);
        }
        for queue in queues {
            for _ in 0..sights.len() {
                if self.trim_keyed(tier, &queue, true).await? == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn retry(
        &self,
        tier: &Tier,
        sight: &Sight,
        job: &Stored,
        state: State,
        now: Timestamp,
    ) -> Result<Step, StoreError> {
        if matches!(state, State::Available | State::Running) {
            return Ok(Step::Answer(Acted::Unchanged(state)));
        }
        if next(state, Event::RunNow).is_err() {
            return Ok(Step::Answer(Acted::Refused(state)));
        }
        if state.is_final() && job.is_canary() {
            return Ok(Step::Answer(Acted::Refused(state)));
        }
        let mut story = job.story();
        let source = elsewhere(job.sid, &story);
        let (mut fresh, mut holding) = (None, None);
        if state.is_final() {
            if let Some(unique) = job.extras.as_ref().and_then(|extras| extras.unique.as_ref()) {
                match self.may_hold(tier, sight.id, unique).await? {
                    None => return Ok(Step::Answer(Acted::Refused(state))),
                    Some(expected) => holding = Some((unique.key.clone(), expected)),
                }
            }
            // A fresh set of attempts; and whoever wants it now does not want it expired again.
            (story.failures, story.crashes) = (0, 0);
            (story.crash_mark, story.charged_at) = (None, None);
            let mut without = job.clone();
            without.expires_at = None;
            fresh = Some(without);
        }
        story.run_at = Some(now.ms());
        make_available(&mut story);
        let one = match fresh {
            Some(job) => {
                let found = Some(super::record::Found::Job(Box::new(job)));
                let sight = Sight { id: sight.id, found, completed: None, stands: false, wish: false };
                Move::new(&sight, &story, source, Target::Tail, state, None, now)
            }
            None => Move::new(sight, &story, source, Target::Tail, state, None, now),
        };
        let Some(mut one) = one else { return Ok(Step::Answer(Acted::NotFound)) };
        if let Some((key, expected)) = holding {
            one = one.holding(&key, &expected);
        }
        Ok(Step::Move(Box::new(one), Acted::Done(State::Available)))
    }

    /// A write that changes nothing, and the time.
    pub(super) async fn try_write(&self, tier: &Tier, probe: Script) -> Result<Timestamp, StoreError> {
        let answer: redis::Value = self.link.script(probe, &prefix(tier), Lane::Beat, Args::new()).await?;
        let now = super::value::int(&answer).ok_or_else(|| strange("probe", self.link.place()))?;
        Ok(Timestamp::from_ms(now))
    }
}
