//! The verdict on a release, as a value, and the plain words for it.

use std::fmt;

use serde::{Serialize, Serializer};

use super::exact::{self, CONFIDENCE};
use super::sprt::Count;
use crate::names::{Kind, Queue, WorkerName};

/// What evidence says; the worst of them decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It is as good as usual.
    Pass,
    /// No job can or did prove it: decoding alone covers it. It is named wherever a release passes.
    Uncovered,
    /// Not decided.
    Pending,
    /// It fails, and so does the release that it replaces: going back would not help. Hold.
    Environment,
    /// It fails.
    Fail,
}

/// What was judged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Everything together.
    All,
    /// The workers that are there at all.
    Crew,
    /// A queue: whether anybody serves it.
    Queue(Queue),
    /// A kind on all workers.
    Kind(Kind),
    /// A worker with all its kinds.
    Worker(WorkerName),
    /// A kind on one worker.
    Pair(Kind, WorkerName),
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Crew => f.write_str("workers"),
            Self::Queue(queue) => write!(f, "queue/{queue}"),
            Self::Kind(kind) => write!(f, "kind/{kind}"),
            Self::Worker(worker) => write!(f, "worker/{worker}"),
            Self::Pair(kind, worker) => write!(f, "kind/{kind}/worker/{worker}"),
        }
    }
}

impl Serialize for Stream {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What was found of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Of which.
    pub stream: Stream,
    /// What.
    pub decision: Decision,
    /// First attempts and canaries that it rests on.
    pub attempts: u64,
    /// How many of them failed.
    pub failed: u64,
    /// One plain sentence.
    pub output: String,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What follows from all findings.
    pub decision: Decision,
    /// One plain sentence.
    pub output: String,
    /// Of every kind and worker; of a kind on one worker only when something is wrong with it.
    pub findings: Vec<Finding>,
    /// Kinds that no job has proved, and nobody waived.
    pub uncovered: Vec<Kind>,
    /// Kinds that no job has proved, and somebody waived.
    pub waived: Vec<Kind>,
}

impl Verdict {
    /// What was found of a stream.
    #[must_use]
    pub fn of(&self, stream: &Stream) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.stream == *stream)
    }
}

// ---- words

/// `15 of 15, failure rate below 18 % (95 %)`
pub(super) fn bound(count: Count) -> String {
    let most = exact::upper_bound(count.failed, count.all(), CONFIDENCE);
    let (ok, all) = (number(count.ok), number(count.all()));
    format!("{ok} of {all}, failure rate below {} ({})", percent(most), percent(CONFIDENCE))
}

/// `3 of 3 first attempts failed (r-2030: 4 of 1,000; p < 0.001)`
pub(super) fn compared(count: Count, stable: &str, past: Count, ill: bool) -> String {
    let failed = format!("{} of {} first attempts failed", number(count.failed), number(count.all()));
    if past.all() == 0 {
        return format!("{failed} ({stable} has no record of it)");
    }
    // Of a run that ended when it was bad enough: it explains, and does not decide.
    let p = exact::fisher(count.failed, count.all(), past.failed, past.all());
    let ill = if ill { ", which is ill itself" } else { "" };
    format!("{failed} ({stable}: {} of {}{ill}; {})", number(past.failed), number(past.all()), chance(p))
}

pub(super) fn chance(p: f64) -> String {
    match p {
        p if p < 0.001 => "p < 0.001".to_owned(),
        p if p < 0.1 => format!("p = {p:.3}"),
        p => format!("p = {p:.1}"),
    }
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent < 10.0 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

/// With commas between thousands.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Up to three of them, and how many more.
pub(super) fn some<T: fmt::Display>(things: &[T], between: &str) -> String {
    const SHOWN: usize = 3;
    let mut words: Vec<String> = things.iter().take(SHOWN).map(ToString::to_string).collect();
    if things.len() > SHOWN {
        words.push(format!("{} more", things.len() - SHOWN));
    }
    words.join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_plain() {
        assert_eq!(bound(Count { ok: 15, failed: 0 }), "15 of 15, failure rate below 18 % (95 %)");
        assert_eq!(bound(Count { ok: 2_990, failed: 10 }), "2,990 of 3,000, failure rate below 0.6 % (95 %)");
        let past = Count { ok: 996, failed: 4 };
        assert_eq!(
            compared(Count { ok: 0, failed: 3 }, "r-2030", past, false),
            "3 of 3 first attempts failed (r-2030: 4 of 1,000; p < 0.001)"
        );
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
    }
}
