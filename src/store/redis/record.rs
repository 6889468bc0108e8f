//! How a job and what hangs on it are written in Redis: bytes at fixed places, so that a script reads what it needs
//! without parsing the rest.
//!
//! | bytes | of a job |
//! |---|---|
//! | 0–5, 6–11 | where the numbers of its insert began; when it was inserted (ms). The script puts them in |
//! | 12–13 | its place in that insert: the sum is its number, and its place in the log |
//! | 14 | flags |
//! | 15–16, 17 | its stream (queue and kind); its priority + 100 |
//! | 18–21, 22–27, 28 | when it is cold: its revision, its place in a ready list, its state |
//!
//! A *hot* job was inserted and never did anything but run: its record is written once. Whatever else happens makes it
//! *cold*: its story follows as JSON. Then come the version, the expiry, the extras and the arguments.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{JobId, Nonce};
use crate::job::new::{Expiry, Extras};
use crate::job::record::{Attempt, remember};
use crate::job::{Args, NewJob, Parked, State, When};
use crate::names::{Release, WorkerName};

const COLD: u8 = 1;
const EXPIRES_AT: u8 = 2;
const EXPIRES_AFTER: u8 = 4;
const EXTRAS: u8 = 8;
/// An ended job that is gone; its idempotency key is remembered.
const REMEMBERED: u8 = 128;
/// Jobs in a chunk of the log: with its header one fits into 8 KiB.
pub(super) const CHUNK: u64 = 511;
/// Length of what every record begins with.
const HEAD: usize = 18;
/// Length of what a script puts in front of a new record.
const STAMP: usize = 12;

/// The story of a job that left the fast path.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Story {
    #[serde(skip)]
    pub(super) revision: u32,
    #[serde(skip)]
    pub(super) place: u64,
    #[serde(skip)]
    pub(super) state: Option<State>,
    #[serde(rename = "f", skip_serializing_if = "is_zero")]
    pub(super) failures: u32,
    #[serde(rename = "c", skip_serializing_if = "is_zero")]
    pub(super) crashes: u32,
    #[serde(rename = "cm", skip_serializing_if = "Option::is_none")]
    pub(super) crash_mark: Option<u64>,
    #[serde(rename = "ra", skip_serializing_if = "Option::is_none")]
    pub(super) run_at: Option<i64>,
    #[serde(rename = "fa", skip_serializing_if = "Option::is_none")]
    pub(super) finished_at: Option<i64>,
    #[serde(rename = "ca", skip_serializing_if = "Option::is_none")]
    pub(super) claimed_at: Option<i64>,
    #[serde(rename = "us", skip_serializing_if = "Option::is_none")]
    pub(super) ran_us: Option<u64>,
    #[serde(rename = "w", skip_serializing_if = "Option::is_none")]
    pub(super) worker: Option<WorkerName>,
    #[serde(rename = "r", skip_serializing_if = "Option::is_none")]
    pub(super) release: Option<Release>,
    /// The lease under which it was settled last, in hex.
    #[serde(rename = "n", skip_serializing_if = "Option::is_none")]
    pub(super) nonce: Option<String>,
    #[serde(rename = "p", skip_serializing_if = "Option::is_none")]
    pub(super) parked: Option<Parked>,
    #[serde(rename = "pb", skip_serializing_if = "Option::is_none")]
    pub(super) parked_by: Option<String>,
    /// When it was charged with a crash last (ms): it queues up behind the other suspects.
    #[serde(rename = "cd", skip_serializing_if = "Option::is_none")]
    pub(super) charged_at: Option<i64>,
    #[serde(rename = "h", skip_serializing_if = "Vec::is_empty")]
    pub(super) history: Vec<Attempt>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A job as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) seq: u64,
    pub(super) enqueued_at: Timestamp,
    pub(super) sid: u16,
    pub(super) priority: i8,
    pub(super) version: u32,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) extras: Option<Extras>,
    pub(super) args: Args,
    pub(super) story: Option<Story>,
    /// The first bytes as they were read: what a later write expects to find.
    pub(super) prefix: Vec<u8>,
}

