//! Which queues are paused. `paused` tells claims until when, `pauses` tells people the rest.

use deadpool_redis::redis;

use super::link::Lane;
use super::record::read_pause;
use super::scripts::{Args, Script};
use super::value::{Values, damaged};
use super::{RedisStore, prefix};
use crate::names::{Queue, Tier};
use crate::store::meaning::pause_detail;
use crate::store::{Actor, ErrorKind, MAX_PAUSES, Pause, Paused, StoreError};

impl RedisStore {
    pub(super) async fn pause_queue(
        &self,
        tier: &Tier,
        queue: &Queue,
        pause: Option<Pause>,
        by: &Actor,
    ) -> Result<Option<Paused>, StoreError> {
        let op = Script::Pause.op();
        let (event, detail) = pause_detail(queue, pause);
        let span = pause.and_then(|pause| pause.for_);
        let args = Args::new()
            .arg(queue.as_str())
            .number(u8::from(pause.is_some()))
            .arg(span.map_or(String::new(), |span| span.as_millis().to_string()))
            .arg(self.json(op, by)?)
            .arg(self.line(op, event, by, &detail)?)
            .number(MAX_PAUSES);
        let answer = self.link.script(Script::Pause, &prefix(tier), Lane::Rest, args).await?;
        let mut values = Values::of(answer, op, self.link.place())?;
        if values.int()? == 0 {
            let detail = format!("{MAX_PAUSES} queues are paused already");
            return Err(self.link.error(op, ErrorKind::Refused, detail).hint("resume some of them first"));
        }
        values.bytes()?.map(|bytes| self.paused(op, queue.clone(), &bytes)).transpose()
    }

    pub(super) async fn read_pauses(&self, tier: &Tier) -> Result<Vec<Paused>, StoreError> {
        let (op, place) = ("list pauses", self.link.place());
        let now = self.now(op).await?;
        let mut ask = redis::cmd("HGETALL");
        ask.arg(format!("{}pauses", prefix(tier)));
        let all = super::read::flat(self.link.command(op, Lane::Rest, &ask).await?);
        let mut found = Vec::with_capacity(all.len() / 2);
        for pair in all.chunks_exact(2) {
            let [name, bytes] = pair else { continue };
            let queue = std::str::from_utf8(name).ok().and_then(|name| Queue::stored(name).ok());
            let Some(queue) = queue else { return Err(super::value::strange(op, place)) };
            let paused = self.paused(op, queue, bytes)?;
            if paused.until.is_none_or(|until| until > now) {
                found.push(paused);
            }
        }
        found.sort_by(|a, b| a.queue.cmp(&b.queue));
        Ok(found)
    }

    fn paused(&self, op: &'static str, queue: Queue, bytes: &[u8]) -> Result<Paused, StoreError> {
        let (at, until, by) = read_pause(bytes).map_err(|error| damaged(op, self.link.place(), &error))?;
        let by =
            serde_json::from_slice(by).map_err(|error| self.link.error(op, ErrorKind::Corrupt, error))?;
        Ok(Paused { queue, by, at, until })
    }
}