/// A record that is there and is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("a stored job cannot be read: {0}")]
pub(super) struct Damaged(&'static str);

fn six(n: u64) -> [u8; 6] {
    let [_, _, rest @ ..] = n.to_be_bytes();
    rest
}

/// Reads fields one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Damaged("it is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }
    fn number(&mut self, n: usize) -> Result<u64, Damaged> {
        Ok(self.take(n)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }
    fn byte(&mut self) -> Result<u8, Damaged> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }
    fn time(&mut self) -> Result<Timestamp, Damaged> {
        Ok(Timestamp::from_ms(i64::try_from(self.number(6)?).unwrap_or(i64::MAX)))
    }
    fn json<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Damaged> {
        let n = usize::try_from(self.number(4)?).unwrap_or(usize::MAX);
        serde_json::from_slice(self.take(n)?).map_err(|_| Damaged("its JSON is none"))
    }
    fn text(&mut self) -> Result<&'a str, Damaged> {
        let n = usize::from(self.byte()?);
        std::str::from_utf8(self.take(n)?).map_err(|_| Damaged("a name is no text"))
    }
}

fn put_json<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    // Neither has anything in it that JSON could not hold.
    let text = serde_json::to_vec(value).unwrap_or_default();
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&text);
}

fn put_version(out: &mut Vec<u8>, version: u32) {
    match u8::try_from(version) {
        Ok(small) if small < 255 => out.push(small),
        _ => {
            out.push(255);
            out.extend_from_slice(&version.to_be_bytes());
        }
    }
}

/// A new job, without the stamp: what `insert` is given. A job with a time is cold from the start.
pub(super) fn fresh(job: &NewJob, index: usize, sid: u16) -> Vec<u8> {
    let extras = !job.extras.is_empty();
    let mut out =
        Vec::with_capacity(HEAD - STAMP + 1 + job.args.as_str().len() + if extras { 128 } else { 8 });
    out.extend_from_slice(&u16::try_from(index).unwrap_or(u16::MAX).to_be_bytes());
    let story = match job.when {
        When::Now => None,
        When::After(delay) => Some((true, delay_ms(delay))),
        When::At(time) => Some((false, time.ms())),
    };
    let expiry = match job.expiry {
        None => None,
        Some(Expiry::After(span)) => Some((EXPIRES_AFTER, delay_ms(span))),
        Some(Expiry::At(time)) => Some((EXPIRES_AT, time.ms())),
    };
    let mut flags = if extras { EXTRAS } else { 0 } | expiry.map_or(0, |(flag, _)| flag);
    if story.is_some() {
        flags |= COLD;
    }
    out.push(flags);
    out.extend_from_slice(&sid.to_be_bytes());
    out.push((i16::from(job.priority) + 100).to_le_bytes()[0]);
    if let Some((relative, at)) = story {
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&[0; 6]);
        out.push(State::Scheduled.code());
        // Relative times are counted from the stamp.
        put_json(
            &mut out,
            &if relative {
                Planned { after: Some(at), at: None }
            } else {
                Planned { after: None, at: Some(at) }
            },
        );
    }
    put_version(&mut out, job.version);
    if let Some((_, at)) = expiry {
        out.extend_from_slice(&six(at.unsigned_abs()));
    }
    if extras {
        put_json(&mut out, &job.extras);
    }
    out.extend_from_slice(job.args.as_str().as_bytes());
    out
}

/// When a new job may first run; read as a [`Story`] it has no other field.
#[derive(Debug, Serialize, Deserialize, Default)]
struct Planned {
    #[serde(rename = "da", skip_serializing_if = "Option::is_none", default)]
    after: Option<i64>,
    #[serde(rename = "ra", skip_serializing_if = "Option::is_none", default)]
    at: Option<i64>,
}

/// A duration in whole milliseconds.
pub(super) fn delay_ms(delay: Duration) -> i64 {
    i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)
}

/// What `jobs` holds under an id.
#[derive(Debug)]
pub(super) enum Found {
    Job(Box<Stored>),
    /// Gone; the digest of its content.
    Remembered([u8; 16]),
}

pub(super) fn read(bytes: &[u8]) -> Result<Found, Damaged> {
    if bytes.get(14).is_some_and(|flags| flags & REMEMBERED != 0) {
        let digest = bytes.get(15..31).and_then(|digest| digest.try_into().ok());
        return digest.map(Found::Remembered).ok_or(Damaged("a digest is cut short"));
    }
    Stored::read(bytes).map(|job| Found::Job(Box::new(job)))
}

/// What stays in the place of a completed job: its content, in short, until its key is forgotten.
pub(super) fn remembered(digest: &[u8], until: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(31);
    out.extend_from_slice(&six(until.ms().unsigned_abs()));
    out.extend_from_slice(&[0; 8]);
    out.push(REMEMBERED);
    out.extend_from_slice(digest);
    out
}

impl Stored {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut from = Reader(bytes);
        let base = from.number(6)?;
        let enqueued_at = from.time()?;
        let seq = base + from.number(2)?;
        let flags = from.byte()?;
        let sid = u16::try_from(from.number(2)?).unwrap_or_default();
        let priority = i8::try_from(i16::from(from.byte()?) - 100).unwrap_or_default();
        let mut story = None;
        if flags & COLD != 0 {
            let (revision, place, code) = (from.number(4)?, from.number(6)?, from.byte()?);
            let at = from.0;
            let mut told: Story = from.json()?;
            if revision == 0 {
                let planned: Planned = Reader(at).json()?;
                told.run_at =
                    planned.after.map(|after| enqueued_at.ms().saturating_add(after)).or(planned.at);
            }
            told.revision = u32::try_from(revision).unwrap_or_default();
            told.place = place;
            told.state = State::from_code(i64::from(code));
            if revision == 0 && told.state == Some(State::Available) {
                told.run_at = None; // its time had passed when it was inserted
            }
            story = Some(told);
        }
        let version = match from.byte()? {
            255 => u32::try_from(from.number(4)?).unwrap_or_default(),
            small => u32::from(small),
        };
        let expires_at = if flags & EXPIRES_AT != 0 {
            Some(from.time()?)
        } else if flags & EXPIRES_AFTER != 0 {
            Some(enqueued_at.plus(Duration::from_millis(from.number(6)?)))
        } else {
            None
        };
        let extras = if flags & EXTRAS != 0 { Some(from.json()?) } else { None };
        let args = String::from_utf8(from.0.to_vec()).map_err(|_| Damaged("its arguments are no text"))?;
        let prefix = bytes.get(..if story.is_some() { HEAD + 4 } else { HEAD }).unwrap_or_default().to_vec();
        Ok(Self {
            seq,
            enqueued_at,
            sid,
            priority,
            version,
            expires_at,
            extras,
            args: Args::from_store(args),
            story,
            prefix,
        })
    }

    /// As bytes, with its next revision.
    pub(super) fn write(&self, story: &Story) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.args.as_str().len());
        out.extend_from_slice(self.prefix.get(..14).unwrap_or_default());
        let mut flags = COLD;
        if self.expires_at.is_some() {
            flags |= EXPIRES_AT;
        }
        let extras = self.extras.as_ref().filter(|extras| !extras.is_empty());
        if extras.is_some() {
            flags |= EXTRAS;
        }
        out.push(flags);
        out.extend_from_slice(&self.sid.to_be_bytes());
        out.push((i16::from(self.priority) + 100).to_le_bytes()[0]);
        out.extend_from_slice(&(story.revision + 1).to_be_bytes());
        out.extend_from_slice(&six(story.place));
        out.push(story.state.unwrap_or(State::Available).code());
        put_json(&mut out, story);
        put_version(&mut out, self.version);
        if let Some(at) = self.expires_at {
            out.extend_from_slice(&six(at.ms().unsigned_abs()));
        }
        if let Some(extras) = extras {
            put_json(&mut out, extras);
        }
        out.extend_from_slice(self.args.as_str().as_bytes());
        out
    }

    /// Its story so far; a hot one has the beginning of one.
    pub(super) fn story(&self) -> Story {
        self.story.clone().unwrap_or_else(|| Story {
            place: self.seq,
            state: Some(State::Available),
            ..Story::default()
        })
    }

    /// The state that the record itself tells: an available one may run, or be done.
    pub(super) fn written_state(&self) -> State {
        self.story.as_ref().and_then(|story| story.state).unwrap_or(State::Available)
    }

    /// Since when it may run, or from when on.
    pub(super) fn due_at(&self) -> Timestamp {
        let planned = self.story.as_ref().and_then(|story| story.run_at);
        planned.map_or(self.enqueued_at, Timestamp::from_ms)
    }

    pub(super) fn is_keyed(&self) -> bool {
        self.extras.as_ref().is_some_and(is_keyed)
    }

    pub(super) fn is_canary(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.canary.is_some())
    }

    pub(super) fn slot(&self) -> u64 {
        slot(self.sid, self.is_keyed(), self.seq)
    }
}

/// Whether something must be remembered when the job is gone.
pub(super) fn is_keyed(extras: &Extras) -> bool {
    extras.idempotency_key.is_some() || extras.unique.is_some()
}

impl Story {
    /// Its turn among the suspects: at its place while it is new there, behind them all after a charge, so that the same one is
    /// not charged every time a whole fleet dies.
    pub(super) fn turn(&self) -> u64 {
        const BEHIND_EVERY_PLACE: u64 = 1 << 51;
        self.charged_at.map_or(self.place, |at| BEHIND_EVERY_PLACE + at.unsigned_abs())
    }

    /// One more attempt.
    pub(super) fn tell(&mut self, attempt: Attempt) {
        remember(&mut self.history, attempt);
    }
}

/// Most streams (queue and kind) of a tier: what fits into a [`slot`].
pub(super) const MAX_STREAMS: u16 = 16_383;

/// What a claimed job carries, so that settling it needs no look: 14 bits of stream, one for "has keys", 49 of number.
pub(super) fn slot(sid: u16, keyed: bool, seq: u64) -> u64 {
    u64::from(sid) << 50 | u64::from(keyed) << 49 | seq & ((1 << 49) - 1)
}

/// The parts of a [`slot`].
pub(super) fn unslot(slot: u64) -> (u16, bool, u64) {
    (u16::try_from(slot >> 50).unwrap_or_default(), slot >> 49 & 1 == 1, slot & ((1 << 49) - 1))
}

/// What is kept of the completing attempt.
#[derive(Debug, Clone)]
pub(super) struct Completed {
    pub(super) ran: Duration,
    pub(super) nonce: Nonce,
    pub(super) claimed_at: Timestamp,
    pub(super) finished_at: Timestamp,
    pub(super) worker: Option<WorkerName>,
    pub(super) release: Option<Release>,
}

impl Completed {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut from = Reader(bytes);
        Ok(Self {
            ran: Duration::from_micros(from.number(4)?),
            nonce: nonce(from.take(16)?)?,
            claimed_at: from.time()?,
            finished_at: from.time()?,
            worker: WorkerName::new(from.text()?).ok(),
            release: Release::new(from.text()?).ok(),
        })
    }
}

fn nonce(bytes: &[u8]) -> Result<Nonce, Damaged> {
    bytes.try_into().map(Nonce::from_bytes).map_err(|_| Damaged("a nonce is cut short"))
}

/// A lease, and what it holds.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) suspect: bool,
    pub(super) claimed_at: Timestamp,
    pub(super) incarnation: Nonce,
    pub(super) worker: Option<WorkerName>,
    pub(super) release: Option<Release>,
    pub(super) held: Vec<JobId>,
}

impl Lease {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut from = Reader(bytes);
        Ok(Self {
            suspect: from.byte()? == 1,
            claimed_at: from.time()?,
            incarnation: nonce(from.take(16)?)?,
            worker: WorkerName::new(from.text()?).ok(),
            release: Release::new(from.text()?).ok(),
            held: from.0.chunks_exact(16).filter_map(JobId::from_slice).collect(),
        })
    }
}

/// A worker's presence: incarnation, when it was seen, since when, and what it said.
pub(super) fn read_presence(bytes: &[u8]) -> Result<(Nonce, Timestamp, Timestamp, &[u8]), Damaged> {
    let mut from = Reader(bytes);
    Ok((nonce(from.take(16)?)?, from.time()?, from.time()?, from.0))
}

/// A versioned record: version, when it was written, until when (0: for good), and its value.
pub(super) fn read_versioned(bytes: &[u8]) -> Result<(u64, Timestamp, String), Damaged> {
    let mut from = Reader(bytes);
    let (version, at, _) = (from.number(6)?, from.time()?, from.number(6)?);
    Ok((version, at, String::from_utf8(from.0.to_vec()).map_err(|_| Damaged("a value is no text"))?))
}

/// A pause: since when, until when (0: for good), and by whom as JSON.
pub(super) fn read_pause(bytes: &[u8]) -> Result<(Timestamp, Option<Timestamp>, &[u8]), Damaged> {
    let mut from = Reader(bytes);
    let (at, until) = (from.time()?, from.time()?);
    Ok((at, Some(until).filter(|until| until.ms() > 0), from.0))
}

/// A line of the ledger: when, and the rest as JSON.
pub(super) fn read_entry(bytes: &[u8]) -> Result<(Timestamp, &[u8]), Damaged> {
    let mut from = Reader(bytes);
    Ok((from.time()?, from.0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::names::Kind;

    fn stamped(job: &NewJob) -> Vec<u8> {
        let mut bytes = six(700).to_vec();
        bytes.extend_from_slice(&six(1_768_036_445_123));
        bytes.extend_from_slice(&fresh(job, 3, 9));
        bytes
    }

    #[test]
    fn a_job_survives_its_bytes_hot_and_cold() {
        let mut job = NewJob::raw(Kind::new("k").unwrap(), Args::parse(br#"{"a":"\u0000"}"#).unwrap())
            .expires_in(Duration::from_secs(5))
            .tag("a", "b");
        (job.priority, job.version) = (-9, 300);
        let hot = Stored::read(&stamped(&job)).unwrap();
        assert_eq!((hot.seq, hot.sid, hot.priority, hot.version), (703, 9, -9, 300));
        assert_eq!(hot.expires_at, Some(hot.enqueued_at.plus(Duration::from_secs(5))));
        assert_eq!(hot.extras.as_ref(), Some(&job.extras));
        assert!(hot.story.is_none() && hot.prefix.len() == 18 && !hot.is_keyed());
        let mut story = hot.story();
        (story.failures, story.state, story.run_at) = (2, Some(State::Retryable), Some(7));
        let cold = Stored::read(&hot.write(&story)).unwrap();
        let told = cold.story.clone().unwrap();
        assert_eq!(
            (told.failures, told.state, told.run_at, told.revision, told.place),
            (2, Some(State::Retryable), Some(7), 1, 703)
        );
        assert_eq!((cold.seq, cold.args.as_str(), cold.expires_at), (703, hot.args.as_str(), hot.expires_at));
        assert_eq!(cold.prefix.len(), 22);
    }

    #[test]
    fn a_delay_counts_from_the_stamp() {
        let job = NewJob::raw(Kind::new("k").unwrap(), Args::default()).delay(Duration::from_secs(2));
        let story = Stored::read(&stamped(&job)).unwrap().story.unwrap();
        assert_eq!((story.state, story.run_at), (Some(State::Scheduled), Some(1_768_036_447_123)));
    }

    #[test]
    fn an_ordinary_job_costs_nineteen_bytes() {
        let job = NewJob::raw(Kind::new("k").unwrap(), Args::default());
        assert_eq!(stamped(&job).len(), 19 + job.args.as_str().len());
    }

    #[test]
    fn what_is_cut_short_is_damage_and_no_panic() {
        let whole = stamped(
            &NewJob::raw(Kind::new("k").unwrap(), Args::default())
                .tag("a", "b")
                .delay(Duration::from_secs(1)),
        );
        for n in 0..whole.len().saturating_sub(3) {
            assert!(read(whole.get(..n).unwrap()).is_err(), "{n}");
        }
        assert_eq!(unslot(slot(77, true, 12_345)), (77, true, 12_345));
        match read(&remembered(&[7; 16], Timestamp::from_ms(5))).unwrap() {
            Found::Remembered(digest) => assert_eq!(digest, [7; 16]),
            other => panic!("{other:?}"),
        }
    }
}
